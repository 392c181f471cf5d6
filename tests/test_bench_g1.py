"""The bench of the tracking task measures what it says; its rates are for people, not for tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sim import cli
from sim.bench_g1 import BenchG1, bench_g1_command


def test_the_bench_measures_physics_environment_and_their_ratio(tmp_path: Path) -> None:
    words = [
        "bench",
        "g1",
        "--robots",
        "8",
        "--repeats",
        "2",
        "--no-learning",
        "--output",
        str(tmp_path / "b" / "x.json"),
    ]
    settings = cli.parse(words)
    assert settings == BenchG1(8, 2, False, None, tmp_path / "b" / "x.json")
    content = bench_g1_command(settings)
    assert json.loads((tmp_path / "b" / "x.json").read_text()) == content
    assert set(content["rates"]) == {"physics", "environment"}
    assert 0 < content["environment of physics"]["low"] <= content["environment of physics"]["high"]


def test_the_bench_times_training_where_it_can() -> None:
    pytest.importorskip("rsl_rl", reason="needs the extra [train]")
    content = bench_g1_command(BenchG1(robots=8, repeats=1))
    assert content["rates"]["training"]["median"] > 0


def test_an_environment_without_mjlab_is_named() -> None:
    with pytest.raises(ValueError, match=r"--mjlab .*: ModuleNotFoundError: No module named 'mjlab'"):
        bench_g1_command(BenchG1(robots=2, repeats=1, learning=False, mjlab=Path(sys.executable)))
