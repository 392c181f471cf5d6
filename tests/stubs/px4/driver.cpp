// Plays the topics to the module, as PX4 would, and answers as the commander does.
#include "stub_px4.hpp"

#include "quad_px4.hpp"

#define TOPIC(name) StubTopic stub_##name
TOPIC(actuator_motors);
TOPIC(arming_check_request);
TOPIC(arming_check_reply);
TOPIC(register_ext_component_request);
TOPIC(register_ext_component_reply);
TOPIC(unregister_ext_component);
TOPIC(trajectory_setpoint);
TOPIC(vehicle_angular_velocity);
TOPIC(vehicle_attitude);
TOPIC(vehicle_local_position);
TOPIC(vehicle_status);
TOPIC(vehicle_command);
TOPIC(vehicle_control_mode);
TOPIC(config_control_setpoints);

int32_t stub_imu_gyro_ratemax = 400;
bool stub_exit = false;
static hrt_abstime now_us = 7000000;
static char printed[256];

hrt_abstime hrt_absolute_time() { return now_us; }

#include <stdarg.h>
#include <stdio.h>
void stub_log(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(printed, sizeof(printed), format, list);
    va_end(list);
}

template <typename T> static void play(StubTopic &topic, const T &message)
{
    memcpy(topic.bytes, &message, sizeof(T));
    topic.count++;
}

static px4::ScheduledWorkItem *module()
{
#ifdef QUAD_PX4_DESCRIPTOR
    return static_cast<QuadPolicy *>(QuadPolicy::desc.object.value);
#else
    return ModuleBase<QuadPolicy>::_object.value;
#endif
}

extern "C" int policy_quad_main(int argc, char *argv[]);

extern "C" const char *stub_printed() { return printed; }

extern "C" int stub_command(const char *word)
{
    char name[] = "policy_quad", argument[32];
    snprintf(argument, sizeof(argument), "%s", word);
    char *arguments[] = {name, argument, nullptr};
    return policy_quad_main(2, arguments);
}

extern "C" int stub_start(int rate)
{
    stub_imu_gyro_ratemax = rate;
    return stub_command("start");
}

extern "C" int stub_register()
{
    register_ext_component_request_s request;
    memcpy(&request, stub_register_ext_component_request.bytes, sizeof(request));
    register_ext_component_reply_s reply{};
    reply.request_id = request.request_id;
    reply.success = request.register_mode && request.register_arming_check;
    reply.mode_id = 23;
    reply.arming_check_id = 5;
    play(stub_register_ext_component_reply, reply);
    return request.name[0] != 0;
}

// native, all in NED and FRD: position, velocity, quaternion w x y z, rate, target position, target yaw.
// Returns how many motor messages have been published; motors: the newest.
extern "C" unsigned stub_loop(const float native[17], int step_us, int active, int valid, int ask, float motors[12])
{
    now_us += static_cast<hrt_abstime>(step_us);
    vehicle_status_s status{};
    status.nav_state = active ? 23 : 2;
    status.system_id = 1;
    status.component_id = 1;
    play(stub_vehicle_status, status);
    vehicle_local_position_s p{};
    p.timestamp = now_us - 3000;
    p.xy_valid = p.z_valid = p.v_xy_valid = p.v_z_valid = valid;
    p.x = native[0], p.y = native[1], p.z = native[2];
    p.vx = native[3], p.vy = native[4], p.vz = native[5];
    play(stub_vehicle_local_position, p);
    vehicle_attitude_s a{};
    a.timestamp = now_us - 1000;
    memcpy(a.q, native + 6, sizeof(a.q));
    play(stub_vehicle_attitude, a);
    vehicle_angular_velocity_s w{};
    w.timestamp = w.timestamp_sample = now_us;
    memcpy(w.xyz, native + 10, sizeof(w.xyz));
    play(stub_vehicle_angular_velocity, w);
    trajectory_setpoint_s s{};
    s.timestamp = now_us;
    memcpy(s.position, native + 13, sizeof(s.position));
    s.acceleration[0] = s.acceleration[1] = s.acceleration[2] = NAN;
    s.yaw = native[16];
    play(stub_trajectory_setpoint, s);
    if (ask) {
        arming_check_request_s request{};
        request.request_id = static_cast<uint8_t>(ask);
        play(stub_arming_check_request, request);
    }
    module()->Run();
    actuator_motors_s out;
    memcpy(&out, stub_actuator_motors.bytes, sizeof(out));
    memcpy(motors, out.control, sizeof(out.control));
    return stub_actuator_motors.count;
}

// The newest arming answer: -1 none, else whether it may arm.
extern "C" int stub_may_arm()
{
    arming_check_reply_s reply;
    memcpy(&reply, stub_arming_check_reply.bytes, sizeof(reply));
    return stub_arming_check_reply.count ? reply.can_arm_and_run && reply.registration_id == 5 : -1;
}

// How often a mode was asked for, 1000 times the custom mode of the last.
extern "C" int stub_mode_requests()
{
    vehicle_command_s command;
    memcpy(&command, stub_vehicle_command.bytes, sizeof(command));
    const int mode = static_cast<int>(command.param2) * 10 + static_cast<int>(command.param3);
    return static_cast<int>(stub_vehicle_command.count) + 1000 * mode;
}

extern "C" int stub_stock_controllers_off()
{
    vehicle_control_mode_s mode;
    memcpy(&mode, stub_config_control_setpoints.bytes, sizeof(mode));
    return stub_config_control_setpoints.count == 1 && mode.source_id == 23 && !mode.flag_control_allocation_enabled;
}

extern "C" int stub_stop()
{
    stub_exit = true;
    module()->Run();
    unregister_ext_component_s message;
    memcpy(&message, stub_unregister_ext_component.bytes, sizeof(message));
    return message.mode_id;
}
