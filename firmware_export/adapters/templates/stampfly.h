/* The policy @name@ on an M5StampFly, as an ESP-IDF component. One robot, called from one task. */
#ifndef @NAME@_STAMPFLY_H
#define @NAME@_STAMPFLY_H

#include <stdint.h>

#include "@name@_executor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The robot's own sensors, with the names, axes and units of the maker's firmware: x forward, y right, z down. */
typedef struct {
    float roll_rate, pitch_rate, yaw_rate;    /* [rad/s] */
    float roll_angle, pitch_angle, yaw_angle; /* [rad] */
    uint32_t age_us;                          /* since they were read */
} @name@_stampfly_sensors;

/* Sets up the motor outputs, off, and tests policy and executor: 1 when all is well, else do not fly. */
int @name@_stampfly_init(void);

/* Where the robot is, from outside: world with z up, x and y as you like, yaw counter-clockwise. */
void @name@_stampfly_pose(const float position[3], const float velocity[3], float yaw, uint32_t age_us);

/* Where it shall be, in the same world. */
void @name@_stampfly_target(const float position[3], const float velocity[3], float yaw);

/* What is wrong with the inputs now, or @NAME@_EXEC_NO_FAULT: do not take off while there is a fault. */
uint8_t @name@_stampfly_check(const @name@_stampfly_sensors *sensors);

/* Call it when the policy takes over. */
void @name@_stampfly_start(void);

/* Every @step_us@ us. RUN and HOLD have set the motors; on HAND_BACK it is for the caller to do so, at once. */
@name@_exec_status @name@_stampfly_step(const @name@_stampfly_sensors *sensors);

void @name@_stampfly_motors_off(void);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_STAMPFLY_H */
