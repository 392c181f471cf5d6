"""Bouts of the runtime against a virtual G1, in lock-step, over DDS: what tests and campaigns are made of.

A bout: the robot hangs on its gantry; the operator makes it stand; it is lowered; the policy begins; the rope comes
off. What happens next is the script's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.g1 import G1
from controllers.motion import Clip
from controllers.recording import Recording, read_recording
from controllers.rotations import multiply, rotate, yaw
from controllers.safety import Limits
from deploy.base_pose import PoseReceiver
from deploy.controller import Plan
from deploy.lockstep import Outcome, run_lock_step
from deploy.modes import Answer, Mode, Request, Timing
from deploy.runner import Slot, gains_of, limits_of, stand_of
from deploy.wire import G1Link, Network

STAND_AT = 0.1  # [s] since the robot was heard
LOWER_AT, LOWERED_AT = 2.2, 2.8
START_AT = 2.8
RELEASE_AT = 3.0
TIMING = Timing(ramp=2.0)
LIFT = 0.02  # [m]
SLACK = -0.001  # [m]: the feet carry all of it


@dataclass(frozen=True)
class Bout:
    """What came of one."""

    outcome: Outcome
    recording: Path
    truth: Path


def plan_for(slots: Sequence[Slot], robot: G1, limits: Limits, then: int | None = None) -> Plan:
    """The plan of all bouts with these policies."""
    rate = slots[0].spec.rates.control_hz if slots else 50.0
    return Plan(
        robot,
        stand_of(slots, robot),
        tuple(gains_of(slot, robot) for slot in slots),
        rate,
        limits_of(slots, limits),
        TIMING,
        then,
    )


def bout(
    slots: Sequence[Slot],
    robot: G1,
    domain: int,
    duration: float,
    folder: Path,
    events: Sequence = (),
    requests: Sequence[tuple[float, Request]] = (),
    limits: Limits | None = None,
    noise: float = 0.0,
    seed: int = 0,
    disturb: Callable[[float, Answer | None], Answer | None] | None = None,
    base_pose: str | None = None,
    then: int | None = None,
) -> Bout:
    """One bout; the first policy begins at `START_AT`.

    Args:
        slots: Policies.
        robot: Revision of the virtual robot.
        domain: DDS domain, which must be free.
        duration: Of the robot's time [s].
        folder: For `recording.mcap` and `truth.mcap`.
        events: What happens to the robot, beside the gantry (`deploy.virtual_events.Event`).
        requests: What the operator asks for, and when [s], beside stand and the first policy.
        limits: Of the checks; the defaults when absent.
        noise: Of the sensors.
        seed: Of noise.
        disturb: As in `run_lock_step`.
        base_pose: HOST:PORT over which the robot's pose goes into the recording.
        then: The policy that takes over where another's motion has ended.
    """
    from deploy.virtual_body import BodySettings
    from deploy.virtual_events import Event
    from deploy.virtual_g1 import VirtualConfig, VirtualG1

    folder.mkdir(parents=True, exist_ok=True)
    made = Bout(Outcome(), folder / "recording.mcap", folder / "truth.mcap")
    config = VirtualConfig(
        revision=robot.name,
        domain=domain,
        lock_step=True,
        duration=duration + 1.0,
        motion_controller="",
        truth=made.truth,
        lift=LIFT,
        body=BodySettings(noise=noise),
        seed=seed,
        base_pose=base_pose,
    )
    gantry = (Event(LOWER_AT, "gantry", LOWERED_AT - LOWER_AT, SLACK), Event(RELEASE_AT, "release"))
    virtual = VirtualG1(config, [*gantry, *events], log=lambda text: None)
    stopped = threading.Event()
    thread = threading.Thread(target=virtual.run, args=(stopped,), name="virtual G1")
    thread.start()
    link = G1Link(Network(domain=domain), lossless=True)
    asked = [(STAND_AT, Request("stand")), (START_AT, Request("policy", 0)), *requests]

    def script(now: float, mode: Mode) -> Request | None:
        for at, request in asked:
            if now >= at:
                asked.remove((at, request))
                return request
        return None

    poses = PoseReceiver(base_pose) if base_pose else None
    try:
        plan = plan_for(slots, robot, limits or Limits(), then)
        outcome = run_lock_step(link, plan, slots, script, duration, made.recording, disturb, poses)
    finally:
        if poses is not None:
            poses.close()
        stopped.set()
        link.close()
        thread.join()
        virtual.close()
    return Bout(outcome, made.recording, made.truth)


def tracking_errors(made: Bout, clip: Clip, robot: G1, control_hz: float) -> dict[str, float | None]:
    """The errors of `sim.tracking.errors` from the truth of a bout, over the time in which the policy ran. The motion
    begins where the robot is, and as it faces, when the policy begins: it cannot know the place."""
    from sim.robots.g1 import build_model, states_of
    from sim.robots.g1_kinematics import Kinematics
    from sim.tracking import Flown, errors

    run, truth = read_recording(made.recording), read_recording(made.truth)
    kinematics = Kinematics(robot)
    kept = [index for index, name in enumerate(kinematics.names) if "wrist" not in name]
    start, ticks = _policy_ticks(run, control_hz)
    place = {int(tick): index for index, tick in enumerate(truth.channels["truth"]["tick"])}
    rows = [place[tick] for tick in (start, *ticks)]
    pose, joints = truth.channels["base_pose"][rows], truth.channels["truth"]["joint_position"][rows]
    found = np.concatenate([pose["position"], pose["quaternion"], joints], axis=1)
    times = np.arange(len(rows)) / control_hz
    wanted = states_of(clip, build_model(robot), robot, times)[0]
    turn = _about_vertical(float(yaw(found[0, 3:7]) - yaw(wanted[0, 3:7])))
    wanted[:, :3] = rotate(turn, wanted[:, :3] - wanted[0, :3] * [1, 1, 0]) + found[0, :3] * [1, 1, 0]
    wanted[:, 3:7] = multiply(turn, wanted[:, 3:7])

    def points(qpos: np.ndarray) -> np.ndarray:
        return kinematics.of(qpos, np.zeros((len(qpos), 6 + len(robot.joints)))).position[1:, kept]

    flown = Flown(
        completed=1.0,
        points_w=points(found),
        reference_w=points(wanted),
        saturation=0.0,
        power=0.0,
        recovered=np.empty(0),
        lifted=np.empty(0),
        qpos=found,
    )
    return errors(flown, control_hz)


def _about_vertical(angle: float) -> np.ndarray:
    return np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])


def _policy_ticks(run: Recording, control_hz: float) -> tuple[int, list[int]]:
    """Tick of the first state that the policy answered, and those one control step after each answer."""
    period = round(1000 / control_hz)
    ticks = run.channels["policy_0"]["tick"].astype(int)
    return int(ticks[0]), [int(tick) + period for tick in ticks[:-1]]
