"""Where a robot on two legs has got to, from its gyro, its attitude and its legs' joints: what stands on the floor
stands still, so the root moves by as much as the soles' lowest points seem to move the other way.

A robot that hops moves its feet while nothing stands. Then it would seem to be thrown back faster than anything can
throw it, which is not believed: it is taken to go on as it went before. What is left of the drift is feet that slide
slowly. No accelerometer is needed, and no state estimator of the robot's maker: nothing but what a policy observes
anyway. Bloesch et al. (2012), "State estimation for legged robots", is the full filter, of which this is the kinematic
part.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from . import vectors  # noqa: F401 (before anything is compiled)
from .g1 import FOOT_BODIES, G1, SOLE_POINTS, SOLE_RADIUS, RobotError
from .scalar_rotations import AXES, product, rotate

Array = NDArray[np.floating]

DEPTH = 0.003
"""Height [m] above the lowest point of the soles at which another counts e times less: about what the noise of joints
and attitude makes of points that stand on the same floor."""
JUMP = 0.8
"""Change of velocity [m/s] from which on a step is not believed: noise has a standard deviation of 0.3, pushes of that
size are seldom, and hopping feet move at 1 to 3."""
DOUBT = 0.1
"""Time [s] after which jumps are believed: a hop is shorter."""
SETTLE = 0.2
"""Share of a step's velocity in the running mean of velocities."""


class LegOdometry:
    """N robots. Call `step` once per control step; it places those that begin."""

    def __init__(self, robot: G1, joint_names: tuple[str, ...], count: int, period: float) -> None:
        """
        Args:
            robot: The revision.
            joint_names: Order of the joints that are measured; those of both legs are needed (RobotError).
            count: N.
            period: Of the control steps [s].
        """
        order = {joint.body: joint for joint in robot.joints}
        chains = [_chain(robot, foot) for foot in FOOT_BODIES]
        legs = [[order[name] for name in chain] for chain in chains]
        missing = [joint.name for leg in legs for joint in leg if joint.name not in joint_names]
        if missing:
            raise RobotError(f"leg odometry needs {missing[0]}, which is not among the joints {', '.join(joint_names)}")
        bodies = [[robot.body(name) for name in chain] for chain in chains]
        self._offset = np.array([[body.position for body in leg] for leg in bodies])
        self._turn = np.array([[body.quaternion for body in leg] for leg in bodies])
        self._joint = np.array([[joint_names.index(joint.name) for joint in leg] for leg in legs])
        self._axis = np.array([[AXES[joint.axis] for joint in leg] for leg in legs])
        self._soles = np.array(SOLE_POINTS)
        self.position = np.zeros((count, 3))
        """Of the roots in the world [m], (N, 3): two coordinates since the start, and the height above the lowest point
        of the soles."""
        self._points = np.zeros((count, len(FOOT_BODIES) * len(SOLE_POINTS), 3))  # of the soles, from the root
        self._velocity = np.zeros((count, 2))
        self._doubted = np.zeros(count, dtype=np.int64)  # steps in a row that were not believed
        self._period, self._patience = period, round(DOUBT / period)

    def step(
        self,
        quaternion: Array,
        angular_velocity_b: Array,
        joint_position: Array,
        joint_velocity: Array,
        fresh: NDArray[np.bool_],
        start: Array,
        velocity: Array,
    ) -> Array:
        """The positions, (N, 3), which are `self.position`.

        Args:
            quaternion: Measured attitude of the root, body to world, (N, 4).
            angular_velocity_b: The same of its angular velocity, body frame [rad/s], (N, 3).
            joint_position: Measured [rad], (N, J).
            joint_velocity: Measured [rad/s], (N, J).
            fresh: Which robots begin now, (N,).
            start: Where these are in the world [m], of which the first two coordinates count, (N, 3).
            velocity: How fast they are [m/s], of which the first two count, (N, 3).
        """
        _step(
            np.ascontiguousarray(quaternion, dtype=float),
            np.ascontiguousarray(angular_velocity_b, dtype=float),
            np.ascontiguousarray(joint_position, dtype=float),
            np.ascontiguousarray(joint_velocity, dtype=float),
            fresh,
            np.ascontiguousarray(start, dtype=float),
            np.ascontiguousarray(velocity, dtype=float),
            self._period,
            self._patience,
            self._offset,
            self._turn,
            self._joint,
            self._axis,
            self._soles,
            self._points,
            self._velocity,
            self._doubted,
            self.position,
        )
        return self.position

    def state(self) -> dict[str, NDArray]:
        """What later positions depend on, as arrays by name."""
        return {name: getattr(self, member).copy() for name, member in MEMORY.items()}

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """Go on from a `state`."""
        for name, member in MEMORY.items():
            getattr(self, member)[:] = arrays[name]


