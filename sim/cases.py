"""The cases by which quadrotor policies are judged: what flies, from where, for how long, and what is measured.

Every case flies quadrotors of the `raptor` distribution, fresh ones by the evaluation's seed, and changes one thing.
Definitions, the same as those under which the published policy was measured:

- survive: 5 s within RAPTOR's limits (20 arms, 2 m/s, 35 rad/s per axis) from RAPTOR's starts within +-0.5 m and 1 rad;
- hover error: mean distance over the last second of those that survive;
- late by k ms: within 1 m after 10 s, no limits on the way;
- recovery: within 0.3 m after 20 s, no limits on the way, motors between 0 and half at the start;
- figure eight: A = 1 m, B = 0.5 m, speed ramped up in 3 s, root mean square of the distance over three periods after
  the ramp, of those that stay within 1 m of the reference; the reference's velocity is given to the policy;
- gust: force over mass of 1 m/s^2 per axis (standard deviation), correlated over 0.5 s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from controllers.airframe import AIRFRAMES
from sim.backends.quadrotor import STATE, TIME_STEP
from sim.flight import Figure
from sim.robots.quadrotors import CURVES, Quadrotors, from_airframes

PER_AIRFRAME = 32  # flights of each named airframe
AUTHORITY_BINS = (40, 80, 120, 160, 240, 400, 1200)  # torque to inertia [rad/s^2]

Draw = Callable[[Quadrotors, np.random.Generator], Any]


@dataclass(frozen=True)
class Log:
    """What a batch of flights leaves behind."""

    quads: Quadrotors
    alive: np.ndarray
    """Within the limits all the time, (n,)."""
    lost: np.ndarray
    """Tumbled beyond every physical bound, (n,)."""
    distance: np.ndarray
    """From the reference, (steps + 1, n) [m]."""
    returned: np.ndarray
    """RAPTOR's return, (n,)."""
    hidden: np.ndarray
    """The recurrent state after each of the requested steps, (times, n, units)."""


@dataclass(frozen=True)
class Measure:
    """One number out of a case's flights."""

    name: str
    of: Callable[[Log], np.ndarray]
    """One value per flight that counts."""
    kind: Literal["share", "mean", "median"]
    target: float | None = None
    """To reach: at least for shares and returns, at most for distances."""
    published: float | None = None
    """Of the published policy (foundation-policy 1.0.2), measured once in l2f 2.0.18 on 512 to 2048 quadrotors of this
    distribution, with errors clipped in front where the case says so."""
    unit: str = ""


@dataclass(frozen=True)
class Case:
    """One batch of flights."""

    name: str
    measures: tuple[Measure, ...]
    seconds: float = 5.0
    change: Draw | None = None
    """From the sampled quadrotors to those that fly."""
    state: Draw | None = None
    """First states; RAPTOR's starts where absent."""
    figure: Figure | None = None
    clipped: bool = True
    """Whether what stands in front of the policy may clip errors."""
    elsewhere: bool = True
    """Whether a simulator without gusts can fly it too."""
    sampled: bool = True
    """Whether the quadrotors come from the distribution and number `count`; else `change` makes them."""


def survived(log: Log) -> np.ndarray:
    return log.alive


def hover_error(log: Log) -> np.ndarray:
    """Mean distance over the last second of survivors [m]."""
    return log.distance[-100:].mean(axis=0)[log.alive]


def returns(log: Log) -> np.ndarray:
    return log.returned


def within(log: Log, limit: float) -> np.ndarray:
    """Whether each flight ends within `limit` [m] of its reference."""
    return (log.distance[-1] < limit) & ~log.lost


def survived_bin(log: Log, low: float, high: float) -> np.ndarray:
    t2i = log.quads.torque_to_inertia
    return log.alive[(t2i >= low) & (t2i < high)]


def tracking(log: Log, ramp: float) -> np.ndarray:
    """Root mean square distance after the ramp [m] of the flights that stay within 1 m."""
    after = log.distance[round(ramp / TIME_STEP) :]
    return np.sqrt((after**2).mean(axis=0))[(after.max(axis=0) < 1.0) & ~log.lost]


def kept_up(log: Log, ramp: float) -> np.ndarray:
    return (log.distance[round(ramp / TIME_STEP) :].max(axis=0) < 1.0) & ~log.lost


