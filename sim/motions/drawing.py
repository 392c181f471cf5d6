"""Clips as pictures: postures, stance and floor violations, drawn off-screen by MuJoCo."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import FOOT_BODIES, SOLE_RADIUS
from controllers.motion import Clip, ClipError
from controllers.rotations import yaw
from sim.motions.kinematics import kinematics_of, soles, sweep_clip
from sim.motions.measure import feet_of
from sim.robots.g1_files import draw_without_display

SINKING = 0.005  # [m] under the floor, from where a sole point is shown as a violation
COLOURS = {"swinging": (0.25, 0.45, 0.9), "standing": (0.2, 0.75, 0.3), "sinking": (0.9, 0.15, 0.15)}
"""Of feet and their sole points: red, green and blue from 0 to 1."""
MARK = 0.012  # [m] radius at which they are drawn
VIDEO_FPS = 30.0


def sole_states(clip: Clip) -> NDArray[np.str_]:
    """(T, 8) what each sole point does: a key of COLOURS."""
    kinematics, sweep = sweep_clip(clip)
    height = kinematics.points(sweep, soles())[..., 2] - SOLE_RADIUS
    standing = np.where(np.repeat(feet_of(clip), 4, axis=1), "standing", "swinging")
    return np.where(height < -SINKING, "sinking", standing)


def foot_state(states: NDArray[np.str_], foot: int) -> str:
    """What a foot (0 left, 1 right) does, from the states (8,) of its points: sinking where one of them is."""
    own = states[4 * foot : 4 * foot + 4]
    return "sinking" if (own == "sinking").any() else str(own[0])


def pictures(clip: Clip, frames: Iterable[int], height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures (height, width, 3) of these frames, seen from the front left of how the robot stands at first.

    Raises ClipError where the machine cannot draw."""
    loaded_without = "mujoco" in sys.modules and "MUJOCO_GL" not in os.environ
    draw_without_display()
    if loaded_without and "MUJOCO_GL" in os.environ:
        raise ClipError("MuJoCo was loaded before it could be told to draw off-screen: set MUJOCO_GL=egl")
    import mujoco

    from sim.robots.g1 import build_model, joint_addresses, sole_geoms

    model = build_model(kinematics_of(clip.joint_names).robot)
    model.vis.global_.offheight = max(model.vis.global_.offheight, height)
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
    data, camera = mujoco.MjData(model), mujoco.MjvCamera()
    camera.distance, camera.elevation = 2.6, -8.0
    camera.azimuth = float(np.degrees(yaw(clip.root_quaternion[0]))) + 150
    columns, marks, states = joint_addresses(model, clip.joint_names)[0], sole_geoms(model), sole_states(clip)
    model.geom_size[marks, 0] = MARK
    solids = [np.flatnonzero(model.geom_bodyid == model.body(body).id) for body in FOOT_BODIES]
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # each drawing library fails with an error of its own
        raise ClipError(f"this machine cannot draw off-screen ({error}): it needs EGL or a display") from error
    with renderer:
        for frame in frames:
            data.qpos[:3], data.qpos[3:7] = clip.root_position[frame], clip.root_quaternion[frame]
            data.qpos[columns] = clip.joint_position[frame]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            for foot, geoms in enumerate(solids):
                model.geom_rgba[geoms, :3] = COLOURS[foot_state(states[frame], foot)]
            model.geom_rgba[marks, :3] = [COLOURS[state] for state in states[frame]]
            camera.lookat[:] = *clip.root_position[frame, :2], 0.62
            renderer.update_scene(data, camera)
            yield renderer.render().copy()


def viewing(module: str) -> Any:
    """A module of the extra [view]. Raises ClipError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ClipError(f"{module} is missing: this needs the extra [view], pip install 'realign[view]'") from error


def video(clips: list[Clip], path: Path, height: int = 480, width: int = 480) -> None:
    """The clips side by side as MP4; a shorter one waits at its end. Needs the extra [view]."""
    writers = viewing("imageio.v2")
    viewing("imageio_ffmpeg")  # imageio asks for it only when it writes
    times = np.arange(int(max(clip.duration for clip in clips) * VIDEO_FPS) + 1) / VIDEO_FPS
    strips = [
        pictures(clip, np.minimum(np.rint(times * clip.fps).astype(int), clip.frames - 1), height, width)
        for clip in clips
    ]
    with writers.get_writer(path, fps=VIDEO_FPS, macro_block_size=2) as writer:
        for images in zip(*strips, strict=True):
            writer.append_data(np.concatenate(images, axis=1))
