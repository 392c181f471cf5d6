"""Named airframes carry the published numbers, and a bad file is refused in one sentence."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from controllers.airframe import AIRFRAMES, GRAVITY, Airframe, AirframeError, load_airframe, rectangle

CRAZYFLIE = AIRFRAMES["crazyflie"]

WHOLE = """
mass = 1.0
arm = [0.1, 0.2]
thrust_curve = [0, 0, 5]
torque_constant = 0.01
tau_rise = 0.05
tau_fall = 0.08
inertia = [0.01, 0.01, 0.015]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", AIRFRAMES)
def test_every_named_airframe_can_exist_and_hover(name: str) -> None:
    airframe = load_airframe(name)
    airframe.check(name)
    thrust = airframe.thrust(np.full(4, airframe.hover_command)).sum()
    assert thrust == pytest.approx(airframe.mass * GRAVITY, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("crazyflie", 1.47),
        ("x500_real", 3.25),
        ("x500_sim", 1.78),
        ("fs", 3.40),
        ("race", 3.94),
        ("flightmare", 12.1),
        ("mrs", 2.69),
        ("soft", 3.31),
        ("soft_rigid", 3.32),
    ],
)
def test_thrust_to_weight_is_the_published_one(name: str, published: float) -> None:
    assert AIRFRAMES[name].thrust_to_weight == pytest.approx(published, rel=5e-3)


def test_torque_to_inertia_worked_by_hand() -> None:
    full_rotor = 0.00352526 + 0.01437313 + 0.09223048
    assert CRAZYFLIE.torque_to_inertia == pytest.approx(math.sqrt(2) * 0.028 * full_rotor / 9.4166e-6)


def test_hover_command_of_a_quadratic_rotor_is_the_root_of_the_weight_share() -> None:
    airframe = dataclasses.replace(CRAZYFLIE, mass=1.0, thrust_curve=(0.0, 0.0, GRAVITY))
    assert airframe.hover_command == pytest.approx(0.5, abs=1e-6)
    assert dataclasses.replace(airframe, dead_band=0.2).hover_command == pytest.approx(0.6, abs=1e-6)


def test_arm_is_the_farthest_rotor() -> None:
    assert dataclasses.replace(CRAZYFLIE, rotor_positions=rectangle(3.0, 4.0)).arm == pytest.approx(5.0)


def test_thrust_effects_worked_by_hand() -> None:
    linear = dataclasses.replace(CRAZYFLIE, thrust_curve=(0.0, 1.0, 0.0))
    at = np.array([0.1, 0.2, 0.6, 1.0])
    np.testing.assert_allclose(linear.thrust(at), at)
    np.testing.assert_allclose(dataclasses.replace(linear, dead_band=0.2).thrust(at), [0, 0, 0.5, 1])
    np.testing.assert_allclose(dataclasses.replace(linear, saturation=0.5).thrust(at), [0.1, 0.2, 0.5, 0.5])
    weak = dataclasses.replace(linear, motor_strength=(1.0, 1.0, 0.5, 1.0))
    np.testing.assert_allclose(weak.thrust(at), [0.1, 0.2, 0.3, 1.0])
    sagging = dataclasses.replace(linear, battery_sag=0.2)
    np.testing.assert_allclose(sagging.thrust(np.ones(4)), 0.8)
    np.testing.assert_allclose(sagging.thrust(np.full(4, 0.5)), 0.45)


def test_a_whole_file_needs_no_base(tmp_path: Path) -> None:
    airframe = load_airframe(written(tmp_path, WHOLE))
    assert airframe.name == "mine"
    assert airframe.rotor_positions == ((0.1, -0.2, 0), (-0.1, -0.2, 0), (-0.1, 0.2, 0), (0.1, 0.2, 0))
    assert airframe.thrust_curve == (0, 0, 5)


def test_a_base_gives_every_field_that_the_file_leaves_out(tmp_path: Path) -> None:
    airframe = load_airframe(written(tmp_path, 'base = "crazyflie"\nmass = 0.035\ngyro_delay = 0.01\n'))
    assert airframe == dataclasses.replace(CRAZYFLIE, name="mine", mass=0.035, gyro_delay=0.01)


@pytest.mark.parametrize(
    ("line", "field", "allowed"),
    [
        ("mass = -1", "mass is -1", "above 0"),
        ("mass = nan", "mass is nan", "above 0"),
        ("mass = 'heavy'", "mass is 'heavy'", "above 0"),
        ("mass = true", "mass is True", "above 0"),
        ("mass = 9", "thrust_curve lifts only 0.00499 times", "above 1"),
        ("inertia = [1e-5, -1e-5, 1e-5]", "inertia is", "above 0"),
        ("inertia = [1e-5, 0, 1e-5]", "inertia is", "above 0"),
        ("inertia = [1e-5, 1e-5, 3e-5]", "inertia is", "sum of the other two"),
        ("inertia = [1e-5, 1e-5]", "inertia is", "3 times"),
        ("inertia = 1e-5", "inertia is", "3 times"),
        ("thrust_curve = [9, 0, 0]", "thrust_curve lifts", "below 1"),
        ("motor_strength = [1, 1, 1]", "motor_strength is", "4 times"),
        ("dead_band = 1.0", "dead_band is 1.0", "below 1"),
        ("saturation = 0", "saturation is 0", "above 0"),
        ("gyro_delay = 0.05", "gyro_delay is 0.05", "0 to 0.03 s"),
        ("velocity_delay = 0.2", "velocity_delay is 0.2", "0 to 0.1 s"),
        ("arm = [0.1]", "arm is [0.1]", "2 times"),
        ("arm = [0.1, -0.1]", "arm is [0.1, -0.1]", "above 0"),
        ("center_of_mass = [0.5, 0, 0]", "center_of_mass is 0.5 in x", "between the rotors"),
        ("masss = 1", "masss is not a field (did you mean mass?)", "torque_constant"),
        ("name = 3", "name is 3", "text"),
        ("rotor_positions = [[1,1,0],[1,-1,0],[-1,-1,0],[-1,1,0]]", "motor_front_right at x = 1, y = 1", "order"),
        ("arm = [1, 1]\nrotor_positions = []", "arm is given beside rotor_positions", "one of the two"),
        ("mass = ", "not valid TOML", "line 2"),
    ],
)
def test_a_bad_file_is_refused_with_file_field_value_and_what_is_allowed(
    tmp_path: Path, line: str, field: str, allowed: str
) -> None:
    path = written(tmp_path, f'base = "crazyflie"\n{line}\n')
    with pytest.raises(AirframeError) as caught:
        load_airframe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert field in message and allowed in message


def test_an_unknown_name_or_base_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(AirframeError, match="named are crazyflie, x500_real"):
        load_airframe("crazyfly")
    with pytest.raises(AirframeError, match="base is 'crazyfly'; allowed: crazyflie, x500_real"):
        load_airframe(written(tmp_path, 'base = "crazyfly"'))


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(AirframeError, match="inertia is missing"):
        load_airframe(written(tmp_path, WHOLE.replace("inertia", "gyro_bias")))


def test_check_reports_where_the_airframe_came_from() -> None:
    broken: Airframe = dataclasses.replace(CRAZYFLIE, tau_rise=0.0)
    with pytest.raises(AirframeError, match=r"^quadrotor 17: tau_rise is 0\.0; allowed"):
        broken.check("quadrotor 17")
