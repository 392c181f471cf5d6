"""The kernel behind the teachers: one small network on one quadrotor, simulated, differentiated and improved in one go.

Sixteen flights of the same quadrotor fly side by side for a window of steps; then the window is walked backward, and
the gradient of the discounted return reaches the network through the simulation. A teacher needs nothing of the
others, so one call makes many updates of one teacher while everything stays in the processor's cache.

A teacher sees the truth: the undelayed state, the motors, the last three actions, the force, torque and gust that act
now, and the reference's acceleration. It outputs tanh(skip o + MLP(o)), 48-32-32-4."""

from __future__ import annotations

import math

import numpy as np

from sim.backends.functions import hyperbolic_tangent
from sim.backends.quadrotor import (
    LANES,
    ONE,
    PARAMS,
    STATE,
    TWO,
    WRENCH,
    ZERO,
    advance,
    advance_adjoint,
    block,
    kernel,
    load3,
    load4,
    rotation_matrix,
    rotation_matrix_adjoint,
    store3,
    store4,
)
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import (
    ACTIONS,
    AGE,
    BOX,
    BOXED,
    ENVIRONMENT,
    HISTORY,
    REFERENCE,
    TRIM,
    exogenous,
    restart,
    set_point,
    set_point_adjoint,
    turn,
)
from sim.train.networks import (
    aligned,
    bias_gradient,
    clear,
    dense,
    dense_add,
    dense_bias,
    lane_sum,
    transpose,
    unpack_gradient,
    weight_gradient,
)

INPUTS, HIDDEN = 48, 32  # 43 signals, a one, and padding
# Sizes as types: see `sim/train/networks.py`.
IN, MID, OUT, OUT_PADDED = (0,) * INPUTS, (0,) * HIDDEN, (0,) * 4, (0,) * 8
SIGNALS = 43
# Flat weights of one teacher.
W1, W2, B2, W3, SKIP = (
    0,
    INPUTS * HIDDEN,
    HIDDEN * (INPUTS + HIDDEN),
    HIDDEN * (INPUTS + HIDDEN + 1),
    HIDDEN * (INPUTS + HIDDEN + 5),
)
WEIGHTS = SKIP + 4 * INPUTS
# Scales of one teacher's signals and costs.
POSITION_SCALE, RATE_SCALE, FORCE_SCALE, TORQUE_SCALE = 0, 1, 2, 3
SCALES = 4

_f = np.float32
_CLIP = _f(task.POSITION_CLIP)
_SOFT_POSITION, _SOFT_YAW, _SOFT_ACTION = _f(1e-4), _f(1e-5), _f(0.05**2)
_YAW_WEIGHT, _ACCELERATION_SCALE = _f(0.2), _f(0.2)
_BOX_MARGIN, _SPEED_MARGIN, _RATE_MARGIN = _f(0.7), _f(1.5), _f(28.0)
_RATE_PENALTY, _FOUR, _EIGHT = _f(0.01), _f(4.0), _f(8.0)
_BETA1, _BETA2, _EPSILON = _f(0.9), _f(0.99), _f(1e-8)


