"""Elementary functions and random numbers for kernels: float32, one lane at a time, vectorised by the compiler.

numba's own exp, sin and random numbers do not vectorise over lanes."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from sim.backends.quadrotor import HALF, ONE, TWO, ZERO, device

_f = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = _f(1.44269504), _f(0.693359375), _f(-2.12194440e-4)
_E3, _E4, _E5, _E6, _EMAX = _f(1 / 6), _f(1 / 24), _f(1 / 120), _f(1 / 720), _f(87)
_S3, _S5, _S7, _S9, _S11 = _f(-1 / 6), _f(1 / 120), _f(-1 / 5040), _f(1 / 362880), _f(-1 / 39916800)
_PI, _TURN, _INVERSE_TURN = _f(math.pi), _f(2 * math.pi), _f(0.5 / math.pi)
_BYTE_STD = _f(1 / math.sqrt(4 * (256**2 - 1) / 12))
_BYTE_MEAN, _UNIT24 = _f(510), _f(2.0**-24)
_WEYL, _HASH1, _HASH2 = np.uint32(0x9E3779B9), np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_U16, _U15, _U8, _U24, _BYTE = np.uint32(16), np.uint32(15), np.uint32(8), np.uint32(24), np.uint32(255)


@intrinsic
def _power_of_two(typingctx, n):
    """2**n of an int32 n in [-126, 127], made from the exponent bits (numba's own conversion does not vectorise)."""

    def codegen(context, builder, signature, args):
        biased = builder.add(args[0], context.get_constant(types.int32, 127))
        return builder.bitcast(
            builder.shl(biased, context.get_constant(types.int32, 23)), context.get_value_type(types.float32)
        )

    return types.float32(types.int32), codegen


@device
def exponential(x):
    """exp(x) in float32 to 2e-7 relative, vectorisable: Cody-Waite reduction and a polynomial of degree 6."""
    x = min(max(x, -_EMAX), _EMAX)
    n = np.floor(x * _LOG2E + HALF)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ONE + r * (ONE + r * (HALF + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))))
    return p * _power_of_two(np.int32(n))  # pyright: ignore[reportCallIssue] (numba passes the typing context)


@device
def hyperbolic_tangent(x):
    return ONE - TWO / (exponential(x + x) + ONE)


@device
def sigmoid(x):
    return ONE / (ONE + exponential(-x))


@device
def sine(x):
    """sin(x) to 1e-6 for |x| below about 100 rad: reduction to half a turn, reflection, polynomial of degree 11."""
    x = x - _TURN * np.floor(x * _INVERSE_TURN + HALF)
    x = min(max(x, -_PI - x), _PI - x)
    s = x * x
    return x * (ONE + s * (_S3 + s * (_S5 + s * (_S7 + s * (_S9 + s * _S11)))))


@device
def next_random(state):
    """A hash (Wellons' lowbias32) of a Weyl counter: the new counter and 32 random bits."""
    state = np.uint32(state + _WEYL)
    x = np.uint32((state ^ np.uint32(state >> _U16)) * _HASH1)
    x = np.uint32((x ^ np.uint32(x >> _U15)) * _HASH2)
    return state, np.uint32(x ^ np.uint32(x >> _U16))


@device
def gaussian(bits):
    """Sum of the four bytes, centred and scaled to unit variance: normal enough for noise, at most 3.5 sigma,
    vectorisable."""
    total = (bits & _BYTE) + (np.uint32(bits >> _U8) & _BYTE) + (np.uint32(bits >> _U16) & _BYTE) + (bits >> _U24)
    return (_f(np.int32(total)) - _BYTE_MEAN) * _BYTE_STD


@nb.njit(error_model="numpy")
def uniform(rng, lane, low, high):
    """One uniform number for one lane (scalar code, for starts)."""
    rng[lane], bits = next_random(rng[lane])
    return low + (high - low) * _f(bits >> _U8) * _UNIT24


@nb.njit(error_model="numpy")
def normal(rng, lane):
    """One normal number for one lane by Box-Muller (scalar code, for starts)."""
    u = uniform(rng, lane, ZERO, ONE)
    return math.sqrt(_f(-2.0) * math.log(u + _f(1e-9))) * math.cos(_TURN * uniform(rng, lane, ZERO, ONE))
