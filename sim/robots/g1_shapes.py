"""What the simulated G1 looks like and touches with: capsules and a few solids instead of 20 MB of meshes.

Sizes follow the outlines of Unitree's meshes (bounding boxes and main axes of each link's mesh, as shipped in
mjlab 1.6.0), so that falls, hands on the floor and limbs that meet are real to a centimetre or two. Nothing here has
mass: the bodies' inertias are published figures (`controllers/g1.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from controllers.g1 import FOOT_BODIES, G1, SOLE_POINTS, SOLE_RADIUS, Vector

Touch = Literal["all", "floor", "robot", "nothing"]


@dataclass(frozen=True)
class Shape:
    """One solid on one body. Body frame, metres."""

    name: str
    body: str
    kind: Literal["capsule", "sphere", "cylinder", "box"]
    radius: float
    """Of capsules, spheres and cylinders."""
    start: Vector
    """One end of the axis; the centre of a sphere or box."""
    end: Vector
    """The other end of the axis; half sizes of a box."""
    touches: Touch
    """`robot` leaves out the floor: what stands on its own contact spheres need not touch it twice."""
    colour: Literal["shell", "joint", "face"] = "shell"


def _mirrored(shape: Shape) -> Shape:
    """The same on the right side."""

    def across(point: Vector) -> Vector:
        return (point[0], -point[1], point[2])

    return dataclasses.replace(
        shape,
        name=shape.name.replace("left_", "right_"),
        body=shape.body.replace("left_", "right_"),
        start=across(shape.start),
        end=shape.end if shape.kind == "box" else across(shape.end),
    )


_LEFT = (
    Shape("left_hip", "left_hip_roll_link", "capsule", 0.05, (0.03, 0.0, -0.005), (0.03, 0.0, -0.07), "all"),
    Shape("left_thigh", "left_hip_yaw_link", "capsule", 0.05, (-0.005, 0.0, -0.04), (-0.07, 0.0, -0.175), "all"),
    Shape("left_shin", "left_knee_link", "capsule", 0.04, (0.012, 0.0, -0.01), (0.008, 0.0, -0.25), "all"),
    Shape("left_foot", "left_ankle_roll_link", "capsule", 0.025, (-0.04, 0.0, 0.0), (0.115, 0.0, -0.005), "robot"),
    Shape("left_shoulder", "left_shoulder_roll_link", "capsule", 0.04, (0.0, 0.003, 0.0), (0.0, 0.003, -0.06), "all"),
    Shape("left_upper_arm", "left_shoulder_yaw_link", "capsule", 0.036, (0, 0, -0.005), (0.012, 0.002, -0.085), "all"),
    Shape("left_forearm", "left_elbow_link", "capsule", 0.03, (0.02, 0.0, -0.004), (0.09, 0.002, -0.01), "all"),
    Shape("left_wrist", "left_wrist_pitch_link", "capsule", 0.031, (0.0, 0.0, 0.0), (0.045, 0.0, 0.0), "all"),
    Shape("left_palm", "left_wrist_yaw_link", "capsule", 0.035, (0.02, 0.0, 0.0), (0.138, -0.016, 0.006), "all"),
    # only to be looked at
    Shape("left_hip_motor", "left_hip_pitch_link", "cylinder", 0.042, (0, 0.005, 0), (0, 0.085, 0), "nothing", "joint"),
    Shape("left_knee_motor", "left_knee_link", "cylinder", 0.043, (0, -0.043, 0), (0, 0.043, 0), "nothing", "joint"),
    Shape("left_sole", "left_ankle_roll_link", "box", 0, (0.038, 0, -0.023), (0.1, 0.032, 0.01), "nothing", "joint"),
    Shape("left_arm_motor", "left_shoulder_pitch_link", "cylinder", 0.038, (0, 0, 0), (0, 0.07, 0), "nothing", "joint"),
    Shape("left_elbow_motor", "left_elbow_link", "cylinder", 0.035, (0, -0.037, 0), (0, 0.037, 0), "nothing", "joint"),
)

_CENTRE = (
    Shape("pelvis", "pelvis", "capsule", 0.062, (0.0, 0.0, -0.045), (0.0, 0.0, -0.09), "all"),
    Shape("torso_left", "torso_link", "capsule", 0.065, (0.006, 0.043, 0.06), (0.008, 0.043, 0.245), "all"),
    Shape("torso_right", "torso_link", "capsule", 0.065, (0.006, -0.043, 0.06), (0.008, -0.043, 0.245), "all"),
    Shape("head", "torso_link", "capsule", 0.066, (0.008, 0.0, 0.35), (0.008, 0.0, 0.42), "all"),
    Shape("waist", "waist_yaw_link", "cylinder", 0.05, (0.0, 0.0, 0.0), (0.0, 0.0, 0.054), "nothing", "joint"),
    Shape("face", "torso_link", "capsule", 0.052, (0.03, 0.0, 0.375), (0.03, 0.0, 0.425), "nothing", "face"),
)


def soles() -> tuple[Shape, ...]:
    """The four contact spheres of each foot."""
    return tuple(
        Shape(f"{body.split('_')[0]}_sole_{index}", body, "sphere", SOLE_RADIUS, point, point, "floor", "joint")
        for body in FOOT_BODIES
        for index, point in enumerate(SOLE_POINTS)
    )


SHAPES: tuple[Shape, ...] = (*_CENTRE, *_LEFT, *(_mirrored(shape) for shape in _LEFT), *soles())

NEIGHBOURS = 2
"""Bodies up to this many joints apart do not touch: their outlines overlap at the joint that they share."""

OVERLAPPING = (  # three joints apart, yet so close that outlines overlap: the waist's and the wrist's joints
    ("pelvis", "torso_link"),
    ("left_elbow_link", "left_wrist_yaw_link"),
    ("right_elbow_link", "right_wrist_yaw_link"),
)


def excluded_pairs(robot: G1) -> list[tuple[str, str]]:
    """Pairs of bodies that carry touching shapes and must not be tested against each other."""
    parents = {body.name: body.parent for body in robot.bodies}

    def chain(name: str) -> list[str]:
        return [name] if name == "world" else [name, *chain(parents[name])]

    touching = sorted({shape.body for shape in SHAPES if shape.touches in ("all", "robot")}, key=list(parents).index)
    pairs = []
    for index, first in enumerate(touching):
        for second in touching[index + 1 :]:
            up, down = chain(first), chain(second)
            shared = next(name for name in up if name in down)
            if up.index(shared) + down.index(shared) <= NEIGHBOURS or (first, second) in OVERLAPPING:
                pairs.append((first, second))
    return pairs
