"""Trains a policy that tracks motions on the simulated G1, by rsl-rl's PPO.

The loop is ours, the learning is rsl-rl's: rsl-rl's own runner cannot go on exactly where it was interrupted. What is
judged and saved is the average of the policies of the last updates, which is steadier than the last one. A
checkpoint holds networks, optimiser, random generators and the state of every robot, so a run that was killed and
resumed ends with the same weights as one that was left alone.

One thread learns and all threads simulate: on two hyperthreads a second thread makes torch slower, not faster. With
several devices every one of their processes does all that with its share of the robots; see `sim.train.ranks`. Where
episodes fail, and how hard they are by now (ASAP's curricula), each of them counts among its own robots.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.files import write_atomically
from controllers.g1 import gains
from controllers.motion import Clip, load_clip
from controllers.spec import PolicySpec, Training
from sim.backends.engine import Engine, make_engine
from sim.export_mlp import write_mlp
from sim.randomize import Worlds
from sim.report_tracking import conclude
from sim.run import Run, RunError, progress, write_json
from sim.tasks.tracking import Tracking
from sim.tasks.tracking_config import Ramp, TrackingConfig, robot_of, tracking_spec
from sim.tracking import LOST

from .imitate import Teachers, imitate
from .mirror import Mirroring
from .ranks import Ranks, launch
from .track_config import TrackConfig

Array = NDArray[np.floating]

BREAKS = 20  # files of states that broke; more tell nothing new
LEAST_RATE = 1e-5  # of learning, to which rsl-rl adapts
GOLDEN = (32, 2)  # steps and robots of the golden sequences
ALONE = Ranks()


@dataclass(frozen=True)
class Judgement:
    """How well robots tracked a motion from its start, in random worlds."""

    success: float
    """Share that was never lost."""
    e_g: float
    """Mean distance of the points from the motion while it was tracked [mm]."""
    e_mpjpe: float
    """The same relative to the pelvis [mm]."""

    def as_good_as(self, best: float, judged: int) -> bool:
        """Whether so many robots cannot tell this success from the best one before: then the policy that has learned
        more is the one to keep. Within one standard error of the difference of the two, both of which are noisy
        (Agresti and Caffo 2000, so that all of a few is not certainty)."""
        shares = [(share * judged + 1) / (judged + 2) for share in (self.success, best)]
        return shares[0] >= shares[1] - math.sqrt(sum(share * (1 - share) for share in shares) / (judged + 2))


class Learner:
    """rsl-rl's PPO on a tracking task, as one of `ranks`."""

    def __init__(self, config: TrackConfig, task: Tracking, ranks: Ranks = ALONE) -> None:
        import torch
        from rsl_rl.algorithms import PPO
        from rsl_rl.storage import RolloutStorage
        from tensordict import TensorDict
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        from .models import Model, halve, is_half_faster

        torch.set_num_threads(1)
        torch.set_float32_matmul_precision("medium" if config.fast else "highest")
        torch.manual_seed(ranks.seed(config.seed))
        self.torch, self._dict = torch, TensorDict
        self.config, self.task, self.ranks = config, task, ranks
        self.device = "cpu" if config.device == "auto" else config.device
        self.seen = self._tensors(task.observe())
        groups = {"actor": ["actor"], "critic": ["critic"]}
        normal = {"class_name": "GaussianDistribution", "init_std": config.noise, "std_type": "log"}
        hidden = list(config.hidden)
        actor = Model(self.seen, groups, "actor", task.spec.action_size, hidden, "elu", True, normal)
        critic = Model(self.seen, groups, "critic", 1, hidden, "elu", True)
        if config.fast and self.device == "cpu" and is_half_faster():
            halve(actor)
            halve(critic)
        with torch.no_grad():  # begin with the motion itself: the first policy answers almost nothing
            last = [module for module in actor.mlp.modules() if isinstance(module, torch.nn.Linear)][-1]
            last.weight.mul_(0.01)
            last.bias.zero_()
        storage = RolloutStorage("rl", task.count, config.steps, self.seen, [task.spec.action_size], self.device)
        self.ppo = PPO(
            actor,
            critic,
            storage,
            num_learning_epochs=config.epochs,
            num_mini_batches=config.batches,
            learning_rate=config.rate,
            desired_kl=config.kl,
            gamma=config.gamma,
            lam=config.lam,
            entropy_coef=config.entropy,
            device=self.device,
            multi_gpu_cfg=ranks.rsl_rl,
        )
        self.teachers = None
        if config.teachers:
            self.teachers = Teachers(config.teachers, len(config.clip), task.spec, task.count)
        self.average = AveragedModel(actor, multi_avg_fn=get_ema_multi_avg_fn(config.average))  # begins at update 1
        if config.mirror:
            self.ppo.symmetry = Mirroring(task.spec, self.device)  # type: ignore[assignment]
        self.ppo.train_mode()

    def _tensor(self, values: NDArray[np.float32]) -> Any:
        return self.torch.from_numpy(values).to(self.device)

    def _tensors(self, seen: dict[str, NDArray[np.float32]]) -> Any:
        arrays = {name: self._tensor(value) for name, value in seen.items()}
        return self._dict(arrays, batch_size=self.task.count)  # type: ignore[arg-type]

    def iterate(self, breaks: Path, teaching: float | None = None) -> dict[str, float]:
        """Collect, learn, and say how it went.

        Args:
            breaks: Folder for what led to states that are not finite.
            teaching: Learn what the teachers would have done, at this rate, instead of what was worth most.
        """
        torch, task = self.torch, self.task
        teachers = self.teachers if teaching is not None else None
        total: dict[str, float] = {}
        ended = lost = 0
        lengths: list[float] = []
        distance = reward_sum = broken = 0.0
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(self.config.steps):
                actions = self.ppo.act(self.seen)
                taught = None if teachers is None else teachers.answers(task, self.seen["actor"].cpu().numpy())
                seen, reward, done, info = task.step(actions.cpu().numpy())
                self.seen = self._tensors(seen)
                extras = {"time_outs": self._tensor(info["timeout"].astype(np.float32))}
                self.ppo.process_env_step(
                    self.seen,
                    self._tensor(reward.astype(np.float32)),
                    self._tensor(done.astype(np.float32)),
                    extras,
                )
                if teachers is not None and taught is not None:
                    teachers.follow(actions.cpu().numpy(), done)
                    self.ppo.storage.actions[self.ppo.storage.step - 1] = self._tensor(taught)
                for name, value in info["terms"].items():
                    total[name] = total.get(name, 0.0) + float(value.mean()) / self.config.steps
                ended, lost = ended + int(done.sum()), lost + int(info["lost"].sum())
                lengths.extend(info["length"][done].tolist())
                broken += int(info["broken"].sum())
                if info["breaks"] is not None:
                    keep_breaks(breaks, info["breaks"])
                distance += float(info["distance"].mean()) / self.config.steps
                reward_sum += float(reward.mean()) / self.config.steps
            self.ppo.compute_returns(self.seen)
        middle = time.perf_counter()
        losses = self.ppo.update() if teaching is None else imitate(self.ppo, teaching)
        self.average.update_parameters(self.ppo.get_policy())
        end = time.perf_counter()
        self.seen = self._tensors({name: value.cpu().numpy().copy() for name, value in self.seen.items()})
        return {
            "reward": reward_sum / task.config.control_step,
            "distance_mm": 1000 * distance,
            "lost_per_s": lost / (self.config.steps * task.count * task.config.control_step),
            "ended": ended,
            "length": float(np.mean(lengths)) if lengths else 0.0,
            "broken": broken,
            "action_std": float(self.ppo.get_policy().output_std.detach().mean()),
            "rate": self.ppo.learning_rate,
            "simulating_s": middle - start,
            "learning_s": end - middle,
            **{f"term.{name}": value for name, value in total.items()},
            **{f"level.{name}": value for name, value in task.level.items()},
            **{f"loss.{name}": float(value) for name, value in losses.items()},
        }

    def go_alone(self) -> None:
        """From imitation to PPO: Adam forgets how small the gradients were at the end of imitation, since with these
        widths the first updates by PPO would be enormous; the rate begins low and grows as far as `kl` allows."""
        self.ppo.optimizer.state.clear()
        self.ppo.learning_rate = LEAST_RATE
        for group in self.ppo.optimizer.param_groups:
            group["lr"] = LEAST_RATE

    def act(self, obs: NDArray[np.float32]) -> Array:
        """The averaged policy's answers without noise, (N, actions)."""
        with self.torch.inference_mode():
            seen = self._dict({"actor": self._tensor(obs)}, batch_size=len(obs))  # type: ignore[arg-type]
            return self.average.module(seen).cpu().numpy()

    def network(self) -> tuple[Array, Array, list[tuple[Array, Array]]]:
        """Of the averaged policy: mean and width of the observation, and the layers, as `write_mlp` takes them."""
        actor: Any = self.average.module
        normal: Any = actor.obs_normalizer
        linear: list[Any] = [module for module in actor.mlp.modules() if isinstance(module, self.torch.nn.Linear)]
        layers = [(m.weight.detach().cpu().numpy().copy(), m.bias.detach().cpu().numpy().copy()) for m in linear]
        return normal.mean.cpu().numpy().copy(), (normal.std + normal.eps).cpu().numpy().copy(), layers

    def state(self) -> dict[str, np.ndarray]:
        """Networks, optimiser, generator and what is observed, as arrays by name."""
        found = {"torch": self.torch.get_rng_state().numpy()}
        for name, saved in (("ppo", self.ppo.save()), ("average", self.average.state_dict())):
            buffer = io.BytesIO()
            self.torch.save(saved, buffer)
            found[name] = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
        if self.teachers is not None:
            found |= {f"teachers.{name}": value for name, value in self.teachers.state().items()}
        if self.device == "cuda":
            found["cuda"] = self.torch.cuda.get_rng_state().numpy()
        found |= {f"seen.{name}": value.cpu().numpy() for name, value in self.seen.items()}
        return found

    def share(self) -> None:
        """Give all ranks the networks of rank 0."""
        if self.ranks.count > 1:
            self.ppo.broadcast_parameters()

    def _loaded(self, saved: np.ndarray) -> dict[str, Any]:
        return self.torch.load(io.BytesIO(saved.tobytes()), weights_only=True, map_location=self.device)

    def warm_start(self, folder: Path) -> None:
        """Begin with the networks of the run in `folder`, with an optimiser of its own."""
        try:
            with np.load(folder / "checkpoint.npz", allow_pickle=False) as file:
                saved = self._loaded(file["learner.ppo"])
            self.ppo.load(saved, {"actor": True, "critic": True}, True)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"warm_start {folder}: has no checkpoint of a tracking policy ({error})") from error
        except RuntimeError as error:  # torch's, where shapes differ
            raise ValueError(
                f"warm_start {folder}: its networks have other inputs or layers than this task's"
            ) from error

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.ppo.load(self._loaded(arrays["ppo"]), None, True)
        self.average.load_state_dict(self._loaded(arrays["average"]))
        self.torch.set_rng_state(self.torch.from_numpy(arrays["torch"].copy()))
        if self.device == "cuda":
            self.torch.cuda.set_rng_state(self.torch.from_numpy(arrays["cuda"].copy()))
        if self.teachers is not None:
            self.teachers.restore({n[9:]: v.copy() for n, v in arrays.items() if n.startswith("teachers.")})
        self.seen = self._tensors({n[5:]: v.copy() for n, v in arrays.items() if n.startswith("seen.")})


