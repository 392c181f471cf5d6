"""What a policy sees. The one implementation: the robot and the evaluation both call it.

A quadrotor policy has a fixed list of inputs. A policy of a robot with joints says in its `policy_spec` what it sees,
and an `Observer` builds that, whatever the terms, their order, scales and histories are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import vectors  # noqa: F401 (before anything is compiled)
from .g1 import RobotError, revision
from .odometry import LegOdometry
from .rotations import conjugate, multiply, rotate, to_matrix
from .spec import ObservationTerm, PolicyError, PolicySpec

QUADROTOR_OBSERVATION_SIZE = 22


def quadrotor_observation(
    position_error_w: ArrayLike,
    quaternion: ArrayLike,
    velocity_error_w: ArrayLike,
    angular_velocity_b: ArrayLike,
    previous_action: ArrayLike,
) -> NDArray[np.float32]:
    """Stacks the 22 inputs of a quadrotor policy, (..., 22).

    Args:
        position_error_w: Position minus reference [m], world frame, (..., 3).
        quaternion: Attitude, body to world, (..., 4). Turn the world so that the reference yaw is zero.
        velocity_error_w: Velocity minus reference [m/s], world frame, (..., 3).
        angular_velocity_b: Angular velocity [rad/s], body frame, (..., 3).
        previous_action: What the policy answered last, in [-1, 1], motor order, (..., 4).
    """
    quaternion = np.asarray(quaternion)
    matrix = to_matrix(quaternion).reshape(*quaternion.shape[:-1], 9)  # row by row
    terms = (position_error_w, matrix, velocity_error_w, angular_velocity_b, previous_action)
    return np.concatenate([np.asarray(term, dtype=np.float32) for term in terms], axis=-1)


@dataclass(frozen=True)
class JointState:
    """What N robots with joints measure. Joints in the order of `policy_spec.joints.names`."""

    quaternion: NDArray[np.floating]
    """Attitude of the root, body to world, (N, 4)."""
    angular_velocity_b: NDArray[np.floating]
    """Of the root, body frame [rad/s], (N, 3)."""
    joint_position: NDArray[np.floating]
    """[rad], (N, J)."""
    joint_velocity: NDArray[np.floating]
    """[rad/s], (N, J)."""


@dataclass(frozen=True)
class MotionSample:
    """Where the motions of N robots are. Joints in the order of `policy_spec.joints.names`."""

    joint_position: NDArray[np.floating]
    """[rad], (N, J)."""
    joint_velocity: NDArray[np.floating]
    """[rad/s], (N, J)."""
    quaternion: NDArray[np.floating]
    """Attitude of the root, body to world, (N, 4)."""
    linear_velocity_w: NDArray[np.floating]
    """Of the root [m/s], (N, 3)."""
    position_w: NDArray[np.floating]
    """Of the root, the floor at height zero [m], (N, 3)."""


Motions = Callable[[NDArray[np.floating]], MotionSample]
"""Where the motions are at these times (N,) [s] since each one's first sample."""


@dataclass(frozen=True)
class _Moment:
    """What a quantity may depend on."""

    spec: PolicySpec
    state: JointState
    previous_action: NDArray[np.floating]  # (N, A)
    phase: NDArray[np.floating] | None  # (N,), none where no motion is tracked
    motion: MotionSample | None  # at the time that the term asks for; none where none is given
    position: NDArray[np.floating] | None  # of the root, by odometry, (N, 3); none where no term needs it


def _phase(now: _Moment) -> NDArray[np.floating]:
    if now.phase is None:
        raise PolicyError("policy_spec.motion is absent; allowed: a motion, since the policy observes its phase")
    return now.phase[:, None]


def _joint_offset(now: _Moment) -> NDArray[np.floating]:
    assert now.spec.joints is not None  # an Observer has checked it
    return now.state.joint_position - np.array(now.spec.joints.default_position)


def _motion(now: _Moment) -> MotionSample:
    if now.motion is None:
        raise PolicyError("the policy observes its motion and there is none; allowed: a clip to play with it")
    return now.motion


def _motion_joint_offset(now: _Moment) -> NDArray[np.floating]:
    assert now.spec.joints is not None  # an Observer has checked it
    return _motion(now).joint_position - np.array(now.spec.joints.default_position)


def _motion_orientation(now: _Moment) -> NDArray[np.floating]:
    turned = to_matrix(multiply(conjugate(now.state.quaternion), _motion(now).quaternion))
    return turned[..., :2].reshape(len(turned), 6)


def _motion_position(now: _Moment) -> NDArray[np.floating]:
    assert now.position is not None  # an Observer keeps account of it where a term samples this
    return rotate(conjugate(now.state.quaternion), _motion(now).position_w - now.position)


