"""What is decided at every command: checks, mode, limits. One robot, no clock of its own, no network.

`loop.py` gives it states, requests and answers, and sends what it returns; so do tests, without a robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers import safety
from controllers.g1 import G1, REVISIONS
from controllers.safety import Finding, Limits
from deploy.checks import Checks, Sample
from deploy.modes import Answer, Command, Hold, Machine, Mode, Request, Timing, request_of
from deploy.unitree_hg import Remote, new_command

DAMPING = 5.0
"""In damp [Nm s/rad]; public deployments use 3 to 8."""


@dataclass(frozen=True)
class Plan:
    """What a run does with its robot, decided before anything moves."""

    robot: G1
    stand: Hold
    policies: tuple[Hold, ...]
    """Gains of each policy."""
    control_hz: float
    """Of all policies."""
    limits: Limits
    timing: Timing
    then: int | None = None
    """The policy that balances and takes over from the others; none when absent."""


def slots_of(robot: G1) -> np.ndarray:
    """Motor slot of each joint, (N,): its place among the 29 of the full robot, which the smaller one keeps."""
    return REVISIONS[robot.name.replace("23", "29")].joint_indices(robot.joint_names)


def sample_of(state: np.ndarray, slots: np.ndarray) -> Sample:
    """What a message of the robot says about its joints."""
    motors, imu = state["motor_state"][slots], state["imu_state"]
    return Sample(
        tick=int(state["tick"]),
        mode_machine=int(state["mode_machine"]),
        quaternion=imu["quaternion"],
        angular_velocity=imu["gyroscope"],
        linear_acceleration=imu["accelerometer"],
        position=motors["q"],
        velocity=motors["dq"],
        torque=motors["tau_est"],
        temperature=motors["temperature"],
        motor_fault=motors["motorstate"],
        motor_on=motors["mode"] != 0,
        remote=state["wireless_remote"].tobytes(),
    )


@dataclass(frozen=True)
class Decision:
    """What is commanded now, and why."""

    command: Command
    """After limits."""
    risen: tuple[Finding, ...]
    """Checks whose level has risen."""
    changed: bool
    """Whether the mode or the policy is another than before."""


class Controller:
    """Decides for one robot."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        robot = plan.robot
        self.checks = Checks(robot, plan.limits)
        damping = np.full(len(robot.joints), DAMPING)
        self.machine = Machine(plan.stand, plan.policies, damping, plan.timing, plan.then)
        self._lower, self._upper = safety.soft_range(robot.lower, robot.upper, plan.limits.soft_range)
        self._torque = robot.torque_limit
        self._remote = Remote()
        self._answered_at = 0.0
        self._epoch = 0
        self._before: tuple[Mode, int] | None = None
        self._held: Hold | None = None  # what joints were told to hold last

    def decide(
        self,
        now: float,
        sample: Sample,
        fresh: bool,
        request: Request | None = None,
        answer: Answer | None = None,
        new_answer: bool = False,
    ) -> Decision:
        """The next command.

        Args:
            now: Any clock that does not go back [s].
            sample: The newest state.
            fresh: Whether it has not been given before.
            request: Of keyboard and signals; buttons of the remote are read here.
            answer: The newest of the policy.
            new_answer: Whether it has not been given before.
        """
        machine, checks = self.machine, self.checks
        if fresh:
            checks.state(now, sample)
            checks.motors(now, self._held, sample)
            remote = Remote.from_bytes(np.frombuffer(sample.remote, np.uint8))
            pressed = request_of(remote, self._remote)
            self._remote = remote
            if pressed is not None and (request is None or pressed.kind == "damp"):
                request = pressed
        if new_answer and answer is not None and answer.epoch == machine.epoch:
            self._answered_at = now
            checks.answer(answer.position)
        running = machine.wanted >= 0
        if running:
            checks.report("policy_late", (now - self._answered_at) * self.plan.control_hz)
        risen, tripped, lost = checks.close(now, running)
        command = machine.step(now, sample.position, request, tripped, answer, lost)
        if machine.epoch != self._epoch:
            self._epoch, self._answered_at = machine.epoch, now
            checks.new_policy()
        self._held = None
        if command.mode in (Mode.RAMP, Mode.STAND, Mode.POLICY):
            checks.command(command.hold, sample)
            self._held = self._limited(command.hold, sample)
            command = Command(command.mode, command.policy, self._held)
        now_in = (command.mode, command.policy)
        changed, self._before = now_in != self._before, now_in
        return Decision(command, tuple(risen), changed)

    def _limited(self, hold: Hold, sample: Sample) -> Hold:
        """The same hold, its targets inside the soft range and the torque limits."""
        position = safety.within_range(hold.position, self._lower, self._upper)
        position = safety.within_torque(
            position, sample.position, sample.velocity, hold.stiffness, hold.damping, self._torque
        )
        return Hold(position, hold.stiffness, hold.damping)


def message_of(command: Command, mode_machine: int, slots: np.ndarray, tick: int = 0) -> np.ndarray:
    """The message to the robot, without its CRC.

    Args:
        command: For N joints.
        mode_machine: Of the robot; it ignores any other.
        slots: Of the joints, (N,).
        tick: Of the state that it answers, in lock-step.
    """
    message = new_command(mode_machine)
    motors = np.zeros(len(slots), message["motor_cmd"].dtype)
    motors["mode"] = 1
    motors["q"], motors["kp"], motors["kd"] = command.hold.position, command.hold.stiffness, command.hold.damping
    message["motor_cmd"][slots] = motors
    message["reserve"][0] = tick
    return message
