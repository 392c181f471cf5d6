"""What happens to a virtual G1 at set times: faults, pushes, buttons of the remote, the gantry.

A script is a JSON list of events. `at` is the robot's time [s]; without `duration` [s] an event lasts to the end, and
without `value` it has the default of its kind:

    [{"at": 2.0, "kind": "press", "value": "Start", "duration": 0.2},
     {"at": 5.0, "kind": "gantry", "value": -0.1, "duration": 2.0},
     {"at": 9.0, "kind": "encoder_jump", "joint": "left_knee_joint", "value": 0.5, "duration": 0.1}]

`KINDS` says what there is. Faults of the same kind on several joints may overlap.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.g1 import G1
from deploy.unitree_hg import BUTTONS, Remote


class ScriptError(ValueError):
    """A script asks for what does not exist."""


@dataclass(frozen=True)
class Kind:
    """Of event."""

    text: str
    """What happens, and what the value means."""
    value: float | None = None
    """The default; None where there is none."""
    of_joint: bool = False
    """Whether it happens to one joint, which must be named."""


KINDS: dict[str, Kind] = {
    # what states say
    "state_frozen": Kind("the same state again and again, its CRC right"),
    "state_stall": Kind("no states at all"),
    "state_loss": Kind("this share of states is lost", 0.5),
    "state_delay": Kind("states arrive this much later [s]", 0.03),
    "state_lag": Kind("states arrive later and later, by so much more each second [s/s]", 0.5),
    "bad_crc": Kind("this share of states has a wrong CRC", 1.0),
    "tick_frozen": Kind("states are fresh but their tick stands"),
    "tick_jump": Kind("ticks are off by so many [ms]", -1000.0),
    "wrong_mode_machine": Kind("states name this other revision of the robot", 6.0),
    # sensors
    "nan": Kind("the angle is not a number", of_joint=True),
    "nan_imu": Kind("the orientation is not a number"),
    "zero_imu": Kind("orientation and rates of the pelvis are all zero"),
    "imu_frozen": Kind("orientation and rates of the pelvis stand"),
    "imu_tilt": Kind("the orientation is tilted forward by so much [rad]", 1.2),
    "gyro_spike": Kind("the pelvis seems to turn by so much more about x [rad/s]", 15.0),
    "torso_imu_lost": Kind("no messages of the torso's IMU"),
    "encoder_jump": Kind("the angle reads so much more [rad]", 0.5, of_joint=True),
    "encoder_frozen": Kind("angle and speed stand", of_joint=True),
    "velocity_spike": Kind("the speed reads so much more [rad/s]", 50.0, of_joint=True),
    # motors and battery
    "overheating": Kind("the motor warms by so much each second [degC/s]", 40.0, of_joint=True),
    "motor_fault": Kind("the motor reports this fault code", 1.0, of_joint=True),
    "motor_dead": Kind(
        "the motor gives no torque, says that it is off, and all else that it says stands", of_joint=True
    ),
    "motor_limp": Kind("the motor gives no torque and does not know it", of_joint=True),
    "low_battery": Kind("the battery reports this charge [%]", 5.0),
    "battery_lost": Kind("no messages of the battery"),
    # commands and others
    "command_loss": Kind("this share of commands is lost", 0.5),
    "command_delay": Kind("commands arrive this much later [s]", 0.03),
    "foreign_publisher": Kind("someone else commands all motors to go limp, so many times a second", 100.0),
    "controller_selected": Kind("another program asks for the robot's own motion controller, and we are ignored"),
    "controller_started": Kind("the same without a word in the network, as by the remote"),
    "remote_lost": Kind("the robot does not hear the remote"),
    "robot_death": Kind("the robot's computer dies: everything ends at once"),
    # the world
    "push": Kind("a horizontal force on the torso, forward [N]", 200.0),
    "push_left": Kind("the same to the left [N]", 200.0),
    # what an operator does; not faults
    "press": Kind("buttons of the remote are held, such as L2+B"),
    "sticks": Kind("sticks of the remote are held: [lx, ly, rx, ry]"),
    "gantry": Kind("the soles go to that height over the floor [m], within the duration", 0.0),
    "release": Kind("the gantry's rope is taken off"),
}
FAULTS = tuple(kind for kind in KINDS if kind not in ("press", "sticks", "gantry", "release"))


@dataclass(frozen=True)
class Event:
    """Something that begins at a time."""

    at: float
    """[s] of the robot's time."""
    kind: str
    """Of KINDS."""
    duration: float = math.inf
    """[s]"""
    value: Any = None
    """Meaning and default as KINDS says."""
    joint: str | None = None
    """Which, for what happens to one joint."""

    def lasts(self, time: float) -> bool:
        """Whether it happens then; an instant later than its end counts as not, despite rounding."""
        return self.at <= time + 1e-9 < self.at + self.duration


