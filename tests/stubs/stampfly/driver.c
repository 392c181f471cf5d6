/* Calls the component as a 400 Hz task does, with a pose every 20 ms. */
#include "driver/ledc.h"
#include "esp_timer.h"
#include "quad_stampfly.h"

static int64_t now_us = 3000000;
static uint32_t duties[8], written[8];
static int pins[8], calls;

int64_t esp_timer_get_time(void) { return now_us; }
esp_err_t ledc_timer_config(const ledc_timer_config_t *config) { return config->freq_hz == 150000u ? ESP_OK : -1; }
esp_err_t ledc_channel_config(const ledc_channel_config_t *config)
{
    pins[config->channel] = config->gpio_num;
    return ESP_OK;
}
esp_err_t ledc_set_duty(ledc_mode_t mode, ledc_channel_t channel, uint32_t duty)
{
    (void)mode;
    written[channel] = duty;
    return ESP_OK;
}
esp_err_t ledc_update_duty(ledc_mode_t mode, ledc_channel_t channel)
{
    (void)mode;
    duties[channel] = written[channel];
    return ESP_OK;
}

int stub_start(void)
{
    const int tested = quad_stampfly_init();
    quad_stampfly_motors_off();
    return tested && pins[0] == 5 && pins[1] == 42 && pins[2] == 10 && pins[3] == 41;
}

static quad_stampfly_sensors sensors_of(const float native[13])
{
    quad_stampfly_sensors sensors = {native[0], native[1], native[2], native[3], native[4], native[5], 500u};
    return sensors;
}

int stub_check(const float native[13])
{
    const quad_stampfly_sensors sensors = sensors_of(native);
    return quad_stampfly_check(&sensors);
}

void stub_begin(void) { quad_stampfly_start(); }

/* native: rates and angles of the sensors (x forward, y right, z down), position, velocity and yaw of the pose.
 * Returns the verdict and 10 times the fault. */
int stub_loop(const float native[13], int with_pose, uint32_t out[4])
{
    const float zero[3] = {0, 0, 0};
    const quad_stampfly_sensors sensors = sensors_of(native);
    now_us += 2500;
    if (with_pose && calls % 8 == 0) {
        quad_stampfly_pose(native + 6, native + 9, native[12], 2000u);
    }
    quad_stampfly_target(zero, zero, 0.0f);
    calls++;
    const quad_exec_status status = quad_stampfly_step(&sensors);
    for (int i = 0; i < 4; i++) {
        out[i] = duties[i];
    }
    return status.verdict + 10 * status.fault;
}
