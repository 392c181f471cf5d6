"""What a retargeted motion aims at beside standing: key points, no faster than the motors, no part in another.

Each adds its rows to the normal equations (band.Band) of a motion of T frames with n = J + 7 unknowns a frame: root
position and turn, J joints, lift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1, Site
from sim.motions.band import Band
from sim.motions.kinematics import Kinematics, Sweep
from sim.robots.g1_shapes import SHAPES, excluded_pairs

Array = NDArray[np.floating]

FAST = 1e-2  # [rad] tolerance of a joint's move from frame to frame beyond what its motor can do
GAP = 0.01  # [m] that solids keep between them
PRESSING = 1e-3  # [m] tolerance of it
CLOSE = 0.05  # [m] from where on it is seen in advance that they come too near
NEAR = 0.12  # [m] solids that never come so near are not looked at by a retargeting


@dataclass(frozen=True)
class Keys:
    """Where P points of the robot shall be in T frames."""

    sites: tuple[Site, ...]
    targets: Array
    """(T, P, 3) world [m]."""
    weights: Array
    """(P,) one over the tolerance squared [1/m^2]."""
    posture: Array
    """(J,) angles that are taken where the points leave a choice [rad]."""
    posture_weight: Array
    """(J,) one over its tolerance squared [1/rad^2]."""


def reach_keys(band: Band, kinematics: Kinematics, sweep: Sweep, keys: Keys, joints: Array, lift: Array) -> None:
    """Key points on their targets, which are lifted by `lift` (T,)."""
    points = kinematics.points(sweep, keys.sites)
    frames, count = points.shape[:2]
    error = points - keys.targets
    error[..., 2] -= lift[:, None]
    rows = np.zeros((frames, count, 3, band.n))
    rows[..., :-1] = kinematics.point_jacobians(sweep, keys.sites, points)
    rows[:, :, 2, -1] = -1
    rows = rows.reshape(frames, 3 * count, band.n)
    weights = np.repeat(keys.weights, 3)
    turned = rows.transpose(0, 2, 1)
    band.add_own(np.matmul(turned, rows * weights[:, None]))
    band.right -= np.matmul(turned, (weights * error.reshape(frames, -1))[..., None])[..., 0]
    band.lower[0, :, 6:-1] += keys.posture_weight
    band.right[:, 6:-1] -= keys.posture_weight * (joints - keys.posture)
    band.lower[0, :, -1] += 1.0  # [1/m^2]: next to nothing, it keeps the lift well posed


def limit_speed(band: Band, joints: Array, most: Array) -> None:
    """Joints move by no more than `most` (J,) [rad] from frame to frame: a spring where they do."""
    move = np.diff(joints, axis=0)
    over = np.sign(move) * np.maximum(np.abs(move) - most, 0)  # (T - 1, J)
    weight = (over != 0) / FAST**2
    band.lower[0, :-1, 6:-1] += weight
    band.lower[0, 1:, 6:-1] += weight
    band.lower[band.n, :-1, 6:-1] -= weight
    band.right[:-1, 6:-1] += weight * over
    band.right[1:, 6:-1] -= weight * over


@dataclass(frozen=True)
class Apart:
    """C pairs of capsules (a sphere is a short one) that may meet."""

    sites: tuple[Site, ...]
    """Both ends of the axes of the first capsules (C), then of the second (C): start, end, start, ..."""
    radii: Array
    """(C,) sum of a pair's radii [m]."""

    def chosen(self, keep: NDArray[np.bool_]) -> Apart:
        """Only the pairs that are marked, (C,)."""
        which = np.flatnonzero(keep)
        first = (2 * which[:, None] + np.arange(2)).ravel()
        ends = np.concatenate([first, first + 2 * len(self.radii)])
        return Apart(tuple(self.sites[i] for i in ends), self.radii[which])


