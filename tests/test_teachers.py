"""Teachers learn, lag and catch up, and a run that is killed ends with the very same weights as one that is not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sim.backends.quadrotor import LANES, STATE
from sim.robots.quadrotors import sample
from sim.run import Run, RunError
from sim.tasks import quadrotor as task
from sim.train import teachers
from sim.train.teachers import (
    FLIGHT,
    JUDGED_STARTS,
    KIND,
    RETURN,
    SURVIVED,
    TeacherConfig,
    Teachers,
    load_teachers,
    train_teachers,
)

SMALL = TeacherConfig(preset="standard", count=12, updates=40, window=100, rounds=1, extra=0.3, judged=32, seed=5)
START = teachers.start_distribution(**teachers.TRAINING_SHARES)


def train(folder: Path, config: TeacherConfig) -> Teachers:
    with Run.create(folder, KIND, config, config.seed) as run:
        return train_teachers(run, config)


def cost_of_window(teachers: Teachers, window: int) -> float:
    """The smoothed cost of the last `window` steps of all flights, from the states and actions that are kept."""
    n = len(teachers.quads)
    x = teachers.x.reshape(n, task.HISTORY + 1, STATE, LANES)[:, -window - 1 : -1].astype(float)
    a = teachers.a.reshape(n, task.ACTIONS, 4, LANES).astype(float)
    position, yaw, speed, rate = x[:, :, :3], x[:, :, 6], x[:, :, 7:10], x[:, :, 10:13]
    box = teachers.e.reshape(n, -1, LANES)[:, task.BOX][:, None, None]
    cost = np.sqrt((position**2).sum(2) + 1e-4) + 0.2 * np.sqrt(2 * np.sqrt(yaw**2 + 1e-5))
    for over, weight in ((abs(position) / box - 0.7, 16.0), (abs(speed) - 1.5, 4.0), (abs(rate) - 28.0, 0.04)):
        cost += weight * (np.maximum(over, 0) ** 2).sum(2)
    change = np.sqrt((np.diff(a[:, -window - 1 :], axis=1) ** 2).sum(2) + 0.05**2)
    return float((cost.sum(1) + change.sum(1)).mean() / window)


def test_the_gradient_of_a_teacher_is_the_slope_of_its_cost() -> None:
    window = task.ACTIONS - 1
    config = dataclasses.replace(SMALL, count=1, window=window, discount=1.0, life=1e9)
    rng = np.random.default_rng(0)
    teachers = Teachers(sample("standard", 1, 8).replace(force_std=0.5), config)
    teachers.weights += (0.05 * rng.normal(size=teachers.weights.shape)).astype(np.float32)
    start = np.array([0, 1.0, 1.7, 1.0, 0, 0, 0, 0, 0, 0, 1, 0], np.float32)
    teachers.train(np.array([[0.0, 1e9, 4.0]]), start)  # the flights begin
    begun = {name: getattr(teachers, name).copy() for name in FLIGHT}

    def fly(weights: np.ndarray) -> float:
        for name, value in begun.items():
            setattr(teachers, name, value.copy())
        teachers.weights[:], teachers.m[:], teachers.v[:] = weights, 0, 0
        teachers.train(np.array([[0.0, 1e9, 4.0]]), start)
        return cost_of_window(teachers, window)

    fly(begun["weights"])
    gradient = teachers.m[0].astype(float)  # ten times smaller, and of norm 0.1 where it was longer than 1
    ratios = []
    for part in range(5):
        direction = gradient * rng.uniform(0, 1, gradient.size) * (np.arange(gradient.size) % 5 == part)
        direction *= 0.05 / np.linalg.norm(direction)
        slope = fly(begun["weights"] + direction) - fly(begun["weights"] - direction)
        ratios.append(slope / (2 * gradient @ direction))
    np.testing.assert_allclose(ratios, np.mean(ratios), rtol=0.03)
    assert np.mean(ratios) > 9.9


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers") / "run"
    train(folder, SMALL)
    return folder


def test_training_improves_on_the_regulator(trained: Path) -> None:
    before = Teachers(sample(SMALL.preset, SMALL.count, SMALL.seed), SMALL)
    after = load_teachers(trained)
    start = JUDGED_STARTS["1 rad"]
    regulator, teacher = (t.judge(start, 64, 99)[:, :, RETURN].mean() for t in (before, after))
    assert teacher > regulator + 20
    assert teacher > 600


def test_a_run_folder_holds_curve_summary_and_quadrotors(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    curve = [line["return"] for line in lines if "return" in line and line["round"] == 0]
    assert len(curve) == 4
    assert curve[-1] > curve[0]
    summary = json.loads((trained / "metrics" / "summary.json").read_text())
    for name in JUDGED_STARTS:
        found = summary[name]
        assert 0 <= found["terminated"] <= 1
        assert found["worst"]["return"] <= found["return"] <= 750
        assert sum(b["teachers"] for b in found["torque_to_inertia"].values()) == SMALL.count
    assert 0 < summary["core_seconds"] < 600
    quads = load_teachers(trained).quads
    np.testing.assert_array_equal(quads.mass, sample(SMALL.preset, SMALL.count, SMALL.seed).mass)
    assert teachers.summary_table(summary).row_count > 5


def test_further_training_never_makes_a_teacher_worse_on_the_judges_episodes(trained: Path) -> None:
    rounds = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    extra = [line for line in rounds if line.get("event") == "round"]
    assert extra
    assert all(0 <= line["improved"] <= line["teachers"] for line in extra)
    assert sum(line["teachers"] for line in extra) <= SMALL.extra * SMALL.count


def test_a_killed_run_ends_with_the_same_weights(trained: Path, tmp_path: Path) -> None:
    """The process saves after every call of the kernel, is killed after the second one, and another one goes on."""
    code = """
