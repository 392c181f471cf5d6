/* A stand-in for the test: the parts of PX4's public module and uORB interface that the adapter uses, and no more.
 * A topic is one variable with a counter. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t hrt_abstime;
hrt_abstime hrt_absolute_time();
void stub_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define PX4_INFO(...) stub_log(__VA_ARGS__)
#define PX4_WARN(...) stub_log(__VA_ARGS__)
#define PX4_ERR(...) stub_log(__VA_ARGS__)
#define PRINT_MODULE_DESCRIPTION(text) stub_log("%s", text)
#define PRINT_MODULE_USAGE_NAME(name, category) stub_log("%s %s", name, category)
#define PRINT_MODULE_USAGE_COMMAND(name) stub_log("%s", name)
#define PRINT_MODULE_USAGE_DEFAULT_COMMANDS() stub_log("stop, status")
#define MODULE_NAME "stub"
#define __EXPORT
constexpr int PX4_OK = 0;
constexpr int PX4_ERROR = -1;

struct StubTopic {
    alignas(8) unsigned char bytes[512];
    unsigned count;
};

#define STUB_TOPIC(name, ...) \
    struct name##_s __VA_ARGS__; \
    extern StubTopic stub_##name;

#define ORB_ID(name) (&stub_##name)

STUB_TOPIC(actuator_motors, {
    static constexpr int NUM_CONTROLS = 12;
    uint64_t timestamp, timestamp_sample;
    float control[12];
})
STUB_TOPIC(arming_check_request, { uint64_t timestamp; uint8_t request_id; })
STUB_TOPIC(arming_check_reply, {
    static constexpr uint8_t HEALTH_COMPONENT_INDEX_NONE = 0;
    uint64_t timestamp;
    uint8_t request_id, registration_id, health_component_index;
    bool can_arm_and_run;
    bool mode_req_angular_velocity, mode_req_attitude, mode_req_local_alt, mode_req_local_position;
})
STUB_TOPIC(register_ext_component_request, {
    static constexpr uint16_t LATEST_PX4_ROS2_API_VERSION = 1;
    uint64_t timestamp, request_id;
    char name[25];
    uint16_t px4_ros2_api_version;
    bool register_arming_check, register_mode, request_offboard_setpoints;
})
STUB_TOPIC(register_ext_component_reply, {
    uint64_t timestamp, request_id;
    bool success;
    int8_t arming_check_id, mode_id;
})
STUB_TOPIC(unregister_ext_component, {
    uint64_t timestamp;
    char name[25];
    int8_t arming_check_id, mode_id, mode_executor_id;
})
STUB_TOPIC(trajectory_setpoint, {
    uint64_t timestamp;
    float position[3], velocity[3], acceleration[3], jerk[3], yaw, yawspeed;
})
STUB_TOPIC(vehicle_angular_velocity, { uint64_t timestamp, timestamp_sample; float xyz[3]; })
STUB_TOPIC(vehicle_attitude, { uint64_t timestamp, timestamp_sample; float q[4]; })
STUB_TOPIC(vehicle_local_position, {
    uint64_t timestamp, timestamp_sample;
    bool xy_valid, z_valid, v_xy_valid, v_z_valid;
    float x, y, z, vx, vy, vz;
})
STUB_TOPIC(vehicle_status, { uint64_t timestamp; uint8_t nav_state, system_id, component_id; })
STUB_TOPIC(vehicle_command, {
    static constexpr uint32_t VEHICLE_CMD_DO_SET_MODE = 176;
    uint64_t timestamp;
    float param1, param2, param3;
    uint32_t command;
    uint8_t target_system, target_component, source_system;
    uint16_t source_component;
})
STUB_TOPIC(vehicle_control_mode, { uint64_t timestamp; bool flag_control_allocation_enabled; uint8_t source_id; })
extern StubTopic stub_config_control_setpoints;

namespace uORB
{
class Subscription
{
public:
    explicit Subscription(StubTopic *topic) : _topic(topic) {}
    template <typename T> bool update(T *out)
    {
        if (_topic->count == _seen) {
            return false;
        }
        _seen = _topic->count;
        memcpy(out, _topic->bytes, sizeof(T));
        return true;
    }

private:
    StubTopic *_topic;
    unsigned _seen{0};
};

class SubscriptionCallbackWorkItem : public Subscription
{
public:
    template <typename Item> SubscriptionCallbackWorkItem(Item *, StubTopic *topic) : Subscription(topic) {}
    bool registerCallback() { return true; }
    void unregisterCallback() {}
};

template <typename T> class Publication
{
public:
    explicit Publication(StubTopic *topic) : _topic(topic) {}
    bool advertise() { return true; }
    bool publish(const T &message)
    {
        static_assert(sizeof(T) <= sizeof(_topic->bytes), "the stand-in has too little room");
        memcpy(_topic->bytes, &message, sizeof(T));
        _topic->count++;
        return true;
    }

private:
    StubTopic *_topic;
};
}

namespace px4
{
enum class params { IMU_GYRO_RATEMAX };
namespace wq_configurations
{
constexpr int rate_ctrl = 0;
}
class ScheduledWorkItem
{
public:
    ScheduledWorkItem(const char *, int) {}
    virtual ~ScheduledWorkItem() = default;
    virtual void Run() = 0;
    void ScheduleClear() {}
};
}

class ModuleParams
{
public:
    explicit ModuleParams(ModuleParams *) {}
    virtual ~ModuleParams() = default;
};

extern int32_t stub_imu_gyro_ratemax;
template <px4::params> class ParamInt
{
public:
    int32_t get() const { return stub_imu_gyro_ratemax; }
};
#define DEFINE_PARAMETERS(...) STUB_PARAMETER __VA_ARGS__;
#define STUB_PARAMETER(...) __VA_ARGS__

template <typename T> struct StubPointer {
    T *value{nullptr};
    void store(T *pointer) { value = pointer; }
};

extern bool stub_exit;
#ifdef QUAD_PX4_DESCRIPTOR
class ModuleBase
{
public:
    struct Descriptor {
        int (*task_spawn)(int, char *[]);
        int (*custom_command)(int, char *[]);
        int (*print_usage)(const char *);
        StubPointer<ModuleBase> object{};
        int task_id{-1};
        Descriptor(int (*spawn)(int, char *[]), int (*command)(int, char *[]), int (*usage)(const char *)) :
            task_spawn(spawn), custom_command(command), print_usage(usage)
        {
        }
    };
    virtual ~ModuleBase() = default;
    virtual int print_status() { return 0; }
    static int main(Descriptor &desc, int argc, char *argv[])
    {
        if (argc > 1 && strcmp(argv[1], "status") == 0) {
            return desc.object.value->print_status();
        }
        return argc > 1 && strcmp(argv[1], "start") == 0 ? desc.task_spawn(argc, argv) : desc.custom_command(argc, argv);
    }

protected:
    static constexpr int task_id_is_work_queue = -2;
    bool should_exit() const { return stub_exit; }
    void exit_and_cleanup(Descriptor &) {}
};
#else
template <typename T> class ModuleBase
{
public:
    virtual ~ModuleBase() = default;
    virtual int print_status() { return 0; }
    static int main(int argc, char *argv[])
    {
        if (argc > 1 && strcmp(argv[1], "status") == 0) {
            return _object.value->print_status();
        }
        return argc > 1 && strcmp(argv[1], "start") == 0 ? T::task_spawn(argc, argv) : T::custom_command(argc, argv);
    }
    static StubPointer<T> _object;
    static int _task_id;

protected:
    static constexpr int task_id_is_work_queue = -2;
    bool should_exit() const { return stub_exit; }
    void exit_and_cleanup() {}
};
template <typename T> StubPointer<T> ModuleBase<T>::_object;
template <typename T> int ModuleBase<T>::_task_id = -1;
#endif
