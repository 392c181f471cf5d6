"""The twin in Python of the C that runs a policy in a flight controller's loop: the same bits, and easier to read.

`Executor` is written line by line as `templates/executor.h`, on float32 and whole microseconds, so that a test can
demand equality over any sequence of inputs. It also makes the vectors with which the C code tests itself at boot.
The semantics are those of the published RAPTOR executor: native steps advance the memory, intermediate steps run on a
copy of it, and the previous action is the mean since the last native step. What happens on faults is ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag

import numpy as np

from controllers.spec import PolicySpec

from .graph import ExportError

F = np.float32
WINDOW = 32  # intervals that the timing is judged on

Numbers = Sequence[float] | np.ndarray

Infer = Callable[[np.ndarray, np.ndarray], tuple[int, np.ndarray, np.ndarray]]
"""A network: memory and observation to its answer (0 is good), the next memory and the action."""


class Verdict(IntEnum):
    """What to do with the action."""

    RUN, HOLD, HAND_BACK = range(3)


class Step(IntEnum):
    """What was computed."""

    NONE, INTERMEDIATE, NATIVE = range(3)


class Fault(IntEnum):
    """Why nothing was computed."""

    NONE, TIME, GAP, STALE_POSITION, STALE_ATTITUDE, STALE_ANGULAR_VELOCITY, NOT_FINITE, NOT_UNIT, NETWORK = range(9)


class Timing(IntFlag):
    """Which intervals of the last window were beyond the tolerance."""

    STEP_JITTER, STEP_BIAS, NATIVE_JITTER, NATIVE_BIAS = 1, 2, 4, 8


@dataclass(frozen=True)
class Config:
    """The C struct of the same name; times in [us]."""

    step_us: int = 2500
    every_call: int = 1
    ratio: int = 0
    hold_steps: int = 2
    tolerance_percent: int = 20
    position_timeout_us: int = 100_000
    attitude_timeout_us: int = 50_000
    angular_velocity_timeout_us: int = 10_000
    setpoint_timeout_us: int = 200_000


@dataclass(frozen=True)
class Input:
    """The C struct of the same name, in its order: measurements, the set-point, and when each was made."""

    position_us: int
    attitude_us: int
    angular_velocity_us: int
    setpoint_us: int
    position: Numbers = (0.0, 0.0, 0.0)
    velocity: Numbers = (0.0, 0.0, 0.0)
    quaternion: Numbers = (1.0, 0.0, 0.0, 0.0)
    angular_velocity: Numbers = (0.0, 0.0, 0.0)
    target_position: Numbers = (0.0, 0.0, 0.0)
    target_velocity: Numbers = (0.0, 0.0, 0.0)
    target_acceleration: Numbers = (0.0, 0.0, 0.0)
    target_yaw: float = 0.0


@dataclass(frozen=True)
class Status:
    """The C struct of the same name, in its order."""

    verdict: Verdict
    step: Step
    fault: Fault
    answer: int
    hovering: int
    timing: int


@dataclass(frozen=True)
class Layout:
    """What the executor needs of a policy's specification."""

    offsets: dict[str, int]
    """Where each observation term begins."""
    limits: dict[str, float]
    """The limits that the caller applies, so that one inside the network is never applied twice."""
    native_us: int
    """Interval of the native steps [us]."""
    reset_value: float
    """The previous action before there is one."""
    clip: tuple[float, float]
    """Range of the action."""

    @staticmethod
    def of(spec: PolicySpec) -> Layout:
        """Raises ExportError, naming the field, when the executor cannot make what the policy wants to see."""
        offsets, start = {}, 0
        for term in spec.observation:
            if TERMS.get(term.name) != term.size:
                allowed = ", ".join(f"{name} of {size}" for name, size in TERMS.items())
                raise ExportError(f"observation {term.name} has {term.size} numbers; the executor makes: {allowed}")
            for what, value, plain in (("scale", term.scale, 1.0), ("clip", term.clip, None)):
                if value != plain:
                    raise ExportError(f"observation {term.name} has {what} {value}; allowed in the executor: {plain}")
            for what, value, plain in (("history", term.history, 1), ("delay", term.delay, 0.0)):
                if value != plain:
                    raise ExportError(f"observation {term.name} has {what} {value}; allowed in the executor: {plain}")
            offsets[term.name] = start
            start += term.size
        for name in TERMS:
            if name not in offsets and name != "reference_acceleration":
                raise ExportError(f"observation {name} is missing; allowed in the executor: {', '.join(TERMS)}")
        if spec.action_size != TERMS["previous_action"]:
            raise ExportError(f"the policy has {spec.action_size} actions; allowed in the executor: 4")
        outside = {limit.name: limit.value for limit in spec.limits if limit.applied == "by the caller"}
        for name in outside:
            if name not in LIMITS:
                raise ExportError(f"limit {name} is applied by the caller; the executor can: {', '.join(LIMITS)}")
        native_us = round(1e6 / spec.rates.native_hz)
        return Layout(offsets, outside, native_us, spec.action.reset_value, spec.action.clip)


