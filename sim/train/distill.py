"""A thousand teachers become one student: meta-imitation, then (optionally) tuning through the simulator.

Imitation follows RAPTOR (Eschmann et al. 2025): the student flies, every block's own teacher says what it would have
done, and the student learns to predict that from what it has seen so far, through time. The teachers fly only at the
very start. Tuning takes the same student on, without teachers: it flies freshly sampled quadrotors of the widest
distribution and follows the gradient of the flight's cost through simulator, sensors and memory. Both phases share
one kernel (`sim/train/student.py`)."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np

from controllers.policy import GOLDEN_STEPS
from controllers.spec import Training, quadrotor_spec
from sim import export
from sim.backends.quadrotor import LANES, STATE, to_blocks
from sim.flight import Flight
from sim.robots.quadrotors import Preset, Quadrotors, sample
from sim.run import Run, compile_first, progress, write_json
from sim.tasks import quadrotor as task
from sim.train import student
from sim.train.learner import Learner, StudentConfig, initial_weights, pack, sizes, unpack
from sim.train.teacher import WEIGHTS as TEACHER_WEIGHTS
from sim.train.teachers import Teachers, in_threads, load_teachers, start_distribution

UNUSUAL = {"any_attitude": 0.16, "yaw": 0.10, "far": 0.16, "inverted": 0.14, "figure": 0.44}  # of the unusual starts
IMITATION_START = dict(
    any_attitude=0.10, yaw=0.05, far=0.05, inverted=0.05, figure=0.15, langevin=0.4, figure_scale=-0.1, action_zero=0.1
)


def tuning_start(config: StudentConfig) -> np.ndarray:
    """The starts of tuning. Raises ValueError where the share of unusual ones is not between 0 and 0.9."""
    if not 0 <= config.unusual <= 0.9:
        raise ValueError(f"unusual is {config.unusual}: allowed is a share from 0 to 0.9 (a tenth starts at rest)")
    return start_distribution(math.pi / 2, **{k: config.unusual * v for k, v in UNUSUAL.items()}, action_zero=0.1)


class Flights:
    """Quadrotors in the air: everything that `student.window` carries from one window to the next."""

    def __init__(self, blocks: int, hidden: int, rng: np.random.Generator):
        padded = -(-hidden // LANES) * LANES
        self.x = np.zeros((blocks, (task.HISTORY + 1) * STATE * LANES), np.float32)
        self.a = np.zeros((blocks, task.ACTIONS * 4 * LANES), np.float32)
        self.s = np.zeros((blocks, task.EPISODE * LANES), np.float32)
        self.s[:, task.AGE * LANES : (task.AGE + 1) * LANES] = -1  # not flown yet
        self.rng = rng.integers(0, 2**32, (blocks, LANES), dtype=np.uint32)
        self.h = np.zeros((blocks, padded * LANES), np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"x": self.x, "a": self.a, "s": self.s, "rng": self.rng, "h": self.h}


def rate_at(peak: float, progress: float, update: int) -> float:
    """Cosine from the peak to a fiftieth of it, after a short warm-up."""
    return peak * min(1.0, (update + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def _tuning_quadrotors(config: StudentConfig) -> list[Quadrotors]:
    """The pool for tuning, in parts of whole blocks. Raises ValueError where the shares do not fit together."""
    if min(config.plain, config.hard) < 0 or config.plain + config.hard > 1:
        raise ValueError(
            f"plain and hard are {config.plain} and {config.hard}: allowed are shares that add up to at most 1"
        )
    shares: list[tuple[Preset, float]] = [
        (config.preset, 1 - config.plain - config.hard),
        ("standard", config.plain),
        ("hard", config.hard),
    ]
    parts = []
    for i, (preset, share) in enumerate(shares):
        if count := math.ceil(config.pool * share / LANES - 1e-9) * LANES:
            parts.append(sample(preset, count, config.seed + 1000 + i))
    return parts


class Phase:
    """One phase of training: which quadrotors fly, which loss counts. `advance()` makes one update.

    With teachers it imitates, without them it tunes."""

    def __init__(self, config: StudentConfig, learner: Learner, teachers: Teachers | None):
        self.config, self.learner, self.teachers = config, learner, teachers
        self.rng = np.random.default_rng([config.seed, 1 if teachers else 2])
        blocks = -(-config.batch // LANES)
        if teachers:
            self.c, self.e, self.q, self.tw = teachers.c, teachers.e, teachers.q, teachers.weights
            self.start = start_distribution(math.pi / 2, **IMITATION_START)
            self.flights = Flights(len(teachers.weights), config.hidden, self.rng)
            self.blocks = min(blocks, len(teachers.weights))
        else:
            parts = _tuning_quadrotors(config)
            self.pool_c = np.concatenate([to_blocks(p.parameters()) for p in parts]).reshape(-1, 28 * LANES)
            # Starts as in the evaluation: up to half a metre away even where the box is hardly larger.
            environments = [to_blocks(p.environment(spawn_arms=math.inf)) for p in parts]
            self.pool_e = np.concatenate(environments).reshape(-1, task.ENVIRONMENT * LANES)
            self.q, self.tw = np.ones((1, 4), np.float32), np.zeros((1, TEACHER_WEIGHTS), np.float32)
            self.start = tuning_start(config)
            self.flights = Flights(blocks, config.hidden, self.rng)
            pick = self.rng.integers(0, len(self.pool_c), blocks)
            self.c, self.e, self.blocks = self.pool_c[pick], self.pool_e[pick], blocks
        self.k = np.array(
            [
                config.position,
                config.near,
                config.near_width,
                0.05,
                0.3,
                config.tilt,
                0.01,
                config.change,
                0.1,
                config.edge,
            ],
            np.float32,
        )
        self.order = np.arange(0)

    def state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What a checkpoint needs to go on exactly: generator state, and arrays."""
        own = {} if self.teachers else {"c": self.c, "e": self.e}
        return dict(self.rng.bit_generator.state), {**self.flights.arrays(), **own, "order": self.order}

    def restore(self, generator: dict, arrays: dict[str, np.ndarray]) -> None:
        self.rng.bit_generator.state = generator
        for name in self.flights.arrays():
            getattr(self.flights, name)[:] = arrays[name]
        if not self.teachers:
            self.c, self.e = arrays["c"], arrays["e"]
        self.order = arrays["order"]

    def advance(self, progress: float) -> dict[str, float]:
        """One update; progress in [0, 1] sets the learning rate. Returns what happened."""
        config, n = self.config, self.blocks
        f = self.flights
        gradient, report = np.zeros((n, self.learner.w.size), np.float32), np.zeros((n, 4), np.float32)
        turn = (np.arange(n) + self.learner.updates) % 4 == 0
        echo = np.where(turn & (self.teachers is None), config.echo, 0.0).astype(np.float32)
        if self.teachers:
            if len(self.order) < n:
                self.order = self.rng.permutation(len(self.tw))
            i, self.order = self.order[:n], self.order[n:]
            x, a, s, rng, h, c, e = f.x[i], f.a[i], f.s[i], f.rng[i], f.h[i], self.c[i], self.e[i]
            drive = np.float32(max(0.0, 1 - progress / 0.05))
            weights, peak = (1.0, 0.0), config.imitation_rate
        else:
            i = np.arange(n)
            # A share of the blocks gets other quadrotors; their flights begin anew.
            fresh = self.rng.choice(n, max(1, round(n * config.steps * 0.01 / (config.life * 1.5))), replace=False)
            pick = self.rng.integers(0, len(self.pool_c), len(fresh))
            self.c[fresh], self.e[fresh] = self.pool_c[pick], self.pool_e[pick]
            f.s[fresh, task.AGE * LANES : (task.AGE + 1) * LANES] = -1
            f.s[: round(n * config.short), task.AGE * LANES : (task.AGE + 1) * LANES] = config.life
            x, a, s, rng, h, c, e = f.x, f.a, f.s, f.rng, f.h, self.c, self.e
            drive, weights, peak = np.float32(0), (0.0, 1.0), config.tuning_rate
        which = i if self.teachers else np.zeros(n, np.int64)
        arguments = (
            *(*sizes(config.hidden), config.acceleration, self.learner.w, x, a, s, rng, h, c, e, self.q, self.tw),
            *(which, drive, self.start, config.steps, np.float32(config.life)),
            *(np.float32(weights[0]), np.float32(weights[1]), self.k, np.float32(config.limit), echo, gradient, report),
        )
        in_threads(lambda part: student.window(part, *arguments), np.arange(n))
        if self.teachers:
            f.x[i], f.a[i], f.s[i], f.rng[i], f.h[i] = x, a, s, rng, h
        norm = self.learner.update(gradient.mean(0, dtype=np.float64), rate_at(peak, progress, self.learner.updates))
        imitation, tuning, lost, labelled = report.mean(0)
        return {
            "imitation": float(imitation),
            "cost": float(tuning),
            "lost": float(lost),
            "labelled": float(labelled),
            "norm": norm,
        }


