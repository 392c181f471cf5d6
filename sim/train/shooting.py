"""The search for a way to survive: direct shooting on the true dynamics, with the exact adjoint.

For each start sixteen sequences of actions are optimised side by side until a flight stays within the limits, and a
policy flies on from its end. `sim/train/bound.py` says what for."""

from __future__ import annotations

import math

import numpy as np

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
)
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import (
    ACTIONS,
    BOX,
    ENVIRONMENT,
    HISTORY,
    RATE_LIMIT,
    REFERENCE,
    SPEED_LIMIT,
    broken,
    exogenous,
    restart,
    set_point,
    set_point_adjoint,
)
from sim.train.networks import aligned, clear
from sim.train.teacher import HIDDEN, INPUTS, SCALES, act, see

STEPS = 500  # of an episode
Attempt = tuple[int, int, int, float]
# Steps that are optimised, iterations of Adam, seed of the first guesses; tried where nothing has survived yet and the
# closest ratio to a limit so far is at most the last number. The third is for close calls, the fourth for starts where
# a sequence stays within the limits but no policy can fly on: it optimises the whole episode.
ATTEMPTS: tuple[Attempt, ...] = (
    (100, 300, 0, math.inf),
    (200, 900, 1, math.inf),
    (200, 3000, 2, 1.02),
    (STEPS, 300, 3, 1.0),
)
UPWIND = np.float32(0.15)  # [m] per [m/s^2], about the inverse of a regulator's stiffness
CHECK = 10  # iterations between two looks at whether a policy can fly on
GUIDED = 12  # lanes that begin with a policy's actions; the others begin with the trim, nothing, everything, and noise

_f = np.float32
_S, _A = STATE * LANES, 4 * LANES
_WILD = _f(60.0)
_VIOLATION, _END, _END_RATE = _f(100.0), _f(0.3), _f(0.02)
_LIMIT = _f(1e4)  # of one flight's adjoint
_SPEED, _RATE = _f(SPEED_LIMIT), _f(RATE_LIMIT)


@block
def worst(x, box, i):
    """The state of lane i in units of the limits: above one means broken."""
    r = ZERO
    for c in range(3):
        p, v, w = (
            abs(x[c * LANES + i]) / box,
            abs(x[(7 + c) * LANES + i]) / _SPEED,
            abs(x[(10 + c) * LANES + i]) / _RATE,
        )
        r = max(r, p, v, w)
    return r


@block
def fly(acts, count, steps, x0, wrench, ref, weights, c, e, q, scratch, lasted):
    """Fly all lanes of a block from the state x0: `count` given actions, then a teacher's network.

    acts: (ACTIONS + steps, 4, LANES) flat, begins with the actions before the start, then the given ones; the others
    are written here. wrench: (times, WRENCH), the last row stays. lasted: (LANES,) out, steps within the limits."""
    x, out, w, u = (
        scratch[0:_S],
        scratch[_S : 2 * _S],
        scratch[2 * _S : 2 * _S + WRENCH * LANES],
        scratch[3 * _S : 3 * _S + _A],
    )
    o, h1 = scratch[4 * _S : 4 * _S + INPUTS * LANES], scratch[8 * _S : 8 * _S + HIDDEN * LANES]
    h2 = scratch[10 * _S : 10 * _S + HIDDEN * LANES]
    for k in range(_S):
        x[k] = x0[k]
    for i in range(LANES):
        lasted[i] = steps
    for t in range(steps):
        load_wrench_row(wrench, t, w)
        now = acts[(ACTIONS + t) * _A : (ACTIONS + t + 1) * _A]
        if t >= count:
            see(x, acts[t * _A : (ACTIONS + t) * _A], ref, w, e, q, o)
            act(weights, o, h1, h2, now)
        set_point(acts[t * _A : (ACTIONS + t + 1) * _A], e, u)
        advance(x, u, w, c, out)
        alive = False
        for i in range(LANES):
            if lasted[i] == steps and broken(out, e[BOX * LANES + i], i):
                lasted[i] = t
            alive |= lasted[i] == steps
        if not alive and count > 0:
            break
        for k in range(_S):
            x[k] = min(max(out[k], _f(-1e4)), _f(1e4))


