"""Where all bodies of many G1s are and how they move, from positions and velocities of their joints.

One pass over the tree per robot, compiled: what rewards and errors need of thousands of robots per second, whichever
engine moved them, and exactly of the state that the engine returned. A test compares it with MuJoCo's own kinematics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

import controllers.vectors  # noqa: F401 (before anything is compiled)
from controllers.g1 import FOOT_BODIES, G1, KEY_POINTS, SOLE_POINTS, SOLE_RADIUS
from controllers.scalar_rotations import AXES, product, rotate

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Bodies:
    """Frames of N robots: their B bodies in the robot's order, then the key points (hands, head) with their bodies'
    attitude."""

    position: Array
    """World [m], (N, B + K, 3)."""
    quaternion: Array
    """Body to world, (N, B + K, 4)."""
    linear_velocity: Array
    """Of the frames' origins, world [m/s], (N, B + K, 3)."""
    angular_velocity: Array
    """World [rad/s], (N, B + K, 3)."""


class Kinematics:
    """Forward kinematics of one revision. Configurations as in MuJoCo: root position and attitude, then joints; root
    velocity in the world, root angular velocity in the body frame, then joints."""

    def __init__(self, robot: G1) -> None:
        points = [point for point in KEY_POINTS]
        self.body_names = tuple(body.name for body in robot.bodies)
        self.names = (*self.body_names, *(point.name for point in points))
        order = {name: index for index, name in enumerate(self.body_names)}
        moved_by = {joint.body: index for index, joint in enumerate(robot.joints)}
        self._parent = np.array([order.get(body.parent, -1) for body in robot.bodies] + [order[p.body] for p in points])
        self._offset = np.array([body.position for body in robot.bodies] + [point.position for point in points])
        self._turn = np.array([body.quaternion for body in robot.bodies] + [(1.0, 0.0, 0.0, 0.0)] * len(points))
        self._joint = np.array([moved_by.get(name, -1) for name in self.body_names] + [-1] * len(points))
        self._axis = np.array([AXES[robot.joints[joint].axis] if joint >= 0 else 0 for joint in self._joint])
        self.feet = np.array([order[name] for name in FOOT_BODIES])
        self._soles = np.array(SOLE_POINTS)

    def of(self, qpos: Array, qvel: Array) -> Bodies:
        """Frames of configurations (N, nq) with velocities (N, nv)."""
        count, frames = len(qpos), len(self.names)
        found = Bodies(*(np.empty((count, frames, width)) for width in (3, 4, 3, 3)))
        _forward(
            np.ascontiguousarray(qpos, dtype=float),
            np.ascontiguousarray(qvel, dtype=float),
            self._parent,
            self._offset,
            self._turn,
            self._joint,
            self._axis,
            found.position,
            found.quaternion,
            found.linear_velocity,
            found.angular_velocity,
        )
        return found

    def soles(self, bodies: Bodies) -> tuple[Array, Array]:
        """Height of the lowest point of each contact sphere above z = 0 [m] and the sphere's velocity in the world
        [m/s], (N, 2, spheres) and (N, 2, spheres, 3)."""
        return _soles(
            bodies.position[:, self.feet],
            bodies.quaternion[:, self.feet],
            bodies.linear_velocity[:, self.feet],
            bodies.angular_velocity[:, self.feet],
            self._soles,
            SOLE_RADIUS,
        )


@numba.njit(cache=True, nogil=True)
def _forward(qpos, qvel, parent, offset, turn, joint, axis, position, quaternion, linear, angular):
    for n in range(len(qpos)):
        for b in range(len(parent)):
            p = parent[b]
            if p < 0:  # the root: its angular velocity is given in its own frame
                w, x, y, z = qpos[n, 3], qpos[n, 4], qpos[n, 5], qpos[n, 6]
                length = 1.0 / np.sqrt(w * w + x * x + y * y + z * z)
                w, x, y, z = w * length, x * length, y * length, z * length
                ox, oy, oz = rotate(w, x, y, z, qvel[n, 3], qvel[n, 4], qvel[n, 5])
                for i in range(3):
                    position[n, b, i] = qpos[n, i]
                    linear[n, b, i] = qvel[n, i]
            else:
                pw, px, py, pz = quaternion[n, p, 0], quaternion[n, p, 1], quaternion[n, p, 2], quaternion[n, p, 3]
                ax, ay, az = rotate(pw, px, py, pz, offset[b, 0], offset[b, 1], offset[b, 2])
                ox, oy, oz = angular[n, p, 0], angular[n, p, 1], angular[n, p, 2]
                position[n, b, 0] = position[n, p, 0] + ax
                position[n, b, 1] = position[n, p, 1] + ay
                position[n, b, 2] = position[n, p, 2] + az
                linear[n, b, 0] = linear[n, p, 0] + oy * az - oz * ay
                linear[n, b, 1] = linear[n, p, 1] + oz * ax - ox * az
                linear[n, b, 2] = linear[n, p, 2] + ox * ay - oy * ax
                w, x, y, z = product(pw, px, py, pz, turn[b, 0], turn[b, 1], turn[b, 2], turn[b, 3])
                j = joint[b]
                if j >= 0:
                    half = 0.5 * qpos[n, 7 + j]
                    c, s = np.cos(half), np.sin(half)
                    i = axis[b]
                    jx = s if i == 0 else 0.0
                    jy = s if i == 1 else 0.0
                    jz = s if i == 2 else 0.0
                    w, x, y, z = product(w, x, y, z, c, jx, jy, jz)
                    rate = qvel[n, 6 + j]
                    ux = 1.0 if i == 0 else 0.0
                    uy = 1.0 if i == 1 else 0.0
                    uz = 1.0 if i == 2 else 0.0
                    ux, uy, uz = rotate(w, x, y, z, ux, uy, uz)
                    ox, oy, oz = ox + rate * ux, oy + rate * uy, oz + rate * uz
            quaternion[n, b, 0], quaternion[n, b, 1], quaternion[n, b, 2], quaternion[n, b, 3] = w, x, y, z
            angular[n, b, 0], angular[n, b, 1], angular[n, b, 2] = ox, oy, oz


@numba.njit(cache=True, nogil=True)
def _soles(position, quaternion, linear, angular, points, radius):
    count, feet, spheres = len(position), position.shape[1], len(points)
    height, velocity = np.empty((count, feet, spheres)), np.empty((count, feet, spheres, 3))
    for n in range(count):
        for f in range(feet):
            w, x, y, z = quaternion[n, f, 0], quaternion[n, f, 1], quaternion[n, f, 2], quaternion[n, f, 3]
            ox, oy, oz = angular[n, f, 0], angular[n, f, 1], angular[n, f, 2]
            for s in range(spheres):
                ax, ay, az = rotate(w, x, y, z, points[s, 0], points[s, 1], points[s, 2])
                height[n, f, s] = position[n, f, 2] + az - radius
                velocity[n, f, s, 0] = linear[n, f, 0] + oy * az - oz * ay
                velocity[n, f, s, 1] = linear[n, f, 1] + oz * ax - ox * az
                velocity[n, f, s, 2] = linear[n, f, 2] + ox * ay - oy * ax
    return height, velocity
