"""Motions of our own, from a few key numbers: anyone may use them, and nothing needs to be downloaded for them.

A `Score` says what a motion is about: where the feet go and when, how high the robot carries itself, and what arms and
trunk do. What follows from physics is worked out: the zero-moment point moves from foot to foot, the centre of mass
moves so that this is where the floor pushes (the linear inverted pendulum, solved backwards and forwards in time), in
flight it falls freely, and the solver of the repair finds the postures.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.linalg import solve_banded

from controllers.g1 import REVISIONS, SOLE_POINTS, SOLE_RADIUS, WRISTS, default_pose
from controllers.motion import Clip, ClipError, load_clip, make_clip, save_clip, select_joints
from controllers.rotations import from_axis_angle, rotate
from sim.motions.kinematics import GRAVITY, MODEL, kinematics_of, soles
from sim.motions.measure import as_json, measure
from sim.motions.solve import Goals, Tolerances, Wanted, solve
from sim.run import progress

Array = NDArray[np.floating]
Keys = tuple[tuple[float, float], ...]  # times [s] and values; between them minimum jerk, at rest in each

LONG = REVISIONS[MODEL].joint_names
SHORT = tuple(joint for joint in LONG if joint not in WRISTS)
FPS = 50.0
LIBRARY = Path(__file__).parent / "library"
LICENCE = "MIT, as this project"
STANCE_WIDTH = 0.24  # [m] between the soles' middles
TOLERANCES = Tolerances(body=0.2, turn=0.03, joint=0.3, joint_acceleration=30.0, sole=1e-3, balance=3e-4)
"""Feet and centre of mass lead; joints follow their keys where these leave a choice."""


@dataclass(frozen=True)
class Step:
    """One foot leaves the floor, passes through places and comes down again."""

    foot: int
    """0 left, 1 right."""
    start: float
    """[s]"""
    end: float
    """[s]"""
    by: tuple[float, float] = (0.0, 0.0)
    """Where it comes down from where it was [m], forward and to the left."""
    lift: float = 0.06
    """Height half-way [m], where there are no places."""
    places: tuple[tuple[float, float, float, float, float], ...] = ()
    """Time [s], forward, left, up [m] from where it was, and the foot's pitch [rad], toes down."""


@dataclass(frozen=True)
class Score:
    """A motion of the G1 that begins and ends at rest on both feet."""

    duration: float
    """[s]"""
    joints: dict[str, Keys] = field(default_factory=dict)
    """Angles of arms and trunk from the standing pose [rad]; `both_` stands for left and, mirrored, right."""
    height: Keys = ()
    """Of the centre of mass from where it is in the standing pose [m]."""
    pitch: Keys = ()
    """Of the pelvis, forwards [rad]."""
    steps: tuple[Step, ...] = ()
    flight: tuple[float, float] | None = None
    """Take-off and landing of both feet [s]."""


MIRRORED = ("roll", "yaw")  # joints of the right side that turn the other way for the mirrored motion

