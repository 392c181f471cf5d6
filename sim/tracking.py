"""How well does a policy track a motion on the simulated G1?

The policy sees what its specification says and nothing else (`controllers.observation.Observer`); the simulated joint
controllers have the policy's gains and act at every physics step. The world is the robot on paper, or many random ones
(`sim.randomize`). Errors are those of the ASAP paper: distances of 27 points (24 body origins, two hands, head) from
where the motion, played on the same model, has them at the same time; and the same for the 24 body origins alone, which
are the ends of the joints and no extrapolation beyond them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from controllers.g1 import G1, KEY_POINTS, gains, revision
from controllers.motion import Clip, load_clip
from controllers.policy import Policy, load_policy
from controllers.rotations import conjugate, rotate
from controllers.spec import PolicyError, PolicySpec
from sim import metrics
from sim.backends.engine import Engine, EngineName, make_engine
from sim.motions.detect import Choices
from sim.motions.importers import import_file
from sim.randomize import NONE, Spread
from sim.run import facts, progress, write_json
from sim.tasks.rewards import flight
from sim.tasks.tracking import Tracking
from sim.tasks.tracking_config import Ramp, Setting, TrackingConfig
from sim.tasks.tracking_terms import AIRBORNE, Step
from sim.wrap import has_spec, load_foreign, read_spec

WIDE = 160  # columns of a table in a file
LOST = 0.5  # [m]; mean distance of the points at which a motion counts as lost: the paper's
RECOVERY = 2.0  # [s] for which a robot has to stay up after a push to have recovered
CLEAR = 0.01  # [m] between the lowest point of a sole and the floor from which on the foot is in the air
FALLEN = 1.0, 0.3  # [rad] by which it leans more than the motion, or [m] by which its pelvis is lower, when it has not


class Stepper(Protocol):
    """What is evaluated: `controllers.policy.Policy` or anything with its two calls."""

    spec: PolicySpec

    def reset(self, batch: int) -> np.ndarray: ...

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Flown:
    """One motion, tracked once. Sampled after every control step, (K,), until the end or until the robot is lost."""

    completed: float
    """Share of the motion before the robot was lost; 1 when it was not."""
    points_w: np.ndarray
    """Where the points were [m], (K, points, 3); the first is the pelvis."""
    reference_w: np.ndarray
    """Where they should have been [m], (K, points, 3)."""
    saturation: float
    """Share of torques at their limit, over joints and control steps."""
    power: float
    """Mean over time of the sum over joints of |torque times velocity| [W]."""
    qpos: np.ndarray
    """The simulated robot, (K, nq)."""
    recovered: np.ndarray
    """Whether it had not fallen 2 s after each push, as 0 or 1, of the pushes until it fell that were followed by so
    much of the motion. How far it was from the motion does not matter: who steps to stay up cannot know where it is."""
    lifted: np.ndarray
    """Whether a foot was in the air, as 0 or 1, at each time and of each foot that the motion has in the air. Mean
    distances hardly see a step of 6 cm, and a robot that leaves both feet on the floor is hard to throw over. In a clip
    whose feet float (`sim motions repair`) they are always in the air."""
    hops: float = 0.0
    """Share of the time with both feet in the air although one of the motion's is on the floor."""
    odometry: float | None = None
    """How far leg odometry was off at the end, horizontally [m]; None where the policy does not observe it."""


def track(policy: Stepper, clip: Clip, robot: G1, physics_hz: float | None = None) -> Flown:
    """Track that motion once on the robot on paper; see `track_worlds`."""
    return track_worlds(policy, clip, robot, physics_hz)[0]


def track_worlds(
    policy: Stepper,
    clip: Clip,
    robot: G1,
    physics_hz: float | None = None,
    worlds: int = 1,
    spread: Spread = NONE,
    seed: int = 0,
    engine: EngineName = "mujoco",
) -> list[Flown]:
    """Track that motion from its first frame to its last, from the state that it begins in, in each of the worlds.

    Args:
        policy: Says in its specification what it sees and how its joints are held.
        clip: The motion.
        robot: The revision; joints that the policy does not know are held where the motion begins, with ASAP's gains.
        physics_hz: Physics steps per second, a multiple of the control rate; those of the training when absent.
        worlds: How many.
        spread: How far they are from the robot on paper.
        seed: Of the worlds, starts, noise and pushes.
        engine: The physics.
    """
    spec = policy.spec
    config = _task(spec, robot, physics_hz or spec.rates.physics_hz, spread)
    if clip.duration < config.control_step:
        raise ValueError(
            f"the motion lasts {clip.duration:g} s; allowed: at least one control step of {config.control_step:g} s"
        )
    physics = _engine(engine, spec, robot, worlds, config)
    try:
        task = Tracking(physics, [clip], config, spec, seed, from_start=True)
        return _tracked(policy, task)
    finally:
        physics.close()


