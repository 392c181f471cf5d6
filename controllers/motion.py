"""clip.npz: one motion of one robot, the only motion format; and its state at any time.

Positions are what a clip is made of. Velocities are derived from them in one place, `make_clip`, and stored, so that
no reader needs a rule of its own; `load_clip` refuses a file whose velocities are not those of its positions.

Between two samples positions and velocities are linear and rotations turn at constant speed (slerp). At a sample the
state is that sample: times are float64, and a time within a billionth of a frame of a sample is that sample. (With
float32 times, 14 to 38 % of the samples of a 50 Hz loop would come out as their predecessor.)
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .files import write_atomically
from .observation import MotionSample
from .rotation_vectors import angular_velocity, continuous, slerp
from .rotations import from_axis_angle, multiply, rotate, yaw

Array = NDArray[np.floating]

FORMAT = 1  # of the file; another number means that another version of this code must read it
UNIT_TOLERANCE = 1e-3  # largest error of a quaternion's length; beyond it the numbers are not a rotation
VELOCITY_TOLERANCE = 1e-3  # largest error of a stored velocity, relative to the clip's largest velocity
FPS_RANGE = (1.0, 1000.0)  # [Hz]


class ClipError(ValueError):
    """A motion cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class State:
    """The robot at N times, on a clip."""

    root_position: Array
    """(N, 3) world [m]."""
    root_quaternion: Array
    """(N, 4) wxyz, body to world."""
    root_linear_velocity: Array
    """(N, 3) of the root's origin, world frame [m/s]."""
    root_angular_velocity: Array
    """(N, 3) world frame [rad/s]."""
    joint_position: Array
    """(N, J) [rad]."""
    joint_velocity: Array
    """(N, J) [rad/s]."""
    contacts: NDArray[np.bool_]
    """(N, 2) left and right foot in stance."""


@dataclass(frozen=True)
class Clip:
    """A motion of T samples at a constant rate. Made by `make_clip` or `load_clip`, which check it."""

    fps: float
    """Samples per second [Hz]."""
    joint_names: tuple[str, ...]
    """J names, in the order of the columns."""
    root_position: Array
    """(T, 3) world [m]."""
    root_quaternion: Array
    """(T, 4) wxyz, body to world, signs continuous in time."""
    root_linear_velocity: Array
    """(T, 3) of the root's origin, world frame [m/s]."""
    root_angular_velocity: Array
    """(T, 3) world frame [rad/s]."""
    joint_position: Array
    """(T, J) [rad]."""
    joint_velocity: Array
    """(T, J) [rad/s]."""
    contacts: NDArray[np.bool_]
    """(T, 2) left and right foot in stance; all False where nobody has said or detected it (report: contacts)."""
    source: str
    """Where the motion comes from."""
    licence: str
    """Under which terms it may be used."""
    report: dict[str, Any] = field(default_factory=dict)
    """What importer, repair and judge found, as plain JSON."""

    @property
    def frames(self) -> int:
        """T."""
        return len(self.root_position)

    @property
    def duration(self) -> float:
        """Time from the first sample to the last [s]."""
        return (self.frames - 1) / self.fps

    def at(self, times: ArrayLike) -> State:
        """The state at these times (N,) [s] since the first sample; before and after the clip, that of its ends, at
        rest."""
        times = np.atleast_1d(np.asarray(times, dtype=np.float64))
        place = times * self.fps
        nearest = np.rint(place)
        # A product of two rounded numbers may lie a hair before the sample that it means.
        place = np.where(np.abs(place - nearest) <= 1e-9 * np.maximum(1.0, nearest), nearest, place)
        outside = (place < 0) | (place > self.frames - 1)
        place = np.clip(place, 0, self.frames - 1)
        i = np.floor(place).astype(np.int64)  # (N,)
        j = np.minimum(i + 1, self.frames - 1)
        share = place - i

        def between(values: Array) -> Array:
            return values[i] + share[:, None] * (values[j] - values[i])

        moving = ~outside[:, None]
        return State(
            root_position=between(self.root_position),
            root_quaternion=slerp(self.root_quaternion[i], self.root_quaternion[j], share),
            root_linear_velocity=between(self.root_linear_velocity) * moving,
            root_angular_velocity=between(self.root_angular_velocity) * moving,
            joint_position=between(self.joint_position),
            joint_velocity=between(self.joint_velocity) * moving,
            contacts=self.contacts[i],
        )


