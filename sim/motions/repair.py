"""`sim motions repair`: references that a robot can stand on.

Teleports and spikes go first (tidy). Then it is found when which foot stands (stance), and one least-squares problem
over the whole motion (solve) puts standing feet on the floor and keeps them there, all soles out of the floor, all
joints inside their ranges, and everything else as near to the reference as that allows, but for a smooth lift.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table

from controllers.files import WriteError
from controllers.g1 import SOLE_RADIUS
from controllers.motion import Clip, ClipError, load_clip, make_clip, save_clip
from sim.motions.importers import Failure, motion_files
from sim.motions.kinematics import Kinematics, kinematics_of, soles, sweep_clip
from sim.motions.measure import as_json, change_of_key_bodies, measure
from sim.motions.solve import Solution, Tolerances, Wanted, solve
from sim.motions.stance import find_stance, runs
from sim.motions.tidy import tidy
from sim.run import progress

Flags = NDArray[np.bool_]

CLEARANCE = 0.01  # [m] of swinging feet; a robot stumbles over what a reference merely grazes
CLEARING = 0.08  # [s] from a stance to there
PASSES = 5  # at most, to find which part of a sole touches
ROUGH = 10  # iterations of each
NEARLY = 0.008  # [m] a sole point of a standing foot that is lower touches
OUT_OF_REACH = 0.0015  # [m] left over the lowest point of its foot: this point cannot touch
LEGEND = (
    "float: lowest sole point in stance, median; sinks: deepest sole point; slip: largest of touching soles; moved: "
    "key bodies, mean, beyond the lift; lifted: range over the clip; cut: frames dropped; s: time that the repair took"
)
REPAIRED = "repair"  # the part of a clip's report that says so


@dataclass(frozen=True)
class Bounds:
    """What a repaired clip must keep; `broken` lists what it does not."""

    float_median: float = 0.005
    """Of the lowest sole point in stance from the floor [m]."""
    penetration: float = 0.005
    """[m]"""
    slip: float = 0.02
    """[m/s]"""
    sliding: float = 0.005
    """Share of the time near the floor in which a sole point moves, whatever foot is said to stand."""
    body_change: float = 0.025
    """Mean change of the key bodies beyond the vertical shift [m]."""


def repair(clip: Clip, tolerances: Tolerances = Tolerances()) -> Clip:  # noqa: B008 (frozen)
    """The motion with both feet on the floor. Its report holds the figures before and after.

    Raises ClipError where the clip is too short or no G1's."""
    kinematics = kinematics_of(clip.joint_names)
    tidied = tidy(clip.root_position, clip.root_quaternion, clip.joint_position, clip.fps)
    frames = len(tidied.position)
    if frames < 5:
        raise ClipError(f"the motion has {frames} frames after tidying: a repair needs 5 or more")
    own = clip.contacts[tidied.first : tidied.first + frames] if clip.contacts.any() else None
    stance = find_stance(kinematics, tidied.position, tidied.quaternion, tidied.joints, clip.fps, own)
    wanted = Wanted(
        fps=clip.fps,
        position=tidied.position,
        quaternion=tidied.quaternion,
        joints=tidied.joints,
        touching=stance.points,
        held=stance.points,
        lift=-stance.floor,
        clearance=clearance(stance.feet, clip.fps),
        weight=np.ones(frames),
    )
    # Which part of a sole touches was guessed from a posture that did not stand on the floor: the motion that does says
    # it better.
    for _ in range(PASSES):
        solution = solve(kinematics, wanted, tolerances, ROUGH)
        touches, hold = touch(kinematics, solution, stance.feet, wanted.touching)
        if (touches == wanted.touching).all() and (hold == wanted.held).all():
            break
        wanted = replace(wanted, touching=touches, held=hold, start=solution.arrays)
    solution = solve(kinematics, replace(wanted, start=solution.arrays), tolerances)
    reference = make_clip(clip.fps, clip.joint_names, tidied.position, tidied.quaternion, tidied.joints, stance.feet)
    result = make_clip(
        clip.fps,
        clip.joint_names,
        solution.position,
        solution.quaternion,
        solution.joints,
        stance.feet,
        clip.source,
        clip.licence,
    )
    each, whole = change_of_key_bodies(reference, result)
    facts: dict[str, Any] = {
        "teleports": tidied.teleports,
        "spikes": tidied.spikes,
        "frames_dropped": clip.frames - frames,
        "lift_mean": round(float(solution.lift.mean()), 5),
        "lift_range": [round(float(solution.lift.min()), 5), round(float(solution.lift.max()), 5)],
        "body_change": round(each, 5),
        "body_change_with_lift_constant": round(whole, 5),
        "flights": int(np.count_nonzero(np.diff(stance.flying.astype(int)) == 1)),
        "flying_stays_off_floor": bool(_off_floor(result, stance.flying)),
        "iterations": solution.iterations,
        "before": as_json(measure(clip)),
        "after": as_json(measure(result)),
    }
    report = {**clip.report, "contacts": "detected by repair", REPAIRED: facts}
    return replace(result, report=report)