@block
def see(x, actions, ref, w, e, q, o):
    """A teacher's signals (INPUTS channels) of one block. `actions`: the last ACTIONS actions, newest last; q:
    SCALES."""
    ps, rs, fs, ts = q[0], q[1], q[2], q[3]
    for i in range(LANES):
        q0, q1, q2, q3 = load4(x, i + 3 * LANES)
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_matrix(q0, q1, q2, q3)
        cs, sn = turn(r00, r01, r10, r11)
        a, b, c = x[i] - ref[i], x[i + LANES] - ref[i + LANES], x[i + 2 * LANES] - ref[i + 2 * LANES]
        a, b = cs * a + sn * b, cs * b - sn * a
        store3(
            o, i, (min(max(a, -_CLIP), _CLIP) * ps, min(max(b, -_CLIP), _CLIP) * ps, min(max(c, -_CLIP), _CLIP) * ps)
        )
        store3(o, i + 3 * LANES, (cs * r00 + sn * r10, cs * r01 + sn * r11, cs * r02 + sn * r12))
        store3(o, i + 6 * LANES, (cs * r10 - sn * r00, cs * r11 - sn * r01, cs * r12 - sn * r02))
        store3(o, i + 9 * LANES, (r20, r21, r22))
        a, b = x[i + 7 * LANES] - ref[i + 3 * LANES], x[i + 8 * LANES] - ref[i + 4 * LANES]
        store3(o, i + 12 * LANES, (cs * a + sn * b, cs * b - sn * a, x[i + 9 * LANES] - ref[i + 5 * LANES]))
        store3(o, i + 15 * LANES, (rs * x[i + 10 * LANES], rs * x[i + 11 * LANES], rs * x[i + 12 * LANES]))
        a, b, c = load3(w, i)
        store3(o, i + 26 * LANES, (fs * (cs * a + sn * b), fs * (cs * b - sn * a), fs * c))
        a, b, c = load3(ref, i + 6 * LANES)
        store3(
            o,
            i + 32 * LANES,
            (_ACCELERATION_SCALE * (cs * a + sn * b), _ACCELERATION_SCALE * (cs * b - sn * a), _ACCELERATION_SCALE * c),
        )
        a, b, c = load3(w, i + 3 * LANES)
        store3(o, i + 29 * LANES, (ts * a, ts * b, ts * c))
        o[i + SIGNALS * LANES] = ONE
    for i in range(LANES):
        t0, t1, t2, t3 = load4(e, i + TRIM * LANES)
        a0, a1, a2, a3 = load4(actions, i + (ACTIONS - 1) * 4 * LANES)
        store4(o, i + 18 * LANES, (a0 - t0, a1 - t1, a2 - t2, a3 - t3))
        m0, m1, m2, m3 = load4(x, i + 13 * LANES)
        store4(o, i + 22 * LANES, (TWO * m0 - ONE - t0, TWO * m1 - ONE - t1, TWO * m2 - ONE - t2, TWO * m3 - ONE - t3))
        a0, a1, a2, a3 = load4(actions, i + (ACTIONS - 2) * 4 * LANES)
        store4(o, i + 35 * LANES, (a0 - t0, a1 - t1, a2 - t2, a3 - t3))
        a0, a1, a2, a3 = load4(actions, i + (ACTIONS - 3) * 4 * LANES)
        store4(o, i + 39 * LANES, (a0 - t0, a1 - t1, a2 - t2, a3 - t3))


@block
def see_adjoint(x, ref, q, go, gx, ga):
    """Add the gradient of the signals to that of the state gx and of the last ACTIONS actions ga."""
    ps, rs = q[0], q[1]
    for i in range(LANES):
        q0, q1, q2, q3 = load4(x, i + 3 * LANES)
        r00, r01, _, r10, r11, _, _, _, _ = rotation_matrix(q0, q1, q2, q3)
        cs, sn = turn(r00, r01, r10, r11)
        a, b, c = x[i] - ref[i], x[i + LANES] - ref[i + LANES], x[i + 2 * LANES] - ref[i + 2 * LANES]
        a, b = cs * a + sn * b, cs * b - sn * a
        ga0, ga1, ga2 = load3(go, i)
        ga0 = ga0 * ps if abs(a) < _CLIP else ZERO
        ga1 = ga1 * ps if abs(b) < _CLIP else ZERO
        ga2 = ga2 * ps if abs(c) < _CLIP else ZERO
        gx[i] += cs * ga0 - sn * ga1
        gx[i + LANES] += sn * ga0 + cs * ga1
        gx[i + 2 * LANES] += ga2
        a0, a1, a2 = load3(go, i + 3 * LANES)
        b0, b1, b2 = load3(go, i + 6 * LANES)
        gr = (
            *(cs * a0 - sn * b0, cs * a1 - sn * b1, cs * a2 - sn * b2),
            *(sn * a0 + cs * b0, sn * a1 + cs * b1, sn * a2 + cs * b2),
            *load3(go, i + 9 * LANES),
        )
        g0, g1, g2, g3 = rotation_matrix_adjoint(q0, q1, q2, q3, gr)
        gx[i + 3 * LANES] += g0
        gx[i + 4 * LANES] += g1
        gx[i + 5 * LANES] += g2
        gx[i + 6 * LANES] += g3
        a, b, c = load3(go, i + 12 * LANES)
        gx[i + 7 * LANES] += cs * a - sn * b
        gx[i + 8 * LANES] += sn * a + cs * b
        gx[i + 9 * LANES] += c
        for k in range(3):
            gx[i + (10 + k) * LANES] += rs * go[i + (15 + k) * LANES]
        for k in range(4):
            gx[i + (13 + k) * LANES] += TWO * go[i + (22 + k) * LANES]
    for i in range(4 * LANES):
        ga[(ACTIONS - 1) * 4 * LANES + i] += go[18 * LANES + i]
        ga[(ACTIONS - 2) * 4 * LANES + i] += go[35 * LANES + i]
        ga[(ACTIONS - 3) * 4 * LANES + i] += go[39 * LANES + i]


