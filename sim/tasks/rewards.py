"""What a tracking policy is paid for: pure functions of arrays, one per formula, each (N,) for N robots.

Positions, velocities and their references come in the same order and frame; weights and widths stand in
`sim/tasks/tracking_config.py`. Formulas: DeepMimic (Peng et al. 2018) in the forms of BeyondMimic (2025, table of
rewards) and of ASAP (2025, table I). Those over many bodies are compiled: one pass, and no arrays in between.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from controllers.vectors import guvectorize

Array = NDArray[np.floating]
Indices = NDArray[np.integer]


@guvectorize(["void(float64[:,:], float64[:,:], int64[:], float64[:])"], "(b,c),(b,c),(k)->()")
def _mean_square(found, wanted, which, out):
    total = 0.0
    for k in range(len(which)):
        for c in range(found.shape[1]):
            off = found[which[k], c] - wanted[which[k], c]
            total += off * off
    out[0] = total / len(which)


@guvectorize(["void(float64[:,:], float64[:,:], int64[:], float64[:])"], "(b,c),(b,c),(k)->(k)")
def _distances(found, wanted, which, out):
    for k in range(len(which)):
        total = 0.0
        for c in range(found.shape[1]):
            off = found[which[k], c] - wanted[which[k], c]
            total += off * off
        out[k] = math.sqrt(total)


@guvectorize(["void(float64[:,:], float64[:,:], int64[:], float64[:])"], "(b,q),(b,q),(k)->()")
def _mean_square_angle(found, wanted, which, out):
    total = 0.0
    for k in range(len(which)):
        a, b = found[which[k]], wanted[which[k]]
        angle = 2.0 * math.acos(min(abs(a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]), 1.0))
        total += angle * angle
    out[0] = total / len(which)


@guvectorize(["void(boolean[:,:], float64[:,:,:], float64[:])"], "(f,p),(f,p,c)->()")
def _slip(touching, velocity, out):
    total = 0.0
    for f in range(touching.shape[0]):
        for p in range(touching.shape[1]):
            if touching[f, p]:
                total += math.sqrt(velocity[f, p, 0] ** 2 + velocity[f, p, 1] ** 2 + velocity[f, p, 2] ** 2)
    out[0] = total / touching.shape[1]


@guvectorize(["void(float64[:], float64[:], float64[:], float64[:])"], "(j),(j),(j)->()")
def _beyond(value, lower, upper, out):
    out[0] = 0.0
    for j in range(len(value)):
        out[0] += max(lower[j] - value[j], value[j] - upper[j], 0.0)


@guvectorize(["void(float64[:,:], float64[:])"], "(f,q)->()")
def _foot_tilt(quaternion, out):
    out[0] = 0.0
    for f in range(len(quaternion)):
        w, x, y, z = quaternion[f, 0], quaternion[f, 1], quaternion[f, 2], quaternion[f, 3]
        out[0] += 2.0 * math.hypot(w * y - x * z, w * x + y * z)  # of the third row of the rotation matrix


def squared_distance(found: Array, wanted: Array, which: Indices) -> Array:
    """Mean over the points `which` (K,) of the squared length of the difference of vectors (N, points, 3), (N,)."""
    return _mean_square(found, wanted, which)  # type: ignore[call-arg] (the compiled one makes its own result)


def distances(found: Array, wanted: Array, which: Indices) -> Array:
    """Lengths of those differences, (N, K)."""
    return _distances(found, wanted, which)  # type: ignore[call-arg]


def squared_angle(found: Array, wanted: Array, which: Indices) -> Array:
    """Mean over `which` (K,) of the squared angle of the rotation between attitudes (N, bodies, 4) [rad^2], (N,)."""
    return _mean_square_angle(found, wanted, which)  # type: ignore[call-arg]


def squared(found: Array, wanted: Array) -> Array:
    """Mean square of the differences of values (N, J), (N,)."""
    off = found - wanted
    return np.einsum("ni,ni->n", off, off) / off.shape[1]


def closeness(squared_error: Array, width: float) -> Array:
    """exp(-mean error^2 / width^2) of a mean squared error (N,)."""
    return np.exp(-squared_error / width**2)


def change(action: Array, previous: Array) -> Array:
    """Squared change of the action (N, A)."""
    off = action - previous
    return np.einsum("ni,ni->n", off, off)


def beyond(value: Array, lower: Array, upper: Array) -> Array:
    """Sum of how far values (N, J) are outside their ranges (J,)."""
    return _beyond(value, lower, upper)  # type: ignore[call-arg]


def slip(touching: NDArray[np.bool_], velocity_w: Array) -> Array:
    """Sum over feet of the mean speed [m/s] of a sole's points (N, feet, points, 3), those that do not touch the floor
    (N, feet, points) counting as still."""
    return _slip(touching, velocity_w)  # type: ignore[call-arg]


def clearance(height: Array, wanted: Array, enough: float) -> Array:
    """1 where each foot is as high as the motion's, or `enough` [m]; less by what a foot lacks, as a share of `enough`:
    0 with one foot on the floor whose motion's is in the air, -1 with two. (N,).

    Args:
        height: Of the points of each sole above the floor [m], (N, feet, points); the lowest counts.
        wanted: Of the lowest point of the motion's soles [m], (N, feet).
    """
    lacking = np.minimum(wanted, enough) - np.maximum(height.min(axis=2), 0.0)  # who stands sinks in by millimetres
    return 1.0 - np.maximum(lacking, 0.0).sum(axis=1) / enough


def flight(height: Array, wanted: Array, least: float) -> Array:
    """1 where no foot is on the floor although one of the motion's is, else 0, (N,).

    Args:
        height: Of the points of each sole above the floor [m], (N, feet, points).
        wanted: Of the lowest point of the motion's soles [m], (N, feet).
        least: Above which a foot is in the air [m].
    """
    return ((height.min(axis=(1, 2)) > least) & (wanted.min(axis=1) <= least)).astype(float)


def foot_tilt(quaternion: Array) -> Array:
    """Sum over feet (N, feet, 4) of the sine of the angle between sole and floor."""
    return _foot_tilt(quaternion)  # type: ignore[call-arg]
