"""What a Unitree G1 is: joints and their order, limits, motors, gains, poses, and the figures of its bodies.

The one source of these numbers for the simulator, the motions and the robot. Published figures contradict each other,
so they stand under named revisions (`REVISIONS`), each with what it relies on. Frames, masses and inertias are in
`g1_bodies.toml` beside this file.

Joints are in Unitree's hardware order of 29, which is also the order of its URDF and MJCF files. `without_wrists` drops
the six wrist joints, keeps their mass, and leaves the 23 in the order that ASAP, PBHC and GMT use.

SI units; quaternions wxyz; body frames as published: x forward, y left, z up when all joints are at zero.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Axis = Literal["x", "y", "z"]


class RobotError(ValueError):
    """A robot revision, a recipe or a joint that does not exist."""


@dataclass(frozen=True)
class Motor:
    """A class of motor with its two-stage planetary gear.

    Rotor inertias and gears: Unitree's figures as mjlab 1.6.0 quotes them (`g1_constants.py`). Torque and speed limits:
    BeyondMimic and mjlab agree.
    """

    name: str
    torque_limit: float
    """At the joint [Nm]."""
    speed_limit: float
    """At the joint [rad/s]."""
    rotor_inertias: Vector
    """Rotor, first carrier, second carrier [kg m^2]."""
    gears: tuple[float, float]
    """Ratio of the first stage and of the second."""

    @property
    def armature(self) -> float:
        """Inertia that the joint feels [kg m^2]: each turning part, times its gear ratio to the joint squared."""
        rotor, first_carrier, second_carrier = self.rotor_inertias
        first, second = self.gears
        return rotor * (first * second) ** 2 + first_carrier * second**2 + second_carrier


M4010 = Motor("4010", 5.0, 22.0, (0.068e-4, 0.0, 0.0), (5.0, 5.0))
M5020 = Motor("5020", 25.0, 37.0, (0.139e-4, 0.017e-4, 0.169e-4), (1 + 46 / 18, 1 + 56 / 16))
M7520_14 = Motor("7520-14", 88.0, 32.0, (0.489e-4, 0.098e-4, 0.533e-4), (4.5, 1 + 48 / 22))
M7520_22 = Motor("7520-22", 139.0, 20.0, (0.489e-4, 0.109e-4, 0.738e-4), (4.5, 5.0))


@dataclass(frozen=True)
class Joint:
    """One hinge, through the origin of the frame of the body that it moves."""

    name: str
    body: str
    """The body that it moves."""
    axis: Axis
    """Of that body's frame."""
    lower: float
    """Smallest angle [rad]."""
    upper: float
    """Largest angle [rad]."""
    motor: Motor
    motors: int
    """Two where a pair of motors moves a pair of joints through rods: each joint then has twice the torque."""
    torque_limit: float
    """[Nm]"""
    speed_limit: float
    """[rad/s]"""

    @property
    def armature(self) -> float:
        """Reflected inertia of its motors [kg m^2]."""
        return self.motors * self.motor.armature

    @property
    def kind(self) -> str:
        """Its name without the side and without `_joint`, such as `hip_roll`."""
        return kind_of(self.name)


@dataclass(frozen=True)
class Body:
    """One rigid body. Its frame is given in its parent's, all joints at zero."""

    name: str
    parent: str
    """`world` for the pelvis."""
    position: Vector
    """[m]"""
    quaternion: Quaternion
    mass: float
    """[kg]"""
    center_of_mass: Vector
    """Body frame [m]."""
    inertia: Vector
    """Principal moments about the centre of mass [kg m^2]."""
    inertia_quaternion: Quaternion
    """Principal axes to body frame."""


@dataclass(frozen=True)
class Site:
    """A named point of a body; its axes are the body's."""

    name: str
    body: str
    position: Vector
    """Body frame [m]."""


