/* Runs the policy @name@ inside a flight controller's loop, the same way in every stack.
 *
 * A native step (@native_hz_text@ Hz, the rate of the training) advances the policy's memory; steps in between refresh
 * the action from a copy of it. The previous action that the policy sees is the mean since the last native step. Errors
 * are turned into the frame of the target yaw here.
 * Limits that are applied here: @limit_text@.
 *
 * When an input is missing, late or not finite, the last action is held for at most hold_steps native steps; then
 * the verdict is @NAME@_EXEC_HAND_BACK, and it stays so until @name@_exec_reset.
 *
 * In one C file, after the policy, #define @NAME@_EXECUTOR_IMPLEMENTATION and #include this; elsewhere include it
 * alone. One @name@_exec per robot. No libc, no allocation, no double, no globals.
 *
 * Frames: world with z up, body x forward, y left, z up. Motors: @motors@.
 */
#ifndef @NAME@_EXECUTOR_H
#define @NAME@_EXECUTOR_H

#include <stdint.h>

#include "@name@.h"

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_EXEC_NATIVE_US @native_us@u
#ifndef @NAME@_EXEC_WINDOW
#define @NAME@_EXEC_WINDOW 32 /* intervals that the timing is judged on */
#endif

/* verdict: what to do with the action. */
enum { @NAME@_EXEC_RUN = 0, @NAME@_EXEC_HOLD = 1, @NAME@_EXEC_HAND_BACK = 2 };

/* step: what was computed. */
enum { @NAME@_EXEC_NO_STEP = 0, @NAME@_EXEC_INTERMEDIATE = 1, @NAME@_EXEC_NATIVE = 2 };

/* fault: why nothing was. The time did not move forward; the calls stopped for longer than an action may be held; a
 * measurement is too old or not finite; the quaternion has no unit length; the network refused (see answer). */
enum {
    @NAME@_EXEC_NO_FAULT = 0,
    @NAME@_EXEC_TIME = 1,
    @NAME@_EXEC_GAP = 2,
    @NAME@_EXEC_STALE_POSITION = 3,
    @NAME@_EXEC_STALE_ATTITUDE = 4,
    @NAME@_EXEC_STALE_ANGULAR_VELOCITY = 5,
    @NAME@_EXEC_NOT_FINITE = 6,
    @NAME@_EXEC_NOT_UNIT = 7,
    @NAME@_EXEC_NETWORK = 8
};

/* timing, bits: within the last window some interval (jitter), or their mean (bias), was beyond the tolerance. */
enum {
    @NAME@_EXEC_STEP_JITTER = 1,
    @NAME@_EXEC_STEP_BIAS = 2,
    @NAME@_EXEC_NATIVE_JITTER = 4,
    @NAME@_EXEC_NATIVE_BIAS = 8
};

/* Times are in microseconds, which is what every supported stack counts, in 64 bits: 32 wrap in 71 minutes. */
typedef struct {
    uint32_t step_us;                     /* expected interval between inferences */
    uint32_t every_call;                  /* 1: each call infers. 0: only once step_us have passed */
    uint32_t ratio;                       /* inferences per native step. 0: native by time alone. Above 4: see README */
    uint32_t hold_steps;                  /* native steps that an action may be held for */
    uint32_t tolerance_percent;           /* of intervals, before the timing is called off */
    uint32_t position_timeout_us;         /* of position and velocity */
    uint32_t attitude_timeout_us;
    uint32_t angular_velocity_timeout_us;
    uint32_t setpoint_timeout_us;         /* then the robot stops where it is */
} @name@_exec_config;

/* A set-point whose position, velocity or yaw is not finite is ignored. An acceleration that is not counts as zero. */
typedef struct {
    uint64_t position_us;                 /* when position and velocity were measured */
    uint64_t attitude_us;
    uint64_t angular_velocity_us;
    uint64_t setpoint_us;
    float position[3];                    /* [m], world */
    float velocity[3];                    /* [m/s], world */
    float quaternion[4];                  /* w, x, y, z: body to world */
    float angular_velocity[3];            /* [rad/s], body */
    float target_position[3];             /* [m], world */
    float target_velocity[3];             /* [m/s], world */
    float target_acceleration[3];         /* [m/s^2], world */
    float target_yaw;                     /* [rad], counter-clockwise seen from above, within +-1000 */
} @name@_exec_input;

