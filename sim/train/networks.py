"""Small networks on blocks of lanes: dense layers, their gradients, and Adam, for kernels that fuse simulation and
learning.

A network of a few thousand weights is too small for a matrix library: calls cost more than the arithmetic. Here a layer
is a few vector instructions inside the simulation loop. Layer sizes are the lengths of tuples (their values do not
matter): so they are part of the type, hence compile-time constants, and loops unroll. Measured: 35 to 50 thousand
million multiply-adds a second on one AVX-512 core.

Activations are `[channels, LANES]` (flat), weights row-major `[outputs, inputs]`.
"""

from __future__ import annotations

import numpy as np

from sim.backends.quadrotor import LANES, ONE, ZERO, block, device, load4, store4

LANE_UNITS = (0,) * LANES
CHUNK = 8  # inputs per unrolled step; input counts are padded to a multiple of it


@block
def dense(w, x, y, rows, columns):
    """y = w x for one block; as many rows (a multiple of 4) and columns (a multiple of CHUNK) as the tuples are
    long."""
    _multiply(w, None, x, y, rows, columns, False)


@block
def dense_bias(w, bias, x, y, rows, columns):
    """y = bias + w x for one block (as `dense`)."""
    _multiply(w, bias, x, y, rows, columns, False)


@block
def dense_add(w, x, y, rows, columns):
    """y += w x for one block (as `dense`)."""
    _multiply(w, None, x, y, rows, columns, True)


@device
def _multiply(w, bias, x, y, rows, columns, add):
    """Eight rows at a time, because a fused multiply-add takes four cycles and two start in each; then four."""
    outputs, inputs = len(rows), len(columns)
    whole = outputs // 8 * 8
    for i in range(0, whole, 8):
        yi = y[i * LANES : (i + 8) * LANES]
        for c in range(0, inputs, CHUNK):
            wi, xc = w[i * inputs + c : (i + 8) * inputs], x[c * LANES : (c + CHUNK) * LANES]
            for k in range(LANES):
                a0, a1, a2, a3 = load4(yi, k)
                a4, a5, a6, a7 = load4(yi, k + 4 * LANES)
                if not add and c == 0:
                    if bias is not None:
                        a0, a1, a2, a3 = bias[i], bias[i + 1], bias[i + 2], bias[i + 3]
                        a4, a5, a6, a7 = bias[i + 4], bias[i + 5], bias[i + 6], bias[i + 7]
                    else:
                        a0, a1, a2, a3 = ZERO, ZERO, ZERO, ZERO
                        a4, a5, a6, a7 = ZERO, ZERO, ZERO, ZERO
                for j in range(CHUNK):
                    v = xc[j * LANES + k]
                    a0 += wi[j] * v
                    a1 += wi[inputs + j] * v
                    a2 += wi[2 * inputs + j] * v
                    a3 += wi[3 * inputs + j] * v
                    a4 += wi[4 * inputs + j] * v
                    a5 += wi[5 * inputs + j] * v
                    a6 += wi[6 * inputs + j] * v
                    a7 += wi[7 * inputs + j] * v
                store4(yi, k, (a0, a1, a2, a3))
                store4(yi, k + 4 * LANES, (a4, a5, a6, a7))
    if outputs > whole:
        yi = y[whole * LANES : outputs * LANES]
        for c in range(0, inputs, CHUNK):
            wi, xc = w[whole * inputs + c : outputs * inputs], x[c * LANES : (c + CHUNK) * LANES]
            for k in range(LANES):
                a0, a1, a2, a3 = load4(yi, k)
                if not add and c == 0:
                    if bias is not None:
                        a0, a1, a2, a3 = bias[whole], bias[whole + 1], bias[whole + 2], bias[whole + 3]
                    else:
                        a0, a1, a2, a3 = ZERO, ZERO, ZERO, ZERO
                for j in range(CHUNK):
                    v = xc[j * LANES + k]
                    a0 += wi[j] * v
                    a1 += wi[inputs + j] * v
                    a2 += wi[2 * inputs + j] * v
                    a3 += wi[3 * inputs + j] * v
                store4(yi, k, (a0, a1, a2, a3))


@block
def transpose(w, wt, outputs, inputs, padded):
    """wt [inputs, padded] = w^T; rows are padded with zeros where `padded` exceeds the number of outputs."""
    for j in range(inputs):
        for i in range(outputs):
            wt[j * padded + i] = w[i * inputs + j]
        for i in range(outputs, padded):
            wt[j * padded + i] = ZERO


@block
def weight_gradient(d, x, g, scratch, rows, columns):
    """Add d x^T, summed over lanes, to g; the tuple `columns` is a multiple of LANES long.

    With x transposed lane by lane this is `dense_add` again: d is the matrix, and LANES inputs at a time are the lanes.
    So g is stored `[inputs / LANES, outputs, LANES]`; `unpack_gradient` puts it back. `scratch` holds LANES * LANES
    floats."""
    outputs, inputs = len(rows), len(columns)
    for c in range(0, inputs, LANES):
        xc = x[c * LANES : (c + LANES) * LANES]
        for j in range(LANES):
            for k in range(LANES):
                scratch[k * LANES + j] = xc[j * LANES + k]
        dense_add(d, scratch, g[c * outputs : (c + LANES) * outputs], rows, LANE_UNITS)


@block
def unpack_gradient(g, out, outputs, inputs, used):
    """out[i, j] (row-major, `used` columns) from a gradient that `weight_gradient` accumulated."""
    for i in range(outputs):
        for j in range(used):
            out[i * used + j] = g[(j // LANES * outputs + i) * LANES + j % LANES]


@block
def bias_gradient(d, g, outputs):
    """g[i, lane] += d[i, lane]; `lane_sum` finishes it."""
    for k in range(outputs * LANES):
        g[k] += d[k]


@block
def clear(a):
    """Set to zero. (`for a in (...): a[:] = 0` inside a prange is dropped by numba 0.68.)"""
    for i in range(a.size):
        a[i] = ZERO


@block
def lane_sum(g, out, count):
    """out[i] = sum over lanes of g[i, lane]."""
    for i in range(count):
        v = ZERO
        for k in range(LANES):
            v += g[i * LANES + k]
        out[i] = v


@block
def adam(w, m, v, g, count, rate, beta1, beta2, step):
    """One Adam step (Kingma and Ba 2015) in place; `step` counts from 1."""
    c1, c2 = ONE / (ONE - beta1**step), ONE / (ONE - beta2**step)
    for i in range(count):
        m[i] = beta1 * m[i] + (ONE - beta1) * g[i]
        v[i] = beta2 * v[i] + (ONE - beta2) * g[i] * g[i]
        w[i] -= rate * m[i] * c1 / (np.sqrt(v[i] * c2) + np.float32(1e-8))


@block
def aligned(count):
    """`count` zeros that begin at a multiple of 64 bytes: vectors that straddle two cache lines cost a fifth of the
    speed."""
    a = np.zeros(count + 16, dtype=np.float32)
    first = (-(a.ctypes.data // 4)) % 16
    return a[first : first + count]
