"""The executor in C and its twin in Python do the same, to the last bit, whatever the clock and the sensors do."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import random_weights, spec_of, write

from controllers.observation import quadrotor_observation
from controllers.rotations import conjugate, from_axis_angle, multiply, rotate
from controllers.spec import Limit, ObservationTerm, PolicySpec
from firmware_export.executor import (
    Config,
    Executor,
    Fault,
    Input,
    Layout,
    Status,
    Step,
    Timing,
    Verdict,
    cos_sin,
    heading,
    matrix,
)
from firmware_export.executor_to_c import NUMBERS, executor_files
from firmware_export.graph import ExportError
from firmware_export.to_c import generate

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Werror -Wconversion -Wdouble-promotion -Wshadow".split()
NAN = float("nan")
DEFAULT = Config()


class CConfig(ctypes.Structure):
    _fields_ = [(field, ctypes.c_uint32) for field in Config.__dataclass_fields__]


class CInput(ctypes.Structure):
    _fields_ = [
        *((field, ctypes.c_uint64) for field in list(Input.__dataclass_fields__)[:4]),
        *((field, ctypes.c_float * (4 if field == "quaternion" else 3)) for field in NUMBERS),
        ("target_yaw", ctypes.c_float),
    ]


class CStatus(ctypes.Structure):
    _fields_ = [(field, ctypes.c_uint8) for field in Status.__dataclass_fields__]


def c_input(seen: Input) -> CInput:
    values = [getattr(seen, field) for field, *_ in CInput._fields_]
    return CInput(*(tuple(value) if np.ndim(value) else value for value in values))


class CExecutor:
    """The compiled executor with the interface of its twin, and the network for both."""

    def __init__(self, library: Path, config: Config = DEFAULT) -> None:
        self.functions = ctypes.CDLL(str(library))
        self.functions.hover_exec_step.restype = CStatus
        self.functions.hover_exec_check.restype = ctypes.c_uint8
        self.inputs = ctypes.c_int.in_dll(self.functions, "probe_inputs").value
        self.memory = ctypes.create_string_buffer(ctypes.c_int.in_dll(self.functions, "probe_size").value)
        self.functions.hover_exec_init(self.memory, ctypes.byref(CConfig(*vars(config).values())))

    def self_test(self) -> int:
        """0, or the first call of the vectors that went wrong; 1000 when the whole boot test does not agree."""
        wrong = self.functions.hover_exec_selftest(self.memory)
        return wrong if (wrong == 0) == (self.functions.hover_exec_boot_test(self.memory) == 1) else 1000

    def reset(self) -> None:
        self.functions.hover_exec_reset(self.memory)

    def step(self, now_us: int, seen: Input) -> tuple[Status, np.ndarray | None]:
        action = np.full(4, 7, np.float32)
        status = self.functions.hover_exec_step(
            self.memory, ctypes.c_uint64(now_us), ctypes.byref(c_input(seen)), action.ctypes
        )
        values = [getattr(status, field) for field, *_ in CStatus._fields_]
        given = Status(Verdict(values[0]), Step(values[1]), Fault(values[2]), *values[3:])
        if given.verdict == Verdict.HAND_BACK:
            assert (action == 7).all(), "an action was written"
            return given, None
        return given, action

    def observe(self, seen: Input) -> np.ndarray:
        observation = np.empty(self.inputs, np.float32)
        self.functions.hover_exec_observe(self.memory, ctypes.byref(c_input(seen)), observation.ctypes)
        return observation

    def infer(self, state: np.ndarray, obs: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        after, action = np.empty_like(state), np.empty(4, np.float32)
        before, seen = np.ascontiguousarray(state), np.ascontiguousarray(obs)
        return self.functions.hover_infer(before.ctypes, after.ctypes, seen.ctypes, action.ctypes), after, action

    def twin(self, spec: PolicySpec, config: Config = DEFAULT) -> Executor:
        return Executor(Layout.of(spec), spec.initial_state(1)[0], self.infer, config)


def by_the_caller(spec: PolicySpec, *names: str) -> PolicySpec:
    limits = (replace(limit, applied="by the caller") if limit.name in names else limit for limit in spec.limits)
    return replace(spec, limits=tuple(limits))


WEIGHTS = {inputs: random_weights(0, inputs=inputs, spread=1.5) for inputs in (22, 25)}
PLAIN = spec_of(WEIGHTS[22])
OUTSIDE = by_the_caller(PLAIN, "position_error", "velocity_error", "yaw_error")
SPECS = {
    "inside": PLAIN,
    "outside": OUTSIDE,
    "acceleration": by_the_caller(spec_of(WEIGHTS[25]), "reference_acceleration", "yaw_error"),
}


def sources(folder: Path, kind: str) -> Path:
    """The C files of a policy named hover, and a probe for the tests; returns the probe."""
    policy = write(folder / "hover.onnx", WEIGHTS[SPECS[kind].observation_size])
    for name, text in (generate(policy) | executor_files("hover", SPECS[kind])).items():
        (folder / name).write_text(text, encoding="ascii")
    probe = folder / "probe.c"
    probe.write_text(
        '#include "hover_executor.c"\n'
        "extern const int probe_size, probe_inputs;\n"
        "const int probe_size = (int)sizeof(hover_exec), probe_inputs = HOVER_OBS_SIZE;\n"
    )
    return probe


def cc(*arguments: str | Path) -> None:
    subprocess.run(["cc", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per specification with the C files and probe.so."""
    folders = {}
    for kind in SPECS:
        folders[kind] = tmp_path_factory.mktemp(kind)
        probe = sources(folders[kind], kind)
        cc(*STRICT, "-O2", "-fPIC", "-shared", probe, "-o", folders[kind] / "probe.so")
    return folders


