"""The page of several trainings of tracking policies: what each asked for, what it reached, and how they learned.

    sim report runs/squats     writes runs/squats/report.html where runs/squats holds runs of `sim train g1-track`

One training has a page of its own, see `sim.report_tracking`.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controllers.files import write_atomically
from sim.page import COLOURS, Headline, Section, document, facts_table, grid, missing, paragraph, plot, table
from sim.report_tracking import KIND, flat, judgements, read_lines, shown, success_text
from sim.run import read_config

LEAD = (
    "Policies that track motions on the simulated Unitree G1, one training beside the other. <b>Every figure on this "
    "page is simulated</b>; nothing here was measured on a robot."
)
COLUMNS = ("run", "motions", "seed", "updates", "million steps", "minutes")
JUDGED = ("kept: success [%]", "E_mpjpe [mm]", "last: success [%]", "E_mpjpe [mm]")
MINE = ("clip", "seed", "iterations")  # settings that the table of the runs shows already


@dataclass(frozen=True)
class Training:
    """One of the runs."""

    name: str
    folder: Path
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    """What it has logged; empty before its first update."""


def read_training(folder: Path) -> Training:
    """The training in that run folder. Raises RunError where it is none."""
    log = folder / "metrics.jsonl"
    begun = log.exists() and log.stat().st_size > 0
    return Training(folder.name, folder, read_config(folder, KIND)["config"], read_lines(folder) if begun else [])


def runs_report(folder: Path, runs: Sequence[Path], output: Path, console: Console) -> Path:
    """Write the page of these runs and print its table.

    Args:
        folder: Of the runs; the page's name.
        runs: Their folders.
        output: The page.
        console: For the table.
    """
    trainings = [read_training(run) for run in runs]
    facts = {t.name: json.loads((t.folder / "facts.json").read_text()) for t in trainings}
    sections = (
        Section("Trainings", _trainings(trainings), _headlines(trainings)),
        Section("Settings in which they differ", _differences(trainings)),
        Section("Where these figures come from", facts_table(facts)),
    )
    text = document(folder.resolve().name, sections, "motion tracking, several trainings", LEAD)
    write_atomically(output, lambda file: file.write(text.encode()))
    few = (0, 3, 5, len(COLUMNS), len(COLUMNS) + 1)  # what fits into a terminal
    headers = (*COLUMNS, *JUDGED)
    result = Table(*(escape(headers[i]) for i in few), title=f"Trainings in {folder} (simulated)")
    for training in trainings:
        cells = _row(training)
        result.add_row(*(cells[i] for i in few))
    console.print(result)
    console.print(output, soft_wrap=True)
    return output


def _row(training: Training) -> tuple[str, ...]:
    config, lines = training.config, training.lines
    motions = ", ".join(Path(path).stem for path in config["clip"])
    wanted = f"of {config['iterations']}"
    if not lines:
        return (training.name, motions, str(config["seed"]), f"0 {wanted}", *["-"] * 6)
    last, found = lines[-1], judgements(lines)
    updates = str(last["iteration"]) + (f" {wanted}" if last["iteration"] < config["iterations"] else "")
    cells = (training.name, motions, str(config["seed"]), updates)
    cells += (f"{last['steps'] / 1e6:.1f}", f"{last['seconds'] / 60:.1f}")
    for name in ("kept", "last"):
        line = found.get(name)
        cells += (success_text(line, config["judged"]), f"{line['e_mpjpe']:.1f}") if line else ("-", "-")
    return cells


def _headlines(trainings: Sequence[Training]) -> tuple[Headline, ...]:
    last = [t.lines[-1] for t in trainings if t.lines]
    finished = sum(bool(t.lines) and t.lines[-1]["iteration"] >= t.config["iterations"] for t in trainings)
    steps, hours = (sum(line[key] for line in last) for key in ("steps", "seconds"))
    return (
        Headline("trainings", str(len(trainings)), f"{finished} finished"),
        Headline("steps of robots, together", f"{steps / 1e6:.1f} million", "a step: one control step of one robot"),
        Headline("time, together", f"{hours / 3600:.1f} hours", "as each ran, with what else its machine did"),
    )


def _trainings(trainings: Sequence[Training]) -> str:
    rows = [tuple(html.escape(cell) for cell in _row(t)) for t in trainings]
    rows = [(*row[:1], f"<small>{row[1]}</small>", *row[2:]) for row in rows]  # many motions stay narrow
    text = paragraph(
        "Success: robots that were never lost from the start of the motion to its end, in random worlds as those of "
        "the training, with its 95 % confidence interval; E_mpjpe: mean distance from the motion relative to the "
        "pelvis, while tracked. The policy of the latest judgement that is not measurably worse than the best is kept. "
        "Trainings on other motions or in other worlds were judged on and in those: compare them with "
        "<code>sim eval g1</code>."
    )
    text += table((*COLUMNS, *JUDGED), rows, "results runs")
    begun = [t for t in trainings if t.lines]
    if not begun:
        return text + missing("None has made an update yet.")
    return text + grid(
        plot(
            "Success from the start", _over_steps(begun, "success", 100.0, 105.0), "million steps", "% of robots", 3.2
        ),
        plot("E_mpjpe while tracked", _over_steps(begun, "e_mpjpe"), "million steps", "mm", 3.2),
        plot("Reward in training", _over_steps(begun, "reward"), "million steps", "per second", 3.2),
        plot("Mean distance in training", _over_steps(begun, "distance_mm"), "million steps", "mm", 3.2),
    )


def _over_steps(
    trainings: Sequence[Training], key: str, scale: float = 1.0, top: float | None = None
) -> Callable[[Axes], None]:
    """Draws what every training has logged under `key`, where it has."""

    def draw(axes: Axes) -> None:
        styles = itertools.product(("-", "--", ":"), COLOURS)
        for training, (style, colour) in zip(trainings, itertools.cycle(styles), strict=False):
            points = [(line["steps"] / 1e6, scale * line[key]) for line in training.lines if key in line]
            marker = "o" if key in ("success", "e_mpjpe") else ""
            steps, values = [point[0] for point in points], [point[1] for point in points]
            axes.plot(steps, values, style, color=colour, marker=marker, ms=3, lw=1.2, label=training.name)
        axes.set_xlim(left=0)
        axes.set_ylim(0, top)
        axes.legend()

    return draw


def _differences(trainings: Sequence[Training]) -> str:
    """A table of the settings that are not equal in all runs."""
    settings = [flat(t.config) for t in trainings]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = []
    for name in names:
        values = [each.get(name, "-") for each in settings]
        if name not in MINE and any(value != values[0] for value in values):
            rows.append((f"<code>{html.escape(name)}</code>", *(shown(value) for value in values)))
    if not rows:
        return paragraph("Beside motions, seeds and numbers of updates: none.")
    return table(("setting", *(html.escape(t.name) for t in trainings)), rows)
