"""Playing with policies: what a push does, what zero and random answers are, what the page and the video show."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.g1 import revision
from controllers.motion import Clip, make_clip, save_clip
from controllers.policy import Policy, load_policy
from controllers.rotations import from_axis_angle, rotate
from sim.export_mlp import write_mlp
from sim.motions.author import LIBRARY, load_authored
from sim.play import FALLING, LOST, Session, Viewer, undriven_spec
from sim.robots.g1 import build_model, standing

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ROBOT = "g1_23dof"


def still(duration: float = 0.5, heading: float = 0.0) -> Clip:
    """A motion that stands upright with that heading [rad]."""
    robot = revision(ROBOT)
    qpos = standing(build_model(robot), robot)
    frames = round(50 * duration) + 1
    turned = from_axis_angle([0, 0, 1], heading)
    place, attitude, joints = (np.tile(part, (frames, 1)) for part in (qpos[:3], turned, qpos[7:]))
    return make_clip(50.0, robot.joint_names, place, attitude, joints)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy of one layer that answers zeros."""
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    spec = undriven_spec(ROBOT)
    size, actions = spec.observation_size, spec.action_size
    layer = (np.zeros((actions, size), dtype=np.float32), np.zeros(actions, dtype=np.float32))
    seen = np.zeros((32, 1, size), dtype=np.float32)
    write_mlp(path, np.zeros(size, np.float32), np.ones(size, np.float32), [layer], spec, seen)
    found = load_policy(path)
    assert isinstance(found, Policy)
    return found


def path_of(session: Session, steps: int) -> np.ndarray:
    states = []
    for _ in range(steps):
        session.step()
        states.append(session.task.engine.qpos.copy())
    return np.array(states)


def test_a_session_begins_exactly_where_its_motion_does() -> None:
    session = Session("zero", [load_authored("squat")], robots=2)
    np.testing.assert_allclose(session.distance, 0.0, atol=1e-12)
    np.testing.assert_allclose(session.found.position, session.wanted.position, atol=1e-12)
    assert not session.lost.any()
    assert (session.time == 0).all()


def test_a_push_changes_the_velocity_by_its_vector_and_nothing_else() -> None:
    session = Session("zero", [still()], robots=3)
    path_of(session, 3)
    engine = session.task.engine
    before, place = engine.qvel.copy(), engine.qpos.copy()
    session.push(np.array([0.3, -0.4]), np.array([1]))
    expected = before.copy()
    expected[1, :2] += 0.3, -0.4
    np.testing.assert_array_equal(engine.qvel, expected)
    np.testing.assert_array_equal(engine.qpos, place)


def test_a_pushed_robot_moves_that_way() -> None:
    left_alone, pushed = Session("zero", [still()]), Session("zero", [still()])
    pushed.push(np.array([0.0, 0.5]))
    apart = path_of(pushed, 10)[-1, 0] - path_of(left_alone, 10)[-1, 0]
    assert 0.02 < apart[1] < 0.15  # 0.5 m/s for 0.2 s, with the feet's friction against it
    assert abs(apart[0]) < 0.02


@pytest.mark.parametrize(("name", "expected"), [("forward", (-1, 0)), ("left", (0, -1)), ("right", (0, 1))])
def test_pushes_have_the_heading_of_the_robot(name: str, expected: tuple[float, float]) -> None:
    session = Session("zero", [still(heading=np.pi)])  # it looks against x
    session.push_towards(name, 0.5)
    np.testing.assert_allclose(session.task.engine.qvel[0, :2], 0.5 * np.array(expected), atol=1e-9)