SCRATCH = 12 * _S


@block
def load_wrench_row(wrench, t, w):
    row = min(t, wrench.shape[0] - 1)
    for c in range(WRENCH):
        for i in range(LANES):
            w[c * LANES + i] = wrench[row, c]


@block
def repeat(row, out):
    """One row of channels for all lanes."""
    for c in range(row.size):
        for i in range(LANES):
            out[c * LANES + i] = row[c]


@kernel
def shoot(which, states, wrench, previous, weights, c, e, q, aims, noise, horizon, iterations, found, closest, plans):
    """Look for a survivor of the starts in `which`: one start at a time, its lanes are restarts from different first
    guesses.

    states: (n, STATE); wrench: (n, times, WRENCH); previous: (n, ACTIONS, 4), oldest first; weights: (n, guides,
    WEIGHTS) of the networks that guess and that fly on; c, e, q: (n, PARAMS | ENVIRONMENT | SCALES); aims: (LANES, 3)
    where the guesses fly to, in boxes; noise: (horizon, 4); horizon: steps that are optimised. Out: found (n,),
    closest (n,) smallest violation (worst ratio to a limit) of any sequence tried, plans (n, STEPS, 4) the actions
    that survive."""
    cb, eb, qb = aligned(PARAMS * LANES), aligned(ENVIRONMENT * LANES), aligned(SCALES)
    x0, w, u = aligned(_S), aligned(WRENCH * LANES), aligned(_A)
    ref, aim = aligned(REFERENCE * LANES), aligned(REFERENCE * LANES)
    acts, trial = aligned((ACTIONS + STEPS) * _A), aligned((ACTIONS + STEPS) * _A)
    xs, scratch = aligned((horizon + 1) * _S), aligned(SCRATCH)
    gas, gx, gn, gu = aligned((ACTIONS + horizon) * _A), aligned(_S), aligned(_S), aligned(_A)
    m, v = aligned(horizon * _A), aligned(horizon * _A)
    lasted, ratio = np.zeros(LANES, np.int64), aligned(LANES)
    guides = weights.shape[1]
    for b in which:
        repeat(c[b], cb)
        repeat(e[b], eb)
        repeat(states[b], x0)
        qb[:] = q[b]
        box = eb[BOX * LANES]
        for k in range(ACTIONS):
            repeat(previous[b, k], acts[k * _A : (k + 1) * _A])
        trial[: ACTIONS * _A] = acts[: ACTIONS * _A]
        for i in range(LANES):
            for k in range(3):
                ref[k * LANES + i] = aims[i, k] * box
        for g in range(guides):
            fly(trial, 0, horizon, x0, wrench[b], ref, weights[b, g], cb, eb, qb, scratch, lasted)
            for i in range(LANES):
                if i < GUIDED and i % guides == g:
                    for k in range(ACTIONS * 4, (ACTIONS + horizon) * 4):
                        acts[k * LANES + i] = trial[k * LANES + i]
        for t in range(horizon):
            for k in range(4):
                row = acts[((ACTIONS + t) * 4 + k) * LANES : ((ACTIONS + t) * 4 + k + 1) * LANES]
                trim = eb[(task.TRIM + k) * LANES]
                row[GUIDED] = trim
                row[GUIDED + 1] = -ONE if t < 20 else trim
                row[GUIDED + 2] = ONE if t < 20 else trim
                row[GUIDED + 3] = min(max(noise[t, k], -ONE), ONE)
                for i in range(2 * guides, GUIDED):
                    row[i] = min(max(row[i] + _f(0.3) * noise[(t + 7 * i) % horizon, k], -ONE), ONE)
        clear(m)
        clear(v)
        found[b] = False
        xs[:_S] = x0
        for iteration in range(iterations + 1):
            for i in range(LANES):
                ratio[i] = ZERO
            for t in range(horizon):
                xt, after = xs[t * _S : (t + 1) * _S], xs[(t + 1) * _S : (t + 2) * _S]
                load_wrench_row(wrench[b], t, w)
                set_point(acts[t * _A : (ACTIONS + t + 1) * _A], eb, u)
                advance(xt, u, w, cb, after)
                for k in range(7 * LANES, 13 * LANES):
                    after[k] = min(max(after[k], -_WILD), _WILD)
                for i in range(LANES):
                    ratio[i] = max(ratio[i], worst(after, box, i))
            inside = False
            for i in range(LANES):
                closest[b] = min(closest[b], ratio[i])
                inside |= ratio[i] <= ONE
            if inside and (iteration % CHECK == 0 or iteration == iterations):
                # A guide without an integral drifts with the force, so it also tries to fly to points upwind.
                for k in range(3 * guides):
                    g = k // 3
                    for axis in range(3):
                        for i in range(LANES):
                            aim[axis * LANES + i] = -UPWIND * _f(k % 3) * wrench[b, wrench.shape[1] - 1, axis]
                    if found[b]:
                        break
                    trial[: (ACTIONS + horizon) * _A] = acts[: (ACTIONS + horizon) * _A]
                    fly(trial, horizon, STEPS, x0, wrench[b], aim, weights[b, g], cb, eb, qb, scratch, lasted)
                    for i in range(LANES):
                        if lasted[i] == STEPS and not found[b]:
                            found[b] = True
                            for t in range(STEPS):
                                for j in range(4):
                                    plans[b, t, j] = trial[((ACTIONS + t) * 4 + j) * LANES + i]
            if found[b] or iteration == iterations:
                break
            done = _f(iteration) / _f(iterations)
            margin = _f(0.95) + _f(0.045) * done
            clear(gas)
            clear(gx)
            end = xs[horizon * _S :]
            for i in range(LANES):
                for k in range(3):
                    gx[k * LANES + i] = TWO * _END * end[k * LANES + i] / (box * box)
                    gx[(7 + k) * LANES + i] = TWO * _END * end[(7 + k) * LANES + i]
                    gx[(10 + k) * LANES + i] = TWO * _END * _END_RATE * end[(10 + k) * LANES + i]
                gx[4 * LANES + i] = _f(4.0) * _END * end[4 * LANES + i]
                gx[5 * LANES + i] = _f(4.0) * _END * end[5 * LANES + i]
            for t in range(horizon - 1, -1, -1):
                xt, after = xs[t * _S : (t + 1) * _S], xs[(t + 1) * _S : (t + 2) * _S]
                excess(after, box, margin, gx)
                for i in range(LANES):
                    n = ZERO
                    for k in range(STATE):
                        n += gx[k * LANES + i] * gx[k * LANES + i]
                    keep = min(ONE, _LIMIT / np.sqrt(n + _f(1e-20)))
                    for k in range(STATE):
                        gn[k * LANES + i] = gx[k * LANES + i] * keep
                load_wrench_row(wrench[b], t, w)
                set_point(acts[t * _A : (ACTIONS + t + 1) * _A], eb, u)
                advance_adjoint(xt, u, w, cb, after, gn, gx, gu)
                set_point_adjoint(gu, eb, gas[t * _A : (ACTIONS + t + 1) * _A])
            # Projected Adam: full and no thrust must be reachable, so actions are clipped instead of squashed.
            step = _f(iteration + 1)
            rate = _f(0.01) + _f(0.1) * (ONE - done)
            c1, c2 = ONE / (ONE - _f(0.9) ** step), ONE / (ONE - _f(0.98) ** step)
            z, gz = acts[ACTIONS * _A : (ACTIONS + horizon) * _A], gas[ACTIONS * _A :]
            for k in range(horizon * _A):
                m[k] = _f(0.9) * m[k] + _f(0.1) * gz[k]
                v[k] = _f(0.98) * v[k] + _f(0.02) * gz[k] * gz[k]
                z[k] = min(max(z[k] - rate * m[k] * c1 / (np.sqrt(v[k] * c2) + _f(1e-7)), -ONE), ONE)


