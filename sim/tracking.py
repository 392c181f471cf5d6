"""How well does a policy track a motion on the simulated G1?

The policy sees what its specification says and nothing else (`controllers.observation.Observer`); the simulated joint
controllers have the policy's gains and act at every physics step. Errors are those of the ASAP paper: distances of 27
points (24 body origins, two hands, head) from where the motion, played on the same model, has them at the same time;
and the same for the 24 body origins alone, which are the ends of the joints and no extrapolation beyond them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from controllers.g1 import G1, KEY_POINTS, default_pose, gains, revision
from controllers.motion import Clip, load_clip
from controllers.observation import JointState, Observer
from controllers.policy import Policy, load_policy
from controllers.spec import PolicyError, PolicySpec
from sim.motions.detect import Choices
from sim.motions.importers import import_file
from sim.robots.g1 import build_model, joint_addresses, states_of
from sim.run import facts, write_json
from sim.wrap import has_spec, load_foreign, read_spec

WIDE = 160  # columns of a table in a file
LOST = 0.5  # [m]; mean distance of the points at which a motion counts as lost: the paper's


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
    """Share of torques at their limit, over joints and physics steps."""
    qpos: np.ndarray
    """The simulated robot, (K, nq)."""


def track(policy: Stepper, clip: Clip, robot: G1, physics_hz: float | None = None) -> Flown:
    """Track that motion from its first frame to its last, from the state that it begins in.

    Args:
        policy: Says in its specification what it sees and how its joints are held.
        clip: The motion.
        robot: The revision; joints that the policy does not know are held at their default with the ASAP gains.
        physics_hz: Physics steps per second, a multiple of the control rate; those of the training when absent.
    """
    spec = policy.spec
    observer = Observer(spec, 1, clip.duration)
    model = _model_for(spec, robot, physics_hz or spec.rates.physics_hz)
    data = mujoco.MjData(model)
    points = _Points(model)
    qpos_at, dof_at = joint_addresses(model, observer.joints.names)
    substeps = round(1 / (spec.rates.control_hz * model.opt.timestep))
    dt = substeps * model.opt.timestep
    steps = int(np.floor(clip.duration / dt + 1e-9))
    if steps < 1:
        raise ValueError(f"the motion lasts {clip.duration:g} s; allowed: at least one control step of {dt:g} s")

    reference = states_of(clip, model, robot, np.arange(steps + 1) * dt)
    data.qpos[:], data.qvel[:] = reference[0][0], reference[1][0]
    mujoco.mj_forward(model, data)
    targets = default_pose(robot)
    seen = robot.joint_indices(observer.joints.names)
    limits = model.actuator_forcerange[:, 1]
    h = policy.reset(1)
    found, wanted, qpos, saturated = [], [], [], 0.0
    for step in range(steps):
        state = JointState(
            data.qpos[None, 3:7], data.qvel[None, 3:6], data.qpos[None, qpos_at], data.qvel[None, dof_at]
        )
        action, h = policy.step(observer.observe(state, step * dt), h)
        targets[seen] = observer.targets(action)[0]
        data.ctrl[:] = targets
        for _ in range(substeps):
            mujoco.mj_step(model, data)
            saturated += float(np.mean(np.abs(data.actuator_force) >= limits * (1 - 1e-9)))
        if not np.isfinite(data.qpos).all():
            break
        found.append(points.of(data.qpos))
        wanted.append(points.of(reference[0][step + 1]))
        qpos.append(data.qpos.copy())
        if np.linalg.norm(found[-1] - wanted[-1], axis=1).mean() > LOST:
            break
    kept = len(found)
    lost = kept < steps or bool(np.linalg.norm(found[-1] - wanted[-1], axis=1).mean() > LOST)
    return Flown(
        completed=max(kept - 1, 0) / steps if lost else 1.0,
        points_w=np.reshape(found, (kept, -1, 3)),
        reference_w=np.reshape(wanted, (kept, -1, 3)),
        saturation=saturated / max(kept * substeps, 1),
        qpos=np.reshape(qpos, (kept, -1)),
    )


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


class _Points:
    """The 27 tracked points of a configuration: the pelvis, the other bodies, hands and head."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._bodies = [b for b in range(1, model.nbody) if "wrist" not in model.body(b).name]
        self._sites = [model.site(point.name).id for point in KEY_POINTS]

    def of(self, qpos: np.ndarray) -> np.ndarray:
        """World positions [m], (27, 3)."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        return np.concatenate([self._data.xpos[self._bodies], self._data.site_xpos[self._sites]])


def _model_for(spec: PolicySpec, robot: G1, physics_hz: float) -> mujoco.MjModel:
    """The robot with the gains of the policy."""
    substeps = physics_hz / spec.rates.control_hz
    if abs(substeps - round(substeps)) > 1e-9 or substeps < 1:
        raise ValueError(
            f"physics at {physics_hz:g} Hz; allowed: a multiple of the {spec.rates.control_hz:g} Hz control"
        )
    assert spec.joints is not None  # an Observer has checked it
    stiffness, damping = (values.copy() for values in gains(robot, "asap"))
    seen = robot.joint_indices(spec.joints.names)
    stiffness[seen], damping[seen] = spec.joints.stiffness, spec.joints.damping
    model = build_model(robot, stiffness=stiffness, damping=damping, timestep=1 / physics_hz)
    # A state that is not finite is the end of the motion here; MuJoCo would start over at the origin.
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    return model


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
    robot: str | None = None,
    physics_hz: float | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Track one motion per policy, or one motion with all of them; print the table and write `output` (.json)."""
    if len(clip_paths) not in (1, len(policy_paths)):
        raise ValueError(
            f"{len(policy_paths)} policies and {len(clip_paths)} clips; allowed: one clip, or one for each"
        )
    console = console or Console(width=None if sys.stdout.isatty() else WIDE)
    content: dict[str, Any] = {"facts": facts(0) | {"mujoco": mujoco.__version__}, "results": []}
    clips = list(clip_paths) * (len(policy_paths) if len(clip_paths) == 1 else 1)
    for path, clip_path in zip(policy_paths, clips, strict=True):
        policy = load(path, spec)
        model = revision(robot or policy.spec.robot)
        clip = _clip(clip_path)
        flown = track(policy, clip, model, physics_hz)
        content["results"].append(
            {
                "policy": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "clip": str(clip_path),
                "robot": model.name,
                "physics_hz": physics_hz or policy.spec.rates.physics_hz,
                "duration": clip.duration,
                "completed": flown.completed,
                **errors(flown, policy.spec.rates.control_hz),
                "saturation": flown.saturation,
            }
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, content)
    console.print(table(content))
    return content


def table(content: dict[str, Any]) -> Table:
    """The numbers of an evaluation, with their means below."""
    columns = {
        "E_g [mm]": ("e_g", ".1f"),
        "E_mpjpe [mm]": ("e_mpjpe", ".1f"),
        "bodies: E_g": ("e_g_bodies", ".1f"),
        "E_mpjpe": ("e_mpjpe_bodies", ".1f"),
        "E_acc [mm/f²]": ("e_acc", ".2f"),
        "E_vel [mm/f]": ("e_vel", ".2f"),
        "torque at limit": ("saturation", ".2%"),
    }
    rows = content["results"]
    result = Table("policy", "clip", "tracked", *columns)
    for row in rows:
        numbers = ["-" if row[key] is None else format(row[key], shape) for key, shape in columns.values()]
        result.add_row(Path(row["policy"]).stem, Path(row["clip"]).stem, f"{row['completed']:.0%}", *numbers)
    means = []
    for key, shape in columns.values():
        known = [row[key] for row in rows if row[key] is not None]
        means.append(format(np.mean(known), shape) if known else "-")
    result.add_section()
    result.add_row("mean", "", f"{sum(row['completed'] == 1 for row in rows)} of {len(rows)}", *means)
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
