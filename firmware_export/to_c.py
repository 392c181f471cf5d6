"""Writes a policy as C99 that any flight controller compiles: no libc, no allocation, no double, no state of its own.

The order of every addition is fixed and contraction is off, so one source gives the same bits on every machine with
IEEE floats. The same policy file gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx

from controllers.policy import Policy, decode_golden, load_policy
from controllers.spec import PolicySpec

from .graph import Dense, Element, ExportError, Gru, Operand, Pointwise, Program, parse

VECTOR_STEPS, VECTOR_SEQUENCES = 32, 2  # of the golden sequences: enough to catch a wrong gate, small enough for flash


def generate(path: str | Path, name: str | None = None) -> dict[str, str]:
    """The files, by name, that a policy file becomes.

    Args:
        path: The policy file; it is loaded and must pass its own test first.
        name: Prefix of everything that the C code defines; from the file's name when absent.
    """
    path = Path(path)
    name = name if name is not None else re.sub(r"\W", "_", path.stem)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ExportError(f"name is {name!r}; allowed: letters, digits and _, and a letter first (see --name)")
    policy = load_policy(path)
    if not isinstance(policy, Policy):
        raise ExportError(f"{path}: is compiled already; allowed: a policy.onnx")
    data = path.read_bytes()
    model = onnx.load_model_from_string(data)
    try:
        program = parse(model)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    golden = {entry.key: entry.value for entry in model.metadata_props}["golden"]
    observations, actions = (part[:VECTOR_STEPS, :VECTOR_SEQUENCES] for part in decode_golden(golden))
    origin = f"{path.name}, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}"
    return {
        f"{name}.h": _header(name, policy.spec, program, origin),
        f"{name}.c": _source(name),
        f"{name}_vectors.h": _vectors(name, observations, actions, origin),
        f"{name}_batch.c": _batch(name, policy.spec),
    }


def _header(name: str, spec: PolicySpec, program: Program, origin: str) -> str:
    recurrent = spec.recurrent
    upper = name.upper()
    layout, start = [], 0
    for term in spec.observation:
        size = term.size * term.history
        layout.append(f" *   obs[{start}..{start + size - 1}] {term.name} [{term.unit}], frame: {term.frame}")
        start += size
    layout += [f" *   action[{index}] {action}" for index, action in enumerate(spec.action.names)]
    low, high = spec.action.clip
    limits = [f"{limit.name} {limit.value:g} {limit.unit} ({limit.applied})" for limit in spec.limits]
    values = {
        "name": name,
        "NAME": upper,
        "origin": _comment(origin),
        "layout": "\n".join(_comment(line) for line in layout),
        "meaning": _comment(
            f"{spec.action.meaning} = {spec.action.offset[0]:g} + {spec.action.scale[0]:g} * action, "
            f"action in [{low:g}, {high:g}]"
        ),
        "limits": _comment(", ".join(limits) or "none"),
        "inputs": spec.observation_size,
        "outputs": spec.action_size,
        "hidden": recurrent.size,
        "native_hz": _number(spec.rates.native_hz),
        "native_hz_text": f"{spec.rates.native_hz:g}",
        "reset_value": _number(spec.action.reset_value),
        "tables": _tables(name, program),
        "initial": _table(f"{name}_initial", recurrent.initial),
        "body": _body(name, spec, program),
    }
    return _fill("policy.h", values)


def _tables(name: str, program: Program) -> str:
    """The weights, matrices column by column so that the inner loop reads them in order."""
    tables = []
    for step in program.steps:
        prefix = f"{name}_{step.result}"
        if isinstance(step, Dense):
            tables += [_table(f"{prefix}_weight", step.weight.T), _table(f"{prefix}_bias", step.bias)]
        elif isinstance(step, Gru):
            tables += [
                _table(f"{prefix}_input_weight", step.input_weight.T),
                _table(f"{prefix}_input_bias", step.input_bias),
                _table(f"{prefix}_state_weight", step.state_weight.T),
                _table(f"{prefix}_state_bias", step.state_bias),
            ]
    return "\n".join(tables)


def _body(name: str, spec: PolicySpec, program: Program) -> str:
    """The statements of the inference function."""
    recurrent = spec.recurrent
    buffers = {"obs": "obs", recurrent.input: "in->h"}
    lines: list[str] = []
    for step in program.steps:
        lines += [f"/* {_comment(step.node)} */", f"float {step.result}[{step.size}];"]
        if isinstance(step, Pointwise):
            lines += _pointwise_lines(name, step, buffers)
        elif isinstance(step, Dense):
            gather, operand = _vector(f"{step.result}_operand", step.operand, buffers)
            lines += [*gather, *_dense_lines(f"{name}_{step.result}", step.result, operand, *step.weight.shape)]
        else:
            lines += _gru_lines(name, step, buffers)
    answers = (
        ("new_action", "action", spec.action_size, program.outputs["action"]),
        ("new_state", "out->h", recurrent.size, program.outputs[recurrent.output]),
    )
    for answer, _, size, operand in answers:
        lines += [f"float {answer}[{size}];", *_copy_lines(answer, operand, buffers)]
        lines += [f"if (!{name}_all_finite({answer}, {size})) {{", f"    return {name.upper()}_BAD_OUTPUT;", "}"]
    for answer, target, size, _ in answers:
        lines += _loop(size, f"{target}[i] = {answer}[i];")
    return "\n".join(f"    {line}" for line in lines)


_EXPRESSIONS = {
    "Relu": "{0} < 0.0f ? 0.0f : {0}",
    "Tanh": "{name}_tanh({0})",
    "Sigmoid": "{name}_sigmoid({0})",
    "Sqrt": "{name}_sqrt({0})",
    "Abs": "{0} < 0.0f ? -({0}) : {0}",
    "Reciprocal": "1.0f / {0}",
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "Min": "{0} > {1} ? {1} : {0}",
    "Max": "{0} < {1} ? {1} : {0}",
    "Less": "{0} < {1} ? 1.0f : 0.0f",
    "Greater": "{0} > {1} ? 1.0f : 0.0f",
    "GreaterOrEqual": "{0} >= {1} ? 1.0f : 0.0f",
    "Where": "{0} > 0.5f ? {1} : {2}",
}


def _pointwise_lines(name: str, step: Pointwise, buffers: dict[str, str]) -> list[str]:
    expression = _EXPRESSIONS[step.kind]
    runs = [_run(operand, buffers) for operand in step.operands]
    if step.size > 1 and None not in runs:
        return _loop(step.size, f"{step.result}[i] = {expression.format(*runs, name=name)};")
    return [
        f"{step.result}[{index}] = {expression.format(*(_element(x, buffers) for x in elements), name=name)};"
        for index, elements in enumerate(zip(*step.operands, strict=True))
    ]


def _dense_lines(table: str, result: str, operand: str, rows: int, columns: int) -> list[str]:
    """result = bias + weight operand, added up column after column."""
    return [
        *_loop(rows, f"{result}[i] = {table}_bias[i];"),
        f"for (int j = 0; j < {columns}; j++) {{",
        f"    const float x = {operand}[j];",
        *("    " + line for line in _loop(rows, f"{result}[i] += {table}_weight[j * {rows} + i] * x;")),
        "}",
    ]


def _gru_lines(name: str, step: Gru, buffers: dict[str, str]) -> list[str]:
    size, result = step.size, step.result
    gather_operand, operand = _vector(f"{result}_operand", step.operand, buffers)
    gather_state, state = _vector(f"{result}_state", step.state, buffers)
    return [
        *gather_operand,
        *gather_state,
        f"float {result}_input[{3 * size}];",
        *_dense_lines(f"{name}_{result}_input", f"{result}_input", operand, *step.input_weight.shape),
        f"float {result}_gate[{3 * size}];",
        *_dense_lines(f"{name}_{result}_state", f"{result}_gate", state, *step.state_weight.shape),
        f"for (int i = 0; i < {size}; i++) {{",
        f"    const float z = {name}_sigmoid({result}_input[i] + {result}_gate[i]);",
        f"    const float r = {name}_sigmoid({result}_input[{size} + i] + {result}_gate[{size} + i]);",
        f"    const float n = {name}_tanh({result}_input[{2 * size} + i] + r * {result}_gate[{2 * size} + i]);",
        f"    {result}[i] = (1.0f - z) * n + z * {state}[i];",
        "}",
    ]


def _vector(result: str, operand: Operand, buffers: dict[str, str]) -> tuple[list[str], str]:
    """A C expression for a pointer to the operand's numbers in order, and the lines that gather them if need be."""
    first = operand[0]
    if isinstance(first, Element) and _is_slice(operand):
        buffer = buffers.get(first.buffer, first.buffer)
        return [], buffer if first.index == 0 else f"({buffer} + {first.index})"
    return [f"float {result}[{len(operand)}];", *_copy_lines(result, operand, buffers)], result


