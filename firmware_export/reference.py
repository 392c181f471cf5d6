"""What the C code computes, in numpy, operation by operation in the same order: the two agree bit for bit.

The order: a sum starts at its bias (or at what it is added to) and takes the columns of its matrix from first to last;
each product and each sum is rounded to float32. With i8 the sum starts at 0, and the row's scale and the bias follow.
For a GRU, r and z sum the bias, then the inputs, then the state; the candidate is the state's sum, times r, plus the
bias of the inputs, plus the inputs. For an LSTM each gate sums bias, inputs and state. Gates are never computed one by
one: they enter fractions as powers of e, because a division takes as long as 14 additions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .graph import Dense, Element, Gru, Lstm, Normalize, Operand, Pointwise, Program, Step
from .numerics import COEFFICIENTS, LOG2_E, ROUNDING, SMALLEST_NORMAL, SQRT_GUESS, SQRT_STEPS, TURNS_LIMIT
from .weights import Weights

F = np.float32
ONE, ZERO = F(1), F(0)
Buffers = dict[str, np.ndarray]
"""What has been computed so far: (batch, size) by name."""


class Reference:
    """A program that is stepped like a policy."""

    def __init__(self, program: Program, weights: Weights, state_input: str, state_output: str) -> None:
        self._program, self._weights = program, weights
        self._ports = state_input, state_output

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The actions (batch, outputs) and the next state (batch, state), both float32."""
        state_input, state_output = self._ports
        buffers = {"obs": np.asarray(obs, dtype=F), state_input: np.asarray(h, dtype=F)}  # nothing, without memory
        with np.errstate(all="ignore"):
            for step in self._program.steps:
                buffers[step.result] = _run(step, self._weights, buffers)
        outputs = self._program.outputs
        return _read(outputs["action"], buffers), _read(outputs.get(state_output, []), buffers)

    def replay(self, observations: np.ndarray) -> np.ndarray:
        """The actions (steps, batch, outputs) of observations (steps, batch, inputs) from a reset on."""
        h = np.tile(self._weights.vectors["initial"], (observations.shape[1], 1))
        actions = []
        for obs in observations:
            action, h = self.step(obs, h)
            actions.append(action)
        return np.stack(actions)


def _read(operand: Operand, buffers: Buffers) -> np.ndarray:
    batch = len(buffers["obs"])
    columns = [buffers[x.buffer][:, x.index] if isinstance(x, Element) else np.full(batch, x, dtype=F) for x in operand]
    return np.stack(columns, axis=1) if columns else np.empty((batch, 0), F)


def _run(step: Step, weights: Weights, buffers: Buffers) -> np.ndarray:
    if isinstance(step, Pointwise):
        return np.asarray(_POINTWISE[step.kind](*(_read(operand, buffers) for operand in step.operands)), dtype=F)
    operand = _read(step.operand, buffers)
    if isinstance(step, Dense):
        return _sum(weights, f"{step.result}_weight", weights.vectors[f"{step.result}_bias"], operand)
    if isinstance(step, Normalize):
        return _normalize(step, weights, operand)
    if isinstance(step, Gru):
        return _gru(step, weights, operand, _read(step.state, buffers))
    return _lstm(step, weights, operand, _read(step.hidden, buffers), _read(step.cell, buffers))


def _sum(weights: Weights, name: str, start: np.ndarray, x: np.ndarray) -> np.ndarray:
    """start + matrix x, (batch, rows)."""
    matrix = weights.matrices[name]
    total = np.zeros((len(x), len(matrix.weight)), F) if matrix.scale is not None else start + np.zeros((len(x), 1), F)
    for column, value in zip(matrix.weight.T, x.T, strict=True):
        total = total + column * value[:, None]
    return total if matrix.scale is None else start + matrix.scale * total


