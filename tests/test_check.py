"""`firmware-export check`: what it measures, with what, and what it says where something is missing or wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_network import tracking_policy
from tiny_policy import random_weights, write

from firmware_export import check as check_module
from firmware_export.check import STEPS, Figures, check, error_to_onnxruntime, exported, measure, write_harness
from firmware_export.cli import C, export_c, main
from firmware_export.cycles import Instruction, count, cycles, disassembly, trace
from firmware_export.exact import observations
from firmware_export.toolchains import TOOLCHAINS, Toolchain, stack, variants

FOUNDATION = Path(__file__).parent.parent / "controllers" / "policies" / "quad-foundation.onnx"


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy that ships, exported."""
    folder = tmp_path_factory.mktemp("check")
    export_c(C(FOUNDATION, folder, name="quad"))
    return folder


def figures(folder: Path, work: Path, toolchain: Toolchain) -> Figures:
    if toolchain.missing:
        pytest.skip(f"{toolchain.missing} is not installed")
    source = exported(folder)
    for file in (f"{source.name}.h", f"{source.name}.c", f"{source.name}_vectors.h"):
        (work / file).write_bytes((folder / file).read_bytes())
    obs = observations(source.golden[0], STEPS, 1)
    write_harness(source, work, obs)
    return measure(source, toolchain, work, source.reference.replay(obs)[:, 0])


# On every toolchain


@pytest.mark.parametrize("toolchain", variants(quick=True), ids=lambda toolchain: toolchain.label)
def test_500_steps_give_the_same_bits_without_variables(foundation: Path, tmp_path: Path, toolchain: Toolchain) -> None:
    row = figures(foundation, tmp_path, toolchain)
    assert row.failed is None
    assert row.error == 0 and row.ram == 0


@pytest.mark.parametrize("name", ["host, cc", "host, clang", "Cortex-M4F"])
@pytest.mark.parametrize("level", ["-O0", "-Ofast", *(pytest.param(o, marks=pytest.mark.slow) for o in ("-Os", "-O3"))])
def test_every_optimisation_gives_the_same_bits(foundation: Path, tmp_path: Path, name: str, level: str) -> None:
    toolchain = next(toolchain for toolchain in TOOLCHAINS if toolchain.name == name)
    row = figures(foundation, tmp_path, replace(toolchain, optimisation=level))
    assert row.failed is None and row.error == 0


def test_on_a_cortex_m4f_it_is_small_and_fast_enough(foundation: Path, tmp_path: Path) -> None:
    row = figures(foundation, tmp_path, next(t for t in TOOLCHAINS if t.name == "Cortex-M4F"))
    assert row.failed is None
    assert row.flash and row.flash <= 10 * 1024
    assert row.ram == 0 and row.undefined == ()
    assert row.stack and row.stack <= 512
    assert row.instructions and row.instructions <= 9000
    assert row.lower_bound_cycles == 3 * 1952
    assert row.modelled_us and row.lower_bound_cycles / 168 < row.modelled_us <= 70
    assert row.share_of_budget == pytest.approx(row.modelled_us * 500e-6)


def test_half_floats_integers_and_other_networks_run_there_too(tmp_path: Path) -> None:
    m4f = next(t for t in TOOLCHAINS if t.name == "Cortex-M4F")
    tracking = tracking_policy(tmp_path / "tracking.onnx")
    for path, dtype in ((FOUNDATION, "f16"), (FOUNDATION, "i8"), (tracking, "f32")):
        folder, work = tmp_path / f"{path.stem}_{dtype}", tmp_path / f"work_{path.stem}_{dtype}"
        export_c(C(path, folder, name="other", dtype=dtype))  # type: ignore[arg-type]  # one of its literals
        work.mkdir()
        row = figures(folder, work, m4f)
        assert row.failed is None and row.error == 0


def test_the_policy_file_is_matched_as_closely_as_its_gains_allow(foundation: Path) -> None:
    source = exported(foundation)
    report = json.loads((foundation / "REPORT.json").read_text())
    error = error_to_onnxruntime(source, foundation / "quad.onnx", observations(source.golden[0], STEPS, 1))
    assert error <= 3 * max(report["error_to_float64"]["max"], 1e-6)


def test_a_policy_of_moderate_gains_is_matched_to_1e_6(tmp_path: Path) -> None:
    for seed in range(4):
        path = write(tmp_path / "policy.onnx", random_weights(seed))
        export_c(C(path, tmp_path))
        report = json.loads((tmp_path / "REPORT.json").read_text())
        assert report["error_to_float64"]["max"] <= 1e-6
        source = exported(tmp_path)
        assert error_to_onnxruntime(source, path, observations(source.golden[0], STEPS, 2)) <= 1e-6


