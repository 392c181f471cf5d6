"""The G1 as files for other programs, and a picture of it.

The drawing library is chosen when MuJoCo is first imported, so nothing here imports it before `draw_without_display`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from controllers.g1 import POSES, revision


def draw_without_display() -> None:
    """Let MuJoCo draw off-screen through EGL where there is no display and the user has not chosen otherwise."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("MUJOCO_GL", "egl")


def load_drawing() -> None:
    """Load MuJoCo so that it draws off-screen. Raises ValueError where the library that it draws with is missing."""
    draw_without_display()
    try:
        import mujoco  # noqa: F401 (loading it is the test)
    except Exception as error:  # each drawing library fails with an error of its own
        raise cannot_draw(error) from error


def cannot_draw(error: Exception) -> ValueError:
    """What the user is told when a drawing library has failed."""
    chosen = os.environ.get("MUJOCO_GL", "nothing")
    return ValueError(
        f"this machine cannot draw off-screen with MUJOCO_GL set to {chosen} ({error}); allowed: egl or osmesa, where "
        f"the system has that library, or a display"
    )


def robot_command(name: str, out: Path, picture: bool) -> list[Path]:
    """Write NAME.xml (MJCF, with floor and gains), NAME.urdf and, if asked for, NAME.png into the folder `out`."""
    draw_without_display()
    from .g1 import build_spec, to_mjcf
    from .g1_urdf import to_urdf

    robot = revision(name)
    out.mkdir(parents=True, exist_ok=True)
    texts = {out / f"{name}.xml": to_mjcf(build_spec(robot)), out / f"{name}.urdf": to_urdf(robot)}
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    written = list(texts)
    if picture:
        written.append(out / f"{name}.png")
        draw(name, written[-1])
    return written


def draw(name: str, path: Path, height: int = 720, width: int = 1280) -> None:
    """A picture of the robot in its default poses, from the front left and the front right."""
    import matplotlib.image
    import mujoco
    import numpy as np

    from .g1 import build_model, standing

    robot = revision(name)
    model = build_model(robot)
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = 0.0, 0.0, 0.68
    camera.distance, camera.elevation = 2.1, -12.0
    views = []
    with mujoco.Renderer(model, height, width // len(POSES)) as renderer:
        for pose, azimuth in zip(POSES, (150.0, 180.0, 215.0), strict=True):
            data.qpos[:] = standing(model, robot, pose)
            mujoco.mj_forward(model, data)
            camera.azimuth = azimuth
            renderer.update_scene(data, camera)
            views.append(renderer.render())
    matplotlib.image.imsave(path, np.concatenate(views, axis=1))
