"""A run folder: everything about one training, in files that survive a crash at any moment.

    config.json      what was asked for: kind of run, format, all settings
    facts.json       where it came from: versions, git commit, machine, command line, seed
    metrics.jsonl    one JSON object per line, appended and flushed
    checkpoint.npz   all that is needed to go on, replaced as a whole
    metrics/*.json   results

A checkpoint carries the length of metrics.jsonl, so a run that goes on after a crash cuts off what was logged after it
and repeats that part: an interrupted run ends with the same files as one that was left alone.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from controllers.files import WriteError, write_atomically

FORMAT = 1  # of the folder; another number means that another version of this code must read it
CHECKPOINT_PERIOD = 10.0  # [s]
WRITING_SHARE = 0.05  # checkpoints take at most this share of the time
LINE_PERIOD, LINE_SHARE = (
    5.0,
    0.1,
)  # where output is not a terminal: a line after this time [s] or this share of the work

Config = TypeVar("Config")


class RunError(WriteError):
    """A run folder cannot be used or written; the message is one sentence for the user."""


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically. Raises ValueError for a number that is not finite: it is named, never saved."""
    text = json.dumps(content, indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(f"{text}\n".encode()))


def facts(seed: int) -> dict[str, Any]:
    """Where and with what this process computes."""
    versions = {
        name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "onnx", "onnxruntime")
    }
    return {
        "python": platform.python_version(),
        **versions,
        **_commit(),
        "machine": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "command": sys.argv,
        "seed": seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> dict[str, Any]:
    """The git commit of this checkout and whether files differ from it; nulls where it is installed or git is
    absent."""
    git = lambda *words: subprocess.run(  # noqa: E731 (two uses below)
        ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _built(kind: Any, content: Any) -> Any:
    """The dataclass `kind`, whose fields may be dataclasses and tuples themselves, from JSON."""
    if isinstance(content, list):
        return tuple(content)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return content
    hints = get_type_hints(kind)
    return kind(**{name: _built(hints.get(name), value) for name, value in content.items()})


class Run:
    """One run folder, held by one process at a time. `create` begins one, `open` goes on with one."""

    def __init__(self, folder: Path, content: dict[str, Any]):
        self.folder, self.kind = folder, content["kind"]
        self._config = content["config"]
        self._lock = (folder / "config.json").open("rb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RunError(f"{folder}: another process is working on this run; wait for it or stop it") from error
        self._metrics = (folder / "metrics.jsonl").open("ab")
        self._core_seconds, self._cpu_start = 0.0, time.process_time()
        self._saved, self._writing = time.monotonic(), 0.0

    @staticmethod
    def create(folder: Path, kind: str, config: Any, seed: int) -> Run:
        """A new folder for a run with this configuration (a dataclass). Raises RunError where the folder exists
        already."""
        content = {"kind": kind, "format": FORMAT, "config": dataclasses.asdict(config)}
        if (folder / "config.json").exists():
            raise RunError(
                f"{folder}: is a run already; take another folder, or continue it with `sim resume {folder}`"
            )
        staged = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            (staged / "metrics").mkdir(parents=True)
            write_json(staged / "facts.json", facts(seed))
            write_json(staged / "config.json", content)
            os.rename(staged, folder)  # all or nothing; refuses a folder that is not empty
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise RunError(
                f"{folder}: cannot be made a run folder ({error.strerror}); take a new or an empty one"
            ) from error
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        return Run(folder, content)

    @staticmethod
    def open(folder: Path, kind: str | None = None) -> Run:
        """The run in `folder`, to go on with. Raises RunError where it is not a run, or of another format or kind."""
        return Run(folder, read_config(folder, kind))

    def config(self, kind: type[Config]) -> Config:
        """The run's configuration as the dataclass that it was. Raises RunError where the fields differ."""
        try:
            return _built(kind, self._config)
        except TypeError as error:
            raise RunError(f"{self.folder}: was begun by another version of this program ({error})") from error

    @property
    def core_seconds(self) -> float:
        """Processor time of all threads since the run began, without what was lost in crashes [s]."""
        return self._core_seconds + time.process_time() - self._cpu_start

    def exclude(self, core_seconds: float) -> None:
        """Leave this processor time (of compiling, which happens once per machine) out of `core_seconds`."""
        self._cpu_start += core_seconds

    def log(self, **values: object) -> None:
        """Append one line to metrics.jsonl. Raises ValueError for a number that is not finite."""
        try:
            line = json.dumps(values, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"{self.folder}: a metric is not finite: {values}") from error
        try:
            self._metrics.write(f"{line}\n".encode())
            self._metrics.flush()
        except OSError as error:
            raise RunError(
                f"{self.folder / 'metrics.jsonl'}: cannot be written ({error.strerror}); "
                f"the last checkpoint is kept: `sim resume {self.folder}` continues"
            ) from error

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        period = max(CHECKPOINT_PERIOD, self._writing / WRITING_SHARE)
        return time.monotonic() - self._saved >= period

    def checkpoint(self, progress: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Replace the checkpoint. Raises RunError where it cannot be written; the one before stays."""
        start = time.monotonic()
        record = {"progress": progress, "metrics": self._metrics.tell(), "core_seconds": self.core_seconds}
        try:
            os.fsync(self._metrics.fileno())
            write_atomically(
                self.folder / "checkpoint.npz",
                lambda file: np.savez(file, allow_pickle=False, **arrays, record=json.dumps(record)),
            )
        except (OSError, WriteError) as error:
            raise RunError(f"{error}; `sim resume {self.folder}` continues from there") from error
        self._saved, self._writing = time.monotonic(), time.monotonic() - start

    def restore(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Progress and arrays of the last checkpoint, or None where there is none yet; what was logged after it is cut
        off."""
        path = self.folder / "checkpoint.npz"
        if not path.exists():
            self._metrics.truncate(0)
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            record = json.loads(str(arrays.pop("record")))
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise RunError(f"{path}: not a checkpoint of this version ({error})") from error
        self._metrics.truncate(record["metrics"])
        self._metrics.seek(0, os.SEEK_END)
        self._core_seconds, self._cpu_start = record["core_seconds"], time.process_time()
        return record["progress"], arrays

    def close(self) -> None:
        self._metrics.close()
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_config(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Kind, format and configuration of the run in `folder`. Raises RunError where that is not a run as asked for."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
        found, version = content["kind"], content["format"]
        dict(content["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{folder}: not a run folder (a readable config.json with kind, format and config is missing)"
        ) from error
    if version != FORMAT:
        raise RunError(f"{folder}: has format {version}; this version of the program reads format {FORMAT}")
    if kind is not None and found != kind:
        raise RunError(f"{folder}: is a run of kind {found!r}; needed is one of kind {kind!r}")
    return content


def compile_first(*functions: str) -> float:
    """Call these functions ("module:name", without arguments) in processes of their own, side by side; core-seconds
    spent.

    They compile kernels into numba's cache, from where this process loads them. That uses all cores, and it is what
    makes a run repeatable: machine code fresh from the compiler may round differently from the same code out of the
    cache."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    }
    code = (
        "import importlib, sys; module, name = sys.argv[1].split(':'); getattr(importlib.import_module(module), name)()"
    )
    # A process group of their own: an interrupt from the keyboard reaches only this process, which then ends them.
    command = [sys.executable, "-c", code]
    children = [subprocess.Popen([*command, f], env=environment, process_group=0) for f in functions]
    try:
        failed = [f for f, child in zip(functions, children, strict=True) if child.wait()]
    except BaseException:
        for child in children:
            child.kill()
            child.wait()
        raise
    if failed:
        raise RuntimeError(f"{', '.join(failed)} could not be compiled")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed or 0:.3g} {task.fields['unit']}/s"


@contextmanager
def progress(
    title: str, total: float, done: float = 0, unit: str = "", console: Console | None = None
) -> Iterator[Callable]:
    """A progress bar with rate and remaining time, or plain lines where output is not a terminal.

    Yields a function (done, text="") that threads may call."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), _Rate())
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=console
        ) as bar:
            task = bar.add_task(title, total=total, completed=done, unit=unit, text="")  # type: ignore[arg-type]
            yield lambda done, text="": bar.update(task, completed=done, text=text)
        return
    lock, began, first = threading.Lock(), time.monotonic(), done
    last = {"time": began, "done": done}

    def line(done: float, text: str = "") -> None:
        with lock:
            now = time.monotonic()
            fresh = done - last["done"] >= LINE_SHARE * total or now - last["time"] >= LINE_PERIOD
            if not fresh and not (done >= total > last["done"]):
                return
            last.update(time=now, done=done)
            rate = (done - first) / max(now - began, 1e-9)
            remaining = f"{(total - done) / rate:.0f} s left" if rate > 0 else "no rate yet"
            console.print(
                f"{title}: {100 * done / total:.0f} %, {rate:.3g} {unit}/s, {remaining} {text}".rstrip(),
                highlight=False,
            )

    yield line