STAND = Score(8.0)
SQUAT = Score(
    5.0,
    joints={
        "both_shoulder_pitch": ((0.5, 0), (2.0, -1.3), (3.0, -1.3), (4.5, 0)),
        "both_elbow": ((0.5, 0), (2.0, -0.3), (3, -0.3), (4.5, 0)),
    },
    height=((0.5, 0), (2.0, -0.2), (3.0, -0.2), (4.5, 0)),
    pitch=((0.5, 0), (2.0, 0.35), (3.0, 0.35), (4.5, 0)),
)
BOW = Score(
    4.5,
    joints={"waist_pitch": ((0.5, 0), (1.8, 0.42), (2.6, 0.42), (4.0, 0))},
    height=((0.5, 0), (1.8, -0.05), (2.6, -0.05), (4.0, 0)),
    pitch=((0.5, 0), (1.8, 0.5), (2.6, 0.5), (4.0, 0)),
)
SIDE_STEP = Score(
    6.5,
    height=((0.3, 0), (1.0, -0.03), (5.3, -0.03), (6.2, 0)),
    steps=(
        Step(0, 1.20, 1.65, (0.0, 0.15)),
        Step(1, 1.95, 2.40, (0.0, 0.15)),
        Step(1, 3.60, 4.05, (0.0, -0.15)),
        Step(0, 4.35, 4.80, (0.0, -0.15)),
    ),
)
KICK = Score(
    5.0,
    joints={
        "left_shoulder_pitch": ((1.2, 0), (1.9, 0.5), (2.4, -0.8), (3.4, 0)),
        "right_shoulder_pitch": ((1.2, 0), (1.9, -0.4), (2.4, 0.6), (3.4, 0)),
        "both_shoulder_roll": ((0.5, 0), (1.3, 0.4), (3.4, 0.4), (4.4, 0)),
    },
    height=((0.3, 0), (1.0, -0.03), (3.8, -0.03), (4.6, 0)),
    steps=(
        Step(
            1,
            1.3,
            3.4,
            places=((1.9, -0.16, 0.02, 0.14, 0.5), (2.4, 0.42, 0.02, 0.3, -0.2), (2.9, 0.05, 0.02, 0.08, 0.0)),
        ),
    ),
)
_WAVES = tuple((1.6 + 0.3 * i, 0.1 if i % 2 else -0.9) for i in range(8))
WAVE = Score(
    5.0,
    joints={
        "right_shoulder_pitch": ((0.4, 0), (1.3, -0.6), (3.8, -0.6), (4.7, 0)),
        "right_shoulder_roll": ((0.4, 0), (1.3, -1.2), (3.8, -1.2), (4.7, 0)),
        "right_shoulder_yaw": ((0.4, 0), (1.3, -1.3), (3.8, -1.3), (4.7, 0)),
        "right_elbow": ((0.4, 0), (1.3, -0.4), *_WAVES, (4.7, 0)),
    },
)
REACH = Score(
    5.0,
    joints={
        "right_shoulder_pitch": ((0.5, 0), (1.8, -1.5), (3.0, -1.5), (4.4, 0)),
        "right_elbow": ((0.5, 0), (1.8, 0.9), (3.0, 0.9), (4.4, 0)),
        "left_shoulder_pitch": ((0.5, 0), (1.8, 0.4), (3.0, 0.4), (4.4, 0)),
        "waist_yaw": ((0.5, 0), (1.8, 0.5), (3.0, 0.5), (4.4, 0)),
        "waist_pitch": ((0.5, 0), (1.8, 0.3), (3.0, 0.3), (4.4, 0)),
    },
    height=((0.5, 0), (1.8, -0.06), (3.0, -0.06), (4.4, 0)),
    pitch=((0.5, 0), (1.8, 0.2), (3.0, 0.2), (4.4, 0)),
)
JUMP = Score(
    4.0,
    joints={
        "both_shoulder_pitch": ((0.4, 0), (1.2, 0.6), (1.6, -0.6), (2.4, 0.2), (3.4, 0)),
    },
    height=((0.3, 0), (1.2, -0.16), (1.55, 0.015), (1.81, 0.015), (2.2, -0.14), (3.4, 0)),
    flight=(1.55, 1.81),
)
WALK_IN_PLACE = Score(
    8.0,
    joints={
        "left_shoulder_pitch": ((1.0, 0), *((1.4 + 0.7 * i, 0.25 if i % 2 else -0.25) for i in range(8)), (7.4, 0)),
        "right_shoulder_pitch": ((1.0, 0), *((1.4 + 0.7 * i, -0.25 if i % 2 else 0.25) for i in range(8)), (7.4, 0)),
    },
    height=((0.2, 0), (0.9, -0.03), (6.8, -0.03), (7.6, 0)),
    steps=tuple(Step(i % 2, 1.15 + 0.7 * i, 1.65 + 0.7 * i, lift=0.07) for i in range(8)),
)
SCORES: dict[str, Score] = {
    "stand": STAND,
    "squat": SQUAT,
    "bow": BOW,
    "side_step": SIDE_STEP,
    "kick": KICK,
    "wave": WAVE,
    "reach": REACH,
    "jump": JUMP,
    "walk_in_place": WALK_IN_PLACE,
}


