"""The laws of rotations, on random quaternions and on ones worked by hand."""

from __future__ import annotations

import fcntl
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import controllers.vectors
from controllers.rotations import conjugate, from_axis_angle, multiply, rotate, to_matrix, yaw


@pytest.fixture
def quaternions() -> np.ndarray:
    q = np.random.default_rng(0).normal(size=(5, 7, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    q = from_axis_angle([0, 0, 2], math.pi / 2)
    np.testing.assert_allclose(q, [math.sqrt(0.5), 0, 0, math.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(rotate(q, [1, 0, 0]), [0, 1, 0], atol=1e-12)
    assert yaw(q) == pytest.approx(math.pi / 2)


def test_matrix_and_rotate_agree(quaternions: np.ndarray) -> None:
    v = np.random.default_rng(1).normal(size=(5, 7, 3))
    np.testing.assert_allclose((to_matrix(quaternions) @ v[..., None])[..., 0], rotate(quaternions, v), atol=1e-12)


def test_matrices_are_orthonormal_and_keep_handedness(quaternions: np.ndarray) -> None:
    m = to_matrix(quaternions)
    np.testing.assert_allclose(m @ m.swapaxes(-1, -2), np.broadcast_to(np.eye(3), m.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(m), 1)


def test_multiply_composes_right_to_left(quaternions: np.ndarray) -> None:
    a, b = quaternions[0], quaternions[1]
    np.testing.assert_allclose(to_matrix(multiply(a, b)), to_matrix(a) @ to_matrix(b), atol=1e-12)


def test_conjugate_undoes(quaternions: np.ndarray) -> None:
    identity = np.broadcast_to([1.0, 0, 0, 0], quaternions.shape)
    np.testing.assert_allclose(multiply(quaternions, conjugate(quaternions)), identity, atol=1e-12)


def test_one_axis_serves_many_angles_and_one_angle_many_axes() -> None:
    angles = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(yaw(from_axis_angle([0, 0, 1], angles)), angles)
    assert from_axis_angle(np.eye(3), 0.5).shape == (3, 4)


def test_processes_compile_one_at_a_time() -> None:
    """Two that filled an empty cache together could leave one in which every process crashed from then on."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with open(controllers.vectors.__file__) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = subprocess.Popen([sys.executable, "-c", "import controllers.rotations"], env=environment)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(5.0)
    assert other.wait() == 0
