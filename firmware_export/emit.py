"""The statements of the inference function: a program as straight-line C on one small scratch array.

Short pointwise steps become scalars, which the compiler keeps in registers; every other result is a piece of the
scratch array, and pieces that are not needed at the same time share their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from .bounds import Bounds
from .graph import Dense, Element, ExportError, Gru, Lstm, Normalize, Operand, Pointwise, Program, Step, reads
from .numerics import LOG2_E
from .weights import FEWER_ROWS, ROWS, SCALARS, Dtype, is_table, padded

EXPRESSIONS = {
    "Relu": "{name}_relu({0})",
    "Elu": "{0} < 0.0f ? {1} * ({name}_exp({0}) - 1.0f) : {0}",
    "Tanh": "{name}_tanh({0})",
    "Sigmoid": "{name}_sigmoid({0})",
    "Sqrt": "{name}_sqrt({0})",
    "Abs": "{name}_abs({0})",
    "Reciprocal": "1.0f / {0}",
    "Neg": "-{0}",
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "Min": "{0} > {1} ? {1} : {0}",
    "Max": "{0} < {1} ? {1} : {0}",
    "Clip": "{name}_clip({0}, {1}, {2})",
    "Less": "{0} < {1}",
    "Greater": "{0} > {1}",
    "GreaterOrEqual": "{0} >= {1}",
    "Where": "{0} ? {1} : {2}",
}

CONDITIONS = {"Less", "Greater", "GreaterOrEqual"}
"""Kinds whose result is 0 or 1; as scalars these are integers, since only conditions are made of them."""

SHORTEST_LOOP = 8
"""Fewer copies than this are written out."""
SHORTEST_STEP = 4
"""Fewer results of a pointwise step than this are scalars even where they could be a loop."""


class Body:
    """The lines of the function, and how large its scratch array is."""

    def __init__(
        self, name: str, program: Program, state_input: str, state_output: str, dtype: Dtype, bounds: Bounds
    ) -> None:
        self.lines: list[str] = []
        self._name, self._program, self._dtype, self._state_output = name, program, dtype, state_output
        self._memory = {"obs": "obs", state_input: "in->h"}  # buffers that are arrays in C
        self._bounds = bounds
        self._needed = _needed_elements(program)
        self._last_read = _last_reads(program)
        self._lives: dict[str, list[int]] = {}  # scratch buffers: size, first and last step
        self._clock = 0
        for self._clock, step in enumerate(program.steps):
            self._comment(step)
            self._add(step)
        self._clock += 1
        self._answer(program.outputs["action"], program.outputs.get(state_output, []))
        places, self.scratch = _place(self._lives)
        self.declarations = [f"float *const {buffer} = &work[{place}];" for buffer, place in places.items()]

    def _comment(self, step: Step) -> None:
        if not isinstance(step, Pointwise):
            self.lines.append(f"/* {comment(step.node)} */")

    def _add(self, step: Step) -> None:
        if isinstance(step, Pointwise):
            if step.size <= SCALARS and not self._is_loop(step):
                self._scalars(step)
            else:
                self._loop(step)
            return
        if isinstance(step, Dense):
            x = self._vector(step.result, step.operand)
            self._buffer(step.result, padded(step.size))
            self._sum(step.result, f"w->{step.result}_bias", f"{step.result}_weight", x, step.weight.shape)
        elif isinstance(step, Normalize):
            self._normalize(step)
        elif isinstance(step, Gru):
            self._gru(step)
        else:
            self._lstm(step)
        if step.result in self._bounds.checked:
            self._refuse(f"!{self._name}_all_fine({step.result}, {step.size})")

    # Pointwise

    def _scalars(self, step: Pointwise) -> None:
        for index, elements in enumerate(zip(*step.operands, strict=True)):
            result = Element(step.result, index)
            if result in self._needed:
                expression = EXPRESSIONS[step.kind].format(*map(self._element, elements), name=self._name)
                self.lines.append(
                    f"const {'int' if step.kind in CONDITIONS else 'float'} {_scalar(result)} = {expression};"
                )
                if step.result in self._bounds.checked:
                    self._refuse(f"!{self._name}_fine({_scalar(result)})")

    def _is_loop(self, step: Pointwise) -> bool:
        """Whether a short step is a loop nevertheless, because all that it reads lies in order."""
        return step.size >= SHORTEST_STEP and all(self._run(operand) is not None for operand in step.operands)

    def _loop(self, step: Pointwise) -> None:
        operands = []
        for index, operand in enumerate(step.operands):
            run = f"w->{step.result}_operand{index}[i]" if is_table(operand) else self._run(operand)
            if run is None:
                gathered = f"{step.result}_operand{index}"
                self._buffer(gathered, len(operand))
                self._copy(gathered, operand)
                run = f"{gathered}[i]"
            operands.append(run)
        if self._is_last(step):
            self._memory[step.result] = "action"
        else:
            self._memory[step.result] = self._replaced(step) or step.result
        if self._memory[step.result] == step.result:
            self._buffer(step.result, step.size)
        self._touch(step.result)
        expression = EXPRESSIONS[step.kind].format(*operands, name=self._name)
        condition = " ? 1.0f : 0.0f" if step.kind in CONDITIONS else ""
        self.lines += loop(step.size, f"{self._memory[step.result]}[i] = {expression}{condition};")
        if step.result in self._bounds.checked:
            self._refuse(f"!{self._name}_all_fine({self._memory[step.result]}, {step.size})")

    def _is_last(self, step: Pointwise) -> bool:
        """Whether the step computes the action and nothing can fail any more: then it writes the action itself."""
        whole = [Element(step.result, index) for index in range(step.size)]
        outputs = self._program.outputs
        last = step is self._program.steps[-1] and outputs["action"] == whole
        return (
            last
            and step.result not in self._bounds.checked
            and not any(x in outputs.get(self._state_output, []) for x in whole)
        )

    def _replaced(self, step: Pointwise) -> str | None:
        """A scratch array that the result may take the place of: read number by number, and never again."""
        for operand in step.operands:
            first = operand[0]
            if not isinstance(first, Element) or self._last_read[first.buffer] != self._clock:
                continue
            memory = self._memory.get(first.buffer, "")
            readers = [
                x for other in step.operands for x in other if isinstance(x, Element) and x.buffer == first.buffer
            ]
            if memory in self._lives and first.index == 0 and is_slice(operand) and len(readers) == len(operand):
                return memory
        return None

    # Layers

    def _sum(self, result: str, start: str, matrix: str, x: str, shape: tuple[int, ...]) -> None:
        """result = start + matrix x, block by block"""
        columns, end = shape[1], padded(shape[0])
        begin = 0
        for rows in (ROWS, FEWER_ROWS):
            until = begin + (end - begin) // rows * rows
            several = until - begin > rows
            at = "i" if several else str(begin)
            arrays = [result, start, *([f"w->{matrix}_scale"] if self._dtype == "i8" else [])]
            pointers = [_offset(array, at) for array in arrays]
            pointers.insert(2, _offset(f"w->{matrix}", f"i * {columns}" if several else str(begin * columns)))
            call = f"{self._name}_sum{rows}({', '.join(pointers)}, {x}, {columns});"
            if several:
                self.lines += [f"for (int i = {begin}; i < {until}; i += {rows}) {{", f"    {call}", "}"]
            elif until > begin:
                self.lines.append(call)
            begin = until

    def _gates(self, step: Gru | Lstm, state: Operand, rows: int) -> str:
        """All gates of a recurrent layer as one sum over inputs and state; returns the array of both."""
        result, both = step.result, [*step.operand, *state]
        x = self._appended(step.operand, state) or self._vector(result, both)
        self._buffer(result, padded(rows))
        self._sum(result, f"w->{result}_gates_bias", f"{result}_gates", x, (rows, len(both)))
        return x

    def _appended(self, operand: Operand, more: Operand) -> str | None:
        """The array of the operand with more behind it, if it is a scratch array that can be made longer."""
        first = operand[0]
        if not isinstance(first, Element) or first.index != 0 or not is_slice(operand):
            return None
        memory = self._memory.get(first.buffer, "")
        size, *_ = self._lives.get(memory, [0])
        if size != len(operand):
            return None
        self._lives[memory][0] = padded(size + len(more))
        self._touch(first.buffer)
        self._copy(memory, more, size)
        return memory

    def _powers(self, buffer: str, size: int, turns: float) -> None:
        """Replaces each x by 2^(turns x), in pairs: where the size is odd, there is room behind it."""
        self.lines.append(f"{self._name}_powers({buffer}, {size + size % 2}, {number(turns).strip('()')});")

    def _gru(self, step: Gru) -> None:
        result, units, inputs = step.result, step.size, len(step.operand)
        h, new = self._vector(f"{result}_state", step.state), f"{result}_new"
        x = self._gates(step, step.state, 2 * units)
        self._buffer(new, padded(units))
        self._sum(new, f"w->{result}_new_state_bias", f"{result}_new_state", h, (units, units))
        self._powers(result, 2 * units, -LOG2_E)
        fraction = f"{new}[i] / (1.0f + {result}[{units} + i])"
        self.lines += loop(units, f"{new}[i] = w->{result}_new_input_bias[i] + {fraction};")
        self._sum(new, new, f"{result}_new_input", x, (units, inputs))
        self._powers(new, units, -2 * LOG2_E)
        self.lines += [
            f"for (int i = 0; i < {units}; i++) {{",
            f"    const float y = {result}[i];",
            f"    const float e = {new}[i];",
            f"    {result}[i] = (y * (1.0f - e) + {h}[i] * (1.0f + e)) / ((1.0f + y) * (1.0f + e));",
            "}",
        ]

    def _lstm(self, step: Lstm) -> None:
        result, units, stride = step.result, step.units, step.stride
        c, after = self._vector(f"{result}_before", step.cell), f"{result}_after"
        self._gates(step, step.hidden, 4 * stride)
        self._buffer(after, padded(units))
        self._powers(result, 3 * stride, -LOG2_E)
        self._powers(f"&{result}[{3 * stride}]", stride, -2 * LOG2_E)
        self.lines += [
            f"for (int i = 0; i < {units}; i++) {{",
            f"    const float y = {result}[i];",
            f"    const float f = {result}[{2 * stride} + i];",
            f"    const float e = {result}[{3 * stride} + i];",
            f"    const float c = {c}[i] / (1.0f + f) + (1.0f - e) / ((1.0f + y) * (1.0f + e));",
            f"    {after}[i] = c;",
            f"    {result}[{2 * stride} + i] = c;",
            "}",
        ]
        self._powers(after, stride, -2 * LOG2_E)
        self.lines += [
            f"for (int i = 0; i < {units}; i++) {{",
            f"    const float o = {result}[{stride} + i];",
            f"    const float e = {after}[i];",
            f"    {result}[i] = (1.0f - e) / ((1.0f + o) * (1.0f + e));",
            "}",
            *loop(units, f"{result}[{units} + i] = {result}[{2 * stride} + i];"),
        ]

    def _normalize(self, step: Normalize) -> None:
        x, result, size = self._vector(step.result, step.operand), step.result, step.size
        self._buffer(result, size)
        mean, variance, factor = (f"{result}_{part}" for part in ("mean", "variance", "factor"))
        centred = f"{result}[i]"
        self.lines += [
            f"float {mean} = 0.0f;",
            *loop(size, f"{mean} += {x}[i];"),
            f"{mean} /= {number(size)};",
            *loop(size, f"{centred} = {x}[i] - {mean};"),
            f"float {variance} = 0.0f;",
            *loop(size, f"{variance} += {centred} * {centred};"),
            f"const float {factor} = 1.0f / {self._name}_sqrt({variance} / {number(size)} + {number(step.epsilon)});",
            *loop(size, f"{centred} = w->{result}_scale[i] * ({centred} * {factor}) + w->{result}_bias[i];"),
        ]

    # Buffers

    def _buffer(self, name: str, size: int) -> None:
        self._memory[name] = name
        self._lives[name] = [padded(size), self._clock, self._clock]

    def _touch(self, buffer: str) -> None:
        memory = self._memory.get(buffer)
        if memory in self._lives:
            self._lives[memory][2] = self._clock

    def _element(self, x: Element | float) -> str:
        if not isinstance(x, Element):
            return number(x)
        if x.buffer not in self._memory:
            return _scalar(x)
        self._touch(x.buffer)
        return f"{self._memory[x.buffer]}[{x.index}]"

    def _run(self, operand: Operand) -> str | None:
        """The operand as an expression in i, if its numbers are all the same or follow each other in an array."""
        first = operand[0]
        if all(x == first for x in operand):
            return self._element(first)
        if isinstance(first, Element) and first.buffer in self._memory and is_slice(operand):
            self._touch(first.buffer)
            return f"{self._memory[first.buffer]}[{f'{first.index} + ' if first.index else ''}i]"
        return None

    def _vector(self, result: str, operand: Operand) -> str:
        """A pointer to the operand's numbers in order; they are gathered first if need be."""
        first = operand[0]
        if isinstance(first, Element) and first.buffer in self._memory and is_slice(operand):
            self._touch(first.buffer)
            memory = self._memory[first.buffer]
            return memory if first.index == 0 else f"({memory} + {first.index})"
        gathered = f"{result}_in"
        self._buffer(gathered, len(operand))
        self._copy(gathered, operand)
        return gathered

    def _copy(self, target: str, operand: Operand, at: int = 0) -> None:
        for run in _runs(operand, self._memory):
            source = self._run(run)
            if source is not None and len(run) >= SHORTEST_LOOP:
                self.lines += _copying(len(run), f"{target}[{f'{at} + ' if at else ''}i]", source)
            else:
                self.lines += [f"{target}[{at + i}] = {self._element(x)};" for i, x in enumerate(run)]
            at += len(run)

    # What leaves the function

    def _refuse(self, condition: str) -> None:
        self.lines += [f"if ({condition}) {{", f"    return {self._name.upper()}_BAD_OUTPUT;", "}"]

    def _answer(self, action: Operand, state: Operand) -> None:
        """Nothing can fail any more, so the caller's arrays are written."""
        overlapping = any(isinstance(x, Element) and self._memory.get(x.buffer) == "in->h" for x in (*action, *state))
        if overlapping:  # `in` and `out` may be the same state
            self._buffer("next_state", len(state))
            self._copy("next_state", state)
        if not (isinstance(action[0], Element) and self._memory.get(action[0].buffer) == "action"):
            self._copy("action", action)
        if overlapping:
            self.lines += _copying(len(state), "out->h[i]", "next_state[i]")
        else:
            self._copy("out->h", state)