typedef struct {
    uint8_t verdict;
    uint8_t step;
    uint8_t fault;
    uint8_t answer;                       /* of the network, when the fault is NETWORK */
    uint8_t hovering;                     /* 1: there is no fresh set-point, the robot stops where it was */
    uint8_t timing;
} @name@_exec_status;

typedef struct {
    uint32_t interval[@NAME@_EXEC_WINDOW];
    uint32_t next;
    uint32_t filled;
} @name@_exec_window;

/* Owned by the caller; nothing in it is for the caller. */
typedef struct {
    @name@_exec_config config;
    @name@_state state;
    float action[@NAME@_ACTION_SIZE];     /* the newest */
    float mean_action[@NAME@_ACTION_SIZE]; /* since the last native step */
    float target_position[3];
    float target_velocity[3];
    float target_acceleration[3];
    float target_cos;
    float target_sin;
    uint64_t setpoint_us;
    uint64_t now_us;                      /* of the latest call that moved time forward */
    uint64_t step_us;                     /* of the latest inference */
    uint64_t native_us;                   /* of the latest native step */
    uint64_t stuck_us;                    /* guessed duration of calls that did not move time forward */
    uint32_t steps;                       /* inferences since the last native step, that one included */
    uint8_t started;
    uint8_t latched;                      /* the fault that ended the flight */
    uint8_t answer;
    uint8_t has_setpoint;
    uint8_t hovering;
    uint8_t timing;
    @name@_exec_window step_window;
    @name@_exec_window native_window;
} @name@_exec;

/* Inference on every call, native by time, timeouts as flown before: 100, 50, 10 and 200 ms. */
@name@_exec_config @name@_exec_defaults(void);

void @name@_exec_init(@name@_exec *exec, const @name@_exec_config *config);

/* Forgets the last flight. Call it whenever the policy takes over. */
void @name@_exec_reset(@name@_exec *exec);

/* The fault of these measurements, or NO_FAULT: refuse to arm, and to hand over to the policy, while there is one. */
uint8_t @name@_exec_check(const @name@_exec_config *config, uint64_t now_us, const @name@_exec_input *input);

/* One call of the loop. RUN and HOLD write `action`, in @range@; HAND_BACK writes nothing. */
@name@_exec_status @name@_exec_step(@name@_exec *exec, uint64_t now_us, const @name@_exec_input *input,
    float action[@NAME@_ACTION_SIZE]);

/* What a motor gets, 0 is off and 1 is full. */
void @name@_exec_command(const float action[@NAME@_ACTION_SIZE], float command[@NAME@_ACTION_SIZE]);

/* What the network sees of these measurements, given the targets and the actions so far. */
void @name@_exec_observe(const @name@_exec *exec, const @name@_exec_input *input, float obs[@NAME@_OBS_SIZE]);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_EXECUTOR_H */

#if defined(@NAME@_EXECUTOR_IMPLEMENTATION) && !defined(@NAME@_EXECUTOR_IMPLEMENTED)
#define @NAME@_EXECUTOR_IMPLEMENTED

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
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#endif

typedef union {
    float number;
    uint32_t bits;
} @name@_exec_bits;

/* By the bits of the exponent, because fast-math compilers take comparisons with NaN for constants. */
static int @name@_exec_finite(const float *numbers, int size)
{
    for (int i = 0; i < size; i++) {
        @name@_exec_bits x;
        x.number = numbers[i];
        if ((x.bits & 0x7f800000u) == 0x7f800000u) {
            return 0;
        }
    }
    return 1;
}

static inline float @name@_exec_clip(float x, float limit)
{
    const float below = x > limit ? limit : x;
    return below < -limit ? -limit : below;
}

/* 1 / sqrt(x) of a normal x: halving the exponent is right to 4 %, each of Newton's steps squares the error. */
static float @name@_exec_rsqrt(float x)
{
    @name@_exec_bits root;
    root.number = x;
    root.bits = 0x5f3759dfu - (root.bits >> 1);
    float y = root.number;
    for (int i = 0; i < 3; i++) {
        y = y * (1.5f - 0.5f * x * y * y);
    }
    return y;
}

