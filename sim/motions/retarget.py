"""`sim motions retarget`: motions of humans become motions of the G1.

1. The person is measured: how large, and where the human's joints sit about the robot's when both take the same
   posture (`measure_person`): scale and rest pose are unknowns of a small least-squares problem over some postures.
2. Every frame is solved for itself, all at once, from the default pose: no frame depends on a lucky one before it.
3. The whole trajectory is solved (solve): key points, accelerations, limits of angle and speed, self-collision; then,
   once it is seen which foot stands when, feet on the floor and still.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table
from scipy.ndimage import gaussian_filter1d

from controllers.files import WriteError
from controllers.g1 import KEY_POINTS, REVISIONS, SOLE_POINTS, Site, default_pose
from controllers.motion import Clip, ClipError, make_clip, save_clip
from controllers.rotation_vectors import continuous, from_matrix, from_vector
from controllers.rotations import multiply
from sim.motions.aims import NEAR, Apart, Keys, gaps, may_meet
from sim.motions.formats import FormatError
from sim.motions.human import SUFFIXES, Human, HumanError, read_human
from sim.motions.importers import Failure, licence_beside, motion_files
from sim.motions.kinematics import MODEL, Kinematics, kinematics_of, soles
from sim.motions.pickles import PickleError
from sim.motions.repair import clearance, touch
from sim.motions.solve import Solution, Tolerances, Wanted, solve
from sim.motions.stance import find_stance
from sim.run import progress

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]

ROBOT = REVISIONS[MODEL.replace("29", "23")]  # points of a human say nothing of the wrists
JOINT_NAMES = REVISIONS[MODEL].joint_names


def _pairs() -> tuple[tuple[str, Site, float], ...]:
    """Human joint, the robot's point that stands for it, and its tolerance [m]: ASAP's 14 pairs, and the toes."""
    origin = (0.0, 0.0, 0.0)
    hand = {site.name: site for site in KEY_POINTS}
    rows: list[tuple[str, Site, float]] = [
        ("pelvis", Site("pelvis", "pelvis", origin), 0.01),
        ("head", hand["head"], 0.01),
    ]
    for side in ("left", "right"):
        for part, body in (
            ("hip", "hip_pitch_link"),
            ("knee", "knee_link"),
            ("ankle", "ankle_roll_link"),
            ("shoulder", "shoulder_roll_link"),
            ("elbow", "elbow_link"),
        ):
            rows.append((f"{side}_{part}", Site(f"{side}_{part}", f"{side}_{body}", origin), 0.01))
        rows.append((f"{side}_hand", hand[f"{side}_hand"], 0.01))
        toe = (SOLE_POINTS[2][0], 0.0, SOLE_POINTS[2][2])
        rows.append((f"{side}_toe", Site(f"{side}_toe", f"{side}_ankle_roll_link", toe), 0.03))
    return tuple(rows)


PAIRS = _pairs()
JUDGED = tuple(name for name, _, _ in PAIRS if not name.endswith("toe"))
"""The points whose distance is the error of a retargeting."""
HAND = 0.3  # of the forearm: how far beyond the wrist a hand is, where a source has only wrists

LIMBS = (("hip", "knee", "ankle"), ("shoulder", "elbow", "hand"))
WITHOUT_TOE = 0.2  # [rad] the same for the yaw of a hip whose toes are unknown: a straight leg does not show it
SAMPLES = 40  # postures from which a person is measured
ROUNDS = 4  # of posture and person in turns
SCALE_TOLERANCE = 0.1  # of the scale from the one that the lengths of arms and legs say
REST_TOLERANCE = 0.006  # [m] of the rest pose's offsets
TOE = (0.1, 0.01, 0.1)  # forward, left, up: how long a foot is says nothing, where it points does
REST_TOLERANCES = {
    "pelvis": (0.02,) * 3,
    "left_toe": TOE,
    "right_toe": TOE,
}  # [m] of points whose place is a convention
POSTURE_TOLERANCE = 1.0  # [rad] of joints from the default pose
POSTURE_TOLERANCES = {
    "hip_yaw": 0.5,
    "ankle_roll": 0.3,
    "waist_pitch": 0.3,
    "waist_roll": 0.3,
}  # [rad] where points say little
FIRST_ITERATIONS = 10  # of the frames for themselves
BLOCK = 1000  # frames that are in memory at once, where frames do not depend on each other
LARGEST_TURN = 0.5  # [rad] of such an iteration
SMOOTH = 0.25  # [s] standard deviation of the path from which root accelerations are counted
TOLERANCES = Tolerances(
    root_acceleration=20.0,
    turn_acceleration=50.0,
    joint_acceleration=100.0,
    root_jerk=100.0,
    turn_jerk=300.0,
    joint_jerk=200.0,
)
BLUR = 0.05  # [s] standard deviation of the filter of what standing feet slide
NO_FLOOR = -1e6  # [m]
FREE_ITERATIONS = 6  # of the trajectory before it is asked which foot stands
PASSES = 3  # after that, to find which part of a sole touches
STANDING_ITERATIONS = 5  # of each
LEGEND = (
    "scale: robot per human length; points: mean distance of the key points from the scaled human's, after the lift; "
    "frames/s: per second of processor time"
)


@dataclass(frozen=True)
class Person:
    """What turns a human's points into the robot's."""

    scale: float
    """Robot length per human length."""
    rest: Array
    """(P, 3) the human's joints from the robot's points, scaled, in the frames of the robot's bodies [m]."""