def make_clip(
    fps: float,
    joint_names: tuple[str, ...],
    root_position: ArrayLike,
    root_quaternion: ArrayLike,
    joint_position: ArrayLike,
    contacts: ArrayLike | None = None,
    source: str = "",
    licence: str = "",
    report: dict[str, Any] | None = None,
) -> Clip:
    """A clip from its positions (shapes as in Clip); quaternions are normalised, velocities derived.

    Raises ClipError with the field that does not fit."""
    fps, joint_names = float(fps), tuple(map(str, joint_names))
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        raise ClipError(f"fps is {fps}: allowed are {FPS_RANGE[0]:g} to {FPS_RANGE[1]:g}")
    if len(set(joint_names)) != len(joint_names):
        raise ClipError("joint_names holds a name twice")
    position, quaternion, joints = (
        np.array(values, dtype=np.float64) for values in (root_position, root_quaternion, joint_position)
    )
    frames = len(position) if position.ndim else 0
    if frames < 2:
        raise ClipError(f"root_position has {frames} frames: a motion needs 2 or more")
    held = np.zeros((frames, 2), dtype=bool) if contacts is None else np.asarray(contacts, dtype=bool)
    for name, values, width in (
        ("root_position", position, 3),
        ("root_quaternion", quaternion, 4),
        ("joint_position", joints, len(joint_names)),
        ("contacts", held, 2),
    ):
        if values.shape != (frames, width):
            raise ClipError(f"{name} has shape {values.shape}: needed is ({frames}, {width})")
        bad = ~np.isfinite(values)
        if bad.any():
            raise ClipError(f"{name} is not finite at frame {np.argwhere(bad)[0][0]}")
    lengths = np.linalg.norm(quaternion, axis=1)
    worst = int(np.argmax(np.abs(lengths - 1)))
    if abs(lengths[worst] - 1) > UNIT_TOLERANCE:
        raise ClipError(f"root_quaternion has length {lengths[worst]:.4g} at frame {worst}: needed is 1")
    quaternion = continuous(quaternion / lengths[:, None])
    return Clip(
        fps=fps,
        joint_names=joint_names,
        root_position=position,
        root_quaternion=quaternion,
        root_linear_velocity=derivative(position, 1 / fps),
        root_angular_velocity=angular_velocity(quaternion, 1 / fps),
        joint_position=joints,
        joint_velocity=derivative(joints, 1 / fps),
        contacts=held,
        source=source,
        licence=licence,
        report=dict(report or {}),
    )


def derivative(values: Array, dt: float) -> Array:
    """Rates of change (T, n) of samples (T, n) that are `dt` [s] apart: central, one-sided at the two ends."""
    return np.gradient(values, dt, axis=0)


def resample(clip: Clip, fps: float) -> Clip:
    """The same motion at another rate. It ends up to one new sample earlier, never later."""
    times = np.arange(int(np.floor(clip.duration * fps + 1e-9)) + 1) / fps
    state = clip.at(times)
    return make_clip(
        fps,
        clip.joint_names,
        state.root_position,
        state.root_quaternion,
        state.joint_position,
        state.contacts,
        clip.source,
        clip.licence,
        clip.report,
    )


def select_joints(clip: Clip, joint_names: tuple[str, ...]) -> Clip:
    """The motion of these joints only, in this order."""
    missing = [joint for joint in joint_names if joint not in clip.joint_names]
    if missing:
        raise ClipError(f"joint_names hold no {missing[0]}: they are {', '.join(clip.joint_names)}")
    columns = [clip.joint_names.index(joint) for joint in joint_names]
    return replace(
        clip,
        joint_names=joint_names,
        joint_position=clip.joint_position[:, columns],
        joint_velocity=clip.joint_velocity[:, columns],
    )


