"""The three processes of a run that the robot depends on: writer, policy, guard. `loop.py` starts and watches them.

    writer  500 Hz. Hears the robot, decides (`controller.py`), commands. The only one whose death leaves the robot
            without commands, so:
    guard   does nothing until the writer is dead or hangs; then it damps the robot, for good.
    policy  at the policies' rate, on absolute deadlines. Late or dead, it costs its robot nothing but the policy:
            the writer damps.

Each watches the others by their process descriptors, which tell a death at once, and by heartbeats, which tell a hang.
When the runtime itself is gone, writer and guard damp for `LINGER` and end. When writer and guard are both gone, the
runtime damps (`loop.py`). The guard is in a session of its own, so that a kill of the whole process group leaves it.
When every process is killed, nothing is left but what the robot does without commands.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers import safety
from controllers.recording import layout
from deploy.checks import Sample
from deploy.controller import DAMPING, Controller, Decision, Plan, message_of, sample_of, slots_of
from deploy.fit import WRITE_HZ
from deploy.journal import answer_record, channels_of, command_record, fault_record, mode_record, state_record
from deploy.modes import Answer, Command, Hold, Mode, Request
from deploy.motion_switcher import Watch
from deploy.real_time import FIFO_PRIORITY, demand_real_time, settle
from deploy.runner import Runner, Slot, load_slots
from deploy.shared import Shared
from deploy.wire import G1Link, Network, Peer

PERIOD = 1 / WRITE_HZ  # [s]
SLACK = 1.5  # periods that the writer waits for a state before it commands without one
LINGER = 10.0  # [s] of damping after the runtime is gone
SCAN_EVERY = 50  # commands between two looks at who else may command
LOOK_EVERY = 5  # commands between two looks at the battery and at the motion switcher
REQUESTS = ("stand", "policy", "damp", "rearm")


@dataclass(frozen=True)
class Setup:
    """What a process is given at its start."""

    memory: Path
    plan: Plan
    network: Network
    policies: tuple[Path, ...]
    clips: tuple[Path, ...]
    channels: dict[str, np.dtype]
    """Of `rings_of`."""
    real_time: bool
    """Ask the system for real-time priority and locked memory; fail where it refuses."""


def rings_of(plan: Plan, slots: Sequence[Slot]) -> dict[str, np.dtype]:
    """All rings of a run: the channels of its recording, answers and requests."""
    joints = len(plan.robot.joints)
    return channels_of(plan, slots) | {
        "answer": layout(epoch="int64", position=("float64", joints), finished="bool"),
        "request": layout(kind="uint8", policy="int16"),
    }


class Watched:
    """Other processes, by their number in the shared memory."""

    def __init__(self, shared: Shared, names: Sequence[str]) -> None:
        self._poll = select.poll()
        self._names: dict[int, str] = {}
        self.dead: set[str] = set()
        for name in names:
            try:
                descriptor = os.pidfd_open(shared.get(f"{name}_pid"))
            except ProcessLookupError:
                self.dead.add(name)
                continue
            self._poll.register(descriptor, select.POLLIN)
            self._names[descriptor] = name

    def look(self) -> set[str]:
        """Those that have died so far. Costs microseconds."""
        for descriptor, _ in self._poll.poll(0):
            self.dead.add(self._names[descriptor])
            self._poll.unregister(descriptor)
        return self.dead


def become(name: str, setup: Setup) -> Shared:
    """What every process does first. Signals of the terminal are the runtime's business."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if setup.real_time:
        demand_real_time(FIFO_PRIORITY[name])
    shared = Shared(setup.memory, setup.channels)
    shared.set(f"{name}_pid", os.getpid())
    return shared


def sample_from(record: np.ndarray) -> Sample:
    """The state in a record of the ring `state`."""
    return Sample(
        tick=int(record["tick"]),
        mode_machine=int(record["mode_machine"]),
        quaternion=record["quaternion"],
        angular_velocity=record["angular_velocity"],
        linear_acceleration=record["linear_acceleration"],
        position=record["joint_position"],
        velocity=record["joint_velocity"],
        torque=record["joint_torque"],
        temperature=record["temperature"].reshape(-1, 2),
        motor_fault=record["motor_fault"],
        motor_on=np.ones(len(record["motor_fault"]), dtype=bool),  # is not recorded, and no policy observes it
        remote=record["remote"].tobytes(),
    )


# -- policy ---------------------------------------------------------------------------------------------------------


