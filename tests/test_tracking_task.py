"""The tracking task: whoever is where the motion is has error zero, and everything else follows from that."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from controllers.g1 import gains, revision
from controllers.motion import load_clip
from controllers.rotations import from_axis_angle, multiply
from controllers.spec import Training
from sim.backends.mujoco_cpu import MujocoCpu
from sim.randomize import NONE, Spread, Worlds, sample
from sim.robots.g1 import build_model, sole_heights
from sim.robots.g1_kinematics import Kinematics
from sim.tasks import rewards
from sim.tasks.motion_table import make_table
from sim.tasks.tracking import BIN, Tracking
from sim.tasks.tracking_config import ASAP, Ramp, TrackingConfig, tracking_spec

Array = NDArray[np.floating]

ROBOT = revision("g1_23dof")
LIBRARY = Path(__file__).parents[1] / "sim" / "motions" / "library"
SQUAT, KICK = load_clip(LIBRARY / "squat.npz"), load_clip(LIBRARY / "kick.npz")
NOBODY = Training("none", 0, "none", {}, "none")


class Replay:
    """An engine whose robots go where they are told: it stands in for physics that tracks perfectly."""

    qpos: Array
    qvel: Array
    qpos_path: Array
    qvel_path: Array
    next: tuple[Array, Array]

    def __init__(self, count: int, substeps: int = 4) -> None:
        self.robot, self.count, self.physics_step, self.substeps = ROBOT, count, 0.005, substeps
        self.qpos, self.qvel = np.zeros((count, 30)), np.zeros((count, 29))
        self.qpos_path, self.qvel_path = np.zeros((count, substeps, 30)), np.zeros((count, substeps, 29))
        self.targets = np.zeros((count, substeps, 23))
        self.next = (np.tile(np.eye(30)[3], (count, 1)), np.zeros((count, 29)))  # upright at the origin

    def set_state(self, which: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.qpos[which], self.qvel[which] = qpos, qvel
        self.qpos_path[which], self.qvel_path[which] = self.qpos[which, None], self.qvel[which, None]

    def vary(self, which: np.ndarray, worlds: Worlds) -> None: ...

    def step(self, targets: np.ndarray) -> None:
        self.targets = targets.copy()
        self.set_state(np.arange(self.count), *self.next)

    def close(self) -> None: ...


def spec_of(config: TrackingConfig):
    return tracking_spec(config, NOBODY, None, None, None)


def replay(config: TrackingConfig, count: int = 8, seed: int = 0, clips=(SQUAT, KICK)) -> tuple[Tracking, Replay]:
    engine = Replay(count)
    task = Tracking(engine, list(clips), config, spec_of(config), seed)
    task.observe()
    return task, engine


def physics(config: TrackingConfig, count: int, seed: int = 0, threads: int = 1, clips=(SQUAT,)) -> Tracking:
    stiffness, damping = gains(ROBOT, config.gains)
    engine = MujocoCpu(ROBOT, count, stiffness, damping, config.physics_step, config.substeps, threads)
    return Tracking(engine, list(clips), config, spec_of(config), seed)


FULL = Ramp(1.0, 1.0, 1.0, 0.0)
STILL = dataclasses.replace(TrackingConfig(), spread=NONE)


def test_replaying_the_motion_has_no_error_at_any_step_also_across_new_starts() -> None:
    """The off-by-one of delta-action training, and resets that compare with another time, would show here."""
    task, engine = replay(STILL)
    full = sum(w for w in dataclasses.asdict(STILL.weights).values() if w > 0)
    ends = 0
    for _ in range(2 * int(task.table.length.max())):
        rows = task.table.rows(task.clip, task.at + 1)
        engine.next = task.table.qpos[rows], task.table.qvel[rows]
        seen, _, done, info = task.step(np.zeros((task.count, 23)))
        assert info["distance"].max() < 1e-12
        good = sum(getattr(STILL.weights, name) * value for name, value in info["terms"].items()
                   if getattr(STILL.weights, name) > 0)  # fmt: skip
        np.testing.assert_allclose(good, full, atol=1e-6)  # an angle of zero is known to 1e-8 rad
        assert not info["lost"].any()
        rows = task.rows()  # new starts too are exactly on the motion
        np.testing.assert_array_equal(engine.qpos, task.table.qpos[rows])
        assert np.isfinite(seen["actor"]).all() and np.isfinite(seen["critic"]).all()
        ends += done.sum()
    assert ends > task.count


def test_what_the_policy_sees_of_the_motion_is_one_step_ahead_and_measured_against_now() -> None:
    config = dataclasses.replace(STILL, ahead=(0.2,))
    task, _ = replay(config, count=1, clips=(KICK,))
    terms, start = {}, 0
    for term in task.spec.observation:
        terms[term.name] = slice(start, start + term.size * term.history)
        start += term.size * term.history
    task.at[:] = 40
    now, soon, later = (task.table.rows(task.clip, task.at + k)[0] for k in (0, 1, 11))
    task.engine.set_state(np.array([0]), task.table.qpos[[now]], task.table.qvel[[now]])
    seen = task.observe()["actor"][0]
    qpos = task.table.qpos
    np.testing.assert_allclose(seen[terms["motion_joint_error"]], qpos[soon, 7:] - qpos[now, 7:], atol=1e-6)
    assert np.abs(seen[terms["motion_joint_error"]]).max() > 1e-3
    default = np.array(task.spec.joints.default_position)  # type: ignore[union-attr]
    np.testing.assert_allclose(seen[terms["motion_joint_offset_0.2s"]], qpos[later, 7:] - default, atol=1e-6)
    assert seen[terms["motion_height"]] == pytest.approx(qpos[soon, 2])


def test_zero_actions_ask_for_the_motion_itself() -> None:
    task, engine = replay(STILL, count=3)
    rows = task.table.rows(task.clip, task.at + 1)
    engine.next = task.table.qpos[rows], task.table.qvel[rows]
    task.step(np.zeros((3, 23)))
    np.testing.assert_allclose(engine.targets[:, -1], task.table.qpos[rows, 7:])


def test_late_actions_reach_the_joints_late_by_whole_physics_steps() -> None:
    spread = dataclasses.replace(NONE, action_delay=(0.01, 0.01))
    task, engine = replay(dataclasses.replace(STILL, spread=spread, base="offset"), count=2)
    before = task._targets.copy()
    task.step(np.full((2, 23), 0.5))
    np.testing.assert_array_equal(engine.targets[:, :2], np.repeat(before[:, None], 2, axis=1))
    offset, scale = np.array(task.spec.action.offset), np.array(task.spec.action.scale)
    np.testing.assert_allclose(engine.targets[:, 2:], np.broadcast_to(offset + 0.5 * scale, (2, 2, 23)))


def test_robots_begin_on_the_floor_however_far_off_the_motion_they_begin() -> None:
    spread = dataclasses.replace(NONE, start=1.0)
    task = physics(dataclasses.replace(STILL, spread=spread), 64)
    wanted = np.maximum(task.table.sole_height[task.rows()].min(axis=1), 0.0)
    heights = task.kinematics.soles(task.kinematics.of(task.engine.qpos, task.engine.qvel))[0]
    np.testing.assert_allclose(heights.reshape(64, -1).min(axis=1), wanted, atol=1e-9)
    assert np.abs(task.engine.qpos[:, 7:] - task.table.qpos[task.rows(), 7:]).max() > 0.03


def test_kinematics_are_those_of_mujoco() -> None:
    model = build_model(ROBOT, scenery=False)
    data, rng, kinematics = mujoco.MjData(model), np.random.default_rng(0), Kinematics(ROBOT)
    qpos, qvel = rng.normal(size=(4, model.nq)), rng.normal(size=(4, model.nv))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    bodies = kinematics.of(qpos, qvel)
    count = len(kinematics.body_names)
    for row in range(4):
        data.qpos[:], data.qvel[:] = qpos[row], qvel[row]
        mujoco.mj_forward(model, data)
        ids = [model.body(name).id for name in kinematics.body_names]
        sites = [model.site(name).id for name in kinematics.names[count:]]
        np.testing.assert_allclose(bodies.position[row, :count], data.xpos[ids], atol=1e-8)
        np.testing.assert_allclose(bodies.position[row, count:], data.site_xpos[sites], atol=1e-8)
        same = np.abs(np.einsum("bi,bi->b", bodies.quaternion[row, :count], data.xquat[ids]))
        np.testing.assert_allclose(same, 1, atol=1e-8)
        velocity = np.zeros(6)
        for k, body in enumerate(ids):
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            np.testing.assert_allclose(bodies.linear_velocity[row, k], velocity[3:], atol=1e-7)
            np.testing.assert_allclose(bodies.angular_velocity[row, k], velocity[:3], atol=1e-7)
        soles = kinematics.soles(bodies)[0][row].ravel()
        np.testing.assert_allclose(soles, sole_heights(model, data), atol=1e-8)


def test_sole_velocities_are_the_rate_of_change_of_their_places() -> None:
    rng, kinematics, dt = np.random.default_rng(1), Kinematics(ROBOT), 1e-6
    model = build_model(ROBOT, scenery=False)
    qpos, qvel = rng.normal(size=model.nq) * 0.3, rng.normal(size=model.nv)
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    later = qpos.copy()
    mujoco.mj_integratePos(model, later, qvel, dt)
    height, velocity = kinematics.soles(kinematics.of(qpos[None], qvel[None]))
    after = kinematics.soles(kinematics.of(later[None], qvel[None]))[0]
    np.testing.assert_allclose((after - height) / dt, velocity[..., 2], atol=1e-4)


def test_starts_go_where_episodes_fail() -> None:
    task, _ = replay(dataclasses.replace(STILL, uniform=0.2), count=4, clips=(SQUAT,))
    bad = 3
    task.failures[bad] = 5.0
    clip, at = task._starts(20_000)
    assert not clip.any()
    found = np.bincount(at // BIN, minlength=len(task.failures)) / 20_000
    expected = np.full(len(task.failures), 0.2 / len(task.failures))
    expected[bad] += 0.4  # half of the rest where it failed, half in the half second before
    expected[bad - 1] += 0.4
    np.testing.assert_allclose(found[:-2], expected[:-2], atol=0.012)  # near the end starts are earlier


def test_failures_are_remembered_where_they_happen() -> None:
    task, engine = replay(STILL, count=2, clips=(SQUAT,))
    task.at[:] = 60
    task.begun[:] = 50
    engine.next = task.table.qpos[task.rows()].copy(), task.table.qvel[task.rows()].copy()
    engine.next[0][0, 2] -= 0.4  # one robot has sunk
    _, reward, done, info = task.step(np.zeros((2, 23)))
    assert (done.tolist(), info["lost"].tolist(), info["length"].tolist()) == ([True, False], [True, False], [11, 11])
    assert task.failures[61 // BIN] == 1.0 and task.failures.sum() == 1.0
    assert reward[0] < reward[1] - 1.9  # the price of being lost


def test_a_raised_foot_may_be_set_down_but_a_standing_one_not_be_raised() -> None:
    task, engine = replay(STILL, count=2, clips=(KICK,))
    up = int(task.table.sole_height.max(axis=1).argmax())  # row of the highest foot, 30 cm above the floor
    down = 5
    moved = ("right_hip", "right_knee", "right_ankle")
    leg = [7 + index for index, name in enumerate(ROBOT.joint_names) if name.startswith(moved)]
    qpos, qvel = task.table.qpos[[up, down]].copy(), np.zeros((2, 29))
    right = task.ends[1]
    before = task.kinematics.of(qpos, qvel).position[:, right, 2]
    qpos[0, leg], qpos[1, leg] = task.table.qpos[down, leg], task.table.qpos[up, leg]
    raised = task.kinematics.of(qpos, qvel).position[:, right, 2] - before
    assert raised[0] < -task.config.lost_height and raised[1] > task.config.lost_height
    task.at[:] = up - 1, down - 1
    engine.next = qpos, qvel
    info = task.step(np.zeros((2, 23)))[3]
    assert info["lost"].tolist() == [False, True]


def test_curricula_follow_the_length_of_episodes() -> None:
    config = dataclasses.replace(STILL, penalty=Ramp(0.1, 0.0, 1.0, 0.1), lost_distance=Ramp(0.5, 0.4, 0.6, -0.1))
    task, _ = replay(config, count=2)
    task.at[:], task.begun[:] = 100, 0
    ended = np.array([True, False])
    task._mean_length = 43.0
    task._learn_from(ended, ended)
    assert task.level["penalty"] == pytest.approx(0.11)
    assert task.level["lost_distance"] == pytest.approx(0.45)
    task._mean_length = 30.0
    task._learn_from(ended, ended)
    assert task.level["penalty"] == pytest.approx(0.099)
    assert task.level["lost_distance"] == pytest.approx(0.495)


def test_the_published_preset_has_the_published_sizes() -> None:
    task = Tracking(_asap_engine(2), [SQUAT], ASAP, spec_of(ASAP), 0)
    seen = task.observe()
    assert (seen["actor"].shape, seen["critic"].shape) == ((2, 380), (2, 557))
    seen, _, _, info = task.step(np.zeros((2, 23)))
    assert seen["critic"].shape == (2, 557)
    assert set(info["terms"]) == {
        name for name, weight in dataclasses.asdict(ASAP.weights).items() if weight and name != "termination"
    }


def _asap_engine(count: int) -> MujocoCpu:
    robot = revision(ASAP.robot)
    return MujocoCpu(robot, count, *gains(robot, "asap"), threads=1)


def test_a_task_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    rng = np.random.default_rng(3)
    actions = rng.normal(0, 0.3, (24, 6, 23))
    for config in (TrackingConfig(), dataclasses.replace(ASAP, robot="g1_23dof")):
        task = physics(config, 6, seed=4)
        task.observe()
        for action in actions[:12]:
            task.step(action)
        saved = {name: value.copy() for name, value in task.state().items()}
        first = [task.step(action) for action in actions[12:]]
        again = physics(config, 6, seed=99)
        again.restore(saved)
        second = [again.step(action) for action in actions[12:]]
        for (seen, reward, done, _), (other_seen, other_reward, other_done, _) in zip(first, second, strict=True):
            np.testing.assert_array_equal(seen["actor"], other_seen["actor"])
            np.testing.assert_array_equal(seen["critic"], other_seen["critic"])
            np.testing.assert_array_equal(reward, other_reward)
            np.testing.assert_array_equal(done, other_done)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39], ids=str)
def test_a_state_that_is_not_finite_or_diverges_ends_one_episode_and_is_kept(value: float) -> None:
    task, engine = replay(STILL, count=3)
    engine.next = task.table.qpos[task.rows()].copy(), task.table.qvel[task.rows()].copy()
    before = engine.qpos.copy()
    engine.next[1][1, 9] = value
    seen, reward, done, info = task.step(np.zeros((3, 23)))
    assert (info["broken"].tolist(), done.tolist()) == ([False, True, False], [False, True, False])
    assert np.isfinite(seen["actor"]).all() and np.isfinite(reward).all()
    np.testing.assert_array_equal(info["breaks"]["qpos"], before[1:2])
    assert info["breaks"]["targets"].shape == (1, 4, 23)


def test_pushes_change_the_velocity_within_their_limits() -> None:
    spread = dataclasses.replace(NONE, push_speed=0.5, push_turn=0.3, push_period=(0.04, 0.04))
    task, engine = replay(dataclasses.replace(STILL, spread=spread, push=FULL), count=500, clips=(SQUAT,))
    task.at[:] = 10
    for _ in range(2):
        rows = task.table.rows(task.clip, task.at + 1)
        engine.next = task.table.qpos[rows], task.table.qvel[rows]
        task.step(np.zeros((500, 23)))
    change = engine.qvel - task.table.qvel[task.rows()]
    speed = np.linalg.norm(change[:, :2], axis=1)
    assert 0.45 < speed.max() <= 0.5 and speed.min() < 0.1
    assert np.abs(change[:, 2]).max() == 0
    assert 0.25 < np.abs(change[:, 3:6]).max() <= 0.3


def test_the_smallest_push_may_be_the_largest_too() -> None:
    spread = dataclasses.replace(NONE, push_speed=0.5, push_least=1.0, push_period=(0.02, 0.02))
    config = dataclasses.replace(STILL, spread=spread, push=Ramp(0.2, 0.2, 1.0, 1e-3))
    for from_start, strength in ((False, 0.2), (True, 1.0)):  # who is judged is pushed as hard as can be
        engine = Replay(20)
        task = Tracking(engine, [SQUAT], config, spec_of(config), 0, from_start)
        task.observe()
        task.at[:] = 10
        rows = task.table.rows(task.clip, task.at + 1)
        engine.next = task.table.qpos[rows], task.table.qvel[rows]
        _, _, _, info = task.step(np.zeros((20, 23)))
        assert info["pushed"].all()
        change = engine.qvel - task.table.qvel[task.rows()]
        np.testing.assert_allclose(np.linalg.norm(change[:, :2], axis=1), 0.5 * strength)


def test_worlds_lie_within_their_spread_and_none_is_the_robot_on_paper() -> None:
    rng = np.random.default_rng(0)
    worlds = sample(rng, 1000, ROBOT, Spread())
    assert 0.9 <= worlds.mass.min() < 0.91 and 1.09 < worlds.mass.max() <= 1.1
    assert 0.55 < np.mean(~worlds.joint_friction.any(axis=1)) < 0.65
    paper = sample(rng, 3, ROBOT, NONE)
    for field in dataclasses.fields(Worlds):
        value = getattr(paper, field.name)
        unit = field.name in ("mass", "friction", "stiffness", "damping", "armature", "torque_limit")
        assert np.all(value == (1.0 if unit else 0.0)), field.name


def test_rewards_are_those_of_hand_worked_errors() -> None:
    off, none = np.array([[[0.3, 0.0, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 9.0]]]), np.zeros((1, 3, 3))
    two = np.array([0, 1])
    squared = rewards.squared_distance(off, none, two)
    np.testing.assert_allclose(squared, [0.125])
    np.testing.assert_allclose(rewards.distances(off, none, two), [[0.3, 0.4]])
    np.testing.assert_allclose(rewards.closeness(squared, 0.25), np.exp([-2.0]))
    turn = from_axis_angle([0.0, 1.0, 0.0], np.array([0.4]))
    other = multiply(turn, from_axis_angle([1.0, 0, 0], np.array([0.25])))
    assert rewards.squared_angle(turn[:, None], -other[:, None], np.array([0])) == pytest.approx(0.25**2)
    np.testing.assert_allclose(rewards.squared(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]])), [2.0])
    np.testing.assert_allclose(rewards.change(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])), [5.0])
    np.testing.assert_allclose(rewards.beyond(np.array([[1.2, -0.5]]), np.array([0, 0]), np.array([1, 1])), [0.7])
    speeds = np.array([[[[0.0, 3.0, 4.0], [0.0, 0.0, 1.0]]]])  # one foot, two points
    np.testing.assert_allclose(rewards.slip(np.array([[[True, False]]]), speeds), [2.5])
    np.testing.assert_allclose(rewards.foot_tilt(turn[:, None]), [np.sin(0.4)])
    soles = np.array([[[0.0, 0.02], [0.5, 0.5]], [[0.0, 0.0], [0.01, 0.02]], [[0.04, 0.05], [-0.003, 0.0]]])
    wanted = np.array([[0.06, 0.01], [0.30, 0.02], [0.06, 0.0]])  # heels and toes above, the motion's lowest here
    np.testing.assert_allclose(rewards.clearance(soles, wanted, 0.03), [0.0, -1.0 / 3.0, 1.0])  # 3 mm in is standing
    wanted = np.array([[0.0, 0.0], [0.0, 0.06], [0.05, 0.05]])  # the last is a jump
    soles = np.array([[[0.003, 0.02], [0.004, 0.5]], [[0.0, 0.1], [0.3, 0.3]], [[0.1, 0.1], [0.1, 0.1]]])
    np.testing.assert_array_equal(rewards.flight(soles, wanted, 0.002), [1.0, 0.0, 0.0])


def test_who_keeps_a_foot_down_that_the_motion_lifts_is_paid_less_and_the_motion_itself_all() -> None:
    """The kick, held in each of its states and, beside it, in that in which it begins: both feet on the floor."""
    task, engine = replay(STILL, 2, clips=[KICK])
    table, paid = task.table, []
    for row in range(10, table.length[0] - 1, 10):
        task.at[:] = row - 1
        engine.next = table.qpos[[row, 0]], table.qvel[[row, 0]]
        paid.append(task.step(task.action)[3]["terms"]["clearance"])
    motion, standing = np.array(paid).T
    np.testing.assert_allclose(motion, 1.0, atol=1e-3)
    up = table.sole_height[10:-2:10].max(axis=1) > 0.03
    np.testing.assert_allclose(standing[up], 0.0, atol=0.05)
    assert up.sum() == 7  # 1.4 of 6 s


def test_tables_hold_their_last_pose_at_rest() -> None:
    table = make_table([SQUAT, KICK], ROBOT, 0.02, rest=0.4)
    assert (table.length - table.moving).tolist() == [20, 20]
    end = table.start[1] + table.length[1] - 1
    np.testing.assert_array_equal(table.qpos[end], table.qpos[end - 19])
    assert not table.qvel[end].any()
    np.testing.assert_array_equal(table.rows(np.array([0]), np.array([10_000])), [table.length[0] - 1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ahead": (0.03,)}, "0.03 s is no multiple of the control step"),
        ({"robot": "g2"}, "robot 'g2' is not known"),
        ({"uniform": 0.0}, "uniform is 0.0; allowed: above 0"),
        ({"observation": "asap", "robot": "g1_29dof"}, "allowed: a revision of 23 joints"),
        ({"substeps": 0}, "substeps is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(TrackingConfig(), **change).check()
