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
@layout_text@
 *
 * @meaning@
 * Limits: @limits_text@
 *
 * Every sum takes its terms in the written order, each product and each sum is rounded to float, and nothing is
 * contracted or reordered: so every processor with IEEE floats gives the same bits.
 *
 * Before including it, these may be defined:
 *     @NAME@_IMPLEMENTATION    also the code; in exactly one C file
 *     @NAME@_NO_WEIGHTS        without weights: they come from a file, see @name@_load
 *     @NAME@_WEIGHT_SECTION    attributes of the weights, such as a memory section
 *     @NAME@_NOT_CONTRACTED    clang has been told -ffp-contract=off, which it wants to be under -ffast-math
 */
#ifndef @NAME@_H
#define @NAME@_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_SCHEMA_MAJOR @major@
#define @NAME@_SCHEMA_MINOR @minor@
#define @NAME@_OBS_SIZE @inputs@
#define @NAME@_ACTION_SIZE @outputs@
#define @NAME@_STATE_SIZE @hidden@
#define @NAME@_NATIVE_HZ @native_hz@
#define @NAME@_PREVIOUS_ACTION_AT_RESET @reset_value@
#define @NAME@_WEIGHTS_CRC @crc@
#define @NAME@_LAYOUT @layout@

enum {
    @NAME@_OK = 0,
    @NAME@_BAD_OBS = 1,    /* an observation is not finite, or beyond @largest@ */
    @NAME@_BAD_STATE = 2,  /* the same of the state */
    @NAME@_BAD_OUTPUT = 3, /* the answer might not be finite */
    @NAME@_NULL = 4,       /* a pointer is null */
    /* What @name@_load says of a file: */
    @NAME@_BAD_SIZE = 5,
    @NAME@_BAD_ALIGNMENT = 6, /* its address is no multiple of 4 */
    @NAME@_BAD_MAGIC = 7,
    @NAME@_BAD_VERSION = 8,
    @NAME@_BAD_HEADER = 9,  /* the CRC of its header */
    @NAME@_BAD_LAYOUT = 10, /* weights of another kind of policy */
    @NAME@_BAD_WEIGHTS = 11 /* the CRC of its weights */
};

typedef struct {
    float h[@room@];
} @name@_state;

/* Matrices are stored in blocks of 16 rows, the rest in blocks of 4 rows with zeros below; inside a block column
 * follows column. */
typedef struct {
@members@
} @name@_weights;

typedef struct {
    const char *name;
    const char *unit;
    const char *frame;
    uint16_t size;    /* numbers per sample */
    uint16_t history; /* samples, newest first */
    float scale;      /* factor that the caller applies */
    float clip;       /* magnitude that the caller clips to; 0: none */
    float delay;      /* age that the newest sample should have [s] */
} @name@_term;

typedef struct {
    const char *name;
    float scale;
    float offset; /* the robot does offset + scale * action */
} @name@_output;

typedef struct {
    const char *name;
    float value;
    const char *unit;
    uint8_t inside; /* 1: the network applies it; 0: the caller does */
} @name@_limit;

typedef struct {
    uint16_t schema_major;
    uint16_t schema_minor;
    const char *name;
    const char *origin;
    const char *robot;
    const char *architecture;
    const char *dtype;
    const char *activation;
    const char *meaning;
    uint32_t parameters;
    uint32_t weights_size;
    uint32_t weights_crc;
    uint32_t layout;
    uint16_t obs_size;
    uint16_t action_size;
    uint16_t state_size;
    uint16_t term_count;
    uint16_t limit_count;
    float native_hz;
    float action_low;
    float action_high;
    float previous_action_at_reset;
    const @name@_term *terms;
    const @name@_output *outputs;
    const @name@_limit *limits;
} @name@_info;

#ifndef @NAME@_NO_WEIGHTS
/* The state of a robot that has not flown yet. */
void @name@_reset(@name@_state *state);

/* One step. `in` and `out` may be the same state.
 * Returns @NAME@_OK, or what is wrong; then neither `out` nor `action` is written. */
int @name@_infer(const @name@_state *in, @name@_state *out, const float obs[@NAME@_OBS_SIZE],
    float action[@NAME@_ACTION_SIZE]);

/* The weights of this header. */
const @name@_weights *@name@_embedded(void);
#endif

/* Checks a file of weights in memory or flash, and points `weights` into it: nothing is copied, so it must stay.
 * Returns @NAME@_OK, or what is wrong; then `weights` is not written. */
int @name@_load(const void *file, uint32_t size, const @name@_weights **weights);

/* The same two functions with weights of your choice. */
void @name@_reset_with(const @name@_weights *w, @name@_state *state);
int @name@_infer_with(const @name@_weights *w, const @name@_state *in, @name@_state *out,
    const float obs[@NAME@_OBS_SIZE], float action[@NAME@_ACTION_SIZE]);

/* CRC-32 of weights as they are in memory now; compare with @NAME@_WEIGHTS_CRC. */
uint32_t @name@_crc(const @name@_weights *w);

const @name@_info *@name@_metadata(void);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_H */

#if defined(@NAME@_IMPLEMENTATION) && !defined(@NAME@_IMPLEMENTED)
#define @NAME@_IMPLEMENTED

@includes@
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "compile @name@ so that a float is computed as a float (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif
#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "the weights of @name@ are little-endian"
#endif

