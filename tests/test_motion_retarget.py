"""Retargeting: the robot follows what it can follow exactly, stands, keeps its limits and does not touch itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from controllers.g1 import KEY_POINTS, default_pose
from controllers.motion import Clip, load_clip, select_joints
from controllers.rotation_vectors import from_matrix
from controllers.rotations import from_axis_angle, rotate, to_matrix
from sim.motions import aims, retarget
from sim.motions.author import load_authored
from sim.motions.band import Band
from sim.motions.compare import compare_with_published
from sim.motions.human import SMPL, Human, HumanError, read_human
from sim.motions.kinematics import sweep_clip
from sim.motions.measure import measure
from tests.shared_data import shared

RNG = np.random.default_rng(0)
SCALE = 0.75
CLIP = "motions/asap/kick_level1.pkl"


def as_human(clip: Clip, scale: float = SCALE) -> Human:
    """A human who moves exactly as the robot does, and is larger."""
    kinematics, sweep = sweep_clip(clip)
    points = kinematics.points(sweep, tuple(site for _, site, _ in retarget.PAIRS)) / scale
    names = [name for name, _, _ in retarget.PAIRS]
    return Human("", "made", clip.fps, {name: points[:, i] for i, name in enumerate(names)})


@pytest.fixture(scope="module")
def wave() -> Clip:
    return load_authored("wave")


@pytest.fixture(scope="module")
def followed(wave: Clip) -> retarget.Retargeted:
    return retarget.retarget(as_human(wave))


# The terms


def test_third_differences_of_a_course_are_those_of_the_dense_problem() -> None:
    frames, n = 7, 2
    deviation, weight = RNG.normal(size=(frames, n)), np.array([2.0, 0.5])
    band = Band(frames, n, reach=3)
    band.add_differences(deviation, weight, 3)
    band.lower[0] += 1.0
    difference = np.diff(np.eye(frames), 3, axis=0)  # (4, 7)
    for i in range(n):
        matrix = np.eye(frames) + weight[i] * difference.T @ difference
        right = -weight[i] * difference.T @ (difference @ deviation[:, i])
        np.testing.assert_allclose(np.linalg.solve(matrix, right), band.solve()[:, i], rtol=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        (((0, 0, 0), (1, 0, 0)), ((0.5, -1, 2), (0.5, 1, 2)), 2.0),  # one over the other
        (((0, 0, 0), (1, 0, 0)), ((0, 3, 0), (1, 3, 0)), 3.0),  # side by side
        (((0, 0, 0), (1, 0, 0)), ((4, 4, 0), (4, 9, 0)), 5.0),  # end to end: 3, 4, 5
        (((0, 0, 0), (0, 0, 0)), ((-1, 2, 0), (1, 2, 0)), 2.0),  # a sphere and a capsule
        (((0, 0, 0), (0, 0, 0)), ((0, 2, 0), (0, 2, 0)), 2.0),  # two spheres
    ],
)
def test_distances_between_axes_are_those_worked_out_by_hand(first: tuple, second: tuple, distance: float) -> None:
    ends = np.array([[*first, *second]], dtype=float)
    found, a, b = aims._between(ends)
    assert found[0, 0] == pytest.approx(distance)
    assert np.linalg.norm(a - b) == pytest.approx(distance)


def test_a_pair_that_presses_is_pushed_apart_and_others_are_left_alone() -> None:
    kinematics = retarget._kinematics()
    names = kinematics.joint_names
    joints = default_pose(kinematics.robot)[None].copy()
    joints[0, names.index("left_hip_roll_joint")] = -0.35  # the left leg is in the right one
    sweep = kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), joints, derivatives=True)
    apart = aims.may_meet(kinematics.robot)
    before = aims.gaps(kinematics, sweep, apart)
    assert before.min() < -0.01
    band = Band(1, len(names) + 7)
    band.lower[0] += 1.0
    aims.keep_apart(band, kinematics, sweep, apart, before < aims.GAP)
    change = band.solve()
    moved = kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), joints + change[:, 6:-1])
    after = aims.gaps(kinematics, moved, apart)
    assert after.min() > before.min() + 0.01
    arms = [i for i, name in enumerate(names) if "elbow" in name]
    np.testing.assert_allclose(change[0, 6:-1][arms], 0, atol=1e-9)


def test_only_moves_that_are_too_fast_are_slowed() -> None:
    joints = np.array([[0.0, 0.0], [0.3, 0.05], [0.3, 0.0]])
    band = Band(3, 2 + 7)
    band.lower[0] += 1.0
    aims.limit_speed(band, joints, np.array([0.1, 0.1]))
    moved = joints + band.solve()[:, 6:-1]
    assert np.abs(np.diff(moved, axis=0)).max() < 0.11
    np.testing.assert_allclose(moved[:, 1], joints[:, 1])


def test_a_matrix_and_its_quaternion_are_the_same_turn() -> None:
    q = RNG.normal(size=(50, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    found = from_matrix(to_matrix(q))
    np.testing.assert_allclose(np.abs(np.einsum("ti,ti->t", found, q)), 1, atol=1e-12)


# The whole


def test_a_human_who_moves_like_the_robot_is_followed_and_measured(wave: Clip, followed: retarget.Retargeted) -> None:
    assert followed.person.scale == pytest.approx(SCALE, rel=0.02)
    error = retarget.key_errors(followed.clip, as_human(wave), followed.person.scale)
    assert error.mean() < 0.008
    own = [name for name in wave.joint_names if name in followed.clip.joint_names and "wrist" not in name]
    difference = (
        select_joints(followed.clip, tuple(own)).joint_position - select_joints(wave, tuple(own)).joint_position
    )
    assert np.abs(difference).mean() < 0.06


def test_a_scale_that_is_given_is_taken(wave: Clip) -> None:
    human = as_human(wave).cut(0, 40)
    assert retarget.retarget(human, scale=0.7).person.scale == pytest.approx(0.7, rel=1e-4)


def test_a_human_elsewhere_who_looks_elsewhere_gives_the_same_motion_there(wave: Clip) -> None:
    human = as_human(wave).cut(40, 100)
    turn, way = from_axis_angle((0, 0, 1), 2.5), np.array([3.0, -2.0, 0.5])
    other = Human("", "made", human.fps, {name: rotate(turn, p) + way for name, p in human.points.items()})
    here, there = retarget.retarget(human, SCALE).clip, retarget.retarget(other, SCALE).clip
    np.testing.assert_allclose(there.joint_position, here.joint_position, atol=5e-3)
    np.testing.assert_allclose(there.root_position[:, 2], here.root_position[:, 2], atol=2e-3)  # on the same floor


def test_what_comes_out_stands_still_on_the_floor_and_keeps_its_limits(followed: retarget.Retargeted) -> None:
    figures = measure(followed.clip)
    assert abs(figures.float_median) < 1e-3
    assert figures.penetration < 1e-3
    assert figures.slip_largest < 0.02
    assert figures.limit_margin >= 0
    assert followed.clip.report["retarget"]["deepest_self_collision"] == 0


def test_a_frame_for_itself_is_solved_from_any_attitude(wave: Clip) -> None:
    """No first frame collapses: the trunk is turned to the human's before anything else, wherever he looks."""
    kinematics = retarget._kinematics()
    names, sites, points, weights = retarget._points(as_human(wave, 1.0))
    chosen = RNG.integers(0, len(points), 30)
    axes, angles = RNG.normal(size=(30, 3)), RNG.uniform(-np.pi, np.pi, 30)
    targets = np.stack([rotate(from_axis_angle(a, b), points[i]) for a, b, i in zip(axes, angles, chosen, strict=True)])
    found = retarget.each_frame(kinematics, sites, targets, weights)
    error = np.linalg.norm(kinematics.points(kinematics.sweep(*found), sites) - targets, axis=2)
    assert len(names) == len(sites) and error.mean(axis=1).max() < 0.012


