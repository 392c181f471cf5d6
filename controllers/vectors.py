"""Lets numba use the whole width of the processor's vectors. Every module that compiles imports this first.

LLVM prefers 256 bits on processors that have 512, for the sake of programs that use them rarely; kernels of dense
arithmetic run up to 2.5 times faster with all 512. numba reads the setting once, when a process compiles its first
function: set later, it has no effect, and the same function would be compiled in two ways in two processes.
"""

from __future__ import annotations

from typing import Any

import numba.core.config
from llvmlite import binding as llvm

_settings: Any = numba.core.config  # settings are made at run time: type checkers do not see them

if llvm.get_host_cpu_features().get("avx512f"):
    _settings.CPU_FEATURES = llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit"
