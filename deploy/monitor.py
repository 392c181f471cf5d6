"""`deploy monitor`: a run in the browser, while it happens or from its recording. Needs the extra [view].

The robot as it is, and beside it the robot as it is told to be; mode, joints that are furthest from their targets,
temperatures, rates and gaps, faults. Live, it only listens: it judges the states itself, by the default levels, and
reads the mode from the gains that are commanded. What the wire does not say (which policy runs, what the run's other
checks find) is in the recording and not here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from controllers.g1 import G1, revision
from controllers.recording import Recording, read_recording
from controllers.safety import TRIP, Limits
from deploy.checks import Checks
from deploy.controller import sample_of, slots_of
from deploy.unitree_hg import BATTERY_STATE, LOW_COMMAND, LOW_STATE
from deploy.wire import BATTERY_TOPIC, LOW_COMMAND_TOPIC, LOW_STATE_TOPIC, Message, Network, Participant

TICK = 1 / 20  # [s] between two pictures
HEIGHT = 0.79  # [m] of the pelvis where nobody measures it
BESIDE = (0.0, -1.3, 0.0)  # [m] from the robot to its targets
SHOWN = 8  # joints in each list
FAULTS = 8  # newest faults that are listed
SILENT = 0.5  # [s] after which what was heard last does not count as what is
WINDOW = 500  # states over which rates and gaps are taken


@dataclass(frozen=True)
class MonitorConfig:
    """Show a run in the browser: live from the wire, or a recording."""

    recording: tyro.conf.Positional[Path | None] = None
    """recording.mcap; live when absent."""
    network: Network = Network()  # noqa: RUF009 (frozen)
    """Where the robot is, when live."""
    robot: str = "g1_29dof"
    """Revision, when live."""
    port: int = 8081
    """Of the browser's page; 0 takes any."""
    duration: float | None = None
    """Seconds after which it ends; never when absent."""


@dataclass(frozen=True)
class Moment:
    """What is shown. N joints in the robot's order."""

    position: np.ndarray
    """Of the pelvis, world [m], (3,)."""
    quaternion: np.ndarray
    """(4,)"""
    joints: np.ndarray
    """[rad], (N,)"""
    targets: np.ndarray | None
    """[rad], (N,); None where no joint is held."""
    temperature: np.ndarray
    """The hotter of each motor's two sensors [degrees Celsius], (N,)."""
    mode: str
    rates: str
    faults: tuple[str, ...]


def monitor_command(config: MonitorConfig) -> None:
    """Serve until interrupted."""
    if config.recording is not None:
        recording = read_recording(config.recording)
        robot = revision(recording.facts["robot"])
        duration, moment_at = recorded(recording)
        participant = None
    else:
        robot = revision(config.robot)
        participant = Participant(config.network)
        duration, moment_at = None, live(participant, robot)
    page = Page(robot, config.port, duration)
    print(f"http://localhost:{page.port}", flush=True)
    began = time.monotonic()
    try:
        while config.duration is None or time.monotonic() - began < config.duration:
            moment = moment_at(page.advance(TICK))
            if moment is not None:
                page.show(moment)
            time.sleep(TICK)
    except KeyboardInterrupt:
        pass
    finally:
        page.close()
        if participant is not None:
            participant.close()