@dataclass(frozen=True)
class G1:
    """One revision of the robot. Arrays are in the order of `joints`."""

    name: str
    source: str
    """Whose figures these are."""
    bodies: tuple[Body, ...]
    """Parents before children."""
    joints: tuple[Joint, ...]
    sites: tuple[Site, ...]

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def lower(self) -> np.ndarray:
        """Smallest angles [rad], (joints,)."""
        return np.array([joint.lower for joint in self.joints])

    @property
    def upper(self) -> np.ndarray:
        """Largest angles [rad], (joints,)."""
        return np.array([joint.upper for joint in self.joints])

    @property
    def torque_limit(self) -> np.ndarray:
        """[Nm], (joints,)."""
        return np.array([joint.torque_limit for joint in self.joints])

    @property
    def speed_limit(self) -> np.ndarray:
        """[rad/s], (joints,)."""
        return np.array([joint.speed_limit for joint in self.joints])

    @property
    def armature(self) -> np.ndarray:
        """Reflected inertia [kg m^2], (joints,)."""
        return np.array([joint.armature for joint in self.joints])

    @property
    def mass(self) -> float:
        """Of all bodies [kg]."""
        return math.fsum(body.mass for body in self.bodies)

    def body(self, name: str) -> Body:
        for body in self.bodies:
            if body.name == name:
                return body
        raise RobotError(f"{self.name} has no body {name!r}; it has {', '.join(body.name for body in self.bodies)}")

    def joint_indices(self, names: tuple[str, ...]) -> np.ndarray:
        """Where those joints stand in this robot's order, (names,)."""
        have = {name: index for index, name in enumerate(self.joint_names)}
        for name in names:
            if name not in have:
                raise RobotError(f"{self.name} has no joint {name!r}; it has {', '.join(have)}")
        return np.array([have[name] for name in names], dtype=int)


WRISTS = tuple(f"{side}_wrist_{axis}_joint" for side in ("left", "right") for axis in ("roll", "pitch", "yaw"))

FOOT_BODIES = ("left_ankle_roll_link", "right_ankle_roll_link")
SOLE_RADIUS = 0.005  # [m]
SOLE_POINTS = ((-0.05, 0.025, -0.03), (-0.05, -0.025, -0.03), (0.12, 0.03, -0.03), (0.12, -0.03, -0.03))
"""Centres of the four spheres that a foot stands on, in the frame of its ankle roll link [m]: Unitree's MJCF and
ASAP's."""

KEY_POINTS: tuple[Site, ...] = (
    Site("left_hand", "left_elbow_link", (0.25, 0.0, 0.0)),
    Site("right_hand", "right_elbow_link", (0.25, 0.0, 0.0)),
    Site("head", "torso_link", (0.0, 0.0, 0.42)),
)
"""Three points that ASAP and PBHC track beside the origins of the bodies (ASAP `extend_config`)."""


def kind_of(joint: str) -> str:
    """A joint's name without the side and without `_joint`."""
    return joint.removeprefix("left_").removeprefix("right_").removesuffix("_joint")


def without_wrists(robot: G1) -> G1:
    """The same robot with the six wrist joints welded at zero: 23 joints, the same bodies and mass."""
    joints = tuple(joint for joint in robot.joints if joint.name not in WRISTS)
    return dataclasses.replace(robot, name=robot.name.replace("29", "23"), joints=joints)


_LEG = (
    # kind, body, axis, lower and upper of the left joint [rad], motor class, motors
    ("hip_pitch", "hip_pitch_link", "y", -2.5307, 2.8798, M7520_14, 1),
    ("hip_roll", "hip_roll_link", "x", -0.5236, 2.9671, M7520_22, 1),
    ("hip_yaw", "hip_yaw_link", "z", -2.7576, 2.7576, M7520_14, 1),
    ("knee", "knee_link", "y", -0.087267, 2.8798, M7520_22, 1),
    ("ankle_pitch", "ankle_pitch_link", "y", -0.87267, 0.5236, M5020, 2),
    ("ankle_roll", "ankle_roll_link", "x", -0.2618, 0.2618, M5020, 2),
)
_WAIST = (
    ("waist_yaw", "waist_yaw_link", "z", -2.618, 2.618, M7520_14, 1),
    ("waist_roll", "waist_roll_link", "x", -0.52, 0.52, M5020, 2),
    ("waist_pitch", "torso_link", "y", -0.52, 0.52, M5020, 2),
)
_ARM = (
    ("shoulder_pitch", "shoulder_pitch_link", "y", -3.0892, 2.6704, M5020, 1),
    ("shoulder_roll", "shoulder_roll_link", "x", -1.5882, 2.2515, M5020, 1),
    ("shoulder_yaw", "shoulder_yaw_link", "z", -2.618, 2.618, M5020, 1),
    ("elbow", "elbow_link", "y", -1.0472, 2.0944, M5020, 1),
    ("wrist_roll", "wrist_roll_link", "x", -1.97222, 1.97222, M5020, 1),
    ("wrist_pitch", "wrist_pitch_link", "y", -1.61443, 1.61443, M4010, 1),
    ("wrist_yaw", "wrist_yaw_link", "z", -1.61443, 1.61443, M4010, 1),
)
_NONE: Mapping = types.MappingProxyType({})
_MIRRORED = ("hip_roll", "shoulder_roll")  # the only joints whose range is not the same on both sides


