"""The report of a run, or of a folder of runs: one HTML page that needs nothing from outside, and a terminal table.

    sim report runs/demo                   writes runs/demo/report.html
    sim report runs/eval.json --markdown   prints the evaluation as a Markdown table

The page is made of what the folder holds: runs of teachers and students, `eval.json`, and the policies that it names,
which fly here once more so that their flights can be drawn. What is missing is said, not guessed. Plots are SVG in the
page; their ink is the page's, so they follow light and dark, and each is narrow enough to be read on a phone.
"""

from __future__ import annotations

import html
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator
from rich.console import Console
from rich.table import Table

from controllers.policy import load_policy
from sim.backends.quadrotor import TIME_STEP
from sim.evaluate import Draw, Flyer, at_rest, number, turned
from sim.flight import Figure, Flight
from sim.robots.quadrotors import Quadrotors, sample
from sim.run import RunError, read_config, write_atomically

FLOWN, FLOWN_SEED = 256, 20_260_801  # quadrotors that every policy of the report flies, of the widest distribution
BEFORE_EPISODES = 32  # of each teacher, before and after its training
LABELS = "ABCD"  # the quadrotors whose flights are drawn
GREY, COLOURS = "#8a8f98", ("#3a83d6", "#d9822b", "#2a9d6f", "#b05fd0", "#c94f5d")
INK, LINE = "#0a0b0c", "#0c0b0a"  # stand for the page's own colours in what matplotlib draws

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "realign",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Headline:
    """One line of the summary."""

    what: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    body: str
    headlines: tuple[Headline, ...] = ()


# ---------------------------------------------------------------------------------------------------------------------
# What the folder holds


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


def gather(folder: Path) -> Material:
    """What `folder`, a run or a folder of runs, holds. Raises RunError where that is nothing."""
    runs: dict[str, Path] = {}
    for candidate in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else ():
        if (candidate / "config.json").exists():
            runs.setdefault(read_config(candidate)["kind"], candidate)
    evaluation = read_evaluation(folder / "eval.json") if (folder / "eval.json").exists() else {}
    if not runs and not evaluation:
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
    return Material(folder, runs, evaluation, policies, compiled)


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


# ---------------------------------------------------------------------------------------------------------------------
# Plots and pieces of the page


def plot(title: str, draw: Callable[[Axes], object], x: str, y: str, height: float = 2.7) -> str:
    """One plot as SVG text that belongs into the page."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=(4.2, height), layout="constrained")
        axes = canvas.add_subplot()
        draw(axes)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[a-zA-Z_\d.]*"', r"\1", svg)  # the same in every plot, and never referred to
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt"|width="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(INK, "currentColor").replace(LINE, "var(--line)")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def _grid(*plots: str) -> str:
    columns = "plots" if len(plots) % 3 == 0 else "plots two"
    return f'<div class="{columns}">{"".join(f"<figure>{p}</figure>" for p in plots)}</div>'


def _logarithmic(axes: Axes) -> None:
    """A logarithmic y axis whose labels are plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _p(text: str) -> str:
    return f"<p>{text}</p>"


