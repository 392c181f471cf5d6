"""`deploy campaign nominal`: nothing goes wrong, in real time, for a long time. What trips, and how late is what?

A virtual G1 and a run, each in processes of its own, on this machine. The robot stands on its gantry, is lowered, the
policy plays its motion, the robot is hoisted again, and so on; buttons go through the robot's wireless remote.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from controllers.recording import Recording, read_recording
from controllers.safety import TRIP
from deploy.campaign import facts, save
from deploy.modes import Mode

HANGS, TOUCHES, LOWERED = 0.02, -0.005, -0.15  # [m] of the soles over the floor
HOIST = 0.5  # [s]
TAKES_OVER = 0.15  # [s] after its button is pressed the policy drives, and the rope may become slack
REST = 1.0  # [s] between two motions
START = 120.0  # [s] for a process to say something
INFERENCE = 0.002  # [s]


@dataclass(frozen=True)
class NominalConfig:
    """Let a policy play its motion again and again in real time, and count what trips and what is late."""

    policy: tyro.conf.Positional[Path]
    """policy.onnx."""
    clip: Path
    """Its motion."""
    minutes: float = 30.0
    """How long."""
    noise: float = 1.0
    """Of the virtual robot's sensors."""
    real_time: bool = False
    """As in `deploy run`, for the virtual robot too."""
    domain: int = 96
    """DDS domain."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/campaign_nominal.json")
    """File for the numbers (.json)."""


def nominal_command(config: NominalConfig) -> int:
    """Print the figures. 1 when anything tripped."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        played = _play(config, folder)
        found = figures(read_recording(folder / "recording.mcap"))
    found |= {"motions": played, "load": os.getloadavg()[0]}
    save(config.output, {"facts": facts(0), **found})
    Console().print(found)
    return 1 if found["trips"] else 0


def figures(recording: Recording) -> dict[str, Any]:
    """What a nominal run shows: trips, and lateness in real time."""
    command, latency, faults = (recording.channels[name] for name in ("command", "latency", "fault"))
    checks = list(recording.facts["checks"])
    times = recording.log_times["command"] / 1e9
    trips = [checks[int(row["check"])] for row in faults if row["level"] == TRIP]
    if not len(latency):
        raise ValueError(f"the policy never ran; what tripped: {', '.join(trips) or 'nothing'}; is this machine busy?")
    period = 1 / recording.facts["control_hz"]
    answered = latency["lateness"] + latency["observe"] + latency["inference"]
    gaps = np.diff(times)
    damped = np.flatnonzero(command["mode"] == Mode.DAMP)
    return {
        "minutes": float(times[-1] - times[0]) / 60,
        "trips": trips,
        "warnings": sorted({checks[int(row["check"])] for row in faults if row["level"] != TRIP}),
        "damped_before_the_end": bool(damped.size and times[-1] - times[damped[0]] > 10),
        "control_steps": len(latency),
        "missed_deadlines": float((answered > period).mean()),
        "inference_p99_ms": 1e3 * float(np.percentile(latency["inference"], 99)),
        "observe_p99_ms": 1e3 * float(np.percentile(latency["observe"], 99)),
        "state_age_p99_ms": 1e3 * float(np.percentile(latency["state_age"], 99)),
        "commands_per_second": float(1 / gaps.mean()),
        "command_gap_p99_ms": 1e3 * float(np.percentile(gaps, 99)),
        "state_gap_max_ms": 1e3 * float(np.diff(recording.log_times["state"]).max()) / 1e9,
        "command_gap_max_ms": 1e3 * float(gaps.max()),
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
