"""The policy that ships: small enough, good enough, and the same in C. Every figure here is simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controllers.airframe import AIRFRAMES
from controllers.policy import load_policy
from firmware_export.compiled import compile_policy
from firmware_export.to_c import generate
from sim.flight import Figure, Flight
from sim.robots.quadrotors import from_airframes, sample

PATH = Path(__file__).parent.parent / "controllers" / "policies" / "quad-foundation.onnx"
LARGE = PATH.with_name("quad-foundation-32.onnx")


def test_foundation_policy_has_at_most_2084_parameters_and_raptors_inputs() -> None:
    spec = load_policy(PATH).spec
    assert spec.parameter_count <= 2084
    assert [(term.name, term.size) for term in spec.observation] == [
        ("position_error", 3),
        ("rotation_matrix", 9),
        ("velocity_error", 3),
        ("angular_velocity", 3),
        ("previous_action", 4),
    ]


def test_foundation_policy_survives_on_quadrotors_that_it_has_never_seen() -> None:
    policy, flight = load_policy(PATH), Flight(sample("raptor", 512, 4242), seed=3)
    observation, h = flight.reset(), policy.reset(512)
    for _ in range(500):
        action, h = policy.step(observation, h)
        observation = flight.step(action)
    distance = np.linalg.norm(flight.position_error, axis=1)
    assert flight.alive.mean() > 0.98
    assert np.median(distance[flight.alive]) < 0.01


def test_the_larger_policy_takes_the_same_inputs_and_flies_what_the_small_one_finds_hardest() -> None:
    policy = load_policy(LARGE)
    assert policy.spec.observation == load_policy(PATH).spec.observation
    flight = Flight(sample("raptor", 512, 4242).replace(force_std=0.0), seed=3)
    flight.reset()
    state = flight.state * 0
    state[:, 3] = 1
    state[:, 13:] = 0.5
    observation, h = flight.reset(state.astype(np.float32), figure=Figure(4.0)), policy.reset(512)
    errors = []
    for step in range(900):
        action, h = policy.step(observation, h)
        observation = flight.step(action)
        if step >= 500:
            errors.append(np.linalg.norm(flight.position_error, axis=1))
    assert np.median(np.array(errors)) < 0.07  # the small one: 12 cm


def test_foundation_policy_hovers_every_named_airframe_within_5_centimetres() -> None:
    policy, flight = load_policy(PATH), Flight(from_airframes(list(AIRFRAMES.values())), seed=1)
    observation, h = flight.reset(), policy.reset(len(AIRFRAMES))
    for _ in range(1000):
        action, h = policy.step(observation, h)
        observation = flight.step(action)
    distance = np.linalg.norm(flight.position_error, axis=1)
    assert dict(zip(AIRFRAMES, distance > 0.05, strict=True)) == dict.fromkeys(AIRFRAMES, False)


def test_foundation_policy_in_c_stays_with_the_onnx_file_over_500_steps_of_flight(tmp_path: Path) -> None:
    for name, text in generate(PATH, "quad").items():
        (tmp_path / name).write_text(text)
    compiled, policy = compile_policy(tmp_path, "quad"), load_policy(PATH)
    n = 64
    flight = Flight(sample("wide", n, 11), seed=2)
    state = flight.state * 0
    state[:, 3] = 1
    state[:, 13:] = 0.5
    observation = flight.reset(state.astype(np.float32), figure=Figure(5.5))
    h, hc, worst = policy.reset(n), compiled.reset(n), 0.0
    for _ in range(500):
        action, h = policy.step(observation, h)
        in_c, hc = compiled.step(observation, hc)
        worst = max(worst, float(np.abs(in_c - action).max()))
        observation = flight.step(action)
    # The trained gains magnify rounding: onnxruntime itself is 2.5e-6 from float64 here.
    assert worst <= 8e-6


@pytest.mark.parametrize("yaw", [np.pi, -2.5])
def test_foundation_policy_turns_around_from_any_heading(yaw: float) -> None:
    n = 64
    policy, flight = load_policy(PATH), Flight(sample("standard", n, 5).replace(force_std=0.0), seed=4)
    flight.reset()
    state = flight.state * 0
    state[:, 3], state[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    state[:, 13:] = 0.5
    observation, h = flight.reset(state.astype(np.float32)), policy.reset(n)
    for _ in range(1500):
        action, h = policy.step(observation, h)
        observation = flight.step(action)
    assert (np.linalg.norm(flight.position_error, axis=1) < 0.3).mean() > 0.95
    assert np.median(np.abs(flight.state[:, 6])) < 0.1  # half the yaw error, as a quaternion has it