def read_script(path: Path, robot: G1) -> tuple[Event, ...]:
    """The events of that file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ScriptError(f"{path}: is not JSON ({error})") from error
    if not isinstance(rows, list):
        raise ScriptError(f"{path}: holds a {type(rows).__name__}; allowed: a list of events")
    return tuple(parse_event(row, f"{path}: event {index}", robot) for index, row in enumerate(rows))


def parse_event(row: Any, where: str, robot: G1, now: float = 0.0) -> Event:
    """The event of that JSON object, checked; `at` is `now` when absent."""
    fields = {"at", "kind", "duration", "value", "joint"}
    if not isinstance(row, dict) or not row.keys() <= fields:
        raise ScriptError(f"{where} is {row!r}; allowed: an object of {', '.join(sorted(fields))}")
    kind = row.get("kind")
    if kind not in KINDS:
        raise ScriptError(f"{where} has kind {kind!r}; allowed: {', '.join(KINDS)}")
    for name in ("at", "duration"):
        number = row.get(name, 0.0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            raise ScriptError(f"{where} has {name} {number!r}; allowed: a number of seconds, 0 or more")
    joint, value = row.get("joint"), row.get("value")
    if KINDS[kind].of_joint != (joint is not None):
        needs = "a joint" if KINDS[kind].of_joint else "no joint"
        raise ScriptError(f"{where} has joint {joint!r}; {kind} has {needs}")
    if joint is not None and joint not in robot.joint_names:
        raise ScriptError(f"{where} has joint {joint!r}; allowed: {', '.join(robot.joint_names)}")
    if kind == "press":
        pressed(value, where)
    elif kind == "sticks":
        if not (isinstance(value, list) and len(value) == 4 and all(_is_number(v) and abs(v) <= 1 for v in value)):
            raise ScriptError(f"{where} has value {value!r}; allowed: [lx, ly, rx, ry], each from -1 to 1")
    elif value is not None and not _is_number(value):
        raise ScriptError(f"{where} has value {value!r}; allowed: a number")
    return Event(float(row.get("at", now)), kind, float(row.get("duration", math.inf)), value, joint)


def pressed(value: Any, where: str) -> frozenset[str]:
    """Buttons from text such as `L2+B`."""
    buttons = frozenset(str(value).split("+"))
    if not buttons <= set(BUTTONS):
        raise ScriptError(f"{where} presses {value!r}; allowed: {', '.join(BUTTONS)}, joined by +")
    return buttons


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Timeline:
    """Events as time goes by."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events: list[Event] = []
        for event in events:
            self.add(event)
        self.begun: list[Event] = []
        """Those that began at the last `advance`."""
        self.active: list[Event] = []
        """Those that happen now, in the order in which they began."""

    def add(self, event: Event) -> None:
        if event.value is None:
            event = dataclasses.replace(event, value=KINDS[event.kind].value)
        self._events = sorted([*self._events, event], key=lambda event: event.at)

    def advance(self, time: float) -> None:
        self.begun = []
        while self._events and self._events[0].at <= time + 1e-9:
            self.begun.append(self._events.pop(0))
        if self.begun or self.active:
            self.active = [event for event in [*self.active, *self.begun] if event.lasts(time)]

    def of(self, kind: str) -> list[Event]:
        """Active events of that kind."""
        return [event for event in self.active if event.kind == kind]

    def value(self, kind: str) -> Any:
        """Of the active event of that kind that began last, True for kinds without; None when there is none."""
        for event in reversed(self.active):
            if event.kind == kind:
                return event.value if event.value is not None else True
        return None

    def remote(self, idle: Remote) -> Remote:
        """What the remote says: all held buttons, and the sticks that were moved last."""
        if not self.active:
            return idle
        buttons = idle.buttons.union(*(pressed(event.value, "") for event in self.of("press")))
        sticks = self.value("sticks") or (idle.lx, idle.ly, idle.rx, idle.ry)
        return Remote(buttons, *sticks)