def examine(
    flat: np.ndarray, config: StudentConfig, quads: Quadrotors, seed: int, steps: int = 500, **start: float
) -> dict[str, float]:
    """Fly one episode per quadrotor under RAPTOR's limits: shares that survive, distances of the survivors in the
    last second [m]."""
    n = len(quads)
    c, e = to_blocks(quads.parameters()), to_blocks(quads.environment())
    rng = np.random.default_rng(seed).integers(0, 2**32, (len(c), LANES), dtype=np.uint32)
    result = np.zeros((len(c), LANES, 3), np.float32)
    distribution = start_distribution(**({"tilt": 1.0} | start))
    arguments = (
        *sizes(config.hidden)[:2],
        config.acceleration,
        flat,
        rng,
        c.reshape(len(c), -1),
        e.reshape(len(c), -1),
    )
    in_threads(lambda part: student.fly(part, *arguments, distribution, steps, result), np.arange(len(c)))
    survived, mean, last = result.reshape(-1, 3)[:n].T
    alive = survived > 0
    return {
        "survived": float(alive.mean()),
        "median": float(np.median(mean[alive])) if alive.any() else math.nan,
        "mean": float(mean[alive].mean()) if alive.any() else math.nan,
        "back": float((last < 0.3).mean()),
    }


KIND = "quad-student"
EXAMINE_EVERY = 0.04  # share of a phase between two examinations
EXAMINED = 512  # quadrotors