def train_tracking(run: Run, config: TrackConfig) -> None:
    """Train what the run asks for, up to its end; see the module. With several devices the run is theirs from here on:
    it is closed."""
    config = config.check()
    _, digests = load_clips(config.clip)
    digests |= digests_of(config.teachers)
    recorded = run.folder / "metrics" / "clips.json"
    if recorded.exists() and json.loads(recorded.read_text()) != digests:
        raise ValueError(
            f"{run.folder}: a clip or a teacher has changed since the training began; allowed: the files as they were"
        )
    write_json(recorded, digests)
    if config.devices == 1:
        _train(ALONE, run.folder, config, run)
    else:
        run.close()
        launch(config.devices, config.device, run.folder, _take_part, run.folder, config)
    conclude(run.folder, config)


def _take_part(ranks: Ranks, folder: Path, config: TrackConfig) -> None:
    """Train as one of several processes."""
    if ranks.first:
        with Run.open(folder) as run:
            _train(ranks, folder, config, run)
    else:
        _train(ranks, folder, config, None)


def _train(ranks: Ranks, folder: Path, config: TrackConfig, run: Run | None) -> None:
    """Train up to the end of the run, as one of `ranks`; only the first has the `run`."""
    clips, digests = load_clips(config.clip)
    spec = training_spec(folder, config, clips, digests)
    task = Tracking(engine_of(config, config.robots // ranks.count), clips, config.task, spec, ranks.seed(config.seed))
    learner = Learner(config, task, ranks)
    if config.warm_start:
        learner.warm_start(Path(config.warm_start))
    learner.share()
    begun, seconds, best = 0, 0.0, 0.0
    found = ranks.scatter(_saved(run, ranks.count) if run is not None else None)
    if found is not None:
        facts, states = found
        begun, seconds = facts["iteration"], facts["seconds"]
        best = facts["best"]
        task.restore({name[5:]: value for name, value in states.items() if name.startswith("task.")})
        learner.restore({name[8:]: value for name, value in states.items() if name.startswith("learner.")})

    with contextlib.ExitStack() as stack:
        board: Any = stack.enter_context(_board(folder, begun)) if ranks.first else None
        show: Any = ranks.first and stack.enter_context(progress("training", config.iterations, begun, unit="updates"))
        clock = time.monotonic()
        for iteration in range(begun, config.iterations):
            end = iteration + 1 == config.iterations
            learner.ppo.desired_kl, learner.ppo.entropy_coef = config.annealed(iteration / config.iterations)
            teaching = config.teaching_rate(iteration) if config.imitating(iteration) else None
            if iteration and config.imitating(iteration - 1) and teaching is None:
                learner.go_alone()
            breaks = folder / "broken" / (f"rank{ranks.rank}" if ranks.rank else "")
            parts = ranks.gather(learner.iterate(breaks, teaching))
            elapsed = seconds + time.monotonic() - clock
            if run is not None and parts is not None:
                values = combined(parts)
                steps = (iteration + 1) * config.robots * config.steps
                line: dict[str, Any] = {"iteration": iteration + 1, "steps": steps, "seconds": elapsed, **values}
                if (iteration + 1) % config.judge_every == 0 or end:
                    seed = 1_000_000 + iteration  # not one that the training has seen
                    judges = engine_of(config, config.judged)
                    judged = judge(learner, Tracking(judges, clips, criterion(config.task), spec, seed, True))
                    kept = judged.as_good_as(best, config.judged)
                    line |= dataclasses.asdict(judged) | {"kept": float(kept)}
                    best = max(best, judged.success)
                    if kept:
                        save_policy(folder / "policy.onnx", learner, task, spec)
                run.log(**{name: value for name, value in line.items() if math.isfinite(value)})
                for name, value in line.items():
                    board.add_scalar(name.replace(".", "/"), value, steps)
                text = f"reward {values['reward']:.2f}, lost {values['lost_per_s']:.2f}/s, "
                text += f"{values['distance_mm']:.0f} mm"
                show(iteration + 1, text + (f", success {line['success']:.0%}" if "success" in line else ""))
            if ranks.scatter([run.due or end] * ranks.count if run is not None else None):
                arrays = {f"task.{name}": value for name, value in task.state().items()}
                arrays |= {f"learner.{name}": value for name, value in learner.state().items()}
                states = ranks.gather(arrays)
                if run is not None and states is not None:
                    facts = {"iteration": iteration + 1, "seconds": elapsed, "best": best}
                    run.checkpoint(facts, _merged(states))
    task.engine.close()


def engine_of(config: TrackConfig, count: int) -> Engine:
    """That many robots in the physics that the training asks for."""
    robot = robot_of(config.task)
    device = config.device if config.engine != "mujoco" and config.device != "auto" else "cpu"
    return make_engine(
        config.engine,
        robot,
        count,
        *gains(robot, config.task.gains),
        config.task.physics_step,
        config.task.substeps,
        device,
    )


def combined(parts: list[dict[str, float]]) -> dict[str, float]:
    """What `Learner.iterate` says of all ranks: sums of what is counted, means of everything else."""
    if len(parts) == 1:
        return parts[0]
    ended = [part["ended"] for part in parts]
    found = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    found |= {name: sum(part[name] for part in parts) for name in ("ended", "broken")}
    if found["ended"]:
        found["length"] = float(np.average([part["length"] for part in parts], weights=ended))
    return found


def _merged(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One checkpoint of the states of all ranks. That of rank 0 has the names that a single process gives it, so other
    trainings can begin with it; the others begin with `rank`. Networks and optimiser are there once.

    Raises RuntimeError where networks or optimisers differ: ranks that drift apart do not train what they say.
    """
    merged = dict(states[0])
    for rank, state in enumerate(states[1:], start=1):
        if not np.array_equal(state["learner.ppo"], merged["learner.ppo"]):
            raise RuntimeError(f"rank {rank} has come to other networks than rank 0")
        merged |= {f"rank{rank}.{name}": value for name, value in state.items() if name != "learner.ppo"}
    return merged


def _saved(run: Run, count: int) -> list[tuple[dict[str, Any], dict[str, np.ndarray]] | None]:
    """For each rank what the run's checkpoint has for it: progress and state, or None where there is none yet."""
    found = run.restore()
    if found is None:
        return [None] * count
    facts, arrays = found
    owners = [name.partition(".")[0] if name.startswith("rank") else "" for name in arrays]
    if len(set(owners)) != count:
        raise RunError(
            f"{run.folder}: its checkpoint is of {len(set(owners))} devices; allowed: as many as it began with"
        )
    states: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for owner, (name, value) in zip(owners, arrays.items(), strict=True):
        if owner:
            states[int(owner.removeprefix("rank"))][name.partition(".")[2]] = value
        else:
            states[0][name] = value
    return [(facts, {"learner.ppo": arrays["learner.ppo"]} | state) for state in states]


def keep_breaks(folder: Path, breaks: dict[str, np.ndarray]) -> None:
    """Save states, targets and worlds after which physics was not finite; `replay_breaks` does it again."""
    folder.mkdir(exist_ok=True, parents=True)
    count = len(list(folder.glob("*.npz")))
    if count < BREAKS:
        write_atomically(folder / f"{count:03d}.npz", lambda file: np.savez(file, allow_pickle=False, **breaks))


def replay_breaks(path: Path, config: TrackConfig) -> tuple[Array, Array]:
    """The configurations and velocities at each physics step after the states in such a file, (n, substeps, ...)."""
    with np.load(path, allow_pickle=False) as file:
        saved = {name: file[name] for name in file.files}
    count = len(saved["qpos"])
    engine = engine_of(config, count)
    worlds = Worlds(**{name[7:]: value for name, value in saved.items() if name.startswith("worlds.")})
    engine.vary(np.arange(count), worlds)
    engine.set_state(np.arange(count), saved["qpos"], saved["qvel"])
    engine.step(saved["targets"])
    engine.close()
    return engine.qpos_path, engine.qvel_path


def load_clips(paths: tuple[str, ...]) -> tuple[list[Clip], dict[str, str]]:
    """The motions in these files, and the files' SHA-256 by path."""
    return [load_clip(Path(path)) for path in paths], digests_of(paths)


def digests_of(paths: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of these files by path. Raises ValueError where there is none."""
    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


def training_spec(folder: Path, config: TrackConfig, clips: list[Clip], digests: dict[str, str]) -> PolicySpec:
    """What the policies of this run say about themselves."""
    facts = json.loads((folder / "facts.json").read_text())
    training = Training(
        command=shlex.join(["sim", *facts["command"][1:]]),
        seed=config.seed,
        git_commit=str(facts["commit"]),
        versions={name: str(facts[name]) for name in ("python", "numpy", "onnx", "onnxruntime")},
        machine=str(facts["cpu"]),
    )
    if len(clips) > 1:
        return tracking_spec(config.task, training, None, None, None)
    path = config.clip[0]
    return tracking_spec(config.task, training, Path(path).stem, clips[0].duration, digests[path])


def criterion(task: TrackingConfig) -> TrackingConfig:
    """The task as policies are judged in it: as in `sim eval g1` they have to stay near the motion."""
    return task if task.observation == "asap" else dataclasses.replace(task, lost_distance=Ramp(LOST, LOST, LOST, 0.0))


def judge(learner: Learner, task: Tracking) -> Judgement:
    """Track from the start with the policy as it is, each robot once, without the policy's noise."""
    seen = task.observe()
    alive = np.ones(task.count, dtype=bool)
    running = np.ones(task.count, dtype=bool)
    totals, count = np.zeros(2), 0
    pelvis = task.points[0]
    for _ in range(int(task.table.length.max())):
        seen, _, done, info = task.step(learner.act(seen["actor"]))
        alive &= ~(info["lost"] & running)
        running &= ~done
        now = info["step"]
        found, wanted = now.found.position[:, task.points], now.wanted.position[:, task.points]
        relative = (found - now.found.position[:, pelvis][:, None]) - (wanted - now.wanted.position[:, pelvis][:, None])
        if running.any():
            totals += info["distance"][running].mean(), np.linalg.norm(relative[running], axis=-1).mean()
            count += 1
        if not running.any():
            break
    e_g, e_mpjpe = 1000 * totals / max(count, 1)
    task.engine.close()
    return Judgement(float(alive.mean()), float(e_g), float(e_mpjpe))


def save_policy(path: Path, learner: Learner, task: Tracking, spec: PolicySpec) -> None:
    """Write the policy as it is, with golden sequences of what it saw."""
    steps, robots = GOLDEN
    rng = np.random.default_rng(0)
    seen = learner.seen["actor"].cpu().numpy()  # of hundreds of robots, all over the motion
    rows = rng.integers(len(seen), size=(steps, robots))
    write_mlp(path, *learner.network(), spec, seen[rows])


@contextlib.contextmanager
def _board(folder: Path, begun: int) -> Any:
    """TensorBoard's writer; what an interrupted run wrote after its checkpoint is superseded."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=begun or None)
    try:
        yield writer
    finally:
        writer.close()