/* The results are the same on every machine only if the compiler keeps to the written order and rounding. */
#if defined(__clang__)
#if defined(__FAST_MATH__) && !defined(@NAME@_NOT_CONTRACTED)                                                          \
    && (defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__riscv_flen))
#error "clang fuses under -ffast-math whatever a file says: add -ffp-contract=off -D@NAME@_NOT_CONTRACTED for this file"
#endif
#pragma float_control(precise, on, push)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off", "no-tree-loop-distribute-patterns")
#if defined(__OPTIMIZE_SIZE__)
#pragma GCC optimize("O2") /* a third faster for 500 bytes */
#endif
#endif

#if defined(__GNUC__)
#define @NAME@_NOINLINE __attribute__((noinline))
#else
#define @NAME@_NOINLINE
#endif
#ifndef @NAME@_WEIGHT_SECTION
#define @NAME@_WEIGHT_SECTION
#endif

typedef char @name@_weights_have_no_gaps[sizeof(@name@_weights) == @weights_bytes@u ? 1 : -1];

typedef union {
    float number;
    uint32_t bits;
} @name@_bits;

/* Finite and below @largest@: from there on nothing overflows. By the bits of the exponent, because fast-math compilers
 * take comparisons with NaN for constants. */
static inline int @name@_fine(float number)
{
    @name@_bits x;
    x.number = number;
    return (x.bits << 1) < @twice_largest@;
}

static @NAME@_NOINLINE int @name@_all_fine(const float *numbers, int size)
{
    const float *const end = numbers + size;
    if ((size & 1) != 0 && !@name@_fine(*numbers++)) {
        return 0;
    }
    for (; numbers != end; numbers += 2) {
        if (!@name@_fine(numbers[0]) || !@name@_fine(numbers[1])) {
            return 0;
        }
    }
    return 1;
}

@functions@

@NAME@_NOINLINE int @name@_infer_with(const @name@_weights *w, const @name@_state *in, @name@_state *out,
    const float obs[@NAME@_OBS_SIZE], float action[@NAME@_ACTION_SIZE])
{
    if (!w || !in || !out || !obs || !action) {
        return @NAME@_NULL;
    }
    if (!@name@_all_fine(obs, @NAME@_OBS_SIZE)) {
        return @NAME@_BAD_OBS;
    }
    if (!@name@_all_fine(in->h, @NAME@_STATE_SIZE)) {
        return @NAME@_BAD_STATE;
    }
@work@
@declarations@
@body@
    return @NAME@_OK;
}

void @name@_reset_with(const @name@_weights *w, @name@_state *state)
{
@unused@    for (int i = 0; i < @room@; i++) {
        state->h[i] = @initial@;
    }
}

static uint32_t @name@_crc_of(const unsigned char *bytes, uint32_t size)
{
    uint32_t crc = 0xffffffffu;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

uint32_t @name@_crc(const @name@_weights *w)
{
    return @name@_crc_of((const unsigned char *)w, (uint32_t)sizeof *w);
}

static uint32_t @name@_word(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

int @name@_load(const void *file, uint32_t size, const @name@_weights **weights)
{
    const unsigned char *bytes = (const unsigned char *)file;
    const uint32_t sizes = @inputs@u | @outputs@u << 16;
    if (!file || !weights) {
        return @NAME@_NULL;
    }
    if (((uintptr_t)file & 3u) != 0u) {
        return @NAME@_BAD_ALIGNMENT;
    }
    if (size < @header_bytes@u) {
        return @NAME@_BAD_SIZE;
    }
    if (@name@_word(bytes) != @magic@) {
        return @NAME@_BAD_MAGIC;
    }
    if (@name@_word(bytes + 4) != (@format@u | @header_bytes@u << 16)) {
        return @NAME@_BAD_VERSION;
    }
    if (@name@_word(bytes + 28) != @name@_crc_of(bytes, 28u)) {
        return @NAME@_BAD_HEADER;
    }
    if (@name@_word(bytes + 12) != @NAME@_LAYOUT || @name@_word(bytes + 16) != sizes
        || @name@_word(bytes + 20) != @hidden@u) {
        return @NAME@_BAD_LAYOUT;
    }
    if (@name@_word(bytes + 8) != @weights_bytes@u || size != @header_bytes@u + @weights_bytes@u) {
        return @NAME@_BAD_SIZE;
    }
    if (@name@_word(bytes + 24) != @name@_crc_of(bytes + @header_bytes@, @weights_bytes@u)) {
        return @NAME@_BAD_WEIGHTS;
    }
    *weights = (const @name@_weights *)(const void *)(bytes + @header_bytes@);
    return @NAME@_OK;
}

@metadata@

const @name@_info *@name@_metadata(void)
{
    return &@name@_about;
}

#ifndef @NAME@_NO_WEIGHTS
static const @name@_weights @name@_weights_embedded @NAME@_WEIGHT_SECTION = {
@weights@
};

const @name@_weights *@name@_embedded(void)
{
    return &@name@_weights_embedded;
}

void @name@_reset(@name@_state *state)
{
    @name@_reset_with(&@name@_weights_embedded, state);
}

int @name@_infer(const @name@_state *in, @name@_state *out, const float obs[@NAME@_OBS_SIZE],
    float action[@NAME@_ACTION_SIZE])
{
    return @name@_infer_with(&@name@_weights_embedded, in, out, obs, action);
}
#endif

#if defined(__clang__)
#pragma float_control(pop)
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif /* @NAME@_IMPLEMENTATION */
