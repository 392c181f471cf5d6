"""Left and right exchanged: a robot that is the mirror image of another sees and does the mirror image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from controllers.g1 import gains, revision
from controllers.motion import Clip, load_clip, make_clip
from controllers.spec import Training
from sim.backends.mujoco_cpu import MujocoCpu
from sim.randomize import NONE
from sim.tasks.tracking import Tracking
from sim.tasks.tracking_config import ASAP, TrackingConfig, tracking_spec
from sim.train import mirror
from sim.train.track_config import TRAININGS, TrackConfig

ROBOT = revision("g1_23dof")
KICK = load_clip(Path(__file__).parents[1] / "sim/motions/library/kick.npz")
QUATERNION = np.array([1.0, -1.0, 1.0, -1.0])
CONFIG = TrackingConfig(spread=NONE, robot=ROBOT.name)
SPEC = tracking_spec(CONFIG, Training("test", 0, "", {}, ""), "kick", KICK.duration, None)


def mirrored_joints(names: tuple[str, ...], values: NDArray) -> NDArray:
    index, sign = mirror.joints(names)
    return values[..., index] * sign


def mirrored(clip: Clip) -> Clip:
    joints = mirrored_joints(clip.joint_names, clip.joint_position)
    place = clip.root_position * mirror.VECTOR
    return make_clip(clip.fps, clip.joint_names, place, clip.root_quaternion * QUATERNION, joints)


def test_the_mirror_image_of_a_robot_sees_the_mirror_image() -> None:
    engine = MujocoCpu(ROBOT, 2, *gains(ROBOT, CONFIG.gains), CONFIG.physics_step, CONFIG.substeps, threads=1)
    task = Tracking(engine, [KICK, mirrored(KICK)], CONFIG, SPEC, seed=0)
    task.clip[:], task.at[:] = [0, 1], 70  # on one leg
    rng = np.random.default_rng(1)
    for _ in range(4):  # as many as the policy remembers, and one more
        task.at += 1
        row = task.rows()[0]
        turn = task.table.qpos[row, 3:7] + rng.normal(0, 0.1, 4)
        qpos = np.concatenate([[*rng.normal(0, 0.1, 2), 0.7], turn / np.linalg.norm(turn), rng.normal(0, 0.3, 23)])
        qvel = rng.normal(0, 1.0, 29)
        action = rng.normal(0, 1.0, 23)
        names = ROBOT.joint_names
        other = np.concatenate([qpos[:3] * mirror.VECTOR, qpos[3:7] * QUATERNION, mirrored_joints(names, qpos[7:])])
        back = np.concatenate([qvel[:3] * mirror.VECTOR, qvel[3:6] * mirror.TURN, mirrored_joints(names, qvel[6:])])
        engine.set_state(np.arange(2), np.stack([qpos, other]), np.stack([qvel, back]))
        task.frames = task.kinematics.of(engine.qpos, engine.qvel)
        task.action = np.stack([action, mirrored_joints(names, action)])
        seen = task.observe()
        targets = task.observer.targets(task.action)
        np.testing.assert_allclose(targets[1], mirrored_joints(names, targets[0]), atol=1e-9)
    for name, (index, sign) in {"actor": mirror.actor(SPEC), "critic": mirror.critic(SPEC)}.items():
        assert len(index) == seen[name].shape[1]
        np.testing.assert_allclose(seen[name][0][index] * sign, seen[name][1], atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(index[index], np.arange(len(index)))  # twice is not at all
        np.testing.assert_array_equal(sign * sign[index], 1.0)
    engine.close()


def test_a_batch_is_followed_by_its_mirror_images() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra [train]")
    from tensordict import TensorDict

    sizes = {"actor": SPEC.observation_size, "critic": len(mirror.critic(SPEC)[0])}
    seen = {name: torch.randn(5, size) for name, size in sizes.items()}
    actions, column = torch.randn(5, 23), torch.arange(5.0)[:, None]
    batch = SimpleNamespace(observations=TensorDict(seen, batch_size=5), actions=actions)
    for name in ("old_actions_log_prob", "values", "advantages", "returns"):
        setattr(batch, name, column)
    mirror.Mirroring(SPEC).augment_batch(batch, 5)
    index, sign = mirror.actor(SPEC)
    assert torch.equal(batch.observations["actor"][:5], seen["actor"])
    np.testing.assert_array_equal(batch.observations["actor"][5:], seen["actor"].numpy()[:, index] * sign)
    assert batch.observations["critic"].shape == (10, sizes["critic"])
    np.testing.assert_array_equal(batch.actions[5:], mirrored_joints(ROBOT.joint_names, actions.numpy()))
    np.testing.assert_array_equal(batch.returns[:, 0], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])


def test_what_has_no_mirror_image_is_refused() -> None:
    term = dataclasses.replace(SPEC.observation[0], name="wind", quantity="wind")
    with pytest.raises(ValueError, match="mirror: wind has no mirror image"):
        mirror.actor(dataclasses.replace(SPEC, observation=(term,)))


def test_a_phase_alone_has_no_mirror_image() -> None:
    with pytest.raises(ValueError, match="allowed: --no-mirror"):
        TrackConfig(clip=("kick.npz",), task=ASAP).check()
    assert not TRAININGS["asap"].mirror
