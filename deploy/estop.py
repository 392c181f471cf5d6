"""`deploy estop`: damp the robot, whatever else runs. A process of its own that shares nothing with a run.

It sends damping at 500 Hz. A run that is alive hears a stranger and trips at once; one that hangs is outvoted by
damping that never stops. Any revision of the robot is answered with the number that it gives itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from controllers.g1 import revision
from deploy.controller import DAMPING, message_of, slots_of
from deploy.modes import Command, Hold, Mode
from deploy.wire import G1Link, Network

PERIOD = 0.002  # [s]
FIRST_HEARD = 1.0  # [s] to wait for the robot's own number before sending without it


@dataclass(frozen=True)
class EstopConfig:
    """Damp the robot now, from a process of its own."""

    network: Network = Network()  # noqa: RUF009 (frozen)
    """Where it is; the default cannot reach a real robot."""
    seconds: float = 5.0
    """How long to send; at least 2."""


def estop_command(config: EstopConfig) -> None:
    """Send damping for that long; an interrupt does not shorten it below 2 s."""
    if not config.seconds >= 2:
        raise ValueError(f"seconds is {config.seconds:g}; allowed: 2 or more")
    robot = revision("g1_29dof")
    none = np.zeros(len(robot.joints))
    link = G1Link(config.network)
    heard = link.wait_state(FIRST_HEARD)
    number = 0 if heard is None else int(heard.data["mode_machine"])
    message = message_of(Command(Mode.DAMP, -1, Hold(none, none, none + DAMPING)), number, slots_of(robot))
    began = due = time.monotonic()
    print("damping" if heard else "damping a robot that is not heard: it may not obey", flush=True)
    try:
        while time.monotonic() - began < config.seconds:
            link.publish_command(message)
            found = link.take_state()
            if found is not None:
                message["mode_machine"] = found.data["mode_machine"]
            due += PERIOD
            time.sleep(max(due - time.monotonic(), 0.0))
    finally:
        link.close()
