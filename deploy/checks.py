"""All checks of one robot over time: what `controllers/safety.py` judges at one moment, with the clocks and counters
that some of them need.

    checks.state(now, sample)      when a state has arrived
    checks.answer(now, position)   when the policy has answered
    checks.command(hold, sample)   what is about to be commanded
    checks.motors(now, hold, sample)   what the motors make of what was commanded before
    checks.report("foreign_publisher", count)   what others have noticed
    findings = checks.close(now)   once per command: every check whose level has risen, and whether any trips

Time is any clock that does not go back [s].
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers import safety
from controllers.g1 import G1
from controllers.safety import CHECKS, FINE, TRIP, Finding, Limits, judge
from deploy.modes import Hold

Array = NDArray[np.floating]

ASKED, GIVEN = 0.1, 0.02  # of a joint's torque limit: more than that is some, less than this is none
LONGEST = 0.01  # [s] that one state may stand for
DRIFT = 1e-3  # that the robot's clock may run slower than ours, so that this is not taken for a lag that grows
REMEMBER = 1.0  # [s] for which a level is held, so that one that flickers is said once


@dataclass(frozen=True)
class Sample:
    """One state of the robot, joints in the robot's order, (N,)."""

    tick: int
    """[ms] of the robot's clock."""
    mode_machine: int
    quaternion: Array
    """(4,)"""
    angular_velocity: Array
    """(3,) [rad/s]"""
    linear_acceleration: Array
    """(3,) [m/s^2]"""
    position: Array
    """[rad]"""
    velocity: Array
    """[rad/s]"""
    torque: Array
    """[Nm]"""
    temperature: NDArray[np.integer]
    """(N, 2) [degrees Celsius]"""
    motor_fault: NDArray[np.integer]
    """Codes; 0 is none."""
    motor_on: NDArray[np.bool_]
    """Whether the motor says that it is enabled."""
    remote: bytes
    """40 bytes; all zero when the robot does not hear it."""


