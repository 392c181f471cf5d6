"""Videos of policies on the simulated G1: robots and, translucent, the motions that they follow. Drawn off-screen by
MuJoCo from the same body frames that rewards and errors are computed from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1
from controllers.rotations import multiply, rotate, to_matrix, yaw
from sim.motions.drawing import viewing
from sim.motions.play import APART
from sim.robots.g1 import build_model
from sim.robots.g1_files import cannot_draw
from sim.robots.g1_kinematics import Bodies

if TYPE_CHECKING:
    from sim.play import Session

Array = NDArray[np.floating]
Picture = NDArray[np.uint8]  # (height, width, 3)

GHOST = (0.20, 0.62, 0.40, 0.35)  # red, green, blue, opacity of the motion
INK, ALARM = (25, 30, 36), (190, 35, 25)  # of the line of text
SUN = (1.6, -1.2, 4.0)  # place of the first light above the robots [m], against its direction
TEXT = 18  # its height in pixels


class Stage:
    """Draws N robots beside each other, each with its motion."""

    def __init__(self, robot: G1, count: int, height: int, width: int, heading: float) -> None:
        """
        Args:
            robot: The revision.
            count: N.
            height: Of the pictures, in pixels.
            width: The same.
            heading: Of the robots at first [rad]: they are seen from the front left of it.
        """
        self._model = build_model(robot)
        self._model.mat_reflectance[:] = 0.0  # ghosts would hide the mirror images of robots
        self._model.vis.quality.shadowsize = 1024  # a software renderer's time goes into these
        self._model.vis.map.shadowclip = 3.0  # at 1 the floor around the robot shadows itself in speckles
        self._others = build_model(robot, floor=False, scenery=False)
        self._ghost = build_model(robot, floor=False, scenery=False)
        self._ghost.geom_rgba[:] = GHOST
        self._robots = [_still(self._model if index == 0 else self._others) for index in range(count)]
        self._motions = [_still(self._ghost) for _ in range(count)]
        self._option, self._nothing = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.distance, self._camera.elevation = 2.6 + 0.9 * (count - 1), -8.0
        self._camera.azimuth = float(np.degrees(heading)) + 150
        try:
            self._renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:  # each drawing library fails with an error of its own
            raise cannot_draw(error) from error

    def draw(self, found: Bodies, wanted: Bodies) -> Picture:
        """A picture of robots and motions with these body frames."""
        for index, (robot, motion) in enumerate(zip(self._robots, self._motions, strict=True)):
            place = np.array([0.0, APART * index, 0.0])
            model = self._model if index == 0 else self._others
            _put(model, robot, found.position[index] + place, found.quaternion[index])
            _put(self._ghost, motion, wanted.position[index] + place, wanted.quaternion[index])
        middle = APART * (len(self._robots) - 1) / 2
        x, y = wanted.position[:, 0, :2].mean(axis=0)
        self._camera.lookat[:] = x, y + middle, 0.62
        self._robots[0].light_xpos[0] = x + SUN[0], y + middle + SUN[1], SUN[2]  # shadows fall only around this point
        self._renderer.update_scene(self._robots[0], self._camera, self._option)
        for robot in self._robots[1:]:
            self._add(self._others, robot)
        for motion in self._motions:
            self._add(self._ghost, motion)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the drawing library."""
        self._renderer.close()

    def _add(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_addGeoms(model, data, self._option, self._nothing, everything, self._renderer.scene)


def _still(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)  # lights and floor; the robot's solids are put where they belong later
    return data


def _put(model: mujoco.MjModel, data: mujoco.MjData, position: Array, quaternion: Array) -> None:
    """Solids to where their bodies are, (B or more, 3) and (B or more, 4), in the order of the model's."""
    moved = np.flatnonzero(model.geom_bodyid > 0)
    body = model.geom_bodyid[moved] - 1  # the world is the model's first
    data.geom_xpos[moved] = position[body] + rotate(quaternion[body], model.geom_pos[moved])
    data.geom_xmat[moved] = to_matrix(multiply(quaternion[body], model.geom_quat[moved])).reshape(-1, 9)


def pictures(name: str, session: Session, every: int, height: int, width: int) -> Iterator[Picture]:
    """The session from now to the end of its longest motion, one picture per that many control steps.

    Args:
        name: Of the motion, to be written into the pictures.
        session: The robots, at the start.
        every: Control steps from one picture to the next.
        height: Of the pictures, in pixels.
        width: The same.
    """
    heading = float(yaw(session.wanted.quaternion[0, 0]))
    stage = Stage(session.task.engine.robot, session.count, height, width, heading)
    try:
        for step in range(steps_of(session)):
            if step % every == 0:
                yield _labelled(stage.draw(session.found, session.wanted), name, session)
            session.step()
    finally:
        stage.close()


def steps_of(session: Session) -> int:
    """Control steps of a video: from the first state to the last one before robots begin anew."""
    return int(session.task.table.length.max()) - 1


def _labelled(picture: Picture, name: str, session: Session) -> Picture:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    text = f"{name}  {session.time[0]:.1f} s  error {1000 * session.distance.mean():.0f} mm"
    if session.lost.any():
        text += "  lost" if session.count == 1 else f"  {int(session.lost.sum())} of {session.count} lost"
    place, font = (TEXT // 2, TEXT // 2), ImageFont.load_default(TEXT)
    ImageDraw.Draw(image).text(place, text, fill=ALARM if session.lost.any() else INK, font=font)
    return np.asarray(image)


def video(
    sessions: Sequence[tuple[str, Session]], path: Path, fps: int = 25, height: int = 480, width: int = 640
) -> None:
    """These sessions, by the names of their motions, one after the other as MP4. Needs the extra [view].

    Raises ValueError where this machine cannot draw, or where the rate does not fit; then no file changes."""
    if path.suffix != ".mp4":
        raise ValueError(f"{path}: a video is written as .mp4; allowed: a name that ends so")
    writers = viewing("imageio.v2")
    viewing("imageio_ffmpeg")  # imageio asks for it only when it writes
    for _, session in sessions:
        rate = 1 / session.control_step
        if fps < 1 or abs(rate / fps - round(rate / fps)) > 1e-6:
            raise ValueError(f"fps is {fps}; allowed: what divides the control rate of {rate:g} Hz, such as "
                             f"{rate / 2:g} or {rate:g}")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        with writers.get_writer(staged, fps=fps, macro_block_size=2) as writer:
            for name, session in sessions:
                for picture in pictures(name, session, round(1 / (session.control_step * fps)), height, width):
                    writer.append_data(picture)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
