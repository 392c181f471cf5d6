"""What is left of a training of a tracking policy: the table at its end, its curves as a picture, a video, and the page
of `sim report`.

    sim report runs/squat     writes runs/squat/report.html; for a folder of several runs see `sim.report_runs`

`conclude` runs at the end of a training. What it cannot do there, such as a video on a machine that draws nothing, it
says and leaves out: a training of hours does not fail for a picture.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controllers.files import write_atomically
from sim.metrics import share
from sim.page import COLOURS, Headline, Section, document, facts_table, grid, missing, paragraph, plot, table
from sim.run import RunError, read_config
from sim.train.track_config import TrackConfig

KIND = "g1-track"
EMBEDDED = 12_000_000  # [bytes] up to which a video becomes part of the page
LEAD = (
    "A policy that tracks motions on the simulated Unitree G1: what it learned from, how that went, and what it does. "
    "<b>Every figure on this page is simulated</b>; nothing here was measured on a robot."
)
COLUMNS = ("updates", "million steps", "minutes", "success [%]", "E_g [mm]", "E_mpjpe [mm]")

Lines = Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One plot over the steps of the robots."""

    title: str
    unit: str
    draw: Callable[[Axes], None]


def read_lines(run: Path) -> list[dict[str, Any]]:
    """What a training has logged, one entry per update. Raises RunError where that is nothing."""
    path = run / "metrics.jsonl"
    try:
        # A line that a crash cut short is cut off when the run goes on.
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    if not lines:
        raise RunError(f"{path}: is empty; allowed: a training that has made one update or more")
    return lines


def judgements(lines: Lines) -> dict[str, dict[str, Any]]:
    """The first judgement, the one whose policy is kept, and the last by name; nothing where none was made yet."""
    judged = [line for line in lines if "success" in line]
    if not judged:
        return {}
    return {"first": judged[0], "kept": [line for line in judged if line["kept"]][-1], "last": judged[-1]}


def success_text(line: dict[str, Any], judged: int) -> str:
    """A judgement's success with its confidence interval [%]."""
    success = share(np.arange(judged) < round(line["success"] * judged))
    return f"{100 * success.value:.0f} ({100 * success.low:.0f} to {100 * success.high:.0f})"


def _row(line: dict[str, Any], judged: int) -> tuple[str, ...]:
    return (
        str(line["iteration"]),
        f"{line['steps'] / 1e6:.1f}",
        f"{line['seconds'] / 60:.1f}",
        success_text(line, judged),
        f"{line['e_g']:.0f}",
        f"{line['e_mpjpe']:.1f}",
    )


def judgement_table(lines: Lines, judged: int) -> Table:
    """First, kept and last judgement for the terminal.

    Args:
        lines: Of the training.
        judged: Robots of each judgement.
    """
    columns = (escape(column) for column in COLUMNS)  # or rich takes units for markup
    result = Table(
        "judged", *columns, title=f"{judged} robots from the motion's start, in worlds as trained in (simulated)"
    )
    for name, line in judgements(lines).items():
        result.add_row(name, *_row(line, judged))
    return result


