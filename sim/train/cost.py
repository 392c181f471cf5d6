"""What a flight costs in tuning: the function of state and action that the student makes small, and its gradient."""

from __future__ import annotations

import numpy as np

from sim.backends.quadrotor import LANES, ONE, TWO, ZERO, block
from sim.tasks.quadrotor import BOX, BOXED

# Weights of the tuning cost, in this order in one array.
COST = (
    "position",  # s / (1 + s/2) of the distance s: bounded slope far away
    "near",  # s / (s + near_width): steep close to the goal
    "near_width",  # [m]
    "speed",  # of the velocity error
    "overspeed",  # of the velocity error beyond 1.3 m/s
    "tilt",  # squared vector part of the quaternion
    "rate",  # angular velocity
    "change",  # squared change of the action
    "excess",  # squared output beyond the clamp
    "edge",  # beyond 70 % of the box or 1.5 m/s, where the box counts
)

_f = np.float32
_P2, _S2, _W2 = _f(1e-4), _f(1e-2), _f(0.1)
_HUNDREDTH, _HALF, _OVER, _EDGE, _FAST = _f(0.01), _f(0.5), _f(1.3), _f(0.7), _f(1.5)


@block
def tuning_cost(x, a, previous, raw, ref, e, s, k, cost):
    """Add one step's cost of every lane to cost[lane]."""
    for i in range(LANES):
        d2, v2, w2, c2, over, edge = _P2, _S2, _W2, ZERO, ZERO, ZERO
        box = _EDGE * e[BOX * LANES + i]
        for c in range(3):
            p = x[i + c * LANES]
            d = p - ref[i + c * LANES]
            v = x[i + (7 + c) * LANES]
            ve = v - ref[i + (3 + c) * LANES]
            w = x[i + (10 + c) * LANES]
            d2 += d * d
            v2 += ve * ve
            w2 += w * w
            edge += max(abs(p) - box, ZERO) + max(abs(v) - _FAST, ZERO)
        for c in range(4):
            change = a[i + c * LANES] - previous[i + c * LANES]
            c2 += change * change
            beyond = min(max(abs(raw[i + c * LANES]) - ONE, ZERO), TWO)
            over += beyond * beyond
        d, v = np.sqrt(d2) - _HUNDREDTH, np.sqrt(v2)
        q1, q2, q3 = x[i + 4 * LANES], x[i + 5 * LANES], x[i + 6 * LANES]
        cost[i] += (
            k[0] * d / (ONE + _HALF * d)
            + k[1] * d / (d + k[2])
            + k[3] * v
            + k[4] * max(v - _OVER, ZERO)
            + k[5] * (q1 * q1 + q2 * q2 + q3 * q3)
            + k[6] * np.sqrt(w2)
            + k[7] * c2
            + k[8] * over
            + k[9] * s[BOXED * LANES + i] * edge
        )


@block
def tuning_adjoint(x, a, previous, raw, ref, e, s, k, weight, gx, ga, gprevious, graw):
    """Add the gradient of `weight` times `tuning_cost`."""
    for i in range(LANES):
        d2, v2, w2 = _P2, _S2, _W2
        for c in range(3):
            d = x[i + c * LANES] - ref[i + c * LANES]
            ve = x[i + (7 + c) * LANES] - ref[i + (3 + c) * LANES]
            w = x[i + (10 + c) * LANES]
            d2 += d * d
            v2 += ve * ve
            w2 += w * w
        n, v = np.sqrt(d2), np.sqrt(v2)
        d = n - _HUNDREDTH
        far, near = ONE + _HALF * d, d + k[2]
        gd = weight * (k[0] / (far * far) + k[1] * k[2] / (near * near)) / n
        gv = weight * (k[3] + (k[4] if v > _OVER else ZERO)) / v
        gw = weight * k[6] / np.sqrt(w2)
        box = _EDGE * e[BOX * LANES + i]
        edge = weight * k[9] * s[BOXED * LANES + i]
        for c in range(3):
            p, v = x[i + c * LANES], x[i + (7 + c) * LANES]
            gp = (edge if p > box else ZERO) - (edge if p < -box else ZERO)
            gs = (edge if v > _FAST else ZERO) - (edge if v < -_FAST else ZERO)
            gx[i + c * LANES] += gd * (p - ref[i + c * LANES]) + gp
            gx[i + (7 + c) * LANES] += gv * (v - ref[i + (3 + c) * LANES]) + gs
            gx[i + (10 + c) * LANES] += gw * x[i + (10 + c) * LANES]
            gx[i + (4 + c) * LANES] += TWO * weight * k[5] * x[i + (4 + c) * LANES]
    for i in range(4 * LANES):
        change = TWO * weight * k[7] * (a[i] - previous[i])
        ga[i] += change
        gprevious[i] -= change
        z = raw[i]
        beyond = abs(z) - ONE
        g = TWO * weight * k[8] * beyond
        g = g if beyond > ZERO else ZERO
        g = g if beyond < TWO else ZERO
        graw[i] += g if z > ZERO else -g
