"""A run in lock-step with a virtual robot: one process, driven by the robot's clock, the same bits every time.

Every state is answered by one command that carries its tick in `reserve[0]`; the policy answers every tenth state of
its run (50 Hz). What decides is what decides in real time (`controller.py`, `runner.py`); only the clock, the processes
and their deaths are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controllers import safety
from controllers.safety import TRIP, Finding
from deploy.controller import Controller, Plan, message_of, sample_of, slots_of
from deploy.fit import WRITE_HZ
from deploy.journal import Journal
from deploy.modes import Answer, Mode, Request
from deploy.runner import Runner, Slot
from deploy.wire import G1Link

LONGEST_GAP = 10.0  # [s] between two ticks; more is a tick that is wrong
PATIENCE = 5.0  # [s] of real time without a state, after which the robot has left
BATTERY_EVERY = 25  # states between two looks at the battery


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
    """
    controller, runner = Controller(plan), Runner(slots, plan.robot)
    motors = slots_of(plan.robot)
    journal = Journal(recording, plan, slots, {"lock_step": True}) if recording else None
    period, per_answer = 1 / WRITE_HZ, round(WRITE_HZ / plan.control_hz)
    outcome = Outcome()
    answer, now, last_tick, epoch_at = None, 0.0, None, 0
    epoch = 0
    try:
        while now < duration - 1e-9:
            if not link.states.wait(PATIENCE):
                break
            message = link.states.take()
            controller.checks.crc(now, link.states.received, link.states.crc_errors, link.states.crc_errors_in_a_row)
            if message is None:  # its CRC was wrong, and the robot does not wait for an answer to it
                now += period
                continue
            sample = sample_of(message.data, motors)
            passed = 0.0 if last_tick is None else (sample.tick - last_tick) / 1000
            now += passed if period < passed < LONGEST_GAP else period
            last_tick = sample.tick
            outcome.states += 1
            if link.others.take() is not None:
                controller.checks.report("foreign_publisher", 1)
            if outcome.states % BATTERY_EVERY == 0:
                battery = link.take_battery()
                if battery is not None:
                    controller.checks.report("battery", 100.0 - float(battery.data["soc"]))
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
            request = script(now, machine.mode)
            decision = controller.decide(now, sample, True, request, answer, new)
            command = decision.command
            link.publish_command(message_of(command, sample.mode_machine, motors, sample.tick))
            outcome.mode = command.mode
            for finding in decision.risen:
                if finding.level == TRIP:
                    outcome.trips.append(finding)
                    outcome.tripped_at = now if outcome.tripped_at is None else outcome.tripped_at
            if command.mode == Mode.DAMP and outcome.damped_at is None:
                outcome.damped_at = now
            if journal:
                journal.state(sample, round(1e9 * now), sample.tick * 1_000_000)
                journal.decision(decision, sample.tick, round(1e9 * now))
    finally:
        if journal:
            journal.close()
    return outcome
