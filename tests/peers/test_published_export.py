"""The published RAPTOR policy, exported to C: it answers its own stored example as it was published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py", reason="the extra [peers] is not installed")
pytest.importorskip("foundation_policy", reason="the extra [peers] is not installed")

from controllers.compiled import CompiledPolicy
from controllers.policy import load_policy
from firmware_export.check import STEPS, exported, measure, write_harness
from firmware_export.cli import C, export_c
from firmware_export.published import NAME, _installed, read_checkpoint
from firmware_export.toolchains import TOOLCHAINS

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    export_c(C(Path(NAME), folder, shared=True))
    return folder


def test_it_matches_its_stored_example_of_500_steps_to_1e_6(folder: Path) -> None:
    _, observations, actions = read_checkpoint(_installed())
    assert observations.shape == (500, 2, 22)
    compiled = load_policy(folder / "raptor.so")
    assert isinstance(compiled, CompiledPolicy)
    h, worst = compiled.reset(2), 0.0
    for obs, action in zip(observations, actions.clip(-1, 1), strict=True):
        answer, h = compiled.step(obs, h)
        worst = max(worst, float(np.abs(answer - action).max()))
    assert worst <= 1e-6


def test_its_package_answers_the_same(folder: Path) -> None:
    from sim.peers import PublishedPolicy

    published, ours = PublishedPolicy(), load_policy(folder / "raptor.onnx")
    obs = np.random.default_rng(0).normal(size=(100, 8, 22)).astype(np.float32)
    h, other = ours.reset(8), published.reset(8)
    for row in obs:
        answer, h = ours.step(row, h)
        expected, other = published.step(row, other)
        np.testing.assert_allclose(answer, expected, atol=2e-6)


def test_the_report_says_that_the_limits_are_the_callers(folder: Path) -> None:
    spec = load_policy(folder / "raptor.onnx").spec
    assert spec.parameter_count == 2084
    assert [(limit.name, limit.applied) for limit in spec.limits] == [
        ("position_error", "by the caller"),
        ("velocity_error", "by the caller"),
    ]
    assert json.loads((folder / "REPORT.json").read_text())["error_to_float64"]["max"] <= 1e-6


def test_on_a_cortex_m4f_it_takes_less_than_8900_instructions_in_9700_bytes(folder: Path, tmp_path: Path) -> None:
    m4f = next(toolchain for toolchain in TOOLCHAINS if toolchain.name == "Cortex-M4F")
    if m4f.missing:
        pytest.skip(f"{m4f.missing} is not installed")
    source = exported(folder)
    for file in ("raptor.h", "raptor.c", "raptor_vectors.h"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    obs = source.golden[0][:STEPS, :1]
    write_harness(source, tmp_path, obs)
    row = measure(source, m4f, tmp_path, source.reference.replay(obs)[:, 0])
    assert row.failed is None and row.error == 0
    assert row.flash and row.instructions and row.flash < 9700 and row.instructions < 8900, row
