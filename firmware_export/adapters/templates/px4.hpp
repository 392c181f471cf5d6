/* The policy @name@ as an external flight mode of PX4. Written to the public interface of @written_for@. */
#pragma once

#include <px4_platform_common/module.h>
#include <px4_platform_common/module_params.h>
#include <px4_platform_common/px4_work_queue/ScheduledWorkItem.hpp>

#include <drivers/drv_hrt.h>

#include <uORB/Publication.hpp>
#include <uORB/Subscription.hpp>
#include <uORB/SubscriptionCallback.hpp>
#include <uORB/topics/actuator_motors.h>
#include <uORB/topics/arming_check_reply.h>
#include <uORB/topics/arming_check_request.h>
#include <uORB/topics/register_ext_component_reply.h>
#include <uORB/topics/register_ext_component_request.h>
#include <uORB/topics/trajectory_setpoint.h>
#include <uORB/topics/unregister_ext_component.h>
#include <uORB/topics/vehicle_angular_velocity.h>
#include <uORB/topics/vehicle_attitude.h>
#include <uORB/topics/vehicle_command.h>
#include <uORB/topics/vehicle_control_mode.h>
#include <uORB/topics/vehicle_local_position.h>
#include <uORB/topics/vehicle_status.h>

#include "@name@_executor.h"

#ifdef @NAME@_PX4_DESCRIPTOR // versions in which a module describes itself by a ModuleBase::Descriptor
class @class@ : public ModuleBase, public ModuleParams, public px4::ScheduledWorkItem
#else
class @class@ : public ModuleBase<@class@>, public ModuleParams, public px4::ScheduledWorkItem
#endif
{
public:
#ifdef @NAME@_PX4_DESCRIPTOR
    static Descriptor desc;
#endif
    @class@();
    ~@class@() override = default;

    static int task_spawn(int argc, char *argv[]);
    static int custom_command(int argc, char *argv[]);
    static int print_usage(const char *reason = nullptr);

    bool init();
    int print_status() override;

private:
    static constexpr uint64_t REQUEST_ID = @request_id@;

    static void remember(@class@ *instance, int task_id);
    void Run() override;
    void announce();
    void leave();
    void answer_registration();
    void answer_arming_check();
    void read(@name@_exec_input &input);
    void publish(const float action[@NAME@_ACTION_SIZE]);
    void request_hold();

    uORB::Subscription _registered{ORB_ID(register_ext_component_reply)};
    uORB::Subscription _asked{ORB_ID(arming_check_request)};
    uORB::Subscription _status{ORB_ID(vehicle_status)};
    uORB::Subscription _position{ORB_ID(vehicle_local_position)};
    uORB::Subscription _attitude{ORB_ID(vehicle_attitude)};
    uORB::Subscription _setpoint{ORB_ID(trajectory_setpoint)};
    uORB::SubscriptionCallbackWorkItem _rate{this, ORB_ID(vehicle_angular_velocity)};

    uORB::Publication<actuator_motors_s> _motors{ORB_ID(actuator_motors)};
    uORB::Publication<arming_check_reply_s> _arming{ORB_ID(arming_check_reply)};
    uORB::Publication<register_ext_component_request_s> _register{ORB_ID(register_ext_component_request)};
    uORB::Publication<unregister_ext_component_s> _unregister{ORB_ID(unregister_ext_component)};
    uORB::Publication<vehicle_control_mode_s> _control_mode{ORB_ID(config_control_setpoints)};
    uORB::Publication<vehicle_command_s> _command{ORB_ID(vehicle_command)};

    vehicle_status_s _last_status{};
    vehicle_local_position_s _last_position{};
    vehicle_attitude_s _last_attitude{};
    vehicle_angular_velocity_s _last_rate{};
    trajectory_setpoint_s _last_setpoint{};

    @name@_exec _exec{};
    @name@_exec_status _result{};
    uint8_t _fault{@NAME@_EXEC_STALE_POSITION}; // of the newest measurements; there are none yet
    int _mode_id{-1};
    int _arming_check_id{-1};
    int _every{1};   // samples per inference
    int _samples{0}; // since the last one
    bool _tested{false};
    bool _active{false};
    bool _handed_back{false};

    DEFINE_PARAMETERS((ParamInt<px4::params::IMU_GYRO_RATEMAX>) _rate_max)
};