def _tracked(policy: Stepper, task: Tracking) -> list[Flown]:
    """Step until every robot has reached the end or has fallen, and cut each one's record where it is lost."""
    count, steps = task.count, int(task.table.length[0]) - 1
    points, limit = task.points, 1 - 1e-9
    found, wanted = np.zeros((2, steps, count, len(points), 3))
    qpos = np.zeros((steps, count, task.engine.qpos.shape[1]))
    up, should = np.zeros((2, steps, count, 2), dtype=bool)
    saturated, power, hopping, unseen = np.zeros((4, steps, count))
    pushed = np.zeros((steps, count), dtype=bool)
    kept, upright = np.full((2, count), steps)  # control steps until the robot was lost, and until it fell
    broken = np.zeros(count, dtype=bool)
    h, seen = policy.reset(count), task.observe()
    for step in range(steps):
        action, h = policy.step(seen["actor"], h)
        if task.observer.position is not None:
            unseen[step] = np.linalg.norm((task.observer.position - task.engine.qpos[:, :3])[:, :2], axis=1)
        seen, _, _, info = task.step(action)
        now = info["step"]
        hopping[step] = flight(now.soles[0], now.wanted_height, AIRBORNE)
        found[step], wanted[step] = now.found.position[:, points], now.wanted.position[:, points]
        qpos[step] = now.qpos
        up[step] = now.soles[0].min(axis=2) > CLEAR
        should[step] = now.wanted_height > CLEAR
        pushed[step] = info["pushed"]
        saturated[step] = np.mean(np.abs(now.torque) >= task.torque_limit * limit, axis=1)
        power[step] = np.abs(now.torque * now.qvel[:, 6:]).sum(axis=1)
        far = now.distance.mean(axis=1) > LOST
        lost, fell = (np.stack((far, fallen(now))) | info["broken"]) & (np.stack((kept, upright)) == steps)
        broken |= info["broken"] & lost
        kept[lost], upright[fell] = step + 1, step + 1
        h[info["lost"]] = policy.reset(count)[info["lost"]]
        if step + 1 < steps and (upright < steps).all() and (kept < steps).all():
            break
    flown = []
    after = round(RECOVERY / task.config.control_step)
    for robot in range(count):
        lost = bool(kept[robot] < steps or np.linalg.norm(found[-1, robot] - wanted[-1, robot], axis=1).mean() > LOST)
        begin = np.flatnonzero(pushed[: min(int(upright[robot]), steps - after), robot])
        last = int(kept[robot]) - bool(broken[robot])  # of a state that is not finite there is no record
        flown.append(
            Flown(
                completed=(kept[robot] - 1) / steps if lost else 1.0,
                points_w=found[:last, robot],
                reference_w=wanted[:last, robot],
                saturation=float(saturated[:last, robot].mean()) if last else 0.0,
                power=float(power[:last, robot].mean()) if last else 0.0,
                qpos=qpos[:last, robot],
                recovered=(begin + after < upright[robot]).astype(float),
                lifted=up[:last, robot][should[:last, robot]].astype(float),
                hops=float(hopping[:last, robot].mean()) if last else 0.0,
                odometry=None if task.observer.position is None or not last else float(unseen[last - 1, robot]),
            )
        )
    return flown


def fallen(now: Step) -> NDArray[np.bool_]:
    """Which robots lie, or are about to, (N,); see `FALLEN`."""
    down = np.array([0.0, 0.0, -1.0])
    found, wanted = (rotate(conjugate(qpos[:, 3:7]), down) for qpos in (now.qpos, now.wanted_qpos))
    leans = np.einsum("ni,ni->n", found, wanted) < np.cos(FALLEN[0])
    return leans | (now.wanted_qpos[:, 2] - now.qpos[:, 2] > FALLEN[1])


