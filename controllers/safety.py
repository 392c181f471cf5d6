"""What a robot with joints must not do: each check is a function of arrays, each has a level that warns and one that
trips.

A check reduces what it looks at to one number per joint or per robot; `judge` compares the worst of them with the
check's levels. A number that is not finite trips always. Two more functions do not judge but hold commands inside what
the robot can do: `within_range` and `within_torque`.

Levels are the defaults of `Limits`; where nothing else is said they are those of public deployments, the smaller where
they differ, or follow from the rates (a policy of 50 Hz that is three periods late).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

FINE, WARN, TRIP = 0, 1, 2

CHECKS = {
    "stale_state": "no message from the robot for this long [s]",
    "state_lag": "messages arrive later after they were measured than the quickest did, by this long [s]",
    "frozen_tick": "messages arrive, but the robot's clock has stood still for this long [s]",
    "frozen_imu": "messages arrive, but no bit of the inertial measurement has changed for this long [s]",
    "crc_share": "share of messages with a wrong checksum in the last second",
    "crc_row": "messages with a wrong checksum, one after the other",
    "state_values": "numbers of the state that are not finite",
    "quaternion_length": "how far the attitude is from unit length",
    "policy_late": "time since the last action, in control periods",
    "action_values": "numbers of the action that are not finite",
    "tilt": "angle between the pelvis' upward axis and the vertical [rad]",
    "angular_rate": "of the pelvis [rad/s]",
    "joint_speed": "relative to the joint's limit",
    "joint_position": "angle beyond the joint's range [rad]",
    "position_jump": "change of a measured angle, relative to what the joint's speed limit allows in that time",
    "target_jump": "change of a joint's target from one action to the next [rad]",
    "torque": "that a target asks for, relative to the joint's limit",
    "temperature": "of a motor [degrees Celsius]",
    "motor_fault": "motors that report a fault",
    "motor_off": "a motor that was on has reported that it is off for this long [s]",
    "motor_torque": "a motor has given no torque while its law asked for some, for this long in all [s]",
    "battery": "charge that is missing [%]",
    "foreign_publisher": "others that publish motor commands",
    "own_controller": "signs that the robot's own motion controller is active again",
    "mode_machine": "changes of the robot's own revision number",
    "remote_lost": "the remote has been silent for this long [s]; a trip ends the policy and stands",
    "policy_died": "the process that runs the policy has ended",
    "runtime_died": "the process that started the run has ended",
    "writer_died": "the process that writes motor commands has ended or hangs",
    "guard_died": "the process that takes over from the writer has ended",
    "operator": "emergency stop by remote, keyboard, signal or `deploy estop`",
}
"""What each check measures, in the order of their numbers in recordings."""
CHECK_NUMBERS = {name: number for number, name in enumerate(CHECKS)}


@dataclass(frozen=True)
class Level:
    """Above `warn` a check warns, above `trip` it trips."""

    warn: float
    trip: float


@dataclass(frozen=True)
class Limits:
    """The levels of all checks, in the units of `CHECKS`."""

    stale_state: Level = Level(0.010, 0.050)
    """[s]; 500 Hz means 0.002."""
    state_lag: Level = Level(0.010, 0.050)
    """[s] more than the quickest message took."""
    frozen_tick: Level = Level(0.010, 0.050)
    """[s]"""
    frozen_imu: Level = Level(0.010, 0.050)
    """[s]; a working sensor has noise."""
    crc_share: Level = Level(0.01, 0.25)
    """Share of the last second."""
    crc_row: Level = Level(0.5, 4.5)
    """Five in a row trip."""
    state_values: Level = Level(0.5, 0.5)
    """One is too many."""
    quaternion_length: Level = Level(0.01, 0.1)
    """1 is none."""
    policy_late: Level = Level(1.5, 3.0)
    """Control periods."""
    action_values: Level = Level(0.5, 0.5)
    """One is too many."""
    tilt: Level = Level(0.8, 1.0)
    """[rad]"""
    angular_rate: Level = Level(6.0, 10.0)
    """[rad/s]; raise it for policies that spin or roll."""
    joint_speed: Level = Level(0.9, 1.0)
    """Of the joint's limit."""
    joint_position: Level = Level(0.05, 0.2)
    """[rad] beyond the range: stops give way, and encoders are not calibrated better."""
    position_jump: Level = Level(2.0, 4.0)
    """Of what the speed limit allows."""
    target_jump: Level = Level(1.0, 2.0)
    """[rad] from one action to the next."""
    torque: Level = Level(1.0, 4.0)
    """Of the joint's limit; what is asked for beyond 1 is cut."""
    temperature: Level = Level(85.0, 100.0)
    """[degrees Celsius]; which of the two sensors is the winding is contradictory, so the hotter counts."""
    motor_fault: Level = Level(0.5, 0.5)
    """One is too many."""
    motor_off: Level = Level(0.010, 0.050)
    """[s]; a robot that never says that a motor is on is not judged."""
    motor_torque: Level = Level(0.05, 0.1)
    """[s]; of published policies that kick and dance, with commands 8 ms late, none comes to 0.02."""
    battery: Level = Level(80.0, 95.0)
    """[%] missing: 20 % left warns."""
    foreign_publisher: Level = Level(0.5, 0.5)
    """One is too many."""
    own_controller: Level = Level(0.5, 0.5)
    """One is too many."""
    mode_machine: Level = Level(0.5, 0.5)
    """One is too many."""
    remote_lost: Level = Level(1.0, 3.0)
    """[s]"""
    writer_died: Level = Level(0.05, 0.05)
    """[s] without a sign of life of the process that writes commands; its death counts at once."""
    soft_range: float = 0.95
    """Share of each joint's range, about its middle, that targets keep to."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    level: int
    """FINE, WARN or TRIP."""
    where: int
    """Of the worst number, such as the joint; -1 where there is only one."""
    value: float
    """The worst number."""
    limit: float
    """The level that it is above; the warning where it is fine."""


def judge(check: str, values: ArrayLike, level: Level) -> Finding:
    """The worst of these values against that check's level. One that is not finite is worst, and trips."""
    found = np.atleast_1d(np.asarray(values, dtype=float))
    worst = int(np.argmax(np.where(np.isnan(found), np.inf, found)))
    value = float(found[worst])
    state = FINE if value <= level.warn else WARN if value <= level.trip else TRIP
    where = worst if found.size > 1 else -1
    return Finding(check, state, where, value, level.trip if state == TRIP else level.warn)


