"""Cycles of a Cortex-M4 with floating-point unit, modelled: the instructions that qemu executed times a latency table.

qemu does not know time. What is modelled is the core alone, without wait states of the flash, caches and interrupts;
the latencies are those of ARM's technical reference manual of the Cortex-M4 (r0p1, sections 3.3 and 7.2.3) where it
gives one number, and otherwise the choice that `TABLE` names. A figure from here is always called modelled.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

VERSION = "cortex-m4f/1"
"""Raised whenever the table changes."""

TABLE = {
    "vdiv, vsqrt": "14",
    "vfma, vmla and their kin": "3",
    "other floating-point arithmetic, moves and compares": "1",
    "load or store of one word": "2, and 1 directly behind another load or store",
    "ldrd, strd": "3",
    "load or store of n words": "1 + n, and 3 more into the program counter",
    "branch": "3 when taken, 1 otherwise",
    "sdiv, udiv": "8",
    "floating-point result or load that the next instruction reads": "1 more",
    "other": "1",
}

MEMORY = ("vldr", "vstr", "ldr", "str")
MULTIPLY_ADD = ("vmla", "vmls", "vfma", "vfms", "vnmls", "vfnms", "vnmla", "vfnma")
SLOW_TO_READ = ("vadd", "vsub", "vmul", "vldr", *MULTIPLY_ADD)
BRANCH = re.compile(r"(b|bx|bl|blx|cbz|cbnz|b(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le))(\.[nw])?$")


@dataclass(frozen=True)
class Instruction:
    address: int
    operation: str
    operands: str
    function: str


@dataclass(frozen=True)
class Count:
    """What some inferences cost together."""

    instructions: int
    cycles: int


def disassembly(listing: str) -> dict[int, Instruction]:
    """The instructions by address, of what `objdump -d --no-show-raw-insn` prints."""
    instructions, function = {}, ""
    for line in listing.splitlines():
        if heading := re.match(r"[0-9a-f]+ <(.+)>:", line):
            function = heading[1]
        elif row := re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*([^@;<]*)", line):
            address = int(row[1], 16)
            instructions[address] = Instruction(address, row[2], row[3].strip(), function)
    return instructions


def trace(log: Iterable[str]) -> Iterator[int]:
    """The program counter, instruction by instruction, of what qemu logs with `-d exec,nochain -singlestep`."""
    for line in log:
        if entry := re.search(r"\[[0-9a-f]+/([0-9a-f]+)/", line):
            yield int(entry[1], 16)


def count(instructions: dict[int, Instruction], addresses: Iterable[int], leave_out: Collection[str]) -> Count:
    """Of all that was traced, but for the functions of these names."""
    path = [instructions[address] for address in addresses if address in instructions]
    total = executed = 0
    for index, instruction in enumerate(path):
        if instruction.function.split(".")[0] not in leave_out:
            before = path[index - 1] if index else None
            after = path[index + 1] if index + 1 < len(path) else None
            total += cycles(instruction, before, after)
            executed += 1
    return Count(executed, total)


def cycles(instruction: Instruction, before: Instruction | None, after: Instruction | None) -> int:
    """Of one instruction between its neighbours on the path that was taken."""
    return _latency(instruction, before, after) + int(_waits(instruction, before))


def _latency(instruction: Instruction, before: Instruction | None, after: Instruction | None) -> int:
    name, operands = instruction.operation.split(".")[0], instruction.operands
    if name.startswith(MULTIPLY_ADD):
        return 3
    if name.startswith(("vdiv", "vsqrt")):
        return 14
    if name.startswith(("vldm", "vstm", "vpush", "vpop")):
        return 1 + _registers(operands)
    if name.startswith(("ldm", "stm", "push", "pop")):
        return 1 + _registers(operands) + (3 if "pc" in operands else 0)
    if name.startswith(("ldrd", "strd")):
        return 3
    if name.startswith(MEMORY):
        return 1 if before is not None and before.operation.startswith(MEMORY) else 2
    if name in ("sdiv", "udiv"):
        return 8
    if BRANCH.match(instruction.operation):
        return 3 if after is not None and not 0 < after.address - instruction.address <= 4 else 1
    return 1


def _waits(instruction: Instruction, before: Instruction | None) -> bool:
    """Whether a floating-point instruction reads what the one before it has only just computed or loaded."""
    if before is None or not instruction.operation.startswith("v") or not before.operation.startswith(SLOW_TO_READ):
        return False
    result, *_ = re.split(r",\s*", before.operands)
    read = re.split(r",\s*", instruction.operands)
    return result in (read if instruction.operation.startswith(("vstr", *MULTIPLY_ADD)) else read[1:])


def _registers(operands: str) -> int:
    """How many words a list of registers such as {r4-r7, lr} or {d8-d15} holds."""
    words = 0
    for part in operands[operands.index("{") + 1 : operands.index("}")].split(","):
        ends = [re.sub(r"\D", "", end) for end in part.strip().split("-")]
        many = int(ends[1]) - int(ends[0]) + 1 if len(ends) == 2 else 1
        words += many * (2 if part.strip().startswith("d") else 1)
    return words
