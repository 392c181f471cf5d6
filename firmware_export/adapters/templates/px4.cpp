#include "@name@_px4.hpp"

#include <math.h>
#include <string.h>

#include "@name@_executor_vectors.h"

namespace
{
constexpr float axes[3] = {@axes@};                         // of position, velocity and rate
constexpr float quaternion_signs[4] = {@quaternion_signs@}; // w, x, y, z
constexpr float yaw_sign = @yaw_sign@;
constexpr float rate_scale = @rate_scale@;
constexpr uint8_t motors[4] = {@motors@}; // output k is the policy's motor motors[k]
constexpr const char *mode_name = "@name@";
}

#ifdef @NAME@_PX4_DESCRIPTOR
ModuleBase::Descriptor @class@::desc{task_spawn, custom_command, print_usage};
#endif

@class@::@class@() :
    ModuleParams(nullptr),
    ScheduledWorkItem(MODULE_NAME, px4::wq_configurations::rate_ctrl)
{
}

bool @class@::init()
{
    _tested = @name@_exec_boot_test(&_exec) != 0;
    if (!_tested) {
        PX4_ERR("the self-test of @name@ failed");
        return false;
    }
    const int native_hz = 1000000 / static_cast<int>(@NAME@_EXEC_NATIVE_US);
    const int rate_hz = static_cast<int>(_rate_max.get());
    if (rate_hz < native_hz) {
        PX4_ERR("IMU_GYRO_RATEMAX is %d Hz; allowed: %d Hz or more", rate_hz, native_hz);
        return false;
    }
    if (rate_hz % native_hz != 0) {
        PX4_WARN("IMU_GYRO_RATEMAX is %d Hz, not a multiple of %d Hz", rate_hz, native_hz);
    }
    // More than four inferences per native step make the policy unsteady, so a faster gyroscope is read less often.
    _every = (rate_hz + 4 * native_hz - 1) / (4 * native_hz);
    @name@_exec_config config = @name@_exec_defaults();
    config.step_us = 1000000u * static_cast<uint32_t>(_every) / static_cast<uint32_t>(rate_hz);
    config.every_call = @every_call@u;
    config.ratio = static_cast<uint32_t>(rate_hz / (_every * native_hz));
    @name@_exec_init(&_exec, &config);
    _motors.advertise();
    if (!_rate.registerCallback()) {
        PX4_ERR("no callback on vehicle_angular_velocity");
        return false;
    }
    announce();
    return true;
}

void @class@::announce()
{
    register_ext_component_request_s request{};
    request.timestamp = hrt_absolute_time();
    request.request_id = REQUEST_ID;
    strncpy(request.name, mode_name, sizeof(request.name) - 1);
    request.px4_ros2_api_version = register_ext_component_request_s::LATEST_PX4_ROS2_API_VERSION;
    request.register_arming_check = true;
    request.register_mode = true;
    request.request_offboard_setpoints = true; // so that trajectory_setpoint arrives in this mode too
    _register.publish(request);
}

void @class@::leave()
{
    if (_mode_id >= 0) {
        unregister_ext_component_s request{};
        request.timestamp = hrt_absolute_time();
        strncpy(request.name, mode_name, sizeof(request.name) - 1);
        request.arming_check_id = static_cast<int8_t>(_arming_check_id);
        request.mode_id = static_cast<int8_t>(_mode_id);
        request.mode_executor_id = -1;
        _unregister.publish(request);
    }
}

void @class@::answer_registration()
{
    register_ext_component_reply_s reply{};
    if (_mode_id >= 0 || !_registered.update(&reply) || reply.request_id != REQUEST_ID || !reply.success) {
        return;
    }
    _mode_id = reply.mode_id;
    _arming_check_id = reply.arming_check_id;
    vehicle_control_mode_s mode{}; // all flags off: no stock controller and no allocation beside the policy
    mode.timestamp = hrt_absolute_time();
    mode.source_id = static_cast<uint8_t>(_mode_id);
    _control_mode.publish(mode);
}

void @class@::answer_arming_check()
{
    arming_check_request_s request{};
    if (_mode_id < 0 || !_asked.update(&request)) {
        return;
    }
    arming_check_reply_s reply{};
    reply.timestamp = hrt_absolute_time();
    reply.request_id = request.request_id;
    reply.registration_id = static_cast<uint8_t>(_arming_check_id);
    reply.health_component_index = arming_check_reply_s::HEALTH_COMPONENT_INDEX_NONE;
    reply.can_arm_and_run = _tested && !_handed_back && _fault == @NAME@_EXEC_NO_FAULT;
    reply.mode_req_angular_velocity = true;
    reply.mode_req_attitude = true;
    reply.mode_req_local_alt = true;
    reply.mode_req_local_position = true;
    _arming.publish(reply);
}

