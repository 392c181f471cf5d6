"""What a policy file shows about itself beyond its network: states of the robot and what must come of them.

Golden observations and actions prove the network, but not what surrounds it: with two joints exchanged, a forgotten
scale, histories in the wrong order, or stiffness and damping swapped, the network still answers them correctly, and
the robot falls. So a file also holds golden sequences of the robot's own states and, for each step, the observation
that the policy was given and the joint targets and gains that the motors were given, all joints under their names in
the robot's order. Whoever runs the policy replays them with its own code and its own tables; a difference names the
field of `policy_spec` that it is about.

A policy that observes a motion is given one that is a formula, `played`, and no clip.

The sequences reach what flights seldom reach, so that clips count too: one of them is far outside of all ranges.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .g1 import G1
from .observation import JointState, MotionSample, Observer
from .policy import pack_array, unpack_array
from .rotations import from_axis_angle
from .spec import PolicyError, PolicySpec

KEY = "golden_robot"
"""Of the metadata of policy.onnx."""
TOLERANCE = 1e-5  # relative to 1 plus the magnitude: what float32 leaves
FEWEST_STEPS = 32
SEQUENCES = 4
DURATION = 5.0  # [s] of the motion that the phase refers to, where the specification leaves that to the clip


@dataclass(frozen=True)
class Evidence:
    """T steps of S sequences, which begin with a reset. N joints of the robot, in its order."""

    joint_names: tuple[str, ...]
    """N names."""
    motion_duration: float | None
    """Of the motion that is played [s]."""
    time: NDArray[np.floating]
    """Since the reset [s], (T,)."""
    quaternion: NDArray[np.floating]
    """Attitude of the root, wxyz, body to world, (T, S, 4)."""
    angular_velocity: NDArray[np.floating]
    """Of the root, body frame [rad/s], (T, S, 3)."""
    joint_position: NDArray[np.floating]
    """[rad], (T, S, N)."""
    joint_velocity: NDArray[np.floating]
    """[rad/s], (T, S, N)."""
    action: NDArray[np.floating]
    """What the policy answers, before clipping, (T, S, outputs)."""
    observation: NDArray[np.floating]
    """What the policy is given, (T, S, inputs)."""
    target: NDArray[np.floating]
    """What the motors are given [rad], (T, S, N); not a number for joints that the policy does not know."""
    stiffness: NDArray[np.floating]
    """[Nm/rad], (N,); likewise."""
    damping: NDArray[np.floating]
    """[Nm s/rad], (N,); likewise."""

    def to_json(self) -> str:
        arrays = {name: pack_array(value) for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return json.dumps({"joint_names": self.joint_names, "motion_duration": self.motion_duration, **arrays})

    @staticmethod
    def from_json(text: str) -> Evidence:
        try:
            raw = json.loads(text)
            names, duration = tuple(raw.pop("joint_names")), raw.pop("motion_duration")
            return Evidence(names, duration, **{name: unpack_array(packed) for name, packed in raw.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyError(f"{KEY} cannot be read ({error}); allowed: what `deploy adopt` writes") from error


def make_evidence(spec: PolicySpec, robot: G1, seed: int = 0) -> Evidence:
    """Golden sequences of that robot for that policy, drawn at random and answered by this code."""
    assert spec.joints is not None
    rng = np.random.default_rng(seed)
    known = robot.joint_indices(spec.joints.names)
    steps = FEWEST_STEPS + max(term.history + term.age for term in spec.observation)
    size = (steps, SEQUENCES)
    strong = np.array([1.0, 1.0, 1.0, 1e4])[:, None]  # the last sequence is beyond all clips
    quaternion = from_axis_angle(rng.normal(size=(*size, 3)), rng.uniform(-np.pi, np.pi, size))
    low, high = spec.action.clip
    action = rng.normal(0, 1, (*size, spec.action_size))
    action[:, -1] = rng.uniform(2 * min(low, 0) - 1, 2 * max(high, 0) + 1, (steps, spec.action_size))
    duration = None
    if spec.motion is not None:
        duration = spec.motion.duration or DURATION
    states = {
        "quaternion": quaternion,
        "angular_velocity": strong * rng.normal(0, 2, (*size, 3)),
        "joint_position": strong * rng.uniform(robot.lower, robot.upper, (*size, len(robot.joints))),
        "joint_velocity": strong * rng.normal(0, 3, (*size, len(robot.joints))),
        "action": action,
    }
    states = {name: value.astype(np.float32) for name, value in states.items()}
    time = (np.arange(steps) / spec.rates.control_hz).astype(np.float32)
    stiffness, damping = np.full((2, len(robot.joints)), np.nan)
    stiffness[known], damping[known] = spec.joints.stiffness, spec.joints.damping
    observation, target = _replay(spec, robot.joint_names, duration, time, **states)
    return Evidence(
        robot.joint_names,
        duration,
        time,
        **states,
        observation=observation,
        target=target,
        stiffness=stiffness,
        damping=damping,
    )


def check_evidence(spec: PolicySpec, evidence: Evidence) -> None:
    """Raises PolicyError, with the field, unless this specification makes of those states what stands there."""
    _check_shapes(spec, evidence)
    assert spec.joints is not None
    names = evidence.joint_names
    period = np.diff(np.asarray(evidence.time, dtype=float))
    if np.abs(period * spec.rates.control_hz - 1).max() > 1e-3:
        raise PolicyError(
            f"policy_spec.rates.control_hz is {spec.rates.control_hz:g}; {KEY} steps at {1 / period.mean():.4g} Hz"
        )
    known = [names.index(name) for name in spec.joints.names]
    for field in ("stiffness", "damping"):
        said, given = np.array(getattr(spec.joints, field)), getattr(evidence, field)
        wrong = np.flatnonzero(~_same(said, given[known]))
        extra = np.setdiff1d(np.flatnonzero(np.isfinite(given)), known)
        if wrong.size or extra.size:
            at = known[wrong[0]] if wrong.size else int(extra[0])
            mine = said[wrong[0]] if wrong.size else None
            raise PolicyError(f"policy_spec.joints.{field} of {names[at]} is {mine}; {KEY} has {given[at]:.6g}")
    observation, target = _replay(
        spec,
        names,
        evidence.motion_duration,
        evidence.time,
        evidence.quaternion,
        evidence.angular_velocity,
        evidence.joint_position,
        evidence.joint_velocity,
        evidence.action,
    )
    wrong = np.argwhere(~_same(target, evidence.target))
    if wrong.size:
        step, sequence, joint = wrong[0]
        raise PolicyError(
            f"policy_spec.action (names, scale, offset or clip) makes the target of {names[joint]} "
            f"{target[step, sequence, joint]:.6g} at step {step}; {KEY} has "
            f"{evidence.target[step, sequence, joint]:.6g}"
        )
    wrong = np.argwhere(~_same(observation, evidence.observation))
    if wrong.size:
        step, sequence, column = wrong[0]
        term = spec.observation_names[column]
        joints = "policy_spec.joints or " if "joint" in term else ""
        raise PolicyError(
            f"{joints}policy_spec.observation term {term} (order, scale, clip, history or what it samples) gives "
            f"{observation[step, sequence, column]:.6g} at step {step}; {KEY} has "
            f"{evidence.observation[step, sequence, column]:.6g}"
        )


def played(joints: NDArray[np.integer], times: NDArray[np.floating]) -> MotionSample:
    """A motion in which every number differs from every other and from one moment to the next.

    Args:
        joints: Places of J joints in the robot's order.
        times: (N,) [s].
    """
    beat = np.asarray(times, dtype=float)[:, None] * 1.3
    return MotionSample(
        joint_position=0.3 * np.sin(beat + joints),
        joint_velocity=0.8 * np.cos(beat + 2 * joints),
        quaternion=from_axis_angle([0.3, -0.5, 0.8], np.sin(beat[:, 0])),
        linear_velocity_w=np.sin(beat + np.arange(3)),
        position_w=np.concatenate([np.sin(beat + np.array([2.0, 4.0])), 0.8 + 0.1 * np.sin(beat)], axis=1),
    )


def _same(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def _check_shapes(spec: PolicySpec, evidence: Evidence) -> None:
    assert spec.joints is not None
    missing = [name for name in spec.joints.names if name not in evidence.joint_names]
    if missing:
        raise PolicyError(f"policy_spec.joints.names has {missing}, which {KEY} has not; allowed: its joints")
    steps, sequences = evidence.action.shape[:2]
    joints = len(evidence.joint_names)
    if steps < FEWEST_STEPS:
        raise PolicyError(f"{KEY} has {steps} steps; allowed: {FEWEST_STEPS} or more")
    for name, shape in {
        "time": (steps,),
        "quaternion": (steps, sequences, 4),
        "angular_velocity": (steps, sequences, 3),
        "joint_position": (steps, sequences, joints),
        "joint_velocity": (steps, sequences, joints),
        "action": (steps, sequences, spec.action_size),
        "observation": (steps, sequences, spec.observation_size),
        "target": (steps, sequences, joints),
        "stiffness": (joints,),
        "damping": (joints,),
    }.items():
        found = getattr(evidence, name).shape
        if found != shape:
            raise PolicyError(f"{KEY}.{name} has shape {found}; allowed: {shape}, as policy_spec says")


def _replay(
    spec: PolicySpec,
    joint_names: tuple[str, ...],
    duration: float | None,
    time: NDArray[np.floating],
    quaternion: NDArray[np.floating],
    angular_velocity: NDArray[np.floating],
    joint_position: NDArray[np.floating],
    joint_velocity: NDArray[np.floating],
    action: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Observations (T, S, inputs) and targets (T, S, N), by the code that runs on the robot."""
    assert spec.joints is not None
    observer = Observer(spec, action.shape[1], duration)
    known = [joint_names.index(name) for name in spec.joints.names]
    motions = functools.partial(played, np.array(known))
    observation = np.empty((*action.shape[:2], spec.observation_size), dtype=np.float32)
    target = np.full(joint_position.shape, np.nan)
    for step in range(len(action)):
        state = JointState(
            quaternion[step].astype(float),
            angular_velocity[step].astype(float),
            joint_position[step][:, known].astype(float),
            joint_velocity[step][:, known].astype(float),
        )
        observation[step] = observer.observe(state, float(time[step]), motions)
        target[step][:, known] = observer.targets(action[step].astype(float))
    return observation, target
