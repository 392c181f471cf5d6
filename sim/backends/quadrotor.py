"""Quadrotor rigid-body dynamics and their adjoint: one scalar source, vectorised over lanes.

Every physical formula is a scalar function of floats and tuples (`derivative`, `rk4` and their adjoints), compiled by
numba. A batch is stored as blocks of `LANES` quadrotors, channel by channel (`[blocks, channels, LANES]`), so that
the compiler turns the loop over lanes into vector instructions; blocks are independent and go to threads. The scalar
functions use no arrays, so the same source compiles as CUDA device functions.

Model (Eschmann et al., "RAPTOR", and the public l2f simulator; here extended): body FLU, world z up, quaternion wxyz
body to world, motor order front-right, back-right, back-left, front-left. First-order motors with separate rise and
fall lags, thrust polynomial with dead band, saturation and battery sag, rigid body with body-frame linear drag,
external force and torque. Classic Runge-Kutta 4 at 10 ms, the command held over the step.

State channels (STATE = 17): position_w 3 [m], quaternion 4, velocity_w 3 [m/s], angular_velocity_b 3 [rad/s], motor 4
[0, 1]. Parameter channels (PARAMS = 28): see `PARAMETER`. Wrench channels (6): acceleration_w [m/s^2], angular
acceleration_b [rad/s^2]."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numba as nb
import numba.core.config
import numpy as np

import controllers.vectors  # noqa: F401 (before anything is compiled)

_settings: Any = numba.core.config  # settings are made at run time: type checkers do not see them

if not _settings.CACHE_DIR:
    # numba notices changes in a kernel's own file only, but most of a kernel stands in other files: each state of the
    # sources gets a cache of its own.
    _root = Path(__file__).parent.parent
    _texts = [path.read_bytes() for path in sorted(_root.rglob("*.py"))]
    _kernels = b"".join(t for t in _texts if re.search(rb"^@(device|block|kernel|parallel_kernel|nb\.njit)", t, re.M))
    _settings.CACHE_DIR = str(_root / "__pycache__" / f"kernels-{zlib.crc32(_kernels):08x}")

LANES = 16  # one AVX-512 register, two AVX2 registers
STATE, PARAMS, WRENCH = 17, 28, 6
TIME_STEP = 0.01  # [s]
GRAVITY = 9.81  # [m/s^2]

PARAMETER = (
    *("c0", "c1", "c2"),  # thrust polynomial of one rotor divided by the mass [m/s^2]
    *("strength0", "strength1", "strength2", "strength3"),  # relative thrust of each motor
    *("dead_band", "inverse_live_band", "saturation"),  # motor command to effective command
    "sag",  # thrust lost per unit of one motor's command (a quarter of the loss at full command)
    *("x0", "x1", "x2", "x3"),  # rotor x relative to the centre of mass, times mass / Jyy [1/m]
    *("y0", "y1", "y2", "y3"),  # rotor y relative to the centre of mass, times mass / Jxx [1/m]
    "yaw_gain",  # torque constant times mass / Jzz [1/m]
    *("gyro_x", "gyro_y", "gyro_z"),  # (Jzz - Jyy)/Jxx, (Jxx - Jzz)/Jyy, (Jyy - Jxx)/Jzz
    *("rise_rate", "fall_rate"),  # inverse motor lags [1/s]
    *("drag_x", "drag_y", "drag_z"),  # body-frame linear drag divided by the mass [1/s]
)
assert len(PARAMETER) == PARAMS

# No finite-math flags: a NaN must stay visible. float32 constants: an int or float literal would promote to float64.
FASTMATH = {"contract", "reassoc", "arcp", "nsz"}
_f = np.float32
ZERO, HALF, ONE, TWO = _f(0.0), _f(0.5), _f(1.0), _f(2.0)
G, DT, DT2, DT6 = _f(GRAVITY), _f(TIME_STEP), _f(TIME_STEP / 2), _f(TIME_STEP / 6)
device = nb.njit(fastmath=FASTMATH, error_model="numpy", forceinline=True)
# Functions of whole blocks are compiled once each and called: inlined together they would take minutes to optimise,
# and LLVM's vectoriser gives up on functions that large.
block = nb.njit(fastmath=FASTMATH, error_model="numpy", nogil=True)
# `cache` keeps the machine code between runs; kernels release the GIL.
kernel = nb.njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
parallel_kernel = nb.njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True, parallel=True)


@device
def derivative(y, u, w, c):
    """Time derivative of the 14 non-position states.

    y: quaternion 4, velocity_w 3, angular_velocity_b 3, motor 4; u: motor set point 4 in [0, 1]; w: wrench 6; c:
    parameters 28."""
    q0, q1, q2, q3, vx, vy, vz, wx, wy, wz, m0, m1, m2, m3 = y
    (c0, c1, c2, s0, s1, s2, s3, dead, inv_live, sat, sag, x0, x1, x2, x3) = c[:15]
    (y0, y1, y2, y3, kz, gx, gy, gz, rise, fall, dx, dy, dz) = c[15:]
    e0 = min(max(m0 - dead, ZERO) * inv_live, sat)
    e1 = min(max(m1 - dead, ZERO) * inv_live, sat)
    e2 = min(max(m2 - dead, ZERO) * inv_live, sat)
    e3 = min(max(m3 - dead, ZERO) * inv_live, sat)
    battery = ONE - sag * (m0 + m1 + m2 + m3)
    t0 = battery * s0 * (c0 + e0 * (c1 + c2 * e0))
    t1 = battery * s1 * (c0 + e1 * (c1 + c2 * e1))
    t2 = battery * s2 * (c0 + e2 * (c1 + c2 * e2))
    t3 = battery * s3 * (c0 + e3 * (c1 + c2 * e3))
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_matrix(q0, q1, q2, q3)
    fx = -dx * (r00 * vx + r10 * vy + r20 * vz)
    fy = -dy * (r01 * vx + r11 * vy + r21 * vz)
    fz = t0 + t1 + t2 + t3 - dz * (r02 * vx + r12 * vy + r22 * vz)
    return (
        HALF * (-q1 * wx - q2 * wy - q3 * wz),
        HALF * (q0 * wx + q2 * wz - q3 * wy),
        HALF * (q0 * wy + q3 * wx - q1 * wz),
        HALF * (q0 * wz + q1 * wy - q2 * wx),
        r00 * fx + r01 * fy + r02 * fz + w[0],
        r10 * fx + r11 * fy + r12 * fz + w[1],
        r20 * fx + r21 * fy + r22 * fz + w[2] - G,
        t0 * y0 + t1 * y1 + t2 * y2 + t3 * y3 - gx * wy * wz + w[3],
        -(t0 * x0 + t1 * x1 + t2 * x2 + t3 * x3) - gy * wz * wx + w[4],
        kz * (t1 + t3 - t0 - t2) - gz * wx * wy + w[5],
        (u[0] - m0) * (rise if u[0] >= m0 else fall),
        (u[1] - m1) * (rise if u[1] >= m1 else fall),
        (u[2] - m2) * (rise if u[2] >= m2 else fall),
        (u[3] - m3) * (rise if u[3] >= m3 else fall),
    )


@device
def rotation_matrix(q0, q1, q2, q3):
    """Rotation matrix body to world, row by row, of a unit quaternion wxyz."""
    return (
        ONE - TWO * (q2 * q2 + q3 * q3),
        TWO * (q1 * q2 - q0 * q3),
        TWO * (q1 * q3 + q0 * q2),
        TWO * (q1 * q2 + q0 * q3),
        ONE - TWO * (q1 * q1 + q3 * q3),
        TWO * (q2 * q3 - q0 * q1),
        TWO * (q1 * q3 - q0 * q2),
        TWO * (q2 * q3 + q0 * q1),
        ONE - TWO * (q1 * q1 + q2 * q2),
    )


@device
def rotation_matrix_adjoint(q0, q1, q2, q3, g):
    """Gradient with respect to the quaternion, given the gradient g (9) with respect to the matrix, row by row."""
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = g
    return (
        TWO * (q3 * (g10 - g01) + q2 * (g02 - g20) + q1 * (g21 - g12)),
        TWO * (q2 * (g01 + g10) + q3 * (g02 + g20) - TWO * q1 * (g11 + g22) + q0 * (g21 - g12)),
        TWO * (q1 * (g01 + g10) - TWO * q2 * (g00 + g22) + q0 * (g02 - g20) + q3 * (g12 + g21)),
        TWO * (q0 * (g10 - g01) - TWO * q3 * (g00 + g11) + q1 * (g02 + g20) + q2 * (g12 + g21)),
    )


@device
def derivative_adjoint(y, u, c, g):
    """Gradient (14 states, 4 set points) of g . derivative(y, u, w, c); the wrench enters linearly and is not
    differentiated."""
    q0, q1, q2, q3, vx, vy, vz, wx, wy, wz, m0, m1, m2, m3 = y
    (c0, c1, c2, s0, s1, s2, s3, dead, inv_live, sat, sag, x0, x1, x2, x3) = c[:15]
    (y0, y1, y2, y3, kz, gx, gy, gz, rise, fall, dx, dy, dz) = c[15:]
    a0, a1, a2, a3, ax, ay, az, bx, by, bz, n0, n1, n2, n3 = g
    l0, l1, l2, l3 = (m0 - dead) * inv_live, (m1 - dead) * inv_live, (m2 - dead) * inv_live, (m3 - dead) * inv_live
    e0, e1, e2, e3 = min(max(l0, ZERO), sat), min(max(l1, ZERO), sat), min(max(l2, ZERO), sat), min(max(l3, ZERO), sat)
    battery = ONE - sag * (m0 + m1 + m2 + m3)
    t0, t1 = s0 * (c0 + e0 * (c1 + c2 * e0)), s1 * (c0 + e1 * (c1 + c2 * e1))
    t2, t3 = s2 * (c0 + e2 * (c1 + c2 * e2)), s3 * (c0 + e3 * (c1 + c2 * e3))
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_matrix(q0, q1, q2, q3)
    # Specific force in the body frame and its gradient.
    fx = -dx * (r00 * vx + r10 * vy + r20 * vz)
    fy = -dy * (r01 * vx + r11 * vy + r21 * vz)
    fz = battery * (t0 + t1 + t2 + t3) - dz * (r02 * vx + r12 * vy + r22 * vz)
    gfx, gfy, gfz = r00 * ax + r10 * ay + r20 * az, r01 * ax + r11 * ay + r21 * az, r02 * ax + r12 * ay + r22 * az
    hx, hy, hz = -dx * gfx, -dy * gfy, -dz * gfz
    gr = (
        ax * fx + vx * hx,
        ax * fy + vx * hy,
        ax * fz + vx * hz,
        ay * fx + vy * hx,
        ay * fy + vy * hy,
        ay * fz + vy * hz,
        az * fx + vz * hx,
        az * fy + vz * hy,
        az * fz + vz * hz,
    )
    k0, k1, k2, k3 = rotation_matrix_adjoint(q0, q1, q2, q3, gr)
    # Thrust of each rotor (before battery sag) and, through it, its motor.
    gt0 = gfz + y0 * bx - x0 * by - kz * bz
    gt1 = gfz + y1 * bx - x1 * by + kz * bz
    gt2 = gfz + y2 * bx - x2 * by - kz * bz
    gt3 = gfz + y3 * bx - x3 * by + kz * bz
    gsag = sag * (gt0 * t0 + gt1 * t1 + gt2 * t2 + gt3 * t3)
    slope = battery * inv_live
    d0 = slope * s0 * (c1 + TWO * c2 * e0) if ZERO < l0 < sat else ZERO
    d1 = slope * s1 * (c1 + TWO * c2 * e1) if ZERO < l1 < sat else ZERO
    d2 = slope * s2 * (c1 + TWO * c2 * e2) if ZERO < l2 < sat else ZERO
    d3 = slope * s3 * (c1 + TWO * c2 * e3) if ZERO < l3 < sat else ZERO
    u0 = n0 * (rise if u[0] >= m0 else fall)
    u1 = n1 * (rise if u[1] >= m1 else fall)
    u2 = n2 * (rise if u[2] >= m2 else fall)
    u3 = n3 * (rise if u[3] >= m3 else fall)
    return (
        k0 + HALF * (a1 * wx + a2 * wy + a3 * wz),
        k1 + HALF * (-a0 * wx - a2 * wz + a3 * wy),
        k2 + HALF * (-a0 * wy + a1 * wz - a3 * wx),
        k3 + HALF * (-a0 * wz - a1 * wy + a2 * wx),
        r00 * hx + r01 * hy + r02 * hz,
        r10 * hx + r11 * hy + r12 * hz,
        r20 * hx + r21 * hy + r22 * hz,
        HALF * (-a0 * q1 + a1 * q0 + a2 * q3 - a3 * q2) - gy * wz * by - gz * wy * bz,
        HALF * (-a0 * q2 - a1 * q3 + a2 * q0 + a3 * q1) - gx * wz * bx - gz * wx * bz,
        HALF * (-a0 * q3 + a1 * q2 - a2 * q1 + a3 * q0) - gx * wy * bx - gy * wx * by,
        gt0 * d0 - gsag - u0,
        gt1 * d1 - gsag - u1,
        gt2 * d2 - gsag - u2,
        gt3 * d3 - gsag - u3,
        u0,
        u1,
        u2,
        u3,
    )


@device
def _axpy(y, h, k):
    """y + h k for the 14 non-position states."""
    return (
        *(y[0] + h * k[0], y[1] + h * k[1], y[2] + h * k[2], y[3] + h * k[3]),
        *(y[4] + h * k[4], y[5] + h * k[5], y[6] + h * k[6]),
        *(y[7] + h * k[7], y[8] + h * k[8], y[9] + h * k[9]),
        *(y[10] + h * k[10], y[11] + h * k[11], y[12] + h * k[12], y[13] + h * k[13]),
    )


@device
def _stages(y, u, w, c):
    """The three inner Runge-Kutta stage states and the derivatives at the start and at the first two of them."""
    k1 = derivative(y, u, w, c)
    y2 = _axpy(y, DT2, k1)
    k2 = derivative(y2, u, w, c)
    y3 = _axpy(y, DT2, k2)
    k3 = derivative(y3, u, w, c)
    return k1, y2, k2, y3, k3, _axpy(y, DT, k3)


@device
def rk4(p, y, u, w, c):
    """State after one time step: position 3 and the other 14; the quaternion is normalised, motors stay within [0,
    1]."""
    k1, y2, k2, y3, k3, y4 = _stages(y, u, w, c)
    k4 = derivative(y4, u, w, c)
    n = _axpy(_axpy(_axpy(_axpy(y, DT6, k1), TWO * DT6, k2), TWO * DT6, k3), DT6, k4)
    r = ONE / np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2] + n[3] * n[3])
    position = (
        p[0] + DT6 * (y[4] + TWO * (y2[4] + y3[4]) + y4[4]),
        p[1] + DT6 * (y[5] + TWO * (y2[5] + y3[5]) + y4[5]),
        p[2] + DT6 * (y[6] + TWO * (y2[6] + y3[6]) + y4[6]),
    )
    m0, m1 = min(max(n[10], ZERO), ONE), min(max(n[11], ZERO), ONE)
    m2, m3 = min(max(n[12], ZERO), ONE), min(max(n[13], ZERO), ONE)
    return position, (n[0] * r, n[1] * r, n[2] * r, n[3] * r, n[4], n[5], n[6], n[7], n[8], n[9], m0, m1, m2, m3)


@device
def _scaled(h, k, gp, hv):
    """h k, plus hv gp on the velocity: the gradient that reaches one stage's derivative or state."""
    return (
        *(h * k[0], h * k[1], h * k[2], h * k[3]),
        *(h * k[4] + hv * gp[0], h * k[5] + hv * gp[1], h * k[6] + hv * gp[2]),
        *(h * k[7], h * k[8], h * k[9]),
        *(h * k[10], h * k[11], h * k[12], h * k[13]),
    )


