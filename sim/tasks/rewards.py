"""What a tracking policy is paid for: pure functions of arrays, one per formula, each (N,) for N robots.

Positions, velocities and their references come in the same order and frame; weights and widths stand in
`sim/tasks/tracking.py`. Formulas: DeepMimic (Peng et al. 2018) in the forms of BeyondMimic (2025, table of rewards) and
of ASAP (2025, table I).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.rotations import conjugate, rotate

Array = NDArray[np.floating]


def squared_distance(found: Array, wanted: Array) -> Array:
    """Squared length of the difference, over the last axis."""
    off = found - wanted
    return np.einsum("...i,...i->...", off, off)


def angle_between(found: Array, wanted: Array) -> Array:
    """Angle of the rotation between two attitudes (..., 4) [rad], (...,)."""
    return 2.0 * np.arccos(np.clip(np.abs(np.einsum("...i,...i->...", found, wanted)), 0.0, 1.0))


def closeness(squared_error: Array, width: float) -> Array:
    """exp(-mean error^2 / width^2), the mean over everything but the first axis."""
    return np.exp(-squared_error.reshape(len(squared_error), -1).mean(axis=1) / width**2)


def change(action: Array, previous: Array) -> Array:
    """Squared change of the action."""
    return squared_distance(action, previous)


def beyond(value: Array, lower: Array, upper: Array) -> Array:
    """Sum of how far values (N, J) are outside their ranges (J,)."""
    return np.maximum(lower - value, 0.0).sum(axis=1) + np.maximum(value - upper, 0.0).sum(axis=1)


def slip(touching: NDArray[np.bool_], velocity_w: Array) -> Array:
    """Sum of the speeds [m/s] of the soles' points (N, feet, points, 3) that touch the floor (N, feet, points)."""
    return (np.linalg.norm(velocity_w, axis=-1) * touching).mean(axis=2).sum(axis=1)


def foot_tilt(quaternion: Array) -> Array:
    """Sum over feet (N, feet, 4) of the sine of the angle between sole and floor."""
    down_b = rotate(conjugate(quaternion), np.array([0.0, 0.0, -1.0]))
    return np.linalg.norm(down_b[..., :2], axis=-1).sum(axis=1)
