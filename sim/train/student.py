"""The kernel behind distillation and fine-tuning: one recurrent student on many quadrotors, forward and backward
through time.

Sixteen flights of a block fly side by side for a window of steps; then the same window is walked backward. Two losses
can be mixed. Imitation: the squared difference to the action that the block's own teacher would take in the state
that the student has reached (the gradient goes through the student's memory, not through the simulator). Tuning: the
cost of the flight itself, with the gradient through simulator, sensors, delays and memory. Blocks are independent;
their gradients are summed by the caller in a fixed order, so a run is reproducible on any number of threads.

A third loss keeps the memory honest: an echo hears the same observations as a flight but starts from a slightly
different memory, and is to say the same. Without it, tuning ends with memories that only the feedback of a flight
holds together: they fly well, but rounding grows until two processors with the same inputs disagree.

Network: 22 (25) inputs after `preprocess`, dense 16 ReLU, GRU (torch's equations, gate order r, z, n), linear 4, clamp.
"""

from __future__ import annotations

import numpy as np

from sim.backends.functions import gaussian, hyperbolic_tangent, next_random, sigmoid
from sim.backends.quadrotor import (
    LANES,
    ONE,
    STATE,
    TWO,
    WRENCH,
    ZERO,
    advance,
    advance_adjoint,
    block,
    device,
    kernel,
)
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import (
    ACTIONS,
    AGE,
    BOX,
    BOXED,
    HISTORY,
    NOISES,
    REFERENCE,
    SENSED,
    exogenous,
    observe,
    observe_adjoint,
    preprocess,
    preprocess_adjoint,
    restart,
    sense_adjoint,
    sensor_noise,
    set_point,
    set_point_adjoint,
)
from sim.train.cost import tuning_adjoint, tuning_cost
from sim.train.networks import (
    aligned,
    bias_gradient,
    dense,
    dense_add,
    dense_bias,
    lane_sum,
    transpose,
    unpack_gradient,
    weight_gradient,
)
from sim.train.teacher import HIDDEN as TEACHER_HIDDEN
from sim.train.teacher import INPUTS as TEACHER_INPUTS
from sim.train.teacher import act as teacher_act
from sim.train.teacher import see

INPUTS, DENSE = 32, 16  # observation, a one for the bias, padding; units of the first layer
IN, FIRST, OUT, OUT_PADDED = (
    (0,) * INPUTS,
    (0,) * DENSE,
    (0,) * 4,
    (0,) * 8,
)  # sizes as types: see `sim/train/networks.py`

HALF_LANES = LANES // 2
_f = np.float32
_ECHO = _f(0.02)  # offset of an echo's memory
_HUNDREDTH = _f(0.01)


@block
def copy(source, target):
    for i in range(source.size):
        target[i] = source[i]


@device
def offsets(hidden):
    """Where each tensor begins in the flat weights (all biases separate, but that of the first layer, which is a
    column)."""
    wi = DENSE * INPUTS
    bi = wi + 3 * hidden * DENSE
    wh = bi + 3 * hidden
    bh = wh + 3 * hidden * hidden
    w2 = bh + 3 * hidden
    b2 = w2 + 4 * hidden
    return wi, bi, wh, bh, w2, b2, b2 + 4


@block
def student_step(w, x, h, y, gates, after, raw, gi, gh, units, triple):
    """One step of the network for one block: from input x and memory h to the raw action and the memory after.

    y: first layer; gates: r, z, n and the state part of n (4 hidden channels), kept for the way back; gi, gh:
    scratch."""
    hidden = len(units)
    wi, bi, wh, bh, w2, b2, end = offsets(hidden)
    dense(w[0:wi], x, y, FIRST, IN)
    for i in range(DENSE * LANES):
        y[i] = max(y[i], ZERO)
    dense_bias(w[wi:bi], w[bi:wh], y, gi, triple, FIRST)
    dense_bias(w[wh:bh], w[bh:w2], h, gh, triple, units)
    size = hidden * LANES
    for i in range(size):
        r = sigmoid(gi[i] + gh[i])
        z = sigmoid(gi[size + i] + gh[size + i])
        s = gh[2 * size + i]
        n = hyperbolic_tangent(gi[2 * size + i] + r * s)
        gates[i] = r
        gates[size + i] = z
        gates[2 * size + i] = n
        gates[3 * size + i] = s
        after[i] = n + z * (h[i] - n)
    dense_bias(w[w2:b2], w[b2:end], after, raw, OUT, units)


