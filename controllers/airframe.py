"""What a quadrotor is: the numbers that the simulator flies, the named quadrotors, and the file for any other.

A file is TOML with the field names of `Airframe`; `base` starts from a named airframe, and `arm = [x, y]` stands for
four rotors at the corners of a rectangle:

    base = "crazyflie"
    mass = 0.035
    arm = [0.03, 0.03]

Every number is checked before anything flies: a quadrotor that cannot exist makes training fail late and obscurely.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GRAVITY = 9.81  # [m/s^2]

MOTORS = ("motor_front_right", "motor_back_right", "motor_back_left", "motor_front_left")

SPIN = (-1.0, 1.0, -1.0, 1.0)  # sign of each rotor's reaction torque about the body z axis

Vector = tuple[float, float, float]
PerRotor = tuple[float, float, float, float]


class AirframeError(ValueError):
    """A quadrotor, or the file that describes it, is malformed or cannot fly."""


@dataclass(frozen=True)
class Airframe:
    """One quadrotor. Body frame FLU; motors in the order front right, back right, back left, front left."""

    name: str
    """What reports call it."""
    mass: float
    """Mass [kg]."""
    rotor_positions: tuple[Vector, Vector, Vector, Vector]
    """Rotor centres relative to the geometric centre, body frame [m]."""
    thrust_curve: Vector
    """c0, c1, c2 of the thrust c0 + c1 m + c2 m^2 of one rotor at motor command m in [0, 1] [N]."""
    torque_constant: float
    """Reaction torque per thrust [m]; the signs are those of SPIN."""
    tau_rise: float
    """Time constant of a motor that speeds up [s]."""
    tau_fall: float
    """Time constant of a motor that slows down [s]."""
    inertia: Vector
    """Diagonal of the inertia about the centre of mass, body frame [kg m^2]."""
    center_of_mass: Vector = (0.0, 0.0, 0.0)
    """Centre of mass relative to the geometric centre, body frame [m]."""
    motor_strength: PerRotor = (1.0, 1.0, 1.0, 1.0)
    """Thrust of each rotor relative to the thrust curve."""
    dead_band: float = 0.0
    """Motor command below which a rotor does nothing more than at 0."""
    saturation: float = 1.0
    """Largest value of the motor command, past the dead band, that still adds thrust."""
    drag: Vector = (0.0, 0.0, 0.0)
    """Linear drag divided by mass: deceleration per velocity, body frame [1/s]."""
    battery_sag: float = 0.0
    """Fraction of the thrust that is lost when all motors are at full command."""
    action_delay: float = 0.0
    """From the policy's output to the motors [s]."""
    position_delay: float = 0.0
    """Age of the position when it is seen [s]."""
    orientation_delay: float = 0.0
    """Age of the orientation when it is seen [s]."""
    velocity_delay: float = 0.0
    """Age of the velocity when it is seen [s]."""
    gyro_delay: float = 0.0
    """Age of the angular velocity when it is seen [s]."""
    position_noise: float = 0.0
    """Standard deviation of the position noise, per axis [m]."""
    orientation_noise: float = 0.0
    """Standard deviation of the orientation noise, per axis [rad]."""
    velocity_noise: float = 0.0
    """Standard deviation of the velocity noise, per axis [m/s]."""
    gyro_noise: float = 0.0
    """Standard deviation of the angular velocity noise, per axis [rad/s]."""
    gyro_bias: Vector = (0.0, 0.0, 0.0)
    """Constant error of the angular velocity, body frame [rad/s]."""

    def thrust(self, motors: PerRotor | np.ndarray) -> np.ndarray:
        """Thrust of each rotor [N] at motor commands in [0, 1], (..., 4)."""
        m = np.asarray(motors, dtype=float)
        c0, c1, c2 = self.thrust_curve
        effective = np.minimum(np.maximum(m - self.dead_band, 0) / (1 - self.dead_band), self.saturation)
        sag = 1 - self.battery_sag * m.mean(axis=-1, keepdims=True)
        return np.asarray(self.motor_strength) * (c0 + c1 * effective + c2 * effective**2) * sag

    @property
    def thrust_to_weight(self) -> float:
        """Thrust at full command divided by weight."""
        return float(self.thrust(np.ones(4)).sum()) / (self.mass * GRAVITY)

    @property
    def torque_to_inertia(self) -> float:
        """How fast two rotors at full command can start a roll [rad/s^2]: the measure of control authority."""
        full_rotor = float(self.thrust(np.ones(4)).mean())
        return math.sqrt(2) * abs(self.rotor_positions[0][0]) * full_rotor / self.inertia[0]

    @property
    def hover_command(self) -> float:
        """The smallest common motor command in [0, 1] at which thrust equals weight."""
        commands = np.linspace(0, 1, 1001)
        excess = self.thrust(np.repeat(commands[:, None], 4, axis=1)).sum(axis=-1) - self.mass * GRAVITY
        if excess[0] > 0 or excess.max() < 0:
            raise AirframeError(
                f"{self.name}: no motor command in [0, 1] holds the weight of {self.mass * GRAVITY:.4g} N; "
                f"allowed: thrust below the weight at command 0 and above it at some other"
            )
        above = int(np.argmax(excess >= 0))
        if above == 0:
            return 0.0
        low, high = excess[above - 1], excess[above]
        return float(commands[above - 1] + (commands[1] - commands[0]) * low / (low - high))

    @property
    def arm(self) -> float:
        """Largest distance of a rotor from the geometric centre [m]."""
        return float(np.linalg.norm(self.rotor_positions, axis=1).max())

    def check(self, source: str) -> None:
        """Raises AirframeError, with `source` in front, at the first field that is malformed or impossible."""
        for field, (shape, allowed, holds) in _FIELDS.items():
            _check_field(source, field, getattr(self, field), shape, allowed, holds)

        for motor, (x, y, _), (sign_x, sign_y) in zip(MOTORS, self.rotor_positions, _CORNERS, strict=True):
            if x * sign_x <= 0 or y * sign_y <= 0:
                raise AirframeError(
                    f"{source}: rotor_positions puts {motor} at x = {x:g}, y = {y:g}; allowed: front is x > 0, left is "
                    f"y > 0, in the order front right, back right, back left, front left"
                )
        for axis, low, high, offset in zip(
            "xy",
            np.min(self.rotor_positions, axis=0),
            np.max(self.rotor_positions, axis=0),
            self.center_of_mass,
            strict=False,
        ):
            if not low < offset < high:
                raise AirframeError(
                    f"{source}: center_of_mass is {offset:g} in {axis}; allowed: between the rotors, "
                    f"{low:g} to {high:g} m"
                )
        for axis, moment in zip("xyz", self.inertia, strict=True):
            others = sum(self.inertia) - moment
            if moment > others * (1 + 1e-6):  # a flat body has equality, so leave room for rounding
                raise AirframeError(
                    f"{source}: inertia is {list(self.inertia)}; allowed: none larger than the sum of the other two, "
                    f"and {axis} has {moment:g} > {others:g}"
                )
        if self.thrust_to_weight <= 1:
            raise AirframeError(
                f"{source}: thrust_curve lifts only {self.thrust_to_weight:.3g} times the weight at full command; "
                f"allowed: above 1 (mass is {self.mass:g} kg)"
            )
        idle = float(self.thrust(np.zeros(4)).sum()) / (self.mass * GRAVITY)
        if idle >= 1:
            raise AirframeError(
                f"{source}: thrust_curve lifts {idle:.3g} times the weight at command 0; allowed: below 1"
            )