# The command


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["firmware-export", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_it_prints_a_row_per_toolchain_and_names_what_is_missing(
    foundation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Toolchain("Some processor", "no-such-gcc", "arm")
    monkeypatch.setattr(check_module, "variants", lambda quick: [*variants(True)[:1], absent])
    assert run_main(monkeypatch, "check", str(foundation), "--quick") == 0
    printed = capsys.readouterr().out
    assert "same bits" in printed
    assert "Some processor -O2: no-such-gcc is not installed" in printed
    rows = json.loads((foundation / "CHECK.json").read_text())["toolchains"]
    assert [row["toolchain"] for row in rows] == ["host, cc -O2", "Some processor -O2"]


def test_sanitizers_fuzzing_and_analysers_are_clean(
    foundation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_module, "variants", lambda quick: [])
    monkeypatch.setattr(check_module, "FUZZ_ROUNDS", 2000)
    monkeypatch.delitem(check_module.ANALYSERS, "gcc -fanalyzer")  # a quarter of a minute
    assert check(foundation)
    capsys.readouterr()
    result = json.loads((foundation / "CHECK.json").read_text())
    for title in ("sanitizers", "fuzzing of the loader", "cppcheck"):
        assert result[title] == "clean" or result[title].startswith("skipped: ")


def test_a_changed_header_fails_with_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_c(C(write(tmp_path / "policy.onnx", random_weights(0)), tmp_path))
    header = tmp_path / "policy.h"
    header.write_text(header.read_text().replace("(1.0f - e)", "(1.0f - y)"))
    monkeypatch.setattr(check_module, "variants", lambda quick: variants(True)[:1])
    assert run_main(monkeypatch, "check", str(tmp_path), "--quick") == 1
    assert "host, cc -O2: differs from the reference by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, "no REPORT.json; allowed: a folder that `firmware-export c` wrote"),
        ("{", "cannot be read"),
        ('{"name": "quad", "dtype": "f32", "activation": "poly"}', "quad.onnx: no such file"),
    ],
)
def test_a_folder_that_is_something_else_is_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: str | None,
    message: str,
) -> None:
    if report is not None:
        (tmp_path / "REPORT.json").write_text(report)
    assert run_main(monkeypatch, "check", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# The model of cycles


def instruction(text: str, address: int = 0) -> Instruction:
    operation, _, operands = text.partition(" ")
    return Instruction(address, operation, operands, "f")


@pytest.mark.parametrize(
    ("before", "this", "expected"),
    [
        (None, "vldr s0, [r0]", 2),
        ("vldr s1, [r0]", "vldr s0, [r0, #4]", 1),
        ("vldr s1, [r0]", "vmul.f32 s0, s1, s2", 2),  # waits for the load
        ("vadd.f32 s1, s1, s2", "vmul.f32 s0, s3, s2", 1),
        ("vadd.f32 s1, s1, s2", "vmul.f32 s0, s1, s2", 2),  # waits for the sum
        ("nop", "vdiv.f32 s0, s1, s2", 14),
        ("nop", "vfma.f32 s0, s1, s2", 3),
        ("nop", "vpush {d8-d15}", 17),
        ("nop", "push {r4, r5, lr}", 4),
        ("nop", "pop {r4, pc}", 6),
        ("nop", "adds r0, #1", 1),
    ],
)
def test_cycles_of_an_instruction(before: str | None, this: str, expected: int) -> None:
    assert cycles(instruction(this), instruction(before) if before else None, None) == expected


def test_a_branch_costs_three_cycles_only_when_taken() -> None:
    branch = instruction("bne.n 10", address=8)
    assert cycles(branch, None, instruction("nop", address=10)) == 1
    assert cycles(branch, None, instruction("nop", address=0)) == 3


def test_a_trace_is_joined_to_the_disassembly() -> None:
    listing = "00000010 <quad_infer>:\n  10:\tmovs\tr0, #1\n  12:\tbx\tlr\n\n00000014 <main>:\n  14:\tnop\n"
    log = [
        "Trace 0: 0x7f [00000000/00000014/00000110/ff000000] main",
        "",
        *(f"[0/{pc:08x}/1/2]" for pc in (16, 18, 20)),
    ]
    assert list(trace(log)) == [20, 16, 18, 20]
    total = count(disassembly(listing), trace(log), ("main",))
    assert (total.instructions, total.cycles) == (2, 1 + 1)


def test_the_stack_is_the_deepest_path(tmp_path: Path) -> None:
    (tmp_path / "p.ci").write_text(
        'node: { title: "p_infer" label: "p_infer\\np.h:1:1\\n100 bytes (static)\\n0 dynamic objects" }\n'
        'node: { title: "p.c:p_sum" label: "p_sum\\np.h:2:1\\n30 bytes (static)" }\n'
        'node: { title: "p.c:p_exp" label: "p_exp\\np.h:3:1\\n50 bytes (static)" }\n'
        'edge: { sourcename: "p_infer" targetname: "p.c:p_sum" label: "a" }\n'
        'edge: { sourcename: "p_infer" targetname: "p.c:p_exp" label: "b" }\n'
    )
    assert stack(tmp_path, "p") == 150
    assert stack(tmp_path, "absent") is None


def test_long_sequences_are_the_same_every_time() -> None:
    golden = np.random.default_rng(0).normal(size=(40, 3, 5)).astype(np.float32)
    first = observations(golden, 100, 2)
    assert first.shape == (100, 2, 5) and first.dtype == np.float32
    np.testing.assert_array_equal(first, observations(golden, 100, 2))
    assert np.abs(first).max() < np.abs(golden).max() + 0.2


def test_clang_under_fast_math_on_a_fused_processor_is_refused_or_exact(foundation: Path, tmp_path: Path) -> None:
    cpu = Path("/proc/cpuinfo")
    if not cpu.is_file() or " fma " not in cpu.read_text():
        pytest.skip("this processor has no fused multiply-add")
    clang = Toolchain("host, clang", "clang", "host", ("-mfma",), optimisation="-Ofast")
    refused = figures(foundation, tmp_path, clang)
    assert refused.failed is not None and "clang fuses under -ffast-math" in refused.failed
    told = replace(clang, flags=("-mfma", "-ffp-contract=off", "-DQUAD_NOT_CONTRACTED"))
    assert figures(foundation, tmp_path, told).error == 0
