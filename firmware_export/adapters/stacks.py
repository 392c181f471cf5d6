"""What each flight stack means by axes, units, quaternions and motor numbers: the tables behind the adapters.

Ours: world with z up, body x forward, y left, z up; quaternions w, x, y, z; motors front right, back right, back left,
front left, of which the first turns counter-clockwise seen from above, the next clockwise, and so on.

No stack infers more than four times per native step. The shipped policy, which is trained with one, turns unsteady at
five and loses small quadrotors at eight and more: its intermediate steps tell its memory that motors do not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Target = Literal["generic", "px4", "betaflight", "crazyflie", "stampfly"]

PLACES = ("front right", "back right", "back left", "front left")
TURNS = ("counter-clockwise", "clockwise", "counter-clockwise", "clockwise")


@dataclass(frozen=True)
class Stack:
    """One flight stack, as its public headers and documentation describe it."""

    title: str
    written_for: str
    """Version whose public interface the adapter is written to."""
    axes: tuple[int, int, int]
    """Sign of the stack's x, y, z in ours; the same for world and body."""
    axes_text: str
    rate_unit: Literal["rad/s", "deg/s"]
    """Of the gyroscope."""
    quaternion: str
    """Order in which the stack gives the attitude."""
    motors: tuple[int, int, int, int]
    """Output k of the stack is our motor motors[k]."""
    output: str
    """What the stack is given per motor, with our command in [0, 1]."""
    step_us: int
    """Interval between inferences [us]."""
    every_call: bool
    """Whether each call of the stack infers; else the adapter waits for step_us."""
    ratio: int
    """Inferences per native step; 0: by time."""
    files: dict[str, str]
    """Template of each file; @name@ stands for the policy."""

    @property
    def table(self) -> str:
        """The conventions as a table for the README."""
        rows = [
            ("axes", self.axes_text),
            ("gyroscope", self.rate_unit),
            ("quaternion", self.quaternion),
            *(
                (f"motor output {k + 1}", f"{PLACES[motor]}, turns {TURNS[motor]} seen from above")
                for k, motor in enumerate(self.motors)
            ),
            ("output", self.output),
        ]
        return "\n".join(["| what | here |", "|---|---|", *(f"| {what} | {here} |" for what, here in rows)])


STACKS: dict[str, Stack] = {
    "crazyflie": Stack(
        title="Crazyflie",
        written_for="crazyflie-firmware 2026.08",
        axes=(1, 1, 1),
        axes_text="world z up, body x forward, y left, z up",
        rate_unit="deg/s",
        quaternion="fields x, y, z, w",
        motors=(0, 1, 2, 3),
        output="normalizedForces = command, controlModeForce",
        step_us=5000,
        every_call=True,
        ratio=2,
        files={
            "@name@_crazyflie.c": "crazyflie.c",
            "Kbuild": "crazyflie_kbuild",
            "Makefile": "crazyflie_makefile",
            "app-config": "crazyflie_app_config",
            "README.md": "crazyflie.md",
        },
    ),
    "px4": Stack(
        title="PX4",
        written_for="PX4 v1.17",
        axes=(1, -1, -1),
        axes_text="world north, east, down, body x forward, y right, z down",
        rate_unit="rad/s",
        quaternion="w, x, y, z",
        motors=(0, 2, 3, 1),
        output="actuator_motors.control = command, the others NaN",
        step_us=2500,
        every_call=True,
        ratio=4,
        files={
            "@name@_px4.hpp": "px4.hpp",
            "@name@_px4.cpp": "px4.cpp",
            "CMakeLists.txt": "px4_cmake",
            "Kconfig": "px4_kconfig",
            "README.md": "px4.md",
        },
    ),
    "betaflight": Stack(
        title="Betaflight",
        written_for="Betaflight 4.5",
        axes=(1, 1, 1),
        axes_text="world z up, body x forward, y left, z up",
        rate_unit="deg/s",
        quaternion="fields w, x, y, z",
        motors=(1, 0, 2, 3),
        output="motor[] = low + factor * command * (high - low), of the mixer's range",
        step_us=2500,
        every_call=False,
        ratio=4,
        files={
            "@name@_betaflight.c": "betaflight.c",
            "@name@_betaflight.h": "betaflight.h",
            "README.md": "betaflight.md",
        },
    ),
    "stampfly": Stack(
        title="M5StampFly",
        written_for="ESP-IDF 5.1",
        axes=(1, -1, -1),
        axes_text="of the sensors: body x forward, y right, z down; of the pose: world z up",
        rate_unit="rad/s",
        quaternion="none, roll, pitch and yaw angles [rad]",
        motors=(3, 0, 2, 1),
        output="LEDC duty = 255 * command, at most 0.95",
        step_us=2500,
        every_call=True,
        ratio=4,
        files={
            "@name@_stampfly.c": "stampfly.c",
            "@name@_stampfly.h": "stampfly.h",
            "CMakeLists.txt": "stampfly_cmake",
            "README.md": "stampfly.md",
        },
    ),
    "generic": Stack(
        title="your own loop",
        written_for="any C99 compiler",
        axes=(1, 1, 1),
        axes_text="world z up, body x forward, y left, z up",
        rate_unit="rad/s",
        quaternion="w, x, y, z, body to world",
        motors=(0, 1, 2, 3),
        output="command in [0, 1]",
        step_us=2500,
        every_call=True,
        ratio=4,
        files={
            "CMakeLists.txt": "generic_cmake",
            "Makefile": "generic_makefile",
            "library.properties": "generic_arduino",
            "examples/selftest/selftest.ino": "generic_ino",
            "extras/@name@_selftest.c": "generic_selftest.c",
            "README.md": "generic.md",
        },
    ),
}
