"""What an exported policy is and how exact it is, as REPORT.json and REPORT.md: the same policy gives the same bytes.

Figures that need a compiler are not here; `firmware-export check` measures them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .exact import SEQUENCES, STEPS, observations, replay
from .graph import ExportError
from .to_c import SCHEMA, Source, Target

CYCLES_PER_MAC = 3
"""Of a Cortex-M4F: a load, a multiplication and an addition; it has no way to do two at once."""
LARGEST_ERROR = 1e-3
"""An f32 export that differs more than this from what the policy file means is refused; relative to actions above 1."""


def facts(source: Source, target: Target, files: list[str]) -> dict[str, Any]:
    """All that the two files say."""
    error = errors(source)
    golden = np.abs(source.reference.replay(source.golden[0]) - source.golden[1]).max()
    allowed = LARGEST_ERROR * max(1.0, error["largest_action"])
    for difference, against in ((golden, "its own golden actions"), (error["max"], f"float64 over {STEPS} steps")):
        if source.dtype == "f32" and not difference <= allowed:
            raise ExportError(
                f"{source.file}: the translated answers differ by {difference:.2g} from {against}; "
                f"allowed: {allowed:.2g}"
            )
    observation, action, state = source.sizes
    macs = source.multiplications
    return {
        "schema": f"realign.firmware/{SCHEMA[0]}.{SCHEMA[1]}",
        "name": source.name,
        "policy": source.file,
        "sha256": source.hash,
        "robot": source.spec.robot,
        "target": target,
        "dtype": source.dtype,
        "activation": source.activation,
        "architecture": source.architecture,
        "parameters": source.spec.parameter_count,
        "sizes": {"observation": observation, "action": action, "state": state},
        "bytes": {"weights": len(source.weights.data), "state": 4 * state, "variables": 0},
        "weights_crc": f"{source.weights.crc:08x}",
        "layout": f"{source.layout:08x}",
        "multiply_accumulates": macs,
        "lower_bound_cycles_m4f": CYCLES_PER_MAC * macs,
        "native_hz": source.spec.rates.native_hz,
        "previous_action_at_reset": source.spec.action.reset_value,
        "error_to_float64": {"steps": STEPS, "sequences": SEQUENCES, **error},
        "checked_while_running": sorted({"obs", source.spec.recurrent.input, *source.bounds.checked} - {""}),
        "files": sorted(files),
    }


def errors(source: Source) -> dict[str, float]:
    """The largest and the mean difference of an action to float64 over long sequences, and the largest action."""
    obs = observations(source.golden[0])
    recurrent = source.spec.recurrent
    exact = replay(source.program, np.array(recurrent.initial), (recurrent.input, recurrent.output), obs)
    difference = np.abs(source.reference.replay(obs) - exact)
    largest = np.abs(exact).max()
    return {
        "max": _rounded(difference.max()),
        "mean": _rounded(difference.mean()),
        "largest_action": _rounded(largest),
    }


def _rounded(x: float) -> float:
    return float(f"{x:.1e}")


def as_json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"


def as_markdown(facts: dict[str, Any]) -> str:
    """For people: the same figures, and how to go on."""
    name, sizes, error = facts["name"], facts["sizes"], facts["error_to_float64"]
    rows = [
        ("policy", f"`{facts['policy']}`, SHA-256 {facts['sha256']}, {facts['robot']}"),
        ("network", f"{facts['architecture']}, {facts['parameters']} parameters"),
        ("target, precision, functions", f"{facts['target']}, {facts['dtype']}, {facts['activation']}"),
        ("observation, action, state", f"{sizes['observation']}, {sizes['action']}, {sizes['state']} numbers"),
        ("weights in flash", f"{facts['bytes']['weights']} B, CRC-32 {facts['weights_crc']}"),
        ("variables, heap", f"0 B; the caller keeps the state, {facts['bytes']['state']} B"),
        ("multiply-accumulates", f"{facts['multiply_accumulates']} per inference"),
        (
            "lower bound on a Cortex-M4F",
            f"{facts['lower_bound_cycles_m4f']} cycles, {CYCLES_PER_MAC} per multiply-accumulate; "
            f"{facts['lower_bound_cycles_m4f'] / 168:.1f} us at 168 MHz (modelled)",
        ),
        (
            "difference to float64",
            f"{error['max']:.1e} at most, {error['mean']:.1e} on average, of actions up to "
            f"{error['largest_action']:g}, over {error['sequences']} sequences of {error['steps']} recurrent steps",
        ),
        ("checked while it runs", ", ".join(facts["checked_while_running"]) + "; all else is proven finite"),
        ("call it", f"{facts['native_hz']:g} times a second"),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    exact = (
        "Every processor with IEEE floats gives the same bits, and the self-test then returns 0."
        if facts["activation"] == "poly"
        else "The C library's functions differ in their last bits, so processors differ by about 1e-6."
    )
    files = "\n".join(f"- `{file}`" for file in facts["files"])
    return (
        f"# {name}\n\n| | |\n|---|---|\n{table}\n\n{exact}\n`firmware-export check .` in this folder compiles it "
        f"for every toolchain that it finds, runs it, and measures flash,\nstack, instructions and modelled time.\n\n"
        f"Order of operations: a sum starts at its bias and takes the columns of its matrix from first to last; each\n"
        f"product and each sum is rounded to float. Gates are powers of 2 inside fractions; see `{name}.h`.\n\n"
        f"{files}\n"
    )
