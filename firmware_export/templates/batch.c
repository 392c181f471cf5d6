/* For host computers: the policy as a shared library that steps many robots in one call.
 * cc -std=c99 -O3 -fPIC -shared @name@_batch.c -o @name@.so */
#ifndef ARDUINO /* whose builds compile every file of a folder */
#define @NAME@_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"

const char *realign_policy_describe(void);
float realign_policy_verify(void);
long realign_policy_step_all(long robots, const float *obs, const float *h, float *action, float *h_out);

static const char @name@_spec[] = {
@spec@
};

/* The specification of the policy, JSON. */
const char *realign_policy_describe(void)
{
    return @name@_spec;
}

float realign_policy_verify(void)
{
    return @name@_selftest();
}

/* Steps every robot; returns how many were stepped, fewer than asked for when something is not finite. */
long realign_policy_step_all(long robots, const float *obs, const float *h, float *action, float *h_out)
{
    for (long robot = 0; robot < robots; robot++) {
        const @name@_state *in = (const @name@_state *)&h[robot * @NAME@_STATE_SIZE];
        @name@_state *out = (@name@_state *)&h_out[robot * @NAME@_STATE_SIZE];
        if (@name@_infer(in, out, &obs[robot * @NAME@_OBS_SIZE], &action[robot * @NAME@_ACTION_SIZE]) != @NAME@_OK) {
            return robot;
        }
    }
    return robots;
}
#endif
