"""A policy file computes what the formulas say, survives a round trip, and is refused when one piece does not fit."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_policy import flights, random_weights, spec_of, write

from controllers.observation import quadrotor_observation
from controllers.policy import decode_golden, encode_golden, load_policy
from controllers.rotations import from_axis_angle, rotate
from controllers.spec import PolicyError, PolicySpec
from sim.export import parameter_count, preprocess, read_weights, student_forward, write_policy

REST = (np.zeros(3), np.array([1.0, 0, 0, 0]), np.zeros(3), np.zeros(3), np.zeros(4))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("policy") / "policy.onnx", random_weights(0))


# What the network computes


@pytest.mark.parametrize(("hidden", "inputs"), [(16, 22), (24, 22), (16, 25)])
def test_the_file_computes_what_the_reference_computes(tmp_path: Path, hidden: int, inputs: int) -> None:
    weights = random_weights(1, hidden, inputs)
    policy = load_policy(write(tmp_path / "policy.onnx", weights))
    h = reference_h = policy.reset(9)
    for obs in flights(2, 100, 9, inputs):
        action, h = policy.step(obs, h)
        reference_action, reference_h = student_forward(weights, obs, reference_h)
        np.testing.assert_allclose(action, reference_action, atol=2e-6)
        np.testing.assert_allclose(h, reference_h, atol=2e-6)


def test_one_unit_worked_by_hand(tmp_path: Path) -> None:
    weights = {name: np.zeros_like(array) for name, array in random_weights(0, hidden=1).items()}
    weights["bi"] += [0.1, 0.2, 0.3]  # reset, update, new
    weights["Wh"] += [[0.4], [0.5], [0.6]]
    weights["bh"] += [0.7, 0.8, 0.9]
    weights["h0"] += -0.5
    weights["W2"] += [[1], [-1], [10], [-10]]
    weights["b2"] += [0, 0.25, 0, 0]
    r = 1 / (1 + math.exp(-(0.1 + 0.4 * -0.5 + 0.7)))
    z = 1 / (1 + math.exp(-(0.2 + 0.5 * -0.5 + 0.8)))
    n = math.tanh(0.3 + r * (0.6 * -0.5 + 0.9))
    expected = (1 - z) * n + z * -0.5

    policy = load_policy(write(tmp_path / "policy.onnx", weights))
    action, h = policy.step(quadrotor_observation(*REST)[None], policy.reset(1))
    np.testing.assert_allclose(h, [[expected]], atol=1e-6)
    np.testing.assert_allclose(
        action, [np.clip([expected, 0.25 - expected, 10 * expected, -10 * expected], -1, 1)], atol=1e-5
    )


def test_the_published_size_has_2084_parameters() -> None:
    assert parameter_count(random_weights(0)) == 2084


def test_each_robot_of_a_batch_is_alone(path: Path) -> None:
    policy = load_policy(path)
    obs = flights(3, 1, 5)[0]
    action, h = policy.step(obs, policy.reset(5))
    for robot in range(5):
        alone, h_alone = policy.step(obs[robot : robot + 1], policy.reset(1))
        np.testing.assert_allclose(action[robot], alone[0], atol=1e-6)
        np.testing.assert_allclose(h[robot], h_alone[0], atol=1e-6)


# What the network does to its inputs first


def turned(obs: np.ndarray, angle: float) -> np.ndarray:
    """What the same flight looks like in a world that is turned by `angle` about the vertical."""
    q = from_axis_angle([0, 0, 1], angle)
    obs = obs.copy()
    for first in (0, 12, 22):
        if first < obs.shape[-1]:
            obs[..., first : first + 3] = rotate(q, obs[..., first : first + 3])
    for column in range(3):
        obs[..., 3 + column : 12 : 3] = rotate(q, obs[..., 3 + column : 12 : 3])
    return obs


@pytest.mark.parametrize("degrees", [-179, -120, -50, -40, 0, 40, 50, 120, 179])
def test_the_yaw_error_ends_at_45_degrees_and_nothing_else_changes(degrees: float) -> None:
    angle = math.radians(degrees)
    tilt = from_axis_angle([1, 2, 0], 0.3)  # about a horizontal axis, so without any yaw
    obs = quadrotor_observation([0.1, 0.2, 0.3], tilt, [0.4, 0.5, 0.6], [7, 8, 9], [0.1, 0.2, 0.3, 0.4])[None]
    obs = np.hstack([obs, [[1, 2, 3]]])
    limited = math.radians(max(-45, min(45, degrees)))
    np.testing.assert_allclose(preprocess(turned(obs, angle)), turned(obs, limited), atol=3e-3)


def test_errors_are_limited_along_each_axis() -> None:
    obs = quadrotor_observation([5, -0.4, -0.6], REST[1], [-3, 0.9, 1.1], [30, -40, 50], [2, -3, 4, -5])
    seen = preprocess(np.hstack([obs, [6, -7, 4]])[None])[0]
    np.testing.assert_allclose(seen[0:3], [0.5, -0.4, -0.5])
    np.testing.assert_allclose(seen[12:15], [-1, 0.9, 1])
    np.testing.assert_allclose(seen[15:22], [30, -40, 50, 2, -3, 4, -5])
    np.testing.assert_allclose(seen[22:25], [5, -5, 4])


# The file


def test_weights_and_spec_come_back_bit_for_bit(path: Path) -> None:
    weights = random_weights(0)
    again = read_weights(path)
    assert again.keys() == weights.keys()
    for name in weights:
        np.testing.assert_array_equal(again[name], weights[name])
    assert load_policy(path).spec == spec_of(weights)


def test_the_same_weights_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "again.onnx", random_weights(0)).read_bytes() == path.read_bytes()


def test_golden_sequences_come_back() -> None:
    observations, actions = flights(0, 4, 2), flights(1, 4, 2)[..., :4]
    again = decode_golden(encode_golden(observations, actions))
    np.testing.assert_array_equal(again[0], observations)
    np.testing.assert_array_equal(again[1], actions)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = write(tmp_path / "policy.onnx", random_weights(0))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    with pytest.raises(PolicyError, match=r"policy.onnx: cannot be written \(No space left on device\)"):
        write(path, random_weights(1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("W0", lambda a: a[:, :21], r"weight W0 has shape \(16, 21\); allowed: \(16, 22\)"),
        ("Wh", lambda a: a * np.nan, "weight Wh holds a number that is not finite"),
        ("h0", lambda a: a + 1, "initial differs from weight h0"),
    ],
)
def test_weights_that_do_not_fit_are_not_written(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    weights = random_weights(0)
    spec = spec_of(weights)
    with pytest.raises(PolicyError, match=message):
        write_policy(tmp_path / "policy.onnx", {**weights, name: change(weights[name])}, spec, flights(0, 40, 3))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(31, 3, 22), (40, 1, 22), (40, 3, 21), (40, 22)])
def test_golden_observations_that_do_not_fit_are_not_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weights = random_weights(0)
    with pytest.raises(PolicyError, match=r"golden_obs has shape .* allowed: \(32 or more, 2 or more, 22\)"):
        write_policy(tmp_path / "policy.onnx", weights, spec_of(weights), np.zeros(shape))
    assert not any(tmp_path.iterdir())


# Files that do not fit


def with_metadata(path: Path, target: Path, **changes: str | None) -> Path:
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props} | changes
    helper.set_model_props(model, {key: value for key, value in metadata.items() if value is not None})
    onnx.save(model, target)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_a_file_that_is_missing_or_cut_short_is_refused(path: Path, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.onnx")
    short = tmp_path / "short.onnx"
    short.write_bytes(path.read_bytes()[:2000])
    assert "not a model that onnxruntime can read" in refusal(short)


def test_a_file_without_spec_or_golden_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "other.onnx"
    assert "policy_spec is not in the metadata" in refusal(with_metadata(path, target, policy_spec=None))
    assert "golden is not in the metadata" in refusal(with_metadata(path, target, golden=None))
    assert "golden cannot be read" in refusal(with_metadata(path, target, golden="{}"))


def test_one_changed_weight_is_caught_by_the_golden_sequences(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    (index,) = [i for i, array in enumerate(model.graph.initializer) if array.name == "Wh"]
    weight = numpy_helper.to_array(model.graph.initializer[index]).copy()
    weight[0, 5, 5] += 0.01
    model.graph.initializer[index].CopyFrom(numpy_helper.from_array(weight, "Wh"))
    onnx.save(model, tmp_path / "changed.onnx")
    assert "golden actions differ by" in refusal(tmp_path / "changed.onnx")


def test_golden_sequences_must_be_long_and_of_the_right_shape(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "other.onnx"
    short = encode_golden(flights(0, 31, 2), flights(0, 31, 2)[..., :4])
    assert "golden has 31 steps; allowed: 32 or more" in refusal(with_metadata(path, target, golden=short))
    narrow = encode_golden(flights(0, 40, 2)[..., :21], flights(0, 40, 2)[..., :4])
    assert "golden holds observations (40, 2, 21)" in refusal(with_metadata(path, target, golden=narrow))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("schema",), "realign.policy/9", "policy_spec.schema is 'realign.policy/9'; allowed: 'realign.policy/1'"),
        (("robot",), 3, "policy_spec.robot is 3; allowed: text"),
        (("robot",), None, "policy_spec.robot is null; allowed: text"),
        (("colour",), "red", "policy_spec.colour is unknown; allowed: robot"),
        (("rates", "native_hz"), 0, "policy_spec.rates.native_hz is 0.0; allowed: above 0"),
        (("rates", "native_hz"), "fast", 'policy_spec.rates.native_hz is "fast"; allowed: a finite number'),
        (("action", "clip"), [1], "policy_spec.action.clip is [1]; allowed: a list of 2"),
        (("action", "scale"), [1], "policy_spec.action.scale has 1 numbers; allowed: 4"),
        (("observation", 0, "frame"), "sky", "policy_spec.observation[0].frame is \"sky\"; allowed: 'world'"),
        (("observation", 0, "size"), 4, "obs is tensor(float) of shape ['batch', 22]; allowed"),
        (("recurrent", "input"), "state", "inputs are ['obs', 'h_in']; allowed: ['obs', 'state']"),
        (("recurrent", "size"), 17, "policy_spec.recurrent.initial has 16 numbers; allowed: 17"),
        (("training", "seed"), True, "policy_spec.training.seed is true; allowed: a whole number"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_by_field(
    path: Path, tmp_path: Path, where: tuple, value: object, message: str
) -> None:
    raw = json.loads(spec_of(random_weights(0)).to_json())
    *parents, last = where
    place = raw
    for parent in parents:
        place = place[parent]
    place[last] = value
    assert message in refusal(with_metadata(path, tmp_path / "other.onnx", policy_spec=json.dumps(raw)))


def test_a_missing_field_of_the_spec_is_named() -> None:
    raw = json.loads(spec_of(random_weights(0)).to_json())
    del raw["action"]["reset_value"]
    with pytest.raises(PolicyError, match=r"policy_spec\.action\.reset_value is missing"):
        PolicySpec.from_json(json.dumps(raw))


def test_a_fixed_batch_is_refused(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    assert "obs is tensor(float) of shape [1, 22]" in refusal(tmp_path / "fixed.onnx")


def test_floats_of_the_spec_pass_through_json_unchanged() -> None:
    spec = spec_of(random_weights(0))
    odd = dataclasses.replace(spec, action=dataclasses.replace(spec.action, reset_value=0.1 + 0.2))
    assert PolicySpec.from_json(odd.to_json()) == odd


# What is fed to a policy


def test_an_observation_or_state_that_is_not_finite_is_named(path: Path) -> None:
    policy = load_policy(path)
    obs = flights(0, 1, 3)[0]
    obs[2, 13] = np.nan
    with pytest.raises(PolicyError, match=r"velocity_error\[1\] of robot 2 is nan"):
        policy.step(obs, policy.reset(3))
    h = policy.reset(3)
    h[1, 5] = np.inf
    with pytest.raises(PolicyError, match=r"h_in\[5\] of robot 1 is inf"):
        policy.step(flights(0, 1, 3)[0], h)


def test_an_observation_or_state_of_the_wrong_shape_is_refused(path: Path) -> None:
    policy = load_policy(path)
    with pytest.raises(PolicyError, match=r"observation has shape \(3, 25\); allowed: \(any number, 22\)"):
        policy.step(np.zeros((3, 25)), policy.reset(3))
    with pytest.raises(PolicyError, match=r"recurrent state has shape \(2, 16\); allowed: \(3, 16\)"):
        policy.step(np.zeros((3, 22)), policy.reset(2))
