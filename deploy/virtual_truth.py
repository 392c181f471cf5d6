"""What the virtual G1 writes down and no robot knows: a recording in the schema of every run, and more.

Channels `state` and `command` hold what healthy sensors measure and what the motors obey, before any fault;
`base_pose`, `truth` and `event` hold the rest. Ticks join them with the recording of the controller.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from controllers.g1 import G1
from controllers.recording import Recorder, g1_channels, layout
from deploy.virtual_body import Body
from deploy.virtual_events import KINDS, Event


class Truth:
    """One recording."""

    def __init__(self, path: Path, robot: G1, slots: np.ndarray, seed: int, lock_step: bool):
        """
        Args:
            path: The file to make.
            robot: The revision.
            slots: Motor slot of each joint, (joints,).
            seed: Goes into the file.
            lock_step: Times are the robot's, so that the same run gives the same file; else Unix.
        """
        joints = len(robot.joints)
        common = g1_channels(joints)
        self._channels = {name: common[name] for name in ("state", "command", "base_pose")} | {
            "truth": layout(
                tick="uint32",
                joint_position=("float64", joints),  # [rad]
                joint_velocity=("float64", joints),  # [rad/s]
                joint_torque=("float64", joints),  # that the motors gave [Nm]
                rope="bool",  # whether the gantry carries
                push=("float64", 3),  # on the torso, world frame [N]
            ),
            # At every beginning; facts["events"] names kinds. joint: -1 where it is about none.
            "event": layout(tick="uint32", kind="uint8", joint="int16", value="float64"),
        }
        facts = {
            "robot": robot.name,
            "joint_names": list(robot.joint_names),
            "simulated": True,
            "events": list(KINDS),
            "seed": seed,
            "lock_step": lock_step,
        }
        self._recorder = Recorder(path, self._channels, facts)
        self._robot, self._slots, self._lock_step = robot, slots, lock_step

    def period(self, state: np.ndarray, motors: np.ndarray | None, body: Body, seconds: float) -> None:
        """The state of now, and the command that led to it.

        Args:
            state: LOW_STATE without faults.
            motors: Rows of MOTOR_COMMAND that are obeyed, (SLOTS,); None when none are.
            body: Where the truth is.
            seconds: Of the robot's time.
        """
        at, tick, truth = self._log_time(seconds), state["tick"], body.truth()
        measured, imu = state["motor_state"][self._slots], state["imu_state"]
        self._write(
            "state",
            at,
            tick=tick,
            mode_machine=state["mode_machine"],
            quaternion=imu["quaternion"],
            angular_velocity=imu["gyroscope"],
            linear_acceleration=imu["accelerometer"],
            joint_position=measured["q"],
            joint_velocity=measured["dq"],
            joint_torque=measured["tau_est"],
            temperature=measured["temperature"].ravel(),
            motor_fault=measured["motorstate"],
            remote=state["wireless_remote"],
        )
        if motors is not None:
            obeyed = motors[self._slots]
            enabled = obeyed["mode"] == 1
            self._write(
                "command",
                at,
                tick=tick,
                position=obeyed["q"],
                velocity=obeyed["dq"],
                torque=obeyed["tau"] * enabled,
                stiffness=obeyed["kp"] * enabled,
                damping=obeyed["kd"] * enabled,
            )
        moving = ("position", "quaternion", "linear_velocity", "angular_velocity")
        self._write("base_pose", at, **{name: truth[name] for name in moving})
        joints = {name: truth[name] for name in ("joint_position", "joint_velocity", "joint_torque")}
        self._write("truth", at, tick=tick, **joints, rope=body.taut, push=body.push_w)

    def event(self, event: Event, seconds: float) -> None:
        """That it begins now."""
        self._write(
            "event",
            self._log_time(seconds),
            tick=round(1e3 * seconds),
            kind=list(KINDS).index(event.kind),
            joint=-1 if event.joint is None else self._robot.joint_names.index(event.joint),
            value=event.value if isinstance(event.value, int | float) else np.nan,
        )

    def close(self) -> None:
        self._recorder.close()

    def _log_time(self, seconds: float) -> int:
        return round(1e9 * seconds) if self._lock_step else time.time_ns()

    def _write(self, channel: str, log_time: int, **values: Any) -> None:
        record = np.zeros((), self._channels[channel])
        for name, value in values.items():
            record[name] = value
        self._recorder.write(channel, record, log_time)
