"""The report of a run, or of a folder of runs: one HTML page that needs nothing from outside, and a terminal table.

    sim report runs/demo                   writes runs/demo/report.html
    sim report runs/squat                  the same for a training of a tracking policy, see `sim.report_tracking`
    sim report runs/squats                 the same for a folder of such trainings, see `sim.report_runs`
    sim report runs/eval.json --markdown   prints the evaluation as a Markdown table

The page is made of what the folder holds: runs of teachers and students, `eval.json`, and the policies that it names,
which fly here once more so that their flights can be drawn. What is missing is said, not guessed.
"""

from __future__ import annotations

import html
import itertools
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from controllers.files import write_atomically
from controllers.policy import load_policy
from sim.evaluate import NOBODY, number
from sim.page import (
    COLOURS,
    GREY,
    Headline,
    Section,
    command_line,
    document,
    facts_table,
    grid,
    logarithmic,
    missing,
    paragraph,
    percent,
    plot,
    span,
    table,
)
from sim.report_flights import COURSES, FLOWN_SEED, adaptation_section, flights_section, fly
from sim.report_runs import runs_report
from sim.report_tracking import KIND, tracking_report
from sim.robots.quadrotors import sample
from sim.run import RunError, read_config

FLOWN = 256  # quadrotors that every policy of the report flies, of the widest distribution
LEAD = (
    "Many teachers, each trained on its own simulated quadrotor, become one small policy that flies a quadrotor that "
    "it has never seen, and that runs as plain C. <b>Every figure on this page is simulated</b>; nothing here was "
    "measured on hardware."
)
BEFORE_EPISODES = 32  # of each teacher, before and after its training


@dataclass(frozen=True)
class Material:
    """What there is to report."""

    folder: Path
    runs: dict[str, Path]
    """Run folders by kind."""
    evaluation: dict[str, Any]
    """Content of eval.json; empty where there is none."""
    policies: dict[str, Path]
    """Policy files by name, in order."""
    compiled: dict[str, Path]
    """Compiled policies, by the name of the policy that they were compiled from."""
    trackings: tuple[Path, ...] = ()
    """Run folders of tracking policies, which have a page of their own."""


def gather(folder: Path) -> Material:
    """What `folder`, a run or a folder of runs, holds. Raises RunError where that is nothing."""
    runs: dict[str, Path] = {}
    trackings: list[Path] = []
    for candidate in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else ():
        if (candidate / "config.json").exists():
            kind = read_config(candidate)["kind"]
            if kind == KIND:
                trackings.append(candidate)
            else:
                runs.setdefault(kind, candidate)
    evaluation = read_evaluation(folder / "eval.json") if (folder / "eval.json").exists() else {}
    if not runs and not evaluation and not trackings:
        raise RunError(f"{folder}: nothing to report; allowed: a run folder, or a folder with runs or an eval.json")
    files = {name: Path(about["file"]) for name, about in evaluation.get("policies", {}).items() if "file" in about}
    policies = {name: path for name, path in files.items() if path.suffix != ".so" and path.is_file()}
    compiled = {}
    for path in files.values():
        if path.suffix == ".so" and path.is_file():
            compiled |= {name: path for name in policies if _identifier(name) == _identifier(path.stem)}
    student = runs.get("quad-student")
    if student and (student / "policy.onnx").exists() and student / "policy.onnx" not in policies.values():
        policies = {"student": student / "policy.onnx"} | policies
    return Material(folder, runs, evaluation, policies, compiled, tuple(trackings))