def _task(spec: PolicySpec, robot: G1, physics_hz: float, spread: Spread) -> TrackingConfig:
    """The task in which nothing ends an episode but its motion, or a state that is not finite."""
    substeps = physics_hz / spec.rates.control_hz
    if abs(substeps - round(substeps)) > 1e-9 or substeps < 1:
        raise ValueError(
            f"physics at {physics_hz:g} Hz; allowed: a multiple of the {spec.rates.control_hz:g} Hz control"
        )
    return TrackingConfig(
        robot=robot.name,
        physics_step=1 / physics_hz,
        substeps=round(substeps),
        ahead=(),
        rest=0.0,
        lost_distance=Ramp(np.inf, np.inf, np.inf, 0.0),
        lost_angle=np.pi,
        lost_height=np.inf,
        spread=spread,
    )


def _engine(name: EngineName, spec: PolicySpec, robot: G1, count: int, config: TrackingConfig) -> Engine:
    """The robot with the gains of the policy."""
    if spec.joints is None:
        raise PolicyError(f"policy_spec.joints is absent; allowed: joints (the policy is for a {spec.robot})")
    stiffness, damping = (values.copy() for values in gains(robot, "asap"))
    seen = robot.joint_indices(spec.joints.names)
    stiffness[seen], damping[seen] = spec.joints.stiffness, spec.joints.damping
    return make_engine(name, robot, count, stiffness, damping, config.physics_step, config.substeps)


def errors(flown: Flown, control_hz: float) -> dict[str, float | None]:
    """The errors of the ASAP paper, means over the time that was tracked [mm, mm/frame^2, mm/frame], frames at 50 Hz.

    E_g: distance of the points. E_mpjpe: the same relative to the pelvis. E_acc and E_vel: difference of the points'
    acceleration and of the pelvis' velocity. With `_bodies`: without hands and head. None where too little was tracked.
    """
    found, wanted = 1000 * flown.points_w, 1000 * flown.reference_w
    frame = control_hz / 50.0  # control steps per frame

    off = found - wanted
    if len(off) < 3:  # an acceleration takes three
        return dict.fromkeys(("e_g", "e_mpjpe", "e_g_bodies", "e_mpjpe_bodies", "e_acc", "e_vel"))

    def mean(difference: np.ndarray) -> float:
        return float(np.linalg.norm(difference, axis=-1).mean())

    bodies = off[:, : off.shape[1] - len(KEY_POINTS)]
    return {
        "e_g": mean(off),
        "e_mpjpe": mean(off - off[:, :1]),
        "e_g_bodies": mean(bodies),
        "e_mpjpe_bodies": mean(bodies - bodies[:, :1]),
        "e_acc": mean(np.diff(off, n=2, axis=0)) * frame**2,
        "e_vel": mean(np.diff(off[:, 0], axis=0)) * frame,
    }


def load(path: Path, spec: Path | None) -> Policy:
    """That policy file; one that says nothing about itself with the specification in the file `spec`."""
    if not path.is_file():
        raise PolicyError(f"{path}: no such file")
    if path.suffix == ".onnx" and not has_spec(path):
        if spec is None:
            raise PolicyError(f"{path}: has no policy_spec; allowed: name a file that has it with --spec")
        return load_foreign(path, read_spec(spec))
    policy = load_policy(path)
    if not isinstance(policy, Policy):
        raise PolicyError(f"{path}: a compiled policy; allowed for the G1: policy.onnx")
    return policy


def evaluate_g1_command(
    policy_paths: Sequence[Path],
    clip_paths: Sequence[Path],
    output: Path,
    spec: Path | None = None,
    setting: Setting = Setting(),  # noqa: B008 (frozen)
    console: Console | None = None,
) -> dict[str, Any]:
    """Track one motion per policy, or all motions with one policy, or one motion with all policies; print the table and
    write `output` (.json)."""
    setting.check()
    pairs = _pairs(policy_paths, clip_paths)
    console = console or Console(width=None if sys.stdout.isatty() else WIDE)
    content: dict[str, Any] = {
        "facts": facts(0) | {"mujoco": mujoco.__version__},
        "setting": dataclasses.asdict(setting),
        "results": [],
    }
    with progress("judging", len(pairs) * setting.seeds, unit="motions") as show:
        for index, (path, clip_path) in enumerate(pairs):
            content["results"].append(
                _judged(path, clip_path, spec, setting, lambda done, i=index: show(i * setting.seeds + done))
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, content)
    console.print(table(content))
    return content


def _pairs(policies: Sequence[Path], clips: Sequence[Path]) -> list[tuple[Path, Path]]:
    if len(policies) == 1 or len(clips) == 1:
        return [(policy, clip) for policy in policies for clip in clips]
    if len(policies) != len(clips):
        raise ValueError(f"{len(policies)} policies and {len(clips)} clips; allowed: as many of both, or one of either")
    return list(zip(policies, clips, strict=True))