@block
def cost_adjoint(x, a, previous, ref, e, s, weight, edge, gx, ga, gprevious):
    """Add the gradient of one step's cost: RAPTOR's reward with rounded kinks, and a penalty, `edge` times
    the squared excess over a share of the limits, before these are reached."""
    for i in range(LANES):
        d0, d1, d2 = x[i] - ref[i], x[i + LANES] - ref[i + LANES], x[i + 2 * LANES] - ref[i + 2 * LANES]
        n = weight / np.sqrt(d0 * d0 + d1 * d1 + d2 * d2 + _SOFT_POSITION)
        inverse = ONE / e[BOX * LANES + i]
        fast = weight * edge
        boxed = s[BOXED * LANES + i] * fast
        for c in range(3):
            p, d = x[i + c * LANES], x[i + c * LANES] - ref[i + c * LANES]
            over = max(abs(p) * inverse - _BOX_MARGIN, ZERO) * _EIGHT * inverse * boxed
            gx[i + c * LANES] += d * n + (over if p > ZERO else -over)
            v = x[i + (7 + c) * LANES]
            over = max(abs(v) - _SPEED_MARGIN, ZERO) * TWO * fast
            gx[i + (7 + c) * LANES] += over if v > ZERO else -over
            v = x[i + (10 + c) * LANES]
            over = max(abs(v) - _RATE_MARGIN, ZERO) * TWO * _RATE_PENALTY * fast
            gx[i + (10 + c) * LANES] += over if v > ZERO else -over
        qz = x[i + 6 * LANES]
        z = np.sqrt(qz * qz + _SOFT_YAW)
        gx[i + 6 * LANES] += weight * _YAW_WEIGHT * qz / (z * np.sqrt(TWO * z))
        l0, l1, l2, l3 = (
            a[i] - previous[i],
            a[i + LANES] - previous[i + LANES],
            a[i + 2 * LANES] - previous[i + 2 * LANES],
            a[i + 3 * LANES] - previous[i + 3 * LANES],
        )
        n = weight / np.sqrt(l0 * l0 + l1 * l1 + l2 * l2 + l3 * l3 + _SOFT_ACTION)
        ga[i] += n * l0
        ga[i + LANES] += n * l1
        ga[i + 2 * LANES] += n * l2
        ga[i + 3 * LANES] += n * l3
        gprevious[i] -= n * l0
        gprevious[i + LANES] -= n * l1
        gprevious[i + 2 * LANES] -= n * l2
        gprevious[i + 3 * LANES] -= n * l3


@block
def act(weights, o, h1, h2, a):
    """A teacher's action for one block; h1 and h2 keep the hidden activations."""
    dense(weights[W1 : W1 + HIDDEN * INPUTS], o, h1, MID, IN)
    for i in range(HIDDEN * LANES):
        h1[i] = hyperbolic_tangent(h1[i])
    dense_bias(weights[W2 : W2 + HIDDEN * HIDDEN], weights[B2 : B2 + HIDDEN], h1, h2, MID, MID)
    for i in range(HIDDEN * LANES):
        h2[i] = hyperbolic_tangent(h2[i])
    dense(weights[W3 : W3 + 4 * HIDDEN], h2, a, OUT, MID)
    dense_add(weights[SKIP : SKIP + 4 * INPUTS], o, a, OUT, IN)
    for i in range(4 * LANES):
        a[i] = hyperbolic_tangent(a[i])


