/* The policy @name@ on an M5StampFly. Written to the public driver interface of @written_for@.
 *
 * This file compiles the policy and its executor too. */
#include "@name@_stampfly.h"

#include "driver/ledc.h"
#include "esp_timer.h"

#define @NAME@_IMPLEMENTATION
#define @NAME@_EXECUTOR_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"
#include "@name@_executor.h"
#include "@name@_executor_vectors.h"

#ifndef @NAME@_MAX_DUTY
#define @NAME@_MAX_DUTY 0.95f /* the maker's limit */
#endif

static const float axes[3] = {@axes@};
static const float quaternion_signs[4] = {@quaternion_signs@}; /* w, x, y, z */
static const float rate_scale = @rate_scale@;
static const uint8_t motors[4] = {@motors@};   /* output k is the policy's motor motors[k] */
static const int pins[4] = {5, 42, 10, 41};    /* front left, front right, rear left, rear right */
static const float steps_of_duty = 255.0f;     /* 8 bits, which is what 150 kHz leaves */

static @name@_exec exec;
static @name@_exec_input seen;
static float attitude[4];
static float rest[4]; /* the part of a step that each motor is still owed */

@align@
static uint64_t clock_us(void)
{
    return (uint64_t)esp_timer_get_time();
}

static uint64_t stamp(uint64_t now_us, uint32_t age_us)
{
    return age_us < now_us ? now_us - age_us : 0u;
}

static void write_duty(int output, uint32_t duty)
{
    (void)ledc_set_duty(LEDC_LOW_SPEED_MODE, (ledc_channel_t)output, duty);
    (void)ledc_update_duty(LEDC_LOW_SPEED_MODE, (ledc_channel_t)output);
}

void @name@_stampfly_motors_off(void)
{
    for (int i = 0; i < 4; i++) {
        rest[i] = 0.0f;
        write_duty(i, 0u);
    }
}

int @name@_stampfly_init(void)
{
    ledc_timer_config_t timer = {0};
    timer.speed_mode = LEDC_LOW_SPEED_MODE;
    timer.duty_resolution = LEDC_TIMER_8_BIT;
    timer.timer_num = LEDC_TIMER_0;
    timer.freq_hz = 150000u;
    timer.clk_cfg = LEDC_AUTO_CLK;
    if (ledc_timer_config(&timer) != ESP_OK) {
        return 0;
    }
    for (int i = 0; i < 4; i++) {
        ledc_channel_config_t channel = {0};
        channel.gpio_num = pins[i];
        channel.speed_mode = LEDC_LOW_SPEED_MODE;
        channel.channel = (ledc_channel_t)i;
        channel.timer_sel = LEDC_TIMER_0;
        channel.duty = 0u;
        if (ledc_channel_config(&channel) != ESP_OK) {
            return 0;
        }
    }
    @name@_exec_config config = @name@_exec_defaults();
    config.step_us = @step_us@u;
    config.every_call = @every_call@u;
    config.ratio = @ratio@u;
    const int tested = @name@_exec_boot_test(&exec);
    @name@_exec_init(&exec, &config);
    return tested;
}

/* Roll after pitch after yaw, in the sensors' axes, then in ours. */
static void take_sensors(const @name@_stampfly_sensors *sensors, uint64_t now_us)
{
    const float rate[3] = {sensors->roll_rate, sensors->pitch_rate, sensors->yaw_rate};
    const float angle[3] = {sensors->roll_angle, sensors->pitch_angle, sensors->yaw_angle};
    float c[3], s[3];
    for (int i = 0; i < 3; i++) {
        seen.angular_velocity[i] = axes[i] * rate_scale * rate[i];
        const int usable = @name@_exec_finite(&angle[i], 1) && angle[i] < 1000.0f && angle[i] > -1000.0f;
        @name@_exec_cos_sin(usable ? 0.5f * angle[i] : 0.0f, &c[i], &s[i]);
        if (!usable) {
            s[i] = c[i] = 0.0f; /* no attitude: the executor refuses a quaternion of zeros */
        }
    }
    const float q[4] = {
        c[0] * c[1] * c[2] + s[0] * s[1] * s[2],
        s[0] * c[1] * c[2] - c[0] * s[1] * s[2],
        c[0] * s[1] * c[2] + s[0] * c[1] * s[2],
        c[0] * c[1] * s[2] - s[0] * s[1] * c[2],
    };
    for (int i = 0; i < 4; i++) {
        attitude[i] = quaternion_signs[i] * q[i];
    }
    align_apply(attitude, seen.quaternion);
    seen.attitude_us = stamp(now_us, sensors->age_us);
    seen.angular_velocity_us = seen.attitude_us;
}

void @name@_stampfly_pose(const float position[3], const float velocity[3], float yaw, uint32_t age_us)
{
    for (int i = 0; i < 3; i++) {
        seen.position[i] = position[i];
        seen.velocity[i] = velocity[i];
    }
    seen.position_us = stamp(clock_us(), age_us);
    if (seen.attitude_us != 0u) { /* the attitude of the last step is at most one step older than the pose */
        align_learn(attitude, yaw, 0.2f);
    }
}

void @name@_stampfly_target(const float position[3], const float velocity[3], float yaw)
{
    for (int i = 0; i < 3; i++) {
        seen.target_position[i] = position[i];
        seen.target_velocity[i] = velocity[i];
    }
    seen.target_yaw = yaw;
    seen.setpoint_us = clock_us();
}

uint8_t @name@_stampfly_check(const @name@_stampfly_sensors *sensors)
{
    const uint64_t now_us = clock_us();
    take_sensors(sensors, now_us);
    return align_known != 0u ? @name@_exec_check(&exec.config, now_us, &seen) : @NAME@_EXEC_STALE_POSITION;
}

void @name@_stampfly_start(void)
{
    @name@_exec_reset(&exec);
    for (int i = 0; i < 4; i++) {
        rest[i] = 0.0f;
    }
}

/* 255 steps of duty are coarse, so what a step leaves over is added to the next: right on average. */
static void drive(const float command[4])
{
    for (int i = 0; i < 4; i++) {
        const float wanted = command[motors[i]];
        const float duty = (wanted > @NAME@_MAX_DUTY ? @NAME@_MAX_DUTY : wanted) * steps_of_duty + rest[i];
        const uint32_t whole = (uint32_t)duty;
        rest[i] = duty - (float)whole;
        write_duty(i, whole);
    }
}

@name@_exec_status @name@_stampfly_step(const @name@_stampfly_sensors *sensors)
{
    const uint64_t now_us = clock_us();
    float action[@NAME@_ACTION_SIZE], command[@NAME@_ACTION_SIZE];
    take_sensors(sensors, now_us);
    const @name@_exec_status status = @name@_exec_step(&exec, now_us, &seen, action);
    if (status.verdict != @NAME@_EXEC_HAND_BACK) {
        @name@_exec_command(action, command);
        drive(command);
    }
    return status;
}
