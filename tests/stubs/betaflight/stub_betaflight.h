/* A stand-in for the test: the parts of Betaflight's public headers that the adapter uses, and no more. */
#ifndef STUB_BETAFLIGHT_H
#define STUB_BETAFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

typedef int32_t timeDelta_t;
uint32_t micros(void);

enum { ARMED = 1 };
extern uint8_t armingFlags;
#define ARMING_FLAG(mask) (armingFlags & (mask))

typedef enum { BOXARM = 0, BOXUSER1 = 40 } boxId_e;
bool IS_RC_MODE_ACTIVE(boxId_e box);
bool failsafeIsActive(void);

typedef struct {
    float w, x, y, z;
} quaternion;
void getQuaternion(quaternion *q);

typedef enum { MIXER_TRI = 1, MIXER_QUADX = 3 } mixerMode_e;
typedef struct {
    uint8_t mixerMode;
    bool yaw_motors_reversed;
} mixerConfig_t;
const mixerConfig_t *mixerConfig(void);
mixerMode_e getMixerMode(void);
extern float motor[8];
float getMotorOutputLow(void);
float getMotorOutputHigh(void);

extern float rcData[18];
bool rxIsReceivingSignal(void);
timeDelta_t rxGetFrameDelta(timeDelta_t *frameAgeUs);

typedef struct {
    float gyroADCf[3];
} gyro_t;
extern gyro_t gyro;

#endif
