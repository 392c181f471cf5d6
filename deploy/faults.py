"""Faults at random times against a virtual G1 in lock-step: does every one end in damping, in time, and for good?

Each kind says what happens, which checks may catch it, and how long after it begins a check's trip level is reached:
at once, after the level's own time, or when the robot's true motion crosses it. From there the runtime has 20 ms. The
operator keeps asking for everything else meanwhile, and must not get it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controllers import safety
from controllers.g1 import G1
from controllers.recording import Recording, read_recording
from controllers.safety import Limits
from deploy.bouts import START_AT, bout
from deploy.modes import Answer, Mode, Request, Timing
from deploy.motion_switcher import ASK_EVERY
from deploy.runner import Slot, limits_of

BUDGET = 0.020  # [s] from the trip level to the first damping command
AFTER = 0.5  # [s] that a bout goes on after the robot is damped
NOISE = 1.0  # of the sensors: a real IMU is never still
PERIOD = 0.002  # [s]
FALL = 3.0  # [s] that a push has to bring the robot down

Anywhere = "anywhere"
InPolicy = "in policy"

CARRYING = ("hip_pitch", "hip_roll", "knee", "ankle_pitch")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    at: float
    """[s]"""
    checks: frozenset[str]
    """Any of these may catch it; empty for the operator's own stop."""
    reached: float | None
    """Time after `at` at which the trip level is reached [s]; None where the true motion says it."""
    events: tuple[Any, ...] = ()
    """Of the virtual robot."""
    requests: tuple[tuple[float, Request], ...] = ()
    disturb: Callable[[float, Answer | None], Answer | None] | None = None
    text: str = ""


@dataclass(frozen=True)
class Kind:
    """How one is drawn."""

    make: Callable[[float, G1, Limits, np.random.Generator], Fault]
    """At that time."""
    where: str = Anywhere


