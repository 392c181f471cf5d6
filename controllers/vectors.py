"""How functions are compiled: with the whole width of the processor's vectors, and generalised ufuncs by one process
at a time. Every module that compiles imports this first.

LLVM prefers 256 bits on processors that have 512, for the sake of programs that use them rarely; kernels of dense
arithmetic run up to 2.5 times faster with all 512. numba reads the setting once, when a process compiles its first
function: set later, it has no effect, and the same function would be compiled in two ways in two processes.

numba keeps a generalised ufunc as two files, the loop and what it calls, by names that depend on what the process has
compiled before. Two processes that fill an empty cache at once could leave halves that do not fit: from then on every
process crashed that used them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numba.core.config
from llvmlite import binding as llvm

_settings: Any = numba.core.config  # settings are made at run time: type checkers do not see them

if llvm.get_host_cpu_features().get("avx512f"):
    _settings.CPU_FEATURES = llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for other processes of these sources, where the system knows how to."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(__file__) as file:  # closing it lets the next one go on
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def guvectorize(signatures: list[str], layout: str) -> Callable[[Callable[..., None]], Any]:
    """As numba's, kept between runs, and compiled or read by one process at a time."""

    def compiled(function: Callable[..., None]) -> Any:
        with _alone():
            return numba.guvectorize(signatures, layout, cache=True)(function)

    return compiled