@dataclass(frozen=True)
class Retargeted:
    """A retargeted motion and what it was aimed at."""

    clip: Clip
    person: Person
    shift: Array
    """(T, 3) by which the scaled human was moved so that feet stand on the floor, and still [m]."""


@functools.cache
def _kinematics() -> Kinematics:
    return kinematics_of(ROBOT.joint_names)


def retarget(human: Human, scale: float | None = None, source: str = "", licence: str = "") -> Retargeted:
    """The G1 that does what the human does. Of the person, the scale is measured where none is given."""
    kinematics = _kinematics()
    if human.frames < 5:
        raise HumanError(f"has {human.frames} frames: retargeting needs 5 or more")
    names, sites, points, weights = _points(human)
    person = measure_person(kinematics, sites, points, weights, scale)
    sites = tuple(
        replace(site, position=tuple(np.add(site.position, rest)))
        for site, rest in zip(sites, person.rest, strict=True)
    )
    targets = points * person.scale
    position, quaternion, joints = _in_blocks(lambda own: each_frame(kinematics, sites, own, weights), targets)
    quaternion = continuous(quaternion)
    posture_weight = _posture_weight(kinematics, sites)
    (nearest,) = _in_blocks(lambda *own: (_nearest(kinematics, _solids(), *own),), position, quaternion, joints)
    apart = _solids().chosen(nearest.min(axis=0) < NEAR)
    frames = human.frames
    none = np.zeros((frames, 8), dtype=bool)
    wanted = Wanted(
        fps=human.fps,
        position=gaussian_filter1d(position, SMOOTH * human.fps, axis=0, mode="nearest"),
        quaternion=_smooth_turns(quaternion, SMOOTH * human.fps),
        joints=np.zeros_like(joints),
        touching=none,
        held=none,
        lift=np.zeros(frames),
        clearance=np.full((frames, 8), NO_FLOOR),
        weight=np.zeros(frames),
        keys=Keys(sites, targets, weights, default_pose(ROBOT), posture_weight),
        apart=apart,
        start=(position, quaternion, joints, np.zeros(frames)),
    )
    free = solve(kinematics, wanted, TOLERANCES, FREE_ITERATIONS)
    stance = find_stance(kinematics, free.position, free.quaternion, free.joints, human.fps)
    lift = -stance.floor
    drift = _drift(kinematics, free, stance.feet, human.fps)
    position = free.position - drift
    position[:, 2] += lift
    standing = replace(
        wanted,
        position=wanted.position - drift + np.array([0, 0, lift.mean()]),
        keys=Keys(sites, targets - drift[:, None], weights, default_pose(ROBOT), posture_weight),
        touching=stance.points,
        held=stance.points,
        clearance=clearance(stance.feet, human.fps),
        start=(position, free.quaternion, free.joints, lift),
    )
    solution = solve(kinematics, standing, TOLERANCES, STANDING_ITERATIONS)
    for _ in range(PASSES - 1):
        touching, held = touch(kinematics, solution, stance.feet, standing.touching)
        standing = replace(standing, touching=touching, held=held, start=solution.arrays)
        solution = solve(kinematics, standing, TOLERANCES, STANDING_ITERATIONS)
    full = np.zeros((frames, len(JOINT_NAMES)))
    full[:, [JOINT_NAMES.index(name) for name in ROBOT.joint_names]] = solution.joints
    clip = make_clip(human.fps, JOINT_NAMES, solution.position, solution.quaternion, full, stance.feet, source, licence)
    shift = np.outer(solution.lift, (0, 0, 1)) - drift
    each = key_errors(clip, human, person.scale, shift=shift)
    (closest,) = _in_blocks(lambda *own: (_nearest(kinematics, apart, *own),), *solution.arrays[:3])
    facts: dict[str, Any] = {
        "format": human.format,
        "points": list(names),
        "scale": round(person.scale, 4),
        "rest": {name: [round(float(v), 4) for v in rest] for name, rest in zip(names, person.rest, strict=True)},
        "key_point_error": round(float(each.mean()), 5),
        "drift": round(float(np.linalg.norm(drift, axis=1).max()), 5),
        "lift_range": [round(float(solution.lift.min()), 5), round(float(solution.lift.max()), 5)],
        "deepest_self_collision": round(max(0.0, -float(closest.min(initial=np.inf))), 5),
        "last_step": round(solution.step, 5),
    }
    return Retargeted(replace(clip, report={"contacts": "detected by retarget", "retarget": facts}), person, shift)


