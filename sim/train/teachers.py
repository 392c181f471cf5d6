"""A thousand teachers at once: one small network per quadrotor, each trained on its own by analytic policy gradients.

The reward is RAPTOR's (smoothed where it has a kink). Each network starts as its quadrotor's own linear-quadratic
regulator and is improved by the kernel of `sim/train/teacher.py`; teachers go to threads one by one. Those that lag
train again."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
from rich.table import Table

from controllers.files import write_atomically
from sim.backends.quadrotor import (
    LANES,
    STATE,
)
from sim.robots.quadrotors import Preset, Quadrotors, sample
from sim.run import Run, RunError, compile_first, read_config, write_json
from sim.run import progress as progress_bar
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import (
    ACTIONS,
    EPISODE,
    HISTORY,
)
from sim.train.regulator import regulator
from sim.train.teacher import (
    B2,
    HIDDEN,
    INPUTS,
    SIGNALS,
    SKIP,
    W1,
    W2,
    W3,
    WEIGHTS,
    improve,
    judge,
)


@dataclass(frozen=True)
class TeacherConfig:
    """How the teachers are trained."""

    count: int = 1000
    """Quadrotors to sample; each gets its own teacher."""
    preset: Preset = "wide"
    """Distribution of the quadrotors."""
    updates: int = 600
    """Updates of every teacher before the first judgement."""
    window: int = 150
    """Steps per update and flight; sixteen flights per teacher."""
    life: float = 2.0
    """Length of an episode [s]."""
    rate: float = 2e-2
    """Largest learning rate of Adam."""
    discount: float = 0.99
    """Per step, of the reward; the adjoint fades by the same factor."""
    limit_start: float = 60.0
    """Limit of one flight's adjoint at the beginning: small while flights still die."""
    limit_end: float = 2000.0
    """The same after 80 % of the updates, and in further training."""
    edge_start: float = 4.0
    """Cost of coming close to RAPTOR's limits, at the beginning."""
    edge_end: float = 20.0
    """The same after 80 % of the updates, and in further training: those that lag mostly die."""
    tilt: float = math.pi / 2
    """Largest tilt of ordinary starts [rad]."""
    extra: float = 1.0
    """Further updates for the teachers that lag, as a share of all updates so far (a count, not a time, so that a run
    repeats)."""
    rounds: int = 3
    """Rounds of further training at most; each is as long as the first training."""
    extra_rate: float = 0.5
    """Largest learning rate of such a round, as a share of `rate`."""
    judged: int = 128
    """Episodes per teacher, from each kind of start, in every judgement."""
    seed: int = 0
    """Seed of quadrotors, networks, starts, disturbances and judgements."""

    def check(self) -> TeacherConfig:
        """Itself. Raises ValueError for a value that makes no sense."""
        for name in ("count", "updates", "window", "judged"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        for name in ("extra", "rounds", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 0 is needed")
        for name in ("life", "rate", "limit_start", "limit_end", "edge_start", "edge_end", "extra_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: a finite number above 0 is needed")
        return self


def start_distribution(tilt: float = math.pi / 2, **shares: float) -> np.ndarray:
    """The array that `restart` reads. Shares not given are zero; speed and rate are RAPTOR's, a tenth of the starts is
    at rest."""
    values = dict.fromkeys(task.START, 0.0) | {
        "rest": 0.1,
        "tilt": tilt,
        "speed": 1.0,
        "rate": 1.0,
        "figure_scale": 1.0,
    }
    unknown = set(shares) - set(task.START)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"start distribution: {names} is not known: allowed are {', '.join(task.START)}")
    values |= shares
    return np.array([values[k] for k in task.START], dtype=np.float32)


# A figure eight in units of the box stays below 1 m/s along each axis even for the largest quadrotors.
TRAINING_SHARES = {
    "any_attitude": 0.1,
    "figure": 0.15,
    "figure_scale": -0.1,
    "langevin": 0.4,
    "inverted": 0.05,
    "yaw": 0.05,
    "far": 0.05,
}
JUDGED_STARTS = {
    "1 rad": start_distribution(1.0, langevin=0.5),
    "90 degrees": start_distribution(math.pi / 2, langevin=0.5),
}
FLIGHT = ("weights", "m", "v", "step", "x", "a", "s", "rng", "dead")  # all that changes in training
SURVIVED, RETURN, DISTANCE = 0, 1, 2


class Teachers:
    """The batch: networks, optimiser and flights of all teachers, in the memory layout that the kernels want."""

    def __init__(self, quads: Quadrotors, config: TeacherConfig, weights: np.ndarray | None = None):
        """New teachers, or trained ones if their weights (teachers, WEIGHTS) are given."""
        self.quads, self.config, n = quads, config, len(quads)
        rng = np.random.default_rng([config.seed, 0])
        environment = quads.environment()
        self.c, self.e = _repeat(quads.parameters()), _repeat(environment)
        columns = [
            1 / environment[:, task.SPAWN],
            4 / np.sqrt(quads.torque_to_inertia),
            1 / (quads.force_std + quads.gust_std + 0.3),
            4 / quads.torque_to_inertia,
        ]
        self.q = np.stack(columns, 1).astype(np.float32)
        self.weights = self._beginners(environment, rng) if weights is None else weights
        self.m, self.v = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self.step = np.zeros(n, np.int64)
        self.x = np.full((n, (HISTORY + 1) * STATE * LANES), np.nan, np.float32)  # not a flight yet: all begin anew
        self.a = np.zeros((n, ACTIONS * 4 * LANES), np.float32)
        self.s = np.zeros((n, EPISODE * LANES), np.float32)
        self.rng = rng.integers(0, 2**32, (n, LANES), dtype=np.uint32)
        self.dead = np.zeros(n, np.float32)

    def _beginners(self, environment: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n = len(self.quads)
        weights = np.zeros((n, WEIGHTS))
        first = rng.normal(size=(n, HIDDEN, INPUTS)) * (np.arange(INPUTS) <= SIGNALS) / math.sqrt(SIGNALS)
        weights[:, W1:W2] = first.reshape(n, -1)
        weights[:, W2:B2] = rng.normal(size=(n, HIDDEN * HIDDEN)) / math.sqrt(HIDDEN)
        weights[:, W3:SKIP] = rng.normal(size=(n, 4 * HIDDEN)) * 0.01 / math.sqrt(HIDDEN)
        weights[:, SKIP:] = regulator(self.quads, environment, self.q).reshape(n, -1)
        return weights.astype(np.float32)

    def train(
        self,
        schedule: np.ndarray,
        start: np.ndarray,
        which: np.ndarray | None = None,
        tick: Callable[[int], object] = lambda done: None,
    ) -> None:
        """Run the updates of `schedule` (updates, 3: learning rate, adjoint limit, edge) on all teachers or on those in
        `which`.

        `tick` is called with the number of teachers done. Raises ValueError where a weight or state is not finite."""
        i = np.arange(len(self.quads)) if which is None else which
        limits = (schedule * np.array([1.0, 1.0 / (self.config.window * LANES), 1.0])).astype(np.float32)
        life, discount = np.float32(self.config.life), np.float32(self.config.discount)
        state = (self.weights, self.m, self.v, self.step, self.x, self.a, self.s, self.rng, self.c, self.e, self.q)
        rest = (start, limits, self.config.window, life, discount, self.dead)
        in_threads(lambda part: improve(part, *state, *rest), i, tick)
        for name, values in (("weight", self.weights[i]), ("state", self.x[i])):
            bad = ~np.isfinite(values).all(axis=1)
            if bad.any():
                raise ValueError(f"teacher {i[bad][0]}: a {name} is not finite after {self.step[i[bad][0]]} updates")

    def judge(
        self, start: np.ndarray, episodes: int, seed: int | list[int], which: np.ndarray | None = None, steps: int = 500
    ) -> np.ndarray:
        """RAPTOR's score on each teacher's own quadrotor: (teachers, episodes, 4) survived, return, distance [m],
        steps.

        A teacher meets the same episodes whoever else is judged. Raises ValueError where a return is not finite."""
        n = len(self.quads)
        i = np.arange(n) if which is None else which
        rng = np.random.default_rng(seed).integers(0, 2**32, (n, LANES), dtype=np.uint32)
        x, a, s = np.zeros_like(self.x), np.zeros_like(self.a), np.zeros_like(self.s)
        results = np.zeros((-(-episodes // LANES), n, LANES, 4), np.float32)

        def fly(part: np.ndarray) -> None:
            for result in results:
                judge(part, self.weights, x, a, s, rng, self.c, self.e, self.q, start, steps, result)

        in_threads(fly, i)
        scores = np.concatenate(results, 1)[i, :episodes]
        bad = ~np.isfinite(scores).all(axis=(1, 2))
        if bad.any():
            raise ValueError(f"teacher {i[bad][0]}: the return of an episode is not finite")
        return scores

    def save(self, path: Path) -> None:
        """Write the weights to one npz file, atomically."""
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, weights=self.weights))


def _repeat(columns: np.ndarray) -> np.ndarray:
    """(n, channels) to (n, channels * LANES): the same for all lanes."""
    return np.ascontiguousarray(np.repeat(columns[:, :, None], LANES, 2).reshape(len(columns), -1), dtype=np.float32)


def load_teachers(folder: Path) -> Teachers:
    """The trained teachers of a run folder, with their quadrotors.

    Raises RunError where the folder is no finished run of this kind, ValueError where its files do not fit together."""
    content = read_config(folder, KIND)
    path = folder / "teachers.npz"
    if not path.exists():
        raise RunError(f"{folder}: its training is not finished; `sim resume {folder}` goes on with it")
    quads, _ = Quadrotors.load(folder / "quadrotors.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = file["weights"]
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise RunError(f"{path}: not a file of teachers ({error})") from error
    if weights.shape != (len(quads), WEIGHTS) or weights.dtype != np.float32:
        needed = f"float32 {(len(quads), WEIGHTS)}"
        raise RunError(
            f"{path}: the weights are {weights.dtype} {weights.shape}; {len(quads)} quadrotors need {needed}"
        )
    if not np.isfinite(weights).all():
        raise RunError(f"{path}: a weight of teacher {np.flatnonzero(~np.isfinite(weights).all(1))[0]} is not finite")
    return Teachers(quads, TeacherConfig(**content["config"]), weights)


def schedule(config: TeacherConfig, first: int, count: int, total: int, further: bool = False) -> np.ndarray:
    """Learning rate (cosine), adjoint limit and edge of updates first .. first+count.

    In the first training the adjoint limit is tight and the edge soft until 30 % of the updates, and both reach their
    ends at 80 %; in further training they are there from the beginning."""
    progress = np.arange(first, first + count) / total
    peak = config.rate * (config.extra_rate if further else 1.0)
    rates = peak * (0.5 + 0.5 * np.cos(np.pi * progress) + 0.02)
    x = np.ones(count) if further else np.clip((progress - 0.3) / 0.5, 0, 1)
    limits = config.limit_start ** (1 - x) * config.limit_end**x
    return np.stack([rates, limits, config.edge_start ** (1 - x) * config.edge_end**x], 1)


KIND = "quad-teachers"
# What a demonstration can afford.
QUICK = {"updates": 70, "window": 125, "rounds": 1, "extra": 0.15, "judged": 64, "edge_end": 4.0}
CALL = 10  # updates per call of the kernel: a teacher's memory stays in the cache meanwhile
CURVE_TEACHERS, CURVE_EPISODES, CURVE_POINTS = 128, 16, 10  # the learning curve in metrics.jsonl
NEIGHBOURS = 24  # comparable quadrotors
DEAD_BAR, RETURN_BAR = (
    0.005,
    10.0,
)  # a teacher lags if more of its episodes end, or if it returns this much less than comparable ones
LOST = 0.5  # below this share of survivors a teacher begins anew instead of going on
AUTHORITY_BINS = (40, 80, 160, 400, 1200)  # torque to inertia [rad/s^2]
PUBLISHED = {
    "terminated": 0.0044,
    "return": 649.0,
    "core_hours": 517.0,
}  # RAPTOR's 1000 teachers by SAC, from up to 1 rad


def train_teachers(run: Run, config: TeacherConfig) -> Teachers:
    """Train, judge, train those again that lag, judge anew with other seeds, save. Goes on where the run's checkpoint
    is."""
    config.check()
    begun = time.process_time()
    compiling = compile_first("sim.train.teachers:compile_training", "sim.train.teachers:compile_judgement")
    compile_training()
    compile_judgement()
    run.exclude(time.process_time() - begun)
    restored = run.restore()
    path = run.folder / "quadrotors.npz"
    if restored is None:
        quads = sample(config.preset, config.count, config.seed)
        quads.save(path, preset=config.preset, seed=config.seed)
        teachers = Teachers(quads, config)
        progress: dict[str, Any] = {
            "round": 0,
            "update": 0,
            "budget": int(config.extra * config.count * config.updates),
        }
        kept = {"best": teachers.weights.copy(), "which": np.arange(config.count)}
    else:
        progress, arrays = restored
        teachers = Teachers(Quadrotors.load(path)[0], config, arrays["weights"])
        for name in FLIGHT:
            setattr(teachers, name, arrays[name])
        kept = {name: arrays[name] for name in ("best", "which")}
    run.log(event="started" if restored is None else "resumed", **progress, compile_core_seconds=compiling)

    def checkpoint() -> None:
        run.checkpoint(progress, {name: getattr(teachers, name) for name in FLIGHT} | kept)

    checkpoint()
    while True:
        _round(run, config, teachers, progress, kept["which"], checkpoint)
        # The better of before and after, both judged on episodes that neither has met.
        which, trained = kept["which"], teachers.weights.copy()
        seed = [config.seed, 1, progress["round"]]
        if progress["round"] > 0:
            score = _score(teachers, config, seed, which)
            teachers.weights = kept["best"].copy()
            before = _score(teachers, config, seed, which)
            better = which[score[2] > before[2]]
            run.log(event="round", round=progress["round"], teachers=len(which), improved=len(better))
            kept["best"][better] = trained[better]
        else:
            kept["best"] = trained
        teachers.weights = kept["best"].copy()
        if progress["round"] >= config.rounds:
            break
        progress["round"] += 1
        progress["update"] = 0
        survived, returned, total = _score(teachers, config, [config.seed, 2, progress["round"]])
        expected = comparable(teachers.quads, returned)
        lag = np.flatnonzero((survived < 1 - DEAD_BAR) | (returned < expected - RETURN_BAR))
        lag = lag[np.argsort((total - expected)[lag], kind="stable")][: progress["budget"] // config.updates]
        if not len(lag):
            break
        progress["budget"] -= len(lag) * config.updates
        kept["which"] = lag = np.sort(lag)
        teachers.m[lag], teachers.v[lag], teachers.step[lag], teachers.x[lag] = 0, 0, 0, np.nan
        lost = lag[survived[lag] < LOST]
        if len(lost):
            fresh = Teachers(
                teachers.quads[lost], dataclasses.replace(config, seed=config.seed + 1000 + progress["round"])
            )
            teachers.weights[lost] = fresh.weights
        checkpoint()
    write_json(run.folder / "metrics" / "summary.json", summarise(run, teachers))
    teachers.save(run.folder / "teachers.npz")
    run.log(event="finished", core_seconds=run.core_seconds)
    return teachers


def _round(
    run: Run,
    config: TeacherConfig,
    teachers: Teachers,
    progress: dict,
    which: np.ndarray,
    checkpoint: Callable[[], None],
) -> None:
    """The updates of one round that are still missing, with checkpoints, a progress bar and points of the learning
    curve."""
    start = start_distribution(config.tilt, **TRAINING_SHARES)
    title = f"round {progress['round']}: {len(which)} teachers" if progress["round"] else f"{len(which)} teachers"
    curve = which[:: max(1, len(which) // CURVE_TEACHERS)]
    total = config.updates
    with progress_bar(title, total * len(which), progress["update"] * len(which), "updates") as show:
        while progress["update"] < total:
            first = progress["update"]
            count = min(CALL, total - first)
            plan = schedule(config, first, count, total, progress["round"] > 0)
            tick = partial(_show, show, first * len(which), count)
            teachers.train(plan, start, which, tick)
            progress["update"] = first + count
            point = (first + count) * CURVE_POINTS // total > first * CURVE_POINTS // total
            values = {
                "updates": first + count,
                "rate": plan[-1, 0],
                "limit": plan[-1, 1],
                "broken": teachers.dead[which].mean(),
            }
            if point:
                score = teachers.judge(JUDGED_STARTS["1 rad"], CURVE_EPISODES, [config.seed, 4], curve).mean(
                    axis=(0, 1)
                )
                values |= {"terminated": 1 - score[SURVIVED], "return": score[RETURN], "distance": score[DISTANCE]}
            run.log(round=progress["round"], **{k: float(v) for k, v in values.items()}, core_seconds=run.core_seconds)
            if run.due:
                checkpoint()


def _show(show: Callable[[float], object], before: int, count: int, done: int) -> None:
    show(before + done * count)


def _score(
    teachers: Teachers, config: TeacherConfig, seed: list[int], which: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Survival and return from up to 1 rad, and the mean return from all judged starts, of each teacher."""
    scores = [
        teachers.judge(start, config.judged, seed, which).astype(float).mean(1) for start in JUDGED_STARTS.values()
    ]
    return scores[0][:, SURVIVED], scores[0][:, RETURN], np.mean([z[:, RETURN] for z in scores], axis=0)


def comparable(quads: Quadrotors, values: np.ndarray) -> np.ndarray:
    """Median of the values of the most similar other quadrotors: alike in agility, lift, motor lag and disturbance."""
    n = len(quads)
    if n == 1:
        return values.copy()
    columns = (quads.torque_to_inertia, quads.thrust_to_weight, quads.tau_rise, quads.tau_fall, 0.1 + quads.force_std)
    z = np.log(np.stack([*columns, 0.1 + quads.gust_std, 0.005 + quads.action_delay], 1))
    z = (z - z.mean(0)) / (z.std(0) + 1e-9)
    medians = []
    for i in np.array_split(np.arange(n), -(-n // 256)):  # in parts: the distances between all pairs fill the memory
        distance = ((z[i, None] - z[None]) ** 2).sum(-1)
        distance[np.arange(len(i)), i] = np.inf
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(NEIGHBOURS, n - 1)]
        medians.append(np.median(values[nearest], axis=1))
    return np.concatenate(medians)


def summarise(run: Run, teachers: Teachers) -> dict[str, Any]:
    """The final judgement, with a seed of its own: for each kind of start terminated share, return, worst teacher,
    bins."""
    config = teachers.config
    agility = teachers.quads.torque_to_inertia
    result: dict[str, Any] = {
        "teachers": len(teachers.quads),
        "episodes": config.judged,
        "preset": config.preset,
        "seed": config.seed,
    }
    for name, start in JUDGED_STARTS.items():
        scores = teachers.judge(start, config.judged, [config.seed, 3]).astype(float)
        survived, returned = scores[:, :, SURVIVED].mean(1), scores[:, :, RETURN].mean(1)
        worst = int(np.argmin(returned))
        bins = {}
        for low, high in itertools.pairwise(AUTHORITY_BINS):
            inside = (agility >= low) & (agility < high)
            if inside.any():
                bins[f"{low} to {high}"] = {
                    "teachers": int(inside.sum()),
                    "terminated": float(1 - survived[inside].mean()),
                    "return": float(returned[inside].mean()),
                }
        result[name] = {
            "terminated": float(1 - survived.mean()),
            "return": float(returned.mean()),
            "distance": float(scores[:, :, DISTANCE][scores[:, :, SURVIVED] > 0].mean()) if survived.any() else None,
            "lagging": float(np.mean(survived < 1 - DEAD_BAR)),
            "worst": {"teacher": worst, "terminated": float(1 - survived[worst]), "return": float(returned[worst])},
            "torque_to_inertia": bins,
        }
    return result | {"core_seconds": run.core_seconds, "published": PUBLISHED}


def summary_table(summary: dict[str, Any]) -> Table:
    """What `summarise` found, beside the published figures."""
    table = Table(
        title=f"{summary['teachers']} teachers, {summary['episodes']} episodes each, preset {summary['preset']}"
    )
    for header in ("", *JUDGED_STARTS, "published, 1 rad"):
        table.add_column(header, justify="left" if not header else "right")
    starts = [summary[name] for name in JUDGED_STARTS]
    hours, published = summary["core_seconds"] / 3600, summary["published"]
    table.add_row("episodes terminated", *(f"{s['terminated']:.2%}" for s in starts), f"{published['terminated']:.2%}")
    table.add_row("mean return", *(f"{s['return']:.1f}" for s in starts), f"{published['return']:.0f}")
    table.add_row("worst teacher's return", *(f"{s['worst']['return']:.0f}" for s in starts), "")
    table.add_row("teachers that lose more than 1 in 200", *(f"{s['lagging']:.1%}" for s in starts), "")
    for name in starts[0]["torque_to_inertia"]:
        shares = (f"{s['torque_to_inertia'][name]['terminated']:.2%}" for s in starts)
        table.add_row(f"terminated, torque to inertia {name}", *shares, "")
    scaled = published["core_hours"] * summary["teachers"] / 1000
    table.add_row("core-hours", f"{hours:.3f}", "", f"about {scaled:.3g} (SAC)")
    return table


def compile_training() -> None:
    """Compile the training kernel, without any work."""
    blank = Teachers(sample("standard", 1, 0), TeacherConfig(), np.zeros((1, WEIGHTS), np.float32))
    blank.train(np.zeros((0, 3)), JUDGED_STARTS["1 rad"], np.zeros(0, np.int64))


def compile_judgement() -> None:
    """Compile what begins and judges teachers, without any work."""
    blank = Teachers(sample("standard", 1, 0), TeacherConfig())
    blank.judge(JUDGED_STARTS["1 rad"], 1, 0, np.zeros(0, np.int64), steps=0)


def in_threads(
    work: Callable[[np.ndarray], object], items: np.ndarray, tick: Callable[[int], object] = lambda done: None
) -> None:
    """Share items out to as many threads as numba may use; `work` releases the GIL. An interrupt stops after the parts
    in work."""
    threads = nb.get_num_threads()
    parts = np.array_split(items, max(1, min(len(items), max(4 * threads, len(items) // 8))))
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        try:
            for part, _ in zip(parts, pool.map(work, parts), strict=True):
                done += len(part)
                tick(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