def _identifier(name: str) -> str:
    """The name as C code spells it."""
    return name.replace("-", "_")


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `sim eval` saved. Raises RunError where the file is something else."""
    try:
        content = json.loads(path.read_text())
        for key in ("count", "seed", "facts", "policies", "results", "probes"):
            content[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not an evaluation that `sim eval` of this version wrote ({error})") from error
    return content


def _lines(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    try:
        # A line that a crash cut short is cut off when the run goes on.
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error


def _summary(run: Path) -> dict[str, Any]:
    path = run / "metrics" / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


def teachers_section(run: Path | None) -> Section:
    title = "Teachers: one for each quadrotor"
    if run is None:
        return Section(
            title, missing("There is no run of teachers here: <code>sim train quad-teachers</code> makes one.")
        )
    config, lines = read_config(run)["config"], [line for line in _lines(run) if "return" in line]
    text = paragraph(
        f"{config['count']} quadrotors of the {config['preset']} distribution, seed {config['seed']}, each with a "
        f"network of its own. Every network begins as its quadrotor's linear-quadratic regulator (LQR) and is trained "
        f"by the gradient of the return through the simulator. An episode is 5 s; it ends early, terminated, beyond 20 "
        f"arms, 2 m/s or 35 rad/s. Starts are tilted by up to 1 rad."
    )
    if not (run / "teachers.npz").exists():
        text += missing(f"Their training is not finished: <code>sim resume {html.escape(str(run))}</code> goes on.")
        return Section(title, text + (grid(_teacher_curve(lines, None)) if lines else ""))
    from sim.train.teachers import AUTHORITY_BINS, RETURN, SURVIVED

    summary, (before, after, agility) = _summary(run), _before_and_after(run)
    lost = [1 - scores[:, :, SURVIVED].mean() for scores in (before, after)]
    returned = [scores[:, :, RETURN].mean(1) for scores in (before, after)]
    low = np.floor(np.quantile(np.concatenate(returned), 0.02) / 50) * 50
    bins = np.linspace(low, np.ceil(max(map(np.max, returned)) / 50) * 50, 40)

    def distribution(axes: Axes) -> None:
        for values, colour, label in zip(returned, (GREY, COLOURS[0]), ("LQR, before", "trained"), strict=True):
            axes.hist(values.clip(low), bins=bins.tolist(), color=colour, alpha=0.75, label=label)
        axes.legend(loc="upper left")

    def by_agility(axes: Axes) -> None:
        names = [f"{a} to {b}" for a, b in itertools.pairwise(AUTHORITY_BINS)]
        groups = np.digitize(agility, AUTHORITY_BINS) - 1
        for shift, scores, colour, label in ((-0.2, before, GREY, "LQR, before"), (0.2, after, COLOURS[0], "trained")):
            ended = [1 - scores[groups == i][:, :, SURVIVED] for i in range(len(names))]
            shares = [100 * float(e.mean()) if e.size else 0.0 for e in ended]
            bars = axes.bar(np.arange(len(names)) + shift, shares, 0.38, color=colour, label=label)
            axes.bar_label(bars, [f"{v:.2g}" for v in shares], fontsize=7, padding=1)
        axes.set_xticks(range(len(names)), names)
        axes.grid(axis="x", visible=False)
        axes.legend()

    published, judged = summary["published"], summary["1 rad"]
    scaled = published["core_hours"] * summary["teachers"] / 1000
    text += grid(
        _teacher_curve(lines, 100 * lost[0]),
        plot("Mean return of each teacher", distribution, "return of an episode (simulated)", "teachers"),
        plot("Terminated, by agility", by_agility, "torque to inertia [rad/s²]", "% of episodes (simulated)"),
    )
    rows = [
        ("episodes terminated", percent(lost[0]), percent(judged["terminated"]), percent(published["terminated"])),
        ("mean return", f"{returned[0].mean():.0f}", f"{judged['return']:.0f}", f"{published['return']:.0f}"),
        ("cost", "-", span(summary["core_seconds"]), f"about {scaled:.3g} core-hours"),
    ]
    text += table(("simulated, starts up to 1 rad", "LQR, before", "trained here", "published (RAPTOR)"), rows)
    text += paragraph(
        "The published teachers were trained by SAC on the published distribution. A short training like that of the "
        "demonstration, on a wider distribution, is not expected to reach their figures; the full one is the default "
        "of <code>sim train quad-teachers</code>."
    )
    headline = Headline(
        f"{summary['teachers']} teachers: episodes terminated",
        f"{percent(lost[0])} → {percent(judged['terminated'])}",
        f"LQR, then trained in {span(summary['core_seconds'])}; published: about {scaled:.3g} core-hours",
    )
    return Section(title, text, (headline,))


def _teacher_curve(lines: list[dict[str, Any]], start: float | None) -> str:
    """Terminated share over cost in the first round; `start` is that of the LQR [%]."""
    points = [(line["core_seconds"], 100 * line["terminated"]) for line in lines if line["round"] == 0]
    if start is not None:
        points = [(0.0, start), *points]

    def curve(axes: Axes) -> None:
        axes.plot(*zip(*points, strict=True), color=COLOURS[0], marker="o", markersize=3)
        if start is not None:
            axes.plot(0, start, marker="o", markersize=6, color=GREY, linestyle="")
            axes.annotate("LQR", (0, start), (7, 0), textcoords="offset points", fontsize=8, va="center")
        if min(share for _, share in points) > 0:
            logarithmic(axes)

    return plot("Learning: episodes terminated", curve, "core-seconds", "% of episodes (simulated)")


def _before_and_after(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judgements (teachers, episodes, 4) of the teachers as they began and as they are, and torque-to-inertia."""
    from sim.train.teachers import JUDGED_STARTS, Teachers, load_teachers

    trained = load_teachers(run)
    episodes, seed = min(BEFORE_EPISODES, trained.config.judged), [trained.config.seed, 3]
    both = (Teachers(trained.quads, trained.config), trained)
    before, after = (teachers.judge(JUDGED_STARTS["1 rad"], episodes, seed).astype(float) for teachers in both)
    return before, after, trained.quads.torque_to_inertia