@block
def look(past, ref, before, e, rng, accelerated, noise, o, x):
    """What the student sees of one block: the observation o, with fresh noise, and the network's input x."""
    sensor_noise(rng, noise)
    observe(past, ref, before, e, noise, o)
    for i in range(3 * LANES):
        o[22 * LANES + i] = ref[6 * LANES + i]
    preprocess(o, accelerated, x)


@block
def window_block(
    units,
    triple,
    store,
    accelerated,
    w,
    xb,
    ab,
    sb,
    rb,
    hb,
    cb,
    eb,
    qb,
    tw,
    drive,
    start,
    steps,
    life,
    imitation,
    tuning,
    k,
    limit,
    echo,
    gradient,
    report,
):
    """One window of one block, forward and backward; see `window`."""
    hidden = len(units)
    padded = len(store)
    wi, bi, wh, bh, w2, b2, end = offsets(hidden)
    xs = aligned((HISTORY + 1 + steps) * STATE * LANES)
    acts = aligned((ACTIONS + steps) * 4 * LANES)
    refs = aligned(steps * REFERENCE * LANES)
    ws = aligned(steps * WRENCH * LANES)
    us = aligned(steps * 4 * LANES)
    obs = aligned(steps * 25 * LANES)
    ins = aligned(steps * INPUTS * LANES)
    ys = aligned(steps * DENSE * LANES)
    gs = aligned(steps * 4 * hidden * LANES)
    hs = aligned((steps + 1) * padded * LANES)
    raws = aligned(steps * 4 * LANES)
    labels = aligned(steps * 4 * LANES)
    valid = aligned(steps * LANES)
    noise = aligned(NOISES * LANES)
    gi, gh = aligned(3 * hidden * LANES), aligned(3 * hidden * LANES)
    to = aligned(TEACHER_INPUTS * LANES)
    t1, t2 = aligned(TEACHER_HIDDEN * LANES), aligned(TEACHER_HIDDEN * LANES)
    alive, cost = np.ones(LANES, np.float32), aligned(LANES)
    copy(xb, xs[: (HISTORY + 1) * STATE * LANES])
    copy(ab, acts[: ACTIONS * 4 * LANES])
    copy(hb, hs[: padded * LANES])
    # Where a flight is lost, or grew old, another one begins.
    now = xs[HISTORY * STATE * LANES : (HISTORY + 1) * STATE * LANES]
    lost_share = ZERO
    for i in range(LANES):
        lost = False
        for j in range(3):
            far = abs(now[i + j * LANES]) <= _f(25.0)
            lost |= not (
                far and abs(now[i + (7 + j) * LANES]) <= _f(15.0) and abs(now[i + (10 + j) * LANES]) <= _f(50.0)
            )
        fresh = sb[AGE * LANES + i] < ZERO  # never flown: ages are spread, so that restarts are
        if lost:
            lost_share += ONE / _f(LANES)
        if lost or fresh or sb[AGE * LANES + i] >= life:
            restart(xs, acts, sb, rb, eb, start, i)
            if fresh:
                sb[AGE * LANES + i] = life * _f((i * 7) % LANES) / _f(LANES)
            for j in range(padded):
                hs[j * LANES + i] = ZERO
    if echo > ZERO:
        # The upper half of the lanes listens to what the lower half observes, from a memory that is a little off.
        for i in range(HALF_LANES, LANES):
            for j in range(hidden):
                rb[i], bits = next_random(rb[i])
                hs[j * LANES + i] = hs[j * LANES + i - HALF_LANES] + _ECHO * gaussian(bits)
    loss, count = ZERO, ZERO
    for t in range(steps):
        past = xs[t * STATE * LANES : (t + HISTORY + 1) * STATE * LANES]
        xt = xs[(HISTORY + t) * STATE * LANES : (HISTORY + t + 1) * STATE * LANES]
        out = xs[(HISTORY + t + 1) * STATE * LANES : (HISTORY + t + 2) * STATE * LANES]
        rt, wt = (
            refs[t * REFERENCE * LANES : (t + 1) * REFERENCE * LANES],
            ws[t * WRENCH * LANES : (t + 1) * WRENCH * LANES],
        )
        ut, ot = us[t * 4 * LANES : (t + 1) * 4 * LANES], obs[t * 25 * LANES : (t + 1) * 25 * LANES]
        before, at = (
            acts[(ACTIONS + t - 1) * 4 * LANES : (ACTIONS + t) * 4 * LANES],
            acts[(ACTIONS + t) * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES],
        )
        it, yt = ins[t * INPUTS * LANES : (t + 1) * INPUTS * LANES], ys[t * DENSE * LANES : (t + 1) * DENSE * LANES]
        gt, zt = gs[t * 4 * hidden * LANES : (t + 1) * 4 * hidden * LANES], raws[t * 4 * LANES : (t + 1) * 4 * LANES]
        ht, hn = (
            hs[t * padded * LANES : (t + 1) * padded * LANES],
            hs[(t + 1) * padded * LANES : (t + 2) * padded * LANES],
        )
        lt = labels[t * 4 * LANES : (t + 1) * 4 * LANES]
        exogenous(sb, rb, eb, rt, wt)
        look(past, rt, before, eb, rb, accelerated, noise, ot, it)
        if echo > ZERO:
            for j in range(INPUTS):
                for i in range(HALF_LANES, LANES):
                    it[j * LANES + i] = it[j * LANES + i - HALF_LANES]
        student_step(w, it, ht, yt, gt, hn, zt, gi, gh, units, triple)
        for i in range(4 * LANES):
            at[i] = min(max(zt[i], -ONE), ONE)
        if imitation > ZERO:
            see(xt, acts[t * 4 * LANES : (ACTIONS + t) * 4 * LANES], rt, wt, eb, qb, to)
            teacher_act(tw, to, t1, t2, lt)
            for i in range(LANES):
                # A label counts while the flight is one that a teacher can judge.
                for j in range(3):
                    sane = abs(xt[i + (7 + j) * LANES]) <= _f(6.0) and abs(xt[i + (10 + j) * LANES]) <= _f(40.0)
                    sane = sane and abs(xt[i + j * LANES]) <= _f(10.0)
                    alive[i] = alive[i] if sane else ZERO
                valid[t * LANES + i] = alive[i]
                for j in range(4):
                    d = zt[j * LANES + i] - lt[j * LANES + i]
                    loss += alive[i] * d * d
                count += alive[i]
                if _f(i) < drive * _f(LANES):
                    for j in range(4):
                        at[j * LANES + i] = lt[j * LANES + i]
        if tuning > ZERO:
            tuning_cost(xt, at, before, zt, rt, eb, sb, k, cost)
        set_point(acts[t * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES], eb, ut)
        advance(xt, ut, wt, cb, out)
        for i in range(7 * LANES, 13 * LANES):  # a tumbling flight stays finite until its restart
            out[i] = min(max(out[i], _f(-60.0)), _f(60.0))
    report[0], report[2], report[3] = loss / max(count, ONE), lost_share, count / _f(steps * LANES)
    total = ZERO
    for i in range(LANES):
        total += cost[i]
    report[1] = total / _f(steps * LANES)

    # The way back.
    gas = aligned((ACTIONS + steps) * 4 * LANES)
    sensed = aligned((steps + HISTORY) * SENSED * LANES)
    gx, gn, gu = aligned(STATE * LANES), aligned(STATE * LANES), aligned(4 * LANES)
    go, gin = aligned(25 * LANES), aligned(INPUTS * LANES)
    gy, gmem, dmem = aligned(DENSE * LANES), aligned(padded * LANES), aligned(padded * LANES)
    di, dh = aligned(3 * hidden * LANES), aligned(3 * hidden * LANES)
    dz = aligned(8 * LANES)
    w0t, wit, wht = aligned(INPUTS * DENSE), aligned(DENSE * 3 * hidden), aligned(hidden * 3 * hidden)
    w2t, scratch = aligned(hidden * 8), aligned(LANES * LANES)
    g0, g1, g2 = aligned(DENSE * INPUTS), aligned(3 * hidden * DENSE), aligned(3 * hidden * padded)
    g3, gb1, gb2 = aligned(4 * padded), aligned(3 * hidden * LANES), aligned(3 * hidden * LANES)
    gb3 = aligned(4 * LANES)
    transpose(w[0:wi], w0t, DENSE, INPUTS, DENSE)
    transpose(w[wi:bi], wit, 3 * hidden, DENSE, 3 * hidden)
    transpose(w[wh:bh], wht, 3 * hidden, hidden, 3 * hidden)
    transpose(w[w2:b2], w2t, 4, hidden, 8)
    size = hidden * LANES
    weight = ONE / _f(steps * LANES)
    bound = limit * weight
    for t in range(steps - 1, -1, -1):
        past = xs[t * STATE * LANES : (t + HISTORY + 1) * STATE * LANES]
        xt = xs[(HISTORY + t) * STATE * LANES : (HISTORY + t + 1) * STATE * LANES]
        out = xs[(HISTORY + t + 1) * STATE * LANES : (HISTORY + t + 2) * STATE * LANES]
        rt, wt = (
            refs[t * REFERENCE * LANES : (t + 1) * REFERENCE * LANES],
            ws[t * WRENCH * LANES : (t + 1) * WRENCH * LANES],
        )
        ut, ot = us[t * 4 * LANES : (t + 1) * 4 * LANES], obs[t * 25 * LANES : (t + 1) * 25 * LANES]
        before, at = (
            acts[(ACTIONS + t - 1) * 4 * LANES : (ACTIONS + t) * 4 * LANES],
            acts[(ACTIONS + t) * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES],
        )
        gbefore, gat = (
            gas[(ACTIONS + t - 1) * 4 * LANES : (ACTIONS + t) * 4 * LANES],
            gas[(ACTIONS + t) * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES],
        )
        it, yt = ins[t * INPUTS * LANES : (t + 1) * INPUTS * LANES], ys[t * DENSE * LANES : (t + 1) * DENSE * LANES]
        gt, zt = gs[t * 4 * hidden * LANES : (t + 1) * 4 * hidden * LANES], raws[t * 4 * LANES : (t + 1) * 4 * LANES]
        ht, hn = (
            hs[t * padded * LANES : (t + 1) * padded * LANES],
            hs[(t + 1) * padded * LANES : (t + 2) * padded * LANES],
        )
        lt = labels[t * 4 * LANES : (t + 1) * 4 * LANES]
        for i in range(4 * LANES):
            dz[i] = ZERO
        if tuning > ZERO:
            # Bound each flight's adjoint, of its state and of its memory: one tumbling flight must not drown the
            # others.
            for i in range(LANES):
                n, m = ZERO, ZERO
                for j in range(STATE):
                    n += gx[j * LANES + i] * gx[j * LANES + i]
                for j in range(hidden):
                    m += gmem[j * LANES + i] * gmem[j * LANES + i]
                keep, keepm = min(ONE, bound / np.sqrt(n + _f(1e-20))), min(ONE, bound / np.sqrt(m + _f(1e-20)))
                keep, keepm = (keep if n < _f(1e30) else ZERO), (keepm if m < _f(1e30) else ZERO)
                for j in range(STATE):
                    v = gx[j * LANES + i]
                    gn[j * LANES + i] = v * keep if keep > ZERO else ZERO
                for j in range(hidden):
                    v = gmem[j * LANES + i]
                    gmem[j * LANES + i] = v * keepm if keepm > ZERO else ZERO
            advance_adjoint(xt, ut, wt, cb, out, gn, gx, gu)
            set_point_adjoint(gu, eb, gas[t * 4 * LANES : (ACTIONS + t + 1) * 4 * LANES])
            tuning_adjoint(xt, at, before, zt, rt, eb, sb, k, tuning * weight, gx, gat, gbefore, dz)
            for i in range(4 * LANES):
                dz[i] += gat[i] if abs(zt[i]) < ONE else ZERO
        if imitation > ZERO:
            for j in range(4):
                for i in range(LANES):
                    dz[j * LANES + i] += (
                        TWO * imitation * weight * valid[t * LANES + i] * (zt[j * LANES + i] - lt[j * LANES + i])
                    )
        if echo > ZERO:
            # log(1 + (difference / offset)^2) between each echo and what it listens to, which is held constant.
            for i in range(HALF_LANES, LANES):
                d2 = _ECHO * _ECHO
                for j in range(4):
                    d = zt[j * LANES + i] - zt[j * LANES + i - HALF_LANES]
                    d2 += d * d
                for j in range(4):
                    d = zt[j * LANES + i] - zt[j * LANES + i - HALF_LANES]
                    dz[j * LANES + i] = TWO * echo * weight * d / d2
        dense(w2t, dz, dmem, units, OUT_PADDED)
        weight_gradient(dz, hn, g3, scratch, OUT, store)
        bias_gradient(dz, gb3, 4)
        for i in range(size):
            d = dmem[i] + gmem[i]
            r, z, n, m = gt[i], gt[size + i], gt[2 * size + i], gt[3 * size + i]
            dn = d * (ONE - z) * (ONE - n * n)
            du = d * (ht[i] - n) * z * (ONE - z)
            dr = dn * m * r * (ONE - r)
            di[i] = dr
            di[size + i] = du
            di[2 * size + i] = dn
            dh[i] = dr
            dh[size + i] = du
            dh[2 * size + i] = dn * r
            gmem[i] = d * z
        dense_add(wht, dh, gmem, units, triple)
        weight_gradient(dh, ht, g2, scratch, triple, store)
        bias_gradient(dh, gb2, 3 * hidden)
        weight_gradient(di, yt, g1, scratch, triple, FIRST)
        bias_gradient(di, gb1, 3 * hidden)
        dense(wit, di, gy, FIRST, triple)
        for i in range(DENSE * LANES):
            gy[i] = gy[i] if yt[i] > ZERO else ZERO
        weight_gradient(gy, it, g0, scratch, FIRST, IN)
        if tuning > ZERO:
            dense(w0t, gy, gin, IN, FIRST)
            preprocess_adjoint(ot, gin, go)
            for i in range(4 * LANES):
                gbefore[i] += go[18 * LANES + i]
            observe_adjoint(past, eb, go, sensed[t * SENSED * LANES : (t + 1) * SENSED * LANES])
            sense_adjoint(sensed[t * SENSED * LANES : (t + HISTORY + 1) * SENSED * LANES], eb, gx)
    unpack_gradient(g0, gradient[0:wi], DENSE, INPUTS, INPUTS)
    unpack_gradient(g1, gradient[wi:bi], 3 * hidden, DENSE, DENSE)
    lane_sum(gb1, gradient[bi:wh], 3 * hidden)
    unpack_gradient(g2, gradient[wh:bh], 3 * hidden, padded, hidden)
    lane_sum(gb2, gradient[bh:w2], 3 * hidden)
    unpack_gradient(g3, gradient[w2:b2], 4, padded, hidden)
    lane_sum(gb3, gradient[b2:end], 4)
    if echo > ZERO:  # the flights of echoes were nobody's: others begin
        for i in range(HALF_LANES, LANES):
            sb[AGE * LANES + i] = -ONE
    copy(xs[steps * STATE * LANES :], xb)
    copy(acts[steps * 4 * LANES :], ab)
    copy(hs[steps * padded * LANES :], hb)