def _gru(step: Gru, weights: Weights, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """(1 - sigmoid(z)) tanh(n) + sigmoid(z) h with n = bias + inputs + sigmoid(r) state."""
    name, bias = step.result, weights.vectors
    z, r = np.split(_gates(step, weights, x, h), 2, axis=1)
    candidate = _sum(weights, f"{name}_new_state", bias[f"{name}_new_state_bias"], h)
    candidate = bias[f"{name}_new_input_bias"] + candidate / (ONE + exp(-r))
    y, e = exp(-z), exp(F(-2) * _sum(weights, f"{name}_new_input", candidate, x))
    return (y * (ONE - e) + h * (ONE + e)) / ((ONE + y) * (ONE + e))


def _lstm(step: Lstm, weights: Weights, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
    """sigmoid(o) tanh(c) after c = sigmoid(f) c + sigmoid(i) tanh(g)."""
    i, o, f, g = (gate[:, : step.units] for gate in np.split(_gates(step, weights, x, h), 4, axis=1))
    i, o, f, g = exp(-i), exp(-o), exp(-f), exp(F(-2) * g)
    cell = c / (ONE + f) + (ONE - g) / ((ONE + i) * (ONE + g))
    e = exp(F(-2) * cell)
    return np.concatenate([(ONE - e) / ((ONE + o) * (ONE + e)), cell], axis=1)


def _gates(step: Gru | Lstm, weights: Weights, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    name = f"{step.result}_gates"
    return _sum(weights, name, weights.vectors[f"{name}_bias"], np.hstack([x, h]))


def _normalize(step: Normalize, weights: Weights, x: np.ndarray) -> np.ndarray:
    count = F(step.size)

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.zeros(len(values), F)
        for column in values.T:
            total = total + column
        return (total / count)[:, None]

    centred = x - mean(x)
    factor = ONE / sqrt(mean(centred * centred) + F(step.epsilon))
    return weights.vectors[f"{step.result}_scale"] * (centred * factor) + weights.vectors[f"{step.result}_bias"]


def exp(x: np.ndarray) -> np.ndarray:
    """e^x to the limit of its power of 2; what is not finite becomes NaN."""
    turns = x * F(LOG2_E)
    whole = (turns + F(ROUNDING)) - F(ROUNDING)
    within = (whole >= -TURNS_LIMIT) & (whole <= TURNS_LIMIT - 1)
    turns = np.where(within, turns, np.clip(turns, -F(TURNS_LIMIT), F(TURNS_LIMIT - 1))).astype(F)
    shifted = turns + F(ROUNDING)
    rest = turns - (shifted - F(ROUNDING))
    total = np.full_like(rest, F(COEFFICIENTS[-1]))
    for coefficient in COEFFICIENTS[-2::-1]:
        total = total * rest + F(coefficient)
    power = (shifted.view(np.uint32) << np.uint32(23)).view(F)
    return power + power * (total * rest)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return ONE / (ONE + exp(-x))


def tanh(x: np.ndarray) -> np.ndarray:
    e = exp(F(-2) * x)
    return (ONE - e) / (ONE + e)


def sqrt(x: np.ndarray) -> np.ndarray:
    """Newton's method on the same first guess as in C."""
    y = ((x.astype(F).view(np.uint32) >> np.uint32(1)) + np.uint32(SQRT_GUESS)).view(F)
    for _ in range(SQRT_STEPS):
        y = F(0.5) * (y + x / y)
    return np.where(x < F(SMALLEST_NORMAL), np.where(x < 0, F(np.nan), ZERO), y).astype(F)


_POINTWISE: dict[str, Callable[..., np.ndarray]] = {
    "Relu": lambda x: np.where(np.signbit(x), ZERO, x),
    "Elu": lambda x, alpha: np.where(x < 0, alpha * (exp(x) - ONE), x),
    "Tanh": tanh,
    "Sigmoid": sigmoid,
    "Sqrt": sqrt,
    "Abs": lambda x: np.where(x < 0, -x, x),
    "Reciprocal": lambda x: ONE / x,
    "Neg": lambda x: -x,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Min": lambda a, b: np.where(a > b, b, a),
    "Max": lambda a, b: np.where(a < b, b, a),
    "Clip": lambda x, low, high: np.where(np.where(x < low, low, x) > high, high, np.where(x < low, low, x)),
    "Less": lambda a, b: np.where(a < b, ONE, ZERO),
    "Greater": lambda a, b: np.where(a > b, ONE, ZERO),
    "GreaterOrEqual": lambda a, b: np.where(a >= b, ONE, ZERO),
    "Where": lambda condition, a, b: np.where(condition != 0, a, b),
}
