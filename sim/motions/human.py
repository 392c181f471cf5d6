"""Human motions as points over time: from motion files of humans to what `retarget` looks at.

Whatever the file, a human becomes the places of named joints, with z up and in metres; what a source has no joint for
is absent. Three formats are read: SMPL joints (ASAP and PBHC pickles, `smpl_joints`), BVH, and the JSON motions of
DeepMimic, as the package pybullet holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.motions.bvh import BvhError, read_bvh
from sim.motions.deepmimic import DeepMimicError, read_deepmimic
from sim.motions.pickles import read_pickle

Array = NDArray[np.floating]

NAMES = (
    "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_toe", "right_toe",
    "chest", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand",
    "right_hand", "head",
)  # fmt: skip
"""All that a retargeting may use. `hand` is where the fingers begin, `toe` where the toes do."""

NEEDED = ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
          "left_shoulder", "right_shoulder", "left_elbow", "right_elbow")  # fmt: skip

SMPL = (
    "pelvis", "left_hip", "right_hip", "", "left_knee", "right_knee", "", "left_ankle", "right_ankle", "chest",
    "left_toe", "right_toe", "", "", "", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
"""Our names of SMPL's 24 joints, in its order."""

SUFFIXES = (".pkl", ".bvh", ".txt", ".json")
HEIGHTS = (0.4, 2.5)  # [m] from ankles to head (or shoulders): beyond them no human, or another unit


class HumanError(ValueError):
    """A human motion cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Human:
    """One motion of one human, T frames."""

    name: str
    """Of the motion in its file; empty where the file has one."""
    format: str
    fps: float
    points: dict[str, Array]
    """(T, 3) each, world, z up [m]; names are of NAMES."""

    @property
    def frames(self) -> int:
        return len(self.points["pelvis"])

    def cut(self, first: int, last: int | None = None) -> Human:
        """The frames from `first` up to, without, `last`."""
        return Human(self.name, self.format, self.fps, {name: p[first:last] for name, p in self.points.items()})


def read_human(path: Path) -> list[Human]:
    """The motions of a file. Raises HumanError, PickleError or OSError with the file and what is wrong with it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise HumanError(f"{path}: ends in {suffix or 'nothing'}: human motions end in {', '.join(SUFFIXES)}")
    try:
        if suffix == ".pkl":
            return _smpl_joints(read_pickle(path))
        if suffix == ".bvh":
            fps, named, unit = read_bvh(path.read_text(encoding="utf-8", errors="replace"))
            return [checked(Human("", f"BVH in {unit}", fps, named))]
        fps, named = read_deepmimic(path.read_text(encoding="utf-8", errors="replace"))
        return [checked(Human("", "DeepMimic JSON", fps, named))]
    except (HumanError, BvhError, DeepMimicError) as error:
        raise HumanError(f"{path}: {error}") from error


def checked(human: Human) -> Human:
    """The same, or HumanError where it is no human motion that can be used."""
    missing = [name for name in NEEDED if name not in human.points]
    if missing:
        raise HumanError(f"has no joint for {missing[0]}; found are {', '.join(human.points) or 'none'}")
    if not 1.0 <= human.fps <= 1000.0:
        raise HumanError(f"fps is {human.fps:g}: allowed are 1 to 1000")
    if human.frames < 2:
        raise HumanError(f"has {human.frames} frames: a motion needs 2 or more")
    for name, points in human.points.items():
        if points.shape != (human.frames, 3):
            raise HumanError(f"{name} has shape {points.shape}: needed is ({human.frames}, 3)")
        bad = ~np.isfinite(points).all(axis=1)
        if bad.any():
            raise HumanError(f"{name} is not finite at frame {int(np.argmax(bad))}")
    size = _leg(human)
    if not HEIGHTS[0] / 2 <= size <= HEIGHTS[1] / 2:
        raise HumanError(f"has legs of {size:.3g} m: that is no human, or not in the unit that the file should have")
    return human


def _leg(human: Human) -> float:
    """Length of the left leg from hip to ankle [m], mean over time."""
    hip, knee, ankle = (human.points[f"left_{joint}"] for joint in ("hip", "knee", "ankle"))
    return float((np.linalg.norm(knee - hip, axis=1) + np.linalg.norm(ankle - knee, axis=1)).mean())


def _smpl_joints(content: Any) -> list[Human]:
    """ASAP's and PBHC's pickles: {motion: {smpl_joints (T, 24 or more, 3), fps}}."""
    if not isinstance(content, dict) or not content:
        raise HumanError("is not a dictionary of motions")
    motions = content if "smpl_joints" not in content else {"": content}
    humans = []
    for name, motion in motions.items():
        if not isinstance(motion, dict) or "smpl_joints" not in motion:
            raise HumanError(f"{name}: has no smpl_joints, so nothing is known of the human behind it")
        joints = np.asarray(motion["smpl_joints"], dtype=float)
        if joints.ndim != 3 or joints.shape[1] < 24 or joints.shape[2] != 3:
            raise HumanError(f"{name}: smpl_joints has shape {joints.shape}: needed is (T, 24, 3)")
        if "fps" not in motion:
            raise HumanError(f"{name}: has no fps")
        points = {ours: joints[:, i] for i, ours in enumerate(SMPL) if ours}
        humans.append(
            checked(Human(str(name) if len(motions) > 1 else "", "SMPL joints", float(motion["fps"]), points))
        )
    return humans