def test_zero_answers_keep_the_targets_of_the_joints_on_the_motion() -> None:
    session = Session("zero", [load_authored("squat")])
    task, given = session.task, []
    engine_step = task.engine.step

    def spy(targets: np.ndarray) -> None:
        given.append(targets.copy())
        engine_step(targets)

    task.engine.step = spy  # type: ignore[method-assign]
    for _ in range(20):
        session.step()
        wanted = task.table.qpos[task.rows()][:, 7:]  # where the joints should be when the step is over
        np.testing.assert_allclose(given[-1], np.tile(wanted[:, None], (1, 4, 1)), atol=1e-6)
    assert np.ptp([targets[0, 0] for targets in given], axis=0).max() > 0.01  # the motion has moved


def test_random_answers_follow_the_seed() -> None:
    first, again, other = (path_of(Session("random", [still()], seed=seed), 8) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_a_policy_that_answers_zeros_does_what_zero_does(policy: Policy) -> None:
    expected = path_of(Session("zero", [load_authored("bow")], robot=ROBOT), 15)
    np.testing.assert_array_equal(path_of(Session(policy, [load_authored("bow")]), 15), expected)


def test_a_policy_plays_on_a_robot_with_more_joints(policy: Policy) -> None:
    session = Session(policy, [still(0.3)], robot="g1_29dof")
    path_of(session, 10)
    assert session.task.engine.qpos.shape == (1, 7 + 29)
    assert session.distance[0] < 0.1


def test_a_lost_robot_falls_for_a_while_and_begins_anew() -> None:
    session = Session("zero", [still(6.0)], robots=2)
    session.push(np.array([3.0, 0.0]), np.array([0]))
    until_lost = falling = 0
    while not session.lost[0]:
        assert session.distance[0] <= LOST
        session.step()
        until_lost += 1
        assert until_lost < 100
    while session.lost[0]:
        session.step()
        falling += 1
        assert falling < 200
    assert falling * session.control_step == pytest.approx(FALLING, abs=1.5 * session.control_step)
    assert session.losses == 1 or session.lost[1]  # the other one may be falling too, by itself
    assert session.time[0] < 0.05
    assert session.distance[0] < 0.01
    assert session.time[1] == pytest.approx((until_lost + falling) * session.control_step)  # it has gone on


def test_a_lost_robot_lies_there_where_nobody_wants_it_to_begin_anew() -> None:
    session = Session("zero", [still(2.5)])
    session.anew = False
    session.push(np.array([3.0, 0.0]))
    steps = int(2.8 / session.control_step)
    path_of(session, steps)
    assert session.lost[0]
    assert session.time[0] == pytest.approx(steps * session.control_step)


def test_a_reset_leads_back_to_the_start() -> None:
    session = Session("random", [load_authored("kick")])
    path_of(session, 20)
    assert session.distance[0] > 0.01
    session.reset()
    assert session.time[0] == 0
    np.testing.assert_allclose(session.distance, 0.0, atol=1e-12)
    session.step()
    assert session.time[0] == pytest.approx(session.control_step)


def test_randomised_robots_differ_and_those_on_paper_do_not() -> None:
    alike = Session("zero", [still()], robots=2)
    differing = Session("zero", [still()], robots=2, randomised=True)
    for session, expected in ((alike, False), (differing, True)):
        last = path_of(session, 5)[-1]
        assert (np.abs(last[0] - last[1]).max() > 1e-6) == expected


# The page


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    pytest.importorskip("viser", minversion="1.0", reason="the viewer is not installed (extra [view])")
    session = Session("zero", [load_authored("squat")], robots=2)
    viewer = Viewer(session, ["squat"], port=0)
    yield viewer
    viewer.stop()


def test_the_page_shows_robots_and_motions_where_they_are(viewer: Viewer) -> None:
    viewer.advance(0.1)
    session, place = viewer.session, np.array([0.0, 1.3, 0.0])
    names = session.task.kinematics.body_names
    foot = names.index("left_ankle_roll_link")
    assert viewer.robots[1][foot].name.endswith("/left_ankle_roll_link")
    np.testing.assert_allclose(viewer.robots[1][foot].position, session.found.position[1, foot] + place, atol=1e-6)
    np.testing.assert_allclose(viewer.ghosts[1][foot].position, session.wanted.position[1, foot] + place, atol=1e-6)
    np.testing.assert_allclose(viewer.ghosts[0][0].wxyz, session.wanted.quaternion[0, 0], atol=1e-6)
    assert len(viewer.robots[0]) == len(names)


def test_time_passes_as_fast_as_the_page_says(viewer: Viewer) -> None:
    step = viewer.session.control_step
    viewer.advance(4.5 * step)
    assert viewer.session.time[0] == pytest.approx(4 * step)
    viewer.advance(0.6 * step)  # what was left over is not lost
    assert viewer.session.time[0] == pytest.approx(5 * step)
    viewer.speed.value = 0.25
    viewer.advance(4 * step)
    assert viewer.session.time[0] == pytest.approx(6 * step)
    viewer.pause.value = True
    viewer.advance(4 * step)
    assert viewer.session.time[0] == pytest.approx(6 * step)
    viewer.pause.value = False
    viewer.speed.value = 1.0
    viewer.advance(1000.0)  # a machine that cannot keep up goes slower, it does not stand still to catch up
    assert viewer.session.time[0] < 20 * step


def test_who_looks_at_a_robot_and_clicks_pushes_it_away(viewer: Viewer) -> None:
    viewer.pause.value = True
    viewer.strength.value = 1.0
    viewer.push_away(1, (-0.3, 0.4, -0.8))
    viewer.push_away(0, (0.0, 0.0, -1.0))  # from above: no direction
    viewer.advance(0.1)
    np.testing.assert_allclose(viewer.session.task.engine.qvel[:, :2], [[0, 0], [-0.6, 0.8]], atol=1e-4)


def test_the_motion_turns_red_when_the_robot_is_lost(viewer: Viewer) -> None:
    def redness() -> int:
        red, green, _ = viewer._ghost_solids[0][0].color
        return int(red) - int(green)

    assert redness() < 0
    viewer.session.lost[0] = True
    viewer.show()
    assert redness() > 0
    assert "1 of 2 lost" in viewer.status.content


@pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None, reason="needs Chromium and playwright"
)
def test_buttons_and_the_mouse_push_the_robot_in_a_browser() -> None:
    pytest.importorskip("viser", minversion="1.0", reason="the viewer is not installed (extra [view])")
    sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    viewer = Viewer(Session("zero", [still(60.0)]), ["still"], port=0)
    viewer.pause.value = True
    session, stop, problems = viewer.session, threading.Event(), []

    def run() -> None:
        while not stop.wait(0.02):
            viewer.advance(0.02)

    def wait_for(page: Any, there: Any, act: Any = None) -> bool:
        until = time.monotonic() + 120  # a browser that draws in software on a busy machine takes its time
        while not there() and time.monotonic() < until:
            if act is not None:
                act()
            page.wait_for_timeout(500)
        return bool(there())

    player = threading.Thread(target=run, daemon=True)
    player.start()
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
            )
            page = browser.new_page(viewport={"width": 1300, "height": 600})
            page.set_default_timeout(120_000)
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(f"http://localhost:{viewer.port}")
            page.get_by_text("left", exact=True).wait_for(timeout=120_000)
            velocity = session.task.engine.qvel[0]
            page.get_by_text("left", exact=True).click(force=True)
            assert wait_for(page, lambda: abs(velocity[1] - 0.5) < 1e-6)
            page.get_by_text("reset", exact=True).click(force=True)
            assert wait_for(page, lambda: velocity[1] == 0)
            # The camera looks at the middle of the robot. Until that is drawn, a click does nothing.
            assert wait_for(page, lambda: np.linalg.norm(velocity[:2]) > 0.1, lambda: page.mouse.click(650, 290))
            towards = -np.array(viewer._server.initial_camera.position[:2])
            cosine = velocity[:2] @ towards / np.linalg.norm(velocity[:2]) / np.linalg.norm(towards)
            assert cosine > 0.98  # away from the camera
            browser.close()
    finally:
        stop.set()
        player.join()
        viewer.stop()
    assert not problems