@kernel
def improve(which, weights, m, v, step, x, a, s, rng, c, e, q, start, schedule, window, life, discount, share_dead):
    """Several updates of the teachers in `which`, one after the other (everything in place; threads take different
    teachers).

    weights, m, v: (teachers, WEIGHTS) and Adam's moments; step: updates so far; x: (teachers, HISTORY+1, STATE, LANES)
    flat per teacher, a: (teachers, ACTIONS, 4, LANES), s: (teachers, EPISODE, LANES), rng: (teachers, LANES) uint32; c,
    e: parameters and environment (teachers, PARAMS | ENVIRONMENT, LANES); q: (teachers, SCALES); schedule: (updates, 3)
    learning rate, adjoint limit and `edge` of the cost; window: steps per update; life: length of an episode [s];
    discount: of rewards and of the adjoint; share_dead: (teachers,) out, moving share of lanes that broke a limit.
    """
    xs = aligned((HISTORY + 1 + window) * STATE * LANES)
    acts = aligned((ACTIONS + window) * 4 * LANES)
    refs = aligned(window * REFERENCE * LANES)
    ws = aligned(window * WRENCH * LANES)
    us = aligned(window * 4 * LANES)
    os = aligned(window * INPUTS * LANES)
    h1s = aligned(window * HIDDEN * LANES)
    h2s = aligned(window * HIDDEN * LANES)
    gas = aligned((ACTIONS + window) * 4 * LANES)
    gx, gn, gu = aligned(STATE * LANES), aligned(STATE * LANES), aligned(4 * LANES)
    go, g1, g2 = aligned(INPUTS * LANES), aligned(HIDDEN * LANES), aligned(HIDDEN * LANES)
    w1t, w2t = aligned(INPUTS * HIDDEN), aligned(HIDDEN * HIDDEN)
    w3t, skipt = aligned(HIDDEN * 8), aligned(INPUTS * 8)
    dz = aligned(8 * LANES)  # padded to CHUNK inputs
    gw1, gw2 = aligned(INPUTS * HIDDEN), aligned(HIDDEN * HIDDEN)
    gb2, gw3, gskip = aligned(HIDDEN * LANES), aligned(4 * HIDDEN), aligned(4 * INPUTS)
    grad, scratch = aligned(WEIGHTS), aligned(LANES * LANES)
    eb, cb = aligned(ENVIRONMENT * LANES), aligned(PARAMS * LANES)
    for b in which:
        wb, sb, rb, qb = weights[b], s[b], rng[b], q[b]
        eb[:] = e[b]
        cb[:] = c[b]
        xs[: (HISTORY + 1) * STATE * LANES] = x[b]
        acts[: ACTIONS * 4 * LANES] = a[b]
        for update in range(schedule.shape[0]):
            rate, limit, edge = schedule[update, 0], schedule[update, 1], schedule[update, 2]
            # Where a flight left the limits, or grew old, another one begins.
            now = xs[HISTORY * STATE * LANES : (HISTORY + 1) * STATE * LANES]
            dead = ZERO
            for i in range(LANES):
                box = eb[BOX * LANES + i] if sb[BOXED * LANES + i] > ZERO else _f(20.0)
                lost = False
                for k in range(3):
                    speed = _f(2.5) if sb[BOXED * LANES + i] > ZERO else _f(12.0)
                    lost |= not (
                        abs(now[i + k * LANES]) <= box
                        and abs(now[i + (7 + k) * LANES]) <= speed
                        and abs(now[i + (10 + k) * LANES]) <= _f(35.0)
                    )
                if lost:
                    dead += ONE / _f(LANES)
                if lost or sb[AGE * LANES + i] >= life:
                    restart(xs, acts, sb, rb, eb, start, i)
                    if step[b] == 0:  # spread the ages, so that every window holds fresh and settled flights
                        sb[AGE * LANES + i] = life * _f(i) / _f(LANES)
            share_dead[b] = _f(0.9) * share_dead[b] + _f(0.1) * dead
            for t in range(window):
                xt = xs[(HISTORY + t) * STATE * LANES : (HISTORY + t + 1) * STATE * LANES]
                rt = refs[t * REFERENCE * LANES : (t + 1) * REFERENCE * LANES]
                wt = ws[t * WRENCH * LANES : (t + 1) * WRENCH * LANES]
                ut = us[t * 4 * LANES : (t + 1) * 4 * LANES]
                ot = os[t * INPUTS * LANES : (t + 1) * INPUTS * LANES]
                at = acts[(ACTIONS + t) * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES]
                exogenous(sb, rb, eb, rt, wt)
                see(xt, acts[t * 4 * LANES : (ACTIONS + t) * 4 * LANES], rt, wt, eb, qb, ot)
                act(
                    wb,
                    ot,
                    h1s[t * HIDDEN * LANES : (t + 1) * HIDDEN * LANES],
                    h2s[t * HIDDEN * LANES : (t + 1) * HIDDEN * LANES],
                    at,
                )
                set_point(acts[t * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES], eb, ut)
                advance(xt, ut, wt, cb, xs[(HISTORY + t + 1) * STATE * LANES : (HISTORY + t + 2) * STATE * LANES])
                # A tumbling flight stays finite until its restart.
                after = xs[
                    (HISTORY + t + 1) * STATE * LANES + 7 * LANES : (HISTORY + t + 1) * STATE * LANES + 13 * LANES
                ]
                for i in range(6 * LANES):
                    after[i] = min(max(after[i], _f(-60.0)), _f(60.0))
            transpose(wb[W1 : W1 + HIDDEN * INPUTS], w1t, HIDDEN, INPUTS, HIDDEN)
            transpose(wb[W2 : W2 + HIDDEN * HIDDEN], w2t, HIDDEN, HIDDEN, HIDDEN)
            transpose(wb[W3 : W3 + 4 * HIDDEN], w3t, 4, HIDDEN, 8)
            transpose(wb[SKIP : SKIP + 4 * INPUTS], skipt, 4, INPUTS, 8)
            clear(gw1)
            clear(gw2)
            clear(gb2)
            clear(gw3)
            clear(gskip)
            clear(gx)
            clear(gas)
            for t in range(window - 1, -1, -1):
                xt = xs[(HISTORY + t) * STATE * LANES : (HISTORY + t + 1) * STATE * LANES]
                after = xs[(HISTORY + t + 1) * STATE * LANES : (HISTORY + t + 2) * STATE * LANES]
                rt = refs[t * REFERENCE * LANES : (t + 1) * REFERENCE * LANES]
                wt = ws[t * WRENCH * LANES : (t + 1) * WRENCH * LANES]
                ut = us[t * 4 * LANES : (t + 1) * 4 * LANES]
                ot = os[t * INPUTS * LANES : (t + 1) * INPUTS * LANES]
                h1, h2 = (
                    h1s[t * HIDDEN * LANES : (t + 1) * HIDDEN * LANES],
                    h2s[t * HIDDEN * LANES : (t + 1) * HIDDEN * LANES],
                )
                at = acts[(ACTIONS + t) * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES]
                before = acts[(ACTIONS + t - 1) * 4 * LANES : (ACTIONS + t) * 4 * LANES]
                gat = gas[(ACTIONS + t) * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES]
                gabefore = gas[(ACTIONS + t - 1) * 4 * LANES : (ACTIONS + t) * 4 * LANES]
                weight = discount ** _f(t) / _f(window * LANES)
                # Bound each flight's adjoint, so that one tumbling flight cannot spoil its teacher's update, and let it
                # fade.
                for i in range(LANES):
                    n = ZERO
                    for k in range(STATE):
                        n += gx[k * LANES + i] * gx[k * LANES + i]
                    keep = discount * min(ONE, limit / np.sqrt(n + _f(1e-20)))
                    for k in range(STATE):
                        gn[k * LANES + i] = gx[k * LANES + i] * keep
                advance_adjoint(xt, ut, wt, cb, after, gn, gx, gu)
                set_point_adjoint(gu, eb, gas[t * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES])
                cost_adjoint(xt, at, before, rt, eb, sb, weight, edge, gx, gat, gabefore)
                for i in range(4 * LANES):
                    dz[i] = gat[i] * (ONE - at[i] * at[i])
                dense(w3t, dz, g2, MID, OUT_PADDED)
                for i in range(HIDDEN * LANES):
                    g2[i] *= ONE - h2[i] * h2[i]
                dense(w2t, g2, g1, MID, MID)
                for i in range(HIDDEN * LANES):
                    g1[i] *= ONE - h1[i] * h1[i]
                dense(w1t, g1, go, IN, MID)
                dense_add(skipt, dz, go, IN, OUT_PADDED)
                see_adjoint(xt, rt, qb, go, gx, gas[t * 4 * LANES : (ACTIONS + t) * 4 * LANES])
                weight_gradient(dz, h2, gw3, scratch, OUT, MID)
                weight_gradient(dz, ot, gskip, scratch, OUT, IN)
                weight_gradient(g2, h1, gw2, scratch, MID, MID)
                bias_gradient(g2, gb2, HIDDEN)
                weight_gradient(g1, ot, gw1, scratch, MID, IN)
            unpack_gradient(gw1, grad[W1 : W1 + HIDDEN * INPUTS], HIDDEN, INPUTS, INPUTS)
            unpack_gradient(gw2, grad[W2 : W2 + HIDDEN * HIDDEN], HIDDEN, HIDDEN, HIDDEN)
            lane_sum(gb2, grad[B2 : B2 + HIDDEN], HIDDEN)
            unpack_gradient(gw3, grad[W3 : W3 + 4 * HIDDEN], 4, HIDDEN, HIDDEN)
            unpack_gradient(gskip, grad[SKIP : SKIP + 4 * INPUTS], 4, INPUTS, INPUTS)
            n = ZERO
            for i in range(WEIGHTS):
                n += grad[i] * grad[i]
            if n < _f(1e30):  # false for NaN: such an update is left out
                scale = min(ONE, ONE / np.sqrt(n + _f(1e-20)))
                k = _f(step[b] + 1)
                step[b] += 1
                c1, c2 = ONE / (ONE - _BETA1**k), ONE / (ONE - _BETA2**k)
                for i in range(WEIGHTS):
                    g = grad[i] * scale
                    m[b, i] = _BETA1 * m[b, i] + (ONE - _BETA1) * g
                    v[b, i] = _BETA2 * v[b, i] + (ONE - _BETA2) * g * g
                    wb[i] -= rate * m[b, i] * c1 / (np.sqrt(v[b, i] * c2) + _EPSILON)
            xs[: (HISTORY + 1) * STATE * LANES] = xs[window * STATE * LANES :]
            acts[: ACTIONS * 4 * LANES] = acts[window * 4 * LANES :]
        x[b] = xs[: (HISTORY + 1) * STATE * LANES]
        a[b] = acts[: ACTIONS * 4 * LANES]


