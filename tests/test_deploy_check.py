"""`deploy check` names what would stop a run; `deploy monitor` shows what a recording holds."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from controllers.g1 import default_pose, revision
from controllers.recording import Recorder, g1_channels, read_recording
from deploy.check import CheckConfig, Line, look
from deploy.modes import Mode
from deploy.monitor import SILENT, live, recorded
from deploy.virtual_events import Event
from deploy.virtual_g1 import VirtualConfig, VirtualG1
from deploy.wire import Network, Participant
from sim.wrap import read_spec, wrap_policy
from tests.test_wrap import ASAP, network

DOMAIN = 101 + os.getpid() % 19  # tests that run at the same time do not hear each other
ROBOT = revision("g1_29dof")


def lines(config: CheckConfig) -> dict[str, Line]:
    return {line.what: line for line in look(config)}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    wrap_policy(network(folder / "actor.onnx"), read_spec(ASAP), folder / "policy.onnx")
    return folder / "policy.onnx"


def test_a_policy_that_does_not_fit_stops_a_run_and_is_named(policy: Path) -> None:
    found = lines(CheckConfig(policies=(policy,), offline=True))
    assert found["policies"].grade == "stops a run"
    assert "policy.onnx: policy_spec.motion.duration is absent" in found["policies"].found
    assert "robot" not in found


def test_an_interface_that_does_not_exist_and_one_without_consent_stop_a_run() -> None:
    absent = lines(CheckConfig(network=Network("no_such_thing", on_robot=True)))
    assert absent["interface"].grade == "stops a run"
    assert "'no_such_thing' does not exist; there are " in absent["interface"].found
    silent = lines(CheckConfig(network=Network(domain=DOMAIN)))
    assert silent["robot"].grade == "stops a run" and "no state within" in silent["robot"].found


def test_a_robot_is_described_and_its_faults_stop_a_run() -> None:
    events = (
        Event(0.0, "motor_fault", value=3.0, joint="left_knee_joint"),
        Event(0.0, "low_battery", value=3.0),
        Event(0.0, "wrong_mode_machine", value=9.0),
        Event(0.0, "remote_lost"),
        Event(0.0, "foreign_publisher", value=50.0),
    )
    virtual = VirtualG1(VirtualConfig(domain=DOMAIN), events, log=lambda _: None)
    stopped = threading.Event()
    thread = threading.Thread(target=virtual.run, args=(stopped,))
    thread.start()
    try:
        found = lines(CheckConfig(network=Network(domain=DOMAIN)))
    finally:
        stopped.set()
        thread.join()
        virtual.close()
    assert found["message types"].grade == found["clock"].grade == found["joints"].grade == "good"
    stopping = {what for what, line in found.items() if line.grade == "stops a run"}
    assert stopping >= {"motor_fault", "mode_machine", "other commanders"}
    assert "left_knee_joint" in found["motor_fault"].found
    assert found["mode_machine"].found.startswith("9: unknown; allowed: ")
    assert (found["battery"].grade, found["battery"].found) == ("warning", "3 %")
    assert found["remote"].grade == "warning"
    assert "'ai' is active" in found["motion controller"].found


def test_the_monitor_shows_what_was_recorded_at_each_time(tmp_path: Path) -> None:
    channels = g1_channels(len(ROBOT.joints))
    facts = {
        "robot": ROBOT.name,
        "joint_names": list(ROBOT.joint_names),
        "modes": {mode.name.lower(): mode.value for mode in Mode},
        "checks": {"tilt": 0},
        "policies": [{"name": "kick"}],
    }
    recorder = Recorder(tmp_path / "a.mcap", channels, facts)
    pose = default_pose(ROBOT)
    for step in range(500):
        now = 10_000_000_000 + 2_000_000 * step
        state, command = np.zeros((), channels["state"]), np.zeros((), channels["command"])
        state["quaternion"], state["joint_position"] = [1, 0, 0, 0], pose + step / 1000
        state["temperature"] = 40
        command["position"], command["stiffness"] = pose, 100.0 * (step >= 250)
        recorder.write("state", state, now)
        recorder.write("command", command, now)
        if step in (0, 250):
            mode = np.zeros((), channels["mode"])
            mode["mode"], mode["policy"] = (Mode.ZERO_TORQUE, -1) if step == 0 else (Mode.POLICY, 0)
            recorder.write("mode", mode, now)
        if step == 400:
            fault = np.zeros((), channels["fault"])
            fault["level"], fault["where"], fault["value"] = 2, -1, 1.25
            recorder.write("fault", fault, now)
    recorder.close()
    duration, moment_at = recorded(read_recording(tmp_path / "a.mcap"))
    assert duration == pytest.approx(0.998)
    before, after, end = moment_at(0.1), moment_at(0.6), moment_at(0.9)
    assert before is not None and after is not None and end is not None
    assert (before.mode, before.targets, before.faults) == ("zero torque", None, ())
    assert after.mode == "policy kick" and after.rates.startswith("500 states/s")
    np.testing.assert_allclose(after.joints, pose + 0.3, atol=1e-6)
    np.testing.assert_allclose(after.targets if after.targets is not None else [], pose, atol=1e-6)
    assert end.faults == ("0.80 s TRIP: tilt 1.25",)


def test_the_monitor_judges_what_it_hears_and_says_when_it_hears_nothing() -> None:
    fault = Event(0.5, "motor_fault", value=3.0, joint="left_knee_joint")
    virtual = VirtualG1(VirtualConfig(domain=DOMAIN, duration=1.0), (fault,), log=lambda _: None)
    participant = Participant(Network(domain=DOMAIN))
    moment_at = live(participant, ROBOT)
    assert moment_at(0.0) is None
    virtual.run()
    heard = moment_at(0.0)
    assert heard is not None and "states/s" in heard.rates
    assert [text for text in heard.faults if text.endswith("TRIP: motor_fault left_knee_joint 1")]
    assert heard.mode == "nobody commands" and heard.targets is None
    time.sleep(SILENT)
    silent = moment_at(0.0)
    assert silent is not None and "all of this is old" in silent.rates
    participant.close()
    virtual.close()
