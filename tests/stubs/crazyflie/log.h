#ifndef STUB_LOG_H
#define STUB_LOG_H
/* Each variable becomes a pointer that the driver can read. */
#define LOG_GROUP_START(group)
#define LOG_GROUP_STOP(group)
#define LOG_ADD(type, name, address) \
    extern const volatile void *const stub_log_##name; \
    const volatile void *const stub_log_##name = address;
#endif
