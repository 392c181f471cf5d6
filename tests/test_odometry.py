"""Leg odometry: known answers of standing, rolling, stepping and lifting, and what it is to a policy that drifts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from controllers.g1 import SOLE_RADIUS, RobotError, default_pose, revision
from controllers.observation import JointState, MotionSample, Observer
from controllers.odometry import LegOdometry
from controllers.rotation_vectors import to_vector
from controllers.rotations import conjugate, from_axis_angle, multiply
from controllers.spec import PolicyError, Training
from sim.robots.g1_kinematics import Kinematics
from sim.tasks.tracking_config import TrackingConfig, tracking_spec

ROBOT = revision("g1_23dof")
NAMES = ROBOT.joint_names
KINEMATICS = Kinematics(ROBOT)
START = np.array([[2.0, -1.0, 0.0]])
LEVEL = np.array([1.0, 0.0, 0.0, 0.0])
PERIOD = 0.02


def frames(root: np.ndarray, quaternion: np.ndarray, joints: np.ndarray):
    """Bodies of one robot at rest in that configuration."""
    qpos = np.concatenate([root, quaternion, joints])[None]
    return KINEMATICS.of(qpos, np.zeros((1, qpos.shape[1] - 1)))


class Walker:
    """One robot whose joints and attitude are told step by step; what gyro and joints measure follows from them."""

    def __init__(self) -> None:
        self.odometry = LegOdometry(ROBOT, NAMES, 1, PERIOD)
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, quaternion: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """Where it is then, (3,)."""
        before = self._before or (quaternion, joints)
        turned = to_vector(multiply(conjugate(before[0]), quaternion)) / PERIOD
        rate = (joints - before[1]) / PERIOD
        fresh = np.array([self._before is None])
        self._before = quaternion, joints
        found = self.odometry.step(
            quaternion[None], turned[None], joints[None], rate[None], fresh, START, np.zeros((1, 3))
        )
        return found[0].copy()


def pinned(foot: int, quaternion: np.ndarray, joints: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Where the root is when that foot's frame is at `at`."""
    return at - frames(np.zeros(3), quaternion, joints).position[0, KINEMATICS.feet[foot]]


def test_a_root_that_sways_over_standing_feet_is_where_the_feet_say() -> None:
    walker, pose = Walker(), default_pose(ROBOT)
    walker(LEVEL, pose)
    first = pinned(0, LEVEL, pose, np.zeros(3))
    for angle in np.linspace(0, 0.2, 21):  # about the ankles: the soles stay as they are
        joints = pose.copy()
        for side in ("left", "right"):
            joints[NAMES.index(f"{side}_ankle_pitch_joint")] -= angle
        attitude = from_axis_angle([0.0, 1.0, 0.0], angle)
        found = walker(attitude, joints)
    last = pinned(0, attitude, joints, np.zeros(3))
    moved = found - START[0]
    assert moved[0] > 0.1
    np.testing.assert_allclose(moved[:2], (last - first)[:2], atol=1e-4)


def test_steps_of_two_feet_add_up() -> None:
    """One foot stands while the other swings forward in the air, then they change: as far as the root has come."""
    walker, pose = Walker(), default_pose(ROBOT)
    hip, knee, ankle = (
        [NAMES.index(f"{side}_{joint}_pitch_joint") if joint != "knee" else NAMES.index(f"{side}_knee_joint")
         for side in ("left", "right")]
        for joint in ("hip", "knee", "ankle")
    )  # fmt: skip

    def legs(swing: tuple[float, float], lift: tuple[float, float]) -> np.ndarray:
        joints = pose.copy()
        for side in (0, 1):
            joints[hip[side]] -= swing[side] + 0.5 * lift[side]
            joints[ankle[side]] += swing[side] - 0.5 * lift[side]
            joints[knee[side]] += lift[side]
        return joints

    shares = np.linspace(0, 1, 26)
    poses = [legs((0.0, 0.15 * s), (0.0, 0.8 * np.sin(np.pi * s))) for s in shares]  # the left stands, the right swings
    poses += [legs((0.15 * s, 0.15 - 0.15 * s), (0.8 * np.sin(np.pi * s), 0.0)) for s in shares]
    walker(LEVEL, poses[0])
    root, stands = START[0].copy(), [0] * len(shares) + [1] * len(shares)
    for before, now, foot in zip(poses, poses[1:], stands[1:], strict=False):
        root += pinned(foot, LEVEL, now, np.zeros(3)) - pinned(foot, LEVEL, before, np.zeros(3))
        found = walker(LEVEL, now)
    assert root[0] - START[0, 0] > 0.05
    np.testing.assert_allclose(found[:2], root[:2], atol=0.01)


def test_height_is_above_the_lowest_point_of_the_soles_and_needs_no_history() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints = rng.uniform(ROBOT.lower, ROBOT.upper) * 0.3
        attitude = from_axis_angle(rng.normal(size=3), 0.2)
        found = Walker()(attitude, joints)[2]
        lowest = KINEMATICS.soles(frames(np.zeros(3), attitude, joints))[0].min()
        assert found == pytest.approx(-lowest, abs=1e-9)