_CORNERS = ((1, -1), (-1, -1), (-1, 1), (1, 1))  # signs of x and y in motor order


def rectangle(x: float, y: float) -> tuple[Vector, Vector, Vector, Vector]:
    """Four rotors in motor order, `x` in front of or behind the centre and `y` beside it [m]."""
    front_right, back_right, back_left, front_left = ((x * sx, y * sy, 0.0) for sx, sy in _CORNERS)
    return front_right, back_right, back_left, front_left


def load_airframe(path: str | Path) -> Airframe:
    """The airframe of that name, or of that TOML file, checked."""
    if str(path) in AIRFRAMES:
        return AIRFRAMES[str(path)]
    file = Path(path)
    if not file.is_file():
        raise AirframeError(f"{path}: neither a file nor a named airframe; named are {', '.join(AIRFRAMES)}")
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AirframeError(f"{path}: not valid TOML: {error}") from error

    known = [field.name for field in dataclasses.fields(Airframe)] + ["arm", "base"]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise AirframeError(f"{path}: {key} is not a field{hint}; allowed: {', '.join(known)}")

    values: dict[str, Any] = {"name": file.stem}
    if "base" in given:
        base = given.pop("base")
        if not isinstance(base, str) or base not in AIRFRAMES:
            raise AirframeError(f"{path}: base is {base!r}; allowed: {', '.join(AIRFRAMES)}")
        values = dataclasses.asdict(AIRFRAMES[base]) | values
    if "arm" in given:
        if "rotor_positions" in given:
            raise AirframeError(f"{path}: arm is given beside rotor_positions; allowed: one of the two")
        arm = given.pop("arm")
        _check_field(str(path), "arm", arm, (2,), *_POSITIVE)
        given["rotor_positions"] = rectangle(*arm)
    values |= given
    for field in dataclasses.fields(Airframe):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise AirframeError(f"{path}: {field.name} is missing; allowed: give it, or a base that has it")
    if not isinstance(values["name"], str):
        raise AirframeError(f"{path}: name is {values['name']!r}; allowed: text")

    airframe = Airframe(**{key: _tuples(value) for key, value in values.items()})
    airframe.check(str(path))
    return airframe