def fresh(now: int, **more: object) -> Input:
    return replace(Input(now, now, now, now), **more)  # type: ignore[arg-type]  # the fields are Input's


def assert_same(c: CExecutor, twin: Executor, calls: Iterator[tuple[int, Input] | None]) -> list[Status]:
    """Runs both, resets both at None, and returns what the status was."""
    statuses = []
    for call in calls:
        if call is None:
            c.reset()
            twin.reset()
            continue
        (status, action), (expected, expected_action) = c.step(*call), twin.step(*call)
        assert status == expected, f"call {len(statuses)}"
        assert (action is None) == (expected_action is None)
        if action is not None and expected_action is not None:
            np.testing.assert_array_equal(action.view(np.uint32), expected_action.view(np.uint32))
        if status.step:
            np.testing.assert_array_equal(c.observe(call[1])[:18], twin.observation[:18])
        statuses.append(status)
    return statuses


def rough_flight(seed: int, step_us: int, calls: int) -> Iterator[tuple[int, Input] | None]:
    """Any attitude and error; late, lost, non-finite and backward inputs in bursts; a reset after each flight's end."""
    rng = np.random.default_rng(seed)
    now, setpoint_us, jitter = int(rng.integers(0, 2**60)), 0, 0.0
    position, bad = rng.normal(size=3), 0
    for index in range(calls):
        if index % 40 == 0:
            jitter = rng.choice([0.0, 0.1, 0.6])
            if rng.random() < 0.5:
                yield None
        now += max(1, round(step_us * (1 + jitter * rng.uniform(-1, 1))))
        position = position + 0.01 * rng.normal(size=3)
        if rng.random() < 0.5:
            setpoint_us = now - int(rng.integers(0, 3000))
        quaternion = rng.normal(size=4)
        seen = Input(
            now - int(rng.integers(0, 90_000)),
            now - int(rng.integers(0, 45_000)),
            now + int(rng.integers(-9_000, 9_000)),
            max(setpoint_us, 0),
            position=position,
            velocity=rng.normal(size=3) * 2,
            quaternion=quaternion / np.linalg.norm(quaternion) * rng.uniform(0.96, 1.04),
            angular_velocity=rng.normal(size=3) * 5,
            target_position=rng.normal(size=3),
            target_velocity=rng.normal(size=3),
            target_acceleration=np.where(rng.random(3) < 0.1, NAN, rng.normal(size=3) * 6),
            target_yaw=float(rng.uniform(-1, 1) * rng.choice([3.2, 999.0])),
        )
        bad = bad - 1 if bad > 0 else (int(rng.integers(1, 12)) if rng.random() < 0.02 else 0)
        if bad:
            seen = spoilt(rng, seen, now)
        if rng.random() < 0.01:
            setpoint_us -= 400_000
        if rng.random() < 0.004:
            now += int(rng.integers(5_000, 60_000))
        yield (now - int(rng.integers(0, 30_000)) if rng.random() < 0.01 else now), seen