def _needed_elements(program: Program) -> set[Element]:
    """The numbers that something reads; of short steps, only what leads to an output."""
    needed = {x for operand in program.outputs.values() for x in operand if isinstance(x, Element)}
    for step in reversed(program.steps):
        columns = list(zip(*step.operands, strict=True)) if isinstance(step, Pointwise) else [*reads(step)]
        for index, column in enumerate(columns):
            short = isinstance(step, Pointwise) and step.size <= SCALARS
            if not short or Element(step.result, index) in needed:
                needed |= {x for x in column if isinstance(x, Element)}
    return needed


def _last_reads(program: Program) -> dict[str, int]:
    """The last step that reads each buffer."""
    last: dict[str, int] = {}
    for clock, operands in enumerate([*map(reads, program.steps), tuple(program.outputs.values())]):
        last |= {x.buffer: clock for operand in operands for x in operand if isinstance(x, Element)}
    return last


def _place(lives: dict[str, list[int]]) -> tuple[dict[str, int], int]:
    """Where each buffer begins in the scratch array, and how large that is: the largest buffers choose first."""
    places: dict[str, int] = {}
    for name, (size, first, last) in sorted(lives.items(), key=lambda item: -item[1][0]):
        taken = sorted(
            (places[other], places[other] + lives[other][0])
            for other in places
            if lives[other][1] <= last and first <= lives[other][2]
        )
        start = 0
        for begin, end in taken:
            if start + size <= begin:
                break
            start = max(start, end)
        places[name] = start
    total = max((place + lives[name][0] for name, place in places.items()), default=0)
    return {name: places[name] for name in lives}, total