@device
def rk4_adjoint(y, u, w, c, n, gp, g):
    """Gradient (14 states, 4 set points) of one time step; the gradient of the position passes unchanged.

    y: state before, n: quaternion after (4), gp: gradient of the position after (3), g: gradient of the 14 states
    after. The stages are computed again instead of being stored. The norm before normalisation differs from one by
    less than 1e-6."""
    _, y2, _, y3, _, y4 = _stages(y, u, w, c)
    d = n[0] * g[0] + n[1] * g[1] + n[2] * g[2] + n[3] * g[3]
    z = (ZERO, ZERO, ZERO)
    g = (
        *(g[0] - n[0] * d, g[1] - n[1] * d, g[2] - n[2] * d, g[3] - n[3] * d),
        *(g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12], g[13]),
    )
    # Each stage state also moves the position: p' = p + dt/6 (v1 + 2 v2 + 2 v3 + v4).
    s4 = derivative_adjoint(y4, u, c, _scaled(DT6, g, z, ZERO))
    g4 = _scaled(ONE, s4, gp, DT6)
    s3 = derivative_adjoint(y3, u, c, _axpy(_scaled(TWO * DT6, g, z, ZERO), DT, g4))
    g3 = _scaled(ONE, s3, gp, TWO * DT6)
    s2 = derivative_adjoint(y2, u, c, _axpy(_scaled(TWO * DT6, g, z, ZERO), DT2, g3))
    g2 = _scaled(ONE, s2, gp, TWO * DT6)
    s1 = derivative_adjoint(y, u, c, _axpy(_scaled(DT6, g, z, ZERO), DT2, g2))
    total = _axpy(_axpy(_axpy(_axpy(_scaled(ONE, g, gp, DT6), ONE, s1), ONE, g2), ONE, g3), ONE, g4)
    return total, (
        s1[14] + s2[14] + s3[14] + s4[14],
        s1[15] + s2[15] + s3[15] + s4[15],
        s1[16] + s2[16] + s3[16] + s4[16],
        s1[17] + s2[17] + s3[17] + s4[17],
    )


