"""The simulated G1: the same robot in MuJoCo and in pinocchio, with motors, contacts and falls that are real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import mujoco
import numpy as np
import pinocchio as pin
import pytest

from controllers.g1 import KEY_POINTS, REVISIONS, default_pose, gains, revision
from sim.robots.g1 import (
    build_model,
    build_spec,
    joint_addresses,
    sole_geoms,
    sole_heights,
    standing,
    to_mjcf,
)
from sim.robots.g1_files import draw_without_display, robot_command
from sim.robots.g1_shapes import SHAPES
from sim.robots.g1_urdf import to_urdf

ROOT = Path(__file__).parent.parent
BOTH = ["g1_29dof", "g1_23dof_asap"]


def pinocchio_model(name: str) -> pin.Model:
    robot = revision(name)
    model = pin.buildModelFromXML(to_urdf(robot), pin.JointModelFreeFlyer())
    model.armature = np.concatenate([np.zeros(6), robot.armature])
    return model


def random_poses(name: str, count: int) -> np.ndarray:
    """Configurations (count, nq) of MuJoCo: anywhere, at any attitude, all joints within their ranges."""
    rng, robot = np.random.default_rng(0), revision(name)
    quaternion = rng.normal(size=(count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    joints = rng.uniform(robot.lower, robot.upper, (count, len(robot.joints)))
    return np.concatenate([rng.normal(size=(count, 3)), quaternion, joints], axis=1)


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> set[frozenset[str]]:
    mujoco.mj_forward(model, data)
    return {frozenset(model.geom(g).name for g in contact.geom) for contact in data.contact}


# One robot, two files


@pytest.mark.parametrize("name", BOTH)
def test_urdf_in_pinocchio_and_mjcf_in_mujoco_are_the_same_robot(name: str) -> None:
    robot = revision(name)
    model = mujoco.MjModel.from_xml_string(to_mjcf(build_spec(robot)))
    data = mujoco.MjData(model)
    other = pinocchio_model(name)
    other_data = other.createData()
    assert tuple(other.names)[2:] == robot.joint_names
    assert pin.computeTotalMass(other) == pytest.approx(robot.mass, abs=1e-9)
    for qpos in random_poses(name, 100):
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        q = np.concatenate([qpos[:3], qpos[[4, 5, 6, 3]], qpos[7:]])  # pinocchio's quaternions are xyzw
        pin.framesForwardKinematics(other, other_data, q)
        for point in (*robot.bodies, *robot.sites, *KEY_POINTS):
            found = other_data.oMf[other.getFrameId(point.name)]
            is_body = point in robot.bodies
            element = data.body(point.name) if is_body else data.site(point.name)
            np.testing.assert_allclose(found.translation, element.xpos, atol=1e-6)
            np.testing.assert_allclose(found.rotation, element.xmat.reshape(3, 3), atol=1e-6)

        mass = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, mass)
        turn = np.eye(model.nv)  # pinocchio's linear velocity of the root is in the body frame
        turn[:3, :3] = data.body("pelvis").xmat.reshape(3, 3).T
        other_mass = pin.crba(other, other_data, q)
        other_mass = np.triu(other_mass) + np.triu(other_mass, 1).T
        np.testing.assert_allclose(turn.T @ other_mass @ turn, mass, atol=1e-6)


def test_solids_of_the_urdf_are_where_those_of_the_mujoco_model_are(tmp_path: Path) -> None:
    """A capsule is a cylinder and two spheres there, and the spheres sit at its ends."""
    name = "g1_29dof"
    robot_command(name, tmp_path, picture=False)
    other = pin.buildModelFromUrdf(str(tmp_path / f"{name}.urdf"), pin.JointModelFreeFlyer())
    solids = pin.buildGeomFromUrdf(other, str(tmp_path / f"{name}.urdf"), pin.GeometryType.COLLISION)
    expected = sum({"capsule": 3}.get(shape.kind, 1) for shape in SHAPES if shape.touches != "nothing")
    assert solids.ngeoms == expected
    model = build_model(revision(name))
    data, other_data, solid_data = mujoco.MjData(model), other.createData(), solids.createData()
    (qpos,) = random_poses(name, 1)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    q = np.concatenate([qpos[:3], qpos[[4, 5, 6, 3]], qpos[7:]])
    pin.updateGeometryPlacements(other, other_data, solids, solid_data, q)
    found = np.array([placement.translation for placement in solid_data.oMg])
    for shape in SHAPES:
        if shape.touches == "nothing":
            continue
        geom, half = data.geom(shape.name), model.geom(shape.name).size[1]
        along = geom.xmat.reshape(3, 3)[:, 2] * half
        wanted = [geom.xpos, geom.xpos - along, geom.xpos + along] if shape.kind == "capsule" else [geom.xpos]
        for point in wanted:
            assert np.linalg.norm(found - point, axis=1).min() < 1e-6, shape.name


@pytest.mark.parametrize("name", REVISIONS)
def test_the_compiled_model_has_the_published_masses_and_the_reflected_armature(name: str) -> None:
    robot = revision(name)
    model = build_model(robot)
    assert model.nu == len(robot.joints)
    assert model.body_subtreemass[0] == pytest.approx(robot.mass, abs=1e-9)
    for body in robot.bodies:
        assert model.body(body.name).mass == pytest.approx(body.mass)
        np.testing.assert_allclose(model.body(body.name).inertia, body.inertia, rtol=1e-9)
    np.testing.assert_allclose(model.dof_armature[joint_addresses(model, robot.joint_names)[1]], robot.armature)
    before = model.dof_invweight0.copy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    np.testing.assert_allclose(model.dof_invweight0, before)  # contacts know of the armature


def test_joints_stand_in_qpos_in_their_order() -> None:
    robot = revision("g1_29dof")
    positions, velocities = joint_addresses(build_model(robot), robot.joint_names)
    np.testing.assert_array_equal(positions, np.arange(7, 36))
    np.testing.assert_array_equal(velocities, np.arange(6, 35))


# Motors


def test_the_joint_controllers_act_on_the_state_of_every_physics_step() -> None:
    robot = revision("g1_29dof")
    model = build_model(robot, recipe="asap")
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, robot)
    target = default_pose(robot) + 0.01
    stiffness, damping = gains(robot, "asap")
    data.ctrl[:] = target
    for _ in range(5):
        expected = stiffness * (target - data.qpos[7:]) - damping * data.qvel[6:]
        mujoco.mj_step(model, data)
        np.testing.assert_allclose(data.actuator_force, expected.clip(-robot.torque_limit, robot.torque_limit))


def test_no_motor_exceeds_its_torque_limit() -> None:
    robot = revision("g1_29dof")
    model = build_model(robot)
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, robot)
    data.ctrl[:] = 100.0
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.actuator_force, robot.torque_limit)


def test_gains_of_the_wrong_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stiffness has shape \(23,\); allowed: \(29,\)"):
        build_spec(revision("g1_29dof"), stiffness=np.ones(23))


# Contacts


@pytest.mark.parametrize("pose", ["upright", "crouched", "bent_arms"])
def test_it_stands_on_eight_spheres_and_nothing_else_touches(pose: str) -> None:
    robot = revision("g1_29dof")
    model = build_model(robot)
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, robot, pose)
    data.qpos[2] -= 0.002
    soles = {model.geom(g).name for g in sole_geoms(model)}
    touched = touching(model, data)
    assert touched and touched <= {frozenset({"floor", sole}) for sole in soles}
    assert sole_heights(model, data).min() == pytest.approx(-0.002, abs=1e-9)


LIMBS = (
    {"pelvis", "torso_left", "torso_right", "head"},
    *({f"{side}_{part}" for part in ("hip", "thigh", "shin", "foot")} for side in ("left", "right")),
    *(
        {f"{side}_{part}" for part in ("shoulder", "upper_arm", "forearm", "wrist", "palm")}
        for side in ("left", "right")
    ),
)


def test_parts_of_one_limb_do_not_touch_at_any_end_of_a_joint() -> None:
    robot = revision("g1_29dof")
    model = build_model(robot, floor=False)
    data = mujoco.MjData(model)
    for index, joint in enumerate(robot.joints):
        for angle in (joint.lower, joint.upper):
            data.qpos[:] = standing(model, robot)
            data.qpos[7 + index] = angle
            within = [pair for pair in touching(model, data) if any(pair <= limb for limb in LIMBS)]
            assert not within, f"{joint.name} at {angle}"


def test_legs_that_cross_touch() -> None:
    robot = revision("g1_29dof")
    model = build_model(robot, floor=False)
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, robot)
    data.qpos[7 + robot.joint_names.index("left_hip_roll_joint")] = -0.5236
    assert frozenset({"left_shin", "right_shin"}) in touching(model, data)


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_arm_is_solid_from_elbow_to_fingers(side: str) -> None:
    """No gap along the arm that a leg or a rod could pass through: the solids reach over each other's ends."""
    model = build_model(revision("g1_29dof"))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    solids = [data.geom(f"{side}_{name}") for name in ("forearm", "wrist", "palm")]
    elbow = data.body(f"{side}_elbow_link").xpos
    reach = elbow[0] + 0.03  # [m] forward along the arm; before that the elbow's own motor is in the way
    for solid in solids:
        half, radius = model.geom(solid.name).size[1], model.geom(solid.name).size[0]
        assert solid.xpos[0] - half - radius < reach
        reach = solid.xpos[0] + half + radius
    assert reach > elbow[0] + 0.3