def not_finite(*arrays: ArrayLike) -> int:
    """How many of these numbers are NaN or infinite."""
    return sum(int(np.count_nonzero(~np.isfinite(np.asarray(array)))) for array in arrays)


def quaternion_length(quaternion: ArrayLike) -> float:
    """How far its length is from 1."""
    q = np.asarray(quaternion, dtype=float)
    return abs(float(np.sqrt(q @ q)) - 1.0)


def tilt(quaternion: ArrayLike) -> float:
    """Angle between the body's upward axis and the vertical [rad]."""
    _, x, y, _ = np.asarray(quaternion, dtype=float)
    return float(np.arccos(np.clip(1 - 2 * (x * x + y * y), -1.0, 1.0)))


def angular_rate(angular_velocity: ArrayLike) -> float:
    """Its magnitude [rad/s]."""
    rate = np.asarray(angular_velocity, dtype=float)
    return float(np.sqrt(rate @ rate))


def joint_speed(velocity: ArrayLike, limit: ArrayLike) -> Array:
    """Of each joint, relative to its limit."""
    return np.abs(np.asarray(velocity)) / np.asarray(limit)


def joint_position(position: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """How far each joint is beyond its range [rad]; negative inside."""
    q = np.asarray(position)
    return np.maximum(np.asarray(lower) - q, q - np.asarray(upper))


def target_jump(target: ArrayLike, previous: ArrayLike) -> Array:
    """How far each joint's target has moved [rad]."""
    return np.abs(np.asarray(target) - np.asarray(previous))


def torque(
    target: ArrayLike, position: ArrayLike, velocity: ArrayLike, stiffness: ArrayLike, damping: ArrayLike
) -> Array:
    """What the motors' law makes of that target [Nm]: stiffness times the angle to it, minus damping times velocity."""
    away = np.asarray(target) - np.asarray(position)
    return np.asarray(stiffness) * away - np.asarray(damping) * np.asarray(velocity)


def soft_range(lower: ArrayLike, upper: ArrayLike, share: float) -> tuple[Array, Array]:
    """The share of each range about its middle."""
    middle, half = (np.asarray(upper) + np.asarray(lower)) / 2, (np.asarray(upper) - np.asarray(lower)) / 2
    return middle - share * half, middle + share * half


def within_range(target: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """The nearest target inside the range."""
    return np.clip(target, lower, upper)


def within_torque(
    target: ArrayLike,
    position: ArrayLike,
    velocity: ArrayLike,
    stiffness: ArrayLike,
    damping: ArrayLike,
    limit: ArrayLike,
) -> Array:
    """The nearest target whose torque is within the limit; where damping alone exceeds it, the one that brakes least.

    A joint without stiffness keeps its target: it does not act on it."""
    kp, q = np.asarray(stiffness, dtype=float), np.asarray(position)
    braking, limit = np.asarray(damping) * np.asarray(velocity), np.asarray(limit)
    with np.errstate(divide="ignore", invalid="ignore"):
        held = np.clip(target, q + (braking - limit) / kp, q + (braking + limit) / kp)
    return np.where(kp > 0, held, target)
