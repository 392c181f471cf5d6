"""What a teacher begins as: the linear-quadratic regulator of its own quadrotor, in the form of a network."""

from __future__ import annotations

import numpy as np

from sim.backends.quadrotor import LANES, STATE, WRENCH, advance, advance_adjoint, kernel, to_blocks
from sim.robots.quadrotors import Quadrotors
from sim.tasks import quadrotor as task
from sim.train.networks import aligned
from sim.train.teacher import INPUTS, POSITION_SCALE, RATE_SCALE, SIGNALS


@kernel
def linearise(x, u, w, c, g, gx, gu):
    """One time step of blocks and its adjoint: rows of the Jacobian, selected by the gradients g of the state after."""
    after, gxb, gub = aligned(STATE * LANES), aligned(STATE * LANES), aligned(4 * LANES)
    for b in range(len(x)):
        advance(x[b], u[b], w[b], c[b], after)
        for row in range(len(g)):
            advance_adjoint(x[b], u[b], w[b], c[b], after, g[row], gxb, gub)
            gx[b, row] = gxb
            gu[b, row] = gub


def regulator(quads: Quadrotors, e: np.ndarray, q: np.ndarray, action_cost: float = 0.3) -> np.ndarray:
    """Skip weights (teachers, 4, INPUTS) that make each teacher its quadrotor's linear-quadratic regulator at hover.

    State: position, vector part of the quaternion, velocity, rates, motors and the last three actions; input: the
    change of the action. The linear model comes from the simulator's own adjoint; the Riccati equation is solved by
    structured doubling. Both lags are taken as the slower one: designed for the faster, the loop is unstable on many
    quadrotors whose motors slow down late. e: environment, q: scales."""
    n, nx = len(quads), 28
    slow = np.maximum(quads.tau_rise, quads.tau_fall)
    quads = quads.replace(tau_rise=slow, tau_fall=slow)
    trim = quads.trim()
    state = np.zeros((n, STATE))
    state[:, 3], state[:, 13:] = 1.0, trim
    rows = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    arrays = [to_blocks(z) for z in (state, trim, np.zeros((n, WRENCH)), quads.parameters())]
    g = np.zeros((len(rows), STATE, LANES), np.float32)
    g[np.arange(len(rows)), rows] = 1.0
    gx = np.zeros((len(arrays[0]), len(rows), STATE, LANES), np.float32)
    gu = np.zeros((len(arrays[0]), len(rows), 4, LANES), np.float32)
    x, u, w, c, g = (z.reshape(len(z), -1) for z in (*arrays, g))
    linearise(x, u, w, c, g, gx.reshape(*gx.shape[:2], -1), gu.reshape(*gu.shape[:2], -1))
    jx = gx[:, :, rows].transpose(0, 3, 1, 2).reshape(-1, len(rows), len(rows))[:n].astype(float)
    ju = gu.transpose(0, 3, 1, 2).reshape(-1, len(rows), 4)[:n].astype(float) / 2
    taps = e[:, task.ACTION_TAPS : task.ACTION_TAPS + 4, None]
    a, b = np.zeros((n, nx, nx)), np.zeros((n, nx, 4))
    a[:, :16, :16] = jx
    a[:, :16, 16:20] = ju * (taps[:, 0] + taps[:, 1])[:, None]
    a[:, :16, 20:24], a[:, :16, 24:28] = ju * taps[:, 2][:, None], ju * taps[:, 3][:, None]
    b[:, :16] = ju * taps[:, 0][:, None]
    a[:, 16:20, 16:20] = b[:, 16:20] = a[:, 20:24, 16:20] = a[:, 24:28, 20:24] = np.eye(4)
    weight = np.array([1 / 0.3] * 3 + [2, 2, 2.5] + [1.0] * 3 + [0.125] * 3 + [0.01] * 16) ** 2
    r = 1 / action_cost**2
    ak, gk, hk = a.copy(), b @ b.transpose(0, 2, 1) / r, np.tile(np.diag(weight), (n, 1, 1))
    for _ in range(14):
        w = np.linalg.inv(np.eye(nx) + gk @ hk)
        at = ak.transpose(0, 2, 1)
        ak, gk, hk = ak @ w @ ak, gk + ak @ w @ gk @ at, hk + at @ hk @ w @ ak
    bt = b.transpose(0, 2, 1)
    gain = -np.linalg.solve(r * np.eye(4) + bt @ hk @ b, bt @ hk @ a)
    gain[:, :, 16:20] += np.eye(4)
    skip = np.zeros((n, 4, INPUTS))
    skip[:, :, 0:3] = gain[:, :, 0:3] / q[:, POSITION_SCALE, None, None]
    for j, (plus, minus) in enumerate(((10, 8), (5, 9), (6, 4))):  # a quarter of the antisymmetric part of the matrix
        skip[:, :, plus], skip[:, :, minus] = gain[:, :, 3 + j] / 4, -gain[:, :, 3 + j] / 4
    skip[:, :, 12:15] = gain[:, :, 6:9]
    skip[:, :, 15:18] = gain[:, :, 9:12] / q[:, RATE_SCALE, None, None]
    skip[:, :, 18:22], skip[:, :, 22:26] = gain[:, :, 16:20], gain[:, :, 12:16] / 2
    skip[:, :, 35:39], skip[:, :, 39:43] = gain[:, :, 20:24], gain[:, :, 24:28]
    centre = 2 * trim - 1
    skip /= (1 - centre**2)[:, :, None]
    skip[:, :, SIGNALS] = np.arctanh(centre)
    return skip
