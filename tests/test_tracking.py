"""Tracking motions on the simulated G1: the measure is exact, and published policies reach what they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from controllers.g1 import default_pose, revision
from controllers.motion import Clip, load_clip, make_clip, save_clip
from controllers.policy import load_policy
from controllers.rotations import from_axis_angle, multiply, rotate
from controllers.spec import Training
from sim import cli
from sim.randomize import Spread
from sim.robots.g1 import build_model, standing, states_of
from sim.tasks.tracking_config import Setting, TrackingConfig, tracking_spec
from sim.tracking import Flown, errors, evaluate_g1_command, track, track_worlds
from sim.wrap import load_foreign, read_spec
from tests.shared_data import shared
from tests.test_wrap import ASAP, network

STAND = Path(__file__).parents[1] / "sim/motions/library/stand.npz"
POLICIES = ("APT_level1", "CR7_level1", "jump_forward_level1", "kick_level1", "kick_level2", "side_jump_level1")


def still(duration: float = 0.5, robot_name: str = "g1_23dof_asap") -> Clip:
    """A motion that stands in the default pose."""
    robot = revision(robot_name)
    qpos = standing(build_model(robot), robot)
    frames = round(30 * duration) + 1
    return make_clip(
        30.0,
        robot.joint_names,
        np.tile(qpos[:3], (frames, 1)),
        np.tile(qpos[3:7], (frames, 1)),
        np.tile(qpos[7:], (frames, 1)),
    )


def flown(found: np.ndarray, wanted: np.ndarray) -> Flown:
    return Flown(1.0, found, wanted, 0.0, 0.0, np.zeros((len(found), 30)), np.zeros(0), np.zeros(0))


def test_errors_are_those_of_hand_worked_points() -> None:
    wanted = np.zeros((4, 27, 3))
    found = wanted.copy()
    found[..., 0] = 0.1  # all of it 100 mm ahead: only the global error sees that
    found[:, 24:, 2] = 0.027  # hands and head 27 mm up: 3 of 27 points
    numbers = errors(flown(found, wanted), 50.0)
    assert numbers["e_g_bodies"] == pytest.approx(100)
    assert numbers["e_g"] == pytest.approx((24 * 100 + 3 * np.hypot(100, 27)) / 27)
    assert numbers["e_mpjpe"] == pytest.approx(3)
    assert (numbers["e_mpjpe_bodies"], numbers["e_acc"], numbers["e_vel"]) == pytest.approx((0, 0, 0))


def test_speed_and_acceleration_errors_are_per_frame() -> None:
    time = np.arange(5.0)[:, None, None]
    wanted = np.zeros((5, 27, 3))
    found = wanted + 0.002 * time * [1, 0, 0] + 0.0005 * time**2 * [0, 1, 0]  # 2 mm a frame, 1 mm a frame^2
    numbers = errors(flown(found, wanted), 50.0)
    assert numbers["e_acc"] == pytest.approx(1)
    steps = np.hypot(2, 0.5 * np.diff(np.arange(5.0) ** 2))
    assert numbers["e_vel"] == pytest.approx(steps.mean())


def test_too_little_to_measure_is_no_number() -> None:
    assert set(errors(flown(np.zeros((2, 27, 3)), np.zeros((2, 27, 3))), 50.0).values()) == {None}


def test_a_motion_becomes_the_state_of_the_simulated_robot() -> None:
    """A robot that lies on its side and turns about the vertical; 23 joints shown on 29, the wrists at zero."""
    frames, rate = 11, 1.5  # [rad/s]
    robot = revision("g1_29dof_asap")
    names = revision("g1_23dof_asap").joint_names
    side = from_axis_angle([1, 0, 0], np.pi / 2)
    turn = from_axis_angle([0, 0, 1], rate * np.arange(frames) / 30)
    angles = np.linspace(0, 0.1, frames)[:, None] * np.arange(1, 24) / 23
    clip = make_clip(30.0, names, np.linspace([0, 0, 1], [1, 0, 1], frames), multiply(turn, side), angles)
    qpos, qvel = states_of(clip, build_model(robot), robot, np.array([0.1]))
    np.testing.assert_allclose(qpos[0, :3], [0.3, 0, 1], atol=1e-9)
    np.testing.assert_allclose(qvel[0, :3], [3, 0, 0], atol=1e-9)
    np.testing.assert_allclose(rotate(qpos[0, 3:7], qvel[0, 3:6]), [0, 0, rate], atol=1e-9)  # body frame to world
    np.testing.assert_allclose(qvel[0, 3:6], [0, rate, 0], atol=1e-9)  # the body's y axis points up
    shared_joints = robot.joint_indices(names)
    np.testing.assert_allclose(qpos[0, 7 + shared_joints], angles[3], atol=1e-9)
    np.testing.assert_allclose(qvel[0, 6 + shared_joints], 0.3 * np.arange(1, 24) / 23, atol=1e-9)
    assert not np.delete(qpos[0, 7:], shared_joints).any()


def test_wrists_that_move_need_a_robot_that_has_them() -> None:
    robot = revision("g1_29dof")
    clip = still(robot_name="g1_29dof")
    target = revision("g1_23dof")
    states_of(clip, build_model(target), target, np.zeros(1))  # wrists at zero are no loss
    moved = clip.joint_position.copy()
    moved[:, robot.joint_names.index("left_wrist_yaw_joint")] = 0.1
    clip = make_clip(30.0, clip.joint_names, clip.root_position, clip.root_quaternion, moved)
    with pytest.raises(ValueError, match=r"moves \['left_wrist_yaw_joint'\], which g1_23dof does not have"):
        states_of(clip, build_model(target), target, np.zeros(1))


def test_a_policy_that_does_nothing_holds_the_default_pose_for_a_moment(tmp_path: Path) -> None:
    policy = load_foreign(network(tmp_path / "actor.onnx", gain=0.0), read_spec(ASAP))
    for name in ("g1_23dof_asap", "g1_29dof"):
        result = track(policy, still(0.3), revision(name))
        assert result.completed == 1.0
        assert len(result.qpos) == 15  # 50 control steps a second
        assert np.abs(result.points_w - result.reference_w).max() < 0.08
        robot = revision(name)
        assert np.abs(result.qpos[-1, 7:] - default_pose(robot)).max() < 0.15


def test_a_foot_counts_as_lifted_while_it_is_in_the_air(tmp_path: Path) -> None:
    """A motion 5 cm above the floor, from which the robot drops: its soles are 1 cm high after sqrt(2 * 0.04 / g) =
    0.09 s, so at 4 of 25 control steps they are in the air, where the motion's always are."""
    policy, motion = load_foreign(network(tmp_path / "actor.onnx", gain=0.0), read_spec(ASAP)), still(0.5)
    high = motion.root_position + np.array([0, 0, 0.05])
    clip = make_clip(30.0, motion.joint_names, high, motion.root_quaternion, motion.joint_position)
    lifted = track(policy, clip, revision("g1_23dof_asap")).lifted.reshape(-1, 2)
    assert lifted.sum(axis=0).tolist() == [4, 4] and lifted[:4].all()
    assert len(lifted) == 25
    standing = track(policy, motion, revision("g1_23dof_asap"))
    assert not len(standing.lifted)
    assert standing.hops == 0.0 and track(policy, clip, revision("g1_23dof_asap")).hops == 0.0  # the motion floats too


