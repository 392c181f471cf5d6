"""Writes the files that put a policy into a flight stack."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path

from controllers.airframe import MOTORS
from controllers.spec import PolicySpec

from ..emit import number
from ..executor_to_c import executor_files
from ..graph import ExportError
from ..to_c import fill
from .stacks import STACKS, Target

TEMPLATES = Path(__file__).parent / "templates"


def adapter_files(name: str, spec: PolicySpec, target: Target) -> dict[str, str]:
    """The adapter, its build files, its README and the executor, by path; add them to `to_c.generate`'s NAME.h,
    NAME_vectors.h and NAME.c. Some paths have folders.

    Args:
        name: Prefix of the policy, as given to `to_c.generate`.
        spec: Its specification; ExportError when the stack cannot fly it.
        target: The flight stack.
    """
    if target not in STACKS:
        raise ExportError(f"target is {target!r}; allowed: {', '.join(STACKS)}")
    stack = STACKS[target]
    if spec.action.names != MOTORS and target == "generic":
        return _bare(name, spec)
    if spec.action.names != MOTORS:
        raise ExportError(f"target {target}: the actions are {list(spec.action.names)}; allowed: {list(MOTORS)}")
    values = {
        "name": name,
        "NAME": name.upper(),
        "title": stack.title,
        "written_for": stack.written_for,
        "table": stack.table,
        "axes": ", ".join(number(sign) for sign in stack.axes),
        "quaternion_signs": ", ".join(number(sign) for sign in quaternion_signs(stack.axes)),
        "yaw_sign": number(stack.axes[2]),
        "rate_scale": number(1.0 if stack.rate_unit == "rad/s" else math.pi / 180),
        "motors": ", ".join(map(str, stack.motors)),
        "step_us": stack.step_us,
        "step_hz": round(1e6 / stack.step_us),
        "every_call": int(stack.every_call),
        "ratio": stack.ratio,
        "native_hz": f"{spec.rates.native_hz:g}",
        "class": "".join(part.capitalize() for part in name.split("_")) + "Policy",
        "module": f"policy_{name.lower()}",
        "MODULE": f"POLICY_{name.upper()}",
        "request_id": zlib.crc32(name.encode()),
        "source": f"{name}_executor.c",
        "header": f"{name}_executor.h",
        "test_header": f"{name}_executor_vectors.h",
        "test": f"{name}_exec_boot_test(&exec) != 0",
        "declaration": f"static {name}_exec exec;\n",
    }
    values["align"] = _filled("align.c", values) if target in ("betaflight", "stampfly") else ""
    files = {file.replace("@name@", name): _filled(template, values) for file, template in stack.files.items()}
    return files | executor_files(name, spec)


def _bare(name: str, spec: PolicySpec) -> dict[str, str]:
    """Build files for the policy alone: what another robot observes, and when it holds, is its own loop's business."""
    values = {
        "name": name,
        "NAME": name.upper(),
        "source": f"{name}.c",
        "header": f"{name}.h",
        "test_header": f"{name}_vectors.h",
        "test": f"{name}_selftest() <= 1e-5f",
        "declaration": "",
        "native_hz": f"{spec.rates.native_hz:g}",
        "written_for": STACKS["generic"].written_for,
    }
    files = STACKS["generic"].files | {"README.md": "generic_bare.md"}
    return {file.replace("@name@", name): _filled(template, values) for file, template in files.items()}


def _filled(template: str, values: Mapping[str, object]) -> str:
    return fill(str(TEMPLATES / template), values)


def quaternion_signs(axes: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Signs of w, x, y, z of an attitude whose world and body both change by these signs, a half turn or none."""
    if axes[0] * axes[1] * axes[2] != 1:
        raise ValueError(f"axes {axes} mirror the world")
    return (1, *axes)
