"""What each motion format looks like on disk. Readers here only find the numbers; sim.motions.detect says what they
mean.

A reader returns every motion of its file with what the file itself states (frame rate, joint names) and with the
conventions that the format's makers document. Sources of the layouts: the public repositories of ASAP, PBHC,
human2humanoid, GMR, GMT, TWIST2, BeyondMimic, mjlab, holosoma and ProtoMotions, and the data cards of Unitree's LAFAN1
retargeting and of BONES-SEED.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sim.motions.pickles import read_pickle

Format = Literal["asap", "gmr", "csv", "bones-seed", "beyondmimic", "holosoma", "qpos"]
Order = Literal["wxyz", "xyzw"]  # of quaternions
Angles = Literal["rad", "deg"]
Length = Literal["m", "cm", "mm"]
JointOrder = Literal["hardware", "isaac"]
SUFFIXES = (".pkl", ".csv", ".npz")

Floats = NDArray[np.floating]


class FormatError(ValueError):
    """A file is not what it should be; the message is one sentence, without the file's name."""


@dataclass
class Raw:
    """One motion as its file has it: T frames, J joints, units and orders not yet certain."""

    name: str
    """Of the motion in the file; empty where the file holds one."""
    format: Format
    evidence: list[str]
    """What showed the format."""
    position: Floats
    """(T, 3) of the root."""
    rotation: Floats
    """(T, 4) quaternions, or (T, 3) Euler angles, extrinsic XYZ."""
    joints: Floats
    """(T, J)."""
    fps: float | None = None
    """[Hz], where the file states it or the format fixes it."""
    joint_names: tuple[str, ...] | None = None
    contacts: NDArray[np.bool_] | None = None
    """(T, 2)."""
    documented: dict[str, str] = field(default_factory=dict)
    """Quaternion order, angle and length unit as the format's makers state them."""
    rotation_vectors: Floats | None = None
    """(T, 3) the same rotations again [rad]: they decide the quaternion order."""
    bodies: Floats | None = None
    """(T, B, 3) positions of bodies [m]: they decide the joint order."""
    body_names: tuple[str, ...] | None = None
    bodies_are_local: bool = False
    """Whether `bodies` are in the root's frame; else in the world's."""