def broken(report: dict[str, Any], bounds: Bounds = Bounds()) -> list[str]:
    """Sentences for what a repaired clip's report does not keep."""
    facts = report[REPAIRED]
    after = facts["after"]
    found = []
    if abs(after["float_median"]) > bounds.float_median:
        found.append(f"floats by {1000 * after['float_median']:.1f} mm in the median of stance")
    if after["penetration"] > bounds.penetration:
        found.append(f"penetrates the floor by {1000 * after['penetration']:.1f} mm")
    if after["slip_largest"] > bounds.slip:
        found.append(f"slips at up to {100 * after['slip_largest']:.1f} cm/s in stance")
    if after["sliding"] > bounds.sliding:
        found.append(f"slides in {100 * after['sliding']:.1f} % of the time that soles are at the floor")
    if after["limit_margin"] < 0:
        found.append(f"{after['limit_joint']} is {-after['limit_margin']:.1e} rad beyond its limit")
    if facts["body_change"] > bounds.body_change:
        found.append(f"moved key bodies by {1000 * facts['body_change']:.1f} mm beyond the vertical shift")
    if not facts["flying_stays_off_floor"]:
        found.append("touches the floor in a flight")
    return found


def clearance(feet: Flags, fps: float) -> NDArray[np.floating]:
    """(T, 8) height that the points of swinging feet keep over the floor [m], rising from stance to CLEARANCE."""
    frames = len(feet)
    result = np.zeros((frames, 8))
    times = np.arange(frames)
    for foot in range(2):
        standing = np.flatnonzero(feet[:, foot])
        if len(standing):
            after = np.searchsorted(standing, times).clip(0, len(standing) - 1)
            near = np.abs(standing[after] - times), np.abs(standing[np.maximum(after - 1, 0)] - times)
            away = np.minimum(*near) / fps
            rise = np.clip(away / CLEARING, 0, 1)
            result[:, 4 * foot : 4 * foot + 4] = (CLEARANCE * rise)[:, None]
    return result


def touch(kinematics: Kinematics, solution: Solution, feet: Flags, planned: Flags) -> tuple[Flags, Flags]:
    """(T, 8) points of standing feet that touch or all but touch; without those that were meant to and cannot, because
    an ankle is at its limit, unless none of the foot is lower. And those that must not slide: these, and all so near
    to the floor that they may as well touch."""
    sweep = kinematics.sweep(solution.position, solution.quaternion, solution.joints)
    height = kinematics.points(sweep, soles())[..., 2] - SOLE_RADIUS
    lowest = np.repeat(height.reshape(-1, 2, 4).min(axis=2), 4, axis=1)
    standing, near = np.repeat(feet, 4, axis=1), height < NEARLY
    touch = standing & np.where(planned, height < lowest + OUT_OF_REACH, near)
    return touch, touch | (standing & near)


def _off_floor(clip: Clip, flying: Flags) -> bool:
    """Whether the soles are over the floor in the middle of every flight."""
    kinematics, sweep = sweep_clip(clip)
    lowest = kinematics.points(sweep, soles())[..., 2].min(axis=1) - SOLE_RADIUS
    return all(lowest[first:last].max() > CLEARANCE for first, last in runs(flying))


def repair_command(
    paths: tuple[Path, ...], out: Path, bounds: Bounds = Bounds(), console: Console | None = None
) -> tuple[list[Failure], list[str]]:
    """Write a repaired clip for each of these into the folder `out`; what failed, and what is not kept."""
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    failures: list[Failure] = []
    misses: list[str] = []
    files = motion_files(paths, (".npz",))
    headings = ("float\nmm", "sinks\nmm", "slip\ncm/s", "moved\nmm", "lifted\ncm", "cut", "s")
    table = Table(Column("clip", no_wrap=True), *(Column(heading, justify="right") for heading in headings))
    table.caption = LEGEND
    out.mkdir(parents=True, exist_ok=True)
    with progress("repair", len(files), unit="clips") as tell:
        for number, path in enumerate(files, 1):
            began = time.monotonic()
            try:
                if (out / path.name).resolve() == path.resolve():
                    raise ClipError("would be written over itself: take another folder with -o")
                result = repair(load_clip(path))
                save_clip(out / path.name, result)
                facts = result.report[REPAIRED]
                before, after = facts["before"], facts["after"]
                table.add_row(
                    path.stem,
                    f"{1000 * before['float_median']:.0f} to {1000 * after['float_median']:z.1f}",
                    f"{1000 * before['penetration']:.0f} to {1000 * after['penetration']:.1f}",
                    f"{100 * before['slip_largest']:.0f} to {100 * after['slip_largest']:.1f}",
                    f"{1000 * facts['body_change']:.1f}",
                    " to ".join(f"{100 * value:.0f}" for value in facts["lift_range"]),
                    str(facts["frames_dropped"]),
                    f"{time.monotonic() - began:.1f}",
                )
                misses += [f"{path.stem} {sentence}" for sentence in broken(result.report, bounds)]
            except (ClipError, WriteError, OSError) as error:
                failures.append(Failure(path, str(error) if str(path) in str(error) else f"{path}: {error}"))
            tell(number, path.stem)
    if table.row_count:
        console.print(table)
    return failures, misses
