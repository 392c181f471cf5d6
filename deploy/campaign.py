"""Campaigns: what proves the runtime, as commands that print their figures.

deploy campaign policies  published policies through the whole runtime, against the bare loop of `sim eval g1`
deploy campaign specs     specifications that lie
deploy campaign faults    faults at random times
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from controllers.g1 import REVISIONS, revision
from controllers.motion import load_clip
from controllers.safety import Limits
from deploy.runner import limits_of, load_slots


def facts(seed: int) -> dict[str, Any]:
    """With what this was computed."""
    names = ("numpy", "onnxruntime", "mujoco", "cyclonedds", "mcap")
    return {"seed": seed, "python": platform.python_version(), **{name: version(name) for name in names}}


def save(output: Path, content: dict[str, Any]) -> None:
    """As JSON."""
    from controllers.files import write_atomically

    output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False)
    write_atomically(output, lambda file: file.write(f"{text}\n".encode()))


@dataclass(frozen=True)
class PoliciesConfig:
    """Run policies through the whole runtime on a virtual G1 in lock-step, and compare with the bare loop."""

    policies: tuple[Path, ...]
    """policy.onnx files."""
    clips: tuple[Path, ...]
    """Their motions, in the same order."""
    robot: str = "g1_23dof_asap"
    """Revision of the virtual robot, and of the bare loop."""
    domain: int = 91
    """First DDS domain; each run takes the next."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/campaign_policies.json")
    """File for the numbers (.json)."""


def policies_command(config: PoliciesConfig) -> int:
    """Print the table. 1 when a policy did not come to its end."""
    from deploy.bouts import START_AT, bout, tracking_errors
    from sim.tracking import errors, track

    if len(config.policies) != len(config.clips):
        raise ValueError(f"{len(config.policies)} policies and {len(config.clips)} clips; allowed: one for each")
    robot = revision(config.robot)
    rows: list[dict[str, Any]] = []
    for number, (path, clip_path) in enumerate(zip(config.policies, config.clips, strict=True)):
        slots, clip = load_slots([path], [clip_path], robot), load_clip(clip_path)
        rate = slots[0].spec.rates.control_hz
        with tempfile.TemporaryDirectory() as folder:
            made = bout(slots, robot, config.domain + number, START_AT + clip.duration + 0.1, Path(folder))
            through = tracking_errors(made, clip, robot, rate)
        bare_flown = track(slots[0].policy, clip, robot)
        bare = errors(bare_flown, rate)
        outcome = made.outcome
        rows.append(
            {
                "policy": path.stem,
                "to_the_end": outcome.finished and outcome.tripped_at is None,
                "trips": [finding.check for finding in outcome.trips],
                "runtime": through,
                "bare": bare,
                "bare_completed": bare_flown.completed,
            }
        )
    table = Table("policy", "to the end", "E_mpjpe [mm]", "bare", "difference", "bodies: E_mpjpe", "bare", "difference")
    for row in rows:
        cells = [row["policy"], "yes" if row["to_the_end"] else f"no: {', '.join(row['trips'])}"]
        for key in ("e_mpjpe", "e_mpjpe_bodies"):
            mine, other = row["runtime"][key], row["bare"][key]
            cells += [f"{mine:.1f}", f"{other:.1f}", f"{100 * (mine / other - 1):+.0f} %"]
        table.add_row(*cells)
    Console(width=140).print(table)
    save(config.output, {"facts": facts(0) | {"robot": robot.name}, "results": rows})
    return 0 if all(row["to_the_end"] for row in rows) else 1


