"""Each check by hand-worked numbers: fine below its warning, a warning above it, a trip above the trip level."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from controllers import safety
from controllers.rotations import from_axis_angle
from controllers.safety import CHECKS, FINE, TRIP, WARN, Level, Limits, judge


@pytest.mark.parametrize(("value", "expected"), [(0.8, FINE), (0.81, WARN), (1.0, WARN), (1.01, TRIP)])
def test_a_value_is_judged_by_the_level_that_it_is_above(value: float, expected: int) -> None:
    finding = judge("tilt", value, Level(0.8, 1.0))
    assert (finding.level, finding.where, finding.value) == (expected, -1, value)
    assert finding.limit == (1.0 if expected == TRIP else 0.8)


def test_the_worst_of_several_is_judged_and_named() -> None:
    finding = judge("joint_speed", [0.1, 0.95, 0.3], Level(0.9, 1.0))
    assert (finding.level, finding.where, finding.value) == (WARN, 1, 0.95)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_trips_wherever_it_stands(bad: float) -> None:
    finding = judge("temperature", [99.0, bad, 20.0], Level(85.0, 1000.0))
    assert (finding.level, finding.where) == (TRIP, 1)


def test_every_level_warns_no_later_than_it_trips_and_belongs_to_a_check() -> None:
    for field in dataclasses.fields(Limits):
        level = getattr(Limits(), field.name)
        if isinstance(level, Level):
            assert level.warn <= level.trip
            assert field.name in CHECKS


def test_tilt_is_the_angle_to_the_vertical_whatever_the_heading() -> None:
    for heading in (0.0, 1.0, -2.5):
        turned = from_axis_angle([0, 0, 1], heading)
        assert safety.tilt(turned) == pytest.approx(0, abs=1e-7)
    for axis in ([1, 0, 0], [0, 1, 0], [1, -1, 0]):
        assert safety.tilt(from_axis_angle(axis, 0.9)) == pytest.approx(0.9)
    assert safety.tilt([0, 1, 0, 0]) == pytest.approx(math.pi)


def test_a_missing_attitude_is_not_upright() -> None:
    assert safety.quaternion_length([0, 0, 0, 0]) == 1.0
    assert safety.quaternion_length([1, 0, 0, 0]) == 0.0
    assert judge("quaternion_length", safety.quaternion_length([0, 0, 0, 0]), Limits().quaternion_length).level == TRIP


def test_numbers_that_are_not_finite_are_counted() -> None:
    assert safety.not_finite([1.0, math.nan], [[math.inf, 0.0]], [3.0]) == 2
    assert judge("state_values", 0, Limits().state_values).level == FINE
    assert judge("state_values", 1, Limits().state_values).level == TRIP


def test_speeds_count_in_both_directions() -> None:
    np.testing.assert_allclose(safety.joint_speed([-10.0, 5.0], [20.0, 20.0]), [0.5, 0.25])
    assert safety.angular_rate([3.0, -4.0, 12.0]) == 13.0


def test_positions_count_beyond_either_end_of_the_range() -> None:
    np.testing.assert_allclose(safety.joint_position([0.0, 1.2, -1.5], [-1, -1, -1], [1, 1, 1]), [-1, 0.2, 0.5])


def test_targets_jump_by_their_change() -> None:
    np.testing.assert_allclose(safety.target_jump([0.5, -1.0], [0.2, 1.5]), [0.3, 2.5])


def test_torque_is_the_motors_law() -> None:
    np.testing.assert_allclose(safety.torque([1.0, 0.0], [0.8, 0.1], [1.0, -2.0], [100, 50], [2, 1]), [18, -3])


def test_targets_are_held_inside_the_soft_range() -> None:
    lower, upper = safety.soft_range([-1.0, 0.0], [1.0, 2.0], 0.9)
    np.testing.assert_allclose((lower, upper), ([-0.9, 0.1], [0.9, 1.9]))
    np.testing.assert_allclose(safety.within_range([2.0, 0.5], lower, upper), [0.9, 0.5])


def test_a_target_is_shortened_until_its_torque_is_at_the_limit() -> None:
    """100 Nm/rad and 2 Nm s/rad at 1 rad/s with 18 Nm: up to 0.2 rad ahead, down to 0.16 rad behind."""
    settings = ([0.0] * 3, [1.0] * 3, [100.0] * 3, [2.0] * 3, [18.0] * 3)
    held = safety.within_torque([5.0, -5.0, 0.1], *settings)
    np.testing.assert_allclose(held, [0.2, -0.16, 0.1])
    np.testing.assert_allclose(safety.torque(held, *settings[:4]), [18, -18, 8])


def test_a_joint_without_stiffness_keeps_its_target() -> None:
    held = safety.within_torque([0.3], [0.0], [50.0], [0.0], [8.0], [25.0])
    np.testing.assert_array_equal(held, [0.3])
