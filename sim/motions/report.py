"""`sim motions report`: the figures of clips as a table, as JSON, and a contact sheet of each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from controllers.files import WriteError, write_atomically
from controllers.g1 import SOLE_RADIUS
from controllers.motion import Clip, ClipError, load_clip
from sim.motions.drawing import pictures
from sim.motions.importers import Failure, motion_files
from sim.motions.kinematics import soles, sweep_clip
from sim.motions.measure import Figures, as_json, feet_of, measure
from sim.run import write_json

PICTURES = 10  # postures on a contact sheet
SIZE = (300, 190)  # pixels of each, height and width

COLUMNS = (
    # heading, what it shows
    ("s", lambda f: f"{f.duration:.1f}"),
    ("float\nmm", lambda f: f"{1000 * f.float_median:z.1f}"),
    ("sinks\nmm", lambda f: f"{1000 * f.penetration:.1f}"),
    ("slip\ncm/s", lambda f: f"{100 * f.slip_largest:.1f}"),
    ("slides\n%", lambda f: f"{100 * f.sliding:.1f}"),
    ("air\ns", lambda f: f"{f.airborne:.2f}"),
    ("limit\nrad", lambda f: f"{f.limit_margin:z.2f}"),
    ("speed\nrad/s", lambda f: f"{f.speed_largest:.1f}"),
    ("torque\n%", lambda f: f"{100 * f.torque_ratio:.0f}"),
    ("ZMP\n%", lambda f: f"{100 * f.zmp_feasible:.0f}"),
)
LEGEND = (
    "float: lowest sole point in stance, median; sinks: deepest sole point; slip: largest of touching soles of "
    "standing feet; slides: share of the time at the floor in which any sole point moves; air: time without a foot on "
    "the floor; limit: what is left to the nearest joint limit; torque: largest share of a limit in 99 % of the "
    "frames; ZMP: frames in which the standing feet can give what the motion needs. More is in the JSON."
)


def report_command(
    paths: tuple[Path, ...], out: Path, picture: bool = True, console: Console | None = None
) -> list[Failure]:
    """Print the figures of these clips, write them and a contact sheet of each into the folder `out`."""
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    table = Table(Column("clip", no_wrap=True), *(Column(heading, justify="right") for heading, _ in COLUMNS))
    table.caption = LEGEND
    failures: list[Failure] = []
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figures] = {}
    for path in motion_files(paths, (".npz",)):
        try:
            if path.stem in figures:
                raise ClipError(f"{path}: another clip of this report has that name")
            clip = load_clip(path)
            found = measure(clip)
            write_json(out / f"{path.stem}.json", {"figures": as_json(found), "report": clip.report})
            if picture:
                contact_sheet(clip, found, out / f"{path.stem}.png")
            figures[path.stem] = found
            table.add_row(path.stem, *(show(found) for _, show in COLUMNS))
        except (ClipError, WriteError, OSError) as error:
            failures.append(Failure(path, str(error) if str(path) in str(error) else f"{path}: {error}"))
    if figures:
        console.print(table)
        write_json(out / "report.json", {name: as_json(found) for name, found in figures.items()})
    return failures


def contact_sheet(clip: Clip, figures: Figures, path: Path) -> None:
    """Postures at even times, and below them the height of both soles with the times in stance."""
    from matplotlib.figure import Figure

    frames = np.linspace(0, clip.frames - 1, PICTURES).round().astype(int)
    strip = list(pictures(clip, frames, *SIZE))
    kinematics, sweep = sweep_clip(clip)
    height = 1000 * (kinematics.points(sweep, soles())[..., 2] - SOLE_RADIUS)
    lower = height.reshape(-1, 2, 4).min(axis=2)
    feet, times = feet_of(clip), np.arange(clip.frames) / clip.fps
    figure = Figure(figsize=(PICTURES * 1.3, 4.2), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(SIZE[0] / SIZE[1] * 1.15, 1))
    above.imshow(np.concatenate(strip, axis=1))
    above.set_axis_off()
    for i, frame in enumerate(frames):
        above.text((i + 0.04) * SIZE[1], 16, f"{times[frame]:.2f} s", fontsize=7, color="white")
    name = path.stem
    above.set_title(
        f"{name}: float {1000 * figures.float_median:z.1f} mm, sinks {1000 * figures.penetration:.1f} mm, slip "
        f"{100 * figures.slip_largest:.1f} cm/s, torque {100 * figures.torque_ratio:.0f} %",
        fontsize=9,
    )
    top = max(40.0, float(lower.max()) * 1.05)
    bottom = min(-20.0, float(lower.min()) * 1.05)
    for foot, (side, colour) in enumerate((("left", "tab:blue"), ("right", "tab:red"))):
        below.plot(times, lower[:, foot], color=colour, lw=1, label=f"{side} sole, lowest point")
        bar = bottom + np.array([0.02, 0.07]) * (top - bottom) + foot * 0.06 * (top - bottom)
        below.fill_between(times, *bar, where=feet[:, foot].tolist(), color=colour, alpha=0.5, lw=0)
    below.axhline(0, color="black", lw=0.6)
    below.set(xlim=(times[0], times[-1]), ylim=(bottom, top), xlabel="time [s]; bars: in stance", ylabel="height [mm]")
    below.legend(fontsize=7, loc="upper right")
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