@kernel
def judge(which, weights, x, a, s, rng, c, e, q, start, steps, result):
    """Fly one episode per lane under RAPTOR's rules (sections 1.7 and 1.8 of its code's description), arrays as in
    `improve`.

    result (teachers, LANES, 4): survived, return, mean distance over the last second [m], steps flown."""
    out = aligned(STATE * LANES)
    ref, w, u = aligned(REFERENCE * LANES), aligned(WRENCH * LANES), aligned(4 * LANES)
    o, h1, h2 = aligned(INPUTS * LANES), aligned(HIDDEN * LANES), aligned(HIDDEN * LANES)
    acts = aligned((ACTIONS + 1) * 4 * LANES)
    for b in which:
        wb, eb, cb, sb, rb, qb = weights[b], e[b], c[b], s[b], rng[b], q[b]
        xb, ab = x[b], a[b]
        for i in range(LANES):
            restart(xb, ab, sb, rb, eb, start, i)
            for k in range(4):
                result[b, i, k] = ZERO
            result[b, i, 0] = ONE
        xt = xb[HISTORY * STATE * LANES : (HISTORY + 1) * STATE * LANES]
        acts[: ACTIONS * 4 * LANES] = ab
        for t in range(steps):
            exogenous(sb, rb, eb, ref, w)
            see(xt, acts[: ACTIONS * 4 * LANES], ref, w, eb, qb, o)
            act(wb, o, h1, h2, acts[ACTIONS * 4 * LANES :])
            set_point(acts, eb, u)
            advance(xt, u, w, cb, out)
            for i in range(LANES):
                if result[b, i, 0] > ZERO:
                    d = ZERO
                    da = ZERO
                    for k in range(3):
                        d += (xt[i + k * LANES] - ref[i + k * LANES]) ** 2
                    for k in range(4):
                        da += (acts[(ACTIONS * 4 + k) * LANES + i] - acts[(ACTIONS * 4 - 4 + k) * LANES + i]) ** 2
                    d, da = math.sqrt(d), math.sqrt(da)
                    yaw = math.acos(min(max(ONE - abs(xt[i + 6 * LANES]), -ONE), ONE))
                    if task.broken(out, eb[BOX * LANES + i], i):
                        result[b, i, 0] = ZERO
                        result[b, i, 1] -= _f(100.0)
                    else:
                        result[b, i, 1] += _f(1.5) - d - _f(0.2) * yaw - da
                        result[b, i, 3] += ONE
                    if t >= steps - 100:
                        result[b, i, 2] += d / _f(100.0)
            for i in range(STATE * LANES):
                xt[i] = min(max(out[i], _f(-1e4)), _f(1e4))
            acts[: ACTIONS * 4 * LANES] = acts[4 * LANES :].copy()