class FaultySensors:
    """Applies the faults of states to messages that are right."""

    def __init__(self, slots: dict[str, int], rng: np.random.Generator) -> None:
        """
        Args:
            slots: Motor slot by joint name.
            rng: Draws which states have a wrong CRC.
        """
        self._slots, self._rng = slots, rng
        self._held: dict[tuple[str, str | None], Any] = {}
        """What stands since an event began, by kind and joint."""

    def alter(self, state: np.ndarray, timeline: Timeline, time: float) -> None:
        """Change what the state says; all but its CRC."""
        if not timeline.active:
            self._held.clear()
            return
        motors, imu = state["motor_state"], state["imu_state"]
        held: dict[tuple[str, str | None], Any] = {}

        def hold(event: Event, value: Any) -> Any:
            """What `value` was when the event began."""
            key = (event.kind, event.joint)
            held[key] = self._held.get(key, value)
            return held[key]

        for event in timeline.active:
            slot = self._slots.get(event.joint or "", -1)
            if event.kind == "tick_frozen":
                state["tick"] = hold(event, int(state["tick"]))
            elif event.kind == "tick_jump":
                state["tick"] = (int(state["tick"]) + int(event.value)) % 2**32
            elif event.kind == "wrong_mode_machine":
                state["mode_machine"] = int(event.value)
            elif event.kind == "nan":
                motors["q"][slot] = math.nan
            elif event.kind == "nan_imu":
                imu["quaternion"] = math.nan
            elif event.kind == "zero_imu":
                imu["quaternion"], imu["gyroscope"] = 0.0, 0.0
            elif event.kind == "imu_frozen":
                quaternion, rates, rpy = hold(
                    event, (imu["quaternion"].copy(), imu["gyroscope"].copy(), imu["rpy"].copy())
                )
                imu["quaternion"], imu["gyroscope"], imu["rpy"] = quaternion, rates, rpy
            elif event.kind == "imu_tilt":
                imu["quaternion"] = _pitched(imu["quaternion"], event.value)
            elif event.kind == "gyro_spike":
                imu["gyroscope"][0] += event.value
            elif event.kind == "encoder_jump":
                motors["q"][slot] += event.value
            elif event.kind == "encoder_frozen":
                motors["q"][slot] = hold(event, float(motors["q"][slot]))
                motors["dq"][slot] = 0.0
            elif event.kind == "velocity_spike":
                motors["dq"][slot] += event.value
            elif event.kind == "overheating":
                motors["temperature"][slot] += round(event.value * (time - event.at))
            elif event.kind == "motor_fault":
                motors["motorstate"][slot] = int(event.value)
            elif event.kind == "motor_dead":
                motors[slot] = hold(event, motors[slot].copy())
                motors["mode"][slot], motors["tau_est"][slot] = 0, 0.0
        self._held = held

    def breaks_crc(self, timeline: Timeline) -> bool:
        share = timeline.value("bad_crc")
        return share is not None and self._rng.random() < share


def _pitched(quaternion: np.ndarray, angle: float) -> np.ndarray:
    """The orientation wxyz, turned by that angle about the body's y axis."""
    w, x, y, z = quaternion
    cosine, sine = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([w * cosine - y * sine, x * cosine - z * sine, y * cosine + w * sine, z * cosine + x * sine])


class DelayLine:
    """Messages on their way: each may be lost, and the others come out later, in order."""

    def __init__(self, delay: float, jitter: float, loss: float, rng: np.random.Generator) -> None:
        """
        Args:
            delay: Of every message [s].
            jitter: Largest further delay [s], drawn evenly.
            loss: Share of messages that are lost.
            rng: Draws both.
        """
        for name, number in (("delay", delay), ("jitter", jitter), ("loss", loss)):
            if not 0 <= number <= (1 if name == "loss" else math.inf):
                raise ScriptError(f"{name} is {number:g}; allowed: 0 or more, and a loss of at most 1")
        self._delay, self._jitter, self._loss, self._rng = delay, jitter, loss, rng
        self._waiting: list[tuple[float, Any]] = []

    def put(self, item: Any, time: float, more_delay: float = 0.0, more_loss: float = 0.0) -> None:
        loss = 1 - (1 - self._loss) * (1 - more_loss)
        if loss and self._rng.random() < loss:
            return
        due = time + self._delay + more_delay
        if self._jitter:
            due += self._jitter * self._rng.random()
        if self._waiting:
            due = max(due, self._waiting[-1][0])  # nothing overtakes
        self._waiting.append((due, item))

    def due(self, time: float) -> list[Any]:
        """What arrives by then, in order."""
        arrived = []
        while self._waiting and self._waiting[0][0] <= time + 1e-9:
            arrived.append(self._waiting.pop(0)[1])
        return arrived
