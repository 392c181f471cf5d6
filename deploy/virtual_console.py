"""What a person has beside a virtual G1: the wireless remote, the hand on the gantry, and a view of the robot.

Lines come from standard input or as datagrams on a Unix socket:

    Start                       press a button
    L2+B                        several at once
    ly 0.5                      move a stick (lx, ly, rx, ry) and leave it there
    gantry -0.1 2               lower the robot until its soles hang at that height [m], within so many seconds
    release                     take the gantry's rope off
    {"kind": "push"}            any event of a script, now
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from controllers.g1 import G1
from deploy.unitree_hg import Remote
from deploy.virtual_events import Event, ScriptError, parse_event, pressed

PRESS_TIME = 0.2  # [s] that a button is held
STICKS = ("lx", "ly", "rx", "ry")
PICTURES_PER_SECOND = 25


class Console:
    """Turns lines into events."""

    def __init__(self, keyboard: bool, socket_path: Path | None, robot: G1):
        """
        Args:
            keyboard: Read standard input.
            socket_path: Make this Unix socket and read it.
            robot: Whose joints events may name.
        """
        self.remote = Remote()
        """The sticks as they were left."""
        self._robot, self._path = robot, socket_path
        self._typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._socket: socket.socket | None = None
        if keyboard:
            threading.Thread(target=self._read_keyboard, daemon=True).start()
        if socket_path is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                self._socket.bind(str(socket_path))
            except OSError as error:
                raise ScriptError(f"{socket_path}: no socket can be made there ({error.strerror})") from error
            self._socket.setblocking(False)

    def events(self, now: float, log: Callable[[str], None]) -> list[Event]:
        """Of the lines since the last call; what cannot be understood is said."""
        events = []
        for line in self._lines():
            try:
                events += self._understand(line, now)
            except ScriptError as error:
                log(str(error))
        return events

    def close(self) -> None:
        if self._socket is not None and self._path is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)

    def _read_keyboard(self) -> None:
        for line in sys.stdin:
            self._typed.put(line)

    def _lines(self) -> Iterator[str]:
        while not self._typed.empty():
            yield self._typed.get()
        if self._socket is not None:
            with contextlib.suppress(BlockingIOError):  # all are read
                while True:
                    yield self._socket.recv(4096).decode(errors="replace")

    def _understand(self, line: str, now: float) -> list[Event]:
        words = line.split()
        if not words:
            return []
        if words[0].startswith("{"):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ScriptError(f"{line.strip()!r} is not JSON ({error})") from error
            return [dataclasses.replace(parse_event(row, "the event", self._robot, now), at=now)]
        if words[0] in STICKS:
            self.remote = dataclasses.replace(self.remote, **{words[0]: _number(words, 1, -1.0, 1.0)})
            return []
        if words == ["release"]:
            return [Event(now, "release")]
        if words[0] == "gantry":
            seconds = _number(words, 2, 0.0, 60.0) if len(words) > 2 else 2.0
            return [Event(now, "gantry", seconds, _number(words, 1, -2.0, 1.0))]
        pressed(line.strip(), "the line")
        return [Event(now, "press", PRESS_TIME, line.strip())]


def _number(words: list[str], index: int, low: float, high: float) -> float:
    """That word as a number within those bounds."""
    try:
        number = float(words[index])
    except (IndexError, ValueError):
        number = float("nan")
    if not low <= number <= high:
        raise ScriptError(f"{' '.join(words)!r}: allowed after {words[0]} is a number from {low:g} to {high:g}")
    return number


class Viewer:
    """The robot as it moves, in the browser; `show` is cheap, drawing happens in another thread."""

    def __init__(self, model: Any, port: int):
        from sim.motions.drawing import viewing
        from sim.motions.play import add_robot

        self._server = viewing("viser").ViserServer(port=port, verbose=False)
        self.port = self._server.get_port()
        self._server.scene.set_up_direction("+z")
        self._server.scene.add_grid("/floor", width=20, height=20, cell_size=0.5)
        self._server.initial_camera.position = (2.2, 1.2, 1.2)
        self._server.initial_camera.look_at = (0.0, 0.0, 0.6)
        self.bodies, _ = add_robot(self._server.scene, model, "/robot")
        """Handles of MuJoCo's bodies."""
        self._poses: tuple[np.ndarray, np.ndarray] | None = None
        self._due, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._thread.start()

    def show(self, data: Any) -> None:
        """Take the pose of now, if a picture is due."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + 1 / PICTURES_PER_SECOND
            self._poses = data.xpos.copy(), data.xquat.copy()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._server.stop()

    def _draw(self) -> None:
        while not self._ended.wait(1 / PICTURES_PER_SECOND):
            poses, self._poses = self._poses, None
            if poses is None:
                continue
            with self._server.atomic():
                for handle, position, quaternion in zip(self.bodies, *poses, strict=True):
                    handle.position, handle.wxyz = position, quaternion
