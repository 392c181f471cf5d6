"""A G1 that is not there: the same topics, checks and services as the robot's, with MuJoCo behind them.

deploy virtual
deploy virtual --lock-step --script faults.json --truth runs/truth.mcap --duration 60
deploy virtual --remote keyboard --viewer

Each of 500 periods per second: publish a state, wait, obey the commands that came, advance the physics. What "wait"
means is the clock: real time sleeps until the next period; lock-step waits for the command that carries the state's
tick in `reserve[0]`, so that the same run gives the same bits on any machine, however slow.

It obeys a command only if its CRC is right, it repeats the robot's `mode_machine`, it speaks of ankles as pitch and
roll, its numbers are finite, and the robot's own motion controller has been released. Which of these a real robot
checks is not published; being strict here finds mistakes. When commands stop, it holds the last one for
`command_timeout` and then does what `on_timeout` says: what a real robot does is not published either, so controllers
are tested against all three.

It stays on the loopback. What no robot knows goes into the file `truth` and never into a message; where it is can be
sent to those who would have motion capture.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from controllers.g1 import G1, revision
from deploy.base_pose import PoseSender
from deploy.motion_switcher import MotionSwitcherService
from deploy.real_time import FIFO_PRIORITY, demand_real_time, settle
from deploy.unitree_hg import (
    BATTERY_STATE,
    IMU_STATE,
    LOW_COMMAND,
    LOW_STATE,
    new_state,
    sealed,
)
from deploy.virtual_body import Body, BodySettings
from deploy.virtual_console import Console
from deploy.virtual_events import DelayLine, Event, FaultySensors, Timeline, read_script
from deploy.virtual_strangers import Strangers
from deploy.virtual_truth import Truth
from deploy.wire import (
    BATTERY_TOPIC,
    LOW_COMMAND_TOPIC,
    LOW_STATE_TOPIC,
    SLOW_STATE_TOPIC,
    TORSO_IMU_TOPIC,
    Network,
    Participant,
    WireError,
)

STATE_HZ = 500.0
SLOW_STATE_EVERY = 25  # periods: 20 Hz
BATTERY_EVERY = 250  # periods: 2 Hz
BASE_POSE_EVERY = 5  # periods: 100 Hz
SERVICE_EVERY = 5  # periods between two looks at what was asked of the motion switcher

OWN_CONTROLLER = "ai"  # the name that robots give to the one that walks
MOTOR_TEMPERATURE, IMU_TEMPERATURE = (35, 38), 45  # [degC]
VOLTAGE, CHARGE = 54.0, 90  # [V] of a full battery of 13 cells, [%]
DAMPING = 5.0  # [Nm s/rad] without commands, and in place of the robot's own motion controller, which is not modelled

SLIP = 0.1  # [s] behind real time at which the clock gives up catching up
PATIENCE = 10.0  # [s] for an answer in lock-step, once there was one


@dataclass(frozen=True)
class VirtualConfig:
    """Run a virtual G1 on the loopback until interrupted."""

    revision: str = "g1_29dof"
    """Of the robot, such as g1_29dof or g1_23dof_asap."""
    domain: int = 1
    """DDS domain; the interface is always lo."""
    duration: float | None = None
    """Robot time after which it ends [s]; never when absent."""
    real_time: bool = False
    """As in `deploy run`: SCHED_FIFO and locked memory, so that other programs do not hold it up."""
    lock_step: bool = False
    """Wait for an answer to every state instead of for the clock."""
    script: Path | None = None
    """Faults, buttons and the gantry's movements at set times (JSON list of events)."""
    truth: Path | None = None
    """Recording (.mcap) of what no robot knows."""
    base_pose: str | None = None
    """HOST:PORT to which it sends where it is, as motion capture would (`deploy/base_pose.py`)."""
    seed: int = 0
    """Of noise, jitter and losses."""

    mode_machine: int = 5
    """Number that the robot gives for its revision; 5 is 29 joints."""
    motion_controller: str = OWN_CONTROLLER
    """Robot's own motion controller that is active at first and must be released; empty for none."""
    body: BodySettings = BodySettings()  # noqa: RUF009 (frozen)
    """What differs between robots of one revision."""
    gantry: bool = True
    """Hang it on a rope; without, it begins standing on the floor with motors off, and falls."""
    lift: float = 0.05
    """Height of the soles over the floor while it hangs [m]."""

    command_delay: float = 0.0
    """Of every command [s]."""
    command_jitter: float = 0.0
    """Largest further delay of a command [s]."""
    command_loss: float = 0.0
    """Share of commands that are lost."""
    state_delay: float = 0.0
    """Of every state [s]."""
    state_jitter: float = 0.0
    """Largest further delay of a state [s]."""
    state_loss: float = 0.0
    """Share of states that are lost."""
    command_timeout: float = 0.02
    """Time without a command that it obeys, after which it does not hold the last one any more [s]."""
    on_timeout: Literal["damp", "limp", "hold"] = "damp"
    """What it does then: brake all motors, switch them off, or still hold."""

    remote: Literal["none", "keyboard"] = "none"
    """Where the wireless remote is: keyboard reads lines such as `L2+B`, `ly 0.5`, `release`, `{"kind": "push"}`."""
    remote_socket: Path | None = None
    """Unix socket that takes the same lines as datagrams."""
    viewer: bool = False
    """Show it in the browser; needs the extra [view]."""
    viewer_port: int = 8080
    """Of the browser's page; 0 takes any."""


