"""From a policy to the code of a flight controller.

firmware-export c controllers/policies/quad-foundation.onnx -o build/
firmware-export c controllers/policies/quad-foundation.onnx --target crazyflie -o build/
firmware-export c policy.onnx -o build/ --name hover --dtype f16 --shared
firmware-export c raptor -o build/raptor
firmware-export check build/
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class C:
    """Write a C99 header, its test vectors, the adapter of a flight stack and a report."""

    policy: tyro.conf.Positional[Path]
    """The policy.onnx to translate; or `raptor`, the published policy (extra [peers]), or its checkpoint.h5."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write to; made when absent."""
    target: Literal["generic", "px4", "betaflight", "crazyflie", "stampfly"] = "generic"
    """Flight stack whose adapter and build files to add."""
    dtype: Literal["f32", "f16", "i8"] = "f32"
    """Precision of the matrices: floats, half floats, or 8-bit integers with a scale per row."""
    activation: Literal["poly", "libm"] = "poly"
    """exp, tanh and sqrt of our own, the same on every machine, or those of the C library."""
    name: str | None = None
    """Prefix of the files and of everything that they define; the policy's file name when absent."""
    shared: bool = False
    """Also compile NAME.so with the system's compiler, for simulation on this computer."""


@dataclass(frozen=True)
class Check:
    """Compile and run an exported policy with every toolchain that is here, and measure it."""

    folder: tyro.conf.Positional[Path]
    """What `firmware-export c` wrote."""
    quick: bool = False
    """Only one optimisation level per compiler, and no sanitizers, linter or fuzzing."""


def parse(words: list[str]) -> C | Check:
    """What the words after `firmware-export` ask for."""
    commands = {"c": C, "check": Check}
    return tyro.extras.subcommand_cli_from_dict(
        commands, prog="firmware-export", description="Code for flight controllers.", args=words
    )


def export_c(config: C) -> list[Path]:
    """Writes all the files, or none; returns their paths."""
    from .adapters.generate import adapter_files
    from .compiled import compile_policy
    from .published import as_policy, is_published
    from .report import as_json, as_markdown, facts
    from .to_c import blob_file, c_files, read

    with tempfile.TemporaryDirectory() as folder:
        path = as_policy(config.policy, Path(folder)) if is_published(config.policy) else config.policy
        source = read(path, config.name, config.dtype, config.activation)
    name = source.name
    texts = c_files(source) | adapter_files(name, source.spec, config.target)
    binaries = {f"{name}.bin": blob_file(source), f"{name}.onnx": source.data}
    report = facts(source, config.target, [*texts, *binaries, "REPORT.md", "REPORT.json"])
    texts |= {"REPORT.md": as_markdown(report), "REPORT.json": as_json(report)}
    files = {file: text.encode() for file, text in texts.items()} | binaries
    _keep_other_files(config.output, [file for file in files if not file.startswith(name)])
    config.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=config.output) as folder:
        staged = Path(folder)
        for file, data in files.items():
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            (staged / file).write_bytes(data)
        order = [*files]
        if config.shared:
            compile_policy(staged, name)
            order.append(f"{name}.so")
        for file in order:
            (config.output / file).parent.mkdir(parents=True, exist_ok=True)
        return [(staged / file).replace(config.output / file) for file in order]


def _keep_other_files(folder: Path, files: list[str]) -> None:
    """Raises ExportError where one of these files, whose names are common, is there and not from an export."""
    from .graph import ExportError

    taken = [file for file in files if (folder / file).exists()]
    if taken and not (folder / "REPORT.json").exists():
        raise ExportError(f"{folder}: has a {taken[0]} that no export wrote; allowed: a folder of its own")


def main() -> None:
    from controllers.spec import PolicyError

    from .graph import ExportError

    config = parse(sys.argv[1:])
    try:
        if isinstance(config, Check):
            from .check import check

            sys.exit(0 if check(config.folder, config.quick) else 1)
        for path in export_c(config):
            print(path)
    except (ExportError, PolicyError) as error:
        sys.exit(_failed(str(error)))
    except OSError as error:
        place = config.folder if isinstance(config, Check) else config.output
        sys.exit(_failed(f"{error.filename or place}: {error.strerror}"))


def _failed(message: str) -> int:
    print(f"firmware-export: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
