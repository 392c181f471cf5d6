"""One least-squares problem over a whole motion: stay close to what is wanted, and obey floor, feet and limits.

Unknown are, for each of T frames, the root's place (3) and turn (3), the J joints and the height by which the wanted
motion as a whole is lifted (1): n = J + 7 numbers. Every term looks at one frame or at a few neighbours, so the normal
matrix is banded, 2 n below the diagonal (3 n with jerk), and is factored in time proportional to T. Gauss-Newton steps
repeat that until nothing moves; terms with one side (floor, limits) hold where they are touched.

A term with the tolerance s adds (error / s)^2; the tolerances are in `Tolerances`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from controllers.g1 import SOLE_RADIUS
from controllers.rotation_vectors import from_vector, to_vector
from controllers.rotations import conjugate, multiply
from sim.motions.aims import GAP, Apart, Keys, gaps, keep_apart, limit_speed, reach_keys
from sim.motions.band import Band
from sim.motions.kinematics import Kinematics, Sweep, key_bodies, soles

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]

WINDOW = 2000  # frames that are solved at once; longer motions in windows, each tied to the end of the last
OVERLAP = 60  # frames that a window shares with the last
ITERATIONS = 40
SETTLED = 5e-4  # [m], [rad] largest step after which nothing moves any more
SHRINKING = 0.8  # of the step before: a step that shrinks less is damped
LEAST_DAMPING = 100.0  # [1/m^2], [1/rad^2]: of a tenth of a metre or radian
RESTING = 1e-4  # [m], [rad] from the floor or a limit: as near as this rests on it
REST = 1e-3  # [m/s], [rad/s] tolerance of rest
LARGEST_STEP = 0.3  # [m], [rad] of one iteration in any frame: beyond it the tangent says little


@dataclass(frozen=True)
class Tolerances:
    """How much each term gives way to the others."""

    body: float = 0.01
    """Key body from its wanted place, after the lift [m]."""
    turn: float = 0.10
    """Root's rotation from the wanted one [rad]."""
    joint: float = 0.15
    """Joint from the wanted angle [rad]."""
    lift: float = 1.0
    """The lift itself [m]: next to nothing, it keeps the problem well posed."""
    root_acceleration: float = 1.0
    """Of the root's deviation from the wanted motion [m/s^2]."""
    turn_acceleration: float = 5.0
    """The same for its rotation [rad/s^2]."""
    joint_acceleration: float = 10.0
    """The same for the joints [rad/s^2]."""
    joint_jerk: float = np.inf
    """And their jerk [rad/s^3]; no jerk is asked for when this is infinite."""
    root_jerk: float = np.inf
    """The same of the root [m/s^3]."""
    turn_jerk: float = np.inf
    """And of its rotation [rad/s^3]."""
    lift_acceleration: float = 0.5
    """Of the lift [m/s^2]."""
    height: float = 5e-5
    """Of a touching point over the floor [m]."""
    slip: float = 3e-4
    """Speed of a point that touches in two frames [m/s]."""
    sole: float = 2e-3
    """Sole point from its goal [m]."""
    balance: float = 2e-3
    """Centre of mass from its goal [m]."""
    roll: float = 0.02
    """Speed of the other points of a foot that touches [m/s]: it may roll, but hardly pivot."""
    limit: float = 1e-4
    """Beyond a joint's range [rad]."""


@dataclass(frozen=True)
class Goals:
    """Places in T frames; the lift does not move them."""

    soles: Array
    """(T, 8, 3) centres of the sole spheres (order of `kinematics.soles`), world [m]."""
    mass_centre: Array
    """(T, 3) world [m]."""


@dataclass(frozen=True)
class Wanted:
    """The motion that is asked for: T frames of a robot with J joints."""

    fps: float
    position: Array
    """(T, 3) of the root [m]."""
    quaternion: Array
    """(T, 4) of the root."""
    joints: Array
    """(T, J) [rad]."""
    touching: Flags
    """(T, 8) points of the soles that are on the floor (order of `kinematics.soles`)."""
    held: Flags
    """(T, 8) of these, points that must not slide to the next frame."""
    lift: Array
    """(T,) first guess of the lift [m]."""
    clearance: Array
    """(T, 8) height that a point keeps above the floor at least [m]."""
    weight: Array
    """(T,) of the wanted postures; 0 where there is none to keep to."""
    rests: bool = False
    """Whether the deviation from the wanted motion begins and ends without speed."""
    goals: Goals | None = None
    """Where soles and centre of mass shall be, where that is asked for apart from the postures."""
    keys: Keys | None = None
    """Points that shall be somewhere; they are lifted too."""
    apart: Apart | None = None
    """Solids that shall not go into each other."""
    start: tuple[Array, Array, Array, Array] | None = None
    """Position, quaternion, joints and lift to begin with; the lifted wanted motion when absent."""


