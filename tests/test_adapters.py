"""Each adapter compiles against a stand-in for its stack, and the shipped policy in it pushes back the right way.

The stand-ins in stubs/ are written for these tests. What a motor number means and which way it turns is written down
here a second time, from the stacks' documentation, so that a swapped entry in the adapters' tables is caught.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from controllers.policy import load_policy
from controllers.spec import PolicySpec
from firmware_export.adapters.generate import adapter_files, quaternion_signs
from firmware_export.adapters.stacks import PLACES, STACKS, TURNS
from firmware_export.graph import ExportError
from firmware_export.to_c import generate

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "controllers" / "policies" / "quad-foundation.onnx"
STUBS = Path(__file__).parent / "stubs"
WARN = "-Wall -Wextra -Wpedantic -Werror -Wconversion -Wdouble-promotion -Wshadow".split()
C99 = ["-std=c99", *WARN, "-Wstrict-prototypes", "-Wmissing-prototypes"]

# The errors, in physical terms: the angle or distance of one step, and which way the motors must answer.
ANGLE, DISTANCE = 0.3, 0.3  # [rad], [m]
RIGHTS, FRONTS = {"front right", "back right"}, {"front right", "front left"}


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
    "stampfly": Wiring(
        ("front left", "front right", "back left", "back right"), ("front left", "back right"), frd=True
    ),
}


def attitude(frd: bool, right_down: float = 0.0, nose_up: float = 0.0, nose_right: float = 0.0) -> np.ndarray:
    """The quaternion w, x, y, z of one turn in the stack's axes."""
    sign = 1.0 if frd else -1.0
    half = np.array([right_down, sign * nose_up, sign * nose_right]) / 2
    return np.array([np.cos(np.abs(half).max()), *np.sin(half)])


@pytest.fixture(scope="session")
def spec() -> PolicySpec:
    return load_policy(SHIPPED).spec


@pytest.fixture(scope="session")
def policy_files() -> dict[str, str]:
    return {name: text for name, text in generate(SHIPPED, "quad").items() if not name.endswith("_batch.c")}


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec, policy_files: dict[str, str]
) -> Callable[[str], Path]:
    """Target to a folder with all its files."""
    folders: dict[str, Path] = {}

    def export(target: str) -> Path:
        if target not in folders:
            folders[target] = tmp_path_factory.mktemp(target)
            for name, text in (policy_files | adapter_files("quad", spec, target)).items():  # type: ignore[arg-type]  # the keys of STACKS
                (folders[target] / name).write_text(text, encoding="ascii")
        return folders[target]

    return export