/* Quarter turns are taken off in three parts, which keeps what is left exact for |angle| <= 1000; series do that. */
static void @name@_exec_cos_sin(float angle, float *cosine, float *sine)
{
    const float turns = angle * 0.636619772f;
    const int32_t k = (int32_t)(turns + (turns < 0.0f ? -0.5f : 0.5f));
    const float n = (float)k;
    const float r = ((angle - n * 1.5703125f) - n * 4.83751297e-4f) - n * 7.54978942e-8f;
    const float square = r * r;
    const float s = r + r * square * (-1.0f / 6.0f + square * (1.0f / 120.0f - square * (1.0f / 5040.0f)));
    const float tail = 1.0f / 24.0f + square * (-1.0f / 720.0f + square * (1.0f / 40320.0f));
    const float c = 1.0f + square * (-0.5f + square * tail);
    const uint32_t quarter = (uint32_t)k & 3u;
    const float x = (quarter & 1u) != 0u ? s : c;
    const float y = (quarter & 1u) != 0u ? c : s;
    *cosine = quarter == 1u || quarter == 2u ? -x : x;
    *sine = quarter >= 2u ? -y : y;
}

static void @name@_exec_matrix(const float q[4], float m[9])
{
    const float scale = 2.0f / (q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    const float xx = scale * q[1] * q[1], yy = scale * q[2] * q[2], zz = scale * q[3] * q[3];
    const float xy = scale * q[1] * q[2], xz = scale * q[1] * q[3], yz = scale * q[2] * q[3];
    const float wx = scale * q[0] * q[1], wy = scale * q[0] * q[2], wz = scale * q[0] * q[3];
    m[0] = 1.0f - (yy + zz);
    m[1] = xy - wz;
    m[2] = xz + wy;
    m[3] = xy + wz;
    m[4] = 1.0f - (xx + zz);
    m[5] = yz - wx;
    m[6] = xz - wy;
    m[7] = yz + wx;
    m[8] = 1.0f - (xx + yy);
}

/* Cosine and sine of the turn about the vertical that is nearest to the attitude; defined upside down too. */
static void @name@_exec_heading(const float m[9], float *cosine, float *sine)
{
    const float x = m[0] + m[4] + 1e-3f;
    const float y = m[3] - m[1];
    const float square = x * x + y * y;
    if (square < 1e-9f) {
        *cosine = 1.0f;
        *sine = 0.0f;
        return;
    }
    const float n = @name@_exec_rsqrt(square);
    *cosine = x * n;
    *sine = y * n;
}

/* The vector in a world that is turned by the angle of this cosine and sine. */
static void @name@_exec_turn(float cosine, float sine, float *x, float *y)
{
    const float a = *x, b = *y;
    *x = cosine * a + sine * b;
    *y = cosine * b - sine * a;
}

static void @name@_exec_turn_all(float cosine, float sine, float position[3], float m[9], float velocity[3],
    float acceleration[3])
{
    @name@_exec_turn(cosine, sine, &position[0], &position[1]);
    for (int i = 0; i < 3; i++) {
        @name@_exec_turn(cosine, sine, &m[i], &m[3 + i]);
    }
    @name@_exec_turn(cosine, sine, &velocity[0], &velocity[1]);
    @name@_exec_turn(cosine, sine, &acceleration[0], &acceleration[1]);
}

void @name@_exec_observe(const @name@_exec *exec, const @name@_exec_input *input, float obs[@NAME@_OBS_SIZE])
{
    float position[3], velocity[3], acceleration[3], m[9];
    for (int i = 0; i < 3; i++) {
        position[i] = input->position[i] - exec->target_position[i];
        velocity[i] = input->velocity[i] - exec->target_velocity[i];
        acceleration[i] = exec->target_acceleration[i];
    }
    @name@_exec_matrix(input->quaternion, m);
    @name@_exec_turn_all(exec->target_cos, exec->target_sin, position, m, velocity, acceleration);
@limits@
@layout@
    for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
        obs[@previous_action@ + i] = exec->mean_action[i];
    }
}

