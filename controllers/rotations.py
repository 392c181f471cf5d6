"""Quaternion helpers on numpy arrays.

Quaternions are (w, x, y, z), Hamilton, and turn body vectors into world vectors. All functions work on the last axis
and broadcast over the others, so one call serves one robot or thousands. Quaternions are expected to have unit length.
The two that are called most are compiled (numpy's own operations on many small vectors take five times as long).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .vectors import guvectorize

Array = NDArray[np.floating]


@guvectorize(
    ["void(float32[:], float32[:], float32[:])", "void(float64[:], float64[:], float64[:])"],
    "(n),(n)->(n)",
)
def _multiply(a, b, out):
    aw, ax, ay, az = a[0], a[1], a[2], a[3]
    bw, bx, by, bz = b[0], b[1], b[2], b[3]
    out[0] = aw * bw - ax * bx - ay * by - az * bz
    out[1] = aw * bx + ax * bw + ay * bz - az * by
    out[2] = aw * by - ax * bz + ay * bw + az * bx
    out[3] = aw * bz + ax * by - ay * bx + az * bw


def multiply(a: ArrayLike, b: ArrayLike) -> Array:
    """The rotation that does `b` first and then `a`."""
    return _multiply(a, b)  # type: ignore[call-arg] (the compiled one makes its own result)


def conjugate(quaternion: ArrayLike) -> Array:
    """The inverse rotation."""
    q = np.asarray(quaternion)
    return np.concatenate([q[..., :1], -q[..., 1:]], axis=-1)


@guvectorize(
    ["void(float32[:], float32[:], float32[:])", "void(float64[:], float64[:], float64[:])"],
    "(q),(v)->(v)",
)
def _rotate(quaternion, vector, out):
    # v + 2 w (u x v) + 2 u x (u x v), u the vector part
    w, x, y, z = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    a, b, c = vector[0], vector[1], vector[2]
    i, j, k = y * c - z * b, z * a - x * c, x * b - y * a
    i, j, k = i + i, j + j, k + k  # twice, in the precision that it has
    out[0] = a + w * i + y * k - z * j
    out[1] = b + w * j + z * i - x * k
    out[2] = c + w * k + x * j - y * i


def rotate(quaternion: ArrayLike, vector: ArrayLike) -> Array:
    """The body-frame `vector` in the world frame."""
    return _rotate(quaternion, vector)  # type: ignore[call-arg]


def to_matrix(quaternion: ArrayLike) -> Array:
    """The rotation matrices (..., 3, 3): their columns are the body axes in the world frame."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def from_axis_angle(axis: ArrayLike, angle: ArrayLike) -> Array:
    """The rotation by `angle` [rad] about `axis`, which must not be zero and need not have unit length."""
    n = np.asarray(axis, dtype=float)
    half = np.asarray(angle, dtype=float)[..., None] / 2
    w, xyz = np.broadcast_arrays(np.cos(half), np.sin(half) * n / np.linalg.norm(n, axis=-1, keepdims=True))
    return np.concatenate([w[..., :1], xyz], axis=-1)


def yaw(quaternion: ArrayLike) -> Array:
    """The heading of the body x axis in the world's horizontal plane [rad], in (-pi, pi]."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion), -1, 0)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