def _is_slice(operand: Operand) -> bool:
    """Whether the numbers follow each other in one buffer."""
    first = operand[0]
    return isinstance(first, Element) and operand == [
        Element(first.buffer, first.index + offset) for offset in range(len(operand))
    ]


def _copy_lines(result: str, operand: Operand, buffers: dict[str, str]) -> list[str]:
    run = _run(operand, buffers)
    if run is not None and len(operand) > 1:
        return _loop(len(operand), f"{result}[i] = {run};")
    return [f"{result}[{index}] = {_element(x, buffers)};" for index, x in enumerate(operand)]


def _run(operand: Operand, buffers: dict[str, str]) -> str | None:
    """The operand as a C expression in i, if its numbers are all the same or follow each other in a buffer."""
    first = operand[0]
    if all(x == first for x in operand):
        return _element(first, buffers)
    if isinstance(first, Element) and _is_slice(operand):
        return f"{buffers.get(first.buffer, first.buffer)}[{f'{first.index} + ' if first.index else ''}i]"
    return None


def _element(x: Element | float, buffers: dict[str, str]) -> str:
    return f"{buffers.get(x.buffer, x.buffer)}[{x.index}]" if isinstance(x, Element) else _number(x)


def _loop(size: int, statement: str) -> list[str]:
    return [f"for (int i = 0; i < {size}; i++) {{", f"    {statement}", "}"]


