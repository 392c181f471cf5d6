"""Reads an ONNX graph as a short list of steps on buffers of known size, ready to be written out as straight-line C.

Whatever only moves numbers about (slicing, gathering, concatenating, reshaping) is resolved here: a tensor is an array
of references to elements of buffers, and moving them costs nothing at run time. What remains are pointwise operations,
dense layers, normalised layers, GRUs and LSTMs. The batch dimension is 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OLDEST_OPSET = 13  # since when axes, splits and bounds are inputs and no longer attributes


class ExportError(ValueError):
    """The policy cannot be translated."""


@dataclass(frozen=True)
class Element:
    """One number in a buffer."""

    buffer: str
    index: int


Operand = list[Element | float]
"""The numbers that a step reads, in order: elements of buffers, or constants."""


@dataclass(frozen=True)
class Pointwise:
    """result[i] = kind(operands[0][i], ...)"""

    result: str
    kind: str
    operands: tuple[Operand, ...]
    node: str

    @property
    def size(self) -> int:
        return len(self.operands[0])


@dataclass(frozen=True)
class Dense:
    """result = weight operand + bias"""

    result: str
    operand: Operand
    weight: np.ndarray  # (size, len(operand))
    bias: np.ndarray  # (size,)
    node: str

    @property
    def size(self) -> int:
        return len(self.bias)


@dataclass(frozen=True)
class Gru:
    """result = the next state of a GRU whose gates stand in the order of ONNX: update, reset, new."""

    result: str
    operand: Operand
    state: Operand
    input_weight: np.ndarray  # (3 size, len(operand))
    state_weight: np.ndarray  # (3 size, size)
    input_bias: np.ndarray  # (3 size,)
    state_bias: np.ndarray  # (3 size,)
    node: str

    @property
    def size(self) -> int:
        return len(self.state)


@dataclass(frozen=True)
class Lstm:
    """result = the next hidden state of an LSTM, then its next cell; gates as in ONNX: input, output, forget, cell."""

    result: str
    operand: Operand
    hidden: Operand
    cell: Operand
    input_weight: np.ndarray  # (4 units, len(operand))
    state_weight: np.ndarray  # (4 units, units)
    bias: np.ndarray  # (4 units,), of the inputs and of the state together
    node: str

    @property
    def units(self) -> int:
        return len(self.hidden)

    @property
    def stride(self) -> int:
        """Rows from gate to gate in the C code: even, because powers are computed in pairs."""
        return self.units + self.units % 2

    @property
    def size(self) -> int:
        return 2 * self.units


@dataclass(frozen=True)
class Normalize:
    """result = scale (operand - its mean) / sqrt(its variance + epsilon) + bias"""

    result: str
    operand: Operand
    scale: np.ndarray  # (size,)
    bias: np.ndarray  # (size,)
    epsilon: float
    node: str

    @property
    def size(self) -> int:
        return len(self.operand)


Step = Pointwise | Dense | Normalize | Gru | Lstm


@dataclass
class Program:
    """What to compute, in order."""

    inputs: dict[str, int] = field(default_factory=dict)
    """Size of each input buffer."""
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Operand] = field(default_factory=dict)


def parse(model: onnx.ModelProto) -> Program:
    """The program of a model, or ExportError that names the node that cannot be translated."""
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx") or opset.version < OLDEST_OPSET:
            raise ExportError(
                f"the model uses opset {opset.domain or 'ai.onnx'} {opset.version}; "
                f"allowed: ai.onnx {OLDEST_OPSET} or newer"
            )
    graph = model.graph
    translation = _Translation()
    for array in graph.initializer:
        translation.tensors[array.name] = numpy_helper.to_array(array)
    for value in graph.input:
        if value.name not in translation.tensors:
            translation.add_input(value)
    nodes = [(node, node.name or f"node {index}") for index, node in enumerate(graph.node)]
    if unknown := [f"{name} is a {node.op_type}" for node, name in nodes if node.op_type not in _HANDLERS]:
        raise ExportError(f"{' and '.join(unknown)}; allowed: {', '.join(sorted(_HANDLERS))}")
    for node, name in nodes:
        translation.add_node(node, name)
    for value in graph.output:
        translation.program.outputs[value.name] = _flat(translation.tensors[value.name])
    _prune(translation.program)
    for step in translation.program.steps:
        for x in (x for operand in reads(step) for x in operand):
            if not isinstance(x, Element) and not np.isfinite(np.float32(x)):
                raise ExportError(f"{step.node} reads the number {x:g}; allowed: finite numbers")
    return translation.program


def reads(step: Step) -> tuple[Operand, ...]:
    """Every operand of a step."""
    if isinstance(step, Pointwise):
        return step.operands
    if isinstance(step, Gru):
        return (step.operand, step.state)
    if isinstance(step, Lstm):
        return (step.operand, step.hidden, step.cell)
    return (step.operand,)


def _prune(program: Program) -> None:
    """Drops the steps that no output depends on."""
    needed = {x.buffer for operand in program.outputs.values() for x in operand if isinstance(x, Element)}
    kept: list[Step] = []
    for step in reversed(program.steps):
        if step.result in needed:
            kept.insert(0, step)
            needed |= {x.buffer for operand in reads(step) for x in operand if isinstance(x, Element)}
    program.steps[:] = kept


class _Translation:
    """The program so far, and every tensor that has been seen: numbers, or an object array of elements."""

    def __init__(self) -> None:
        self.program = Program()
        self.tensors: dict[str, np.ndarray] = {"": np.empty(0)}  # an optional input that is left out

    def add_input(self, value: onnx.ValueInfoProto) -> None:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(shape) != 2 or shape[0] > 1 or shape[1] < 1:
            raise ExportError(f"input {value.name} has shape {shape}; allowed: [batch, a fixed size]")
        self.program.inputs[value.name] = shape[1]
        self.tensors[value.name] = _elements(value.name, (1, shape[1]))

    def add_node(self, node: onnx.NodeProto, name: str) -> None:
        try:
            results = _HANDLERS[node.op_type](self, node, name)
        except _Unsupported as error:
            raise ExportError(f"{name} is a {node.op_type} with {error}") from error
        for output, result in zip(node.output, results, strict=False):
            self.tensors[output] = result

    def read(self, node: onnx.NodeProto, position: int) -> np.ndarray | None:
        """An input of the node, or None when it is left out."""
        if position >= len(node.input) or not node.input[position]:
            return None
        return self.tensors[node.input[position]]

    def need(self, node: onnx.NodeProto, position: int) -> np.ndarray:
        tensor = self.read(node, position)
        if tensor is None:
            raise _Unsupported(f"no input {position}; allowed: all of its inputs")
        return tensor

    def constant(self, node: onnx.NodeProto, position: int) -> np.ndarray | None:
        """An input that must be numbers that are known now, or None when it is left out."""
        tensor = self.read(node, position)
        if tensor is not None and tensor.dtype == object:
            raise _Unsupported(f"an input {position} that is computed; allowed: constants")
        return tensor

    def integers(self, node: onnx.NodeProto, position: int) -> list[int] | None:
        tensor = self.constant(node, position)
        return None if tensor is None else [int(x) for x in tensor.ravel()]

    def buffer(self, name: str) -> str:
        """A name in C for the next step's result; its number keeps it apart from keywords and from other nodes."""
        stem = re.sub(r"\W+|_+", "_", name, flags=re.ASCII).strip("_")
        return f"{stem if stem[:1].isalpha() else 'node'}_{len(self.program.steps)}"


