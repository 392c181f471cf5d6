"""The runtime on a virtual G1 over DDS, in lock-step: stand, policy, stop; the same bits every time; and every fault
ends in damping that stays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from controllers.g1 import revision
from controllers.motion import load_clip, make_clip, save_clip
from controllers.recording import read_recording
from controllers.safety import Limits
from deploy.bouts import START_AT, bout, tracking_errors
from deploy.faults import KINDS, draw, try_fault
from deploy.modes import Mode, Request
from deploy.runner import Slot, limits_of, load_slots
from sim.motions.detect import Choices
from sim.motions.importers import import_file
from sim.tracking import errors, track
from sim.wrap import read_spec, wrap_policy
from tests.shared_data import shared
from tests.test_base_pose import address
from tests.test_tracking import still
from tests.test_wrap import ASAP, network

DOMAIN = 2 + os.getpid() % 48  # tests that run at the same time do not hear each other
ROBOT = revision("g1_23dof_asap")


QUICK = {"state_frozen", "state_stall", "state_lag", "nan", "motor_fault", "low_battery", "foreign_publisher",
         "controller_selected", "policy_stall", "action_jump", "remote stop B"}  # fmt: skip
UNUSUAL = {"push", "push_left", "wrong_policy"}  # need a policy that walks


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Slot, ...]:
    """A policy that holds the default pose, and a motion of one second that stands still."""
    return holding(tmp_path_factory.mktemp("idle"), 1.0)


def holding(folder: Path, seconds: float) -> tuple[Slot, ...]:
    wrap_policy(network(folder / "actor.onnx", gain=0.0), read_spec(ASAP), folder / "policy.onnx")
    save_clip(folder / "still.npz", still(seconds))
    return load_slots([folder / "policy.onnx"], [folder / "still.npz"], ROBOT)


def test_stand_policy_stop(idle: tuple[Slot, ...], tmp_path: Path) -> None:
    stop = (START_AT + 0.5, Request("damp"))
    made = bout(idle, ROBOT, DOMAIN, START_AT + 0.8, tmp_path, requests=[stop], base_pose=address())
    found = read_recording(made.recording)
    assert found.complete and made.outcome.tripped_at is None
    modes = found.channels["mode"]
    assert [Mode(mode) for mode in modes["mode"]] == [Mode.ZERO_TORQUE, Mode.RAMP, Mode.STAND, Mode.POLICY, Mode.DAMP]
    assert modes["policy"].tolist() == [-1, -1, -1, 0, -1]
    assert len(found.channels["policy_0"]) == 25  # 50 Hz for half a second
    assert len(found.channels["state"]) == len(found.channels["command"])
    np.testing.assert_array_equal(found.channels["state"]["tick"], found.channels["command"]["tick"])
    truth = read_recording(made.truth)
    count = len(found.channels["state"])
    np.testing.assert_array_equal(truth.channels["state"]["tick"][:count], found.channels["state"]["tick"])
    poses = found.channels["base_pose"]  # of every fifth state, as motion capture would send them
    np.testing.assert_array_equal(found.publish_times["base_pose"], found.publish_times["state"][4::5])
    for name in poses.dtype.names or ():
        np.testing.assert_array_equal(poses[name], truth.channels["base_pose"][4:count:5][name])


def test_a_motion_that_ends_leads_back_to_the_stand(tmp_path: Path) -> None:
    made = bout(holding(tmp_path, 0.2), ROBOT, DOMAIN, START_AT + 0.4, tmp_path)
    assert made.outcome.finished
    assert read_recording(made.recording).channels["mode"]["mode"].tolist() == [0, 1, 2, 3, 2]


def test_a_policy_that_balances_takes_over_when_a_motion_has_ended_and_goes_on_after_its_own(tmp_path: Path) -> None:
    """A kick, then standing. The rope is off: in the stand, which is a pose, this robot falls within two seconds."""
    robot, root = revision("g1_23dof"), Path(__file__).parent.parent
    policies = [root / f"controllers/policies/g1-{name}.onnx" for name in ("kick", "stand")]
    kick, whole = root / "sim/motions/library/kick.npz", load_clip(root / "sim/motions/library/stand.npz")
    frames = slice(round(whole.fps) + 1)  # one second of it
    save_clip(
        tmp_path / "short.npz",
        make_clip(whole.fps, whole.joint_names, whole.root_position[frames], whole.root_quaternion[frames],
                  whole.joint_position[frames]),
    )  # fmt: skip
    slots = load_slots(policies, [kick, tmp_path / "short.npz"], robot)
    made = bout(slots, robot, DOMAIN, START_AT + load_clip(kick).duration + 4.0, tmp_path, then=1)
    assert made.outcome.trips == []
    found = read_recording(made.recording)
    assert found.channels["mode"]["mode"].tolist() == [0, 1, 2, 3, 3]
    assert found.channels["mode"]["policy"].tolist() == [-1, -1, -1, 0, 1]
    assert np.ptp(np.diff(found.channels["policy_1"]["tick"].astype(int))) == 0  # it never begins anew
    height = read_recording(made.truth).channels["base_pose"]["position"][-500:, 2]
    assert height.min() > 0.7 and np.ptp(height) < 0.02


def test_a_run_in_lock_step_repeats_bit_for_bit(idle: tuple[Slot, ...], tmp_path: Path) -> None:
    first, second = (bout(idle, ROBOT, DOMAIN, START_AT + 0.5, tmp_path / name, noise=1.0) for name in ("a", "b"))
    assert first.recording.read_bytes() == second.recording.read_bytes()
    truths = [read_recording(made.truth).channels for made in (first, second)]
    count = min(len(truth["truth"]) for truth in truths)  # it ends when it is told, a state sooner or later
    for channel in ("truth", "base_pose", "state"):
        assert truths[0][channel][:count].tobytes() == truths[1][channel][:count].tobytes()
    other = bout(idle, ROBOT, DOMAIN, START_AT + 0.5, tmp_path / "c", noise=1.0, seed=1)
    assert other.recording.read_bytes() != first.recording.read_bytes()


def test_two_policies_blend_into_each_other(idle: tuple[Slot, ...], tmp_path: Path) -> None:
    switch = (START_AT + 0.5, Request("policy", 1))
    made = bout((*idle, *idle), ROBOT, DOMAIN, START_AT + 0.9, tmp_path, requests=[switch])
    found = read_recording(made.recording)
    assert found.channels["mode"]["policy"].tolist() == [-1, -1, -1, 0, 1]
    again = found.channels["policy_1"]["observation"]
    columns = [i for i, name in enumerate(idle[0].spec.observation_names) if name.endswith("_history")]
    assert not again[0, columns].any() and again[1, columns].any()  # it began with an empty past
    assert np.abs(np.diff(found.channels["command"]["position"], axis=0)).max() < 0.05


@pytest.mark.parametrize(
    "kind",
    [
        *sorted(QUICK),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in sorted(set(KINDS) - QUICK - UNUSUAL)),
    ],
)
def test_a_fault_ends_latched_in_damping_within_20_ms_of_the_trip_level(
    kind: str, idle: tuple[Slot, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(list(KINDS).index(kind))
    fault = draw(kind, idle, ROBOT, limits_of(idle, Limits()), rng)
    verdict = try_fault(fault, idle, ROBOT, DOMAIN, tmp_path, 0)
    assert verdict.good, verdict


@pytest.mark.parametrize("name", ["kick_level1", pytest.param("CR7_level1", marks=pytest.mark.slow)])
def test_a_published_policy_tracks_its_motion_through_the_whole_runtime_as_in_the_bare_loop(
    name: str, tmp_path: Path
) -> None:
    wrap_policy(shared(f"policies/asap/{name}.onnx"), read_spec(ASAP), tmp_path / "policy.onnx")
    ((_, motion),) = import_file(shared(f"motions/asap/{name}.pkl"), None, Choices(), None, None)[0:1]
    save_clip(tmp_path / f"{name}.npz", motion)
    slots = load_slots([tmp_path / "policy.onnx"], [tmp_path / f"{name}.npz"], ROBOT)
    clip = load_clip(tmp_path / f"{name}.npz")
    made = bout(slots, ROBOT, DOMAIN, START_AT + clip.duration + 0.1, tmp_path)
    assert made.outcome.finished and made.outcome.trips == []
    through = tracking_errors(made, clip, ROBOT, 50.0)["e_mpjpe"]
    bare = errors(track(slots[0].policy, clip, ROBOT), 50.0)["e_mpjpe"]
    assert through is not None and bare is not None
    assert through < 1.1 * bare
