"""Motions as tables of what a tracking task looks up at every control step: states, body frames, contacts.

All clips stand one after the other in one table, sampled at the control rate, and each is followed by a while at rest
in its last pose: a policy that has finished its motion has to go on standing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1
from controllers.motion import Clip, ClipError
from controllers.observation import MotionSample
from sim.robots.g1 import build_model, states_of
from sim.robots.g1_kinematics import Bodies, Kinematics

Array = NDArray[np.floating]


@dataclass(frozen=True)
class MotionTable:
    """F rows of C clips, `step` [s] apart."""

    step: float
    start: NDArray[np.int64]
    """First row of each clip, (C,)."""
    moving: NDArray[np.int64]
    """Rows of each clip until its motion ends, (C,)."""
    length: NDArray[np.int64]
    """Rows of each clip with the rest that follows, (C,)."""
    qpos: Array
    """(F, nq)"""
    qvel: Array
    """(F, nv)"""
    bodies: Bodies
    """F rows."""
    sole_height: Array
    """Of the lowest point of each sole [m], (F, 2)."""
    contacts: NDArray[np.bool_]
    """Left and right foot in stance, (F, 2)."""

    def rows(self, clip: NDArray[np.integer], step: NDArray[np.integer]) -> NDArray[np.integer]:
        """The rows of those steps (N,) of those clips (N,); beyond a clip's end its last row."""
        return self.start[clip] + np.clip(step, 0, self.length[clip] - 1)

    def sample(self, rows: NDArray[np.integer]) -> MotionSample:
        """What policies observe of these rows (N,)."""
        qpos, qvel = self.qpos[rows], self.qvel[rows]
        return MotionSample(qpos[:, 7:], qvel[:, 6:], qpos[:, 3:7], qvel[:, :3], qpos[:, :3])


def make_table(clips: Sequence[Clip], robot: G1, step: float, rest: float) -> MotionTable:
    """The table of these clips; each is moved so that it begins above the origin, facing where it faced.

    Args:
        clips: Joints that the robot has and a clip does not are at zero.
        robot: The revision.
        step: Time between rows [s].
        rest: Time at rest after each clip [s].
    """
    if not clips:
        raise ClipError("no motion to track; allowed: one clip or more")
    model, kinematics = build_model(robot, scenery=False), Kinematics(robot)
    positions, velocities, contacts, moving, length = [], [], [], [], []
    for clip in clips:
        count = int(np.floor(clip.duration / step + 1e-9)) + 1
        if count < 2:
            raise ClipError(f"a motion lasts {clip.duration:g} s; allowed: one control step of {step:g} s or more")
        still = round(rest / step)
        times = np.minimum(np.arange(count + still), count - 1) * step
        qpos, qvel = states_of(clip, model, robot, times)
        qpos[:, :2] -= qpos[0, :2]
        qvel[count:] = 0.0
        positions.append(qpos)
        velocities.append(qvel)
        contacts.append(clip.at(times).contacts)
        moving.append(count)
        length.append(count + still)
    lengths = np.array(length)
    qpos, qvel = np.concatenate(positions), np.concatenate(velocities)
    bodies = kinematics.of(qpos, qvel)
    return MotionTable(
        step=step,
        start=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        moving=np.array(moving),
        length=lengths,
        qpos=qpos,
        qvel=qvel,
        bodies=bodies,
        sole_height=kinematics.soles(bodies)[0].min(axis=2),
        contacts=np.concatenate(contacts),
    )