def _joints(
    motors: Mapping[str, Motor] = _NONE,
    torque: Mapping[str, float] = _NONE,
    speed: Mapping[str, float] = _NONE,
) -> tuple[Joint, ...]:
    """The 29 joints in hardware order. Ranges: Unitree's MJCF, which ASAP and mjlab repeat.

    Args:
        motors: Kinds of joint that have another class of motor.
        torque: Kinds of joint with another limit than that of their motors [Nm].
        speed: The same for speed [rad/s].
    """
    sides = [("left_", _LEG), ("right_", _LEG), ("", _WAIST), ("left_", _ARM), ("right_", _ARM)]
    joints = []
    for side, rows in sides:
        for kind, body, axis, lower, upper, usual, count in rows:
            if side == "right_" and kind in _MIRRORED:
                lower, upper = -upper, -lower
            motor = motors.get(kind, usual)
            joints.append(
                Joint(
                    name=f"{side}{kind}_joint",
                    body=f"{side}{body}",
                    axis=axis,
                    lower=lower,
                    upper=upper,
                    motor=motor,
                    motors=count,
                    torque_limit=torque.get(kind, count * motor.torque_limit),
                    speed_limit=speed.get(kind, motor.speed_limit),
                )
            )
    return tuple(joints)


@functools.cache
def _published() -> dict:
    return tomllib.loads((Path(__file__).parent / "g1_bodies.toml").read_text(encoding="utf-8"))


def _figures(what: Literal["bodies", "sites"], model: Literal["unitree", "asap"]) -> dict[str, dict]:
    """Figures of one published model by name; ASAP's are Unitree's, but for what it says otherwise."""
    figures = {name: dict(row) for name, row in _published()["unitree"][what].items()}
    if model == "asap":
        for name, row in _published()["asap"][what].items():
            figures[name] |= row
    return {name: {key: _tuple(value) for key, value in row.items()} for name, row in figures.items()}


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _revision(name: str, source: str, model: Literal["unitree", "asap"], joints: tuple[Joint, ...]) -> G1:
    bodies = tuple(Body(name=body, **row) for body, row in _figures("bodies", model).items())
    sites = tuple(Site(name=site, **row) for site, row in _figures("sites", model).items())
    return G1(name, source, bodies, joints, sites)


_29 = (
    _revision(
        "g1_29dof",
        "rev 1.0 as Unitree publishes it, 33.34 kg. Where published limits differ, the smaller: hip roll 88 Nm "
        "(unitree_mujoco, ASAP) and 20 rad/s (BeyondMimic, mjlab).",
        "unitree",
        _joints(torque={"hip_roll": 88.0}),
    ),
    _revision(
        "g1_29dof_motors",
        "rev 1.0, 33.34 kg, with the full limits of its motor classes: hip roll 139 Nm, 20 rad/s (BeyondMimic, mjlab).",
        "unitree",
        _joints(),
    ),
    _revision(
        "g1_29dof_2026",
        "rev 1.0, 33.34 kg, and hip pitch with the larger motor 7520-22 too (SONIC, 2026).",
        "unitree",
        _joints(motors={"hip_pitch": M7520_22}),
    ),
    _revision(
        "g1_29dof_asap",
        "the model of the ASAP policies, 35.11 kg: other waist and torso; hip roll 88 Nm and 32 rad/s.",
        "asap",
        _joints(torque={"hip_roll": 88.0}, speed={"hip_roll": 32.0}),
    ),
)
REVISIONS: dict[str, G1] = {robot.name: robot for row in _29 for robot in (row, without_wrists(row))}
"""All revisions: of 29 joints, and the same of 23 with `29` replaced in the name."""