def _number(x: float) -> str:
    """A C literal with exactly the value of the float32."""
    if not np.isfinite(np.float32(x)):
        raise ExportError(f"the model holds the number {x}; allowed: finite numbers")
    text = f"{np.float32(x):.9g}"
    return (text if any(mark in text for mark in ".e") else text + ".0") + "f"


def _table(name: str, values: Iterable[float] | np.ndarray) -> str:
    numbers = [_number(float(x)) for x in np.asarray(values, dtype=np.float32).ravel()]
    rows = [", ".join(numbers[start : start + 8]) for start in range(0, len(numbers), 8)]
    body = ",\n".join(f"    {row}" for row in rows)
    return f"static const float {name}[{len(numbers)}] = {{\n{body}\n}};"


def _comment(text: str) -> str:
    """Text that cannot end the comment that it stands in."""
    return re.sub(r"[^\x20-\x7e]", "?", text).replace("*/", "* /").replace("/*", "/ *")


def _fill(template: str, values: Mapping[str, object]) -> str:
    """A file of templates/ with each @name@ replaced by its value."""
    text = (Path(__file__).parent / "templates" / template).read_text(encoding="ascii")
    return re.sub(r"@(\w+)@", lambda match: str(values[match[1]]), text)


def _source(name: str) -> str:
    return _fill("policy.c", {"name": name, "NAME": name.upper()})


def _vectors(name: str, observations: np.ndarray, actions: np.ndarray, origin: str) -> str:
    values = {
        "name": name,
        "NAME": name.upper(),
        "origin": _comment(origin),
        "steps": observations.shape[0],
        "sequences": observations.shape[1],
        "observations": _table(f"{name}_vector_obs", observations),
        "actions": _table(f"{name}_vector_action", actions),
    }
    return _fill("vectors.h", values)


def _batch(name: str, spec: PolicySpec) -> str:
    # As numbers, because C99 promises string literals of 4095 characters only.
    text = [str(byte) for byte in [*spec.to_json().encode(), 0]]
    rows = [", ".join(text[start : start + 24]) for start in range(0, len(text), 24)]
    values = {"name": name, "NAME": name.upper(), "spec": ",\n".join(f"    {row}" for row in rows)}
    return _fill("batch.c", values)