def _missing(text: str) -> str:
    return f'<p class="missing">{text}</p>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], name: str = "") -> str:
    """A table of HTML cells; the first column stays in view when a narrow screen scrolls."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{name}">{content}</table></div>'


def _share(value: float) -> str:
    return f"{100 * value:.2f} %" if 0 < value < 0.1 else f"{100 * value:.3g} %"


def _span(core_seconds: float) -> str:
    return f"{core_seconds:.0f} core-seconds" if core_seconds < 3600 else f"{core_seconds / 3600:.2f} core-hours"


# ---------------------------------------------------------------------------------------------------------------------
# Teachers


def teachers_section(run: Path | None) -> Section:
    title = "Teachers: one for each quadrotor"
    if run is None:
        return Section(
            title, _missing("There is no run of teachers here: <code>sim train quad-teachers</code> makes one.")
        )
    config, lines = read_config(run)["config"], [line for line in _lines(run) if "return" in line]
    text = _p(
        f"{config['count']} quadrotors of the {config['preset']} distribution, seed {config['seed']}, each with a "
        f"network of its own. Every network begins as its quadrotor's linear-quadratic regulator (LQR) and is trained "
        f"by the gradient of the return through the simulator. An episode is 5 s; it ends early, terminated, beyond 20 "
        f"arms, 2 m/s or 35 rad/s. Starts are tilted by up to 1 rad."
    )
    if not (run / "teachers.npz").exists():
        text += _missing(f"Their training is not finished: <code>sim resume {html.escape(str(run))}</code> goes on.")
        return Section(title, text + (_grid(_teacher_curve(lines, None)) if lines else ""))
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
    text += _grid(
        _teacher_curve(lines, 100 * lost[0]),
        plot("Mean return of each teacher", distribution, "return of an episode (simulated)", "teachers"),
        plot("Terminated, by agility", by_agility, "torque to inertia [rad/s²]", "% of episodes (simulated)"),
    )
    rows = [
        ("episodes terminated", _share(lost[0]), _share(judged["terminated"]), _share(published["terminated"])),
        ("mean return", f"{returned[0].mean():.0f}", f"{judged['return']:.0f}", f"{published['return']:.0f}"),
        ("cost", "-", _span(summary["core_seconds"]), f"about {scaled:.3g} core-hours"),
    ]
    text += _table(("simulated, starts up to 1 rad", "LQR, before", "trained here", "published (RAPTOR)"), rows)
    text += _p(
        "The published teachers were trained by SAC on the published distribution. A short training like that of the "
        "demonstration, on a wider distribution, is not expected to reach their figures; the full one is the default "
        "of <code>sim train quad-teachers</code>."
    )
    headline = Headline(
        f"{summary['teachers']} teachers: episodes terminated",
        f"{_share(lost[0])} → {_share(judged['terminated'])}",
        f"LQR, then trained in {_span(summary['core_seconds'])}; published: about {scaled:.3g} core-hours",
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
            _logarithmic(axes)

    return plot("Learning: episodes terminated", curve, "core-seconds", "% of episodes (simulated)")


def _before_and_after(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judgements (teachers, episodes, 4) of the teachers as they began and as they are, and torque-to-inertia."""
    from sim.train.teachers import JUDGED_STARTS, Teachers, load_teachers

    trained = load_teachers(run)
    episodes, seed = min(BEFORE_EPISODES, trained.config.judged), [trained.config.seed, 3]
    both = (Teachers(trained.quads, trained.config), trained)
    before, after = (teachers.judge(JUDGED_STARTS["1 rad"], episodes, seed).astype(float) for teachers in both)
    return before, after, trained.quads.torque_to_inertia


# ---------------------------------------------------------------------------------------------------------------------
# Student


def student_section(run: Path | None) -> Section:
    title = "Student: one small recurrent policy for all of them"
    if run is None:
        return Section(
            title, _missing("There is no run of a student here: <code>sim train quad-student</code> makes one.")
        )
    config = read_config(run)["config"]
    lines = [line for line in _lines(run) if "phase" in line and "core_seconds" in line]
    text = _p(
        "In imitation the student flies, and the teacher of each quadrotor says what it would have done. In tuning it "
        "flies fresh quadrotors without teachers and follows the gradient of its own flight's cost. It is examined on "
        "512 quadrotors of the published distribution that no training uses: 5 s from starts tilted by up to 1 rad."
    )
    if not (run / "policy.onnx").exists():
        text += _missing(f"Its training is not finished: <code>sim resume {html.escape(str(run))}</code> goes on.")
    if not lines:
        return Section(title, text + _missing("Nothing has been measured yet."))
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
        _logarithmic(axes)

    def loss(axes: Axes) -> None:
        for phase, key, label in (
            ("imitation", "imitation", "imitation: distance from the teachers"),
            ("tuning", "cost", "tuning: cost of the flights"),
        ):
            points = [(x["core_seconds"], x[key]) for x in lines if x["phase"] == phase and key in x]
            axes.plot(*zip(*points, strict=True), color=colours[phase], label=label) if points else None
        _logarithmic(axes)
        axes.legend(loc="best")

    text += _grid(
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
            _share(line["survived"]),
            *(f"{100 * line[key]:.2f} cm" if key in line else "no survivor" for key in ("hover", "hover_force")),
        )
        for name, line in [("first examination", lines[0]), *ends]
    ]
    hovers = ("hover error, no force, median", "with constant force, mean")
    text += _table(("simulated", "updates", "core-seconds", "survive 5 s", *hovers), rows)
    last = lines[-1]
    headline = Headline(
        "student: survives 5 s on unseen quadrotors",
        f"{_share(lines[0]['survived'])} → {_share(last['survived'])}",
        f"in {_span(last['core_seconds'])}; {config['hidden']} memory units",
    )
    return Section(title, text, (headline,))