def compile_kernels() -> None:
    """Compile the kernels of the default sizes into numba's cache, by using them once on very little."""
    config = StudentConfig(batch=LANES, steps=8, pool=4 * LANES)
    learner = Learner(initial_weights(config), config)
    Phase(config, learner, None).advance(0.0)
    examine(learner.w, config, sample("raptor", LANES, 0), 0, steps=2)


def train_student(run: Run, config: StudentConfig) -> Path:
    """Train, or go on training, the student of a run; returns the path of its `policy.onnx`.

    The run folder holds metrics.jsonl (losses, and examinations on quadrotors that training never saw),
    checkpoint.npz, the policy after each phase and metrics/summary.json. An interrupted run goes on exactly where its
    last checkpoint is. Raises ValueError where imitation is asked for without teachers, or nothing is asked for."""
    total = {"imitation": config.imitation_updates, "tuning": config.tuning_updates}
    if sum(total.values()) < 1:
        raise ValueError("imitation_updates and tuning_updates are both 0: nothing to train")
    if total["imitation"] and not config.teachers:
        raise ValueError(
            "imitation needs teachers: give the run folder of `sim train quad-teachers`, or set imitation_updates to 0"
        )
    weights = initial_weights(config)
    if config.warm_start:
        given = export.read_weights(config.warm_start)
        inputs = 25 if config.acceleration else 22
        found = (given["W0"].shape[1], given["Wh"].shape[1])
        if found != (inputs, config.hidden):
            raise ValueError(
                f"{config.warm_start}: has {found[0]} inputs and a memory of {found[1]}, "
                f"needed are {inputs} and {config.hidden}"
            )
        weights = pack(given, config)
    begun = time.process_time()
    # A child process compiles; see `compile_first` for why.
    compiling = compile_first("sim.train.distill:compile_kernels")
    run.exclude(time.process_time() - begun)
    run.log(event="compiled", compile_core_seconds=compiling)
    learner = Learner(weights, config)
    teachers = load_teachers(Path(config.teachers)) if total["imitation"] else None
    saved = run.restore()
    done = {"imitation": 0, "tuning": 0}
    if saved:
        record, arrays = saved
        done = record["done"]
        for name in learner.arrays():
            setattr(learner, name, arrays[f"learner.{name}"])
        learner.updates = record["updates"]
    for name, count in total.items():
        if done[name] >= count:
            continue
        phase = Phase(config, learner, teachers if name == "imitation" else None)
        if saved and saved[0]["phase"] == name:
            phase.restore(
                saved[0]["generator"],
                {k.removeprefix("phase."): v for k, v in saved[1].items() if k.startswith("phase.")},
            )
        elif name == "tuning" and done["imitation"]:
            learner.restart()
        _train(run, config, phase, name, count, done)
        write_policy(run.folder / f"policy_{name}.onnx", learner.mean, config, run)
    path = run.folder / "policy.onnx"
    write_policy(path, learner.mean, config, run)
    summary = {"core_seconds": run.core_seconds, "updates": done, **_examination(learner.mean, config)}
    write_json(run.folder / "metrics" / "summary.json", summary)
    return path


