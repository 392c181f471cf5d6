"""Compiles and runs an exported policy with every toolchain that is here, and measures it.

The answers must be those of the reference bit for bit over 500 recurrent steps. Instructions are counted by qemu;
cycles of a Cortex-M4F are modelled from the instructions that were executed (see `cycles`), so microseconds are too.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from controllers.policy import load_policy

from . import cycles
from .exact import observations
from .graph import ExportError
from .report import CYCLES_PER_MAC, errors
from .to_c import Source, blob_file, fill, read, table
from .toolchains import Toolchain, compile_object, link_program, memory, run, run_program, stack, variants

STEPS = 500
TRACED = 8
"""Inferences whose instructions are traced for the model of cycles."""
FUZZ_ROUNDS = 20000
BUDGET_HZ = 500
HARNESS = ("reset", "main", "one", "print", "semihost", "leave", "start_clock", "ticks")
"""Functions around the inferences in the program that is traced."""
WIDTH = 120  # of the table, also where it goes into a file
LIBM_TOLERANCE = 1e-5
"""With the C library's functions answers may differ by this, or by three times what f32 differs from float64."""
SANITIZERS = "-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer".split()
ANALYSERS = {
    "gcc -fanalyzer": "gcc -std=c99 -O2 -fanalyzer -Werror -c {name}.c -o analysed.o".split(),
    "cppcheck": (
        "cppcheck --std=c99 --enable=warning,style,performance,portability --inconclusive --error-exitcode=1 --quiet "
        "--suppress=missingIncludeSystem {name}.c"  # the compiler's own stdint.h is not for it to judge
    ).split(),
}


@dataclass
class Figures:
    """One toolchain at one optimisation."""

    toolchain: str
    skipped: str | None = None
    """Why nothing was measured."""
    failed: str | None = None
    """What is wrong."""
    flash: int | None = None
    code: int | None = None
    ram: int | None = None
    stack: int | None = None
    undefined: tuple[str, ...] = ()
    error: float | None = None
    """Largest difference to the reference, 0 where every bit is the same."""
    instructions: float | None = None
    modelled_cycles: float | None = None
    lower_bound_cycles: int | None = None
    modelled_us: float | None = None
    share_of_budget: float | None = None


def check(folder: Path, quick: bool = False) -> bool:
    """Measures the policy in that folder, prints and writes CHECK.json; whether all is well."""
    source = exported(folder)
    console = Console()
    console = Console(width=max(console.width, WIDTH))
    name = source.name
    obs = observations(source.golden[0], STEPS, 1)
    expected = source.reference.replay(obs)[:, 0]
    figures = []
    with tempfile.TemporaryDirectory() as build:
        work = Path(build)
        for file in (f"{name}.h", f"{name}.c", f"{name}_vectors.h"):
            shutil.copy(folder / file, work / file)
        write_harness(source, work, obs)
        for toolchain in variants(quick):
            with console.status(toolchain.label):
                figures.append(measure(source, toolchain, work, expected))
        others = {} if quick else _other_checks(name, work)
    result = {
        "policy": source.file,
        "sha256": source.hash,
        "steps": STEPS,
        "error_to_onnxruntime": error_to_onnxruntime(source, folder / f"{name}.onnx", obs),
        "cycle_model": {"version": cycles.VERSION, **cycles.TABLE},
        "toolchains": [{key: value for key, value in asdict(row).items() if value is not None} for row in figures],
        **others,
    }
    (folder / "CHECK.json").write_text(json.dumps(result, indent=1) + "\n")
    _print(console, result, figures, others)
    return not any(row.failed for row in figures) and not any(text.startswith("FAILED") for text in others.values())