@block
def excess(x, box, margin, gx):
    """Add the gradient of the squared excess over a share `margin` of the limits to that of the state."""
    for i in range(LANES):
        for c in range(3):
            p, v, w = x[c * LANES + i], x[(7 + c) * LANES + i], x[(10 + c) * LANES + i]
            over = TWO * _VIOLATION * max(abs(p) / box - margin, ZERO) / box
            gx[c * LANES + i] += over if p > ZERO else -over
            over = TWO * _VIOLATION * max(abs(v) / _SPEED - margin, ZERO) / _SPEED
            gx[(7 + c) * LANES + i] += over if v > ZERO else -over
            over = TWO * _VIOLATION * max(abs(w) / _RATE - margin, ZERO) / _RATE
            gx[(10 + c) * LANES + i] += over if w > ZERO else -over


@block
def _record(x, a, s, rng, e, start, steps, wanted, states, wrench, previous):
    """Draw one episode per lane as `judge` does, and keep those whose index in `wanted` (LANES,) is not negative."""
    ref, w = aligned(REFERENCE * LANES), aligned(WRENCH * LANES)
    for i in range(LANES):
        restart(x, a, s, rng, e, start, i)
        if wanted[i] >= 0:
            for k in range(STATE):
                states[wanted[i], k] = x[(HISTORY * STATE + k) * LANES + i]
            for k in range(ACTIONS):
                for j in range(4):
                    previous[wanted[i], k, j] = a[(k * 4 + j) * LANES + i]
    for t in range(steps):
        exogenous(s, rng, e, ref, w)
        if t < wrench.shape[1]:
            for i in range(LANES):
                if wanted[i] >= 0:
                    for k in range(WRENCH):
                        wrench[wanted[i], t, k] = w[k * LANES + i]


