"""The viewer: what it puts where, and that a browser shows it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from controllers.motion import ClipError, make_clip
from sim.motions.author import LIBRARY, load_authored
from sim.motions.drawing import foot_state, sole_states
from sim.motions.kinematics import sweep_clip
from sim.motions.play import APART, Viewer, play_command

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    pytest.importorskip("viser", minversion="1.0", reason="the viewer is not installed (extra [view])")
    viewer = Viewer([load_authored("kick"), load_authored("squat")], ["kick", "squat"], port=0)
    viewer.playing.value = False
    yield viewer
    viewer.stop()


def test_feet_have_the_colour_of_what_they_do() -> None:
    clip = load_authored("jump")
    lowered = make_clip(
        clip.fps,
        clip.joint_names,
        clip.root_position - [0, 0, 0.02],
        clip.root_quaternion,
        clip.joint_position,
        clip.contacts,
    )
    flying = int(np.flatnonzero(~clip.contacts.any(axis=1))[5])
    assert (sole_states(clip)[0] == "standing").all()
    assert (sole_states(clip)[flying] == "swinging").all()
    assert foot_state(sole_states(lowered)[0], 0) == "sinking"


def test_the_slider_puts_every_robot_where_it_is_then(viewer: Viewer) -> None:
    viewer.show(2.4)
    for index, shown in enumerate(viewer.shown):
        kinematics, sweep = sweep_clip(shown.clip)
        frame = round(2.4 * shown.clip.fps)
        foot = kinematics.place["right_ankle_roll_link"][0] - 1
        expected = sweep.origins[frame, foot] - shown.clip.root_position[0] * [1, 1, 0] + [0, APART * index, 0]
        handle = next(handle for handle in shown.bodies if handle.name.endswith("/right_ankle_roll_link"))
        np.testing.assert_allclose(handle.position, expected, atol=1e-6)
    viewer.show(1000.0)  # after the end, the last frame
    np.testing.assert_allclose(viewer.shown[0].bodies[1].position, viewer.shown[0].positions[-1, 1], atol=1e-6)


@pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None, reason="needs Chromium and playwright"
)
def test_a_browser_loads_the_page_and_its_slider_moves_the_robot(viewer: Viewer, tmp_path: Path) -> None:
    sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
        )
        page = browser.new_page(viewport={"width": 640, "height": 480})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"http://localhost:{viewer.port}")
        page.get_by_text("time [s]").wait_for(timeout=60_000)
        before = np.array(viewer.shown[0].bodies[1].position)
        values = page.locator("input[type=text]").evaluate_all("boxes => boxes.map(box => box.value)")
        box = page.locator("input[type=text]").nth(values.index("0"))
        box.fill("2.4")
        box.press("Enter")
        until = time.monotonic() + 20
        while viewer.time.value != 2.4 and time.monotonic() < until:
            page.wait_for_timeout(100)
        assert viewer.time.value == 2.4
        page.wait_for_timeout(500)
        assert np.linalg.norm(np.array(viewer.shown[0].bodies[1].position) - before) > 0.02
        browser.close()
    assert not problems


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no clip is named"):
        play_command((), 0, None)
    with pytest.raises(ClipError, match=r"absent\.npz: cannot be read"):
        play_command((tmp_path / "absent.npz",), 0, None)


def drawn(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command that draws, in a process of its own: MuJoCo chooses its drawing library when it is loaded."""
    command = [sys.executable, "-m", "sim.cli", "motions", *map(str, words)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "cannot draw off-screen" in result.stderr:
        pytest.skip("this machine cannot draw off-screen")
    return result


def test_a_contact_sheet_shows_the_robot_and_its_standing_feet(tmp_path: Path) -> None:
    result = drawn("report", LIBRARY / "squat.npz", "-o", tmp_path)
    assert result.returncode == 0, result.stderr
    picture = (255 * matplotlib.image.imread(tmp_path / "squat.png")[..., :3]).astype(int)
    green = (picture[..., 1] > picture[..., 0] + 40) & (picture[..., 1] > picture[..., 2] + 25)
    assert green.sum() > 200
    assert json.loads((tmp_path / "report.json").read_text())["squat"]["duration"] == 5.0


def test_a_video_holds_all_frames(tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v2", reason="videos are not installed (extra [view])")
    pytest.importorskip("imageio_ffmpeg", reason="videos are not installed (extra [view])")
    result = drawn("play", LIBRARY / "jump.npz", "--video", tmp_path / "a.mp4")
    assert result.returncode == 0, result.stderr
    with imageio.get_reader(tmp_path / "a.mp4") as reader:
        assert reader.get_meta_data()["duration"] == pytest.approx(load_authored("jump").duration, abs=0.1)
