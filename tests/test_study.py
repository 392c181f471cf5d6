"""Comparisons of trainings: arms of equal cost, and a table that shows what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.train.study import SHOWN, arms, study_command, study_table


@pytest.mark.parametrize("study", ["losses", "sizes"])
def test_all_arms_make_the_same_number_of_updates(study: str) -> None:
    configs = arms(study, 100, "runs/teachers").values()  # type: ignore[arg-type] (parametrised literal)
    assert {c.imitation_updates + c.tuning_updates for c in configs} == {100}


def test_a_study_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 each"):
        study_command("losses", tmp_path, tmp_path, updates=0, seeds=1, count=1)


def test_table_shows_mean_and_range_over_seeds() -> None:
    rows = [dict.fromkeys(SHOWN, value) | {"core_seconds": 10.0} for value in (0.5, 0.7)]
    content = {"updates": 1, "count": 2, "arms": {"a": rows}, "parameters": {"a": 2084}}
    cells = list(study_table(content).columns[1].cells)
    assert cells[0] == "60 (50 to 70)"
    assert cells[-1] == "10 (10 to 10)"