def test_an_arm_that_is_pressed_against_the_chest_stops_there() -> None:
    robot = revision("g1_29dof")
    model = build_model(robot, recipe="asap", floor=False)
    model.opt.gravity[:] = 0
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, robot)
    target = default_pose(robot)
    inward = robot.joint_names.index("left_shoulder_roll_joint")
    target[inward] = robot.lower[inward]
    data.ctrl[:] = target
    mujoco.mj_step(model, data, nstep=400)
    assert any({"torso_left", "left_upper_arm"} & pair and len(pair) == 2 for pair in touching(model, data))
    assert data.qpos[7 + inward] > robot.lower[inward] + 0.5


def test_a_fall_ends_on_the_floor_and_not_in_it() -> None:
    robot = revision("g1_29dof")
    model = build_model(robot, recipe="asap")
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, robot)
    data.qvel[0] = -1.5  # pushed backwards
    data.ctrl[:] = default_pose(robot)
    mujoco.mj_step(model, data, nstep=600)
    assert data.body("pelvis").xpos[2] < 0.3
    mujoco.mj_kinematics(model, data)
    for shape in SHAPES:
        if shape.kind == "capsule" and shape.touches == "all":
            geom = data.geom(shape.name)
            half = model.geom(shape.name).size[1]
            lowest = geom.xpos[2] - abs(geom.xmat.reshape(3, 3)[2, 2]) * half - shape.radius
            assert lowest > -0.01, shape.name


