/* The policy @name@ in Betaflight. This file compiles the policy and its executor too: add it to the build alone.
 *
 * While the craft is armed and mode USER1 is on, the policy replaces the mixer's motor values. It hands back to the
 * mixer when USER1 ends, when failsafe begins, or when its inputs fail; in that case USER1 must be switched off once.
 * Written to the public headers of @written_for@.
 */
#include <stdbool.h>
#include <stdint.h>

#include "platform.h"

#include "common/axis.h"
#include "drivers/time.h"
#include "fc/rc_modes.h"
#include "fc/runtime_config.h"
#include "flight/failsafe.h"
#include "flight/imu.h"
#include "flight/mixer.h"
#include "rx/rx.h"
#include "sensors/gyro.h"

#define @NAME@_IMPLEMENTATION
#define @NAME@_EXECUTOR_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"
#include "@name@_executor.h"
#include "@name@_executor_vectors.h"
#include "@name@_betaflight.h"

/* Part of the motors' range that full command means. For a craft with more than five times its weight in thrust, set
 * it so that about five remain. */
#ifndef @NAME@_MOTOR_FACTOR
#define @NAME@_MOTOR_FACTOR 1.0f
#endif

#ifndef @NAME@_QUATERNION
#define @NAME@_QUATERNION quaternion /* quaternion_t since 2025.12 */
#endif

static const float axes[3] = {@axes@};
static const float quaternion_signs[4] = {@quaternion_signs@}; /* w, x, y, z */
static const float rate_scale = @rate_scale@;                  /* of the gyroscope, to rad/s */
static const uint8_t motors[4] = {@motors@};                   /* motor[k] is the policy's motor motors[k] */

enum { IDLE, FLYING, HANDED_BACK };

static @name@_exec exec;
static @name@_exec_input seen;
static @name@_exec_status last;
static uint8_t mode = IDLE;
static uint8_t ready; /* 0: not tested yet, 1: good, 2: the self-test failed */

@align@
/* 64 bits of the clock, which in 32 wraps after 71 minutes. Starts high so that no age goes below zero. */
static uint64_t clock_us(void)
{
    static uint64_t total = (uint64_t)1 << 32;
    static uint32_t before;
    const uint32_t now = micros();
    total += (uint32_t)(now - before);
    before = now;
    return total;
}

static void attitude(float q[4])
{
    @NAME@_QUATERNION now;
    getQuaternion(&now);
    q[0] = quaternion_signs[0] * now.w;
    q[1] = quaternion_signs[1] * now.x;
    q[2] = quaternion_signs[2] * now.y;
    q[3] = quaternion_signs[3] * now.z;
}

static void take_pose(uint64_t pose_us, const float position[3], const float velocity[3], float yaw)
{
    float q[4];
    for (int i = 0; i < 3; i++) {
        seen.position[i] = position[i];
        seen.velocity[i] = velocity[i];
    }
    seen.position_us = pose_us;
    seen.setpoint_us = pose_us; /* the target is the origin of the pose */
    attitude(q);
    align_learn(q, yaw, 0.2f);
}

#ifdef @NAME@_POSE_FROM_LINK
void @name@_betaflight_pose(const float position[3], const float velocity[3], float yaw, uint32_t age_us)
{
    take_pose(clock_us() - age_us, position, velocity, yaw);
}
#else
static float channel(int index)
{
    return ((float)rcData[index] - 1500.0f) / 500.0f;
}

/* Channels 1, 2, 4: position +-1 m; 3: yaw +-pi; 6 to 8: velocity +-1 m/s, all relative to the target. */
static void pose_from_channels(uint64_t now_us)
{
    timeDelta_t age_us = INT32_MAX; /* stays so when the receiver does not time its frames: then nothing is fresh */
    (void)rxGetFrameDelta(&age_us);
    if (!rxIsReceivingSignal() || age_us < 0) {
        return;
    }
    const uint64_t pose_us = now_us - (uint64_t)age_us;
    if (pose_us > seen.position_us + 500u) { /* a new frame */
        const float position[3] = {channel(0), channel(1), channel(3)};
        const float velocity[3] = {channel(5), channel(6), channel(7)};
        take_pose(pose_us, position, velocity, 3.14159265f * channel(2));
    }
}
#endif

static void fill(uint64_t now_us)
{
    float q[4];
#ifndef @NAME@_POSE_FROM_LINK
    pose_from_channels(now_us);
#endif
    attitude(q);
    align_apply(q, seen.quaternion);
    for (int i = 0; i < 3; i++) {
        seen.angular_velocity[i] = axes[i] * rate_scale * gyro.gyroADCf[i];
    }
    seen.attitude_us = now_us; /* neither is stamped by Betaflight: they are what the stock loop uses now */
    seen.angular_velocity_us = now_us;
}

/* The mixer numbers and turns the motors as the table says only then. */
static bool suits(void)
{
    return getMixerMode() == MIXER_QUADX && !mixerConfig()->yaw_motors_reversed;
}

static void begin(void)
{
    @name@_exec_config config = @name@_exec_defaults();
    config.step_us = @step_us@u;
    config.every_call = @every_call@u;
    config.ratio = @ratio@u;
    config.tolerance_percent = 50u; /* steps wait for the next turn of the loop */
    ready = @name@_exec_boot_test(&exec) != 0 ? 1u : 2u;
    @name@_exec_init(&exec, &config);
}

void @name@_betaflight_update(void)
{
    const uint64_t now_us = clock_us();
    if (ready == 0u && !ARMING_FLAG(ARMED)) {
        begin(); /* takes some milliseconds, once, on the ground */
    }
    if (ready != 1u || !ARMING_FLAG(ARMED) || !IS_RC_MODE_ACTIVE(BOXUSER1) || failsafeIsActive() || !suits()) {
        mode = IDLE;
        return;
    }
    if (mode == HANDED_BACK) {
        return;
    }
    fill(now_us);
    if (mode == IDLE) {
        last.fault = @name@_exec_check(&exec.config, now_us, &seen);
        if (last.fault != @NAME@_EXEC_NO_FAULT) {
            return;
        }
        @name@_exec_reset(&exec);
        mode = FLYING;
    }
    float action[@NAME@_ACTION_SIZE], command[@NAME@_ACTION_SIZE];
    last = @name@_exec_step(&exec, now_us, &seen, action);
    if (last.verdict == @NAME@_EXEC_HAND_BACK) {
        mode = HANDED_BACK;
        return;
    }
    @name@_exec_command(action, command);
    const float low = getMotorOutputLow(), range = getMotorOutputHigh() - low;
    for (int i = 0; i < 4; i++) {
        motor[i] = low + @NAME@_MOTOR_FACTOR * command[motors[i]] * range;
    }
}

@name@_exec_status @name@_betaflight_status(void)
{
    return last;
}
