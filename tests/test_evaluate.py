"""Evaluation: intervals worked by hand, cases that mean what they say, and files that are whole or not there."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from controllers.airframe import AIRFRAMES
from controllers.policy import load_policy
from controllers.spec import Training, quadrotor_spec
from firmware_export.cli import C, export_c
from sim import metrics
from sim.cases import CASES, Case, Measure, hover_error, survived, tracking, within
from sim.evaluate import NOBODY, EvaluationError, clip_errors, evaluate, evaluate_command, fly, probes, save
from sim.flight import Figure, Flight
from sim.robots.quadrotors import Quadrotors, from_airframes, sample
from tests.tiny_policy import random_weights, write

BY_NAME = {case.name: case for case in CASES}
RNG = np.random.default_rng(0)
QUADS = sample("raptor", 200, 1)


class Cascade:
    """A hand-made controller for known quadrotors, without a motor lag to speak of: position, tilt and rate loops."""

    def __init__(self, quads: Quadrotors) -> None:
        self.spec = quadrotor_spec([0.0], 1, Training("", 0, "", {}, ""))
        self.trim, self.quads = quads.trim().astype(np.float32), quads

    def reset(self, batch: int) -> np.ndarray:
        return np.zeros((batch, 1), np.float32)

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = -2.0 * obs[:, 0:3] - 2.5 * obs[:, 12:15]  # acceleration
        r = obs[:, 3:12].reshape(-1, 3, 3)
        # Near hover, r21 is the roll and r02 the pitch.
        tilt_x, tilt_y, yaw = -wanted[:, 1] / 9.81 - r[:, 2, 1], wanted[:, 0] / 9.81 - r[:, 0, 2], -r[:, 1, 0]
        rate = np.stack([6 * tilt_x, 6 * tilt_y, 1 * yaw], 1)
        torque = (rate - obs[:, 15:18]) * np.array([15.0, 15.0, 2.0])  # angular acceleration
        return self._mix(wanted[:, 2], torque), h

    def _mix(self, lift: np.ndarray, torque: np.ndarray) -> np.ndarray:
        q = self.quads
        need = np.column_stack([q.mass * (lift + 9.81), torque * q.inertia])
        spin = q.torque_constant[:, None] * np.array([-1.0, 1.0, -1.0, 1.0])
        allocation = np.stack([np.ones_like(spin), q.rotor_positions[..., 1], -q.rotor_positions[..., 0], spin], 1)
        thrust = np.linalg.solve(allocation, need[..., None])[..., 0].clip(0)
        c0, c1, c2 = q.thrust_curve.T[..., None]
        motors = 2 * (thrust - c0) / (c1 + np.sqrt(np.maximum(c1**2 + 4 * c2 * (thrust - c0), 0)) + 1e-12)
        return (2 * motors - 1).clip(-1, 1).astype(np.float32)


class Off(Cascade):
    """Motors off."""

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(obs), 4), -1, np.float32), h


def crisp(count: int) -> Quadrotors:
    return from_airframes([AIRFRAMES["x500_sim"]] * count)


def test_wilson_interval_is_the_textbook_one():
    # 95 of 100: Wilson's centre and half width by hand.
    found = metrics.share(np.arange(100) < 95)
    assert (found.value, found.count) == (0.95, 100)
    assert (found.low, found.high) == (pytest.approx(0.8882, abs=2e-4), pytest.approx(0.9785, abs=2e-4))
    # It does not claim certainty after 20 of 20: 1 / (1 + z² / n).
    assert metrics.share(np.ones(20, bool)).low == pytest.approx(1 / (1 + 1.96**2 / 20), abs=1e-4)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, covered = np.random.default_rng(1), np.zeros(3)
    for _ in range(1000):
        for i, (estimate, truth) in enumerate(
            (
                (metrics.share(rng.random(200) < 0.97), 0.97),
                (metrics.mean(rng.exponential(size=200)), 1.0),
                (metrics.median(rng.exponential(size=200)), np.log(2)),
            )
        ):
            covered[i] += estimate.low <= truth <= estimate.high
    assert (covered / 1000 > 0.92).all()
    assert (covered / 1000 < 0.985).all()


def test_a_number_that_is_not_finite_is_named_and_not_averaged():
    with pytest.raises(ValueError, match="value 2 of 4 is nan"):
        metrics.mean(np.array([1.0, 2.0, np.nan, 3.0]))
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        metrics.median(np.array([]))


def test_a_probe_reads_what_is_linear_and_nothing_else():
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(2000, 16))
    assert metrics.probe(hidden, hidden @ rng.normal(size=16) + 3) > 0.999
    assert metrics.probe(hidden, rng.normal(size=2000)) < 0.02
    # Half of the variance is noise.
    assert metrics.probe(hidden, hidden[:, 0] + rng.normal(size=2000)) == pytest.approx(0.5, abs=0.06)


def test_every_number_to_reach_is_a_case_with_that_target():
    targets = sorted(m.target for case in CASES for m in case.measures if m.target is not None)
    expected = [0.003, 0.015, 0.07, 0.12, 0.95, 0.97, *[0.98] * 7, *[0.99] * 2, *[0.995] * 5, *[0.998] * 2]
    assert targets == pytest.approx(expected)


def test_cases_change_what_they_name_and_nothing_else():
    def changed(name: str) -> tuple[Quadrotors, set[str]]:
        change = BY_NAME[name].change
        assert change is not None
        quads = change(QUADS, RNG)
        return quads, {k for k, v in vars(quads).items() if not np.array_equal(v, vars(QUADS)[k])} - {"force_std"}

    low, fields = changed("torque to inertia 40 to 80")
    assert fields == {"inertia"}
    assert low.torque_to_inertia.min() >= 40
    assert low.torque_to_inertia.max() <= 80
    assert (low.force_std == QUADS.force_std).all()
    late, fields = changed("action late by 20 ms")
    assert fields == {"action_delay"}
    assert (late.action_delay == 0.02).all()
    assert not late.force_std.any()
    linear, fields = changed("linear thrust curve")
    assert fields == {"thrust_curve"}
    assert linear.thrust_to_weight == pytest.approx(QUADS.thrust_to_weight)
    assert not linear.thrust_curve[:, [0, 2]].any()
    weak, fields = changed("one motor at 80 %")
    assert fields == {"motor_strength"}
    assert (np.sort(weak.motor_strength, axis=1) == [0.8, 1, 1, 1]).all()
    off, fields = changed("centre of mass off by 10 % of the arm")
    assert fields == {"center_of_mass"}
    assert np.linalg.norm(off.center_of_mass, axis=1) == pytest.approx(0.1 * QUADS.arm)
    for quads in (weak, off):  # hard, but not impossible
        assert (quads.trim() < 1).all()


@pytest.mark.parametrize(
    ("name", "up"),
    [("tilt of 150 degrees", np.cos(np.radians(150))), ("tilt of 180 degrees", -1), ("yaw of 180 degrees", 1)],
)
def test_recovery_starts_at_rest_at_the_goal_with_that_attitude(name, up):
    state = BY_NAME[name].state
    assert state is not None
    x = state(QUADS, RNG)
    w, i, j, k = x[:, 3:7].T
    assert 1 - 2 * (i * i + j * j) == pytest.approx(np.full(200, up))  # world z part of the body's z axis
    if "yaw" in name:
        assert np.abs(k) == pytest.approx(np.ones(200))
    assert not x[:, [0, 1, 2, 7, 8, 9, 10, 11, 12]].any()
    assert (w * w + i * i + j * j + k * k) == pytest.approx(np.ones(200))


def test_a_known_controller_hovers_steps_and_follows():
    quads = crisp(16)
    policy, flight = Cascade(quads), Flight(quads, seed=1)
    log = fly(policy, flight, quads, flight.reset(), 1000)
    assert survived(log).all()
    assert hover_error(log).max() < 0.02
    assert within(log, 0.05).all()
    # Close to the most that 1000 steps can return, 1500, and below it.
    assert 1200 < log.returned.min() <= log.returned.max() < 1500
    start = np.zeros((16, 17))
    start[:, 3], start[:, 13:] = 1, quads.trim()
    observation = flight.reset(start, figure=Figure(12.0))
    log = fly(policy, flight, quads, observation, 1500, keep=(10, 20))
    assert tracking(log, 3.0).max() < 0.25
    assert len(tracking(log, 3.0)) == 16
    assert log.hidden.shape == (2, 16, 1)
    assert log.distance.shape == (1501, 16)


def test_nobody_survives_where_optimal_control_fails_too() -> None:
    weak = sample("standard", 32, 6).replace(force_std=0.0)
    lost = BY_NAME["no force"]
    falling = dataclasses.replace(lost, change=lambda quads, rng: weak, state=thrown)
    results = evaluate(Off(weak), 32, 1, [falling], bound=True)["no force"]
    assert results["survive"]["value"] == 0.0  # nobody drives
    assert results[NOBODY]["value"] == pytest.approx(0.5)  # those that fall at the limit of speed cannot be stopped


def thrown(quads: Quadrotors, rng: np.random.Generator) -> np.ndarray:
    """Level, motors off; every other one falls just below the limit of speed, the others begin at rest."""
    state = np.zeros((len(quads), 17))
    state[:, 3] = 1.0
    state[::2, 9] = -1.99
    return state


def test_dying_costs_a_hundred_once_and_ends_the_return():
    quads = crisp(4)

    flight = Flight(quads, seed=1)
    state = np.zeros((4, 17))
    state[:, 3] = 1
    log = fly(Off(quads), flight, quads, flight.reset(state), 100)
    # Falling: 2 m/s are reached in step 21, whose reward is replaced. Before, the distance is g t² / 2.
    times = np.arange(20) * 0.01
    expected = (1.5 - 9.81 * times**2 / 2).sum() - 100
    assert log.returned == pytest.approx(np.full(4, expected), abs=1e-3)
    assert not log.alive.any()


def test_clipping_in_front_touches_the_errors_only():
    observation = np.full((2, 22), 3.0, np.float32)
    clipped = clip_errors(observation)
    assert (clipped[:, 0:3] == 0.5).all()
    assert (clipped[:, 12:15] == 1.0).all()
    assert (clipped[:, 3:12] == 3).all()
    assert (clipped[:, 15:] == 3).all()
    assert (observation == 3).all()


def test_results_repeat_with_the_seed_and_carry_their_interval(tmp_path):
    policy = load_policy(write(tmp_path / "policy.onnx", random_weights(1)))
    cases = (BY_NAME["training distribution"], BY_NAME["figure eight of 4 s"])
    first, again = evaluate(policy, 32, 3, cases), evaluate(policy, 32, 3, cases)
    assert first == again
    entry = first["training distribution"]["survive"]
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert (entry["count"], entry["target"], entry["met"]) == (32, 0.995, False)
    # Nobody survives a random policy, so there is nothing to average; that is not a pass.
    tracked = first["figure eight of 4 s"]["RMSE, median"]
    assert (tracked["value"], tracked["count"], tracked["met"]) == (None, 0, False)


def test_a_policy_with_the_acceleration_input_flies_too(tmp_path):
    policy = load_policy(write(tmp_path / "policy.onnx", random_weights(1, inputs=25)))
    quick = Case("quick", (Measure("survive", survived, "share"),), 0.2)
    assert evaluate(policy, 8, 1, [quick])["quick"]["survive"]["count"] == 8


def test_what_dead_flights_know_is_not_reported():
    found = probes(Off(crisp(1)), 16, 1)
    assert found["action delay"] == dict.fromkeys(("0.1 s", "0.2 s", "0.5 s", "1 s", "2 s"))


def test_a_failed_evaluation_leaves_what_was_there(tmp_path):
    policy = write(tmp_path / "policy.onnx", random_weights(1))
    with pytest.raises(EvaluationError, match="count is 1; allowed: 2 or more"):
        evaluate_command([policy], tmp_path, count=1)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(EvaluationError, match=r"eval\.json: cannot be written"):
        save(tmp_path / "file", "eval.json", {})
    assert (tmp_path / "file").read_text() == "kept"


def test_the_command_prints_a_table_and_saves_all_numbers(tmp_path):
    cases = BY_NAME["no force"], BY_NAME["one motor at 80 %"]
    policy, text = write(tmp_path / "hover.onnx", random_weights(1)), io.StringIO()
    evaluate_command([policy, policy], tmp_path / "out", 16, 2, console=Console(file=text, width=200), cases=cases)
    saved = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert set(saved["results"]) == {"hover", "hover-2"}
    assert saved["results"]["hover"] == saved["results"]["hover-2"]
    assert (saved["count"], saved["seed"]) == (16, 2)
    assert len(saved["policies"]["hover"]["sha256"]) == 64
    assert saved["policies"]["hover"]["parameter_count"] == 2084
    assert {"numpy", "cpu", "l2f"} <= set(saved["facts"])
    assert "evaluating: 100 %" in text.getvalue()
    assert "hover-2 in realign: one motor at 80 %" in text.getvalue()
    assert "no survivor" in text.getvalue()
    assert "miss" in text.getvalue()


def test_a_run_gives_its_policy_its_name_and_a_compiled_one_keeps_its_suffix(tmp_path):
    (tmp_path / "student").mkdir()
    policy = write(tmp_path / "student" / "policy.onnx", random_weights(1))
    export_c(C(policy, tmp_path, name="student", shared=True))
    paths = [policy, tmp_path / "student.so"]
    saved = evaluate_command(paths, tmp_path, 16, 2, console=Console(quiet=True), cases=[BY_NAME["no force"]])
    assert set(saved["results"]) == {"student", "student.so"}
    assert set(saved["probes"]) == {"student"}
