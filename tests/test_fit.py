"""A policy that does not fit the robot is refused before a motor moves, and the refusal names the field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from controllers.evidence import KEY, Evidence, check_evidence, make_evidence
from controllers.g1 import REVISIONS, revision
from controllers.policy import Policy, load_policy
from controllers.spec import Limit, PolicyError, PolicySpec
from deploy.fit import fit, fit_tables
from deploy.mutations import CLIP, KINDS, campaign, mutations
from sim.wrap import read_spec, wrap_policy
from tests.test_wrap import ASAP, network

ROBOT = revision("g1_29dof")


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    wrap_policy(network(folder / "actor.onnx"), read_spec(ASAP), folder / "policy.onnx")
    return folder / "policy.onnx"


def changed(**parts: dict) -> PolicySpec:
    """ASAP's specification with these fields of these parts changed."""
    raw = json.loads(read_spec(ASAP).to_json())
    for part, fields in parts.items():
        raw[part] |= fields
    return PolicySpec.from_json(json.dumps(raw))


def loaded(path: Path) -> Policy:
    policy = load_policy(path)
    assert isinstance(policy, Policy)
    return policy


def test_an_adopted_policy_fits_every_revision_that_has_its_joints(policy_file: Path) -> None:
    for robot in REVISIONS.values():
        fit(loaded(policy_file), robot, CLIP)


def test_a_policy_without_golden_states_is_refused(policy_file: Path, tmp_path: Path) -> None:
    model = onnx.load(policy_file)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}
    del model.metadata_props[:]
    helper.set_model_props(model, kept)
    onnx.save(model, tmp_path / "old.onnx")
    with pytest.raises(PolicyError, match="golden_robot is not in the metadata"):
        fit(loaded(tmp_path / "old.onnx"), ROBOT, CLIP)


def test_a_policy_that_needs_a_clip_is_refused_without(policy_file: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy_spec\.motion\.duration is absent"):
        fit(loaded(policy_file), ROBOT)


GAINS = json.loads(ASAP.read_text())["joints"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            changed(joints={"stiffness": GAINS["damping"], "damping": GAINS["stiffness"]}),
            "joints.damping of left_hip_p",
        ),
        (changed(joints={"damping": [60.0, *GAINS["damping"][1:]]}), "joints.damping of left_hip_pitch_joint is 60;"),
        (
            changed(joints={"stiffness": [0.0, *GAINS["stiffness"][1:]]}),
            "joints.stiffness of left_hip_pitch_joint is 0",
        ),
        (changed(joints={"default_position": [0.0] * 22 + [3.0]}), "joints.default_position of right_elbow_joint is 3"),
        (changed(action={"scale": [50.0] + [0.25] * 22}), "action.scale of left_hip_pitch_joint is 50; allowed: not 0"),
        (changed(rates={"control_hz": 60.0, "native_hz": 60.0}), "rates.control_hz is 60; allowed: 20 to 200"),
        (changed(rates={"native_hz": 100.0}), "rates.native_hz is 100; allowed: 50"),
        (changed(rates={"physics_hz": 130.0}), "rates.physics_hz is 130; allowed: a multiple of 50"),
        (changed(action={"meaning": "torque"}), "action.meaning is 'torque'; allowed: 'joint target"),
        (
            dataclasses.replace(read_spec(ASAP), limits=(Limit("tilt", 3.0, "rad", "by the caller"),)),
            "policy_spec.limits tilt is 3 rad; allowed for the caller: angular_rate up to 20",
        ),
        (dataclasses.replace(read_spec(ASAP), robot="h1"), "policy_spec.robot is 'h1'; allowed: g1_29dof"),
        (dataclasses.replace(read_spec(ASAP), joints=None), "policy_spec.joints is absent"),
    ],
)
def test_what_contradicts_the_tables_is_refused_with_its_field(spec: PolicySpec, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        fit_tables(spec, ROBOT)


def test_a_joint_that_the_robot_lacks_is_refused() -> None:
    raw = read_spec(ASAP).to_json().replace("left_elbow_joint", "left_wing_joint")
    with pytest.raises(PolicyError, match=r"joints.names has \['left_wing_joint'\], which g1_29dof does not have"):
        fit_tables(PolicySpec.from_json(raw), ROBOT)


def test_evidence_passes_through_json_and_proves_what_it_was_made_of() -> None:
    spec = read_spec(ASAP)
    evidence = Evidence.from_json(make_evidence(spec, ROBOT).to_json())
    check_evidence(spec, evidence)
    assert evidence.joint_names == ROBOT.joint_names
    # The wrists are unknown to the policy, so nothing is said about them.
    wrists = [index for index, name in enumerate(ROBOT.joint_names) if "wrist" in name]
    assert np.isnan(evidence.target[:, :, wrists]).all() and np.isfinite(np.delete(evidence.target, wrists, -1)).all()


def test_the_golden_states_reach_every_clip() -> None:
    """Otherwise a clip that is wrong would go unnoticed."""
    spec = read_spec(ASAP)
    evidence = make_evidence(spec, ROBOT)
    low, high = spec.action.clip
    assert (evidence.action < low).any() and (evidence.action > high).any()
    largest = np.abs(evidence.observation).max((0, 1))
    reached = {name for name, value in zip(spec.observation_names, largest, strict=True) if value == 100.0}
    assert reached >= {term.name for term in spec.observation if term.sampled not in ("projected_gravity", "phase")}


def test_an_action_that_follows_the_motion_is_proved_too() -> None:
    spec = changed(action={"base": "motion"})
    evidence = make_evidence(spec, ROBOT)
    check_evidence(spec, evidence)
    with pytest.raises(PolicyError, match=r"policy_spec.action .* makes the target of left_hip_pitch_joint"):
        check_evidence(read_spec(ASAP), evidence)


def test_every_kind_of_lie_is_refused_with_its_field_and_no_truth_is(policy_file: Path, tmp_path: Path) -> None:
    found = campaign([policy_file], list(REVISIONS.values()), len(KINDS) + 1, 0, tmp_path)
    assert found.accepted == () and found.falsely_refused == () and found.unnamed == ()
    assert found.told == found.refused == len(KINDS) + 1
    assert found.true_files == 8 + found.told // 4


def test_a_lie_is_a_specification_that_differs(policy_file: Path) -> None:
    policy = loaded(policy_file)
    assert policy.golden_robot is not None
    evidence = Evidence.from_json(policy.golden_robot)
    for lie in mutations(policy.spec, evidence, 2 * (len(KINDS) + 1), np.random.default_rng(0)):
        same_spec = json.loads(lie.spec) == json.loads(policy.spec.to_json())
        assert not (same_spec and json.loads(lie.evidence) == json.loads(policy.golden_robot)), lie.kind
