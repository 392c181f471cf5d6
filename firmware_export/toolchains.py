"""Compilers and emulators that an exported policy is tried with, and what can be asked of them.

All of them are Debian packages: gcc, clang, cppcheck, gcc-arm-none-eabi with libnewlib-arm-none-eabi and
qemu-system-arm, gcc-riscv64-unknown-elf with picolibc-riscv64-unknown-elf and qemu-system-misc.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .graph import ExportError

Machine = Literal["host", "arm", "riscv"]
OPTIMISATIONS = ("-O2", "-O0", "-Os", "-O3", "-Ofast")
"""The first is the one that figures are quoted for."""

WARNINGS = (
    "-Wall -Wextra -Wpedantic -Werror -Wconversion -Wsign-conversion -Wdouble-promotion -Wshadow -Wstrict-prototypes "
    "-Wmissing-prototypes -Wcast-qual -Wundef -Wvla -Wfloat-equal -Wwrite-strings -Wpointer-arith"
).split()
GCC_WARNINGS = "-Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wcast-align=strict -Wjump-misses-init".split()
CLANG_WARNINGS = (
    "-Weverything -Wno-unknown-warning-option "
    "-Wno-declaration-after-statement "  # C99 has them
    "-Wno-unsafe-buffer-usage "  # every array in C
    "-Wno-padded "  # of the metadata only; that the weights have no gaps is asserted
    "-Wno-bad-function-cast -Wno-cast-align"  # of the loader, which checks the alignment itself
).split()

M4F = "-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard".split()
M7 = "-mcpu=cortex-m7 -mthumb -mfpu=fpv5-sp-d16 -mfloat-abi=hard".split()
SEMIHOST = "-icount shift=0 -nographic -monitor none -serial none -semihosting-config enable=on,target=native".split()
RISCV_BOARD = "__flash=0x80000000 __flash_size=0x00400000 __ram=0x80400000 __ram_size=0x400000".split()


@dataclass(frozen=True)
class Toolchain:
    """A compiler for one processor, and how its programs run."""

    name: str
    compiler: str
    machine: Machine
    flags: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    """Command that runs a program, up to its name."""
    optimisation: str = "-O2"
    mhz: float | None = None
    """Of a common board, where cycles are modelled."""
    hard_float: bool = True

    @property
    def label(self) -> str:
        return f"{self.name} {self.optimisation}"

    @property
    def is_clang(self) -> bool:
        return "clang" in self.compiler

    @property
    def missing(self) -> str | None:
        """The program that is not installed."""
        needed = [self.compiler, *self.emulator[:1]]
        return next((program for program in needed if shutil.which(program) is None), None)

    def tool(self, name: str) -> str:
        """The name of nm, size, ld or objdump that fits the compiler."""
        prefix = self.compiler.rpartition("gcc")[0] if self.machine != "host" else ""
        return f"{prefix}{name}"


def _qemu_arm(board: str) -> tuple[str, ...]:
    return ("qemu-system-arm", "-M", board, *SEMIHOST, "-kernel")


def _qemu_riscv() -> tuple[str, ...]:
    return ("qemu-system-riscv32", "-M", "virt", "-bios", "none", *SEMIHOST, "-kernel")


def _riscv(march: str, mabi: str) -> tuple[str, ...]:
    return (f"-march={march}", f"-mabi={mabi}", "--specs=picolibc.specs")


ARM_GCC, RISCV_GCC = "arm-none-eabi-gcc", "riscv64-unknown-elf-gcc"
TOOLCHAINS = (
    Toolchain("host, cc", "cc", "host"),
    Toolchain("host, clang", "clang", "host"),
    Toolchain("Cortex-M4F", ARM_GCC, "arm", tuple(M4F), _qemu_arm("mps2-an386"), mhz=168),
    Toolchain("Cortex-M7", ARM_GCC, "arm", tuple(M7), _qemu_arm("mps2-an500")),
    Toolchain("RV32IMAFC", RISCV_GCC, "riscv", _riscv("rv32imafc", "ilp32f"), _qemu_riscv()),
    Toolchain("RV32IMAC, soft float", RISCV_GCC, "riscv", _riscv("rv32imac", "ilp32"), _qemu_riscv(), hard_float=False),
)


def variants(quick: bool) -> list[Toolchain]:
    """Every toolchain at every optimisation that is tried with it."""
    found = []
    for toolchain in TOOLCHAINS:
        several = not quick and toolchain.hard_float
        found += [replace(toolchain, optimisation=level) for level in OPTIMISATIONS[: None if several else 1]]
    return found


def run(command: list[str | Path], folder: Path, timeout: float = 600) -> str:
    """What the command prints; ExportError with the first line of its complaint when it fails."""
    words = list(map(str, command))
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{words[0]} did not end within {timeout:g} s") from error
    if done.returncode != 0:
        complaint = [line for line in (done.stderr + done.stdout).splitlines() if "rror" in line]
        lines = complaint or (done.stderr or done.stdout or f"it ended with {done.returncode}").splitlines()
        raise ExportError(f"{words[0]}: {lines[0]}")
    return done.stdout + done.stderr  # qemu's semihosting prints to stderr


def compile_object(toolchain: Toolchain, folder: Path, name: str) -> Path:
    """NAME.o of the exported NAME.c with the strictest warnings as errors, every function in a section of its own."""
    special = CLANG_WARNINGS if toolchain.is_clang else [*GCC_WARNINGS, "-fcallgraph-info=su"]
    pie = ["-fno-pie"] if toolchain.machine == "host" else []
    sections = ["-ffunction-sections", "-fdata-sections"]
    flags = ["-std=c99", toolchain.optimisation, *toolchain.flags, *WARNINGS, *special, *sections, *pie]
    run([toolchain.compiler, *flags, "-c", f"{name}.c", "-o", f"{name}.o"], folder)
    return folder / f"{name}.o"


def link_program(toolchain: Toolchain, folder: Path, program: str, *defines: str) -> Path:
    """The test program main.c around the exported header."""
    flags: list[str] = ["-std=gnu99", toolchain.optimisation, *toolchain.flags, *defines]
    flags += ["-ffunction-sections", "-fdata-sections"]
    if toolchain.machine == "arm":
        link = ["start_arm.c", "-nostartfiles", "-T", "link_arm.ld", "-Wl,--gc-sections", "--specs=nano.specs"]
        link += ["-lm", "-lc", "-lnosys"]
    elif toolchain.machine == "riscv":
        board = [f"-Wl,--defsym={symbol}" for symbol in RISCV_BOARD]
        link = ["-DON_RISCV", "--oslib=semihost", "--crt0=hosted", *board, "-lm"]
    else:
        link = ["-DON_HOST", "-lm"]
    run([toolchain.compiler, *flags, "main.c", *link, "-o", program], folder)
    return folder / program


def run_program(toolchain: Toolchain, program: Path, *trace: str) -> list[str]:
    """The lines that it prints."""
    emulator = [*toolchain.emulator[:-1], *trace, *toolchain.emulator[-1:]] if toolchain.emulator else []
    return run([*emulator, program], program.parent).splitlines()


@dataclass(frozen=True)
class Memory:
    """Of what a firmware keeps that only resets and infers [B]."""

    code: int
    constants: int
    variables: int
    undefined: tuple[str, ...]
    """Symbols that it needs from elsewhere."""

    @property
    def flash(self) -> int:
        return self.code + self.constants


def memory(toolchain: Toolchain, folder: Path, name: str) -> Memory:
    """Links what `reset` and `infer` need out of NAME.o, and measures it."""
    emulation = []
    if toolchain.machine == "riscv":
        emulation = ["-m", "elf32lriscv"]
    roots = ["-e", f"{name}_infer", "-u", f"{name}_reset"]
    run([toolchain.tool("ld"), *emulation, "-r", "--gc-sections", *roots, f"{name}.o", "-o", "kept.o"], folder)
    sizes = {"code": 0, "constants": 0, "variables": 0}
    for line in run([toolchain.tool("size"), "-A", "kept.o"], folder).splitlines():
        if section := re.match(r"\.(text|s?rodata|srodata|s?data|s?bss)(\S*)\s+(\d+)", line):
            read_only = "rel.ro" in section[2]
            kind = (
                "code" if section[1] == "text" else "constants" if "rodata" in section[1] or read_only else "variables"
            )
            sizes[kind] += int(section[3])
    listing = run([toolchain.tool("nm"), "-u", "kept.o"], folder)
    return Memory(**sizes, undefined=tuple(line.split()[-1] for line in listing.splitlines() if line.strip()))


def stack(folder: Path, name: str) -> int | None:
    """The deepest path through the functions that `infer` calls [B], from gcc's call graph; None without one."""
    graph = folder / f"{name}.ci"
    if not graph.is_file():
        return None
    text = graph.read_text()
    frames = {
        title: int(size)
        for title, size in re.findall(r'node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes \(static\)', text)
    }
    calls: dict[str, list[str]] = {}
    for caller, callee in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', text):
        calls.setdefault(caller, []).append(callee)

    def depth(function: str) -> int:
        return frames.get(function, 0) + max((depth(callee) for callee in calls.get(function, [])), default=0)

    return depth(f"{name}_infer")