def policy_process(setup: Setup) -> None:
    """Answer states at the control rate while the writer wants it; end when told, or when the writer is dead."""
    shared = become("policy", setup)
    slots = load_slots(setup.policies, setup.clips, setup.plan.robot)
    runner = Runner(slots, setup.plan.robot)
    shared.set("policy_beat", time.monotonic_ns())
    while not shared.get("writer_pid"):  # it is started last
        time.sleep(0.01)
        if shared.get("stop"):
            return
    watched = Watched(shared, ("writer",))
    rings, channels = shared.rings, setup.channels
    period = 1 / setup.plan.control_hz
    due = time.monotonic()
    settle()
    while not watched.look():
        due += period
        now = time.monotonic()
        if now < due:
            time.sleep(due - now)
        lateness = time.monotonic() - due
        if lateness > period:
            due += lateness  # what was missed stays missed
        shared.set("policy_beat", time.monotonic_ns())
        wanted, epoch = shared.get("wanted"), shared.get("epoch")
        found = rings["state"].latest()
        if wanted < 0 or found is None:
            continue
        sample = sample_from(found["record"])
        if safety.not_finite(sample.quaternion, sample.angular_velocity, sample.position, sample.velocity):
            continue  # the writer trips
        age = (time.time_ns() - int(found["log_time"])) / 1e9
        answered = runner.step(wanted, epoch, sample)
        answer, at = np.zeros((), channels["answer"]), time.time_ns()
        answer["epoch"], answer["position"] = epoch, answered.answer.position
        answer["finished"] = answered.answer.finished
        rings["answer"].push(answer, at, at)
        rings[f"policy_{wanted}"].push(answer_record(channels[f"policy_{wanted}"], answered, sample.tick), at, at)
        latency = np.zeros((), channels["latency"])
        latency["tick"], latency["state_age"], latency["lateness"] = sample.tick, age, lateness
        latency["observe"], latency["inference"] = answered.observe_s, answered.inference_s
        latency["write_lateness"] = shared.get("write_lateness") / 1e9
        shared.set("write_lateness", 0)
        rings["latency"].push(latency, at, at)


# -- writer ---------------------------------------------------------------------------------------------------------


class _Inbox:
    """What the writer hears from the other processes."""

    def __init__(self, shared: Shared) -> None:
        self._rings = shared.rings
        self._requests, self._answers = 0, 0
        self.answer: Answer | None = None

    def request(self) -> Request | None:
        """The newest that has come; damp before everything else."""
        found, self._requests, _ = self._rings["request"].since(self._requests)
        kinds = [REQUESTS[int(row["record"]["kind"])] for row in found]
        if "damp" in kinds:
            return Request("damp")
        return Request(kinds[-1], int(found[-1]["record"]["policy"])) if kinds else None  # type: ignore[arg-type]

    def new_answer(self) -> bool:
        """Whether the policy has answered; the newest answer is kept."""
        if self._rings["answer"].count == self._answers:
            return False
        self._answers = self._rings["answer"].count
        found = self._rings["answer"].latest()
        assert found is not None
        record = found["record"]
        self.answer = Answer(int(record["epoch"]), record["position"], bool(record["finished"]))
        return True


def writer_process(setup: Setup) -> None:
    """Command the robot until told to stop and damped, or until `LINGER` after the runtime is gone."""
    shared = become("writer", setup)
    shared.set("wanted", -1)
    shared.set("mode_machine", -1)
    link = G1Link(setup.network)
    watched = Watched(shared, ("runtime", "policy", "guard"))
    switcher = Watch(link.participant)
    motors, rings, channels = slots_of(setup.plan.robot), shared.rings, setup.channels
    controller, inbox = Controller(setup.plan), _Inbox(shared)
    own = {str(shared.get(f"{name}_pid")) for name in ("runtime", "policy", "guard")}
    message = None
    while message is None:  # nothing is commanded to a robot that was not heard
        message = link.wait_state(0.1)
        shared.set("writer_beat", time.monotonic_ns())
        if shared.get("stop") or "runtime" in watched.look():
            shared.set("writer_done", 1)
            return
    # A first decision is slow, and tidying up too: both before the guard begins to watch, which would take over.
    Controller(setup.plan).decide(time.monotonic(), sample_of(message.data, motors), True, None, None, False)
    settle()
    message = link.wait_state(0.1) or message
    sample = sample_of(message.data, motors)
    shared.set("writer_beat", time.monotonic_ns())
    shared.set("mode_machine", sample.mode_machine)
    gone_at, count, fresh = None, 0, True
    last = time.monotonic()
    while True:
        began = time.monotonic()
        received_at = time.time_ns()
        if fresh:
            rings["state"].push(state_record(channels["state"], sample), message.received_ns, message.source_ns)
        controller.checks.crc(began, link.states.received, link.states.crc_errors, link.states.crc_errors_in_a_row)
        for name in watched.look():
            controller.checks.report(f"{name}_died", 1)
        if link.others.take() is not None or shared.get("taken_over"):
            controller.checks.report("foreign_publisher", 1)
        count += 1
        if count % SCAN_EVERY == 0:
            controller.checks.report("foreign_publisher", len(strangers(link, own)))
        if count % LOOK_EVERY == 0:
            if (battery := link.take_battery()) is not None:
                controller.checks.report("battery", 100.0 - float(battery.data["soc"]))
            controller.checks.report("own_controller", switcher.look(began))
        request = inbox.request()
        if shared.get("stop"):
            request = Request("damp")
        new = inbox.new_answer()
        decision = controller.decide(began, sample, fresh, request, inbox.answer, new)
        if shared.get("taken_over") and decision.command.mode != Mode.DAMP:
            fresh = False
            continue  # it hung between the decision and here, and the guard damps: decide again
        link.publish_command(message_of(decision.command, sample.mode_machine, motors))
        shared.set("writer_beat", time.monotonic_ns())
        shared.set("wanted", controller.machine.wanted)
        shared.set("epoch", controller.machine.epoch)
        shared.set("mode", int(decision.command.mode))
        late = int(1e9 * max(began - last - PERIOD, 0.0))
        if late > shared.get("write_lateness"):
            shared.set("write_lateness", late)
        last = began
        _journal(rings, channels, decision, sample.tick, received_at)

        damped = controller.machine.damped(began)
        if shared.get("stop") and damped:
            break
        if "runtime" in watched.dead:
            gone_at = began if gone_at is None else gone_at
            if began - gone_at >= LINGER:
                break
        found = link.wait_state(max(began + SLACK * PERIOD - time.monotonic(), 0.0))
        fresh = found is not None
        if found is not None:
            message, sample = found, sample_of(found.data, motors)
    shared.set("writer_done", 1)


