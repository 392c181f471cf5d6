"""The state machine: what each mode commands, which transitions there are, and that damp is latched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.modes import BUTTONS, Answer, Command, Hold, Machine, Mode, Request, Timing, request_of
from deploy.unitree_hg import Remote

DT = 0.002
DAMPING = np.array([5.0, 5.0])
STAND = Hold(np.array([0.2, -0.4]), np.array([100.0, 50.0]), np.array([2.0, 1.0]))
POLICIES = (
    Hold(np.zeros(2), np.array([60.0, 60.0]), np.array([3.0, 3.0])),
    Hold(np.zeros(2), np.array([20.0, 40.0]), np.array([1.0, 2.0])),
)
HUNG = np.array([0.0, 0.1])  # where the joints are on the gantry


class Robot:
    """A machine and its clock; the joints do not move."""

    def __init__(self, timing: Timing = Timing(), then: int | None = None) -> None:  # noqa: B008 (frozen)
        self.machine = Machine(STAND, POLICIES, DAMPING, timing, then)
        self.now = 10.0

    def step(self, request: Request | None = None, **given: Any) -> Command:
        self.now += DT
        return self.machine.step(self.now, given.pop("position", HUNG), request, **given)

    def run(self, seconds: float, **given: Any) -> Command:
        for _ in range(round(seconds / DT)):
            command = self.step(**given)
        return command

    def stand(self) -> Robot:
        self.step(Request("stand"))
        assert self.run(self.machine.timing.ramp + 0.5).mode == Mode.STAND
        return self

    def run_policy(self, which: int, target: list[float]) -> Command:
        self.step(Request("policy", which))
        return self.step(answer=self.answer(target))

    def answer(self, target: list[float], finished: bool = False) -> Answer:
        return Answer(self.machine.epoch, np.array(target), finished)


def gains(command: Command) -> list[float]:
    return [*command.hold.stiffness, *command.hold.damping]


def test_it_begins_without_torque_and_stays_there() -> None:
    command = Robot().run(5.0)
    assert command.mode == Mode.ZERO_TORQUE
    assert gains(command) == [0, 0, 0, 0]


def test_the_ramp_is_a_straight_line_from_where_the_joints_were_at_its_beginning() -> None:
    robot = Robot(Timing(ramp=2.0))
    robot.step(Request("stand"))
    halfway = robot.run(1.0, position=np.array([9.0, 9.0]))  # they sag meanwhile: the line does not care
    assert halfway.mode == Mode.RAMP
    np.testing.assert_allclose(halfway.hold.position, (HUNG + STAND.position) / 2, atol=1e-9)
    np.testing.assert_allclose(gains(halfway), [50, 25, 1, 0.5], atol=1e-9)
    np.testing.assert_array_equal(robot.run(1.1).hold.position, STAND.position)
    assert robot.machine.mode == Mode.STAND


def test_a_ramp_of_less_than_two_seconds_and_a_blend_outside_its_range_are_refused() -> None:
    for timing in (Timing(ramp=1.9), Timing(blend=0.1), Timing(blend=0.6), Timing(damp=1.0)):
        with pytest.raises(ValueError, match=r"is .* s; allowed: "):
            Machine(STAND, POLICIES, DAMPING, timing)


def test_a_policy_takes_over_with_its_first_answer_and_not_before() -> None:
    robot = Robot().stand()
    robot.step(Request("policy", 0))
    waiting = robot.run(0.02)
    assert waiting.mode == Mode.STAND
    assert robot.machine.waiting(robot.now) == pytest.approx(0.02)
    stale = Answer(robot.machine.epoch - 1, np.ones(2))
    assert robot.step(answer=stale).mode == Mode.STAND  # of an earlier request
    assert robot.step(answer=robot.answer([1.0, 1.0])).mode == Mode.POLICY
    assert robot.machine.waiting(robot.now) == 0.0


def test_targets_and_gains_blend_from_the_stand_to_a_policy_and_on_to_another() -> None:
    robot = Robot(Timing(blend=0.4)).stand()
    np.testing.assert_allclose(robot.run_policy(0, [1.0, 1.0]).hold.position, STAND.position)
    command = robot.run(0.2, answer=robot.answer([1.0, 1.0]))
    np.testing.assert_allclose(command.hold.position, [0.6, 0.3], atol=1e-9)
    np.testing.assert_allclose(gains(command), [80, 55, 2.5, 2], atol=1e-9)
    command = robot.run(0.3, answer=robot.answer([1.0, 1.0]))
    np.testing.assert_array_equal(command.hold.position, [1, 1])
    assert gains(command) == [60, 60, 3, 3]
    np.testing.assert_allclose(robot.run_policy(1, [0.0, 0.0]).hold.position, [1, 1])
    command = robot.run(0.2, answer=robot.answer([0.0, 0.0]))
    assert (command.mode, command.policy) == (Mode.POLICY, 1)
    np.testing.assert_allclose(command.hold.position, [0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(gains(command), [40, 50, 2, 2.5], atol=1e-9)


def test_each_request_for_a_policy_begins_a_new_epoch() -> None:
    robot = Robot().stand()
    robot.run_policy(0, [0.0, 0.0])
    first = robot.machine.epoch
    robot.run_policy(0, [0.0, 0.0])
    assert robot.machine.epoch == first + 1


def test_no_target_jumps_on_the_way_through_all_modes() -> None:
    robot = Robot(Timing(blend=0.2, settle=1.0)).stand()
    targets = [robot.run_policy(0, [0.5, 0.5]).hold.position]
    for which in (1, 0, 1):
        robot.step(Request("policy", which))
        for _ in range(150):
            targets.append(robot.step(answer=robot.answer([0.5 - which, 0.5])).hold.position)
    robot.step(Request("stand"))
    targets += [robot.step().hold.position for _ in range(600)]
    assert np.abs(np.diff(targets, axis=0)).max() <= 1.0 * DT / 0.2 * 1.001
    np.testing.assert_array_equal(targets[-1], STAND.position)


def test_the_end_of_the_motion_and_a_lost_remote_lead_back_to_the_stand() -> None:
    for ending in ({"answer": None, "end_policy": True}, {"finished": True}):
        robot = Robot().stand()
        robot.run_policy(0, [0.0, 0.0])
        answer = robot.answer([0.0, 0.0], bool(ending.get("finished")))
        assert robot.step(answer=answer, end_policy=bool(ending.get("end_policy"))).mode == Mode.STAND
        assert robot.run(2.0).policy == -1


@pytest.mark.parametrize("cause", ["the motion ends", "the remote is lost", "the stand is asked for"])
def test_a_policy_that_balances_takes_over_with_a_blend_and_does_not_end_by_itself(cause: str) -> None:
    robot = Robot(Timing(blend=0.4), then=1).stand()
    robot.run_policy(0, [1.0, 1.0])
    robot.run(1.0, answer=robot.answer([1.0, 1.0]))
    lost, old = cause == "the remote is lost", robot.answer([1.0, 1.0], cause == "the motion ends")
    request = Request("stand") if cause == "the stand is asked for" else None
    waiting = robot.step(request, answer=old, end_policy=lost)
    assert (waiting.mode, waiting.policy, robot.machine.wanted) == (Mode.POLICY, 0, 1)
    waiting = robot.run(0.02, answer=old, end_policy=lost)
    np.testing.assert_array_equal(waiting.hold.position, [1, 1])  # until the other has answered
    command = robot.step(answer=robot.answer([0.0, 0.0]), end_policy=lost)
    assert (command.mode, command.policy) == (Mode.POLICY, 1)
    np.testing.assert_allclose(command.hold.position, [1, 1])
    command = robot.run(0.2, answer=robot.answer([0.0, 0.0]), end_policy=lost)
    np.testing.assert_allclose(command.hold.position, [0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(gains(command), [40, 50, 2, 2.5], atol=1e-9)
    command = robot.run(5.0, answer=robot.answer([0.0, 0.0], finished=True), end_policy=lost)
    assert (command.mode, command.policy) == (Mode.POLICY, 1)
    assert robot.step(Request("stand"), answer=robot.answer([0.0, 0.0])).mode == Mode.STAND  # the pose


def test_policies_need_a_stand_and_requests_for_unknown_ones_change_nothing() -> None:
    robot = Robot()
    assert robot.step(Request("policy", 0)).mode == Mode.ZERO_TORQUE
    robot.step(Request("stand"))
    assert robot.step(Request("policy", 0)).mode == Mode.RAMP
    robot.run(4.0)
    assert robot.step(Request("policy", 2)).mode == Mode.STAND
    assert robot.machine.wanted == -1


@pytest.mark.parametrize("before", list(Mode))
@pytest.mark.parametrize("cause", ["trip", "request"])
def test_every_mode_leads_to_damp_at_once_and_damp_holds_no_position(before: Mode, cause: str) -> None:
    robot = Robot()
    if before == Mode.RAMP:
        robot.step(Request("stand"))
    elif before != Mode.ZERO_TORQUE:
        robot.stand()
    if before == Mode.POLICY:
        robot.run_policy(0, [1.0, 1.0])
    elif before == Mode.DAMP:
        robot.step(Request("damp"))
    assert robot.machine.mode == before
    command = robot.step(trip=True) if cause == "trip" else robot.step(Request("damp"))
    assert command.mode == Mode.DAMP
    assert gains(command) == [0, 0, 5, 5]


def test_damp_is_latched_until_it_is_armed_again_two_seconds_later_from_zero_torque() -> None:
    robot = Robot().stand()
    robot.run_policy(0, [1.0, 1.0])
    robot.step(trip=True)
    requests = (Request("stand"), Request("policy", 0), Request("damp"), Request("rearm"), None)
    for request in requests:  # the last one before two seconds have passed
        assert robot.step(request, answer=robot.answer([1.0, 1.0])).mode == Mode.DAMP
    robot.run(2.0)
    for request in (Request("stand"), Request("policy", 0), None):
        assert robot.step(request).mode == Mode.DAMP
    assert robot.step(Request("rearm"), trip=True).mode == Mode.DAMP  # what tripped is still there
    assert robot.step(Request("rearm")).mode == Mode.ZERO_TORQUE
    assert robot.step(Request("policy", 0)).mode == Mode.ZERO_TORQUE
    assert robot.step(Request("stand")).mode == Mode.RAMP


def test_buttons_count_when_they_are_pressed_and_damp_counts_first() -> None:
    assert request_of(Remote(frozenset({"A"})), Remote()) == BUTTONS["A"]
    assert request_of(Remote(frozenset({"A"})), Remote(frozenset({"A"}))) is None
    assert request_of(Remote(frozenset({"A", "B", "Start"})), Remote()) == Request("damp")
    assert request_of(Remote(frozenset({"L2", "B"})), Remote(frozenset({"L2"}))) == Request("damp")
    assert request_of(Remote(frozenset({"L1", "Start"})), Remote(frozenset({"L1"}))) == Request("rearm")
    assert request_of(Remote(frozenset({"Up"})), Remote()) is None