def student_section(run: Path | None) -> Section:
    title = "Student: one small recurrent policy for all of them"
    if run is None:
        return Section(
            title, missing("There is no run of a student here: <code>sim train quad-student</code> makes one.")
        )
    config = read_config(run)["config"]
    lines = [line for line in _lines(run) if "phase" in line and "core_seconds" in line]
    text = paragraph(
        "In imitation the student flies, and the teacher of each quadrotor says what it would have done. In tuning it "
        "flies fresh quadrotors without teachers and follows the gradient of its own flight's cost. It is examined on "
        "512 quadrotors of the published distribution that no training uses: 5 s from starts tilted by up to 1 rad."
    )
    if not (run / "policy.onnx").exists():
        text += missing(f"Its training is not finished: <code>sim resume {html.escape(str(run))}</code> goes on.")
    if not lines:
        return Section(title, text + missing("Nothing has been measured yet."))
    phases = [phase for phase in ("imitation", "tuning") if any(line["phase"] == phase for line in lines)]
    colours: dict[str, str] = {"imitation": COLOURS[0], "tuning": COLOURS[1]}

    def curve(key: str, scale: float, style: str, axes: Axes) -> None:
        """One quantity over cost, each phase in its colour."""
        last: list[tuple[float, float]] = []
        for phase in phases:
            points = [(x["core_seconds"], scale * x[key]) for x in lines if x["phase"] == phase and key in x]
            axes.plot(*zip(*last, *points, strict=True), color=colours[phase], linestyle=style) if points else None
            last = points[-1:] or last

    def survival(axes: Axes) -> None:
        curve("survived", 100, "-", axes)
        for phase in phases:
            axes.plot([], [], color=colours[phase], label=phase)
        axes.legend(loc="lower right")

    def hover(axes: Axes) -> None:
        curve("hover", 100, "-", axes)
        curve("hover_force", 100, ":", axes)
        axes.plot([], [], color=GREY, linestyle=":", label="constant force, mean")
        axes.plot([], [], color=GREY, label="no force, median")
        axes.legend(loc="upper right")
        logarithmic(axes)

    def loss(axes: Axes) -> None:
        for phase, key, label in (
            ("imitation", "imitation", "imitation: distance from the teachers"),
            ("tuning", "cost", "tuning: cost of the flights"),
        ):
            points = [(x["core_seconds"], x[key]) for x in lines if x["phase"] == phase and key in x]
            axes.plot(*zip(*points, strict=True), color=colours[phase], label=label) if points else None
        logarithmic(axes)
        axes.legend(loc="best")

    text += grid(
        plot("Survival on unseen quadrotors", survival, "core-seconds", "% survive 5 s (simulated)"),
        plot("Hover error of survivors", hover, "core-seconds", "cm (simulated)"),
        plot("What each phase makes smaller", loss, "core-seconds", "loss (simulated)"),
    )
    ends = [(f"after {phase}", next(x for x in reversed(lines) if x["phase"] == phase)) for phase in phases]
    rows = [
        (
            name,
            str(line["update"]),
            f"{line['core_seconds']:.0f}",
            percent(line["survived"]),
            *(f"{100 * line[key]:.2f} cm" if key in line else "no survivor" for key in ("hover", "hover_force")),
        )
        for name, line in [("first examination", lines[0]), *ends]
    ]
    hovers = ("hover error, no force, median", "with constant force, mean")
    text += table(("simulated", "updates", "core-seconds", "survive 5 s", *hovers), rows)
    last = lines[-1]
    headline = Headline(
        "student: survives 5 s on unseen quadrotors",
        f"{percent(lines[0]['survived'])} → {percent(last['survived'])}",
        f"in {span(last['core_seconds'])}; {config['hidden']} memory units",
    )
    return Section(title, text, (headline,))


