"""Memory that the processes of a run share: rings of records, and a few numbers, each with one writer.

A ring keeps the newest `CAPACITY` records. Its writer fills a place and then counts up; a reader copies and then checks
that the place was not filled again meanwhile, so nobody waits for anybody, and a process that dies in the middle leaves
nothing locked. The memory is a file in `/dev/shm` which is gone from the folder as soon as all processes have it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CAPACITY = 1024
"""Records: 2 s at 500 Hz."""

NUMBERS = (
    "runtime_pid", "writer_pid", "policy_pid", "guard_pid",
    "runtime_beat", "writer_beat", "policy_beat", "guard_beat",  # [ns], `time.monotonic_ns`
    "wanted",  # by the writer: the policy that is to run, -1 for none
    "epoch",  # by the writer, of that request
    "mode",  # by the writer
    "mode_machine",  # by the writer, of the robot; -1 before it was heard
    "write_lateness",  # by the writer: largest of a tick in the last control period [ns]
    "taken_over",  # by the guard: the writer is gone, the guard commands
    "writer_done",  # by the writer: it ends as it should, having damped
    "stop",  # by the runtime: damp, and then end
)  # fmt: skip


class Ring:
    """Records of one layout with two time stamps."""

    def __init__(self, count: np.ndarray, records: np.ndarray) -> None:
        self._count, self._records = count, records

    @property
    def layout(self) -> np.dtype:
        """Of the records."""
        return self._records.dtype["record"]

    @property
    def count(self) -> int:
        """Records ever pushed."""
        return int(self._count[0])

    def push(self, record: np.ndarray, log_time: int, publish_time: int) -> None:
        count = int(self._count[0])
        place = self._records[count % CAPACITY]
        place["record"], place["log_time"], place["publish_time"] = record, log_time, publish_time
        self._count[0] = count + 1

    def latest(self) -> np.ndarray | None:
        """The newest (log_time, publish_time, record), a copy; None when there is none."""
        while (count := self.count) > 0:
            found = self._records[(count - 1) % CAPACITY].copy()
            if self.count - count < CAPACITY - 1:
                return found
        return None

    def since(self, seen: int) -> tuple[np.ndarray, int, int]:
        """What came after `seen` records: copies (n,), how many there are now, and how many were missed."""
        count = self.count
        first = max(seen, count - CAPACITY + 1)
        found = self._records[np.arange(first, count) % CAPACITY].copy()
        overrun = max(self.count - CAPACITY + 1 - first, 0)  # filled again while they were copied
        return found[overrun:], count, first + overrun - seen


class Shared:
    """All memory of a run."""

    def __init__(self, path: Path, rings: Mapping[str, np.dtype]) -> None:
        """Map the file that `create` has made, with the same rings."""
        self.path = path
        layouts = {
            name: np.dtype([("log_time", "<i8"), ("publish_time", "<i8"), ("record", dtype)], align=True)
            for name, dtype in rings.items()
        }
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._numbers = np.frombuffer(self._map, "<i8", len(NUMBERS))
        self.rings: dict[str, Ring] = {}
        offset = _rounded(8 * len(NUMBERS))
        for name, layout in layouts.items():
            count = np.frombuffer(self._map, "<i8", 1, offset)
            records = np.frombuffer(self._map, layout, CAPACITY, offset + 64)
            self.rings[name] = Ring(count, records)
            offset += 64 + _rounded(layout.itemsize * CAPACITY)

    @staticmethod
    def create(rings: Mapping[str, np.dtype]) -> Shared:
        """New memory; numbers and counts are zero."""
        size = _rounded(8 * len(NUMBERS))
        for dtype in rings.values():
            layout = np.dtype([("log_time", "<i8"), ("publish_time", "<i8"), ("record", dtype)], align=True)
            size += 64 + _rounded(layout.itemsize * CAPACITY)
        folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
        handle, name = tempfile.mkstemp(prefix="realign-", dir=folder)
        os.truncate(handle, size)
        os.close(handle)
        return Shared(Path(name), rings)

    def get(self, name: str) -> int:
        return int(self._numbers[NUMBERS.index(name)])

    def set(self, name: str, value: int) -> None:
        self._numbers[NUMBERS.index(name)] = value

    def remove(self) -> None:
        """Take the file away; who has mapped it keeps the memory."""
        self.path.unlink(missing_ok=True)


def _rounded(size: int) -> int:
    """Up to whole cache lines."""
    return -(-size // 64) * 64
