"""Quaternion helpers on numpy arrays.

Quaternions are (w, x, y, z), Hamilton, and turn body vectors into world vectors. All functions work on the last axis
and broadcast over the others, so one call serves one robot or thousands. Quaternions are expected to have unit length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def multiply(a: ArrayLike, b: ArrayLike) -> Array:
    """The rotation that does `b` first and then `a`."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def conjugate(quaternion: ArrayLike) -> Array:
    """The inverse rotation."""
    q = np.asarray(quaternion)
    return np.concatenate([q[..., :1], -q[..., 1:]], axis=-1)


def rotate(quaternion: ArrayLike, vector: ArrayLike) -> Array:
    """The body-frame `vector` in the world frame."""
    q, v = np.asarray(quaternion), np.asarray(vector)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    a, b, c = v[..., 0], v[..., 1], v[..., 2]
    # v + 2 w (u x v) + 2 u x (u x v), u the vector part; written out, as np.cross takes three times as long
    i, j, k = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
    turned = (a + w * i + y * k - z * j, b + w * j + z * i - x * k, c + w * k + x * j - y * i)
    return np.stack(turned, axis=-1)


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
