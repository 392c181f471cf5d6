"""When a foot carries the robot, when it flies, and where the floor is under a reference that floats.

References of retargeted humans float and sink by several centimetres, by an amount that changes with the posture: the
height of a sole says little. Three things hold in spite of that. A body in the air falls: its centre of mass
accelerates at -g. A body that does not fall stands on something, so its lowest sole marks the floor. And a foot that
stands does not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.ndimage import gaussian_filter1d

from controllers.g1 import SOLE_RADIUS
from sim.motions.kinematics import GRAVITY, Kinematics, soles

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]

FALLING = 0.55  # of g: downward acceleration of a body without support; landing and take-off blur it by two frames
SHORTEST_FLIGHT = 0.10  # [s]; a hop of less leaves the floor by 1.2 cm
HIGHEST_RISE = 0.01  # [m] a flight lifts the lowest sole by at least this over its ends
BLUR = 0.03  # [s] standard deviation of the filter before differences are taken
STANDING_SPEED = 0.35  # [m/s] of a sole, at which standing and swinging are equally likely
STANDING_HEIGHT = 0.05  # [m] above the floor, the same
SWITCH = 0.2  # [s] of clear evidence that a change of stance must bring
SHORTEST_STANCE = 0.1  # [s]; nobody steps faster
AIRBORNE_COST = 6.0  # for a foot that stands during a flight, or no foot that stands outside one; swinging costs 1
FLAT = np.radians(20)  # a foot in stance that is tilted less is meant to stand on its whole sole
ROLLING = 0.015  # [m] above its lowest point, a sole that is tilted more still touches


@dataclass(frozen=True)
class Stance:
    """What touches the floor in T frames. The 8 sole points are those of `kinematics.soles`."""

    floor: Array
    """(T,) height of the floor in the reference [m], smooth, also through flights."""
    flying: Flags
    """(T,) no foot on the floor."""
    feet: Flags
    """(T, 2) left and right foot stand."""
    points: Flags
    """(T, 8) points of the feet in stance that touch."""


def find_stance(
    kinematics: Kinematics, position: Array, quaternion: Array, joints: Array, fps: float, known: Flags | None = None
) -> Stance:
    """What touches the floor.

    Args:
        kinematics: The robot.
        position: (T, 3) of the root [m].
        quaternion: (T, 4) of the root.
        joints: (T, J) [rad].
        fps: Frames per second.
        known: (T, 2) feet in stance as the source says, where it does.
    """
    sweep = kinematics.sweep(position, quaternion, joints)
    points = kinematics.points(sweep, soles())  # (T, 8, 3)
    height = points[..., 2] - SOLE_RADIUS
    lowest = height.min(axis=1)
    flying = _flying(mass_centre(kinematics, position, quaternion, joints)[:, 2], lowest, fps)
    floor = smooth_through(lowest, np.where(flying, 0.0, 1.0), fps, 0.08)
    feet = _standing(points, height, floor, flying, fps, known)
    # The floor once more, from the feet that stand: a swinging foot may be the lowest of a tilted body.
    standing = np.where(feet, _lower(height), np.inf).min(axis=1)
    sure = np.isfinite(standing)
    if sure.any():
        floor = smooth_through(np.where(sure, standing, 0.0), sure.astype(float), fps, 0.08)
    return Stance(floor, flying, feet, touching(kinematics, sweep.rotations, height, feet))


def touching(kinematics: Kinematics, rotations: Array, height: Array, feet: Flags) -> Flags:
    """(T, 8) the points of standing feet that touch: all of a foot that is nearly level, else its lowest."""
    result = np.zeros(height.shape, dtype=bool)
    for foot, side in enumerate(("left", "right")):
        body = kinematics.place[f"{side}_ankle_roll_link"][0] - 1
        tilt = np.arccos(np.clip(rotations[:, body, 2, 2], -1, 1))
        own = slice(4 * foot, 4 * foot + 4)
        low = height[:, own] < height[:, own].min(axis=1, keepdims=True) + ROLLING
        result[:, own] = feet[:, foot, None] & (low | (tilt < FLAT)[:, None])
    return result


def mass_centre(kinematics: Kinematics, position: Array, quaternion: Array, joints: Array) -> Array:
    """(T, 3) centre of mass [m]."""
    q = kinematics.configuration(position, quaternion, joints)
    return np.array([pin.centerOfMass(kinematics.model, kinematics.data, row) for row in q])


def smooth_through(values: Array, weights: Array, fps: float, time: float) -> Array:
    """The (T,) curve with the least bending that follows values (T,) where weights (T,) are not zero; changes faster
    than `time` [s] are smoothed away."""
    frames = len(values)
    bend = (time * fps) ** 4
    band = np.zeros((3, frames))  # upper form of the second difference's normal matrix
    for offset, factor in enumerate((1.0, -2.0, 1.0)):
        band[2, offset : frames - 2 + offset] += bend * factor**2
    band[1, 1 : frames - 1] += -2 * bend
    band[1, 2:frames] += -2 * bend
    band[0, 2:] += bend
    band[2] += weights + 1e-9
    return solveh_banded(band, weights * values)


def _lower(height: Array) -> Array:
    """(T, 2) height of each foot's lowest point, from (T, 8)."""
    return height.reshape(-1, 2, 4).min(axis=2)


