/* Observations of the long test, and the weights as the file that the loader takes. */
#define STEPS @steps@
#define COUNTED @counted@
@observations@
static const uint32_t steps_blob[@words@] = {@blob@};