def _event(name: str, checks: str, reached: float | None = 0.0, value: Callable | None = None, joint: bool = False,
           duration: Callable | None = None) -> Kind:  # fmt: skip
    """A fault that the virtual robot knows."""

    def make(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
        from deploy.virtual_events import KINDS, Event

        chosen = KINDS[name].value if value is None else float(value(rng))
        which = str(rng.choice(robot.joint_names)) if joint else None
        length = np.inf if duration is None else float(duration(rng))
        event = Event(at, name, length, chosen, which)
        return Fault(
            name, at, frozenset(checks.split()), reached, (event,), text=f"{which or ''} {chosen or ''}".strip()
        )

    return Kind(make)


def _overheating(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    from deploy.virtual_events import Event
    from deploy.virtual_g1 import MOTOR_TEMPERATURE

    rate = float(rng.uniform(300, 1000))
    reached = (limits.temperature.trip + 1 - max(MOTOR_TEMPERATURE)) / rate  # whole degrees are sent
    joint = str(rng.choice(robot.joint_names))
    return Fault(
        "overheating", at, frozenset({"temperature"}), reached, (Event(at, "overheating", value=rate, joint=joint),)
    )


def _low_battery(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    from deploy.virtual_events import Event
    from deploy.virtual_g1 import BATTERY_EVERY

    period = round(at / PERIOD)
    next_message = period + (1 - period) % BATTERY_EVERY
    return Fault("low_battery", at, frozenset({"battery"}), (next_message - period) * PERIOD,
                 (Event(at, "low_battery", value=float(rng.integers(0, 5))),))  # fmt: skip


def _foreign_publisher(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    """It commands every so many periods, counted from the robot's first; its first command reaches the level."""
    from deploy.virtual_events import Event

    every, period = int(rng.integers(1, 50)), round(at / PERIOD)
    rate = 1 / (every * PERIOD)
    return Fault("foreign_publisher", at, frozenset({"foreign_publisher"}), -period % every * PERIOD,
                 (Event(at, "foreign_publisher", value=rate),), text=f"{rate:.0f} Hz")  # fmt: skip


def _controller_started(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    """Nobody says so: it is known when the robot has answered the question whether one is active."""
    from deploy.virtual_events import Event
    from deploy.virtual_g1 import SERVICE_EVERY

    return Fault("controller_started", at, frozenset({"own_controller"}), ASK_EVERY + SERVICE_EVERY * PERIOD,
                 (Event(at, "controller_started"),))  # fmt: skip


def _state_lag(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    """States arrive later and later; their lag can be seen when they are there, which is later by that."""
    from deploy.virtual_events import Event

    growth, level = float(rng.uniform(0.2, 2.0)), limits.state_lag.trip
    checks = frozenset({"state_lag", *_FALLS.split()})
    return Fault("state_lag", at, checks, level / growth + level, (Event(at, "state_lag", value=growth),),
                 text=f"{growth:.1f} s/s")  # fmt: skip


def _motor_limp(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    """A joint that carries: one that does not is missed by nobody."""
    from deploy.virtual_events import Event

    carrying = [name for name in robot.joint_names if any(part in name for part in CARRYING)]
    joint = str(rng.choice(carrying))
    checks = frozenset({"motor_torque", *_FALLS.split()})
    return Fault("motor_limp", at, checks, None, (Event(at, "motor_limp", joint=joint),), text=joint)


def _action(kind: str, checks: str, change: Callable[[Answer, int], Answer]) -> Kind:
    def make(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
        joint = int(rng.integers(len(robot.joints)))
        reached = np.ceil((at - START_AT) / 0.02) * 0.02 + START_AT - at  # with the next answer

        def disturb(now: float, answer: Answer | None) -> Answer | None:
            return change(answer, joint) if answer is not None and now >= at else answer

        return Fault(kind, at, frozenset(checks.split()), reached + PERIOD * 2, disturb=disturb)

    return Kind(make, InPolicy)


def _not_a_number(answer: Answer, joint: int) -> Answer:
    position = answer.position.copy()
    position[joint] = np.nan
    return dataclasses.replace(answer, position=position)


def _jump(answer: Answer, joint: int) -> Answer:
    position = answer.position.copy()
    position[joint] += 5.0
    return dataclasses.replace(answer, position=position)


def _silence(kind: str, duration: Callable[[np.random.Generator], float]) -> Kind:
    """The policy does not answer."""

    def make(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
        length = duration(rng)

        def disturb(now: float, answer: Answer | None) -> Answer | None:
            return None if at <= now < at + length else answer

        return Fault(kind, at, frozenset({"policy_late"}), limits.policy_late.trip * 0.02, disturb=disturb)

    return Kind(make, InPolicy)


def _wrong_policy(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    """Its targets are mirrored about the pose it began with: plausible, smooth, and wrong."""
    first: list[np.ndarray] = []

    def disturb(now: float, answer: Answer | None) -> Answer | None:
        if answer is None or now < at:
            return answer
        if not first:
            first.append(answer.position.copy())
        return dataclasses.replace(answer, position=first[0] - 1.5 * (answer.position - first[0]))

    checks = {"tilt", "angular_rate", "joint_speed", "joint_position", "target_jump", "torque", "position_jump"}
    return Fault("wrong_policy", at, frozenset(checks), None, disturb=disturb)


def _button(kind: str, button: str) -> Kind:
    def make(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
        from deploy.virtual_events import Event

        return Fault(kind, at, frozenset(), 0.0, (Event(at, "press", 0.2, button),))

    return Kind(make)


def _keyboard(at: float, robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    return Fault("keyboard stop", at, frozenset(), 0.0, requests=((at, Request("damp")),))


_FALLS = "tilt angular_rate joint_speed joint_position position_jump torque"


def _later(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda rng: float(rng.uniform(low, high))


def _sign(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda rng: float(rng.uniform(low, high) * rng.choice([-1, 1]))


KINDS: dict[str, Kind] = {
    "state_frozen": _event("state_frozen", "frozen_tick frozen_imu stale_state", 0.05),
    "state_stall": _event("state_stall", "stale_state", 0.05, duration=_later(0.06, 0.3)),
    "bad_crc": _event("bad_crc", "crc_row crc_share stale_state", 0.05, duration=_later(0.06, 0.3)),
    "tick_frozen": _event("tick_frozen", "frozen_tick", 0.05),
    "wrong_mode_machine": _event("wrong_mode_machine", "mode_machine"),
    "nan": _event("nan", "state_values", joint=True),
    "nan_imu": _event("nan_imu", "state_values"),
    "zero_imu": _event("zero_imu", "quaternion_length"),
    "imu_frozen": _event("imu_frozen", "frozen_imu", 0.05),
    "imu_tilt": _event("imu_tilt", "tilt", value=_later(2.0, 3.0)),
    "gyro_spike": _event("gyro_spike", "angular_rate", value=_sign(40.0, 80.0)),
    "encoder_jump": _event("encoder_jump", "position_jump joint_position", value=_sign(0.5, 1.0), joint=True),
    "velocity_spike": _event("velocity_spike", "joint_speed", value=_sign(100.0, 200.0), joint=True),
    "overheating": Kind(_overheating),
    "motor_fault": _event("motor_fault", "motor_fault", value=lambda rng: rng.integers(1, 99), joint=True),
    "motor_dead": _event("motor_dead", f"motor_off {_FALLS}", 0.05, joint=True),
    "motor_limp": Kind(_motor_limp, InPolicy),
    "low_battery": Kind(_low_battery),
    "state_lag": Kind(_state_lag),
    "foreign_publisher": Kind(_foreign_publisher),
    "controller_selected": _event("controller_selected", "own_controller"),
    "controller_started": Kind(_controller_started),
    "push": dataclasses.replace(_event("push", _FALLS, None, _sign(500.0, 900.0), duration=_later(0.2, 0.4)),
                                where=InPolicy),
    "push_left": dataclasses.replace(_event("push_left", _FALLS, None, _sign(500.0, 900.0), duration=_later(0.2, 0.4)),
                                     where=InPolicy),
    "action_not_a_number": _action("action_not_a_number", "action_values", _not_a_number),
    "action_jump": _action("action_jump", "target_jump torque", _jump),
    "policy_stall": _silence("policy_stall", lambda rng: float(rng.uniform(0.09, 0.3))),
    "policy_silent": _silence("policy_silent", lambda rng: np.inf),
    "wrong_policy": Kind(_wrong_policy, InPolicy),
    "remote stop B": _button("remote stop B", "B"),
    "remote stop Select": _button("remote stop Select", "Select"),
    "keyboard stop": Kind(_keyboard),
}  # fmt: skip
"""All of them in lock-step; deaths of processes are in `tests/test_processes.py`."""


@dataclass
class Verdict:
    """What became of one fault."""

    kind: str
    at: float
    text: str
    caught_by: list[str] = field(default_factory=list)
    latency: float | None = None
    """From the trip level to the first damping command [s]; None where there was none."""
    latched: bool = False
    """Damping was commanded for as long as it is latched, and nothing stiff after it."""
    early: bool = False
    """Damping came before the fault."""

    @property
    def good(self) -> bool:
        return self.latched and not self.early and self.latency is not None and self.latency <= BUDGET + 1e-9


def draw(kind: str, slots: Sequence[Slot], robot: G1, limits: Limits, rng: np.random.Generator) -> Fault:
    """One fault of that kind at a random time; on a whole state."""
    clip = slots[0].clip
    length = 3.0 if clip is None else clip.duration
    low = START_AT + 0.3 if KINDS[kind].where == InPolicy else 0.5
    at = round(float(rng.uniform(low, START_AT + 0.8 * length)) / PERIOD) * PERIOD
    return KINDS[kind].make(at, robot, limits, rng)


def try_fault(fault: Fault, slots: Sequence[Slot], robot: G1, domain: int, folder: Path, seed: int) -> Verdict:
    """One bout with that fault."""
    limits = Limits()
    expected = fault.at + (fault.reached if fault.reached is not None else FALL)
    nagging = tuple(
        (expected + 0.1 * number, request)
        for number, request in enumerate((Request("stand"), Request("policy", 0), Request("rearm")), 1)
    )
    made = bout(
        slots,
        robot,
        domain,
        expected + AFTER,
        folder,
        fault.events,
        (*fault.requests, *nagging),
        limits,
        NOISE,
        seed,
        fault.disturb,
    )
    run, truth = read_recording(made.recording), read_recording(made.truth)
    caught = [finding.check for finding in made.outcome.trips]
    verdict = Verdict(fault.kind, fault.at, fault.text, caught)
    modes, times = run.channels["command"]["mode"], run.log_times["command"] / 1e9
    damped = np.flatnonzero(modes == Mode.DAMP)
    if not damped.size:
        return verdict
    first = float(times[damped[0]])
    verdict.latched = _latched(modes, times, run.channels["command"], first)
    verdict.early = first < fault.at - 1e-6
    reached = (
        fault.at + fault.reached
        if fault.reached is not None
        else _crossed(truth, limits_of(slots, limits), robot, fault.at)
    )
    if reached is None or first < reached:  # another check was faster than the one that is sure
        reached = min(first, reached or first)
    right = not fault.checks or bool(fault.checks & set(caught))
    verdict.latency = max(first - reached, 0.0) if right else None
    return verdict


def _latched(modes: np.ndarray, times: np.ndarray, command: np.ndarray, first: float) -> bool:
    """Whether nothing but damping was commanded for as long as damping is latched, and nothing stiff ever after: a
    request that comes later may lead to zero torque, and some of the nagging ones do when a robot fell early."""
    held, later = (times >= first) & (times < first + Timing().damp), times >= first
    damping = (modes[held] == Mode.DAMP).all() and (command["damping"][held] > 0).all()
    limp = np.isin(modes[later], (Mode.DAMP, Mode.ZERO_TORQUE)).all() and not command["stiffness"][later].any()
    return bool(damping and limp)


def _crossed(truth: Recording, limits: Limits, robot: G1, after: float) -> float | None:
    """When the robot's true motion first crosses a trip level of tilt, turning, speed or range [s]."""
    state = truth.channels["state"]
    times = state["tick"] / 1000
    tilts = np.array([safety.tilt(q) for q in state["quaternion"]])
    beyond = tilts > limits.tilt.trip
    beyond |= np.linalg.norm(state["angular_velocity"], axis=1) > limits.angular_rate.trip
    beyond |= safety.joint_speed(state["joint_velocity"], robot.speed_limit).max(axis=1) > limits.joint_speed.trip
    out = safety.joint_position(state["joint_position"], robot.lower, robot.upper).max(axis=1)
    beyond |= out > limits.joint_position.trip
    found = np.flatnonzero(beyond & (times >= after))
    return float(times[found[0]]) if found.size else None