def author(score: Score, name: str = "") -> Clip:
    """The motion of a score, for the robot with 29 joints; the wrists stay at zero, so it is also one for 23."""
    joint_names = SHORT
    kinematics = kinematics_of(joint_names)
    times = np.arange(round(score.duration * FPS) + 1) / FPS
    frames = len(times)
    pitch = along(score.pitch, times)
    quaternion = from_axis_angle([0, 1, 0], pitch)
    joints = _joints(score, joint_names, times)
    sole_goal, touching = _feet(score, times)
    still = kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), joints[:1], derivatives=True)
    stand = SOLE_RADIUS - kinematics.points(still, soles())[0, :, 2].min()  # height of the root
    height = float(kinematics.mass_centre(still)[0][0, 2] + stand)
    centre = _mass_centre(score, times, height, sole_goal, touching)
    offset = kinematics.mass_centre(kinematics.sweep(np.zeros((frames, 3)), quaternion, joints, derivatives=True))[0]
    solution = solve(
        kinematics,
        Wanted(
            fps=FPS,
            position=centre - offset,
            quaternion=quaternion,
            joints=joints,
            touching=touching,
            held=touching,
            lift=np.zeros(frames),
            clearance=np.zeros((frames, 8)),
            weight=np.ones(frames),
            rests=True,
            goals=Goals(sole_goal, centre),
        ),
        TOLERANCES,
    )
    with_wrists = np.zeros((frames, len(LONG)))
    with_wrists[:, [LONG.index(joint) for joint in joint_names]] = solution.joints
    clip = make_clip(
        FPS,
        LONG,
        solution.position,
        solution.quaternion,
        with_wrists,
        touching[:, ::4],
        source=f"Realign, sim/motions/author.py{': ' + name if name else ''}",
        licence=LICENCE,
    )
    clip.report.update(
        {"contacts": "authored", "author": {"iterations": solution.iterations, **as_json(measure(clip))}}
    )
    return clip


def load_authored(name: str, joint_names: tuple[str, ...] = LONG) -> Clip:
    """A motion of ours that ships with the package, for the robot with 29 joints or 23.

    Raises ClipError where there is none of that name."""
    if name not in SCORES:
        raise ClipError(f"motion {name!r} is not one of ours: they are {', '.join(SCORES)}")
    return select_joints(load_clip(LIBRARY / f"{name}.npz"), joint_names)


def author_command(names: tuple[str, ...], out: Path) -> list[Path]:
    """Make these motions anew (all where none is named) into the folder `out`."""
    unknown = [name for name in names if name not in SCORES]
    if unknown:
        raise ClipError(f"motion {unknown[0]!r} is not one of ours: they are {', '.join(SCORES)}")
    chosen = names or tuple(SCORES)
    out.mkdir(parents=True, exist_ok=True)
    with progress("author", len(chosen), unit="motions") as tell:
        for number, name in enumerate(chosen, 1):
            save_clip(out / f"{name}.npz", author(SCORES[name], name))
            tell(number, name)
    return [out / f"{name}.npz" for name in chosen]


def along(keys: Keys, times: Array) -> Array:
    """(T,) values at these times: minimum jerk from key to key, at rest in each, constant before and after."""
    if not keys:
        return np.zeros(len(times))
    result = np.full(len(times), float(keys[0][1]))
    for (start, a), (end, b) in itertools.pairwise(keys):
        s = np.clip((times - start) / (end - start), 0, 1)
        result += (b - a) * s**3 * (10 - 15 * s + 6 * s**2)
    return result


def _joints(score: Score, names: tuple[str, ...], times: Array) -> Array:
    """(T, J) the standing pose, arms a little bent and away from the body, with the score's keys on top."""
    robot = kinematics_of(names).robot
    joints = np.tile(default_pose(robot, "bent_arms"), (len(times), 1))
    for name, keys in score.joints.items():
        values = along(keys, times)
        if name.startswith("both_"):
            kind = name.removeprefix("both_")
            sign = -1 if kind.endswith(MIRRORED) else 1
            joints[:, names.index(f"left_{kind}_joint")] += values
            joints[:, names.index(f"right_{kind}_joint")] += sign * values
        else:
            joints[:, names.index(f"{name}_joint")] += values
    return joints


