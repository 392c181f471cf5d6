/* Reset of a Cortex-M with a floating-point unit: switch that on, fill the memory, run main. */
#include <stdint.h>

extern uint32_t stack_top, data_load, data_start, data_end, bss_start, bss_end;
int main(void);
void reset(void);
void fault(void);

void reset(void)
{
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* full access to coprocessors 10 and 11 */
    __asm volatile("dsb\n\tisb");
    const uint32_t *from = &data_load;
    for (uint32_t *to = &data_start; to < &data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &bss_start; to < &bss_end;) {
        *to++ = 0;
    }
    main();
    for (;;) {
    }
}

void fault(void)
{
    uint32_t exit_with_error[2] = {0x20026u, 1u};
    register uint32_t operation __asm("r0") = 0x20u;
    register const void *argument __asm("r1") = exit_with_error;
    __asm volatile("bkpt 0xab" : : "r"(operation), "r"(argument) : "memory");
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {&stack_top, reset, fault, fault, fault, fault, fault};