def revision(name: str) -> G1:
    """The robot of that name."""
    if name not in REVISIONS:
        raise RobotError(f"robot {name!r} is not known; allowed: {', '.join(REVISIONS)}")
    return REVISIONS[name]


GainRecipe = Literal["reflected", "asap"]

_ASAP_GAINS = {
    # stiffness [Nm/rad], damping [Nm s/rad]: ASAP's configuration of the G1 (its wrists: sim2real configuration)
    "hip_pitch": (100.0, 2.5),
    "hip_roll": (100.0, 2.5),
    "hip_yaw": (100.0, 2.5),
    "knee": (200.0, 5.0),
    "ankle_pitch": (20.0, 0.2),
    "ankle_roll": (20.0, 0.1),
    "waist_yaw": (400.0, 5.0),
    "waist_roll": (400.0, 5.0),
    "waist_pitch": (400.0, 5.0),
    "shoulder_pitch": (90.0, 2.0),
    "shoulder_roll": (60.0, 1.0),
    "shoulder_yaw": (20.0, 0.4),
    "elbow": (60.0, 1.0),
    "wrist_roll": (4.0, 0.2),
    "wrist_pitch": (4.0, 0.2),
    "wrist_yaw": (4.0, 0.2),
}
NATURAL_FREQUENCY = 2 * math.pi * 10.0  # [rad/s], of the recipe "reflected"
DAMPING_RATIO = 2.0  # of the recipe "reflected"


def gains(robot: G1, recipe: GainRecipe) -> tuple[np.ndarray, np.ndarray]:
    """Stiffness [Nm/rad] and damping [Nm s/rad] of the joint controllers, (joints,) each.

    Args:
        robot: The revision.
        recipe: `reflected`: each motor's own inertia becomes an oscillator of 10 Hz, damped at twice the critical value
            (BeyondMimic, mjlab and SONIC agree). `asap`: the set of the ASAP policies.
    """
    if recipe == "reflected":
        return robot.armature * NATURAL_FREQUENCY**2, 2 * DAMPING_RATIO * robot.armature * NATURAL_FREQUENCY
    if recipe == "asap":
        pairs = np.array([_ASAP_GAINS[joint.kind] for joint in robot.joints])
        return pairs[:, 0], pairs[:, 1]
    raise RobotError(f"gain recipe {recipe!r} is not known; allowed: reflected, asap")


def action_scale(robot: G1, recipe: GainRecipe) -> np.ndarray:
    """Angle that one unit of action adds to the joint's target [rad], (joints,): a quarter of what the torque limit
    holds against the stiffness for `reflected`; 0.25 rad everywhere for `asap`."""
    if recipe == "asap":
        return np.full(len(robot.joints), 0.25)
    return 0.25 * robot.torque_limit / gains(robot, recipe)[0]


_POSES: dict[str, dict[str, float]] = {
    # joint kind or name: angle [rad]; all others are at zero
    "upright": {"hip_pitch": -0.1, "knee": 0.3, "ankle_pitch": -0.2},  # Unitree's reinforcement learning, ASAP
    "crouched": {  # BeyondMimic, holosoma
        "hip_pitch": -0.312,
        "knee": 0.669,
        "ankle_pitch": -0.363,
        "shoulder_pitch": 0.2,
        "left_shoulder_roll_joint": 0.2,
        "right_shoulder_roll_joint": -0.2,
        "elbow": 0.6,
    },
    "bent_arms": {  # arms of unitree_rl_mjlab, legs of "upright"
        "hip_pitch": -0.1,
        "knee": 0.3,
        "ankle_pitch": -0.2,
        "shoulder_pitch": 0.35,
        "left_shoulder_roll_joint": 0.18,
        "right_shoulder_roll_joint": -0.18,
        "elbow": 0.87,
    },
}
POSES = tuple(_POSES)


def default_pose(robot: G1, name: str = "upright") -> np.ndarray:
    """The joint angles of that default pose [rad], (joints,)."""
    if name not in _POSES:
        raise RobotError(f"default pose {name!r} is not known; allowed: {', '.join(POSES)}")
    angles = _POSES[name]
    return np.array([angles.get(joint.name, angles.get(joint.kind, 0.0)) for joint in robot.joints])