@kernel
def replay(which, x, a, s, rng, e, start, steps, wanted, states, wrench, previous):
    """The starts and wrenches of chosen episodes; the random numbers are used up as `judge` uses them.

    wanted: (teachers, LANES) index of the row of states (n, STATE), wrench (n, times, WRENCH) and previous (n,
    ACTIONS, 4) that an episode fills, or -1. The other arrays as in `judge`."""
    for b in which:
        _record(x[b], a[b], s[b], rng[b], e[b], start, steps, wanted[b], states, wrench, previous)


@kernel
def follow(which, states, wrench, previous, weights, c, e, q, actions):
    """Fly a network, weights (n, WEIGHTS), from each start to the origin; actions (n, STEPS, 4) out, the rest as in
    `shoot`."""
    cb, eb, qb, x0 = aligned(PARAMS * LANES), aligned(ENVIRONMENT * LANES), aligned(SCALES), aligned(_S)
    acts, scratch, ref = aligned((ACTIONS + STEPS) * _A), aligned(SCRATCH), aligned(REFERENCE * LANES)
    lasted = np.zeros(LANES, np.int64)
    for b in which:
        repeat(c[b], cb)
        repeat(e[b], eb)
        repeat(states[b], x0)
        qb[:] = q[b]
        for k in range(ACTIONS):
            repeat(previous[b, k], acts[k * _A : (k + 1) * _A])
        fly(acts, 0, STEPS, x0, wrench[b], ref, weights[b], cb, eb, qb, scratch, lasted)
        for t in range(STEPS):
            for k in range(4):
                actions[b, t, k] = acts[((ACTIONS + t) * 4 + k) * LANES]
