/* Calls the adapter as the firmware's 1 kHz loop does. The stock controller is known by its -1. */
#include <setjmp.h>

#include "FreeRTOS.h"
#include "task.h"
#include "app.h"
#include "controller.h"
#include "controller_pid.h"
#include "debug.h"
#include "log.h"
#include "usec_time.h"

static uint64_t now_us = 5000000;
static uint32_t boot_ms = 1234; /* microseconds began before the ticks */
static control_t control;
static setpoint_t setpoint;
static sensorData_t sensors;
static state_t state;
static stabilizerStep_t loop;

extern uint8_t *const stub_param_enable;
extern const volatile void *const stub_log_tested;

uint64_t usecTimestamp(void) { return now_us; }
uint32_t xTaskGetTickCount(void) { return (uint32_t)(now_us / 1000u) - boot_ms; }
static jmp_buf app_sleeps;
void vTaskDelay(uint32_t ticks)
{
    (void)ticks;
    longjmp(app_sleeps, 1); /* the app's task never returns */
}
void stub_print(const char *text) { (void)text; }
static float deviation;
logVarId_t logGetVarId(const char *group, const char *name) { return group[0] == 'k' && name[0] == 'v' ? 7u : 0xffffu; }
float logGetFloat(logVarId_t id) { return id == 7u ? deviation * deviation : -1.0f; }
void controllerPidInit(void) {}
bool controllerPidTest(void) { return true; }

void controllerPid(control_t *out, const setpoint_t *target, const sensorData_t *seen, const state_t *where,
    const stabilizerStep_t count)
{
    (void)target, (void)seen, (void)where, (void)count;
    out->controlMode = controlModeLegacy;
    for (int i = 0; i < 4; i++) {
        out->normalizedForces[i] = -1.0f;
    }
}

int stub_start(void)
{
    controllerOutOfTreeInit();
    if (!controllerOutOfTreeTest()) {
        return 0;
    }
    if (setjmp(app_sleeps) == 0) {
        appMain();
    }
    return *(const volatile uint8_t *)stub_log_tested;
}

void stub_enable(int on) { *stub_param_enable = (uint8_t)on; }

/* native: position, velocity, quaternion x y z w, gyro [deg/s], target position, target yaw [deg];
 * The estimate trembles unless it is frozen. sigma: its standard deviation [m]; age_ms: of the set-point. */
void stub_loop(const float native[17], int frozen, float sigma, uint32_t age_ms, int is_position, float motors[4])
{
    const float tremble = frozen ? 0.0f : 1e-7f * (float)(loop % 3u);
    deviation = sigma;
    now_us += 1000u;
    const uint32_t tick = xTaskGetTickCount();
    state.position = (point_t){0, native[0], native[1], native[2]};
    state.velocity = (velocity_t){0, native[3] + tremble, native[4], native[5]};
    state.attitudeQuaternion = (quaternion_t){0, native[6], native[7], native[8], native[9]};
    sensors.gyro = (Axis3f){native[10], native[11], native[12]};
    setpoint.timestamp = tick - age_ms;
    setpoint.position = (point_t){0, native[13], native[14], native[15]};
    setpoint.attitude.yaw = native[16];
    setpoint.mode.x = setpoint.mode.y = setpoint.mode.z = is_position ? modeAbs : modeVelocity;
    setpoint.mode.yaw = modeAbs;
    controllerOutOfTree(&control, &setpoint, &sensors, &state, loop++);
    for (int i = 0; i < 4; i++) {
        motors[i] = control.normalizedForces[i];
    }
}
