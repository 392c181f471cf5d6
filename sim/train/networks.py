"""Small networks on blocks of lanes: dense layers, their gradients, and Adam, for kernels that fuse simulation and learning.

A network of a few thousand weights is too small for a matrix library: calls cost more than the arithmetic. Here a layer is a few
vector instructions inside the simulation loop. Layer sizes must be compile-time constants (module constants, or the length of a
tuple argument) so that loops unroll; measured 35 to 50 thousand million multiply-adds a second on one AVX-512 core.

Activations are `[channels, LANES]` (flat), weights row-major `[outputs, inputs]`.
"""

from __future__ import annotations

import numpy as np

from sim.backends.quadrotor import LANES, ONE, ZERO, device

CHUNK = 8  # inputs per unrolled step; input counts are padded to a multiple of it


@device
def dense(w, x, y, outputs, inputs):
    """y = w x for one block; `outputs` a multiple of 4, `inputs` a multiple of CHUNK."""
    for i in range(0, outputs, 4):
        yi = y[i * LANES : (i + 4) * LANES]
        for c in range(0, inputs, CHUNK):
            wi, xc = w[i * inputs + c : (i + 4) * inputs], x[c * LANES : (c + CHUNK) * LANES]
            for k in range(LANES):
                a0, a1, a2, a3 = yi[k], yi[k + LANES], yi[k + 2 * LANES], yi[k + 3 * LANES]
                if c == 0:
                    a0, a1, a2, a3 = ZERO, ZERO, ZERO, ZERO
                for j in range(CHUNK):
                    v = xc[j * LANES + k]
                    a0 += wi[j] * v
                    a1 += wi[inputs + j] * v
                    a2 += wi[2 * inputs + j] * v
                    a3 += wi[3 * inputs + j] * v
                yi[k] = a0
                yi[k + LANES] = a1
                yi[k + 2 * LANES] = a2
                yi[k + 3 * LANES] = a3


@device
def dense_add(w, x, y, outputs, inputs):
    """y += w x for one block (as `dense`)."""
    for i in range(0, outputs, 4):
        yi = y[i * LANES : (i + 4) * LANES]
        for c in range(0, inputs, CHUNK):
            wi, xc = w[i * inputs + c : (i + 4) * inputs], x[c * LANES : (c + CHUNK) * LANES]
            for k in range(LANES):
                a0, a1, a2, a3 = yi[k], yi[k + LANES], yi[k + 2 * LANES], yi[k + 3 * LANES]
                for j in range(CHUNK):
                    v = xc[j * LANES + k]
                    a0 += wi[j] * v
                    a1 += wi[inputs + j] * v
                    a2 += wi[2 * inputs + j] * v
                    a3 += wi[3 * inputs + j] * v
                yi[k] = a0
                yi[k + LANES] = a1
                yi[k + 2 * LANES] = a2
                yi[k + 3 * LANES] = a3


@device
def transpose(w, wt, outputs, inputs, padded):
    """wt [inputs, padded] = w^T; rows are padded with zeros where `padded` exceeds the number of outputs."""
    for j in range(inputs):
        for i in range(outputs):
            wt[j * padded + i] = w[i * inputs + j]
        for i in range(outputs, padded):
            wt[j * padded + i] = ZERO


@device
def weight_gradient(d, x, g, scratch, outputs, inputs):
    """Add d x^T, summed over lanes, to g, for `inputs` a multiple of LANES.

    With x transposed lane by lane this is `dense_add` again: d is the matrix, and LANES inputs at a time are the lanes. So g is
    stored `[inputs / LANES, outputs, LANES]`; `unpack_gradient` puts it back. `scratch` holds LANES * LANES floats."""
    for c in range(0, inputs, LANES):
        xc = x[c * LANES : (c + LANES) * LANES]
        for j in range(LANES):
            for k in range(LANES):
                scratch[k * LANES + j] = xc[j * LANES + k]
        dense_add(d, scratch, g[c * outputs : (c + LANES) * outputs], outputs, LANES)


@device
def unpack_gradient(g, out, outputs, inputs, used):
    """out[i, j] (row-major, `used` columns) from a gradient that `weight_gradient` accumulated."""
    for i in range(outputs):
        for j in range(used):
            out[i * used + j] = g[(j // LANES * outputs + i) * LANES + j % LANES]


@device
def bias_gradient(d, g, outputs):
    """g[i, lane] += d[i, lane]; `lane_sum` finishes it."""
    for k in range(outputs * LANES):
        g[k] += d[k]


@device
def clear(a):
    """Set to zero. (`for a in (...): a[:] = 0` inside a prange is dropped by numba 0.68.)"""
    for i in range(a.size):
        a[i] = ZERO


@device
def lane_sum(g, out, count):
    """out[i] = sum over lanes of g[i, lane]."""
    for i in range(count):
        v = ZERO
        for k in range(LANES):
            v += g[i * LANES + k]
        out[i] = v


@device
def adam(w, m, v, g, count, rate, beta1, beta2, step):
    """One Adam step (Kingma and Ba 2015) in place; `step` counts from 1."""
    c1, c2 = ONE / (ONE - beta1**step), ONE / (ONE - beta2**step)
    for i in range(count):
        m[i] = beta1 * m[i] + (ONE - beta1) * g[i]
        v[i] = beta2 * v[i] + (ONE - beta2) * g[i] * g[i]
        w[i] -= rate * m[i] * c1 / (np.sqrt(v[i] * c2) + np.float32(1e-8))
