"""The proof that nobody could have survived: a relaxation in which everything that could help happens at once.

What `prove` calls certain death is certain; what it does not may still be. `sim/train/bound.py` says what for."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from sim.backends.quadrotor import GRAVITY, TIME_STEP
from sim.tasks.quadrotor import ACTION_TAPS, ACTIONS, BOX, SPEED_LIMIT

PROOF_STEPS = 60  # after this time no relaxation proves anything
PROOF_SLACK = 0.02  # what the integrator may differ from the continuous motion: [m/s] on speeds, [m] on positions
PROOF_PARTS = 4  # parts into which the step is split in which the relaxed control changes over
_GRID = [(x, y, z) for x in range(-2, 3) for y in range(-2, 3) for z in range(-2, 3) if math.gcd(x, y, z) == 1]
DIRECTIONS = np.array([np.array(d) / math.hypot(*d) for d in _GRID])  # in which speeds are bounded
_HALF_TURN = math.pi


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
