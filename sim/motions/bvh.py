"""BVH: a skeleton of offsets, and per frame the angles of its joints in degrees.

The format says neither unit nor which way is up nor how joints are called. Up is the axis along which the head (or the
shoulders) of the skeleton at rest is over the feet, the unit follows from the length of the legs, and names are
compared without case, prefix and punctuation against those of the usual exporters.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

UNITS = {"m": 1.0, "cm": 0.01, "inches": 0.0254, "mm": 0.001}
LEG = (0.5, 1.2)  # [m] from hip to ankle of a human
MOST_JOINTS = 500

_PARTS = {
    # our name without side: what exporters call it, lower case, letters and digits only
    "hip": ("upleg", "hip", "thigh", "hipjoint", "upperleg", "femur"),
    "knee": ("leg", "knee", "shin", "calf", "lowerleg", "lowleg", "tibia"),
    "ankle": ("foot", "ankle"),
    "toe": ("toebase", "toe", "toes", "ball"),
    "shoulder": ("arm", "uparm", "upperarm", "shoulderjoint", "humerus"),
    "elbow": ("forearm", "elbow", "lowerarm", "lowarm", "radius"),
    "wrist": ("hand", "wrist"),
}
_CENTRE = {
    "pelvis": ("hips", "pelvis", "hip", "root"),
    "chest": ("spine2", "spine3", "chest2", "chest", "upperchest", "spine1"),
    "head": ("head",),
}


class BvhError(ValueError):
    """A BVH file cannot be used."""


@dataclass
class _Joint:
    name: str
    parent: int
    offset: Array = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


def read_bvh(text: str) -> tuple[float, dict[str, Array], str]:
    """Frames per second, the points (T, 3) of the joints that are known, z up [m], and the unit that the file had."""
    words = text.split()
    joints, place = _skeleton(words)
    fps, values = _frames(words, place, sum(len(joint.channels) for joint in joints))
    known = _known(joints)
    missing = [name for name in ("pelvis", "left_hip", "left_knee", "left_ankle") if name not in known]
    if missing:
        raise BvhError(f"no joint was recognised as {missing[0]}; joints are {', '.join(j.name for j in joints)[:200]}")
    rest = _rest(joints)
    legs = [known[f"left_{part}"] for part in ("hip", "knee", "ankle")]
    leg = sum(float(np.linalg.norm(rest[b] - rest[a])) for a, b in itertools.pairwise(legs))
    unit = next((name for name, size in UNITS.items() if LEG[0] <= leg * size <= LEG[1]), None)
    if unit is None:
        raise BvhError(f"legs are {leg:.3g} long: in no unit ({', '.join(UNITS)}) is that a human")
    top = known.get("head", known.get("chest", known["pelvis"]))
    rise = rest[top] - rest[legs[-1]]
    up = int(np.argmax(np.abs(rise)))
    if rise[up] < 0:
        raise BvhError("the skeleton at rest stands on its head")
    places = _places(joints, values) * UNITS[unit]
    turned = np.roll(places, 2 - up, axis=2)  # cyclic, so that left stays left
    return fps, {name: turned[:, index] for name, index in known.items()}, unit


def _skeleton(words: list[str]) -> tuple[list[_Joint], int]:
    """The joints, parents before children, and where in the words the hierarchy ends."""
    if not words or words[0].upper() != "HIERARCHY":
        raise BvhError("does not begin with HIERARCHY")
    joints: list[_Joint] = []
    stack: list[int] = []
    i = 1
    try:
        while True:
            word = words[i].upper()
            if word in ("ROOT", "JOINT"):
                first = i + 1
                i = words.index("{", first)
                joints.append(_Joint(" ".join(words[first:i]), stack[-1] if stack else -1))
                stack.append(len(joints) - 1)
            elif word == "END":  # End Site
                i = words.index("{", i)
                joints.append(_Joint("", stack[-1]))
                stack.append(len(joints) - 1)
            elif word == "OFFSET":
                joints[stack[-1]].offset = np.array([float(value) for value in words[i + 1 : i + 4]])
                i += 3
            elif word == "CHANNELS":
                count = int(words[i + 1])
                channels = [channel.lower() for channel in words[i + 2 : i + 2 + count]]
                wrong = [c for c in channels if not re.fullmatch(r"[xyz](position|rotation)", c)]
                if wrong:
                    raise BvhError(f"has a channel {wrong[0]!r}")
                joints[stack[-1]].channels = channels
                i += 1 + count
            elif word == "}":
                stack.pop()
            elif word == "MOTION":
                break
            elif word != "{":
                raise BvhError(f"has the word {words[i][:40]!r} in its hierarchy")
            if len(joints) > MOST_JOINTS:
                raise BvhError(f"has more than {MOST_JOINTS} joints")
            i += 1
    except (IndexError, ValueError) as error:
        if isinstance(error, BvhError):
            raise
        raise BvhError(f"its hierarchy is cut off or damaged ({error})") from error
    if stack or not joints:
        raise BvhError("its hierarchy is not closed before MOTION")
    return joints, i


def _frames(words: list[str], place: int, channels: int) -> tuple[float, Array]:
    """Frames per second and the values (T, channels)."""
    head = " ".join(words[place : place + 8])
    found = re.match(r"MOTION Frames: ?(\d+) Frame Time: ?([-+.\deE]+)", head, re.IGNORECASE)
    if not found:
        raise BvhError("has no `Frames:` and `Frame Time:` after MOTION")
    frames, period = int(found[1]), float(found[2])
    if not 1e-3 <= period <= 1.0:
        raise BvhError(f"Frame Time is {period:g} s: allowed are 0.001 to 1")
    rows = words[place + len(found[0].split()) :]
    if len(rows) != frames * channels:
        raise BvhError(
            f"has {len(rows)} numbers after its head: {frames} frames of {channels} need {frames * channels}"
        )
    try:
        values = np.array(rows, dtype=float).reshape(frames, channels)
    except ValueError as error:
        raise BvhError(f"a frame holds something that is no number ({error})") from error
    return 1 / period, values


def _known(joints: list[_Joint]) -> dict[str, int]:
    """Our names of the joints that have one."""
    known: dict[str, int] = {}
    plain = [re.sub(r"[^a-z0-9]", "", joint.name.split(":")[-1].lower()) for joint in joints]
    plain = [re.sub(r"^(mixamorig|bip01|bip001|character1)", "", name) for name in plain]
    for ours, names in _CENTRE.items():
        for name in names:
            if ours not in known and name in plain:
                known[ours] = plain.index(name)
    if "pelvis" not in known:
        known["pelvis"] = 0
    for side in ("left", "right"):
        own = {}
        for index, name in enumerate(plain):
            for mark in (side, side[0]):
                if name.startswith(mark):
                    own.setdefault(name[len(mark) :], index)
                elif name.endswith(mark):
                    own.setdefault(name[: -len(mark)], index)
        for part, names in _PARTS.items():
            for name in names:
                if name in own and f"{side}_{part}" not in known:
                    known[f"{side}_{part}"] = own[name]
        ends = [i for i, joint in enumerate(joints) if not joint.name and joint.parent == known.get(f"{side}_ankle")]
        if f"{side}_toe" not in known and ends:
            known[f"{side}_toe"] = ends[0]  # where a foot has no joint in it, its end
        if "arm" not in own and "shoulder" in own and f"{side}_shoulder" not in known:
            known[f"{side}_shoulder"] = own["shoulder"]  # where the arm itself is called the shoulder
    return known


def _rest(joints: list[_Joint]) -> Array:
    """(N, 3) places of the skeleton at rest."""
    places = np.zeros((len(joints), 3))
    for index, joint in enumerate(joints):
        places[index] = joint.offset + (places[joint.parent] if joint.parent >= 0 else 0)
    return places


def _places(joints: list[_Joint], values: Array) -> Array:
    """(T, N, 3) places of all joints in the file's axes and unit."""
    frames = len(values)
    places = np.zeros((frames, len(joints), 3))
    rotations = np.zeros((frames, len(joints), 3, 3))
    column = 0
    for index, joint in enumerate(joints):
        turn, shift = np.broadcast_to(np.eye(3), (frames, 3, 3)), np.tile(joint.offset, (frames, 1))
        if any("position" in channel for channel in joint.channels):
            shift = np.zeros((frames, 3)) if joint.parent < 0 else shift
        for channel in joint.channels:
            axis, value = "xyz".index(channel[0]), values[:, column]
            column += 1
            if channel.endswith("position"):
                shift[:, axis] = value  # a joint's place, in the usual files the same as its offset
            else:
                turn = turn @ _about(axis, np.radians(value))
        if joint.parent < 0:
            places[:, index], rotations[:, index] = shift, turn
        else:
            up = rotations[:, joint.parent]
            places[:, index] = places[:, joint.parent] + np.einsum("tij,tj->ti", up, shift)
            rotations[:, index] = up @ turn
    return places


def _about(axis: int, angle: Array) -> Array:
    """(T, 3, 3) rotations about a coordinate axis by (T,) [rad]."""
    result = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(angle), np.sin(angle)
    result[:, axis, axis] = 1
    result[:, a, a] = result[:, b, b] = cosine
    result[:, b, a], result[:, a, b] = sine, -sine
    return result
