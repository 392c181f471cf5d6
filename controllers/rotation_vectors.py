"""Rotation vectors (axis times angle), and what time does to rotations: slerp and angular velocity.

Quaternions are those of controllers.rotations: (w, x, y, z), Hamilton, body to world, unit length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .rotations import conjugate, multiply

Array = NDArray[np.floating]

SMALL = 1e-6  # angle [rad] below which the series of sin(x) / x is exact to machine precision


def to_vector(quaternion: ArrayLike) -> Array:
    """The rotation vectors (..., 3) [rad] of unit quaternions (..., 4), the shorter way round: at most pi long."""
    q = np.asarray(quaternion, dtype=float)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)  # of half the angle
    angle = 2 * np.arctan2(sine, q[..., :1])
    small = sine < SMALL
    return q[..., 1:] * np.where(small, 2.0, angle / np.where(small, 1.0, sine))


def from_vector(vector: ArrayLike) -> Array:
    """The unit quaternions (..., 4) of rotation vectors (..., 3) [rad]."""
    v = np.asarray(vector, dtype=float)
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    small = angle < SMALL
    factor = np.where(small, 0.5, np.sin(angle / 2) / np.where(small, 1.0, angle))
    return np.concatenate([np.cos(angle / 2), factor * v], axis=-1)


def from_matrix(matrix: Array) -> Array:
    """The unit quaternions (T, 4) of rotation matrices (T, 3, 3): the eigenvector of the largest eigenvalue of a
    symmetric matrix (Bar-Itzhack)."""
    m = matrix
    k = np.zeros((len(m), 4, 4))
    k[:, 0, 0] = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    k[:, 0, 1] = m[:, 2, 1] - m[:, 1, 2]
    k[:, 0, 2] = m[:, 0, 2] - m[:, 2, 0]
    k[:, 0, 3] = m[:, 1, 0] - m[:, 0, 1]
    for i in range(3):
        for j in range(i, 3):
            k[:, 1 + i, 1 + j] = m[:, i, j] + m[:, j, i]
        k[:, 1 + i, 1 + i] -= k[:, 0, 0]
    return np.linalg.eigh(k, UPLO="U")[1][..., -1]


def continuous(quaternions: ArrayLike) -> Array:
    """The same rotations (T, 4) with signs such that neighbours are on the same half of the sphere; the first has
    w >= 0."""
    q = np.array(quaternions, dtype=float)
    jumps = np.einsum("ij,ij->i", q[1:], q[:-1]) < 0
    signs = np.cumprod(np.concatenate([[-1.0 if q[0, 0] < 0 else 1.0], np.where(jumps, -1.0, 1.0)]))
    return np.multiply(q, signs[:, None])


def slerp(a: ArrayLike, b: ArrayLike, share: ArrayLike) -> Array:
    """The rotation at `share` (...) of the way from a (..., 4) to b (..., 4), at constant speed, the shorter way
    round. Exactly a at 0."""
    turn = to_vector(multiply(b, conjugate(a)))
    return multiply(from_vector(np.asarray(share)[..., None] * turn), a)


def angular_velocity(quaternions: ArrayLike, dt: float) -> Array:
    """Angular velocity in the world frame (T, 3) [rad/s] of rotations (T, 4) that are `dt` [s] apart: the mean of the
    turns before and after a sample, one-sided at the two ends."""
    q = np.asarray(quaternions, dtype=float)
    if len(q) < 2:
        return np.zeros((len(q), 3))
    turns = to_vector(multiply(q[1:], conjugate(q[:-1]))) / dt  # (T - 1, 3), world frame
    return np.concatenate([turns[:1], (turns[1:] + turns[:-1]) / 2, turns[-1:]])