static uint64_t @name@_exec_age(uint64_t now_us, uint64_t then_us)
{
    return then_us > now_us ? then_us - now_us : now_us - then_us; /* a time far ahead is as wrong as one long ago */
}

uint8_t @name@_exec_check(const @name@_exec_config *config, uint64_t now_us, const @name@_exec_input *input)
{
    if (@name@_exec_age(now_us, input->angular_velocity_us) > config->angular_velocity_timeout_us) {
        return @NAME@_EXEC_STALE_ANGULAR_VELOCITY;
    }
    if (@name@_exec_age(now_us, input->attitude_us) > config->attitude_timeout_us) {
        return @NAME@_EXEC_STALE_ATTITUDE;
    }
    if (@name@_exec_age(now_us, input->position_us) > config->position_timeout_us) {
        return @NAME@_EXEC_STALE_POSITION;
    }
    if (!@name@_exec_finite(input->position, 3) || !@name@_exec_finite(input->velocity, 3)
        || !@name@_exec_finite(input->quaternion, 4) || !@name@_exec_finite(input->angular_velocity, 3)) {
        return @NAME@_EXEC_NOT_FINITE;
    }
    const float *q = input->quaternion;
    const float square = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    return square > 0.9f && square < 1.1f ? @NAME@_EXEC_NO_FAULT : @NAME@_EXEC_NOT_UNIT;
}

@name@_exec_config @name@_exec_defaults(void)
{
    @name@_exec_config config;
    config.step_us = 2500u;
    config.every_call = 1u;
    config.ratio = 0u;
    config.hold_steps = 2u;
    config.tolerance_percent = 20u;
    config.position_timeout_us = 100000u;
    config.attitude_timeout_us = 50000u;
    config.angular_velocity_timeout_us = 10000u;
    config.setpoint_timeout_us = 200000u;
    return config;
}

void @name@_exec_init(@name@_exec *exec, const @name@_exec_config *config)
{
    exec->config = *config;
    @name@_exec_reset(exec);
}

static void @name@_exec_clear(@name@_exec_window *window)
{
    for (int i = 0; i < @NAME@_EXEC_WINDOW; i++) {
        window->interval[i] = 0u;
    }
    window->next = 0u;
    window->filled = 0u;
}

void @name@_exec_reset(@name@_exec *exec)
{
    @name@_reset(&exec->state);
    for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
        exec->action[i] = @reset_value@;
        exec->mean_action[i] = @reset_value@;
    }
    for (int i = 0; i < 3; i++) {
        exec->target_position[i] = 0.0f;
        exec->target_velocity[i] = 0.0f;
        exec->target_acceleration[i] = 0.0f;
    }
    exec->target_cos = 1.0f;
    exec->target_sin = 0.0f;
    exec->setpoint_us = 0u;
    exec->now_us = 0u;
    exec->step_us = 0u;
    exec->native_us = 0u;
    exec->stuck_us = 0u;
    exec->steps = 0u;
    exec->started = 0u;
    exec->latched = @NAME@_EXEC_NO_FAULT;
    exec->answer = 0u;
    exec->has_setpoint = 0u;
    exec->hovering = 0u;
    exec->timing = 0u;
    @name@_exec_clear(&exec->step_window);
    @name@_exec_clear(&exec->native_window);
}

