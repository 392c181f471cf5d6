"""Programs that nobody should have running beside ours, as members of the domain of their own: one commands motors, one
asks for the robot's own motion controller."""

from __future__ import annotations

import json
from typing import Any

from deploy.motion_switcher import SELECT_MODE, MotionSwitcher
from deploy.unitree_hg import LOW_COMMAND, new_command, sealed
from deploy.wire import LOW_COMMAND_TOPIC, Network, Participant


class Strangers:
    """Those of one virtual robot; they come when they are needed."""

    def __init__(self, network: Network, mode_machine: int) -> None:
        """
        Args:
            network: Of the robot.
            mode_machine: Of the robot.
        """
        self._network, self._mode_machine = network, mode_machine
        self._commander: tuple[Participant, Any] | None = None
        self._asker: tuple[Participant, MotionSwitcher, str] | None = None  # and what it asks for, until it has
        self._gone: list[Participant] = []

    def command(self, now: bool) -> None:
        """Be there to command motors, and command them to go limp `now`."""
        if self._commander is None:
            participant = Participant(self._network)
            self._commander = participant, participant.writer(LOW_COMMAND_TOPIC, LOW_COMMAND)
        if now:
            self._commander[1].write(sealed(new_command(self._mode_machine)))

    def leave(self) -> None:
        """Do not command any more."""
        if self._commander is not None:
            self._commander[0].close()
            self._commander = None

    def select(self, controller: str) -> None:
        """Ask the motion switcher for that controller, as soon as `serve` finds that it hears."""
        participant = Participant(self._network)
        self._asker = participant, MotionSwitcher(participant), controller

    def serve(self) -> None:
        """Ask what is not asked yet; does not wait."""
        if self._asker is not None and self._asker[1].offered():
            participant, switcher, controller = self._asker
            switcher.ask(SELECT_MODE, json.dumps({"name": controller}))
            self._gone.append(participant)
            self._asker = None

    def close(self) -> None:
        self.leave()
        for participant in (*self._gone, *(self._asker or ())[:1]):
            participant.close()