def _judged(path: Path, clip_path: Path, spec: Path | None, setting: Setting, show: Any) -> dict[str, Any]:
    """One row of the results: numbers over all worlds and seeds, and their intervals where there are several."""
    policy = load(path, spec)
    robot = revision(setting.robot or policy.spec.robot)
    clip = _clip(clip_path)
    pushes = {"push_speed": setting.push, "push_least": setting.push_least}
    spread = NONE if setting.worlds == 1 else dataclasses.replace(Spread(), **pushes)
    flown: list[Flown] = []
    for seed in range(setting.seeds):
        flown += track_worlds(policy, clip, robot, setting.physics_hz, setting.worlds, spread, 1 + seed, setting.engine)
        show(seed + 1)
    rate = policy.spec.rates.control_hz
    numbers: dict[str, list[float]] = {"success": [float(one.completed == 1.0) for one in flown]}
    numbers["completed"] = [one.completed for one in flown]
    numbers["recovered"] = [value for one in flown for value in one.recovered]
    numbers["lifted"] = [float(one.lifted.mean()) for one in flown if len(one.lifted)]
    for one in flown:
        odometry = None if one.odometry is None else 1000 * one.odometry
        rest = {"saturation": one.saturation, "power": one.power, "hops": one.hops, "odometry": odometry}
        for name, value in (errors(one, rate) | rest).items():
            if value is not None:
                numbers.setdefault(name, []).append(value)
    intervals = {
        name: dataclasses.asdict((metrics.share if name in SHARES else metrics.mean)(np.array(values)))
        for name, values in numbers.items()
        if len(values) > 1
    }
    means = {name: float(np.mean(numbers[name])) if numbers.get(name) else None for name in NUMBERS}
    return {
        "policy": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "clip": str(clip_path),
        "robot": robot.name,
        "engine": setting.engine,
        "physics_hz": setting.physics_hz or policy.spec.rates.physics_hz,
        "duration": clip.duration,
        "count": len(flown),
        **means,
        "intervals": intervals,
    }


SHARES = ("success", "recovered")
NUMBERS = (
    *SHARES,
    "completed",
    "lifted",
    "hops",
    "odometry",
    "e_g",
    "e_mpjpe",
    "e_g_bodies",
    "e_mpjpe_bodies",
    "e_acc",
    "e_vel",
    "saturation",
    "power",
)


def table(content: dict[str, Any]) -> Table:
    """The numbers of an evaluation, with their means below."""
    columns = {
        "E_g [mm]": ("e_g", ".1f"),
        "E_mpjpe [mm]": ("e_mpjpe", ".1f"),
        "bodies: E_g": ("e_g_bodies", ".1f"),
        "E_mpjpe": ("e_mpjpe_bodies", ".1f"),
        "E_acc [mm/f²]": ("e_acc", ".2f"),
        "E_vel [mm/f]": ("e_vel", ".2f"),
        "feet up": ("lifted", ".0%"),
        "hops": ("hops", ".2%"),
        "odometry off [mm]": ("odometry", ".0f"),
        "torque at limit": ("saturation", ".2%"),
        "power [W]": ("power", ".0f"),
    }
    rows = content["results"]
    result = Table("policy", "clip", "success", "after pushes", "tracked", *columns)
    for row in rows:
        numbers = ["-" if row[key] is None else format(row[key], shape) for key, shape in columns.values()]
        shares = ["yes" if row["success"] == 1 else "no", "-"]
        for index, name in enumerate(SHARES):
            if name in row["intervals"]:
                interval = row["intervals"][name]
                shares[index] = f"{row[name]:.1%} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
        result.add_row(Path(row["policy"]).stem, Path(row["clip"]).stem, *shares, f"{row['completed']:.0%}", *numbers)
    means = []
    for key, shape in columns.values():
        known = [row[key] for row in rows if row[key] is not None]
        means.append(format(np.mean(known), shape) if known else "-")
    result.add_section()
    result.add_row("mean", "", f"{np.mean([row['success'] for row in rows]):.1%}", "", "", *means)
    return result


def _clip(path: Path) -> Clip:
    """That clip.npz, or the one motion of a file in another format."""
    if path.suffix == ".npz":
        return load_clip(path)
    motions = import_file(path, None, Choices(), None, None)
    if len(motions) != 1:
        raise ValueError(
            f"{path}: holds {len(motions)} motions; allowed: one (`sim motions import` makes clips of all)"
        )
    return motions[0][1]
