"""Checks over time: clocks that stand, counters, and that a level is said once while it lasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controllers.g1 import default_pose, revision
from controllers.safety import TRIP, WARN, Finding, Limits
from deploy.checks import Checks, Sample
from deploy.modes import Hold

ROBOT = revision("g1_29dof")
N = len(ROBOT.joints)
DT = 0.002


class Flow:
    """States at 500 Hz of a robot that stands still with a working IMU."""

    def __init__(self, **limits: Any) -> None:
        self.checks = Checks(ROBOT, dataclasses.replace(Limits(), **limits))
        self.now, self.tick = 5.0, 100
        self.rng = np.random.default_rng(0)

    def sample(self, **changed: Any) -> Sample:
        made = Sample(
            tick=self.tick,
            mode_machine=5,
            quaternion=np.array([1.0, 0, 0, 0]),
            angular_velocity=self.rng.normal(0, 0.01, 3),
            linear_acceleration=np.array([0, 0, 9.81]),
            position=default_pose(ROBOT),
            velocity=np.zeros(N),
            torque=np.zeros(N),
            temperature=np.full((N, 2), 40),
            motor_fault=np.zeros(N, dtype=int),
            motor_on=np.ones(N, dtype=bool),
            remote=bytes([1] * 40),
        )
        return dataclasses.replace(made, **changed)

    def step(self, ticks: int = 2, remote_needed: bool = False, **changed: Any) -> tuple[list[Finding], bool, bool]:
        self.now += DT
        self.tick += ticks
        self.checks.state(self.now, self.sample(**changed))
        return self.checks.close(self.now, remote_needed)

    def silence(self) -> tuple[list[Finding], bool, bool]:
        self.now += DT
        return self.checks.close(self.now, False)


def until_trip(step: Any, most: int = 2000) -> tuple[int, dict[str, int]]:
    """Steps until something trips, and the level of what was said by then."""
    said: dict[str, int] = {}
    for count in range(1, most):
        risen, tripped, _ = step()
        said |= {finding.check: finding.level for finding in risen}
        if tripped:
            return count, said
    return most, said


def test_a_robot_that_stands_still_says_nothing() -> None:
    flow = Flow()
    for _ in range(600):
        assert flow.step() == ([], False, False)


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        ("state_values", {"position": np.full(N, np.nan)}),
        ("quaternion_length", {"quaternion": np.zeros(4)}),
        ("tilt", {"quaternion": np.array([np.cos(0.6), np.sin(0.6), 0, 0])}),
        ("angular_rate", {"angular_velocity": np.array([0, 0, -11.0])}),
        ("joint_speed", {"velocity": -1.1 * ROBOT.speed_limit}),
        ("joint_position", {"position": ROBOT.upper + 0.3}),
        ("temperature", {"temperature": np.full((N, 2), [30, 101])}),
        ("motor_fault", {"motor_fault": np.eye(N, dtype=int)[3]}),
        ("mode_machine", {"mode_machine": 6}),
        ("position_jump", {"position": default_pose(ROBOT) + 0.5}),
    ],
)
def test_one_bad_state_trips_at_once_and_is_named(check: str, changed: dict[str, Any]) -> None:
    flow = Flow()
    flow.step()
    risen, tripped, _ = flow.step(**changed)
    assert tripped
    assert check in {finding.check for finding in risen if finding.level == TRIP}


def test_silence_warns_after_10_and_trips_after_50_milliseconds() -> None:
    flow = Flow()
    flow.step()
    count, said = until_trip(flow.silence)
    assert said == {"stale_state": TRIP}
    assert 50 <= 1000 * DT * count <= 54
    flow = Flow()
    flow.step()
    risen = [flow.silence()[0] for _ in range(6)]
    assert [finding.level for finding in risen[5]] == [WARN] and not any(risen[:5])


def test_a_clock_that_stands_trips_although_messages_arrive() -> None:
    flow = Flow()
    flow.step()
    count, said = until_trip(lambda: flow.step(ticks=0))
    assert said == {"frozen_tick": TRIP} and 50 <= 1000 * DT * count <= 54


def test_states_that_arrive_ever_later_trip_although_none_is_missing() -> None:
    flow = Flow()
    flow.step()
    flow.tick *= 100  # so that it can say it in whole milliseconds: each state is later than the last by 0.2 ms

    def later() -> tuple[list[Finding], bool, bool]:
        flow.tick += 180
        flow.now += DT
        flow.checks.state(flow.now, flow.sample(tick=flow.tick // 100))
        return flow.checks.close(flow.now, False)

    count, said = until_trip(later)
    assert said == {"state_lag": TRIP} and 250 <= count <= 260


def test_a_clock_of_the_robot_that_is_slower_by_a_thousandth_is_no_lag() -> None:
    flow = Flow()
    for number in range(2000):  # 200 s: 0.2 s in all
        flow.now = 5.0 + 0.1 * number
        flow.checks.state(flow.now, flow.sample(tick=int(0.999 * 100 * number)))
        assert flow.checks.close(flow.now, False) == ([], False, False)


def test_a_motor_that_switches_itself_off_trips_and_one_that_never_said_it_was_on_does_not() -> None:
    flow = Flow()
    on = np.arange(N) != 4
    for _ in range(50):
        assert flow.step(motor_on=on) == ([], False, False)
    count, said = until_trip(lambda: flow.step(motor_on=on & (np.arange(N) != 7)))
    assert said == {"motor_off": TRIP} and 1000 * DT * count == pytest.approx(52, abs=2)


def test_a_motor_that_gives_nothing_where_much_is_asked_trips_and_one_that_gives_late_or_little_does_not() -> None:
    limit, third = ROBOT.torque_limit, np.arange(N) == 3

    def trips_with(asked: float, given: Callable[[int], float]) -> bool:
        flow, tripped = Flow(), False
        hold = Hold(default_pose(ROBOT) + third * asked * limit / 100, np.full(N, 100.0), np.ones(N))
        for number in range(500):
            flow.now += DT
            flow.checks.motors(flow.now, hold, flow.sample(torque=third * given(number) * limit))
            risen, now, _ = flow.checks.close(flow.now, False)
            tripped |= now
            assert all((finding.check, finding.where) == ("motor_torque", 3) for finding in risen)
        return tripped

    assert trips_with(0.11, lambda _: 0.0) and trips_with(-0.5, lambda _: 0.01)
    assert not trips_with(0.09, lambda _: 0.0)  # so little is not missed
    assert not trips_with(0.5, lambda _: 0.05)
    assert not trips_with(0.5, lambda number: 0.1 * np.sin(number / 10))  # what it gives goes through zero


def test_an_imu_without_noise_has_stopped() -> None:
    flow = Flow()
    still = flow.sample()
    frozen = {name: getattr(still, name) for name in ("quaternion", "angular_velocity", "linear_acceleration")}
    flow.step(**frozen)
    _, said = until_trip(lambda: flow.step(**frozen))
    assert said == {"frozen_imu": TRIP}


def test_five_wrong_checksums_in_a_row_trip_and_a_share_of_them_warns() -> None:
    flow = Flow()
    for row, trips in ((4, False), (5, True)):
        flow.checks.crc(flow.now, 100 + row, row, row)
        assert flow.checks.close(flow.now, False)[1] is trips
    flow = Flow()
    for count in range(600):  # one of fifty
        flow.now += DT
        flow.checks.crc(flow.now, count, count // 50, 0)
        risen, tripped, _ = flow.checks.close(flow.now, False)
        assert not tripped
        if risen:
            assert (risen[0].check, risen[0].level) == ("crc_share", WARN)
            return
    raise AssertionError("nothing was said")


def test_targets_that_are_no_numbers_or_jump_trip() -> None:
    flow = Flow()
    pose = default_pose(ROBOT)
    flow.checks.answer(pose)
    assert not flow.checks.close(flow.now, False)[1]
    flow.checks.answer(pose + 2.1)
    assert flow.checks.close(flow.now, False)[1]
    flow.checks.new_policy()
    flow.checks.answer(pose - 2.1)  # another policy's first
    assert not flow.checks.close(flow.now, False)[1]
    flow.checks.answer(np.where(np.arange(N) == 4, np.nan, pose))
    assert [finding.check for finding in flow.checks.close(flow.now, False)[0]] == ["action_values"]


def test_a_command_far_beyond_the_torque_limit_trips() -> None:
    flow = Flow()
    pose = default_pose(ROBOT)
    for share, trips in ((3.9, False), (4.1, True)):
        away = share * ROBOT.torque_limit / 100
        flow.checks.command(Hold(pose + away, np.full(N, 100.0), np.ones(N)), flow.sample())
        assert flow.checks.close(flow.now, False)[1] is trips


def test_a_level_is_said_once_while_it_lasts_and_again_when_it_comes_back() -> None:
    flow = Flow()
    hot: dict[str, Any] = {"temperature": np.full((N, 2), 90)}
    said = [len(flow.step(**hot)[0]) for _ in range(1500)]
    assert sum(said) == 1 == said[0]
    for _ in range(600):
        flow.step()
    assert len(flow.step(**hot)[0]) == 1


def test_a_silent_remote_ends_policies_but_trips_nothing() -> None:
    flow = Flow()
    flow.step()
    for needed, lost in ((False, False), (True, True)):
        for _ in range(1600):
            _, tripped, found = flow.step(remote_needed=needed, remote=bytes(40))
            assert not tripped
        assert found is lost


def test_a_remote_that_was_never_heard_is_not_lost() -> None:
    flow = Flow()
    for _ in range(1600):
        assert flow.step(remote_needed=True, remote=bytes(40)) == ([], False, False)


@pytest.mark.parametrize(
    "check", ["policy_died", "runtime_died", "writer_died", "guard_died", "own_controller", "operator"]
)
def test_what_others_notice_trips(check: str) -> None:
    flow = Flow()
    flow.checks.report(check, 1.0)
    risen, tripped, _ = flow.checks.close(flow.now, False)
    assert tripped and [finding.check for finding in risen] == [check]
