"""Figures of a nominal run, worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controllers.recording import Recorder, g1_channels, read_recording
from deploy.nominal import figures

CHANNELS = g1_channels(2)


def recorded(path: Path, late: list[float], trips: int = 0, mode: int = 3) -> Path:
    """A run of 100 commands, 2 ms apart but for one gap of 22 ms, a state with every other one of them, and control
    steps that were late by so much [s]."""
    recorder = Recorder(path, CHANNELS, {"checks": ["tilt", "stale_state"], "control_hz": 50.0})
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
    found = figures(read_recording(recorded(tmp_path / "a.mcap", [0.0, 0.016, 0.018, 0.0])))
    assert found["missed_deadlines"] == 0.25  # 18 + 1 + 2 ms are more than 20 ms
    assert found["inference_p99_ms"] == pytest.approx(2.0)
    assert found["command_gap_max_ms"] == pytest.approx(22.0)
    assert found["state_gap_max_ms"] == pytest.approx(24.0)
    assert found["commands_per_second"] == pytest.approx(99 / 0.218)
    assert (found["trips"], found["warnings"]) == ([], ["stale_state"])


def test_trips_are_named_and_a_run_without_a_policy_has_no_figures(tmp_path: Path) -> None:
    assert figures(read_recording(recorded(tmp_path / "a.mcap", [0.0], 2)))["trips"] == ["stale_state", "stale_state"]
    with pytest.raises(ValueError, match="the policy never ran; what tripped: stale_state"):
        figures(read_recording(recorded(tmp_path / "b.mcap", [], 1)))