# ---------------------------------------------------------------------------------------------------------------------
# Flights


@dataclass(frozen=True)
class Course:
    """One flight that every policy makes with every quadrotor."""

    name: str
    seconds: float
    state: Draw | None = None
    """First states; RAPTOR's starts where absent."""
    figure: Figure | None = None


EIGHT = Course("figure eight", 3.0 + 2 * 5.5, at_rest, Figure(5.5))
RECOVERY = Course("upside down, at rest", 6.0, partial(turned, tilt=180))
STARTS = Course("any start up to 1 rad and 1 m/s", 5.0)
COURSES = (EIGHT, RECOVERY, STARTS)


@dataclass(frozen=True)
class Track:
    """What one policy did on one course."""

    position: np.ndarray
    """(steps + 1, n, 3) [m]."""
    reference: np.ndarray
    """(steps + 1, n, 3) [m]."""
    observation: np.ndarray
    """(steps, n, inputs)."""
    action: np.ndarray
    """(steps, n, 4)."""
    hidden: np.ndarray
    """(steps, n, units)."""

    @property
    def distance(self) -> np.ndarray:
        return np.linalg.norm(self.position - self.reference, axis=2)


Tracks = dict[str, dict[str, Track]]
"""By policy and course."""


def fly(policy: Flyer, quads: Quadrotors, course: Course) -> Track:
    """The same starts, disturbances and noise for every policy."""
    rng = np.random.default_rng(FLOWN_SEED)
    flight = Flight(quads, seed=FLOWN_SEED, acceleration=policy.spec.observation_size == 25)
    observation = flight.reset(course.state(quads, rng) if course.state else None, figure=course.figure)
    h = policy.reset(len(quads))
    positions, references, observations, actions, hidden = [flight.state[:, :3]], [flight.reference[:, :3]], [], [], []
    for _ in range(round(course.seconds / TIME_STEP)):
        action, h = policy.step(observation, h)
        observations.append(observation)
        observation = flight.step(action)
        actions.append(action)
        hidden.append(h)
        positions.append(flight.state[:, :3])
        references.append(flight.reference[:, :3])
    return Track(*map(np.array, (positions, references, observations, actions, hidden)))


def chosen(quads: Quadrotors) -> np.ndarray:
    """The quadrotors whose flights are drawn, each only once: see `CHOICE`."""
    picks: list[int] = []
    for values, quantile in (
        (quads.mass, 0.0),
        (quads.mass, 1.0),
        (quads.torque_to_inertia, 0.1),
        (quads.thrust_to_weight, 0.1),
    ):
        near = np.argsort(np.abs(values - np.quantile(values, quantile)))
        picks.append(next(int(i) for i in near if i not in picks))
    return np.array(picks)


CHOICE = (
    "the lightest, the heaviest, one that turns so sluggishly (torque to inertia) that a tenth are below it, and one "
    "that lifts so little (thrust to weight) that a tenth are below it"
)


