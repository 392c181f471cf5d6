"""The figures of the G1: consistent with each other, and with what was published."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controllers.g1 import (
    M4010,
    M5020,
    M7520_14,
    M7520_22,
    POSES,
    REVISIONS,
    WRISTS,
    GainRecipe,
    RobotError,
    action_scale,
    default_pose,
    gains,
    revision,
)
from tests.shared_data import shared


def test_joints_are_in_hardware_order() -> None:
    names = revision("g1_29dof").joint_names
    assert len(names) == 29
    leg = ["hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll"]
    arm = ["shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw"]
    assert list(names[:6]) == [f"left_{kind}_joint" for kind in leg]
    assert list(names[6:12]) == [f"right_{kind}_joint" for kind in leg]
    assert names[12:15] == ("waist_yaw_joint", "waist_roll_joint", "waist_pitch_joint")
    assert list(names[15:22]) == [f"left_{kind}_joint" for kind in arm]
    assert list(names[22:]) == [f"right_{kind}_joint" for kind in arm]


@pytest.mark.parametrize("name", [name for name in REVISIONS if "29" in name])
def test_without_wrists_six_joints_are_gone_and_nothing_else(name: str) -> None:
    full, reduced = revision(name), revision(name.replace("29", "23"))
    assert reduced.joint_names == tuple(joint for joint in full.joint_names if joint not in WRISTS)
    assert len(reduced.joints) == 23
    assert reduced.bodies == full.bodies


def test_masses_are_the_published_ones() -> None:
    assert revision("g1_29dof").mass == pytest.approx(33.341142, abs=1e-9)
    assert revision("g1_23dof_asap").mass == pytest.approx(35.112142, abs=1e-9)


def test_armature_is_the_reflected_inertia_of_the_gear_train() -> None:
    # 0.139e-4 * (46/18 + 1)^2 (56/16 + 1)^2 + 0.017e-4 * 4.5^2 + 0.169e-4, worked by hand
    assert M5020.armature == pytest.approx(0.139e-4 * 256 + 0.017e-4 * 20.25 + 0.169e-4)
    published = {M5020: 0.003609725, M7520_14: 0.010177520, M7520_22: 0.025101925, M4010: 0.00425}
    for motor, armature in published.items():
        assert motor.armature == pytest.approx(armature, rel=1e-6)


def test_gains_of_reflected_inertia_are_those_that_others_publish() -> None:
    robot = revision("g1_29dof_motors")
    stiffness, damping = gains(robot, "reflected")
    scale = action_scale(robot, "reflected")
    published = {  # stiffness, damping, action scale
        "left_hip_pitch_joint": (40.18, 2.558, 0.548),
        "right_knee_joint": (99.10, 6.309, 0.351),
        "left_hip_roll_joint": (99.10, 6.309, 0.351),
        "left_ankle_roll_joint": (28.50, 1.814, 0.439),
        "waist_pitch_joint": (28.50, 1.814, 0.439),
        "right_elbow_joint": (14.25, 0.907, 0.439),
        "left_wrist_yaw_joint": (16.78, 1.068, 0.0745),
    }
    for name, figures in published.items():
        index = robot.joint_names.index(name)
        assert (stiffness[index], damping[index], scale[index]) == pytest.approx(figures, rel=1e-3)


@pytest.mark.parametrize("name", REVISIONS)
def test_left_and_right_mirror_each_other(name: str) -> None:
    robot = revision(name)
    for joint in robot.joints:
        if joint.name.startswith("left_"):
            other = robot.joints[robot.joint_names.index(joint.name.replace("left_", "right_"))]
            mirrored = (-other.upper, -other.lower) if joint.axis != "y" else (other.lower, other.upper)
            assert (joint.lower, joint.upper) == pytest.approx(mirrored)
            assert (joint.torque_limit, joint.speed_limit) == (other.torque_limit, other.speed_limit)


@pytest.mark.parametrize("name", REVISIONS)
def test_every_figure_is_possible(name: str) -> None:
    robot = revision(name)
    known = {"world"}
    for body in robot.bodies:
        assert body.parent in known, "parents come before children"
        known.add(body.name)
        assert body.mass > 0
        assert max(body.inertia) <= sum(body.inertia) - max(body.inertia), "triangle inequality of moments"
        assert np.linalg.norm(body.quaternion) == pytest.approx(1, abs=1e-6)
        assert np.linalg.norm(body.inertia_quaternion) == pytest.approx(1, abs=1e-6)
    for joint in robot.joints:
        assert joint.lower < 0 < joint.upper and joint.torque_limit > 0 and joint.speed_limit > 0
    recipes: tuple[GainRecipe, ...] = ("reflected", "asap")
    for recipe in recipes:
        assert all((values > 0).all() for values in gains(robot, recipe))
    for pose in POSES:
        angles = default_pose(robot, pose)
        assert (angles > robot.lower).all() and (angles < robot.upper).all()


def test_the_default_revision_takes_the_smaller_of_two_published_limits() -> None:
    careful, full = revision("g1_29dof"), revision("g1_29dof_motors")
    assert (careful.torque_limit <= full.torque_limit).all()
    roll = careful.joint_names.index("left_hip_roll_joint")
    assert (careful.torque_limit[roll], full.torque_limit[roll]) == (88, 139)
    assert careful.speed_limit[roll] == 20


def test_what_does_not_exist_is_refused_with_what_does() -> None:
    with pytest.raises(RobotError, match="robot 'h1' is not known; allowed: g1_29dof, g1_23dof"):
        revision("h1")
    with pytest.raises(RobotError, match="no joint 'left_wrist_roll_joint'; it has left_hip_pitch_joint"):
        revision("g1_23dof").joint_indices(("left_wrist_roll_joint",))
    with pytest.raises(RobotError, match="default pose 'sitting' is not known; allowed: upright"):
        default_pose(revision("g1_29dof"), "sitting")


@pytest.mark.parametrize(("name", "file"), [("g1_29dof", "g1_29dof.json"), ("g1_23dof_asap", "g1_23dof_asap.json")])
def test_bodies_and_joints_are_those_of_the_published_models(name: str, file: str) -> None:
    published = json.loads(shared(f"robots/{file}").read_text())
    robot = revision(name)
    joints = {joint.body: joint for joint in robot.joints}
    assert [body["name"] for body in published["bodies"]] == [body.name for body in robot.bodies]
    for row in published["bodies"]:
        body = robot.body(row["name"])
        assert (list(body.position), list(body.quaternion)) == (row["pos"], row["quat_wxyz"])
        assert (body.parent, body.mass, list(body.center_of_mass)) == (row["parent"], row["mass"], row["com"])
        assert (list(body.inertia), list(body.inertia_quaternion)) == (
            row["inertia_principal"],
            row["inertia_quat_wxyz"],
        )
        hinges = [joint for joint in row["joints"] if joint["type"] == "hinge"]
        assert len(hinges) == (row["name"] in joints)
        for hinge in hinges:
            joint = joints[row["name"]]
            assert (joint.name, [joint.lower, joint.upper]) == (hinge["name"], hinge["range"])
            assert "xyz"[int(np.argmax(hinge["axis"]))] == joint.axis
