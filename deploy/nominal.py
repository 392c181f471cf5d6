"""`deploy campaign nominal`: nothing goes wrong, in real time, for a long time. What trips, and how late is what?

A virtual G1 and a run, each in processes of its own, on this machine. The robot stands on its gantry, is lowered, the
policy plays its motion, the robot is hoisted again, and so on; buttons go through the robot's wireless remote. With
real-time priority the machine is watched for pauses (`deploy/pauses.py`): a run that trips because the machine stood
still has tripped rightly, and another one goes on. What trips without such a pause has tripped falsely.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from controllers.recording import Recording, read_recording
from controllers.safety import TRIP
from deploy.campaign import facts, save
from deploy.pauses import watched

HANGS, TOUCHES, LOWERED = 0.02, -0.005, -0.15  # [m] of the soles over the floor
HOIST = 0.5  # [s]
TAKES_OVER = 0.15  # [s] after its button is pressed the policy drives, and the rope may become slack
REST = 1.0  # [s] between two motions
START = 120.0  # [s] for a process to say something
PAUSE = 25.0  # [ms], half of the trip level of a stale state; a shorter pause of the machine is no excuse
BLAMED = 0.3  # [s] before or after which a pause may be what a trip comes from: both end at about the same time
RUNS = 20  # at most; a machine that ends so many is not one to measure on


@dataclass(frozen=True)
class NominalConfig:
    """Let a policy play its motion again and again in real time, and count what trips and what is late."""

    policy: tyro.conf.Positional[Path]
    """policy.onnx."""
    clip: Path
    """Its motion."""
    minutes: float = 30.0
    """How long, over all runs."""
    noise: float = 1.0
    """Of the virtual robot's sensors."""
    real_time: bool = False
    """As in `deploy run`, for the virtual robot too."""
    domain: int = 96
    """DDS domain."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/campaign_nominal.json")
    """File for the numbers (.json)."""


def nominal_command(config: NominalConfig) -> int:
    """Print the figures. 1 when anything tripped that no pause of the machine explains."""
    recordings: list[Recording] = []
    played, none = 0, np.zeros((0, 2), dtype=np.int64)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        pauses = stack.enter_context(watched(Path(name))) if config.real_time else lambda: none
        done = 0.0
        while True:
            folder = Path(name) / str(len(recordings))
            folder.mkdir()
            played += _play(dataclasses.replace(config, minutes=config.minutes - done), folder)
            recordings.append(read_recording(folder / "recording.mcap"))
            said, false = verdict(recordings[-1], pauses())
            done = sum(map(minutes_of, recordings))
            Console(stderr=True).print(f"{done:.1f} of {config.minutes:g} minutes; {said or 'no trip'}")
            if false or done >= config.minutes or len(recordings) == RUNS:
                break
        found = figures(recordings, pauses())
    found |= {"motions": played, "load": os.getloadavg()[0]}
    save(config.output, {"facts": facts(0), **found})
    Console().print(found)
    return 0 if not found["false_trips"] and found["minutes"] >= config.minutes else 1


def minutes_of(recording: Recording) -> float:
    """How long it ran, until it tripped if it did."""
    times, trips = recording.log_times["command"], _trips(recording)
    end = trips[0][0] if trips else int(times[-1])
    return (end - int(times[0])) / 60e9


def _trips(recording: Recording) -> list[tuple[int, str]]:
    """When [ns since the epoch], and what."""
    checks = list(recording.facts["checks"])
    faults = zip(recording.log_times["fault"].tolist(), recording.channels["fault"], strict=True)
    return [(at, checks[int(row["check"])]) for at, row in faults if row["level"] == TRIP]


def verdict(recording: Recording, pauses: NDArray[np.int64]) -> tuple[str, bool]:
    """What tripped first and beside which pause of the machine, empty if nothing did, and whether that is a false trip.
    What trips later, in the same damping, is a consequence."""
    for at, name in _trips(recording)[:1]:
        behind = at / 1e9 - pauses[:, 1] / 1e9
        longest = float(np.diff(pauses)[(behind > -BLAMED) & (behind < BLAMED)].max(initial=0)) / 1e6
        text = f"{name} after {minutes_of(recording):.1f} minutes, beside a pause of {longest:.0f} ms"
        return text, longest < PAUSE
    return "", False


def figures(recordings: Sequence[Recording], pauses: NDArray[np.int64]) -> dict[str, Any]:
    """What nominal runs show: trips, and lateness in real time, pauses of the machine included.

    Args:
        recordings: Of the runs.
        pauses: Beginning and end of each pause of the machine [ns since the epoch], (N, 2).
    """

    def all_of(channel: str, field: str) -> NDArray[np.floating]:
        return np.concatenate([np.asarray(one.channels[channel][field], dtype=float) for one in recordings])

    verdicts = [verdict(recording, pauses) for recording in recordings]
    said = [text for text, _ in verdicts if text]
    if not sum(len(recording.channels["latency"]) for recording in recordings):
        raise ValueError(f"the policy never ran; what tripped: {', '.join(said) or 'nothing'}; is this machine busy?")
    period = 1 / recordings[0].facts["control_hz"]
    answered = all_of("latency", "lateness") + all_of("latency", "observe") + all_of("latency", "inference")
    gaps, silences = (
        np.concatenate([np.diff(one.log_times[channel]) for one in recordings]) / 1e6
        for channel in ("command", "state")
    )
    warnings = {
        list(one.facts["checks"])[int(row["check"])]
        for one in recordings
        for row in one.channels["fault"]
        if row["level"] != TRIP
    }
    return {
        "minutes": sum(map(minutes_of, recordings)),
        "runs": len(recordings),
        "trips": said,
        "false_trips": [text for text, false in verdicts if false],
        "warnings": sorted(warnings),
        "pauses_of_the_machine": len(pauses),
        "pause_max_ms": float(np.diff(pauses).max(initial=0)) / 1e6,
        "control_steps": len(answered),
        "missed_deadlines": float((answered > period).mean()),
        "inference_p99_ms": 1e3 * float(np.percentile(all_of("latency", "inference"), 99)),
        "observe_p99_ms": 1e3 * float(np.percentile(all_of("latency", "observe"), 99)),
        "state_age_p99_ms": 1e3 * float(np.percentile(all_of("latency", "state_age"), 99)),
        "commands_per_second": 1e3 / float(gaps.mean()),
        "command_gap_p99_ms": float(np.percentile(gaps, 99)),
        "command_gap_max_ms": float(gaps.max()),
        "state_gap_max_ms": float(silences.max()),
    }


def _play(config: NominalConfig, folder: Path) -> int:
    """Run until the time is over; how often the motion was played."""
    deploy, remote = [sys.executable, "-m", "deploy.cli"], folder / "remote"
    network = ["--network.domain", str(config.domain)]
    hurry = ["--real-time"] if config.real_time else []
    said = folder / "said.txt"
    robot = subprocess.Popen(
        [*deploy, "virtual", "--domain", str(config.domain), "--remote-socket", str(remote), "--lift", str(HANGS),
         "--body.noise", str(config.noise), *hurry], stdout=subprocess.DEVNULL)  # fmt: skip
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with said.open("w") as file:
        run = subprocess.Popen(
            [*deploy, "run", str(config.policy), "--clips", str(config.clip), *network, "--recording",
             str(folder / "recording.mcap"), *hurry],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"PYTHONUNBUFFERED": "1"})  # fmt: skip
    seen = 0

    def until(text: str, patience: float = START) -> bool:
        """Whether it says that, after what was seen before."""
        nonlocal seen
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and run.poll() is None:
            place = said.read_text().find(text, seen)
            if place >= 0:
                seen = place + len(text)
                return True
            time.sleep(0.01)
        return False

    def tell(**event: Any) -> None:
        line.sendto(json.dumps(event).encode(), str(remote))

    played = 0
    try:
        if not until("recording into"):
            raise ValueError(f"the run did not begin: {said.read_text().strip()}")
        tell(kind="press", value="Start", duration=0.2)
        standing = until("mode: stand")
        end = time.monotonic() + 60 * config.minutes
        while standing and time.monotonic() < end:
            time.sleep(REST)
            tell(kind="gantry", value=TOUCHES, duration=HOIST)  # upright by the rope until somebody balances
            time.sleep(HOIST + REST / 2)
            tell(kind="press", value="A", duration=0.2)
            time.sleep(TAKES_OVER)
            tell(kind="gantry", value=LOWERED, duration=HOIST)
            standing = until("mode: policy", 5.0) and until("mode: stand", 60.0)
            tell(kind="gantry", value=HANGS, duration=HOIST)
            played += standing
        run.send_signal(signal.SIGTERM)
        run.wait(60)
    finally:
        for process in (run, robot):
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        line.close()
    return played
