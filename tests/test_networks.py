"""The laws of the small layers: each is the matrix product that it stands for, and each gradient the transposed one."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

from sim.backends.quadrotor import LANES
from sim.train import networks

SHAPES = [(4, 8), (4, 32), (8, 16), (12, 48), (32, 48), (48, 8)]
MARGIN = 2e-5


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_a_dense_layer_is_a_matrix_product_for_every_lane(rows: int, columns: int) -> None:
    w, x, y = numbers(rows, columns), numbers(columns, LANES, seed=1), np.full((rows, LANES), np.nan, np.float32)
    networks.dense(w.reshape(-1), x.reshape(-1), y.reshape(-1), (0,) * rows, (0,) * columns)
    np.testing.assert_allclose(y, w @ x, atol=MARGIN)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_a_bias_is_added_to_every_lane(rows: int, columns: int) -> None:
    w, x, bias = numbers(rows, columns), numbers(columns, LANES, seed=1), numbers(rows, seed=2)
    y = np.full((rows, LANES), np.nan, np.float32)
    networks.dense_bias(w.reshape(-1), bias, x.reshape(-1), y.reshape(-1), (0,) * rows, (0,) * columns)
    np.testing.assert_allclose(y, w @ x + bias[:, None], atol=MARGIN)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_adding_a_layer_keeps_what_was_there(rows: int, columns: int) -> None:
    w, x, before = numbers(rows, columns), numbers(columns, LANES, seed=1), numbers(rows, LANES, seed=2)
    y = before.copy()
    networks.dense_add(w.reshape(-1), x.reshape(-1), y.reshape(-1), (0,) * rows, (0,) * columns)
    np.testing.assert_allclose(y, before + w @ x, atol=MARGIN)


@pytest.mark.parametrize(("rows", "columns"), [(4, 32), (32, 48), (12, 16)])
def test_the_weight_gradient_is_the_outer_product_summed_over_lanes(rows: int, columns: int) -> None:
    d, x = numbers(rows, LANES), numbers(columns, LANES, seed=1)
    g, scratch = np.zeros(rows * columns, np.float32), np.zeros(LANES * LANES, np.float32)
    for _ in range(2):  # it accumulates
        networks.weight_gradient(d.reshape(-1), x.reshape(-1), g, scratch, (0,) * rows, (0,) * columns)
    out = np.zeros((rows, columns), np.float32)
    networks.unpack_gradient(g, out.reshape(-1), rows, columns, columns)
    np.testing.assert_allclose(out, 2 * d @ x.T, atol=4 * MARGIN)


def test_unpacking_drops_the_padding() -> None:
    rows, columns, used = 4, 32, 27
    d, x = numbers(rows, LANES), numbers(columns, LANES, seed=1)
    g, scratch = np.zeros(rows * columns, np.float32), np.zeros(LANES * LANES, np.float32)
    networks.weight_gradient(d.reshape(-1), x.reshape(-1), g, scratch, (0,) * rows, (0,) * columns)
    out = np.zeros((rows, used), np.float32)
    networks.unpack_gradient(g, out.reshape(-1), rows, columns, used)
    np.testing.assert_allclose(out, (d @ x.T)[:, :used], atol=4 * MARGIN)


def test_a_transposed_matrix_is_padded_with_zeros() -> None:
    w, wt = numbers(4, 32), np.full((32, 8), np.nan, np.float32)
    networks.transpose(w.reshape(-1), wt.reshape(-1), 4, 32, 8)
    np.testing.assert_array_equal(wt[:, :4], w.T)
    np.testing.assert_array_equal(wt[:, 4:], 0)


def test_a_bias_gradient_is_the_sum_over_lanes() -> None:
    d = numbers(12, LANES)
    g, out = np.zeros(12 * LANES, np.float32), np.zeros(12, np.float32)
    networks.bias_gradient(d.reshape(-1), g, 12)
    networks.bias_gradient(d.reshape(-1), g, 12)
    networks.lane_sum(g, out, 12)
    np.testing.assert_allclose(out, 2 * d.sum(axis=1), atol=MARGIN)


def test_clear_leaves_zeros() -> None:
    a = numbers(37)
    networks.clear(a)
    np.testing.assert_array_equal(a, 0)


def test_adam_follows_its_formula() -> None:
    rate, beta1, beta2 = np.float32(0.01), np.float32(0.9), np.float32(0.99)
    w = numbers(20)
    m, v = np.zeros(20, np.float32), np.zeros(20, np.float32)
    expected, em, ev = w.astype(float), np.zeros(20), np.zeros(20)
    for step in range(1, 4):
        g = numbers(20, seed=step)
        networks.adam(w, m, v, g, 20, rate, beta1, beta2, np.float32(step))
        em, ev = 0.9 * em + 0.1 * g, 0.99 * ev + 0.01 * g**2
        expected -= 0.01 * em / (1 - 0.9**step) / (np.sqrt(ev / (1 - 0.99**step)) + 1e-8)
    np.testing.assert_allclose(w, expected, atol=1e-5)


@nb.njit
def _address(count: int) -> tuple[int, int]:
    a = networks.aligned(count)
    return a.ctypes.data, len(a)


@pytest.mark.parametrize("count", [1, 16, 1000])
def test_aligned_memory_begins_a_cache_line(count: int) -> None:
    address, length = _address(count)
    assert address % 64 == 0
    assert length == count
