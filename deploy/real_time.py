"""What keeps a process from being late: nothing that waits, and where the system allows it, priority and memory."""

from __future__ import annotations

import ctypes
import gc
import os

FIFO_PRIORITY = {"pauses": 90, "virtual": 83, "guard": 82, "writer": 81, "policy": 80}
"""Of SCHED_FIFO. The virtual robot is before the runtime: nothing on a computer delays the body of a real one."""
REFUSED = "real-time priority is refused: run as root, or allow it with `ulimit -r 99`"


def real_time_allowed() -> bool:
    """Whether `demand_real_time` would be granted its priority."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(max(FIFO_PRIORITY.values())))
    except PermissionError:
        return False
    os.sched_setscheduler(0, *before)
    return True


def demand_real_time(priority: int) -> None:
    """SCHED_FIFO with that priority and locked memory. Raises OSError, with what to do, where the system refuses."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError as error:
        raise OSError(REFUSED) from error
    everything = 1 | 2  # MCL_CURRENT, MCL_FUTURE of sys/mman.h
    if ctypes.CDLL(None, use_errno=True).mlockall(everything):
        raise OSError(ctypes.get_errno(), "memory cannot be locked: run as root, or `ulimit -l unlimited`")


def settle() -> None:
    """What is there stays there: the collector looks at it no more. A look at all that the imports of a robot leave
    (150,000 objects) takes tens of milliseconds, more than a check of lateness allows."""
    gc.collect()
    gc.freeze()
