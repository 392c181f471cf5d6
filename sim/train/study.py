"""Comparisons of trainings at equal cost: which loss helps, and what a larger student buys.

Each arm is trained with several seeds in run folders of its own (finished ones are kept, interrupted ones go on),
flown on the same unseen quadrotors, and shown as mean and range over the seeds. An update costs about the same with
either loss, so arms of equal updates are arms of equal cost; the core-seconds that each really took stand in the
table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from controllers.policy import load_policy
from sim.cases import CASES
from sim.evaluate import evaluate
from sim.run import Run, facts, write_json
from sim.train.distill import KIND, train_student
from sim.train.learner import StudentConfig

Study = Literal["losses", "sizes"]
SHOWN = {  # case, measure, factor to per cent or centimetres
    "survive [%]": ("training distribution", "survive", 100),
    "survive, t2i 40 to 80 [%]": ("torque to inertia 40 to 80", "survive", 100),
    "hover, no force [cm]": ("no force", "hover error, median", 100),
    "hover, force [cm]": ("training distribution", "hover error, mean", 100),
    "action late 20 ms [%]": ("action late by 20 ms", "within 1 m", 100),
    "velocity late 100 ms [%]": ("velocity late by 100 ms", "within 1 m", 100),
    "eight of 5.5 s [cm]": ("figure eight of 5.5 s", "RMSE, median", 100),
    "eight of 4 s [cm]": ("figure eight of 4 s", "RMSE, median", 100),
}


def arms(study: Study, updates: int, teachers: str) -> dict[str, StudentConfig]:
    """Name and settings of each arm; all make the same number of updates."""
    base = StudentConfig(teachers=teachers, imitation_updates=0, tuning_updates=updates)
    if study == "losses":
        third = updates // 3
        return {
            "imitation only": dataclasses.replace(base, imitation_updates=updates, tuning_updates=0),
            "tuning only": base,
            "imitation, then tuning": dataclasses.replace(
                base, imitation_updates=third, tuning_updates=updates - third
            ),
        }
    return {
        "memory 16 (2084 parameters)": base,
        "memory 24": dataclasses.replace(base, hidden=24),
        "memory 32": dataclasses.replace(base, hidden=32),
        "memory 16, acceleration": dataclasses.replace(base, acceleration=True),
    }


def study_command(study: Study, teachers: Path, output: Path, updates: int, seeds: int, count: int) -> dict[str, Any]:
    """Train and fly all arms, print the table, write `study.json` into the folder `output`.

    Raises ValueError where the numbers make no study."""
    if min(updates, seeds, count) < 1:
        raise ValueError(f"updates, seeds and count are {updates}, {seeds}, {count}: at least 1 each is needed")
    output.mkdir(parents=True, exist_ok=True)
    cases = [case for case in CASES if case.name in {name for name, _, _ in SHOWN.values()}]
    content: dict[str, Any] = {"facts": facts(0), "updates": updates, "count": count, "arms": {}}
    for name, config in arms(study, updates, str(teachers)).items():
        rows = []
        for seed in range(seeds):
            folder = output / f"{name.replace(' ', '-').replace(',', '').replace('(', '').replace(')', '')}-{seed}"
            chosen = dataclasses.replace(config, seed=seed)
            if not (folder / "metrics" / "summary.json").exists():
                with Run.open(folder, KIND) if folder.exists() else Run.create(folder, KIND, chosen, seed) as run:
                    train_student(run, run.config(StudentConfig))
            summary = json.loads((folder / "metrics" / "summary.json").read_text())
            policy = load_policy(folder / "policy.onnx")
            found = evaluate(policy, count, 1, cases)
            values = {label: found[case][measure]["value"] for label, (case, measure, _) in SHOWN.items()}
            rows.append(values | {"core_seconds": summary["core_seconds"]})
            content["parameters"] = content.get("parameters", {}) | {name: policy.spec.parameter_count}
        content["arms"][name] = rows
        write_json(output / "study.json", content)
    Console().print(study_table(content))
    return content


def study_table(content: dict[str, Any]) -> Table:
    """Mean over the seeds, and the range where there are several."""
    table = Table(title=f"{content['updates']} updates each, {content['count']} unseen quadrotors a case, simulated")
    table.add_column("")
    for name in content["arms"]:
        table.add_column(f"{name}\n{content['parameters'][name]} parameters", justify="right")
    for label, scale in [*((label, s) for label, (_, _, s) in SHOWN.items()), ("core_seconds", 1)]:
        cells = []
        for rows in content["arms"].values():
            values = np.array([np.nan if row[label] is None else row[label] * scale for row in rows])
            if np.isnan(values).any():
                cells.append("nobody arrives")
                continue
            spread = f" ({values.min():.3g} to {values.max():.3g})" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3g}{spread}")
        table.add_row(label.replace("_", "-"), *cells)
    return table
