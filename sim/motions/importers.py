"""`sim motions import`: motion files of other projects become clips, each with what was decided about it and why.

A file that cannot be read is said so in one sentence; the others of the batch are done all the same.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from controllers.files import WriteError
from controllers.motion import Clip, ClipError, save_clip
from sim.motions.detect import Choices, interpret
from sim.motions.formats import SUFFIXES, Format, FormatError, read
from sim.motions.pickles import PickleError

KNOWN_LICENCES = {
    # words of a licence file: its name
    "MIT License": "MIT",
    "Apache License": "Apache-2.0",
    "Permission is hereby granted, free of charge": "MIT",
    "CC BY-NC": "CC BY-NC",
}


@dataclass(frozen=True)
class Failure:
    """One file, or one motion of it, that did not become a clip."""

    path: Path
    reason: str


def motion_files(paths: tuple[Path, ...], suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files named, and those below the folders named that have one of these endings."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
            if not found:
                raise ClipError(f"{path}: holds no file that ends in {', '.join(suffixes)}")
            files += found
        else:
            files.append(path)
    return files


def import_file(
    path: Path, chosen: Format | None, choices: Choices, source: str | None, licence: str | None
) -> list[tuple[str, Clip]]:
    """The motions of one file with their names. Raises FormatError, PickleError, ClipError or OSError."""
    result = []
    for raw in read(path, chosen):
        try:
            clip = interpret(raw, choices, source or f"{raw.format}: {path.name}", licence or licence_beside(path))
        except (FormatError, ClipError) as error:
            raise FormatError(f"{raw.name}: {error}" if raw.name else str(error)) from error
        name = path.stem + ("-" + re.sub(r"[^\w.-]+", "_", raw.name)[:100] if raw.name else "")
        result.append((name, clip))
    return result


def licence_beside(path: Path) -> str:
    """What the licence file in the same folder says, in a few words."""
    for file in (path.parent / "LICENSE", path.parent / "LICENSE.txt", path.parent / "LICENSE.md"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            name = next((name for words, name in KNOWN_LICENCES.items() if words in text), "terms")
            holder = next((line.strip() for line in text.splitlines() if line.startswith("Copyright")), "")
            return f"{name} ({file.name} beside the motion{'; ' + holder if holder else ''})"
    return "unknown: ask its source"


def import_command(
    paths: tuple[Path, ...],
    out: Path,
    chosen: Format | None = None,
    choices: Choices = Choices(),  # noqa: B008 (frozen)
    source: str | None = None,
    licence: str | None = None,
    explain: bool = False,
    console: Console | None = None,
) -> list[Failure]:
    """Write a clip for every motion of these files into the folder `out`; what failed comes back."""
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    table = Table("clip", "format", "frames", "fps", "joints", "quaternion", "angles", "length", "decided by")
    failures: list[Failure] = []
    written: dict[str, Path] = {}
    out.mkdir(parents=True, exist_ok=True)
    for path in motion_files(paths):
        try:
            for name, clip in import_file(path, chosen, choices, source, licence):
                if name in written:
                    raise FormatError(f"would be written over {written[name]}: {name}.npz has that name already")
                save_clip(out / f"{name}.npz", clip)
                written[name] = path
                said = clip.report["import"]
                if explain:
                    lines = [f"  {what}: {each['answer']} ({each['evidence']})" for what, each in said.items()]
                    console.print("\n".join([str(path), *lines]), highlight=False, markup=False)
                table.add_row(
                    name,
                    said["format"]["answer"],
                    str(clip.frames),
                    f"{clip.fps:g}",
                    *(said[what]["answer"] for what in ("joints", "quaternion", "angles", "length")),
                    said["quaternion"]["evidence"],
                )
        except (FormatError, PickleError, ClipError, WriteError, OSError) as error:
            reason = str(error)
            failures.append(Failure(path, reason if str(path) in reason else f"{path}: {reason}"))
    if written:
        console.print(table)
    return failures