import sys
from pathlib import Path
from sim import run as runs
from tests.test_teachers import SMALL, train
runs.CHECKPOINT_PERIOD = 0.0
train(Path(sys.argv[1]), SMALL)
"""
    folder = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=Path(__file__).parent.parent)
    metrics = folder / "metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 2):
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (folder / "teachers.npz").exists()
    with pytest.raises(RunError, match="sim resume"):
        load_teachers(folder)
    with Run.open(folder, KIND) as run:
        train_teachers(run, run.config(TeacherConfig))
    np.testing.assert_array_equal(load_teachers(folder).weights, load_teachers(trained).weights)
    for name in ("quadrotors.npz", "teachers.npz"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes()


def test_a_finished_run_can_be_resumed_without_harm(trained: Path) -> None:
    before = (trained / "teachers.npz").read_bytes()
    with Run.open(trained, KIND) as run:
        train_teachers(run, run.config(TeacherConfig))
    assert (trained / "teachers.npz").read_bytes() == before


def test_teachers_do_not_depend_on_each_other_or_on_threads() -> None:
    quads = sample("standard", 5, 1)
    config = dataclasses.replace(SMALL, window=20)
    together, alone = Teachers(quads, config), Teachers(quads, config)
    plan = teachers.schedule(config, 0, 3, 3)
    together.train(plan, START)
    for k in range(5):
        alone.train(plan, START, np.array([k]))
    np.testing.assert_array_equal(together.weights, alone.weights)
    scores = together.judge(JUDGED_STARTS["1 rad"], 16, 3, steps=50)
    np.testing.assert_array_equal(scores[2:3], together.judge(JUDGED_STARTS["1 rad"], 16, 3, np.array([2]), steps=50))


def test_the_regulator_hovers_where_the_disturbances_are_off() -> None:
    quads = sample("standard", 8, 2).replace(force_std=0.0)
    scores = Teachers(quads, SMALL).judge(teachers.start_distribution(0.1, speed=0.1, rate=0.1), 32, 0)
    assert scores[:, :, SURVIVED].mean() > 0.95
    assert scores[:, :, teachers.DISTANCE].mean() < 0.05


def test_a_teacher_that_always_crashes_gets_the_return_of_one_that_does() -> None:
    """Motors at zero: a free fall of 2 m/s takes 0.2 s, then the penalty of 100."""
    batch = Teachers(sample("standard", 2, 0), SMALL)
    batch.weights[:] = 0
    batch.weights[:, teachers.SKIP :].reshape(2, 4, teachers.INPUTS)[:, :, teachers.SIGNALS] = -5.0
    scores = batch.judge(teachers.start_distribution(0.0, rest=1.0), 16, 0)
    assert (scores[:, :, SURVIVED] == 0).all()
    assert (scores[:, :, RETURN] < -60).all()
    assert (scores[:, :, 3] < 40).all()


def test_a_weight_or_state_that_is_not_finite_is_named() -> None:
    batch = Teachers(sample("standard", 3, 0), SMALL)
    batch.weights[1, 7] = np.nan
    with pytest.raises(ValueError, match="teacher 1: a weight is not finite"):
        batch.train(teachers.schedule(SMALL, 0, 1, 1), START)


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 0), ("updates", 0), ("rate", float("nan")), ("life", -1.0), ("seed", -1), ("extra", -0.1)],
)
def test_settings_that_make_no_sense_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value}).check()


def test_unknown_starts_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"sideways is not known: allowed are .*inverted"):
        teachers.start_distribution(sideways=0.5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w[:-1], "quadrotors need"),
        (lambda w: w.astype(float), "the weights are float64"),
        (lambda w: np.where(np.arange(w.shape[1]) == 3, np.float32(np.nan), w), "a weight of teacher 0 is not finite"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(trained: Path, tmp_path: Path, change, sentence: str) -> None:
    for name in ("config.json", "quadrotors.npz"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    with np.load(trained / "teachers.npz") as file:
        np.savez(tmp_path / "teachers.npz", weights=change(file["weights"]))
    with pytest.raises(RunError, match=sentence):
        load_teachers(tmp_path)
    (tmp_path / "teachers.npz").write_bytes(b"nothing")
    with pytest.raises(RunError, match="not a file of teachers"):
        load_teachers(tmp_path)


def test_comparable_quadrotors_predict_a_smooth_score() -> None:
    quads = sample("standard", 400, 0)
    score = 10 * np.log(quads.torque_to_inertia)
    expected = teachers.comparable(quads, score)
    assert np.median(np.abs(expected - score)) < 0.5 * np.std(score)
    score[17] -= 100
    assert teachers.comparable(quads, score)[17] > score[17] + 80


def test_a_figure_eight_is_slow_enough_for_every_quadrotor() -> None:
    """The training reference stays below 1.2 m/s per axis, well within the limit of 2 m/s."""
    quads = sample("wide", 500, 0)
    largest = int(np.argmax(quads.arm))
    e = teachers._repeat(quads.environment()[[largest]])[0]
    rng = np.arange(LANES, dtype=np.uint32)
    x, a = np.zeros((task.HISTORY + 1) * STATE * LANES, np.float32), np.zeros(task.ACTIONS * 4 * LANES, np.float32)
    s, ref, w = (np.zeros(k * LANES, np.float32) for k in (task.EPISODE, task.REFERENCE, 6))
    start = teachers.start_distribution(figure=0.9, figure_scale=teachers.TRAINING_SHARES["figure_scale"])
    fastest = 0.0
    for _ in range(20):
        for lane in range(LANES):
            task.restart(x, a, s, rng, e, start, lane)
        for _ in range(600):
            task.exogenous(s, rng, e, ref, w)
            fastest = max(fastest, float(np.abs(ref.reshape(-1, LANES)[3:6]).max()))
    assert 0.5 < fastest < 1.2


def test_learning_rate_and_limit_follow_their_schedule() -> None:
    plan = teachers.schedule(SMALL, 0, 100, 100)
    assert plan[0, 0] == pytest.approx(SMALL.rate * 1.02)
    assert plan[-1, 0] < 0.03 * SMALL.rate
    assert plan[0, 1] == pytest.approx(SMALL.limit_start)
    assert plan[-1, 1] == pytest.approx(SMALL.limit_end)
    assert (plan[0, 2], plan[-1, 2]) == (pytest.approx(SMALL.edge_start), pytest.approx(SMALL.edge_end))
    np.testing.assert_array_equal(plan[40:60], teachers.schedule(SMALL, 40, 20, 100))
    further = teachers.schedule(SMALL, 0, 100, 100, further=True)
    assert further[0, 0] == pytest.approx(SMALL.extra_rate * plan[0, 0])
    assert np.all(further[:, 1:] == plan[-1, 1:])