QUANTITIES: dict[str, Callable[[_Moment], NDArray[np.floating]]] = {
    "previous_action": lambda now: now.previous_action,
    "angular_velocity": lambda now: now.state.angular_velocity_b,
    "joint_position": lambda now: now.state.joint_position,
    "joint_offset": _joint_offset,
    "joint_velocity": lambda now: now.state.joint_velocity,
    "projected_gravity": lambda now: rotate(conjugate(now.state.quaternion), np.array([0.0, 0.0, -1.0])),
    "phase": _phase,
    "motion_joint_error": lambda now: _motion(now).joint_position - now.state.joint_position,
    "motion_joint_offset": _motion_joint_offset,
    "motion_joint_velocity": lambda now: _motion(now).joint_velocity,
    "motion_orientation": _motion_orientation,
    "motion_gravity": lambda now: rotate(conjugate(_motion(now).quaternion), np.array([0.0, 0.0, -1.0])),
    "motion_velocity": lambda now: rotate(conjugate(_motion(now).quaternion), _motion(now).linear_velocity_w),
    "motion_height": lambda now: _motion(now).position_w[:, 2:],
    "motion_position": _motion_position,
}
"""What a term of a policy with joints may sample, each (N, size):

previous_action: what the policy answered last, clipped, before scaling.
angular_velocity: of the root, body frame [rad/s].
joint_position, joint_offset: angles, and angles relative to the default position [rad].
joint_velocity: [rad/s].
projected_gravity: direction of gravity in the body frame; (0, 0, -1) when upright.
phase: time in the motion, with its lead, divided by its duration.
motion_joint_error: angles of the motion relative to the measured ones [rad].
motion_joint_offset, motion_joint_velocity: angles of the motion relative to the default position [rad]; [rad/s].
motion_orientation: the motion's root in the measured root's frame, first two columns of the matrix, row by row; it
    takes the heading as known, so align the motion with the robot when it starts (`MotionPlayer.align`).
motion_gravity, motion_velocity: direction of gravity and velocity [m/s] of the motion, in its own root's frame.
motion_height: of the motion's root above the floor [m].
motion_position: the motion's root in the measured root's frame [m], by leg odometry since the reset, when the robot was
    where its motion was (`controllers.odometry`).
"""


