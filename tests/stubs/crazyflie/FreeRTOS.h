#ifndef STUB_FREERTOS_H
#define STUB_FREERTOS_H
#include <stdint.h>
#define M2T(X) ((unsigned int)(X))
#define T2M(X) ((unsigned int)(X))
#endif