# Files and looks


def test_the_command_writes_files_that_other_programs_load(tmp_path: Path) -> None:
    written = robot_command("g1_23dof", tmp_path / "robots", picture=False)
    assert [path.name for path in written] == ["g1_23dof.xml", "g1_23dof.urdf"]
    assert mujoco.MjModel.from_xml_path(str(written[0])).nu == 23
    assert pin.buildModelFromUrdf(str(written[1])).nv == 23
    with pytest.raises(ValueError, match="robot 'g1' is not known; allowed: g1_29dof"):
        robot_command("g1", tmp_path / "robots", picture=False)


def test_a_picture_shows_the_robot_on_its_floor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim.cli", "robot", "g1_29dof", "--out", str(tmp_path), "--picture"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode and ("EGL" in result.stderr or "OpenGL" in result.stderr):
        pytest.skip(f"no off-screen rendering here: {result.stderr.splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    picture = matplotlib.image.imread(tmp_path / "g1_29dof.png")[..., :3]
    assert picture.shape[0] == 720
    shade = picture.mean(axis=2)
    assert (shade > 0.75).mean() > 0.05 and (shade < 0.25).mean() > 0.01  # light shells and sky, dark joints
    third = shade[:, :400]  # the first view: sky above, floor below, and the robot is neither
    assert third[:60].mean() > third[-60:].mean() + 0.1
    assert (third[200:500, 150:280] < 0.3).any()


def test_off_screen_drawing_is_chosen_only_where_there_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what stood there, or nothing, comes back after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    draw_without_display()
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.delenv("DISPLAY")
    draw_without_display()
    assert os.environ["MUJOCO_GL"] == "egl"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    draw_without_display()
    assert os.environ["MUJOCO_GL"] == "osmesa"
