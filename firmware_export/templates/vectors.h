/* What the policy must answer, from @origin@. Include after @name@.h. */
#ifndef @NAME@_VECTORS_H
#define @NAME@_VECTORS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Anything above this means that the build is not the policy. */
#define @NAME@_SELFTEST_TOLERANCE 1e-5f

/* The largest error over all steps: 0 where the arithmetic is exact, as it should be on every processor.
 * 2e30 when the weights are not what was exported (their CRC differs), 1e30 when an answer is refused. */
float @name@_selftest(void);

/* The same with weights of your choice; their CRC must then be `crc`, and the errors are those to the vectors here. */
float @name@_selftest_with(const @name@_weights *w, uint32_t crc);

#ifdef __cplusplus
}
#endif

#endif /* @NAME@_VECTORS_H */

#if defined(@NAME@_IMPLEMENTATION) && !defined(@NAME@_VECTORS_IMPLEMENTED)
#define @NAME@_VECTORS_IMPLEMENTED

/* Step after step, in each step sequence after sequence. */
@observations@
@actions@

float @name@_selftest_with(const @name@_weights *w, uint32_t crc)
{
    float worst = 0.0f;
    if (@name@_crc(w) != crc) {
        return 2e30f;
    }
    for (int sequence = 0; sequence < @sequences@; sequence++) {
        @name@_state state;
        @name@_reset_with(w, &state);
        for (int step = 0; step < @steps@; step++) {
            const int at = step * @sequences@ + sequence;
            float action[@NAME@_ACTION_SIZE];
            if (@name@_infer_with(w, &state, &state, &@name@_vector_obs[at * @NAME@_OBS_SIZE], action) != @NAME@_OK) {
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

#ifndef @NAME@_NO_WEIGHTS
float @name@_selftest(void)
{
    return @name@_selftest_with(@name@_embedded(), @NAME@_WEIGHTS_CRC);
}
#endif

#endif /* @NAME@_IMPLEMENTATION */
