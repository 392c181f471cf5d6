"""The compiled adapters fly: from stand-in sensors to motor outputs, closed by a rigid body with four slow motors.

What a pushed motor cannot show, a flight does: signs of velocity, rates and yaw, units, and the order of quaternions in
every stack at once. The body is simulated here, in a few lines of its own, with the smallest of the named quadrotors.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from adapter_robots import WIRING, Betaflight, Crazyflie, Generic, Px4, StampFly, floats

from controllers.airframe import AIRFRAMES, GRAVITY, SPIN
from controllers.policy import load_policy
from controllers.rotations import conjugate, from_axis_angle, multiply, rotate, yaw
from firmware_export.adapters.generate import adapter_files
from firmware_export.adapters.stacks import PLACES
from firmware_export.to_c import generate

SHIPPED = Path(__file__).parent.parent / "controllers" / "policies" / "quad-foundation.onnx"
TARGET, TARGET_YAW = np.array([1.0, -0.5, 1.2]), 1.0  # [m], [rad]
FLIP = np.array([1.0, -1.0, -1.0])  # between axes with z up and axes with z down


@dataclass
class Body:
    """A quadrotor at rest, 0.5 m from its target and turned away from it by 1 rad."""

    airframe = AIRFRAMES["crazyflie"]
    position: np.ndarray = field(default_factory=lambda: TARGET + np.array([-0.3, 0.3, -0.25]))
    quaternion: np.ndarray = field(default_factory=lambda: from_axis_angle([0.3, -0.2, 1.0], 0.1))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rate: np.ndarray = field(default_factory=lambda: np.zeros(3))
    motors: np.ndarray = field(default_factory=lambda: np.full(4, 0.5))

    def step(self, command: np.ndarray, dt: float) -> None:
        """`command`: of the motors in our order, in [0, 1]."""
        a = self.airframe
        tau = np.where(command > self.motors, a.tau_rise, a.tau_fall)
        self.motors = self.motors + (command - self.motors) * dt / tau
        thrust = a.thrust(self.motors)
        forces = np.stack([np.zeros(4), np.zeros(4), thrust], axis=-1)
        torque = np.cross(np.array(a.rotor_positions), forces).sum(axis=0)
        torque[2] += a.torque_constant * (np.array(SPIN) * thrust).sum()
        inertia = np.array(a.inertia)
        self.rate = self.rate + dt * (torque - np.cross(self.rate, inertia * self.rate)) / inertia
        self.velocity = self.velocity + dt * (
            rotate(self.quaternion, [0.0, 0.0, thrust.sum() / a.mass]) - [0.0, 0.0, GRAVITY]
        )
        self.position = self.position + dt * self.velocity
        angle = np.linalg.norm(self.rate) * dt
        if angle > 0:
            self.quaternion = multiply(self.quaternion, from_axis_angle(self.rate, angle))

    @property
    def frd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Position, velocity, quaternion and rate with y to the right and z down."""
        return (
            FLIP * self.position,
            FLIP * self.velocity,
            self.quaternion * np.array([1.0, 1.0, -1.0, -1.0]),
            FLIP * self.rate,
        )


def ours(stack: str, outputs: np.ndarray) -> np.ndarray:
    """The stack's motor outputs in our order."""
    return np.array([outputs[WIRING[stack].places.index(place)] for place in PLACES], dtype=float)


Pilot = Callable[[Body], np.ndarray]


def crazyflie_pilot(folder: Path) -> Pilot:
    robot, motors = Crazyflie(folder), np.empty(4, np.float32)
    robot.library.stub_enable(1)
    settings = ctypes.c_int(0), ctypes.c_float(0.01), ctypes.c_uint32(0), ctypes.c_int(1)

    def pilot(body: Body) -> np.ndarray:
        w, *xyz = body.quaternion
        native = [*body.position, *body.velocity, *xyz, w, *np.degrees(body.rate), *TARGET, np.degrees(TARGET_YAW)]
        robot.library.stub_loop(floats(native).ctypes, *settings, motors.ctypes)
        assert robot.flies(motors)
        return ours("crazyflie", motors)

    return pilot