def build(folder: Path, stack: str, *adapter: str, cpp: bool = False) -> ctypes.CDLL:
    """The adapter and the driver of its stand-in, compiled strictly, as a library."""
    objects = []
    for source in [*(folder / name for name in adapter), *sorted((STUBS / stack).glob("driver.c*"))]:
        compiler, flags = ("c++", ["-std=c++14", *WARN]) if source.suffix == ".cpp" else ("cc", C99)
        if source.name.startswith("driver"):
            flags = flags[:1]
        if compiler == "c++":  # copies of the library share nothing
            flags = [*flags, "-fno-gnu-unique"]
        out = folder / f"{source.stem}.o"
        includes = ["-I", str(STUBS / stack), "-I", str(folder)]
        subprocess.run([compiler, *flags, "-O2", "-fPIC", *includes, "-c", str(source), "-o", str(out)], check=True)
        objects.append(str(out))
    library = folder / f"{stack}.so"
    subprocess.run(["c++" if cpp else "cc", "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def private(folder: Path, stack: str, *adapter: str, cpp: bool = False) -> ctypes.CDLL:
    """A copy of its own for each robot, because the adapters keep their state as their stacks do: in variables."""
    if not (folder / f"{stack}.so").exists():
        build(folder, stack, *adapter, cpp=cpp)
    copy = folder / f"{stack}{len(list(folder.glob('*.so')))}.so"
    shutil.copy(folder / f"{stack}.so", copy)
    return ctypes.CDLL(str(copy))


def floats(values: object) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


# Crazyflie


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
        age_ms: tuple[int, int] = (0, 0),
        is_position: bool = True,
        calls: int = 1,
        yaw: float = 0.0,
    ) -> np.ndarray:
        w, x, y, z = attitude(False) if quaternion is None else quaternion
        native = floats([*position, 0, 0, 0, x, y, z, w, *np.degrees(rate), 0, 0, 0, np.degrees(yaw)])
        motors = np.empty(4, np.float32)
        ages = (ctypes.c_uint32 * 2)(*age_ms)
        for _ in range(calls):
            self.library.stub_loop(native.ctypes, ages, ctypes.c_int(is_position), motors.ctypes)
        return motors

    def log(self, name: str) -> int:
        return ctypes.cast(ctypes.c_void_p.in_dll(self.library, f"stub_log_{name}"), ctypes.POINTER(ctypes.c_uint8))[0]

    def flies(self, motors: np.ndarray) -> bool:
        return bool((motors >= 0).all())


@pytest.fixture
def crazyflie(exported: Callable[[str], Path]) -> Crazyflie:
    return Crazyflie(exported("crazyflie"))


def crazyflie_answers(exported: Callable[[str], Path], **error: float) -> np.ndarray:
    height = error.pop("too_high", 0.0)
    robot = Crazyflie(exported("crazyflie"))
    robot.library.stub_enable(1)
    return robot.loop(position=(0.0, 0.0, height), quaternion=attitude(False, **error), calls=8)


def test_the_crazyflie_flies_its_own_controller_until_it_is_told_to(crazyflie: Crazyflie) -> None:
    assert not crazyflie.flies(crazyflie.loop(calls=5))
    crazyflie.library.stub_enable(1)
    assert crazyflie.flies(crazyflie.loop(calls=2))
    assert not crazyflie.flies(crazyflie.loop(is_position=False))
    crazyflie.library.stub_enable(0)
    assert not crazyflie.flies(crazyflie.loop(calls=2))


def test_the_crazyflie_does_not_take_over_blind(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    assert not crazyflie.flies(crazyflie.loop(position=(np.nan, 0.0, 0.0), calls=4))
    assert not crazyflie.flies(crazyflie.loop(age_ms=(150, 0), calls=4))
    assert crazyflie.flies(crazyflie.loop(calls=2))


def test_the_crazyflie_holds_hands_back_and_stays_back(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    last = crazyflie.loop(calls=10)
    lost = [crazyflie.loop(position=(np.nan, 0.0, 0.0)) for _ in range(30)]
    held = [crazyflie.flies(motors) for motors in lost]
    assert held.index(False) in range(20, 24) and not any(held[24:]), "two native steps are 20 ms"
    np.testing.assert_array_equal(lost[0], last)
    assert (crazyflie.log("fault"), crazyflie.log("mode")) == (6, 2)
    assert not crazyflie.flies(crazyflie.loop(calls=10)), "good inputs alone do not bring it back"
    crazyflie.library.stub_enable(0)
    crazyflie.loop()
    crazyflie.library.stub_enable(1)
    assert crazyflie.flies(crazyflie.loop(calls=2))


def test_the_crazyflie_steps_at_500_hz_and_natively_at_100_hz(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    motors, steps = [], []
    for _ in range(40):
        motors.append(crazyflie.loop(position=(0.1, 0.2, -0.1)))
        steps.append(crazyflie.log("step"))
    assert steps[0::2] == ([2, 1, 1, 1, 1] * 4)
    assert all((a == b).all() for a, b in zip(motors[0::2], motors[1::2], strict=True))


def test_the_crazyflie_stops_when_set_points_stop(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    crazyflie.loop(calls=4)
    assert crazyflie.log("hovering") == 0
    crazyflie.loop(age_ms=(0, 201), calls=2)
    assert crazyflie.log("hovering") == 1


# PX4


class Px4:
    """The compiled module; each call of `loop` is one sample of the gyroscope."""

    def __init__(self, folder: Path, rate_hz: int = 400) -> None:
        self.library = private(folder, "px4", "quad_px4.cpp", "quad_executor.c", cpp=True)
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


@pytest.fixture
def px4(exported: Callable[[str], Path]) -> Px4:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    return Px4(exported("px4"))


def px4_answers(exported: Callable[[str], Path], **error: float) -> np.ndarray:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    height = error.pop("too_high", 0.0)
    return Px4(exported("px4")).loop(position=(0.0, 0.0, -height), quaternion=attitude(True, **error), calls=4)[:4]


def test_px4_publishes_motors_in_its_mode_alone(px4: Px4) -> None:
    px4.loop(active=False, calls=5)
    assert px4.library.stub_stock_controllers_off() == 1
    assert px4.published == 0
    motors = px4.loop(calls=5)
    assert px4.published == 5
    assert ((motors[:4] >= 0) & (motors[:4] <= 1)).all() and np.isnan(motors[4:]).all()
    px4.loop(active=False, calls=5)
    assert px4.published == 5
    assert px4.library.stub_stop() == 23, "the mode is unregistered"


def test_px4_may_arm_only_while_all_is_fresh(px4: Px4) -> None:
    for valid, expected in ((True, 1), (False, 0), (True, 1)):
        px4.loop(active=False, valid=valid, ask=9)
        assert px4.library.stub_may_arm() == expected
    px4.loop(active=False, position=(np.nan, 0.0, 0.0), ask=9)
    assert px4.library.stub_may_arm() == 0


def test_px4_holds_then_asks_once_for_the_hold_mode(px4: Px4) -> None:
    px4.loop(calls=4)
    px4.loop(valid=False, calls=20)
    assert px4.published == 4 + 8, "two native steps are 8 samples"
    assert px4.library.stub_mode_requests() == 1 + 1000 * 43
    px4.loop(calls=4, ask=7)
    assert px4.published == 12 and px4.library.stub_may_arm() == 0, "good inputs alone do not bring it back"
    assert b"hands back, fault 3" in px4.library.stub_printed()
    px4.loop(active=False, calls=2, ask=8)
    assert px4.library.stub_may_arm() == 1
    px4.loop(calls=2)
    assert px4.published == 14


def test_px4_refuses_a_gyroscope_slower_than_the_policy(exported: Callable[[str], Path], px4: Px4) -> None:
    slow = Px4(exported("px4"), rate_hz=50)
    assert not slow.started and b"allowed: 100 Hz or more" in slow.library.stub_printed()
    assert px4.library.stub_command(b"status") == 0 and b"mode " in px4.library.stub_printed()


def test_px4_turns_its_yaw_the_other_way_round(px4: Px4) -> None:
    """Facing east with the target in the east is the same as facing north with the target in the north."""
    north = px4.loop(position=(-0.2, 0.0, 0.0), calls=8)[:4]
    px4.loop(active=False)
    facing_east = attitude(True, nose_right=np.pi / 2)
    east = px4.loop(position=(0.0, -0.2, 0.0), quaternion=facing_east, yaw=np.pi / 2, calls=8)
    np.testing.assert_allclose(east[:4], north, atol=1e-5)


# Betaflight


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


@pytest.fixture
def betaflight(exported: Callable[[str], Path]) -> Betaflight:
    return Betaflight(exported("betaflight"))


def betaflight_answers(exported: Callable[[str], Path], **error: float) -> np.ndarray:
    robot, height = Betaflight(exported("betaflight")), error.pop("too_high", 0.0)
    robot.set()
    yaw = -error.get("nose_right", 0.0)
    return robot.loop((0.0, 0.0, height), attitude(False, **error), yaw, calls=60)


def test_betaflight_flies_its_mixer_unless_armed_and_switched_on(betaflight: Betaflight) -> None:
    for armed, switches, reversed, expected in (
        (False, 1, False, False),
        (True, 0, False, False),
        (True, 3, False, False),
        (True, 1, True, False),
        (True, 1, False, True),
    ):
        betaflight.set(armed, switches, reversed)
        assert betaflight.flies(betaflight.loop(calls=100)) == expected


def test_betaflight_motors_span_the_mixers_range(betaflight: Betaflight) -> None:
    betaflight.set(low=48.0)
    far = betaflight.loop(position=(0.0, 0.0, -0.5), calls=400)
    assert (far >= 48).all() and (far <= 1048).all() and far.max() > 900, "full thrust upwards"


def test_betaflight_holds_hands_back_and_waits_for_the_switch(betaflight: Betaflight) -> None:
    betaflight.set()
    assert betaflight.flies(betaflight.loop(calls=800))
    held = [betaflight.flies(betaflight.loop(age_us=200_000)) for _ in range(1100)]
    assert held.index(False) in range(870, 970) and not any(held[970:]), "100 ms and two native steps are 960 turns"
    assert betaflight.library.stub_fault() == 3
    assert not betaflight.flies(betaflight.loop(calls=400)), "good poses alone do not bring it back"
    betaflight.set(switches=0)
    betaflight.loop()
    betaflight.set()
    assert betaflight.flies(betaflight.loop(calls=100))


def test_betaflight_steps_at_2_khz_and_natively_at_100_hz(betaflight: Betaflight) -> None:
    betaflight.set()
    steps = []
    for _ in range(1600):
        betaflight.loop()
        steps.append(betaflight.library.stub_step())
    begin = steps.index(2)
    cut = steps[begin : begin + 1280]
    assert (cut.count(2), cut.count(1), cut.count(0)) == (16, 304, 960)


@pytest.mark.parametrize("north", [0.0, 1.0, 2.0, 3.0, -3.0, -1.5, np.pi])
def test_betaflight_turns_its_north_to_that_of_the_pose(
    exported: Callable[[str], Path], betaflight: Betaflight, north: float
) -> None:
    """The robot looks where the target looks, whatever its own estimate calls that direction."""
    betaflight.set()
    straight = betaflight.loop(position=(0.3, 0.0, 0.0), calls=400)
    other = Betaflight(exported("betaflight"))
    other.set()
    turned = other.loop(position=(0.3, 0.0, 0.0), quaternion=attitude(False, nose_right=north), calls=400)
    np.testing.assert_allclose(turned, straight, atol=3.0)  # of a range of 1000


# M5StampFly


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


@pytest.fixture
def stampfly(exported: Callable[[str], Path]) -> StampFly:
    return StampFly(exported("stampfly"))


def stampfly_answers(exported: Callable[[str], Path], **error: float) -> np.ndarray:
    robot, height = StampFly(exported("stampfly")), error.pop("too_high", 0.0)
    native = robot.native((0.0, 0.0, height), **error)
    robot.loop(native)
    robot.library.stub_begin()
    return robot.loop(native, calls=4)[0].astype(float)


def test_the_stampfly_is_not_ready_without_a_pose(stampfly: StampFly) -> None:
    native = stampfly.native((0.0, 0.0, 0.0))
    assert stampfly.library.stub_check(native.ctypes) == 3
    stampfly.loop(native)  # an attitude comes first, then a pose to turn it to
    stampfly.loop(native, calls=8)
    assert stampfly.library.stub_check(native.ctypes) == 0
    native[3] = np.nan
    assert stampfly.library.stub_check(native.ctypes) == 7


def test_the_stampfly_holds_and_then_leaves_the_motors_to_the_caller(stampfly: StampFly) -> None:
    native = stampfly.native((0.0, 0.0, 0.0))
    stampfly.loop(native, calls=9)
    stampfly.library.stub_begin()
    assert stampfly.loop(native, calls=20)[1] == 0
    results = [stampfly.loop(native, with_pose=False)[1] for _ in range(60)]
    assert 31 in results and results[-1] == 32, "held, then handed back: the pose is too old"
    assert results.index(32) - results.index(31) == 8


def test_the_stampfly_duty_is_right_on_average(stampfly: StampFly) -> None:
    native = stampfly.native((0.0, 0.0, -0.4))
    duties = np.array([stampfly.loop(native)[0] for _ in range(400)])
    assert duties.max() <= 0.95 * 255 + 1
    assert (np.ptp(duties[-40:], axis=0) >= 1).any(), "a duty between two steps alternates"


# Every stack


ANSWERS: dict[str, Callable[..., np.ndarray]] = {
    "crazyflie": crazyflie_answers,
    "px4": px4_answers,
    "betaflight": betaflight_answers,
    "stampfly": stampfly_answers,
}
ERRORS = ("right_down", "nose_up", "nose_right", "too_high")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stack", ANSWERS)
def test_each_error_is_pushed_back(exported: Callable[[str], Path], stack: str, error: str) -> None:
    """The difference that the sign of the error makes, within the first native step.

    Later the memory of the policy has seen that the robot does not move, and it tries other things.
    """
    wiring, size = WIRING[stack], DISTANCE if error == "too_high" else ANGLE
    plus, minus = (ANSWERS[stack](exported, **{error: sign * size}) for sign in (1, -1))
    answer = dict(zip(wiring.places, plus - minus, strict=True))
    pushes = {
        "right_down": lambda place: place in RIGHTS,  # lift the low side
        "nose_up": lambda place: place not in FRONTS,  # lift the tail
        "nose_right": lambda place: place in wiring.clockwise,  # they turn the body counter-clockwise
        "too_high": lambda place: False,
    }
    up = [answer[place] for place in wiring.places if pushes[error](place)]
    down = [answer[place] for place in wiring.places if not pushes[error](place)]
    if error == "too_high":
        assert max(down) < 0, answer
    elif error == "nose_right":  # weak beside roll and pitch, and not on every motor: the torque counts
        assert sum(up) - sum(down) > 0.02, answer
    else:
        assert min(up) > 0 > max(down), answer


@pytest.mark.parametrize("stack", WIRING)
def test_the_tables_agree_with_the_stacks_own_numbering(stack: str) -> None:
    motors = STACKS[stack].motors
    assert tuple(PLACES[motor] for motor in motors) == WIRING[stack].places
    assert {PLACES[motor] for motor in motors if TURNS[motor] == "clockwise"} == set(WIRING[stack].clockwise)
    assert STACKS[stack].axes == ((1, -1, -1) if WIRING[stack].frd else (1, 1, 1))


@pytest.mark.parametrize("stack", STACKS)
def test_files_are_named_filled_and_say_what_was_not_run(spec: PolicySpec, stack: str) -> None:
    files = adapter_files("quad", spec, stack)  # type: ignore[arg-type]  # the keys of STACKS
    assert {"README.md", "quad_executor.c", "quad_executor.h", "quad_executor_vectors.h"} <= set(files)
    readme = files["README.md"]
    assert STACKS[stack].written_for in readme and STACKS[stack].table in readme
    assert re.search(r"\*\*not\*\* (built|flashed|flown)", readme)
    for name, text in files.items():
        assert not re.search(r"@\w+@", text), f"{name} has a gap"
        if name.endswith((".c", ".h", ".cpp", ".hpp")):
            assert not [line for line in text.splitlines() if len(line) > 120], name
    assert files == adapter_files("quad", spec, stack), "the same policy gives the same bytes"  # type: ignore[arg-type]


def test_a_target_or_a_robot_that_is_not_known_is_refused(spec: PolicySpec) -> None:
    with pytest.raises(ExportError, match=r"target is 'ardupilot'; allowed: .*crazyflie"):
        adapter_files("quad", spec, "ardupilot")  # type: ignore[arg-type]  # what the test is about
    other = replace(spec, action=replace(spec.action, names=("a", "b", "c", "d")))
    with pytest.raises(ExportError, match="the actions are"):
        adapter_files("quad", other, "crazyflie")
    with pytest.raises(ValueError, match="mirror"):
        quaternion_signs((1, 1, -1))