/* Takes over a set-point that makes sense; without a fresh one, stops where the robot is now, facing as it does. */
static void @name@_exec_follow(@name@_exec *exec, uint64_t now_us, const @name@_exec_input *input)
{
    const float yaw = input->target_yaw;
    const int sensible = @name@_exec_finite(input->target_position, 3) && @name@_exec_finite(input->target_velocity, 3)
        && @name@_exec_finite(&yaw, 1) && yaw <= 1000.0f && yaw >= -1000.0f;
    if (sensible) {
        exec->has_setpoint = 1u;
        exec->setpoint_us = input->setpoint_us;
    }
    const int fresh = exec->has_setpoint != 0u
        && @name@_exec_age(now_us, exec->setpoint_us) <= exec->config.setpoint_timeout_us;
    if (fresh && sensible) {
        for (int i = 0; i < 3; i++) {
            exec->target_position[i] = input->target_position[i];
            exec->target_velocity[i] = input->target_velocity[i];
            const int given = @name@_exec_finite(&input->target_acceleration[i], 1);
            exec->target_acceleration[i] = given ? input->target_acceleration[i] : 0.0f;
        }
        @name@_exec_cos_sin(yaw, &exec->target_cos, &exec->target_sin);
    } else if (!fresh && exec->hovering == 0u) {
        float m[9];
        for (int i = 0; i < 3; i++) {
            exec->target_position[i] = input->position[i];
            exec->target_velocity[i] = 0.0f;
            exec->target_acceleration[i] = 0.0f;
        }
        @name@_exec_matrix(input->quaternion, m);
        @name@_exec_heading(m, &exec->target_cos, &exec->target_sin);
    }
    exec->hovering = (uint8_t)!fresh;
}

/* Adds an interval; the bits 1 for jitter and 2 for bias, once the window is full. */
static uint8_t @name@_exec_judge(@name@_exec_window *window, uint64_t interval, uint32_t expected, uint32_t percent)
{
    window->interval[window->next] = interval > 0xffffffffu ? 0xffffffffu : (uint32_t)interval;
    window->next = (window->next + 1u) % @NAME@_EXEC_WINDOW;
    window->filled = window->filled < @NAME@_EXEC_WINDOW ? window->filled + 1u : @NAME@_EXEC_WINDOW;
    if (window->filled < @NAME@_EXEC_WINDOW || expected == 0u) {
        return 0u;
    }
    const uint64_t low = (uint64_t)expected * (percent < 100u ? 100u - percent : 0u);
    const uint64_t high = (uint64_t)expected * (100u + (uint64_t)percent);
    uint64_t sum = 0u;
    uint8_t bits = 0u;
    for (int i = 0; i < @NAME@_EXEC_WINDOW; i++) {
        const uint64_t scaled = (uint64_t)window->interval[i] * 100u;
        sum += scaled;
        if (scaled < low || scaled > high) {
            bits = 1u;
        }
    }
    if (sum < low * @NAME@_EXEC_WINDOW || sum > high * @NAME@_EXEC_WINDOW) {
        bits = (uint8_t)(bits | 2u);
    }
    return bits;
}

static @name@_exec_status @name@_exec_answer(const @name@_exec *exec, uint8_t verdict, uint8_t step, uint8_t fault)
{
    @name@_exec_status status;
    status.verdict = verdict;
    status.step = step;
    status.fault = fault;
    status.answer = exec->answer;
    status.hovering = exec->hovering;
    status.timing = exec->timing;
    return status;
}

static void @name@_exec_give(const @name@_exec *exec, float action[@NAME@_ACTION_SIZE])
{
    for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
        action[i] = exec->action[i];
    }
}

/* Holds the last action while it is young enough; else ends the flight. */
static @name@_exec_status @name@_exec_fail(@name@_exec *exec, uint8_t fault, float action[@NAME@_ACTION_SIZE])
{
    const uint64_t age = exec->now_us - exec->step_us + exec->stuck_us;
    const uint64_t longest = (uint64_t)exec->config.hold_steps * @NAME@_EXEC_NATIVE_US;
    if (exec->started != 0u && fault != @NAME@_EXEC_GAP && age <= longest) {
        @name@_exec_give(exec, action);
        return @name@_exec_answer(exec, @NAME@_EXEC_HOLD, @NAME@_EXEC_NO_STEP, fault);
    }
    exec->latched = fault;
    return @name@_exec_answer(exec, @NAME@_EXEC_HAND_BACK, @NAME@_EXEC_NO_STEP, fault);
}

/* Keeps the action, and the mean of those since the last native step. */
static void @name@_exec_keep(@name@_exec *exec, const float fresh[@NAME@_ACTION_SIZE], int native)
{
    const float count = (float)exec->steps;
    for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
        const float below = fresh[i] > @high@ ? @high@ : fresh[i];
        const float a = below < @low@ ? @low@ : below;
        exec->action[i] = a;
        exec->mean_action[i] = native ? a : (exec->mean_action[i] * count + a) / (count + 1.0f);
    }
    exec->steps = native ? 1u : exec->steps + 1u;
}