def _tuples(value: Any) -> Any:
    """Lists, at any depth, as tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _check_field(
    source: str, field: str, value: Any, shape: tuple[int, ...], allowed: str, holds: Callable[[float], bool]
) -> None:
    """Raises AirframeError unless `value` has that shape and every number in it is finite and allowed."""
    if not _fits(value, shape, holds):
        lengths = "".join(f"{length} times " for length in shape)
        raise AirframeError(f"{source}: {field} is {value!r}; allowed: {lengths}{allowed}")


def _fits(value: Any, shape: tuple[int, ...], holds: Callable[[float], bool]) -> bool:
    if shape:
        is_row = isinstance(value, list | tuple) and len(value) == shape[0]
        return is_row and all(_fits(item, shape[1:], holds) for item in value)
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    # The comparison is false for nan and infinity, and safe for integers that no float holds.
    return is_number and bool(abs(value) < 1e30) and holds(float(value))


_ANY = ("a finite number", lambda x: True)
_POSITIVE = ("a finite number above 0", lambda x: x > 0)
_NOT_NEGATIVE = ("a finite number, 0 or more", lambda x: x >= 0)
_DELAY = ("0 to 0.03 s", lambda x: 0 <= x <= 0.03)

_FIELDS: dict[str, tuple[tuple[int, ...], str, Callable[[float], bool]]] = {
    # field: its shape, what is allowed in words, and the same as a test of one number
    "mass": ((), *_POSITIVE),
    "rotor_positions": ((4, 3), *_ANY),
    "thrust_curve": ((3,), *_ANY),
    "torque_constant": ((), *_NOT_NEGATIVE),
    "tau_rise": ((), *_POSITIVE),
    "tau_fall": ((), *_POSITIVE),
    "inertia": ((3,), *_POSITIVE),
    "center_of_mass": ((3,), *_ANY),
    "motor_strength": ((4,), "a number above 0, up to 2", lambda x: 0 < x <= 2),
    "dead_band": ((), "0 or more, below 1", lambda x: 0 <= x < 1),
    "saturation": ((), "above 0, up to 1", lambda x: 0 < x <= 1),
    "drag": ((3,), *_NOT_NEGATIVE),
    "battery_sag": ((), "0 or more, below 1", lambda x: 0 <= x < 1),
    "action_delay": ((), *_DELAY),
    "position_delay": ((), *_DELAY),
    "orientation_delay": ((), *_DELAY),
    "velocity_delay": ((), "0 to 0.1 s", lambda x: 0 <= x <= 0.1),
    "gyro_delay": ((), *_DELAY),
    "position_noise": ((), *_NOT_NEGATIVE),
    "orientation_noise": ((), *_NOT_NEGATIVE),
    "velocity_noise": ((), *_NOT_NEGATIVE),
    "gyro_noise": ((), *_NOT_NEGATIVE),
    "gyro_bias": ((3,), *_ANY),
}

# Published parameters of nine quadrotors. Where only one motor time constant is known it serves both directions.
_NAMED = (
    Airframe(
        name="crazyflie",
        mass=0.0306,
        rotor_positions=rectangle(0.028, 0.028),
        thrust_curve=(0.00352526, 0.01437313, 0.09223048),
        torque_constant=0.004665,
        tau_rise=0.05545,
        tau_fall=0.24939,
        inertia=(9.4166e-6, 9.6441e-6, 1.74595e-5),
    ),
    Airframe(
        name="x500_real",
        mass=2.0,
        rotor_positions=rectangle(0.17678, 0.17678),
        thrust_curve=(0.0, 0.0, 15.92612),
        torque_constant=0.10847,
        tau_rise=0.054,
        tau_fall=0.054,
        # Often quoted with Jxx = 0.1705, which no body with these Jyy and Jzz can have: a slip for 2.1705e-2.
        inertia=(2.1705e-2, 2.1304e-2, 3.93962e-2),
    ),
    Airframe(
        name="x500_sim",
        mass=2.0,
        rotor_positions=rectangle(0.17678, 0.17678),
        thrust_curve=(0.0, 0.0, 8.74),
        torque_constant=0.116978,
        tau_rise=0.03,
        tau_fall=0.03,
        inertia=(0.0216667, 0.0216667, 0.04),
    ),
    Airframe(
        name="fs",
        mass=3.35,
        rotor_positions=rectangle(0.20895, 0.240666),
        thrust_curve=(0.78466, 9.15540, 18.00557),
        torque_constant=0.01492,
        tau_rise=0.06532,
        tau_fall=0.06532,
        inertia=(0.0756, 0.07296, 0.13709),
    ),
    Airframe(
        name="race",
        mass=0.782,
        rotor_positions=rectangle(0.0775, 0.0981),
        thrust_curve=(-0.53002, 8.97144, -0.89118),
        torque_constant=0.00596455,
        tau_rise=0.033,
        tau_fall=0.033,
        inertia=(1.7665e-3, 1.3766e-3, 2.9530e-3),
    ),
    Airframe(
        name="flightmare",
        mass=0.73,
        rotor_positions=rectangle(0.12021, 0.12021),
        thrust_curve=(-1.76900, 11.50824, 11.96843),
        torque_constant=0.016,
        tau_rise=0.020,
        tau_fall=0.020,
        inertia=(0.00791, 0.00791, 0.0123),
    ),
    Airframe(
        name="mrs",
        mass=1.7,
        rotor_positions=rectangle(0.12021, 0.12021),
        thrust_curve=(-1.76900, 0.00383608 * 2000, 1.32983e-6 * 2000**2),  # published for commands from 0 to 2000
        torque_constant=0.016,
        tau_rise=0.04,
        tau_fall=0.04,
        inertia=(0.00791138, 0.00791138, 0.0123066),
    ),
    Airframe(
        name="soft",
        mass=0.970,
        rotor_positions=rectangle(0.142, 0.169),
        thrust_curve=(-0.13663, 4.24746, 3.76603),
        torque_constant=0.2,
        tau_rise=0.04,
        tau_fall=0.04,
        inertia=(8.1547e-3, 5.2261e-3, 1.20427e-2),
    ),
    Airframe(
        name="soft_rigid",
        mass=0.804,
        rotor_positions=rectangle(0.142, 0.169),
        thrust_curve=(-0.33380, 6.09100, 0.78183),
        torque_constant=0.017602,
        tau_rise=0.046,
        tau_fall=0.046,
        inertia=(6.5842e-3, 4.9571e-3, 1.05718e-2),
    ),
)

AIRFRAMES: dict[str, Airframe] = {airframe.name: airframe for airframe in _NAMED}