@kernel
def window(
    part,
    units,
    triple,
    store,
    accelerated,
    w,
    x,
    a,
    s,
    rng,
    h,
    c,
    e,
    q,
    teachers,
    which,
    drive,
    start,
    steps,
    life,
    imitation,
    tuning,
    k,
    limit,
    echo,
    gradient,
    report,
):
    """One window of the blocks in `part`, forward and backward; flights go on in the next call.

    units, triple, store: tuples as long as the memory is wide, three times that, and rounded up to LANES;
    accelerated: 25 inputs instead of 22; w: flat weights; x, a, s, rng, h: flights (blocks, ...) as in
    `teachers.improve`, and the memory (blocks, padded, LANES); c, e: parameters and environment per block; q,
    teachers: scales and weights of all teachers, which: the teacher of each block; drive: share of lanes that the
    teacher flies; start: distribution of starts; life: length of an episode [s]; imitation, tuning: weights of the
    two losses; k: weights of the cost (`COST` of `sim/train/cost.py`); echo: (blocks,) weight of the echo loss; limit:
    bound of one flight's adjoint, in units of an average step's weight. Out: gradient (blocks, weights), report
    (blocks, 4): mean imitation loss, mean tuning cost, share of lanes lost, share labelled."""
    for b in part:
        window_block(
            units, triple, store, accelerated, w, x[b], a[b], s[b], rng[b], h[b], c[b], e[b], q[which[b]],
            teachers[which[b]], drive, start, steps, life, imitation, tuning, k, limit, echo[b], gradient[b], report[b],
        )  # fmt: skip