@name@_exec_status @name@_exec_step(@name@_exec *exec, uint64_t now_us, const @name@_exec_input *input,
    float action[@NAME@_ACTION_SIZE])
{
    const @name@_exec_config *config = &exec->config;
    if (exec->latched != @NAME@_EXEC_NO_FAULT) {
        return @name@_exec_answer(exec, @NAME@_EXEC_HAND_BACK, @NAME@_EXEC_NO_STEP, exec->latched);
    }
    exec->answer = 0u;
    if (exec->started != 0u && now_us <= exec->now_us) {
        exec->stuck_us += config->step_us != 0u ? config->step_us : @NAME@_EXEC_NATIVE_US;
        return @name@_exec_fail(exec, @NAME@_EXEC_TIME, action);
    }
    const uint64_t since_call = now_us - exec->now_us;
    exec->now_us = now_us;
    const uint64_t since_step = now_us - exec->step_us;
    const uint64_t since_native = now_us - exec->native_us;
    if (exec->started != 0u && since_call > (uint64_t)config->hold_steps * @NAME@_EXEC_NATIVE_US) {
        return @name@_exec_fail(exec, @NAME@_EXEC_GAP, action);
    }
    if (exec->started != 0u && config->every_call == 0u && since_step < config->step_us) {
        @name@_exec_give(exec, action);
        return @name@_exec_answer(exec, @NAME@_EXEC_RUN, @NAME@_EXEC_NO_STEP, @NAME@_EXEC_NO_FAULT);
    }
    const uint8_t fault = @name@_exec_check(config, now_us, input);
    if (fault != @NAME@_EXEC_NO_FAULT) {
        return @name@_exec_fail(exec, fault, action);
    }
    @name@_exec_follow(exec, now_us, input);

    float obs[@NAME@_OBS_SIZE], fresh[@NAME@_ACTION_SIZE];
    @name@_exec_observe(exec, input, obs);
    const int native = exec->started == 0u || since_native >= @NAME@_EXEC_NATIVE_US
        || (config->ratio != 0u && exec->steps >= config->ratio);
    @name@_state spare;
    const int answer = @name@_infer(&exec->state, native ? &exec->state : &spare, obs, fresh);
    if (answer != @NAME@_OK) {
        exec->answer = (uint8_t)answer;
        return @name@_exec_fail(exec, @NAME@_EXEC_NETWORK, action);
    }
    @name@_exec_keep(exec, fresh, native);
    if (exec->started != 0u) {
        const uint8_t step_bits = @name@_exec_judge(&exec->step_window, since_step, config->step_us,
            config->tolerance_percent);
        uint8_t native_bits = (uint8_t)(exec->timing >> 2);
        if (native) {
            native_bits = @name@_exec_judge(&exec->native_window, since_native, @NAME@_EXEC_NATIVE_US,
                config->tolerance_percent);
        }
        exec->timing = (uint8_t)(step_bits | (uint8_t)(native_bits << 2));
    }
    exec->started = 1u;
    exec->stuck_us = 0u;
    exec->step_us = now_us;
    if (native) {
        exec->native_us = now_us;
    }
    @name@_exec_give(exec, action);
    return @name@_exec_answer(exec, @NAME@_EXEC_RUN, native ? @NAME@_EXEC_NATIVE : @NAME@_EXEC_INTERMEDIATE,
        @NAME@_EXEC_NO_FAULT);
}

void @name@_exec_command(const float action[@NAME@_ACTION_SIZE], float command[@NAME@_ACTION_SIZE])
{
    static const float scale[@NAME@_ACTION_SIZE] = {@scale@};
    static const float offset[@NAME@_ACTION_SIZE] = {@offset@};
    for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
        const float x = offset[i] + scale[i] * action[i];
        const float below = x > 1.0f ? 1.0f : x;
        command[i] = below < 0.0f ? 0.0f : below;
    }
}

#if defined(__clang__)
#pragma float_control(pop)
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif /* @NAME@_EXECUTOR_IMPLEMENTATION */
