"""The two bounds on survival: hand-worked starts, replay of judged episodes, and that the bounds never contradict."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controllers.airframe import AIRFRAMES
from sim.backends.quadrotor import LANES, STATE, WRENCH, from_blocks, step_batch, to_blocks
from sim.robots.quadrotors import Quadrotors, from_airframes, sample
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import ACTIONS, RATE_LIMIT, SPEED_LIMIT
from sim.train import bound
from sim.train.proof import PROOF_STEPS
from sim.train.teachers import SURVIVED, TeacherConfig, Teachers, start_distribution

QUICK = ((60, 60, 0, math.inf),)


def one(**changes: float) -> Quadrotors:
    """A two kilogram quadrotor with thrust for twice its weight, almost."""
    return from_airframes([AIRFRAMES["x500_sim"]]).replace(**changes)


def state(tilt: float = 0.0, motor: float = 0.5, **parts: float) -> np.ndarray:
    row = np.zeros((1, STATE))
    row[0, 3], row[0, 4], row[0, 13:] = math.cos(tilt / 2), math.sin(tilt / 2), motor
    for name, value in parts.items():
        row[0, {"z": 2, "vx": 7, "vy": 8, "vz": 9, "wx": 10}[name]] = value
    return row


def harsh(count: int, seed: int) -> bound.Starts:
    """Random starts, far harsher than those of an episode, so that many cannot be survived."""
    rng = np.random.default_rng(seed)
    quads = sample("wide", count, seed)
    states = np.zeros((count, STATE))
    axis = rng.normal(size=(count, 3))
    angle = rng.uniform(0, math.pi, count)
    states[:, 3] = np.cos(angle / 2)
    states[:, 4:7] = np.sin(angle / 2)[:, None] * axis / np.linalg.norm(axis, axis=1, keepdims=True)
    states[:, :3] = rng.uniform(-10, 10, (count, 3)) * quads.arm[:, None]
    states[:, 7:10] = rng.uniform(-1.9, 1.9, (count, 3))
    states[:, 10:13] = rng.uniform(-8, 8, (count, 3))
    states[:, 13:] = rng.uniform(0, 1, (count, 4))
    previous = rng.uniform(-1, 1, (count, ACTIONS, 4))
    wrench = rng.normal(size=(count, 20, WRENCH)) * np.array([1, 1, 1, 5, 5, 1])
    return bound.Starts.of(quads, states, wrench, previous)


def breaks(starts: bound.Starts, actions: np.ndarray) -> np.ndarray:
    """Steps within the limits when the actions (n, steps, 4) are flown, by the plain stepping of the simulator."""
    n, steps = actions.shape[:2]
    e = starts.quads.environment()
    taps, box = e[:, task.ACTION_TAPS : task.ACTION_TAPS + 4], e[:, task.BOX]
    history = np.concatenate([starts.previous, actions], axis=1)
    x, c = to_blocks(starts.states).reshape(-1), to_blocks(starts.quads.parameters()).reshape(-1)
    after, lasted = np.zeros_like(x), np.full(n, steps)
    for t in range(steps):
        recent = history[:, ACTIONS + t - np.arange(4)]
        u = to_blocks(0.5 + 0.5 * np.einsum("nk,nki->ni", taps, recent)).reshape(-1)
        w = to_blocks(starts.wrench[:, min(t, starts.wrench.shape[1] - 1)]).reshape(-1)
        step_batch(x, u, w, c, after)
        x, after = np.clip(after, -1e4, 1e4), x
        now = from_blocks(x.reshape(-1, STATE, LANES), n)
        inside = np.all(np.abs(now[:, :3]) <= box[:, None], axis=1)
        inside &= np.all(np.abs(now[:, 7:10]) <= SPEED_LIMIT, axis=1)
        inside &= np.all(np.abs(now[:, 10:13]) <= RATE_LIMIT, axis=1)
        lasted = np.where(inside | (lasted < steps), lasted, t)
    return lasted


def test_a_fall_that_no_thrust_can_stop_in_time_is_unavoidable():
    # 0.1 m/s are left, gravity takes 0.0981 m/s in each step, and motors that stand still need more than that to lift.
    start = state(motor=0.0, vz=-1.9)
    assert bound.unavoidable(one(), start, np.zeros((1, 3)))[0]
    assert not bound.survivable(one(), start, np.zeros((1, 3)), attempts=QUICK)[0]


def test_a_force_larger_than_the_thrust_is_unavoidable():
    assert bound.unavoidable(one(), state(), np.array([[0.0, 0.0, -12.0]]))[0]
    assert bound.unavoidable(one(), state(), np.array([[25.0, 0.0, 0.0]]))[0]


def test_thrust_that_lasts_throws_a_tilted_quadrotor_out_of_the_limits():
    # At full thrust, lying on the side, almost at the limit of speed; the motors need seconds to slow down.
    start = state(tilt=math.pi / 2, motor=1.0, vy=-1.8)
    assert bound.unavoidable(one(tau_fall=5.0), start, np.zeros((1, 3)))[0]
    start = state(tilt=0.2, motor=1.0, vy=-1.8)
    assert not bound.unavoidable(one(tau_fall=0.05), start, np.zeros((1, 3)))[0]


def test_hover_is_survivable_and_not_unavoidable():
    start = state(motor=float(one().trim()[0, 0]))
    assert bound.survivable(one(), start, np.zeros((1, 3)), attempts=QUICK)[0]
    assert not bound.unavoidable(one(), start, np.zeros((1, 3)))[0]


def test_a_late_command_counts_as_part_of_the_start():
    # With 30 ms delay, the commands under way decide: full thrust saves the fall that no thrust does not survive.
    quads = one(action_delay=0.03, tau_rise=0.02)
    start = state(motor=0.3, vz=-1.72)
    falling = bound.unavoidable(quads, start, np.zeros((1, 3)), np.full((1, ACTIONS, 4), -1.0))
    rising = bound.survivable(quads, start, np.zeros((1, 3)), np.full((1, ACTIONS, 4), 1.0), attempts=QUICK)
    assert falling[0] and rising[0]


def test_judged_episodes_are_recalled_exactly():
    quads = sample("wide", 6, 5)
    teachers = Teachers(quads, TeacherConfig(count=6), bound.regulators(quads)[:, 1].copy())
    start = start_distribution(2.5)
    scores = teachers.judge(start, 20, 3)
    starts = bound.recall(quads, start, 3, np.ones((6, 20), bool))
    assert 0.1 < scores[:, :, SURVIVED].mean() < 0.9
    owner = np.repeat(np.arange(6), 20)
    actions = bound.closed_loop(starts, teachers.weights[owner])
    assert np.array_equal(breaks(starts, actions), scores[:, :, 3].reshape(-1))


def test_what_counts_as_survivable_survives_in_the_plain_simulator_and_is_never_called_unavoidable():
    starts = harsh(96, 1)
    result = bound.search(starts, attempts=((60, 80, 0, math.inf),))
    excess = bound.certain_excess(starts)
    assert 0.1 < result.found.mean() < 0.9
    assert np.mean(excess > 0) > 0.1
    assert not np.any(result.found & (excess > 0))
    kept = np.flatnonzero(result.found)
    assert np.all(breaks(starts[kept], result.plans[kept]) == bound.STEPS)
    # Nor does anything else survive what is called unavoidable: not the regulators, not random commands.
    lost = starts[np.flatnonzero(excess > 0)]
    rng = np.random.default_rng(0)
    tries = [np.repeat(rng.choice([-1.0, 1.0], (len(lost), 25, 4)), 20, axis=1) for _ in range(8)]
    tries += [bound.closed_loop(lost, weights) for weights in bound.regulators(lost.quads).transpose(1, 0, 2)]
    for actions in tries:
        assert np.all(breaks(lost, actions) < PROOF_STEPS)


@pytest.mark.slow
def test_the_bounds_never_contradict_on_hundreds_of_starts():
    starts = harsh(600, 2)
    result = bound.search(starts)
    assert not np.any(result.found & (bound.certain_excess(starts) > 0))


def test_the_optimiser_saves_what_a_policy_loses_and_the_report_adds_up():
    quads = sample("raptor", 16, 4)
    teachers = Teachers(quads, TeacherConfig(count=16), bound.regulators(quads)[:, 0].copy())
    report = bound.bound_report(
        teachers, start_distribution(math.pi / 2), 32, 1, attempts=((100, 100, 0, math.inf),), limit=24
    )
    assert report["examined"] == 24
    assert report["deaths"] == pytest.approx(report["avoidable"] + report["unavoidable"])
    assert report["unavoidable"] == pytest.approx(report["proven"] + report["open"])
    assert report["avoidable"] > 0.5 * report["deaths"] > 0.01
    rows = report["torque_to_inertia"].values()
    assert sum(row["deaths"] * row["episodes"] for row in rows) == pytest.approx(report["deaths"] * 512)


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"wrench: shape \(1, 2\)"):
        bound.Starts.of(one(), state(), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"states: shape"):
        bound.Starts.of(one(), state()[:, :5], np.zeros((1, 3)))