class _Unsupported(Exception):
    """Why a node cannot be translated; the caller knows its name."""


def _elements(buffer: str, shape: tuple[int, ...]) -> np.ndarray:
    elements = np.empty(int(np.prod(shape)), dtype=object)
    elements[:] = [Element(buffer, index) for index in range(len(elements))]
    return elements.reshape(shape)


def _flat(tensor: np.ndarray) -> Operand:
    return [x if isinstance(x, Element) else float(x) for x in tensor.ravel()]


def _attributes(node: onnx.NodeProto, **defaults: Any) -> dict[str, Any]:
    """The node's attributes over the defaults; one that has no default is not supported."""
    values = dict(defaults)
    for attribute in node.attribute:
        if attribute.name not in defaults:
            raise _Unsupported(f"attribute {attribute.name}; allowed: {', '.join(defaults) or 'none'}")
        values[attribute.name] = helper.get_attribute_value(attribute)
    return values


def _require(node: onnx.NodeProto, **only: Any) -> None:
    """Raises unless the attributes have exactly these values, which are the only ones that are translated."""
    for name, value in _attributes(node, **only).items():
        if value != only[name]:
            raise _Unsupported(f"{name} = {value}; allowed: {only[name]}")


# Moving numbers about


def _identity(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    return [t.need(node, 0)]


def _constant(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    value = _attributes(node, value=None)["value"]
    if value is None:
        raise _Unsupported("no value; allowed: a tensor")
    return [numpy_helper.to_array(value)]


def _gather(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    indices = np.asarray(t.constant(node, 1), dtype=int)
    return [np.take(t.need(node, 0), indices, axis=_attributes(node, axis=0)["axis"])]


def _slice(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    tensor = t.need(node, 0)
    starts, ends = t.integers(node, 1) or [], t.integers(node, 2) or []
    axes = t.integers(node, 3) or list(range(len(starts)))
    steps = t.integers(node, 4) or [1] * len(starts)
    if min(steps) < 1:
        raise _Unsupported(f"steps {steps}; allowed: 1 or more")
    cut = [slice(None)] * tensor.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cut[axis] = slice(start, end, step)
    return [tensor[tuple(cut)]]


def _split(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    tensor = t.need(node, 0)
    axis = _attributes(node, axis=0, num_outputs=0)["axis"]
    sizes = t.integers(node, 1)
    if sizes is None:
        largest = -(-tensor.shape[axis] // len(node.output))
        sizes = [largest] * len(node.output)
    return np.split(tensor, np.cumsum(sizes)[:-1], axis=axis)


def _concat(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    axis = _attributes(node, axis=0)["axis"]
    return [np.concatenate([t.need(node, position) for position in range(len(node.input))], axis=axis)]


def _reshape(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    _require(node, allowzero=0)
    tensor, shape = t.need(node, 0), t.integers(node, 1) or []
    return [tensor.reshape([tensor.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])]


def _squeeze(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    axes = t.integers(node, 1)
    return [np.squeeze(t.need(node, 0), None if axes is None else tuple(axes))]


def _unsqueeze(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    return [np.expand_dims(t.need(node, 0), tuple(t.integers(node, 1) or []))]


# Computing


def _pointwise(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    _require(node)
    operands = [t.need(node, position) for position in range(len(node.input))]
    return [_step(t, node.op_type, operands, name)]


def _step(t: _Translation, kind: str, operands: Sequence[np.ndarray], name: str) -> np.ndarray:
    """Appends a pointwise step on operands of any shapes that broadcast."""
    spread = np.broadcast_arrays(*operands)
    result = t.buffer(name)
    t.program.steps.append(Pointwise(result, kind, tuple(_flat(operand) for operand in spread), name))
    return _elements(result, spread[0].shape)


def _extremum(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    """Min and Max of any number of inputs, two at a time."""
    _require(node)
    result = t.need(node, 0)
    for position in range(1, len(node.input)):
        result = _step(t, node.op_type, [result, t.need(node, position)], name)
    return [result]


def _clip(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    _require(node)
    result = t.need(node, 0)
    if t.read(node, 1) is not None and t.read(node, 2) is not None:
        return [_step(t, "Clip", [result, t.need(node, 1), t.need(node, 2)], name)]
    for position, kind in ((1, "Max"), (2, "Min")):
        bound = t.read(node, position)
        if bound is not None:
            result = _step(t, kind, [result, bound], name)
    return [result]


def _dense(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    """Gemm and MatMul by a constant matrix."""
    transposed = False
    if node.op_type == "Gemm":
        transposed = bool(_attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0)["transB"])
        _require(node, alpha=1.0, beta=1.0, transA=0, transB=int(transposed))
    operand, matrix, bias = t.need(node, 0), t.constant(node, 1), t.constant(node, 2)
    if operand.size != operand.shape[-1] or matrix is None or matrix.ndim != 2:
        raise _Unsupported(f"a first input of shape {operand.shape}; allowed: a vector, times a constant matrix")
    weight = matrix if transposed else matrix.T
    bias = np.broadcast_to(0.0 if bias is None else bias.ravel(), len(weight))
    result = t.buffer(name)
    t.program.steps.append(Dense(result, _flat(operand), weight, bias, name))
    return [_elements(result, (*operand.shape[:-1], len(weight)))]


def _gru(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    size = _attributes(node, hidden_size=0, linear_before_reset=0, direction=b"forward", layout=0)["hidden_size"]
    _require(node, hidden_size=size, linear_before_reset=1, direction=b"forward", layout=0)
    if not any(attribute.name == "linear_before_reset" for attribute in node.attribute):
        raise _Unsupported("linear_before_reset = 0; allowed: 1")
    operand, input_weight, state_weight = t.need(node, 0), t.constant(node, 1), t.constant(node, 2)
    bias, lengths, state = t.constant(node, 3), t.read(node, 4), t.read(node, 5)
    if input_weight is None or state_weight is None or operand.shape[:2] != (1, 1) or lengths is not None:
        raise _Unsupported(f"an input of shape {operand.shape}; allowed: one step of one sequence")
    if state is None:
        state = np.zeros((1, 1, size), dtype=np.float32)
    input_bias, state_bias = np.split(np.zeros(6 * size, np.float32) if bias is None else bias[0], 2)
    result = t.buffer(name)
    weights = (input_weight[0], state_weight[0], input_bias, state_bias)
    t.program.steps.append(Gru(result, _flat(operand), _flat(state), *weights, name))
    return [_elements(result, (1, 1, 1, size)), _elements(result, (1, 1, size))]


def _lstm(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    size = _attributes(node, hidden_size=0, direction=b"forward", layout=0, input_forget=0)["hidden_size"]
    _require(node, hidden_size=size, direction=b"forward", layout=0, input_forget=0)
    operand, input_weight, state_weight = t.need(node, 0), t.constant(node, 1), t.constant(node, 2)
    bias, lengths, peepholes = t.constant(node, 3), t.read(node, 4), t.read(node, 7)
    if input_weight is None or state_weight is None or operand.shape[:2] != (1, 1) or lengths is not None:
        raise _Unsupported(f"an input of shape {operand.shape}; allowed: one step of one sequence")
    if peepholes is not None:
        raise _Unsupported("peepholes; allowed: none")
    states = [t.read(node, position) for position in (5, 6)]
    hidden, cell = (np.zeros((1, 1, size), np.float32) if state is None else state for state in states)
    input_bias, state_bias = np.split(np.zeros(8 * size, np.float32) if bias is None else bias[0], 2)
    result = t.buffer(name)
    weights = (input_weight[0], state_weight[0], input_bias + state_bias)
    t.program.steps.append(Lstm(result, _flat(operand), _flat(hidden), _flat(cell), *weights, name))
    after = _elements(result, (2, 1, 1, size))
    return [after[:1], after[0], after[1]]


def _layer_normalization(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    values = _attributes(node, axis=-1, epsilon=1e-5, stash_type=1)
    operand, scale, bias = t.need(node, 0), t.constant(node, 1), t.constant(node, 2)
    if operand.size != operand.shape[-1] or values["axis"] not in (-1, operand.ndim - 1) or scale is None:
        raise _Unsupported(f"axis {values['axis']} of shape {operand.shape}; allowed: the last, of a vector")
    result, size = t.buffer(name), operand.size
    scales, biases = (
        np.broadcast_to(default if x is None else x.ravel(), size) for x, default in ((scale, 1), (bias, 0))
    )
    t.program.steps.append(Normalize(result, _flat(operand), scales, biases, values["epsilon"], name))
    return [_elements(result, operand.shape)]


def _batch_normalization(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    """After training it is a factor and an addend per number."""
    epsilon = _attributes(node, epsilon=1e-5, momentum=0.9, training_mode=0)["epsilon"]
    operand, constants = t.need(node, 0), [t.constant(node, position) for position in range(1, 5)]
    if operand.size != operand.shape[1]:
        raise _Unsupported(f"an input of shape {operand.shape}; allowed: a vector")
    scale, bias, mean, variance = (np.asarray(x, dtype=np.float64) for x in constants)
    factor = scale / np.sqrt(variance + epsilon)
    product = _step(t, "Mul", [operand, factor.astype(np.float32).reshape(operand.shape)], name)
    return [_step(t, "Add", [product, (bias - mean * factor).astype(np.float32).reshape(operand.shape)], name)]


def _elu(t: _Translation, node: onnx.NodeProto, name: str) -> list[np.ndarray]:
    alpha = _attributes(node, alpha=1.0)["alpha"]
    return [_step(t, "Elu", [t.need(node, 0), np.asarray(alpha, np.float32)], name)]


_Handler = Callable[[_Translation, onnx.NodeProto, str], list[np.ndarray]]

_MOVES: dict[str, _Handler] = {
    "Identity": _identity,
    "Constant": _constant,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}

_STEPS: dict[str, _Handler] = {
    "Min": _extremum,
    "Max": _extremum,
    "Clip": _clip,
    "Gemm": _dense,
    "MatMul": _dense,
    "GRU": _gru,
    "LSTM": _lstm,
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
    "Elu": _elu,
}

_POINTWISE = (
    "Relu",
    "Tanh",
    "Sigmoid",
    "Sqrt",
    "Abs",
    "Reciprocal",
    "Neg",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Less",
    "Greater",
    "GreaterOrEqual",
    "Where",
)

_HANDLERS = {**_MOVES, **_STEPS, **dict.fromkeys(_POINTWISE, _pointwise)}
