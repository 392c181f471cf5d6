"""Files that are whole or not there: the one way in which this project replaces a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


class WriteError(ValueError):
    """A file cannot be written; the message is one sentence for the user."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a new file that then takes the place of `path`: readers see the old content or the new, never a
    part.

    Raises WriteError where the disk is full or the folder cannot be written; what was at `path` stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
