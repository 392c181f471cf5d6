"""What the robot is doing: zero torque, ramp, stand, policy, damp. A pure state machine, told the time.

    zero torque --stand--> ramp --(time)--> stand <--> policy k <--> policy j
         ^                                                    any --damp, trip--> damp
         +------------------------------rearm (explicit)----------------------------+

The ramp goes in a straight line from where the joints were when it began, measured once; a line drawn anew from where
they are now would feed their sag under gravity back into itself. Stiffness and damping rise with it. From one policy to
another, and to and from the stand, targets and gains blend. Damp is latched: nothing but an explicit request, two
seconds later at the earliest, leads out of it, to zero torque and from there through the ramp again.

The stand is a pose, in which a robot that nothing holds falls. Where a policy that balances is named (`then`), it takes
over from policies whose motion has ended, when the stand is asked for while another policy runs, and when a policy must
give way; it does not end by itself. Asked for again, the stand is the pose.

Positions [rad], gains [Nm/rad, Nm s/rad], times [s]; N joints in the robot's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deploy.unitree_hg import Remote

Array = NDArray[np.floating]


class Mode(IntEnum):
    """As recordings number them."""

    ZERO_TORQUE = 0
    RAMP = 1
    STAND = 2
    POLICY = 3
    DAMP = 4


@dataclass(frozen=True)
class Timing:
    """How long the transitions take."""

    ramp: float = 3.0
    """From zero torque to the stand [s]; 2 or more."""
    blend: float = 0.3
    """Between stand and policies, and from policy to policy [s]; 0.2 to 0.5."""
    settle: float = 1.0
    """From a policy back to the stand [s]."""
    damp: float = 2.0
    """Damping before anything else is allowed [s]; 2 or more."""

    def check(self) -> Timing:
        """Itself, if it is allowed."""
        for name, low, high in (("ramp", 2.0, 30.0), ("blend", 0.2, 0.5), ("settle", 0.2, 10.0), ("damp", 2.0, 60.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value:g} s; allowed: {low:g} to {high:g}")
        return self


@dataclass(frozen=True)
class Hold:
    """Where joints are held, and how hard. (N,) each."""

    position: Array
    stiffness: Array
    damping: Array


@dataclass(frozen=True)
class Command:
    """What all motors are told until the next one; velocity and torque are zero."""

    mode: Mode
    policy: int
    """Which runs; -1 where none does."""
    hold: Hold


@dataclass(frozen=True)
class Request:
    """What the operator wants."""

    kind: Literal["stand", "policy", "damp", "rearm"]
    policy: int = 0
    """Which, for `policy`."""


@dataclass(frozen=True)
class Answer:
    """What a policy wants the motors to do."""

    epoch: int
    """Of the request that it answers, see `Machine.epoch`."""
    position: Array
    """(N,)"""
    finished: bool = False
    """Its motion has ended."""


BUTTONS: dict[str, Request] = {
    "Start": Request("stand"),
    "L1": Request("stand"),
    "A": Request("policy", 0),
    "X": Request("policy", 1),
    "Y": Request("policy", 2),
    "B": Request("damp"),
    "Select": Request("damp"),
}
"""Of the remote, at the moment that they are pressed. L1 with Start arms again after a trip."""

KEYS: dict[str, Request] = {
    "s": Request("stand"),
    **{str(number): Request("policy", number - 1) for number in range(1, 10)},
    " ": Request("damp"),
    "d": Request("damp"),
    "z": Request("rearm"),
}
"""Of the keyboard."""


def request_of(now: Remote, before: Remote) -> Request | None:
    """What a remote asks for whose buttons were `before` and are `now`; damp before everything else."""
    pressed = now.buttons - before.buttons
    wanted = [BUTTONS[name] for name in sorted(pressed) if name in BUTTONS]
    if any(request.kind == "damp" for request in wanted):
        return Request("damp")
    if {"L1", "Start"} <= now.buttons:
        return Request("rearm") if pressed & {"L1", "Start"} else None
    return wanted[0] if wanted else None


class Machine:
    """The modes of one robot. Call `step` once per command."""

    def __init__(
        self,
        stand: Hold,
        policies: tuple[Hold, ...],
        damping: Array,
        timing: Timing = Timing(),
        then: int | None = None,
    ) -> None:
        """
        Args:
            stand: Where and how the robot stands.
            policies: Gains of each policy; its position is for the joints that it does not drive.
            damping: Of the joints in damp [Nm s/rad], (N,).
            timing: Of the transitions.
            then: The policy that balances; none when absent.
        """
        self.timing = timing.check()
        self.mode = Mode.ZERO_TORQUE
        self.policy = -1
        self.wanted = -1
        """The policy that is to run, which may not have answered yet; -1 for none."""
        self.epoch = 0
        """Counts the requests for a policy: each begins with an empty history."""
        self._stand, self._policies, self._damping, self._then = stand, policies, damping, then
        self._running_epoch = 0  # of the policy that runs, or ran last
        self._since = 0.0  # when the mode began
        self._wanted_since = 0.0
        self._from = stand  # what the mode blends from
        self._over = timing.blend  # for how long
        self._last = stand  # what was commanded

    def step(
        self,
        now: float,
        position: Array,
        request: Request | None = None,
        trip: bool = False,
        answer: Answer | None = None,
        end_policy: bool = False,
    ) -> Command:
        """The command at this moment.

        Args:
            now: Any clock that does not go back [s].
            position: Of the joints [rad], (N,).
            request: Of the operator, if there is one.
            trip: Whether a check trips.
            answer: The newest of the policy, if there is one.
            end_policy: Whether a policy must give way, such as when the remote is lost.
        """
        if trip or (request is not None and request.kind == "damp"):
            if self.mode != Mode.DAMP:
                self._enter(Mode.DAMP, now)
        elif request is not None:
            self._follow(request, now, position)
        self._go_on(now, answer, end_policy)
        self._last = self._hold(now, position, answer)
        return Command(self.mode, self.policy, self._last)

    def waiting(self, now: float) -> float:
        """How long a policy has been asked for that has not answered yet [s]; 0 where none is."""
        return now - self._wanted_since if self._unanswered else 0.0

    def damped(self, now: float) -> bool:
        """Whether the robot has been damped for long enough."""
        return self.mode == Mode.DAMP and now - self._since >= self.timing.damp

    def _follow(self, request: Request, now: float, position: Array) -> None:
        """A request that the mode does not allow is not followed."""
        if request.kind == "rearm":
            if self.damped(now):
                self._enter(Mode.ZERO_TORQUE, now)
        elif request.kind == "stand" and self.mode == Mode.ZERO_TORQUE:
            soft = np.zeros_like(self._stand.stiffness)
            self._from = Hold(np.array(position, dtype=float), soft, soft)
            self._enter(Mode.RAMP, now)
        elif request.kind == "stand" and self.mode == Mode.POLICY and self.wanted != self._then:
            self._give_way(now)
        elif request.kind == "stand" and self.mode in (Mode.STAND, Mode.POLICY):
            self._to_stand(now)
        elif request.kind == "policy" and self.mode in (Mode.STAND, Mode.POLICY):
            if 0 <= request.policy < len(self._policies):
                self._want(request.policy, now)

    def _go_on(self, now: float, answer: Answer | None, end_policy: bool) -> None:
        """Transitions that nobody asks for."""
        if self.mode == Mode.RAMP and now - self._since >= self.timing.ramp:
            self._enter(Mode.STAND, now)
            self._from, self._over = self._stand, self.timing.blend
        if self.mode in (Mode.STAND, Mode.POLICY) and self.wanted >= 0:
            answered = answer is not None and answer.epoch == self.epoch
            finished = answer is not None and answered and answer.finished
            if self.wanted != self._then and (end_policy or finished):
                self._give_way(now)
            elif answered and self._unanswered:
                self._from, self._over = self._last, self.timing.blend
                self._enter(Mode.POLICY, now)

    @property
    def _unanswered(self) -> bool:
        """Whether the policy that is wanted has not taken over yet."""
        return self.wanted >= 0 and self._running_epoch != self.epoch

    def _want(self, policy: int, now: float) -> None:
        self.wanted = policy
        self.epoch += 1
        self._wanted_since = now

    def _give_way(self, now: float) -> None:
        """To the policy that balances; to the stand where there is none, or where no policy runs yet."""
        if self._then is None or self.mode != Mode.POLICY:
            self._to_stand(now)
        else:
            self._want(self._then, now)

    def _to_stand(self, now: float) -> None:
        if self.mode == Mode.POLICY:
            self._from, self._over = self._last, self.timing.settle
            self._enter(Mode.STAND, now)
        self.wanted = -1

    def _enter(self, mode: Mode, now: float) -> None:
        self.mode, self._since = mode, now
        if mode == Mode.POLICY:
            self.policy, self._running_epoch = self.wanted, self.epoch
        else:
            self.policy = self.wanted = -1

    def _hold(self, now: float, position: Array, answer: Answer | None) -> Hold:
        none = np.zeros_like(self._damping)
        if self.mode == Mode.ZERO_TORQUE:
            return Hold(np.array(position, dtype=float), none, none)
        if self.mode == Mode.DAMP:
            return Hold(np.array(position, dtype=float), none, self._damping)
        if self.mode == Mode.RAMP:
            return _between(self._from, self._stand, (now - self._since) / self.timing.ramp)
        share = (now - self._since) / self._over
        if self.mode == Mode.STAND:
            return _between(self._from, self._stand, share)
        gains = self._policies[self.policy]
        if answer is None or answer.epoch != self._running_epoch:
            return self._last  # another policy has been asked for and has not answered
        return _between(self._from, Hold(answer.position, gains.stiffness, gains.damping), share)


def _between(first: Hold, second: Hold, share: float) -> Hold:
    """`first` at 0, `second` at 1 and beyond."""
    share = min(max(share, 0.0), 1.0)
    if share == 1.0:
        return second
    return Hold(
        first.position + share * (second.position - first.position),
        first.stiffness + share * (second.stiffness - first.stiffness),
        first.damping + share * (second.damping - first.damping),
    )
