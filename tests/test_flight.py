"""The step-by-step environment: what is sensed, when, and what happens to a flight that goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.airframe import AIRFRAMES
from controllers.observation import quadrotor_observation
from sim.backends.quadrotor import GRAVITY, STATE, TIME_STEP
from sim.flight import SPAN, Figure, Flight, FlightError
from sim.robots.quadrotors import Quadrotors, from_airframes, sample

CALM = sample("raptor", 20, 1).replace(force_std=0.0)


def level(count: int) -> np.ndarray:
    state = np.zeros((count, STATE))
    state[:, 3], state[:, 13:] = 1.0, 0.25
    return state


def random_flight(flight: Flight, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations and states (steps + 1, count, ...) and actions (steps, count, 4) of a flight on random commands."""
    rng = np.random.default_rng(seed)
    seen, states, actions = [flight.reset()], [flight.state], []
    for _ in range(steps):
        actions.append(rng.uniform(-1, 1, (flight.count, 4)).astype(np.float32))
        seen.append(flight.step(actions[-1]))
        states.append(flight.state)
    return np.array(seen), np.array(states), np.array(actions)


def test_observation_is_the_one_of_the_robot():
    seen, states, actions = random_flight(Flight(CALM, seed=3), 30)
    for t in range(1, 31):
        s = states[t]
        expected = quadrotor_observation(s[:, 0:3], s[:, 3:7], s[:, 7:10], s[:, 10:13], actions[t - 1])
        assert seen[t] == pytest.approx(expected, abs=2e-5)


def test_the_first_previous_action_is_what_the_motors_do():
    flight = Flight(CALM, seed=3)
    observation = flight.reset()
    assert observation[:, 18:22] == pytest.approx(2 * flight.state[:, 13:17] - 1, abs=1e-6)


def test_the_same_seed_gives_the_same_flights_and_another_seed_others():
    quads = sample("wide", 20, 1)
    first, again, other = (random_flight(Flight(quads, seed=s), 20)[0] for s in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


def test_starts_are_those_of_raptor():
    flight = Flight(sample("raptor", 2000, 1), seed=2)
    flight.reset()
    state = flight.state
    rest = (state[:, 7:13] == 0).all(axis=1)
    assert rest.mean() == pytest.approx(0.1, abs=0.03)
    assert np.abs(state[:, 0:3]).max() <= 0.5
    assert np.abs(state[:, 0:3][~rest]).mean() == pytest.approx(0.25, abs=0.01)
    angle = 2 * np.arccos(np.clip(state[:, 3][~rest], -1, 1))
    assert angle.max() <= 1.0 + 1e-3
    assert angle.mean() == pytest.approx(0.5, abs=0.03)
    assert state[:, 13:].min() >= 0
    assert state[:, 13:].max() <= 0.5
    # One standard deviation of the force per quadrotor.
    assert (flight.force / flight.quads.force_std[:, None]).std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("sensor", "columns", "channels", "steps"),
    [
        ("position", slice(0, 3), slice(0, 3), 2),
        ("velocity", slice(12, 15), slice(7, 10), 10),
        ("gyro", slice(15, 18), slice(10, 13), 1),
    ],
)
def test_a_late_sensor_shows_an_older_state(sensor, columns, channels, steps):
    flight = Flight(CALM.replace(**{f"{sensor}_delay": steps * TIME_STEP}), seed=3)
    seen, states, _ = random_flight(flight, 3 * SPAN)  # beyond the place where the history moves to the front
    assert seen[steps:, :, columns] == pytest.approx(states[: len(states) - steps, :, channels], abs=1e-4)
    assert seen[0, :, columns] == pytest.approx(states[0, :, channels], abs=1e-5)


def test_a_fractional_delay_mixes_its_two_neighbours():
    flight = Flight(CALM.replace(velocity_delay=0.014), seed=3)
    seen, states, _ = random_flight(flight, 20)
    expected = 0.6 * states[1:-1, :, 7:10] + 0.4 * states[:-2, :, 7:10]
    assert seen[2:, :, 12:15] == pytest.approx(expected, abs=1e-4)


def test_a_late_action_reaches_the_motors_one_step_later():
    quads = CALM.replace(tau_rise=0.05, tau_fall=0.05)
    late, prompt = Flight(quads.replace(action_delay=0.01)), Flight(quads)
    command = np.ones((20, 4), np.float32)
    for flight in (late, prompt):
        flight.reset(level(20))
        flight.step(command)
    assert late.state[:, 13:] == pytest.approx(0.25, abs=1e-6)
    late.step(command)
    assert late.state[:, 13:] == pytest.approx(prompt.state[:, 13:], abs=1e-6)
    assert prompt.state[:, 13:] == pytest.approx(1 - 0.75 * np.exp(-0.2), abs=1e-5)