TERMS = {
    "position_error": 3,
    "rotation_matrix": 9,
    "velocity_error": 3,
    "angular_velocity": 3,
    "previous_action": 4,
    "reference_acceleration": 3,
}
LIMITS = ("position_error", "velocity_error", "yaw_error", "reference_acceleration")


def check(config: Config, now_us: int, seen: Input) -> Fault:
    """The fault of these measurements."""
    if abs(now_us - seen.angular_velocity_us) > config.angular_velocity_timeout_us:
        return Fault.STALE_ANGULAR_VELOCITY
    if abs(now_us - seen.attitude_us) > config.attitude_timeout_us:
        return Fault.STALE_ATTITUDE
    if abs(now_us - seen.position_us) > config.position_timeout_us:
        return Fault.STALE_POSITION
    numbers = (*seen.position, *seen.velocity, *seen.quaternion, *seen.angular_velocity)
    if not np.isfinite(np.asarray(numbers, F)).all():
        return Fault.NOT_FINITE
    a, b, c, d = np.asarray(seen.quaternion, F)
    with np.errstate(over="ignore"):
        square = a * a + b * b + c * c + d * d
    return Fault.NONE if F(0.9) < square < F(1.1) else Fault.NOT_UNIT


def cos_sin(angle: np.float32) -> tuple[np.float32, np.float32]:
    """Cosine and sine for |angle| <= 1000."""
    turns = angle * F(0.636619772)
    k = int(turns + (F(-0.5) if turns < 0 else F(0.5)))
    n = F(k)
    r = ((angle - n * F(1.5703125)) - n * F(4.83751297e-4)) - n * F(7.54978942e-8)
    square = r * r
    s = r + r * square * (F(-1) / F(6) + square * (F(1) / F(120) - square * (F(1) / F(5040))))
    tail = F(1) / F(24) + square * (F(-1) / F(720) + square * (F(1) / F(40320)))
    c = F(1) + square * (F(-0.5) + square * tail)
    quarter = k % 4
    x, y = (s, c) if quarter % 2 else (c, s)
    return (-x if quarter in (1, 2) else x), (-y if quarter >= 2 else y)


def matrix(quaternion: np.ndarray) -> np.ndarray:
    """The rotation matrix, row by row, of a quaternion of about unit length."""
    w, x, y, z = quaternion
    one = F(1)
    scale = F(2) / (w * w + x * x + y * y + z * z)
    xx, yy, zz = scale * x * x, scale * y * y, scale * z * z
    xy, xz, yz = scale * x * y, scale * x * z, scale * y * z
    wx, wy, wz = scale * w * x, scale * w * y, scale * w * z
    rows = (one - (yy + zz), xy - wz, xz + wy, xy + wz, one - (xx + zz), yz - wx, xz - wy, yz + wx, one - (xx + yy))
    return np.array(rows, F)


def heading(m: np.ndarray) -> tuple[np.float32, np.float32]:
    """Cosine and sine of the turn about the vertical that is nearest to the attitude; defined upside down too."""
    x, y = m[0] + m[4] + F(1e-3), m[3] - m[1]
    square = x * x + y * y
    if square < F(1e-9):
        return F(1), F(0)
    n = np.uint32(0x5F3759DF - (int(square.view(np.uint32)) >> 1)).view(F)
    for _ in range(3):
        n = n * (F(1.5) - F(0.5) * square * n * n)
    return x * n, y * n


