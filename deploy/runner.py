"""The policies of a run, and what each needs to answer: its observer, its memory, its motion."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1, default_pose, gains
from controllers.motion import Clip, MotionPlayer, load_clip
from controllers.observation import JointState, Observer
from controllers.policy import Policy, load_policy
from controllers.safety import Level, Limits
from controllers.spec import PolicyError, PolicySpec
from deploy.checks import Sample
from deploy.fit import RAISABLE, fit
from deploy.modes import Answer, Hold

WARM_UP = 20
"""Inferences before the first that counts: the first ones allocate."""


@dataclass(frozen=True)
class Slot:
    """One policy that may run."""

    name: str
    policy: Policy
    clip: Clip | None

    @property
    def spec(self) -> PolicySpec:
        return self.policy.spec


def load_slots(policies: Sequence[Path], clips: Sequence[Path], robot: G1) -> tuple[Slot, ...]:
    """The policies in these files with their motions, checked against the robot.

    Args:
        policies: Files of `deploy adopt` or `sim train`.
        clips: None, one for all, or one for each.
        robot: The revision in front of us.
    """
    if len(clips) not in (0, 1, len(policies)):
        raise PolicyError(f"{len(policies)} policies and {len(clips)} clips; allowed: none, one, or one for each")
    motions = [load_clip(path) for path in clips] or [None]
    made = []
    for path, clip in zip(policies, motions * (len(policies) if len(motions) == 1 else 1), strict=True):
        policy = load_policy(path)
        if not isinstance(policy, Policy):
            raise PolicyError(f"{path}: a compiled policy; allowed for the G1: policy.onnx")
        try:
            fit(policy, robot, None if clip is None else clip.duration)
            if clip is not None and policy.spec.joints is not None:
                MotionPlayer(clip, policy.spec.joints.names)
        except ValueError as error:
            raise PolicyError(f"{path}: {error}") from error
        made.append(Slot(path.stem, policy, clip))
    rates = {slot.spec.rates.control_hz for slot in made}
    if len(rates) > 1:
        raise PolicyError(f"policies of {sorted(rates)} Hz; allowed: one rate for all of a run")
    return tuple(made)


def gains_of(slot: Slot, robot: G1) -> Hold:
    """Gains while that policy runs, (N,) in the robot's order; joints that it does not know keep the ASAP set's gains
    and their default position."""
    joints = slot.spec.joints
    assert joints is not None
    stiffness, damping = (values.copy() for values in gains(robot, "asap"))
    known = robot.joint_indices(joints.names)
    stiffness[known], damping[known] = joints.stiffness, joints.damping
    return Hold(default_pose(robot), stiffness, damping)


def stand_of(slots: Sequence[Slot], robot: G1) -> Hold:
    """How the robot stands before and after policies: as the first policy's motion begins, else at its default."""
    pose = default_pose(robot)
    stiffness, damping = gains(robot, "asap")
    if slots:
        first = gains_of(slots[0], robot)
        joints = slots[0].spec.joints
        assert joints is not None
        known = robot.joint_indices(joints.names)
        pose[known] = joints.default_position
        stiffness, damping = first.stiffness, first.damping
        clip = slots[0].clip
        if clip is not None:
            shared = [index for index, name in enumerate(clip.joint_names) if name in robot.joint_names]
            at = robot.joint_indices(tuple(clip.joint_names[index] for index in shared))
            pose[at] = clip.joint_position[0, shared]
    return Hold(pose, stiffness, damping)


def limits_of(slots: Sequence[Slot], limits: Limits) -> Limits:
    """The operator's levels, raised to what the policies say of themselves (`policy_spec.limits`, by the caller): a
    policy that spins or jumps does so in its training too."""
    for slot in slots:
        for limit in slot.spec.limits:
            if limit.applied == "by the caller" and limit.name in RAISABLE:
                level = getattr(limits, limit.name)
                if limit.value > level.trip:
                    raised = Level(level.warn / level.trip * limit.value, limit.value)
                    limits = dataclasses.replace(limits, **{limit.name: raised})
    return limits


@dataclass(frozen=True)
class Answered:
    """One control step."""

    answer: Answer
    time: float
    """Since the policy began [s]."""
    observation: NDArray[np.float32]
    """(inputs,)"""
    action: NDArray[np.float32]
    """Raw, (outputs,)"""
    observe_s: float
    """Time that the observation took [s]."""
    inference_s: float
    """The same of the network."""


class Runner:
    """Runs one policy at a time; call `step` once per control period."""

    def __init__(self, slots: Sequence[Slot], robot: G1) -> None:
        self._slots, self._robot = slots, robot
        self._epoch = 0
        self._observers, self._players, self._known = [], [], []
        for slot in slots:
            joints = slot.spec.joints
            assert joints is not None
            duration = None if slot.clip is None else slot.clip.duration
            self._observers.append(Observer(slot.spec, 1, duration))
            self._players.append(None if slot.clip is None else MotionPlayer(slot.clip, joints.names))
            self._known.append(robot.joint_indices(joints.names))
            memory = slot.policy.reset(1)
            for _ in range(WARM_UP):
                slot.policy.step(np.zeros((1, slot.spec.observation_size), np.float32), memory)
        self._memory = np.zeros((1, 0), np.float32)
        self._steps = 0

    def step(self, which: int, epoch: int, sample: Sample) -> Answered:
        """The answer to this state. A new epoch begins with empty histories and the motion's first moment; after its
        last moment the motion stays there.

        Raises PolicyError for a state that is not finite."""
        slot, observer, player = self._slots[which], self._observers[which], self._players[which]
        if epoch != self._epoch:
            self._epoch, self._steps = epoch, 0
            self._memory = slot.policy.reset(1)
            observer.reset()
            if player is not None:
                player.align(sample.quaternion)
        known = self._known[which]
        began = time.perf_counter()
        seconds = self._steps / slot.spec.rates.control_hz
        state = JointState(
            sample.quaternion[None].astype(float),
            sample.angular_velocity[None].astype(float),
            sample.position[None, known].astype(float),
            sample.velocity[None, known].astype(float),
        )
        length = math.inf
        if slot.spec.motion is not None:
            length = slot.spec.motion.duration or (math.inf if slot.clip is None else slot.clip.duration)
        observation = observer.observe(state, min(seconds, length), player)
        observed = time.perf_counter()
        action, self._memory = slot.policy.step(observation, self._memory)
        inferred = time.perf_counter()
        position = default_pose(self._robot)
        position[known] = observer.targets(action)[0]
        self._steps += 1
        finished = seconds >= length - 1e-9
        return Answered(
            Answer(epoch, position, finished), seconds, observation[0], action[0], observed - began, inferred - observed
        )
