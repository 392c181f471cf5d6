"""The weights as a flight controller keeps them: one constant struct, whose bytes are also a file to load at run time.

A matrix is stored in blocks of 16 rows and what remains in blocks of 4, padded with zero rows; inside a block column
follows column, so the inner loop reads it in order and keeps one sum per row in a register. Everything is little-endian
and every member starts at a multiple of 4 bytes.

With f16 a weight is half a float, rounded to the nearest; with i8 it is an 8-bit integer times a scale per row. Biases,
scales and constants stay f32.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .graph import Dense, Element, ExportError, Gru, Lstm, Normalize, Pointwise, Program

Dtype = Literal["f32", "f16", "i8"]
C_TYPES = {"f32": "float", "f16": "int16_t", "i8": "int8_t"}
ROWS, FEWER_ROWS = 16, 4  # of a block
SMALLEST_HALF = 2.0**-14  # below it a half would be subnormal, and processors differ in what they make of these

MAGIC, FORMAT = 0x4E474C52, 1  # "RLGN"
HEADER = struct.Struct("<IHHIIIIII")
"""Of the file: magic, format, bytes of this header, bytes of the weights, layout, sizes, reserved, CRCs of the weights
and of the header before it."""


@dataclass(frozen=True)
class Table:
    """One member of the struct."""

    name: str
    kind: Dtype
    values: np.ndarray  # flat, in the order and type of storage


@dataclass(frozen=True)
class Matrix:
    """A matrix in its final precision: the product with it is scale * (weight x), row by row."""

    name: str
    weight: np.ndarray  # (rows, columns), float32: what the stored numbers stand for
    scale: np.ndarray | None  # (rows,), i8 only


def padded(rows: int) -> int:
    """Rows of storage, a multiple of the smaller block."""
    return -(-rows // FEWER_ROWS) * FEWER_ROWS


def quantised(name: str, weight: np.ndarray, dtype: Dtype) -> Matrix:
    """The matrix that is left of `weight` in that precision."""
    weight = np.asarray(weight, dtype=np.float32)
    if not np.isfinite(weight).all():
        raise ExportError(f"{name} holds a number that is not finite; allowed: finite numbers")
    if dtype == "f16":
        if np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
            raise ExportError(f"{name} holds {np.abs(weight).max():g}; allowed with --dtype f16: up to 65504")
        rounded = np.where(np.abs(weight) < SMALLEST_HALF, 0, weight).astype(np.float16)
        return Matrix(name, rounded.astype(np.float32), None)
    if dtype == "i8":
        largest = np.abs(weight).max(axis=1, initial=0)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        return Matrix(name, np.rint(weight / scale[:, None]).clip(-127, 127), scale)
    return Matrix(name, weight, None)


def blocks(weight: np.ndarray) -> np.ndarray:
    """The numbers of a matrix in the order of storage."""
    rows, columns = weight.shape
    full = np.zeros((padded(rows), columns), weight.dtype)
    full[:rows] = weight
    whole = len(full) // ROWS * ROWS
    parts = [full[:whole].reshape(-1, ROWS, columns), full[whole:].reshape(-1, FEWER_ROWS, columns)]
    return np.concatenate([part.transpose(0, 2, 1).ravel() for part in parts])


class Weights:
    """All that the C code reads from flash: named vectors and matrices, in order, and the initial state."""

    def __init__(self, program: Program, initial: np.ndarray, dtype: Dtype) -> None:
        self.dtype: Dtype = dtype
        self.vectors: dict[str, np.ndarray] = {}
        self.matrices: dict[str, Matrix] = {}
        self.tables: list[Table] = []
        if len(initial):
            self._vector("initial", initial)
        else:
            self.vectors["initial"] = initial
        for step in program.steps:
            self._add(step)

    def _add(self, step: Pointwise | Dense | Normalize | Gru | Lstm) -> None:
        name = step.result
        if isinstance(step, Pointwise):
            for index, operand in enumerate(step.operands):
                if is_table(operand):
                    self._vector(f"{name}_operand{index}", np.array(operand))
        elif isinstance(step, Normalize):
            self._vector(f"{name}_scale", step.scale)
            self._vector(f"{name}_bias", step.bias)
        elif isinstance(step, Dense):
            self._vector(f"{name}_bias", step.bias, pad=True)
            self._matrix(f"{name}_weight", step.weight)
        elif isinstance(step, Gru):
            # Update and reset are one sum each, so they share a bias and are computed together.
            gates, new = slice(0, 2 * step.size), slice(2 * step.size, None)
            self._vector(f"{name}_gates_bias", step.input_bias[gates] + step.state_bias[gates], pad=True)
            self._matrix(f"{name}_gates", np.hstack([step.input_weight[gates], step.state_weight[gates]]))
            self._vector(f"{name}_new_input_bias", step.input_bias[new], pad=True)
            self._vector(f"{name}_new_state_bias", step.state_bias[new], pad=True)
            self._matrix(f"{name}_new_input", step.input_weight[new])
            self._matrix(f"{name}_new_state", step.state_weight[new])
        else:
            rows = np.hstack([step.bias[:, None], step.input_weight, step.state_weight]).reshape(4, step.units, -1)
            rows = np.pad(rows, ((0, 0), (0, step.stride - step.units), (0, 0))).reshape(4 * step.stride, -1)
            self._vector(f"{name}_gates_bias", rows[:, 0], pad=True)
            self._matrix(f"{name}_gates", rows[:, 1:])

    def _vector(self, name: str, values: np.ndarray, pad: bool = False) -> None:
        values = np.asarray(values, dtype=np.float32).ravel()
        if not np.isfinite(values).all():
            raise ExportError(f"{name} holds a number that is not finite; allowed: finite numbers")
        self.vectors[name] = values
        stored = np.zeros(padded(len(values)) if pad else len(values), np.float32)
        stored[: len(values)] = values
        self.tables.append(Table(name, "f32", stored))

    def _matrix(self, name: str, weight: np.ndarray) -> None:
        matrix = self.matrices[name] = quantised(name, weight, self.dtype)
        if matrix.scale is not None:
            self._vector(f"{name}_scale", matrix.scale, pad=True)
        stored = blocks(matrix.weight)
        if self.dtype == "f16":
            stored = stored.astype(np.float16).view(np.int16)
        elif self.dtype == "i8":
            stored = stored.astype(np.int8)
        # Blocks hold multiples of 4 numbers, so what follows 8-bit ones is aligned; 16-bit ones are even then.
        self.tables.append(Table(name, self.dtype, stored))

    @property
    def data(self) -> bytes:
        """The bytes of the struct."""
        return b"".join(table.values.astype(table.values.dtype.newbyteorder("<")).tobytes() for table in self.tables)

    @property
    def crc(self) -> int:
        return zlib.crc32(self.data)


def is_table(operand: list[Element | float]) -> bool:
    """Whether an operand is many constants that differ, so that they are stored and not written into the code."""
    return len(operand) > SCALARS and not any(isinstance(x, Element) for x in operand) and len(set(operand)) > 1


SCALARS = 8
"""The largest pointwise step that is written out number by number; longer ones are loops."""


def blob(weights: Weights, layout: int, sizes: tuple[int, int, int]) -> bytes:
    """The weights as a file that the C code's loader accepts.

    Args:
        weights: The weights.
        layout: Identifies the network's structure and meaning; the loader refuses another one's weights.
        sizes: Numbers in an observation, an action and a state.
    """
    data = weights.data
    observation, action, state = sizes
    packed = observation | action << 16
    head = HEADER.pack(MAGIC, FORMAT, HEADER.size, len(data), layout, packed, state, weights.crc, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head)) + data