def evaluation_section(content: dict[str, Any]) -> Section:
    title = "Evaluation"
    if not content:
        hint = "<code>sim eval quad POLICY -o FOLDER</code> makes one"
        return Section(title, missing(f"There is no evaluation here: {hint}."))
    runs = [(name, where) for name, by in content["results"].items() for where in by if not name.endswith(".so")]
    rows, missed = [], {run: 0 for run in runs}
    for label, entries in _measures(content, runs):
        entry = next(e for e in entries if e)
        cells = []
        for run, found in zip(runs, entries, strict=True):
            missed[run] += bool(found and found["met"] is False)
            cells.append(_result(found))
        rows.append((html.escape(label), number(entry["target"], entry), number(entry["published"], entry), *cells))
    names = [f"{html.escape(name)}<br>in {'our simulator' if where == 'realign' else where}" for name, where in runs]
    text = paragraph(
        f"Simulated: {content['count']} fresh quadrotors of the published distribution in each case, seed "
        f"{content['seed']}; small figures are 95 % confidence intervals. Shares must reach their target, distances "
        f"must not exceed it. Published: the published policy (foundation-policy 1.0.2), measured once in its own "
        f"simulator (l2f 2.0.18)."
    )
    text += table(("case", "target", "published, in l2f", *names), rows, "results")
    for (name, where), count in missed.items():
        total = sum(1 for by in content["results"][name][where].values() for m in by.values() if m["met"] is not None)
        place = "" if where == "realign" else f" in {where}"
        text += paragraph(f"<b>{html.escape(name)}</b>{place} misses {count} of {total} targets.")
    text += "".join(paragraph(sentence) for sentence in _compiled_sentences(content))
    ours = [name for name, where in runs if where == "realign" and name != "published"]
    entries = [content["results"][name]["realign"].get("training distribution", {}).get("survive") for name in ours]
    if not entries or None in entries:
        return Section(title, text)
    first = entries[0]
    note = f"{', '.join(ours)}; target {number(first['target'], first)}, published {number(first['published'], first)}"
    values = ", ".join(number(e["value"], e) for e in entries)
    return Section(title, text, (Headline("survive 5 s, published distribution", values, note),))


Runs = Sequence[tuple[str, str]]
"""(policy, simulator)."""


def _measures(content: dict[str, Any], runs: Runs) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Each measure's label, and its entry in each of `runs`, if that one has it."""
    labels: dict[tuple[str, str], str] = {}
    for name, where in runs:
        for case, measured in content["results"][name][where].items():
            for measure in measured:
                labels.setdefault((case, measure), case if len(measured) == 1 else f"{case}: {measure}")
    results = [content["results"][name][where] for name, where in runs]
    return [(label, [r.get(case, {}).get(measure) for r in results]) for (case, measure), label in labels.items()]


def _result(entry: dict[str, Any] | None) -> str:
    """One cell: the value, its interval, and whether it misses its target."""
    if entry is None:
        return "-"
    if entry["value"] is None:
        return '<span class="miss">✗ none</span>' if entry["met"] is False else "none"
    text = number(entry["value"], entry)
    if entry["low"] is not None:
        text += f"<br><small>{number(entry['low'], entry, False)} to {number(entry['high'], entry, False)}</small>"
    mark = {None: "", True: '<span class="met">✓</span> ', False: '<span class="miss">✗ miss</span> '}[entry["met"]]
    return mark + text


def _compiled_sentences(content: dict[str, Any]) -> list[str]:
    """How each compiled policy's evaluation compares with that of the policy that it was compiled from."""
    sentences = []
    for name in (n for n in content["results"] if n.endswith(".so")):
        twin = next((n for n in content["results"] if _identifier(n) == _identifier(name.removesuffix(".so"))), None)
        if twin is None:
            continue
        pairs = _measures(content, [(name, "realign"), (twin, "realign")])
        equal = sum(number(a["value"], a) == number(b["value"], b) for _, (a, b) in pairs if a and b)
        sentences.append(
            f"The C code of <b>{html.escape(twin)}</b>, compiled here and flown through the same evaluation, gives "
            f"the same number, as printed, in {equal} of {len(pairs)} lines."
        )
    return sentences