def px4_pilot(folder: Path) -> Pilot:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    robot, motors = Px4(folder), np.empty(12, np.float32)

    def pilot(body: Body) -> np.ndarray:
        position, velocity, quaternion, rate = body.frd
        native = floats([*position, *velocity, *quaternion, *rate, *(FLIP * TARGET), -TARGET_YAW])
        before = robot.published
        robot.published = robot.library.stub_loop(native.ctypes, robot.step_us, 1, 1, 0, motors.ctypes)
        assert robot.published == before + 1
        return ours("px4", motors[:4])

    return pilot


def betaflight_pilot(folder: Path) -> Pilot:
    robot, motors = Betaflight(folder), np.empty(4, np.float32)
    robot.set(low=48.0)
    north = from_axis_angle([0, 0, 1], 0.7)  # what its attitude is turned by

    def pilot(body: Body) -> np.ndarray:
        to_target = from_axis_angle([0, 0, 1], -TARGET_YAW)  # the sender's world: x where the target looks
        position, velocity = rotate(to_target, body.position - TARGET), rotate(to_target, body.velocity)
        turn = yaw(body.quaternion) - TARGET_YAW
        native = [*position, *velocity, (turn + np.pi) % (2 * np.pi) - np.pi]
        native += [*multiply(north, body.quaternion), *np.degrees(body.rate)]
        for _ in range(8):
            robot.library.stub_loop(floats(native).ctypes, -1, motors.ctypes)
        assert robot.flies(motors)
        return ours("betaflight", (motors - 48) / 1000)

    return pilot


def stampfly_pilot(folder: Path) -> Pilot:
    robot, duties = StampFly(folder), np.empty(4, np.uint32)
    drift = from_axis_angle([0, 0, 1], -0.5)
    begun = False

    def pilot(body: Body) -> np.ndarray:
        nonlocal begun
        w, x, y, z = multiply(drift, body.quaternion) * np.array([1.0, 1.0, -1.0, -1.0])
        roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
        pitch = np.arcsin(2 * (w * y - z * x))
        heading = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        # its world is that of the pose: the target is the origin, looking along x
        to_target = from_axis_angle([0, 0, 1], -TARGET_YAW)
        position, velocity = rotate(to_target, body.position - TARGET), rotate(to_target, body.velocity)
        turn = yaw(body.quaternion) - TARGET_YAW
        native = floats([*(FLIP * body.rate), roll, pitch, heading, *position, *velocity, turn])
        if not begun:  # an attitude, then a pose to turn it to
            for _ in range(9):
                robot.library.stub_loop(native.ctypes, 1, duties.ctypes)
            robot.library.stub_begin()
            begun = True
        assert robot.library.stub_loop(native.ctypes, 1, duties.ctypes) == 0
        return ours("stampfly", duties / 255)

    return pilot


def generic_pilot(folder: Path) -> Pilot:
    robot, motors = Generic(folder), np.empty(4, np.float32)

    def pilot(body: Body) -> np.ndarray:
        native = [*body.position, *body.quaternion, *body.velocity, *body.rate, *TARGET, TARGET_YAW]
        assert robot.library.stub_fly(floats(native).ctypes, motors.ctypes) == 0
        return ours("generic", motors)

    return pilot


PILOTS: dict[str, tuple[Callable[[Path], Pilot], float]] = {
    "crazyflie": (crazyflie_pilot, 0.001),
    "px4": (px4_pilot, 0.0025),
    "betaflight": (betaflight_pilot, 0.001),
    "stampfly": (stampfly_pilot, 0.0025),
    "generic": (generic_pilot, 0.0025),
}
"""And the interval [s] between its calls."""


@pytest.mark.parametrize("stack", PILOTS)
def test_it_flies_to_the_target_and_turns_to_its_yaw_in_5_seconds(stack: str, tmp_path: Path) -> None:
    policy = {name: text for name, text in generate(SHIPPED, "quad").items() if not name.endswith("_batch.c")}
    for name, text in (policy | adapter_files("quad", load_policy(SHIPPED).spec, stack)).items():  # type: ignore[arg-type]  # the keys of STACKS
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    make, dt = PILOTS[stack]
    pilot, body = make(tmp_path), Body()
    errors = []
    for index in range(round(5 / dt)):
        body.step(pilot(body), dt)
        errors.append(np.linalg.norm(body.position - TARGET))
        assert errors[-1] < 1.5, f"lost after {index * dt:.2f} s"
    turn = multiply(conjugate(from_axis_angle([0, 0, 1], TARGET_YAW)), body.quaternion)
    assert max(errors[-round(1 / dt) :]) < 0.1
    assert abs(yaw(turn)) < 0.1