def exported(folder: Path) -> Source:
    """The policy that `firmware-export c` wrote into that folder, as it was written."""
    report = folder / "REPORT.json"
    if not report.is_file():
        raise ExportError(f"{folder}: no REPORT.json; allowed: a folder that `firmware-export c` wrote")
    try:
        facts = json.loads(report.read_text())
        name, dtype, activation = facts["name"], facts["dtype"], facts["activation"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{report}: cannot be read ({error}); allowed: what `firmware-export c` wrote") from error
    for file in (f"{name}.onnx", f"{name}.h", f"{name}.c", f"{name}_vectors.h"):
        if not (folder / file).is_file():
            raise ExportError(f"{folder / file}: no such file; allowed: a folder that `firmware-export c` wrote")
    source = read(folder / f"{name}.onnx", name, dtype, activation)
    return replace(source, file=facts.get("policy", source.file))


def measure(source: Source, toolchain: Toolchain, work: Path, expected: np.ndarray) -> Figures:
    """Compiles, measures and runs; `work` holds the exported files and the harness."""
    figures = Figures(toolchain.label)
    if toolchain.missing:
        figures.skipped = f"{toolchain.missing} is not installed"
        return figures
    name = source.name
    try:
        (work / f"{name}.ci").unlink(missing_ok=True)
        compile_object(toolchain, work, name)
        kept = memory(toolchain, work, name)
        figures.flash, figures.code, figures.ram, figures.undefined = (
            kept.flash,
            kept.code,
            kept.variables,
            kept.undefined,
        )
        figures.stack = stack(work, name)
        _judge(source, figures, run_program(toolchain, link_program(toolchain, work, "program.elf")), expected)
        if toolchain.machine == "arm":
            bound = CYCLES_PER_MAC if toolchain.mhz else 1
            figures.lower_bound_cycles = bound * source.multiplications
        if toolchain.mhz:
            figures.modelled_cycles = _modelled(source, toolchain, work)
            figures.modelled_us = figures.modelled_cycles / toolchain.mhz
            figures.share_of_budget = figures.modelled_us * 1e-6 * BUDGET_HZ
    except ExportError as error:
        figures.failed = str(error)
    return figures


def _judge(source: Source, figures: Figures, lines: list[str], expected: np.ndarray) -> None:
    """Compares what the program printed with the reference, and counts its instructions."""
    printed: dict[str, list[list[int]]] = {}
    for line in lines:
        kind, *words = line.split() or [""]
        if kind in ("S", "B", "A", "T"):
            printed.setdefault(kind, []).append([int(word, 16) for word in words])
    if {"S", "B", "A", "T"} - set(printed) or len(printed["A"]) != STEPS:
        raise ExportError("the program did not run to its end")
    answers = np.array(printed["A"], dtype=np.uint32)
    actions = np.ascontiguousarray(answers[:, 1:]).view(np.float32)
    (empty, busy, count), exact = printed["T"][0], source.activation == "poly"
    figures.error = float(np.abs(actions.astype(float) - expected).max())
    if busy:
        ticks = (busy - empty) / count
        figures.instructions = ticks * (40 if figures.toolchain.startswith("Cortex") else 1)
    selftest = float(np.array(printed["S"][0], dtype=np.uint32).view(np.float32)[0])
    tolerance = 0.0 if exact else max(LIBM_TOLERANCE, 3 * errors(source)["max"])
    allowed = () if exact else ("exp2f", "tanhf", "sqrtf")
    strangers = [
        x for x in figures.undefined if not x.startswith("__") and x not in (*allowed, "_GLOBAL_OFFSET_TABLE_")
    ]
    if answers[:, 0].any():
        figures.failed = f"step {int(answers[:, 0].nonzero()[0][0])} was refused with code {answers[:, 0].max()}"
    elif not figures.error <= tolerance:
        figures.failed = f"differs from the reference by {figures.error:.2g}; allowed: {tolerance:g}"
    elif not selftest <= tolerance:
        figures.failed = f"the self-test says {selftest:.2g}; allowed: {tolerance:g}"
    elif printed["B"][0][0]:
        figures.failed = f"the loader refuses the file of weights with code {printed['B'][0][0]}"
    elif figures.ram:
        figures.failed = f"{figures.ram} B of variables; allowed: 0"
    elif strangers:
        figures.failed = f"needs {', '.join(strangers)}; allowed: nothing but the compiler's own"


def _modelled(source: Source, toolchain: Toolchain, work: Path) -> float:
    """Cycles per inference by the latency table, from a trace."""
    program = link_program(toolchain, work, "trace.elf", f"-DTRACE={TRACED}")
    log = work / "trace.log"
    run_program(toolchain, program, "-singlestep", "-d", "exec,nochain", "-D", str(log))
    listing = run([toolchain.tool("objdump"), "-d", "--no-show-raw-insn", program], work)
    with log.open(errors="replace") as lines:
        instructions = cycles.disassembly(listing)
        around = {f"{source.name}_reset", f"{source.name}_reset_with", *HARNESS}
        total = cycles.count(instructions, cycles.trace(lines), around)
    log.unlink()
    return total.cycles / TRACED


def error_to_onnxruntime(source: Source, policy: Path, obs: np.ndarray) -> float:
    """Largest difference of the reference to the policy file as onnxruntime runs it here, over the same steps."""
    loaded = load_policy(policy)
    h, answers = loaded.reset(obs.shape[1]), []
    for row in obs:
        action, h = loaded.step(row, h)
        answers.append(action)
    return float(np.abs(source.reference.replay(obs) - np.stack(answers)).max())


def write_harness(source: Source, work: Path, obs: np.ndarray) -> None:
    data = blob_file(source)
    words = struct.unpack(f"<{len(data) // 4}I", data)
    values = {
        "name": source.name,
        "NAME": source.name.upper(),
        "steps": len(obs),
        "counted": min(200, max(1, 100_000_000 // (8 * source.multiplications + 2000))),
        "observations": table("steps_obs", obs),
        "words": len(words),
        "blob": ", ".join(f"0x{word:08x}u" for word in words),
        "rounds": FUZZ_ROUNDS,
    }
    for file in ("main.c", "steps.h", "fuzz.c", "start_arm.c", "link_arm.ld"):
        (work / file).write_text(fill(f"check/{file}", values))


def _other_checks(name: str, work: Path) -> dict[str, str]:
    """Sanitizers, fuzzing of the loader, static analysis: what each says."""
    results = {}
    for title, source, expected in (("sanitizers", "main.c", None), ("fuzzing of the loader", "fuzz.c", "0")):
        program = f"{source}.elf"
        try:
            run(["cc", "-std=gnu99", "-DON_HOST", *SANITIZERS, source, "-lm", "-o", program], work)
            printed = run([work / program], work)
            good = expected is None or printed.strip() == expected
            results[title] = "clean" if good else f"FAILED: {printed.strip()} damaged files were accepted"
        except ExportError as error:
            results[title] = f"FAILED: {error}"
        except FileNotFoundError:
            results[title] = "skipped: cc is not installed"
    for title, command in ANALYSERS.items():
        try:
            run([word.format(name=name) for word in command], work)
            results[title] = "clean"
        except ExportError as error:
            results[title] = f"FAILED: {error}"
        except FileNotFoundError:
            results[title] = f"skipped: {command[0]} is not installed"
    return results


def _print(console: Console, result: dict[str, Any], figures: list[Figures], others: dict[str, str]) -> None:
    grid = Table(title=f"{result['policy']}, {STEPS} recurrent steps")
    heads = (
        "toolchain",
        "flash [B]",
        "RAM [B]",
        "stack [B]",
        "instructions",
        "modelled",
        f"of {BUDGET_HZ} Hz",
        "answers",
    )
    for head in heads:
        grid.add_column(head, justify="left" if head in ("toolchain", "answers") else "right")
    for row in figures:
        if row.skipped or row.failed:
            verdict = "skipped" if row.skipped else "[red]FAILED[/red]"
        else:
            verdict = "same bits" if row.error == 0 else f"within {row.error:.1e}"
        time = f"{row.modelled_us:.1f} us" if row.modelled_us else ""
        share = f"{100 * row.share_of_budget:.1f} %" if row.share_of_budget else ""
        instructions = f"{row.instructions:,.0f}" if row.instructions else ""
        numbers = ["" if x is None else f"{x:,}" for x in (row.flash, row.ram, row.stack)]
        grid.add_row(row.toolchain, *numbers, instructions, time, share, verdict)
    console.print(grid)
    for row in figures:
        if row.skipped or row.failed:
            console.print(f"{row.toolchain}: {row.skipped or row.failed}", highlight=False, markup=False)
    modelled = next((row for row in figures if row.modelled_us), None)
    lines = [f"difference to onnxruntime: {result['error_to_onnxruntime']:.1e}"]
    if modelled and modelled.modelled_us and modelled.modelled_cycles and modelled.lower_bound_cycles:
        mhz = modelled.modelled_cycles / modelled.modelled_us
        bound = modelled.lower_bound_cycles
        lines.append(
            f"modelled on a Cortex-M4F at {mhz:.0f} MHz without wait states ({cycles.VERSION}): "
            f"{modelled.modelled_cycles:,.0f} cycles; lower bound of the multiply-accumulates: {bound:,} cycles, "
            f"{bound / mhz:.1f} us"
        )
        lines += [f"  {what}: {cost}" for what, cost in cycles.TABLE.items()]
    lines += [f"{title}: {text}" for title, text in others.items()]
    console.print("\n".join(lines), highlight=False)
