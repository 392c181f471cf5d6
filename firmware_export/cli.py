"""From a policy to the code of a flight controller.

firmware-export c controllers/policies/quad-foundation.onnx -o build/
firmware-export c policy.onnx -o build/ --name hover --shared
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class C:
    """Write a C99 header, its test vectors and a source file that compiles both."""

    policy: tyro.conf.Positional[Path]
    """The policy.onnx to translate."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write to; made when absent."""
    name: str | None = None
    """Prefix of the files and of everything that they define; the policy's file name when absent."""
    shared: bool = False
    """Also compile NAME.so with the system's compiler, for simulation on this computer."""


def export_c(config: C) -> list[Path]:
    """Writes all the files, or none; returns their paths."""
    from .compiled import compile_policy
    from .to_c import generate

    files = generate(config.policy, config.name)
    name = next(iter(files)).removesuffix(".h")
    config.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=config.output) as folder:
        staged = [Path(folder) / file for file in files]
        for path, text in zip(staged, files.values(), strict=True):
            path.write_text(text, encoding="ascii")
        if config.shared:
            compile_policy(folder, name)
            staged.append(Path(folder) / f"{name}.so")
        return [path.replace(config.output / path.name) for path in staged]


def main() -> None:
    from controllers.spec import PolicyError

    from .graph import ExportError

    config = tyro.extras.subcommand_cli_from_dict(
        {"c": C}, prog="firmware-export", description="Code for flight controllers."
    )
    try:
        for path in export_c(config):
            print(path)
    except (ExportError, PolicyError) as error:
        sys.exit(_failed(str(error)))
    except OSError as error:
        sys.exit(_failed(f"{error.filename or config.output}: {error.strerror}"))


def _failed(message: str) -> int:
    print(f"firmware-export: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