class Observer:
    """Builds the observations of N robots with joints from their policy's specification, and turns its actions into
    joint targets. Call `observe` and `targets` once each per control step."""

    def __init__(
        self, spec: PolicySpec, batch: int, motion_duration: float | NDArray[np.floating] | None = None
    ) -> None:
        """
        Args:
            spec: Of the policy.
            batch: N.
            motion_duration: Of the motion that is played [s], or of those of each robot (N,), where the specification
                does not say it.
        """
        if spec.joints is None:
            raise PolicyError(f"policy_spec.joints is absent; allowed: joints (the policy is for a {spec.robot})")
        for term in spec.observation:
            if term.sampled not in QUANTITIES:
                raise PolicyError(
                    f"policy_spec.observation term {term.name} samples {term.sampled!r}; allowed: "
                    f"{', '.join(QUANTITIES)}"
                )
            if term.delay:
                raise PolicyError(
                    f"policy_spec.observation term {term.name} has delay {term.delay}; allowed for joints: 0, with age "
                    f"in control steps"
                )
        self.spec = spec
        self.joints = spec.joints
        self.duration = None
        if spec.motion is not None:
            self.duration = spec.motion.duration or motion_duration
            if self.duration is None and any(term.sampled == "phase" for term in spec.observation):
                raise PolicyError("policy_spec.motion.duration is absent; allowed: a motion to play that has one")
        self._driven = [self.joints.names.index(name) for name in spec.action.names]
        self._default = np.array(self.joints.default_position)
        self._scale, self._offset = np.array(spec.action.scale), np.array(spec.action.offset)
        self._aheads = {0.0} | {term.ahead for term in spec.observation}
        self._motion_position: NDArray[np.floating] | None = None  # (N, J) where it was last observed
        self._odometry = None
        if any(term.sampled == "motion_position" for term in spec.observation):
            try:
                self._odometry = LegOdometry(revision(spec.robot), self.joints.names, batch, 1 / spec.rates.control_hz)
            except RobotError as error:
                raise PolicyError(f"policy_spec.observation has motion_position: {error}") from error
        self._past = [np.zeros((batch, term.age + term.history, term.size)) for term in spec.observation]
        self._previous_action = np.empty((batch, spec.action_size))
        self._fresh = np.empty(batch, dtype=bool)  # nothing observed since the reset
        self.reset()

    def reset(self, which: NDArray[np.bool_] | None = None) -> None:
        """Forget what those robots have seen and done, (N,); all of them when absent."""
        which = np.ones(len(self._fresh), dtype=bool) if which is None else which
        self._previous_action[which] = self.spec.action.reset_value
        self._fresh[which] = True

    def observe(
        self, state: JointState, time: float | NDArray[np.floating] = 0.0, motions: Motions | None = None
    ) -> NDArray[np.float32]:
        """The observations (N, inputs) at this control step.

        Args:
            state: What the robots measure.
            time: Since the start of the motion [s], (N,) or one for all.
            motions: The motions, for policies that observe more of them than their phase.
        """
        batch = len(self._fresh)
        phase = None
        at: dict[float, MotionSample] = {}
        if self.spec.motion is not None:
            times = np.broadcast_to(np.asarray(time, dtype=float), (batch,)) + self.spec.motion.lead
            if self.duration is not None:
                phase = times / self.duration
            if motions is not None:
                at = {ahead: motions(times + ahead) for ahead in self._aheads}
                self._motion_position = at[0.0].joint_position
        place = self._odometry and self._located(state, at.get(0.0))
        out = np.empty((batch, self.spec.observation_size), dtype=np.float32)
        begin = 0
        for term, past in zip(self.spec.observation, self._past, strict=True):
            now = _Moment(self.spec, state, self._previous_action, phase, at.get(term.ahead), place)
            sample = self._sampled(term, QUANTITIES[term.sampled](now))
            end = begin + term.history * term.size
            repeat, newest_first = term.fill == "first sample", term.order == "newest first"
            _remember(past, sample, self._fresh, repeat, term.age, newest_first, out[:, begin:end])
            begin = end
        self._fresh[:] = False
        return out

    @property
    def position(self) -> NDArray[np.floating] | None:
        """Where the robots are by leg odometry [m], (N, 3); None where no term needs it."""
        return None if self._odometry is None else self._odometry.position

    def targets(self, action: NDArray[np.floating]) -> NDArray[np.floating]:
        """The joint targets [rad], (N, J), that these actions (N, A) ask for; they become the previous actions."""
        self._previous_action[:] = np.clip(action, *self.spec.action.clip)
        targets = np.tile(self._default, (len(self._fresh), 1))
        base = self._offset
        if self.spec.action.base == "motion":
            if self._motion_position is None:
                raise PolicyError("the actions are relative to a motion and there is none; allowed: observe one first")
            base = base + self._motion_position[:, self._driven]
        targets[:, self._driven] = base + self._scale * self._previous_action
        return targets

    def state(self) -> dict[str, NDArray]:
        """What later observations depend on, as arrays by name."""
        position = np.empty(0) if self._motion_position is None else self._motion_position
        pasts = {f"past.{index}": past.copy() for index, past in enumerate(self._past)}
        if self._odometry is not None:
            pasts |= {f"odometry.{name}": value for name, value in self._odometry.state().items()}
        return pasts | {
            "previous_action": self._previous_action.copy(),
            "fresh": self._fresh.copy(),
            "motion_position": position.copy(),
        }

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """Go on from a `state`."""
        for index, past in enumerate(self._past):
            past[:] = arrays[f"past.{index}"]
        self._previous_action[:], self._fresh[:] = arrays["previous_action"], arrays["fresh"]
        if self._odometry is not None:
            self._odometry.restore({n[9:]: value for n, value in arrays.items() if n.startswith("odometry.")})
        position = arrays["motion_position"]
        self._motion_position = position.copy() if position.size else None

    def _located(self, state: JointState, motion: MotionSample | None) -> NDArray[np.floating]:
        """Where the robots are by odometry, (N, 3); those that begin are where their motion is now."""
        assert self._odometry is not None and self.spec.motion is not None
        if motion is None:
            raise PolicyError("the policy observes its motion and there is none; allowed: a clip to play with it")
        begun = motion.position_w - self.spec.motion.lead * motion.linear_velocity_w
        return self._odometry.step(
            state.quaternion,
            state.angular_velocity_b,
            state.joint_position,
            state.joint_velocity,
            self._fresh,
            begun,
            motion.linear_velocity_w,
        )

    def _sampled(self, term: ObservationTerm, sample: NDArray[np.floating]) -> NDArray[np.float64]:
        """The newest sample (N, size) of a term, scaled and clipped."""
        if sample.shape != (len(self._fresh), term.size):
            raise PolicyError(
                f"{term.name} has shape {sample.shape}; allowed: ({len(self._fresh)}, {term.size}), as policy_spec says"
            )
        if term.scale != 1.0:
            sample = term.scale * sample
        if term.clip is not None:
            sample = np.clip(sample, -term.clip, term.clip)
        return np.asarray(sample, dtype=np.float64)


@numba.njit(
    "void(float64[:, :, ::1], float64[:, :], boolean[::1], boolean, int64, boolean, float32[:, :])",
    cache=True,
)
def _remember(past, sample, fresh, repeat, age, newest_first, out):
    # Put the newest sample (N, size) in front of those of the past (N, samples, size), and what is shown of them, those
    # from `age` on, into out (N, shown * size).
    count, size = past.shape[1], past.shape[2]
    for n in range(len(past)):
        if fresh[n]:
            for k in range(1, count):
                for i in range(size):
                    past[n, k, i] = sample[n, i] if repeat else 0.0
        else:
            for k in range(count - 1, 0, -1):
                for i in range(size):
                    past[n, k, i] = past[n, k - 1, i]
        for i in range(size):
            past[n, 0, i] = sample[n, i]
        for j in range(count - age):
            k = age + j if newest_first else count - 1 - j
            for i in range(size):
                out[n, j * size + i] = past[n, k, i]
