/* The policy @name@ in Betaflight: call @name@_betaflight_update() after mixTable(). */
#ifndef @NAME@_BETAFLIGHT_H
#define @NAME@_BETAFLIGHT_H

#include "@name@_executor.h"

/* Overwrites motor[] while the policy flies; else does nothing. Costs one clock reading while its switch is off. */
void @name@_betaflight_update(void);

/* A pose from a link of your own, in place of the one on the RC channels (define @NAME@_POSE_FROM_LINK).
 * Call it from the same task. position [m] and velocity [m/s] relative to the target, world; yaw [rad] likewise,
 * counter-clockwise; age_us: how long ago it was measured. */
void @name@_betaflight_pose(const float position[3], const float velocity[3], float yaw, uint32_t age_us);

/* What the policy last did, for an OSD or a log. */
@name@_exec_status @name@_betaflight_status(void);

#endif /* @NAME@_BETAFLIGHT_H */
