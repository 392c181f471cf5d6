"""Writes the executor of a policy as C: the template, filled with what its specification says, and its self-test."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np

from controllers.spec import PolicySpec

from .emit import number
from .executor import Config, Executor, Layout, vector_flight
from .to_c import fill

NUMBERS = (
    "position",
    "velocity",
    "quaternion",
    "angular_velocity",
    "target_position",
    "target_velocity",
    "target_acceleration",
)
SOURCES = {  # variable of the C code that holds each observation term
    "position_error": "position",
    "rotation_matrix": "m",
    "velocity_error": "velocity",
    "angular_velocity": "input->angular_velocity",
    "reference_acceleration": "acceleration",
}


def executor_files(name: str, spec: PolicySpec) -> dict[str, str]:
    """The executor, its vectors and the file that compiles them, by file name.

    Args:
        name: Prefix of the policy, as given to `to_c.generate`.
        spec: Its specification; ExportError when the executor cannot make its observation.
    """
    layout = Layout.of(spec)
    low, high = layout.clip
    limits = [f"{key} {value:.6g}" for key, value in layout.limits.items()]
    values = {
        "name": name,
        "NAME": name.upper(),
        "native_hz_text": f"{spec.rates.native_hz:g}",
        "native_us": layout.native_us,
        "limit_text": ", ".join(limits) or "none, the network has its own",
        "motors": ", ".join(re.sub(r"[^\w]", "?", motor.removeprefix("motor_")) for motor in spec.action.names),
        "range": f"[{low:g}, {high:g}]",
        "low": number(low),
        "high": number(high),
        "reset_value": number(layout.reset_value),
        "scale": ", ".join(map(number, spec.action.scale)),
        "offset": ", ".join(map(number, spec.action.offset)),
        "previous_action": layout.offsets["previous_action"],
        "limits": "\n".join(_limit_lines(name, layout)) or "    /* The network limits the errors itself. */",
        "layout": "\n".join(_layout_lines(layout)),
    }
    return {
        f"{name}_executor.h": fill("executor.h", values),
        f"{name}_executor_vectors.h": _vectors(name, spec, layout),
        f"{name}_executor.c": fill("executor.c", values),
    }


def _limit_lines(name: str, layout: Layout) -> list[str]:
    lines = []
    if "yaw_error" in layout.limits:
        limit = layout.limits["yaw_error"]
        cosine, sine = number(math.cos(limit)), number(math.sin(limit))
        lines += [
            "    float c, s;",
            f"    {name}_exec_heading(m, &c, &s);",
            f"    if (c < {cosine}) {{ /* turn by what the yaw error is too large */",
            "        const float a = s < 0.0f ? -s : s;",
            f"        const float sine = a * {cosine} - c * {sine};",
            f"        {name}_exec_turn_all(c * {cosine} + a * {sine}, s < 0.0f ? -sine : sine, position, m, velocity,",
            "            acceleration);",
            "    }",
        ]
    for term in ("position_error", "velocity_error", "reference_acceleration"):
        if term in layout.limits:
            vector = SOURCES[term]
            lines += [
                "    for (int i = 0; i < 3; i++) {",
                f"        {vector}[i] = {name}_exec_clip({vector}[i], {number(layout.limits[term])});",
                "    }",
            ]
    return lines


def _layout_lines(layout: Layout) -> list[str]:
    lines = []
    for term, source in SOURCES.items():
        if term in layout.offsets:
            size = 9 if term == "rotation_matrix" else 3
            lines += [
                f"    for (int i = 0; i < {size}; i++) {{",
                f"        obs[{layout.offsets[term]} + i] = {source}[i];",
                "    }",
            ]
    return lines


def _vectors(name: str, spec: PolicySpec, layout: Layout) -> str:
    """The script of `vector_flight`, and what the twin does with it; nothing in it depends on the network."""

    def idle(state: np.ndarray, observation: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        return 0, state, np.zeros(4, np.float32)

    config = Config(step_us=layout.native_us // 4, ratio=3)
    executor = Executor(layout, np.zeros(spec.recurrent.size, np.float32), idle, config)
    at = layout.offsets["previous_action"]
    times, inputs, statuses, sums = [], [], [], []
    for now, seen in vector_flight(layout):
        status, _ = executor.step(now, seen)
        times.append(
            [f"{t}u" for t in (now, seen.position_us, seen.attitude_us, seen.angular_velocity_us, seen.setpoint_us)]
        )
        inputs.append(bits([*(x for field in NUMBERS for x in getattr(seen, field)), seen.target_yaw]))
        statuses.append([str(int(x)) for x in (status.verdict, status.step, status.fault, status.hovering)])
        sums.append(f"0x{_sum(np.delete(executor.observation, slice(at, at + 4))):08x}u")
    values = {
        "name": name,
        "NAME": name.upper(),
        "calls": len(times),
        "observed": spec.observation_size - 4,
        "previous_action": at,
        "times": _rows(times),
        "inputs": _rows(inputs),
        "statuses": _rows(statuses),
        "sums": ",\n".join(f"    {value}" for value in sums),
    }
    return fill("executor_vectors.h", values)


def bits(numbers: Iterable[float] | np.ndarray) -> list[str]:
    """C literals of the bits of float32 numbers."""
    return [f"0x{word:08x}u" for word in np.asarray(list(numbers), np.float32).view(np.uint32)]


def _sum(numbers: np.ndarray) -> int:
    """FNV-1a over the bits, word by word: what the C code computes of its observation."""
    total = 2166136261
    for word in np.asarray(numbers, np.float32).view(np.uint32).tolist():
        total = (total ^ word) * 16777619 % 2**32
    return total


def _rows(table: list[list[str]]) -> str:
    """The rows of a table in braces, wrapped at eight numbers."""
    rows = []
    for row in table:
        parts = [", ".join(row[start : start + 8]) for start in range(0, len(row), 8)]
        rows.append("    {" + ",\n     ".join(parts) + "}")
    return ",\n".join(rows)
