"""Repair: feet that stand are on the floor and stay there, flights stay flights, and the figures say so."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import sim.motions.solve
from controllers.g1 import SOLE_RADIUS, default_pose
from controllers.motion import Clip, ClipError, load_clip, make_clip, save_clip
from controllers.rotations import from_axis_angle
from sim.motions.author import load_authored
from sim.motions.detect import HARDWARE, SHORT
from sim.motions.importers import import_command
from sim.motions.kinematics import GRAVITY, kinematics_of, soles, sweep_clip
from sim.motions.measure import change_of_key_bodies, forces, measure
from sim.motions.repair import REPAIRED, broken, clearance, repair, repair_command
from sim.motions.stance import find_stance, runs, smooth_through
from sim.motions.tidy import tidy

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("REALIGN_DATA", ROOT.parent / "shared" / "data")) / "motions"
FPS = 50.0
ROBOT = kinematics_of(SHORT).robot


def height_of_standing() -> float:
    """Of the root, where the soles of the default pose are on the floor [m]."""
    kinematics = kinematics_of(SHORT)
    sweep = kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), default_pose(ROBOT)[None])
    return float(SOLE_RADIUS - kinematics.points(sweep, soles())[..., 2].min())


def standing(frames: int = 60) -> Clip:
    """Both soles flat on the floor, nothing moves."""
    return make_clip(
        FPS,
        SHORT,
        np.tile([0, 0, height_of_standing()], (frames, 1)),
        np.tile([1.0, 0, 0, 0], (frames, 1)),
        np.tile(default_pose(ROBOT), (frames, 1)),
        np.ones((frames, 2)),
    )


def moved(clip: Clip, position: np.ndarray) -> Clip:
    """The same with the root moved by (T, 3) [m], contacts unknown."""
    return make_clip(
        clip.fps, clip.joint_names, clip.root_position + position, clip.root_quaternion, clip.joint_position
    )


def sole_points(clip: Clip) -> np.ndarray:
    kinematics, sweep = sweep_clip(clip)
    return kinematics.points(sweep, soles())


def jump() -> tuple[Clip, tuple[int, int]]:
    """A standing robot thrown up at 2 m/s: the frames of its flight are known."""
    flight = round(2 * 2.0 / GRAVITY * FPS)
    t = np.arange(flight + 1) / FPS
    speed = GRAVITY * flight / FPS / 2
    rise = np.concatenate([np.zeros(40), speed * t - GRAVITY * t**2 / 2, np.zeros(40)])
    return moved(standing(len(rise)), rise[:, None] * [0, 0, 1]), (40, 40 + flight)


def test_a_robot_that_floats_is_put_down_and_otherwise_left_alone() -> None:
    clip = standing()
    result = repair(moved(clip, np.tile([0, 0, 0.07], (clip.frames, 1))))
    np.testing.assert_allclose(result.root_position, clip.root_position, atol=1e-4)
    np.testing.assert_allclose(result.joint_position, clip.joint_position, atol=1e-3)
    assert result.contacts.all()


def test_feet_stand_still_under_a_body_that_drifts() -> None:
    clip = standing(100)
    drift = 0.04 * np.sin(np.linspace(0, np.pi, 100))[:, None] * [0, 1, 0]
    result = repair(moved(clip, drift))
    points = sole_points(result)
    assert np.ptp(points, axis=0).max() < 1e-3
    assert np.abs(points[..., 2] - SOLE_RADIUS).max() < 5e-4
    assert result.root_position[50, 1] - result.root_position[0, 1] > 0.02  # the body still sways


def test_soles_come_out_of_the_floor() -> None:
    clip = standing()
    result = repair(moved(clip, np.tile([0, 0, -0.05], (clip.frames, 1))))
    assert sole_points(result)[..., 2].min() > SOLE_RADIUS - 1e-3


def test_joints_beyond_their_limits_come_back_to_them() -> None:
    clip = standing()
    joints = clip.joint_position.copy()
    column = SHORT.index("waist_pitch_joint")
    joints[:, column] = ROBOT.upper[column] + 0.2
    bent = make_clip(FPS, SHORT, clip.root_position, clip.root_quaternion, joints)
    assert measure(bent).limit_margin == pytest.approx(-0.2)
    result = repair(bent)
    assert measure(result).limit_margin >= 0
    assert result.joint_position[30, column] == pytest.approx(ROBOT.upper[column], abs=1e-3)


def test_a_jump_is_seen_and_stays_a_jump() -> None:
    clip, (first, last) = jump()
    kinematics = kinematics_of(SHORT)
    stance = find_stance(kinematics, clip.root_position, clip.root_quaternion, clip.joint_position, FPS)
    ((start, stop),) = runs(stance.flying)
    assert 0 <= start - first <= 4  # two differences and a filter blur the take-off
    assert 0 <= last - stop <= 4
    floating = moved(clip, np.tile([0, 0, 0.1], (clip.frames, 1)))
    result = repair(floating)
    apex = (first + last) // 2
    rise = clip.root_position[apex, 2] - clip.root_position[0, 2]
    assert sole_points(result)[apex, :, 2].min() - SOLE_RADIUS == pytest.approx(rise, abs=0.01)
    assert not result.contacts[apex].any()
    assert result.report[REPAIRED]["flying_stays_off_floor"]


def test_a_held_foot_in_the_air_is_no_stance() -> None:
    clip = standing(100)
    joints = clip.joint_position.copy()
    for name, angle in (("right_hip_pitch_joint", -0.9), ("right_knee_joint", 1.2)):
        joints[:, SHORT.index(name)] = angle
    stance = find_stance(kinematics_of(SHORT), clip.root_position, clip.root_quaternion, joints, FPS)
    assert stance.feet[:, 0].all()
    assert not stance.feet[:, 1].any()


def test_a_teleport_at_the_end_is_cut_off_and_one_inside_is_joined() -> None:
    clip = standing(100)
    walk = np.linspace(0, 1, 100)[:, None] * [1, 0, 0]
    torn = clip.root_position + walk
    torn[95:] += [1.0, 0, 0]
    end = tidy(torn, clip.root_quaternion, clip.joint_position, FPS)
    assert (len(end.position), end.teleports) == (95, 1)
    torn = clip.root_position + walk
    torn[50:] += [0, 3.0, 0]
    inside = tidy(torn, clip.root_quaternion, clip.joint_position, FPS)
    assert (len(inside.position), inside.teleports) == (100, 1)
    np.testing.assert_allclose(inside.position, clip.root_position + walk, atol=1e-9)


def test_a_spike_of_one_joint_is_replaced_and_a_swing_is_not() -> None:
    clip = standing(100)
    joints = clip.joint_position.copy()
    joints[:, 3] += 0.5 * np.sin(np.arange(100) / FPS * 2 * np.pi)
    spiked = joints.copy()
    spiked[40:42, 3] += 1.0
    result = tidy(clip.root_position, clip.root_quaternion, spiked, FPS)
    assert result.spikes == 2
    np.testing.assert_allclose(result.joints, joints, atol=5e-3)
    assert tidy(clip.root_position, clip.root_quaternion, joints, FPS).spikes == 0


def test_a_robot_at_rest_is_balanced_by_its_weight() -> None:
    clip = standing(10)
    points = sole_points(clip)
    kinematics = kinematics_of(SHORT)
    torques, missing = forces(kinematics, clip, points, points[..., 2] - SOLE_RADIUS, clip.contacts)
    assert np.abs(missing).max() < 2e-3
    figures = measure(clip)
    assert (figures.zmp_feasible, figures.torque_feasible, figures.penetration) == (
        1.0,
        1.0,
        pytest.approx(0, abs=1e-9),
    )
    # The arms hang: a shoulder bears the moment of what hangs on it, and no floor force helps.
    assert 0 < np.abs(torques[5, SHORT.index("left_shoulder_pitch_joint")]) < 5


def test_a_falling_robot_needs_no_force() -> None:
    t = np.arange(20) / FPS
    clip = moved(standing(20), (5 - GRAVITY * t**2 / 2)[:, None] * [0, 0, 1])
    torques, missing = forces(kinematics_of(SHORT), clip, sole_points(clip), np.ones((20, 8)), np.zeros((20, 2), bool))
    inner = slice(3, -3)  # differences at the ends are one-sided
    assert np.abs(missing[inner]).max() < 1e-9
    assert np.abs(torques[inner]).max() < 1e-9


def test_a_robot_that_leans_too_far_is_not_balanced() -> None:
    clip = standing(10)
    leaning = make_clip(
        FPS,
        SHORT,
        clip.root_position,
        np.tile(from_axis_angle([0, 1, 0], 0.5), (10, 1)),
        clip.joint_position,
        clip.contacts,
    )
    assert measure(leaning).zmp_feasible == 0


def test_slip_and_float_are_measured_in_metres() -> None:
    clip = standing(51)
    sliding = replace(moved(clip, np.linspace(0, 0.5, 51)[:, None] * [1, 0, 0]), contacts=clip.contacts)
    assert measure(sliding).slip_largest == pytest.approx(0.5, rel=1e-6)
    floating = replace(moved(clip, np.tile([0, 0, 0.03], (51, 1))), contacts=clip.contacts)
    assert measure(floating).float_median == pytest.approx(0.03, abs=1e-9)
    assert change_of_key_bodies(clip, floating) == pytest.approx((0, 0), abs=1e-9)


def test_the_curve_of_least_bending_goes_on_straight_where_nothing_is_known() -> None:
    line = np.linspace(1, 3, 50)
    weights = np.ones(50)
    weights[20:30] = 0
    np.testing.assert_allclose(smooth_through(np.where(weights > 0, line, 99), weights, FPS, 0.1), line, atol=1e-5)


def test_swinging_feet_keep_clear_of_the_floor_but_not_at_once() -> None:
    feet = np.ones((60, 2), dtype=bool)
    feet[20:50, 0] = False
    room = clearance(feet, FPS)
    assert not room[:, 4:].any()
    assert not room[:20, :4].any()
    assert 0 < room[20, 0] < 0.005  # one frame after the last of stance
    assert room[35, :4] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["squat", "side_step"])
def test_what_is_sound_already_is_left_alone(name: str) -> None:
    clip = load_authored(name, SHORT)
    each, whole = change_of_key_bodies(clip, repair(clip))
    assert max(each, whole) < 0.002


def test_a_motion_in_windows_is_the_motion_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = standing(260)
    t = np.arange(260)[:, None] / FPS
    swaying = moved(clip, 0.03 * np.sin(3 * t) * [1, 1, 0] + [0, 0, 0.05])
    once = repair(swaying)
    monkeypatch.setattr(sim.motions.solve, "WINDOW", 150)
    parts = repair(swaying)
    np.testing.assert_allclose(parts.root_position, once.root_position, atol=2e-3)
    np.testing.assert_allclose(parts.joint_position, once.joint_position, atol=1e-2)
    assert measure(parts).slip_largest < 0.02


def test_what_is_no_g1_or_too_short_is_refused_and_the_rest_done(tmp_path: Path) -> None:
    other = make_clip(FPS, ("a", "b"), np.zeros((9, 3)), np.tile([1.0, 0, 0, 0], (9, 1)), np.zeros((9, 2)))
    with pytest.raises(ClipError, match="joint_names are not those of the G1"):
        repair(other)
    save_clip(tmp_path / "other.npz", other)
    save_clip(tmp_path / "short.npz", standing(3))
    save_clip(tmp_path / "good.npz", standing(30))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:300])
    failures, misses = repair_command((tmp_path,), tmp_path / "out", console=Console(file=io.StringIO()))
    reasons = {failure.path.name: failure.reason for failure in failures}
    assert sorted(reasons) == ["cut.npz", "other.npz", "short.npz"]
    assert "has 3 frames after tidying" in reasons["short.npz"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.npz"]
    assert not misses


def names_of(slow: bool) -> list:
    quick = {"CR7_level1", "jump_forward_level1", "walk_level2"}
    names = sorted(path.stem for path in DATA.rglob("*.pkl")) if DATA.is_dir() else []
    return [name for name in names if (name in quick) != slow] or [
        pytest.param("", marks=pytest.mark.skip("the public motions are not here (REALIGN_DATA)"))
    ]


def keeps_all_bounds(folder: Path, name: str) -> None:
    (path,) = DATA.rglob(f"{name}.pkl")
    assert not import_command((path,), folder, console=Console(file=io.StringIO()))
    result = repair(load_clip(folder / f"{name}.npz"))
    assert broken(result.report) == []
    # Once more without the contacts that the repair wrote: what stands and what flies shows in the motion.
    assert abs(measure(replace(result, contacts=np.zeros_like(result.contacts))).float_median) < 0.005
    assert HARDWARE[:6] == result.joint_names[:6]


@pytest.mark.parametrize("name", names_of(slow=False))
def test_public_motions_keep_all_bounds_after_repair(tmp_path: Path, name: str) -> None:
    keeps_all_bounds(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", names_of(slow=True))
def test_all_public_motions_keep_all_bounds_after_repair(tmp_path: Path, name: str) -> None:
    keeps_all_bounds(tmp_path, name)
