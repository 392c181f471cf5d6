"""The same program in float64 with the library's exp and tanh: what the policy file means, to measure C code against.

Also the long sequences of observations that this is measured on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .graph import Dense, Element, Gru, Lstm, Normalize, Operand, Pointwise, Program, Step

STEPS, SEQUENCES = 500, 4


def observations(golden: np.ndarray, steps: int = STEPS, sequences: int = SEQUENCES) -> np.ndarray:
    """Long recurrent sequences (steps, sequences, inputs): the golden ones over and over, with noise on top.

    Args:
        golden: Observations of the policy file's own test, (steps, sequences, inputs).
        steps: Length.
        sequences: How many; each begins at another place.
    """
    rng = np.random.default_rng(0)
    flat = golden.transpose(1, 0, 2).reshape(-1, golden.shape[2])
    places = (np.arange(steps)[:, None] + np.arange(sequences) * len(flat) // sequences) % len(flat)
    noise = rng.uniform(-0.1, 0.1, (steps, sequences, golden.shape[2])) * flat.std(axis=0)
    return (flat[places] + noise).astype(np.float32)


def replay(program: Program, initial: np.ndarray, ports: tuple[str, str], obs: np.ndarray) -> np.ndarray:
    """The actions (steps, sequences, outputs) in float64 of observations (steps, sequences, inputs) after a reset.

    Args:
        program: What to compute.
        initial: State after a reset.
        ports: Names of the state's input and output.
        obs: Observations.
    """
    state = np.tile(np.asarray(initial, dtype=np.float64), (obs.shape[1], 1))
    actions = []
    for row in obs.astype(np.float64):
        buffers = {"obs": row, ports[0]: state}
        for step in program.steps:
            buffers[step.result] = _run(step, buffers)
        actions.append(_read(program.outputs["action"], buffers))
        state = _read(program.outputs.get(ports[1], []), buffers)
    return np.stack(actions)


def _read(operand: Operand, buffers: dict[str, np.ndarray]) -> np.ndarray:
    batch = len(buffers["obs"])
    columns = [buffers[x.buffer][:, x.index] if isinstance(x, Element) else np.full(batch, x) for x in operand]
    return np.stack(columns, axis=1) if columns else np.empty((batch, 0))


def _run(step: Step, buffers: dict[str, np.ndarray]) -> np.ndarray:
    if isinstance(step, Pointwise):
        return np.asarray(_POINTWISE[step.kind](*(_read(operand, buffers) for operand in step.operands)), dtype=float)
    x = _read(step.operand, buffers)
    if isinstance(step, Dense):
        return x @ step.weight.T.astype(float) + step.bias
    if isinstance(step, Normalize):
        centred = x - x.mean(axis=1, keepdims=True)
        return step.scale * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + step.epsilon) + step.bias
    if isinstance(step, Gru):
        h = _read(step.state, buffers)
        zi, ri, ni = np.split(x @ step.input_weight.T.astype(float) + step.input_bias, 3, axis=1)
        zh, rh, nh = np.split(h @ step.state_weight.T.astype(float) + step.state_bias, 3, axis=1)
        z = _sigmoid(zi + zh)
        return (1 - z) * np.tanh(ni + _sigmoid(ri + rh) * nh) + z * h
    assert isinstance(step, Lstm)
    h, c = _read(step.hidden, buffers), _read(step.cell, buffers)
    gates = x @ step.input_weight.T.astype(float) + h @ step.state_weight.T.astype(float) + step.bias
    i, o, f, g = np.split(gates, 4, axis=1)
    cell = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return np.hstack([_sigmoid(o) * np.tanh(cell), cell])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


_POINTWISE: dict[str, Callable[..., np.ndarray]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Elu": lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "Tanh": np.tanh,
    "Sigmoid": _sigmoid,
    "Sqrt": np.sqrt,
    "Abs": np.abs,
    "Reciprocal": lambda x: 1 / x,
    "Neg": np.negative,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Min": np.minimum,
    "Max": np.maximum,
    "Clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "Less": np.less,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Where": lambda condition, a, b: np.where(condition != 0, a, b),
}
