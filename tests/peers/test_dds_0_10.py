"""We and programs with CycloneDDS 0.10.2, which is what the robot's own have: they survive us, and we understand them.

Version 0.10.2 has wheels up to Python 3.10. The tests make an environment for it where `python3.10` and a package index
are there, and skip where not. REALIGN_UNITREE_SDK names a clone of unitree_sdk2_python, whose example then drives the
virtual robot.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="CycloneDDS is not installed: pip install 'realign[g1]'")

from deploy.unitree_hg import LOW_COMMAND, LOW_STATE, new_state, sealed
from deploy.virtual_g1 import VirtualConfig, VirtualG1
from deploy.wire import LOW_COMMAND_TOPIC, LOW_STATE_TOPIC, Network, Participant

pytestmark = pytest.mark.peers

DOMAIN = 2 + os.getpid() % 98
PEER = Path(__file__).parent / "dds_0_10_peer.py"
PACKAGES = ("cyclonedds==0.10.2", "numpy")


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    """Of an environment with CycloneDDS 0.10.2 and the vendor's types."""
    folder = Path(request.config.cache.mkdir("dds_0_10"))
    made = folder / "bin" / "python"
    if not (folder / "complete").exists():
        try:
            subprocess.run(["python3.10", "-m", "venv", folder], check=True, capture_output=True)
            pip = [made, "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *PACKAGES], check=True, capture_output=True)
            subprocess.run([*pip, "--no-deps", "unitree-sdk2==1.0.1"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no Python 3.10 with {PACKAGES[0]} can be made here ({error})")
        (folder / "complete").touch()
    return made


@pytest.fixture
def peer(python: Path) -> Iterator[subprocess.Popen[str]]:
    """A program as on the robot, which answers 20 states and ends."""
    started = subprocess.Popen([python, PEER, str(DOMAIN), "20"], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    yield started
    started.kill()
    started.wait()


def test_a_program_with_0_10_survives_us_and_both_understand_each_other(peer: subprocess.Popen[str]) -> None:
    participant = Participant(Network(domain=DOMAIN))
    states = participant.writer(LOW_STATE_TOPIC, LOW_STATE)
    commands = participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND, lossless=True)
    state, heard, end = new_state(), [], time.monotonic() + 30
    while peer.poll() is None and time.monotonic() < end:
        state["tick"] += 10
        state["motor_state"]["q"][3] = 1e-3 * state["tick"]
        states.write(sealed(state))
        time.sleep(0.01)
        heard += commands.take_all()
    assert peer.poll() == 0, "it ended by itself"
    assert peer.stdout is not None
    count, last_tick = map(int, peer.stdout.read().split())
    assert count >= 20
    assert commands.crc_errors == 0
    assert [int(message.data["reserve"][0]) for message in heard][-1] == last_tick
    for message in heard:
        assert message.data["motor_cmd"]["q"][3] == np.float32(1e-3 * message.data["reserve"][0])
    participant.close()


CARELESS = """
import sys, time
from cyclonedds.idl import types
types.byte = types.uint8  # what one would write first
from deploy import wire
wire.check_types = lambda: None
participant = wire.Participant(wire.Network(domain=int(sys.argv[1])))
reader = participant.reader(wire.LOW_STATE_TOPIC, wire.LOW_STATE)
commands = participant.reader(wire.LOW_COMMAND_TOPIC, wire.LOW_COMMAND)
time.sleep(10)
"""


def test_the_same_program_dies_of_types_with_uint8_so_the_test_above_can_fail(peer: subprocess.Popen[str]) -> None:
    careless = subprocess.Popen([sys.executable, "-c", CARELESS, str(DOMAIN)])
    try:
        assert peer.wait(10) == -signal.SIGSEGV
    finally:
        careless.kill()
        careless.wait()


def test_the_vendors_example_drives_the_virtual_robot(python: Path) -> None:
    clone = os.environ.get("REALIGN_UNITREE_SDK")
    if clone is None:
        pytest.skip("needs a clone of unitree_sdk2_python; set REALIGN_UNITREE_SDK to its folder")
    robot = VirtualG1(VirtualConfig(domain=0, duration=12.0), log=lambda _: None)
    thread = threading.Thread(target=robot.run)
    thread.start()
    example = subprocess.Popen(
        [python, Path(clone) / "example" / "g1" / "low_level" / "g1_low_level_example.py", "lo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": clone},
    )
    assert example.stdin is not None
    example.stdin.write(b"\n")
    example.stdin.flush()
    thread.join()
    alive = example.poll() is None
    example.kill()
    example.wait()
    robot.close()
    assert alive, "it runs until it is stopped"
    assert robot.switcher.active == "", "it released the robot's motion controller"
    # For three seconds it moves to the zero pose, for three it swings the ankles, 500 times a second; then it commands
    # the ankles' single motors, which we refuse.
    assert 2000 < robot.summary.obeyed <= 3000
    assert "CRC wrong" not in robot.summary.ignored
    assert all("mode_pr is 1" in reason or "'ai' is active" in reason for reason in robot.summary.ignored)
