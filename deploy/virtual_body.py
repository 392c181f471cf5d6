"""The body of the virtual G1: MuJoCo, the motors' control law and limits, the gantry, the sensors.

At every physics step each motor produces `tau + kp (q_des - q) + kd (dq_des - dq)`, cut at what it can give at its
speed. The law is written into MuJoCo's actuators rather than computed outside: the damping then enters the implicit
integrator, and stiff gains on light joints stay stable as they do on the motor boards, which run far faster than this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from controllers.g1 import G1, REVISIONS
from deploy.unitree_hg import SLOTS
from sim.robots.g1 import build_spec, joint_addresses, standing

HOOK = (0.0, 0.0, 0.35)
"""Where the gantry's rope ends, in the frame of the torso [m]."""
ANCHOR_HEIGHT = 3.0
"""Where it begins, over the origin [m]."""
ROPE_SOLREF = (0.04, 1.0)
"""Time constant [s] and damping ratio of the taut rope."""
SWING_DAMPING = 40.0
"""Of the hanging robot [N s/m]: people and straps damp it."""
YAW_STIFFNESS, YAW_DAMPING = 40.0, 8.0
"""Of the straps, which keep a hanging robot from turning [Nm/rad, Nm s/rad]."""
SENSOR_NOISE = {"q": 1e-3, "dq": 0.05, "gyroscope": 0.01, "accelerometer": 0.1}
"""Standard deviations at `noise` 1 [rad, rad/s, rad/s, m/s^2]: assumed, of the size that encoders of 14 bits and
MEMS gyroscopes have; no published measurement of a G1 is known to us."""


@dataclass(frozen=True)
class BodySettings:
    """What differs between robots of one revision, and is not published."""

    physics_hz: float = 1000.0
    """Physics steps per second, a multiple of 500."""
    joint_friction: float = 0.0
    """Dry friction of every joint [Nm]."""
    joint_damping: float = 0.0
    """Viscous friction of every joint [Nm s/rad]."""
    full_torque_speed: float = 0.8
    """Share of a motor's speed limit up to which it gives its full torque; from there it falls to zero at the limit."""
    noise: float = 0.0
    """Of the sensors, as a factor on standard deviations that are assumed (`virtual_body.SENSOR_NOISE`)."""


