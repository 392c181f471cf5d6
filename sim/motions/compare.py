"""Retargeted motions beside those that somebody else made of the same human: how near, and how smooth."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Column, Table

from controllers.motion import Clip, ClipError, select_joints
from sim.motions.detect import Choices
from sim.motions.human import Human
from sim.motions.importers import import_file
from sim.motions.kinematics import key_bodies, sweep_clip
from sim.motions.retarget import Retargeted, key_errors, retarget

Array = NDArray[np.floating]

SCALES = np.linspace(0.9, 1.1, 81)
LEGEND = (
    "mean distance of 14 key points from the scaled human's, after the shift that fits best in each frame; fitted: "
    "with the measured scale; theirs: with the one at which the published motion is nearest, ours made anew with it; "
    "jerk: root mean square of ours per theirs"
)


@dataclass(frozen=True)
class Comparison:
    """One motion, ours and the published one."""

    ours: float
    """Key point error with the scale that was measured [m]."""
    theirs: float
    """Of the published motion, with the same scale [m]."""
    ours_at_their_scale: float
    """The same with the scale at which the published motion is nearest to the human [m]."""
    theirs_at_their_scale: float
    """[m]"""
    joint_jerk: float
    """Ours per theirs."""
    point_jerk: float
    """The same of the key bodies in the world."""


def compare_with_published(path: Path, human: Human, result: Retargeted) -> Comparison:
    """Ours beside the robot's motion in the same file. Raises FormatError or ClipError where there is none."""
    found = import_file(path, None, Choices(), None, None)
    theirs = next((clip for name, clip in found if len(found) == 1 or name.endswith(f"-{human.name}")), None)
    if theirs is None or theirs.frames != human.frames:
        raise ClipError(f"{path}: holds no motion of the robot with as many frames to compare with")
    ours = select_joints(result.clip, theirs.joint_names)
    scale = result.person.scale
    best = float(min(SCALES, key=lambda each: key_errors(theirs, human, each).mean()))
    anew = retarget(human, best).clip
    return Comparison(
        float(key_errors(ours, human, scale).mean()),
        float(key_errors(theirs, human, scale).mean()),
        float(key_errors(anew, human, best).mean()),
        float(key_errors(theirs, human, best).mean()),
        _jerk(ours.joint_position) / _jerk(theirs.joint_position),
        _jerk(_bodies(ours)) / _jerk(_bodies(theirs)),
    )


def comparison_table(compared: dict[str, Comparison]) -> Table:
    """A line for each motion, and their mean."""
    headings = ("fitted: ours\nmm", "published\nmm", "theirs: ours\nmm", "published\nmm", "joint jerk", "point jerk")
    table = Table(Column("clip", no_wrap=True), *(Column(heading, justify="right") for heading in headings))
    table.caption = LEGEND
    values = np.array([astuple(each) for each in compared.values()])
    for name, row in zip([*compared, "mean"], [*values, values.mean(axis=0)], strict=True):
        table.add_row(name, *(f"{1000 * value:.1f}" for value in row[:4]), *(f"{value:.2f}" for value in row[4:]))
    return table


def _bodies(clip: Clip) -> Array:
    """(T, P, 3) of the key bodies [m]."""
    kinematics, sweep = sweep_clip(clip)
    return kinematics.points(sweep, key_bodies(kinematics.robot))


def _jerk(values: Array) -> float:
    """Root mean square of the third differences of (T, ...); the frame rate cancels in a ratio."""
    return float(np.sqrt((np.diff(values, 3, axis=0) ** 2).mean()))