@dataclass(frozen=True)
class SpecsConfig:
    """Lie about policies in every way that users have met, and count what is refused."""

    policies: tuple[Path, ...]
    """policy.onnx files of `deploy adopt`."""
    count: int = 256
    """Lies."""
    seed: int = 0
    """Of what is drawn."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/campaign_specs.json")
    """File for the numbers (.json)."""


def specs_command(config: SpecsConfig) -> int:
    """Print the counts. 1 unless all lies were refused and no truth was."""
    from deploy.mutations import campaign

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(config.policies, list(REVISIONS.values()), config.count, config.seed, Path(folder))
    content = dataclasses.asdict(found) | {"seconds": time.monotonic() - began}
    save(config.output, {"facts": facts(config.seed), **content})
    Console().print(
        f"{found.refused} of {found.told} lies refused ({found.told - len(found.accepted) - len(found.unnamed)} with "
        f"their field named), {len(found.falsely_refused)} of {found.true_files} true files refused; "
        f"refused by {found.by_evidence}; seed {config.seed}"
    )
    for kind in (*found.accepted, *found.falsely_refused):
        Console().print(kind)
    return 0 if not found.accepted and not found.falsely_refused else 1


@dataclass(frozen=True)
class FaultsConfig:
    """Let things go wrong at random times on a virtual G1 in lock-step, and see whether each ends in damping."""

    policies: tuple[Path, ...]
    """policy.onnx files; each fault gets the next one."""
    clips: tuple[Path, ...]
    """Their motions, in the same order."""
    count: int = 312
    """Faults, all kinds in turn."""
    kinds: tuple[str, ...] = ()
    """Only these kinds; all when absent."""
    robot: str = "g1_29dof"
    """Revision of the virtual robot."""
    seed: int = 0
    """Of what is drawn."""
    domain: int = 95
    """DDS domain."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/campaign_faults.json")
    """File for the numbers (.json)."""


def faults_command(config: FaultsConfig) -> int:
    """Print a line per kind. 1 unless every fault ended in damping, in time and for good."""
    from deploy.faults import BUDGET, KINDS, Verdict, draw, try_fault
    from sim.run import progress

    unknown = set(config.kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"kinds {sorted(unknown)} are not known; allowed: {', '.join(KINDS)}")
    if len(config.policies) != len(config.clips) or not config.policies:
        raise ValueError(f"{len(config.policies)} policies and {len(config.clips)} clips; allowed: one for each")
    robot = revision(config.robot)
    loaded = [load_slots([policy], [clip], robot) for policy, clip in zip(config.policies, config.clips, strict=True)]
    kinds = config.kinds or tuple(KINDS)
    verdicts: list[Verdict] = []
    with progress("faults", config.count, unit="faults") as show:
        for number in range(config.count):
            rng = np.random.default_rng((config.seed, number))
            slots = loaded[number // len(kinds) % len(loaded)]
            fault = draw(kinds[number % len(kinds)], slots, robot, limits_of(slots, Limits()), rng)
            with tempfile.TemporaryDirectory() as folder:
                verdicts.append(try_fault(fault, slots, robot, config.domain, Path(folder), number))
            show(number + 1)
    table = Table("kind", "faults", "damped, latched, in time", "early", "latency max [ms]", "caught by")
    for kind in kinds:
        mine = [verdict for verdict in verdicts if verdict.kind == kind]
        late = [1000 * verdict.latency for verdict in mine if verdict.latency is not None]
        by = Counter(verdict.caught_by[0] for verdict in mine if verdict.caught_by)
        table.add_row(
            kind,
            str(len(mine)),
            str(sum(verdict.good for verdict in mine)),
            str(sum(verdict.early for verdict in mine)),
            f"{max(late):.0f}" if late else "-",
            ", ".join(f"{name} {count}" for name, count in by.items()) or "operator",
        )
    Console(width=140).print(table)
    good = sum(verdict.good for verdict in verdicts)
    Console().print(f"{good} of {len(verdicts)} end latched in damping within {1000 * BUDGET:.0f} ms of the trip level")
    for verdict in verdicts:
        if not verdict.good:
            Console().print(verdict)
    rows = [dataclasses.asdict(verdict) | {"good": verdict.good} for verdict in verdicts]
    save(config.output, {"facts": facts(config.seed) | {"robot": robot.name}, "results": rows})
    return 0 if good == len(verdicts) else 1