class Jumper:
    """Answers with the motion; from the tenth control step on it stretches its knees and ankles as hard as it can."""

    def __init__(self, strength: float) -> None:
        self.spec = tracking_spec(TrackingConfig(), Training("none", 0, "0", {}, "none"), "stand", 8.0, "0")
        names = self.spec.action.names
        self._push = np.array([-1.0 if "knee" in n else 1.0 if "ankle_pitch" in n else 0.0 for n in names]) * strength
        self._steps = 0

    def reset(self, batch: int) -> np.ndarray:
        return np.zeros((batch, 0), np.float32)

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._steps += 1
        return np.tile(self._push * (self._steps > 10), (len(obs), 1)).astype(np.float32), h


def test_who_hops_when_the_motion_stands_is_seen_and_how_far_odometry_is_off() -> None:
    clip = load_clip(STAND)
    place, attitude, joints = (
        np.repeat(values[:1], 26, axis=0) for values in (clip.root_position, clip.root_quaternion, clip.joint_position)
    )
    clip = make_clip(50.0, clip.joint_names, place, attitude, joints)
    still_one = track(Jumper(0.0), clip, revision("g1_23dof"))
    assert still_one.hops == 0.0
    assert still_one.odometry is not None and still_one.odometry < 0.01
    assert 0.1 < track(Jumper(4.0), clip, revision("g1_23dof")).hops < 0.6