MEMORY = {"position": "position", "points": "_points", "velocity": "_velocity", "doubted": "_doubted"}


def _chain(robot: G1, foot: str) -> list[str]:
    """The bodies from the root, which is not among them, to that foot."""
    parents = {body.name: body.parent for body in robot.bodies}
    chain = [foot]
    while parents[parents[chain[0]]] != "world":
        chain.insert(0, parents[chain[0]])
    return chain


@numba.njit(cache=True)
def _step(
    attitude,
    gyro,
    angle,
    rate,
    fresh,
    start,
    first,
    period,
    patience,
    offset,
    turn,
    joint,
    axis,
    soles,
    points,
    velocity,
    doubted,
    position,
):
    feet, links = joint.shape
    count = len(soles)
    moved, speed = np.empty((feet * count, 2)), np.empty((feet * count, 2))
    height = np.empty(feet * count)
    for n in range(len(attitude)):
        lowest, low = 1e9, 1e9
        for f in range(feet):
            w, x, y, z = attitude[n, 0], attitude[n, 1], attitude[n, 2], attitude[n, 3]
            ox, oy, oz = rotate(w, x, y, z, gyro[n, 0], gyro[n, 1], gyro[n, 2])
            px = py = pz = vx = vy = 0.0
            for k in range(links):
                ax, ay, az = rotate(w, x, y, z, offset[f, k, 0], offset[f, k, 1], offset[f, k, 2])
                px, py, pz = px + ax, py + ay, pz + az
                vx, vy = vx + oy * az - oz * ay, vy + oz * ax - ox * az
                w, x, y, z = product(w, x, y, z, turn[f, k, 0], turn[f, k, 1], turn[f, k, 2], turn[f, k, 3])
                j, i = joint[f, k], axis[f, k]
                bx, by, bz = 1.0 if i == 0 else 0.0, 1.0 if i == 1 else 0.0, 1.0 if i == 2 else 0.0
                ux, uy, uz = rotate(w, x, y, z, bx, by, bz)
                ox, oy, oz = ox + rate[n, j] * ux, oy + rate[n, j] * uy, oz + rate[n, j] * uz
                c, s = np.cos(0.5 * angle[n, j]), np.sin(0.5 * angle[n, j])
                w, x, y, z = product(w, x, y, z, c, s * bx, s * by, s * bz)
            for p in range(count):
                ax, ay, az = rotate(w, x, y, z, soles[p, 0], soles[p, 1], soles[p, 2])
                i = f * count + p
                speed[i, 0], speed[i, 1] = vx + oy * az - oz * ay, vy + oz * ax - ox * az
                ax, ay, az = px + ax, py + ay, pz + az
                moved[i, 0], moved[i, 1] = ax - points[n, i, 0], ay - points[n, i, 1]
                height[i] = 0.5 * (az + points[n, i, 2])  # over both moments
                points[n, i, 0], points[n, i, 1], points[n, i, 2] = ax, ay, az
                lowest, low = min(lowest, az), min(low, height[i])
        position[n, 2] = SOLE_RADIUS - lowest
        if fresh[n]:
            position[n, 0], position[n, 1] = start[n, 0], start[n, 1]
            velocity[n, 0], velocity[n, 1] = first[n, 0], first[n, 1]
            doubted[n] = 0
            continue
        total = dx = dy = ux = uy = 0.0
        for i in range(feet * count):
            weight = np.exp((low - height[i]) / DEPTH)
            total += weight
            dx, dy = dx - weight * moved[i, 0], dy - weight * moved[i, 1]
            ux, uy = ux - weight * speed[i, 0], uy - weight * speed[i, 1]
        dx, dy, ux, uy = dx / total, dy / total, ux / total - velocity[n, 0], uy / total - velocity[n, 1]
        jumps = ux * ux + uy * uy > JUMP**2
        if jumps and doubted[n] < patience:
            doubted[n] += 1
            position[n, 0] += period * velocity[n, 0]
            position[n, 1] += period * velocity[n, 1]
        else:
            if not jumps:
                doubted[n] = 0
            position[n, 0] += dx
            position[n, 1] += dy
            velocity[n, 0] += SETTLE * ux
            velocity[n, 1] += SETTLE * uy