def _feet(score: Score, times: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Goals of the sole points (T, 8, 3), and which of them touch (T, 8)."""
    soles_flat = np.array(SOLE_POINTS) * [1, 1, 0]
    middle = soles_flat.mean(axis=0)
    goal = np.empty((len(times), 8, 3))
    touching = np.ones((len(times), 8), dtype=bool)
    for foot, side in enumerate((1, -1)):
        place = np.tile([-middle[0], side * STANCE_WIDTH / 2, 0.0], (len(times), 1))
        tilt = np.zeros(len(times))
        for step in (step for step in score.steps if step.foot == foot):
            half = ((step.start + step.end) / 2, step.by[0] / 2, step.by[1] / 2, step.lift, 0.0)
            rows = (
                (step.start, 0.0, 0.0, 0.0, 0.0),
                *(step.places or (half,)),
                (step.end, *step.by, 0.0, 0.0),
            )
            for axis in range(3):
                place[:, axis] += _through(rows, axis + 1, times)
            tilt += _through(rows, 4, times)
            own = slice(4 * foot, 4 * foot + 4)
            touching[:, own] &= ~((times > step.start + 1e-9) & (times < step.end - 1e-9))[:, None]
        if score.flight is not None:
            place[:, 2] += _rise(score.flight, times)
            touching[(times > score.flight[0] + 1e-9) & (times < score.flight[1] - 1e-9)] = False
        turn = from_axis_angle([0, 1, 0], tilt)
        goal[:, 4 * foot : 4 * foot + 4] = place[:, None] + rotate(turn[:, None], soles_flat)
    goal[..., 2] += SOLE_RADIUS
    return goal, touching


def _through(rows: tuple, column: int, times: Array) -> Array:
    """Like `along`, but not at rest in the middle: a foot flows through its places."""
    key_times, values = np.array([row[0] for row in rows]), np.array([row[column] for row in rows])
    ends = [(1, 0.0), (2, 0.0)]
    spline = make_interp_spline(key_times, values, k=5, bc_type=(ends, ends))
    return np.where(times <= key_times[0], 0, spline(np.clip(times, key_times[0], key_times[-1])))


def _rise(flight: tuple[float, float], times: Array) -> Array:
    """(T,) height of free fall between take-off and landing at the same height [m]."""
    s = np.clip(times - flight[0], 0, flight[1] - flight[0])
    return GRAVITY * s * (flight[1] - flight[0] - s) / 2


def _mass_centre(score: Score, times: Array, height: float, goal: Array, touching: NDArray[np.bool_]) -> Array:
    """(T, 3) so that the floor's push stays under the feet in stance."""
    dt = 1 / FPS
    z = height + along(score.height, times)
    if score.flight is not None:
        z = _jumping(score, times, z)
    # The zero-moment point: the middle of what stands, moved over in the time that both feet stand.
    feet = touching[:, ::4]
    middles = goal.reshape(len(times), 2, 4, 3).mean(axis=2)[..., :2]
    support = np.where(
        feet.any(axis=1, keepdims=True),
        (middles * feet[..., None]).sum(axis=1) / np.maximum(feet.sum(axis=1), 1)[:, None],
        np.nan,
    )
    zmp = _shifted(support, feet, times)
    omega = (GRAVITY + np.gradient(np.gradient(z, dt), dt)) / z
    omega = np.maximum(omega, 0)  # no floor, no push: the centre of mass keeps its course
    # x'' = omega (x - zmp), at the ends at rest over it: one tridiagonal system, past and future at once.
    frames = len(times)
    band = np.zeros((3, frames))
    band[0, 2:], band[2, :-2] = -1 / dt**2, -1 / dt**2
    band[1, 1:-1] = 2 / dt**2 + omega[1:-1]
    band[1, [0, -1]] = 1
    right = omega[:, None] * zmp
    right[[0, -1]] = zmp[[0, -1]]
    return np.concatenate([solve_banded((1, 1), band, right), z[:, None]], axis=1)


def _shifted(support: Array, feet: NDArray[np.bool_], times: Array) -> Array:
    """The zero-moment point (T, 2): over a foot that stands alone, and moving on evenly while both stand."""
    alone = feet.sum(axis=1) == 1
    known = alone.copy()
    known[[0, -1]] = True
    # Long before and after a step the robot stands in the middle.
    reach = round(0.7 * FPS)
    near = np.convolve(alone, np.ones(2 * reach + 1), "same") > 0
    known |= ~near & feet.all(axis=1)
    result = np.empty_like(support)
    for axis in range(2):
        result[:, axis] = np.interp(times, times[known], support[known, axis])
    return result


def _jumping(score: Score, times: Array, z: Array) -> Array:
    """Heights of the centre of mass that leave and meet the floor at the speed of the free fall between them."""
    assert score.flight is not None
    start, end = score.flight
    speed = GRAVITY * (end - start) / 2
    base, keys = z[0], dict(score.height)
    last = max(t for t in keys if t < start)
    next_ = min(t for t in keys if t > end)
    rest, off, on = ((1, 0.0), (2, 0.0)), ((1, speed), (2, -GRAVITY)), ((1, -speed), (2, -GRAVITY))
    result = z.copy()
    for first, second, entry, leave in ((last, start, rest, off), (end, next_, on, rest)):
        spline = make_interp_spline((first, second), (keys[first], keys[second]), k=5, bc_type=(entry, leave))
        inside = (times >= first) & (times <= second)
        result[inside] = base + spline(times[inside])
    flying = (times > start) & (times < end)
    result[flying] = base + keys[start] + _rise(score.flight, times)[flying]
    return result