def may_meet(robot: G1) -> Apart:
    """All pairs of solids of the robot that touch when they meet."""
    solids = [shape for shape in SHAPES if shape.touches in ("all", "robot") and shape.kind in ("capsule", "sphere")]
    excluded = {frozenset(pair) for pair in excluded_pairs(robot)}
    pairs = [
        (a, b)
        for i, a in enumerate(solids)
        for b in solids[i + 1 :]
        if a.body != b.body and frozenset((a.body, b.body)) not in excluded
    ]
    ends = [
        Site(f"{shape.name} {end}", shape.body, place)
        for which in (0, 1)
        for shape in (pair[which] for pair in pairs)
        for end, place in (("start", shape.start), ("end", shape.end))
    ]
    return Apart(tuple(ends), np.array([a.radius + b.radius for a, b in pairs]))


def gaps(kinematics: Kinematics, sweep: Sweep, apart: Apart) -> Array:
    """(T, C) distance between the surfaces of each pair [m], negative where one is in the other."""
    return _between(kinematics.points(sweep, apart.sites))[0] - apart.radii


@dataclass(frozen=True)
class Close:
    """M pairs in frames in which they are near each other."""

    frames: NDArray[np.int_]
    """(M,)"""
    pairs: NDArray[np.int_]
    """(M,)"""
    room: Array
    """(M,) what their distance is beyond GAP [m]."""
    rows: Array
    """(M, n) how it changes."""

    def pressing(self, shape: tuple[int, int], change: Array) -> NDArray[np.bool_]:
        """(T, C) pairs that would come nearer than GAP by this change (T, n)."""
        result = np.zeros(shape, dtype=bool)
        result[self.frames, self.pairs] = self.room + np.einsum("mn,mn->m", self.rows, change[self.frames]) < 0
        return result


def keep_apart(band: Band, kinematics: Kinematics, sweep: Sweep, apart: Apart, pressing: NDArray[np.bool_]) -> Close:
    """Pairs that are `pressing` (T, C) are held at GAP."""
    count = len(apart.radii)
    distance, first, second = _between(kinematics.points(sweep, apart.sites))
    room = distance - apart.radii - GAP
    frames, pairs = np.nonzero((room < CLOSE) | pressing)  # (M,) each
    room = room[frames, pairs]
    away = (first - second)[frames, pairs] / np.maximum(distance[frames, pairs], 1e-9)[:, None]  # (M, 3)
    body, _ = kinematics.fixed(apart.sites)
    rows = np.zeros((len(frames), band.n))
    for sign, places, bodies in ((1, first, body[2 * pairs]), (-1, second, body[2 * count + 2 * pairs])):
        rows[:, :-1] += sign * kinematics.jacobian_along(sweep, frames, bodies, places[frames, pairs], away)
    held = pressing[frames, pairs]
    if held.any():
        at, own = frames[held], rows[held]
        blocks = np.zeros((band.frames, band.n, band.n))
        np.add.at(blocks, at, own[:, :, None] * own[:, None, :] / PRESSING**2)
        band.add_own(blocks)
        np.add.at(band.right, at, -own * (room[held] / PRESSING**2)[:, None])
    return Close(frames, pairs, room, rows)


def _between(ends: Array) -> tuple[Array, Array, Array]:
    """Distance (T, C) and nearest points (T, C, 3) on either axis of C pairs of segments, from their ends as in Apart.

    The nearest points of two lines, moved into the segments one after the other."""
    half = ends.shape[1] // 2
    a, b, c, d = ends[:, :half:2], ends[:, 1:half:2], ends[:, half::2], ends[:, half + 1 :: 2]
    u, v, w = b - a, d - c, a - c
    uu, vv, uv = (np.einsum("tci,tci->tc", x, y) for x, y in ((u, u), (v, v), (u, v)))
    uw, vw = np.einsum("tci,tci->tc", u, w), np.einsum("tci,tci->tc", v, w)
    tiny = 1e-12
    across = uu * vv - uv**2
    s = np.where(across > tiny, np.clip((uv * vw - vv * uw) / np.maximum(across, tiny), 0, 1), 0.5)
    t = np.clip((uv * s + vw) / np.maximum(vv, tiny), 0, 1)
    s = np.clip((uv * t - uw) / np.maximum(uu, tiny), 0, 1)
    first, second = a + s[..., None] * u, c + t[..., None] * v
    return np.linalg.norm(first - second, axis=2), first, second
