"""The part of a report that flies: all policies on the same unseen quadrotors, drawn, and their memory looked into."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from sim.backends.quadrotor import TIME_STEP
from sim.cases import Draw, at_rest, turned
from sim.evaluate import Flyer, Knowledge
from sim.flight import Figure, Flight
from sim.page import COLOURS, GREY, INK, Headline, Section, grid, logarithmic, missing, paragraph, percent, plot, table
from sim.robots.quadrotors import Quadrotors

FLOWN_SEED = 20_260_801
LABELS = "ABCD"  # the quadrotors whose flights are drawn


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


def flights_section(quads: Quadrotors, tracks: Tracks, twins: dict[str, Flyer]) -> Section:
    """What the policies did, and what their compiled twins do."""
    title = "Flights of quadrotors that no policy has seen"
    if not tracks:
        return Section(title, missing("There is no finished policy here to fly."))
    compiled = {name: {c.name: fly(twin, quads, c) for c in (EIGHT, RECOVERY)} for name, twin in twins.items()}
    picks = chosen(quads)
    text = paragraph(
        f"Simulated: {len(quads)} fresh quadrotors of the widest distribution (seed {FLOWN_SEED}) with everything "
        f"that it holds: other thrust curves, weak motors, a shifted centre of mass, late sensors and motors, noise, "
        f"constant forces, gusts. Every policy meets the same starts and disturbances, and nothing ends a flight "
        f"early. Four are drawn: {CHOICE}."
    )
    text += table(
        ("quadrotor", "mass", "arm", "thrust to weight", "torque to inertia", "motor lag up, down", "also"),
        [_describe(quads[[i]], label, colour) for i, label, colour in zip(picks, LABELS, COLOURS, strict=False)],
        "quads",
    )
    text += grid(*(_band(course, {name: by[course.name] for name, by in tracks.items()}) for course in COURSES))
    text += paragraph(
        "Lines are medians over all of them, bands hold 10 to 90 %. At the end of the flight, within 0.3 m and 1 m:"
    )
    ends = {name: [by[course.name].distance[-1] for course in COURSES] for name, by in tracks.items()}
    text += table(
        ("simulated", *(course.name for course in COURSES)),
        [
            (html.escape(name), *(f"{percent((d < 0.3).mean())}, {percent((d < 1).mean())}" for d in distances))
            for name, distances in ends.items()
        ],
    )
    for name, by_course in tracks.items():
        text += f"<h3>{html.escape(name)}</h3>"
        if name in compiled:
            text += paragraph("Crosses: the same policy as C code, compiled on this machine, on its own flight.")
        text += grid(*_drawn(by_course, compiled.get(name), picks))
    if not compiled:
        hint = "<code>firmware-export c --shared</code> makes one"
        return Section(title, text + missing(f"No compiled policy was evaluated here: {hint}."))
    usual, largest, plots = [], [], []
    for name, by_course in compiled.items():
        replayed = replay(twins[name], tracks[name][EIGHT.name])
        draw = partial(_draw_difference, replayed, _apart(tracks[name][EIGHT.name], by_course[EIGHT.name]))
        plots.append(plot(f"{name}: C against ONNX", draw, "s", "difference of actions (simulated)"))
        each = replayed.max(axis=0)
        usual.append(f"{np.median(each):.1e}")
        largest.append(f"{each.max():.1e}")
    text += f"<h3>Compiled C code against ONNX</h3>{grid(*plots)}"
    text += paragraph(
        "Actions lie in -1 to 1. On the same observations, each with its own memory, the two differ by rounding, which "
        "a memory between two decisions magnifies for a while. On their own feedback they stay together wherever the "
        "flight is stable; a flight that tumbles or trembles magnifies any rounding."
    )
    note = f"{', '.join(compiled)}: largest difference of an action in the median flight; in all: {', '.join(largest)}"
    return Section(title, text, (Headline("C code against ONNX", ", ".join(usual), note),))


def replay(policy: Flyer, track: Track) -> np.ndarray:
    """Difference from the track's actions on the track's observations, (steps, n)."""
    h, result = policy.reset(track.observation.shape[1]), []
    for observation, action in zip(track.observation, track.action, strict=True):
        answer, h = policy.step(observation, h)
        result.append(np.abs(answer - action).max(axis=1))
    return np.array(result)


def _apart(one: Track, other: Track) -> np.ndarray:
    """Median and 95 % quantile over the quadrotors of the difference of two flights' actions, (2, steps)."""
    return np.quantile(np.abs(one.action - other.action).max(axis=2), (0.5, 0.95), axis=1)


def _draw_difference(replayed: np.ndarray, apart: np.ndarray, axes: Axes) -> None:
    labels = ("same observations, median", "same observations, largest", "own feedback, median", "own feedback, 95 %")
    lines = (np.median(replayed, axis=1), replayed.max(axis=1), *apart)
    for values, label, colour in zip(lines, labels, COLOURS, strict=False):
        seconds = np.arange(len(values)) * TIME_STEP
        axes.plot(seconds[::4], np.maximum(values, 1e-9)[::4], color=colour, linewidth=1, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-9, 1e6)  # the legend stands above 1
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
        logarithmic(axes)
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


def adaptation_section(probes: dict[str, Knowledge], quads: Quadrotors, tracks: Tracks) -> Section:
    """The readouts of the evaluation, and the memory of the flights."""
    title = "Adaptation: what the hidden state knows"
    text = paragraph(
        "Nobody tells the policy what it flies; its memory finds out. A linear readout of the hidden state, fitted on "
        "half of the flights and judged on the other half, tells properties of the quadrotor: R² of 1 is perfect, 0 "
        "is no better than the mean."
    )
    plots = [
        plot(f"{name}: R² of the readouts", partial(_draw_probes, known), "s after the start", "R² (simulated)", 3.0)
        for name, known in probes.items()
    ]
    text += grid(*plots) if plots else missing("There is no evaluation here, so there are no readouts.")
    plots = []
    for name, by_course in tracks.items():
        track = by_course[STARTS.name]
        stays = track.distance[-1] < 1.0
        if stays.sum() < 8:
            text += missing(f"{html.escape(name)}: too few flights stay within 1 m to look into their memory.")
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
        text += paragraph(
            "Below are the two directions in which the hidden states of different quadrotors differ most (principal "
            "components of the last of 5 s), coloured by thrust to weight. All flights begin with the same memory. "
            "Over time: a line for each fifth of the quadrotors by thrust to weight, median and middle half."
        )
        text += grid(*plots)
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
