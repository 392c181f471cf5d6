/* What the executor of @name@ must do, call by call. */
#ifndef @NAME@_EXECUTOR_VECTORS_H
#define @NAME@_EXECUTOR_VECTORS_H

#include "@name@.h"
#include "@name@_vectors.h"
#include "@name@_executor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0, or the number of the first call, counted from 1, that did anything else than it must, to the last bit.
 * It runs in the memory of an executor, because the stack of a task that starts up is small; init that afterwards. */
int @name@_exec_selftest(@name@_exec *exec);

/* At boot: 1 when the policy and its executor are what was exported, else 0; then do not fly with them. */
int @name@_exec_boot_test(@name@_exec *exec);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_EXECUTOR_VECTORS_H */

#if defined(@NAME@_EXECUTOR_IMPLEMENTATION) && !defined(@NAME@_EXECUTOR_VECTORS_IMPLEMENTED)
#define @NAME@_EXECUTOR_VECTORS_IMPLEMENTED

/* Time of the call, then of position, attitude, angular velocity and set-point [us]. */
static const uint32_t @name@_exec_vector_time[@calls@][5] = {
@times@
};

/* The other inputs in the order of their struct, as bits. */
static const uint32_t @name@_exec_vector_input[@calls@][23] = {
@inputs@
};

/* Verdict, step, fault, hovering. */
static const uint8_t @name@_exec_vector_status[@calls@][4] = {
@statuses@
};

/* The sum over the bits of what the network then sees, the previous action left out. */
static const uint32_t @name@_exec_vector_sum[@calls@] = {
@sums@
};

static float @name@_exec_vector_number(uint32_t bits)
{
    @name@_exec_bits x;
    x.bits = bits;
    return x.number;
}

static uint32_t @name@_exec_vector_bits(float number)
{
    @name@_exec_bits x;
    x.number = number;
    return x.bits;
}

static void @name@_exec_vector_fill(@name@_exec_input *input, int call)
{
    const uint32_t *bits = @name@_exec_vector_input[call];
    input->position_us = @name@_exec_vector_time[call][1];
    input->attitude_us = @name@_exec_vector_time[call][2];
    input->angular_velocity_us = @name@_exec_vector_time[call][3];
    input->setpoint_us = @name@_exec_vector_time[call][4];
    for (int i = 0; i < 3; i++) {
        input->position[i] = @name@_exec_vector_number(bits[i]);
        input->velocity[i] = @name@_exec_vector_number(bits[3 + i]);
        input->angular_velocity[i] = @name@_exec_vector_number(bits[10 + i]);
        input->target_position[i] = @name@_exec_vector_number(bits[13 + i]);
        input->target_velocity[i] = @name@_exec_vector_number(bits[16 + i]);
        input->target_acceleration[i] = @name@_exec_vector_number(bits[19 + i]);
    }
    for (int i = 0; i < 4; i++) {
        input->quaternion[i] = @name@_exec_vector_number(bits[6 + i]);
    }
    input->target_yaw = @name@_exec_vector_number(bits[22]);
}

int @name@_exec_selftest(@name@_exec *exec)
{
    @name@_exec_config config = @name@_exec_defaults();
    config.step_us = @NAME@_EXEC_NATIVE_US / 4u;
    config.ratio = 3u; /* natives come early, so that a wrong count shows */
    @name@_exec_init(exec, &config);
    for (int call = 0; call < @calls@; call++) {
        const uint8_t *expected = @name@_exec_vector_status[call];
        @name@_exec_input input;
        @name@_exec_vector_fill(&input, call);
        float action[@NAME@_ACTION_SIZE], obs[@NAME@_OBS_SIZE];
        const @name@_exec_status status = @name@_exec_step(exec, @name@_exec_vector_time[call][0], &input, action);
        if (status.verdict != expected[0] || status.step != expected[1] || status.fault != expected[2]
            || status.hovering != expected[3]) {
            return call + 1;
        }
        if (status.step == @NAME@_EXEC_NO_STEP) {
            continue;
        }
        @name@_exec_observe(exec, &input, obs);
        uint32_t sum = 2166136261u;
        for (int i = 0; i < @observed@; i++) {
            const int at = i < @previous_action@ ? i : i + @NAME@_ACTION_SIZE;
            sum = (sum ^ @name@_exec_vector_bits(obs[at])) * 16777619u;
        }
        if (sum != @name@_exec_vector_sum[call]) {
            return call + 1;
        }
    }
    return 0;
}

int @name@_exec_boot_test(@name@_exec *exec)
{
    return @name@_selftest() <= 1e-5f && @name@_exec_selftest(exec) == 0;
}

#endif /* @NAME@_EXECUTOR_IMPLEMENTATION */