# Lane access: `a` is the flat memory of one block, channel `k` of lane `l` is a[k * LANES + l]. The explicit offsets
# keep every address a constant apart, which is what lets the compiler vectorise.
@device
def load3(a, i):
    return a[i], a[i + LANES], a[i + 2 * LANES]


@device
def load4(a, i):
    return a[i], a[i + LANES], a[i + 2 * LANES], a[i + 3 * LANES]


@device
def load14(a, i):
    return (
        *load4(a, i),
        *load3(a, i + 4 * LANES),
        *load3(a, i + 7 * LANES),
        *load4(a, i + 10 * LANES),
    )


@device
def load_wrench(a, i):
    return (*load3(a, i), *load3(a, i + 3 * LANES))


@device
def load_parameters(a, i):
    return (*load14(a, i), *load14(a, i + 14 * LANES))


@device
def store3(a, i, v):
    a[i] = v[0]
    a[i + LANES] = v[1]
    a[i + 2 * LANES] = v[2]


@device
def store4(a, i, v):
    store3(a, i, v)
    a[i + 3 * LANES] = v[3]


@device
def store14(a, i, v):
    store4(a, i, v)
    store3(a, i + 4 * LANES, (v[4], v[5], v[6]))
    store3(a, i + 7 * LANES, (v[7], v[8], v[9]))
    store4(a, i + 10 * LANES, (v[10], v[11], v[12], v[13]))