def _train(run: Run, config: StudentConfig, phase: Phase, name: str, count: int, done: dict[str, int]) -> None:
    learner = phase.learner
    every = max(1, round(count * EXAMINE_EVERY))
    with progress(name, count, done[name], "updates") as show:
        means: dict[str, float] = {}
        while done[name] < count:
            values = phase.advance(done[name] / count)
            done[name] += 1
            if not math.isfinite(values["norm"]):
                run.log(phase=name, update=done[name], skipped="the gradient is not finite")
                values = {k: v for k, v in values.items() if math.isfinite(v)}
            for key, value in values.items():
                means[key] = 0.98 * means.get(key, value) + 0.02 * value
            if done[name] % every == 0 or done[name] == count:
                found = _examination(learner.mean, config)
                run.log(phase=name, update=done[name], core_seconds=round(run.core_seconds, 2), **means, **found)
            loss = means.get("imitation" if name == "imitation" else "cost", math.nan)
            show(done[name], f"loss {loss:.4f}")
            if run.due or done[name] == count:
                generator, arrays = phase.state()
                arrays = {f"phase.{k}": v for k, v in arrays.items()} | {
                    f"learner.{k}": v for k, v in learner.arrays().items()
                }
                run.checkpoint(
                    {"phase": name, "done": done, "updates": learner.updates, "generator": generator}, arrays
                )


def _examination(flat: np.ndarray, config: StudentConfig) -> dict[str, float]:
    """Survival and hover on quadrotors of the published distribution that no training uses (NaN is left out, not
    averaged)."""
    quads = sample("raptor", EXAMINED, 987654321)
    pushed, calm = examine(flat, config, quads, 1), examine(flat, config, quads.replace(force_std=0.0), 2)
    found = {"survived": pushed["survived"], "hover_force": pushed["mean"], "hover": calm["median"]}
    return {k: v for k, v in found.items() if math.isfinite(v)}


def write_policy(path: Path, flat: np.ndarray, config: StudentConfig, run: Run) -> None:
    """Write the student as a policy file, with golden sequences from its own flights and the record of the run."""
    weights = unpack(flat, config)
    flight = Flight(
        sample("wide", 8, config.seed + 3000),
        start_distribution(1.0, yaw=0.2, figure=0.3),  # none upside down, where the yaw of a quadrotor is not defined
        seed=config.seed,
        acceleration=config.acceleration,
    )
    obs, h = flight.reset(), np.zeros((8, config.hidden), np.float32)
    golden = []
    for _ in range(GOLDEN_STEPS):
        golden.append(obs)
        action, h = export.student_forward(weights, obs, h)
        obs = flight.step(action)
    facts = json.loads((run.folder / "facts.json").read_text())
    training = Training(
        command=" ".join(["sim", *facts["command"][1:]]),
        seed=config.seed,
        git_commit=facts["commit"] or "unknown",
        versions={k: facts[k] for k in ("python", "numpy", "numba")},
        machine=facts["cpu"],
    )
    spec = quadrotor_spec(weights["h0"].tolist(), export.parameter_count(weights), training, config.acceleration)
    export.write_policy(path, weights, spec, np.stack(golden))
