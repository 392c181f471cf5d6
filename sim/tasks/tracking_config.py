"""Settings of the tracking task, its two presets, and the specification of the policies that they make.

`realign` is what we found best for a real robot: it observes only what a G1 measures and the motion itself, acts
relative to the motion, and learns under randomised physics, delays, noise and pushes. `asap` is what the ASAP paper
published, observation, rewards and curricula, so that results compare.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from controllers.g1 import G1, GainRecipe, RobotError, action_scale, default_pose, gains, revision
from controllers.spec import (
    NO_MEMORY,
    ActionSpec,
    JointControl,
    Motion,
    ObservationTerm,
    PolicySpec,
    Rates,
    Training,
)
from sim.randomize import NONE, Spread

ASAP_SPEC = Path(__file__).parents[2] / "controllers" / "policies" / "asap.json"


@dataclass(frozen=True)
class Weights:
    """What a second of each term is worth. Terms of weight zero are not computed."""

    anchor_position: float = 1.0
    """Torso near the motion's: exp(-error^2 / 0.3^2)."""
    anchor_orientation: float = 0.5
    """exp(-angle^2 / 0.4^2) of the torso."""
    body_position: float = 1.0
    """Bodies, moved with the torso's place and heading: exp(-mean error^2 / 0.2^2)."""
    body_orientation: float = 1.0
    """exp(-mean angle^2 / 0.4^2)."""
    body_velocity: float = 1.0
    """exp(-mean error^2 / 1.0^2) [m/s]."""
    body_turning: float = 1.0
    """Angular velocities: exp(-mean error^2 / 3.14^2) [rad/s]."""
    fine_position: float = 0.5
    """As body_position, with 0.06: what is left when the motion is roughly right."""
    clearance: float = 4.0
    """Feet in the air when the motion's are, see `rewards.clearance`: mean distances of bodies hardly see a step of
    6 cm, and who leaves both feet on the floor is hard to throw over."""
    upper_position: float = 0.0
    """ASAP: arms, hands and head in the world, exp(-mean component^2 / 0.03)."""
    lower_position: float = 0.0
    """ASAP: pelvis, legs, waist and torso in the world, exp(-mean component^2 / 0.1)."""
    three_points: float = 0.0
    """ASAP: hands and head, exp(-mean component^2 / 0.03)."""
    feet_position: float = 0.0
    """ASAP: exp(-mean component^2 / 0.03)."""
    world_orientation: float = 0.0
    """ASAP: all points, exp(-mean angle^2)."""
    world_velocity: float = 0.0
    """ASAP: all points, exp(-mean component^2)."""
    world_turning: float = 0.0
    """ASAP: all points, exp(-mean component^2)."""
    joint_position: float = 0.0
    """ASAP: exp(-mean error^2)."""
    joint_velocity: float = 0.0
    """ASAP: exp(-mean error^2)."""
    action_change: float = -0.05
    """Squared change of the action. From here on: multiplied by the penalty curriculum."""
    joint_limit: float = -10.0
    """Sum of angles beyond the soft limits [rad]."""
    speed_limit: float = 0.0
    """ASAP: sum of speeds beyond the soft limits, each at most 1 rad/s."""
    torque_limit: float = 0.0
    """ASAP: sum of torques beyond the soft limits, each at most 1 Nm."""
    torque: float = -1e-5
    """Sum of squared torques [Nm^2]."""
    slip: float = -0.2
    """Sum over feet of the mean speed of their points that touch the floor [m/s]."""
    stance: float = -0.5
    """The same of feet that the motion holds still: odometry does not see all of how far a robot has drifted, so it
    should not step where the motion does not, unless it would fall."""
    flight: float = -5.0
    """Both feet in the air when the motion's are not: who answers a push by hops of both feet at once drifts, and leg
    odometry can only guess how far."""
    feet_orientation: float = 0.0
    """ASAP: sum of the sines of the angles between soles and floor."""
    feet_heading: float = 0.0
    """ASAP: sum of the angles between the headings of feet and root [rad]."""
    termination: float = -2.0
    """Once, when the robot is lost; not per second."""


ASAP_WEIGHTS = Weights(  # table I; its termination of -200 per second acts for one step
    anchor_position=0.0,
    anchor_orientation=0.0,
    body_position=0.0,
    body_orientation=0.0,
    body_velocity=0.0,
    body_turning=0.0,
    fine_position=0.0,
    clearance=0.0,
    upper_position=1.0,
    lower_position=0.5,
    three_points=1.6,
    feet_position=2.1,
    world_orientation=0.5,
    world_velocity=0.5,
    world_turning=0.5,
    joint_position=0.75,
    joint_velocity=0.5,
    action_change=-0.5,
    joint_limit=-10.0,
    speed_limit=-5.0,
    torque_limit=-5.0,
    torque=-1e-6,
    slip=-1.0,
    stance=0.0,
    flight=0.0,
    feet_orientation=-2.0,
    feet_heading=-0.1,
    termination=-4.0,
)


