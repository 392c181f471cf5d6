"""Writes a policy as C99 that any flight controller compiles: no libc, no allocation, no double, no state of its own.

The order of every addition is fixed and contraction is off, so one source gives the same bits on every machine with
IEEE floats. The same policy file gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from controllers.policy import Policy, decode_golden, load_policy
from controllers.spec import PolicySpec

from .bounds import LARGEST, LARGEST_BITS, Bounds, weight_bound
from .emit import Body, comment, number
from .graph import Dense, Element, ExportError, Gru, Lstm, Normalize, Pointwise, Program, parse, reads
from .numerics import COEFFICIENTS, LOG2_E, ROUNDING, SMALLEST_NORMAL, SQRT_GUESS, SQRT_STEPS, TURNS_LIMIT
from .reference import Reference
from .weights import C_TYPES, FEWER_ROWS, FORMAT, HEADER, MAGIC, ROWS, Dtype, Weights, blob, padded

TEMPLATES = Path(__file__).parent / "templates"
VECTOR_STEPS, VECTOR_SEQUENCES = 32, 2  # of the golden sequences: enough to catch a wrong gate, small enough for flash
SCHEMA = (1, 0)
"""Of the metadata in C: the first number changes when older code would misunderstand it."""

Activation = Literal["poly", "libm"]
Target = Literal["generic", "px4", "betaflight", "crazyflie", "stampfly"]


@dataclass(frozen=True)
class Source:
    """A policy that has been read, and how it is to be written."""

    name: str
    """Prefix of everything that the C code defines."""
    data: bytes
    """The policy file."""
    file: str
    """Its name."""
    spec: PolicySpec
    program: Program
    dtype: Dtype = "f32"
    activation: Activation = "poly"

    @cached_property
    def weights(self) -> Weights:
        return Weights(self.program, np.array(self.spec.recurrent.initial, np.float32), self.dtype)

    @cached_property
    def golden(self) -> tuple[np.ndarray, np.ndarray]:
        """Observations and actions of the file's own test, (steps, sequences, size)."""
        model = onnx.load_model_from_string(self.data)
        return decode_golden({entry.key: entry.value for entry in model.metadata_props}["golden"])

    @cached_property
    def bounds(self) -> Bounds:
        return Bounds(self.program, ("obs", self.spec.recurrent.input), self.weight_bound)

    @property
    def weight_bound(self) -> float:
        """Part of the layout, since what is proven about the numbers holds for weights up to here."""
        return weight_bound(self.weights.vectors, {m.name: m.weight for m in self.weights.matrices.values()})

    @property
    def reference(self) -> Reference:
        return Reference(self.program, self.weights, self.spec.recurrent.input, self.spec.recurrent.output)

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:16]

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.spec.observation_size, self.spec.action_size, self.spec.recurrent.size

    @cached_property
    def layout(self) -> int:
        """Identifies structure and meaning: another policy's weights fit only where this number is the same."""
        spec = asdict(self.spec)
        for key in ("training", "parameter_count"):
            del spec[key]
        del spec["recurrent"]["initial"]
        steps = [
            [
                type(step).__name__,
                getattr(step, "kind", ""),
                step.size,
                [[_label(x) for x in part] for part in reads(step)],
            ]
            for step in self.program.steps
        ]
        outputs = {name: [_label(x) for x in operand] for name, operand in self.program.outputs.items()}
        return zlib.crc32(json.dumps([spec, steps, outputs, self.dtype, self.weight_bound], sort_keys=True).encode())

    @cached_property
    def multiplications(self) -> int:
        """Multiply-accumulates of one inference: one per number in a matrix."""
        return sum(matrix.weight.size for matrix in self.weights.matrices.values())

    @cached_property
    def architecture(self) -> str:
        """The layers and their sizes, such as `22 -> dense 16 -> gru 16 -> dense 4`."""
        layers = [str(self.spec.observation_size)]
        for step in self.program.steps:
            if isinstance(step, Dense | Gru | Lstm | Normalize):
                units = step.units if isinstance(step, Lstm) else step.size
                layers.append(f"{type(step).__name__.lower()} {units}")
        return " -> ".join(layers)


