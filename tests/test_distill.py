"""Distillation as a whole: it learns, it goes on exactly after an interruption, and it refuses what makes no sense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from controllers.policy import load_policy
from sim import export
from sim.backends.quadrotor import LANES, TIME_STEP
from sim.run import Run
from sim.tasks import quadrotor as task
from sim.train.distill import KIND, Phase, train_student
from sim.train.learner import Learner, StudentConfig, initial_weights

TINY = StudentConfig(imitation_updates=0, tuning_updates=6, batch=32, steps=16, pool=256)


def _train(folder: Path, config: StudentConfig) -> Path:
    with Run.create(folder, KIND, config, config.seed) as run:
        return train_student(run, config)


def test_interrupted_training_ends_with_the_same_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export.read_weights(_train(tmp_path / "whole", TINY))
    monkeypatch.setattr("sim.run.CHECKPOINT_PERIOD", 0.0)
    monkeypatch.setattr("sim.run.WRITING_SHARE", 1e9)
    advance, calls = Phase.advance, []

    def interrupted(self: Phase, progress: float) -> dict[str, float]:
        calls.append(progress)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return advance(self, progress)

    monkeypatch.setattr(Phase, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "parts", TINY)
    with Run.open(tmp_path / "parts", KIND) as run:
        parts = export.read_weights(train_student(run, run.config(StudentConfig)))
    assert len(calls) == 7  # one call was lost, none repeated
    for name, tensor in whole.items():
        assert np.array_equal(tensor, parts[name]), name


def test_policy_of_a_run_loads_and_says_where_it_comes_from(tmp_path: Path) -> None:
    path = _train(tmp_path / "run", TINY)
    policy = load_policy(path)
    assert policy.spec.parameter_count == 2084
    assert policy.spec.training.seed == TINY.seed
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["update"] == 6 and 0 <= lines[-1]["survived"] <= 1


def test_tuning_lowers_the_cost_of_flight() -> None:
    config = StudentConfig(batch=128, steps=60, pool=2048, tuning_rate=1e-2)
    learner = Learner(initial_weights(config), config)
    phase = Phase(config, learner, None)
    costs = [phase.advance(0.0)["cost"] for _ in range(120)]
    assert np.mean(costs[-10:]) < 0.5 * np.mean(costs[:10])


def test_decay_shrinks_weights_that_no_gradient_needs() -> None:
    config = StudentConfig(decay=0.5)
    learner = Learner(np.ones(4, np.float32), config)
    learner.update(np.array([0.0, 0.0, 0.0, 1e-3]), rate=0.1)
    np.testing.assert_allclose(learner.w[:3], 0.95)


def test_short_flights_begin_anew_in_every_window_and_the_others_go_on() -> None:
    config = StudentConfig(batch=128, steps=10, pool=1024, short=0.5, life=1e6)
    phase = Phase(config, Learner(initial_weights(config), config), None)
    ages = []
    for _ in range(4):
        phase.advance(0.0)
        ages.append(phase.flights.s.reshape(8, -1, LANES)[:, task.AGE].copy())
    short, long = ages[-1][:4], ages[-1][4:]
    assert np.allclose(short[np.isfinite(short) & (short > 0)], 10 * TIME_STEP, atol=1e-5)
    assert (long > 20 * TIME_STEP).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tuning_updates": 0}, "nothing to train"),
        ({"imitation_updates": 3}, "imitation needs teachers"),
        ({"plain": 0.7, "hard": 0.5}, "plain and hard are 0.7 and 0.5"),
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, changes: dict, words: str) -> None:
    config = StudentConfig(**{"imitation_updates": 0, "tuning_updates": 1, **changes})
    with pytest.raises(ValueError, match=words):
        _train(tmp_path / "run", config)


def test_warm_start_of_another_size_is_refused(tmp_path: Path) -> None:
    path = _train(tmp_path / "run", TINY)
    with pytest.raises(ValueError, match="needed are 22 and 32"):
        _train(tmp_path / "other", StudentConfig(imitation_updates=0, hidden=32, warm_start=str(path)))


def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    learner = Learner(initial_weights(TINY), TINY)
    before = learner.w.copy()
    assert not np.isfinite(learner.update(np.full(before.size, np.nan), 1e-3))
    assert np.array_equal(learner.w, before) and learner.updates == 0
