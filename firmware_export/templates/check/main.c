/* Runs the policy here: prints the self-test, every answer and the last state as bits, and counts instructions.
 *
 * Lines: `S` the self-test, `B` code of the loader, `A` code and answer of a step, `H` the last state, `T` ticks of an
 * empty loop, ticks of as many inferences, and how many. With -DTRACE it only infers, to be traced. */
#define @NAME@_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"
#include "steps.h"

#if defined(ON_HOST) || defined(ON_RISCV)
#include <stdio.h>
#include <stdlib.h>
static void print(const char *text) { fputs(text, stdout); }
static void leave(void) { exit(0); }
#else
static int semihost(int operation, const void *argument)
{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
static void print(const char *text) { semihost(4, text); }
static void leave(void)
{
    static const uint32_t done[2] = {0x20026u, 0u};
    semihost(0x20, done);
    for (;;) {
    }
}
#endif

#if defined(ON_HOST)
#define WHOLE 0xffffffffu
static void start_clock(void) {}
static uint32_t ticks(void) { return 0u; }
#elif defined(ON_RISCV)
#define WHOLE 0xffffffffu
static void start_clock(void) {}
static uint32_t ticks(void)
{
    uint32_t count;
    __asm volatile(".4byte 0xc0202573\n\tmv %0, a0" : "=r"(count) : : "a0", "memory"); /* csrr a0, instret */
    return count;
}
#else
/* With -icount shift=0 an instruction takes a nanosecond, and SysTick counts 25 MHz: 40 instructions a tick. */
#define WHOLE 0x00ffffffu /* bits of the counter */
static void start_clock(void)
{
    *(volatile uint32_t *)0xe000e014u = WHOLE;
    *(volatile uint32_t *)0xe000e018u = 0u;
    *(volatile uint32_t *)0xe000e010u = 5u;
}
static uint32_t ticks(void) { return WHOLE - *(volatile uint32_t *)0xe000e018u; }
#endif

static @name@_state state;
static float action[@NAME@_ACTION_SIZE];

__attribute__((noinline)) int one(const float *obs);
__attribute__((noinline)) int one(const float *obs) { return @name@_infer(&state, &state, obs, action); }

__attribute__((noinline)) int none(const float *obs);
__attribute__((noinline)) int none(const float *obs)
{
    __asm volatile("" : : "r"(obs) : "memory");
    return 0;
}

#if defined(TRACE)
int main(void)
{
    @name@_reset(&state);
    for (int i = 0; i < TRACE; i++) {
        one(&steps_obs[(i % STEPS) * @NAME@_OBS_SIZE]);
    }
    print("");
    start_clock();
    (void)ticks();
    leave();
    return 0;
}
#else
static void hex(uint32_t value)
{
    char text[10];
    for (int i = 0; i < 8; i++) {
        text[i] = "0123456789abcdef"[(value >> (28 - 4 * i)) & 15u];
    }
    text[8] = ' ';
    text[9] = 0;
    print(text);
}

static void bits(float number)
{
    @name@_bits x;
    x.number = number;
    hex(x.bits);
}

int main(void)
{
    const @name@_weights *loaded = 0;
    print("S ");
    bits(@name@_selftest());
    print("\nB ");
    hex((uint32_t)@name@_load(steps_blob, (uint32_t)sizeof steps_blob, &loaded));
    print("\n");
    @name@_reset(&state);
    for (int step = 0; step < STEPS; step++) {
        print("A ");
        hex((uint32_t)one(&steps_obs[step * @NAME@_OBS_SIZE]));
        for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
            bits(action[i]);
        }
        print("\n");
    }
    print("H ");
    for (int i = 0; i < @NAME@_STATE_SIZE; i++) {
        bits(state.h[i]);
    }
    print("\n");
    start_clock();
    const uint32_t begin = ticks();
    for (int i = 0; i < COUNTED; i++) {
        none(&steps_obs[(i % STEPS) * @NAME@_OBS_SIZE]);
    }
    const uint32_t middle = ticks();
    for (int i = 0; i < COUNTED; i++) {
        one(&steps_obs[(i % STEPS) * @NAME@_OBS_SIZE]);
    }
    const uint32_t end = ticks();
    print("T ");
    hex((middle - begin) & WHOLE);
    hex((end - middle) & WHOLE);
    hex(COUNTED);
    print("\n");
    leave();
    return 0;
}
#endif
