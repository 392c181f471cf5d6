"""Figures of a clip: how far it floats, sinks and slides, how near its joints are to their limits, and whether the
robot has the torque and the support for it.

Float, penetration and slip are judged on the robot's eight sole spheres over a flat floor at height zero.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray
from scipy.optimize import nnls

from controllers.g1 import SOLE_RADIUS
from controllers.motion import Clip
from controllers.rotations import conjugate, rotate, to_matrix
from sim.motions.kinematics import GRAVITY, Kinematics, key_bodies, kinematics_of, soles, sweep_clip
from sim.motions.stance import find_stance

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]

FRICTION = 0.8  # of the floor, for the forces that a motion may use
TOUCHING = 0.005  # [m] over the lowest point of the standing feet: as near as this counts as touching
GRAZING, SLIDING = 0.002, 0.02  # [m], [m/s]
BEARING = 0.01  # [m] height of a sole point that may still carry force
BLOCK = 2000  # frames whose derivatives are in memory at once
BALANCED = 0.02  # of the weight, and of the weight times 1 m: force and moment that may be missing


@dataclass(frozen=True)
class Figures:
    """What a report says about one clip. Means, medians and shares are over frames."""

    duration: float
    """[s]"""
    float_median: float
    """Height of the lowest sole point in stance [m]: positive floats, negative sinks."""
    float_largest: float
    """[m]"""
    penetration: float
    """Deepest sole point at any time [m]."""
    slip_mean: float
    """Horizontal speed of touching points of standing feet [m/s]."""
    slip_largest: float
    """[m/s]"""
    sliding: float
    """Share of the times that a sole point spends within GRAZING of the floor, or in it, in which it moves faster than
    SLIDING: whatever foot is said to stand."""
    airborne: float
    """Time without a foot on the floor [s]."""
    limit_margin: float
    """Smallest distance of a joint from its limits [rad]; negative is beyond."""
    limit_joint: str
    """The joint that has it."""
    speed_largest: float
    """Of the joints [rad/s]."""
    speed_ratio: float
    """Largest share of a joint's speed limit that is used."""
    torque_ratio: float
    """Largest share of a joint's torque limit, with the best floor forces, at 99 % of the frames."""
    torque_feasible: float
    """Share of frames in which no joint needs more than its torque limit."""
    zmp_feasible: float
    """Share of frames in which the feet in stance can give the force and moment that the motion needs."""
    zmp_outside: float
    """How far the zero-moment point leaves what the feet in stance can bear, mean over those frames [m]."""


def measure(clip: Clip) -> Figures:
    """The figures of a clip of the G1. Stance is the clip's own, or detected where it has none."""
    kinematics, sweep = sweep_clip(clip)
    robot = kinematics.robot
    points = kinematics.points(sweep, soles())
    height = points[..., 2] - SOLE_RADIUS
    feet = feet_of(clip)
    lowest = np.where(np.repeat(feet, 4, axis=1), height, np.inf).min(axis=1)
    standing = lowest[np.isfinite(lowest)]
    # A point of a standing foot slides where it is on the floor, or under it, or as near as the foot's lowest point.
    near = np.repeat(feet, 4, axis=1) & (height < np.maximum(0, lowest)[:, None] + TOUCHING)
    held = near[1:] & near[:-1]
    slip = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=2)[held] * clip.fps
    grazing = (height[1:] < GRAZING) & (height[:-1] < GRAZING)
    slides = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=2)[grazing] * clip.fps > SLIDING
    margins = np.minimum(robot.upper - clip.joint_position, clip.joint_position - robot.lower)
    nearest = int(margins.min(axis=0).argmin())
    torques, missing = forces(kinematics, clip, points, height, feet)
    ratio = (np.abs(torques) / robot.torque_limit).max(axis=1)
    return Figures(
        duration=clip.duration,
        float_median=float(np.median(standing)) if len(standing) else 0.0,
        float_largest=float(standing.max(initial=0)),
        penetration=float(max(0, -height.min())),
        slip_mean=float(slip.mean()) if len(slip) else 0.0,
        slip_largest=float(slip.max(initial=0)),
        sliding=float(slides.mean()) if len(slides) else 0.0,
        airborne=float((~feet.any(axis=1)).sum() / clip.fps),
        limit_margin=float(margins.min()),
        limit_joint=clip.joint_names[nearest],
        speed_largest=float(np.abs(clip.joint_velocity).max()),
        speed_ratio=float((np.abs(clip.joint_velocity) / robot.speed_limit).max()),
        torque_ratio=float(np.quantile(ratio, 0.99)),
        torque_feasible=float((ratio <= 1).mean()),
        zmp_feasible=float((np.abs(missing).max(axis=1) < BALANCED).mean()),
        zmp_outside=float(np.linalg.norm(missing[feet.any(axis=1), 3:5], axis=1).mean()) if feet.any() else 0.0,
    )