def flights_section(material: Material, quads: Quadrotors, tracks: Tracks, compiled: Tracks) -> Section:
    """The flights of policies and of their compiled twins."""
    title = "Flights of quadrotors that no policy has seen"
    if not tracks:
        return Section(title, _missing("There is no finished policy here to fly."))
    picks = chosen(quads)
    text = _p(
        f"Simulated: {len(quads)} fresh quadrotors of the widest distribution (seed {FLOWN_SEED}) with everything "
        f"that it holds: other thrust curves, weak motors, a shifted centre of mass, late sensors and motors, noise, "
        f"constant forces, gusts. Every policy meets the same starts and disturbances, and nothing ends a flight "
        f"early. Four are drawn: {CHOICE}."
    )
    text += _table(
        ("quadrotor", "mass", "arm", "thrust to weight", "torque to inertia", "motor lag up, down", "also"),
        [_describe(quads[[i]], label, colour) for i, label, colour in zip(picks, LABELS, COLOURS, strict=False)],
        "quads",
    )
    text += _grid(*(_band(course, {name: by[course.name] for name, by in tracks.items()}) for course in COURSES))
    text += _p(
        "Lines are medians over all of them, bands hold 10 to 90 %. At the end of the flight, within 0.3 m and 1 m:"
    )
    ends = {name: [by[course.name].distance[-1] for course in COURSES] for name, by in tracks.items()}
    text += _table(
        ("simulated", *(course.name for course in COURSES)),
        [
            (html.escape(name), *(f"{_share((d < 0.3).mean())}, {_share((d < 1).mean())}" for d in distances))
            for name, distances in ends.items()
        ],
    )
    for name, by_course in tracks.items():
        text += f"<h3>{html.escape(name)}</h3>"
        if name in compiled:
            text += _p("Crosses: the same policy as C code, compiled on this machine, on its own flight.")
        text += _grid(*_drawn(by_course, compiled.get(name), picks))
    if not compiled:
        hint = "<code>firmware-export c --shared</code> makes one"
        return Section(title, text + _missing(f"No compiled policy was evaluated here: {hint}."))
    largest, plots = [], []
    for name, by_course in compiled.items():
        replayed = replay(load_policy(material.compiled[name]), tracks[name][EIGHT.name])
        draw = partial(_draw_difference, replayed, _apart(tracks[name][EIGHT.name], by_course[EIGHT.name]))
        plots.append(plot(f"{name}: C against ONNX", draw, "s", "difference of actions (simulated)"))
        largest.append(f"{replayed.max():.1e}")
    text += f"<h3>Compiled C code against ONNX</h3>{_grid(*plots)}"
    text += _p(
        "Actions lie in -1 to 1. On the same observations, memory carried along, the two differ by rounding. On their "
        "own feedback they stay together wherever the flight is stable; a flight that tumbles or trembles magnifies "
        "any rounding."
    )
    note = f"{', '.join(compiled)}: largest difference of any action in {len(quads)} flights of {EIGHT.seconds:g} s"
    return Section(title, text, (Headline("C code against ONNX", ", ".join(largest), note),))


def replay(policy: Flyer, track: Track) -> np.ndarray:
    """Largest difference from the track's actions at each step, on the track's observations, (steps,)."""
    h, result = policy.reset(track.observation.shape[1]), []
    for observation, action in zip(track.observation, track.action, strict=True):
        answer, h = policy.step(observation, h)
        result.append(np.abs(answer - action).max())
    return np.array(result)


def _apart(one: Track, other: Track) -> np.ndarray:
    """Median and 95 % quantile over the quadrotors of the difference of two flights' actions, (2, steps)."""
    return np.quantile(np.abs(one.action - other.action).max(axis=2), (0.5, 0.95), axis=1)


def _draw_difference(replayed: np.ndarray, apart: np.ndarray, axes: Axes) -> None:
    labels = ("same observations, largest", "own feedback, median", "own feedback, 95 %")
    for values, label, colour in zip((replayed, *apart), labels, COLOURS, strict=False):
        seconds = np.arange(len(values)) * TIME_STEP
        axes.plot(seconds[::4], np.maximum(values, 1e-9)[::4], color=colour, linewidth=1, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-9, 1e4)
    axes.set_yticks([1e-8, 1e-6, 1e-4, 1e-2, 1])
    axes.minorticks_off()
    axes.legend(loc="upper left")


