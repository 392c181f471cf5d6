"""What a policy file says about itself, so that no consumer has to guess: dataclasses, and the JSON inside the file.

Floats pass through JSON without loss. Whatever does not fit is a `PolicyError` that names the field, what it holds and
what is allowed. Fields that a file may leave out have one meaning when they are absent, and are not written where they
have it: files of robots that do not need them stay as they are.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .airframe import MOTORS

SCHEMA = "realign.policy/1"
"""Raised whenever an older reader would misunderstand a newer file."""


OPTIONAL = types.MappingProxyType({"optional": True})
"""Metadata of the fields that a file may leave out."""


class PolicyError(ValueError):
    """A policy file, or what is fed to a policy, does not fit."""


@dataclass(frozen=True)
class ActionSpec:
    """What the policy answers."""

    names: tuple[str, ...]
    """One name per output, in order."""
    meaning: str
    """What the robot does with `offset + scale * action`."""
    scale: tuple[float, ...]
    """Per output."""
    offset: tuple[float, ...]
    """Per output."""
    clip: tuple[float, float]
    """Range of the outputs. The caller clips the outputs of a network that does not itself keep them in it."""
    reset_value: float
    """The previous action that is observed before there is one."""
    base: Literal["offset", "motion"] = field(default="offset", metadata=OPTIONAL)
    """What `scale * action` is added to: the offset, or the joint angles of the motion plus the offset."""


@dataclass(frozen=True)
class ObservationTerm:
    """A run of inputs with one meaning; terms follow each other in the order of the list."""

    name: str
    size: int
    """Numbers per sample."""
    unit: str
    frame: Literal["world", "body", "body to world", "none"]
    scale: float = 1.0
    """Factor that the caller applies."""
    clip: float | None = None
    """Magnitude that the caller clips to, after scaling; nothing when absent."""
    history: int = 1
    """Samples, one per control step."""
    delay: float = 0.0
    """Age that the newest sample should have [s]."""
    quantity: str | None = field(default=None, metadata=OPTIONAL)
    """What is sampled, where that is not the term's name: two terms may sample the same."""
    age: int = field(default=0, metadata=OPTIONAL)
    """Control steps between the newest sample and now: 1 for a history that the current sample is not part of."""
    order: Literal["newest first", "oldest first"] = field(default="newest first", metadata=OPTIONAL)
    """Of the samples."""
    fill: Literal["zeros", "first sample"] = field(default="zeros", metadata=OPTIONAL)
    """What stands for the samples before the reset."""
    ahead: float = field(default=0.0, metadata=OPTIONAL)
    """Time by which what is sampled of the motion is ahead of the motion's own lead [s]."""

    @property
    def sampled(self) -> str:
        """What is sampled."""
        return self.quantity or self.name


@dataclass(frozen=True)
class Rates:
    """Three rates that are easily mistaken for each other [Hz]."""

    physics_hz: float
    """Simulation steps in training."""
    control_hz: float
    """Actions in training."""
    native_hz: float
    """Advances of the recurrent state on the robot; between them, steps on a copy of it may refresh the action."""


@dataclass(frozen=True)
class RecurrentState:
    """Memory that the caller carries from one step to the next."""

    input: str
    output: str
    size: int
    initial: tuple[float, ...]
    """Value after a reset."""


NO_MEMORY = RecurrentState("", "", 0, ())
"""Of a policy without recurrent state."""


@dataclass(frozen=True)
class JointControl:
    """The joints that a legged robot's policy observes, and the controllers that hold them. Per name, in its order."""

    names: tuple[str, ...]
    """Joints in the order of the observation; those that are not among the action's names stay at their default."""
    default_position: tuple[float, ...]
    """What `joint_offset` is relative to [rad]."""
    stiffness: tuple[float, ...]
    """Torque per angle to the target [Nm/rad]."""
    damping: tuple[float, ...]
    """Torque against velocity [Nm s/rad]."""


@dataclass(frozen=True)
class Motion:
    """The motion that a policy tracks."""

    lead: float
    """Time by which the phase, and what the policy sees of the motion, is ahead of the state [s]."""
    name: str | None = field(default=None, metadata=OPTIONAL)
    """Of the clip; absent for a family of policies, one per clip."""
    duration: float | None = field(default=None, metadata=OPTIONAL)
    """From the first sample to the last [s]; that of the clip which is played with the policy when absent."""
    sha256: str | None = field(default=None, metadata=OPTIONAL)
    """Of the clip's file; not checked when absent."""


@dataclass(frozen=True)
class Limit:
    """A bound on what the policy reacts to."""

    name: str
    value: float
    unit: str
    applied: Literal["inside the network", "by the caller"]


