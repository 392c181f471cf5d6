"""The JSON motions of DeepMimic, which the package pybullet holds too: {"Loop": ..., "Frames": [[44 numbers], ...]}.

A frame is its duration [s], the root's place [m] and quaternion, and then quaternions (wxyz) of ball joints and angles
of hinges, in the order of `_TURNS`. The files have y up and x forward, and hold no skeleton: its lengths are those of
the character that all of them are made for (`humanoid3d.txt` of DeepMimic).
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from controllers.rotations import from_axis_angle, multiply, rotate

Array = NDArray[np.floating]

WIDTH = 44  # numbers of a frame
UNIT_TOLERANCE = 0.02  # of a quaternion's length
_TURNS = (
    # joint, its parent, its place in the parent's frame [m], whether it is a hinge (about z)
    ("chest", "pelvis", (0.0, 0.236151, 0.0), False),
    ("neck", "chest", (0.0, 0.223894, 0.0), False),
    ("right_hip", "pelvis", (0.0, 0.0, 0.084887), False),
    ("right_knee", "right_hip", (0.0, -0.421546, 0.0), True),
    ("right_ankle", "right_knee", (0.0, -0.40987, 0.0), False),
    ("right_shoulder", "chest", (-0.02405, 0.2435, 0.18311), False),
    ("right_elbow", "right_shoulder", (0.0, -0.274788, 0.0), True),
    ("left_hip", "pelvis", (0.0, 0.0, -0.084887), False),
    ("left_knee", "left_hip", (0.0, -0.421546, 0.0), True),
    ("left_ankle", "left_knee", (0.0, -0.40987, 0.0), False),
    ("left_shoulder", "chest", (-0.02405, 0.2435, -0.18311), False),
    ("left_elbow", "left_shoulder", (0.0, -0.274788, 0.0), True),
)
_ENDS = (
    # point, the joint that moves it, its place in that joint's frame [m]
    ("head", "neck", (0.0, 0.175, 0.0)),
    ("right_toe", "right_ankle", (0.1335, -0.0225, 0.0)),
    ("left_toe", "left_ankle", (0.1335, -0.0225, 0.0)),
    ("right_wrist", "right_elbow", (0.0, -0.258947, 0.0)),
    ("left_wrist", "left_elbow", (0.0, -0.258947, 0.0)),
)


class DeepMimicError(ValueError):
    """A DeepMimic motion cannot be used."""


def read_deepmimic(text: str) -> tuple[float, dict[str, Array]]:
    """Frames per second and the points (T, 3), z up [m]."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeepMimicError(f"is no JSON ({str(error)[:120]})") from error
    if not isinstance(content, dict) or not isinstance(content.get("Frames"), list):
        raise DeepMimicError("has no list Frames")
    rows = content["Frames"]
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, list) or len(row) != WIDTH), None)
    if wrong is not None:
        raise DeepMimicError(f"frame {wrong} has not {WIDTH} numbers")
    try:
        values = np.array(rows, dtype=float).reshape(len(rows), WIDTH)
    except (TypeError, ValueError) as error:
        raise DeepMimicError(f"Frames hold something that is no number ({error})") from error
    if len(values) < 2 or not np.isfinite(values).all():
        raise DeepMimicError(f"has {len(values)} frames: needed are 2 or more, of finite numbers")
    periods = values[:, 0]
    period = float(np.median(periods[:-1]))
    if period <= 0 or np.abs(periods[:-1] - period).max() > 0.01 * period:
        raise DeepMimicError("frames do not all last equally long")
    places, turns = {"pelvis": values[:, 1:4]}, {"pelvis": _unit(values[:, 4:8], "root")}
    column = 8
    for name, parent, offset, hinge in _TURNS:
        width = 1 if hinge else 4
        own = values[:, column : column + width]
        column += width
        turn = from_axis_angle((0, 0, 1), own[:, 0]) if hinge else _unit(own, name)
        places[name] = places[parent] + rotate(turns[parent], np.array(offset))
        turns[name] = multiply(turns[parent], turn)
    for name, parent, offset in _ENDS:
        places[name] = places[parent] + rotate(turns[parent], np.array(offset))
    del places["neck"]
    return 1 / period, {name: np.stack([p[:, 0], -p[:, 2], p[:, 1]], axis=1) for name, p in places.items()}


def _unit(quaternions: Array, name: str) -> Array:
    lengths = np.linalg.norm(quaternions, axis=1, keepdims=True)
    worst = int(np.argmax(np.abs(lengths - 1)))
    if abs(lengths[worst, 0] - 1) > UNIT_TOLERANCE:
        raise DeepMimicError(f"the quaternion of {name} has length {lengths[worst, 0]:.3g} at frame {worst}")
    return quaternions / lengths