def curves(lines: Lines, weights: dict[str, float]) -> tuple[Curve, ...]:
    """The plots of a training.

    Args:
        lines: What it has logged.
        weights: Of its rewards, by name; what is below zero is a penalty.
    """
    steps = np.array([line["steps"] / 1e6 for line in lines])

    def over_steps(*keys: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for key, colour in zip(keys, COLOURS, strict=False):
                axes.plot(steps, [line.get(key, np.nan) for line in lines], color=colour, label=key.split(".")[-1])
            axes.set_ylim(bottom=0)
            if len(keys) > 1:
                axes.legend()

        return draw

    def over_judgements(scale: float, top: float | None, **labels: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            judged = [line for line in lines if "success" in line]
            for (key, label), colour in zip(labels.items(), COLOURS, strict=False):
                values = [scale * line[key] for line in judged]
                axes.plot([x["steps"] / 1e6 for x in judged], values, color=colour, marker="o", ms=3, label=label)
            axes.set_xlim(left=0)
            axes.set_ylim(0, top)
            if len(labels) > 1:
                axes.legend()

        return draw

    def terms(axes: Axes) -> None:
        paid = [key for key in lines[-1] if key.startswith("term.") and weights.get(key[5:], 0.0) > 0]
        for index, key in enumerate(sorted(paid, key=lambda key: -lines[-1][key])):
            style = ("-", "--", ":")[index // len(COLOURS) % 3]
            values = [line.get(key, np.nan) for line in lines]
            axes.plot(steps, values, style, color=COLOURS[index % len(COLOURS)], label=key[5:].replace("_", " "))
        axes.set_ylim(0, 1.6)  # none is above 1; the names stand over them
        axes.set_yticks([0.0, 0.5, 1.0])
        axes.legend(fontsize=6, ncols=2, loc="upper center")

    def pace(axes: Axes) -> None:
        axes.plot(steps, [line["seconds"] / 60 for line in lines], color=COLOURS[0])
        axes.set_ylim(bottom=0)

    return (
        Curve("Success from the start", "% of robots", over_judgements(100.0, 105.0, success="")),
        Curve("Error while tracked", "mm", over_judgements(1.0, None, e_g="E_g, in the world", e_mpjpe="E_mpjpe")),
        Curve("Reward in training", "per second", over_steps("reward")),
        Curve("Robots lost in training", "per second and robot", over_steps("lost_per_s")),
        Curve("Terms of the reward", "share of the most", terms),
        Curve("Time", "minutes", pace),
    )


def curve_picture(lines: Lines, weights: dict[str, float], path: Path) -> None:
    """The plots as one PNG."""
    drawn = curves(lines, weights)
    with rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e6ea"}):
        figure = Figure(figsize=(13, 6.5), layout="constrained")
        for axes, curve in zip(figure.subplots(2, 3).flat, drawn, strict=True):
            curve.draw(axes)
            axes.set_title(curve.title, loc="left", fontsize=11, fontweight="bold")
            axes.set_xlabel("million steps of robots")
            axes.set_ylabel(curve.unit)
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def record_video(run: Path, config: TrackConfig) -> str:
    """Write `video.mp4` into the run folder: its policy on each motion once, on the robot on paper, undisturbed.

    In a process of its own: MuJoCo chooses its drawing library when it is loaded, and a driver that crashes must not
    take a training along.

    Returns:
        Nothing, or why there is no video.
    """
    words = ["play", str(run / "policy.onnx"), "--clip", *config.clip, "--video", str(run / "video.mp4")]
    child = subprocess.run([sys.executable, "-m", "sim.cli", *words], capture_output=True, text=True)
    if child.returncode == 0:
        return ""
    said = child.stderr.strip().splitlines()
    return said[-1].removeprefix("sim: ") if said else f"the process that draws it ended with {child.returncode}"


def conclude(run: Path, config: TrackConfig, console: Console | None = None) -> None:
    """At the end of a training: its table in the terminal, `curve.png` and `video.mp4` in its folder."""
    console = console or Console()
    lines = read_lines(run)
    console.print(judgement_table(lines, config.judged))
    curve_picture(lines, dataclasses.asdict(config.task.weights), run / "curve.png")
    if config.video:
        with console.status("drawing video.mp4"):
            reason = record_video(run, config)
        if reason:
            console.print(f"no video: {reason}", highlight=False, markup=False, soft_wrap=True)


def tracking_report(run: Path, console: Console) -> Path:
    """Write `report.html` into the run folder and print its summary."""
    config, lines = read_config(run, KIND)["config"], read_lines(run)
    sections = (
        _learning_section(run, config, lines),
        _video_section(run),
        Section("Settings", _settings(config)),
        Section("Where these figures come from", facts_table({KIND: json.loads((run / "facts.json").read_text())})),
    )
    output = run / "report.html"
    text = document(run.resolve().name, sections, "motion tracking report", LEAD)
    write_atomically(output, lambda file: file.write(text.encode()))
    console.print(judgement_table(lines, config["judged"]))
    console.print(output, soft_wrap=True)
    return output


def _learning_section(run: Path, config: dict[str, Any], lines: Lines) -> Section:
    last, judged = lines[-1], config["judged"]
    names = ", ".join(html.escape(Path(path).stem) for path in config["clip"])
    text = paragraph(
        f"{config['robots']} robots ({html.escape(config['task']['robot'])}) learned to track {names} by PPO; seed "
        f"{config['seed']}. A step is one control step of one robot. A judgement lets {judged} robots begin at the "
        f"start of the motion, in random worlds as those of the training, without the noise of exploration; the policy "
        f"of the latest one that is not measurably worse than the best is kept. Success: never lost, with its 95 % "
        f"confidence interval. E_g and E_mpjpe: mean distance of 27 points from the motion, in the world and relative "
        f"to the pelvis, while tracked."
    )
    if last["iteration"] < config["iterations"]:
        text += missing(
            f"The training is not finished ({last['iteration']} of {config['iterations']} updates): "
            f"<code>sim resume {html.escape(str(run))}</code> goes on."
        )
    found = judgements(lines)
    if found:
        text += table(("judged", *COLUMNS), [(name, *_row(line, judged)) for name, line in found.items()], "results")
    else:
        text += missing("No judgement was made yet.")
    text += grid(
        *(plot(c.title, c.draw, "million steps of robots", c.unit) for c in curves(lines, config["task"]["weights"]))
    )
    broken = sum(line["broken"] for line in lines)
    if broken:
        text += paragraph(f"{broken:.0f} states were not finite; those robots began anew.")
    headlines = [
        Headline(
            "throughput, learning included",
            f"{last['steps'] / last['seconds']:,.0f} steps/s",
            f"{last['steps'] / 1e6:.1f} million steps in {last['seconds'] / 60:.1f} minutes",
        )
    ]
    if found:
        kept = found["kept"]
        note = f"of {judged} robots, after {kept['steps'] / 1e6:.1f} million steps"
        headlines[:0] = [
            Headline("never lost, in worlds as trained in", f"{100 * kept['success']:.0f} %", note),
            Headline("E_mpjpe", f"{kept['e_mpjpe']:.1f} mm", f"E_g {kept['e_g']:.0f} mm; while tracked"),
        ]
    return Section("Learning", text, tuple(headlines))


def _video_section(run: Path) -> Section:
    video, policy = run / "video.mp4", run / "policy.onnx"
    title = "What the policy does"
    text = ""
    if policy.exists():
        digest = hashlib.sha256(policy.read_bytes()).hexdigest()[:12]
        text += paragraph(
            f"<code>{policy.name}</code>, sha256 {digest}. <code>sim play</code> shows it in the browser, "
            f"where you can push it."
        )
    if not video.exists():
        return Section(title, text + missing("There is no video here: <code>sim play --video</code> makes one."))
    text += paragraph("The robot, white, and the motion, green: the robot on paper, undisturbed.")
    if video.stat().st_size > EMBEDDED:
        source = video.name
    else:
        source = f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"
    return Section(title, text + f'<video controls loop muted autoplay playsinline src="{source}"></video>')


def _settings(config: dict[str, Any]) -> str:
    """A table of what differs from the defaults, and all settings folded below it."""
    default = json.loads(json.dumps(dataclasses.asdict(TrackConfig())))
    ours, theirs = flat(config), flat(default)
    changed = [
        (f"<code>{html.escape(name)}</code>", shown(value), shown(theirs.get(name, "-")))
        for name, value in ours.items()
        if value != theirs.get(name)
    ]
    text = table(("differs from the default", "here", "default"), changed) if changed else paragraph("The defaults.")
    rows = [(f"<code>{html.escape(name)}</code>", shown(value)) for name, value in ours.items()]
    return text + f"<details><summary>all settings</summary>{table(('setting', 'here'), rows)}</details>"


def shown(value: object) -> str:
    """A setting as HTML."""
    return html.escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their name on the command line."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name.replace('_', '-')}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found
