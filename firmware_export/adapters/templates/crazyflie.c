/* The policy @name@ as the out-of-tree controller of a Crazyflie.
 *
 * The stock PID controller flies until parameter policy.enable is set and the set-point is a position; it flies again
 * when either ends, or when the policy hands back. The policy then stays off until policy.enable was cleared.
 * Written to the public headers of @written_for@.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "FreeRTOS.h"
#include "task.h"

#include "app.h"
#include "controller.h"
#include "controller_pid.h"
#include "log.h"
#include "param.h"
#include "usec_time.h"

#define DEBUG_MODULE "POLICY"
#include "debug.h"

#include "@name@_executor.h"
#include "@name@_executor_vectors.h"

/* Standard deviation [m] of the Kalman filter's position beyond which it counts as lost. */
#ifndef @NAME@_MAX_POSITION_DEVIATION
#define @NAME@_MAX_POSITION_DEVIATION 0.2f
#endif

static const float axes[3] = {@axes@};
static const float quaternion_signs[4] = {@quaternion_signs@}; /* w, x, y, z */
static const float rate_scale = @rate_scale@;                  /* of the gyroscope, to rad/s */
static const uint8_t motors[4] = {@motors@};                   /* output k is the policy's motor motors[k] */

enum { IDLE, FLYING, HANDED_BACK };

static @name@_exec exec;
static uint8_t enable;
static uint8_t mode = IDLE;
static volatile uint8_t tested; /* set by the app's task, read by the stabilizer's */
static uint8_t verdict, step, fault, hovering, timing;
static uint32_t duration_us;
static logVarId_t variance[3];
static float estimate[10];   /* as it was when it last changed */
static uint64_t estimate_us; /* when it did */

/* The self-test is done here because the tasks that start the controller have too little stack for it. */
void appMain(void)
{
    const int good = @name@_exec_boot_test(&exec);
    @name@_exec_config config = @name@_exec_defaults();
    config.step_us = @step_us@u;
    config.every_call = @every_call@u;
    config.ratio = @ratio@u;
    @name@_exec_init(&exec, &config);
    variance[0] = logGetVarId("kalman", "varX");
    variance[1] = logGetVarId("kalman", "varY");
    variance[2] = logGetVarId("kalman", "varZ");
    if (good) {
        tested = 1u;
    } else {
        DEBUG_PRINT("the self-test of @name@ failed\n");
    }
    while (1) {
        vTaskDelay(M2T(2000));
    }
}

void controllerOutOfTreeInit(void)
{
    controllerPidInit();
}

bool controllerOutOfTreeTest(void)
{
    return controllerPidTest();
}

/* Only a position with a yaw is followed; sticks, velocities and take-off by thrust are the stock controller's. */
static bool is_position(const setpoint_t *setpoint)
{
    return setpoint->mode.x == modeAbs && setpoint->mode.y == modeAbs && setpoint->mode.z == modeAbs
        && !setpoint->velocity_body && (setpoint->mode.yaw == modeAbs || setpoint->mode.quat == modeAbs);
}

static float target_yaw(const setpoint_t *setpoint)
{
    if (setpoint->mode.yaw == modeAbs) {
        return @yaw_sign@ * setpoint->attitude.yaw * 0.0174532925f; /* degrees, whatever the gyroscope has */
    }
    const quaternion_t *q = &setpoint->attitudeQuaternion;
    return @yaw_sign@ * atan2f(2.0f * (q->w * q->z + q->x * q->y), 1.0f - 2.0f * (q->y * q->y + q->z * q->z));
}

/* Whether the Kalman filter itself believes its position: without measurements it grows unsure within a second. */
static bool position_is_known(void)
{
    for (int i = 0; i < 3; i++) {
        if (!LOG_VARID_IS_VALID(variance[i])) {
            return false; /* another estimator */
        }
        const float v = logGetFloat(variance[i]);
        if (!(v >= 0.0f && v < @NAME@_MAX_POSITION_DEVIATION * @NAME@_MAX_POSITION_DEVIATION)) {
            return false;
        }
    }
    return true;
}

/* The estimate carries no time stamps. It is noisy, so one that does not change at all is one that is not made. */
static void watch(uint64_t now_us, const float now[10])
{
    for (int i = 0; i < 10; i++) {
        if (now[i] < estimate[i] || now[i] > estimate[i]) {
            estimate_us = now_us;
        }
        estimate[i] = now[i];
    }
}

/* Set-points are stamped in ticks since the scheduler began, which is not when the microseconds began. */
static uint64_t stamp(uint64_t now_us, uint32_t tick)
{
    const uint32_t age_ms = T2M(xTaskGetTickCount()) - tick;
    const uint64_t age_us = (uint64_t)age_ms * 1000u;
    return age_us < now_us ? now_us - age_us : 0u;
}

