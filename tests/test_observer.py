"""What a policy with joints sees is what its specification says: every number worked by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from controllers.observation import JointState, Observer
from controllers.rotations import from_axis_angle
from controllers.spec import (
    NO_MEMORY,
    ActionSpec,
    JointControl,
    Motion,
    ObservationTerm,
    PolicyError,
    PolicySpec,
    Rates,
    Training,
)

JOINTS = JointControl(("hip", "knee"), (0.1, -0.2), (100.0, 200.0), (2.0, 5.0))


def spec_with(*terms: ObservationTerm, motion: Motion | None = None) -> PolicySpec:
    """A policy of two joints, of which it drives the knee."""
    return PolicySpec(
        robot="leg",
        action=ActionSpec(("knee",), "joint target [rad]", (0.5,), (-0.2,), (-2.0, 2.0), 0.25),
        observation=terms,
        rates=Rates(200.0, 50.0, 50.0),
        recurrent=NO_MEMORY,
        limits=(),
        training=Training("none", 0, "0", {}, "none"),
        parameter_count=0,
        joints=JOINTS,
        motion=motion,
    )


def term(name: str, size: int, **settings: object) -> ObservationTerm:
    return ObservationTerm(name, size, "1", "none", **settings)  # type: ignore[arg-type]


def state(value: float = 0.0, robots: int = 1) -> JointState:
    """Upright; joint positions are value and 10 value, velocities twice that."""
    position = np.tile([value, 10 * value], (robots, 1))
    return JointState(np.tile([1.0, 0, 0, 0], (robots, 1)), np.full((robots, 3), 3 * value), position, 2 * position)


def test_terms_stand_in_the_order_of_the_specification_scaled_and_clipped() -> None:
    spec = spec_with(term("joint_velocity", 2, scale=0.5, clip=5.0), term("joint_offset", 2), term("joint_position", 2))
    observation = Observer(spec, 1).observe(state(1.0))
    np.testing.assert_allclose(observation, [[1, 5, 0.9, 10.2, 1, 10]], rtol=1e-6)
    assert observation.dtype == np.float32


def test_histories_are_newest_or_oldest_first_and_begin_with_zeros_or_the_first_sample() -> None:
    spec = spec_with(
        term("a", 2, quantity="joint_position", history=3),
        term("b", 2, quantity="joint_position", history=3, order="oldest first", fill="first sample"),
        term("c", 2, quantity="joint_position", history=2, age=1),
    )
    observer = Observer(spec, 1)
    np.testing.assert_allclose(observer.observe(state(1.0))[0], [1, 10, 0, 0, 0, 0, 1, 10, 1, 10, 1, 10, 0, 0, 0, 0])
    np.testing.assert_allclose(observer.observe(state(2.0))[0], [2, 20, 1, 10, 0, 0, 1, 10, 1, 10, 2, 20, 1, 10, 0, 0])
    np.testing.assert_allclose(
        observer.observe(state(3.0))[0], [3, 30, 2, 20, 1, 10, 1, 10, 2, 20, 3, 30, 2, 20, 1, 10]
    )


def test_the_previous_action_is_what_was_answered_clipped_and_targets_are_for_all_joints() -> None:
    observer = Observer(spec_with(term("previous_action", 1)), 2)
    np.testing.assert_allclose(observer.observe(state(robots=2)), [[0.25], [0.25]])
    targets = observer.targets(np.array([[1.0], [-7.0]]))
    np.testing.assert_allclose(targets, [[0.1, 0.3], [0.1, -1.2]])  # the hip stays at its default
    np.testing.assert_allclose(observer.observe(state(robots=2)), [[1], [-2]])


def test_gravity_points_down_in_the_body_frame() -> None:
    leaning = dataclasses.replace(state(), quaternion=from_axis_angle([0, 1, 0], math.pi / 2)[None])  # nose down
    observation = Observer(spec_with(term("projected_gravity", 3)), 1).observe(leaning)
    np.testing.assert_allclose(observation, [[1, 0, 0]], atol=1e-7)


def test_the_phase_is_the_time_with_its_lead_over_the_duration() -> None:
    spec = spec_with(term("phase", 1), motion=Motion(lead=0.02))
    np.testing.assert_allclose(Observer(spec, 1, motion_duration=4.0).observe(state(), 0.98), [[0.25]])
    own = dataclasses.replace(spec, motion=Motion(lead=0.0, duration=2.0))
    observation = Observer(own, 2, motion_duration=4.0).observe(state(robots=2), np.array([0.5, 1.0]))
    np.testing.assert_allclose(observation, [[0.25], [0.5]])


def test_a_reset_forgets_only_the_robots_that_it_names() -> None:
    spec = spec_with(term("previous_action", 1), term("joint_position", 2, history=2))
    observer = Observer(spec, 2)
    observer.observe(state(1.0, robots=2))
    observer.targets(np.ones((2, 1)))
    observer.reset(np.array([True, False]))
    np.testing.assert_allclose(observer.observe(state(2.0, robots=2)), [[0.25, 2, 20, 0, 0], [1, 2, 20, 1, 10]])


def test_a_batch_is_its_members() -> None:
    rng = np.random.default_rng(0)
    spec = spec_with(term("joint_offset", 2, history=2), term("angular_velocity", 3, age=1), term("phase", 1))
    spec = dataclasses.replace(spec, motion=Motion(lead=0.0, duration=1.0))
    batch, singles = Observer(spec, 3), [Observer(spec, 1) for _ in range(3)]
    for step in range(4):
        quaternion = rng.normal(size=(3, 4))
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        many = JointState(quaternion, rng.normal(size=(3, 3)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2)))
        ones = [JointState(*(getattr(many, f.name)[i : i + 1] for f in dataclasses.fields(many))) for i in range(3)]
        together = batch.observe(many, 0.1 * step)
        apart = [observer.observe(one, 0.1 * step) for observer, one in zip(singles, ones, strict=True)]
        np.testing.assert_array_equal(together, np.concatenate(apart))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_with(term("odour", 1)), "term odour samples 'odour'; allowed: previous_action, angular_velocity"),
        (spec_with(term("joint_position", 2, delay=0.01)), "term joint_position has delay 0.01; allowed for joints: 0"),
        (spec_with(term("phase", 1), motion=Motion(lead=0.0)), "policy_spec.motion.duration is absent"),
        (dataclasses.replace(spec_with(term("phase", 1)), joints=None), "policy_spec.joints is absent"),
    ],
)
def test_a_specification_that_cannot_be_observed_is_refused(spec: PolicySpec, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Observer(spec, 1)


def test_a_term_of_the_wrong_size_and_a_phase_without_motion_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"joint_position has shape \(1, 2\); allowed: \(1, 3\), as policy_spec says"):
        Observer(spec_with(term("joint_position", 3)), 1).observe(state())
    with pytest.raises(PolicyError, match=r"policy_spec\.motion is absent; allowed: a motion"):
        Observer(spec_with(term("phase", 1)), 1).observe(state())


# The specification of a robot with joints


def test_it_passes_through_json_and_leaves_out_what_is_at_its_default() -> None:
    spec = spec_with(term("a", 2, quantity="joint_position", age=1), term("phase", 1), motion=Motion(0.02, "walk", 3.1))
    text = spec.to_json()
    assert PolicySpec.from_json(text) == spec
    assert '"quantity": "joint_position"' in text and '"fill"' not in text and '"sha256"' not in text


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (dataclasses.replace(JOINTS, damping=(1.0,)), r"policy_spec.joints.damping has 1 numbers; allowed: 2"),
        (dataclasses.replace(JOINTS, names=("hip", "hip")), "policy_spec.joints.names is .*; allowed: none twice"),
        (dataclasses.replace(JOINTS, names=("hip", "toe")), r"policy_spec.action.names has \['knee'\]; allowed: those"),
    ],
)
def test_joints_that_contradict_the_rest_are_refused(joints: JointControl, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        dataclasses.replace(spec_with(term("joint_position", 2)), joints=joints).check()