def read(path: Path, chosen: Format | None = None) -> list[Raw]:
    """The motions in a file. Raises FormatError, PickleError or OSError."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(f"has the ending {suffix!r}: read are {', '.join(SUFFIXES)}")
    motions = {".pkl": _pickle, ".csv": _csv, ".npz": _npz}[suffix](path)
    for motion in motions:
        if chosen is not None and motion.format != chosen:
            raise FormatError(f"is not of the format {chosen}: {'; '.join(motion.evidence)}")
    return motions


def _pickle(path: Path) -> list[Raw]:
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise FormatError(f"holds a {type(content).__name__}: a motion pickle holds a dictionary")
    if "root_pos" in content:
        return [_gmr("", content)]
    if "root_trans_offset" in content:
        return [_asap("", content)]
    if not content or not all(isinstance(motion, dict) for motion in content.values()):
        raise FormatError(f"holds no motion that is known here: its fields are {_listed(content)}")
    single = len(content) == 1
    return [
        (_gmr if "root_pos" in motion else _asap)("" if single else str(key), motion) for key, motion in content.items()
    ]


def _asap(name: str, content: dict[str, Any]) -> Raw:
    position, rotation = _array(content, "root_trans_offset", 3), _array(content, "root_rot", 4)
    vectors = None
    if content.get("pose_aa") is not None:
        poses = _array(content, "pose_aa")
        if poses.ndim == 3 and poses.shape[2] == 3 and poses.shape[1]:
            vectors = poses[:, 0]
    kind = "PBHC" if "contact_mask" in content else "ASAP"
    # 0.5 in PBHC's mask means that it does not know.
    contacts = _array(content, "contact_mask", 2) > 0.75 if kind == "PBHC" else None
    return Raw(
        name,
        "asap",
        [f"{kind} layout: dictionaries with root_trans_offset, root_rot and dof"],
        position,
        rotation,
        _array(content, "dof"),
        _number(content, "fps"),
        contacts=contacts,
        documented={"quaternion": "xyzw", "angles": "rad", "length": "m"},
        rotation_vectors=vectors,
    )


def _gmr(name: str, content: dict[str, Any]) -> Raw:
    bodies, names = content.get("local_body_pos"), content.get("link_body_list")
    return Raw(
        name,
        "gmr",
        ["GMR layout (also GMT, TWIST2): a dictionary with root_pos, root_rot and dof_pos"],
        _array(content, "root_pos", 3),
        _array(content, "root_rot", 4),
        _array(content, "dof_pos"),
        _number(content, "fps"),
        documented={"quaternion": "xyzw", "angles": "rad", "length": "m"},
        bodies=None if bodies is None or names is None else _array(content, "local_body_pos"),
        body_names=None if bodies is None or names is None else tuple(map(str, names)),
        bodies_are_local=True,
    )


def _csv(path: Path) -> list[Raw]:
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
    except UnicodeDecodeError as error:
        raise FormatError(f"is not text ({error})") from error
    if not rows:
        raise FormatError("holds no rows")
    headed = not _is_number(rows[0][0])
    header, body = (rows[0], rows[1:]) if headed else ([], rows)
    width = len(rows[0])
    for number, row in enumerate(body, 2 if headed else 1):
        if len(row) != width:
            raise FormatError(f"line {number} has {len(row)} columns where the first has {width}")
        bad = next((i for i, word in enumerate(row) if not _is_number(word)), None)
        if bad is not None:
            raise FormatError(f"line {number}, column {bad + 1} is {row[bad]!r}: needed is a number")
    table = np.array(body, dtype=float).reshape(len(body), width)
    if headed:
        return [_bones_seed([name.strip() for name in header], table)]
    if width <= 7:
        raise FormatError(f"has {width} columns: needed are 7 for the root and one per joint")
    return [
        Raw(
            "",
            "csv",
            [f"CSV without header, {width} columns: 3 position, 4 quaternion, {width - 7} joints"],
            table[:, :3],
            table[:, 3:7],
            table[:, 7:],
            30.0,  # both makers of such files write 30
            documented={"angles": "rad", "length": "m"},  # Unitree writes xyzw, kimodo wxyz
        )
    ]


def _bones_seed(header: list[str], table: Floats) -> Raw:
    place = {name: column for column, name in enumerate(header)}
    root = [f"root_{kind}{axis}" for kind in ("translate", "rotate") for axis in "XYZ"]
    missing = [name for name in root if name not in place]
    names = [name for name in header if name.endswith("_dof")]
    if missing or not names:
        raise FormatError(f"has a header without {(missing or ['<joint>_dof'])[0]}: its columns are {_listed(place)}")
    return Raw(
        "",
        "bones-seed",
        ["BONES-SEED layout: a header with root_translateX and <joint>_dof"],
        table[:, [place[name] for name in root[:3]]],
        table[:, [place[name] for name in root[3:]]],
        table[:, [place[name] for name in names]],
        120.0,
        joint_names=tuple(re.sub(r"(_joint)?_dof$", "_joint", name) for name in names),
        documented={"angles": "deg", "length": "cm"},
    )


def _npz(path: Path) -> list[Raw]:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise FormatError(f"cannot be read as npz ({error})") from error
    if "body_pos_w" in content and "joint_pos" in content:
        return [_tracking(content)]
    if "qpos" in content:
        return [_qpos(path, content)]
    if "facts" in content and "root_quaternion" in content:
        raise FormatError("is a clip already")
    raise FormatError(f"holds no motion that is known here: its fields are {_listed(content)}")


def _tracking(content: dict[str, Any]) -> Raw:
    """BeyondMimic, mjlab (joints only) and holosoma (free joint in front, names stored)."""
    bodies, joints = _array(content, "body_pos_w"), _array(content, "joint_pos")
    quaternions = _array(content, "body_quat_w")
    if bodies.ndim != 3 or bodies.shape[2] != 3 or quaternions.shape != (*bodies.shape[:2], 4):
        raise FormatError(f"body_pos_w and body_quat_w have shapes {bodies.shape} and {quaternions.shape}")
    body_names, joint_names = _names(content, "body_names"), _names(content, "joint_names")
    documented = {"quaternion": "wxyz", "angles": "rad", "length": "m"}
    speeds = content.get("joint_vel")
    with_root = joint_names is not None and joints.shape[1] == len(joint_names) + 7
    with_root |= speeds is not None and np.ndim(speeds) == 2 and joints.shape[1] == np.shape(speeds)[1] + 1
    if with_root:
        names = None if joint_names is None else tuple(joint_names[-(joints.shape[1] - 7) :])
        evidence = "holosoma layout: joint_pos holds the free joint's 7 numbers first"
        root, rotation, joints = joints[:, :3], joints[:, 3:7], joints[:, 7:]
        format: Format = "holosoma"
    else:
        names, format = joint_names, "beyondmimic"
        evidence = "BeyondMimic layout (also mjlab): joint_pos, body_pos_w and body_quat_w"
        root, rotation = bodies[:, 0], quaternions[:, 0]
    return Raw(
        "",
        format,
        [evidence],
        root,
        rotation,
        joints,
        _number(content, "fps"),
        joint_names=names,
        documented=documented,
        bodies=bodies,
        body_names=body_names,
    )


def _qpos(path: Path, content: dict[str, Any]) -> Raw:
    """Any npz with MuJoCo's qpos; rate and names from the file or from the manifest.json of any4hdmi."""
    qpos = _array(content, "qpos")
    if qpos.ndim != 2 or qpos.shape[1] <= 7:
        raise FormatError(f"qpos has shape {qpos.shape}: needed is (frames, 7 + joints)")
    evidence = [f"npz with qpos of {qpos.shape[1]} columns: free joint, {qpos.shape[1] - 7} joints"]
    names, fps = _names(content, "joint_names"), None
    for key in ("fps", "frequency", "framerate"):
        fps = fps or _number(content, key)
    for key in ("dt", "timestep"):
        step = _number(content, key)
        fps = fps or (1 / step if step else None)
    manifest = next((p / "manifest.json" for p in path.parents[:2] if (p / "manifest.json").is_file()), None)
    if manifest is not None:
        try:
            facts = json.loads(manifest.read_text())
        except ValueError as error:
            raise FormatError(f"{manifest} is not JSON ({error})") from error
        if not fps and facts.get("timestep"):
            fps = 1 / float(facts["timestep"])
            evidence.append(f"frame rate from {manifest.name}")
        stated = facts.get("qpos_names") or ()
        names = names or (tuple(map(str, stated[-(qpos.shape[1] - 7) :])) if stated else None)
    if names is not None and len(names) != qpos.shape[1] - 7:
        names = names[-(qpos.shape[1] - 7) :]
    return Raw(
        "",
        "qpos",
        evidence,
        qpos[:, :3],
        qpos[:, 3:7],
        qpos[:, 7:],
        fps,
        joint_names=names,
        documented={"quaternion": "wxyz", "angles": "rad", "length": "m"},
    )


def _array(content: dict[str, Any], key: str, width: int | None = None) -> Floats:
    """The field as float64. Raises FormatError where it is missing, not of numbers, or of another width."""
    if key not in content:
        raise FormatError(f"{key} is missing: its fields are {_listed(content)}")
    try:
        values = np.asarray(content[key], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{key} is not an array of numbers ({error})") from error
    if values.ndim < 2 or (width is not None and values.shape[1:] != (width,)):
        raise FormatError(f"{key} has shape {values.shape}: needed is (frames, {width or 'numbers'})")
    return values


def _number(content: dict[str, Any], key: str) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    values = np.ravel(np.asarray(value))
    if len(values) != 1 or values.dtype.kind not in "biuf" or not np.isfinite(values[0]) or values[0] <= 0:
        raise FormatError(f"{key} is {value!r}: needed is one positive number")
    return float(values[0])


def _names(content: dict[str, Any], key: str) -> tuple[str, ...] | None:
    return tuple(str(name) for name in np.ravel(content[key])) if key in content else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _listed(content: dict[str, Any]) -> str:
    names = [str(name) for name in content]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"