def key_errors(clip: Clip, human: Human, scale: float, shift: Array | None = None) -> Array:
    """(T, P) distance of the robot's points of JUDGED from the scaled human's [m]; no rest pose is taken off.

    Args:
        clip: The robot.
        human: Whom it follows, with as many frames.
        scale: Robot length per human length.
        shift: (T, 3) by which the human is moved [m]; in each frame what fits best when absent, so that only postures
            and headings are judged.
    """
    kinematics = kinematics_of(clip.joint_names)
    names, sites, points, _ = _points(human)
    chosen = [i for i, name in enumerate(names) if name in JUDGED]
    sweep = kinematics.sweep(clip.root_position, clip.root_quaternion, clip.joint_position)
    error = kinematics.points(sweep, tuple(sites[i] for i in chosen)) - scale * points[:, chosen]
    error -= error.mean(axis=1, keepdims=True) if shift is None else shift[:, None]
    return np.linalg.norm(error, axis=2)


def _drift(kinematics: Kinematics, solution: Solution, feet: Flags, fps: float) -> Array:
    """(T, 3) how far the standing feet have slid by each frame [m]: cameras see a body better than its place."""
    sweep = kinematics.sweep(solution.position, solution.quaternion, solution.joints)
    middle = kinematics.points(sweep, soles()).reshape(len(feet), 2, 4, 3).mean(axis=2)
    held = (feet[1:] & feet[:-1])[..., None]  # (T - 1, 2, 1)
    moves = (np.diff(middle, axis=0) * held).sum(axis=1) / np.maximum(held.sum(axis=1), 1)
    moves = gaussian_filter1d(moves, BLUR * fps, axis=0, mode="nearest")
    moves[:, 2] = 0
    return np.concatenate([np.zeros((1, 3)), np.cumsum(moves, axis=0)])


