"""When did the machine itself stand still?

On a shared or virtual machine a processor may be taken away for tens of milliseconds, whatever priority a process has.
A process on each of them, before all others, does nothing but sleep and look at the clock: what it sees late, nobody
could have seen earlier.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.real_time import FIFO_PRIORITY, REFUSED, demand_real_time, real_time_allowed, settle

LOOK = 0.001  # [s] between two looks at the clock
PAUSE = 0.006  # [s] between two looks that count as a pause
READY = 30.0  # [s] for the watchers to begin


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Callable[[], NDArray[np.int64]]]:
    """Watch all processors that this process may use; yields what gives the pauses so far.

    They are the beginning and the end of each [ns since the epoch], (N, 2), in the order of their ends. Raises OSError
    where the system refuses real-time priority: without, a pause may be another program's.
    """
    if not real_time_allowed():
        raise OSError(REFUSED)
    context = multiprocessing.get_context("spawn")
    files = {cpu: folder / f"pauses_{cpu}" for cpu in sorted(os.sched_getaffinity(0))}
    watchers = [context.Process(target=_watch, args=item, daemon=True) for item in files.items()]
    for watcher in watchers:
        watcher.start()
    try:
        deadline = time.monotonic() + READY
        while not all(file.exists() for file in files.values()):
            if time.monotonic() > deadline:
                raise OSError(f"a process that watches for pauses has not begun within {READY:g} s")
            time.sleep(0.01)

        def pauses() -> NDArray[np.int64]:
            lines = [line for file in files.values() for line in file.read_text().split("\n")[:-1]]
            found = np.array([line.split() for line in lines], dtype=np.int64).reshape(-1, 2)
            return found[found[:, 1].argsort()]

        yield pauses
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.join()


def _watch(cpu: int, file: Path) -> None:
    """Write down every pause of that processor, until killed."""
    os.sched_setaffinity(0, {cpu})
    demand_real_time(FIFO_PRIORITY["pauses"])
    settle()
    with file.open("w", buffering=1) as out:
        last = time.monotonic_ns()
        while True:
            time.sleep(LOOK)
            now = time.monotonic_ns()
            if now - last > 1e9 * PAUSE:
                end = time.time_ns()
                out.write(f"{end - (now - last)} {end}\n")
            last = now