def test_noise_and_bias_have_their_size():
    quads = sample("raptor", 2000, 1).replace(
        position_noise=0.01, orientation_noise=0.02, velocity_noise=0.05, gyro_noise=0.1, gyro_bias=(0.0, 0.3, 0.0)
    )
    flight = Flight(quads, seed=4)
    error = flight.reset(level(2000)) - quadrotor_observation(*np.split(level(2000), [3, 7, 10, 13], axis=1))
    for columns, std in ((slice(0, 3), 0.01), (slice(3, 12), 0.02), (slice(12, 15), 0.05), (slice(15, 18), 0.1)):
        assert error[:, columns].std(axis=0) == pytest.approx(std, rel=0.1)
    assert error[:, 15:18].mean(axis=0) == pytest.approx([0, 0.3, 0], abs=0.01)


def test_gusts_have_their_size_and_correlation():
    quads = sample("raptor", 2000, 1).replace(force_std=0.0, gust_std=1.0, gust_time=0.5, thrust_curve=0.0)
    flight = Flight(quads, seed=4)
    flight.reset(level(2000))
    velocity = [flight.state[:, 7:10]]
    for _ in range(26):
        flight.step(np.zeros((2000, 4), np.float32))
        velocity.append(flight.state[:, 7:10])
    gust: np.ndarray = np.diff(np.array(velocity), axis=0) / TIME_STEP + np.array([0, 0, GRAVITY])
    assert gust[0].std() == pytest.approx(1, abs=0.05)
    assert gust[-1].std() == pytest.approx(1, abs=0.05)
    assert (gust[0] * gust[25]).mean() == pytest.approx(np.exp(-0.5), abs=0.05)


def test_the_figure_eight_is_the_curve_and_its_derivatives():
    flight = Flight(from_airframes([AIRFRAMES["crazyflie"]]), acceleration=True)
    flight.reset(level(1), figure=Figure(period=5.5))
    references = [flight.reference[0]]
    for _ in range(1000):
        observation = flight.step(np.zeros((1, 4), np.float32))
        references.append(flight.reference[0])
    reference = np.array(references, dtype=float)
    assert observation[0, 22:25] == pytest.approx(references[-1][6:9])
    # Half the ramp of 3 s counts as full speed: at 3 + 5.5 s the phase is 1.5 s plus one period.
    phase = 2 * np.pi * (8.5 - 1.5) / 5.5
    assert reference[850, :3] == pytest.approx([np.sin(phase), 0.5 * np.sin(2 * phase), 0], abs=5e-4)
    assert reference[0, :6] == pytest.approx(np.zeros(6), abs=1e-6)
    slope = (reference[2:] - reference[:-2]) / (2 * TIME_STEP)
    assert reference[1:-1, 3:6] == pytest.approx(slope[:, 0:3], abs=5e-3)
    corner = np.abs(np.arange(1, 1000) - 300) <= 1  # where the ramp ends, the acceleration jumps
    assert reference[1:-1, 6:9][~corner] == pytest.approx(slope[~corner, 3:6], abs=2e-2)


def test_a_flight_that_leaves_the_limits_is_dead_and_stays_so():
    state = level(3)
    state[1, 7] = 2.5  # faster than 2 m/s
    state[2, 0] = 20.5 * CALM.arm[2]  # outside the box of 20 arms
    flight = Flight(CALM[:3])
    flight.reset(state)
    assert flight.alive.tolist() == [True, True, True]
    for _ in range(3):
        flight.step(2 * CALM[:3].trim() - 1)
    assert flight.alive.tolist() == [True, False, False]
    flight.reset(level(3))
    assert flight.alive.all()


def test_a_tumbling_flight_is_held_before_it_overflows():
    flight = Flight(CALM)
    state = level(20)
    state[:, 10:13] = 150.0, 120.0, 90.0
    flight.reset(state)
    for _ in range(2000):
        observation = flight.step(np.tile(np.array([1, 1, -1, -1], np.float32), (20, 1)))
    assert flight.lost.all()
    assert not flight.alive.any()
    assert np.isfinite(observation).all()
    assert np.abs(flight.state[:, 10:13]).max() <= 200


def test_a_number_that_is_not_finite_is_named():
    flight = Flight(CALM)
    flight.reset()
    action = np.zeros((20, 4), np.float32)
    flight.step(action)
    action[7, 2] = np.nan
    with pytest.raises(FlightError, match=r"action 2 of quadrotor 7 is nan at step 1"):
        flight.step(action)
    state = level(20)
    state[3, 8] = np.inf
    with pytest.raises(FlightError, match=r"velocity_w y of quadrotor 3 is inf at step 0"):
        flight.reset(state)


def test_a_state_that_turns_into_nan_is_named():
    inertia = CALM.inertia.copy()
    inertia[18, 0] = np.nan
    flight = Flight(Quadrotors(**{**vars(CALM), "inertia": inertia}))
    flight.reset(level(20))
    with pytest.raises(FlightError, match=r"of quadrotor 18 is nan at step 1 \(0.01 s\)"):
        flight.step(np.zeros((20, 4), np.float32))


def test_a_batch_of_the_wrong_size_is_refused():
    flight = Flight(CALM)
    flight.reset()
    with pytest.raises(FlightError, match=r"action has shape \(19, 4\); allowed: \(20, 4\)"):
        flight.step(np.zeros((19, 4), np.float32))
