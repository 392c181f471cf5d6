"""Motions of our own: the floor can push what they need, the robot can do it, and they ship as they are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controllers.g1 import SOLE_RADIUS
from controllers.motion import ClipError
from sim.motions import author
from sim.motions.author import FPS, LONG, SCORES, SHORT, along, load_authored
from sim.motions.kinematics import GRAVITY, kinematics_of, soles, sweep_clip
from sim.motions.measure import measure
from sim.motions.stance import mass_centre


@pytest.mark.parametrize("name", SCORES)
def test_a_motion_that_ships_is_sound(name: str) -> None:
    clip = load_authored(name)
    figures = measure(clip)
    assert abs(figures.float_median) < 1e-4
    assert figures.penetration < 1e-3
    assert figures.slip_largest < 1e-3
    assert figures.limit_margin >= 0
    assert figures.speed_ratio < 0.6
    assert figures.torque_ratio < 0.7
    assert figures.zmp_feasible > 0.9
    assert figures.zmp_outside < 0.005
    # At rest at both ends, so that motions follow each other.
    assert np.abs(clip.joint_velocity[[0, -1]]).max() < 0.02
    assert clip.licence.startswith("MIT")


def test_what_ships_is_what_is_made() -> None:
    made, shipped = author.author(SCORES["wave"], "wave"), load_authored("wave")
    np.testing.assert_allclose(made.joint_position, shipped.joint_position, atol=1e-4)
    np.testing.assert_allclose(made.root_position, shipped.root_position, atol=1e-4)


def test_the_robot_without_wrists_does_the_same() -> None:
    long, short = load_authored("squat"), load_authored("squat", SHORT)
    assert (long.joint_names, short.joint_names) == (LONG, SHORT)
    wrists = [i for i, joint in enumerate(LONG) if joint not in SHORT]
    assert not long.joint_position[:, wrists].any()
    with pytest.raises(ClipError, match="motion 'dance' is not one of ours: they are stand"):
        load_authored("dance")


def test_a_jump_falls_freely_between_take_off_and_landing() -> None:
    clip = load_authored("jump", SHORT)
    start, end = SCORES["jump"].flight or (0, 0)
    flying = ~clip.contacts.any(axis=1)
    assert flying.sum() / FPS == pytest.approx(end - start, abs=2 / FPS)
    centre = mass_centre(kinematics_of(SHORT), clip.root_position, clip.root_quaternion, clip.joint_position)[:, 2]
    inner = np.flatnonzero(flying)[1:-1]
    fall = (centre[inner + 1] - 2 * centre[inner] + centre[inner - 1]) * FPS**2
    np.testing.assert_allclose(fall[1:-1], -GRAVITY, atol=1.0)
    ends = np.interp([start, end], np.arange(clip.frames) / FPS, centre)
    assert centre[inner].max() - ends.mean() == pytest.approx(GRAVITY * (end - start) ** 2 / 8, abs=0.01)


def test_feet_go_where_the_score_sends_them() -> None:
    clip = load_authored("side_step")
    kinematics, sweep = sweep_clip(clip)
    points = kinematics.points(sweep, soles())
    middle = points.reshape(-1, 2, 4, 3).mean(axis=2)
    frame = round(3.0 * FPS)  # between the steps out and the steps back
    np.testing.assert_allclose(middle[frame] - middle[0], [[0, 0.15, 0], [0, 0.15, 0]], atol=1e-3)
    np.testing.assert_allclose(middle[-1], middle[0], atol=1e-3)
    assert (points[..., 2] - SOLE_RADIUS).max() == pytest.approx(0.06, abs=0.005)


def test_between_keys_a_value_moves_by_minimum_jerk() -> None:
    keys = ((1.0, 0.0), (3.0, 2.0), (4.0, 2.0))
    values = along(keys, np.array([0.0, 1.0, 2.0, 3.0, 5.0]))
    np.testing.assert_allclose(values, [0, 0, 1, 2, 2])
    t = np.linspace(0.9, 3.1, 2201)
    speed = np.gradient(along(keys, t), t)
    assert speed.max() == pytest.approx(15 / 8 * 2 / 2, rel=1e-3)  # 15/8 of the mean speed


def test_authored_clips_lie_in_the_package() -> None:
    assert {path.stem for path in (Path(author.__file__).parent / "library").glob("*.npz")} == set(SCORES)