def of_airframe(log: Log, index: int, measure: Callable[[Log], np.ndarray]) -> np.ndarray:
    """The measure over the flights of one named airframe."""
    each = len(log.alive) // len(AIRFRAMES)
    mine = slice(index * each, (index + 1) * each)
    return measure(
        dataclasses.replace(
            log,
            quads=log.quads[mine],
            alive=log.alive[mine],
            lost=log.lost[mine],
            distance=log.distance[:, mine],
            returned=log.returned[mine],
        )
    )


# What a case changes. Forces are off unless the case is about them.
def calm(quads: Quadrotors, rng: np.random.Generator, **changes: Any) -> Quadrotors:
    return quads.replace(force_std=0.0, **changes)


def authority(quads: Quadrotors, rng: np.random.Generator, low: float, high: float) -> Quadrotors:
    """The same quadrotors with torque-to-inertia drawn anew."""
    factor = quads.torque_to_inertia / rng.uniform(low, high, len(quads))
    return dataclasses.replace(quads, inertia=quads.inertia * factor[:, None])


def curve(quads: Quadrotors, rng: np.random.Generator, family: str) -> Quadrotors:
    """The same thrust at full command, along another curve."""
    return dataclasses.replace(calm(quads, rng), thrust_curve=quads.full_thrust[:, None] * np.array(CURVES[family]))


def weak_motor(quads: Quadrotors, rng: np.random.Generator, strength: float) -> Quadrotors:
    strengths = np.ones((len(quads), 4))
    strengths[np.arange(len(quads)), rng.integers(0, 4, len(quads))] = strength
    return dataclasses.replace(calm(quads, rng), motor_strength=strengths)


def off_centre(quads: Quadrotors, rng: np.random.Generator, arms: float) -> Quadrotors:
    """Centre of mass moved sideways, in any direction."""
    angle = rng.uniform(0, 2 * np.pi, len(quads))
    offset = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(quads))], 1) * (arms * quads.arm)[:, None]
    return dataclasses.replace(calm(quads, rng), center_of_mass=offset)


def named_airframes(quads: Quadrotors, rng: np.random.Generator, each: int) -> Quadrotors:
    return from_airframes([airframe for airframe in AIRFRAMES.values() for _ in range(each)])


# First states.
def at_rest(quads: Quadrotors, rng: np.random.Generator, away: float = 0.0, along: int | None = None) -> np.ndarray:
    """Level and at rest, `away` from the goal along one axis or in any direction [m], motors between 0 and half."""
    state = np.zeros((len(quads), STATE))
    direction = rng.normal(size=(len(quads), 3)) if along is None else np.tile(np.eye(3)[along], (len(quads), 1))
    state[:, :3] = away * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    state[:, 3] = 1.0
    state[:, 13:] = rng.uniform(0, 0.5, (len(quads), 4))
    return state


