"""Each adapter compiles against a stand-in for its stack, and the shipped policy in it pushes back the right way."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adapter_robots import (
    ANSWERS,
    C99,
    WIRING,
    Betaflight,
    Crazyflie,
    Export,
    Px4,
    StampFly,
    attitude,
)

from controllers.policy import load_policy
from controllers.spec import PolicySpec
from firmware_export.adapters.generate import adapter_files, quaternion_signs
from firmware_export.adapters.stacks import PLACES, STACKS, TURNS
from firmware_export.graph import ExportError
from firmware_export.to_c import generate

SHIPPED = Path(__file__).parent.parent / "controllers" / "policies" / "quad-foundation.onnx"
ANGLE, DISTANCE = 0.3, 0.3  # of the errors that must be pushed back [rad], [m]
ERRORS = ("right_down", "nose_up", "nose_right", "too_high")
RIGHTS, FRONTS = {"front right", "back right"}, {"front right", "front left"}


@pytest.fixture(scope="session")
def spec() -> PolicySpec:
    return load_policy(SHIPPED).spec


@pytest.fixture(scope="session")
def policy_files() -> dict[str, str]:
    return {name: text for name, text in generate(SHIPPED, "quad").items() if not name.endswith("_batch.c")}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec, policy_files: dict[str, str]) -> Export:
    """Target to a folder with all its files."""
    folders: dict[str, Path] = {}

    def export(target: str) -> Path:
        if target not in folders:
            folders[target] = tmp_path_factory.mktemp(target)
            for name, text in (policy_files | adapter_files("quad", spec, target)).items():  # type: ignore[arg-type]  # the keys of STACKS
                (folders[target] / name).parent.mkdir(parents=True, exist_ok=True)
                (folders[target] / name).write_text(text, encoding="ascii")
        return folders[target]

    return export


# Crazyflie


@pytest.fixture
def crazyflie(exported: Export) -> Crazyflie:
    return Crazyflie(exported("crazyflie"))


def test_the_crazyflie_flies_its_own_controller_until_it_is_told_to(crazyflie: Crazyflie) -> None:
    assert not crazyflie.flies(crazyflie.loop(calls=6))
    crazyflie.library.stub_enable(1)
    assert crazyflie.flies(crazyflie.loop(calls=6))
    assert not crazyflie.flies(crazyflie.loop(is_position=False))
    crazyflie.library.stub_enable(0)
    assert not crazyflie.flies(crazyflie.loop(calls=6))


def test_the_crazyflie_does_not_take_over_blind(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    assert not crazyflie.flies(crazyflie.loop(position=(np.nan, 0.0, 0.0), calls=6))
    assert not crazyflie.flies(crazyflie.loop(deviation=0.3, calls=6))
    assert crazyflie.flies(crazyflie.loop(calls=6))


def test_the_crazyflie_holds_hands_back_and_stays_back(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    last = crazyflie.loop(calls=10)
    lost = [crazyflie.loop(position=(np.nan, 0.0, 0.0)) for _ in range(30)]
    held = [crazyflie.flies(motors) for motors in lost]
    assert held.index(False) in range(20, 26) and not any(held[26:]), "two native steps are 20 ms"
    np.testing.assert_array_equal(lost[0], last)
    assert (crazyflie.log("fault"), crazyflie.log("mode")) == (6, 2)
    assert not crazyflie.flies(crazyflie.loop(calls=10)), "good inputs alone do not bring it back"
    crazyflie.library.stub_enable(0)
    crazyflie.loop()
    crazyflie.library.stub_enable(1)
    assert crazyflie.flies(crazyflie.loop(calls=6))


@pytest.mark.parametrize(("frozen", "deviation", "fault", "calls"), [(True, 0.01, 4, 50 + 20), (False, 0.3, 3, 20)])
def test_the_crazyflie_notices_an_estimate_that_stopped_or_is_lost(
    crazyflie: Crazyflie, frozen: bool, deviation: float, fault: int, calls: int
) -> None:
    crazyflie.library.stub_enable(1)
    assert crazyflie.flies(crazyflie.loop(calls=10))
    flew = [crazyflie.flies(crazyflie.loop(frozen=frozen, deviation=deviation)) for _ in range(120)]
    assert flew.index(False) in range(calls, calls + 12)
    assert crazyflie.log("fault") == fault


def test_the_crazyflie_steps_at_200_hz_and_natively_at_100_hz(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    motors, steps = [], []
    for _ in range(40):
        motors.append(crazyflie.loop(position=(0.1, 0.2, -0.1)))
        steps.append(crazyflie.log("step"))
    assert steps[0::5] == [2, 1] * 4
    assert all((motors[k] == motors[k - k % 5]).all() for k in range(40))


def test_the_crazyflie_stops_when_set_points_stop(crazyflie: Crazyflie) -> None:
    crazyflie.library.stub_enable(1)
    crazyflie.loop(calls=6)
    assert crazyflie.log("hovering") == 0
    crazyflie.loop(age_ms=201, calls=6)
    assert crazyflie.log("hovering") == 1


# PX4


@pytest.fixture
def px4(exported: Export) -> Px4:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    return Px4(exported("px4"))


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


def test_px4_of_the_newer_module_interface_flies_the_same(exported: Export, tmp_path: Path, px4: Px4) -> None:
    shutil.copytree(exported("px4"), tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "*.o"))
    newer = Px4(tmp_path, define="QUAD_PX4_DESCRIPTOR")
    np.testing.assert_array_equal(newer.loop((0.1, 0.2, 0.3), calls=9), px4.loop((0.1, 0.2, 0.3), calls=9))
    assert newer.library.stub_command(b"status") == 0 and newer.library.stub_stop() == 23


def test_px4_refuses_a_gyroscope_slower_than_the_policy(exported: Export, px4: Px4) -> None:
    slow = Px4(exported("px4"), rate_hz=50)
    assert not slow.started and b"allowed: 100 Hz or more" in slow.library.stub_printed()
    assert px4.library.stub_command(b"status") == 0 and b"mode " in px4.library.stub_printed()


@pytest.mark.parametrize(("rate_hz", "every"), [(100, 1), (250, 1), (400, 1), (800, 2), (1000, 3), (2000, 5)])
def test_px4_infers_at_most_four_times_per_native_step(exported: Export, px4: Px4, rate_hz: int, every: int) -> None:
    robot = Px4(exported("px4"), rate_hz)
    robot.loop(calls=60)
    assert robot.published == 60 // every


def test_px4_turns_its_yaw_the_other_way_round(px4: Px4) -> None:
    """Facing east with the target in the east is the same as facing north with the target in the north."""
    north = px4.loop(position=(-0.2, 0.0, 0.0), calls=8)[:4]
    px4.loop(active=False)
    facing_east = attitude(True, nose_right=np.pi / 2)
    east = px4.loop(position=(0.0, -0.2, 0.0), quaternion=facing_east, yaw=np.pi / 2, calls=8)
    np.testing.assert_allclose(east[:4], north, atol=1e-5)


# Betaflight


@pytest.fixture
def betaflight(exported: Export) -> Betaflight:
    return Betaflight(exported("betaflight"))


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
    shares = []
    for low in (48.0, 1000.0):
        betaflight.set(switches=0)
        betaflight.loop(calls=20)
        betaflight.set(low=low)
        shares.append((betaflight.loop(position=(0.0, 0.0, -0.5), calls=400) - low) / 1000)
    assert (shares[0] >= 0).all() and (shares[0] <= 1).all() and np.ptp(shares[0]) > 0
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-5)


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


def test_betaflight_steps_at_400_hz_and_natively_at_100_hz(betaflight: Betaflight) -> None:
    betaflight.set()
    steps = []
    for _ in range(1600):
        betaflight.loop()
        steps.append(betaflight.library.stub_step())
    begin = steps.index(2)
    cut = steps[begin : begin + 1280]
    assert (cut.count(2), cut.count(1), cut.count(0)) == (16, 48, 1216)


@pytest.mark.parametrize("north", [0.0, 1.0, 2.0, 3.0, -3.0, -1.5, np.pi])
def test_betaflight_turns_its_north_to_that_of_the_pose(exported: Export, betaflight: Betaflight, north: float) -> None:
    """The robot looks where the target looks, whatever its own estimate calls that direction."""
    betaflight.set()
    straight = betaflight.loop(position=(0.3, 0.0, 0.0), calls=400)
    other = Betaflight(exported("betaflight"))
    other.set()
    turned = other.loop(position=(0.3, 0.0, 0.0), quaternion=attitude(False, nose_right=north), calls=400)
    np.testing.assert_allclose(turned, straight, atol=3.0)  # of a range of 1000


# M5StampFly


@pytest.fixture
def stampfly(exported: Export) -> StampFly:
    return StampFly(exported("stampfly"))


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


# Any other loop


def run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_builds_and_checks_the_generic_library(exported: Export) -> None:
    run("make", "check", cwd=exported("generic"))
    run("make", "clean", cwd=exported("generic"))


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")
def test_cmake_builds_the_generic_library(exported: Export, tmp_path: Path) -> None:
    run("cmake", "-S", exported("generic"), "-B", tmp_path)
    run("cmake", "--build", tmp_path, "--target", "quad_selftest")
    run(tmp_path / "quad_selftest")


def test_arduino_may_compile_every_file_in_the_folder(exported: Export, tmp_path: Path) -> None:
    folder = exported("generic")
    sources = sorted(folder.glob("*.c"))
    assert len(sources) == 2
    main = folder / "extras" / "quad_selftest.c"
    run("cc", *C99, "-O2", "-DARDUINO=10800", "-I", folder, *sources, main, "-o", tmp_path / "all")
    run(tmp_path / "all")


def test_a_robot_without_an_executor_still_gets_its_build_files(
    spec: PolicySpec, policy_files: dict[str, str], tmp_path: Path
) -> None:
    other = replace(spec, robot="cart", action=replace(spec.action, names=("a", "b", "c", "d")))
    files = adapter_files("quad", other, "generic")
    assert not [name for name in files if "executor" in name]
    for name, text in (policy_files | files).items():
        assert not re.search(r"@\w+@", text), f"{name} has a gap"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    run("cc", *C99, "-I", tmp_path, tmp_path / "quad.c", tmp_path / "extras" / "quad_selftest.c", "-o", tmp_path / "t")
    run(tmp_path / "t")


# Every stack


def pushes_back(exported: Export, stack: str, error: str) -> bool:
    """Whether the difference that the sign of the error makes is the restoring one."""
    wiring, size = WIRING[stack], DISTANCE if error == "too_high" else ANGLE
    plus, minus = (ANSWERS[stack](exported, **{error: sign * size}) for sign in (1, -1))
    answer = dict(zip(wiring.places, plus - minus, strict=True))
    lifted = {
        "right_down": lambda place: place in RIGHTS,  # the low side
        "nose_up": lambda place: place not in FRONTS,  # the tail
        "nose_right": lambda place: place in wiring.clockwise,  # they turn the body counter-clockwise
        "too_high": lambda place: False,
    }
    up = [answer[place] for place in wiring.places if lifted[error](place)]
    down = [answer[place] for place in wiring.places if not lifted[error](place)]
    if error == "nose_right":  # weak beside roll and pitch, and not on every motor: the torque counts
        return sum(up) > sum(down)
    return min(up, default=1) > 0 > max(down)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stack", ANSWERS)
def test_each_error_is_pushed_back(exported: Export, stack: str, error: str) -> None:
    """Within the first native step: later the policy has seen that the robot does not move, and tries other things."""
    if stack == "px4" and shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    assert pushes_back(exported, stack, error)


@pytest.mark.parametrize("swap", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("stack", ["crazyflie", "betaflight", "stampfly"])
def test_swapped_motors_are_noticed(exported: Export, tmp_path: Path, stack: str, swap: tuple[int, int]) -> None:
    motors = list(STACKS[stack].motors)
    motors[swap[0]], motors[swap[1]] = motors[swap[1]], motors[swap[0]]
    for path in exported(stack).glob("quad*.[ch]"):
        text = path.read_text()
        table = f"motors[4] = {{{', '.join(map(str, STACKS[stack].motors))}}}"
        assert table in text or path.name != f"quad_{stack}.c"
        (tmp_path / path.name).write_text(text.replace(table, f"motors[4] = {{{', '.join(map(str, motors))}}}"))
    assert not all(pushes_back(lambda _: tmp_path, stack, error) for error in ERRORS)


def crazyflie_flights(crazyflie: Crazyflie) -> list[np.ndarray]:
    """The motors after the same beginning of three flights of the same robot."""
    motors = []
    for _ in range(3):
        crazyflie.library.stub_enable(0)
        crazyflie.loop(calls=10)
        crazyflie.library.stub_enable(1)
        motors.append(crazyflie.loop((0.2, -0.1, 0.1), calls=30))
    return motors


def betaflight_flights(betaflight: Betaflight) -> list[np.ndarray]:
    motors = []
    for _ in range(3):
        betaflight.set(switches=0)
        betaflight.loop((0.2, -0.1, 0.1), calls=80)
        betaflight.set()
        motors.append(betaflight.loop((0.2, -0.1, 0.1), calls=240) / 1000)
    return motors


def px4_flights(px4: Px4) -> list[np.ndarray]:
    motors = []
    for _ in range(3):
        px4.loop(active=False, calls=10)
        motors.append(px4.loop((0.2, -0.1, 0.1), calls=12)[:4])
    return motors


def test_taking_over_again_begins_with_a_fresh_memory(crazyflie: Crazyflie, betaflight: Betaflight, px4: Px4) -> None:
    for flights in (crazyflie_flights(crazyflie), betaflight_flights(betaflight), px4_flights(px4)):
        assert np.ptp(flights, axis=0).max() < 1e-4


def test_a_missing_reset_is_noticed(exported: Export, tmp_path: Path) -> None:
    for path in exported("crazyflie").glob("quad*.[ch]"):
        text = path.read_text()
        assert "quad_exec_reset(&exec);" in text or path.name != "quad_crazyflie.c"
        (tmp_path / path.name).write_text(text.replace("quad_exec_reset(&exec);", ""))
    assert np.ptp(crazyflie_flights(Crazyflie(tmp_path)), axis=0).max() > 1e-2


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
