"""Does a policy fit the robot? Asked before any motor moves; the answer names the first field that does not.

Three kinds of evidence, in this order: the robot's own tables (joints, ranges, torques), the rates at which commands
are written, and the golden sequences in the file (`controllers/evidence.py`), which alone show that joints, scales and
histories mean what they say.
"""

from __future__ import annotations

import functools

import numpy as np

from controllers.evidence import KEY, Evidence, check_evidence, played
from controllers.g1 import G1, REVISIONS
from controllers.observation import JointState, Observer
from controllers.policy import Policy
from controllers.spec import JointControl, PolicyError, PolicySpec

WRITE_HZ = 500.0
"""Rate of the motor commands, which is that of the robot's states."""
CONTROL_RANGE = (20.0, 200.0)
"""Of policies for a robot with legs [Hz]; 50 is usual."""
STIFFNESS_LIMIT = 600.0
"""[Nm/rad]; published gain sets of the G1 end at 400."""
DAMPING_LIMIT = 20.0
"""[Nm s/rad]; published gain sets of the G1 end at 10."""
STIFFNESS_TO_DAMPING = 2.0
"""[1/s]; published gain sets of the G1 have 4 or more, and exchanged gains much less than 1."""
SCALE_LIMIT = 8.0
"""Torque that one unit of action adds, relative to the joint's limit; published policies end at 2 (ASAP's waist)."""

RAISABLE = {"angular_rate": 20.0, "joint_speed": 1.5, "tilt": 1.6, "target_jump": 4.0}
"""Levels of checks that a policy may raise for itself, and how far, in the units of `controllers.safety.CHECKS`."""


def fit(policy: Policy, robot: G1, motion_duration: float | None = None) -> None:
    """Raises PolicyError unless that robot may be given to that policy.

    Args:
        policy: Loaded, which has replayed its golden actions.
        robot: The revision in front of us.
        motion_duration: Of the clip that is played [s], where the policy does not say it.
    """
    spec = policy.spec
    fit_tables(spec, robot)
    if policy.golden_robot is None:
        raise PolicyError(f"{KEY} is not in the metadata; allowed: a file that `deploy adopt` or `sim train` wrote")
    check_evidence(spec, Evidence.from_json(policy.golden_robot))
    Observer(spec, 1, motion_duration)


def fit_tables(spec: PolicySpec, robot: G1) -> None:
    """Raises PolicyError where the specification contradicts itself, the robot's tables or the rates."""
    if spec.robot not in REVISIONS:
        raise PolicyError(f"policy_spec.robot is {spec.robot!r}; allowed: {', '.join(REVISIONS)}")
    if spec.joints is None:
        raise PolicyError("policy_spec.joints is absent; allowed: joints, their default position and gains")
    if not spec.action.meaning.startswith("joint target"):
        raise PolicyError(f"policy_spec.action.meaning is {spec.action.meaning!r}; allowed: 'joint target, ...'")
    for field, names in (("joints.names", spec.joints.names), ("action.names", spec.action.names)):
        strange = [name for name in names if name not in robot.joint_names]
        if strange:
            raise PolicyError(
                f"policy_spec.{field} has {strange}, which {robot.name} does not have; allowed: "
                f"{', '.join(robot.joint_names)}"
            )
    _fit_rates(spec)
    _fit_numbers(spec, spec.joints, robot)
    _fit_sizes(spec, spec.joints)
    for limit in spec.limits:
        if limit.applied == "by the caller" and not 0 < limit.value <= RAISABLE.get(limit.name, 0.0):
            raise PolicyError(
                f"policy_spec.limits {limit.name} is {limit.value:g} {limit.unit}; allowed for the caller: "
                + ", ".join(f"{name} up to {most:g}" for name, most in RAISABLE.items())
            )


