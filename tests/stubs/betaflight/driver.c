/* Calls the adapter as the PID loop does. The mixer's own values are known by their 1234. */
#include "stub_betaflight.h"

#include "quad_betaflight.h"

uint8_t armingFlags;
float motor[8], rcData[18];
gyro_t gyro;
static mixerConfig_t mixer = {MIXER_QUADX, false};
static uint32_t now_us = 0xfffff000u; /* wraps soon */
static quaternion attitude = {1, 0, 0, 0};
static int switches, frame_age_us;
static float low = 1000.0f, high = 2000.0f;

uint32_t micros(void) { return now_us; }
bool IS_RC_MODE_ACTIVE(boxId_e box) { return box == BOXUSER1 && (switches & 1); }
bool failsafeIsActive(void) { return (switches & 2) != 0; }
void getQuaternion(quaternion *q) { *q = attitude; }
const mixerConfig_t *mixerConfig(void) { return &mixer; }
mixerMode_e getMixerMode(void) { return (mixerMode_e)mixer.mixerMode; }
float getMotorOutputLow(void) { return low; }
float getMotorOutputHigh(void) { return high; }
bool rxIsReceivingSignal(void) { return true; }
timeDelta_t rxGetFrameDelta(timeDelta_t *age)
{
    *age = frame_age_us;
    return 0;
}

void stub_set(int armed, int bits, int reversed, float from, float to)
{
    armingFlags = armed ? ARMED : 0;
    switches = bits;
    mixer.yaw_motors_reversed = reversed != 0;
    low = from;
    high = to;
}

/* native: position and velocity error, yaw error [rad], quaternion w x y z, gyro [deg/s].
 * A new frame comes every 10 ms unless age_us says how old the last is. */
void stub_loop(const float native[14], int age_us, float motors[4])
{
    static const int channels[6] = {0, 1, 3, 5, 6, 7};
    now_us += 125u;
    frame_age_us = age_us >= 0 ? age_us : (int)(now_us % 10000u);
    for (int i = 0; i < 6; i++) {
        rcData[channels[i]] = 1500.0f + 500.0f * native[i];
    }
    rcData[2] = 1500.0f + 500.0f * native[6] / 3.14159265f;
    attitude = (quaternion){native[7], native[8], native[9], native[10]};
    for (int i = 0; i < 3; i++) {
        gyro.gyroADCf[i] = native[11 + i];
    }
    for (int i = 0; i < 4; i++) {
        motor[i] = 1234.0f;
    }
    quad_betaflight_update();
    for (int i = 0; i < 4; i++) {
        motors[i] = motor[i];
    }
}

int stub_fault(void) { return quad_betaflight_status().fault; }
int stub_verdict(void) { return quad_betaflight_status().verdict; }
int stub_step(void) { return quad_betaflight_status().step; }
