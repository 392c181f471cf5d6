#ifndef STUB_PARAM_H
#define STUB_PARAM_H
#define PARAM_GROUP_START(group)
#define PARAM_GROUP_STOP(group)
#define PARAM_ADD(type, name, address) \
    extern uint8_t *const stub_param_##name; \
    uint8_t *const stub_param_##name = address;
#endif
