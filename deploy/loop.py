"""`deploy run` in real time: prepare, start the three processes of `processes.py`, pass on what the operator wants,
record, and end with the robot damped.

Nothing moves before the policies fit the robot, the robot was heard, its revision is known, its own motion controller
has let go and nobody else can command it. Nothing starts by itself: the robot has no torque until the operator says so.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import tyro

from controllers.g1 import revision
from controllers.recording import Recorder
from controllers.safety import CHECKS, TRIP, Limits
from deploy.base_pose import DATAGRAM, PoseReceiver
from deploy.controller import Plan
from deploy.journal import base_pose_record, channels_of, facts_of
from deploy.modes import KEYS, Mode, Request, Timing
from deploy.motion_switcher import MotionSwitcher
from deploy.processes import (
    LINGER,
    REQUESTS,
    Setup,
    damp_for,
    damping_command,
    guard_process,
    policy_process,
    rings_of,
    strangers,
    writer_process,
)
from deploy.runner import gains_of, limits_of, load_slots, stand_of
from deploy.shared import Shared
from deploy.wire import G1Link, Network, WireError

MODE_MACHINES = {0: "a simulator", 4: "23 joints", 5: "29 joints", 6: "29 joints, waist locked or revised"}
"""Numbers that robots give for their revision, as users have reported them."""
START_TIMEOUT = 60.0  # [s] for the processes to load
HEAR_TIMEOUT = 5.0  # [s] for the robot to be heard
DISCOVERY = 1.5  # [s] for which others who may command the robot are looked for: DDS hears of them one by one
SERVICE_TIMEOUT = 15.0  # [s] for an answer; DDS takes ten to forget a client that was killed, and may wait for it
TICK = 0.01  # [s] between two looks of the runtime


class RunError(ValueError):
    """A run cannot begin, or did not end as it should; one sentence."""


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run."""

    policies: tyro.conf.Positional[tuple[Path, ...]] = ()
    """policy.onnx files of `deploy adopt` or `sim train`; keys 1, 2, ... start them. Without, the robot only stands."""
    clips: tuple[Path, ...] = ()
    """The motion of each policy that tracks one (clip.npz): one for each, or one for all."""
    then: int | None = None
    """Key of the policy that balances: it takes over where another's motion has ended. Without, the robot goes to the
    stand, a pose in which it falls unless something holds it."""
    robot: str = "g1_29dof"
    """Revision in front of us."""
    network: Network = Network()  # noqa: RUF009 (frozen)
    """Where it is; the default cannot reach a real robot."""
    limits: Limits = Limits()  # noqa: RUF009 (frozen)
    """Levels of all checks."""
    timing: Timing = Timing()  # noqa: RUF009 (frozen)
    """Of the transitions."""
    recording: Path | None = None
    """File to make (.mcap); runs/deploy/DATE_TIME.mcap when absent."""
    mode_machine: tuple[int, ...] = tuple(MODE_MACHINES)
    """Numbers of robot revisions that may be commanded."""
    release: bool = True
    """Ask the robot's own motion controller to let go; it then goes limp, so it must hang or lie."""
    base_pose: str | None = None
    """HOST:PORT at which poses of the pelvis arrive from motion capture or odometry, to be recorded; see
    `deploy/base_pose.py`."""
    real_time: bool = False
    """Ask the system for real-time priority and locked memory."""
    keys: str = ""
    """Keys to press by themselves, such as `1:s,6:1,20:d`: seconds since the robot was heard, and the key."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    mode: Mode
    tripped: tuple[str, ...]
    """Checks that tripped."""
    recording: Path
    records: dict[str, int]
    missed: int
    """Records that were overwritten before they were recorded."""


def plan_of(config: RunConfig) -> tuple[Plan, tuple]:
    """The plan and the policies. Raises ValueError for what does not fit the robot, before anything is started."""
    robot = revision(config.robot)
    slots = load_slots(config.policies, config.clips, robot)
    control_hz = slots[0].spec.rates.control_hz if slots else 50.0
    policies = tuple(gains_of(slot, robot) for slot in slots)
    if config.then is not None and not 1 <= config.then <= len(slots):
        raise RunError(
            f"--then is {config.then} and the run has {len(slots)} policies; allowed: the key of one of them"
        )
    plan = Plan(
        robot,
        stand_of(slots, robot),
        policies,
        control_hz,
        limits_of(slots, config.limits),
        config.timing.check(),
        None if config.then is None else config.then - 1,
    )
    return plan, slots


def run_command(config: RunConfig) -> int:
    """Run, and say where the recording is. 1 when a check tripped."""
    ended = run(config)
    print(f"{ended.recording}: " + ", ".join(f"{count} {name}" for name, count in ended.records.items() if count))
    if ended.missed:
        print(f"{ended.missed} records were not written: this computer was too busy")
    return 1 if ended.tripped else 0


def run(config: RunConfig, say: Callable[[str], None] = print) -> Ended:
    """Run until the operator ends it, or something trips and the robot has been damped.

    Args:
        config: The run.
        say: Takes lines for the operator.
    """
    pressed = _scripted(config.keys)
    plan, slots = plan_of(config)
    path = config.recording or Path("runs/deploy") / time.strftime("%Y-%m-%d_%H%M%S.mcap")
    poses = PoseReceiver(config.base_pose) if config.base_pose else None
    link = G1Link(config.network)
    try:
        facts = _meet(link, config, say)
    except BaseException:
        link.close()
        raise
    names = channels_of(plan, slots)
    recorder = Recorder(path, names, facts_of(plan, slots, facts | {"lock_step": False}))
    shared = Shared.create(rings_of(plan, slots))
    shared.set("runtime_pid", os.getpid())
    setup = Setup(shared.path, plan, config.network, config.policies, config.clips, rings_of(plan, slots),
                  config.real_time)  # fmt: skip
    processes = _start(setup, shared)
    shared.remove()
    say("processes: " + ", ".join(f"{name} {process.pid}" for name, process in processes.items()))
    say(f"recording into {path}; keys: s stand, 1-9 policy, space or d damp, z arm again, q end")
    drain = _Drain(shared, recorder, tuple(names), say, poses)
    interrupted: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: interrupted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    began = heard = time.monotonic()
    try:
        with _keyboard() as key:
            while processes["writer"].is_alive() or processes["guard"].is_alive():
                now = time.monotonic()
                if shared.get("mode_machine") < 0:
                    heard = now
                for at, name in [(at, name) for at, name in pressed if now - heard >= at]:
                    pressed.remove((at, name))
                    _press(shared, name, say)
                while (name := key()) is not None:
                    _press(shared, name, say)
                if interrupted:
                    shared.set("stop", 1)
                drain.once()
                if not processes["writer"].is_alive() and not shared.get("writer_done"):
                    if drain.note("writer_died"):
                        say("the writer has died; the guard damps the robot")
                        began = now
                    if now - began >= plan.timing.damp:
                        shared.set("stop", 1)
                time.sleep(TICK)
        if not shared.get("writer_done") and processes["guard"].exitcode != 0 and shared.get("mode_machine") >= 0:
            drain.once()
            drain.note("writer_died")
            drain.note("guard_died")
            say(f"writer and guard have died; the runtime damps the robot for {LINGER:g} s")
            began = time.monotonic()
            damp_for(
                link,
                damping_command(plan, shared.get("mode_machine")),
                lambda: interrupted or time.monotonic() - began >= LINGER,
                plan.timing.damp,
            )
    finally:
        shared.set("stop", 1)
        for process in processes.values():
            process.join(5.0 + plan.timing.damp)
        for number, handler in previous.items():
            signal.signal(number, handler)
        drain.once()
        recorder.close()
        if poses is not None:
            poses.close()
        link.close()
    return Ended(Mode(shared.get("mode")), tuple(drain.tripped), path, drain.records, drain.missed)


def _meet(link: G1Link, config: RunConfig, say: Callable[[str], None]) -> dict[str, object]:
    """Hear the robot and make sure that we alone may command it; what is known about it."""
    message = link.wait_state(HEAR_TIMEOUT)
    if message is None:
        raise RunError(
            f"no state within {HEAR_TIMEOUT:g} s on {config.network.interface!r}, domain {config.network.domain}: is "
            "the robot on, and is this the right interface? `deploy check` looks for the cause"
        )
    number = int(message.data["mode_machine"])
    if number not in config.mode_machine:
        raise RunError(f"the robot says mode_machine {number}; allowed: {config.mode_machine} (--mode-machine)")
    say(f"robot heard: mode_machine {number} ({MODE_MACHINES.get(number, 'unknown')})")
    if config.release:
        for name in _released(MotionSwitcher(link.participant)):
            say(f"the robot's motion controller {name!r} has let go")
    until = time.monotonic() + DISCOVERY
    while time.monotonic() < until:
        if others := strangers(link, ()):
            raise RunError(f"{', '.join(map(str, others))} can command this robot too; end it first")
        time.sleep(TICK)
    return {"mode_machine": number, "interface": config.network.interface, "domain": config.network.domain}


def _released(switcher: MotionSwitcher) -> list[str]:
    """Motion controllers that have let go. An answer is lost when the service did not know us yet, so a question that
    is not answered is asked again until `SERVICE_TIMEOUT`."""
    deadline = time.monotonic() + SERVICE_TIMEOUT
    while True:
        try:
            return [mode.name for mode in switcher.release()]
        except WireError:
            if time.monotonic() > deadline:
                raise


def _start(setup: Setup, shared: Shared) -> dict[str, BaseProcess]:
    """Policy and guard first, the writer when both are ready."""
    context = multiprocessing.get_context("spawn")
    mains = {"policy": policy_process, "guard": guard_process, "writer": writer_process}
    made: dict[str, BaseProcess] = {}
    for name, main in mains.items():
        made[name] = context.Process(target=main, args=(setup,), name=f"deploy-{name}")
        if name == "writer":
            _await(lambda: bool(shared.get("policy_beat") and shared.get("guard_beat")), made, shared)
        made[name].start()
    _await(lambda: bool(shared.get("writer_beat")), made, shared)
    return made


def _await(ready: Callable[[], bool], processes: dict, shared: Shared) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        died = [name for name, process in processes.items() if process.pid and not process.is_alive()]
        if died or time.monotonic() > deadline:
            shared.set("stop", 1)
            shared.remove()
            raise RunError(f"{' and '.join(died) or 'a process'} did not start; what it said is above")
        time.sleep(0.01)


def _scripted(text: str) -> list[tuple[float, str]]:
    """Keys and their times from text such as `1:s,6:1`."""
    pressed = []
    for part in filter(None, text.split(",")):
        seconds, _, key = part.partition(":")
        if key not in (*KEYS, "q") or not seconds.replace(".", "", 1).isdigit():
            raise RunError(f"--keys has {part!r}; allowed: seconds:key with a key of {', '.join((*KEYS, 'q'))}")
        pressed.append((float(seconds), key))
    return pressed


def _press(shared: Shared, key: str, say: Callable[[str], None]) -> None:
    if key == "q":
        shared.set("stop", 1)
    elif key in KEYS:
        push_request(shared, KEYS[key])
    else:
        say(f"key {key!r} means nothing; keys are {', '.join(map(repr, KEYS))}, 'q'")


def push_request(shared: Shared, request: Request) -> None:
    """Ask the writer."""
    record = np.zeros((), shared.rings["request"].layout)
    record["kind"], record["policy"] = REQUESTS.index(request.kind), request.policy
    shared.rings["request"].push(record, time.time_ns(), 0)


class _Drain:
    """Moves what the processes have pushed into the recording, and says what the operator must know."""

    def __init__(self, shared: Shared, recorder: Recorder, names: tuple[str, ...], say: Callable[[str], None],
                 poses: PoseReceiver | None = None) -> None:  # fmt: skip
        self._shared, self._recorder, self._say, self._poses = shared, recorder, say, poses
        self._seen = dict.fromkeys((name for name in names if name in shared.rings), 0)
        self._noted: set[str] = set()
        self.records = dict.fromkeys(self._seen, 0)
        self.missed = 0
        self.tripped: list[str] = []

    def once(self) -> None:
        for name in self._seen:
            found, self._seen[name], missed = self._shared.rings[name].since(self._seen[name])
            self.missed += missed
            self.records[name] += len(found)
            for row in found:
                self._recorder.write(name, row["record"], int(row["log_time"]), int(row["publish_time"]))
                if name == "fault":
                    self._fault(row["record"])
                elif name == "mode":
                    self._say(f"mode: {Mode(int(row['record']['mode'])).name.lower().replace('_', ' ')}")
        if self._poses is not None:
            self._take_poses(self._poses)
        self._recorder.flush_when_due()

    def _take_poses(self, poses: PoseReceiver) -> None:
        dtype = self._recorder.dtype("base_pose")
        for pose, at in poses.take_all():
            if not self.records["base_pose"]:
                self._say("poses of the pelvis arrive and are recorded")
            self.records["base_pose"] += 1
            self._recorder.write("base_pose", base_pose_record(dtype, pose), at, int(pose["time"]))
        if poses.refused and "base_pose" not in self._noted:
            self._noted.add("base_pose")
            self._say(
                f"what arrives at the port for poses is none: {DATAGRAM.itemsize} bytes with a unit quaternion are"
            )

    def note(self, what: str) -> bool:
        """Whether this is new; it counts as a trip."""
        if what in self._noted:
            return False
        self._noted.add(what)
        self.tripped.append(what)
        return True

    def _fault(self, record: np.ndarray) -> None:
        check = list(CHECKS)[int(record["check"])]
        where = f", joint {int(record['where'])}" if record["where"] >= 0 else ""
        kind = "TRIP" if record["level"] == TRIP else "warning"
        self._say(f"{kind}: {check}{where} is {record['value']:.4g}, limit {record['limit']:.4g} ({CHECKS[check]})")
        if record["level"] == TRIP:
            self.note(check)


@contextmanager
def _keyboard() -> Iterator[Callable[[], str | None]]:
    """Gives the next key that was pressed, without waiting; none ever where there is no terminal."""
    if not sys.stdin.isatty():
        yield lambda: None
        return
    settings = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield lambda: os.read(sys.stdin.fileno(), 1).decode() if select.select([sys.stdin], [], [], 0)[0] else None
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