def feet_of(clip: Clip) -> Flags:
    """(T, 2) feet in stance: the clip's own, or detected where it has none."""
    if clip.contacts.any():
        return clip.contacts
    kinematics = kinematics_of(clip.joint_names)
    return find_stance(kinematics, clip.root_position, clip.root_quaternion, clip.joint_position, clip.fps).feet


def as_json(figures: Figures) -> dict:
    """Plain numbers, rounded to what they mean."""
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(figures).items()}


def forces(kinematics: Kinematics, clip: Clip, points: Array, height: Array, feet: Flags) -> tuple[Array, Array]:
    """Joint torques (T, J) [Nm], and what the floor cannot give of what else is needed: force (3) in weights and
    moment about the root (3) in weights times 1 m, (T, 6).

    Inverse dynamics says which force and moment the whole body needs. Sole points of standing feet push with forces
    inside friction pyramids, chosen to come as near to that as they can: what they cannot give is what makes a motion
    infeasible, and is the zero-moment point leaving the support polygon where friction suffices. Joint torques are
    those that hold these forces."""
    model, data = kinematics.model, kinematics.data
    q, v, a = course(kinematics, clip)
    weight = GRAVITY * kinematics.robot.mass
    edges = np.array([[FRICTION, 0, 1], [-FRICTION, 0, 1], [0, FRICTION, 1], [0, -FRICTION, 1]]).T / np.sqrt(2)
    torques = np.empty((clip.frames, len(clip.joint_names)))
    missing = np.empty((clip.frames, 6))
    bearing = np.repeat(feet, 4, axis=1) & (height < np.maximum(BEARING, height.min(axis=1, keepdims=True) + BEARING))
    regular = 1e-3 * np.eye(8 * 4)
    turn = to_matrix(clip.root_quaternion)
    jacobians = np.empty(0)
    for t in range(clip.frames):
        if t % BLOCK == 0:
            block = slice(t, t + BLOCK)
            sweep = kinematics.sweep(
                clip.root_position[block], clip.root_quaternion[block], clip.joint_position[block], derivatives=True
            )
            jacobians = kinematics.point_jacobians(sweep, soles(), points[block])  # (BLOCK, 8, 3, 6 + J)
        needed = pin.rnea(model, data, q[t], v[t], a[t])
        centre = clip.root_position[t]
        # In weights, and about the root: sizes of force and moment then compare.
        target = (needed[:6].reshape(2, 3) @ turn[t].T).ravel() / weight
        active = np.flatnonzero(bearing[t])
        pushes = np.zeros((8, 3))
        if len(active):
            columns = np.concatenate(
                [np.concatenate([edges, np.cross((points[t, p] - centre)[:, None], edges, axis=0)]) for p in active],
                axis=1,
            )
            size = columns.shape[1]
            share, _ = nnls(np.vstack([columns, regular[:size, :size]]), np.concatenate([target, np.zeros(size)]))
            pushes[active] = weight * np.einsum("ie,pe->pi", edges, share.reshape(-1, 4))
            missing[t] = target - columns @ share
        else:
            missing[t] = target
        torques[t] = needed[6:] - np.einsum("pin,pi->n", jacobians[t % BLOCK][..., 6:], pushes)
    return torques, missing


def course(kinematics: Kinematics, clip: Clip) -> tuple[Array, Array, Array]:
    """pinocchio's position, velocity and acceleration; the root's velocity is in its own frame."""
    q = kinematics.configuration(clip.root_position, clip.root_quaternion, clip.joint_position)
    back = conjugate(clip.root_quaternion)
    linear, angular = clip.root_linear_velocity, clip.root_angular_velocity
    v = np.concatenate([rotate(back, linear), rotate(back, angular), clip.joint_velocity], axis=1)
    dt = 1 / clip.fps
    # Acceleration of the root's origin in the world, written in the body, less what the turning frame adds itself.
    push = rotate(back, np.gradient(linear, dt, axis=0)) - np.cross(v[:, 3:6], v[:, :3])
    spin = rotate(back, np.gradient(angular, dt, axis=0))
    a = np.concatenate([push, spin, np.gradient(clip.joint_velocity, dt, axis=0)], axis=1)
    return q, v, a


def change_of_key_bodies(before: Clip, after: Clip) -> tuple[float, float]:
    """How far key bodies moved [m], mean over bodies and frames, once without the vertical shift of each frame (the
    mean of its bodies), once without one vertical shift for the whole clip. Both clips have the same frames."""
    moved = _key_points(after) - _key_points(before)
    each, all_ = moved.copy(), moved.copy()
    each[..., 2] -= moved[..., 2].mean(axis=1, keepdims=True)
    all_[..., 2] -= moved[..., 2].mean()
    return float(np.linalg.norm(each, axis=2).mean()), float(np.linalg.norm(all_, axis=2).mean())


def _key_points(clip: Clip) -> Array:
    kinematics, sweep = sweep_clip(clip)
    return kinematics.points(sweep, key_bodies(kinematics.robot))
