"""The distributions of quadrotors: what each of them promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from controllers.airframe import AIRFRAMES
from sim.backends.quadrotor import GRAVITY
from sim.robots.quadrotors import CURVES, Preset, Quadrotors, from_airframes, sample

N = 4000
CRAZYFLIE = AIRFRAMES["crazyflie"]


@pytest.mark.parametrize("preset", ["raptor", "standard"])
def test_published_ranges_are_uniform(preset: Preset):
    quads = sample(preset, N, 1)
    for values, low, high in (
        (quads.thrust_to_weight, 1.5, 5.0),
        (np.cbrt(quads.mass), 0.02 ** (1 / 3), 5.0 ** (1 / 3)),
        (quads.torque_to_inertia, 40.0, 1200.0),
        (quads.torque_constant, 0.005, 0.05),
        (quads.tau_rise, 0.03, 0.10),
        (quads.tau_fall, 0.03, 0.30),
    ):
        assert low <= values.min()
        assert values.max() <= high
        # Of a uniform variable, quartiles are where they should be; 0.03 is four standard errors.
        quartiles = (np.quantile(values, [0.25, 0.5, 0.75]) - low) / (high - low)
        assert quartiles == pytest.approx([0.25, 0.5, 0.75], abs=0.03)


def test_draws_do_not_depend_on_each_other():
    quads = sample("raptor", N, 1)
    drawn = [quads.thrust_to_weight, quads.mass, quads.torque_to_inertia, quads.torque_constant, quads.tau_rise]
    assert np.abs(np.corrcoef(drawn) - np.eye(5)).max() < 0.06


def test_size_follows_the_cube_root_of_mass_with_the_published_deviation():
    deviations = {}
    for preset in ("raptor", "standard"):
        quads = sample(preset, N, 1)
        scale = np.cbrt(quads.mass / CRAZYFLIE.mass) * CRAZYFLIE.arm
        deviations[preset] = quads.arm / scale
    # 1 / (1 - x) or 1 + x with x normal around -0.1: the mean and spread of the released code.
    assert deviations["raptor"].mean() == pytest.approx(0.916, abs=0.006)
    assert deviations["raptor"].std() == pytest.approx(0.082, abs=0.005)
    assert np.median(deviations["standard"]) == pytest.approx(1.0, abs=0.006)


def test_published_quadrotors_keep_the_base_quadrotors_shape():
    quads = sample("raptor", N, 1)
    assert quads.inertia / quads.inertia[:, :1] == pytest.approx(
        np.tile(np.array(CRAZYFLIE.inertia) / CRAZYFLIE.inertia[0], (N, 1)), rel=1e-9
    )
    shares = quads.thrust_curve / quads.full_thrust[:, None]
    assert shares == pytest.approx(np.tile(CURVES["crazyflie"], (N, 1)), abs=1e-4)
    assert np.abs(quads.rotor_positions[:, :, 0]) == pytest.approx(np.abs(quads.rotor_positions[:, :, 1]))


def test_disturbance_force_is_the_published_one_or_scales_with_weight():
    published = sample("raptor", N, 1)
    t2w = published.thrust_to_weight
    assert (published.force_std <= 0.3 * (t2w - 1) * t2w / 3 + 1e-9).all()
    standard = sample("standard", N, 1)
    # Three sigma use at most three tenths of a third of the thrust margin.
    assert (3 * standard.force_std <= 0.1 * (standard.thrust_to_weight - 1) * GRAVITY + 1e-9).all()
    assert standard.force_std.mean() == pytest.approx(published.force_std.mean(), rel=0.35)


def test_every_wide_quadrotor_exists_and_can_hover():
    quads = sample("wide", N, 2)
    trim = quads.trim()
    assert (trim > 0).all()
    assert (trim < 0.93).all()
    jx, jy, jz = quads.inertia.T
    assert (quads.inertia > 0).all()
    assert (jz <= jx + jy).all()
    assert (jx <= jy + jz).all()
    assert (jy <= jx + jz).all()
    assert (quads.thrust_to_weight >= 1.5 - 1e-9).all()
    assert (quads.motor_strength > 0.5).all()
    # The simulator accepts all delays.
    assert np.isfinite(quads.environment()).all()
    assert np.isfinite(quads.parameters()).all()


def test_wide_turns_each_extension_on_for_a_part_of_the_quadrotors():
    quads = sample("wide", N, 2)
    for name in (
        *("dead_band", "battery_sag", "drag", "action_delay", "position_delay", "orientation_delay", "velocity_delay"),
        *("gyro_delay", "position_noise", "velocity_noise", "gyro_noise", "gyro_bias", "torque_std", "gust_std"),
    ):
        on = (getattr(quads, name).reshape(N, -1) != 0).any(axis=1).mean()
        assert 0.1 < on < 0.6, name


def test_trim_holds_the_weight_without_torque():
    quads = sample("wide", 200, 3)
    trim = quads.trim()
    dead, saturation = quads.dead_band[:, None], quads.saturation[:, None]
    effective = ((trim - dead).clip(0) / (1 - dead)).clip(None, saturation)
    c0, c1, c2 = quads.thrust_curve.T[:, :, None]
    sag = 1 - quads.battery_sag * trim.mean(axis=1)
    thrust = quads.motor_strength * (c0 + c1 * effective + c2 * effective**2) * sag[:, None]
    weight = quads.mass * GRAVITY
    assert thrust.sum(axis=1) == pytest.approx(weight, rel=1e-4)
    arms = quads.rotor_positions - quads.center_of_mass[:, None]
    for lever in (arms[..., 0], arms[..., 1], quads.torque_constant[:, None] * np.array([-1, 1, -1, 1])):
        assert (thrust * lever).sum(axis=1) / (weight * quads.arm) == pytest.approx(np.zeros(200), abs=1e-4)


def test_the_same_seed_gives_the_same_quadrotors_and_a_file_keeps_them(tmp_path):
    quads = sample("wide", 50, 4)
    quads.save(tmp_path / "quads.npz", preset="wide", seed=4)
    kept, about = Quadrotors.load(tmp_path / "quads.npz")
    assert about == {"preset": "wide", "seed": 4}
    for one, two, three in zip(*(vars(q).values() for q in (quads, kept, sample("wide", 50, 4))), strict=True):
        assert (one == two).all()
        assert (one == three).all()
    assert (sample("wide", 50, 5).mass != quads.mass).all()


def test_a_file_that_is_not_one_of_ours_is_refused(tmp_path):
    path = tmp_path / "quads.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"quads\.npz: not a file of quadrotors"):
        Quadrotors.load(path)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="preset 'huge' is not known: allowed are raptor, standard, wide, hard"):
        sample("huge", 3, 1)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="count is 0"):
        sample("raptor", 0, 1)


def test_selecting_and_replacing_leave_the_rest_alone():
    quads = sample("raptor", 10, 1)
    part = quads[np.array([3, 7])].replace(gyro_bias=(0.1, 0.2, 0.3), mass=1.0)
    assert len(part) == 2
    assert part.gyro_bias.tolist() == [[0.1, 0.2, 0.3]] * 2
    assert part.mass.tolist() == [1.0, 1.0]
    assert (part.tau_rise == quads.tau_rise[[3, 7]]).all()


def test_named_airframes_become_quadrotors_without_disturbances():
    quads = from_airframes(list(AIRFRAMES.values()))
    for i, airframe in enumerate(AIRFRAMES.values()):
        assert quads.mass[i] == airframe.mass
        assert quads.thrust_to_weight[i] == pytest.approx(airframe.thrust_to_weight)
    disturbances = dataclasses.replace(quads).force_std, quads.torque_std, quads.gust_std
    assert not np.any(disturbances)


def test_hard_quadrotors_fill_the_corners_and_stay_within_the_published_ranges() -> None:
    quads = sample("hard", N, 3)
    lift, torque = quads.thrust_to_weight, quads.torque_to_inertia
    assert np.all(((lift > 3) & (lift < 5)) | ((lift > 1.5) & (lift < 2.2)))
    assert abs((lift > 3).mean() - 0.75) < 0.03
    assert torque.min() >= 40 - 1e-6 and torque.max() <= 1200 + 1e-6
    assert 0.55 < (torque < 120).mean() < 0.65
    assert quads.tau_fall.min() >= 0.12
    shapes = quads.thrust_curve / quads.full_thrust[:, None]
    for family in ("crazyflie", "linear", "concave"):
        assert abs(np.isclose(shapes, CURVES[family], atol=1e-4).all(1).mean() - 1 / 3) < 0.03
