"""What the tracking task looks at after each control step, and what it pays for: each reward under the name that its
weight has in `tracking_config.Weights`, made of the formulas in `rewards.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from controllers.rotations import conjugate, from_axis_angle, multiply, rotate, yaw
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
    torque: Array  # of the joint controllers in this state [Nm], (N, J)
    action: Array
    previous_action: Array

    @cached_property
    def aligned_position(self) -> Array:
        """Where the tracked bodies should be, the motion moved to the anchor's place and heading, (N, tracked, 3)."""
        task, anchor = self.task, self.task.anchor
        here, there = self.found.position[:, anchor], self.wanted.position[:, anchor]
        relative = self.wanted.position[:, task.tracked] - there[:, None]
        place = np.concatenate([here[:, :2], there[:, 2:]], axis=1)
        return place[:, None] + rotate(self._heading[:, None], relative)

    @cached_property
    def aligned_quaternion(self) -> Array:
        """Their attitude, (N, tracked, 4)."""
        return multiply(self._heading[:, None], self.wanted.quaternion[:, self.task.tracked])

    @cached_property
    def _heading(self) -> Array:
        anchor = self.task.anchor
        turn = multiply(self.found.quaternion[:, anchor], conjugate(self.wanted.quaternion[:, anchor]))
        return from_axis_angle([0.0, 0.0, 1.0], yaw(turn))

    @cached_property
    def soles(self) -> tuple[Array, Array]:
        return self.task.kinematics.soles(self.found)

    def world(self, which: NDArray[np.integer]) -> Array:
        """Squared error per component of those points in the world, (N, points)."""
        return rewards.squared_distance(self.found.position[:, which], self.wanted.position[:, which]) / 3

    @cached_property
    def distance(self) -> Array:
        """Of all points from the motion's [m], (N, points): the paper's 27."""
        points = self.task.points
        return np.sqrt(rewards.squared_distance(self.found.position[:, points], self.wanted.position[:, points]))


TERMS: dict[str, Callable[[Step], Array]] = {
    "anchor_position": lambda s: rewards.closeness(s.world(s.task.anchors) * 3, 0.3),
    "anchor_orientation": lambda s: rewards.closeness(
        rewards.angle_between(s.found.quaternion[:, s.task.anchor], s.wanted.quaternion[:, s.task.anchor]) ** 2, 0.4
    ),
    "body_position": lambda s: rewards.closeness(
        rewards.squared_distance(s.found.position[:, s.task.tracked], s.aligned_position), 0.2
    ),
    "fine_position": lambda s: rewards.closeness(
        rewards.squared_distance(s.found.position[:, s.task.tracked], s.aligned_position), 0.06
    ),
    "body_orientation": lambda s: rewards.closeness(
        rewards.angle_between(s.found.quaternion[:, s.task.tracked], s.aligned_quaternion) ** 2, 0.4
    ),
    "body_velocity": lambda s: rewards.closeness(
        rewards.squared_distance(
            s.found.linear_velocity[:, s.task.tracked], s.wanted.linear_velocity[:, s.task.tracked]
        ),
        1.0,
    ),
    "body_turning": lambda s: rewards.closeness(
        rewards.squared_distance(
            s.found.angular_velocity[:, s.task.tracked], s.wanted.angular_velocity[:, s.task.tracked]
        ),
        3.14,
    ),
    "upper_position": lambda s: rewards.closeness(s.world(s.task.upper), 0.03**0.5),
    "lower_position": lambda s: rewards.closeness(s.world(s.task.lower), 0.1**0.5),
    "three_points": lambda s: rewards.closeness(s.world(s.task.hands_and_head), 0.03**0.5),
    "feet_position": lambda s: rewards.closeness(s.world(s.task.kinematics.feet), 0.03**0.5),
    "world_orientation": lambda s: rewards.closeness(
        rewards.angle_between(s.found.quaternion[:, s.task.points], s.wanted.quaternion[:, s.task.points]) ** 2, 1.0
    ),
    "world_velocity": lambda s: rewards.closeness(
        (s.found.linear_velocity[:, s.task.points] - s.wanted.linear_velocity[:, s.task.points]) ** 2, 1.0
    ),
    "world_turning": lambda s: rewards.closeness(
        (s.found.angular_velocity[:, s.task.points] - s.wanted.angular_velocity[:, s.task.points]) ** 2, 1.0
    ),
    "joint_position": lambda s: rewards.closeness((s.qpos[:, 7:] - s.wanted_qpos[:, 7:]) ** 2, 1.0),
    "joint_velocity": lambda s: rewards.closeness((s.qvel[:, 6:] - s.wanted_qvel[:, 6:]) ** 2, 1.0),
}
PENALTIES: dict[str, Callable[[Step], Array]] = {
    "action_change": lambda s: rewards.change(s.action, s.previous_action),
    "joint_limit": lambda s: rewards.beyond(s.qpos[:, 7:], *s.task.soft_range()),
    "speed_limit": lambda s: (np.abs(s.qvel[:, 6:]) - s.task.soft * s.task.speed_limit).clip(0, 1).sum(axis=1),
    "torque_limit": lambda s: (np.abs(s.torque) - s.task.soft * s.task.torque_limit).clip(0, 1).sum(axis=1),
    "torque": lambda s: rewards.squared_distance(s.torque, np.zeros(1)),
    "slip": lambda s: rewards.slip(s.soles[0] < 0.0, s.soles[1]),
    "stance": lambda s: rewards.slip(s.held[:, :, None], s.soles[1]),
    "feet_orientation": lambda s: rewards.foot_tilt(s.found.quaternion[:, s.task.kinematics.feet]),
    "feet_heading": lambda s: np.abs(
        _wrapped(yaw(s.found.quaternion[:, s.task.kinematics.feet]) - yaw(s.qpos[:, None, 3:7]))
    ).sum(axis=1),
}


def _wrapped(angle: Array) -> Array:
    """In [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