def test_a_robot_that_falls_has_not_completed_the_motion(tmp_path: Path) -> None:
    policy = load_foreign(network(tmp_path / "actor.onnx", gain=0.0), read_spec(ASAP))
    result = track(policy, still(6.0), revision("g1_23dof_asap"))
    assert 0.05 < result.completed < 0.9
    assert np.linalg.norm(result.points_w[-1] - result.reference_w[-1], axis=1).mean() > 0.5


# The command


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    network(tmp_path / "actor.onnx", gain=0.0)
    save_clip(tmp_path / "still.npz", still(0.2))
    command = cli.parse(
        ["eval", "g1", str(tmp_path / "actor.onnx"), "--clip", str(tmp_path / "still.npz"), "--spec", str(ASAP)]
    )
    assert isinstance(command, cli.EvaluateG1)
    output = tmp_path / "new" / "eval.json"
    evaluate_g1_command(command.policies, command.clip, output, command.spec, Setting("g1_29dof", 500.0))
    (row,) = json.loads(output.read_text())["results"]
    assert (row["completed"], row["robot"], row["physics_hz"]) == (1.0, "g1_29dof", 500.0)
    assert row["e_g"] < 50


def test_who_is_thrown_over_has_not_recovered_and_who_is_nudged_has(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    policy, clip = root / "controllers/policies/g1-stand.onnx", STAND
    for push, recovered in ((4.0, 0.0), (0.01, 1.0)):
        setting = Setting(worlds=8, push=push, push_least=1.0)
        content = evaluate_g1_command([policy], [clip], tmp_path / "eval.json", setting=setting)
        row = content["results"][0]
        assert row["recovered"] == recovered
        assert row["intervals"]["recovered"]["count"] >= 8


def test_the_standing_policy_hardly_hops_when_pushed_and_stays_near_its_place(tmp_path: Path) -> None:
    """Of 200 worlds with pushes of 0.5 m/s all are up after them, 97 % stay within half a metre, and both feet are in
    the air for 0.14 % of the time."""
    policy = Path(__file__).parents[1] / "controllers/policies/g1-stand.onnx"
    setting = Setting(worlds=32, push_least=1.0)
    (row,) = evaluate_g1_command([policy], [STAND], tmp_path / "eval.json", setting=setting)["results"]
    assert row["recovered"] == 1.0 and row["success"] >= 0.9
    assert row["hops"] < 0.005


def test_the_standing_policy_goes_on_standing_when_its_motion_is_over() -> None:
    root = Path(__file__).parents[1]
    policy, short = load_policy(root / "controllers/policies/g1-stand.onnx"), load_clip(STAND)
    place, attitude, joints = (
        np.repeat(values[:1], 1500, axis=0)
        for values in (short.root_position, short.root_quaternion, short.joint_position)
    )
    clip = make_clip(50.0, short.joint_names, place, attitude, joints)
    assert (short.duration, clip.duration) == pytest.approx((8.0, 29.98))
    robots = track_worlds(policy, clip, revision(policy.spec.robot), worlds=16, spread=Spread(push_speed=0.3))
    for robot in robots:
        assert robot.completed == 1.0 and len(robot.recovered) >= 5 and robot.recovered.all()


def test_the_kick_that_ships_has_its_foot_in_the_air_when_the_motion_has() -> None:
    """Of 400 worlds 98 % succeed, with the foot in the air at 79 % of the times at which the motion's is; of 64 the
    median rise is 24 of 30 cm."""
    root = Path(__file__).parents[1]
    policy, clip = load_policy(root / "controllers/policies/g1-kick.onnx"), load_clip(STAND.with_name("kick.npz"))
    robots = track_worlds(policy, clip, revision(policy.spec.robot), worlds=64, spread=Spread(push_speed=0.3))
    wanted = robots[0].reference_w[:, :, 2]
    low = np.flatnonzero(wanted[0] < 0.1)  # points of the feet
    foot = low[np.argmax(np.ptp(wanted[:, low], axis=0))]
    rises = [np.max(robot.points_w[:, foot, 2] - robot.points_w[0, foot, 2]) for robot in robots]
    assert np.ptp(wanted[:, foot]) == pytest.approx(0.30, abs=0.01)
    assert np.median(rises) > 0.2
    assert np.mean([robot.lifted.mean() for robot in robots]) > 0.7
    assert np.mean([robot.completed == 1.0 for robot in robots]) > 0.9


def test_the_side_step_that_ships_lifts_the_foot_that_the_motion_lifts(tmp_path: Path) -> None:
    """Of 400 worlds all succeed, with feet in the air at 96 % of the times at which the motion's are."""
    policy = Path(__file__).parents[1] / "controllers/policies/g1-side-step.onnx"
    setting = Setting(worlds=32, push=0.3)
    content = evaluate_g1_command([policy], [STAND.with_name("side_step.npz")], tmp_path / "x.json", setting=setting)
    (row,) = content["results"]
    assert row["success"] >= 0.95
    assert row["lifted"] > 0.9


def test_one_policy_tracks_eight_motions(tmp_path: Path) -> None:
    """Of 200 worlds a motion 93 to 100 % succeed, with E_mpjpe of 13 to 33 mm, and with feet in the air at 93 and 98 %
    of the times at which those of the side step and of the walk are."""
    policy = Path(__file__).parents[1] / "controllers/policies/g1-eight.onnx"
    names = ("squat", "bow", "wave", "reach", "stand", "side_step", "kick", "walk_in_place")
    clips = [STAND.with_name(f"{name}.npz") for name in names]
    setting = Setting(worlds=16, push=0.3)
    rows = evaluate_g1_command([policy], clips, tmp_path / "eval.json", setting=setting)["results"]
    assert [Path(row["clip"]).stem for row in rows] == list(names)
    assert min(row["success"] for row in rows) >= 0.8
    assert np.mean([row["success"] for row in rows]) >= 0.95
    assert max(row["e_mpjpe"] for row in rows) < 40
    assert min(rows[names.index(name)]["lifted"] for name in ("side_step", "walk_in_place")) > 0.85


@pytest.mark.parametrize(
    ("spec", "robot", "physics_hz", "message"),
    [
        (None, None, None, "actor.onnx: has no policy_spec; allowed: name a file that has it with --spec"),
        (ASAP, None, 170.0, "physics at 170 Hz; allowed: a multiple of the 50 Hz control"),
        (ASAP, "h1", None, "robot 'h1' is not known"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    tmp_path: Path, spec: Path | None, robot: str | None, physics_hz: float | None, message: str
) -> None:
    network(tmp_path / "actor.onnx")
    save_clip(tmp_path / "still.npz", still(0.2))
    files = [tmp_path / "actor.onnx"], [tmp_path / "still.npz"], tmp_path / "x.json"
    with pytest.raises(ValueError, match=message):
        evaluate_g1_command(*files, spec, Setting(robot, physics_hz))
    assert not files[2].exists()


def test_the_public_policies_track_their_motions_to_the_end(tmp_path: Path) -> None:
    folder = shared("policies/asap")
    content = evaluate_g1_command(
        [folder / f"{name}.onnx" for name in POLICIES],
        [shared(f"motions/asap/{name}.pkl") for name in POLICIES],
        tmp_path / "eval.json",
        ASAP,
    )
    rows = content["results"]
    assert [row["success"] for row in rows] == [1.0] * 6
    assert np.mean([row["e_g"] for row in rows]) < 125
    assert np.mean([row["e_g_bodies"] for row in rows]) < 125
    assert np.mean([row["e_mpjpe_bodies"] for row in rows]) < 50
    assert np.mean([row["saturation"] for row in rows]) < 0.001