static void fill(@name@_exec_input *input, uint64_t now_us, const setpoint_t *setpoint, const sensorData_t *sensors,
    const state_t *state)
{
    const float position[3] = {state->position.x, state->position.y, state->position.z};
    const float velocity[3] = {state->velocity.x, state->velocity.y, state->velocity.z};
    const quaternion_t *q = &state->attitudeQuaternion;
    const float quaternion[4] = {q->w, q->x, q->y, q->z};
    const float rate[3] = {sensors->gyro.x, sensors->gyro.y, sensors->gyro.z};
    const float target[3] = {setpoint->position.x, setpoint->position.y, setpoint->position.z};
    const float target_velocity[3] = {setpoint->velocity.x, setpoint->velocity.y, setpoint->velocity.z};
    const float acceleration[3] = {setpoint->acceleration.x, setpoint->acceleration.y, setpoint->acceleration.z};
    for (int i = 0; i < 3; i++) {
        input->position[i] = axes[i] * position[i];
        input->velocity[i] = axes[i] * velocity[i];
        input->angular_velocity[i] = axes[i] * rate_scale * rate[i];
        input->target_position[i] = axes[i] * target[i];
        input->target_velocity[i] = axes[i] * target_velocity[i];
        input->target_acceleration[i] = axes[i] * acceleration[i];
    }
    for (int i = 0; i < 4; i++) {
        input->quaternion[i] = quaternion_signs[i] * quaternion[i];
    }
    input->target_yaw = target_yaw(setpoint);
    const float now[10] = {
        position[0], position[1], position[2], velocity[0], velocity[1], velocity[2],
        quaternion[0], quaternion[1], quaternion[2], quaternion[3],
    };
    watch(now_us, now);
    input->position_us = position_is_known() ? estimate_us : 0u; /* 0 is older than any limit */
    input->attitude_us = estimate_us;
    input->angular_velocity_us = now_us; /* the loop waits for the gyroscope */
    input->setpoint_us = stamp(now_us, setpoint->timestamp);
}

/* Whether the policy flew; else the stock controller must. */
static bool fly(control_t *control, const setpoint_t *setpoint, const sensorData_t *sensors, const state_t *state)
{
    const uint64_t now_us = usecTimestamp();
    @name@_exec_input input;
    fill(&input, now_us, setpoint, sensors, state);
    if (mode == IDLE) {
        fault = @name@_exec_check(&exec.config, now_us, &input);
        if (fault != @NAME@_EXEC_NO_FAULT) {
            return false;
        }
        @name@_exec_reset(&exec);
        mode = FLYING;
    }
    float action[@NAME@_ACTION_SIZE], command[@NAME@_ACTION_SIZE];
    const @name@_exec_status status = @name@_exec_step(&exec, now_us, &input, action);
    verdict = status.verdict;
    step = status.step;
    fault = status.fault;
    hovering = status.hovering;
    timing = status.timing;
    duration_us = (uint32_t)(usecTimestamp() - now_us);
    if (status.verdict == @NAME@_EXEC_HAND_BACK) {
        mode = HANDED_BACK;
        return false;
    }
    @name@_exec_command(action, command);
    control->controlMode = controlModeForce;
    for (int i = 0; i < STABILIZER_NR_OF_MOTORS; i++) {
        control->normalizedForces[i] = command[motors[i]];
    }
    return true;
}

void controllerOutOfTree(control_t *control, const setpoint_t *setpoint, const sensorData_t *sensors,
    const state_t *state, const stabilizerStep_t stabilizerStep)
{
    const bool wanted = enable != 0u && tested != 0u;
    if (!wanted) {
        mode = IDLE;
    } else if (!is_position(setpoint)) {
        mode = mode == HANDED_BACK ? HANDED_BACK : IDLE;
    } else if (mode != HANDED_BACK) {
        if (!RATE_DO_EXECUTE(@step_hz@, stabilizerStep)) {
            if (mode == FLYING) {
                return; /* the command of the last step stands */
            }
        } else if (fly(control, setpoint, sensors, state)) {
            return;
        }
    }
    controllerPid(control, setpoint, sensors, state, stabilizerStep);
}

PARAM_GROUP_START(policy)
PARAM_ADD(PARAM_UINT8, enable, &enable)
PARAM_GROUP_STOP(policy)

LOG_GROUP_START(policy)
LOG_ADD(LOG_UINT8, tested, &tested)
LOG_ADD(LOG_UINT8, mode, &mode)
LOG_ADD(LOG_UINT8, verdict, &verdict)
LOG_ADD(LOG_UINT8, step, &step)
LOG_ADD(LOG_UINT8, fault, &fault)
LOG_ADD(LOG_UINT8, hovering, &hovering)
LOG_ADD(LOG_UINT8, timing, &timing)
LOG_ADD(LOG_UINT32, duration, &duration_us)
LOG_GROUP_STOP(policy)