def observe(
    layout: Layout, seen: Input, target: np.ndarray, turn: tuple[np.float32, np.float32], previous: np.ndarray
) -> np.ndarray:
    """What the network sees.

    Args:
        layout: From the policy's specification.
        seen: The measurements; the set-point in it is not read.
        target: Position, velocity and acceleration, (3, 3).
        turn: Cosine and sine of the target yaw.
        previous: The previous action.
    """
    m = matrix(np.asarray(seen.quaternion, F))
    position = np.asarray(seen.position, F) - target[0]
    velocity = np.asarray(seen.velocity, F) - target[1]
    vectors = [position, velocity, target[2].copy(), m[0::3], m[1::3], m[2::3]]  # the last: columns, views of m
    _turn(*turn, vectors)
    if "yaw_error" in layout.limits:
        limit_cos, limit_sin = (F(f(layout.limits["yaw_error"])) for f in (np.cos, np.sin))
        c, s = heading(m)
        if c < limit_cos:
            a = -s if s < 0 else s
            sine = a * limit_cos - c * limit_sin
            _turn(c * limit_cos + a * limit_sin, -sine if s < 0 else sine, vectors)
    parts = {
        "position_error": vectors[0],
        "velocity_error": vectors[1],
        "reference_acceleration": vectors[2],
        "rotation_matrix": m,
        "angular_velocity": np.asarray(seen.angular_velocity, F),
        "previous_action": previous,
    }
    for name in ("position_error", "velocity_error", "reference_acceleration"):
        if name in layout.limits:
            limit = F(layout.limits[name])
            parts[name] = np.minimum(np.maximum(parts[name], -limit), limit)
    return np.concatenate([parts[name] for name in layout.offsets])


def _turn(cosine: np.float32, sine: np.float32, vectors: Sequence[np.ndarray]) -> None:
    """Expresses the vectors, in place, in a world that is turned by the angle of this cosine and sine."""
    for v in vectors:
        a, b = v[0], v[1]
        v[0], v[1] = cosine * a + sine * b, cosine * b - sine * a


def judge(window: deque[int], interval: int, expected: int, percent: int) -> int:
    """Adds an interval to the window; 1 for jitter and 2 for bias, once the window is full."""
    window.append(min(interval, 2**32 - 1))
    if len(window) < WINDOW or expected == 0:
        return 0
    low, high = expected * max(100 - percent, 0), expected * (100 + percent)
    jitter = any(not low <= 100 * x <= high for x in window)
    bias = not low * WINDOW <= 100 * sum(window) <= high * WINDOW
    return jitter + 2 * bias