def swung(angle: float) -> np.ndarray:
    """The default pose with both legs turned forward about the hips, soles level."""
    joints = default_pose(ROBOT)
    for side in ("left", "right"):
        joints[NAMES.index(f"{side}_hip_pitch_joint")] -= angle
        joints[NAMES.index(f"{side}_ankle_pitch_joint")] += angle
    return joints


def test_feet_that_both_jump_forward_do_not_take_the_robot_back_but_feet_that_go_on_for_long_do() -> None:
    """Both feet swing forward by 7 cm within 40 ms: the robot has hopped and stays where it was, for nothing else could
    throw it back at 1.8 m/s. At 0.4 m/s it is pushed, and after 0.1 s (5 steps) a treadmill is believed."""
    for angles, believed in (([0.05, 0.1], 2), (np.linspace(0.011, 0.11, 10), 0), (np.linspace(0.05, 0.5, 10), 5)):
        walker, all_angles = Walker(), [0.0, *angles]
        first = walker(LEVEL, swung(0.0))
        for angle in angles:
            found = walker(LEVEL, swung(angle))
        begin, end = (pinned(0, LEVEL, swung(all_angles[step]), np.zeros(3)) for step in (believed, -1))
        np.testing.assert_allclose((found - first)[:2], (end - begin)[:2], atol=0.005)
        assert end[0] - begin[0] < -0.06 or believed == 2


def test_each_robot_begins_where_it_is_said_and_alone() -> None:
    odometry = LegOdometry(ROBOT, NAMES, 2, PERIOD)
    pose, rest = np.tile(default_pose(ROBOT), (2, 1)), np.zeros((2, 3))
    level = np.tile(LEVEL, (2, 1))
    both, first = np.array([True, True]), np.array([True, False])
    odometry.step(level, rest, pose, 0 * pose, both, np.array([[1.0, 2, 3], [4, 5, 6]]), rest)
    np.testing.assert_array_equal(odometry.position[:, :2], [[1, 2], [4, 5]])
    found = odometry.step(level, rest, pose, 0 * pose, first, np.array([[7.0, 8, 9], [0, 0, 0]]), rest)
    np.testing.assert_allclose(found[:, :2], [[7, 8], [4, 5]], atol=1e-12)


def test_a_policy_sees_how_far_its_motion_is_away_in_its_own_frame() -> None:
    """A robot that stands, turned left by 90 degrees; its motion goes 0.3 m along x of the world: to its right."""
    spec = tracking_spec(TrackingConfig(), Training("none", 0, "0", {}, "none"), "walk", 10.0, "0")
    observer = Observer(spec, 1)
    attitude = from_axis_angle([0.0, 0.0, 1.0], np.pi / 2)[None]
    pose = default_pose(ROBOT)[None]
    state = JointState(attitude, np.zeros((1, 3)), pose, np.zeros_like(pose))
    height = pinned(0, attitude[0], pose[0], np.array([0.0, 0.0, 0.03 + SOLE_RADIUS]))[2]

    def motion(times: np.ndarray) -> MotionSample:
        times = np.atleast_1d(times)[:, None]
        place = np.concatenate([5.0 + 0.3 * times, 0 * times, height + 0 * times], axis=1)
        return MotionSample(pose, 0 * pose, attitude, np.array([[0.3, 0.0, 0.0]]), place)

    column = spec.observation_names.index("motion_position")
    for step in range(51):
        seen = observer.observe(state, step * 0.02, motion)[0, column : column + 3]
        observer.targets(np.zeros((1, spec.action_size)))
    lead = spec.motion.lead if spec.motion else 0.0
    np.testing.assert_allclose(seen, [0.0, -0.3 * (1.0 + lead), 0.0], atol=1e-6)


def test_an_observer_goes_on_where_it_was_interrupted() -> None:
    rng = np.random.default_rng(1)
    spec = tracking_spec(TrackingConfig(), Training("none", 0, "0", {}, "none"), "walk", 10.0, "0")
    one, other = Observer(spec, 1), Observer(spec, 1)
    pose = default_pose(ROBOT)

    def seen(observer: Observer, step: int, joints: np.ndarray) -> np.ndarray:
        motion = MotionSample(joints, 0 * joints, LEVEL[None], np.zeros((1, 3)), START)
        state = JointState(LEVEL[None], np.zeros((1, 3)), joints, 0 * joints)
        return observer.observe(state, 0.02 * step, lambda times: motion)

    walked = [pose[None] + rng.normal(0, 0.05, (1, len(pose))) for _ in range(8)]
    for step in range(4):
        seen(one, step, walked[step])
    other.restore({name: np.array(value) for name, value in one.state().items()})
    for step in range(4, 8):
        np.testing.assert_array_equal(seen(one, step, walked[step]), seen(other, step, walked[step]))


def test_legs_that_are_not_measured_are_refused() -> None:
    with pytest.raises(RobotError, match="left_hip_pitch_joint"):
        LegOdometry(ROBOT, NAMES[1:], 1, PERIOD)
    spec = tracking_spec(TrackingConfig(), Training("none", 0, "0", {}, "none"), "walk", 10.0, "0")
    with pytest.raises(PolicyError, match="motion_position"):
        Observer(dataclasses.replace(spec, robot="r2d2"), 1)