def _runs(operand: Operand, memory: dict[str, str]) -> Iterator[Operand]:
    """The operand, cut where its numbers stop to follow each other in an array or to repeat a constant."""
    run: Operand = []
    if not operand:
        return
    for x in operand:
        if run:
            last = run[-1]
            follows = (
                isinstance(last, Element) and last.buffer in memory and x == Element(last.buffer, last.index + 1)
            ) or (not isinstance(x, Element) and x == last)
            if not follows:
                yield run
                run = []
        run.append(x)
    yield run


def is_slice(operand: Operand) -> bool:
    """Whether the numbers follow each other in one buffer."""
    first = operand[0]
    return isinstance(first, Element) and operand == [
        Element(first.buffer, first.index + offset) for offset in range(len(operand))
    ]


def _offset(array: str, at: str) -> str:
    return array if at == "0" else f"&{array}[{at}]"


def _scalar(x: Element) -> str:
    return f"{x.buffer}_e{x.index}"


def _copying(size: int, target: str, source: str) -> list[str]:
    """A loop that copies four numbers at a time where it can."""
    if size % 4 or size < 8:
        return loop(size, f"{target} = {source};")
    ends = ["i]", *(f"i + {k}]" for k in (1, 2, 3))]
    copies = [f"    {target.replace('i]', end)} = {source.replace('i]', end)};" for end in ends]
    return [f"for (int i = 0; i < {size}; i += 4) {{", *copies, "}"]


def loop(size: int, statement: str) -> list[str]:
    return [f"for (int i = 0; i < {size}; i++) {{", f"    {statement}", "}"]


def number(x: float) -> str:
    """A C literal with exactly the value of the float32."""
    if not np.isfinite(np.float32(x)):
        raise ExportError(f"the model holds the number {x}; allowed: finite numbers")
    text = f"{np.float32(x):.9g}"
    text = (text if any(mark in text for mark in ".e") else text + ".0") + "f"
    return f"({text})" if text.startswith("-") else text


def comment(text: str) -> str:
    """Text that cannot end the comment that it stands in."""
    return re.sub(r"[^\x20-\x7e]", "?", text).replace("*/", "* /").replace("/*", "/ *")
