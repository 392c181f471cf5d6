"""What is broken in a reference before anything can be kept close to it: teleports and spikes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import median_filter

from controllers.rotation_vectors import continuous, to_vector
from controllers.rotations import conjugate, from_axis_angle, multiply, rotate, yaw
from sim.motions.stance import runs

Array = NDArray[np.floating]

FASTEST_ROOT = 6.0  # [m/s], faster than any G1 or sprinting human's pelvis relative to its own course
FASTEST_TURN = 25.0  # [rad/s] of the root
FASTEST_JOINT = 40.0  # [rad/s], above the 37 of its fastest motors
SHORTEST_PIECE = 0.3  # [s]; what a teleport cuts off at an end and is shorter than this is dropped
SPIKE = 0.15  # [s]; outliers that last longer are taken for motion
OUTLYING = (0.06, 0.35)  # [m] of the root's position, [rad] of angles, from the median of their surroundings


@dataclass(frozen=True)
class Tidied:
    """Positions without teleports and spikes, and what that took."""

    position: Array
    quaternion: Array
    joints: Array
    first: int
    """First frame of the source that is kept."""
    teleports: int
    spikes: int
    """Frames with at least one number that was replaced."""


def tidy(position: Array, quaternion: Array, joints: Array, fps: float) -> Tidied:
    """Drop what a teleport cuts off at the ends, join the pieces between others, replace spikes by what lies around
    them."""
    position, quaternion, joints = position.copy(), continuous(quaternion), joints.copy()
    spikes = _despike(position, quaternion, joints, fps)
    quaternion = continuous(quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True))
    cuts = _teleports(position, quaternion, joints, fps)
    edges = [0, *cuts, len(position)]
    pieces = list(itertools.pairwise(edges))
    short = SHORTEST_PIECE * fps
    while len(pieces) > 1 and pieces[0][1] - pieces[0][0] < short:
        pieces.pop(0)
    while len(pieces) > 1 and pieces[-1][1] - pieces[-1][0] < short:
        pieces.pop()
    for (_, end), (start, stop) in itertools.pairwise(pieces):
        # The piece goes on where the last one ended, and in the direction that it went.
        before = position[end - 1] + (position[end - 1] - position[end - 2])
        turn = from_axis_angle([0, 0, 1], yaw(quaternion[end - 1]) - yaw(quaternion[start]))
        height = position[start:stop, 2].copy()
        position[start:stop] = rotate(turn, position[start:stop] - position[start]) + before
        position[start:stop, 2] = height
        quaternion[start:stop] = multiply(turn, quaternion[start:stop])
    first, last = pieces[0][0], pieces[-1][1]
    kept = slice(first, last)
    return Tidied(position[kept], continuous(quaternion[kept]), joints[kept], first, len(cuts), spikes)


def _teleports(position: Array, quaternion: Array, joints: Array, fps: float) -> list[int]:
    """Frames that no robot could reach from the one before."""
    travel = np.linalg.norm(np.diff(position, axis=0), axis=1) * fps
    turn = np.linalg.norm(to_vector(multiply(quaternion[1:], conjugate(quaternion[:-1]))), axis=1) * fps
    swing = np.abs(np.diff(joints, axis=0)).max(axis=1, initial=0) * fps
    torn = (travel > FASTEST_ROOT) | (turn > FASTEST_TURN) | (swing > FASTEST_JOINT)
    return (np.flatnonzero(torn) + 1).tolist()


def _despike(position: Array, quaternion: Array, joints: Array, fps: float) -> int:
    """Replace short outliers in place; the number of frames that had one."""
    half = max(1, round(SPIKE * fps))
    touched = np.zeros(len(position), dtype=bool)
    if len(position) < 2 * half + 3:
        return 0
    for values, limit in ((position, OUTLYING[0]), (quaternion, OUTLYING[1] / 2), (joints, OUTLYING[1])):
        usual = median_filter(values, size=(2 * half + 1, 1), mode="nearest")
        step = np.abs(np.diff(values, axis=0)) > limit
        # A spike leaves its surroundings and comes back, by a step each way.
        jumped = np.zeros(values.shape, dtype=bool)
        jumped[1:] |= step
        jumped[:-1] |= step
        outlying = (np.abs(values - usual) > limit) & _near(jumped, half)
        for column in np.flatnonzero(outlying.any(axis=0)):
            bad = outlying[:, column]
            for first, last in runs(bad):
                if first == 0 or last == len(values) or last - first > half:
                    bad[first:last] = False
            if bad.any():
                times = np.arange(len(values))
                values[bad, column] = PchipInterpolator(times[~bad], values[~bad, column])(times[bad])
                touched |= bad
    return int(touched.sum())


def _near(flags: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    result = flags.copy()
    for shift in range(1, reach + 1):
        result[shift:] |= flags[:-shift]
        result[:-shift] |= flags[shift:]
    return result
