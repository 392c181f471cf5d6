/* A control policy in C99: no libc, no allocation, no double, no state of its own.
 *
 * From @origin@
 *
 * In one C file write
 *     #define @NAME@_IMPLEMENTATION
 *     #include "@name@.h"
 * and include the header alone everywhere else. Keep one @name@_state per robot, reset it when the policy takes over,
 * and call @name@_infer @native_hz_text@ times a second. To refresh the action in between, infer into a spare state.
 *
@layout@
 *
 * @meaning@
 * Limits: @limits@
 */
#ifndef @NAME@_H
#define @NAME@_H

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_OBS_SIZE @inputs@
#define @NAME@_ACTION_SIZE @outputs@
#define @NAME@_STATE_SIZE @hidden@
#define @NAME@_NATIVE_HZ @native_hz@
#define @NAME@_PREVIOUS_ACTION_AT_RESET @reset_value@

enum { @NAME@_OK = 0, @NAME@_BAD_OBS = 1, @NAME@_BAD_STATE = 2, @NAME@_BAD_OUTPUT = 3 };

typedef struct {
    float h[@NAME@_STATE_SIZE];
} @name@_state;

/* The state of a robot that has not flown yet. */
void @name@_reset(@name@_state *state);

/* One step. `in` and `out` may be the same state.
 * Returns @NAME@_OK, or what was not finite; then neither `out` nor `action` is written. */
int @name@_infer(const @name@_state *in, @name@_state *out, const float obs[@NAME@_OBS_SIZE],
    float action[@NAME@_ACTION_SIZE]);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_H */

#if defined(@NAME@_IMPLEMENTATION) && !defined(@NAME@_IMPLEMENTED)
#define @NAME@_IMPLEMENTED

#include <stdint.h>

/* The results are the same on every machine only if the compiler keeps to the written order and rounding. */
#if defined(__clang__)
#if defined(__FAST_MATH__)
#error "compile @name@ without -ffast-math"
#endif
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#endif

@tables@
@initial@

typedef union {
    float number;
    uint32_t bits;
} @name@_bits;

/* By the bits of the exponent, because fast-math compilers take comparisons with NaN for constants. */
static int @name@_all_finite(const float *numbers, int size)
{
    for (int i = 0; i < size; i++) {
        @name@_bits x;
        x.number = numbers[i];
        if ((x.bits & 0x7f800000u) == 0x7f800000u) {
            return 0;
        }
    }
    return 1;
}

/* e^x = 2^k e^r, where k ln 2 is taken off in two parts to keep r exact, |r| <= ln(2) / 2, and a series does e^r. */
static inline float @name@_exp(float x)
{
    const float below = x < 88.0f ? x : 88.0f;
    const float within = below > -87.0f ? below : -87.0f;
    const float turns = within * 1.44269504f;
    const int32_t k = (int32_t)(turns + (turns < 0.0f ? -0.5f : 0.5f));
    const float r = (within - (float)k * 0.693359375f) + (float)k * 2.12194440e-4f;
    float sum = 1.0f / 5040.0f;
    sum = sum * r + 1.0f / 720.0f;
    sum = sum * r + 1.0f / 120.0f;
    sum = sum * r + 1.0f / 24.0f;
    sum = sum * r + 1.0f / 6.0f;
    sum = sum * r + 0.5f;
    sum = sum * r * r + r + 1.0f;
    @name@_bits power;
    power.bits = (uint32_t)(k + 127) << 23;
    return sum * power.number;
}

/* In both, adding 0 x changes no finite result and lets NaN and infinity through to the check of the outputs. */
static inline float @name@_sigmoid(float x)
{
    return 1.0f / (1.0f + @name@_exp(-x)) + 0.0f * x;
}

static inline float @name@_tanh(float x)
{
    const float e = @name@_exp(2.0f * x);
    return (e - 1.0f) / (e + 1.0f) + 0.0f * x;
}

/* Halving the exponent is right to 4 %; each of Newton's steps squares the error. Subnormals are scaled up first. */
static inline float @name@_sqrt(float x)
{
    if (!(x > 0.0f)) {
        return x == 0.0f ? x : (x - x) / (x - x); /* NaN */
    }
    const int subnormal = x < 1.17549435e-38f;
    const float scaled = subnormal ? x * 16777216.0f : x;
    @name@_bits root;
    root.number = scaled;
    root.bits = (root.bits >> 1) + 0x1fbd1df5u;
    float y = root.number;
    for (int i = 0; i < 3; i++) {
        y = 0.5f * (y + scaled / y);
    }
    return subnormal ? y / 4096.0f : y;
}

void @name@_reset(@name@_state *state)
{
    for (int i = 0; i < @NAME@_STATE_SIZE; i++) {
        state->h[i] = @name@_initial[i];
    }
}

int @name@_infer(const @name@_state *in, @name@_state *out, const float obs[@NAME@_OBS_SIZE],
    float action[@NAME@_ACTION_SIZE])
{
    if (!@name@_all_finite(obs, @NAME@_OBS_SIZE)) {
        return @NAME@_BAD_OBS;
    }
    if (!@name@_all_finite(in->h, @NAME@_STATE_SIZE)) {
        return @NAME@_BAD_STATE;
    }
@body@
    return @NAME@_OK;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#endif /* @NAME@_IMPLEMENTATION */