def read(path: str | Path, name: str | None = None, dtype: Dtype = "f32", activation: Activation = "poly") -> Source:
    """The policy in that file, loaded and tested, as a program.

    Args:
        path: The policy file.
        name: Prefix of everything that the C code defines; from the file's name when absent.
        dtype: Precision of the matrices.
        activation: Whether exp, tanh and sqrt are our own or the C library's.
    """
    path = Path(path)
    name = name if name is not None else re.sub(r"\W", "_", path.stem)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ExportError(f"name is {name!r}; allowed: letters, digits and _, and a letter first (see --name)")
    policy = load_policy(path)
    if not isinstance(policy, Policy):
        raise ExportError(f"{path}: is compiled already; allowed: a policy.onnx")
    data = path.read_bytes()
    try:
        program = parse(onnx.load_model_from_string(data))
        source = Source(name, data, path.name, policy.spec, program, dtype, activation)
        source.weights  # noqa: B018 - raises where a number does not fit
        return source
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def generate(path: str | Path, name: str | None = None) -> dict[str, str]:
    """The C files, by name, that a policy file becomes."""
    return c_files(read(path, name))


def c_files(source: Source) -> dict[str, str]:
    """The C files, by name."""
    name = source.name
    return {
        f"{name}.h": _header(source),
        f"{name}.c": fill("policy.c", {"name": name, "NAME": name.upper()}),
        f"{name}_vectors.h": _vectors(source),
        f"{name}_batch.c": _batch(source),
    }


def blob_file(source: Source) -> bytes:
    """The weights as a file for the loader of the C code."""
    return blob(source.weights, source.layout, source.sizes)


def _header(source: Source) -> str:
    spec, name, weights = source.spec, source.name, source.weights
    body = Body(name, source.program, spec.recurrent.input, spec.recurrent.output, source.dtype, source.bounds)
    low, high = spec.action.clip
    limits = [f"{limit.name} {limit.value:g} {limit.unit} ({limit.applied})" for limit in spec.limits]
    values = {
        "name": name,
        "NAME": name.upper(),
        "origin": comment(_origin(source)),
        "layout_text": "\n".join(comment(line) for line in _layout_lines(spec)),
        "meaning": comment(
            f"{spec.action.meaning} = {spec.action.offset[0]:g} + {spec.action.scale[0]:g} * action, "
            f"action in [{low:g}, {high:g}]"
        ),
        "limits_text": comment(", ".join(limits) or "none"),
        "includes": "#include <math.h>\n" if source.activation == "libm" else "",
        "inputs": spec.observation_size,
        "outputs": spec.action_size,
        "hidden": spec.recurrent.size,
        "room": max(spec.recurrent.size, 1),
        "initial": "w->initial[i]" if spec.recurrent.size else "0.0f",
        "unused": "" if spec.recurrent.size else "    (void)w;\n",
        "native_hz": number(spec.rates.native_hz),
        "native_hz_text": f"{spec.rates.native_hz:g}",
        "reset_value": number(spec.action.reset_value),
        "major": SCHEMA[0],
        "minor": SCHEMA[1],
        "crc": f"0x{weights.crc:08x}u",
        "layout": f"0x{source.layout:08x}u",
        "magic": f"0x{MAGIC:08x}u",
        "format": FORMAT,
        "header_bytes": HEADER.size,
        "weights_bytes": len(weights.data),
        "members": "\n".join(f"    {C_TYPES[t.kind]} {t.name}[{len(t.values)}];" for t in weights.tables),
        "weights": ",\n".join(f"    /* {t.name} */ {_braces(t.values)}" for t in weights.tables),
        "functions": _functions(source, "\n".join(body.lines)),
        "twice_largest": f"0x{2 * LARGEST_BITS:08x}u",
        "largest": f"{LARGEST:.2g}",
        "work": _indent([f"float work[{body.scratch}];"] if body.scratch else []),
        "declarations": _indent(body.declarations),
        "body": _indent(body.lines),
        "metadata": _metadata(source),
    }
    return fill("policy.h", values)


def _origin(source: Source) -> str:
    return f"{source.file}, SHA-256 {source.hash}"


def _label(x: Element | float) -> object:
    return [x.buffer, x.index] if isinstance(x, Element) else x


