"""Compiles an exported policy with the system's compiler, so that simulation can fly the code itself."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from controllers.compiled import CompiledPolicy

from .graph import ExportError


def compile_policy(directory: str | Path, name: str) -> CompiledPolicy:
    """Builds NAME.so beside the exported files in `directory`, loads it and runs its self-test."""
    directory = Path(directory)
    source, library = directory / f"{name}_batch.c", directory / f"{name}.so"
    if not source.is_file():
        raise ExportError(f"{source}: no such file; allowed: a folder that `firmware-export c` wrote")
    partial = directory / f".{name}.{os.getpid()}.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, "-std=c99", "-O3", "-fPIC", "-shared", str(source), "-o", str(partial)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        policy = CompiledPolicy(partial)
        partial.replace(library)
    except FileNotFoundError as error:
        raise ExportError(f"there is no C compiler {compiler[0]!r}; allowed: one in PATH, or set CC") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "no message").splitlines()[0]
        raise ExportError(f"{source}: {compiler[0]} failed: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)
    return policy
