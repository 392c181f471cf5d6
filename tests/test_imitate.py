"""Policies that begin by imitating others: the right teacher is asked, it is learnt from, and what does not fit is
refused."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.spec import PolicySpec
from sim import run as run_module
from sim.randomize import NONE
from sim.run import Run
from sim.tasks.tracking_config import TrackingConfig

pytest.importorskip("rsl_rl", reason="needs the extra [train]")

import torch

from sim.export_mlp import write_mlp
from sim.train.imitate import Teachers
from sim.train.track import Learner, train_tracking
from sim.train.track_config import TrackConfig
from tests.test_track import CLIP, TINY, metrics, train, weights
from tests.test_tracking_task import physics, spec_of

STAND = CLIP.replace("bow", "stand")
SPEC = spec_of(TrackingConfig())


def constant(path: Path, value: float, spec: PolicySpec = SPEC) -> str:
    """A policy that always answers the same."""
    inputs, outputs = spec.observation_size, spec.action_size
    layer = np.zeros((outputs, inputs)), np.full(outputs, value)
    write_mlp(path, np.zeros(inputs), np.ones(inputs), [layer], spec, np.zeros((32, 1, inputs)))
    return str(path)


def test_each_motion_has_its_own_teacher_and_one_may_teach_several(tmp_path: Path) -> None:
    low, high = constant(tmp_path / "low.onnx", -0.5), constant(tmp_path / "high.onnx", 0.25)
    task = physics(TrackingConfig(), 5)
    task.clip[:] = [2, 0, 1, 1, 0]
    obs = np.zeros((5, SPEC.observation_size), dtype=np.float32)
    answers = Teachers((low, high, low), 3, SPEC, 5).answers(task, obs)
    np.testing.assert_array_equal(answers, np.tile([[-0.5], [-0.5], [0.25], [0.25], [-0.5]], (1, 23)))
    np.testing.assert_array_equal(Teachers((high,), 3, SPEC, 5).answers(task, obs), np.full((5, 23), 0.25))


def test_a_teacher_sees_what_its_own_specification_says(tmp_path: Path) -> None:
    """It answers with the last action that it remembers of the first joint, which is what the pupil did."""
    spec = spec_of(TrackingConfig(history=2, odometry=False))
    weights = np.zeros((23, spec.observation_size))
    weights[0, spec.observation_names.index("previous_action")] = 1.0
    path = tmp_path / "echo.onnx"
    write_mlp(path, np.zeros(len(weights[0])), np.ones(len(weights[0])), [(weights, np.zeros(23))], spec,
              np.zeros((32, 1, len(weights[0]))))  # fmt: skip
    task = physics(TrackingConfig(spread=NONE), 4)
    teachers = Teachers((str(path),), 1, SPEC, 4)
    seen, action = task.observe()["actor"], np.full((4, 23), 0.125, dtype=np.float32)
    assert teachers.answers(task, seen)[:, 0].tolist() == [0.0] * 4
    again = Teachers((str(path),), 1, SPEC, 4)
    again.restore(teachers.state())
    for one in (teachers, again):
        one.follow(action, np.array([False, True, False, False]))
    seen = task.step(action)[0]["actor"]
    assert teachers.answers(task, seen)[:, 0].tolist() == [0.125, 0.0, 0.125, 0.125]
    np.testing.assert_array_equal(again.answers(task, seen), again.answers(task, seen))


def test_a_pupil_comes_to_answer_as_its_teachers_do(tmp_path: Path) -> None:
    """Two motions, with teachers that answer -0.5 and 0.25. Who does not look at which motion it is cannot be off by
    less than half of their difference, 0.375, whose square is 0.14."""
    teachers = constant(tmp_path / "low.onnx", -0.5), constant(tmp_path / "high.onnx", 0.25)
    config = dataclasses.replace(TINY, clip=(CLIP, STAND), teachers=teachers, imitation=1.0, noise=0.1, mirror=False)
    config = dataclasses.replace(config, robots=64, iterations=30, judge_every=30, hidden=(64,), epochs=4)
    off = [line["loss.imitation"] for line in metrics(train(tmp_path / "run", config))]
    assert np.mean(off[-5:]) < 0.07


def test_after_its_share_of_the_updates_imitation_ends_and_a_resumed_training_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = spec_of(TrackingConfig(history=2, odometry=False))  # which remembers what it has seen
    config = dataclasses.replace(TINY, teachers=(constant(tmp_path / "low.onnx", -0.5, other),), imitation=0.75)
    whole = train(tmp_path / "whole", config)
    assert ["loss.imitation" in line for line in metrics(whole)] == [True, True, True, False]
    monkeypatch.setattr(run_module, "CHECKPOINT_PERIOD", 0.0)
    monkeypatch.setattr(run_module, "WRITING_SHARE", 1.0)
    iterate, calls = Learner.iterate, []

    def stopped(*arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return iterate(*arguments)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "iterate", stopped)
        train(folder, config)
    assert len(metrics(folder)) == 2
    with Run.open(folder, "g1-track") as run:
        train_tracking(run, run.config(TrackConfig))
    first, second = weights(whole), weights(folder)
    for name in first.keys() - {"learner.ppo"}:  # of which the order of the optimiser's entries may differ
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    networks = [torch.load(io.BytesIO(w["learner.ppo"].tobytes()), weights_only=True) for w in (first, second)]
    for kind in ("actor_state_dict", "critic_state_dict"):
        for name, value in networks[0][kind].items():
            assert torch.equal(value, networks[1][kind][name]), name


def test_teachers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = constant(tmp_path / "good.onnx", 0.0)
    other = constant(tmp_path / "other.onnx", 0.0, spec_of(TrackingConfig(base="offset")))
    for change, sentence in (
        ({"teachers": (good, good)}, "teachers are 2; allowed: none, 1, or one for each of the 1 clips"),
        ({"teachers": (good,), "imitation": 0.0}, "imitation is 0.0; allowed: above 0, at most 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            dataclasses.replace(TINY, **change).check()
    with pytest.raises(ValueError, match=r"other\.onnx: differs from this training's policy in action; allowed"):
        train(tmp_path / "run", dataclasses.replace(TINY, teachers=(other,)))
    with pytest.raises(ValueError, match=r"none\.onnx: no such file"):
        train(tmp_path / "other", dataclasses.replace(TINY, teachers=(str(tmp_path / "none.onnx"),)))
