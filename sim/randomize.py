"""How simulated robots differ from the one on paper, and from each other.

`Spread` says by how much, in one place; `sample` draws `Worlds`, one row per robot; an engine's `vary` puts them into
its physics. What is not physics (delays, noise, pushes) the task applies itself: it is the same in every engine.

Widths follow what policies that went onto a real G1 were trained with (ASAP, table VI; BeyondMimic; mjlab), rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Spread:
    """How far worlds are from the model: half widths around it, or ranges."""

    mass: float = 0.1
    """Of each body, as a share of it."""
    payload: tuple[float, float] = (-1.0, 2.0)
    """Mass added to the torso [kg]."""
    center_of_mass: float = 0.03
    """Of the torso, each axis [m]."""
    friction: tuple[float, float] = (0.4, 1.2)
    """Sliding coefficient between robot and floor."""
    stiffness: float = 0.1
    """Of each joint's controller, as a share."""
    damping: float = 0.2
    """The same for its damping."""
    armature: float = 0.2
    """Reflected inertia of each joint, as a share."""
    joint_friction: tuple[float, float] = (0.0, 0.02)
    """Coulomb friction of each joint, as a share of its torque limit."""
    smooth: float = 0.6
    """Share of the worlds whose joints have no friction: it costs a quarter of the speed of simulation."""
    torque_limit: tuple[float, float] = (0.85, 1.0)
    """Of each joint, as a share."""
    hold: float = 0.0
    """Share of the worlds whose joint controllers act once per control step instead of at every physics step."""
    action_delay: tuple[float, float] = (0.0, 0.015)
    """From a policy's answer to the joints' targets, in whole physics steps [s]."""
    sensor_delay: tuple[float, float] = (0.0, 0.01)
    """From the robot's state to the policy's input, in whole physics steps [s]."""
    joint_bias: float = 0.01
    """Error of each joint's zero [rad]."""
    tilt_bias: float = 0.02
    """Error of the measured attitude about both horizontal axes [rad]."""
    heading_bias: float = 0.1
    """Error of the measured heading [rad]."""
    noise: float = 1.0
    """Factor of the sensors' noise per sample: `NOISE`."""
    push_speed: float = 0.5
    """Largest horizontal change of velocity by a push [m/s]."""
    push_least: float = 0.0
    """The smallest, as a share of it."""
    push_turn: float = 0.5
    """Largest change of angular velocity by a push, each axis [rad/s]."""
    push_period: tuple[float, float] = (2.0, 5.0)
    """Time between two pushes [s]; until the first it may be shorter."""
    start: float = 1.0
    """Factor of the errors of the first state: `START`."""


NOISE = {"joint_position": 0.01, "joint_velocity": 0.5, "angular_velocity": 0.2, "tilt": 0.02}
"""Half widths of the noise per sample: [rad], [rad/s], [rad/s] and [rad] (BeyondMimic and mjlab use these)."""

START = {"joint_position": 0.05, "joint_velocity": 0.3, "linear_velocity": 0.1, "angular_velocity": 0.2, "tilt": 0.03}
"""Half widths of how far the first state is from the motion: [rad], [rad/s], [m/s], [rad/s], [rad]."""

NONE = Spread(
    mass=0.0,
    payload=(0.0, 0.0),
    center_of_mass=0.0,
    friction=(1.0, 1.0),
    stiffness=0.0,
    damping=0.0,
    armature=0.0,
    joint_friction=(0.0, 0.0),
    torque_limit=(1.0, 1.0),
    action_delay=(0.0, 0.0),
    sensor_delay=(0.0, 0.0),
    joint_bias=0.0,
    tilt_bias=0.0,
    heading_bias=0.0,
    noise=0.0,
    push_speed=0.0,
    push_turn=0.0,
    start=0.0,
)
"""The robot on paper, undisturbed."""


@dataclass
class Worlds:
    """What is particular about N robots; every array has N rows."""

    mass: Array
    """Factors, (N, bodies)."""
    payload: Array
    """[kg], (N,)."""
    center_of_mass: Array
    """Shift of the torso's [m], (N, 3)."""
    friction: Array
    """(N,)."""
    stiffness: Array
    """Factors, (N, joints)."""
    damping: Array
    """Factors, (N, joints)."""
    armature: Array
    """Factors, (N, joints)."""
    joint_friction: Array
    """[Nm], (N, joints)."""
    torque_limit: Array
    """Factors, (N, joints)."""
    hold: NDArray[np.bool_]
    """(N,)."""
    action_delay: Array
    """[s], (N,)."""
    sensor_delay: Array
    """[s], (N,)."""
    joint_bias: Array
    """[rad], (N, joints)."""
    attitude_bias: Array
    """Rotation vector: roll, pitch, heading [rad], (N, 3)."""

    def rows(self, which: NDArray[np.integer]) -> Worlds:
        """Those robots only."""
        return replace(self, **{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def put(self, which: NDArray[np.integer], other: Worlds) -> None:
        """Replace those robots."""
        for field in fields(self):
            getattr(self, field.name)[which] = getattr(other, field.name)


def sample(rng: np.random.Generator, count: int, robot: G1, spread: Spread) -> Worlds:
    """That many robots, each drawn on its own."""
    joints, bodies = len(robot.joints), len(robot.bodies)

    def share(width: float, columns: int) -> Array:
        return 1.0 + rng.uniform(-width, width, (count, columns))

    def between(bounds: tuple[float, float], *shape: int) -> Array:
        return rng.uniform(*bounds, (count, *shape))

    limits = robot.torque_limit
    tilt = rng.uniform(-spread.tilt_bias, spread.tilt_bias, (count, 2))
    rough = rng.random((count, 1)) >= spread.smooth
    heading = rng.uniform(-spread.heading_bias, spread.heading_bias, (count, 1))
    return Worlds(
        mass=share(spread.mass, bodies),
        payload=between(spread.payload),
        center_of_mass=rng.uniform(-spread.center_of_mass, spread.center_of_mass, (count, 3)),
        friction=between(spread.friction),
        stiffness=share(spread.stiffness, joints),
        damping=share(spread.damping, joints),
        armature=share(spread.armature, joints),
        joint_friction=between(spread.joint_friction, joints) * limits * rough,
        torque_limit=between(spread.torque_limit, joints),
        hold=rng.random(count) < spread.hold,
        action_delay=between(spread.action_delay),
        sensor_delay=between(spread.sensor_delay),
        joint_bias=rng.uniform(-spread.joint_bias, spread.joint_bias, (count, joints)),
        attitude_bias=np.concatenate([tilt, heading], axis=1),
    )
