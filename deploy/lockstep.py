"""A run in lock-step with a virtual robot: one process, driven by the robot's clock, the same bits every time.

Every state is answered by one command that carries its tick in `reserve[0]`; the policy answers every tenth state of
its run (50 Hz). The clock is the robot's: its time when it sent a state is the message's source time stamp, while the
tick says when it measured it. What decides is what decides in real time (`controller.py`, `runner.py`); only the clock,
the processes and their deaths are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controllers import safety
from controllers.safety import TRIP, Finding
from deploy.base_pose import PoseReceiver
from deploy.checks import Sample
from deploy.controller import Controller, Decision, Plan, message_of, sample_of, slots_of
from deploy.fit import WRITE_HZ
from deploy.journal import Journal
from deploy.modes import Answer, Mode, Request
from deploy.motion_switcher import Watch
from deploy.runner import Runner, Slot
from deploy.wire import G1Link

PATIENCE = 5.0  # [s] of real time without a state, after which the robot has left
LOOK_EVERY = 5  # states between two looks at the battery and at the motion switcher


@dataclass
class Outcome:
    """How a run went."""

    mode: Mode = Mode.ZERO_TORQUE
    states: int = 0
    trips: list[Finding] = field(default_factory=list)
    tripped_at: float | None = None
    """When the first check tripped [s], by the clock of the run."""
    damped_at: float | None = None
    """When damp was commanded first [s]."""
    finished: bool = False
    """A policy came to the end of its motion."""


Script = Callable[[float, Mode], Request | None]
"""What the operator asks for at this time of the run [s] in this mode."""


def run_lock_step(
    link: G1Link,
    plan: Plan,
    slots: Sequence[Slot],
    script: Script,
    duration: float,
    recording: Path | None = None,
    disturb: Callable[[float, Answer | None], Answer | None] | None = None,
    poses: PoseReceiver | None = None,
) -> Outcome:
    """Answer states until `duration` [s] of the robot's time is over or the robot has left.

    Args:
        link: To a virtual robot in lock-step, lossless; its motion controller has been released.
        plan: Of the run.
        slots: The policies.
        script: The operator.
        duration: Of the run.
        recording: File to write.
        disturb: Changes what the policy answers, for tests of what follows.
        poses: Of the pelvis, to be recorded.
    """
    controller, runner = Controller(plan), Runner(slots, plan.robot)
    switcher = Watch(link.participant)
    motors = slots_of(plan.robot)
    journal = Journal(recording, plan, slots, {"lock_step": True}) if recording else None
    period, per_answer = 1 / WRITE_HZ, round(WRITE_HZ / plan.control_hz)
    outcome = Outcome()
    answer: Answer | None = None
    sample: Sample | None = None
    now, epoch, epoch_at = 0.0, 0, 0
    origin: int | None = None  # source time of the first state [ns]

    def note(decision: Decision, tick: int) -> None:
        outcome.mode = decision.command.mode
        trips = [finding for finding in decision.risen if finding.level == TRIP]
        outcome.trips += trips
        if trips and outcome.tripped_at is None:
            outcome.tripped_at = now
        if outcome.mode == Mode.DAMP and outcome.damped_at is None:
            outcome.damped_at = now
        if journal:
            journal.decision(decision, tick, round(1e9 * now))

    try:
        while now < duration - 1e-9:
            if not link.states.wait(PATIENCE):
                break
            message = link.states.take()
            controller.checks.crc(now, link.states.received, link.states.crc_errors, link.states.crc_errors_in_a_row)
            if message is None:  # its CRC was wrong; the next good state says how much time has passed
                continue
            before, sample = sample, sample_of(message.data, motors)
            if before is not None and outcome.states == 1 and sample.tick == before.tick:
                continue  # a robot that waits to be heard says its first state again and again
            origin = message.source_ns if origin is None else origin
            sent = (message.source_ns - origin) / 1e9 + period
            while before is not None and now + 1.5 * period < sent:
                # In real time the writer would have decided without a state, and the robot would have obeyed.
                now += period
                note(controller.decide(now, before, False, None, answer), before.tick)
            now = sent
            outcome.states += 1
            if link.others.take() is not None:
                controller.checks.report("foreign_publisher", 1)
            if outcome.states % LOOK_EVERY == 0:
                battery = link.take_battery()
                if battery is not None:
                    controller.checks.report("battery", 100.0 - float(battery.data["soc"]))
                controller.checks.report("own_controller", switcher.look(now))
            new = False
            machine = controller.machine
            if machine.wanted >= 0:
                if machine.epoch != epoch:
                    epoch, epoch_at = machine.epoch, outcome.states
                due = (outcome.states - epoch_at) % per_answer == 0
                if due and not safety.not_finite(sample.quaternion, sample.position, sample.velocity):
                    answered = runner.step(machine.wanted, epoch, sample)
                    answer, new = answered.answer, True
                    if disturb is not None:
                        answer = disturb(now, answer)
                        new = answer is not None
                    outcome.finished |= answered.answer.finished
                    if journal:
                        journal.answer(machine.wanted, sample.tick, answered, round(1e9 * now))
            if journal:
                journal.state(sample, round(1e9 * now), sample.tick * 1_000_000)
                for pose, _ in poses.take_all() if poses else ():
                    journal.base_pose(pose, round(1e9 * now))
            decision = controller.decide(now, sample, True, script(now, machine.mode), answer, new)
            link.publish_command(message_of(decision.command, sample.mode_machine, motors, sample.tick))
            note(decision, sample.tick)
    finally:
        if journal:
            journal.close()
    return outcome