def _fit_rates(spec: PolicySpec) -> None:
    rates = spec.rates
    substeps = WRITE_HZ / rates.control_hz
    low, high = CONTROL_RANGE
    if not low <= rates.control_hz <= high or abs(substeps - round(substeps)) > 1e-9:
        raise PolicyError(
            f"policy_spec.rates.control_hz is {rates.control_hz:g}; allowed: {low:g} to {high:g}, and a whole part of "
            f"{WRITE_HZ:g}"
        )
    if rates.native_hz != rates.control_hz:
        raise PolicyError(
            f"policy_spec.rates.native_hz is {rates.native_hz:g}; allowed: {rates.control_hz:g}, the control rate"
        )
    substeps = rates.physics_hz / rates.control_hz
    if substeps < 1 or abs(substeps - round(substeps)) > 1e-9:
        raise PolicyError(
            f"policy_spec.rates.physics_hz is {rates.physics_hz:g}; allowed: a multiple of {rates.control_hz:g}"
        )


def _fit_numbers(spec: PolicySpec, joints: JointControl, robot: G1) -> None:
    """Gains, default position and scale of each joint against its tables."""
    at = robot.joint_indices(joints.names)
    lower, upper, torque = robot.lower[at], robot.upper[at], robot.torque_limit[at]
    stiffness, damping = np.array(joints.stiffness), np.array(joints.damping)
    default = np.array(joints.default_position)
    driven = [joints.names.index(name) for name in spec.action.names]
    offset, scale = np.array(spec.action.offset), np.array(spec.action.scale)

    def refuse(field: str, names: tuple[str, ...], values: np.ndarray, good: np.ndarray, allowed: str) -> None:
        wrong = np.flatnonzero(~good)
        if wrong.size:
            raise PolicyError(f"policy_spec.{field} of {names[wrong[0]]} is {values[wrong[0]]:.6g}; allowed: {allowed}")

    refuse("joints.stiffness", joints.names, stiffness, (stiffness > 0) & (stiffness <= STIFFNESS_LIMIT),
           f"above 0, up to {STIFFNESS_LIMIT:g} Nm/rad")  # fmt: skip
    refuse("joints.damping", joints.names, damping, (damping > 0) & (damping <= DAMPING_LIMIT),
           f"above 0, up to {DAMPING_LIMIT:g} Nm s/rad")  # fmt: skip
    refuse("joints.damping", joints.names, damping, stiffness >= STIFFNESS_TO_DAMPING * damping,
           f"at most 1/{STIFFNESS_TO_DAMPING:g} of the stiffness (are the two exchanged?)")  # fmt: skip
    inside = (default >= lower) & (default <= upper)
    refuse("joints.default_position", joints.names, default, inside, "an angle in the joint's range")
    inside = (offset >= lower[driven]) & (offset <= upper[driven])
    refuse("action.offset", spec.action.names, offset, inside, "an angle in the joint's range")
    strength = np.abs(scale) * stiffness[driven] / torque[driven]
    good = (strength > 0) & (strength <= SCALE_LIMIT)
    refuse("action.scale", spec.action.names, scale, good,
           f"not 0, and at most {SCALE_LIMIT:g} times the joint's torque for 1 of action")  # fmt: skip
    low, high = spec.action.clip
    if not low < high:
        raise PolicyError(f"policy_spec.action.clip is {[low, high]}; allowed: two rising numbers")


def _fit_sizes(spec: PolicySpec, joints: JointControl) -> None:
    """One observation of a robot at its default position, upright."""
    observer = Observer(spec, 1, 1.0)
    default = np.array([joints.default_position])
    state = JointState(np.array([[1.0, 0, 0, 0]]), np.zeros((1, 3)), default, np.zeros_like(default))
    observer.observe(state, 0.0, functools.partial(played, np.arange(len(joints.names))))
    for term in spec.observation:
        if not np.isfinite(term.scale) or term.scale == 0:
            raise PolicyError(f"policy_spec.observation term {term.name} has scale {term.scale:g}; allowed: not 0")