@dataclass
class Summary:
    """How a run went."""

    periods: int = 0
    obeyed: int = 0
    """Commands."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Commands that were not obeyed, by reason."""
    timeouts: int = 0
    """Times that commands stopped."""
    slips: int = 0
    """Times that the clock gave up catching up."""
    died: bool = False
    """Whether it ended with the fault `robot_death`."""
    core_share: float = 0.0
    """Of one core."""
    late: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """How late each period began [s]; empty in lock-step."""

    def text(self) -> str:
        lines = [f"{self.periods} states, {self.obeyed} commands obeyed, {100 * self.core_share:.0f} % of a core"]
        lines += [f"ignored {count} commands: {reason}" for reason, count in self.ignored.items()]
        if self.timeouts:
            lines.append(f"commands stopped {self.timeouts} times")
        if len(self.late):
            p50, p99, worst = 1e3 * np.percentile(self.late, (50, 99, 100))
            lines.append(f"periods began late by [ms]: p50 {p50:.2f}, p99 {p99:.2f}, worst {worst:.1f}")
        if self.slips:
            lines.append(f"fell behind real time by more than {SLIP:g} s {self.slips} times")
        return "\n".join(lines)


def virtual_command(config: VirtualConfig) -> None:
    """Run until interrupted or over, and print how it went."""
    if config.real_time:
        demand_real_time(FIFO_PRIORITY["virtual"])  # first: the threads of DDS inherit it
    robot = VirtualG1(config)
    stopped = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    print(f"virtual {config.revision} in DDS domain {config.domain} on lo", flush=True)
    settle()
    try:
        summary = robot.run(stopped)
        print(summary.text(), flush=True)
        if summary.died:
            robot.end_files()
            os._exit(1)  # a dead computer does not take leave of the network
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        robot.close()


