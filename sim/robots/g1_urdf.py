"""The G1 as URDF, for engines and libraries that do not read MJCF (pinocchio, Genesis).

Same frames, masses, inertias, ranges and limits as the MuJoCo model. A capsule, which URDF does not have, becomes a
cylinder with a sphere at each end. What URDF cannot say is left out: armature, gains, and which parts may touch; set
them in the engine from `controllers/g1.py`, or Genesis will use its own.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np

from controllers.g1 import G1, KEY_POINTS, Body, Joint, Vector
from controllers.rotations import to_matrix

from .g1_shapes import SHAPES, Shape

_AXES = {"x": "1 0 0", "y": "0 1 0", "z": "0 0 1"}


def to_urdf(robot: G1, shapes: bool = True) -> str:
    """The robot as URDF text; its root link is the pelvis, whose free joint the reader adds.

    Args:
        robot: The revision.
        shapes: Whether links have outlines to be seen and touched. Without, the file is for kinematics and dynamics.
    """
    root = ET.Element("robot", name=robot.name)
    joints = {joint.body: joint for joint in robot.joints}
    for body in robot.bodies:
        link = ET.SubElement(root, "link", name=body.name)
        _add_inertial(link, body)
        for shape in SHAPES if shapes else ():
            if shape.body == body.name:
                _add_shape(link, shape)
        if body.parent != "world":
            _add_joint(root, body, joints.get(body.name))
    for site in (*robot.sites, *KEY_POINTS):
        ET.SubElement(root, "link", name=site.name)
        joint = ET.SubElement(root, "joint", name=f"{site.name}_fixed", type="fixed")
        _origin(joint, site.position, np.eye(3))
        ET.SubElement(joint, "parent", link=site.body)
        ET.SubElement(joint, "child", link=site.name)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_inertial(link: ET.Element, body: Body) -> None:
    axes = to_matrix(_unit(body.inertia_quaternion))
    inertia = axes @ np.diag(body.inertia) @ axes.T  # about the centre of mass, along the axes of the body's frame
    element = ET.SubElement(link, "inertial")
    _origin(element, body.center_of_mass, np.eye(3))
    ET.SubElement(element, "mass", value=_text(body.mass))
    entries = {f"i{'xyz'[i]}{'xyz'[j]}": _text(inertia[i, j]) for i in range(3) for j in range(i, 3)}
    ET.SubElement(element, "inertia", entries)


def _add_joint(root: ET.Element, body: Body, joint: Joint | None) -> None:
    """The joint above that body; fixed where the revision has none."""
    name, kind = (joint.name, "revolute") if joint else (body.name.replace("_link", "_joint"), "fixed")
    element = ET.SubElement(root, "joint", name=name, type=kind)
    _origin(element, body.position, to_matrix(_unit(body.quaternion)))
    ET.SubElement(element, "parent", link=body.parent)
    ET.SubElement(element, "child", link=body.name)
    if joint:
        ET.SubElement(element, "axis", xyz=_AXES[joint.axis])
        limit = {
            "lower": joint.lower,
            "upper": joint.upper,
            "effort": joint.torque_limit,
            "velocity": joint.speed_limit,
        }
        ET.SubElement(element, "limit", {key: _text(value) for key, value in limit.items()})


def _add_shape(link: ET.Element, shape: Shape) -> None:
    start, end = np.array(shape.start, dtype=float), np.array(shape.end, dtype=float)
    parts: list[tuple[np.ndarray, np.ndarray, str, dict[str, str]]] = []  # centre, rotation, element, its attributes
    if shape.kind == "box":
        parts.append((start, np.eye(3), "box", {"size": _text(*(2 * end))}))
    elif shape.kind == "sphere":
        parts.append((start, np.eye(3), "sphere", {"radius": _text(shape.radius)}))
    else:
        length = float(np.linalg.norm(end - start))
        size = {"radius": _text(shape.radius), "length": _text(length)}
        parts.append(((start + end) / 2, _turn_z_to((end - start) / length), "cylinder", size))
        if shape.kind == "capsule":
            parts += [(tip, np.eye(3), "sphere", {"radius": _text(shape.radius)}) for tip in (start, end)]
    purposes = ("visual",) if shape.touches == "nothing" else ("visual", "collision")
    for purpose in purposes:
        for index, (centre, rotation, kind, attributes) in enumerate(parts):
            element = ET.SubElement(link, purpose, name=f"{shape.name}_{index}" if index else shape.name)
            _origin(element, centre, rotation)
            ET.SubElement(ET.SubElement(element, "geometry"), kind, attributes)


def _turn_z_to(direction: np.ndarray) -> np.ndarray:
    """A rotation that turns the z axis to that unit vector."""
    helper = np.eye(3)[np.argmin(np.abs(direction))]
    x = np.cross(helper, direction)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(direction, x), direction], axis=1)


def _origin(element: ET.Element, position: Vector | np.ndarray, rotation: np.ndarray) -> None:
    """URDF's fixed-axis roll, pitch, yaw: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    pitch = math.atan2(-rotation[2, 0], math.hypot(rotation[0, 0], rotation[1, 0]))
    if math.cos(pitch) > 1e-9:
        roll = math.atan2(rotation[2, 1], rotation[2, 2])
        yaw = math.atan2(rotation[1, 0], rotation[0, 0])
    else:  # looking straight up or down only the sum or difference of roll and yaw counts: all of it is roll
        roll = math.atan2(-rotation[1, 2], rotation[1, 1])
        yaw = 0.0
    ET.SubElement(element, "origin", xyz=_text(*position), rpy=_text(roll, pitch, yaw))


def _unit(quaternion: tuple[float, ...]) -> np.ndarray:
    """Published quaternions have nine digits; MuJoCo scales them to unit length in the same way."""
    values = np.array(quaternion)
    return values / np.linalg.norm(values)


def _text(*values: float) -> str:
    return " ".join(repr(float(value) + 0.0) for value in values)  # + 0.0: no "-0.0"
