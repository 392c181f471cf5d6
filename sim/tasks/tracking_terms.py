"""What the tracking task looks at after each control step, and what it pays for: each reward under the name that its
weight has in `tracking_config.Weights`, made of the formulas in `rewards.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

import controllers.vectors  # noqa: F401 (before anything is compiled)
from controllers.rotations import yaw
from sim.robots.g1_kinematics import Bodies
from sim.tasks import rewards

if TYPE_CHECKING:
    from sim.tasks.tracking import Tracking

Array = NDArray[np.floating]

TRACKED = (  # bodies of the rewards of `realign`: BeyondMimic's, with the hands in place of the wrists
    "pelvis",
    *(f"{side}_{body}" for side in ("left", "right") for body in ("hip_roll_link", "knee_link", "ankle_roll_link")),
    "torso_link",
    *(f"{side}_{body}" for side in ("left", "right") for body in ("shoulder_roll_link", "elbow_link", "hand")),
)
ENDS = ("left_ankle_roll_link", "right_ankle_roll_link", "left_hand", "right_hand", "torso_link")
ANCHOR = "torso_link"
CLEARANCE = 0.03  # [m] above which a foot is as good as in the air
AIRBORNE = 0.002  # [m] above which it does not stand; who stands sinks in by less than a millimetre


@dataclass
class Step:
    """Everything that rewards may depend on, after one control step of N robots."""

    task: Tracking
    found: Bodies
    wanted: Bodies
    qpos: Array
    qvel: Array
    wanted_qpos: Array
    wanted_qvel: Array
    held: NDArray[np.bool_]  # feet that the motion holds still, (N, 2)
    wanted_height: Array  # of the lowest point of each sole of the motion [m], (N, 2)
    torque: Array  # of the joint controllers in this state [Nm], (N, J)
    action: Array
    previous_action: Array

    @cached_property
    def aligned(self) -> tuple[Array, Array]:
        """Where the tracked bodies should be, the motion moved to the anchor's place and heading: positions (N, bodies,
        3) and attitudes (N, bodies, 4), of which those of other bodies are not filled in."""
        found, wanted = self.found, self.wanted
        return _align(
            found.position, found.quaternion, wanted.position, wanted.quaternion, self.task.anchor, self.task.tracked
        )

    @cached_property
    def soles(self) -> tuple[Array, Array]:
        return self.task.kinematics.soles(self.found)

    def position(self, which: NDArray[np.integer]) -> Array:
        """Mean squared error of those points in the world [m^2], (N,)."""
        return rewards.squared_distance(self.found.position, self.wanted.position, which)

    def near(self, which: NDArray[np.integer]) -> Array:
        """The same, of the motion moved to the anchor."""
        return rewards.squared_distance(self.found.position, self.aligned[0], which)

    def attitude(self, which: NDArray[np.integer]) -> Array:
        """Mean squared angle of those bodies in the world [rad^2], (N,)."""
        return rewards.squared_angle(self.found.quaternion, self.wanted.quaternion, which)

    def velocity(self, which: NDArray[np.integer]) -> Array:
        """Mean squared error of their velocities [m^2/s^2], (N,)."""
        return rewards.squared_distance(self.found.linear_velocity, self.wanted.linear_velocity, which)

    def turning(self, which: NDArray[np.integer]) -> Array:
        """Mean squared error of their angular velocities [rad^2/s^2], (N,)."""
        return rewards.squared_distance(self.found.angular_velocity, self.wanted.angular_velocity, which)

    @cached_property
    def distance(self) -> Array:
        """Of all points from the motion's [m], (N, points): the paper's 27."""
        return rewards.distances(self.found.position, self.wanted.position, self.task.points)


@numba.njit(cache=True)
def _align(place, attitude, position, quaternion, anchor, which):
    places, attitudes = np.empty_like(position), np.empty_like(quaternion)
    for n in range(len(place)):
        # The heading of the rotation from the wanted attitude a of the anchor to the found one b, b a*.
        a, b, c, d = (
            quaternion[n, anchor, 0],
            quaternion[n, anchor, 1],
            quaternion[n, anchor, 2],
            quaternion[n, anchor, 3],
        )
        e, f, g, h = attitude[n, anchor, 0], attitude[n, anchor, 1], attitude[n, anchor, 2], attitude[n, anchor, 3]
        w, x = e * a + f * b + g * c + h * d, f * a - e * b - g * d + h * c
        y, z = g * a - e * c - h * b + f * d, h * a - e * d - f * c + g * b
        heading = np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        c, s = np.cos(heading), np.sin(heading)
        w, z = np.cos(0.5 * heading), np.sin(0.5 * heading)
        for b in which:
            x, y = position[n, b, 0] - position[n, anchor, 0], position[n, b, 1] - position[n, anchor, 1]
            places[n, b, 0] = place[n, anchor, 0] + c * x - s * y
            places[n, b, 1] = place[n, anchor, 1] + s * x + c * y
            places[n, b, 2] = position[n, b, 2]
            e, f, g, h = quaternion[n, b, 0], quaternion[n, b, 1], quaternion[n, b, 2], quaternion[n, b, 3]
            attitudes[n, b, 0], attitudes[n, b, 1] = w * e - z * h, w * f - z * g
            attitudes[n, b, 2], attitudes[n, b, 3] = w * g + z * f, w * h + z * e
    return places, attitudes


TERMS: dict[str, Callable[[Step], Array]] = {
    "anchor_position": lambda s: rewards.closeness(s.position(s.task.anchors), 0.3),
    "anchor_orientation": lambda s: rewards.closeness(s.attitude(s.task.anchors), 0.4),
    "body_position": lambda s: rewards.closeness(s.near(s.task.tracked), 0.2),
    "fine_position": lambda s: rewards.closeness(s.near(s.task.tracked), 0.06),
    "body_orientation": lambda s: rewards.closeness(
        rewards.squared_angle(s.found.quaternion, s.aligned[1], s.task.tracked), 0.4
    ),
    "body_velocity": lambda s: rewards.closeness(s.velocity(s.task.tracked), 1.0),
    "body_turning": lambda s: rewards.closeness(s.turning(s.task.tracked), 3.14),
    "clearance": lambda s: rewards.clearance(s.soles[0], s.wanted_height, CLEARANCE),
    # ASAP's are means over components instead of over bodies.
    "upper_position": lambda s: rewards.closeness(s.position(s.task.upper) / 3, 0.03**0.5),
    "lower_position": lambda s: rewards.closeness(s.position(s.task.lower) / 3, 0.1**0.5),
    "three_points": lambda s: rewards.closeness(s.position(s.task.hands_and_head) / 3, 0.03**0.5),
    "feet_position": lambda s: rewards.closeness(s.position(s.task.kinematics.feet) / 3, 0.03**0.5),
    "world_orientation": lambda s: rewards.closeness(s.attitude(s.task.points), 1.0),
    "world_velocity": lambda s: rewards.closeness(s.velocity(s.task.points) / 3, 1.0),
    "world_turning": lambda s: rewards.closeness(s.turning(s.task.points) / 3, 1.0),
    "joint_position": lambda s: rewards.closeness(rewards.squared(s.qpos[:, 7:], s.wanted_qpos[:, 7:]), 1.0),
    "joint_velocity": lambda s: rewards.closeness(rewards.squared(s.qvel[:, 6:], s.wanted_qvel[:, 6:]), 1.0),
}
PENALTIES: dict[str, Callable[[Step], Array]] = {
    "action_change": lambda s: rewards.change(s.action, s.previous_action),
    "joint_limit": lambda s: rewards.beyond(s.qpos[:, 7:], *s.task.soft_range()),
    "speed_limit": lambda s: (np.abs(s.qvel[:, 6:]) - s.task.soft * s.task.speed_limit).clip(0, 1).sum(axis=1),
    "torque_limit": lambda s: (np.abs(s.torque) - s.task.soft * s.task.torque_limit).clip(0, 1).sum(axis=1),
    "torque": lambda s: np.einsum("ni,ni->n", s.torque, s.torque),
    "slip": lambda s: rewards.slip(s.soles[0] < 0.0, s.soles[1]),
    "stance": lambda s: rewards.slip(np.broadcast_to(s.held[:, :, None], s.soles[0].shape), s.soles[1]),
    "flight": lambda s: rewards.flight(s.soles[0], s.wanted_height, AIRBORNE),
    "feet_orientation": lambda s: rewards.foot_tilt(s.found.quaternion[:, s.task.kinematics.feet]),
    "feet_heading": lambda s: np.abs(
        _wrapped(yaw(s.found.quaternion[:, s.task.kinematics.feet]) - yaw(s.qpos[:, None, 3:7]))
    ).sum(axis=1),
}


def _wrapped(angle: Array) -> Array:
    """In [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
