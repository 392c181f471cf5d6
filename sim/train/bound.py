"""Which deaths nobody could have prevented: bounds from optimal control on the starts that can be survived.

A start is a quadrotor's whole initial state (motors and late commands included) and the wrench that disturbs it from
then on; to survive is to stay within RAPTOR's limits for an episode. Two bounds enclose the share of such starts:

- `survivable`: somebody found a way. Direct shooting, clairvoyant, on the true dynamics: a sequence of actions is
  optimised with the exact adjoint until the flight stays within the limits, and a policy flies on from its end to the
  end of the episode. What counts is that flight, simulated step by step as an episode is judged.
- `unavoidable`: there is no way. A relaxation in which everything that could help happens at once still breaks a
  limit, so every control does. `prove` says which relaxation.

What neither settles stays open. `bound_for_starts` calls all starts without a survivor unavoidable and says beside it
how many of them are proven: more restarts and iterations change the former little, and a relaxation that is simple
enough to be checked misses most of the latter. A policy's share of deaths less the unavoidable share is its distance
to the bound.

The limits do not depend on the reference, so episodes that follow one can be bounded as well as those that hold a
position.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
from rich.console import Console
from rich.table import Table

from sim.backends.quadrotor import (
    GRAVITY,
    LANES,
    ONE,
    PARAMS,
    STATE,
    TIME_STEP,
    TWO,
    WRENCH,
    ZERO,
    advance,
    advance_adjoint,
    block,
    kernel,
)
from sim.metrics import Estimate, share
from sim.robots.quadrotors import Quadrotors
from sim.run import write_json
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import (
    ACTION_TAPS,
    ACTIONS,
    BOX,
    ENVIRONMENT,
    EPISODE,
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
from sim.train.teacher import HIDDEN, INPUTS, SCALES, SKIP, WEIGHTS, act, see
from sim.train.teachers import (
    SURVIVED,
    TeacherConfig,
    Teachers,
    in_threads,
    load_teachers,
    regulator,
    start_distribution,
)

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
PROOF_STEPS = 60  # after this time no relaxation proves anything
PROOF_SLACK = 0.02  # what the integrator may differ from the continuous motion: [m/s] on speeds, [m] on positions
PROOF_PARTS = 4  # parts into which the step is split in which the relaxed control changes over
_GRID = [(x, y, z) for x in range(-2, 3) for y in range(-2, 3) for z in range(-2, 3) if math.gcd(x, y, z) == 1]
DIRECTIONS = np.array([np.array(d) / math.hypot(*d) for d in _GRID])  # in which speeds are bounded
BINS = (40.0, 80.0, 120.0, 160.0, 240.0, 400.0, 1200.0)  # torque to inertia [rad/s^2]

_f = np.float32
_S, _A = STATE * LANES, 4 * LANES
_HALF_TURN = math.pi
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


@nb.njit(error_model="numpy")
def _thrust_range(low, high, sag_low, sag_high, strength, c0, c1, c2, dead, live, saturation):
    """Smallest and largest thrust of one rotor whose motor is between `low` and `high`."""
    a, b = min(max(low - dead, 0.0) * live, saturation), min(max(high - dead, 0.0) * live, saturation)
    fa, fb = c0 + a * (c1 + c2 * a), c0 + b * (c1 + c2 * b)
    smallest, largest = min(fa, fb), max(fa, fb)
    if c2 != 0.0 and a < -0.5 * c1 / c2 < b:  # the vertex of a curve that is not monotonic
        top = c0 - 0.25 * c1 * c1 / c2
        smallest, largest = min(smallest, top), max(largest, top)
    return strength * min(smallest * sag_low, smallest * sag_high), strength * max(
        largest * sag_low, largest * sag_high
    )


@nb.njit(error_model="numpy")
def _toward(x, y, angle, half):
    """Largest component of the vector (x, y) along any direction within `half` of `angle`."""
    r = math.hypot(x, y)
    away = abs((math.atan2(y, x) - angle + _HALF_TURN) % (2 * _HALF_TURN) - _HALF_TURN)
    return r * math.cos(min(max(away - half, 0.0), _HALF_TURN))


@nb.njit(error_model="numpy")
def _speed_bound(
    lowest, first, count, stride, directed, psi0, rate0, speed0, fastest, base, top, gyro, lever, high, low, push, dt
):
    """Lower `lowest` (count,) to the smallest speed along a direction that the relaxed control of `prove` reaches
    [m/s].

    From step `first` on, with psi0 and rate0 at its beginning, the relaxed control gives thrust away, at most (top -
    base) / lever, fully until a moment and not afterwards: every `stride`-th moment is tried. In the step of the
    moment the share lies between two neighbouring ones: the rotation takes the larger, the cost the smaller."""
    for change in range(first, count, stride):
        parts = PROOF_PARTS if stride == 1 else 1
        for part in range(parts):
            psi, peak, rate, speed = psi0, psi0, rate0, speed0
            for t in range(first, count):
                gain = max(top[t] - base[t], 0.0)
                turned, paid = 0.0, 0.0
                if t < change:
                    turned, paid = gain, gain
                elif t == change and stride == 1:
                    turned, paid = gain * (part + 1) / PROOF_PARTS, gain * part / PROOF_PARTS
                before = rate
                rate += dt * (base[t] + turned + gyro[t])
                quick = max(rate, before)
                psi += dt * (min(quick, fastest[t]) if directed else quick)
                psi = min(max(psi, 0.0), _HALF_TURN)
                peak = max(peak, psi)
                cosine = math.cos(peak)
                a = min(low[t], 0.0)
                if cosine > 0.0:
                    a = max(low[t], 0.0) * cosine + a
                else:
                    a = min(max(high[t] - paid / lever, 0.0) * cosine, a)
                speed += dt * a
                lowest[t] = min(lowest[t], speed + push[t])


@nb.njit(error_model="numpy")
def _excess(best, v0, p0, size, box):
    """By how much a speed or position certainly exceeds its limit, in units of the limit; negative where it may not."""
    place, last, most = p0, v0, -1.0
    for t in range(best.size):
        place += TIME_STEP * min(best[t], last)
        last = best[t]
        over = max((best[t] - PROOF_SLACK) / (SPEED_LIMIT * size), (place - PROOF_SLACK) / (box * size))
        most = max(most, over - 1.0)
    return most


@nb.njit(error_model="numpy", nogil=True, cache=True)
def prove(which, states, wrench, previous, c, e, directions, excess_found):
    """For the starts in `which`: is death certain? Arrays as in `shoot`, float64.

    excess_found (n,): out, by how much a limit is certainly exceeded, in units of the limit; death is certain where
    it is above 0.

    The relaxation, for one direction (unit vector d in the world) and every time t: the flight is dead if every
    control makes the speed along d exceed the support of the speed limits, 2 m/s |d|_1, at t. The speed changes by
    the given force, gravity, drag (bounded by its largest value within the limits) and T cos(psi), psi the angle
    between the thrust axis and d. What is relaxed:

    1. Each motor on its own is anywhere between the one that has fallen as fast, and the one that has risen as fast,
       as lags, late commands and the command's range allow; it jumps within that range at no cost. With it go thrust
       and torques.
    2. psi grows at most as fast as a rotation about the best axis. Two bounds on its rate are used, each valid: the
       length of the rates across the thrust axis (which the gyroscopic torque changes only through unequal inertias,
       d|w|/dt <= |a| + |gx + gy|/2 |wz| |w|), and the rate along d itself (psi'' = a_k + (1 + g) |wz| |w| + |w|^2 cot
       psi, whose last terms are bounded by the former bound), where the body axis k that turns psi is known up to
       what yaw and sideways rotation can have moved it.
    3. Torque comes from giving thrust away: a_k <= (torque of the largest thrusts) + lever D, T <= (largest thrusts)
       - D. While psi < 90 degrees, thrust is harmful and the relaxation takes the smallest, and D is free; from then
       on D costs D |cos psi|. With psi replaced by its largest value so far, the cost of a given D never falls, while
       rotation helps all the longer the earlier it comes: so D is best spent first, fully until one moment and not at
       all afterwards. All moments are tried.
    4. Before psi reaches 90 degrees, turning costs thrust as well (used with the first bound on the rate). With U the
       thrust above the smallest and w the rate across the thrust axis, w' <= least + lever U (least: torque of the
       smallest thrusts). So the integral of U cos psi is at least that of (w' - least) cos psi / lever, which by parts
       is that of (w^2 sin psi - least cos psi) / lever and a boundary term; and by Cauchy and Schwarz the integral of
       w^2 sin psi over the time t1 is at least (arc of sqrt(sin psi))^2 / t1. All steps in which psi may reach 90
       degrees are tried, each at this price.

    The same speeds, each at its own smallest, integrate to a bound on the position. A position or speed must exceed
    its limit by PROOF_SLACK to count."""
    dt, count = TIME_STEP, PROOF_STEPS
    low_t, high_t = np.empty((count, 4)), np.empty((count, 4))
    low, high, base, top = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    yaw, fastest, gyro, least = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    base_k, top_k, gyro_k, cone, push = (
        np.empty(count),
        np.empty(count),
        np.empty(count),
        np.empty(count),
        np.empty(count),
    )
    lowest, best = np.empty(count), np.empty(count)
    torque = np.empty((count, 2))
    for b in which:
        p, s, w = c[b], states[b], wrench[b]
        c0, c1, c2, dead, live, saturation, sag = p[0], p[1], p[2], p[7], p[8], p[9], p[10]
        kz, gx, gy, gz, rise, fall = p[19], p[20], p[21], p[22], p[23], p[24]
        strong = max(p[25], p[26], p[27]), min(p[25], p[26], p[27])
        # What one step does to a motor, by the integrator's own formula.
        h = dt * rise
        keep_rise = 1 - h * (1 - h / 2 * (1 - h / 3 * (1 - h / 4)))
        h = dt * fall
        keep_fall = 1 - h * (1 - h / 2 * (1 - h / 3 * (1 - h / 4)))
        m_low, m_high = s[13:17].copy(), s[13:17].copy()
        lever = 0.0
        for i in range(4):
            lever = max(lever, math.hypot(p[15 + i], p[11 + i]))
        rates, wz = math.hypot(s[10], s[11]), abs(s[12])
        unequal, gyration = abs(gx + gy) / 2, 1 + max(abs(gx), abs(gy))
        for t in range(count):
            row = w[min(t, w.shape[0] - 1)]
            sums_low, sums_high = 0.0, 0.0
            before_low, before_high = m_low.copy(), m_high.copy()
            for i in range(4):
                known, open_share = 0.0, 0.0
                for k in range(4):
                    tap = e[b, ACTION_TAPS + k]
                    if t - k >= 0:
                        open_share += tap
                    else:
                        known += tap * previous[b, ACTIONS + t - k, i]
                u = 0.5 + 0.5 * (known - open_share)
                m_low[i] = u + (m_low[i] - u) * (keep_rise if u >= m_low[i] else keep_fall)
                u = 0.5 + 0.5 * (known + open_share)
                m_high[i] = u + (m_high[i] - u) * (keep_rise if u >= m_high[i] else keep_fall)
                m_low[i], m_high[i] = min(max(m_low[i], 0.0), 1.0), min(max(m_high[i], 0.0), 1.0)
                sums_low += min(m_low[i], before_low[i])
                sums_high += max(m_high[i], before_high[i])
            low[t], high[t] = 0.0, 0.0
            for i in range(4):
                low_t[t, i], high_t[t, i] = _thrust_range(
                    min(m_low[i], before_low[i]),
                    max(m_high[i], before_high[i]),
                    1 - sag * sums_high,
                    1 - sag * sums_low,
                    *(p[3 + i], c0, c1, c2, dead, live, saturation),
                )
                low[t] += low_t[t, i]
                high[t] += high_t[t, i]
            ax, ay = row[3], row[4]
            for i in range(4):
                ax += p[15 + i] * high_t[t, i]
                ay -= p[11 + i] * high_t[t, i]
            torque[t, 0], torque[t, 1] = ax, ay
            base[t], top[t] = math.hypot(ax, ay), 0.0
            x, y = row[3], row[4]
            for i in range(4):
                x += p[15 + i] * low_t[t, i]
                y -= p[11 + i] * low_t[t, i]
            least[t] = math.hypot(x, y)
            for corner in range(16):
                x, y = ax, ay
                for i in range(4):
                    if corner >> i & 1:
                        x -= p[15 + i] * (high_t[t, i] - low_t[t, i])
                        y += p[11 + i] * (high_t[t, i] - low_t[t, i])
                top[t] = max(top[t], math.hypot(x, y))
            about_z = max(
                high_t[t, 1] + high_t[t, 3] - low_t[t, 0] - low_t[t, 2],
                high_t[t, 0] + high_t[t, 2] - low_t[t, 1] - low_t[t, 3],
            )
            # One step of both rates with each other's value at its end, so that the bound holds within the step too.
            next_rates = rates + dt * (top[t] + unequal * wz * rates)
            for _ in range(2):
                next_wz = wz + dt * (kz * about_z + abs(row[5]) + abs(gz) * next_rates * next_rates / 2)
                next_rates = rates + dt * (top[t] + unequal * next_wz * next_rates)
            rates, wz = next_rates, next_wz
            yaw[t], fastest[t] = wz, rates
            gyro[t] = unequal * wz * rates
        rates0 = math.hypot(s[10], s[11])
        q0, q1, q2, q3 = s[3], s[4], s[5], s[6]
        excess_found[b] = -1.0
        for j in range(len(directions)):
            d0, d1, d2 = directions[j, 0], directions[j, 1], directions[j, 2]
            size = abs(d0) + abs(d1) + abs(d2)
            # The direction in the body frame; its z component is the cosine of psi.
            b0 = (1 - 2 * (q2 * q2 + q3 * q3)) * d0 + 2 * (q1 * q2 + q0 * q3) * d1 + 2 * (q1 * q3 - q0 * q2) * d2
            b1 = 2 * (q1 * q2 - q0 * q3) * d0 + (1 - 2 * (q1 * q1 + q3 * q3)) * d1 + 2 * (q2 * q3 + q0 * q1) * d2
            b2 = 2 * (q1 * q3 + q0 * q2) * d0 + 2 * (q2 * q3 - q0 * q1) * d1 + (1 - 2 * (q1 * q1 + q2 * q2)) * d2
            psi0 = math.acos(min(max(b2, -1.0), 1.0))
            across = math.hypot(b0, b1)
            arc = 0.0  # integral of sqrt(sin) from psi0 to 90 degrees, by the smallest value in each part
            for k in range(32):
                arc += (
                    math.sqrt(math.sin(psi0 + (_HALF_TURN / 2 - psi0) * k / 32)) * max(_HALF_TURN / 2 - psi0, 0.0) / 32
                )
            v0, p0 = s[7] * d0 + s[8] * d1 + s[9] * d2, s[0] * d0 + s[1] * d1 + s[2] * d2
            mean, spread = (strong[0] + strong[1]) / 2, (strong[0] - strong[1]) / 2
            drag = SPEED_LIMIT * (mean * size + spread * math.sqrt(3))
            total = v0
            for t in range(count):
                row = w[min(t, w.shape[0] - 1)]
                total += dt * (row[0] * d0 + row[1] * d1 + (row[2] - GRAVITY) * d2 - drag)
                push[t] = total
            # Few moments first: where even their smallest speed breaks no limit, all of them prove nothing.
            for stride in (PROOF_STEPS // 6, 1):
                lowest[:] = 1e9
                rest = (fastest, base, top, gyro, lever, high, low, push, dt)
                if psi0 >= _HALF_TURN / 2:
                    _speed_bound(lowest, 0, count, stride, False, psi0, rates0, 0.0, *rest)
                else:
                    # Either psi stays below 90 degrees, or it is there in some step, at the price of turning so far.
                    far, ground, effort = psi0, 0.0, 0.0
                    for t in range(count):
                        far = far + dt * fastest[t]
                        effort += dt * (least[t] + gyro[t]) * math.cos(psi0)
                        if far >= _HALF_TURN / 2 and (stride == 1 or t % 3 == 0):
                            price = (arc * arc / (dt * (t + 1)) - rates0 * math.cos(psi0) - effort) / lever
                            here = (_HALF_TURN / 2, fastest[t], ground + max(price, 0.0))
                            _speed_bound(lowest, t, count, stride, False, *here, *rest)
                        ground += dt * (max(low[t], 0.0) * max(math.cos(far), 0.0) + min(low[t], 0.0))
                        lowest[t] = min(lowest[t], ground + push[t])
                best[:] = lowest
                if across > 0.2:
                    # psi' = (wx b1 - wy b0) / sin psi: the axis k = (b1, -b0) / sin psi turns thrust away from d.
                    rate0 = (s[10] * b1 - s[11] * b0) / across
                    angle = math.atan2(-b0, b1)
                    near, far, width = psi0, psi0, 0.0
                    for t in range(count):
                        near, far = max(near - dt * fastest[t], 0.0), min(far + dt * fastest[t], _HALF_TURN)
                        side = max(
                            abs(math.cos(near) / max(math.sin(near), 1e-3)),
                            abs(math.cos(far) / max(math.sin(far), 1e-3)),
                        )
                        width = min(width + dt * (yaw[t] + fastest[t] * side), _HALF_TURN)
                        cone[t] = width
                        upward = max(math.cos(near) / max(math.sin(near), 1e-3), 0.0)
                        gyro_k[t] = gyration * yaw[t] * fastest[t] + fastest[t] * fastest[t] * upward
                        base_k[t] = _toward(torque[t, 0], torque[t, 1], angle, width)
                        top_k[t] = base_k[t]
                        for corner in range(16):
                            x, y = torque[t, 0], torque[t, 1]
                            for i in range(4):
                                if corner >> i & 1:
                                    x -= p[15 + i] * (high_t[t, i] - low_t[t, i])
                                    y += p[11 + i] * (high_t[t, i] - low_t[t, i])
                            top_k[t] = max(top_k[t], _toward(x, y, angle, width))
                    # The lever holds for all times up to the last one, so horizons of several lengths are tried.
                    for until in range(10, count + 1, 10):
                        lever_k = 1e-9
                        for i in range(4):
                            lever_k = max(lever_k, _toward(-p[15 + i], p[11 + i], angle, cone[until - 1]))
                        span = until if stride == 1 else count
                        lowest[:] = 1e9
                        rest = (fastest, base_k, top_k, gyro_k, lever_k, high, low, push, dt)
                        _speed_bound(lowest, 0, span, stride, True, psi0, rate0, 0.0, *rest)
                        best[:span] = np.maximum(best[:span], lowest[:span])
                        if stride > 1:
                            break
                over = _excess(best, v0, p0, size, e[b, BOX])
                if over <= 0.0 or stride == 1:
                    excess_found[b] = max(excess_found[b], over)
                    break
            if excess_found[b] > 0.0:
                break


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


@dataclass(frozen=True)
class Starts:
    """n initial conditions, one quadrotor each."""

    quads: Quadrotors
    states: np.ndarray  # (n, STATE) position_w, quaternion, velocity_w, angular_velocity_b, motors
    wrench: np.ndarray  # (n, times, WRENCH) accelerations per step [m/s^2], [rad/s^2]; the last row stays
    previous: np.ndarray  # (n, ACTIONS, 4) actions before the start, oldest first: late ones are still under way

    @staticmethod
    def of(quads: Quadrotors, states: np.ndarray, wrench: np.ndarray, previous: np.ndarray | None = None) -> Starts:
        """Starts from arrays; a wrench may be (n, 3) constant acceleration, (n, WRENCH) constant, or (n, times,
        WRENCH).

        Without `previous`, the motors are where the actions before the start have commanded them. Raises ValueError
        for a shape that does not fit."""
        n = len(quads)
        if states.shape != (n, STATE):
            raise ValueError(f"states: shape {states.shape}, but {n} quadrotors need {(n, STATE)}")
        full = np.asarray(wrench, float)
        if full.shape == (n, 3):
            full = np.concatenate([full, np.zeros((n, 3))], axis=1)
        if full.shape == (n, WRENCH):
            full = full[:, None]
        if full.ndim != 3 or full.shape[0] != n or full.shape[1] < 1 or full.shape[2] != WRENCH:
            raise ValueError(
                f"wrench: shape {np.shape(wrench)}, but need (n, 3), (n, {WRENCH}) or (n, times, {WRENCH}), n = {n}"
            )
        if previous is None:
            previous = np.repeat(2 * states[:, None, 13:] - 1, ACTIONS, axis=1)
        if previous.shape != (n, ACTIONS, 4):
            raise ValueError(f"previous: shape {previous.shape}, but {n} quadrotors need {(n, ACTIONS, 4)}")
        return Starts(quads, *(np.ascontiguousarray(z, np.float32) for z in (states, full, previous)))

    def __len__(self) -> int:
        return len(self.quads)

    def __getitem__(self, index: np.ndarray) -> Starts:
        return Starts(self.quads[index], self.states[index], self.wrench[index], self.previous[index])


@dataclass(frozen=True)
class Search:
    """What direct shooting found for n starts."""

    found: np.ndarray  # (n,) somebody survives
    closest: np.ndarray  # (n,) of all sequences tried, the smallest of their worst ratios to a limit
    plans: np.ndarray  # (n, STEPS, 4) the actions that survive the whole episode


def regulators(quads: Quadrotors) -> np.ndarray:
    """Networks (n, 2, WEIGHTS) that are linear-quadratic regulators, designed for a lag between the motors' rise and
    fall and for the slower of the two: designed for the rise alone, a fifth of all quadrotors cannot even hover."""
    n = len(quads)
    teachers = Teachers(quads, TeacherConfig(count=n), np.zeros((n, WEIGHTS), np.float32))
    result = np.zeros((n, 2, WEIGHTS), np.float32)
    for k, lag in enumerate((np.sqrt(quads.tau_rise * quads.tau_fall), np.maximum(quads.tau_rise, quads.tau_fall))):
        skip = regulator(quads.replace(tau_rise=lag, tau_fall=lag), quads.environment(), teachers.q)
        result[:, k, SKIP:] = skip.reshape(n, -1)
    return result


def search(starts: Starts, guides: np.ndarray | None = None, attempts: tuple[Attempt, ...] = ATTEMPTS) -> Search:
    """Direct shooting from every start.

    guides: (n, any, WEIGHTS of a teacher), networks to guess with and to fly on with, besides each quadrotor's own
    `regulators`. attempts: as `ATTEMPTS`."""
    n = len(starts)
    found, closest = np.zeros(n, np.bool_), np.full(n, np.inf, np.float32)
    plans = np.zeros((n, STEPS, 4), np.float32)
    if n == 0:
        return Search(found, closest, plans)
    plain = regulators(starts.quads)
    weights = plain if guides is None else np.concatenate([guides, plain], axis=1)
    state = _kernel_arrays(starts, np.ascontiguousarray(weights))
    for horizon, iterations, seed, near in attempts:
        rng = np.random.default_rng(seed)
        aims = rng.uniform(-0.5, 0.5, (LANES, 3)).astype(np.float32)
        aims[: weights.shape[1]] = 0
        noise = np.repeat(rng.normal(size=(-(-horizon // 5), 4)), 5, axis=0)[:horizon].astype(np.float32)
        arrays: tuple[Any, ...] = (*state, aims, noise, horizon, iterations, found, closest, plans)
        left = ~found & (closest <= near)
        in_threads(lambda part, arrays=arrays: shoot(part, *arrays), np.flatnonzero(left))
    return Search(found, closest, plans)


def closed_loop(starts: Starts, weights: np.ndarray) -> np.ndarray:
    """The actions (n, STEPS, 4) of a teacher's network, weights (n, WEIGHTS), that flies each start to the origin."""
    actions = np.zeros((len(starts), STEPS, 4), np.float32)
    arrays: tuple[Any, ...] = (*_kernel_arrays(starts, np.ascontiguousarray(weights)), actions)
    in_threads(lambda part: follow(part, *arrays), np.arange(len(starts)))
    return actions


def _kernel_arrays(starts: Starts, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    n = len(starts)
    scales = Teachers(starts.quads, TeacherConfig(count=n), np.zeros((n, WEIGHTS), np.float32)).q
    c, e = (np.ascontiguousarray(z, np.float32) for z in (starts.quads.parameters(), starts.quads.environment()))
    return starts.states, starts.wrench, starts.previous, weights, c, e, scales


def survivable(
    quads: Quadrotors, states: np.ndarray, wrench: np.ndarray, previous: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """Which starts (arrays as in `Starts.of`) someone survives; options as of `search`."""
    return search(Starts.of(quads, states, wrench, previous), **options).found


def unavoidable(
    quads: Quadrotors, states: np.ndarray, wrench: np.ndarray, previous: np.ndarray | None = None
) -> np.ndarray:
    """Which starts (arrays as in `Starts.of`) certainly nobody survives."""
    return certain_excess(Starts.of(quads, states, wrench, previous)) > 0


def certain_excess(starts: Starts) -> np.ndarray:
    """By how much every control exceeds a limit, as far as `prove` can tell, in units of the limit; (n,)."""
    excess = np.zeros(len(starts))
    quads = starts.quads
    numbers = (starts.states, starts.wrench, starts.previous, quads.parameters(), quads.environment())
    arrays: tuple[Any, ...] = (*(np.ascontiguousarray(z, np.float64) for z in numbers), DIRECTIONS, excess)
    in_threads(lambda part: prove(part, *arrays), np.arange(len(starts)))
    return excess


def recall(
    quads: Quadrotors,
    start: np.ndarray,
    seed: int | list[int],
    episodes: np.ndarray,
    environment: np.ndarray | None = None,
    steps: int = STEPS,
) -> Starts:
    """The starts of those episodes (teachers, count) that are marked true, in the order of `np.nonzero`.

    They are those that `Teachers.judge` flies with this seed and this distribution. Wrenches are kept step by step
    only where there are gusts. environment: (n, ENVIRONMENT), if it is not the quadrotors' own."""
    n, count = episodes.shape
    owner, _ = np.nonzero(episodes)
    rounds = -(-count // LANES)
    index = np.full((n, rounds * LANES), -1, np.int64)
    index[:, :count][episodes] = np.arange(len(owner))
    index = index.reshape(n, rounds, LANES)
    rows = quads.environment() if environment is None else environment
    e = np.repeat(rows[:, :, None], LANES, 2).reshape(n, -1).astype(np.float32)
    rng = np.random.default_rng(seed).integers(0, 2**32, (n, LANES), dtype=np.uint32)
    x, a = np.zeros((n, (HISTORY + 1) * _S), np.float32), np.zeros((n, ACTIONS * _A), np.float32)
    s = np.zeros((n, EPISODE * LANES), np.float32)
    times = steps if np.any(quads.gust_std > 0) else 1
    states, previous = np.zeros((len(owner), STATE), np.float32), np.zeros((len(owner), ACTIONS, 4), np.float32)
    wrench = np.zeros((len(owner), times, WRENCH), np.float32)

    def draw(part: np.ndarray) -> None:
        for k in range(rounds):
            replay(part, x, a, s, rng, e, start, steps, np.ascontiguousarray(index[:, k]), states, wrench, previous)

    in_threads(draw, np.flatnonzero(episodes.any(axis=1)))
    return Starts(quads[owner], states, wrench, previous)


def bound_for_starts(
    starts: Starts,
    flown: np.ndarray,
    guides: np.ndarray | None = None,
    weight: float = 1.0,
    attempts: tuple[Attempt, ...] = ATTEMPTS,
) -> dict[str, Any]:
    """What is known about the starts at which a policy has died, whatever the policy: in all, and by torque to inertia.

    flown: (episodes,) torque to inertia in every episode flown; weight: deaths that one of the starts stands for;
    guides and attempts: as for `search`. Shares are of the episodes flown:

    - deaths: where the policy has died;
    - avoidable: of these, where a survivor was found. This is the policy's distance to the bound;
    - unavoidable: where none was found, that is, `proven` (nobody can survive) and `open` (no survivor, no proof).

    closest: of the open starts, the smallest violation found, in units of the limit."""
    result = search(starts, guides, attempts)
    proven = np.zeros(len(starts), np.bool_)
    left = np.flatnonzero(~result.found)
    proven[left] = certain_excess(starts[left]) > 0
    agility = starts.quads.torque_to_inertia

    def shares(low: float, high: float) -> dict[str, Any]:
        episodes = int(((flown >= low) & (flown < high)).sum())
        inside = (agility >= low) & (agility < high)
        kinds = {
            "deaths": inside,
            "avoidable": inside & result.found,
            "unavoidable": inside & ~result.found,
            "proven": inside & proven,
            "open": inside & ~result.found & ~proven,
        }
        counts = {name: weight * float(which.sum()) for name, which in kinds.items()}
        interval = share(np.arange(episodes) < round(counts["unavoidable"])) if episodes else Estimate(0.0, 0.0, 1.0, 0)
        return (
            {"episodes": episodes}
            | {name: n / max(episodes, 1) for name, n in counts.items()}
            | {"unavoidable_interval": [interval.low, interval.high]}
        )

    bins = {f"{low:.0f} to {high:.0f}": shares(low, high) for low, high in itertools.pairwise(BINS)}
    return (
        shares(0.0, math.inf)
        | {"examined": len(starts), "torque_to_inertia": {k: v for k, v in bins.items() if v["episodes"]}}
        | {"closest": [float(z) for z in np.sort(result.closest[~result.found & ~proven])]}
    )


def bound_report(
    teachers: Teachers,
    start: np.ndarray,
    episodes: int,
    seed: int | list[int],
    limit: int = 1024,
    attempts: tuple[Attempt, ...] = ATTEMPTS,
) -> dict[str, Any]:
    """Judge the teachers, find the starts at which they die, and say how many of these deaths were unavoidable.

    Keys as of `bound_for_starts`. Of more than `limit` deaths, so many are drawn at random and stand for all."""
    quads = teachers.quads
    dead = teachers.judge(start, episodes, seed)[:, :, SURVIVED] == 0
    total = int(dead.sum())
    if total > limit:
        keep = np.zeros(total, np.bool_)
        keep[np.random.default_rng(0).permutation(total)[:limit]] = True
        dead[dead] = keep
    owner, _ = np.nonzero(dead)
    environment = teachers.e.reshape(len(quads), ENVIRONMENT, LANES)[:, :, 0]
    starts = recall(quads, start, seed, dead, environment)
    flown = np.repeat(quads.torque_to_inertia, episodes)
    guides = teachers.weights[owner][:, None]
    return bound_for_starts(starts, flown, guides, max(total, 1) / max(len(owner), 1), attempts)


def bound_table(report: dict[str, Any], title: str) -> Table:
    """A report as a table, one row per range of torque to inertia."""
    table = Table(title=title)
    names = ("episodes", "deaths", "avoidable", "unavoidable", "of these proven", "95 % interval of unavoidable")
    for header in ("torque to inertia", *names):
        table.add_column(header, justify="left" if header == "torque to inertia" else "right")
    for name, row in (report["torque_to_inertia"] | {"all": report}).items():
        values = (f"{row[key]:.2%}" for key in ("deaths", "avoidable", "unavoidable", "proven"))
        low, high = row["unavoidable_interval"]
        table.add_row(name, str(row["episodes"]), *values, f"{low:.2%} to {high:.2%}")
    return table


def bound_command(
    teachers_run: Path, output: Path | None = None, tilt: float = math.pi / 2, episodes: int = 128
) -> None:
    """Print and save how many of the teachers' deaths an optimal-control bound shows to be unavoidable.

    tilt: of the starts, at most [rad]; episodes: per teacher."""
    teachers = load_teachers(teachers_run)
    begun, seed = time.process_time(), [teachers.config.seed, 5]
    report = bound_report(teachers, start_distribution(tilt), episodes, seed)
    about = {"teachers": str(teachers_run), "tilt": tilt, "seed": seed, "core_seconds": time.process_time() - begun}
    if output is not None:
        write_json(output, about | report)
    title = f"{len(teachers.quads)} teachers, tilt up to {math.degrees(tilt):.0f} degrees, seed {seed}"
    Console().print(bound_table(report, title))
