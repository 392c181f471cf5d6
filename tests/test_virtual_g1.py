"""The virtual G1: what it obeys, what happens to it, its clocks, and that a lock-step run repeats bit for bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="CycloneDDS is not installed: pip install 'realign[g1]'")

from g1_commands import holding

from controllers.g1 import default_pose, revision
from controllers.recording import Recording, read_recording
from deploy.motion_switcher import ASK_EVERY, Mode, MotionSwitcher, Watch
from deploy.real_time import real_time_allowed
from deploy.unitree_hg import Remote, new_command
from deploy.virtual_body import BodySettings
from deploy.virtual_events import FAULTS, KINDS, Event
from deploy.virtual_g1 import Summary, VirtualConfig, VirtualG1
from deploy.wire import G1Link, Network, WireError

DOMAIN = 51 + os.getpid() % 49  # tests that run at the same time do not hear each other
G1 = revision("g1_29dof")
CONFIG = VirtualConfig(domain=DOMAIN, lock_step=True, motion_controller="", duration=0.2)
KNEE = G1.joint_names.index("left_knee_joint")


@dataclass
class Life:
    """Of a robot that was run."""

    summary: Summary
    states: list[np.ndarray]
    """That arrived."""
    said: list[str]
    link_crc_errors: int

    def of(self, path: Callable[[np.ndarray], Any]) -> np.ndarray:
        return np.array([path(state) for state in self.states])

    @property
    def ticks(self) -> list[int]:
        return [int(state["tick"]) for state in self.states]


def live(
    config: VirtualConfig = CONFIG,
    events: Sequence[Event] = (),
    command: Callable[[np.ndarray], np.ndarray] | None = None,
    beside: Callable[[G1Link], None] | None = None,
) -> Life:
    """Run a robot to its end, and answer each state with what `command` makes of it, holding the pose when absent."""
    said: list[str] = []
    robot = VirtualG1(config, events, said.append)
    link = G1Link(Network(domain=config.domain), lossless=True)
    states, hold = [], holding(config.revision)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            robot.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    try:
        thread.start()
        while thread.is_alive():
            message = link.wait_state(0.02)
            if message is None:
                continue
            states.append(message.data)
            answer = (command(message.data) if command else hold).copy()
            answer["reserve"][0] = message.data["tick"]
            link.publish_command(answer)
            if beside is not None:
                beside(link)
        thread.join()
    finally:
        robot.close()
        link.close()
    if failed:
        raise failed[0]
    return Life(robot.summary, states, said, link.states.crc_errors)


# -- what it obeys ----------------------------------------------------------------------------------------------------


def test_lock_step_answers_every_state_once_and_moves_the_robot() -> None:
    life = live()
    assert life.ticks == list(range(2, 202, 2))
    assert life.summary.obeyed == 100
    assert not life.summary.ignored
    final = life.states[-1]["motor_state"]["q"][:29]
    assert abs(final[KNEE] - default_pose(G1)[KNEE]) < 0.05
    assert (life.states[-1]["motor_state"]["mode"][:29] == 1).all()
    assert (life.states[-1]["mode_machine"], life.states[-1]["motor_state"]["mode"][29]) == (5, 0)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda command: command["motor_cmd"]["q"].__setitem__(3, math.nan), "a number is not finite"),
        (lambda command: command.__setitem__("mode_machine", 6), "mode_machine is 6, the robot's is 5"),
        (lambda command: command.__setitem__("mode_pr", 1), "mode_pr is 1"),
    ],
)
def test_commands_that_make_no_sense_are_ignored_and_said(spoil: Callable[[np.ndarray], None], reason: str) -> None:
    def command(_: np.ndarray) -> np.ndarray:
        spoiled = holding()
        spoil(spoiled)
        return spoiled

    life = live(dataclasses.replace(CONFIG, duration=0.05), command=command)
    assert life.summary.obeyed == 0
    assert sum(life.summary.ignored.values()) == 25
    assert [line for line in life.said if reason in line]
    assert not life.of(lambda state: np.abs(state["motor_state"]["tau_est"]).max()).any()


def test_commands_with_a_wrong_crc_are_ignored() -> None:
    robot = VirtualG1(dataclasses.replace(CONFIG, lock_step=False, duration=0.5))
    link = G1Link(Network(domain=DOMAIN))
    thread = threading.Thread(target=robot.run)
    thread.start()
    while thread.is_alive():
        if link.wait_state(0.02) is not None:
            command = holding()
            command["crc"] = 1
            link.commands.write(command)
    thread.join()
    robot.close()
    link.close()
    assert robot.summary.obeyed == 0
    assert robot.summary.ignored["CRC wrong"] > 0


def test_the_robots_own_controller_must_be_released_first() -> None:
    answers: list[object] = []

    def release(link: G1Link) -> None:
        answers.append(MotionSwitcher(link.participant, timeout=5.0).release())

    threads: list[threading.Thread] = []

    def beside(link: G1Link) -> None:
        if not threads:
            threads.append(threading.Thread(target=release, args=(link,)))
            threads[0].start()

    life = live(dataclasses.replace(CONFIG, motion_controller="ai", duration=2.0), beside=beside)
    threads[0].join()
    assert answers == [[Mode("0", "ai")]]
    ((reason, count),) = life.summary.ignored.items()
    assert reason == "the robot's motion controller 'ai' is active"
    assert life.summary.obeyed > 0
    assert life.summary.obeyed + count == 1000


def test_a_watch_notices_a_controller_that_is_asked_for_at_once_and_one_that_starts_silently_soon() -> None:
    for kind, most in (("controller_selected", 0.02), ("controller_started", ASK_EVERY + 0.02)):
        seen: list[bool] = []
        watches: list[Watch] = []

        def beside(link: G1Link) -> None:
            watches.extend([] if watches else [Watch(link.participant)])  # noqa: B023 (called in this turn only)
            seen.append(watches[0].look(len(seen) / 500))  # noqa: B023

        life = live(dataclasses.replace(CONFIG, duration=1.0), [Event(0.6, kind)], beside=beside)
        assert not any(seen[:299]), kind
        assert any(seen[299 : 300 + round(500 * most)]), kind
        assert "the robot's motion controller 'ai' is active" in life.summary.ignored


@pytest.mark.parametrize(("policy", "driven"), [("damp", True), ("limp", False), ("hold", True)])
def test_without_commands_it_does_what_its_timeout_says(policy, driven: bool) -> None:
    config = dataclasses.replace(CONFIG, on_timeout=policy, command_timeout=0.02, duration=0.4)
    life = live(config, [Event(0.2, "command_loss", value=1.0)])
    assert life.summary.timeouts == 1
    enabled = life.of(lambda state: state["motor_state"]["mode"][:29].all())
    since = life.ticks.index(200)
    assert enabled[1:since].all()
    # Commands are lost from 0.2 s on; the one of 0.198 s is older than 20 ms at 0.220 s; the next state says so.
    assert enabled[: since + 11].sum() == since + 10
    assert enabled[since + 11 :].all() == driven
    held = life.of(lambda state: state["motor_state"]["tau_est"][15])  # the shoulder carries the arm
    if policy == "hold":
        assert abs(held[-1]) > 0.2


def test_a_delayed_command_acts_later_by_that() -> None:
    def step(state: np.ndarray) -> np.ndarray:
        command = new_command(5)
        command["motor_cmd"]["mode"][:29] = 1
        command["motor_cmd"]["tau"][KNEE] = 5.0 if state["tick"] >= 50 else 0.0
        return command

    first = []
    for delay in (0.0, 0.03):
        life = live(dataclasses.replace(CONFIG, command_delay=delay, command_timeout=1.0), command=step)
        first.append(next(t for t, s in zip(life.ticks, life.states, strict=True) if s["motor_state"]["tau_est"][KNEE]))
    assert first[1] - first[0] == 30
    assert first[0] == 52, "the next state"


def test_delayed_states_arrive_in_order_with_the_ticks_of_when_they_were_measured() -> None:
    life = live(CONFIG, [Event(0.1, "state_delay", 0.05, 0.01)])
    assert life.ticks == list(range(2, 202, 2))
    assert life.summary.obeyed == 100, "each is answered when it arrives"


# -- what happens to it -----------------------------------------------------------------------------------------------


def test_faults_of_the_wire_reach_the_controller() -> None:
    events = [
        Event(0.05, "state_stall", 0.05),
        Event(0.12, "bad_crc", 0.01),
        Event(0.15, "state_frozen", 0.02),
    ]
    life = live(CONFIG, events)
    gaps = np.diff(life.ticks)
    assert life.link_crc_errors == 5
    assert sorted(gaps[gaps > 2].tolist()) == [12, 20, 52]
    assert (gaps == 0).sum() == 9
    frozen = life.ticks.index(150)
    assert life.states[frozen].tobytes() == life.states[frozen + 5].tobytes()


def test_pushes_and_dead_motors_act_on_the_body() -> None:
    pushed = live(CONFIG, [Event(0.05, "push", 0.1, 150.0)])
    quiet = live(CONFIG)
    speed = [life.of(lambda s: np.abs(s["imu_state"]["gyroscope"]).max()).max() for life in (pushed, quiet)]
    assert speed[0] > 2 * speed[1]
    dead = live(CONFIG, [Event(0.1, "motor_dead", 0.05, joint="left_knee_joint")])
    enabled = dead.of(lambda s: s["motor_state"]["mode"][KNEE])
    assert enabled.sum() == 99 - 25
    assert dead.of(lambda s: s["motor_state"]["mode"][KNEE + 1]).sum() == 99
    limp = live(CONFIG, [Event(0.1, "motor_limp", 0.05, joint="left_knee_joint")])
    assert limp.of(lambda s: s["motor_state"]["mode"][KNEE]).sum() == 99
    torque = limp.of(lambda s: s["motor_state"]["tau_est"][KNEE])
    assert np.count_nonzero(torque[1:] == 0) == 25  # the first state is from before any command


def test_the_robot_itself_survives_every_fault_but_its_death() -> None:
    kinds = [kind for kind in FAULTS if kind not in ("robot_death", "foreign_publisher")]
    events = [
        Event(0.02 + 0.02 * index, kind, 0.02, joint="left_knee_joint" if KINDS[kind].of_joint else None)
        for index, kind in enumerate(kinds)
    ]
    end = 0.02 * (len(kinds) + 6)  # the delays of the last ones are over
    life = live(dataclasses.replace(CONFIG, duration=end))
    ill = live(dataclasses.replace(CONFIG, duration=end), events)
    assert ill.summary.periods == life.summary.periods
    assert ill.ticks[-1] == life.ticks[-1]
    last = ill.states[-1]
    assert np.isfinite(last["motor_state"]["q"]).all() and last["mode_machine"] == 5
    assert not last["motor_state"]["motorstate"].any()
    assert last["wireless_remote"].any()


def test_buttons_sticks_and_a_lost_remote_are_in_the_state() -> None:
    events = [
        Event(0.02, "press", 0.02, "L2+B"),
        Event(0.03, "sticks", 0.05, [0.0, 0.5, 0.0, -0.5]),
        Event(0.1, "remote_lost", 0.05),
    ]
    life = live(CONFIG, events)
    said = {
        tick: Remote.from_bytes(state["wireless_remote"]) for tick, state in zip(life.ticks, life.states, strict=True)
    }
    assert said[18] == Remote()
    assert said[20] == Remote(frozenset({"L2", "B"}))
    assert said[30] == Remote(frozenset({"L2", "B"}), ly=0.5, ry=-0.5)
    assert said[40] == Remote(ly=0.5, ry=-0.5)
    lost = [tick for tick, state in zip(life.ticks, life.states, strict=True) if not state["wireless_remote"].any()]
    assert lost == list(range(100, 150, 2))


def test_another_master_a_dying_robot_and_the_other_topics() -> None:
    seen: dict[str, list] = {"masters": [], "battery": [], "torso": []}

    def beside(link: G1Link) -> None:
        seen["masters"].append(len(link.foreign_publishers()))
        seen["battery"].append(link.take_battery())
        seen["torso"].append(link.take_torso_imu())

    events = [Event(0.2, "foreign_publisher"), Event(0.6, "low_battery"), Event(1.6, "robot_death")]
    life = live(dataclasses.replace(CONFIG, duration=2.0), events, beside=beside)
    assert life.summary.died
    assert life.ticks[-1] == 1598
    assert not any(seen["masters"][:99])
    assert seen["masters"][-1] == 1
    batteries = [int(message.data["soc"]) for message in seen["battery"] if message is not None]
    assert batteries[0] == 90 and batteries[-1] == 5
    assert sum(message is not None for message in seen["torso"]) > 400  # one that is overtaken is not taken
    assert life.summary.obeyed == 799, "in lock-step only answers are obeyed"


def test_lines_on_a_socket_are_buttons_sticks_and_events(tmp_path: Path) -> None:
    path = tmp_path / "remote"
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    lines = iter([b"L2+B", b"ly 0.5", b'{"kind": "wrong_mode_machine", "value": 9}', b"ly 7", b"Q", b"{"])

    def beside(_: G1Link) -> None:
        if line := next(lines, None):
            sender.sendto(line, str(path))

    life = live(dataclasses.replace(CONFIG, remote_socket=path), beside=beside)
    sender.close()
    last = Remote.from_bytes(life.states[20]["wireless_remote"])
    assert last == Remote(frozenset({"L2", "B"}), ly=0.5)
    assert life.states[-1]["mode_machine"] == 9
    assert len(life.said) >= 3
    assert any("'ly 7': allowed after ly is a number from -1 to 1" in line for line in life.said)
    assert any("presses 'Q'; allowed: R1, L1" in line for line in life.said)
    assert not path.exists()


# -- clocks and truth -------------------------------------------------------------------------------------------------


def recorded(tmp_path: Path, name: str, seed: int) -> Recording:
    """Of a run with everything random in it, joints that move, and faults."""
    config = dataclasses.replace(
        CONFIG,
        body=BodySettings(noise=1.0, joint_friction=0.1),
        command_jitter=0.006,
        command_loss=0.1,
        state_loss=0.05,
        seed=seed,
        truth=tmp_path / name,
        duration=0.5,
    )
    events = [Event(0.1, "push", 0.1, 100.0), Event(0.2, "bad_crc", 0.1, 0.5), Event(0.35, "release")]

    def follow(state: np.ndarray) -> np.ndarray:
        command = holding()
        command["motor_cmd"]["q"][:29] += 0.2 * np.sin(0.02 * state["tick"]) - 0.1 * state["motor_state"]["q"][:29]
        return command

    live(config, events, follow)
    return read_recording(tmp_path / name)


def test_a_lock_step_run_repeats_bit_for_bit(tmp_path: Path) -> None:
    first, second = recorded(tmp_path, "a.mcap", 1), recorded(tmp_path, "b.mcap", 1)
    other = recorded(tmp_path, "c.mcap", 2)
    assert first.channels.keys() == {"state", "command", "base_pose", "truth", "event"}
    for name in first.channels:
        assert len(first.channels[name]) > 2
        assert first.channels[name].tobytes() == second.channels[name].tobytes(), name
        np.testing.assert_array_equal(first.log_times[name], second.log_times[name])
    assert first.channels["truth"].tobytes() != other.channels["truth"].tobytes()


def test_the_truth_is_without_faults_and_names_them(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, truth=tmp_path / "truth.mcap")
    life = live(config, [Event(0.1, "encoder_jump", value=0.5, joint="left_knee_joint")])
    told = life.of(lambda state: state["motor_state"]["q"][KNEE])
    recording = read_recording(tmp_path / "truth.mcap")
    true = recording.channels["state"]["joint_position"][:, KNEE]
    np.testing.assert_allclose(told[:49], true[:49])
    np.testing.assert_allclose(told[49:], true[49:] + 0.5, rtol=1e-6)
    np.testing.assert_allclose(recording.channels["truth"]["joint_position"][:, KNEE], true, rtol=1e-6)
    (event,) = recording.channels["event"]
    assert (event["tick"], recording.facts["events"][event["kind"]], event["joint"]) == (100, "encoder_jump", KNEE)
    assert recording.channels["base_pose"]["position"][0, 2] == pytest.approx(0.83, abs=0.05)


def test_a_robot_that_fell_is_hoisted_again_without_a_jerk(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, duration=4.0, truth=tmp_path / "truth.mcap")
    life = live(config, [Event(0.0, "release"), Event(1.2, "gantry", 2.0, 0.1)], lambda _: new_command(5))
    assert life.summary.obeyed == 2000
    recording = read_recording(tmp_path / "truth.mcap")
    pose, rope = recording.channels["base_pose"], recording.channels["truth"]["rope"]
    assert pose["position"][600, 2] < 0.4 and not rope[:590].any(), "it lies"
    assert pose["position"][-1, 2] > 0.7 and rope[-100:].all(), "it hangs"
    assert np.abs(pose["linear_velocity"][600:]).max() < 1.5


def test_lock_step_ends_when_the_commander_leaves() -> None:
    said: list[str] = []
    robot = VirtualG1(dataclasses.replace(CONFIG, duration=None), log=said.append)
    link = G1Link(Network(domain=DOMAIN), lossless=True)
    thread = threading.Thread(target=robot.run)
    thread.start()
    message = link.wait_state(5.0)
    assert message is not None
    command = holding()
    command["reserve"][0] = message.data["tick"]
    link.publish_command(command)
    assert link.wait_state(5.0) is not None
    link.close()
    del link
    thread.join(5.0)
    assert not thread.is_alive()
    assert said == ["the commander has left"]
    robot.close()


def test_real_time_states_come_in_order_and_commands_are_obeyed() -> None:
    life = live(dataclasses.replace(CONFIG, lock_step=False, duration=0.5))
    assert life.summary.periods == 250
    assert life.summary.obeyed > 100
    assert (np.diff(life.ticks) > 0).all()
    assert len(life.summary.late) == 250


def test_real_time_ends_when_it_is_told_to() -> None:
    robot, stopped = VirtualG1(dataclasses.replace(CONFIG, lock_step=False, duration=None)), threading.Event()
    thread = threading.Thread(target=robot.run, args=(stopped,))
    thread.start()
    time.sleep(0.05)
    stopped.set()
    thread.join(5.0)
    assert not thread.is_alive()
    robot.close()


def started(*words: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which has begun."""
    program = "from deploy.cli import main; main()"
    robot = subprocess.Popen(
        [sys.executable, "-c", program, "virtual", "--domain", str(DOMAIN), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert robot.stdout is not None
    assert robot.stdout.readline() == f"virtual g1_29dof in DDS domain {DOMAIN} on lo\n"
    return robot


def test_the_command_keeps_the_collector_from_holding_the_robot_up() -> None:
    program = (
        "import gc; from deploy.virtual_g1 import VirtualConfig, virtual_command;"
        f"virtual_command(VirtualConfig(domain={DOMAIN}, duration=0.02)); print(len(gc.get_objects()))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(told.stdout.splitlines()[-1]) < 10_000  # of about 150,000


@pytest.mark.skipif(not real_time_allowed(), reason="the system refuses real-time priority")
def test_in_real_time_the_threads_of_dds_have_the_robots_priority() -> None:
    robot = started("--real-time")
    threads = {(p / "comm").read_text().strip(): int(p.name) for p in Path(f"/proc/{robot.pid}/task").iterdir()}
    policies = [os.sched_getscheduler(threads[name]) for name in ("tev", "recv")]
    robot.terminate()
    robot.communicate(timeout=20)
    assert policies == [os.SCHED_FIFO] * 2


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_its_files_when_it_is_interrupted(tmp_path: Path, sign: signal.Signals) -> None:
    robot = started("--truth", str(tmp_path / "truth.mcap"))
    link = G1Link(Network(domain=DOMAIN))
    assert link.wait_state(10.0) is not None
    link.close()
    robot.send_signal(sign)
    out, err = robot.communicate(timeout=20)
    assert (robot.returncode, err) == (0, "")
    assert "states, 0 commands obeyed" in out
    recording = read_recording(tmp_path / "truth.mcap")
    assert recording.complete and len(recording.channels["truth"]) > 0


def test_a_robot_that_dies_takes_no_leave(tmp_path: Path) -> None:
    link = G1Link(Network(domain=DOMAIN))
    (tmp_path / "script.json").write_text(json.dumps([{"at": 0.5, "kind": "robot_death"}]))
    robot = started("--script", str(tmp_path / "script.json"), "--truth", str(tmp_path / "truth.mcap"))
    out, _ = robot.communicate(timeout=20)
    assert robot.returncode == 1
    assert out.startswith("250 states")
    assert link.states.wait(0) and link.states.publishers(), "for all that the network knows, it is still there"
    link.close()
    assert read_recording(tmp_path / "truth.mcap").complete


def test_an_unknown_revision_is_refused() -> None:
    with pytest.raises(ValueError, match="robot 'g2' is not known; allowed: g1_29dof"):
        VirtualG1(dataclasses.replace(CONFIG, revision="g2"))
    with pytest.raises(WireError, match="domain 400"):
        VirtualG1(dataclasses.replace(CONFIG, domain=400))