void @class@::read(@name@_exec_input &input)
{
    _position.update(&_last_position);
    _attitude.update(&_last_attitude);
    _setpoint.update(&_last_setpoint);
    const vehicle_local_position_s &p = _last_position;
    const bool valid = p.xy_valid && p.z_valid && p.v_xy_valid && p.v_z_valid;
    input.position_us = valid ? p.timestamp : 0; // 0 is older than any limit
    input.attitude_us = _last_attitude.timestamp;
    input.angular_velocity_us = _last_rate.timestamp;
    input.setpoint_us = _last_setpoint.timestamp;
    const float position[3] = {p.x, p.y, p.z};
    const float velocity[3] = {p.vx, p.vy, p.vz};
    for (int i = 0; i < 3; i++) {
        input.position[i] = axes[i] * position[i];
        input.velocity[i] = axes[i] * velocity[i];
        input.angular_velocity[i] = axes[i] * rate_scale * _last_rate.xyz[i];
        input.target_position[i] = axes[i] * _last_setpoint.position[i];
        input.target_velocity[i] = axes[i] * _last_setpoint.velocity[i];
        input.target_acceleration[i] = axes[i] * _last_setpoint.acceleration[i];
    }
    for (int i = 0; i < 4; i++) {
        input.quaternion[i] = quaternion_signs[i] * _last_attitude.q[i];
    }
    input.target_yaw = yaw_sign * _last_setpoint.yaw;
}

void @class@::publish(const float action[@NAME@_ACTION_SIZE])
{
    float command[@NAME@_ACTION_SIZE];
    @name@_exec_command(action, command);
    actuator_motors_s out{};
    out.timestamp = hrt_absolute_time();
    out.timestamp_sample = _last_rate.timestamp_sample;
    for (int i = 0; i < actuator_motors_s::NUM_CONTROLS; i++) {
        out.control[i] = i < @NAME@_ACTION_SIZE ? command[motors[i]] : NAN;
    }
    _motors.publish(out);
}

/* Hands back: PX4's own hold mode. Until the commander has switched, the outputs keep their last command. */
void @class@::request_hold()
{
    vehicle_command_s command{};
    command.timestamp = hrt_absolute_time();
    command.command = vehicle_command_s::VEHICLE_CMD_DO_SET_MODE;
    command.param1 = 1.0f; // MAV_MODE_FLAG_CUSTOM_MODE_ENABLED
    command.param2 = 4.0f; // PX4_CUSTOM_MAIN_MODE_AUTO
    command.param3 = 3.0f; // PX4_CUSTOM_SUB_MODE_AUTO_LOITER
    command.target_system = _last_status.system_id;
    command.target_component = _last_status.component_id;
    command.source_system = _last_status.system_id;
    command.source_component = _last_status.component_id;
    _command.publish(command);
}

void @class@::Run()
{
    if (should_exit()) {
        _rate.unregisterCallback();
        leave();
        ScheduleClear();
#ifdef @NAME@_PX4_DESCRIPTOR
        exit_and_cleanup(desc);
#else
        exit_and_cleanup();
#endif
        return;
    }
    answer_registration();
    _status.update(&_last_status);
    if (!_rate.update(&_last_rate)) {
        answer_arming_check();
        return;
    }
    const hrt_abstime now = hrt_absolute_time();
    @name@_exec_input input{};
    read(input);
    _fault = @name@_exec_check(&_exec.config, now, &input);

    const bool active = _mode_id >= 0 && _last_status.nav_state == _mode_id;
    if (active && !_active) {
        @name@_exec_reset(&_exec);
        _samples = 0;
    }
    if (!active) {
        _handed_back = false; // leaving the mode is what clears it
    }
    _active = active;
    const bool due = _samples == 0;
    _samples = (_samples + 1) % _every;
    if (active && due) {
        float action[@NAME@_ACTION_SIZE];
        _result = @name@_exec_step(&_exec, now, &input, action);
        if (_result.verdict != @NAME@_EXEC_HAND_BACK) {
            publish(action);
        } else if (!_handed_back) {
            PX4_ERR("@name@ hands back, fault %d", static_cast<int>(_result.fault));
            _handed_back = true;
            request_hold();
        }
    }
    answer_arming_check();
}

void @class@::remember(@class@ *instance, int task_id)
{
#ifdef @NAME@_PX4_DESCRIPTOR
    desc.object.store(instance);
    desc.task_id = task_id;
#else
    _object.store(instance);
    _task_id = task_id;
#endif
}

int @class@::task_spawn(int argc, char *argv[])
{
    (void)argc;
    (void)argv;
    @class@ *instance = new @class@();
    if (instance == nullptr) {
        PX4_ERR("no memory");
        return PX4_ERROR;
    }
    remember(instance, task_id_is_work_queue);
    if (instance->init()) {
        return PX4_OK;
    }
    delete instance;
    remember(nullptr, -1);
    return PX4_ERROR;
}

int @class@::print_status()
{
    PX4_INFO("mode %d, %s, fault %d, hovering %d, timing %d", _mode_id, _active ? "active" : "not active",
        static_cast<int>(_active ? _result.fault : _fault), static_cast<int>(_result.hovering),
        static_cast<int>(_result.timing));
    return 0;
}

int @class@::custom_command(int argc, char *argv[])
{
    (void)argc;
    (void)argv;
    return print_usage("unknown command");
}

int @class@::print_usage(const char *reason)
{
    if (reason != nullptr) {
        PX4_WARN("%s", reason);
    }
    PRINT_MODULE_DESCRIPTION("A neural policy as a flight mode, from the gyroscope to the motors.");
    PRINT_MODULE_USAGE_NAME("@module@", "controller");
    PRINT_MODULE_USAGE_COMMAND("start");
    PRINT_MODULE_USAGE_DEFAULT_COMMANDS();
    return 0;
}

extern "C" __EXPORT int @module@_main(int argc, char *argv[])
{
#ifdef @NAME@_PX4_DESCRIPTOR
    return ModuleBase::main(@class@::desc, argc, argv);
#else
    return @class@::main(argc, argv);
#endif
}