def _points(human: Human) -> tuple[tuple[str, ...], tuple[Site, ...], Array, Array]:
    """Names, the robot's points, the human's (T, P, 3) [m], and weights (P,) of what this human has."""
    known = dict(human.points)
    for side in ("left", "right"):
        if f"{side}_hand" not in known and f"{side}_wrist" in known:
            wrist, elbow = known[f"{side}_wrist"], known[f"{side}_elbow"]
            known[f"{side}_hand"] = wrist + HAND * (wrist - elbow)
    rows = [row for row in PAIRS if row[0] in known]
    names = tuple(name for name, _, _ in rows)
    tolerances = np.array([tolerance for _, _, tolerance in rows])
    points = np.stack([known[name] for name in names], axis=1)
    return names, tuple(site for _, site, _ in rows), points, 1 / (tolerances**2 * len(rows))


@functools.cache
def _solids() -> Apart:
    return may_meet(ROBOT)


def _nearest(kinematics: Kinematics, apart: Apart, position: Array, quaternion: Array, joints: Array) -> Array:
    """(1, C) smallest gap of each pair over these postures [m]."""
    return gaps(kinematics, kinematics.sweep(position, quaternion, joints), apart).min(axis=0)[None]


def _posture_weight(kinematics: Kinematics, sites: tuple[Site, ...]) -> Array:
    """(J,) one over the tolerance squared of joints from the default pose [1/rad^2]."""
    toes = {site.name for site in sites if site.name.endswith("toe")}
    tolerance = np.array([POSTURE_TOLERANCES.get(joint.kind, POSTURE_TOLERANCE) for joint in kinematics.robot.joints])
    for i, joint in enumerate(kinematics.robot.joints):
        if joint.kind == "hip_yaw" and joint.name.replace("hip_yaw_joint", "toe") not in toes:
            tolerance[i] = WITHOUT_TOE
    return tolerance**-2.0 / len(tolerance)


def measure_person(
    kinematics: Kinematics, sites: tuple[Site, ...], points: Array, weights: Array, scale: float | None = None
) -> Person:
    """Scale and rest pose of a human, from its points (T, P, 3) [m] that the robot's `sites` stand for.

    Posture and person are solved in turns over some frames. Where the human's joints are from the robot's is known to
    REST_TOLERANCE beforehand, the scale by the lengths of arms and legs, or exactly where it is given."""
    chosen = np.unique(np.linspace(0, len(points) - 1, SAMPLES).astype(int))
    points = points[chosen]
    count = len(sites)
    rest = np.zeros((count, 3))
    stand = kinematics.points(_default_sweep(kinematics), sites)[0]
    likely = _bone_scale([site.name for site in sites], stand, points) if scale is None else scale
    certain = (SCALE_TOLERANCE if scale is None else 1e-9) ** -2.0
    scale = likely
    start = None
    for _ in range(ROUNDS):
        moved = tuple(
            replace(site, position=tuple(np.add(site.position, r))) for site, r in zip(sites, rest, strict=True)
        )
        start = each_frame(kinematics, moved, points * scale, weights, start)
        sweep = kinematics.sweep(*start)
        own = kinematics.points(sweep, sites)
        bodies, _ = kinematics.fixed(sites)
        turns = sweep.rotations[:, bodies]  # (T, P, 3, 3)
        # own + turns @ rest - scale * points = a shift of the frame: mean over the points taken off, it is linear.
        rows = np.zeros((len(points), count, 3, 1 + 3 * count))
        rows[..., 0] = -points
        for k in range(count):
            rows[:, k, :, 1 + 3 * k : 4 + 3 * k] = turns[:, k]
        share = weights / weights.sum()
        rows -= np.einsum("k,tkin->tin", share, rows)[:, None]
        error = own - np.einsum("k,tki->ti", share, own)[:, None]
        root = np.sqrt(weights / len(points))[None, :, None]
        a = (rows * root[..., None]).reshape(-1, 1 + 3 * count)
        tolerance = np.array([REST_TOLERANCES.get(site.name, (REST_TOLERANCE,) * 3) for site in sites])
        prior = np.concatenate([[certain], tolerance.ravel() ** -2.0 / count])
        right = -a.T @ (error * root).ravel()
        right[0] += prior[0] * likely
        unknown = np.linalg.solve(a.T @ a + np.diag(prior), right)
        scale, rest = float(unknown[0]), unknown[1:].reshape(count, 3)
    return Person(scale, rest)


