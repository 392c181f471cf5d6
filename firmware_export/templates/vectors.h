/* What the policy must answer, from @origin@. Include after @name@.h. */
#ifndef @NAME@_VECTORS_H
#define @NAME@_VECTORS_H

#ifdef __cplusplus
extern "C" {
#endif

/* The largest error over all steps; anything above 1e-5 means that this build is not the policy. */
float @name@_selftest(void);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_VECTORS_H */

#if defined(@NAME@_IMPLEMENTATION) && !defined(@NAME@_VECTORS_IMPLEMENTED)
#define @NAME@_VECTORS_IMPLEMENTED

/* Step after step, in each step sequence after sequence. */
@observations@
@actions@

float @name@_selftest(void)
{
    float worst = 0.0f;
    for (int sequence = 0; sequence < @sequences@; sequence++) {
        @name@_state state;
        @name@_reset(&state);
        for (int step = 0; step < @steps@; step++) {
            const int at = step * @sequences@ + sequence;
            float action[@NAME@_ACTION_SIZE];
            if (@name@_infer(&state, &state, &@name@_vector_obs[at * @NAME@_OBS_SIZE], action) != @NAME@_OK) {
                return 1e30f;
            }
            for (int i = 0; i < @NAME@_ACTION_SIZE; i++) {
                const float error = action[i] - @name@_vector_action[at * @NAME@_ACTION_SIZE + i];
                const float size = error < 0.0f ? -error : error;
                worst = size > worst ? size : worst;
            }
        }
    }
    return worst;
}

#endif /* @NAME@_IMPLEMENTATION */
