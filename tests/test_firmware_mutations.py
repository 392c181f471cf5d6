"""What can go wrong in an exported policy is noticed: each test breaks one thing, and one of the guards says so.

Guards are the exporter itself (it replays the policy file's golden sequences), the self-test on the flight controller
(CRC and vectors) and `firmware-export check` (500 steps bit for bit).
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import random_weights, write

from firmware_export import to_c
from firmware_export.check import STEPS, exported, measure, write_harness
from firmware_export.cli import C, export_c
from firmware_export.exact import observations
from firmware_export.graph import Dense, ExportError, Gru, Program, Step, parse
from firmware_export.toolchains import Toolchain, variants

HOST = Toolchain("host, cc", "cc", "host")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutations")
    export_c(C(write(folder / "quad.onnx", random_weights(0, spread=1.5)), folder))
    return folder


def replaced(text: str, old: str, new: str, count: int = 1) -> str:
    assert text.count(old) == count, f"{old} is there {text.count(old)} times"
    return text.replace(old, new)


def verdict(folder: Path, work: Path, mutate: Callable[[str], str], toolchain: Toolchain = HOST) -> str | None:
    """What `check` finds wrong with the header after `mutate`."""
    source = exported(folder)
    work.mkdir(exist_ok=True)
    for file in ("quad.c", "quad_vectors.h"):
        shutil.copy(folder / file, work / file)
    (work / "quad.h").write_text(mutate((folder / "quad.h").read_text()))
    obs = observations(source.golden[0], STEPS, 1)
    write_harness(source, work, obs)
    return measure(source, toolchain, work, source.reference.replay(obs)[:, 0]).failed


def selftest(folder: Path, work: Path, mutate: Callable[[str], str], *flags: str) -> float:
    """What the self-test on the controller says of the header after `mutate`."""
    for file in ("quad.c", "quad_vectors.h"):
        shutil.copy(folder / file, work / file)
    (work / "quad.h").write_text(mutate((folder / "quad.h").read_text()))
    (work / "boot.c").write_text(
        '#include <stdio.h>\n#include "quad.h"\n#include "quad_vectors.h"\n'
        'int main(void) { printf("%.9g\\n", (double)quad_selftest()); return 0; }\n'
    )
    subprocess.run(["cc", *(flags or ["-O2"]), "boot.c", "quad.c", "-o", "boot"], cwd=work, check=True)
    return float(subprocess.run([work / "boot"], capture_output=True, text=True, check=True).stdout)


def mutated_parse(monkeypatch: pytest.MonkeyPatch, change: Callable[[Step], Step]) -> None:
    """Makes the exporter read another network than the file holds."""

    def parse_and_change(model: object) -> Program:
        program = parse(model)  # type: ignore[arg-type]
        program.steps[:] = [change(step) for step in program.steps]
        return program

    monkeypatch.setattr(to_c, "parse", parse_and_change)


def flip_a_bit(header: str) -> str:
    """The header with the lowest bit of the mantissa of one weight of the GRU flipped."""
    start = header.index("_gates */", header.index("quad_weights_embedded"))
    number = re.compile(r"-?\d[\d.e+-]*(?=f)").search(header, start)
    assert number
    bits = np.float32(number[0]).view(np.uint32) ^ np.uint32(1)
    return header[: number.start()] + f"{bits.view(np.float32):.9g}" + header[number.end() :]


def test_the_unchanged_policy_passes_every_guard(folder: Path, tmp_path: Path) -> None:
    assert verdict(folder, tmp_path, str) is None
    assert selftest(folder, tmp_path, str) == 0


def test_one_flipped_weight_bit_is_caught_by_the_crc(folder: Path, tmp_path: Path) -> None:
    assert selftest(folder, tmp_path, flip_a_bit) == pytest.approx(2e30)
    assert verdict(folder, tmp_path, flip_a_bit) is not None


def test_one_flipped_weight_bit_is_caught_by_the_vectors_alone(folder: Path, tmp_path: Path) -> None:
    crc = re.search(r"#define QUAD_WEIGHTS_CRC (0x\w+)u", (folder / "quad.h").read_text())
    assert crc

    error = selftest(
        folder,
        tmp_path,
        lambda header: replaced(
            flip_a_bit(header),
            "return quad_crc_of((const unsigned char *)w, (uint32_t)sizeof *w);",
            f"(void)w; return {crc[1]}u;",
        ),
    )
    assert 0 < error < 1e-3


def test_swapped_gates_are_caught_by_the_golden_sequences(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(array: np.ndarray) -> np.ndarray:
        update, reset, new = np.split(array, 3)
        return np.concatenate([reset, update, new])

    def change(step: Step) -> Step:
        if not isinstance(step, Gru):
            return step
        names = ("input_weight", "state_weight", "input_bias", "state_bias")
        return dataclasses.replace(step, **{name: swap(getattr(step, name)) for name in names})

    mutated_parse(monkeypatch, change)
    with pytest.raises(ExportError, match=r"differ by .* from its own golden actions"):
        export_c(C(folder / "quad.onnx", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_swapped_gates_in_c_are_caught_by_the_500_steps(folder: Path, tmp_path: Path) -> None:
    def mutate(header: str) -> str:
        row = re.search(r"const float y = (\w+)\[i\];", header)
        assert row
        return replaced(header, row[0], f"const float y = {row[1]}[16 + i];")

    assert "differs from the reference" in (verdict(folder, tmp_path, mutate) or "")


@pytest.mark.parametrize("name", ["input_weight", "state_weight"])
def test_a_transposed_matrix_is_caught_by_the_golden_sequences(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def change(step: Step) -> Step:
        if not isinstance(step, Gru):
            return step
        gates = [gate.T for gate in np.split(getattr(step, name), 3)]  # square, so nothing else is wrong
        return dataclasses.replace(step, **{name: np.concatenate(gates)})

    mutated_parse(monkeypatch, change)
    with pytest.raises(ExportError, match=r"differ by .* from its own golden actions"):
        export_c(C(folder / "quad.onnx", tmp_path / "out"))


def test_swapped_motors_are_caught_by_the_golden_sequences(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(step: Step) -> Step:
        if not (isinstance(step, Dense) and step.size == 4):
            return step
        order = [1, 0, 2, 3]
        return dataclasses.replace(step, weight=step.weight[order], bias=step.bias[order])

    mutated_parse(monkeypatch, change)
    with pytest.raises(ExportError, match=r"differ by .* from its own golden actions"):
        export_c(C(folder / "quad.onnx", tmp_path / "out"))


def test_swapped_motors_in_c_are_caught_by_the_500_steps(folder: Path, tmp_path: Path) -> None:
    assert "differs" in (verdict(folder, tmp_path, lambda h: replaced(h, "action[i] =", "action[3 - i] =")) or "")


def test_a_missing_reset_is_caught_by_the_500_steps_and_by_the_vectors(folder: Path, tmp_path: Path) -> None:
    def mutate(header: str) -> str:
        return replaced(header, "state->h[i] = w->initial[i];", "state->h[i] = 0.0f * w->initial[i];")

    assert "differs" in (verdict(folder, tmp_path, mutate) or "")
    assert selftest(folder, tmp_path, mutate) > 1e-3


def test_a_sum_in_another_order_is_caught_by_the_500_steps(folder: Path, tmp_path: Path) -> None:
    def mutate(header: str) -> str:  # the bias last
        header = replaced(header, "float s3 = b[3];", "float s3 = 0.0f;", header.count("float s3 = b[3];"))
        return replaced(header, "y[3] = s3;", "y[3] = s3 + b[3];", header.count("y[3] = s3;"))

    assert "differs" in (verdict(folder, tmp_path, mutate) or "")


def contracts() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and " fma " in cpu.read_text()


@pytest.mark.skipif(not contracts(), reason="this processor has no fused multiply-add")
def test_contraction_switched_on_is_caught_by_the_vectors(folder: Path, tmp_path: Path) -> None:
    fused = ["-O2", "-mfma", "-ffp-contract=fast"]
    assert selftest(folder, tmp_path, str, *fused) == 0, "the pragmas of the header switch it off"

    def mutate(header: str) -> str:
        return re.sub(r"#pragma (GCC optimize|STDC FP_CONTRACT).*", "", header)

    assert 0 < selftest(folder, tmp_path, mutate, *fused) < 1e-4


def test_contraction_on_a_cortex_m4_is_caught_by_the_500_steps(folder: Path, tmp_path: Path) -> None:
    m4f = next(t for t in variants(quick=True) if t.name == "Cortex-M4F")
    if m4f.missing:
        pytest.skip(f"{m4f.missing} is not installed")

    def mutate(header: str) -> str:
        return re.sub(r"#pragma GCC optimize\(.no-fast.*", "", header)

    assert "differs from the reference" in (verdict(folder, tmp_path, mutate, m4f) or "")
