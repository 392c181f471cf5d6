"""pinocchio's robot is MuJoCo's robot: where its points are, how they move, which forces they need."""

from __future__ import annotations

import mujoco
import numpy as np
import pinocchio as pin
import pytest

from controllers.g1 import REVISIONS, Site
from controllers.motion import ClipError, make_clip
from controllers.rotation_vectors import from_vector
from controllers.rotations import multiply, to_matrix
from sim.motions.kinematics import Kinematics, key_bodies, kinematics_of, soles
from sim.motions.measure import course
from sim.robots.g1 import build_model, joint_addresses, sole_geoms

POSES = 20


def random_postures(kinematics: Kinematics, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=(POSES, 4))
    joints = rng.uniform(kinematics.robot.lower, kinematics.robot.upper, size=(POSES, len(kinematics.joint_names)))
    return rng.normal(size=(POSES, 3)), quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True), joints


@pytest.mark.parametrize("name", ["g1_29dof", "g1_23dof", "g1_23dof_asap"])
def test_bodies_and_soles_are_where_mujoco_has_them(name: str) -> None:
    kinematics = Kinematics(REVISIONS[name])
    position, quaternion, joints = random_postures(kinematics)
    sweep = kinematics.sweep(position, quaternion, joints)
    bodies = tuple(Site(body.name, body.name, (0.0, 0.0, 0.0)) for body in kinematics.robot.bodies)
    points, feet = kinematics.points(sweep, bodies), kinematics.points(sweep, soles())
    centre, _ = kinematics.mass_centre(kinematics.sweep(position, quaternion, joints, derivatives=True))
    model = build_model(kinematics.robot, floor=False)
    data, columns = mujoco.MjData(model), joint_addresses(model, kinematics.joint_names)[0]
    for pose in range(POSES):
        data.qpos[:3], data.qpos[3:7], data.qpos[columns] = position[pose], quaternion[pose], joints[pose]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        expected = np.array([data.body(site.body).xpos for site in bodies])
        np.testing.assert_allclose(points[pose], expected, atol=1e-9)
        np.testing.assert_allclose(feet[pose], data.geom_xpos[sole_geoms(model)], atol=1e-9)
        np.testing.assert_allclose(centre[pose], data.subtree_com[1], atol=1e-6)


def test_jacobians_say_how_points_move() -> None:
    kinematics = kinematics_of(REVISIONS["g1_29dof"].joint_names)
    position, quaternion, joints = random_postures(kinematics)
    sites = key_bodies(kinematics.robot) + soles()
    sweep = kinematics.sweep(position, quaternion, joints, derivatives=True)
    points = kinematics.points(sweep, sites)
    jacobians = kinematics.point_jacobians(sweep, sites, points)
    centre, centre_jacobian = kinematics.mass_centre(sweep)
    step = 1e-6
    change = np.random.default_rng(1).normal(size=(POSES, 6 + joints.shape[1]))
    later = kinematics.sweep(
        position + step * change[:, :3],
        multiply(quaternion, from_vector(step * change[:, 3:6])),
        joints + step * change[:, 6:],
        derivatives=True,
    )
    speed = (kinematics.points(later, sites) - points) / step
    np.testing.assert_allclose(np.einsum("tpin,tn->tpi", jacobians, change), speed, atol=1e-4)
    centre_speed = (kinematics.mass_centre(later)[0] - centre) / step
    np.testing.assert_allclose(np.einsum("tin,tn->ti", centre_jacobian, change), centre_speed, atol=1e-4)


def test_forces_are_those_of_mujocos_inverse_dynamics() -> None:
    kinematics = kinematics_of(REVISIONS["g1_23dof"].joint_names)
    t = np.arange(30)[:, None] / 50
    joints = 0.3 * np.sin(3 * t + np.arange(23))
    turns = from_vector(np.hstack([np.sin(2 * t), 0.5 * np.cos(t), t]))
    clip = make_clip(50, kinematics.joint_names, np.hstack([np.sin(t), t**2, 0.8 + 0 * t]), turns, joints)
    q, v, a = course(kinematics, clip)
    model = build_model(kinematics.robot, floor=False)
    for flag in ("mjDSBL_CONTACT", "mjDSBL_ACTUATION", "mjDSBL_LIMIT"):
        model.opt.disableflags |= int(getattr(mujoco.mjtDisableBit, flag))
    data, (columns, rates) = mujoco.MjData(model), joint_addresses(model, kinematics.joint_names)
    push = np.gradient(clip.root_linear_velocity, 1 / 50, axis=0)  # MuJoCo's root accelerates in the world frame
    for frame in range(0, clip.frames, 5):
        data.qpos[:3], data.qpos[3:7], data.qpos[columns] = (
            clip.root_position[frame],
            clip.root_quaternion[frame],
            joints[frame],
        )
        data.qvel[:3], data.qvel[3:6], data.qvel[rates] = clip.root_linear_velocity[frame], v[frame, 3:6], v[frame, 6:]
        data.qacc[:3], data.qacc[3:6], data.qacc[rates] = push[frame], a[frame, 3:6], a[frame, 6:]
        mujoco.mj_inverse(model, data)
        needed = pin.rnea(kinematics.model, kinematics.data, q[frame], v[frame], a[frame])
        turn = to_matrix(clip.root_quaternion[frame])
        np.testing.assert_allclose(turn @ needed[:3], data.qfrc_inverse[:3], atol=1e-5)
        np.testing.assert_allclose(needed[3:6], data.qfrc_inverse[3:6], atol=1e-5)
        np.testing.assert_allclose(needed[6:], data.qfrc_inverse[rates], atol=1e-5)


def test_other_robots_are_refused() -> None:
    with pytest.raises(ClipError, match=r"not those of the G1 with 29 or 23 joints \(2 joints: hip, knee"):
        kinematics_of(("hip", "knee"))
