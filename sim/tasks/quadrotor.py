"""The quadrotor task on blocks of lanes: what a policy senses, what disturbs the flight, where it starts, when it ends.

All functions work on the flat memory of one block (`[channels, LANES]`, time first where there is time) and are
called from the kernels of `sim/train` and from `Flight`, the step-by-step environment that any policy can fly.
Rewards, terminations, starts and the Langevin reference are those of RAPTOR (Eschmann et al. 2025); delays, sensors,
gusts and figure eights are added.

A delay of d seconds is a short filter over the last samples: d = 14 ms weighs the sample 10 ms ago by 0.6 and the one
20 ms ago by 0.4. It serves sensors and motor commands alike, has a simple adjoint and vectorises."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from sim.backends.functions import (
    gaussian,
    next_random,
    normal,
    sine,
    uniform,
)
from sim.backends.quadrotor import (
    DT,
    HALF,
    LANES,
    ONE,
    STATE,
    TWO,
    ZERO,
    block,
    device,
    load3,
    load4,
    rotation_matrix,
    rotation_matrix_adjoint,
    store3,
    store4,
)

OBSERVATION = 22  # position error 3, rotation matrix 9, velocity error 3, angular velocity 3, previous action 4
REFERENCE = 9  # position 3, velocity 3, acceleration 3, world frame
HISTORY = 10  # states kept before the current one: velocity may be 100 ms late
ACTIONS = 4  # actions kept before the current one: commands may be 30 ms late
SENSED = 13  # position 3, quaternion 4, velocity 3, angular velocity 3: what sensors deliver
NOISES = 18  # position 3, rotation matrix 9, velocity 3, angular velocity 3

# Channels of the environment of one quadrotor (constant through an episode).
ACTION_TAPS, POSITION_TAPS, ORIENTATION_TAPS, GYRO_TAPS, VELOCITY_TAPS = (
    0,
    4,
    8,
    12,
    16,
)  # 4, 4, 4, 4, 11 filter weights
POSITION_NOISE, ORIENTATION_NOISE, VELOCITY_NOISE, GYRO_NOISE = 27, 28, 29, 30
GYRO_BIAS = 31  # 3 [rad/s]
FORCE_STD, TORQUE_STD, GUST_STD, GUST_DECAY = 34, 35, 36, 37  # [m/s^2], [rad/s^2], [m/s^2], per step
SPAWN, BOX = 38, 39  # start within +- SPAWN, end beyond +- BOX [m]
TRIM = 40  # 4: motor commands in hover, [-1, 1]
ENVIRONMENT = 44

# Channels of one episode.
AGE, GUST, RAW_POSITION, RAW_VELOCITY, LOW_POSITION, LOW_VELOCITY, LANGEVIN = 0, 1, 4, 7, 10, 13, 16
AMPLITUDE, HARMONIC, OMEGA, RAMP, FORCE, TORQUE, BOXED = 17, 20, 23, 24, 25, 28, 31
EPISODE = 32

# Channels of the distribution of starts (one array for all quadrotors). Shares are probabilities, tested in this order.
START = (
    "rest",  # share of starts at the goal, level and at rest
    "tilt",  # rotation up to this angle about a random axis [rad]
    "speed",  # per axis, up to [m/s]
    "rate",  # per axis, up to [rad/s]
    "any_attitude",  # share of starts with any rotation
    "yaw",  # share of starts with a pure yaw error between 1 rad and pi
    "far",  # share of starts 0.7 to 5 m away
    "inverted",  # share of starts with a tilt of 2.2 rad to pi, most of them at rest
    "figure",  # share of episodes on a figure eight
    "langevin",  # share of the remaining episodes with a Langevin reference
    "figure_scale",  # of a figure eight of 0.5 to 1.1 m; in units of the box where negative
    "action_zero",  # share of starts whose previous action is reported as zero (a flight controller's reset value)
)
NAIVE_START = np.array([0.1, 1.0, 1.0, 1.0, 0, 0, 0, 0, 0, 0, 1, 0], dtype=np.float32)

SPEED_LIMIT, RATE_LIMIT = 2.0, 35.0  # terminations of RAPTOR, per axis [m/s], [rad/s]
POSITION_CLIP, VELOCITY_CLIP, ACCELERATION_CLIP = 0.5, 1.0, 5.0  # what a policy is shown at most [m], [m/s], [m/s^2]

_f = np.float32
_POSITION_CLIP, _VELOCITY_CLIP, _ACCELERATION_CLIP = _f(POSITION_CLIP), _f(VELOCITY_CLIP), _f(ACCELERATION_CLIP)
_YAW, _THOUSANDTH, _TINY = _f(math.sqrt(0.5)), _f(1e-3), _f(1e-12)
_PI, _TURN, _QUARTER = _f(math.pi), _f(2 * math.pi), _f(math.pi / 2)
_LANGEVIN_RANDOM, _LANGEVIN_DAMPING, _LANGEVIN_SPRING = _f(0.5 * math.sqrt(0.01)), _f(0.01), _f(0.04)
_LANGEVIN_KEEP, _LANGEVIN_NEW, _INVERSE_DT = _f(0.99), _f(0.01), _f(100)


@nb.njit(error_model="numpy", cache=True)
def restart(x, a, s, rng, e, start, k):
    """Begin a new episode in lane k: fills the state history x, the action history a and the episode s of one block."""
    rest, tilt, speed, rate = start[0], start[1], start[2], start[3]
    for c in range(EPISODE):
        s[c * LANES + k] = ZERO
    spawn, box = e[SPAWN * LANES + k], e[BOX * LANES + k]
    axis = (normal(rng, k), normal(rng, k), normal(rng, k))
    angle = uniform(rng, k, ZERO, tilt)
    px, py, pz = uniform(rng, k, -spawn, spawn), uniform(rng, k, -spawn, spawn), uniform(rng, k, -spawn, spawn)
    moving, boxed = ONE, ONE
    z = uniform(rng, k, ZERO, ONE)
    if z < rest:
        moving, angle, px, py, pz = ZERO, ZERO, ZERO, ZERO, ZERO
    z -= rest
    if ZERO <= z < start[4]:
        angle, boxed = uniform(rng, k, ZERO, _PI), ZERO
    z -= start[4]
    if ZERO <= z < start[5]:
        axis, angle, moving, boxed = (ZERO, ZERO, ONE), uniform(rng, k, -_PI, _PI), _f(0.3), ZERO
        angle += ONE if ZERO < angle < ONE else (-ONE if -ONE < angle < ZERO else ZERO)
    z -= start[5]
    if ZERO <= z < start[6]:
        dx, dy, dz = normal(rng, k), normal(rng, k), normal(rng, k)
        d = uniform(rng, k, _f(0.7), _f(5.0)) / math.sqrt(dx * dx + dy * dy + dz * dz + _TINY)
        px, py, pz, boxed = dx * d, dy * d, dz * d, ZERO
        if uniform(rng, k, ZERO, ONE) < HALF:
            moving, angle = ZERO, ZERO
    z -= start[6]
    if ZERO <= z < start[7]:
        axis, angle, boxed = (axis[0], axis[1], ZERO), uniform(rng, k, _f(2.2), _PI), ZERO
        moving = ZERO if uniform(rng, k, ZERO, ONE) < _f(0.7) else ONE
    z -= start[7]
    if ZERO <= z < start[8]:
        scale = start[10] if start[10] >= ZERO else -start[10] * box
        swap = uniform(rng, k, ZERO, ONE) < HALF
        for c in range(3):
            size = scale * uniform(rng, k, HALF, _f(1.1)) * (ONE if uniform(rng, k, ZERO, ONE) < HALF else -ONE)
            if c == 2:
                size *= _f(0.3) if uniform(rng, k, ZERO, ONE) < HALF else ZERO
            elif (c == 1) != swap:
                size *= HALF
            s[(AMPLITUDE + c) * LANES + k] = size
            s[(HARMONIC + c) * LANES + k] = TWO if (c == 1 and not swap) or (c == 0 and swap) else ONE
        s[OMEGA * LANES + k] = _TURN / uniform(
            rng, k, _f(3.5), _f(10.0) if uniform(rng, k, ZERO, ONE) < _f(0.3) else _f(6)
        )
        s[RAMP * LANES + k] = uniform(rng, k, _f(0.3), _f(3.0))
        if start[10] >= ZERO:
            moving, angle, px, py, pz, boxed = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    elif uniform(rng, k, ZERO, ONE) < start[9]:
        s[LANGEVIN * LANES + k] = ONE
    s[BOXED * LANES + k] = boxed
    n = math.sqrt(axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2] + _TINY)
    sh, ch = math.sin(HALF * angle) / n, math.cos(HALF * angle)
    force, torque = e[FORCE_STD * LANES + k], e[TORQUE_STD * LANES + k]
    for c in range(3):
        s[(FORCE + c) * LANES + k] = force * normal(rng, k)
        s[(TORQUE + c) * LANES + k] = torque * normal(rng, k)
        s[(GUST + c) * LANES + k] = e[GUST_STD * LANES + k] * normal(rng, k)
    zero_action = uniform(rng, k, ZERO, ONE) < start[11]
    for c in range(STATE):
        if c < 3:
            v = px if c == 0 else (py if c == 1 else pz)
        elif c == 3:
            v = ch
        elif c < 7:
            v = axis[c - 4] * sh
        elif c < 10:
            v = moving * uniform(rng, k, -speed, speed)
        elif c < 13:
            v = moving * uniform(rng, k, -rate, rate)
        else:
            v = uniform(rng, k, ZERO, HALF)
            for i in range(ACTIONS):
                a[(i * 4 + c - 13) * LANES + k] = ZERO if zero_action else TWO * v - ONE
        for i in range(HISTORY + 1):
            x[(i * STATE + c) * LANES + k] = v


@block
def exogenous(s, rng, e, ref, w):
    """Advance what does not depend on the flight by one step: write the reference (9) and the wrench (6) of this
    step."""
    for i in range(LANES):
        age = s[AGE * LANES + i]
        omega, ramp = s[OMEGA * LANES + i], s[RAMP * LANES + i]
        ramping = age < ramp
        slope = omega / max(ramp, _THOUSANDTH)
        phase = HALF * slope * age * age if ramping else omega * (age - HALF * ramp)
        speed = slope * age if ramping else omega
        growth = slope if ramping else ZERO
        on = s[LANGEVIN * LANES + i]
        r = rng[i]
        g0, g1, g2 = load3(s, GUST * LANES + i)
        decay = e[GUST_DECAY * LANES + i]
        kick = e[GUST_STD * LANES + i] * np.sqrt(ONE - decay * decay)
        r, bits = next_random(r)
        g0 = decay * g0 + kick * gaussian(bits)
        r, bits = next_random(r)
        g1 = decay * g1 + kick * gaussian(bits)
        r, bits = next_random(r)
        g2 = decay * g2 + kick * gaussian(bits)
        store3(s, GUST * LANES + i, (g0, g1, g2))
        f0, f1, f2 = load3(s, FORCE * LANES + i)
        store3(w, i, (f0 + g0, f1 + g1, f2 + g2))
        store3(w, i + 3 * LANES, load3(s, TORQUE * LANES + i))
        for c in range(3):
            size, harmonic = s[(AMPLITUDE + c) * LANES + i], s[(HARMONIC + c) * LANES + i]
            sn, cs = sine(harmonic * phase), sine(harmonic * phase + _QUARTER)
            low, lowv = s[(LOW_POSITION + c) * LANES + i], s[(LOW_VELOCITY + c) * LANES + i]
            raw, rawv = s[(RAW_POSITION + c) * LANES + i], s[(RAW_VELOCITY + c) * LANES + i]
            ref[c * LANES + i] = size * sn + low
            ref[(3 + c) * LANES + i] = size * harmonic * cs * speed + lowv
            r, bits = next_random(r)
            new_rawv = rawv - _LANGEVIN_DAMPING * rawv - _LANGEVIN_SPRING * raw + on * _LANGEVIN_RANDOM * gaussian(bits)
            new_raw = raw + DT * new_rawv
            new_lowv = _LANGEVIN_NEW * new_rawv + _LANGEVIN_KEEP * lowv
            ref[(6 + c) * LANES + i] = (
                size * harmonic * (cs * growth - harmonic * sn * speed * speed) + (new_lowv - lowv) * _INVERSE_DT
            )
            s[(RAW_VELOCITY + c) * LANES + i] = new_rawv
            s[(RAW_POSITION + c) * LANES + i] = new_raw
            s[(LOW_VELOCITY + c) * LANES + i] = new_lowv
            s[(LOW_POSITION + c) * LANES + i] = low + DT * new_lowv
        rng[i] = r
        s[AGE * LANES + i] = age + DT


@block
def sensor_noise(rng, noise):
    """Unit normal numbers for NOISES channels of one block."""
    for c in range(NOISES):
        for i in range(LANES):
            rng[i], bits = next_random(rng[i])
            noise[c * LANES + i] = gaussian(bits)


@device
def delayed(h, e, taps, count, channel, i):
    """Weighted sum over the last `count` states of one channel; h is the view of the last HISTORY + 1 states."""
    v = ZERO
    for k in range(count):
        v += e[(taps + k) * LANES + i] * h[((HISTORY - k) * STATE + channel) * LANES + i]
    return v


@device
def delayed_quaternion(h, e, i):
    return (
        delayed(h, e, ORIENTATION_TAPS, 4, 3, i),
        delayed(h, e, ORIENTATION_TAPS, 4, 4, i),
        delayed(h, e, ORIENTATION_TAPS, 4, 5, i),
        delayed(h, e, ORIENTATION_TAPS, 4, 6, i),
    )


@block
def observe(h, ref, previous, e, noise, o):
    """The 22 observations of one block from the last HISTORY + 1 states, the reference and the previous action."""
    for i in range(LANES):
        s = e[POSITION_NOISE * LANES + i]
        for c in range(3):
            v = delayed(h, e, POSITION_TAPS, 4, c, i)
            o[c * LANES + i] = v - ref[c * LANES + i] + s * noise[c * LANES + i]
    for i in range(LANES):
        s = e[ORIENTATION_NOISE * LANES + i]
        q0, q1, q2, q3 = delayed_quaternion(h, e, i)
        n = ONE / np.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
        r = rotation_matrix(q0 * n, q1 * n, q2 * n, q3 * n)
        store3(
            o,
            i + 3 * LANES,
            (r[0] + s * noise[3 * LANES + i], r[1] + s * noise[4 * LANES + i], r[2] + s * noise[5 * LANES + i]),
        )
        store3(
            o,
            i + 6 * LANES,
            (r[3] + s * noise[6 * LANES + i], r[4] + s * noise[7 * LANES + i], r[5] + s * noise[8 * LANES + i]),
        )
        store3(
            o,
            i + 9 * LANES,
            (r[6] + s * noise[9 * LANES + i], r[7] + s * noise[10 * LANES + i], r[8] + s * noise[11 * LANES + i]),
        )
    for c in range(3):  # outside, because eleven taps times three would not unroll
        for i in range(LANES):
            v = delayed(h, e, VELOCITY_TAPS, HISTORY + 1, 7 + c, i)
            o[(12 + c) * LANES + i] = (
                v - ref[(3 + c) * LANES + i] + e[VELOCITY_NOISE * LANES + i] * noise[(12 + c) * LANES + i]
            )
    for i in range(LANES):
        s = e[GYRO_NOISE * LANES + i]
        for c in range(3):
            v = delayed(h, e, GYRO_TAPS, 4, 10 + c, i)
            o[(15 + c) * LANES + i] = v + e[(GYRO_BIAS + c) * LANES + i] + s * noise[(15 + c) * LANES + i]
    for i in range(4 * LANES):
        o[18 * LANES + i] = previous[i]


@block
def observe_adjoint(h, e, go, gs):
    """From the gradient of the observation (22) to that of the filtered signals (SENSED): what `sense_adjoint`
    spreads in time."""
    for i in range(LANES):
        store3(gs, i, load3(go, i))
        q0, q1, q2, q3 = delayed_quaternion(h, e, i)
        n = ONE / np.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
        q0, q1, q2, q3 = q0 * n, q1 * n, q2 * n, q3 * n
        gr = (*load3(go, i + 3 * LANES), *load3(go, i + 6 * LANES), *load3(go, i + 9 * LANES))
        g0, g1, g2, g3 = rotation_matrix_adjoint(q0, q1, q2, q3, gr)
        d = q0 * g0 + q1 * g1 + q2 * g2 + q3 * g3
        store4(gs, i + 3 * LANES, (n * (g0 - q0 * d), n * (g1 - q1 * d), n * (g2 - q2 * d), n * (g3 - q3 * d)))
        store3(gs, i + 7 * LANES, load3(go, i + 12 * LANES))
        store3(gs, i + 10 * LANES, load3(go, i + 15 * LANES))


@block
def sense_adjoint(gs, e, gx):
    """Add to the gradient of the state at time t what the sensors deliver from it at t .. t + HISTORY (gs: those
    rows)."""
    for i in range(LANES):
        for c in range(3):
            v = ZERO
            for k in range(4):
                v += e[(POSITION_TAPS + k) * LANES + i] * gs[(k * SENSED + c) * LANES + i]
            gx[c * LANES + i] += v
        for c in range(4):
            v = ZERO
            for k in range(4):
                v += e[(ORIENTATION_TAPS + k) * LANES + i] * gs[(k * SENSED + 3 + c) * LANES + i]
            gx[(3 + c) * LANES + i] += v
    for i in range(LANES):
        for c in range(3):
            v = ZERO
            for k in range(HISTORY + 1):
                v += e[(VELOCITY_TAPS + k) * LANES + i] * gs[(k * SENSED + 7 + c) * LANES + i]
            gx[(7 + c) * LANES + i] += v
        for c in range(3):
            v = ZERO
            for k in range(4):
                v += e[(GYRO_TAPS + k) * LANES + i] * gs[(k * SENSED + 10 + c) * LANES + i]
            gx[(10 + c) * LANES + i] += v


@block
def set_point(actions, e, u):
    """Delayed motor set points in [0, 1] from the last ACTIONS + 1 actions (the current one last)."""
    for i in range(LANES):
        for c in range(4):
            v = ZERO
            for k in range(4):
                v += e[(ACTION_TAPS + k) * LANES + i] * actions[((ACTIONS - k) * 4 + c) * LANES + i]
            u[c * LANES + i] = HALF + HALF * v


@block
def set_point_adjoint(gu, e, ga):
    """Add to the gradients of the last ACTIONS + 1 actions (the current one last) that of the motor set points."""
    for i in range(LANES):
        for c in range(4):
            g = HALF * gu[c * LANES + i]
            for k in range(4):
                ga[((ACTIONS - k) * 4 + c) * LANES + i] += e[(ACTION_TAPS + k) * LANES + i] * g


@device
def turn(r00, r01, r10, r11):
    """Cosine and sine of the turn about world z that brings the yaw error within 45 degrees."""
    x, y = r00 + r11 + _THOUSANDTH, r10 - r01
    n = ONE / np.sqrt(x * x + y * y + _TINY)
    c, s = x * n, y * n
    size = abs(s)
    sn = size * _YAW - c * _YAW
    return (c * _YAW + size * _YAW if c < _YAW else ONE), (ZERO if c >= _YAW else (sn if s >= ZERO else -sn))


@block
def preprocess(o, accelerated, x):
    """The network's input from an observation: turned about z, position and velocity error limited. The channel after
    the last one is set to one (it carries the bias of the first layer)."""
    for i in range(LANES):
        cs, sn = turn(o[3 * LANES + i], o[4 * LANES + i], o[6 * LANES + i], o[7 * LANES + i])
        a, b, c = load3(o, i)
        a, b = cs * a + sn * b, cs * b - sn * a
        m = _POSITION_CLIP
        store3(x, i, (min(max(a, -m), m), min(max(b, -m), m), min(max(c, -m), m)))
        for k in range(3):
            a, b = o[(3 + k) * LANES + i], o[(6 + k) * LANES + i]
            x[(3 + k) * LANES + i] = cs * a + sn * b
            x[(6 + k) * LANES + i] = cs * b - sn * a
        store3(x, i + 9 * LANES, load3(o, i + 9 * LANES))
        a, b, c = load3(o, i + 12 * LANES)
        a, b = cs * a + sn * b, cs * b - sn * a
        m = _VELOCITY_CLIP
        store3(x, i + 12 * LANES, (min(max(a, -m), m), min(max(b, -m), m), min(max(c, -m), m)))
        store3(x, i + 15 * LANES, load3(o, i + 15 * LANES))
        store4(x, i + 18 * LANES, load4(o, i + 18 * LANES))
        if accelerated:
            a, b, c = load3(o, i + 22 * LANES)
            a, b = cs * a + sn * b, cs * b - sn * a
            m = _ACCELERATION_CLIP
            store3(x, i + 22 * LANES, (min(max(a, -m), m), min(max(b, -m), m), min(max(c, -m), m)))
            x[25 * LANES + i] = ONE
        else:
            x[22 * LANES + i] = ONE


@block
def preprocess_adjoint(o, gx, go):
    """Gradient of the observation (22) from that of the network's input; the turn itself is held constant."""
    for i in range(LANES):
        cs, sn = turn(o[3 * LANES + i], o[4 * LANES + i], o[6 * LANES + i], o[7 * LANES + i])
        for k, m in ((0, _POSITION_CLIP), (12, _VELOCITY_CLIP)):
            a, b, c = load3(o, i + k * LANES)
            a, b = cs * a + sn * b, cs * b - sn * a
            ga, gb, gc = load3(gx, i + k * LANES)
            ga, gb, gc = (ga if abs(a) < m else ZERO), (gb if abs(b) < m else ZERO), (gc if abs(c) < m else ZERO)
            store3(go, i + k * LANES, (cs * ga - sn * gb, sn * ga + cs * gb, gc))
        for k in range(3):
            ga, gb = gx[(3 + k) * LANES + i], gx[(6 + k) * LANES + i]
            go[(3 + k) * LANES + i] = cs * ga - sn * gb
            go[(6 + k) * LANES + i] = sn * ga + cs * gb
        store3(go, i + 9 * LANES, load3(gx, i + 9 * LANES))
        store3(go, i + 15 * LANES, load3(gx, i + 15 * LANES))
        store4(go, i + 18 * LANES, load4(gx, i + 18 * LANES))


@device
def broken(x, box, i):
    """True where lane i has left RAPTOR's limits (position within the box, speed, rate) or is not finite any more."""
    bad = False
    for c in range(3):
        p, v, w = x[c * LANES + i], x[(7 + c) * LANES + i], x[(10 + c) * LANES + i]
        # A NaN fails every comparison, so the test is for what is allowed.
        bad |= not (abs(p) <= box and abs(v) <= _f(SPEED_LIMIT) and abs(w) <= _f(RATE_LIMIT))
    return bad


def delay_taps(delay: np.ndarray, count: int) -> np.ndarray:
    """Filter weights (..., count) of a delay in [s]: linear interpolation between the two neighbouring samples.

    Raises ValueError where a delay does not fit into `count` samples."""
    steps = np.asarray(delay, dtype=np.float64)[..., None] / float(DT)
    if steps.min(initial=0) < 0 or steps.max(initial=0) > count - 1 + 1e-6:
        raise ValueError(
            f"a delay of {steps.max() * float(DT):.3f} s does not fit: allowed are 0 to {(count - 1) * float(DT):.2f} s"
        )
    return np.maximum(0.0, 1.0 - np.abs(steps - np.arange(count)))