# The command and the video


def sim(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sim.cli", *map(str, words)], cwd=ROOT, capture_output=True, text=True)


def test_a_video_holds_all_pictures_with_robot_and_motion(tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v2", reason="videos are not installed (extra [view])")
    pytest.importorskip("imageio_ffmpeg", reason="videos are not installed (extra [view])")
    clip, output = tmp_path / "still.npz", tmp_path / "deep" / "still.mp4"
    save_clip(clip, still(0.1))
    # 0.1 s and 1 s at rest, 56 states; the last one begins anew: 55 pictures at 50 Hz, 28 at 25 Hz
    result = sim("play", "--zero", "--clip", clip, "--video", output)
    if "cannot draw off-screen" in result.stderr:
        pytest.skip("this machine cannot draw off-screen")
    assert result.returncode == 0, result.stderr
    with imageio.get_reader(output) as reader:
        pictures = [np.asarray(picture) for picture in reader]  # list(reader) would ask it for its length: infinite
        assert reader.get_meta_data()["fps"] == 25
    assert len(pictures) == 28
    middle = pictures[-1][100:400, 200:440].astype(int)
    assert middle.std() > 20  # not one colour
    green = (middle[..., 1] > middle[..., 0] + 30) & (middle[..., 1] > middle[..., 2])
    white = (middle.min(axis=-1) > 190) & (np.ptp(middle, axis=-1) < 12)
    assert green.sum() > 100  # the motion
    assert white.sum() > 100  # the robot, which has begun to fall out of it
    assert [path.name for path in output.parent.iterdir()] == ["still.mp4"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "0 of a policy, --zero and --random are given; allowed: one of them"),
        (("--zero", "--random"), "2 of a policy, --zero and --random are given"),
        (("--zero", "--robots", "0"), "robots is 0; allowed: 1 or more"),
        (("--zero", "--robot", "g2"), "robot 'g2' is not known; allowed: g1_29dof"),
        (("controllers/policies/quad-foundation.onnx",), "the policy is for a quadrotor; allowed"),
        (("absent.onnx",), "absent.onnx: no such file"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim import cli

    monkeypatch.setattr(sys, "argv", ["sim", "play", *words, "--clip", str(LIBRARY / "squat.npz")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("sim: ") and sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "fps", "sentence"),
    [("a.avi", 25, "a video is written as .mp4"), ("a.mp4", 30, "what divides the control rate of 50 Hz")],
)
def test_a_video_that_cannot_be_written_changes_no_file(name: str, fps: int, sentence: str, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="videos are not installed (extra [view])")
    from sim.video import video

    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=sentence):
        video([("still", Session("zero", [still()]))], tmp_path / name, fps)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_solids_are_drawn_where_their_bodies_are() -> None:
    """Placed from body frames, every solid stands where MuJoCo's own kinematics put it."""
    import mujoco

    from sim.video import _put, _still

    session = Session("zero", [load_authored("kick")])
    path_of(session, 30)
    model = build_model(revision(ROBOT))
    placed, computed = _still(model), mujoco.MjData(model)
    _put(model, placed, session.found.position[0], session.found.quaternion[0])
    computed.qpos[:] = session.task.engine.qpos[0]
    mujoco.mj_kinematics(model, computed)
    np.testing.assert_allclose(placed.geom_xpos, computed.geom_xpos, atol=1e-9)
    np.testing.assert_allclose(placed.geom_xmat, computed.geom_xmat, atol=1e-9)
    down = rotate(session.found.quaternion[0, 0], np.array([0.0, 0.0, -1.0]))
    assert down[2] < 0  # and it is the robot that moved, still upright