def markdown(content: dict[str, Any], policy: str | None = None) -> str:
    """Every figure of one policy that has a target as a Markdown table, with all that belongs to it below.

    Args:
        content: What `sim eval` saved.
        policy: Its name in there; the first one when absent.
    """
    name = policy or next(n for n in content["results"] if n != "published")
    if name not in content["results"]:
        raise RunError(f"{name}: was not evaluated; allowed: {', '.join(content['results'])}")
    runs = [(name, "realign"), (name, "l2f"), ("published", "l2f"), ("published", "realign")]
    runs = [(n, where) for n, where in runs if where in content["results"].get(n, {})]
    peer = any(n == "published" for n, _ in runs)
    lines = ["| case | published | ours, in our simulator | ours, in l2f | target |", "|---|---|---|---|---|"]
    for label, entries in _measures(content, runs):
        by = dict(zip(runs, entries, strict=True))
        ours, elsewhere = by.get((name, "realign")), by.get((name, "l2f"))
        published = by.get(("published", "l2f")) or by.get(("published", "realign"))
        entry = next(e for e in entries if e)
        if entry["target"] is None and not label.endswith(NOBODY):
            continue
        other = _plain(published | {"met": None}) if published else number(entry["published"], entry)
        cells = (label, other, _plain(ours), _plain(elsewhere), number(entry["target"], entry))
        lines.append(f"| {' | '.join(cells)} |")
    facts, about = content["facts"], content["policies"][name]
    packages = ("python", "numpy", "numba", "onnxruntime", "l2f", "foundation-policy")
    versions = ", ".join(f"{package} {facts[package]}" for package in packages if facts.get(package))
    origin = "foundation-policy 1.0.2, measured once in l2f 2.0.18"
    if peer:
        origin = "measured in the same run, in l2f where it flies the case, else in our simulator"
    about_figures = (
        f"All figures are simulated: {content['count']} quadrotors in each case, seed {content['seed']}, 95 % "
        f"confidence intervals in brackets, **miss** where the target is not met. Published: {origin}. Policy: "
        f"`{Path(about['file']).name}`, {about['parameter_count']} parameters, sha256 {about['sha256'][:12]}. Measured "
        f"by `{command_line(facts)}` on {facts['cpu']}, {facts['cores']} cores; {versions}; commit "
        f"{(facts['commit'] or 'unknown')[:12]}."
    )
    lines += ["", *textwrap.wrap(about_figures, 118, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(lines)


def _plain(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if entry["value"] is None:
        text = "no flights" if entry["kind"] == "share" else "no survivor"
    else:
        text = number(entry["value"], entry)
    if entry["low"] is not None:
        text += f" ({number(entry['low'], entry, False)} to {number(entry['high'], entry, False)})"
    return f"{text} **miss**" if entry["met"] is False else text


def report_command(path: Path, as_markdown: bool = False, console: Console | None = None) -> Path | None:
    """Write `report.html` into the folder and print its summary; or print the evaluation there as a Markdown table."""
    console = console or Console()
    if as_markdown:
        content = read_evaluation(path if path.suffix == ".json" else path / "eval.json")
        print(markdown(content))
        return None
    if (path / "config.json").exists() and read_config(path)["kind"] == KIND:
        return tracking_report(path, console)
    material = gather(path)
    if material.trackings:
        alone = not material.runs and not material.evaluation
        name = "report.html" if alone else "report_tracking.html"  # beside that of the quadrotors
        tracking = runs_report(path, material.trackings, path / name, console)
        if alone:
            return tracking
    quads = sample("wide", FLOWN, FLOWN_SEED)
    policies = {name: load_policy(file) for name, file in material.policies.items()}
    tracks = {name: {c.name: fly(policy, quads, c) for c in COURSES} for name, policy in policies.items()}
    sections = (
        teachers_section(material.runs.get("quad-teachers")),
        student_section(material.runs.get("quad-student")),
        flights_section(quads, tracks, {name: load_policy(file) for name, file in material.compiled.items()}),
        adaptation_section(material.evaluation.get("probes", {}), quads, tracks),
        evaluation_section(material.evaluation),
        Section("Where these figures come from", facts_table(_facts(material))),
    )
    output = path / "report.html"
    text = document(path.resolve().name, sections, "quadrotor report", LEAD)
    write_atomically(output, lambda file: file.write(text.encode()))
    summary = Table("simulated", "result", "", title=f"Report of {path}")
    for headline in (h for section in sections for h in section.headlines):
        summary.add_row(headline.what, headline.value, headline.note)
    console.print(summary)
    console.print(output, soft_wrap=True)
    return output


def _facts(material: Material) -> dict[str, dict[str, Any]]:
    """What `sim.run.facts` said in each part."""
    runs = sorted(material.runs.items(), reverse=True)  # teachers come before the student
    parts = {kind.removeprefix("quad-"): json.loads((run / "facts.json").read_text()) for kind, run in runs}
    if material.evaluation:
        parts["evaluation"] = material.evaluation["facts"]
    return parts