@dataclass
class Executor:
    """One robot's executor."""

    layout: Layout
    initial: np.ndarray
    """The network's memory after a reset."""
    infer: Infer
    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        self.reset()

    @property
    def observation(self) -> np.ndarray:
        """What the network saw last."""
        return self._observation

    def reset(self) -> None:
        """Forgets the last flight."""
        self.state = np.asarray(self.initial, F)
        self.action = np.full(4, self.layout.reset_value, F)
        self.mean_action = self.action.copy()
        self.target = np.zeros((3, 3), F)
        self.turn = (F(1), F(0))
        self.setpoint_us: int | None = None
        self.now_us = self.step_us = self.native_us = self.stuck_us = 0
        self.steps = 0
        self.started = False
        self.latched = Fault.NONE
        self.answer = self.hovering = self.timing = 0
        self.step_window: deque[int] = deque(maxlen=WINDOW)
        self.native_window: deque[int] = deque(maxlen=WINDOW)
        self._observation = np.zeros(sum(TERMS[name] for name in self.layout.offsets), F)

    def step(self, now_us: int, seen: Input) -> tuple[Status, np.ndarray | None]:
        """One call of the loop: the status, and the action unless the robot is handed back."""
        config, longest = self.config, self.config.hold_steps * self.layout.native_us
        if self.latched:
            return self._status(Verdict.HAND_BACK, Step.NONE, self.latched), None
        self.answer = 0
        if self.started and now_us <= self.now_us:
            self.stuck_us += config.step_us or self.layout.native_us
            return self._fail(Fault.TIME)
        since_call, since_step = now_us - self.now_us, now_us - self.step_us
        since_native, self.now_us = now_us - self.native_us, now_us
        if self.started and since_call > longest:
            return self._fail(Fault.GAP)
        if self.started and not config.every_call and since_step < config.step_us:
            return self._status(Verdict.RUN, Step.NONE, Fault.NONE), self.action
        fault = check(config, now_us, seen)
        if fault:
            return self._fail(fault)
        self._follow(now_us, seen)
        with np.errstate(over="ignore", invalid="ignore"):  # far-off inputs; the network refuses what is not finite
            self._observation = observe(self.layout, seen, self.target, self.turn, self.mean_action)
        native = (
            not self.started
            or since_native >= self.layout.native_us
            or (config.ratio != 0 and self.steps >= config.ratio)
        )
        self.answer, state, fresh = self.infer(self.state, self._observation)
        if self.answer:
            return self._fail(Fault.NETWORK)
        if native:
            self.state = state
        self._keep(fresh, native)
        if self.started:
            step_bits = judge(self.step_window, since_step, config.step_us, config.tolerance_percent)
            native_bits = self.timing >> 2
            if native:
                native_bits = judge(self.native_window, since_native, self.layout.native_us, config.tolerance_percent)
            self.timing = step_bits | native_bits << 2
        self.started, self.stuck_us, self.step_us = True, 0, now_us
        if native:
            self.native_us = now_us
        return self._status(Verdict.RUN, Step.NATIVE if native else Step.INTERMEDIATE, Fault.NONE), self.action

    def _follow(self, now_us: int, seen: Input) -> None:
        """Takes over a set-point that makes sense; without a fresh one, stops where the robot is now."""
        yaw = F(seen.target_yaw)
        given = np.asarray([seen.target_position, seen.target_velocity, seen.target_acceleration], F)
        sensible = bool(np.isfinite(given[:2]).all() and np.isfinite(yaw) and abs(yaw) <= 1000)
        if sensible:
            self.setpoint_us = seen.setpoint_us
        fresh = self.setpoint_us is not None and abs(now_us - self.setpoint_us) <= self.config.setpoint_timeout_us
        if fresh and sensible:
            given[2] = np.where(np.isfinite(given[2]), given[2], F(0))
            self.target, self.turn = given, cos_sin(yaw)
        elif not fresh and not self.hovering:
            self.target = np.zeros((3, 3), F)
            self.target[0] = seen.position
            self.turn = heading(matrix(np.asarray(seen.quaternion, F)))
        self.hovering = int(not fresh)

    def _keep(self, fresh: np.ndarray, native: bool) -> None:
        """Keeps the action, and the mean of those since the last native step."""
        low, high = (F(bound) for bound in self.layout.clip)
        count = F(self.steps)
        self.action = np.maximum(np.minimum(np.asarray(fresh, F), high), low)
        self.mean_action = self.action if native else (self.mean_action * count + self.action) / (count + F(1))
        self.steps = 1 if native else self.steps + 1

    def _fail(self, fault: Fault) -> tuple[Status, np.ndarray | None]:
        """Holds the last action while it is young enough; else ends the flight."""
        age = self.now_us - self.step_us + self.stuck_us
        if self.started and fault != Fault.GAP and age <= self.config.hold_steps * self.layout.native_us:
            return self._status(Verdict.HOLD, Step.NONE, fault), self.action
        self.latched = fault
        return self._status(Verdict.HAND_BACK, Step.NONE, fault), None

    def _status(self, verdict: Verdict, step: Step, fault: Fault) -> Status:
        return Status(verdict, step, fault, self.answer, self.hovering, self.timing)


def vector_flight(layout: Layout) -> list[tuple[int, Input]]:
    """Calls that visit every branch that does not depend on the network: the script of the self-test in C."""
    step = layout.native_us // 4
    calls = []
    for index in range(26):
        now = 1_000_000 + step * index
        turn = 0.4 * index  # once round, twice, beyond a half turn of yaw error
        seen = Input(
            now - 2000,
            now - 1000,
            now - 100,
            now - 3000,
            position=(0.9 - 0.1 * index, 0.05 * index, 1.0 + 0.3 * index),
            velocity=(1.5 - 0.2 * index, -0.1 * index, 0.02),
            quaternion=(np.cos(turn / 2) * 0.96, 0.28, 0.0, np.sin(turn / 2) * 0.96),
            angular_velocity=(0.1 * index, -0.2, 3.0),
            target_position=(0.1, 0.2, 1.0),
            target_velocity=(0.3, 0.0, -0.1),
            target_acceleration=(7.0, float("nan"), -1.0),
            target_yaw=-3.0 + 0.37 * index,
        )
        if index == 5:
            seen = replace(seen, target_yaw=float("inf"))  # ignored, the set-point before stays
        if 7 <= index <= 9:
            seen = replace(seen, setpoint_us=now - 300_000)  # stops where it is, and goes on
        if index == 12:
            seen = replace(seen, position=(float("nan"), 0.0, 0.0))  # held once
        if index == 14:
            now -= 2 * step  # held once
        if index == 16:
            seen = replace(seen, quaternion=(0.0, 0.0, 0.0, 0.0))
        if index >= 18 and index < 25:
            seen = replace(seen, attitude_us=now - 60_000)
        calls.append((now, seen))
    return calls
