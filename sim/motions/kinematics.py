"""Where the robot's points are along a motion, how they move with its joints, and which forces it needs.

The model is pinocchio's, built from controllers.g1 and nothing else. pinocchio does one posture at a time; a `Sweep` is
the kinematics of T postures of that model, worked out for all of them at once, body after body.

A posture's velocity has 6 + J numbers: the root's origin in the world frame, the root's turning in its own frame, the
joints. Positions are summed up as root position (3), root quaternion (wxyz) and joints.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from controllers.g1 import FOOT_BODIES, G1, KEY_POINTS, REVISIONS, SOLE_POINTS, Site
from controllers.motion import Clip, ClipError
from controllers.rotations import to_matrix

Array = NDArray[np.floating]

GRAVITY = 9.81  # [m/s^2]
MODEL = "g1_29dof"  # the revision that motions are judged on, and its sibling without wrists


@dataclass(frozen=True)
class Sweep:
    """T postures and all that moves in them; N moving bodies, the root first."""

    rotations: Array
    """(T, N, 3, 3) body to world."""
    origins: Array
    """(T, N, 3) world [m]."""
    jacobians: Array | None
    """(T, 6, 6 + J) spatial velocity at the world's origin, linear first, per unit of the posture's velocity."""


class _Hinge:
    """A joint of pinocchio's model, for many postures at once."""

    def __init__(self, model: pin.Model, joint: int):
        place = model.jointPlacements[joint]
        self.parent = model.parents[joint] - 1
        """Among the moving bodies."""
        self.place = place.translation.copy()
        self.turn = None if np.allclose(place.rotation, np.eye(3), atol=1e-15) else place.rotation.copy()
        self.axis = ("JointModelRX", "JointModelRY", "JointModelRZ").index(model.joints[joint].shortname())


class Kinematics:
    """Kinematics and dynamics of one revision of the robot."""

    def __init__(self, robot: G1):
        self.robot = robot
        self.model, self.place = _model(robot)
        self.data = self.model.createData()
        self.joint_names = robot.joint_names
        parents = list(self.model.parents)
        moved = np.zeros((self.model.njoints, self.model.nv), dtype=bool)  # whether a joint moves a body
        for joint in range(1, self.model.njoints):
            moved[joint] = moved[parents[joint]]
            first = self.model.idx_vs[joint]
            moved[joint, first : first + self.model.nvs[joint]] = True
        self._moved = moved[1:]  # (N, 6 + J)
        self._hinges = [_Hinge(self.model, joint) for joint in range(2, self.model.njoints)]

    def sweep(self, position: Array, quaternion: Array, joints: Array, derivatives: bool = False) -> Sweep:
        """Frames of all bodies, and how they move, for T postures."""
        frames, count = np.shape(joints)
        origins = np.empty((frames, count + 1, 3))
        rotations = np.empty((frames, count + 1, 3, 3))
        origins[:, 0], rotations[:, 0] = position, to_matrix(quaternion)
        cosine, sine = np.cos(joints)[..., None], np.sin(joints)[..., None]  # (T, J, 1)
        axes = np.empty((frames, count, 3))  # of the hinges, world
        for j, hinge in enumerate(self._hinges):
            frame = rotations[:, hinge.parent]
            origins[:, j + 1] = origins[:, hinge.parent] + frame @ hinge.place
            frame = frame if hinge.turn is None else frame @ hinge.turn
            a, b, c = hinge.axis, (hinge.axis + 1) % 3, (hinge.axis + 2) % 3
            axes[:, j] = rotations[:, j + 1, :, a] = frame[:, :, a]
            rotations[:, j + 1, :, b] = cosine[:, j] * frame[:, :, b] + sine[:, j] * frame[:, :, c]
            rotations[:, j + 1, :, c] = cosine[:, j] * frame[:, :, c] - sine[:, j] * frame[:, :, b]
        if not derivatives:
            return Sweep(rotations, origins, None)
        jacobians = np.zeros((frames, 6, 6 + count))
        jacobians[:, :3, :3] = np.eye(3)
        jacobians[:, 3:, 3:6] = rotations[:, 0]
        jacobians[:, 3:, 6:] = axes.transpose(0, 2, 1)
        about = np.concatenate([np.repeat(origins[:, :1], 3, axis=1), origins[:, 1:]], axis=1)  # (T, 3 + J, 3)
        x, y, z = about.transpose(2, 0, 1)
        u, v, w = jacobians[:, 3:, 3:].transpose(1, 0, 2)
        jacobians[:, 0, 3:], jacobians[:, 1, 3:], jacobians[:, 2, 3:] = y * w - z * v, z * u - x * w, x * v - y * u
        return Sweep(rotations, origins, jacobians)

    def points(self, sweep: Sweep, sites: tuple[Site, ...]) -> Array:
        """(T, P, 3) world [m]."""
        index, offset = self.fixed(sites)
        return sweep.origins[:, index] + np.einsum("tpij,pj->tpi", sweep.rotations[:, index], offset)

    def point_jacobians(self, sweep: Sweep, sites: tuple[Site, ...], points: Array) -> Array:
        """(T, P, 3, 6 + J) how the points (as `points` gives them) move."""
        assert sweep.jacobians is not None
        index, _ = self.fixed(sites)
        linear, angular = sweep.jacobians[:, :3], sweep.jacobians[:, 3:]
        x, y, z = np.moveaxis(points, -1, 0)[..., None]  # (T, P, 1) each
        a, b, c = (angular[:, None, i] for i in range(3))  # (T, 1, 6 + J) each
        turning = np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=2)
        result = (linear[:, None] + turning) * self._moved[index][:, None]
        result[..., :3] = np.eye(3)
        return result

    def jacobian_along(
        self, sweep: Sweep, frames: NDArray[np.int_], bodies: NDArray[np.int_], points: Array, axes: Array
    ) -> Array:
        """(M, 6 + J) how M points (M, 3) of moving bodies (M,) in these frames (M,) move along axes (M, 3)."""
        assert sweep.jacobians is not None
        own = sweep.jacobians[frames]
        moving = np.einsum("mi,min->mn", axes, own[:, :3]) + np.einsum("mi,min->mn", np.cross(points, axes), own[:, 3:])
        moving *= self._moved[bodies]
        moving[:, :3] = axes
        return moving

    def mass_centre(self, sweep: Sweep) -> tuple[Array, Array]:
        """Centre of mass (T, 3) [m] and how it moves (T, 3, 6 + J)."""
        bodies = self.robot.bodies
        sites = tuple(Site(body.name, body.name, body.center_of_mass) for body in bodies)
        share = np.array([body.mass for body in bodies]) / self.robot.mass
        points = self.points(sweep, sites)
        jacobians = self.point_jacobians(sweep, sites, points)
        return np.einsum("p,tpi->ti", share, points), np.einsum("p,tpin->tin", share, jacobians)

    def configuration(self, position: Array, quaternion: Array, joints: Array) -> Array:
        """pinocchio's q, (T, 7 + J)."""
        return np.concatenate([position, np.roll(quaternion, -1, axis=1), joints], axis=1)

    def fixed(self, sites: tuple[Site, ...]) -> tuple[NDArray[np.int_], Array]:
        """Moving body and place in its frame, for points of bodies that may be welded to others."""
        index, offset = [], []
        for site in sites:
            joint, placement = self.place[site.body]
            index.append(joint - 1)
            offset.append(placement.act(np.array(site.position)))
        return np.array(index), np.array(offset).reshape(-1, 3)


