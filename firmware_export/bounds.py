"""How large each number can become, so that only what cannot be proven finite is checked while the policy runs.

Inputs are checked: their magnitude is below `LARGEST`. From there intervals are carried through the program; weights
count with the largest magnitude that this policy's may have, so that the proof also holds for other weights of the same
layout. Where a result might not be finite, the C code checks it and refuses to answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .graph import Dense, Element, Gru, Lstm, Normalize, Operand, Pointwise, Program, Step, reads

LARGEST = 2.0**32
"""Magnitude below which observations, states and checked results lie; far beyond anything in SI units."""
LARGEST_BITS = int(np.float32(LARGEST).view(np.uint32))
FINITE = 2.0**126
"""Above it a result counts as perhaps not finite; below float's maximum, as the intervals ignore rounding."""
COMMON_WEIGHT = 64.0
"""The bound of weights is at least this, so that policies of one kind have one layout."""

Interval = tuple[float, float]
ANYTHING: Interval = (-math.inf, math.inf)
CHECKED: Interval = (-LARGEST, LARGEST)


def weight_bound(vectors: dict[str, np.ndarray], matrices: dict[str, np.ndarray]) -> float:
    """A power of 2 that no weight exceeds."""
    largest = max((float(np.abs(array).max(initial=0)) for array in (*vectors.values(), *matrices.values())), default=0)
    return max(COMMON_WEIGHT, 2.0 ** math.ceil(math.log2(max(largest, 1.0))))


class Bounds:
    """The intervals of all results, and which steps need a check."""

    def __init__(self, program: Program, inputs: tuple[str, ...], weight: float) -> None:
        self._weight = weight
        self._inputs = inputs
        self._intervals: dict[Element, Interval] = {}
        self.checked: set[str] = set()
        """Results that are checked at run time, because something in them might not be finite."""
        for step in program.steps:
            results = self._step(step)
            if any(not _finite(interval) for interval in results):
                self.checked.add(step.result)
                results = [_within(interval, LARGEST) for interval in results]
            self._intervals |= {Element(step.result, index): result for index, result in enumerate(results)}

    def _of(self, x: Element | float) -> Interval:
        if not isinstance(x, Element):
            return (x, x)
        return CHECKED if x.buffer in self._inputs else self._intervals[x]

    def _step(self, step: Step) -> list[Interval]:
        if isinstance(step, Pointwise):
            return [self._pointwise(step.kind, column) for column in zip(*step.operands, strict=True)]
        if isinstance(step, Dense):
            return [self._sum(step.operand)] * step.size
        if isinstance(step, Normalize):
            # The centred number over its own deviation is at most the root of their count.
            total = self._weight * (math.sqrt(step.size) * 2 + 1)
            squares = step.size * (2 * max(map(_magnitude, map(self._of, step.operand)))) ** 2
            return [(-total, total) if squares < FINITE else ANYTHING] * step.size
        state = [x for operand in reads(step)[1:] for x in operand]
        if not _finite(self._sum([*step.operand, *state])):
            return [ANYTHING] * step.size
        largest = max(map(_magnitude, map(self._of, state)))
        if isinstance(step, Gru):  # between its state and a tanh
            return [_symmetric(max(1.0, largest))] * step.size
        assert isinstance(step, Lstm)
        return [_symmetric(1.0)] * step.units + [_symmetric(1.0 + largest)] * step.units

    def _sum(self, operand: Operand) -> Interval:
        return _symmetric(self._weight * (1.0 + sum(_magnitude(self._of(x)) for x in operand)))

    def _pointwise(self, kind: str, operands: tuple[Element | float, ...]) -> Interval:
        intervals = [self._of(x) for x in operands]
        if any(math.isinf(end) for interval in intervals for end in interval):
            return ANYTHING
        if kind == "Mul" and operands[0] == operands[1]:
            return (0.0, _magnitude(intervals[0]) ** 2)
        return _RULES[kind](*intervals)


def _finite(interval: Interval) -> bool:
    return _magnitude(interval) < FINITE


def _magnitude(interval: Interval) -> float:
    return max(abs(interval[0]), abs(interval[1]))


def _symmetric(magnitude: float) -> Interval:
    return (-magnitude, magnitude)


def _within(interval: Interval, magnitude: float) -> Interval:
    return (max(interval[0], -magnitude), min(interval[1], magnitude))


def _ends(a: Interval, b: Interval, function: Callable[[float, float], float]) -> Interval:
    values = [function(x, y) for x in a for y in b]
    return (min(values), max(values))


def _quotient(a: Interval, b: Interval) -> Interval:
    return _ends(a, b, lambda x, y: x / y) if b[0] > 0 or b[1] < 0 else ANYTHING


def _hull(a: Interval, b: Interval) -> Interval:
    return (min(a[0], b[0]), max(a[1], b[1]))


def _minimum(a: Interval, b: Interval) -> Interval:
    return (min(a[0], b[0]), min(a[1], b[1]))


def _maximum(a: Interval, b: Interval) -> Interval:
    return (max(a[0], b[0]), max(a[1], b[1]))


_RULES: dict[str, Callable[..., Interval]] = {
    "Relu": lambda x: (max(x[0], 0.0), max(x[1], 0.0)),
    "Elu": lambda x, alpha: (min(x[0], -_magnitude(alpha)), max(x[1], _magnitude(alpha))),
    "Tanh": lambda x: (-1.0, 1.0),
    "Sigmoid": lambda x: (0.0, 1.0),
    "Sqrt": lambda x: (math.sqrt(x[0]), math.sqrt(x[1])) if x[0] >= 0 else ANYTHING,
    "Abs": lambda x: (0.0, _magnitude(x)),
    "Reciprocal": lambda x: _quotient((1.0, 1.0), x),
    "Neg": lambda x: (-x[1], -x[0]),
    "Add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "Mul": lambda a, b: _ends(a, b, lambda x, y: x * y),
    "Div": _quotient,
    "Min": _minimum,
    "Max": _maximum,
    "Clip": lambda x, low, high: _minimum(_maximum(x, low), high),
    "Less": lambda a, b: (0.0, 1.0),
    "Greater": lambda a, b: (0.0, 1.0),
    "GreaterOrEqual": lambda a, b: (0.0, 1.0),
    "Where": lambda condition, a, b: _hull(a, b),
}