def _layout_lines(spec: PolicySpec) -> list[str]:
    lines, start = [], 0
    for term in spec.observation:
        size = term.size * term.history
        lines.append(f" *   obs[{start}..{start + size - 1}] {term.name} [{term.unit}], frame: {term.frame}")
        start += size
    return lines + [f" *   action[{index}] {action}" for index, action in enumerate(spec.action.names)]


def _functions(source: Source, body: str) -> str:
    """The functions that this policy needs, in an order in which each finds what it calls."""
    steps = source.program.steps
    kinds = {step.kind for step in steps if isinstance(step, Pointwise)}
    recurrent = any(isinstance(step, Gru | Lstm) for step in steps)
    used = {
        "limited": recurrent or kinds & {"Sigmoid", "Tanh", "Elu"},
        "powers": recurrent,
        "exp": kinds & {"Sigmoid", "Tanh", "Elu"},
        "sigmoid": "Sigmoid" in kinds,
        "tanh": "Tanh" in kinds,
        "relu": "Relu" in kinds,
        "clip": "_clip(" in body,
        "abs": "_abs(" in body,
        "sqrt": "Sqrt" in kinds or any(isinstance(step, Normalize) for step in steps),
    }
    values = {
        "name": source.name,
        "NAME": source.name.upper(),
        "limit": number(TURNS_LIMIT),
        "lowest": f"0x{np.float32(ROUNDING - TURNS_LIMIT).view(np.uint32):08x}u",
        "range": f"{2 * TURNS_LIMIT - 1:.0f}u",
        "most": number(TURNS_LIMIT - 1),
        "log2_e": number(LOG2_E),
        "rounding": number(ROUNDING),
        **{f"c{index}": number(c) for index, c in enumerate(COEFFICIENTS, 1)},
        "smallest_normal": number(SMALLEST_NORMAL),
        "sqrt_guess": f"0x{SQRT_GUESS:08x}u",
        "sqrt_steps": SQRT_STEPS,
    }
    texts = [fill(_function_file(part, source.activation), values).rstrip() for part in used if used[part]]
    texts.append(_sum_functions(source))
    return "\n\n".join(texts)


def _function_file(part: str, activation: Activation) -> str:
    """The template of a function: our own, or the one that calls the C library where there is one."""
    calling = f"functions/libm/{part}.c"
    return calling if activation == "libm" and (TEMPLATES / calling).is_file() else f"functions/{part}.c"


def _sum_functions(source: Source) -> str:
    """The product of a block of rows and a vector, for blocks of 16 and of 4 rows, as far as they are needed."""
    sizes = {matrix.weight.shape[0] for matrix in source.weights.matrices.values()}
    wide, narrow = any(rows >= ROWS for rows in sizes), any(padded(rows) % ROWS for rows in sizes)
    dtype = source.dtype
    weight = {"f32": "w[{}]", "f16": f"{source.name}_half(w[{{}}])", "i8": "(float)w[{}]"}[dtype]
    start, finish = ("0.0f", "b[{0}] + scale[{0}] * s{0}") if dtype == "i8" else ("b[{0}]", "s{0}")
    values = {
        "name": source.name,
        "NAME": source.name.upper(),
        "type": C_TYPES[dtype],
        "scale": ", const float *scale" if dtype == "i8" else "",
    }
    texts = [fill("functions/half.c", values).rstrip()] if dtype == "f16" else []
    for rows in [rows for rows, used in ((ROWS, wide), (FEWER_ROWS, narrow)) if used]:
        lines = [
            *(f"float s{k} = {start.format(k)};" for k in range(rows)),
            "for (int j = 0; j < columns; j++) {",
            "    const float v = x[j];",
            *(f"    s{k} += {weight.format(k)} * v;" for k in range(rows)),
            f"    w += {rows};",
            "}",
            *(f"y[{k}] = {finish.format(k)};" for k in range(rows)),
        ]
        texts.append(fill("functions/sum.c", {**values, "rows": rows, "lines": _indent(lines)}).rstrip())
    return "\n\n".join(texts)