class Checks:
    """Of one run. A trip is said at every `close` while it lasts; latching it is the mode's business."""

    def __init__(self, robot: G1, limits: Limits) -> None:
        self.limits = limits
        self._lower, self._upper = robot.lower, robot.upper
        self._speed, self._torque = robot.speed_limit, robot.torque_limit
        self._findings: dict[str, Finding] = {}
        self._held: dict[str, tuple[int, float]] = {}  # level and until when
        self._state_at: float | None = None
        self._tick_at = self._imu_at = self._remote_at = 0.0
        self._last: Sample | None = None
        self._target: Array | None = None
        self._on_at = np.full(len(robot.joints), np.inf)  # when each motor said last that it was on; never
        self._quickest: tuple[float, float] | None = None  # when, and how far our clock was ahead of the tick then [s]
        self._limp = np.zeros(len(robot.joints))  # for how long each motor has given nothing where it was asked [s]
        self._motors_at = 0.0
        self._remote_heard = False
        self._errors: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])  # time, received, wrong

    def state(self, now: float, sample: Sample) -> None:
        """Judge a state that has just arrived."""
        limits, last = self.limits, self._last
        if last is None or sample.tick != last.tick:
            self._tick_at = now
            self._judge("state_lag", self._lag(now, sample.tick))
        imu = (sample.quaternion, sample.angular_velocity)  # an accelerometer may go on without them
        if last is None or any(
            a.tobytes() != b.tobytes() for a, b in zip(imu, (last.quaternion, last.angular_velocity), strict=True)
        ):
            self._imu_at = now
        if any(sample.remote):
            self._remote_at, self._remote_heard = now, True
        self._judge(
            "state_values",
            safety.not_finite(*imu, sample.linear_acceleration, sample.position, sample.velocity, sample.torque),
        )
        self._judge("quaternion_length", safety.quaternion_length(sample.quaternion))
        self._judge("tilt", safety.tilt(sample.quaternion))
        self._judge("angular_rate", safety.angular_rate(sample.angular_velocity))
        self._judge("joint_speed", safety.joint_speed(sample.velocity, self._speed))
        self._judge("joint_position", safety.joint_position(sample.position, self._lower, self._upper))
        self._judge("temperature", sample.temperature.max(axis=1))
        self._judge("motor_fault", sample.motor_fault != 0)
        self._on_at[sample.motor_on] = now
        self._judge("motor_off", now - self._on_at)
        if last is not None:
            self._judge("mode_machine", float(sample.mode_machine != last.mode_machine))
            passed = (sample.tick - last.tick) / 1000
            if 0 < passed <= limits.stale_state.trip:
                moved = np.abs(sample.position - last.position) / passed
                self._judge("position_jump", safety.joint_speed(moved, self._speed))
        self._state_at = now
        self._last = sample

    def _lag(self, now: float, tick: int) -> float:
        """How much later than the quickest state this one comes after its tick [s]. Our clock's lead over the tick is
        what sets the two clocks apart, and the time on the way; its least is kept, and may rise by `DRIFT`."""
        ahead = now - tick / 1000
        if self._quickest is not None:
            at, least = self._quickest
            ahead_least = least + DRIFT * (now - at)
            if ahead >= ahead_least:
                self._quickest = now, ahead_least
                return ahead - ahead_least
        self._quickest = now, ahead
        return 0.0

    def crc(self, now: float, received: int, wrong: int, row: int) -> None:
        """Judge the checksums: messages so far, those that were wrong, and wrong ones in a row."""
        self._judge("crc_row", row)
        while len(self._errors) > 1 and now - self._errors[1][0] > 1.0:
            self._errors.popleft()
        _, before, wrong_before = self._errors[0]
        if received > before:
            self._judge("crc_share", (wrong - wrong_before) / max(received - before, 100))
        if received > self._errors[-1][1]:
            self._errors.append((now, received, wrong))

    def answer(self, position: Array) -> None:
        """Judge the targets of a policy's new answer [rad], (N,)."""
        bad = safety.not_finite(position)
        self._judge("action_values", bad)
        if self._target is not None and not bad:
            self._judge("target_jump", safety.target_jump(position, self._target))
        self._target = position

    def new_policy(self) -> None:
        """Forget the targets of the policy before."""
        self._target = None

    def command(self, hold: Hold, sample: Sample) -> None:
        """Judge what is about to be commanded, before it is held within the limits."""
        wanted = safety.torque(hold.position, sample.position, sample.velocity, hold.stiffness, hold.damping)
        self._judge("torque", np.abs(wanted) / self._torque)

    def motors(self, now: float, hold: Hold | None, sample: Sample) -> None:
        """Judge the torque that the motors report [Nm] against their law for what was commanded before this state; None
        where they hold nothing.

        How much they give is not compared: a state is some milliseconds old, in which stiff arms change their torque by
        a third of their limit. A motor that lives gives something at one moment or another; that sets it back to 0."""
        passed, self._motors_at = min(now - self._motors_at, LONGEST), now
        if hold is None:
            self._limp[:] = 0.0
            return
        wanted = safety.torque(hold.position, sample.position, sample.velocity, hold.stiffness, hold.damping)
        idle = np.abs(sample.torque) <= GIVEN * self._torque
        self._limp[~idle] = 0.0
        self._limp[idle & (np.abs(wanted) > ASKED * self._torque)] += passed
        self._judge("motor_torque", self._limp)

    def report(self, check: str, value: float) -> None:
        """Judge what others have noticed."""
        self._judge(check, value)

    def close(self, now: float, remote_needed: bool) -> tuple[list[Finding], bool, bool]:
        """Judge the clocks, and forget this moment.

        Args:
            now: The moment.
            remote_needed: Whether a policy runs that the operator steers.

        Returns:
            Checks whose level has risen; whether any trips; whether the remote is lost, which trips nothing else.
        """
        if self._state_at is not None:
            self._judge("stale_state", now - self._state_at)
            self._judge("frozen_tick", self._state_at - self._tick_at)
            self._judge("frozen_imu", self._state_at - self._imu_at)
        if self._remote_heard and remote_needed:
            self._judge("remote_lost", now - self._remote_at)
        lost = self._findings.pop("remote_lost", None)
        tripped = any(finding.level == TRIP for finding in self._findings.values())
        if lost is not None:
            self._findings["remote_lost"] = lost
        risen = []
        for name, finding in self._findings.items():
            held, until = self._held.get(name, (FINE, now))
            if now >= until:
                held = FINE
            if finding.level > held:
                risen.append(finding)
            if finding.level >= held and finding.level > FINE:
                self._held[name] = (finding.level, now + REMEMBER)
        self._findings = {}
        return risen, tripped, lost is not None and lost.level == TRIP

    def _judge(self, check: str, values: object) -> None:
        """Keep the worst finding of this moment."""
        assert check in CHECKS
        finding = judge(check, np.asarray(values, dtype=float), getattr(self.limits, check, ALWAYS))
        before = self._findings.get(check)
        if before is None or finding.level > before.level:
            self._findings[check] = finding


ALWAYS = safety.Level(0.5, 0.5)
"""Of checks that say yes or no, such as whether a process has died."""
