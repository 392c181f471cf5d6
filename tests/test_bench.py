"""The benchmark counts operations right and reports what it promises."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from sim import bench


def test_operations_are_those_counted_by_hand():
    # y + h k for 14 states: one multiplication and one addition each.
    assert bench.operations("_axpy") == 14 * 2
    # Three diagonal entries of 1 - 2 (a a + b b) and six of 2 (a b + c d).
    assert bench.operations("rotation_matrix") == 3 * 5 + 6 * 4
    # Four derivatives are most of a step.
    assert bench.operations("rk4") > 4 * bench.operations("derivative")


def test_the_benchmark_reports_rates_and_their_share_of_the_peak(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "COUNT", 256)
    monkeypatch.setattr(bench, "REPEATS", 3)
    text = io.StringIO()
    result = bench.bench_command(tmp_path, Console(file=text, width=160))
    assert result == json.loads((tmp_path / "bench.json").read_text())
    rates = result["rates"]
    assert rates["step"] > rates["step_and_adjoint"] > 1e5
    assert result["share_of_peak"] == pytest.approx(result["operations_per_step"] * rates["step"] / rates["peak"])
    assert 0.02 < result["share_of_peak"] < 1
    assert "step, one core" in text.getvalue()
    assert ("l2f is not installed" in text.getvalue()) == (result["ratio_to_l2f"] is None)
