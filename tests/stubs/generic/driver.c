/* Calls the executor directly, as a loop without a flight stack does. */
#include "quad_executor.h"
#include "quad_executor_vectors.h"

static quad_exec exec;
static uint64_t now_us = 1000000;

int stub_start(void)
{
    const int tested = quad_exec_boot_test(&exec);
    quad_exec_config config = quad_exec_defaults();
    config.ratio = 4u;
    quad_exec_init(&exec, &config);
    return tested;
}

/* native: position, quaternion w x y z */
int stub_loop(const float native[7], float motors[4])
{
    quad_exec_input input = {0};
    float action[4];
    now_us += 2500u;
    input.position_us = input.attitude_us = input.angular_velocity_us = input.setpoint_us = now_us;
    for (int i = 0; i < 3; i++) {
        input.position[i] = native[i];
    }
    for (int i = 0; i < 4; i++) {
        input.quaternion[i] = native[3 + i];
    }
    const quad_exec_status status = quad_exec_step(&exec, now_us, &input, action);
    quad_exec_command(action, motors);
    return status.verdict;
}

/* native: position, quaternion w x y z, velocity, rate, target position, target yaw */
int stub_fly(const float native[17], float motors[4])
{
    quad_exec_input input = {0};
    float action[4];
    now_us += 2500u;
    input.position_us = input.attitude_us = input.angular_velocity_us = input.setpoint_us = now_us;
    for (int i = 0; i < 3; i++) {
        input.position[i] = native[i];
        input.velocity[i] = native[7 + i];
        input.angular_velocity[i] = native[10 + i];
        input.target_position[i] = native[13 + i];
    }
    for (int i = 0; i < 4; i++) {
        input.quaternion[i] = native[3 + i];
    }
    input.target_yaw = native[16];
    const quad_exec_status status = quad_exec_step(&exec, now_us, &input, action);
    quad_exec_command(action, motors);
    return status.verdict;
}