def _flying(centre: Array, lowest: Array, fps: float) -> Flags:
    """(T,) frames of free fall in which the feet rise."""
    smooth = gaussian_filter1d(centre, BLUR * fps, mode="nearest")
    falling = np.gradient(np.gradient(smooth, 1 / fps), 1 / fps) < -FALLING * GRAVITY
    result = np.zeros(len(centre), dtype=bool)
    for first, last in runs(falling):
        long_enough = (last - first) / fps >= SHORTEST_FLIGHT
        inside = lowest[first:last]
        if long_enough and inside.max() - min(inside[0], inside[-1]) > HIGHEST_RISE:
            result[first:last] = True
    return result


def runs(flags: Flags) -> list[tuple[int, int]]:
    """First frame and the one after the last of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _standing(points: Array, height: Array, floor: Array, flying: Flags, fps: float, known: Flags | None) -> Flags:
    """(T, 2) the most likely course of stance: each frame's evidence, and a price for every change."""
    smooth = gaussian_filter1d(points, BLUR * fps / 2, axis=0, mode="nearest")
    speed = np.linalg.norm(np.gradient(smooth, 1 / fps, axis=0), axis=2)  # (T, 8)
    low = height < np.repeat(_lower(height), 4, axis=1) + ROLLING
    slowest = np.where(low, speed, np.inf).reshape(-1, 2, 4).min(axis=2)  # (T, 2)
    above = np.maximum(_lower(height) - floor[:, None], 0)
    stand = (slowest / STANDING_SPEED) ** 2 + (above / STANDING_HEIGHT) ** 2  # (T, 2); a swinging foot costs 1
    stand = np.minimum(stand, 4 * AIRBORNE_COST)
    if known is not None:
        stand += np.where(known, -2.0, 2.0)
    states = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    cost = states @ stand.T + (1 - states).sum(axis=1)[:, None]  # (4, T)
    cost[0] += np.where(flying, 0, AIRBORNE_COST)
    cost[1:] += np.where(flying, AIRBORNE_COST * states[1:].sum(axis=1)[:, None], 0)
    change = SWITCH * fps * np.abs(states[:, None] - states[None]).sum(axis=2) / 2  # (4, 4)
    frames = len(points)
    total, best = cost[:, 0], np.zeros((frames, 4), dtype=np.int8)
    for t in range(1, frames):
        steps = total[:, None] + change
        best[t] = steps.argmin(axis=0)
        total = steps.min(axis=0) + cost[:, t]
    course = np.zeros(frames, dtype=np.int64)
    course[-1] = total.argmin()
    for t in range(frames - 1, 0, -1):
        course[t - 1] = best[t, course[t]]
    feet = states[course].astype(bool)
    for foot in range(2):
        for first, last in runs(feet[:, foot]):
            if (last - first) / fps < SHORTEST_STANCE and first > 0 and last < frames:
                feet[first:last, foot] = False
    return feet