def spoilt(rng: np.random.Generator, seen: Input, now: int) -> Input:
    field = rng.choice([*NUMBERS, "position_us", "attitude_us", "angular_velocity_us", "target_yaw", "zero", "huge"])
    if field.endswith("_us"):
        return replace(seen, **{field: now - 200_000})
    if field == "target_yaw":
        return replace(seen, target_yaw=float(rng.choice([NAN, np.inf, 1001.0])))
    if field == "zero":
        return replace(seen, quaternion=(0.0, 0.0, 0.0, 0.0))
    if field == "huge":
        return replace(seen, angular_velocity=(3e38, 3e38, -3e38), position=(3e38, 0.0, 0.0))
    values = np.array(getattr(seen, field), float)
    values[rng.integers(len(values))] = rng.choice([NAN, np.inf, -np.inf])
    return replace(seen, **{field: values})


# One and the same


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("ratio", [1, 2, 4, 5, 8, 10])
def test_c_and_python_agree_to_the_last_bit_over_rough_flights(folders: dict[str, Path], kind: str, ratio: int) -> None:
    config = Config(step_us=10_000 // ratio, ratio=ratio)
    c = CExecutor(folders[kind] / "probe.so", config)
    statuses = assert_same(c, c.twin(SPECS[kind], config), rough_flight(ratio, config.step_us, 1200))
    assert {status.verdict for status in statuses} == set(Verdict)
    assert {status.fault for status in statuses} >= set(Fault) - {Fault.NETWORK, Fault.GAP}
    assert {status.hovering for status in statuses} == {0, 1}


@pytest.mark.parametrize(
    "config",
    [
        Config(step_us=500, every_call=0),
        Config(step_us=500, every_call=0, ratio=20),
        Config(step_us=0, every_call=0, hold_steps=0, tolerance_percent=150),
        Config(step_us=2500, hold_steps=5, setpoint_timeout_us=3000),
    ],
)
def test_they_agree_under_any_configuration(folders: dict[str, Path], config: Config) -> None:
    c = CExecutor(folders["outside"] / "probe.so", config)
    assert_same(c, c.twin(OUTSIDE, config), rough_flight(11, 300, 1500))


@pytest.mark.parametrize("flags", ["-std=c99 -O0", "-Ofast", "-O3 -ffast-math -march=native", "-Os -ffp-contract=fast"])
def test_every_optimisation_gives_the_same_bits(folders: dict[str, Path], tmp_path: Path, flags: str) -> None:
    cc(*flags.split(), "-fPIC", "-shared", folders["outside"] / "probe.c", "-o", tmp_path / "probe.so")
    config = Config(ratio=4)
    c = CExecutor(tmp_path / "probe.so", config)
    assert_same(c, c.twin(OUTSIDE, config), rough_flight(3, config.step_us, 400))
    assert c.self_test() == 0


@pytest.mark.skipif(shutil.which("clang") is None, reason="there is no clang")
@pytest.mark.parametrize("flags", ["-std=c99 -O0", "-O3", "-Ofast"])
def test_clang_gives_the_same_bits(folders: dict[str, Path], tmp_path: Path, flags: str) -> None:
    probe, library = folders["outside"] / "probe.c", tmp_path / "probe.so"
    subprocess.run(["clang", *flags.split(), "-fPIC", "-shared", probe, "-o", library], check=True)
    config = Config(ratio=4)
    c = CExecutor(library, config)
    assert_same(c, c.twin(OUTSIDE, config), rough_flight(4, config.step_us, 400))
    assert c.self_test() == 0


@pytest.mark.parametrize("kind", SPECS)
def test_the_self_test_passes_and_notices_a_change(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    assert CExecutor(folders[kind] / "probe.so").self_test() == 0
    probe = sources(tmp_path, kind)
    text = (tmp_path / "hover_executor.h").read_text()
    changes = {
        "*x = cosine * a + sine * b": "*x = cosine * a - sine * b",
        "m[1] = xy - wz": "m[1] = xy + wz",
        "exec->target_velocity[i] = 0.0f;\n            exec": "exec",
        "age <= longest": "age < longest / 2u",
        "config->ratio != 0u": "config->ratio == 0u",
        "exec->setpoint_us) <=": "exec->setpoint_us) >=",
    }
    for index, (before, after) in enumerate(changes.items()):
        assert before in text
        (tmp_path / "hover_executor.h").write_text(text.replace(before, after))
        library = tmp_path / f"changed{index}.so"
        cc("-std=c99", "-O1", "-fPIC", "-shared", probe, "-o", library)
        assert CExecutor(library).self_test() != 0, before


# What it does, checked on the twin and so on both


def idle(state: np.ndarray, obs: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    return 0, state, np.zeros(4, np.float32)


def twin(infer: Callable = idle, spec: PolicySpec = PLAIN, **config: int) -> Executor:
    return Executor(Layout.of(spec), spec.initial_state(1)[0], infer, Config(**config))


def counting(state: np.ndarray, obs: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Its memory counts the steps, and its action is larger each time that it is asked."""
    counting.calls += 1
    return 0, state + 1, np.full(4, 0.1 * counting.calls, np.float32)


def run(executor: Executor, times: list[int], **more: object) -> list[Status]:
    return [executor.step(now, fresh(now, **more))[0] for now in times]


@pytest.mark.parametrize("ratio", [1, 2, 4, 5, 8, 10])
def test_only_native_steps_advance_the_memory(ratio: int) -> None:
    counting.calls = 0
    executor = twin(counting, step_us=10_000 // ratio, ratio=ratio)
    statuses = run(executor, [5 + index * 10_000 // ratio for index in range(3 * ratio)])
    assert [status.step for status in statuses] == ([Step.NATIVE] + [Step.INTERMEDIATE] * (ratio - 1)) * 3
    np.testing.assert_allclose(executor.state, PLAIN.initial_state(1)[0] + 3, atol=1e-5)


def test_native_steps_come_by_time_when_no_ratio_is_given() -> None:
    statuses = run(twin(ratio=0), [1, 4000, 9999, 10_001, 14_000, 20_000, 20_001])
    assert [status.step == Step.NATIVE for status in statuses] == [True, False, False, True, False, False, True]


def test_a_slow_loop_takes_native_steps_by_time_although_the_ratio_is_not_reached() -> None:
    statuses = run(twin(ratio=4), [1, 10_001, 20_001])
    assert [status.step for status in statuses] == [Step.NATIVE] * 3


def test_the_previous_action_is_the_mean_since_the_last_native_step() -> None:
    counting.calls = 0
    executor, seen = twin(counting, ratio=4), []
    for now in range(1, 20_000, 2500):
        executor.step(now, fresh(now))
        seen.append(executor.observation[18])
    # the reset value; then 0.1; (0.1 + 0.2) / 2; (0.1 + 0.2 + 0.3) / 3; all four; and from the fifth action again
    np.testing.assert_allclose(seen, [0, 0.1, 0.15, 0.2, 0.25, 0.5, 0.55, 0.6], rtol=1e-6)


def test_the_reset_value_is_the_one_of_the_policy() -> None:
    spec = replace(PLAIN, action=replace(PLAIN.action, reset_value=0.32))
    executor = twin(spec=spec)
    executor.step(1, fresh(1))
    np.testing.assert_array_equal(executor.observation[18:22], np.full(4, 0.32, np.float32))


def test_actions_are_clipped_to_the_range_of_the_policy() -> None:
    executor = twin(lambda state, obs: (0, state, np.array([-3, 3, 0.5, -0.5], np.float32)))
    np.testing.assert_array_equal(executor.step(1, fresh(1))[1], np.array([-1, 1, 0.5, -0.5], np.float32))


def test_time_that_does_not_move_forward_is_held_then_handed_back() -> None:
    executor = twin()
    run(executor, [1_000_000])
    verdicts = [executor.step(now, fresh(now))[0] for now in [1_000_000, 999_000] + [10] * 10]
    assert {status.fault for status in verdicts} == {Fault.TIME}
    assert [status.verdict for status in verdicts] == [Verdict.HOLD] * 8 + [Verdict.HAND_BACK] * 4  # 8 steps are 20 ms


def test_a_clock_that_recovers_goes_on() -> None:
    statuses = run(twin(), [10_000, 12_500, 11_000, 15_000])
    assert [status.verdict for status in statuses] == [Verdict.RUN, Verdict.RUN, Verdict.HOLD, Verdict.RUN]


def test_an_action_is_held_for_two_native_steps_and_then_the_flight_ends_until_reset() -> None:
    executor = twin(lambda state, obs: (0, state, np.full(4, 0.5, np.float32)))
    executor.step(0, fresh(0))
    lost = {"position": (NAN, 0.0, 0.0)}
    for now in range(2500, 20_001, 2500):
        status, action = executor.step(now, fresh(now, **lost))
        assert (status.verdict, status.fault) == (Verdict.HOLD, Fault.NOT_FINITE)
        np.testing.assert_array_equal(action, np.full(4, 0.5, np.float32))
    assert executor.step(22_500, fresh(22_500, **lost)) == (
        Status(Verdict.HAND_BACK, Step.NONE, Fault.NOT_FINITE, 0, 0, 0),
        None,
    )
    assert executor.step(25_000, fresh(25_000))[0].verdict == Verdict.HAND_BACK, "good inputs do not unlatch"
    executor.reset()
    assert executor.step(27_500, fresh(27_500))[0].verdict == Verdict.RUN


def test_a_first_call_that_fails_has_nothing_to_hold() -> None:
    status, action = twin().step(1_000_000, fresh(1_000_000, quaternion=(0.0, 0.0, 0.0, 0.0)))
    assert (status.verdict, status.fault, action) == (Verdict.HAND_BACK, Fault.NOT_UNIT, None)


def test_a_loop_that_stopped_too_long_is_handed_back() -> None:
    statuses = run(twin(), [0, 20_000, 40_001])
    assert [status.verdict for status in statuses] == [Verdict.RUN, Verdict.RUN, Verdict.HAND_BACK]
    assert statuses[-1].fault == Fault.GAP


def test_a_network_that_refuses_is_a_fault_with_its_answer() -> None:
    answers = iter([0, 3, 0])
    executor = twin(lambda state, obs: (next(answers), state, np.zeros(4, np.float32)))
    statuses = run(executor, [0, 2500, 5000])
    assert [(status.verdict, status.fault, status.answer) for status in statuses] == [
        (Verdict.RUN, Fault.NONE, 0),
        (Verdict.HOLD, Fault.NETWORK, 3),
        (Verdict.RUN, Fault.NONE, 0),
    ]


@pytest.mark.parametrize(
    ("field", "limit", "fault"),
    [
        ("position_us", 100_000, Fault.STALE_POSITION),
        ("attitude_us", 50_000, Fault.STALE_ATTITUDE),
        ("angular_velocity_us", 10_000, Fault.STALE_ANGULAR_VELOCITY),
    ],
)
def test_each_measurement_has_its_own_age(field: str, limit: int, fault: Fault) -> None:
    now = 10**9
    for age, expected in ((limit, Fault.NONE), (limit + 1, fault), (-limit - 1, fault)):
        assert twin().step(now, fresh(now, **{field: now - age}))[0].fault == expected


def test_without_a_fresh_set_point_it_stops_where_it_is_facing_as_it_does() -> None:
    executor = twin()
    attitude = from_axis_angle([0, 0, 1], 1.2)
    aim = {"target_position": (5.0, 6.0, 7.0), "target_velocity": (1.0, 0.0, 0.0), "setpoint_us": 0}
    for now, place, hovering in ((0, 1.0, 0), (199_000, 2.0, 0), (201_000, 3.0, 1), (203_000, 3.5, 1)):
        executor.config = replace(executor.config, hold_steps=1000)
        seen = fresh(now, position=(place, 0.0, 0.0), quaternion=attitude, velocity=(0.1, 0.2, 0.3), **aim)
        assert executor.step(now, seen)[0].hovering == hovering
    turned = rotate(conjugate(attitude), np.array([0.5, 0, 0]))  # since it stopped at 3.0
    np.testing.assert_allclose(executor.observation[0:3], turned, atol=3e-4)
    np.testing.assert_allclose(executor.observation[3:12], np.eye(3).ravel(), atol=6e-4)
    now = 205_000
    assert executor.step(now, fresh(now, **(aim | {"setpoint_us": now})))[0].hovering == 0


def test_a_set_point_that_is_not_finite_is_ignored_until_the_last_good_one_is_too_old() -> None:
    executor = twin(hold_steps=1000)
    executor.step(0, fresh(0, target_position=(1.0, 0.0, 0.0)))
    for now, hovering in ((100_000, 0), (201_000, 1)):
        status, _ = executor.step(now, fresh(now, target_position=(NAN, 0.0, 0.0)))
        assert status.hovering == hovering
        np.testing.assert_allclose(executor.observation[0], 0 if hovering else -1, atol=1e-6)


def test_timing_is_judged_on_a_full_window() -> None:
    def last(intervals: list[int], **config: int) -> int:
        executor = twin()
        executor.config = Config(**config)
        return run(executor, np.cumsum([0, *intervals]).tolist())[-1].timing

    assert last([2500] * 31) == last([2500] * 200, ratio=4) == 0
    assert last([2500] * 40 + [3100], ratio=4) == Timing.STEP_JITTER
    assert last([3100] * 200, ratio=3) == Timing.STEP_JITTER | Timing.STEP_BIAS
    assert last([2500] * 200, ratio=2) == Timing.NATIVE_JITTER | Timing.NATIVE_BIAS
    assert last([3100] * 200, ratio=3, tolerance_percent=50) == 0


def test_calls_between_the_steps_repeat_the_action() -> None:
    executor = twin(step_us=500, every_call=0)
    statuses = run(executor, list(range(0, 1500, 125)))
    assert [status.step != Step.NONE for status in statuses] == [True, False, False, False] * 3
    assert {status.verdict for status in statuses} == {Verdict.RUN}


# The observation


def pose(seed: int) -> Input:
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    vectors = {field: rng.normal(size=3) for field in NUMBERS if field != "quaternion"}
    return fresh(0, quaternion=quaternion / np.linalg.norm(quaternion), target_yaw=rng.uniform(-4, 4), **vectors)


@pytest.mark.parametrize("seed", range(20))
def test_the_observation_is_the_one_of_training_in_the_frame_of_the_target_yaw(seed: int) -> None:
    executor, seen = twin(), pose(seed)
    executor.step(0, seen)
    back = conjugate(from_axis_angle([0, 0, 1], seen.target_yaw))
    expected = quadrotor_observation(
        rotate(back, np.subtract(seen.position, seen.target_position)),
        multiply(back, seen.quaternion),
        rotate(back, np.subtract(seen.velocity, seen.target_velocity)),
        seen.angular_velocity,
        np.zeros(4),
    )
    np.testing.assert_allclose(executor.observation, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_limits_that_the_caller_applies_are_those_that_our_networks_apply_inside(seed: int) -> None:
    from sim.export import preprocess

    seen = pose(seed)
    inside, outside = twin(spec=PLAIN), twin(spec=OUTSIDE)
    for executor in (inside, outside):
        executor.step(0, seen)
    np.testing.assert_allclose(outside.observation, preprocess(inside.observation[None])[0], atol=2e-6)
    assert not np.allclose(outside.observation, inside.observation), "nothing was limited twice or not at all"


def test_a_limit_inside_the_network_is_not_applied_outside() -> None:
    executor = twin()
    executor.step(0, fresh(0, position=(30.0, -40.0, 50.0), velocity=(9.0, 0.0, 0.0)))
    np.testing.assert_array_equal(executor.observation[[0, 1, 2, 12]], [30, -40, 50, 9])


def test_its_own_functions_are_right_to_the_last_bits() -> None:
    angles = np.linspace(-1000, 1000, 4001, dtype=np.float32)
    found = np.array([cos_sin(angle) for angle in angles])
    exact = np.stack([np.cos(angles.astype(float)), np.sin(angles.astype(float))], 1)
    np.testing.assert_allclose(found, exact, atol=4e-7)
    for angle in np.linspace(-3.1, 3.1, 63):
        m = matrix(from_axis_angle([0, 0, 1], angle).astype(np.float32))
        np.testing.assert_allclose(heading(m), [np.cos(angle), np.sin(angle)], atol=6e-4)
    assert heading(matrix(np.array([0, 1, 0, 0], np.float32)))[0] > 0.99, "upside down the yaw is taken for right"


# What it refuses to be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, observation=(*s.observation, ObservationTerm("wind", 3, "m/s", "world"))), "wind has 3"),
        (lambda s: replace(s, observation=s.observation[1:]), "position_error is missing"),
        (lambda s: replace(s, observation=(replace(s.observation[0], history=2), *s.observation[1:])), "history 2"),
        (lambda s: replace(s, observation=(replace(s.observation[0], scale=2.0), *s.observation[1:])), "scale 2.0"),
        (lambda s: replace(s, limits=(Limit("tilt", 1.0, "rad", "by the caller"),)), "tilt is applied by the caller"),
    ],
)
def test_a_policy_that_it_cannot_serve_is_refused_by_name(
    change: Callable[[PolicySpec], PolicySpec], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        executor_files("hover", change(PLAIN))


# The C code


def test_it_needs_no_library_and_has_no_variables(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "only.c").write_text(
        '#include "hover.h"\n#define HOVER_EXECUTOR_IMPLEMENTATION\n'
        '#include "hover_executor.h"\n#include "hover_executor_vectors.h"\n'
    )
    cc(*STRICT, "-O2", "-I", folders["outside"], "-c", tmp_path / "only.c", "-o", tmp_path / "only.o")
    listing = subprocess.run(["nm", tmp_path / "only.o"], check=True, capture_output=True, text=True).stdout
    assert {line.split()[-2] for line in listing.splitlines()} <= {"T", "t", "r", "R", "U"}
    undefined = {line.split()[-1] for line in listing.splitlines() if " U " in line}
    assert undefined <= {"hover_infer", "hover_reset", "hover_selftest", "memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_it_is_also_cpp(folders: dict[str, Path], tmp_path: Path) -> None:
    flags = "-x c++ -std=c++14 -Wall -Wextra -Werror -Wdouble-promotion".split()
    subprocess.run(["c++", *flags, "-c", folders["outside"] / "probe.c", "-o", tmp_path / "p.o"], check=True)


def test_sanitizers_are_silent(folders: dict[str, Path], tmp_path: Path) -> None:
    main = tmp_path / "main.c"
    main.write_text(
        '#include "probe.c"\nstatic hover_exec exec;\nint main(void) { return hover_exec_selftest(&exec); }\n'
    )
    flags = "-std=c99 -O1 -fsanitize=undefined,address -fno-sanitize-recover=all -I".split()
    cc(*flags, folders["outside"], main, "-o", tmp_path / "main")
    subprocess.run([tmp_path / "main"], check=True)


def test_the_text_has_no_long_line_and_no_double(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        text = (folder / "hover_executor.h").read_text()
        assert not [line for line in text.splitlines() if len(line) > 120]
        assert not re.search(r"\bdouble\b", text.replace("no double", ""))
        assert not re.search(r"\b\d+\.\d*(e-?\d+)?(?![\df.eux])\b", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