def recorded(recording: Recording) -> tuple[float, Callable[[float], Moment | None]]:
    """How long it is [s], and what to show at a time since its beginning."""
    channels, times = recording.channels, recording.log_times
    state, command, base = channels["state"], channels.get("command"), channels.get("base_pose")
    if not len(state):
        raise ValueError("the recording holds no state: there is nothing to show")
    origin = times["state"][0]
    seconds = {name: (stamps - origin) / 1e9 for name, stamps in times.items()}
    modes = {number: name for name, number in recording.facts.get("modes", {}).items()}
    checks = list(recording.facts.get("checks", {}))
    robot = revision(recording.facts["robot"])
    policies = [policy["name"] for policy in recording.facts.get("policies", [])]

    def newest(name: str, at: float) -> int:
        return int(np.searchsorted(seconds[name], at, side="right")) - 1 if name in seconds else -1

    def fault(record: np.ndarray, at: float) -> str:
        check, where = checks[int(record["check"])], int(record["where"])
        return _said(f"{at:.2f} s", check, int(record["level"]), where, float(record["value"]), robot)

    def moment(at: float) -> Moment | None:
        here = max(newest("state", at), 0)
        now, told, placed, mode = state[here], newest("command", at), newest("base_pose", at), newest("mode", at)
        said = "not recorded"
        if mode >= 0:
            record = channels["mode"][mode]
            said = modes[int(record["mode"])].replace("_", " ")
            said += f" {policies[int(record['policy'])]}" if record["policy"] >= 0 else ""
        held = command is not None and told >= 0 and command[told]["stiffness"].any()
        last = newest("fault", at)
        listed = range(max(last - FAULTS + 1, 0), last + 1)
        return Moment(
            position=base[placed]["position"] if base is not None and placed >= 0 else np.array([0, 0, HEIGHT]),
            quaternion=now["quaternion"].astype(float),
            joints=now["joint_position"].astype(float),
            targets=command[told]["position"].astype(float) if command is not None and held else None,
            temperature=now["temperature"].reshape(-1, 2).max(axis=1),
            mode=said,
            rates=_rates(times["state"][max(here - WINDOW, 0) : here + 1] / 1e9),
            faults=tuple(fault(channels["fault"][i], seconds["fault"][i]) for i in reversed(listed)),
        )

    return float(seconds["state"][-1]), moment


def live(participant: Participant, robot: G1) -> Callable[[float], Moment | None]:
    """What to show now; None before the robot is heard."""
    states = participant.reader(LOW_STATE_TOPIC, LOW_STATE, lossless=True)
    commands = participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND)
    batteries = participant.reader(BATTERY_TOPIC, BATTERY_STATE)
    motors, stamps = slots_of(robot), deque(maxlen=WINDOW)
    checks, found_faults = Checks(robot, Limits()), deque(maxlen=FAULTS)
    last: dict[str, Any] = {}

    def judge(message: Message) -> None:
        sent = message.source_ns / 1e9  # as the robot sent them: this program may look late
        risen = checks.close(sent, False)[0]  # what the gap before it says
        checks.state(sent, sample_of(message.data, motors))
        for finding in (*risen, *checks.close(sent, False)[0]):
            clock = time.strftime("%H:%M:%S", time.localtime(sent))
            found_faults.appendleft(_said(clock, finding.check, finding.level, finding.where, finding.value, robot))

    def moment(_: float) -> Moment | None:
        for message in states.take_all():
            stamps.append(message.source_ns / 1e9)
            last["state"], last["state_at"] = message.data, time.monotonic()
            judge(message)
        for name, reader in (("command", commands), ("battery", batteries)):
            found = reader.take()
            if found is not None:
                last[name], last[f"{name}_at"] = found.data, time.monotonic()
        if "state" not in last:
            return None
        sample = sample_of(last["state"], motors)
        mode, targets = "nobody commands", None
        if time.monotonic() - last.get("command_at", -np.inf) < SILENT:
            told = last["command"]["motor_cmd"][motors]
            mode = "holds joints" if told["kp"].any() else "damp" if told["kd"].any() else "zero torque"
            targets = told["q"].astype(float) if told["kp"].any() else None
        silence = time.monotonic() - last["state_at"]
        rates = _rates(np.array(stamps)) if silence < SILENT else f"no state for {silence:.1f} s: all of this is old"
        if "battery" in last:
            rates += f"; battery {int(last['battery']['soc'])} %"
        faults = (*((f"{states.crc_errors} wrong checksums",) if states.crc_errors else ()), *found_faults)
        return Moment(np.array([0, 0, HEIGHT]), sample.quaternion.astype(float), sample.position.astype(float), targets,
                      sample.temperature.max(axis=1), mode, rates, faults)  # fmt: skip

    return moment


def _said(at: str, check: str, level: int, where: int, value: float, robot: G1) -> str:
    """A fault as it is listed."""
    joint = f" {robot.joint_names[where]}" if where >= 0 else ""
    return f"{at} {'TRIP' if level == TRIP else 'warning'}: {check}{joint} {value:.3g}"