@dataclass(frozen=True)
class Ramp:
    """A setting that follows how long episodes last (ASAP's curricula)."""

    start: float
    low: float
    high: float
    rate: float
    """Share by which it changes per control step in which an episode ends; positive grows while episodes are long."""


@dataclass(frozen=True)
class TrackingConfig:
    """The task."""

    robot: str = "g1_23dof"
    """Revision of the G1; its joints are what the policy drives."""
    gains: GainRecipe = "reflected"
    """Of the joint controllers. With those of ASAP, whose soft, hardly damped ankles an action moves by little,
    policies take several times as long to learn to stand."""
    physics_step: float = 0.005
    """[s]"""
    substeps: int = 4
    """Physics steps per control step."""
    base: Literal["motion", "offset"] = "motion"
    """What the policy's answers are relative to: the motion's joint angles, or the default pose."""
    observation: Literal["realign", "asap"] = "realign"
    """What the policy sees."""
    history: int = 3
    """Samples of what is measured (realign)."""
    ahead: tuple[float, ...] = (0.2,)
    """Times by which the policy sees the motion's joints in advance [s] (realign)."""
    odometry: bool = True
    """Whether it sees how far its motion is away, by leg odometry (realign)."""
    phase: bool = True
    """Whether it sees its time in the motion, as a share (realign)."""
    rest: float = 1.0
    """Time at rest in the last pose after the motion [s]."""
    weights: Weights = field(default_factory=Weights)
    penalty: Ramp = Ramp(0.2, 0.2, 1.0, 1e-3)
    """Factor of the penalties."""
    push: Ramp = Ramp(0.2, 0.2, 1.0, 5e-4)
    """Factor of the strength of pushes: who cannot stand yet learns nothing from being thrown over."""
    lost_distance: Ramp = Ramp(2.0, 2.0, 2.0, 0.0)
    """Distance from the motion at which an episode ends [m]: mean of the points (realign), any point (asap). Far, for
    who steps to stay up after a push cannot see how far that has led."""
    lost_angle: float = 0.8
    """Angle between the directions of gravity of robot and motion at which an episode ends [rad]."""
    lost_height: float = 0.25
    """Difference of torso or hand height, or height of a foot above the motion's, at which an episode ends [m]
    (realign). A foot below the motion's is paid less but ends nothing: setting it down is what saves a kick."""
    soft_limit: Ramp = Ramp(0.95, 0.95, 0.95, 0.0)
    """Share of the joints' ranges, speeds and torques within which nothing is paid."""
    uniform: float = 0.2
    """Share of the starts that are uniform over the motions; the others go where episodes fail."""
    spread: Spread = field(default_factory=Spread)

    @property
    def control_step(self) -> float:
        """[s]"""
        return self.physics_step * self.substeps

    def check(self) -> TrackingConfig:
        """Itself, or a ValueError that names the setting."""
        try:
            robot = revision(self.robot)
        except RobotError as error:
            raise ValueError(f"robot: {error}") from error
        positive = {"physics_step": self.physics_step, "substeps": self.substeps, "history": self.history}
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; allowed: above 0")
        for time in (*self.ahead, self.rest):
            steps = time / self.control_step
            if time < 0 or abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"{time:g} s is no multiple of the control step of {self.control_step:g} s; allowed: "
                                 f"0 or multiples, for ahead and rest")  # fmt: skip
        if not 0 < self.uniform <= 1:
            raise ValueError(f"uniform is {self.uniform}; allowed: above 0, at most 1")
        if self.observation == "asap" and len(robot.joints) != 23:
            raise ValueError(f"observation asap on {self.robot}; allowed: a revision of 23 joints")
        return self


