"""The compiled adapters as robots that tests can fly, each against its stand-in in stubs/, and how they are wired.

What a motor number means and which way it turns is written down here a second time, from the stacks' documentation, so
that a swapped entry in the adapters' tables is caught.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STUBS = Path(__file__).parent / "stubs"
WARN = "-Wall -Wextra -Wpedantic -Werror -Wconversion -Wdouble-promotion -Wshadow".split()
C99 = ["-std=c99", *WARN, "-Wstrict-prototypes", "-Wmissing-prototypes"]

Export = Callable[[str], Path]
"""Target to a folder with all its files, of a policy named quad."""


@dataclass(frozen=True)
class Wiring:
    """A stack's motor outputs as its documentation numbers them, and its axes."""

    places: tuple[str, ...]
    clockwise: tuple[str, ...]
    """The places whose propellers turn clockwise seen from above."""
    frd: bool
    """Whether y is right and z is down; else y is left and z is up."""


WIRING = {
    "crazyflie": Wiring(
        ("front right", "back right", "back left", "front left"), ("back right", "front left"), frd=False
    ),
    "px4": Wiring(("front right", "back left", "front left", "back right"), ("front left", "back right"), frd=True),
    "betaflight": Wiring(
        ("back right", "front right", "back left", "front left"), ("back right", "front left"), frd=False
    ),
    "generic": Wiring(
        ("front right", "back right", "back left", "front left"), ("back right", "front left"), frd=False
    ),
    "stampfly": Wiring(
        ("front left", "front right", "back left", "back right"), ("front left", "back right"), frd=True
    ),
}


def attitude(frd: bool, right_down: float = 0.0, nose_up: float = 0.0, nose_right: float = 0.0) -> np.ndarray:
    """The quaternion w, x, y, z of one turn in the stack's axes."""
    sign = 1.0 if frd else -1.0
    half = np.array([right_down, sign * nose_up, sign * nose_right]) / 2
    return np.array([np.cos(np.abs(half).max()), *np.sin(half)])