@dataclass(frozen=True)
class Solution:
    """Positions of T frames."""

    position: Array
    quaternion: Array
    joints: Array
    lift: Array
    """(T,) [m] by which the wanted motion was lifted."""
    iterations: int
    step: float
    """Largest of the last one [m], [rad]."""

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        return self.position, self.quaternion, self.joints, self.lift


def solve(
    kinematics: Kinematics, wanted: Wanted, tolerances: Tolerances = Tolerances(), iterations: int = ITERATIONS
) -> Solution:
    """The motion that fits best, after at most so many iterations."""
    frames = len(wanted.position)
    if frames <= WINDOW:
        return _solve(kinematics, wanted, tolerances, iterations, None)
    parts: list[Solution] = []
    start = 0
    while True:
        stop = min(start + WINDOW, frames)
        before = None
        if parts:
            last = parts[-1]
            before = tuple(values[-OVERLAP : -OVERLAP // 2] for values in last.arrays)
        part = _solve(kinematics, _cut(wanted, start, stop), tolerances, iterations, before)
        parts.append(part)
        if stop == frames:
            break
        start = stop - OVERLAP
    skip, keep = OVERLAP // 2, -(OVERLAP - OVERLAP // 2)

    def joined(pieces: list[Array]) -> Array:
        last = len(pieces) - 1
        return np.concatenate([p[(skip if i else 0) : (keep if i < last else None)] for i, p in enumerate(pieces)])

    return Solution(
        position=joined([part.position for part in parts]),
        quaternion=joined([part.quaternion for part in parts]),
        joints=joined([part.joints for part in parts]),
        lift=joined([part.lift for part in parts]),
        iterations=max(part.iterations for part in parts),
        step=max(part.step for part in parts),
    )


def _cut(wanted: Wanted, start: int, stop: int) -> Wanted:
    cut = {name: value[start:stop] for name, value in vars(wanted).items() if isinstance(value, np.ndarray)}
    goals, keys, begin = wanted.goals, wanted.keys, wanted.start
    if goals is not None:
        goals = Goals(goals.soles[start:stop], goals.mass_centre[start:stop])
    if keys is not None:
        keys = replace(keys, targets=keys.targets[start:stop])
    if begin is not None:
        begin = begin[0][start:stop], begin[1][start:stop], begin[2][start:stop], begin[3][start:stop]
    return replace(wanted, **cut, goals=goals, keys=keys, start=begin)


def _solve(
    kinematics: Kinematics,
    wanted: Wanted,
    tolerances: Tolerances,
    iterations: int,
    before: tuple[Array, ...] | None,
) -> Solution:
    """One window; `before` holds the positions that its first frames must have."""
    lower, upper = kinematics.robot.lower, kinematics.robot.upper
    frames, count = wanted.joints.shape
    n = count + 7
    bodies, feet = key_bodies(kinematics.robot), soles()
    keeps = bool(wanted.weight.any())
    goal = kinematics.points(kinematics.sweep(wanted.position, wanted.quaternion, wanted.joints), bodies)
    lift = wanted.lift.copy()
    position, quaternion = wanted.position.copy(), wanted.quaternion.copy()
    position[:, 2] += lift
    joints = wanted.joints.copy()
    below = np.zeros(wanted.touching.shape, dtype=bool)
    beyond = np.zeros(joints.shape, dtype=bool)
    if wanted.start is not None:
        position, quaternion, joints, lift = (values.copy() for values in wanted.start)
        # What rests on the floor or on a limit there goes on doing so, or the first step would fall through.
        height = kinematics.points(kinematics.sweep(position, quaternion, joints), feet)[..., 2] - SOLE_RADIUS
        below = ~wanted.touching & (height < wanted.clearance + RESTING)
        beyond = (joints < lower + RESTING) | (joints > upper - RESTING)
    pressing = np.zeros((frames, 0), dtype=bool)
    if wanted.apart is not None:
        pressing = gaps(kinematics, kinematics.sweep(position, quaternion, joints), wanted.apart) < GAP
    acceleration = np.concatenate(
        [
            np.full(3, tolerances.root_acceleration),
            np.full(3, tolerances.turn_acceleration),
            np.full(count, tolerances.joint_acceleration),
            [tolerances.lift_acceleration],
        ]
    )
    bending = (wanted.fps**2 / acceleration) ** 2
    jerking = None
    if np.isfinite(tolerances.joint_jerk):
        each = (tolerances.root_jerk, tolerances.turn_jerk, tolerances.joint_jerk, np.inf)  # none of the lift
        jerking = (wanted.fps**3 / np.repeat(each, (3, 3, count, 1))) ** 2
    damping, before_sizes = np.zeros(frames), np.full(frames, np.inf)
    done, step, changed = 0, np.inf, True
    while done < iterations and (step > SETTLED or changed):
        done += 1
        sweep = kinematics.sweep(position, quaternion, joints, derivatives=True)
        band = Band(frames, n, reach=2 if jerking is None else 3)
        deviation = np.concatenate(
            [
                position - wanted.position,
                to_vector(multiply(conjugate(wanted.quaternion), quaternion)),
                joints - wanted.joints,
                lift[:, None],
            ],
            axis=1,
        )  # (T, n)
        if keeps:
            _keep(band, kinematics, sweep, bodies, goal, lift, deviation, wanted.weight, tolerances)
        if wanted.keys is not None:
            reach_keys(band, kinematics, sweep, wanted.keys, joints, lift)
            limit_speed(band, joints, kinematics.robot.speed_limit / wanted.fps)
        close = keep_apart(band, kinematics, sweep, wanted.apart, pressing) if wanted.apart is not None else None
        vertical, room = _stand(band, kinematics, sweep, feet, wanted, below, tolerances)
        if wanted.rests:
            band.add_rest(deviation, (wanted.fps / REST) ** 2)
        if wanted.goals is not None:
            _reach(band, kinematics, sweep, feet, wanted.goals, tolerances)
        _limit(band, joints, lower, upper, beyond, tolerances)
        band.add_differences(deviation, bending, 2)
        if jerking is not None:
            band.add_differences(deviation, jerking, 3)
        if before is not None:
            _hold(band, before, position, quaternion, joints, lift)
        band.lower[0] += damping[:, None]
        change = band.solve()
        sizes = np.abs(change).max(axis=1)
        change *= np.minimum(1.0, LARGEST_STEP / np.maximum(sizes, 1e-12))[:, None]
        damping = _damping(damping, sizes, before_sizes)
        before_sizes, step = sizes, float(sizes.max())
        left = room + np.einsum("tpn,tn->tp", vertical, change)
        turned = joints + change[:, 6:-1]
        changed = ((left < 0) != below).any() or (((turned < lower) | (turned > upper)) != beyond).any()
        if close is not None:
            pressing = close.pressing(pressing.shape, change)
        below, beyond = left < 0, (turned < lower) | (turned > upper)
        position += change[:, :3]
        quaternion = multiply(quaternion, from_vector(change[:, 3:6]))
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        joints = joints + change[:, 6:-1]
        lift = lift + change[:, -1]
    return Solution(position, quaternion, np.clip(joints, lower, upper), lift, done, step)


def _damping(damping: Array, sizes: Array, before: Array) -> Array:
    """What holds the next step back, (T,): more in frames where the last steps (T,) did not shrink.

    A leg that is stretched to its end is longer than its tangent says; undamped steps swing to and fro about it."""
    restless = maximum_filter1d((sizes > SHRINKING * before) & (sizes > 10 * SETTLED), 5)
    return np.where(restless, np.maximum(damping, LEAST_DAMPING) * 4, np.where(damping > LEAST_DAMPING, damping / 3, 0))


def _keep(
    band: Band,
    kinematics: Kinematics,
    sweep: Sweep,
    bodies: tuple,
    goal: Array,
    lift: Array,
    deviation: Array,
    weight: Array,
    tolerances: Tolerances,
) -> None:
    """Key bodies, root rotation and joints near what is wanted."""
    points = kinematics.points(sweep, bodies)  # (T, P, 3)
    frames, count = points.shape[:2]
    error = points - goal
    error[..., 2] -= lift[:, None]
    rows = np.zeros((frames, count, 3, band.n))
    rows[..., :-1] = kinematics.point_jacobians(sweep, bodies, points)
    rows[:, :, 2, -1] = -1
    rows = rows.reshape(frames, 3 * count, band.n)
    scale = weight / (tolerances.body**2 * count)  # (T,): the mean over the bodies
    band.add_own(np.matmul(rows.transpose(0, 2, 1), rows) * scale[:, None, None])
    band.right -= np.einsum("trn,tr->tn", rows, error.reshape(frames, -1)) * scale[:, None]
    own = np.concatenate(
        [
            np.zeros(3),
            np.full(3, tolerances.turn**-2.0),
            np.full(band.n - 7, tolerances.joint**-2.0 / (band.n - 7)),
            [tolerances.lift**-2.0],
        ]
    )
    _diagonal(
        band, own * np.concatenate([np.repeat(weight[:, None], band.n - 1, 1), np.ones((frames, 1))], 1), deviation
    )


def _diagonal(band: Band, weight: Array, error: Array) -> None:
    """Weights (T, n) on the unknowns themselves."""
    band.lower[0] += weight
    band.right -= weight * error


def _stand(
    band: Band,
    kinematics: Kinematics,
    sweep: Sweep,
    feet: tuple,
    wanted: Wanted,
    below: Flags,
    tolerances: Tolerances,
) -> tuple[Array, Array]:
    """Touching points on the floor and still, the others above it where they are `below`.

    Returns how the points' heights move (T, 8, n) and their room over the lowest that they may be (T, 8)."""
    points = kinematics.points(sweep, feet)
    jacobians = np.zeros((*points.shape, band.n))  # (T, 8, 3, n)
    jacobians[..., :-1] = kinematics.point_jacobians(sweep, feet, points)
    height = points[..., 2] - SOLE_RADIUS
    least = np.where(wanted.touching, 0, wanted.clearance)
    error = height - least
    weight = (wanted.touching | below) / tolerances.height**2  # (T, 8)
    vertical = jacobians[:, :, 2]
    band.add_own(np.matmul(vertical.transpose(0, 2, 1), vertical * weight[..., None]))
    band.right -= np.einsum("tpn,tp->tn", vertical, weight * error)
    # (T - 1, 8): a point held in a frame goes nowhere until the next.
    held = wanted.held[:-1] & wanted.held[1:]
    feet_held = np.repeat(held.reshape(-1, 2, 4).any(axis=2), 4, axis=1)
    still = np.where(held, tolerances.slip**-2.0, feet_held * tolerances.roll**-2.0) * wanted.fps**2
    rows = jacobians[:, :, :2].reshape(len(points), 16, band.n)
    weights = np.repeat(still, 2, axis=1)[..., None]
    move = (points[1:, :, :2] - points[:-1, :, :2]).reshape(-1, 16)
    before, after = rows[:-1], rows[1:]
    own = np.zeros((len(points), band.n, band.n))
    own[:-1] += np.matmul(before.transpose(0, 2, 1), weights * before)
    own[1:] += np.matmul(after.transpose(0, 2, 1), weights * after)
    band.add_own(own)
    band.add_next(-np.matmul(after.transpose(0, 2, 1), weights * before))
    band.right[:-1] += np.einsum("trn,tr->tn", before, weights[..., 0] * move)
    band.right[1:] -= np.einsum("trn,tr->tn", after, weights[..., 0] * move)
    return vertical, error


def _reach(band: Band, kinematics: Kinematics, sweep: Sweep, feet: tuple, goals: Goals, tolerances: Tolerances) -> None:
    """Soles and centre of mass where they shall be."""
    points = kinematics.points(sweep, feet)
    centre, centre_jacobian = kinematics.mass_centre(sweep)
    frames = len(points)
    rows = np.zeros((frames, 27, band.n))
    rows[:, :24, :-1] = kinematics.point_jacobians(sweep, feet, points).reshape(frames, 24, -1)
    rows[:, 24:, :-1] = centre_jacobian
    error = np.concatenate([(points - goals.soles).reshape(frames, 24), centre - goals.mass_centre], axis=1)
    weight = np.concatenate([np.full(24, tolerances.sole**-2.0), np.full(3, tolerances.balance**-2.0)])
    band.add_own(np.matmul(rows.transpose(0, 2, 1), rows * weight[:, None]))
    band.right -= np.einsum("trn,tr->tn", rows, error * weight)


def _limit(band: Band, joints: Array, lower: Array, upper: Array, beyond: Flags, tolerances: Tolerances) -> None:
    """Joints inside their ranges where they are `beyond` them."""
    nearest = np.where(joints - lower < upper - joints, lower, upper)
    weight = np.zeros((band.frames, band.n))
    weight[:, 6:-1] = beyond / tolerances.limit**2
    error = np.zeros_like(weight)
    error[:, 6:-1] = joints - nearest
    _diagonal(band, weight, error)


def _hold(
    band: Band, before: tuple[Array, ...], position: Array, quaternion: Array, joints: Array, lift: Array
) -> None:
    """The first frames where the last window left them."""
    count = len(before[0])
    weight, error = np.zeros((band.frames, band.n)), np.zeros((band.frames, band.n))
    weight[:count] = 1e-5**-2
    error[:count] = np.concatenate(
        [
            position[:count] - before[0],
            to_vector(multiply(conjugate(before[1]), quaternion[:count])),
            joints[:count] - before[2],
            (lift[:count] - before[3])[:, None],
        ],
        axis=1,
    )
    _diagonal(band, weight, error)