def _describe(quad: Quadrotors, label: str, colour: str) -> tuple[str, ...]:
    """One row about one quadrotor."""
    also = []
    for name, value in (("motors", quad.action_delay), ("gyro", quad.gyro_delay), ("velocity", quad.velocity_delay)):
        if value[0] > 5e-4:
            also.append(f"{name} late by {1e3 * value[0]:.0f} ms")
    if quad.motor_strength.min() < 0.95:
        also.append(f"a motor at {100 * quad.motor_strength.min():.0f} %")
    if np.abs(quad.center_of_mass).max() > 0:
        offset = np.linalg.norm(quad.center_of_mass[0]) / quad.arm[0]
        also.append(f"centre of mass off by {100 * offset:.0f} % of the arm")
    if quad.force_std[0] > 0:
        also.append("constant force")
    if quad.gust_std[0] > 0:
        also.append("gusts")
    mass = f"{1e3 * quad.mass[0]:.0f} g" if quad.mass[0] < 1 else f"{quad.mass[0]:.2f} kg"
    return (
        f'<b style="color:{colour}">{label}</b>',
        mass,
        f"{100 * quad.arm[0]:.1f} cm",
        f"{quad.thrust_to_weight[0]:.2f}",
        f"{quad.torque_to_inertia[0]:.0f} rad/s²",
        f"{1e3 * quad.tau_rise[0]:.0f}, {1e3 * quad.tau_fall[0]:.0f} ms",
        ", ".join(also) or "-",
    )


def _band(course: Course, tracks: dict[str, Track]) -> str:
    def draw(axes: Axes) -> None:
        for (name, track), colour in zip(tracks.items(), COLOURS, strict=False):
            low, middle, high = np.quantile(np.maximum(track.distance, 1e-3), (0.1, 0.5, 0.9), axis=1)
            seconds = np.arange(len(middle)) * TIME_STEP
            axes.fill_between(seconds[::4], low[::4], high[::4], color=colour, alpha=0.2, linewidth=0)
            axes.plot(seconds[::2], middle[::2], color=colour, label=name)
        _logarithmic(axes)
        axes.set_ylim(bottom=3e-3, top=min(30.0, axes.get_ylim()[1]))
        axes.legend(loc="best")

    return plot(f"Error: {course.name}", draw, "s", "distance [m] (simulated)")


