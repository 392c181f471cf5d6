"""Our simulator against the public l2f, in which the published policy was trained: the same flights, number by number.

Both compute in float32 with the same integrator, so what differs is rounding, which flights amplify; the bounds are on
the median and on the 99th percentile over 256 sampled quadrotors.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("l2f")
pytest.importorskip("foundation_policy")

from sim.cases import CASES
from sim.evaluate import clip_errors, evaluate
from sim.flight import Flight
from sim.peers import Batch, L2fFlight, PublishedPolicy
from sim.robots.quadrotors import sample

pytestmark = pytest.mark.peers

COUNT = 256
# After this many steps: median over quadrotors of the largest error in position [m] and angular velocity [rad/s].
MEDIAN = {1: (1e-7, 1e-6), 10: (5e-7, 1e-5), 50: (1e-5, 1e-3)}


@pytest.fixture
def flight() -> Flight:
    return Flight(sample("raptor", COUNT, 3).replace(force_std=0.0), seed=5)


def compare(flight: Flight, batch: Batch, step: int) -> None:
    error = np.abs(flight.state.astype(float) - batch.state())
    assert np.isfinite(error).all()
    position, rate = error[:, 0:3].max(axis=1), error[:, 10:13].max(axis=1)
    assert np.median(position) < MEDIAN[step][0]
    assert np.median(rate) < MEDIAN[step][1]
    assert np.quantile(position, 0.99) < 10 * MEDIAN[step][0]


def test_random_actions_fly_the_same_path(flight):
    flight.reset()
    batch, rng, action = Batch(flight.quads, 1), np.random.default_rng(0), flight.previous_action
    batch.set_state(flight.state)
    for step in range(1, 51):
        # As smooth as a policy's.
        action = np.clip(0.9 * action + 0.2 * rng.normal(size=action.shape), -1, 1).astype(np.float32)
        flight.step(action)
        batch.step(action)
        if step in MEDIAN:
            compare(flight, batch, step)


def test_the_published_policy_flies_the_same_path(flight):
    policy, observation = PublishedPolicy(), flight.reset()
    batch = Batch(flight.quads, 1)
    batch.set_state(flight.state)
    h = other = policy.reset(COUNT)
    action = previous = flight.previous_action
    for step in range(1, 51):
        action, h = policy.step(observation, h)
        previous, other = policy.step(np.concatenate([batch.observe(), previous], axis=1), other)
        observation = flight.step(action)
        batch.step(previous)
        if step in MEDIAN:
            compare(flight, batch, step)
    assert np.abs(action - previous).max() < 1e-2


def test_delays_are_the_same_in_both(flight):
    quads = flight.quads.replace(action_delay=0.013, velocity_delay=0.05, gyro_delay=0.01)
    flight = Flight(quads, seed=5)
    moved = Flight(quads, seed=5)
    observation = flight.reset()
    moved.reset()
    elsewhere, other = L2fFlight.of(moved)
    rng, action = np.random.default_rng(0), flight.previous_action
    for _ in range(30):
        assert other == pytest.approx(observation, abs=1e-3)
        action = np.clip(0.9 * action + 0.2 * rng.normal(size=action.shape), -1, 1).astype(np.float32)
        observation, other = flight.step(action), elsewhere.step(action)
    assert np.median(np.abs(other - observation).max(axis=1)) < 1e-4


def test_the_published_policy_scores_the_same_in_both():
    chosen = [c for c in CASES if c.name in ("no force", "gyro late by 10 ms", "figure eight of 5.5 s")]
    ours = evaluate(PublishedPolicy(), COUNT, 1, chosen, front=clip_errors)
    theirs = evaluate(PublishedPolicy(), COUNT, 1, chosen, L2fFlight.of, clip_errors)
    for case, measures in ours.items():
        for measure, entry in measures.items():
            other = theirs[case][measure]
            assert entry["value"] == pytest.approx(other["value"], rel=0.02, abs=0.01), (case, measure)
    # And both are what has been measured before.
    assert ours["no force"]["survive"]["value"] == pytest.approx(0.964, abs=0.03)
    assert ours["no force"]["hover error, median"]["value"] == pytest.approx(0.021, abs=0.001)
    assert ours["figure eight of 5.5 s"]["RMSE, median"]["value"] == pytest.approx(0.169, abs=0.005)
