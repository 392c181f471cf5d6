"""Training of tracking policies: it learns, it can be interrupted anywhere, and what it writes is a policy."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from controllers.g1 import revision
from controllers.motion import MotionPlayer, load_clip
from controllers.observation import JointState, Observer
from controllers.policy import Policy, load_policy
from controllers.spec import PolicyError
from deploy.fit import fit
from sim import cli
from sim import run as run_module
from sim.randomize import NONE
from sim.run import Run, RunError
from sim.tasks.tracking_config import ASAP, TrackingConfig
from sim.train.track_config import TrackConfig

pytest.importorskip("rsl_rl", reason="needs the extra [train]")

import torch

from sim.export_mlp import write_mlp
from sim.train import track
from sim.train.ranks import Ranks
from sim.train.track import Judgement, combined, keep_breaks, load_clips, replay_breaks, train_tracking

CLIP = str(Path(__file__).parents[1] / "sim" / "motions" / "library" / "bow.npz")
TINY = TrackConfig(
    clip=(CLIP,),
    robots=8,
    steps=6,
    iterations=4,
    hidden=(16,),
    epochs=1,
    batches=2,
    judged=4,
    judge_every=2,
    seed=5,
    video=False,
)


def train(folder: Path, config: TrackConfig = TINY) -> Path:
    with Run.create(folder, "g1-track", config, config.seed) as run:
        train_tracking(run, config)
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "checkpoint.npz") as file:
        return {name: file[name] for name in file.files if name != "record"}


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key and not key.endswith("_s")}
            for line in lines]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("track") / "run")


def test_a_training_leaves_a_policy_that_says_all_about_itself(run: Path) -> None:
    policy = load_policy(run / "policy.onnx")
    spec = policy.spec
    assert (spec.robot, spec.action.base, spec.rates.control_hz) == ("g1_23dof", "motion", 50.0)
    assert spec.motion is not None and spec.motion.name == "bow"
    assert spec.motion.duration == pytest.approx(load_clip(Path(CLIP)).duration)
    assert spec.parameter_count == spec.observation_size * 16 + 16 + 16 * 23 + 23
    assert spec.training.seed == 5
    keys = {entry.key: entry.value for entry in onnx.load(run / "policy.onnx").metadata_props}
    assert keys["joint_names"].split(",") == list(spec.joints.names)  # type: ignore[union-attr]
    assert [float(x) for x in keys["joint_stiffness"].split(",")] == list(spec.joints.stiffness)  # type: ignore[union-attr]
    assert len(metrics(run)) == 4 and "success" in metrics(run)[1]


def test_a_robot_can_run_the_policy_from_the_file_and_the_clip_alone(run: Path) -> None:
    policy, clip = load_policy(run / "policy.onnx"), load_clip(Path(CLIP))
    joints = policy.spec.joints
    assert joints is not None
    observer, player = Observer(policy.spec, 1), MotionPlayer(clip, joints.names)
    state = clip.at(1.0)
    measured = JointState(
        state.root_quaternion, np.zeros((1, 3)), player.clip.at(1.0).joint_position, np.zeros((1, len(joints.names)))
    )
    player.align(state.root_quaternion[0], 1.0)
    with pytest.raises(PolicyError, match="observes its motion and there is none"):
        Observer(policy.spec, 1).observe(measured, 1.0)
    action, _ = policy.step(observer.observe(measured, 1.0, player), policy.reset(1))
    targets = observer.targets(action)
    np.testing.assert_allclose(
        targets, player(np.array([1.02])).joint_position + np.array(policy.spec.action.scale) * action, atol=1e-6
    )


def test_the_robots_runtime_accepts_the_policy_on_the_robot_of_29_joints(run: Path) -> None:
    policy = load_policy(run / "policy.onnx")
    assert isinstance(policy, Policy)
    fit(policy, revision("g1_29dof"))


def test_the_same_seed_gives_the_same_weights_and_a_resumed_training_does_too(run: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, iterations=2)
    train(tmp_path / "halved", short)
    content = json.loads((tmp_path / "halved" / "config.json").read_text())
    content["config"]["iterations"] = 4
    (tmp_path / "halved" / "config.json").write_text(json.dumps(content))
    with Run.open(tmp_path / "halved", "g1-track") as halved:
        config = halved.config(TrackConfig)
        assert config == TINY
        train_tracking(halved, config)
    first, second = weights(run), weights(tmp_path / "halved")
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert metrics(run) == metrics(tmp_path / "halved")


def test_a_killed_training_goes_on_to_the_same_end(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, iterations=60, judge_every=30)
    whole = train(tmp_path / "whole", config)
    folder = tmp_path / "killed"
    Run.create(folder, "g1-track", config, config.seed).close()
    code = (
        "import sim.run, sys; from pathlib import Path; sim.run.CHECKPOINT_PERIOD = 0.0; sim.run.WRITING_SHARE = 1.0\n"
        "from sim.run import Run; from sim.train.track import train_tracking; from sim.train.track_config import *\n"
        "run = Run.open(Path(sys.argv[1])); train_tracking(run, run.config(TrackConfig))"
    )
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], env=os.environ | {"PYTHONPATH": root})
    deadline = time.monotonic() + 120
    while len((folder / "metrics.jsonl").read_bytes().splitlines()) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "checkpoint.npz").exists() and process.returncode == -signal.SIGKILL
    with Run.open(folder) as killed:
        train_tracking(killed, killed.config(TrackConfig))
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(value, weights(folder)[name], err_msg=name)


def saving_always(ranks: Ranks, folder: Path, config: TrackConfig) -> None:
    """One of several processes, with a checkpoint after each update."""
    run_module.CHECKPOINT_PERIOD, run_module.WRITING_SHARE = 0.0, 1.0
    TAKE_PART(ranks, folder, config)


TAKE_PART = track._take_part
RESUME_AS_TWO = """
import sys
from sim import cli
from sim.train import track
from tests.test_track import saving_always
track._take_part, sys.argv = saving_always, ["sim", "resume", sys.argv[1]]
cli.main()
"""


def processes_of(parent: int) -> list[int]:
    """Those that it has spawned, in order."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_two_processes_learn_one_policy_and_go_on_after_one_was_killed(tmp_path: Path) -> None:
    """What the normalisers count says that both saw the other's robots: of 4 robots and 6 steps each they take 5
    samples, every fifth, in 20 updates. That both come to the same networks is asserted by the training itself at each
    checkpoint."""
    config = dataclasses.replace(TINY, iterations=20, judge_every=20, devices=2)
    whole = train(tmp_path / "whole", config)
    folder = tmp_path / "killed"
    Run.create(folder, "g1-track", config, config.seed).close()
    process = subprocess.Popen(
        [sys.executable, "-c", RESUME_AS_TWO, str(folder)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "checkpoint.npz").exists() and process.poll() is None:
        time.sleep(0.02)
    ranks = processes_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    said = process.communicate(timeout=60)[1].splitlines()[-1]
    assert process.returncode == 2
    assert said.startswith(f"sim: {folder}: rank 1 (process {ranks[1]}) was ended by SIGKILL, and the others with it")
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    assert len(metrics(folder)) < 20
    with Run.open(folder) as killed:
        train_tracking(killed, killed.config(TrackConfig))
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(value, weights(folder)[name], err_msg=name)
    assert metrics(folder) == metrics(whole)
    networks = torch.load(io.BytesIO(weights(whole)["learner.ppo"].tobytes()), weights_only=True)
    assert networks["actor_state_dict"]["obs_normalizer.count"] == 2 * 5 * 20
    first, second = weights(whole)["task.qpos_path"], weights(whole)["rank1.task.qpos_path"]
    assert first.shape[0] == second.shape[0] == 4 and (first != second).any()


def test_the_policy_changes_less_and_less_in_the_second_half() -> None:
    config = TrackConfig(kl=0.04, entropy=0.004, anneal=0.5)
    assert [config.annealed(done) for done in (0.0, 0.5, 0.75)] == [(0.04, 0.004)] * 2 + [(0.025, 0.002)]
    assert config.annealed(1.0) == (0.01, 0.0)
    assert TrackConfig(kl=0.04, entropy=0.004, anneal=0.0).annealed(0.99) == (0.04, 0.004)


def test_a_later_policy_is_kept_unless_it_is_measurably_worse() -> None:
    # 60 and 57 of 64: 61/66 - 58/66 = 4.5 %, below sqrt((61 * 5 + 58 * 8) / 66**3) = 5.2 %; 56: 6.1 %, above 5.3 %
    # 64 and 63 of 64: 65/66 - 64/66 = 1.5 %, below sqrt((65 * 1 + 64 * 2) / 66**3) = 2.6 %; 62: 3.03, above 2.97 %
    for best, count, kept in ((60, 57, True), (60, 56, False), (64, 63, True), (64, 62, False), (0, 0, True)):
        assert Judgement(count / 64, 60.0, 20.0).as_good_as(best / 64, 64) == kept


def test_settings_that_cannot_be_are_refused() -> None:
    for change, sentence in (
        ({"devices": 0}, "devices is 0; allowed: 1 or more"),
        ({"average": 1.0}, "average is 1.0; allowed: 0, the last policy alone, up to below 1"),
        ({"anneal": 1.5}, "anneal is 1.5; allowed: 0 to 1"),
        ({"devices": 3}, "devices is 3; allowed: what divides the 8 robots evenly"),
    ):
        with pytest.raises(ValueError, match=sentence):
            dataclasses.replace(TINY, **change).check()
    too_many = torch.cuda.device_count() + 1
    config = dataclasses.replace(TINY, robots=8 * too_many, devices=too_many, device="cuda")
    with pytest.raises(ValueError, match=rf"devices is {too_many} on cuda; allowed on this machine: "):
        config.check()


def test_a_checkpoint_of_other_devices_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with Run.open(tmp_path / "run") as copy, pytest.raises(RunError, match="is of 1 devices; allowed: as many as it"):
        track._saved(copy, 2)


def test_what_several_ranks_say_becomes_one_line() -> None:
    parts = [
        {"reward": 1.0, "ended": 3, "broken": 1, "length": 10.0},
        {"reward": 2.0, "ended": 1, "broken": 0, "length": 30.0},
    ]
    assert combined(parts) == {"reward": 1.5, "ended": 4, "broken": 1, "length": 15.0}
    assert combined(parts[:1]) is parts[0]


def test_ranks_that_drift_apart_are_noticed() -> None:
    states = [{"learner.ppo": np.array([value], dtype=np.uint8)} for value in (1, 2)]
    with pytest.raises(RuntimeError, match="rank 1 has come to other networks"):
        track._merged(states)


def test_training_makes_the_robot_follow_the_motion_better(tmp_path: Path) -> None:
    """Sixty small updates on the robot on paper: not a good policy, but a better one. The first updates do not count:
    all robots have just begun then."""
    task = TrackingConfig(spread=NONE)
    config = dataclasses.replace(TINY, task=task, robots=64, steps=16, iterations=60, hidden=(64,), epochs=4, noise=0.2)
    lines = metrics(train(tmp_path / "run", dataclasses.replace(config, judge_every=60)))
    reward = [line["reward"] for line in lines]
    assert np.mean(reward[-10:]) > np.mean(reward[10:20]) + 0.4


def test_the_published_preset_trains(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, task=ASAP, mirror=False, iterations=1, judge_every=1)
    spec = load_policy(train(tmp_path / "run", config) / "policy.onnx").spec
    assert (spec.observation_size, spec.robot) == (380, "g1_23dof_asap")


def test_what_broke_physics_can_be_done_again(tmp_path: Path) -> None:
    from sim.tasks.tracking import Tracking
    from tests.test_tracking_task import SQUAT, Replay, spec_of

    config = TrackingConfig()
    engine = Replay(2)
    task = Tracking(engine, [SQUAT], config, spec_of(config), 0)
    task.observe()
    engine.next[0][0, 8] = np.nan
    info = task.step(np.zeros((2, 23)))[3]
    breaks = info["breaks"] | {"qvel": np.full((1, 29), 1e200)}  # squared, no longer a number
    keep_breaks(tmp_path / "broken", breaks)
    qpos, _ = replay_breaks(tmp_path / "broken" / "000.npz", TINY)
    assert qpos.shape == (1, 4, 30) and not np.isfinite(qpos).all()


def test_a_clip_that_changed_is_refused(tmp_path: Path) -> None:
    folder = train(tmp_path / "run", dataclasses.replace(TINY, iterations=1))
    (folder / "metrics" / "clips.json").write_text(json.dumps({CLIP: "other"}))
    with Run.open(folder) as run, pytest.raises(ValueError, match="a clip or a teacher has changed since the training"):
        train_tracking(run, TINY)


def test_a_training_can_begin_with_the_networks_of_another(run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, iterations=1, judge_every=1, rate=0.0, warm_start=str(run))
    models = [onnx.load(folder / "policy.onnx") for folder in (run, train(tmp_path / "next", config))]
    first, second = ({a.name: numpy_helper.to_array(a) for a in model.graph.initializer} for model in models)
    for name in ("W0", "b0", "W1"):  # at most a few updates apart; fresh weights would be 0.1 away
        assert np.abs(first[name] - second[name]).max() < 0.03
    with pytest.raises(ValueError, match="other inputs or layers than this task's"):
        train(tmp_path / "other", dataclasses.replace(config, hidden=(8,)))
    with pytest.raises(ValueError, match="has no checkpoint of a tracking policy"):
        train(tmp_path / "none", dataclasses.replace(config, warm_start=str(tmp_path)))


def test_clips_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clip is missing"):
        cli.parse(["train", "g1-track", "--out", str(tmp_path / "x")])()
    assert not (tmp_path / "x").exists()
    (tmp_path / "no.npz").write_text("no")
    with pytest.raises(ValueError, match=r"no\.npz: cannot be read as npz"):
        load_clips((str(tmp_path / "no.npz"),))
    with pytest.raises(ValueError, match="--preset is 'fast'; allowed: realign, asap"):
        cli.parse(["train", "g1-track", "--preset", "fast"])


def test_settings_start_from_the_preset() -> None:
    seen: list = []

    def begin(kind: str, config: TrackConfig, *_: object) -> None:
        seen.append((kind, config))

    original, cli._begin = cli._begin, begin  # type: ignore[assignment]
    try:
        cli.parse(["train", "g1-track", "--preset", "asap", "--clip", CLIP, "--task.spread.mass", "0.3"])()
    finally:
        cli._begin = original
    kind, config = seen[0]
    assert (kind, config.task.observation, config.task.spread.mass) == ("g1-track", "asap", 0.3)
    assert config.task.weights == ASAP.weights


def test_a_network_with_too_short_a_test_is_not_written(tmp_path: Path, run: Path) -> None:
    spec = load_policy(run / "policy.onnx").spec
    layer = np.zeros((23, spec.observation_size)), np.zeros(23)
    with pytest.raises(PolicyError, match="32 steps or more"):
        zeros, ones = np.zeros(spec.observation_size), np.ones(spec.observation_size)
        write_mlp(tmp_path / "p.onnx", zeros, ones, [layer], spec, np.zeros((3, 1, spec.observation_size)))
    assert not (tmp_path / "p.onnx").exists()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", "quad-student", TINY, 0).close()
    with pytest.raises(RunError, match="needed is one of kind 'g1-track'"):
        Run.open(tmp_path / "run", "g1-track")
