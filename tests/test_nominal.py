"""Figures of a nominal run, worked by hand."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from controllers.recording import Recorder, g1_channels, read_recording
from deploy.nominal import figures
from deploy.pauses import watched
from deploy.real_time import real_time_allowed

CHANNELS = g1_channels(2)
NONE = np.zeros((0, 2), dtype=np.int64)


def recorded(path: Path, late: list[float], trips: int = 0, mode: int = 3) -> Path:
    """A run of 100 commands, 2 ms apart but for one gap of 22 ms, a state with every other one of them, and control
    steps that were late by so much [s]."""
    recorder = Recorder(path, CHANNELS, {"checks": {"tilt": "", "stale_state": ""}, "control_hz": 50.0})
    now = 0
    for index in range(100):
        command = np.zeros((), CHANNELS["command"])
        command["mode"] = mode
        recorder.write("command", command, now)
        if index % 2 == 0:
            recorder.write("state", np.zeros((), CHANNELS["state"]), now)
        now += 22_000_000 if index == 50 else 2_000_000
    for seconds in late:
        latency = np.zeros((), CHANNELS["latency"])
        latency["lateness"], latency["observe"], latency["inference"] = seconds, 0.001, 0.002
        recorder.write("latency", latency, now)
    for number in range(trips + 1):
        fault = np.zeros((), CHANNELS["fault"])
        fault["check"], fault["level"] = 1, 2 if number < trips else 1
        recorder.write("fault", fault, now)
    recorder.close()
    return path


def test_a_deadline_is_missed_when_the_answer_is_not_there_within_the_period(tmp_path: Path) -> None:
    found = figures([read_recording(recorded(tmp_path / "a.mcap", [0.0, 0.016, 0.018, 0.0]))], NONE)
    assert found["missed_deadlines"] == 0.25  # 18 + 1 + 2 ms are more than 20 ms
    assert found["inference_p99_ms"] == pytest.approx(2.0)
    assert found["command_gap_max_ms"] == pytest.approx(22.0)
    assert found["state_gap_max_ms"] == pytest.approx(24.0)
    assert found["commands_per_second"] == pytest.approx(99 / 0.218)
    assert (found["trips"], found["warnings"]) == ([], ["stale_state"])
    assert found["minutes"] == pytest.approx(0.218 / 60)


@pytest.mark.parametrize(
    ("pause", "false"),
    [
        (None, ["stale_state"]),
        ((150, 200), []),  # [ms]: the trips are at 220
        ((200, 250), []),  # a state is stale before the pause is over
        ((200, 220), ["stale_state"]),  # too short to make a state stale
        ((-900, -800), ["stale_state"]),
    ],
)
def test_a_trip_is_false_unless_the_machine_stood_still(
    tmp_path: Path, pause: tuple[int, int] | None, false: list[str]
) -> None:
    recording = read_recording(recorded(tmp_path / "a.mcap", [0.0], 2))
    pauses = NONE if pause is None else np.array([pause], dtype=np.int64) * 1_000_000
    found = figures([recording], pauses)
    assert len(found["trips"]) == 1 and found["trips"][0].startswith(
        "stale_state after 0.0 minutes, beside a pause of "
    )
    assert [text.split()[0] for text in found["false_trips"]] == false
    again = figures([recording, recording], pauses)
    assert again["minutes"] == 2 * found["minutes"] == pytest.approx(2 * 0.22 / 60)
    assert (again["runs"], again["control_steps"], len(again["trips"])) == (2, 2, 2)


def test_a_run_without_a_policy_has_no_figures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the policy never ran; what tripped: stale_state"):
        figures([read_recording(recorded(tmp_path / "b.mcap", [], 1))], NONE)


@pytest.mark.skipif(not real_time_allowed(), reason="the system refuses real-time priority")
def test_a_processor_that_stands_still_is_seen(tmp_path: Path) -> None:
    with watched(tmp_path) as pauses:
        watcher = multiprocessing.active_children()[-1].pid
        assert watcher is not None
        time.sleep(0.05)
        begin = time.time_ns()
        os.kill(watcher, signal.SIGSTOP)
        time.sleep(0.08)
        os.kill(watcher, signal.SIGCONT)
        time.sleep(0.05)
        found = pauses()
    begins, ends = found[found[:, 0] > begin - 10_000_000].T
    assert (ends - begins).max() > 70_000_000
    assert not multiprocessing.active_children()