class Body:
    """One robot, hanging or free. Arrays per motor have SLOTS or fewer rows in the order of the hardware's slots."""

    def __init__(self, robot: G1, settings: BodySettings, state_hz: float, lift: float | None, seed: int = 0):
        """
        Args:
            robot: The revision.
            settings: Of this robot.
            state_hz: Rate at which it is advanced and sensed.
            lift: Height of the soles over the floor while it hangs [m]; None for no gantry.
            seed: Of the sensors' noise.
        """
        per_state = settings.physics_hz / state_hz
        if abs(per_state - round(per_state)) > 1e-9 or per_state < 1:
            raise ValueError(f"physics at {settings.physics_hz:g} Hz; allowed: a multiple of {state_hz:g} Hz")
        if not 0 <= settings.full_torque_speed < 1:
            raise ValueError(f"full_torque_speed is {settings.full_torque_speed:g}; allowed: 0 or more, below 1")
        self.robot = robot
        self._settings = settings
        self._substeps = round(per_state)
        self._rng = np.random.default_rng(seed)
        self.slots = slots_of(robot)
        """Slot of each joint, (joints,)."""

        no_gains = np.zeros(len(robot.joints))
        spec = build_spec(robot, stiffness=no_gains, damping=no_gains, timestep=1 / settings.physics_hz)
        for joint in robot.joints:
            spec.joint(joint.name).frictionloss = settings.joint_friction
            spec.joint(joint.name).damping = [settings.joint_damping, 0.0, 0.0]
        for site in ("imu_in_pelvis", "imu_in_torso"):
            for kind in ("FRAMEQUAT", "GYRO", "ACCELEROMETER"):
                spec.add_sensor(
                    name=f"{site}_{kind}",
                    type=getattr(mujoco.mjtSensor, f"mjSENS_{kind}"),
                    objtype=mujoco.mjtObj.mjOBJ_SITE,
                    objname=site,
                )
        spec.worldbody.add_site(name="gantry", pos=(0, 0, ANCHOR_HEIGHT))
        spec.body("torso_link").add_site(name="hook", pos=HOOK)
        rope = spec.add_tendon(name="rope", limited=True, range=[0, 2 * ANCHOR_HEIGHT], solref_limit=ROPE_SOLREF)
        rope.wrap_site("gantry")
        rope.wrap_site("hook")
        self.model = spec.compile()
        # A state that is not finite is for the runtime to notice; MuJoCo would start over at the origin.
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self.data = mujoco.MjData(self.model)
        self._qpos_at, self._dof_at = joint_addresses(self.model, robot.joint_names)
        self._sensors = {
            site: [self.model.sensor(f"{site}_{kind}").adr[0] for kind in ("FRAMEQUAT", "GYRO", "ACCELEROMETER")]
            for site in ("imu_in_pelvis", "imu_in_torso")
        }
        self._limit = robot.torque_limit[:, None]  # [Nm], beside the ranges' two columns
        self._fall = robot.speed_limit * (1 - settings.full_torque_speed)  # [rad/s] over which the torque falls
        self._end = robot.speed_limit / self._fall  # where it is zero, in units of that
        self._torso = self.model.body("torso_link").id
        self._pelvis = self.model.body("pelvis").id

        self._stand = standing(self.model, robot)
        self.data.qpos[:] = self._stand
        mujoco.mj_kinematics(self.model, self.data)
        hook_height = float(self.data.site("hook").xpos[2])
        self._taut_length = ANCHOR_HEIGHT - hook_height
        """Of the rope when the soles just touch the floor [m]."""
        if lift is None:
            self.release()
        else:
            self.data.qpos[2] += lift
            self.hang(lift)
        self.push_w = np.zeros(3)
        """Force on the torso, world frame [N]."""
        self.dead = np.zeros(len(robot.joints), dtype=bool)
        """Motors that give no torque whatever is commanded, (joints,)."""
        self._on = np.zeros(len(robot.joints), dtype=bool)  # as the motors were told, dead or not
        self.let_go()
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_step1(self.model, self.data)

    @property
    def time(self) -> float:
        return float(self.data.time)

    def hang(self, lift: float) -> None:
        """Hoist or lower the robot so that its soles hang that high over the floor; negative slackens the rope [m]. The
        rope is put on again if it was taken off."""
        self.hanging, self.lift = True, lift
        self.model.tendon_range[0, 1] = self._taut_length - lift

    def release(self) -> None:
        """Take the rope off."""
        self.hanging = False
        self.model.tendon_range[0, 1] = 1e3  # longer than any way

    @property
    def lift_now(self) -> float:
        """Where `hang` would find the rope just taut, wherever the robot lies [m]."""
        return self.lift if self.hanging else self._taut_length - float(self.data.ten_length[0])

    @property
    def taut(self) -> bool:
        """Whether the rope carries."""
        return self.hanging and bool(self.data.ten_length[0] > self.model.tendon_range[0, 1] - 1e-3)

    def command(self, motors: np.ndarray) -> None:
        """Obey these rows of MOTOR_COMMAND, (SLOTS,), until the next call."""
        mine = motors[self.slots]
        self._on = mine["mode"] == 1
        on = (self._on & ~self.dead).astype(float)
        kp, kd = on * mine["kp"], on * mine["kd"]
        model = self.model
        model.actuator_gainprm[:, 0] = 1.0
        model.actuator_biasprm[:, 1] = -kp
        model.actuator_biasprm[:, 2] = -kd
        self.data.ctrl[:] = on * mine["tau"] + kp * mine["q"] + kd * mine["dq"]

    def damp(self, damping: float) -> None:
        """All motors brake [Nm s/rad]."""
        self._on = np.ones(len(self.dead), dtype=bool)
        self.model.actuator_biasprm[:, 1] = 0.0
        self.model.actuator_biasprm[:, 2] = -damping * ~self.dead
        self.data.ctrl[:] = 0.0

    def let_go(self) -> None:
        """All motors off."""
        self.damp(0.0)
        self._on[:] = False

    def advance(self) -> None:
        """One period of the state's rate."""
        model, data = self.model, self.data
        data.xfrc_applied[self._torso, :3] = self.push_w
        data.xfrc_applied[self._pelvis] = 0.0
        if self.taut:
            heading = _rpy(data.qpos[3:7])[2]
            data.xfrc_applied[self._pelvis, :2] = -SWING_DAMPING * data.qvel[:2]
            data.xfrc_applied[self._pelvis, 5] = -YAW_STIFFNESS * heading - YAW_DAMPING * data.qvel[5]
        ranges = model.actuator_forcerange
        for _ in range(self._substeps):
            # A motor that turns towards its speed limit loses torque in that direction; braking it can always.
            speed = data.qvel[self._dof_at] / self._fall
            np.minimum(np.maximum(self._end - speed, 0.0), 1.0, out=ranges[:, 1])
            np.maximum(np.minimum(-self._end - speed, 0.0), -1.0, out=ranges[:, 0])
            ranges *= self._limit
            mujoco.mj_step2(model, data)
            # Kinematics, contacts, orientation and rates of the new state: what is read next is of one instant.
            mujoco.mj_step1(model, data)

    def sense(self, state: np.ndarray, torso_imu: np.ndarray) -> None:
        """Fill in what the robot measures: motors and both IMUs of LOW_STATE and IMU_STATE."""
        data, slots = self.data, self.slots
        motors = state["motor_state"]
        motors["mode"][slots] = self._on
        motors["q"][slots] = data.qpos[self._qpos_at]
        motors["dq"][slots] = data.qvel[self._dof_at]
        motors["ddq"][slots] = data.qacc[self._dof_at]
        motors["tau_est"][slots] = data.actuator_force
        self._imu("imu_in_pelvis", state["imu_state"])
        self._imu("imu_in_torso", torso_imu)
        if self._settings.noise:
            for name in ("q", "dq"):
                motors[name][slots] += self._noise(name, len(slots))

    def truth(self) -> dict[str, np.ndarray]:
        """What no robot knows, in the world frame."""
        data = self.data
        return {
            "position": data.qpos[:3],
            "quaternion": data.qpos[3:7],
            "linear_velocity": data.qvel[:3],
            "angular_velocity": data.qvel[3:6],
            "joint_position": data.qpos[self._qpos_at],
            "joint_velocity": data.qvel[self._dof_at],
            "joint_torque": data.actuator_force,
        }

    def _imu(self, site: str, imu: np.ndarray) -> None:
        quaternion_at, gyro_at, accelerometer_at = self._sensors[site]
        data = self.data.sensordata
        quaternion = data[quaternion_at : quaternion_at + 4]
        imu["quaternion"] = quaternion
        imu["gyroscope"] = data[gyro_at : gyro_at + 3]
        imu["accelerometer"] = data[accelerometer_at : accelerometer_at + 3]
        imu["rpy"] = _rpy(quaternion)
        if self._settings.noise:
            imu["gyroscope"] += self._noise("gyroscope", 3)
            imu["accelerometer"] += self._noise("accelerometer", 3)

    def _noise(self, name: str, count: int) -> np.ndarray:
        return self._settings.noise * SENSOR_NOISE[name] * self._rng.standard_normal(count)


def slots_of(robot: G1) -> np.ndarray:
    """The motor slot of each joint: its place among the 29 of the full robot, (joints,)."""
    full = REVISIONS[robot.name.replace("23", "29")]
    slots = full.joint_indices(robot.joint_names)
    assert len(full.joints) <= SLOTS
    return slots


def _rpy(quaternion: np.ndarray) -> tuple[float, float, float]:
    """Roll, pitch and yaw [rad], turned in the order yaw, pitch, roll. In scalars: numpy takes ten times as long."""
    w, x, y, z = quaternion.tolist()
    return (
        math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
        math.asin(min(max(2 * (w * y - z * x), -1.0), 1.0)),
        math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
    )
