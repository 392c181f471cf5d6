"""A clip: exact at its samples, linear and slerp between them, velocities that belong to the positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.motion import Clip, ClipError, load_clip, make_clip, resample, save_clip
from controllers.rotation_vectors import angular_velocity, from_vector, slerp, to_vector
from controllers.rotations import from_axis_angle, multiply

JOINTS = ("hip", "knee")


def swing(frames: int = 301, fps: float = 50.0) -> Clip:
    """Joints on sines of 1 Hz, the root on a circle of 1 m at 1 rad/s, turning about z at 0.5 rad/s."""
    t = np.arange(frames) / fps
    return make_clip(
        fps,
        JOINTS,
        np.stack([np.cos(t), np.sin(t), np.full(frames, 0.8)], axis=1),
        from_axis_angle([0, 0, 1], 0.5 * t),
        np.stack([np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)], axis=1),
        np.stack([t < 1, t >= 1], axis=1),
        source="sines",
        licence="none needed",
    )


@pytest.mark.parametrize("frames", [200, 333, 501])
def test_a_50_hz_loop_meets_every_sample_exactly(frames: int) -> None:
    clip = swing(frames)
    dt = 1 / 50
    for times in (np.arange(frames) * dt, np.arange(frames) / 50, np.arange(frames) * 4 * 0.005):
        state = clip.at(times)
        np.testing.assert_array_equal(state.joint_position, clip.joint_position)
        np.testing.assert_array_equal(state.joint_velocity, clip.joint_velocity)
        np.testing.assert_array_equal(state.contacts, clip.contacts)
        np.testing.assert_allclose(state.root_quaternion, clip.root_quaternion, atol=1e-15)


def test_between_samples_positions_are_linear_and_rotations_turn_evenly() -> None:
    clip = make_clip(
        10, JOINTS, [[0, 0, 1], [1, 0, 1]], from_axis_angle([0, 0, 1], [0.0, 1.0]), [[0, 2], [1, 0]], [[1, 0], [0, 1]]
    )
    state = clip.at(0.025)
    np.testing.assert_allclose(state.root_position, [[0.25, 0, 1]])
    np.testing.assert_allclose(state.joint_position, [[0.25, 1.5]])
    np.testing.assert_allclose(state.root_quaternion, [from_axis_angle([0, 0, 1], 0.25)])
    np.testing.assert_allclose(state.root_angular_velocity, [[0, 0, 10]])
    assert state.contacts.tolist() == [[True, False]]


def test_before_and_after_the_clip_the_robot_rests_at_its_ends() -> None:
    clip = swing()
    state = clip.at([-1.0, clip.duration, 100.0])
    np.testing.assert_allclose(state.joint_position, clip.joint_position[[0, -1, -1]])
    assert not state.joint_velocity[[0, 2]].any()
    assert state.joint_velocity[1].any()


def test_velocities_are_the_rates_of_change() -> None:
    clip = swing()
    t = np.arange(clip.frames) / clip.fps
    inner = slice(1, -1)
    circle = np.stack([-np.sin(t), np.cos(t), 0 * t], axis=1)
    np.testing.assert_allclose(clip.root_linear_velocity[inner], circle[inner], atol=1e-4)  # dt^2 / 6
    np.testing.assert_allclose(clip.root_angular_velocity, np.tile([0, 0, 0.5], (clip.frames, 1)), atol=1e-12)
    law = 2 * np.pi * np.cos(2 * np.pi * t)
    np.testing.assert_allclose(clip.joint_velocity[inner, 0], law[inner], atol=(2 * np.pi) ** 3 * 0.02**2 / 6 * 1.01)


def test_resampled_motion_is_the_same_motion() -> None:
    fine = resample(swing(), 120.0)
    t = np.arange(fine.frames) / 120
    assert fine.duration == pytest.approx(6.0)
    np.testing.assert_allclose(fine.joint_position[:, 0], np.sin(2 * np.pi * t), atol=(2 * np.pi * 0.02) ** 2 / 8)


def test_rotation_vectors_and_quaternions_are_inverse() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 3))
    vectors *= rng.uniform(0, np.pi, size=(100, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:3] = [[0, 0, 0], [1e-9, 0, 0], [0, 1e-5, 0]]
    np.testing.assert_allclose(to_vector(from_vector(vectors)), vectors, atol=1e-12)
    np.testing.assert_allclose(to_vector(-from_vector(vectors)), vectors, atol=1e-12)


def test_slerp_goes_the_shorter_way_whatever_the_signs() -> None:
    a, b = from_axis_angle([0, 1, 0], 0.2), from_axis_angle([0, 1, 0], 1.0)
    np.testing.assert_allclose(slerp(a, -b, 0.25), from_axis_angle([0, 1, 0], 0.4), atol=1e-15)


def test_angular_velocity_is_in_the_world_frame() -> None:
    tilt = from_axis_angle([1, 0, 0], np.pi / 2)
    turning = multiply(tilt, from_axis_angle([0, 0, 1], np.linspace(0, 1, 11)))  # about body z, which is world -y
    np.testing.assert_allclose(angular_velocity(turning, 0.1), np.tile([0, -1, 0], (11, 1)), atol=1e-12)


def test_a_saved_clip_comes_back(tmp_path: Path) -> None:
    clip = swing()
    save_clip(tmp_path / "a.npz", clip)
    back = load_clip(tmp_path / "a.npz")
    for name in ("root_position", "root_quaternion", "joint_position", "joint_velocity", "contacts"):
        np.testing.assert_allclose(getattr(back, name), getattr(clip, name), atol=1e-15)
    assert (back.fps, back.joint_names, back.source, back.licence) == (50.0, JOINTS, "sines", "none needed")


def edit(path: Path, **changes: Any) -> Path:
    with np.load(path) as file:
        content: dict[str, Any] = {name: file[name] for name in file.files} | changes
    np.savez(path, allow_pickle=False, **{name: value for name, value in content.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"joint_velocity": np.zeros((301, 2))}, "joint_velocity is not the rate of change of the positions"),
        ({"joint_position": np.zeros((301, 3))}, r"joint_position has shape \(301, 3\): needed is \(301, 2\)"),
        ({"root_position": np.full((301, 3), np.nan)}, "root_position is not finite at frame 0"),
        ({"root_quaternion": np.full((301, 4), 0.9)}, "root_quaternion has length 1.8 at frame 0"),
        ({"contacts": None}, "contacts is missing"),
        ({"format": np.int64(2)}, "has format 2; this version of the program reads format 1"),
        ({"fps": np.float64(0)}, "fps is 0.0"),
        ({"root_position": np.zeros((0, 3))}, "root_position has 0 frames: a motion needs 2 or more"),
        ({"root_position": np.zeros((1, 3))}, "root_position has 1 frames: a motion needs 2 or more"),
    ],
)
def test_an_unsound_file_is_refused_with_file_and_field(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    save_clip(tmp_path / "a.npz", swing())
    with pytest.raises(ClipError, match=f"a.npz: .*{sentence}"):
        load_clip(edit(tmp_path / "a.npz", **changes))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_clip(path, swing())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ClipError, match=r"a.npz: cannot be read as npz"):
        load_clip(path)
