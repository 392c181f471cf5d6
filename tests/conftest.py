"""Before the first test: compile the training kernels in other processes, so that this one runs them from the cache.

Machine code fresh from the compiler may round differently from the same code out of the cache (see
`sim.run.compile_first`), and some tests compare runs of this process with runs of others bit for bit."""

from __future__ import annotations

import pytest

from sim.run import compile_first


@pytest.fixture(scope="session", autouse=True)
def _kernels_come_from_the_cache() -> None:
    compile_first(
        "sim.train.teachers:compile_training",
        "sim.train.teachers:compile_judgement",
        "sim.train.distill:compile_kernels",
    )
