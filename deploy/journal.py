"""What a run writes into its recording, from the same objects in lock-step and in real time."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controllers.recording import Recorder, g1_channels
from controllers.safety import CHECK_NUMBERS, CHECKS, Finding
from deploy.checks import Sample
from deploy.controller import Decision, Plan
from deploy.modes import Command, Mode
from deploy.runner import Answered, Slot


def channels_of(plan: Plan, slots: Sequence[Slot]) -> dict[str, np.dtype]:
    """Layout of all channels of a run."""
    sizes = tuple((slot.spec.observation_size, slot.spec.action_size) for slot in slots)
    return g1_channels(len(plan.robot.joints), sizes)


def facts_of(plan: Plan, slots: Sequence[Slot], more: Mapping[str, Any]) -> dict[str, Any]:
    """What a recording says about its run: no time and no path, so that equal runs are equal files."""
    return {
        "robot": plan.robot.name,
        "joint_names": list(plan.robot.joint_names),
        "modes": {mode.name.lower(): mode.value for mode in Mode},
        "checks": CHECK_NUMBERS,
        "policies": [
            {
                "name": slot.name,
                "spec_sha256": hashlib.sha256(slot.spec.to_json().encode()).hexdigest(),
                "clip": None if slot.clip is None else slot.clip.source,
                "action_names": list(slot.spec.action.names),
            }
            for slot in slots
        ],
        "control_hz": plan.control_hz,
        "limits": dataclasses.asdict(plan.limits),
        "timing": dataclasses.asdict(plan.timing),
        "then": plan.then,
        **more,
    }


def state_record(dtype: np.dtype, sample: Sample) -> np.ndarray:
    return _record(
        dtype,
        tick=sample.tick,
        mode_machine=sample.mode_machine,
        quaternion=sample.quaternion,
        angular_velocity=sample.angular_velocity,
        linear_acceleration=sample.linear_acceleration,
        joint_position=sample.position,
        joint_velocity=sample.velocity,
        joint_torque=sample.torque,
        temperature=sample.temperature.ravel(),
        motor_fault=sample.motor_fault,
        remote=np.frombuffer(sample.remote, np.uint8),
    )


def command_record(dtype: np.dtype, command: Command, tick: int) -> np.ndarray:
    hold = command.hold
    return _record(
        dtype, tick=tick, mode=command.mode, position=hold.position, stiffness=hold.stiffness, damping=hold.damping
    )


def mode_record(dtype: np.dtype, command: Command, tick: int) -> np.ndarray:
    return _record(dtype, tick=tick, mode=command.mode, policy=command.policy)


def fault_record(dtype: np.dtype, finding: Finding, tick: int) -> np.ndarray:
    number = list(CHECKS).index(finding.check)
    return _record(dtype, tick=tick, check=number, level=finding.level, where=finding.where, value=finding.value,
                   limit=finding.limit)  # fmt: skip


def answer_record(dtype: np.dtype, answered: Answered, tick: int) -> np.ndarray:
    return _record(dtype, tick=tick, time=answered.time, observation=answered.observation, action=answered.action)


def base_pose_record(dtype: np.dtype, pose: np.ndarray) -> np.ndarray:
    return _record(dtype, **{name: pose[name] for name in dtype.names or ()})


def _record(dtype: np.dtype, **values: Any) -> np.ndarray:
    made = np.zeros((), dtype)
    for name, value in values.items():
        made[name] = value
    return made


class Journal:
    """The recording of a run in one process."""

    def __init__(self, path: Path, plan: Plan, slots: Sequence[Slot], more: Mapping[str, Any]) -> None:
        self._channels = channels_of(plan, slots)
        self.recorder = Recorder(path, self._channels, facts_of(plan, slots, more))

    def state(self, sample: Sample, now: int, source: int) -> None:
        self.recorder.write("state", state_record(self._channels["state"], sample), now, source)

    def decision(self, decision: Decision, tick: int, now: int) -> None:
        """The command, and what has changed with it."""
        channels, write = self._channels, self.recorder.write
        for finding in decision.risen:
            write("fault", fault_record(channels["fault"], finding, tick), now)
        if decision.changed:
            write("mode", mode_record(channels["mode"], decision.command, tick), now)
        write("command", command_record(channels["command"], decision.command, tick), now)

    def answer(self, which: int, tick: int, answered: Answered, now: int) -> None:
        name = f"policy_{which}"
        self.recorder.write(name, answer_record(self._channels[name], answered, tick), now)

    def base_pose(self, pose: np.ndarray, now: int) -> None:
        """Its own time is the time of its measurement."""
        record = base_pose_record(self._channels["base_pose"], pose)
        self.recorder.write("base_pose", record, now, int(pose["time"]))

    def close(self) -> None:
        self.recorder.close()
