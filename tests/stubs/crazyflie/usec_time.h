#ifndef STUB_USEC_TIME_H
#define STUB_USEC_TIME_H
#include <stdint.h>
uint64_t usecTimestamp(void);
#endif