def strangers(link: G1Link, own: Collection[str]) -> list[Peer]:
    """Living processes that could command this robot, apart from those with these process numbers.

    DDS knows a process that was killed for ten more seconds; and a process that has just come may be known before it
    has said who it is: it counts as soon as it has, and what it commands counts at once."""
    here = socket.gethostname()
    found = []
    for peer in link.foreign_publishers():
        dead = peer.host == here and peer.pid.isdigit() and not Path(f"/proc/{peer.pid}").exists()
        if peer.pid != "unknown" and not dead and peer.pid not in own:
            found.append(peer)
    return found


def _journal(rings: Mapping, channels: Mapping[str, np.dtype], decision: Decision, tick: int, at: int) -> None:
    for finding in decision.risen:
        rings["fault"].push(fault_record(channels["fault"], finding, tick), at, at)
    if decision.changed:
        rings["mode"].push(mode_record(channels["mode"], decision.command, tick), at, at)
    rings["command"].push(command_record(channels["command"], decision.command, tick), at, at)


# -- guard ----------------------------------------------------------------------------------------------------------


def guard_process(setup: Setup) -> None:
    """Wait; damp the robot when the writer dies without having been told to stop, or hangs."""
    os.setsid()
    shared = become("guard", setup)
    link = G1Link(setup.network)
    shared.set("guard_beat", time.monotonic_ns())
    while not shared.get("writer_beat"):
        time.sleep(0.005)
        if shared.get("stop"):
            return
    watched = Watched(shared, ("writer", "runtime"))
    damp = damping_command(setup.plan, 0)
    settle()
    while True:
        shared.set("guard_beat", time.monotonic_ns())
        damp["mode_machine"] = max(shared.get("mode_machine"), 0)
        dead = "writer" in watched.look()
        if dead and shared.get("writer_done"):
            return
        started = shared.get("mode_machine") >= 0
        silent = (time.monotonic_ns() - shared.get("writer_beat")) / 1e9
        hung = started and silent > setup.plan.limits.writer_died.trip
        if dead or hung:
            shared.set("taken_over", 1)
            damp_for(link, damp, lambda: shared.get("stop") or "runtime" in watched.look())
            return
        time.sleep(PERIOD)


def damping_command(plan: Plan, mode_machine: int) -> np.ndarray:
    """The message that only damps a robot with that number."""
    none = np.zeros(len(plan.robot.joints))
    command = Command(Mode.DAMP, -1, Hold(none, none, none + DAMPING))
    return message_of(command, mode_machine, slots_of(plan.robot))


def damp_for(link: G1Link, message: np.ndarray, stop: Callable[[], object], least: float = LINGER) -> None:
    """Send that message at 500 Hz for `least` seconds, and on until told to stop."""
    began = due = time.monotonic()
    while time.monotonic() - began < least or not stop():
        link.publish_command(message)
        due += PERIOD
        time.sleep(max(due - time.monotonic(), 0.0))