class VirtualG1:
    """One robot. `run` is its whole life; for tests and campaigns it may run in a thread of another process."""

    def __init__(self, config: VirtualConfig, events: Sequence[Event] = (), log: Callable[[str], None] | None = None):
        """
        Args:
            config: The robot.
            events: More of what happens, after those of the script.
            log: Takes what should be said at once; standard error when absent.
        """
        self._config = config
        self._log = log or (lambda text: print(f"virtual G1: {text}", file=sys.stderr, flush=True))
        self.robot: G1 = revision(config.revision)
        scripted = read_script(config.script, self.robot) if config.script else ()
        self._timeline = Timeline([*scripted, *events])
        body_seed, link_seed, fault_seed = np.random.SeedSequence(config.seed).generate_state(3)
        rng = np.random.default_rng(link_seed)
        self._states_out = DelayLine(config.state_delay, config.state_jitter, config.state_loss, rng)
        self._commands_in = DelayLine(config.command_delay, config.command_jitter, config.command_loss, rng)
        lift = config.lift if config.gantry else None
        self.body = Body(self.robot, config.body, STATE_HZ, lift, int(body_seed))
        self._hoist: tuple[float, float, float, float] | None = None  # begin, end [s], lift there [m]
        slots = dict(zip(self.robot.joint_names, self.body.slots.tolist(), strict=True))
        self._faults = FaultySensors(slots, np.random.default_rng(fault_seed))

        network = Network(domain=config.domain)
        self._participant = participant = Participant(network)
        self._commands = participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND, lossless=True)
        self._states = participant.writer(LOW_STATE_TOPIC, LOW_STATE)
        self._slow_states = participant.writer(SLOW_STATE_TOPIC, LOW_STATE)
        self._torso_imus = participant.writer(TORSO_IMU_TOPIC, IMU_STATE)
        self._batteries = participant.writer(BATTERY_TOPIC, BATTERY_STATE)
        self.switcher = MotionSwitcherService(participant, config.motion_controller)
        self._strangers = Strangers(network, config.mode_machine)

        self._state, self._torso_imu = new_state(), np.zeros((), IMU_STATE)
        self._frozen: np.ndarray | None = None
        self._motors: np.ndarray | None = None  # of the last command that is obeyed
        self._obeyed_at = 0.0
        self._drive: Literal["controller", "command", "damp", "limp", "hold"] = "limp"
        self._answered = False
        self._period = 0
        self.summary = Summary()
        self._console = Console(config.remote == "keyboard", config.remote_socket, self.robot)
        self._viewer: Any = None
        if config.viewer:
            from deploy.virtual_console import Viewer

            self._viewer = Viewer(self.body.model, config.viewer_port)
            self._log(f"shown at http://localhost:{self._viewer.port}")
        self._poses = PoseSender(config.base_pose) if config.base_pose else None
        self._truth: Truth | None = None
        if config.truth is not None:
            self._truth = Truth(config.truth, self.robot, self.body.slots, config.seed, config.lock_step)

    @property
    def time(self) -> float:
        """Of the robot [s]."""
        return self._period / STATE_HZ

    def run(self, stopped: threading.Event | None = None) -> Summary:
        """Live until the duration is over, `stopped` is set, or, in lock-step, the commander has left."""
        stopped = stopped or threading.Event()
        duration, lock_step = self._config.duration, self._config.lock_step
        late, used, begin = array("d"), time.process_time(), time.perf_counter()
        origin = begin
        while not stopped.is_set() and (duration is None or self.time < duration - 1e-9):
            self._period += 1
            if not self._happen():
                break
            messages = self._say()
            if self._period % SERVICE_EVERY == 0:
                self.switcher.serve()
            if lock_step:
                commands = self._answers(messages, stopped)
                if commands is None:
                    break
            else:
                for message, _ in messages:
                    self._send(message)
                due = origin + self._period / STATE_HZ
                time.sleep(max(due - time.perf_counter(), 0.0))
                late.append(time.perf_counter() - due)
                if late[-1] > SLIP:
                    origin += late[-1]
                    self.summary.slips += 1
                commands = [message.data for message in self._commands.take_all()]
            self._obey(commands)
            self.body.advance()
            if self._viewer is not None:
                self._viewer.show(self.body.data)
        self.summary.periods = self._period
        self.summary.core_share = (time.process_time() - used) / max(time.perf_counter() - begin, 1e-9)
        self.summary.late = np.array(late)
        if self._commands.crc_errors:
            self.summary.ignored["CRC wrong"] = self._commands.crc_errors
        return self.summary

    def end_files(self) -> None:
        if self._truth is not None:
            self._truth.close()

    def close(self) -> None:
        """End the files and leave the network."""
        self.end_files()
        if self._viewer is not None:
            self._viewer.close()
        if self._poses is not None:
            self._poses.close()
        self._console.close()
        self._strangers.close()
        self._participant.close()

    # -- what happens to it -------------------------------------------------------------------------------------------

    def _happen(self) -> bool:
        """Let the events of this period begin, go on and end. False when the robot is dead."""
        timeline, body = self._timeline, self.body
        for event in self._console.events(self.time, self._log):
            timeline.add(event)
        timeline.advance(self.time)
        for event in timeline.begun:
            if self._truth is not None:
                self._truth.event(event, self.time)
            if event.kind == "robot_death":
                self.summary.died = True
                return False
            if event.kind == "gantry":
                length = event.duration if np.isfinite(event.duration) else 0.0
                self._hoist = (event.at, event.at + length, body.lift_now, event.value)
            elif event.kind == "release":
                body.release()
                self._hoist = None
            elif event.kind == "controller_selected":
                self._strangers.select(OWN_CONTROLLER)
            elif event.kind == "controller_started":
                self.switcher.active = OWN_CONTROLLER
        if self._hoist is not None:
            begin, end, low, high = self._hoist
            body.hang(float(np.interp(self.time, (begin, end), (low, high))) if end > begin else high)
            if self.time >= end:
                self._hoist = None
        body.push_w[:2] = timeline.value("push") or 0.0, timeline.value("push_left") or 0.0
        broken = {event.joint for kind in ("motor_dead", "motor_limp") for event in timeline.of(kind)}
        dead = np.array([name in broken for name in self.robot.joint_names])
        if (dead != body.dead).any():
            body.dead[:] = dead
            if self._motors is not None:
                body.command(self._motors)
        rate = timeline.value("foreign_publisher")
        if rate is None:
            self._strangers.leave()
        else:
            self._strangers.command(self._period % max(round(STATE_HZ / rate), 1) == 0)
        self._strangers.serve()
        return True

    # -- what it says -------------------------------------------------------------------------------------------------

    def _say(self) -> list[tuple[np.ndarray, bool]]:
        """Measure and send the rest; the states that are due, each with whether its CRC is right."""
        timeline, now = self._timeline, self.time
        state = self._measure()
        if self._truth is not None:
            self._truth.period(state, self._motors, self.body, now)
        if self._poses is not None and self._period % BASE_POSE_EVERY == 0:
            self._poses.send(self._sent_ns or time.time_ns(), self.body.truth())
        self._faults.alter(state, timeline, now)
        sealed(state)
        if timeline.value("state_frozen") is None:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = state.copy()
        if timeline.value("state_stall") is None:
            sent = (state if self._frozen is None else self._frozen).copy()
            readable = not self._faults.breaks_crc(timeline)
            if not readable:
                sent["crc"] ^= 1
            delay, loss = timeline.value("state_delay") or 0.0, timeline.value("state_loss") or 0.0
            delay += sum(event.value * (now - event.at) for event in timeline.of("state_lag"))
            self._states_out.put((sent, readable), now, delay, loss)
        if timeline.value("torso_imu_lost") is None:
            self._torso_imus.write(self._torso_imu)
        if self._period % BATTERY_EVERY == 1 and timeline.value("battery_lost") is None:
            self._batteries.write(self._battery())
        return self._states_out.due(now)

    def _send(self, message: np.ndarray) -> None:
        """Send that state. In lock-step its source time stamp is the robot's own time: there is no other."""
        self._states.write(message, self._sent_ns)
        if self._period % SLOW_STATE_EVERY == 0:
            self._slow_states.write(message, self._sent_ns)

    @property
    def _sent_ns(self) -> int | None:
        """Source time stamp of what is sent now; none where it is the computer's clock."""
        return round(1e9 * self.time) if self._config.lock_step else None

    def _measure(self) -> np.ndarray:
        """The state of this period as healthy sensors give it."""
        state = self._state
        state["mode_machine"] = self._config.mode_machine
        state["tick"] = round(1e3 * self.time)
        motors = state["motor_state"]
        motors["temperature"][self.body.slots] = MOTOR_TEMPERATURE
        motors["vol"][self.body.slots] = VOLTAGE
        motors["motorstate"] = 0
        state["imu_state"]["temperature"] = self._torso_imu["temperature"] = IMU_TEMPERATURE
        self.body.sense(state, self._torso_imu)
        remote = self._timeline.remote(self._console.remote)
        state["wireless_remote"] = remote.to_bytes(self._timeline.value("remote_lost") is None)
        return state

    def _battery(self) -> np.ndarray:
        battery = np.zeros((), BATTERY_STATE)
        charge = self._timeline.value("low_battery")
        battery["soc"] = CHARGE if charge is None else int(charge)
        battery["soh"] = 100
        battery["bmsvoltage"][0] = round(1e3 * VOLTAGE)
        battery["temperature"][:2] = MOTOR_TEMPERATURE
        return battery

    # -- what it obeys ------------------------------------------------------------------------------------------------

    def _answers(self, messages: list[tuple[np.ndarray, bool]], stopped: threading.Event) -> list[np.ndarray] | None:
        """Lock-step: send these states one by one and await the answer to each that can be read. None at the end."""
        answers = []
        for message, readable in messages:
            self._commands.take_all()  # what was said before this state is no answer to it
            self._send(message)
            if readable:
                answer = self._answer_to(message, stopped)
                if answer is None:
                    return None
                answers.append(answer)
        return answers

    def _answer_to(self, state: np.ndarray, stopped: threading.Event) -> np.ndarray | None:
        """The command that answers this state; None when there will be none."""
        begin = asked = time.monotonic()
        while not stopped.is_set():
            if self._commands.wait(0.005):
                for message in self._commands.take_all():
                    if message.data["reserve"][0] == state["tick"]:
                        self._answered = True
                        return message.data
            self.switcher.serve()
            now = time.monotonic()
            if now - asked > 0.1:
                asked = now
                if not self._answered:
                    self._send(state)  # the controller may have joined after it was sent
                elif not self._commands.publishers():
                    self._log("the commander has left")
                    return None
            if self._answered and now - begin > PATIENCE:
                raise WireError(
                    f"lock-step: no command carries the tick {state['tick']} in reserve[0] within {PATIENCE:g} s"
                )
        return None

    def _obey(self, commands: Sequence[np.ndarray]) -> None:
        """Take these commands in, and act on those that arrive now or on their absence."""
        timeline, now = self._timeline, self.time
        delay, loss = timeline.value("command_delay") or 0.0, timeline.value("command_loss") or 0.0
        for command in commands:
            self._commands_in.put(command, now, delay, loss)
        for command in self._commands_in.due(now):
            reason = self._objection(command)
            if reason:
                if reason not in self.summary.ignored:
                    self._log(f"ignores a command: {reason}")
                self.summary.ignored[reason] += 1
                continue
            self.body.command(command["motor_cmd"])
            self._motors, self._obeyed_at = command["motor_cmd"], now
            self.summary.obeyed += 1
        drive = self._drive
        if self.switcher.active:
            drive, self._motors = "controller", None
        elif self._motors is None:
            drive = "limp" if drive in ("controller", "command") else drive
        elif now - self._obeyed_at > self._config.command_timeout + 1e-9:
            drive = self._config.on_timeout
            self.summary.timeouts += drive != self._drive
            self._motors = self._motors if drive == "hold" else None
        else:
            drive = "command"
        if drive != self._drive and drive in ("damp", "controller"):
            self.body.damp(DAMPING)
        elif drive != self._drive and drive == "limp":
            self.body.let_go()
        self._drive = drive

    def _objection(self, command: np.ndarray) -> str | None:
        """Why the command is not obeyed."""
        if self.switcher.active:
            return f"the robot's motion controller {self.switcher.active!r} is active"
        if command["mode_machine"] != self._config.mode_machine:
            return f"mode_machine is {command['mode_machine']}, the robot's is {self._config.mode_machine}"
        if command["mode_pr"] != 0:
            return "mode_pr is 1: ankles and waist by their single motors are not modelled"
        motors = command["motor_cmd"][self.body.slots]
        if not all(np.isfinite(motors[name]).all() for name in ("q", "dq", "tau", "kp", "kd")):
            return "a number is not finite"
        return None
