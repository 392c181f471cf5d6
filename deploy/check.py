"""`deploy check`: everything that would stop a run, before it is tried, each with what to do about it.

It only listens: it creates no publisher of motor commands, so it is also the first contact with a robot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from controllers.g1 import G1, revision
from controllers.safety import CHECKS, TRIP, Limits
from deploy.checks import Checks
from deploy.controller import sample_of, slots_of
from deploy.loop import MODE_MACHINES
from deploy.motion_switcher import MotionSwitcher
from deploy.real_time import real_time_allowed
from deploy.runner import load_slots
from deploy.unitree_hg import BATTERY_STATE, LOW_COMMAND, LOW_STATE, SLOTS
from deploy.wire import (
    BATTERY_TOPIC,
    LOOPBACK,
    LOW_COMMAND_TOPIC,
    LOW_STATE_TOPIC,
    Network,
    Participant,
    WireError,
    check_types,
    dds,
)

HEAR = 3.0  # [s] of listening
FIRST_STATE = 3.0  # [s] to wait for one
STATE_RATE = (450.0, 550.0)  # [Hz]
LATE = 0.005  # [s] that a timer may be late at most 1 time in 100
INFERENCE = 0.002  # [s] at most 1 time in 100 more
TIMED = 200  # repetitions of what is timed

Grade = Literal["good", "warning", "stops a run"]


@dataclass(frozen=True)
class CheckConfig:
    """Say what would stop a run: network, robot, policies, this computer. Listens only."""

    policies: tyro.conf.Positional[tuple[Path, ...]] = ()
    """policy.onnx files that will run."""
    clips: tuple[Path, ...] = ()
    """Their motions: one for each, or one for all."""
    robot: str = "g1_29dof"
    """Revision in front of us."""
    network: Network = Network()  # noqa: RUF009 (frozen)
    """Where it is; the default cannot reach a real robot."""
    limits: Limits = Limits()  # noqa: RUF009 (frozen)
    """Levels of all checks."""
    mode_machine: tuple[int, ...] = tuple(MODE_MACHINES)
    """Numbers of robot revisions that may be commanded."""
    offline: bool = False
    """Only policies and this computer; no robot."""


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    what: str
    grade: Grade
    found: str
    """What it is like, and what to do where it is not good."""


def check_command(config: CheckConfig) -> int:
    """Print what was found. 1 when something would stop a run."""
    table = Table("what", "", "found", show_lines=False)
    colours = {"good": "green", "warning": "yellow", "stops a run": "red"}
    lines = list(look(config))
    for line in lines:
        table.add_row(line.what, f"[{colours[line.grade]}]{line.grade}[/]", line.found)
    Console(width=None if os.isatty(1) else 140).print(table)
    return 1 if any(line.grade == "stops a run" for line in lines) else 0


def look(config: CheckConfig) -> Iterator[Line]:
    """All lines, one after the other."""
    robot = revision(config.robot)
    yield from _computer()
    yield from _policies(config, robot)
    if config.offline:
        return
    joined = _join(config)
    yield from joined.lines
    if joined.participant is not None:
        try:
            yield from _robot(config, robot, joined.participant)
        finally:
            joined.participant.close()


# -- this computer


def _computer() -> Iterator[Line]:
    cores = len(os.sched_getaffinity(0))
    yield Line("cores", "good" if cores >= 2 else "warning", f"{cores}; writer, guard and policy want two or more")
    load = os.getloadavg()[0]
    grade: Grade = "good" if load < cores else "warning"
    yield Line("load", grade, f"{load:.1f} processes want {cores} cores" + ("" if grade == "good" else "; end others"))
    if real_time_allowed():
        yield Line("real-time priority", "good", "allowed (--real-time uses it)")
    else:
        yield Line("real-time priority", "warning", "refused: run as root or `ulimit -r 99`; without, ticks are later")
    late = []
    due = time.monotonic()
    for _ in range(TIMED):
        due += 0.002
        time.sleep(max(due - time.monotonic(), 0))
        late.append(time.monotonic() - due)
    worst = float(np.percentile(late, 99))
    grade = "good" if worst < LATE else "warning"
    yield Line("timer", grade, f"99 of 100 ticks of 2 ms are at most {1e3 * worst:.1f} ms late; {1e3 * LATE:g} is good")


# -- policies


def _policies(config: CheckConfig, robot: G1) -> Iterator[Line]:
    try:
        slots = load_slots(config.policies, config.clips, robot)
    except ValueError as error:
        yield Line("policies", "stops a run", str(error))
        return
    if not slots:
        yield Line("policies", "warning", "none named: the robot can only stand")
    for slot in slots:
        times = []
        memory, observation = slot.policy.reset(1), np.zeros((1, slot.spec.observation_size), np.float32)
        for _ in range(TIMED):
            began = time.perf_counter()
            slot.policy.step(observation, memory)
            times.append(time.perf_counter() - began)
        worst = float(np.percentile(times[TIMED // 10 :], 99))
        said = (
            f"fits {robot.name}, golden actions and golden states replayed; {slot.spec.observation_size} inputs, "
            f"{slot.spec.action_size} joints, {slot.spec.rates.control_hz:g} Hz; inference p99 {1e3 * worst:.2f} ms"
        )
        yield Line(f"policy {slot.name}", "good" if worst < INFERENCE else "warning", said)


# -- network and robot


@dataclass(frozen=True)
class _Joined:
    lines: tuple[Line, ...]
    participant: Participant | None


def _join(config: CheckConfig) -> _Joined:
    """Become a member of the domain, or say why not."""
    network, lines = config.network, []

    def step(what: str, action: Callable[[], object], good: str) -> bool:
        try:
            action()
        except WireError as error:
            lines.append(Line(what, "stops a run", str(error)))
            return False
        lines.append(Line(what, "good", good))
        return True

    if not step("CycloneDDS", dds, "is there and has the type `byte`"):
        return _Joined(tuple(lines), None)
    if not step("message types", check_types, "hash as the robot's"):
        return _Joined(tuple(lines), None)
    state = Path("/sys/class/net") / network.interface / "operstate"
    if not state.is_file():
        have = ", ".join(sorted(path.name for path in state.parent.parent.iterdir()))
        lines.append(Line("interface", "stops a run", f"{network.interface!r} does not exist; there are {have}"))
        return _Joined(tuple(lines), None)
    if network.interface != LOOPBACK and state.read_text().strip() not in ("up", "unknown"):
        lines.append(Line("interface", "stops a run", f"{network.interface} is {state.read_text().strip()}: cable?"))
        return _Joined(tuple(lines), None)
    made: list[Participant] = []
    where = f"{network.interface}, domain {network.domain}"
    if not step("interface", lambda: made.append(Participant(network)), where):
        return _Joined(tuple(lines), None)
    return _Joined(tuple(lines), made[0])


def _robot(config: CheckConfig, robot: G1, participant: Participant) -> Iterator[Line]:
    """What is heard."""
    states = participant.reader(LOW_STATE_TOPIC, LOW_STATE, lossless=True)
    batteries = participant.reader(BATTERY_TOPIC, BATTERY_STATE)
    commands = participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND)
    if not states.wait(FIRST_STATE):
        yield Line(
            "robot",
            "stops a run",
            f"no state within {FIRST_STATE:g} s; other members: {', '.join(map(str, participant.peers())) or 'none'}. "
            "Is it on, is this its network (192.168.123.x on the robot's), does a firewall drop UDP multicast?",
        )
        return
    heard, battery, end = [], None, time.monotonic() + HEAR
    judged, risen = Checks(robot, config.limits), {}
    motors = slots_of(robot)
    while time.monotonic() < end:
        states.wait(0.01)
        for message in states.take_all():
            heard.append(message)
            sent = message.source_ns / 1e9
            found = judged.close(sent, False)[0]  # what the gap before it says
            judged.state(sent, sample_of(message.data, motors))
            for finding in (*found, *judged.close(sent, False)[0]):
                risen[finding.check] = finding
        battery = batteries.take() or battery
    source = np.array([message.source_ns for message in heard]) / 1e9
    rate = (len(source) - 1) / (source[-1] - source[0]) if len(source) > 1 else 0.0
    worst = 1e3 * float(np.diff(source).max(initial=0))
    low, high = STATE_RATE
    said = f"{rate:.0f} per second, largest gap {worst:.0f} ms when sent, {states.crc_errors} with a wrong CRC"
    yield Line("states", "good" if low < rate < high else "warning", said)
    first, last = heard[0].data, heard[-1].data
    advanced = int(last["tick"]) - int(first["tick"])
    yield Line("clock", "good" if advanced > 0 else "stops a run", f"tick went on by {advanced} ms in {HEAR:g} s")
    number = int(last["mode_machine"])
    grade: Grade = "good" if number in config.mode_machine else "stops a run"
    said = f"{number}: {MODE_MACHINES.get(number, 'unknown')}"
    yield Line("mode_machine", grade, said if grade == "good" else f"{said}; allowed: {config.mode_machine}")
    absent = [name for name, slot in zip(robot.joint_names, motors, strict=True) if not _alive(last, int(slot))]
    if absent:
        yield Line("joints", "stops a run", f"{', '.join(absent)} report nothing: is this {robot.name}? (--robot)")
    else:
        yield Line("joints", "good", f"all {len(motors)} of {robot.name} report, of {SLOTS} slots")
    for check, finding in risen.items():
        where = f" ({robot.joint_names[finding.where]})" if finding.where >= 0 else ""
        grade = "stops a run" if finding.level == TRIP else "warning"
        yield Line(check, grade, f"{finding.value:.4g}{where}, limit {finding.limit:.4g}: {CHECKS[check]}")
    if battery is None:
        yield Line("battery", "warning", f"not heard within {HEAR:g} s")
    else:
        charge = int(battery.data["soc"])
        yield Line("battery", "good" if charge > 100 - config.limits.battery.warn else "warning", f"{charge} %")
    remote = any(last["wireless_remote"])
    yield Line("remote", "good" if remote else "warning", "heard" if remote else "not heard: keep another stop at hand")
    others = commands.publishers()
    names = ", ".join(map(str, others))
    yield Line("other commanders", "stops a run" if others else "good", f"{names}: end it" if others else "none")
    yield from _controller(participant)


def _alive(state: np.ndarray, slot: int) -> bool:
    """Whether that motor says anything at all."""
    motor = state["motor_state"][slot]
    return bool(motor["vol"] or motor["q"] or motor["temperature"].any())


def _controller(participant: Participant) -> Iterator[Line]:
    """The robot's own motion controller."""
    try:
        mode = MotionSwitcher(participant, timeout=3.0).check_mode()
    except WireError as error:
        yield Line("motion controller", "warning", f"{error}; bring the robot into debug mode by hand (L2+R2), hoisted")
        return
    if mode.name:
        yield Line(
            "motion controller", "warning", f"{mode.name!r} is active; `deploy run` releases it: hoist the robot"
        )
    else:
        yield Line("motion controller", "good", "none is active")
