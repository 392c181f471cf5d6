#ifndef STUB_LOG_H
#define STUB_LOG_H
#include <stdint.h>

typedef uint16_t logVarId_t;
#define LOG_VARID_IS_VALID(id) ((id) != 0xffffu)
logVarId_t logGetVarId(const char *group, const char *name);
float logGetFloat(logVarId_t id);

/* Each variable becomes a pointer that the driver can read. */
#define LOG_GROUP_START(group)
#define LOG_GROUP_STOP(group)
#define LOG_ADD(type, name, address) \
    extern const volatile void *const stub_log_##name; \
    const volatile void *const stub_log_##name = address;
#endif
