"""Which deaths nobody could have prevented: bounds from optimal control on the starts that can be survived.

A start is a quadrotor's whole initial state (motors and late commands included) and the wrench that disturbs it from
then on; to survive is to stay within RAPTOR's limits for an episode. Two bounds enclose the share of such starts:

- `survivable`: somebody found a way. Direct shooting, clairvoyant, on the true dynamics: a sequence of actions is
  optimised with the exact adjoint until the flight stays within the limits, and a policy flies on from its end to the
  end of the episode. What counts is that flight, simulated step by step as an episode is judged.
- `unavoidable`: there is no way. A relaxation in which everything that could help happens at once still breaks a
  limit, so every control does. `prove` says which relaxation.

What neither settles stays open. `bound_for_starts` calls all starts without a survivor unavoidable and says beside it
how many of them are proven: more restarts and iterations change the former little, and a relaxation that is simple
enough to be checked misses most of the latter. A policy's share of deaths less the unavoidable share is its distance
to the bound.

The limits do not depend on the reference, so episodes that follow one can be bounded as well as those that hold a
position.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sim.backends.quadrotor import LANES, STATE, WRENCH
from sim.metrics import Estimate, share
from sim.robots.quadrotors import Quadrotors
from sim.run import write_json
from sim.tasks.quadrotor import ACTIONS, ENVIRONMENT, EPISODE, HISTORY
from sim.train.proof import DIRECTIONS, prove
from sim.train.regulator import regulator
from sim.train.shooting import ATTEMPTS, STEPS, Attempt, follow, replay, shoot
from sim.train.teacher import SKIP, WEIGHTS
from sim.train.teachers import (
    SURVIVED,
    TeacherConfig,
    Teachers,
    in_threads,
    load_teachers,
    start_distribution,
)

BINS = (40.0, 80.0, 120.0, 160.0, 240.0, 400.0, 1200.0)  # torque to inertia [rad/s^2]
_S, _A = STATE * LANES, 4 * LANES


@dataclass(frozen=True)
class Starts:
    """n initial conditions, one quadrotor each."""

    quads: Quadrotors
    states: np.ndarray  # (n, STATE) position_w, quaternion, velocity_w, angular_velocity_b, motors
    wrench: np.ndarray  # (n, times, WRENCH) accelerations per step [m/s^2], [rad/s^2]; the last row stays
    previous: np.ndarray  # (n, ACTIONS, 4) actions before the start, oldest first: late ones are still under way

    @staticmethod
    def of(quads: Quadrotors, states: np.ndarray, wrench: np.ndarray, previous: np.ndarray | None = None) -> Starts:
        """Starts from arrays; a wrench may be (n, 3) constant acceleration, (n, WRENCH) constant, or (n, times,
        WRENCH).

        Without `previous`, the motors are where the actions before the start have commanded them. Raises ValueError
        for a shape that does not fit."""
        n = len(quads)
        if states.shape != (n, STATE):
            raise ValueError(f"states: shape {states.shape}, but {n} quadrotors need {(n, STATE)}")
        full = np.asarray(wrench, float)
        if full.shape == (n, 3):
            full = np.concatenate([full, np.zeros((n, 3))], axis=1)
        if full.shape == (n, WRENCH):
            full = full[:, None]
        if full.ndim != 3 or full.shape[0] != n or full.shape[1] < 1 or full.shape[2] != WRENCH:
            raise ValueError(
                f"wrench: shape {np.shape(wrench)}, but need (n, 3), (n, {WRENCH}) or (n, times, {WRENCH}), n = {n}"
            )
        if previous is None:
            previous = np.repeat(2 * states[:, None, 13:] - 1, ACTIONS, axis=1)
        if previous.shape != (n, ACTIONS, 4):
            raise ValueError(f"previous: shape {previous.shape}, but {n} quadrotors need {(n, ACTIONS, 4)}")
        return Starts(quads, *(np.ascontiguousarray(z, np.float32) for z in (states, full, previous)))

    def __len__(self) -> int:
        return len(self.quads)

    def __getitem__(self, index: np.ndarray) -> Starts:
        return Starts(self.quads[index], self.states[index], self.wrench[index], self.previous[index])


@dataclass(frozen=True)
class Search:
    """What direct shooting found for n starts."""

    found: np.ndarray  # (n,) somebody survives
    closest: np.ndarray  # (n,) of all sequences tried, the smallest of their worst ratios to a limit
    plans: np.ndarray  # (n, STEPS, 4) the actions that survive the whole episode


def regulators(quads: Quadrotors) -> np.ndarray:
    """Networks (n, 2, WEIGHTS) that are linear-quadratic regulators, designed for a lag between the motors' rise and
    fall and for the slower of the two: designed for the rise alone, a fifth of all quadrotors cannot even hover."""
    n = len(quads)
    teachers = Teachers(quads, TeacherConfig(count=n), np.zeros((n, WEIGHTS), np.float32))
    result = np.zeros((n, 2, WEIGHTS), np.float32)
    for k, lag in enumerate((np.sqrt(quads.tau_rise * quads.tau_fall), np.maximum(quads.tau_rise, quads.tau_fall))):
        skip = regulator(quads.replace(tau_rise=lag, tau_fall=lag), quads.environment(), teachers.q)
        result[:, k, SKIP:] = skip.reshape(n, -1)
    return result


def search(starts: Starts, guides: np.ndarray | None = None, attempts: tuple[Attempt, ...] = ATTEMPTS) -> Search:
    """Direct shooting from every start.

    guides: (n, any, WEIGHTS of a teacher), networks to guess with and to fly on with, besides each quadrotor's own
    `regulators`. attempts: as `ATTEMPTS`."""
    n = len(starts)
    found, closest = np.zeros(n, np.bool_), np.full(n, np.inf, np.float32)
    plans = np.zeros((n, STEPS, 4), np.float32)
    if n == 0:
        return Search(found, closest, plans)
    plain = regulators(starts.quads)
    weights = plain if guides is None else np.concatenate([guides, plain], axis=1)
    state = _kernel_arrays(starts, np.ascontiguousarray(weights))
    for horizon, iterations, seed, near in attempts:
        rng = np.random.default_rng(seed)
        aims = rng.uniform(-0.5, 0.5, (LANES, 3)).astype(np.float32)
        aims[: weights.shape[1]] = 0
        noise = np.repeat(rng.normal(size=(-(-horizon // 5), 4)), 5, axis=0)[:horizon].astype(np.float32)
        arrays: tuple[Any, ...] = (*state, aims, noise, horizon, iterations, found, closest, plans)
        left = ~found & (closest <= near)
        in_threads(lambda part, arrays=arrays: shoot(part, *arrays), np.flatnonzero(left))
    return Search(found, closest, plans)


def closed_loop(starts: Starts, weights: np.ndarray) -> np.ndarray:
    """The actions (n, STEPS, 4) of a teacher's network, weights (n, WEIGHTS), that flies each start to the origin."""
    actions = np.zeros((len(starts), STEPS, 4), np.float32)
    arrays: tuple[Any, ...] = (*_kernel_arrays(starts, np.ascontiguousarray(weights)), actions)
    in_threads(lambda part: follow(part, *arrays), np.arange(len(starts)))
    return actions