def save_clip(path: Path, clip: Clip) -> None:
    """Write clip.npz: arrays as they are, text as JSON. All or nothing."""
    arrays = {name: getattr(clip, name) for name in ARRAYS}
    facts = {"source": clip.source, "licence": clip.licence, "report": clip.report}
    text = json.dumps(facts, allow_nan=False)
    write_atomically(
        path,
        lambda file: np.savez_compressed(
            file,
            allow_pickle=False,
            format=np.int64(FORMAT),
            fps=np.float64(clip.fps),
            joint_names=np.array(clip.joint_names),
            facts=np.array(text),
            **arrays,
        ),
    )


class MotionPlayer:
    """One motion as a policy observes it (`controllers.observation.Motions`), turned to where the robot faces."""

    def __init__(self, clip: Clip, joint_names: tuple[str, ...]) -> None:
        """
        Args:
            clip: Its floor is at height zero.
            joint_names: Those of `policy_spec.joints`. Raises ClipError where the clip does not have one of them.
        """
        self.clip = select_joints(clip, joint_names)
        self._turn = np.array([1.0, 0.0, 0.0, 0.0])

    def align(self, quaternion: ArrayLike, time: float = 0.0) -> None:
        """Turn the motion about the vertical so that at `time` [s] it faces where a robot with this attitude (4,)
        faces."""
        angle = yaw(quaternion) - yaw(self.clip.at(time).root_quaternion[0])
        self._turn = from_axis_angle([0.0, 0.0, 1.0], angle)

    def __call__(self, times: ArrayLike) -> MotionSample:
        """The motion at these times (N,) [s]; before and after it, its ends at rest."""
        state = self.clip.at(times)
        return MotionSample(
            joint_position=state.joint_position,
            joint_velocity=state.joint_velocity,
            quaternion=multiply(self._turn, state.root_quaternion),
            linear_velocity_w=rotate(self._turn, state.root_linear_velocity),
            position_w=rotate(self._turn, state.root_position),
        )


ARRAYS = (
    "root_position",
    "root_quaternion",
    "root_linear_velocity",
    "root_angular_velocity",
    "joint_position",
    "joint_velocity",
    "contacts",
)
VELOCITIES = ("root_linear_velocity", "root_angular_velocity", "joint_velocity")


def load_clip(path: Path) -> Clip:
    """The motion in a clip.npz. Raises ClipError with file and field where it is not one, or not a sound one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ClipError(f"{path}: cannot be read as npz ({error})") from error
    missing = [name for name in ("format", "fps", "joint_names", "facts", *ARRAYS) if name not in content]
    if missing:
        raise ClipError(f"{path}: is no clip, {missing[0]} is missing; `sim motions import` reads other formats")
    if int(content["format"]) != FORMAT:
        raise ClipError(f"{path}: has format {content['format']}; this version of the program reads format {FORMAT}")
    try:
        facts = json.loads(str(content["facts"]))
        clip = make_clip(
            float(content["fps"]),
            tuple(map(str, content["joint_names"])),
            content["root_position"],
            content["root_quaternion"],
            content["joint_position"],
            content["contacts"],
            facts["source"],
            facts["licence"],
            facts["report"],
        )
        for name in VELOCITIES:
            derived = getattr(clip, name)
            if content[name].shape != derived.shape:
                raise ClipError(f"{name} has shape {content[name].shape}: needed is {derived.shape}")
            if not np.abs(content[name] - derived).max(initial=0) <= VELOCITY_TOLERANCE * (
                1 + np.abs(derived).max(initial=0)
            ):
                raise ClipError(f"{name} is not the rate of change of the positions")
    except (ValueError, TypeError, KeyError) as error:
        raise ClipError(f"{path}: {error}") from error
    return clip