def turned(quads: Quadrotors, rng: np.random.Generator, tilt: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """At rest at the goal, turned by `yaw` or tilted by `tilt` about any horizontal axis [degrees]."""
    state, angle = at_rest(quads, rng), rng.uniform(0, 2 * np.pi, len(quads))
    half = np.radians(tilt or yaw) / 2
    state[:, 3] = np.cos(half)
    if tilt:
        state[:, 4], state[:, 5] = np.sin(half) * np.cos(angle), np.sin(half) * np.sin(angle)
    else:
        state[:, 6] = np.sin(half)
    return state


def _late(name: str, target: float, published: float | None, **delay: float) -> Case:
    share = Measure("within 1 m", partial(within, limit=1.0), "share", target, published)
    return Case(f"{name} late by {next(iter(delay.values())) * 1e3:.0f} ms", (share,), 10.0, partial(calm, **delay))


def _back(name: str, target: float | None, published: float | None, state: Draw, **options: Any) -> Case:
    share = Measure("back within 0.3 m", partial(within, limit=0.3), "share", target, published)
    return Case(name, (share,), 20.0, calm, state, **options)


def _survive(name: str, target: float, published: float | None, change: Draw) -> Case:
    return Case(name, (Measure("survive", survived, "share", target, published),), 5.0, change)


def _figure(period: float, target: float, published: float, published_share: float) -> Case:
    figure = Figure(period)
    measures = (
        Measure("RMSE, median", partial(tracking, ramp=figure.ramp), "median", target, published, "m"),
        Measure("stay within 1 m", partial(kept_up, ramp=figure.ramp), "share", None, published_share),
    )
    return Case(f"figure eight of {period:g} s", measures, figure.ramp + 3 * period, calm, at_rest, figure)


def _bins() -> tuple[Measure, ...]:
    published = (1 - 0.617, 1 - 0.195, 1 - 0.042, 1 - 0.015, 1 - 0.007, 1 - 0.003)
    return tuple(
        Measure(f"torque to inertia {low} to {high}", partial(survived_bin, low=low, high=high), "share", None, known)
        for low, high, known in zip(AUTHORITY_BINS, AUTHORITY_BINS[1:], published, strict=False)
    )


def _airframes(
    name: str, each: int, measure: Callable[[Log], np.ndarray], known: dict[str, float], **options: Any
) -> Case:
    measures = tuple(
        Measure(airframe, partial(of_airframe, index=i, measure=measure), "mean", None, known.get(airframe), "m")
        for i, airframe in enumerate(AIRFRAMES)
    )
    return Case(name, measures, change=partial(named_airframes, each=each), sampled=False, **options)


CASES: tuple[Case, ...] = (
    Case(
        "training distribution",
        (
            Measure("survive", survived, "share", 0.995, 0.963),
            Measure("hover error, mean", hover_error, "mean", 0.015, 0.0575, "m"),
            Measure("return", returns, "mean", None, 645.0),
            *_bins(),
        ),
    ),
    _survive("torque to inertia 40 to 80", 0.95, 0.365, partial(authority, low=40, high=80)),
    Case(
        "no force",
        (
            Measure("survive", survived, "share", None, 0.964),
            Measure("hover error, median", hover_error, "median", 0.003, 0.0210, "m"),
        ),
        5.0,
        calm,
    ),
    _late("action", 0.995, 0.652, action_delay=0.01),
    _late("action", 0.97, 0.203, action_delay=0.02),
    _late("gyro", 0.99, 0.512, gyro_delay=0.01),
    _late("velocity", 0.995, 0.844, velocity_delay=0.05),
    _late("velocity", 0.98, 0.213, velocity_delay=0.10),
    _back("yaw of 180 degrees", 0.995, 0.57, partial(turned, yaw=180)),
    _back("tilt of 90 degrees", None, None, partial(turned, tilt=90)),
    _back("tilt of 150 degrees", 0.995, 0.97, partial(turned, tilt=150)),
    _back("tilt of 180 degrees", 0.99, 0.71, partial(turned, tilt=180)),
    _survive("linear thrust curve", 0.98, 0.879, partial(curve, family="linear")),
    _survive("concave thrust curve", 0.98, 0.905, partial(curve, family="concave")),
    _back(
        "step of 5 m back, nothing clipped in front", 0.998, 0.12, partial(at_rest, away=5.0, along=0), clipped=False
    ),
    _back("step of 5 m, nothing clipped in front", 0.998, None, partial(at_rest, away=5.0), clipped=False),
    _figure(5.5, 0.07, 0.169, 0.980),
    _figure(4.0, 0.12, 0.266, 0.955),
    _survive("one motor at 80 %", 0.98, None, partial(weak_motor, strength=0.8)),
    _survive("centre of mass off by 10 % of the arm", 0.98, None, partial(off_centre, arms=0.1)),
    Case(
        "gusts of 1 m/s^2 over 0.5 s",
        (
            Measure("survive", survived, "share", 0.98),
            Measure("within 1 m", partial(within, limit=1.0), "share", 0.98),
            Measure("hover error, mean", hover_error, "mean", None, None, "m"),
        ),
        5.0,
        partial(calm, gust_std=1.0, gust_time=0.5),
        elsewhere=False,
    ),
    _airframes("airframes: hover error", PER_AIRFRAME, hover_error, {"crazyflie": 0.0527}),
    _airframes(
        "airframes: figure eight of 5.5 s",
        1,
        partial(tracking, ramp=3.0),
        {
            "crazyflie": 0.207,
            "x500_real": 0.171,
            "x500_sim": 0.189,
            "fs": 0.159,
            "race": 0.172,
            "flightmare": 0.193,
            "mrs": 0.172,
            "soft": 0.161,
            "soft_rigid": 0.157,
        },
        seconds=3.0 + 3 * 5.5,
        state=at_rest,
        figure=Figure(5.5),
    ),
)