@block
def advance(x, u, w, c, out):
    """One time step of one block (flat arrays of STATE, 4, WRENCH, PARAMS and STATE channels); `out` must not overlap
    the inputs."""
    for i in range(LANES):
        p, y = rk4(load3(x, i), load14(x, i + 3 * LANES), load4(u, i), load_wrench(w, i), load_parameters(c, i))
        store3(out, i, p)
        store14(out, i + 3 * LANES, y)


@block
def advance_adjoint(x, u, w, c, after, g, gx, gu):
    """Adjoint of `advance`: from the gradient g of the state after to the gradients gx of the state and gu of the set
    points."""
    for i in range(LANES):
        gp = load3(g, i)
        gy, gs = rk4_adjoint(
            load14(x, i + 3 * LANES),
            load4(u, i),
            load_wrench(w, i),
            load_parameters(c, i),
            load4(after, i + 3 * LANES),
            gp,
            load14(g, i + 3 * LANES),
        )
        store3(gx, i, gp)
        store14(gx, i + 3 * LANES, gy)
        store4(gu, i, gs)


@parallel_kernel
def step_batch(x, u, w, c, out):
    """Advance all blocks by one time step. Flat arrays of [blocks, channels, LANES]: state, set point, wrench,
    parameters; then the state after, which must not overlap the state before (overlap is correct but not
    vectorised)."""
    for b in nb.prange(x.size // (STATE * LANES)):
        xb = x[b * STATE * LANES : (b + 1) * STATE * LANES]
        ub = u[b * 4 * LANES : (b + 1) * 4 * LANES]
        wb = w[b * WRENCH * LANES : (b + 1) * WRENCH * LANES]
        ob = out[b * STATE * LANES : (b + 1) * STATE * LANES]
        advance(xb, ub, wb, c[b * PARAMS * LANES : (b + 1) * PARAMS * LANES], ob)


@parallel_kernel
def step_batch_adjoint(x, u, w, c, after, g, gx, gu):
    """Adjoint of `step_batch` for all blocks (flat arrays as there)."""
    for b in nb.prange(x.size // (STATE * LANES)):
        s = slice(b * STATE * LANES, (b + 1) * STATE * LANES)
        v = slice(b * 4 * LANES, (b + 1) * 4 * LANES)
        wb = w[b * WRENCH * LANES : (b + 1) * WRENCH * LANES]
        cb = c[b * PARAMS * LANES : (b + 1) * PARAMS * LANES]
        advance_adjoint(x[s], u[v], wb, cb, after[s], g[s], gx[s], gu[v])


def to_blocks(columns: np.ndarray) -> np.ndarray:
    """(count, channels) to (blocks, channels, LANES) float32, the last block padded by repeating the last row."""
    count = len(columns)
    padded = np.concatenate([columns, np.repeat(columns[-1:], -count % LANES, axis=0)]) if count % LANES else columns
    return np.ascontiguousarray(padded.reshape(-1, LANES, columns.shape[1]).transpose(0, 2, 1), dtype=np.float32)


def from_blocks(blocks: np.ndarray, count: int) -> np.ndarray:
    """Inverse of `to_blocks`: (blocks, channels, LANES) to (count, channels)."""
    return np.ascontiguousarray(blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])[:count])
