"""The service with which the robot's own motion controller is released: who asks (`MotionSwitcher`), who answers.

Until it is released, the robot's controller sends motor commands too, and the robot obeys both senders in turn. A robot
goes limp when its controller is released: it must hang on a gantry or lie.

Requests and responses are JSON in two DDS topics; numbers are Unitree's (`motion_switcher` of its SDK, api 1.0.0.1).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from deploy.wire import Participant, WireError, rpc_classes

SERVICE = "motion_switcher"
CHECK_MODE, SELECT_MODE, RELEASE_MODE = 1001, 1002, 1003
NOT_IMPLEMENTED, BAD_PARAMETER = 3203, 3204  # codes of the vendor's services

RELEASE_PAUSE = 1.0  # [s] that the robot gets to act on a release before it is asked again
ASK_EVERY = 0.2  # [s] between two questions of a watch


@dataclass(frozen=True)
class Mode:
    """The motion controller that is active; none when `name` is empty."""

    form: str
    name: str


class MotionSwitcher:
    """Asks the service; every call either succeeds or raises within its timeout."""

    def __init__(self, participant: Participant, timeout: float = 1.0):
        self._requests, self._responses = _writer(participant, "request"), _reader(participant, "response")
        self._timeout = timeout
        self._last_id = time.time_ns()

    def offered(self) -> bool:
        """Whether the service is there and can answer."""
        return bool(self._requests.get_matched_subscriptions() and self._responses.get_matched_publications())

    def check_mode(self) -> Mode:
        """Which motion controller is active."""
        answer = self._call(CHECK_MODE, "CheckMode", "{}")
        return Mode(str(answer.get("form", "")), str(answer.get("name", "")))

    def select_mode(self, name: str) -> None:
        """Start that motion controller."""
        self._call(SELECT_MODE, "SelectMode", json.dumps({"name": name}))

    def release_mode(self) -> None:
        """Ask the active motion controller to stop; it may take a while."""
        self._call(RELEASE_MODE, "ReleaseMode", "{}")

    def release(self, timeout: float = 10.0) -> list[Mode]:
        """Ask until no motion controller is active.

        Returns:
            Those that were, in order.

        Raises:
            WireError: The service does not answer, or a controller is still active after `timeout` [s].
        """
        released, end = [], time.monotonic() + timeout
        while True:
            mode = self.check_mode()
            if not mode.name:
                return released
            if time.monotonic() > end:
                raise WireError(f"motion controller {mode.name!r} is still active after {timeout:g} s of releasing it")
            if mode not in released:
                released.append(mode)
            self.release_mode()
            for _ in range(10):
                if not self.check_mode().name:
                    break
                time.sleep(RELEASE_PAUSE / 10)

    def _call(self, api: int, name: str, parameter: str) -> dict[str, Any]:
        """The answer's JSON; {} when it has none."""
        end = time.monotonic() + self._timeout
        while not self.offered():
            if time.monotonic() > end:
                raise WireError(f"the service {SERVICE} is not there: nobody offers it within {self._timeout:g} s")
            time.sleep(0.005)
        self.ask(api, parameter)
        while time.monotonic() < end:
            answer = self.answer()
            if answer is not None:
                code, data = answer
                if code != 0:
                    raise WireError(f"{SERVICE} refuses {name}({parameter}) with code {code}")
                return data
            time.sleep(0.002)
        raise WireError(f"{SERVICE} does not answer {name} within {self._timeout:g} s")

    def ask(self, api: int, parameter: str = "{}") -> None:
        """Send that question; does not wait."""
        self._last_id += 1
        made = rpc_classes()
        header = made["RequestHeader_"](
            identity=made["RequestIdentity_"](id=self._last_id, api_id=api),
            lease=made["RequestLease_"](id=0),
            policy=made["RequestPolicy_"](priority=0, noreply=False),
        )
        self._requests.write(made["Request_"](header=header, parameter=parameter, binary=[]))

    def answer(self) -> tuple[int, dict[str, Any]] | None:
        """Code and JSON of the answer to the last question, if it has come; does not wait."""
        for answer in self._responses.take(16):
            if answer.sample_info.valid_data and answer.header.identity.id == self._last_id:
                return answer.header.status.code, _json(answer.data)
        return None  # others are for other clients, or to questions that were given up


class Watch:
    """Notices that a motion controller of the robot becomes active again, without ever waiting: at once when a program
    asks the service for one, and within `ASK_EVERY` when one was started in another way, such as by the remote."""

    def __init__(self, participant: Participant):
        self._switcher = MotionSwitcher(participant)
        self._requests = _reader(participant, "request")
        self._asked_at: float | None = None

    def look(self, now: float) -> bool:
        """Whether one is active, or somebody has asked for one, since the last look.

        Args:
            now: Any clock that does not go back [s].
        """
        asked = any(
            request.sample_info.valid_data and request.header.identity.api_id == SELECT_MODE
            for request in self._requests.take(16)
        )
        answer = self._switcher.answer()
        if (self._asked_at is None or now - self._asked_at >= ASK_EVERY) and self._switcher.offered():
            self._asked_at = now
            self._switcher.ask(CHECK_MODE)
        return asked or (answer is not None and bool(answer[1].get("name")))


class MotionSwitcherService:
    """Answers as the robot does; `active` is the controller that runs, and empty when none does."""

    def __init__(self, participant: Participant, active: str = "ai"):
        self._responses, self._requests = _writer(participant, "response"), _reader(participant, "request")
        self.active = active

    def serve(self) -> None:
        """Answer what was asked since the last call; does not wait."""
        made = rpc_classes()
        for request in self._requests.take(16):
            if not request.sample_info.valid_data:
                continue
            code, data = self._answer(request.header.identity.api_id, request.parameter)
            header = made["ResponseHeader_"](
                identity=request.header.identity, status=made["ResponseStatus_"](code=code)
            )
            self._responses.write(made["Response_"](header=header, data=data, binary=[]))

    def _answer(self, api: int, parameter: str) -> tuple[int, str]:
        """Code and data."""
        if api == CHECK_MODE:
            return 0, json.dumps({"form": "0", "name": self.active})
        if api == RELEASE_MODE:
            self.active = ""
            return 0, ""
        if api == SELECT_MODE:
            name = _json(parameter).get("name")
            if not isinstance(name, str):
                return BAD_PARAMETER, ""
            self.active = name
            return 0, ""
        return NOT_IMPLEMENTED, ""


KEPT = 16  # messages


def _topic(participant: Participant, part: str) -> Any:
    return participant.topic(f"rt/api/{SERVICE}/{part}", rpc_classes()[f"{part.capitalize()}_"])


def _writer(participant: Participant, part: str) -> Any:
    from cyclonedds.pub import DataWriter
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.util import duration

    kept = Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(KEPT)
    return DataWriter(participant.entity, _topic(participant, part), Qos(*kept))


def _reader(participant: Participant, part: str) -> Any:
    """Of what others say. Best effort matches every writer, whatever the robot's firmware offers."""
    from cyclonedds.qos import Policy, Qos
    from cyclonedds.sub import DataReader

    kept = Policy.Reliability.BestEffort, Policy.History.KeepLast(KEPT), Policy.IgnoreLocal.Participant
    return DataReader(participant.entity, _topic(participant, part), Qos(*kept))


def _json(text: str) -> dict[str, Any]:
    """The object in that text; {} if it is not one."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
