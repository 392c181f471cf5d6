"""Our G1 against the public models: Unitree's URDF (example-robot-data) and MJCF (mjlab), at 100 random poses.

mjlab needs an older MuJoCo than we do and is no part of the extra [peers]; `pip install --no-deps mjlab` brings its
model, which is all that is read here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest

pytest.importorskip("pinocchio")

import pinocchio as pin

from controllers.g1 import revision
from sim.robots.g1 import build_model, build_spec, joint_addresses, to_mjcf
from sim.robots.g1_shapes import excluded_pairs
from sim.robots.g1_urdf import to_urdf

pytestmark = pytest.mark.peers

ROBOT = revision("g1_29dof")
POSES = 100
URDF = "cmeel.prefix/share/example-robot-data/robots/g1_description/urdf/g1_29dof_rev_1_0.urdf"


@pytest.fixture(scope="module")
def reference_urdf() -> pin.Model:
    """Unitree's URDF, rev 1.0."""
    try:
        path = Path(str(importlib.metadata.distribution("example-robot-data").locate_file(URDF)))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs example-robot-data, of the extra [peers]")
    return pin.buildModelFromUrdf(str(path), pin.JointModelFreeFlyer())


@pytest.fixture(scope="module")
def reference_mjcf() -> mujoco.MjSpec:
    """Unitree's MJCF as mjlab has it."""
    found = importlib.util.find_spec("mjlab")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the model in mjlab: pip install --no-deps mjlab")
    return mujoco.MjSpec.from_file(
        str(Path(found.submodule_search_locations[0]) / "asset_zoo/robots/unitree_g1/xmls/g1.xml")
    )


def poses(count: int = POSES) -> np.ndarray:
    """Configurations (count, 36) of MuJoCo."""
    rng = np.random.default_rng(7)
    quaternion = rng.normal(size=(count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    joints = rng.uniform(ROBOT.lower, ROBOT.upper, (count, len(ROBOT.joints)))
    return np.concatenate([rng.normal(size=(count, 3)), quaternion, joints], axis=1)


def set_pose(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray) -> np.ndarray:
    """Put the robot there, joints by name; the mass matrix in our joint order."""
    places, dofs = joint_addresses(model, ROBOT.joint_names)
    data.qpos[:7], data.qpos[places] = qpos[:7], qpos[7:]
    mujoco.mj_forward(model, data)
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass)
    order = np.concatenate([np.arange(6), dofs])
    return mass[np.ix_(order, order)]


def test_our_urdf_is_the_robot_of_unitrees_urdf(reference_urdf: pin.Model) -> None:
    ours = pin.buildModelFromXML(to_urdf(ROBOT), pin.JointModelFreeFlyer())
    assert list(ours.names) == [name.replace("floating_base_joint", "root_joint") for name in reference_urdf.names]
    assert abs(pin.computeTotalMass(ours) - pin.computeTotalMass(reference_urdf)) < 1e-4
    for name, mine, theirs in zip(ours.names, ours.inertias, reference_urdf.inertias, strict=True):
        # Unitree's URDF has a cover of 1 g on the pelvis that its MJCF counts to the torso.
        cover = 1.001e-3 if name in ("root_joint", "waist_pitch_joint") else 1e-6
        assert abs(mine.mass - theirs.mass) < cover
        np.testing.assert_allclose(mine.lever, theirs.lever, atol=0.03 * cover + 1e-6)
        np.testing.assert_allclose(mine.inertia, theirs.inertia, atol=1e-4)
    np.testing.assert_allclose(ours.lowerPositionLimit[7:], reference_urdf.lowerPositionLimit[7:], atol=1e-4)
    np.testing.assert_allclose(ours.upperPositionLimit[7:], reference_urdf.upperPositionLimit[7:], atol=1e-4)
    data, other = ours.createData(), reference_urdf.createData()
    for qpos in poses():
        q = np.concatenate([qpos[:3], qpos[[4, 5, 6, 3]], qpos[7:]])
        pin.framesForwardKinematics(ours, data, q)
        pin.framesForwardKinematics(reference_urdf, other, q)
        for body in ROBOT.bodies:
            mine = data.oMf[ours.getFrameId(body.name)]
            theirs = other.oMf[reference_urdf.getFrameId(body.name)]
            np.testing.assert_allclose(mine.translation, theirs.translation, atol=1e-6)
        mine, theirs = pin.crba(ours, data, q), pin.crba(reference_urdf, other, q)
        np.testing.assert_allclose(np.triu(mine), np.triu(theirs), atol=1e-4)


def test_our_mjcf_is_the_robot_of_unitrees_mjcf(reference_mjcf: mujoco.MjSpec) -> None:
    ours, theirs = mujoco.MjModel.from_xml_string(to_mjcf(build_spec(ROBOT, floor=False))), reference_mjcf.compile()
    ours.dof_armature[:] = 0.0  # theirs is added later, in code
    assert abs(ours.body_subtreemass[0] - theirs.body_subtreemass[0]) < 1e-4
    for body in ROBOT.bodies:
        mine, other = ours.body(body.name), theirs.body(body.name)
        np.testing.assert_allclose(mine.mass, other.mass, atol=1e-4)
        np.testing.assert_allclose(mine.inertia, other.inertia, atol=1e-6)
        np.testing.assert_allclose(mine.ipos, other.ipos, atol=1e-6)
    for joint in ROBOT.joints:
        np.testing.assert_allclose(theirs.joint(joint.name).range, [joint.lower, joint.upper], atol=1e-6)
    data, other_data = mujoco.MjData(ours), mujoco.MjData(theirs)
    for qpos in poses():
        mass, other_mass = set_pose(ours, data, qpos), set_pose(theirs, other_data, qpos)
        np.testing.assert_allclose(mass, other_mass, atol=1e-4)
        for body in ROBOT.bodies:
            np.testing.assert_allclose(data.body(body.name).xpos, other_data.body(body.name).xpos, atol=1e-6)


def test_capsules_touch_where_the_meshes_touch(reference_mjcf: mujoco.MjSpec) -> None:
    """Over random poses, of the pairs of bodies that carry capsules: seven in eight of those whose meshes' hulls touch
    do so with us, and nine in ten of those that touch with us do so with the hulls."""
    spec = reference_mjcf.copy()
    for geom in list(spec.geoms):
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
            geom.contype = geom.conaffinity = 1
        else:
            spec.delete(geom)
    hulls, ours = spec.compile(), build_model(ROBOT, floor=False)
    carrying = {ours.body(ours.geom_bodyid[g]).name for g in range(ours.ngeom) if ours.geom_contype[g]}
    excluded = {frozenset(pair) for pair in excluded_pairs(ROBOT)}

    def touching(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray) -> set[frozenset[str]]:
        set_pose(model, data, qpos)
        pairs = {frozenset(model.body(model.geom_bodyid[g]).name for g in contact.geom) for contact in data.contact}
        return {pair for pair in pairs if pair <= carrying and pair not in excluded}

    both = only_ours = only_hulls = 0
    data, hull_data = mujoco.MjData(ours), mujoco.MjData(hulls)
    for qpos in poses(300):
        mine, theirs = touching(ours, data, qpos), touching(hulls, hull_data, qpos)
        both += len(mine & theirs)
        only_ours += len(mine - theirs)
        only_hulls += len(theirs - mine)
    assert both > 300
    assert both / (both + only_hulls) > 7 / 8
    assert both / (both + only_ours) > 0.9
