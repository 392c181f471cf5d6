"""The constants of the arithmetic that the C code and its reference in Python share, bit for bit.

e^x is 2^t with t = x log2(e). Adding ROUNDING, a large float, leaves the whole part of t, and the offset of the
exponent, in the lowest bits of the sum: so no conversion to integers is needed, and shifting these bits gives
2^(whole part). A polynomial does the rest, |r| <= 1/2. Its coefficients are the fit with the smallest relative error,
9e-8, that is exact at 0. The rounding of t costs up to 1e-6 of e^x where t is near 32, but there neither sigmoid, tanh
nor ELU feels it: they are within 2e-7 everywhere.
"""

from __future__ import annotations

import math

import numpy as np

TURNS_LIMIT = 32.0
"""t is kept from -32 to 31: 1 + 2^-32 is 1, and products of two such powers do not overflow."""

ROUNDING = 12582912.0 + 127.0
LOG2_E = float(np.float32(math.log2(math.e)))
COEFFICIENTS = (0.693147004, 0.240222424, 0.0555073358, 0.00967151299, 0.00132647273)
"""Of r, r^2, ...; that of r^0 is 1."""

SQRT_GUESS = 0x1FBD1DF5
"""Added to half the bits of a float, it gives the bits of its square root to 4 %; see `sqrt` in the C code."""
SQRT_STEPS = 3
"""Steps of Newton's method; each squares the error."""
SMALLEST_NORMAL = 1.17549435e-38
"""What is smaller has the root 0, because processors differ in what they make of such numbers."""