def _bone_scale(names: list[str], robot: Array, human: Array) -> float:
    """Robot length per human length by the lengths of the bones, from points (P, 3) and (T, P, 3) [m]."""
    sides = [[f"{side}_{part}" for part in limb] for side in ("left", "right") for limb in LIMBS]
    bones = [(a, b) for limb in sides for a, b in itertools.pairwise(limb) if a in names and b in names]
    ends = np.array([(names.index(a), names.index(b)) for a, b in bones])
    own = np.linalg.norm(robot[ends[:, 0]] - robot[ends[:, 1]], axis=1)
    theirs = np.linalg.norm(human[:, ends[:, 0]] - human[:, ends[:, 1]], axis=2).mean(axis=0)
    return float(own @ theirs / (theirs @ theirs))


def _default_sweep(kinematics: Kinematics) -> Any:
    return kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), default_pose(kinematics.robot)[None])


def each_frame(
    kinematics: Kinematics,
    sites: tuple[Site, ...],
    targets: Array,
    weights: Array,
    start: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """Root positions (T, 3), quaternions (T, 4) and joints (T, J) that bring the sites to (T, P, 3), each frame for
    itself: damped Gauss-Newton, from the default pose with the trunk turned as the human's where no start is given."""
    frames, pose = len(targets), default_pose(kinematics.robot)
    lower, upper = kinematics.robot.lower, kinematics.robot.upper
    posture = _posture_weight(kinematics, sites)
    position, quaternion, joints = start or (*_trunk(kinematics, sites, targets), np.tile(pose, (frames, 1)))
    count = len(pose)
    size = 3 * len(sites)
    spread = np.repeat(weights, 3)
    for _ in range(FIRST_ITERATIONS if start is None else FIRST_ITERATIONS // 3):
        sweep = kinematics.sweep(position, quaternion, joints, derivatives=True)
        points = kinematics.points(sweep, sites)
        rows = kinematics.point_jacobians(sweep, sites, points).reshape(frames, size, 6 + count)
        turned = rows.transpose(0, 2, 1)
        matrix = np.matmul(turned, rows * spread[:, None])
        right = -np.matmul(turned, (spread * (points - targets).reshape(frames, size))[..., None])[..., 0]
        right[:, 6:] -= posture * (joints - pose)
        # A joint that rests on its limit and would go beyond it stays out of this step.
        stuck = ((joints <= lower) & (right[:, 6:] < 0)) | ((joints >= upper) & (right[:, 6:] > 0))
        diagonal = np.full((frames, 6 + count), 1e-3 * spread.max())
        diagonal[:, 6:] += posture + 1e12 * stuck
        matrix[:, np.arange(6 + count), np.arange(6 + count)] += diagonal
        step = np.linalg.solve(matrix, right[..., None])[..., 0]
        step *= np.minimum(1, LARGEST_TURN / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        position = position + step[:, :3]
        quaternion = multiply(quaternion, from_vector(step[:, 3:6]))
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        joints = np.clip(joints + step[:, 6:], lower, upper)
    return position, quaternion, joints


def _in_blocks(work: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """What `work` gives for (T, ...) arrays, done for BLOCK frames at a time: ten minutes of motion shall fit."""
    parts = [work(*(a[i : i + BLOCK] for a in arrays)) for i in range(0, len(arrays[0]), BLOCK)]
    return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))


def _trunk(kinematics: Kinematics, sites: tuple[Site, ...], targets: Array) -> tuple[Array, Array]:
    """Root positions (T, 3) and quaternions (T, 4) that bring the robot's upright trunk nearest to the human's: the
    rotation that fits the points of pelvis, hips and shoulders best (Kabsch)."""
    chosen = [i for i, s in enumerate(sites) if any(part in s.name for part in ("pelvis", "hip", "shoulder", "head"))]
    own = kinematics.points(_default_sweep(kinematics), sites)[0, chosen]
    there = targets[:, chosen]
    mean, goal = own.mean(axis=0), there.mean(axis=1)
    u, _, v = np.linalg.svd(np.einsum("tpi,pj->tij", there - goal[:, None], own - mean))
    sign = np.ones((len(targets), 3))
    sign[:, 2] = np.linalg.det(u @ v)
    matrix = (u * sign[:, None]) @ v
    quaternion = from_matrix(matrix)
    return goal - np.einsum("tij,j->ti", matrix, mean), quaternion


def _smooth_turns(quaternion: Array, width: float) -> Array:
    """Quaternions (T, 4) without what changes faster than `width` [frames]."""
    smooth = gaussian_filter1d(quaternion, width, axis=0, mode="nearest")
    return smooth / np.linalg.norm(smooth, axis=1, keepdims=True)


def retarget_command(
    paths: tuple[Path, ...],
    out: Path,
    scale: float | None = None,
    compare: bool = False,
    console: Console | None = None,
) -> list[Failure]:
    """Write a clip for each human motion of these files into the folder `out`; what failed comes back. With `compare`,
    also set it against the robot's motion that the same file holds, where it does."""
    from sim.motions.compare import Comparison, compare_with_published, comparison_table

    console = console or Console(width=None if sys.stdout.isatty() else 140)
    headings = ("frames", "scale", "points\nmm", "lifted\ncm", "frames/s")
    table = Table(Column("clip", no_wrap=True), "format", *(Column(heading, justify="right") for heading in headings))
    table.caption = LEGEND
    failures: list[Failure] = []
    compared: dict[str, Comparison] = {}
    written: dict[str, Path] = {}
    files = motion_files(paths, SUFFIXES)
    out.mkdir(parents=True, exist_ok=True)
    with progress("retarget", len(files), unit="files") as tell:
        for number, path in enumerate(files, 1):
            try:
                for human in read_human(path):
                    name = path.stem + (f"-{human.name}" if human.name else "")
                    if name in written:
                        raise HumanError(f"would be written over {written[name]}: {name}.npz has that name already")
                    began = time.process_time()
                    done = retarget(human, scale, source=f"{human.format}: {path.name}", licence=licence_beside(path))
                    rate = human.frames / (time.process_time() - began)
                    save_clip(out / f"{name}.npz", done.clip)
                    written[name] = path
                    facts = done.clip.report["retarget"]
                    table.add_row(
                        name,
                        human.format,
                        str(human.frames),
                        f"{done.person.scale:.3f}",
                        f"{1000 * facts['key_point_error']:.1f}",
                        " to ".join(f"{100 * value:.0f}" for value in facts["lift_range"]),
                        f"{rate:.0f}",
                    )
                    if compare:
                        compared[name] = compare_with_published(path, human, done)
            except (HumanError, PickleError, FormatError, ClipError, WriteError, OSError) as error:
                failures.append(Failure(path, str(error) if str(path) in str(error) else f"{path}: {error}"))
            tell(number, path.stem)
    if table.row_count:
        console.print(table)
    if compared:
        console.print(comparison_table(compared))
    return failures