def test_a_hand_stands_in_for_the_wrist_that_a_source_lacks(wave: Clip) -> None:
    human = as_human(wave)
    points = {name: p for name, p in human.points.items() if "hand" not in name}
    points |= {f"{side}_wrist": human.points[f"{side}_elbow"] + [0, 0, -0.2] for side in ("left", "right")}
    names, _, places, _ = retarget._points(Human("", "made", human.fps, points))
    hand = places[:, names.index("left_hand")] - human.points["left_elbow"]
    np.testing.assert_allclose(hand, np.tile([0, 0, -0.2 * (1 + retarget.HAND)], (len(hand), 1)), atol=1e-9)
    assert {site.name for site in KEY_POINTS} == {"left_hand", "right_hand", "head"}


def test_feet_point_forward_where_a_source_has_no_toes(wave: Clip) -> None:
    human = as_human(wave).cut(0, 40)
    points = {name: p for name, p in human.points.items() if "toe" not in name}
    clip = retarget.retarget(Human("", "made", human.fps, points)).clip
    yaw = [i for i, name in enumerate(clip.joint_names) if "hip_yaw" in name]
    assert np.abs(clip.joint_position[:, yaw]).max() < 0.1


def test_too_short_a_motion_is_refused(wave: Clip) -> None:
    with pytest.raises(HumanError, match="has 4 frames: retargeting needs 5"):
        retarget.retarget(as_human(wave).cut(0, 4))


def test_a_published_clip_is_nearer_and_smoother_than_its_published_retargeting() -> None:
    path = shared(CLIP)
    (human,) = read_human(path)
    result = retarget.retarget(human)
    found = compare_with_published(path, human, result)
    assert found.ours < found.theirs
    assert found.ours_at_their_scale < found.theirs_at_their_scale
    assert found.joint_jerk < 0.5
    assert found.point_jerk < 0.5
    first = human.cut(50)  # begun in the middle of the kick
    scale = result.person.scale
    assert retarget.key_errors(retarget.retarget(first, scale).clip, first, scale)[0].mean() < 0.04


def test_a_file_without_the_robots_motion_cannot_be_compared(tmp_path: Path, wave: Clip) -> None:
    human = as_human(wave).cut(0, 30)
    joints = np.stack([human.points.get(name, human.points["pelvis"]) for name in SMPL], axis=1)
    (tmp_path / "alone.pkl").write_bytes(pickle.dumps({"a": {"smpl_joints": joints, "fps": human.fps}}))
    failures = retarget.retarget_command((tmp_path,), tmp_path / "out", compare=True)
    assert len(failures) == 1 and "alone.pkl" in failures[0].reason
    assert (tmp_path / "out" / "alone.npz").is_file()


def test_the_command_does_the_others_of_a_batch(tmp_path: Path, wave: Clip) -> None:
    human = as_human(wave).cut(0, 30)
    joints = np.stack([human.points.get(name, human.points["pelvis"]) for name in SMPL], axis=1)
    (tmp_path / "good.pkl").write_bytes(pickle.dumps({"a": {"smpl_joints": joints, "fps": human.fps}}))
    (tmp_path / "bad.bvh").write_text("nothing")
    failures = retarget.retarget_command((tmp_path,), tmp_path / "out")
    assert [failure.path.name for failure in failures] == ["bad.bvh"]
    clip = load_clip(tmp_path / "out" / "good.npz")
    assert clip.frames == 30 and len(clip.joint_names) == 29
    assert clip.report["retarget"]["format"] == "SMPL joints"
    assert clip.source == "SMPL joints: good.pkl"
