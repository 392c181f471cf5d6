"""kill -9 of any process of a real-time run: the robot is damped, at once and for good. Real processes, real DDS, a
virtual robot in real time; what counts is what is heard on the wire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from controllers.recording import read_recording
from deploy.base_pose import PoseSender
from deploy.loop import RunConfig, RunError, plan_of
from deploy.shared import CAPACITY, Shared
from deploy.unitree_hg import LOW_COMMAND, LOW_STATE
from deploy.virtual_g1 import DAMPING
from deploy.wire import LOW_COMMAND_TOPIC, LOW_STATE_TOPIC, Network, Participant, Reader
from tests.test_base_pose import POSE, address

DOMAIN = 120 + os.getpid() % 100  # tests that run at the same time do not hear each other
PATIENCE = 60.0  # [s] for a process to say something
BUSY = ["--limits.stale-state.trip", "3", "--limits.policy-late.trip", "200", "--limits.writer-died.trip", "1",
        "--limits.state-lag.trip", "100", "--limits.motor-torque.trip", "10"]  # fmt: skip
"""Levels for machines that test with more processes than cores: only what a test does may trip."""
DEPLOY = [sys.executable, "-m", "deploy.cli"]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def robot() -> Iterator[Reader]:
    """A virtual robot in its own process; what is commanded to it."""
    virtual = subprocess.Popen([*DEPLOY, "virtual", "--domain", str(DOMAIN)], cwd=ROOT, stdout=subprocess.PIPE)
    assert virtual.stdout is not None and b"virtual" in virtual.stdout.readline()
    participant = Participant(Network(domain=DOMAIN))
    yield participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND, lossless=True)
    participant.close()
    virtual.send_signal(signal.SIGINT)
    virtual.wait(10)


@dataclass
class Run:
    """`deploy run` in its own processes."""

    process: subprocess.Popen
    said: Path
    pids: dict[str, int]
    recording: Path

    @staticmethod
    def start(folder: Path, *settings: str) -> Run:
        recording = folder / "recording.mcap"
        words = ["run", "--network.domain", str(DOMAIN), "--recording", str(recording), *BUSY, *settings]
        said = folder / "said.txt"
        with said.open("w") as file:
            process = subprocess.Popen(
                [*DEPLOY, *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env=os.environ | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
            )  # fmt: skip
        run = Run(process, said, {}, recording)
        line = run.until("processes:")
        run.pids = {name: int(pid) for name, pid in re.findall(r"(policy|guard|writer) (\d+)", line)}
        run.pids["runtime"] = process.pid
        return run

    def until(self, text: str) -> str:
        """Wait until it has said a line with this text; the line."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in self.said.read_text().splitlines():
                if text in line:
                    return line
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{text!r} was never said, only {self.said.read_text()}")

    def gone(self) -> bool:
        """Whether all of its processes have ended."""
        self.process.poll()
        return not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()
                       for pid in self.pids.values())  # fmt: skip

    def ends(self, commands: Reader) -> bool:
        """Whether all of them end by themselves, while somebody goes on to take what they command."""
        deadline = time.monotonic() + PATIENCE
        while not self.gone() and time.monotonic() < deadline:
            heard(commands, 0.2)
        return self.gone()

    def end(self) -> None:
        """Leave nothing behind, whatever has failed."""
        for pid in self.pids.values():
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def heard(commands: Reader, seconds: float) -> list[tuple[int, float, float]]:
    """Commands of the next seconds: when they were sent [ns], largest stiffness, smallest damping."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        commands.wait(0.01)
        for message in commands.take_all():
            motors = message.data["motor_cmd"][:29]
            found.append((message.source_ns, float(motors["kp"].max()), float(motors["kd"].min())))
    return found


@pytest.mark.parametrize(
    ("victim", "kill"),
    [
        ("policy", signal.SIGKILL),
        pytest.param("guard", signal.SIGKILL, marks=pytest.mark.slow),
        ("writer", signal.SIGKILL),
        ("runtime", signal.SIGKILL),
        pytest.param("writer", signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
def test_the_death_of_any_process_damps_the_robot_for_two_seconds_or_more(
    robot: Reader, tmp_path: Path, victim: str, kill: signal.Signals
) -> None:
    run = Run.start(tmp_path, "--keys", "0.1:s")
    try:
        run.until("mode: ramp")
        before = heard(robot, 0.5)
        assert before[-1][1] > 0  # it was stiff
        os.kill(run.pids[victim], kill)
        killed = time.time_ns()
        after = [row for row in heard(robot, 4.0) if row[0] > killed]
        damp = [row for row in after if row[1] == 0]
        assert damp, "no damping was commanded"
        first = damp[0][0]
        assert all(stiffness == 0 and damping > 0 for at, stiffness, damping in after if at >= first)
        assert damp[-1][0] - first > 2e9
        assert len(damp) > 100  # not one message and silence
        if kill == signal.SIGSTOP:
            os.kill(run.pids[victim], signal.SIGCONT)
            assert all(row[1] == 0 for row in heard(robot, 1.0))  # who comes back does not take over again
        if victim != "runtime":
            run.process.send_signal(signal.SIGTERM)
            assert run.process.wait(20) == 1  # it tripped
        assert run.ends(robot)
    finally:
        run.end()
    assert len(read_recording(run.recording).channels["command"]) > 0


@pytest.mark.parametrize(
    "victims", [("writer", "guard"), pytest.param(("process group",), marks=pytest.mark.slow)], ids=" and ".join
)
def test_whoever_is_left_damps_the_robot(robot: Reader, tmp_path: Path, victims: tuple[str, ...]) -> None:
    """One kill takes the writer and the guard, or all that a killed terminal takes: the guard is not among them."""
    run = Run.start(tmp_path, "--keys", "0.1:s")
    try:
        run.until("mode: ramp")
        assert heard(robot, 0.3)[-1][1] > 0  # it was stiff
        if victims == ("process group",):
            os.killpg(run.process.pid, signal.SIGKILL)
        else:
            for victim in victims:
                os.kill(run.pids[victim], signal.SIGKILL)
        killed = time.time_ns()
        damp = [row for row in heard(robot, 2.5) if row[0] > killed]
        assert len(damp) > 100 and damp[-1][0] - killed > 2e9
        assert all(stiffness == 0 and damping > 0 for _, stiffness, damping in damp)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(30) == (-signal.SIGKILL if victims == ("process group",) else 1)
        assert run.ends(robot)
    finally:
        run.end()


@pytest.mark.slow
def test_when_all_are_killed_at_once_the_robot_brakes_by_its_own_timeout(robot: Reader, tmp_path: Path) -> None:
    run = Run.start(tmp_path, "--keys", "0.1:s")
    try:
        run.until("mode: ramp")
        for pid in run.pids.values():
            os.kill(pid, signal.SIGKILL)
        killed = time.time_ns()
        assert not [row for row in heard(robot, 0.5) if row[0] > killed + 20e6]  # nobody commands
        link = Participant(Network(domain=DOMAIN))
        found = link.reader(LOW_STATE_TOPIC, LOW_STATE)
        assert found.wait(PATIENCE)
        message = found.take()
        assert message is not None
        motors = message.data["motor_state"][:29]
        np.testing.assert_allclose(motors["tau_est"], -DAMPING * motors["dq"], atol=0.05)
        link.close()
    finally:
        run.end()


def test_an_emergency_stop_from_another_process_trips_the_run(robot: Reader, tmp_path: Path) -> None:
    run = Run.start(tmp_path, "--keys", "0.1:s")
    run.until("mode: ramp")
    stop = subprocess.run([*DEPLOY, "estop", "--network.domain", str(DOMAIN), "--seconds", "2"], cwd=ROOT, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert stop.stdout == "damping\n"
    run.until("foreign_publisher")
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 1
    modes = read_recording(run.recording).channels["mode"]["mode"].tolist()
    assert modes.index(4) == len(modes) - 1 and 1 in modes  # damp came last, and nothing after it


def test_an_interrupt_damps_before_it_ends_and_poses_of_the_pelvis_are_recorded(robot: Reader, tmp_path: Path) -> None:
    where = address()
    run = Run.start(tmp_path, "--keys", "0.1:s", "--base-pose", where)
    run.until("mode: ramp")
    sender, sent = PoseSender(where), [time.time_ns() + number for number in range(3)]
    for at in sent:
        sender.send(at, POSE)
    sender.close()
    run.until("poses of the pelvis arrive")
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 0
    found = read_recording(run.recording)
    damped = found.log_times["command"][found.channels["command"]["mode"] == 4]
    assert found.publish_times["base_pose"].tolist() == sent
    assert (found.channels["base_pose"]["position"] == POSE["position"]).all()
    assert found.complete and damped[-1] - damped[0] >= 2e9 * 0.99
    assert run.gone()


def test_a_robot_that_another_process_commands_is_refused(robot: Reader, tmp_path: Path) -> None:
    run = Run.start(tmp_path)
    second = subprocess.run([*DEPLOY, "run", "--network.domain", str(DOMAIN), "--recording", str(tmp_path / "b.mcap")],
                            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)  # fmt: skip
    run.process.send_signal(signal.SIGTERM)
    run.process.wait(20)
    assert second.returncode == 2 and "can command this robot too; end it first" in second.stderr
    assert not (tmp_path / "b.mcap").exists()


def test_a_policy_that_is_to_balance_must_be_one_of_the_run() -> None:
    with pytest.raises(RunError, match=r"--then is 1 and the run has 0 policies; allowed: the key of one of them"):
        plan_of(RunConfig(then=1))


# -- shared memory


RINGS = {"numbers": np.dtype([("value", "<i8")])}


def push(shared: Shared, *values: int) -> None:
    for value in values:
        shared.rings["numbers"].push(np.array((value,), RINGS["numbers"]), value, -value)


def test_a_ring_gives_what_is_new_and_says_what_was_missed() -> None:
    shared = Shared.create(RINGS)
    other = Shared(shared.path, RINGS)
    shared.remove()
    ring = other.rings["numbers"]
    assert ring.latest() is None
    push(shared, 1, 2, 3)
    found, seen, missed = ring.since(1)
    assert (found["record"]["value"].tolist(), seen, missed) == ([2, 3], 3, 0)
    assert ring.since(seen)[0].size == 0
    push(shared, *range(4, CAPACITY + 100))
    found, seen, missed = ring.since(3)
    assert found["record"]["value"][-1] == CAPACITY + 99
    assert missed == CAPACITY + 96 - len(found) > 0
    latest = ring.latest()
    assert latest is not None and (latest["log_time"], latest["publish_time"]) == (CAPACITY + 99, -CAPACITY - 99)


def test_numbers_are_seen_by_who_has_mapped_the_same_memory() -> None:
    shared = Shared.create(RINGS)
    other = Shared(shared.path, RINGS)
    shared.remove()
    shared.set("epoch", 7)
    assert (other.get("epoch"), other.get("wanted")) == (7, 0)