def _model(robot: G1) -> tuple[pin.Model, dict[str, tuple[int, pin.SE3]]]:
    """pinocchio's model, and for each body the joint that moves it and its frame in that joint's."""
    model = pin.Model()
    model.gravity.linear = np.array([0.0, 0.0, -GRAVITY])
    hinges = {joint.body: joint for joint in robot.joints}
    kinds = {"x": pin.JointModelRX, "y": pin.JointModelRY, "z": pin.JointModelRZ}
    place: dict[str, tuple[int, pin.SE3]] = {}
    for body in robot.bodies:
        if body.parent == "world":
            joint, placement = model.addJoint(0, pin.JointModelFreeFlyer(), pin.SE3.Identity(), "root"), pin.SE3(1)
        else:
            parent, frame = place[body.parent]
            placement = frame * pin.SE3(to_matrix(body.quaternion), np.array(body.position))
            joint = parent
            if body.name in hinges:
                hinge = hinges[body.name]
                joint, placement = model.addJoint(parent, kinds[hinge.axis](), placement, hinge.name), pin.SE3(1)
        axes = to_matrix(body.inertia_quaternion)
        inertia = axes @ np.diag(body.inertia) @ axes.T
        model.appendBodyToJoint(joint, pin.Inertia(body.mass, np.array(body.center_of_mass), inertia), placement)
        place[body.name] = joint, placement
    order = [model.names[joint] for joint in range(2, model.njoints)]
    assert tuple(order) == robot.joint_names, "bodies and joints of the robot are not in the same order"
    model.armature = np.concatenate([np.zeros(6), robot.armature])
    return model, place


@functools.cache
def kinematics_of(joint_names: tuple[str, ...]) -> Kinematics:
    """The robot that has these joints. Raises ClipError where no G1 has them."""
    for name in (MODEL, MODEL.replace("29", "23")):
        if REVISIONS[name].joint_names == joint_names:
            return Kinematics(REVISIONS[name])
    raise ClipError(
        f"joint_names are not those of the G1 with 29 or 23 joints ({len(joint_names)} joints: "
        f"{', '.join(joint_names[:3])}, ...); only its motions can be judged and repaired"
    )


def soles() -> tuple[Site, ...]:
    """The centres of the 8 spheres that the feet stand on: left 4, right 4. Their height above the floor is their z
    without SOLE_RADIUS."""
    return tuple(Site(f"{body}_{i}", body, point) for body in FOOT_BODIES for i, point in enumerate(SOLE_POINTS))


def key_bodies(robot: G1) -> tuple[Site, ...]:
    """The tracked points: the origins of all moving bodies, hands and head."""
    moving = ("pelvis", *(joint.body for joint in robot.joints))
    return tuple(Site(body, body, (0.0, 0.0, 0.0)) for body in moving) + KEY_POINTS


def sweep_clip(clip: Clip, derivatives: bool = False) -> tuple[Kinematics, Sweep]:
    """The robot of a clip and its postures. Raises ClipError where it is no G1."""
    kinematics = kinematics_of(clip.joint_names)
    return kinematics, kinematics.sweep(clip.root_position, clip.root_quaternion, clip.joint_position, derivatives)