def _kernel_arrays(starts: Starts, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    n = len(starts)
    scales = Teachers(starts.quads, TeacherConfig(count=n), np.zeros((n, WEIGHTS), np.float32)).q
    c, e = (np.ascontiguousarray(z, np.float32) for z in (starts.quads.parameters(), starts.quads.environment()))
    return starts.states, starts.wrench, starts.previous, weights, c, e, scales


def survivable(
    quads: Quadrotors, states: np.ndarray, wrench: np.ndarray, previous: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """Which starts (arrays as in `Starts.of`) someone survives; options as of `search`."""
    return search(Starts.of(quads, states, wrench, previous), **options).found


def unavoidable(
    quads: Quadrotors, states: np.ndarray, wrench: np.ndarray, previous: np.ndarray | None = None
) -> np.ndarray:
    """Which starts (arrays as in `Starts.of`) certainly nobody survives."""
    return certain_excess(Starts.of(quads, states, wrench, previous)) > 0


def certain_excess(starts: Starts) -> np.ndarray:
    """By how much every control exceeds a limit, as far as `prove` can tell, in units of the limit; (n,)."""
    excess = np.zeros(len(starts))
    quads = starts.quads
    numbers = (starts.states, starts.wrench, starts.previous, quads.parameters(), quads.environment())
    arrays: tuple[Any, ...] = (*(np.ascontiguousarray(z, np.float64) for z in numbers), DIRECTIONS, excess)
    in_threads(lambda part: prove(part, *arrays), np.arange(len(starts)))
    return excess


def recall(
    quads: Quadrotors,
    start: np.ndarray,
    seed: int | list[int],
    episodes: np.ndarray,
    environment: np.ndarray | None = None,
    steps: int = STEPS,
) -> Starts:
    """The starts of those episodes (teachers, count) that are marked true, in the order of `np.nonzero`.

    They are those that `Teachers.judge` flies with this seed and this distribution. Wrenches are kept step by step
    only where there are gusts. environment: (n, ENVIRONMENT), if it is not the quadrotors' own."""
    n, count = episodes.shape
    owner, _ = np.nonzero(episodes)
    rounds = -(-count // LANES)
    index = np.full((n, rounds * LANES), -1, np.int64)
    index[:, :count][episodes] = np.arange(len(owner))
    index = index.reshape(n, rounds, LANES)
    rows = quads.environment() if environment is None else environment
    e = np.repeat(rows[:, :, None], LANES, 2).reshape(n, -1).astype(np.float32)
    rng = np.random.default_rng(seed).integers(0, 2**32, (n, LANES), dtype=np.uint32)
    x, a = np.zeros((n, (HISTORY + 1) * _S), np.float32), np.zeros((n, ACTIONS * _A), np.float32)
    s = np.zeros((n, EPISODE * LANES), np.float32)
    times = steps if np.any(quads.gust_std > 0) else 1
    states, previous = np.zeros((len(owner), STATE), np.float32), np.zeros((len(owner), ACTIONS, 4), np.float32)
    wrench = np.zeros((len(owner), times, WRENCH), np.float32)

    def draw(part: np.ndarray) -> None:
        for k in range(rounds):
            replay(part, x, a, s, rng, e, start, steps, np.ascontiguousarray(index[:, k]), states, wrench, previous)

    in_threads(draw, np.flatnonzero(episodes.any(axis=1)))
    return Starts(quads[owner], states, wrench, previous)


def bound_for_starts(
    starts: Starts,
    flown: np.ndarray,
    guides: np.ndarray | None = None,
    weight: float = 1.0,
    attempts: tuple[Attempt, ...] = ATTEMPTS,
) -> dict[str, Any]:
    """What is known about the starts at which a policy has died, whatever the policy: in all, and by torque to inertia.

    flown: (episodes,) torque to inertia in every episode flown; weight: deaths that one of the starts stands for;
    guides and attempts: as for `search`. Shares are of the episodes flown:

    - deaths: where the policy has died;
    - avoidable: of these, where a survivor was found. This is the policy's distance to the bound;
    - unavoidable: where none was found, that is, `proven` (nobody can survive) and `open` (no survivor, no proof).

    closest: of the open starts, the smallest violation found, in units of the limit."""
    result = search(starts, guides, attempts)
    proven = np.zeros(len(starts), np.bool_)
    left = np.flatnonzero(~result.found)
    proven[left] = certain_excess(starts[left]) > 0
    agility = starts.quads.torque_to_inertia

    def shares(low: float, high: float) -> dict[str, Any]:
        episodes = int(((flown >= low) & (flown < high)).sum())
        inside = (agility >= low) & (agility < high)
        kinds = {
            "deaths": inside,
            "avoidable": inside & result.found,
            "unavoidable": inside & ~result.found,
            "proven": inside & proven,
            "open": inside & ~result.found & ~proven,
        }
        counts = {name: weight * float(which.sum()) for name, which in kinds.items()}
        interval = share(np.arange(episodes) < round(counts["unavoidable"])) if episodes else Estimate(0.0, 0.0, 1.0, 0)
        return (
            {"episodes": episodes}
            | {name: n / max(episodes, 1) for name, n in counts.items()}
            | {"unavoidable_interval": [interval.low, interval.high]}
        )

    bins = {f"{low:.0f} to {high:.0f}": shares(low, high) for low, high in itertools.pairwise(BINS)}
    return (
        shares(0.0, math.inf)
        | {"examined": len(starts), "torque_to_inertia": {k: v for k, v in bins.items() if v["episodes"]}}
        | {"closest": [float(z) for z in np.sort(result.closest[~result.found & ~proven])]}
    )


def bound_report(
    teachers: Teachers,
    start: np.ndarray,
    episodes: int,
    seed: int | list[int],
    limit: int = 1024,
    attempts: tuple[Attempt, ...] = ATTEMPTS,
) -> dict[str, Any]:
    """Judge the teachers, find the starts at which they die, and say how many of these deaths were unavoidable.

    Keys as of `bound_for_starts`. Of more than `limit` deaths, so many are drawn at random and stand for all."""
    quads = teachers.quads
    dead = teachers.judge(start, episodes, seed)[:, :, SURVIVED] == 0
    total = int(dead.sum())
    if total > limit:
        keep = np.zeros(total, np.bool_)
        keep[np.random.default_rng(0).permutation(total)[:limit]] = True
        dead[dead] = keep
    owner, _ = np.nonzero(dead)
    environment = teachers.e.reshape(len(quads), ENVIRONMENT, LANES)[:, :, 0]
    starts = recall(quads, start, seed, dead, environment)
    flown = np.repeat(quads.torque_to_inertia, episodes)
    guides = teachers.weights[owner][:, None]
    return bound_for_starts(starts, flown, guides, max(total, 1) / max(len(owner), 1), attempts)


def bound_table(report: dict[str, Any], title: str) -> Table:
    """A report as a table, one row per range of torque to inertia."""
    table = Table(title=title)
    names = ("episodes", "deaths", "avoidable", "unavoidable", "of these proven", "95 % interval of unavoidable")
    for header in ("torque to inertia", *names):
        table.add_column(header, justify="left" if header == "torque to inertia" else "right")
    for name, row in (report["torque_to_inertia"] | {"all": report}).items():
        values = (f"{row[key]:.2%}" for key in ("deaths", "avoidable", "unavoidable", "proven"))
        low, high = row["unavoidable_interval"]
        table.add_row(name, str(row["episodes"]), *values, f"{low:.2%} to {high:.2%}")
    return table


def bound_command(
    teachers_run: Path, output: Path | None = None, tilt: float = math.pi / 2, episodes: int = 128
) -> None:
    """Print and save how many of the teachers' deaths an optimal-control bound shows to be unavoidable.

    tilt: of the starts, at most [rad]; episodes: per teacher."""
    teachers = load_teachers(teachers_run)
    begun, seed = time.process_time(), [teachers.config.seed, 5]
    report = bound_report(teachers, start_distribution(tilt), episodes, seed)
    about = {"teachers": str(teachers_run), "tilt": tilt, "seed": seed, "core_seconds": time.process_time() - begun}
    if output is not None:
        write_json(output, about | report)
    title = f"{len(teachers.quads)} teachers, tilt up to {math.degrees(tilt):.0f} degrees, seed {seed}"
    Console().print(bound_table(report, title))