@block
def fly_block(units, triple, accelerated, w, rb, cb, eb, start, steps, result):
    """One episode of one block; see `fly`."""
    hidden = len(units)
    padded = (hidden + LANES - 1) // LANES * LANES
    sb = aligned(task.EPISODE * LANES)
    xs, acts = aligned((HISTORY + 1) * STATE * LANES), aligned((ACTIONS + 1) * 4 * LANES)
    ref, wr, u = aligned(REFERENCE * LANES), aligned(WRENCH * LANES), aligned(4 * LANES)
    o, x, y = aligned(25 * LANES), aligned(INPUTS * LANES), aligned(DENSE * LANES)
    gates, gi, gh = aligned(4 * hidden * LANES), aligned(3 * hidden * LANES), aligned(3 * hidden * LANES)
    h, after, raw = aligned(padded * LANES), aligned(padded * LANES), aligned(4 * LANES)
    noise, out = aligned(NOISES * LANES), aligned(STATE * LANES)
    for i in range(LANES):
        restart(xs, acts, sb, rb, eb, start, i)
        result[i, 0], result[i, 1], result[i, 2] = ONE, ZERO, ZERO
    for t in range(steps):
        exogenous(sb, rb, eb, ref, wr)
        look(xs, ref, acts[(ACTIONS - 1) * 4 * LANES : ACTIONS * 4 * LANES], eb, rb, accelerated, noise, o, x)
        student_step(w, x, h, y, gates, after, raw, gi, gh, units, triple)
        copy(after, h)
        for i in range(4 * LANES):
            acts[ACTIONS * 4 * LANES + i] = min(max(raw[i], -ONE), ONE)
        set_point(acts, eb, u)
        advance(xs[HISTORY * STATE * LANES :], u, wr, cb, out)
        for i in range(LANES):
            if task.broken(out, eb[BOX * LANES + i] if sb[BOXED * LANES + i] > ZERO else _f(20.0), i):
                result[i, 0] = ZERO
            d = ZERO
            for j in range(3):
                d += (out[i + j * LANES] - ref[i + j * LANES]) ** 2
            d = np.sqrt(d)
            if t >= steps - 100:
                result[i, 1] += d * _HUNDREDTH
            if t == steps - 1:
                result[i, 2] = d
        for i in range(HISTORY * STATE * LANES):
            xs[i] = xs[i + STATE * LANES]
        for i in range(STATE * LANES):
            xs[HISTORY * STATE * LANES + i] = min(max(out[i], _f(-1e4)), _f(1e4))
        for i in range(ACTIONS * 4 * LANES):
            acts[i] = acts[i + 4 * LANES]


@kernel
def fly(part, units, triple, accelerated, w, rng, c, e, start, steps, result):
    """One episode per lane of the blocks in `part`, without gradients; result (blocks, LANES, 3): survived RAPTOR's
    limits, mean and last distance [m] of the last second."""
    for b in part:
        fly_block(units, triple, accelerated, w, rng[b], c[b], e[b], start, steps, result[b])