@dataclass(frozen=True)
class Training:
    """Where the policy comes from."""

    command: str
    seed: int
    git_commit: str
    versions: dict[str, str]
    machine: str


@dataclass(frozen=True)
class PolicySpec:
    """Everything that a consumer of a policy file needs beyond the network."""

    robot: str
    action: ActionSpec
    observation: tuple[ObservationTerm, ...]
    rates: Rates
    recurrent: RecurrentState
    limits: tuple[Limit, ...]
    training: Training
    parameter_count: int
    joints: JointControl | None = field(default=None, metadata=OPTIONAL)
    """For robots with joints."""
    motion: Motion | None = field(default=None, metadata=OPTIONAL)
    """For policies that track one."""
    schema: str = SCHEMA

    @property
    def observation_size(self) -> int:
        return sum(term.size * term.history for term in self.observation)

    @property
    def action_size(self) -> int:
        return len(self.action.names)

    def to_json(self) -> str:
        return json.dumps(_plain(self), indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> PolicySpec:
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise PolicyError(f"policy_spec is not JSON: {error}") from error
        found = raw.get("schema") if isinstance(raw, dict) else None
        if found != SCHEMA:
            raise PolicyError(f"policy_spec.schema is {found!r}; allowed: {SCHEMA!r}")
        spec = _parse(PolicySpec, raw, "policy_spec")
        spec.check()
        return spec

    def check(self) -> None:
        """Raises PolicyError at the first field that contradicts another."""
        for name, values in (("scale", self.action.scale), ("offset", self.action.offset)):
            if len(values) != self.action_size:
                raise PolicyError(
                    f"policy_spec.action.{name} has {len(values)} numbers; allowed: {self.action_size}, one per name"
                )
        for where, names in (
            ("action.names", self.action.names),
            ("observation", tuple(term.name for term in self.observation)),
        ):
            if not names or len(set(names)) < len(names):
                raise PolicyError(f"policy_spec.{where} names {list(names)}; allowed: at least one, and none twice")
        for term in self.observation:
            if term.size < 1 or term.history < 1:
                raise PolicyError(
                    f"policy_spec.observation term {term.name} has size {term.size} and history {term.history}; "
                    f"allowed: 1 or more"
                )
            if term.age < 0:
                raise PolicyError(f"policy_spec.observation term {term.name} has age {term.age}; allowed: 0 or more")
        if len(self.recurrent.initial) != self.recurrent.size:
            raise PolicyError(
                f"policy_spec.recurrent.initial has {len(self.recurrent.initial)} numbers; "
                f"allowed: {self.recurrent.size}, its size"
            )
        for name, rate in dataclasses.asdict(self.rates).items():
            if rate <= 0:
                raise PolicyError(f"policy_spec.rates.{name} is {rate}; allowed: above 0")
        if self.joints is not None:
            self._check_joints(self.joints)
        if self.motion is None and self.action.base == "motion":
            raise PolicyError("policy_spec.action.base is 'motion'; allowed without policy_spec.motion: 'offset'")
        if self.motion is not None and self.motion.duration is not None and self.motion.duration <= 0:
            raise PolicyError(f"policy_spec.motion.duration is {self.motion.duration}; allowed: above 0")

    def _check_joints(self, joints: JointControl) -> None:
        for name, values in dataclasses.asdict(joints).items():
            if len(values) != len(joints.names):
                raise PolicyError(
                    f"policy_spec.joints.{name} has {len(values)} numbers; allowed: {len(joints.names)}, one per name"
                )
        if len(set(joints.names)) < len(joints.names):
            raise PolicyError(f"policy_spec.joints.names is {list(joints.names)}; allowed: none twice")
        strange = [name for name in self.action.names if name not in joints.names]
        if strange:
            raise PolicyError(f"policy_spec.action.names has {strange}; allowed: those of policy_spec.joints.names")

    def check_inputs(self, observation: np.ndarray, state: np.ndarray) -> None:
        """Raises PolicyError unless both are (batch, their size) and finite; names the first number that is not."""
        if observation.ndim != 2 or observation.shape[1] != self.observation_size:
            raise PolicyError(
                f"observation has shape {observation.shape}; allowed: (any number, {self.observation_size})"
            )
        expected = (len(observation), self.recurrent.size)
        if state.shape != expected:
            raise PolicyError(f"recurrent state has shape {state.shape}; allowed: {expected}")
        for array, names in ((observation, self.observation_names), (state, (self.recurrent.input,) * state.shape[1])):
            if not np.isfinite(array).all():
                row, column = np.argwhere(~np.isfinite(array))[0]
                name, index = names[column], column - names.index(names[column])
                raise PolicyError(f"{name}[{index}] of robot {row} is {array[row, column]}; allowed: finite numbers")

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The term that each input belongs to."""
        return tuple(term.name for term in self.observation for _ in range(term.size * term.history))

    def initial_state(self, batch: int) -> np.ndarray:
        """The recurrent state after a reset, (batch, size)."""
        return np.tile(np.asarray(self.recurrent.initial, dtype=np.float32), (batch, 1))


def quadrotor_spec(
    initial_state: typing.Sequence[float],
    parameter_count: int,
    training: Training,
    acceleration: bool = False,
    physics_hz: float = 100.0,
) -> PolicySpec:
    """The specification of a quadrotor policy.

    Args:
        initial_state: Recurrent state after a reset; its length is the number of hidden units.
        parameter_count: Trained numbers in the network.
        training: Where it comes from.
        acceleration: Whether the reference acceleration follows the 22 inputs.
        physics_hz: Simulation steps per second in training.
    """
    observation = [
        ObservationTerm("position_error", 3, "m", "world"),
        ObservationTerm("rotation_matrix", 9, "1", "body to world"),
        ObservationTerm("velocity_error", 3, "m/s", "world"),
        ObservationTerm("angular_velocity", 3, "rad/s", "body"),
        ObservationTerm("previous_action", 4, "1", "none"),
    ]
    limits = [
        Limit("position_error", POSITION_ERROR_LIMIT, "m", "inside the network"),
        Limit("velocity_error", VELOCITY_ERROR_LIMIT, "m/s", "inside the network"),
        Limit("yaw_error", YAW_ERROR_LIMIT, "rad", "inside the network"),
    ]
    if acceleration:
        observation.append(ObservationTerm("reference_acceleration", 3, "m/s^2", "world"))
        limits.append(Limit("reference_acceleration", ACCELERATION_LIMIT, "m/s^2", "inside the network"))
    return PolicySpec(
        robot="quadrotor",
        action=ActionSpec(
            names=MOTORS,
            meaning="motor command, 0 is off and 1 is full",
            scale=(0.5,) * 4,
            offset=(0.5,) * 4,
            clip=(-1.0, 1.0),
            reset_value=0.0,
        ),
        observation=tuple(observation),
        rates=Rates(physics_hz=physics_hz, control_hz=100.0, native_hz=100.0),
        recurrent=RecurrentState("h_in", "h_out", len(initial_state), tuple(float(x) for x in initial_state)),
        limits=tuple(limits),
        training=training,
        parameter_count=parameter_count,
    )


POSITION_ERROR_LIMIT = 0.5  # [m] per axis
VELOCITY_ERROR_LIMIT = 1.0  # [m/s] per axis
ACCELERATION_LIMIT = 5.0  # [m/s^2] per axis
YAW_ERROR_LIMIT = math.pi / 4  # [rad]


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, without optional fields that hold their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((item, getattr(value, item.name)) for item in dataclasses.fields(value))
        return {i.name: _plain(x) for i, x in items if not (i.metadata.get("optional") and x == i.default)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _parse(kind: Any, value: Any, field: str) -> Any:
    """The JSON `value` as the annotated type `kind`, or a PolicyError that names `field`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _misfit(field, value, "an object")
        types_of = typing.get_type_hints(kind)
        for key in value:
            if key not in types_of:
                raise PolicyError(f"{field}.{key} is unknown; allowed: {', '.join(types_of)}")
        for item in dataclasses.fields(kind):
            if item.name not in value and not item.metadata.get("optional"):
                raise PolicyError(f"{field}.{item.name} is missing; allowed: a value")
        return kind(**{key: _parse(types_of[key], item, f"{field}.{key}") for key, item in value.items()})
    if origin is tuple:
        length = None if arguments[-1] is Ellipsis else len(arguments)
        if not isinstance(value, list) or length not in (None, len(value)):
            raise _misfit(field, value, "a list" if length is None else f"a list of {length}")
        return tuple(_parse(arguments[0], item, f"{field}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _misfit(field, value, "an object")
        return {key: _parse(arguments[1], item, f"{field}.{key}") for key, item in value.items()}
    if origin is types.UnionType:  # X | None
        return None if value is None else _parse(arguments[0], value, field)
    if origin is Literal:
        if value not in arguments:
            raise _misfit(field, value, ", ".join(map(repr, arguments)))
        return value
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _misfit(field, value, "a finite number")
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _misfit(field, value, {int: "a whole number", str: "text"}[kind])
    return value


def _misfit(field: str, value: Any, allowed: str) -> PolicyError:
    return PolicyError(f"{field} is {json.dumps(value)[:60]}; allowed: {allowed}")
