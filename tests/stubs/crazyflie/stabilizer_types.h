/* A stand-in for the test: the parts of the Crazyflie's public interface that the adapter uses, and no more. */
#ifndef STUB_STABILIZER_TYPES_H
#define STUB_STABILIZER_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#define STABILIZER_NR_OF_MOTORS 4
#define RATE_MAIN_LOOP 1000
#define RATE_DO_EXECUTE(RATE_HZ, TICK) ((TICK % (RATE_MAIN_LOOP / RATE_HZ)) == 0)

typedef uint32_t stabilizerStep_t;

typedef struct {
    uint32_t timestamp;
    float roll, pitch, yaw;
} attitude_t;

typedef struct {
    uint32_t timestamp;
    float x, y, z;
} point_t;

typedef point_t velocity_t;
typedef point_t acc_t;

typedef struct {
    uint32_t timestamp;
    float x, y, z, w;
} quaternion_t;

typedef struct {
    float x, y, z;
} Axis3f;

typedef struct {
    Axis3f acc, gyro;
} sensorData_t;

typedef struct {
    attitude_t attitude;
    quaternion_t attitudeQuaternion;
    point_t position;
    velocity_t velocity;
    acc_t acc;
} state_t;

typedef enum { controlModeLegacy = 0, controlModeForceTorque = 1, controlModeForce = 2 } control_mode_t;

typedef struct {
    float normalizedForces[STABILIZER_NR_OF_MOTORS];
    control_mode_t controlMode;
} control_t;

typedef enum { modeDisable = 0, modeAbs, modeVelocity } stab_mode_t;

typedef struct {
    uint32_t timestamp;
    attitude_t attitude;
    attitude_t attitudeRate;
    quaternion_t attitudeQuaternion;
    float thrust;
    point_t position;
    velocity_t velocity;
    acc_t acceleration;
    bool velocity_body;
    struct {
        stab_mode_t x, y, z, roll, pitch, yaw, quat;
    } mode;
} setpoint_t;

#endif