def _drawn(tracks: dict[str, Track], compiled: dict[str, Track] | None, picks: np.ndarray) -> list[str]:
    """Figure eight from above and over time, and the recovery over time, of the chosen quadrotors."""

    def put(axes: Axes, course: Course, pick: Callable[[np.ndarray], Sequence[np.ndarray]]) -> None:
        for i, label, colour in zip(picks, LABELS, COLOURS, strict=False):
            axes.plot(*pick(tracks[course.name].position[::2, i]), color=colour, label=label, linewidth=1.2)
            if compiled:
                x, y = pick(compiled[course.name].position[::2, i])
                axes.plot(x[12::25], y[12::25], color=INK, linestyle="", marker="x", markersize=3, markeredgewidth=0.8)
        axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.985), ncols=4, handlelength=0.8, columnspacing=0.8)

    def above(axes: Axes) -> None:
        reference = tracks[EIGHT.name].reference[:, picks[0]]
        axes.plot(reference[::2, 0], reference[::2, 1], color=GREY, linestyle="--", linewidth=1, zorder=1)
        put(axes, EIGHT, lambda path: (path[:, 0], path[:, 1]))
        axes.set_xlim(-1.6, 1.6)
        axes.set_ylim(-1.1, 1.1)
        axes.set_aspect("equal")

    def height(course: Course, limits: tuple[float, float], axes: Axes) -> None:
        put(axes, course, lambda path: (np.arange(len(path)) * 2 * TIME_STEP, path[:, 2]))
        axes.axhline(0, color=GREY, linestyle="--", linewidth=1, zorder=1)
        axes.set_ylim(*limits)

    falls = [tracks[RECOVERY.name].position[:, i, 2].min() for i in picks]
    lowest = max(-8.0, min(-0.5, min(falls) * 1.1))
    eight, recovery = partial(height, EIGHT, (-0.6, 0.6)), partial(height, RECOVERY, (lowest, -0.25 * lowest))
    return [
        plot("Eight from above", above, "x [m]", "y [m] (simulated)", 3.0),
        plot("Eight: height", eight, "s", "z [m] (simulated)", 3.0),
        plot("Upside down: height", recovery, "s", "z [m] (simulated)", 3.0),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Adaptation


def adaptation_section(material: Material, quads: Quadrotors, tracks: Tracks) -> Section:
    title = "Adaptation: what the hidden state knows"
    text = _p(
        "Nobody tells the policy what it flies; its memory finds out. A linear readout of the hidden state, fitted on "
        "half of the flights and judged on the other half, tells properties of the quadrotor: R² of 1 is perfect, 0 "
        "is no better than the mean."
    )
    knows = {name: known for name, known in material.evaluation.get("probes", {}).items() if not name.endswith(".so")}
    plots = [
        plot(f"{name}: R² of the readouts", partial(_draw_probes, known), "s after the start", "R² (simulated)", 3.0)
        for name, known in knows.items()
    ]
    text += _grid(*plots) if plots else _missing("There is no evaluation here, so there are no readouts.")
    plots = []
    for name, by_course in tracks.items():
        track = by_course[STARTS.name]
        stays = track.distance[-1] < 1.0
        if stays.sum() < 8:
            text += _missing(f"{html.escape(name)}: too few flights stay within 1 m to look into their memory.")
            continue
        hidden = track.hidden[:, stays].astype(float)
        settled = hidden[-100:].mean(axis=0)
        centre = settled.mean(axis=0)
        directions = np.linalg.svd(settled - centre, full_matrices=False)[2][:2]
        components, lift = (hidden - centre) @ directions.T, quads.thrust_to_weight[stays]
        over_time = partial(_draw_memory_over_time, components[..., 0], lift)
        plots.append(plot(f"{name}: memory over time", over_time, "s", "first component (simulated)", 3.0))
        plane = partial(_draw_memory, components[-100:].mean(axis=0), lift)
        plots.append(plot(f"{name}: memory, last second", plane, "first component", "second (simulated)", 3.0))
    if plots:
        text += _p(
            "Below are the two directions in which the hidden states of different quadrotors differ most (principal "
            "components of the last of 5 s), coloured by thrust to weight. All flights begin with the same memory. "
            "Over time: a line for each fifth of the quadrotors by thrust to weight, median and middle half."
        )
        text += _grid(*plots)
    return Section(title, text)


def _draw_probes(known: dict[str, dict[str, float | None]], axes: Axes) -> None:
    for (quantity, values), colour in zip(known.items(), COLOURS, strict=False):
        points = [(float(time.split()[0]), value) for time, value in values.items() if value is not None]
        if points:
            seconds, r2 = zip(*points, strict=True)
            axes.plot(seconds, np.maximum(r2, -0.1), color=colour, marker="o", markersize=3, label=quantity)
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_ylim(-0.12, 1.5)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    if axes.lines:
        axes.legend(loc="upper left", ncols=2, columnspacing=1)


def _coloured(axes: Axes, lift: np.ndarray) -> np.ndarray:
    """A colour for each thrust-to-weight, and the scale beside the plot."""
    mapped = ScalarMappable(Normalize(*np.quantile(lift, (0.02, 0.98))), colormaps["viridis"])
    bar = axes.figure.colorbar(mapped, ax=axes, pad=0.02, label="thrust to weight")
    bar.outline.set(visible=False)  # pyright: ignore[reportCallIssue] (the stub takes it for a method)
    return mapped.to_rgba(lift)


def _draw_memory_over_time(component: np.ndarray, lift: np.ndarray, axes: Axes) -> None:
    """component: (steps, n). One line and band for each fifth of the quadrotors by thrust-to-weight."""
    colours = _coloured(axes, lift)
    seconds = (np.arange(len(component)) + 1) * TIME_STEP
    for part in np.array_split(np.argsort(lift), 5):
        low, middle, high = np.quantile(component[:, part], (0.25, 0.5, 0.75), axis=1)
        colour = colours[part[len(part) // 2]]
        axes.fill_between(seconds[::4], low[::4], high[::4], color=colour, alpha=0.2, linewidth=0)
        axes.plot(seconds[::2], middle[::2], color=colour)


def _draw_memory(components: np.ndarray, lift: np.ndarray, axes: Axes) -> None:
    """components: (n, 2)."""
    axes.scatter(*components.T, c=_coloured(axes, lift), s=9, linewidths=0)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation


def evaluation_section(content: dict[str, Any]) -> Section:
    title = "Evaluation"
    if not content:
        hint = "<code>sim eval quad POLICY -o FOLDER</code> makes one"
        return Section(title, _missing(f"There is no evaluation here: {hint}."))
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
    text = _p(
        f"Simulated: {content['count']} fresh quadrotors of the published distribution in each case, seed "
        f"{content['seed']}; small figures are 95 % confidence intervals. Shares must reach their target, distances "
        f"must not exceed it. Published: the published policy (foundation-policy 1.0.2), measured once in its own "
        f"simulator (l2f 2.0.18)."
    )
    text += _table(("case", "target", "published, in l2f", *names), rows, "results")
    for (name, where), count in missed.items():
        total = sum(1 for by in content["results"][name][where].values() for m in by.values() if m["met"] is not None)
        place = "" if where == "realign" else f" in {where}"
        text += _p(f"<b>{html.escape(name)}</b>{place} misses {count} of {total} targets.")
    text += "".join(_p(sentence) for sentence in _compiled_sentences(content))
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
        if entry["target"] is None:
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
    lines += [
        "",
        f"All figures are simulated: {content['count']} quadrotors in each case, seed {content['seed']}, 95 % "
        f"confidence intervals in brackets, **miss** where the target is not met. Published: {origin}. Policy: "
        f"`{Path(about['file']).name}`, {about['parameter_count']} parameters, sha256 {about['sha256'][:12]}. Measured "
        f"by `{_command(facts)}` on {facts['cpu']}, {facts['cores']} cores; {versions}; commit "
        f"{(facts['commit'] or 'unknown')[:12]}.",
    ]
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


# ---------------------------------------------------------------------------------------------------------------------
# The page


def report_command(path: Path, as_markdown: bool = False, console: Console | None = None) -> Path | None:
    """Write `report.html` into the folder and print its summary; or print the evaluation there as a Markdown table."""
    console = console or Console()
    if as_markdown:
        content = read_evaluation(path if path.suffix == ".json" else path / "eval.json")
        print(markdown(content))
        return None
    material = gather(path)
    quads = sample("wide", FLOWN, FLOWN_SEED)
    tracks = {n: {c.name: fly(load_policy(file), quads, c) for c in COURSES} for n, file in material.policies.items()}
    drawn = (EIGHT, RECOVERY)
    compiled = {n: {c.name: fly(load_policy(file), quads, c) for c in drawn} for n, file in material.compiled.items()}
    sections = (
        teachers_section(material.runs.get("quad-teachers")),
        student_section(material.runs.get("quad-student")),
        flights_section(material, quads, tracks, compiled),
        adaptation_section(material, quads, tracks),
        evaluation_section(material.evaluation),
    )
    output = path / "report.html"
    text = _page(material, sections)
    write_atomically(output, lambda file: file.write(text.encode()))
    table = Table("simulated", "result", "", title=f"Report of {path}")
    for headline in (h for section in sections for h in section.headlines):
        table.add_row(headline.what, headline.value, headline.note)
    console.print(table)
    console.print(output, soft_wrap=True)
    return output


def _command(facts: dict[str, Any]) -> str:
    return shlex.join(["sim", *facts["command"][1:]])


def _facts_table(material: Material) -> str:
    """Machine, versions and commands behind the figures; what differs between the parts is listed by part."""
    runs = sorted(material.runs.items(), reverse=True)  # teachers come before the student
    parts = {kind.removeprefix("quad-"): json.loads((run / "facts.json").read_text()) for kind, run in runs}
    if material.evaluation:
        parts["evaluation"] = material.evaluation["facts"]

    def values(render: Callable[[dict[str, Any]], str]) -> str:
        each = {part: render(facts) for part, facts in parts.items()}
        if len(set(each.values())) == 1:
            return html.escape(next(iter(each.values())))
        return "<br>".join(f"{part}: {html.escape(value)}" for part, value in each.items())

    packages = ("python", "numpy", "numba", "onnx", "onnxruntime")

    def commit(facts: dict[str, Any]) -> str:
        return f"{facts['commit'][:12]}{' with changes' if facts['dirty'] else ''}" if facts["commit"] else "unknown"

    commands = "<br>".join(f"<code>{html.escape(_command(facts))}</code>" for facts in parts.values())
    rows = (
        ("machine", values(lambda f: f"{f['cpu']}, {f['cores']} cores, {f['machine']}")),
        ("versions", values(lambda f: ", ".join(f"{k} {f[k]}" for k in packages))),
        ("commit", values(commit)),
        ("seed", values(lambda f: str(f["seed"]))),
        ("begun", values(lambda f: f["started"])),
        ("commands", commands),
    )
    return f'<table class="facts">{"".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows)}</table>'


def _page(material: Material, sections: Sequence[Section]) -> str:
    tiles = "".join(
        f"<div><span>{html.escape(h.what)}</span><b>{html.escape(h.value)}</b>"
        f"<small>{html.escape(h.note)}</small></div>"
        for section in sections
        for h in section.headlines
    )
    body = "".join(f"<section><h2>{section.title}</h2>{section.body}</section>" for section in sections)
    name = html.escape(material.folder.resolve().name)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Realign: {name}</title><style>{CSS}</style></head>
<body><main><header><h1>Realign <span>quadrotor report: {name}</span></h1>
<p>Many teachers, each trained on its own simulated quadrotor, become one small policy that flies a quadrotor that it
has never seen, and that runs as plain C. <b>Every figure on this page is simulated</b>; nothing here was measured on
hardware.</p></header><div class="tiles">{tiles}</div>{body}
<section><h2>Where these figures come from</h2>{_facts_table(material)}</section></main></body></html>
"""


CSS = """
:root{--paper:#fff;--ink:#1d2127;--soft:#626a75;--line:#e3e6ea;--tile:#f6f7f8;--miss:#b3352c;--met:#2b7d4f}
@media(prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#dfe3e8;--soft:#98a1ac;--line:#2c3138;--tile:#1c2026;
--miss:#f0857b;--met:#6cc592}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;margin:.5rem 0}h1 span{font-weight:400;color:var(--soft)}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .25rem}
p{max-width:46rem;margin:.5rem 0}
.missing{border-left:3px solid var(--line);padding-left:.75rem;color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.75rem;margin:1.25rem 0}
.tiles div{background:var(--tile);border-radius:8px;padding:.75rem 1rem;display:flex;flex-direction:column}
.tiles span,.tiles small{color:var(--soft);font-size:.8rem;line-height:1.35}.tiles b{font-size:1.3rem;margin:.15rem 0}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem 1.5rem;margin:1rem 0}
.plots.two{grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr))}
figure{margin:0;max-width:28rem}svg{width:100%;height:auto;display:block}svg text{font-family:inherit!important}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.85rem;line-height:1.35}
th,td{text-align:left;vertical-align:top;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}thead th{color:var(--soft);vertical-align:bottom}
.scroll td:first-child,.scroll th:first-child{position:sticky;left:0;background:var(--paper)}
.results td{font-variant-numeric:tabular-nums}.results td:not(:first-child){white-space:nowrap}
small{color:var(--soft)}.miss{color:var(--miss);font-weight:600}.met{color:var(--met)}
.quads td:not(:last-child){white-space:nowrap}.quads td:last-child{min-width:12rem}
.facts th{color:var(--soft);font-weight:400;padding-right:1.5rem}.facts td{overflow-wrap:anywhere}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
"""