@dataclass(frozen=True)
class Setting:
    """In what the policies are judged."""

    robot: str | None = None
    """Revision of the G1; the policy's own when absent."""
    physics_hz: float | None = None
    """Physics steps per second; those of the policy's training when absent."""
    worlds: int = 1
    """Robots per policy and motion. One is the robot on paper, undisturbed; more are random ones, with noise, delays,
    pushes and starts that are off."""
    seeds: int = 1
    """Repetitions with other worlds."""
    push: float = 0.5
    """Largest change of velocity by a push in random worlds [m/s]."""
    push_least: float = 0.0
    """The smallest, as a share of it; 1 when all shall be of that size."""
    engine: Literal["mujoco", "genesis"] = "mujoco"
    """The physics; Genesis needs the extra [genesis]."""

    def check(self) -> Setting:
        """Itself, or a ValueError that names the setting."""
        for name in ("worlds", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if not 0 <= self.push_least <= 1:
            raise ValueError(f"push_least is {self.push_least}; allowed: 0 to 1, a share of push")
        return self


ASAP = TrackingConfig(
    robot="g1_23dof_asap",
    gains="asap",
    base="offset",
    observation="asap",
    rest=0.0,
    weights=ASAP_WEIGHTS,
    penalty=Ramp(0.1, 0.0, 1.0, 1e-5),
    lost_distance=Ramp(1.5, 0.3, 2.0, -2.5e-5),
    lost_angle=0.93,  # |g_x| or |g_y| beyond 0.8
    soft_limit=Ramp(1.15, 0.95, 1.15, -2.5e-7),
    uniform=1.0,
    spread=dataclasses.replace(NONE, noise=1.0),
)

ASAP_NOISE = {"joint_position": 0.01, "joint_velocity": 1.0, "angular_velocity": 0.3, "tilt": 0.2}
"""Half widths of the sensors' noise of the preset asap; see `sim.randomize.NOISE`."""


def tracking_spec(
    config: TrackingConfig, training: Training, name: str | None, duration: float | None, sha256: str | None
) -> PolicySpec:
    """The specification of policies of this task; parameter_count is 0 until there is a network.

    Args:
        config: The task.
        training: Where the policy comes from.
        name: Of the motion; nothing for several.
        duration: Of that motion [s].
        sha256: Of its file.
    """
    robot = revision(config.robot)
    motion = Motion(lead=config.control_step, name=name, duration=duration, sha256=sha256)
    if config.observation == "asap":
        published = PolicySpec.from_json(ASAP_SPEC.read_text(encoding="utf-8"))
        return dataclasses.replace(published, robot=config.robot, training=training, motion=motion, parameter_count=0)
    joints = len(robot.joints)
    scale = action_scale(robot, config.gains)
    pose = default_pose(robot)
    stiffness, damping = gains(robot, config.gains)
    rate = 1 / config.control_step
    return PolicySpec(
        robot=config.robot,
        action=ActionSpec(
            names=robot.joint_names,
            meaning="joint target, offset + scale * action [rad]"
            if config.base == "offset"
            else "joint target, motion's joint angle + scale * action [rad]",
            scale=_floats(scale),
            offset=_floats(pose if config.base == "offset" else np.zeros(joints)),
            clip=(-10.0, 10.0),
            reset_value=0.0,
            base=config.base,
        ),
        observation=_realign_terms(config, joints),
        rates=Rates(physics_hz=1 / config.physics_step, control_hz=rate, native_hz=rate),
        recurrent=NO_MEMORY,
        limits=(),
        training=training,
        parameter_count=0,
        joints=JointControl(robot.joint_names, _floats(pose), _floats(stiffness), _floats(damping)),
        motion=motion,
    )


def _realign_terms(config: TrackingConfig, joints: int) -> tuple[ObservationTerm, ...]:
    def measured(name: str, size: int, unit: str, frame: Literal["body", "none"]) -> ObservationTerm:
        return ObservationTerm(name, size, unit, frame, history=config.history, fill="first sample")

    terms = [
        measured("projected_gravity", 3, "1", "body"),
        measured("angular_velocity", 3, "rad/s", "body"),
        measured("joint_offset", joints, "rad", "none"),
        measured("joint_velocity", joints, "rad/s", "none"),
        measured("previous_action", joints, "1", "none"),
        ObservationTerm("motion_joint_error", joints, "rad", "none"),
        ObservationTerm("motion_joint_velocity", joints, "rad/s", "none"),
        ObservationTerm("motion_orientation", 6, "1", "body"),
        ObservationTerm("motion_velocity", 3, "m/s", "body"),
        ObservationTerm("motion_height", 1, "m", "world"),
    ]
    if config.odometry:
        terms.append(ObservationTerm("motion_position", 3, "m", "body", clip=1.0))
    for ahead in config.ahead:
        name = f"motion_joint_offset_{ahead:g}s"
        terms.append(ObservationTerm(name, joints, "rad", "none", quantity="motion_joint_offset", ahead=ahead))
    if config.phase:
        terms.append(ObservationTerm("phase", 1, "1", "none", clip=2.0))
    return tuple(terms)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def robot_of(config: TrackingConfig) -> G1:
    """The revision."""
    return revision(config.robot)
