"""Rotations of single vectors, number by number: what compiled loops over bodies are made of. Quaternions wxyz."""

from __future__ import annotations

import numba

from . import vectors  # noqa: F401 (before anything is compiled)

AXES = {"x": 0, "y": 1, "z": 2}
"""Of joints, as indices."""


@numba.njit(cache=True, inline="always")
def rotate(w, x, y, z, a, b, c):
    """The vector (a, b, c), turned by a quaternion."""
    tx, ty, tz = 2.0 * (y * c - z * b), 2.0 * (z * a - x * c), 2.0 * (x * b - y * a)
    return a + w * tx + y * tz - z * ty, b + w * ty + z * tx - x * tz, c + w * tz + x * ty - y * tx


@numba.njit(cache=True, inline="always")
def product(a, b, c, d, e, f, g, h):
    """The quaternion that turns by (e, f, g, h) first, then by (a, b, c, d)."""
    return (
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    )
