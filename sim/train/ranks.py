"""Several processes that learn one policy on this machine, started by torchrun's own launcher.

Each process, a rank, has its share of the robots and random generators of its own. rsl-rl averages the gradients and
what the observations' normalisers see, so that networks and optimiser stay equal everywhere. Rank 0 logs, judges and
saves for all; what it needs from the others, or they from it, goes through `Ranks`. A single process needs none of
this: then no process group exists, and `Ranks` hands back what it is given.

Networks on processors talk through gloo. Networks on graphics cards talk through nccl, rank k on card k, which is the
only one that it sees (so Genesis takes the same one); that path was never run on a graphics card.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

from sim.run import RunError

T = TypeVar("T")

WAITING = timedelta(hours=1)  # for another rank, which may be judging or compiling
PATIENCE = 5.0  # [s] that a rank which lost another one leaves to the launcher to find out which
STOPPING = 10  # [s] until a rank that does not stop is killed; the checkpoint is whole at any moment
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class RefusalError(Exception):
    """A rank's sentence for the user."""


@dataclass(frozen=True)
class Ranks:
    """The processes that learn together, as one of them sees them. Every rank has to make the same calls."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.rank == 0

    @property
    def rsl_rl(self) -> dict[str, int] | None:
        """What rsl-rl's PPO takes as `multi_gpu_cfg`."""
        return None if self.count == 1 else {"global_rank": self.rank, "local_rank": 0, "world_size": self.count}

    def seed(self, seed: int) -> int:
        """This rank's own, from that of the training."""
        return seed if self.first else int(np.random.SeedSequence((seed, self.rank)).generate_state(1)[0])

    def gather(self, mine: T) -> list[T] | None:
        """What every rank has given, in order, at rank 0; None elsewhere."""
        if self.count == 1:
            return [mine]
        import torch.distributed

        found: list[Any] | None = [None] * self.count if self.first else None
        torch.distributed.gather_object(mine, found)
        return found

    def scatter(self, parts: list[T] | None) -> T:
        """This rank's part of what rank 0 gives; what others give does not count."""
        if self.count == 1:
            assert parts is not None
            return parts[0]
        import torch.distributed

        found: list[Any] = [None]
        torch.distributed.scatter_object_list(found, parts)
        return found[0]


def launch(count: int, device: str, folder: Path, function: Callable[..., None], *args: Any) -> None:
    """Call `function(ranks, *args)` in that many processes and wait until all have ended.

    Args:
        count: Processes.
        device: `cpu`, or `cuda` for a graphics card each.
        folder: The run, which messages name.
        function: Of a module; it and its arguments travel to other processes.
        args: Its other arguments.

    Raises:
        ValueError: With the sentence that a rank refused to go on with.
        RunError: A rank was killed; all others are stopped then.
        RuntimeError: A rank failed in another way, with its traceback.
        KeyboardInterrupt: After Ctrl-C, when all have stopped.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised below
    handlers = {number: signal.getsignal(number) for number in SIGNALS}  # the launcher sets its own and leaves them
    stopped: signal.Signals | None = None
    with tempfile.TemporaryDirectory() as errors:
        settings = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",  # any free port; a number, for a name may keep waiting for a name server
            local_addr="127.0.0.1",
            max_restarts=0,  # what fails here would fail again
            logs_specs=DefaultLogsSpecs(log_dir=errors),
            virtual_local_rank=device == "cuda",
            shutdown_timeout=STOPPING,
        )
        try:
            elastic_launch(settings, _begin)(device, max(numba.get_num_threads() // count, 1), function, *args)
        except SignalException as error:
            stopped = error.sigval
        except ChildFailedError as error:
            raise _reason(folder, *error.get_first_failure()) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if stopped == signal.SIGINT:
        raise KeyboardInterrupt
    if stopped is not None:
        os.kill(os.getpid(), stopped)  # as it would have ended a single process


def _reason(folder: Path, rank: int, failure: Any) -> Exception:
    """What to raise for a rank's end (torch's ProcessFailure)."""
    if failure.exitcode < 0:
        return RunError(
            f"{folder}: rank {rank} (process {failure.pid}) was ended by {failure.signal_name()}, and the others with "
            f"it; `sim resume {folder}` goes on where the last checkpoint is"
        )
    if isinstance(failure.message, str):  # it could not say why
        return RuntimeError(f"{folder}: rank {rank} ended with status {failure.exitcode}")
    kind, _, sentence = failure.message["message"].partition(": ")
    if kind == RefusalError.__name__:
        return ValueError(sentence)
    trace = failure.message["extraInfo"]["py_callstack"]
    return RuntimeError(f"{folder}: rank {rank} failed\n{trace}")


def _begin(device: str, threads: int, function: Callable[..., None], *args: Any) -> None:
    """What each process runs."""
    import torch.distributed

    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    # Rank 0 has a progress bar to tidy up; the others may stop anywhere.
    signal.signal(signal.SIGINT, signal.default_int_handler if ranks.first else signal.SIG_DFL)
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    try:
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=WAITING)
        function(ranks, *args)
        torch.distributed.destroy_process_group()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError) as error:
        raise RefusalError(str(error)) from error
    except RuntimeError:  # most often another rank has gone: that one's end is the news
        time.sleep(PATIENCE)
        raise