def _rates(stamps: np.ndarray) -> str:
    """Of states with these times [s]."""
    if len(stamps) < 2:
        return "too few states for a rate"
    gaps = np.diff(stamps)
    p99, most = 1e3 * np.percentile(gaps, 99), 1e3 * gaps.max()
    return f"{1 / gaps.mean():.0f} states/s, gaps p99 {p99:.1f} ms, max {most:.1f} ms"


class Page:
    """The browser's page: two robots, a slider for recordings, and words."""

    def __init__(self, robot: G1, port: int, duration: float | None) -> None:
        from sim.motions.drawing import viewing
        from sim.motions.play import add_robot
        from sim.robots.g1 import build_model, joint_addresses
        from sim.robots.g1_files import draw_without_display

        draw_without_display()  # nothing is drawn here, but MuJoCo chooses when it is loaded
        import mujoco

        self._mujoco = mujoco
        self._names = robot.joint_names
        self._model = build_model(robot, floor=False)
        self._data = mujoco.MjData(self._model)
        self._columns = joint_addresses(self._model, robot.joint_names)[0]
        self._server = viewing("viser").ViserServer(port=port, verbose=False)
        self.port = self._server.get_port()
        scene, gui = self._server.scene, self._server.gui
        scene.set_up_direction("+z")
        scene.add_grid("/floor", width=20, height=20, cell_size=0.5)
        self._server.initial_camera.position = (2.6, -0.4, 1.3)
        self._server.initial_camera.look_at = (0.0, -0.6, 0.6)
        self._robots = [add_robot(scene, self._model, root)[0] for root in ("/measured", "/told")]
        scene.add_label("/measured_label", "measured", position=(0, 0, 1.5))
        scene.add_label("/told_label", "told", position=(BESIDE[0], BESIDE[1], 1.5))
        self._duration = duration
        if duration is not None:
            self.time = gui.add_slider("time [s]", 0.0, max(duration, TICK), 0.01, 0.0)
            self.playing = gui.add_checkbox("play", True)
        self.words = gui.add_markdown("waiting for the robot")

    def advance(self, seconds: float) -> float:
        """Where a recording is now [s]; 0 when live."""
        if self._duration is None:
            return 0.0
        if self.playing.value:
            self.time.value = (self.time.value + seconds) % max(self._duration, TICK)
        return float(self.time.value)

    def show(self, moment: Moment) -> None:
        """Put robots and words."""
        told = moment.joints if moment.targets is None else moment.targets
        with self._server.atomic():
            for handles, joints, beside in zip(self._robots, (moment.joints, told), ((0, 0, 0), BESIDE), strict=True):
                self._data.qpos[:3], self._data.qpos[3:7] = moment.position, moment.quaternion
                self._data.qpos[self._columns] = joints
                self._mujoco.mj_kinematics(self._model, self._data)
                for body, handle in enumerate(handles):
                    handle.position, handle.wxyz = self._data.xpos[body] + beside, self._data.xquat[body]
        self.words.content = self.text(moment)

    def text(self, moment: Moment) -> str:
        """The words, as Markdown."""
        lines = [f"**mode: {moment.mode}**", "", moment.rates, ""]
        lines += [f"- {fault}" for fault in moment.faults] or ["no faults"]
        lines += ["", "| joint | angle | target | °C |", "|---|---|---|---|"]
        told = moment.joints if moment.targets is None else moment.targets
        far = np.argsort(-np.abs(told - moment.joints))[:SHOWN].tolist()
        hot = [i for i in np.argsort(-moment.temperature)[:3].tolist() if i not in far]
        for i in (*far, *hot):
            target = "-" if moment.targets is None else f"{told[i]:.2f}"
            name = self._names[i].removesuffix("_joint")
            lines.append(f"| {name} | {moment.joints[i]:.2f} | {target} | {moment.temperature[i]:.0f} |")
        return "\n".join(lines)

    def close(self) -> None:
        self._server.stop()