def _metadata(source: Source) -> str:
    spec, name, upper = source.spec, source.name, source.name.upper()
    terms = [
        f"{{{_string(t.name)}, {_string(t.unit)}, {_string(t.frame)}, {t.size}, {t.history}, {number(t.scale)}, "
        f"{number(t.clip or 0)}, {number(t.delay)}}}"
        for t in spec.observation
    ]
    limits = [
        f"{{{_string(x.name)}, {number(x.value)}, {_string(x.unit)}, {int(x.applied == 'inside the network')}}}"
        for x in spec.limits
    ]
    outputs = [
        f"{{{_string(a)}, {number(scale)}, {number(offset)}}}"
        for a, scale, offset in zip(spec.action.names, spec.action.scale, spec.action.offset, strict=True)
    ]
    low, high = spec.action.clip
    info = [
        *(f"{upper}_SCHEMA_MAJOR", f"{upper}_SCHEMA_MINOR"),
        *(_string(name), _string(_origin(source)), _string(spec.robot), _string(source.architecture)),
        *(_string(source.dtype), _string(source.activation), _string(spec.action.meaning)),
        *(f"{spec.parameter_count}u", f"{len(source.weights.data)}u", f"{upper}_WEIGHTS_CRC", f"{upper}_LAYOUT"),
        *(f"{upper}_OBS_SIZE", f"{upper}_ACTION_SIZE", f"{upper}_STATE_SIZE", str(len(terms)), str(len(limits))),
        *(f"{upper}_NATIVE_HZ", number(low), number(high), f"{upper}_PREVIOUS_ACTION_AT_RESET"),
        *(f"{name}_terms", f"{name}_outputs", f"{name}_limits" if limits else "0"),
    ]
    arrays = [("term", "terms", terms), ("output", "outputs", outputs), ("limit", "limits", limits)]
    parts = [
        f"static const {name}_{kind} {name}_{plural}[{len(rows)}] = {{\n" + _indent([",\n    ".join(rows)]) + "\n};"
        for kind, plural, rows in arrays
        if rows
    ]
    parts.append(f"static const {name}_info {name}_about = {{\n" + _indent([",\n    ".join(info)]) + "\n};")
    return "\n".join(parts)


def _vectors(source: Source) -> str:
    observations = source.golden[0][:VECTOR_STEPS, :VECTOR_SEQUENCES]
    return vectors_file(source, "vectors.h", observations)


def vectors_file(source: Source, template: str, observations: np.ndarray) -> str:
    """Observations (steps, sequences, inputs) and what the reference answers, as C."""
    values = {
        "name": source.name,
        "NAME": source.name.upper(),
        "origin": comment(_origin(source)),
        "steps": observations.shape[0],
        "sequences": observations.shape[1],
        "observations": table(f"{source.name}_vector_obs", observations),
        "actions": table(f"{source.name}_vector_action", source.reference.replay(observations)),
    }
    return fill(template, values)


def _batch(source: Source) -> str:
    # As numbers, because C99 promises string literals of 4095 characters only.
    text = [str(byte) for byte in [*source.spec.to_json().encode(), 0]]
    rows = [", ".join(text[start : start + 24]) for start in range(0, len(text), 24)]
    values = {"name": source.name, "NAME": source.name.upper(), "spec": ",\n".join(f"    {row}" for row in rows)}
    return fill("batch.c", values)


def _indent(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _braces(values: np.ndarray) -> str:
    texts = [number(x).strip("()") if values.dtype == np.float32 else str(x) for x in values]
    width = 8 if values.dtype == np.float32 else 24
    rows = [", ".join(texts[start : start + width]) for start in range(0, len(texts), width)]
    return "{\n" + ",\n".join(f"        {row}" for row in rows) + "\n    }"


def table(name: str, values: np.ndarray) -> str:
    flat = np.asarray(values, dtype=np.float32).ravel()
    return f"static const float {name}[{len(flat)}] = {_braces(flat)};"


def _string(text: str) -> str:
    """A C string literal."""
    return json.dumps(re.sub(r"[^\x20-\x7e]", "?", text).replace("??", "? ?"))


def fill(template: str, values: Mapping[str, object]) -> str:
    """A file of templates/ with each @name@ replaced by its value."""
    text = (TEMPLATES / template).read_text(encoding="ascii")
    return re.sub(r"@(\w+)@", lambda match: str(values[match[1]]), text)