def build(folder: Path, stack: str, *adapter: str, cpp: bool = False, define: str = "") -> ctypes.CDLL:
    """The adapter and the driver of its stand-in, compiled strictly, as a library."""
    objects = []
    for source in [*(folder / name for name in adapter), *sorted((STUBS / stack).glob("driver.c*"))]:
        compiler, flags = ("c++", ["-std=c++14", *WARN]) if source.suffix == ".cpp" else ("cc", C99)
        if source.name.startswith("driver"):
            flags = flags[:1]
        if compiler == "c++":  # copies of the library share nothing
            flags = [*flags, "-fno-gnu-unique"]
        flags = [*flags, f"-D{define}"] if define else flags
        out = folder / f"{source.stem}.o"
        includes = ["-I", str(STUBS / stack), "-I", str(folder)]
        subprocess.run([compiler, *flags, "-O2", "-fPIC", *includes, "-c", str(source), "-o", str(out)], check=True)
        objects.append(str(out))
    library = folder / f"{stack}.so"
    subprocess.run(["c++" if cpp else "cc", "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def private(folder: Path, stack: str, *adapter: str, cpp: bool = False, define: str = "") -> ctypes.CDLL:
    """A copy of its own for each robot, because the adapters keep their state as their stacks do: in variables."""
    if not (folder / f"{stack}.so").exists():
        build(folder, stack, *adapter, cpp=cpp, define=define)
    copy = folder / f"{stack}{len(list(folder.glob('*.so')))}.so"
    shutil.copy(folder / f"{stack}.so", copy)
    return ctypes.CDLL(str(copy))


def floats(values: object) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


class Crazyflie:
    """The compiled adapter; each call of `loop` is one of the firmware's 1 kHz loop."""

    def __init__(self, folder: Path) -> None:
        self.library = private(folder, "crazyflie", "quad_crazyflie.c", "quad_executor.c")
        assert self.library.stub_start() == 1, "the self-test failed"

    def loop(
        self,
        position: tuple[float, ...] = (0.0, 0.0, 0.0),
        quaternion: np.ndarray | None = None,
        rate: tuple[float, ...] = (0.0, 0.0, 0.0),
        frozen: bool = False,
        deviation: float = 0.01,
        age_ms: int = 0,
        is_position: bool = True,
        calls: int = 1,
        yaw: float = 0.0,
    ) -> np.ndarray:
        w, x, y, z = attitude(False) if quaternion is None else quaternion
        native = floats([*position, 0, 0, 0, x, y, z, w, *np.degrees(rate), 0, 0, 0, np.degrees(yaw)])
        motors = np.empty(4, np.float32)
        settings = ctypes.c_int(frozen), ctypes.c_float(deviation), ctypes.c_uint32(age_ms), ctypes.c_int(is_position)
        for _ in range(calls):
            self.library.stub_loop(native.ctypes, *settings, motors.ctypes)
        return motors

    def log(self, name: str) -> int:
        return ctypes.cast(ctypes.c_void_p.in_dll(self.library, f"stub_log_{name}"), ctypes.POINTER(ctypes.c_uint8))[0]

    def flies(self, motors: np.ndarray) -> bool:
        return bool((motors >= 0).all())


def crazyflie_answers(exported: Export, **error: float) -> np.ndarray:
    height = error.pop("too_high", 0.0)
    robot = Crazyflie(exported("crazyflie"))
    robot.library.stub_enable(1)
    return robot.loop(position=(0.0, 0.0, height), quaternion=attitude(False, **error), calls=8)


class Px4:
    """The compiled module; each call of `loop` is one sample of the gyroscope."""

    def __init__(self, folder: Path, rate_hz: int = 400, define: str = "") -> None:
        self.library = private(folder, "px4", "quad_px4.cpp", "quad_executor.c", cpp=True, define=define)
        self.library.stub_printed.restype = ctypes.c_char_p
        self.library.stub_loop.restype = ctypes.c_uint
        self.step_us = 1_000_000 // rate_hz
        self.started = self.library.stub_start(rate_hz) == 0
        self.published = 0
        if self.started:
            assert self.library.stub_register() == 1

    def loop(
        self,
        position: tuple[float, ...] = (0.0, 0.0, 0.0),
        quaternion: np.ndarray | None = None,
        active: bool = True,
        valid: bool = True,
        ask: int = 0,
        yaw: float = 0.0,
        calls: int = 1,
    ) -> np.ndarray:
        attitude_ned = attitude(True) if quaternion is None else quaternion
        native = floats([*position, 0, 0, 0, *attitude_ned, 0, 0, 0, 0, 0, 0, yaw])
        motors = np.empty(12, np.float32)
        for _ in range(calls):
            self.published = self.library.stub_loop(native.ctypes, self.step_us, active, valid, ask, motors.ctypes)
        return motors


def px4_answers(exported: Export, **error: float) -> np.ndarray:
    height = error.pop("too_high", 0.0)
    return Px4(exported("px4")).loop(position=(0.0, 0.0, -height), quaternion=attitude(True, **error), calls=4)[:4]


class Betaflight:
    """The compiled adapter; each call of `loop` is one turn of an 8 kHz PID loop."""

    def __init__(self, folder: Path) -> None:
        self.library = private(folder, "betaflight", "quad_betaflight.c")
        self.set(armed=False)
        self.loop()

    def set(self, armed: bool = True, switches: int = 1, reversed: bool = False, low: float = 1000.0) -> None:
        """Bits of the switches: 1 USER1, 2 failsafe."""
        ends = ctypes.c_float(low), ctypes.c_float(low + 1000.0)
        self.library.stub_set(int(armed), switches, int(reversed), *ends)

    def loop(
        self,
        position: tuple[float, ...] = (0.0, 0.0, 0.0),
        quaternion: np.ndarray | None = None,
        yaw: float = 0.0,
        age_us: int = -1,
        calls: int = 1,
    ) -> np.ndarray:
        q = attitude(False) if quaternion is None else quaternion
        native, motors = floats([*position, 0, 0, 0, yaw, *q, 0, 0, 0]), np.empty(4, np.float32)
        for _ in range(calls):
            self.library.stub_loop(native.ctypes, age_us, motors.ctypes)
        return motors

    def flies(self, motors: np.ndarray) -> bool:
        return not (motors == 1234).any()


def betaflight_answers(exported: Export, **error: float) -> np.ndarray:
    robot, height = Betaflight(exported("betaflight")), error.pop("too_high", 0.0)
    robot.set()
    yaw = -error.get("nose_right", 0.0)
    return robot.loop((0.0, 0.0, height), attitude(False, **error), yaw, calls=60)


class StampFly:
    """The compiled component; each call of `loop` is one turn of a 400 Hz task."""

    def __init__(self, folder: Path) -> None:
        self.library = private(folder, "stampfly", "quad_stampfly.c")
        assert self.library.stub_start() == 1

    def native(
        self, position: tuple[float, ...], right_down: float = 0.0, nose_up: float = 0.0, nose_right: float = 0.0
    ) -> np.ndarray:
        return floats([0, 0, 0, right_down, nose_up, nose_right, *position, 0, 0, 0, -nose_right])

    def loop(self, native: np.ndarray, with_pose: bool = True, calls: int = 1) -> tuple[np.ndarray, int]:
        duties, result = np.empty(4, np.uint32), 0
        for _ in range(calls):
            result = self.library.stub_loop(native.ctypes, int(with_pose), duties.ctypes)
        return duties, result


def stampfly_answers(exported: Export, **error: float) -> np.ndarray:
    robot, height = StampFly(exported("stampfly")), error.pop("too_high", 0.0)
    native = robot.native((0.0, 0.0, height), **error)
    robot.loop(native)
    robot.library.stub_begin()
    return robot.loop(native, calls=4)[0].astype(float)


class Generic:
    """The executor alone; each call of `loop` is one turn of a 400 Hz loop."""

    def __init__(self, folder: Path) -> None:
        self.library = private(folder, "generic", "quad_executor.c")
        assert self.library.stub_start() == 1

    def loop(self, position: tuple[float, ...], quaternion: np.ndarray, calls: int = 1) -> np.ndarray:
        native, motors = floats([*position, *quaternion]), np.empty(4, np.float32)
        for _ in range(calls):
            assert self.library.stub_loop(native.ctypes, motors.ctypes) == 0
        return motors


def generic_answers(exported: Export, **error: float) -> np.ndarray:
    height = error.pop("too_high", 0.0)
    return Generic(exported("generic")).loop((0.0, 0.0, height), attitude(False, **error), calls=4)


ANSWERS: dict[str, Callable[..., np.ndarray]] = {
    "crazyflie": crazyflie_answers,
    "px4": px4_answers,
    "betaflight": betaflight_answers,
    "stampfly": stampfly_answers,
    "generic": generic_answers,
}
"""What the motors answer to an error in physical terms, within the first native step."""
