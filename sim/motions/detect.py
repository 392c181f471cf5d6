"""What the numbers of a motion file mean: quaternion order, angle and length unit, which joints in which order.

Each question is answered by the strongest evidence that the file holds: a second copy of the same fact in the file,
then physics (a walking robot is upright, its soles are level when they are low, its joints stay inside their ranges,
its pelvis is less than 1.5 m high), then what the format's makers document, then convention. The answer carries its
evidence as a sentence, and the user may overrule it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import REVISIONS, Site
from controllers.motion import Clip, make_clip
from controllers.rotation_vectors import from_vector, to_vector
from controllers.rotations import conjugate, from_axis_angle, multiply, rotate
from sim.motions.formats import Angles, FormatError, JointOrder, Length, Order, Raw
from sim.motions.kinematics import MODEL, kinematics_of

HARDWARE = REVISIONS[MODEL].joint_names
SHORT = REVISIONS[MODEL.replace("29", "23")].joint_names
ISAAC = (0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17, 24, 18, 25, 19, 26, 20, 27, 21, 28)
"""Isaac Lab's order of the 29 joints, breadth first: its k-th joint is this one of the hardware order (BeyondMimic)."""
H1 = tuple(
    f"{side}{joint}_joint"
    for side, joints in (
        ("left_", ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")),
        ("right_", ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")),
        ("", ("torso",)),
        ("left_", ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")),
        ("right_", ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")),
    )
    for joint in joints
)
"""The 19 joints of Unitree's H1, in the order of human2humanoid."""

SCALE: dict[str, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001}
LENGTH_ERROR = 0.1  # of quaternions that are normalised with a word; GMT's, blended linearly, are up to 4 % short
LOOKED_AT = 200  # frames that the physical tests use
LEAST_WAY = 0.5  # [m] of walking that tells forwards from backwards
BODY_AGREEMENT = 0.02  # [m] joints in the right order put the bodies this near to where the file has them


@dataclass(frozen=True)
class Choices:
    """What the user says about a file; None lets the file speak."""

    quaternion: Order | None = None
    angles: Angles | None = None
    length: Length | None = None
    joints: JointOrder | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Reading:
    """One answer with its evidence."""

    what: str
    answer: str
    evidence: str


def interpret(raw: Raw, choices: Choices, source: str, licence: str) -> Clip:
    """The clip that a file's numbers mean; `report["import"]` holds what was decided and why.

    Raises FormatError or ClipError with the field that does not fit."""
    _check(raw)
    readings = [Reading("format", raw.format, "; ".join(raw.evidence))]
    fps = choices.fps or raw.fps
    if fps is None:
        raise FormatError("fps is not in the file: give it with --fps")
    said = "you said so" if choices.fps else "in the file"
    readings.append(
        Reading(
            "fps",
            f"{fps:g}",
            said
            if choices.fps or raw.format not in ("csv", "bones-seed")
            else "documented for this format, not in the file",
        )
    )
    length = _length(raw, choices)
    names, order, joint_reading = _joint_names(raw)
    angles = _angles(raw, choices, names)
    position = raw.position * SCALE[length.answer]
    joints = np.radians(raw.joints) if angles.answer == "deg" else raw.joints
    quaternion, orders = _rotations(raw, choices, angles.answer, position, joints[:, order], names)
    names, order, joint_reading = _joint_order(
        raw, choices, position, quaternion, joints, (names, order, joint_reading)
    )
    readings += [length, angles, orders, joint_reading]
    if raw.rotation.shape[1] == 4 and (off := float(np.abs(np.linalg.norm(raw.rotation, axis=1) - 1).max())) > 1e-3:
        readings.append(
            Reading("normalised", "root rotation", f"quaternions were up to {100 * off:.1f} % off length 1")
        )
    known = "in the file" if raw.contacts is not None else "none: `sim motions repair` finds them"
    report = {
        "import": {reading.what: {"answer": reading.answer, "evidence": reading.evidence} for reading in readings},
        "contacts": known,
    }
    quaternion = quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)
    return make_clip(
        fps, names, position, quaternion, joints[:, order], raw.contacts, source=source, licence=licence, report=report
    )


def _check(raw: Raw) -> None:
    """Shapes and numbers, before anything is made of them."""
    frames = len(raw.position)
    if frames < 2:
        raise FormatError(f"the motion has {frames} frames: needed are 2 or more")
    for name, values in (("root position", raw.position), ("root rotation", raw.rotation), ("joints", raw.joints)):
        if values.ndim != 2 or len(values) != frames:
            raise FormatError(f"{name} has shape {values.shape} where the root position has {frames} frames")
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise FormatError(f"{name} is not finite at frame {bad[0][0]}")
    if raw.rotation.shape[1] == 4:
        lengths = np.linalg.norm(raw.rotation, axis=1)
        worst = int(np.argmax(np.abs(lengths - 1)))
        if not abs(lengths[worst] - 1) <= LENGTH_ERROR:
            raise FormatError(
                f"root rotation has a quaternion of length {lengths[worst]:.4g} at frame {worst}: needed is 1"
            )
    for name, values in (("contacts", raw.contacts), ("bodies", raw.bodies)):
        if values is not None and len(values) != frames:
            raise FormatError(f"{name} have {len(values)} frames where the root position has {frames}")


def _length(raw: Raw, choices: Choices) -> Reading:
    height = float(np.median(np.abs(raw.position[:, 2])))
    if choices.length:
        return Reading("length", choices.length, "you said so")
    for unit, scale in SCALE.items():
        if 0.15 < height * scale < 1.5:
            return Reading("length", unit, f"the root is {height * scale:.2f} m high in the median")
    unit = raw.documented.get("length", "m")
    return Reading("length", unit, f"documented for this format; the root's height {height:.3g} decides nothing")


def _angles(raw: Raw, choices: Choices, names: tuple[str, ...]) -> Reading:
    if choices.angles:
        return Reading("angles", choices.angles, "you said so")
    largest = float(np.abs(raw.joints).max())
    documented = raw.documented.get("angles", "rad")
    if largest > 2 * np.pi:
        return Reading("angles", "deg", f"joint angles reach {largest:.1f}, more than a full turn in radians")
    travel = float(np.ptp(raw.joints, axis=0).max())
    # Half a degree of travel is no motion, and joints that reach more than half a radian are no degrees of a robot
    # that bends its knees; what lies between is left to the makers of the format.
    if travel > 0.5 or largest > 0.5:
        if documented == "rad":
            return Reading("angles", "rad", f"joint angles stay within {largest:.2f}, less than a full turn in radians")
        if raw.rotation.shape[1] == 3 and np.abs(raw.rotation).max() > 2 * np.pi:
            return Reading("angles", "deg", f"root angles reach {np.abs(raw.rotation).max():.1f}")
        if travel > np.radians(180):
            return Reading("angles", "deg", f"documented for this format; angles travel {travel:.2f}")
    return Reading("angles", documented, f"documented for this format; angles of at most {largest:.2g} decide nothing")


def _joint_names(raw: Raw) -> tuple[tuple[str, ...], NDArray[np.int_], Reading]:
    """Names, the columns in their order, and how many that showed."""
    count = raw.joints.shape[1]
    if raw.joint_names is not None:
        if len(raw.joint_names) != count:
            raise FormatError(f"joint names are {len(raw.joint_names)} for {count} joint columns")
        for known in (HARDWARE, SHORT):
            if set(raw.joint_names) == set(known):
                columns = np.array([raw.joint_names.index(name) for name in known])
                moved = "" if raw.joint_names == known else ", brought into the hardware order"
                return known, columns, Reading("joints", f"{count}, by name", f"names in the file{moved}")
        return raw.joint_names, np.arange(count), Reading("joints", f"{count}, by name", "names in the file")
    for known, robot in ((HARDWARE, "G1"), (SHORT, "G1 without wrists"), (H1, "H1")):
        if len(known) == count:
            return known, np.arange(count), Reading("joints", f"{count}, {robot}", f"{count} joint columns")
    raise FormatError(f"joints are {count}: known are 29 and 23 (G1) and 19 (H1)")


def _rotations(
    raw: Raw, choices: Choices, angles: str, position: NDArray, joints: NDArray, names: tuple[str, ...]
) -> tuple[NDArray, Reading]:
    """Root quaternions wxyz (T, 4)."""
    if raw.rotation.shape[1] == 3:
        turn = np.radians(raw.rotation) if angles == "deg" else raw.rotation
        x, y, z = (from_axis_angle(axis, turn[:, i]) for i, axis in enumerate(np.eye(3)))
        return multiply(z, multiply(y, x)), Reading("quaternion", "none", "Euler angles about the fixed axes x, y, z")
    unit = raw.rotation / np.linalg.norm(raw.rotation, axis=1, keepdims=True)
    readings: dict[str, NDArray] = {"wxyz": unit, "xyzw": np.roll(unit, 1, axis=1)}
    if choices.quaternion:
        return readings[choices.quaternion], Reading("quaternion", choices.quaternion, "you said so")
    tests = (_same_rotation, _upright) if "quaternion" in raw.documented else (_same_rotation, _upright, _forwards)
    for test in tests:
        answer = test(raw, readings, position, joints, names)
        if answer is not None:
            return readings[answer.answer], answer
    order = raw.documented.get("quaternion")
    if order is None:
        raise FormatError("root rotation may be wxyz or xyzw and nothing decides: give it with --quaternion")
    evidence = "documented for this format; the motion is plausible in both orders"
    return readings[order], Reading("quaternion", order, evidence)


def _same_rotation(raw: Raw, readings: dict[str, NDArray], *_: Any) -> Reading | None:
    """Where the file holds the rotations a second time, as rotation vectors."""
    if raw.rotation_vectors is None or len(raw.rotation_vectors) != len(raw.position):
        return None
    copy = from_vector(raw.rotation_vectors)
    errors = {
        order: float(np.linalg.norm(to_vector(multiply(conjugate(copy), q)), axis=1).max())
        for order, q in readings.items()
    }
    order = min(errors, key=lambda key: errors[key])
    if errors[order] > 0.01 or min(error for key, error in errors.items() if key != order) < 0.05:
        return None
    return Reading("quaternion", order, f"pose_aa in the file holds the same rotations within {errors[order]:.1e} rad")


def _upright(
    raw: Raw, readings: dict[str, NDArray], position: NDArray, joints: NDArray, names: tuple[str, ...]
) -> Reading | None:
    """The order in which the robot is upright with its low soles level, where the other is clearly worse."""
    every = slice(None, None, max(1, len(position) // LOOKED_AT))
    up = np.array([0.0, 0.0, 1.0])
    tilts = {
        order: float(np.degrees(np.median(np.arccos(np.clip(rotate(q[every], up)[:, 2], -1, 1)))))
        for order, q in readings.items()
    }
    better = min(tilts, key=lambda key: tilts[key])
    worse = max(tilts, key=lambda key: tilts[key])
    if tilts[worse] > 60 > 30 > tilts[better]:
        return Reading(
            "quaternion",
            better,
            f"the root tilts by {tilts[better]:.0f} degrees in the median, else {tilts[worse]:.0f}",
        )
    soles = _sole_tilts(readings, position, joints, names, every)
    if soles is None:
        return None
    better = min(soles, key=lambda key: soles[key])
    worse = max(soles, key=lambda key: soles[key])
    if soles[worse] - soles[better] > 3 and soles[worse] > 1.5 * soles[better]:
        return Reading(
            "quaternion",
            better,
            f"the lower sole tilts by {soles[better]:.1f} degrees in the mean, else {soles[worse]:.1f}",
        )
    return None


def _forwards(raw: Raw, readings: dict[str, NDArray], position: NDArray, *_: Any) -> Reading | None:
    """The order in which the robot walks forwards, or, where it stays, begins by facing along x: an upright robot that
    does not turn reads as one that faces backwards."""
    ahead = {order: rotate(q, np.array([1.0, 0.0, 0.0]))[:, :2] for order, q in readings.items()}
    moves = np.diff(position[:, :2], axis=0)
    way = float(np.linalg.norm(moves, axis=1).sum())
    if way > LEAST_WAY:
        share = {order: float((moves * heading[:-1]).sum() / way) for order, heading in ahead.items()}
        better = max(share, key=lambda key: share[key])
        worse = min(share, key=lambda key: share[key])
        if share[better] - share[worse] > 0.8:
            text = f"the robot goes {100 * share[better]:.0f} % of its way forwards, else {100 * share[worse]:.0f} %"
            return Reading("quaternion", better, text)
    first = {order: float(heading[0, 0]) for order, heading in ahead.items()}
    better = max(first, key=lambda key: first[key])
    if first[better] > 0.5 > -0.5 > min(first.values()):
        return Reading("quaternion", better, "by convention: the first frame faces along x, else backwards")
    return None


def _sole_tilts(
    readings: dict[str, NDArray], position: NDArray, joints: NDArray, names: tuple[str, ...], every: slice
) -> dict[str, float] | None:
    """Mean tilt of the lower foot [degrees] in each reading; None where the robot is no G1."""
    if names not in (HARDWARE, SHORT):
        return None
    kinematics = kinematics_of(names)
    feet = [kinematics.place[f"{side}_ankle_roll_link"][0] - 1 for side in ("left", "right")]
    result = {}
    for order, q in readings.items():
        sweep = kinematics.sweep(position[every], q[every], joints[every])
        lower = np.argmin(sweep.origins[:, feet, 2], axis=1)
        upward = sweep.rotations[np.arange(len(lower)), np.array(feet)[lower], 2, 2]
        result[order] = float(np.degrees(np.mean(np.arccos(np.clip(upward, -1, 1)))))
    return result


def _joint_order(
    raw: Raw,
    choices: Choices,
    position: NDArray,
    quaternion: NDArray,
    joints: NDArray,
    found: tuple[tuple[str, ...], NDArray[np.int_], Reading],
) -> tuple[tuple[str, ...], NDArray[np.int_], Reading]:
    """The hardware order, or Isaac Lab's: where the file holds positions of bodies, they decide."""
    names, order, reading = found
    if len(names) != 29 or raw.joint_names is not None:
        return found
    inverse = np.argsort(ISAAC)  # hardware column from Isaac column
    readings: dict[str, NDArray[np.int_]] = {"hardware": np.arange(29), "isaac": inverse}
    if choices.joints:
        return names, readings[choices.joints], Reading("joints", f"29, G1, {choices.joints} order", "you said so")
    if raw.bodies is None:
        return found
    errors = {key: _body_error(raw, position, quaternion, joints[:, columns], key) for key, columns in readings.items()}
    errors = {key: error for key, error in errors.items() if error is not None}
    if not errors:
        return found
    best = min(errors, key=lambda key: errors[key])
    text = ", ".join(f"{1000 * error:.1f} mm in {key} order" for key, error in errors.items())
    if errors[best] > BODY_AGREEMENT:
        return (
            names,
            order,
            Reading("joints", reading.answer, f"{reading.evidence}; bodies in the file fit none: {text}"),
        )
    return (
        names,
        readings[best],
        Reading("joints", f"29, G1, {best} order", f"bodies in the file: mean distance {text}"),
    )


def _body_error(raw: Raw, position: NDArray, quaternion: NDArray, joints: NDArray, order: str) -> float | None:
    """Mean distance [m] of bodies from where the file has them; None where it does not say which bodies they are."""
    assert raw.bodies is not None
    every = slice(None, None, max(1, len(position) // LOOKED_AT))
    kinematics = kinematics_of(HARDWARE)
    bodies = tuple(joint.body for joint in kinematics.robot.joints)
    names = raw.body_names
    if names is None:
        if raw.bodies.shape[1] != 30:
            return None
        # Without names, bodies stand in the order of the joints that move them, behind the pelvis.
        names = ("pelvis", *(bodies if order == "hardware" else (bodies[i] for i in ISAAC)))
    known = [(i, Site(name, name, (0.0, 0.0, 0.0))) for i, name in enumerate(names) if name in bodies]
    if len(known) < 10:
        return None
    if raw.bodies_are_local:
        position, quaternion = np.zeros_like(position), np.tile([1.0, 0, 0, 0], (len(position), 1))
    sweep = kinematics.sweep(position[every], quaternion[every], joints[every])
    points = kinematics.points(sweep, tuple(site for _, site in known))
    return float(np.linalg.norm(points - raw.bodies[every][:, [i for i, _ in known]], axis=2).mean())
