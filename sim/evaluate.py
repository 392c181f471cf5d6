"""How good is a policy? The same named cases for every policy, each number with its confidence interval and its target.

Every case flies quadrotors of the `raptor` distribution, fresh ones by the evaluation's seed, and changes one thing.
Definitions, the same as those under which the published policy was measured:

- survive: 5 s within RAPTOR's limits (20 arms, 2 m/s, 35 rad/s per axis) from RAPTOR's starts within +-0.5 m and 1 rad;
- hover error: mean distance over the last second of those that survive;
- late by k ms: within 1 m after 10 s, no limits on the way;
- recovery: within 0.3 m after 20 s, no limits on the way, motors between 0 and half at the start;
- figure eight: A = 1 m, B = 0.5 m, speed ramped up in 3 s, root mean square of the distance over three periods after
  the ramp, of those that stay within 1 m of the reference; the reference's velocity is given to the policy;
- gust: force over mass of 1 m/s^2 per axis (standard deviation), correlated over 0.5 s.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from controllers.airframe import AIRFRAMES
from controllers.policy import load_policy
from controllers.spec import POSITION_ERROR_LIMIT, VELOCITY_ERROR_LIMIT, PolicySpec
from sim import metrics
from sim.backends.quadrotor import STATE, TIME_STEP
from sim.flight import Figure, Flight
from sim.metrics import Estimate
from sim.robots.quadrotors import CURVES, Quadrotors, from_airframes, sample
from sim.run import facts, progress, write_json

WIDE = 160  # columns of a table in a file
PER_AIRFRAME = 32  # flights of each named airframe
PROBE_TIMES = (0.1, 0.2, 0.5, 1.0, 2.0)  # [s]
AUTHORITY_BINS = (40, 80, 120, 160, 240, 400, 1200)  # torque to inertia [rad/s^2]


class EvaluationError(ValueError):
    """An evaluation cannot be done or saved."""


class Flyer(Protocol):
    """What is evaluated: `controllers.policy.Policy` or anything with its two calls."""

    spec: PolicySpec

    def reset(self, batch: int) -> np.ndarray: ...

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class Environment(Protocol):
    """What it is flown in, after a reset: `sim.flight.Flight` or the same in another simulator."""

    @property
    def position_error(self) -> np.ndarray: ...

    @property
    def yaw_part(self) -> np.ndarray: ...

    @property
    def previous_action(self) -> np.ndarray: ...

    @property
    def alive(self) -> np.ndarray: ...

    @property
    def lost(self) -> np.ndarray: ...

    def step(self, action: np.ndarray) -> np.ndarray: ...


Front = Callable[[np.ndarray], np.ndarray]
"""What stands between sensors and policy: flight controllers clip errors where the policy does not do it itself."""

Draw = Callable[[Quadrotors, np.random.Generator], Any]


@dataclass(frozen=True)
class Log:
    """What a batch of flights leaves behind."""

    quads: Quadrotors
    alive: np.ndarray
    """Within the limits all the time, (n,)."""
    lost: np.ndarray
    """Tumbled beyond every physical bound, (n,)."""
    distance: np.ndarray
    """From the reference, (steps + 1, n) [m]."""
    returned: np.ndarray
    """RAPTOR's return, (n,)."""
    hidden: np.ndarray
    """The recurrent state after each of the requested steps, (times, n, units)."""


@dataclass(frozen=True)
class Measure:
    """One number out of a case's flights."""

    name: str
    of: Callable[[Log], np.ndarray]
    """One value per flight that counts."""
    kind: Literal["share", "mean", "median"]
    target: float | None = None
    """To reach: at least for shares and returns, at most for distances."""
    published: float | None = None
    """Of the published policy (foundation-policy 1.0.2), measured once in l2f 2.0.18 on 512 to 2048 quadrotors of this
    distribution, with errors clipped in front where the case says so."""
    unit: str = ""


@dataclass(frozen=True)
class Case:
    """One batch of flights."""

    name: str
    measures: tuple[Measure, ...]
    seconds: float = 5.0
    change: Draw | None = None
    """From the sampled quadrotors to those that fly."""
    state: Draw | None = None
    """First states; RAPTOR's starts where absent."""
    figure: Figure | None = None
    clipped: bool = True
    """Whether what stands in front of the policy may clip errors."""
    elsewhere: bool = True
    """Whether a simulator without gusts can fly it too."""
    sampled: bool = True
    """Whether the quadrotors come from the distribution and number `count`; else `change` makes them."""


def survived(log: Log) -> np.ndarray:
    return log.alive


def hover_error(log: Log) -> np.ndarray:
    """Mean distance over the last second of survivors [m]."""
    return log.distance[-100:].mean(axis=0)[log.alive]


def returns(log: Log) -> np.ndarray:
    return log.returned


def within(log: Log, limit: float) -> np.ndarray:
    """Whether each flight ends within `limit` [m] of its reference."""
    return (log.distance[-1] < limit) & ~log.lost


def survived_bin(log: Log, low: float, high: float) -> np.ndarray:
    t2i = log.quads.torque_to_inertia
    return log.alive[(t2i >= low) & (t2i < high)]


def tracking(log: Log, ramp: float) -> np.ndarray:
    """Root mean square distance after the ramp [m] of the flights that stay within 1 m."""
    after = log.distance[round(ramp / TIME_STEP) :]
    return np.sqrt((after**2).mean(axis=0))[(after.max(axis=0) < 1.0) & ~log.lost]


def kept_up(log: Log, ramp: float) -> np.ndarray:
    return (log.distance[round(ramp / TIME_STEP) :].max(axis=0) < 1.0) & ~log.lost


def of_airframe(log: Log, index: int, measure: Callable[[Log], np.ndarray]) -> np.ndarray:
    """The measure over the flights of one named airframe."""
    each = len(log.alive) // len(AIRFRAMES)
    mine = slice(index * each, (index + 1) * each)
    return measure(
        dataclasses.replace(
            log,
            quads=log.quads[mine],
            alive=log.alive[mine],
            lost=log.lost[mine],
            distance=log.distance[:, mine],
            returned=log.returned[mine],
        )
    )


# What a case changes. Forces are off unless the case is about them.
def calm(quads: Quadrotors, rng: np.random.Generator, **changes: Any) -> Quadrotors:
    return quads.replace(force_std=0.0, **changes)


def authority(quads: Quadrotors, rng: np.random.Generator, low: float, high: float) -> Quadrotors:
    """The same quadrotors with torque-to-inertia drawn anew."""
    factor = quads.torque_to_inertia / rng.uniform(low, high, len(quads))
    return dataclasses.replace(quads, inertia=quads.inertia * factor[:, None])


def curve(quads: Quadrotors, rng: np.random.Generator, family: str) -> Quadrotors:
    """The same thrust at full command, along another curve."""
    return dataclasses.replace(calm(quads, rng), thrust_curve=quads.full_thrust[:, None] * np.array(CURVES[family]))


def weak_motor(quads: Quadrotors, rng: np.random.Generator, strength: float) -> Quadrotors:
    strengths = np.ones((len(quads), 4))
    strengths[np.arange(len(quads)), rng.integers(0, 4, len(quads))] = strength
    return dataclasses.replace(calm(quads, rng), motor_strength=strengths)


def off_centre(quads: Quadrotors, rng: np.random.Generator, arms: float) -> Quadrotors:
    """Centre of mass moved sideways, in any direction."""
    angle = rng.uniform(0, 2 * np.pi, len(quads))
    offset = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(quads))], 1) * (arms * quads.arm)[:, None]
    return dataclasses.replace(calm(quads, rng), center_of_mass=offset)


def named_airframes(quads: Quadrotors, rng: np.random.Generator, each: int) -> Quadrotors:
    return from_airframes([airframe for airframe in AIRFRAMES.values() for _ in range(each)])


# First states.
def at_rest(quads: Quadrotors, rng: np.random.Generator, away: float = 0.0, along: int | None = None) -> np.ndarray:
    """Level and at rest, `away` from the goal along one axis or in any direction [m], motors between 0 and half."""
    state = np.zeros((len(quads), STATE))
    direction = rng.normal(size=(len(quads), 3)) if along is None else np.tile(np.eye(3)[along], (len(quads), 1))
    state[:, :3] = away * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    state[:, 3] = 1.0
    state[:, 13:] = rng.uniform(0, 0.5, (len(quads), 4))
    return state


def turned(quads: Quadrotors, rng: np.random.Generator, tilt: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """At rest at the goal, turned by `yaw` or tilted by `tilt` about any horizontal axis [degrees]."""
    state, angle = at_rest(quads, rng), rng.uniform(0, 2 * np.pi, len(quads))
    half = np.radians(tilt or yaw) / 2
    state[:, 3] = np.cos(half)
    if tilt:
        state[:, 4], state[:, 5] = np.sin(half) * np.cos(angle), np.sin(half) * np.sin(angle)
    else:
        state[:, 6] = np.sin(half)
    return state


def _late(name: str, target: float, published: float | None, **delay: float) -> Case:
    share = Measure("within 1 m", partial(within, limit=1.0), "share", target, published)
    return Case(f"{name} late by {next(iter(delay.values())) * 1e3:.0f} ms", (share,), 10.0, partial(calm, **delay))


def _back(name: str, target: float | None, published: float | None, state: Draw, **options: Any) -> Case:
    share = Measure("back within 0.3 m", partial(within, limit=0.3), "share", target, published)
    return Case(name, (share,), 20.0, calm, state, **options)


def _survive(name: str, target: float, published: float | None, change: Draw) -> Case:
    return Case(name, (Measure("survive", survived, "share", target, published),), 5.0, change)


def _figure(period: float, target: float, published: float, published_share: float) -> Case:
    figure = Figure(period)
    measures = (
        Measure("RMSE, median", partial(tracking, ramp=figure.ramp), "median", target, published, "m"),
        Measure("stay within 1 m", partial(kept_up, ramp=figure.ramp), "share", None, published_share),
    )
    return Case(f"figure eight of {period:g} s", measures, figure.ramp + 3 * period, calm, at_rest, figure)


def _bins() -> tuple[Measure, ...]:
    published = (1 - 0.617, 1 - 0.195, 1 - 0.042, 1 - 0.015, 1 - 0.007, 1 - 0.003)
    return tuple(
        Measure(f"torque to inertia {low} to {high}", partial(survived_bin, low=low, high=high), "share", None, known)
        for low, high, known in zip(AUTHORITY_BINS, AUTHORITY_BINS[1:], published, strict=False)
    )


def _airframes(
    name: str, each: int, measure: Callable[[Log], np.ndarray], known: dict[str, float], **options: Any
) -> Case:
    measures = tuple(
        Measure(airframe, partial(of_airframe, index=i, measure=measure), "mean", None, known.get(airframe), "m")
        for i, airframe in enumerate(AIRFRAMES)
    )
    return Case(name, measures, change=partial(named_airframes, each=each), sampled=False, **options)


CASES: tuple[Case, ...] = (
    Case(
        "training distribution",
        (
            Measure("survive", survived, "share", 0.995, 0.963),
            Measure("hover error, mean", hover_error, "mean", 0.015, 0.0575, "m"),
            Measure("return", returns, "mean", None, 645.0),
            *_bins(),
        ),
    ),
    _survive("torque to inertia 40 to 80", 0.95, 0.365, partial(authority, low=40, high=80)),
    Case(
        "no force",
        (
            Measure("survive", survived, "share", None, 0.964),
            Measure("hover error, median", hover_error, "median", 0.003, 0.0210, "m"),
        ),
        5.0,
        calm,
    ),
    _late("action", 0.995, 0.652, action_delay=0.01),
    _late("action", 0.97, 0.203, action_delay=0.02),
    _late("gyro", 0.99, 0.512, gyro_delay=0.01),
    _late("velocity", 0.995, 0.844, velocity_delay=0.05),
    _late("velocity", 0.98, 0.213, velocity_delay=0.10),
    _back("yaw of 180 degrees", 0.995, 0.57, partial(turned, yaw=180)),
    _back("tilt of 90 degrees", None, None, partial(turned, tilt=90)),
    _back("tilt of 150 degrees", 0.995, 0.97, partial(turned, tilt=150)),
    _back("tilt of 180 degrees", 0.99, 0.71, partial(turned, tilt=180)),
    _survive("linear thrust curve", 0.98, 0.879, partial(curve, family="linear")),
    _survive("concave thrust curve", 0.98, 0.905, partial(curve, family="concave")),
    _back(
        "step of 5 m back, nothing clipped in front", 0.998, 0.12, partial(at_rest, away=5.0, along=0), clipped=False
    ),
    _back("step of 5 m, nothing clipped in front", 0.998, None, partial(at_rest, away=5.0), clipped=False),
    _figure(5.5, 0.07, 0.169, 0.980),
    _figure(4.0, 0.12, 0.266, 0.955),
    _survive("one motor at 80 %", 0.98, None, partial(weak_motor, strength=0.8)),
    _survive("centre of mass off by 10 % of the arm", 0.98, None, partial(off_centre, arms=0.1)),
    Case(
        "gusts of 1 m/s^2 over 0.5 s",
        (
            Measure("survive", survived, "share", 0.98),
            Measure("within 1 m", partial(within, limit=1.0), "share", 0.98),
            Measure("hover error, mean", hover_error, "mean", None, None, "m"),
        ),
        5.0,
        partial(calm, gust_std=1.0, gust_time=0.5),
        elsewhere=False,
    ),
    _airframes("airframes: hover error", PER_AIRFRAME, hover_error, {"crazyflie": 0.0527}),
    _airframes(
        "airframes: figure eight of 5.5 s",
        1,
        partial(tracking, ramp=3.0),
        {
            "crazyflie": 0.207,
            "x500_real": 0.171,
            "x500_sim": 0.189,
            "fs": 0.159,
            "race": 0.172,
            "flightmare": 0.193,
            "mrs": 0.172,
            "soft": 0.161,
            "soft_rigid": 0.157,
        },
        seconds=3.0 + 3 * 5.5,
        state=at_rest,
        figure=Figure(5.5),
    ),
)


def clip_errors(observation: np.ndarray) -> np.ndarray:
    """What flight controllers put in front of the published policy: errors limited per axis in the world frame."""
    observation = observation.copy()
    observation[:, 0:3] = observation[:, 0:3].clip(-POSITION_ERROR_LIMIT, POSITION_ERROR_LIMIT)
    observation[:, 12:15] = observation[:, 12:15].clip(-VELOCITY_ERROR_LIMIT, VELOCITY_ERROR_LIMIT)
    return observation


def fly(
    policy: Flyer,
    environment: Environment,
    quads: Quadrotors,
    observation: np.ndarray,
    steps: int,
    front: Front | None = None,
    keep: Sequence[int] = (),
) -> Log:
    """Fly the policy for `steps` from the first observation on; `keep` names steps after which its state is kept."""
    h = policy.reset(len(quads))
    distance = np.empty((steps + 1, len(quads)), np.float32)
    returned, hidden = np.zeros(len(quads)), []
    distance[0] = np.linalg.norm(environment.position_error, axis=1)
    alive, previous = environment.alive, environment.previous_action
    for step in range(steps):
        action, h = policy.step(front(observation) if front else observation, h)
        yaw = np.arccos(np.clip(1 - np.abs(environment.yaw_part), -1, 1))
        reward = 1.5 - distance[step] - 0.2 * yaw - np.linalg.norm(action - previous, axis=1)
        observation, previous = environment.step(action), action
        still = environment.alive
        returned += np.where(still, reward, np.where(alive, -100.0, 0.0))
        alive = still
        distance[step + 1] = np.linalg.norm(environment.position_error, axis=1)
        if step + 1 in keep:
            hidden.append(h)
    return Log(quads, alive, environment.lost, distance, returned, np.array(hidden))


def evaluate(
    policy: Flyer,
    count: int = 1024,
    seed: int = 1,
    cases: Sequence[Case] = CASES,
    elsewhere: Callable[[Flight], tuple[Environment, np.ndarray]] | None = None,
    front: Front | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Every case: {case: {measure: {value, low, high, count, target, met, published, unit}}}.

    Args:
        policy: What flies.
        count: Quadrotors per case.
        seed: Of quadrotors, starts and disturbances. Cases share their quadrotors.
        cases: What to fly.
        elsewhere: Moves freshly reset flights to another simulator and answers with them and the first observation.
        front: What stands in front of the policy, in cases that allow it.
        done: Called with the name of each case when it has been flown.
    """
    sampled = sample("raptor", count, seed)
    results = {}
    for index, case in enumerate(cases):
        if elsewhere is not None and not case.elsewhere:
            continue
        rng = np.random.default_rng([seed, index])
        quads = case.change(sampled, rng) if case.change else sampled
        flight = Flight(quads, seed=int(rng.integers(2**31)), acceleration=policy.spec.observation_size == 25)
        observation = flight.reset(case.state(quads, rng) if case.state else None, figure=case.figure)
        environment: Environment = flight
        if elsewhere is not None:
            environment, observation = elsewhere(flight)
        steps = round(case.seconds / TIME_STEP)
        log = fly(policy, environment, quads, observation, steps, front if case.clipped else None)
        results[case.name] = {measure.name: _summary(measure, log) for measure in case.measures}
        done(case.name)
    return results


def _summary(measure: Measure, log: Log) -> dict[str, Any]:
    values = measure.of(log)
    estimate: Estimate | None = None
    if len(values):
        estimate = {"share": metrics.share, "mean": metrics.mean, "median": metrics.median}[measure.kind](values)
    met = None
    if measure.target is not None:
        sign = -1 if measure.unit == "m" else 1
        met = estimate is not None and sign * estimate.value >= sign * measure.target
    numbers = dataclasses.asdict(estimate) if estimate else dict.fromkeys(("value", "low", "high")) | {"count": 0}
    # One flight has no interval.
    numbers = {k: v if v is None or np.isfinite(v) else None for k, v in numbers.items()}
    about = {"kind": measure.kind, "unit": measure.unit, "target": measure.target, "published": measure.published}
    return numbers | about | {"met": met}


Knowledge = dict[str, dict[str, float | None]]
"""R² of a linear readout, {quantity: {time: R²}}; none where too few flights survive."""


def probes(policy: Flyer, count: int = 2048, seed: int = 1, front: Front | None = None) -> Knowledge:
    """What the recurrent state knows: R² of linear readouts at `PROBE_TIMES`.

    Quadrotors of the `raptor` distribution, from its starts; for the action delay the same quadrotors, half of them
    late by up to 25 ms. Those that do not survive are left out; half of the rest fit the readout, the others judge
    it.
    """
    steps = [round(t / TIME_STEP) for t in PROBE_TIMES]
    rng = np.random.default_rng([seed, 77])
    plain = calm(sample("raptor", count, seed + 1), rng)
    late = dataclasses.replace(plain, action_delay=rng.uniform(0, 0.025, count) * (rng.random(count) < 0.5))
    results: Knowledge = {}
    for quads, quantities in (
        (
            plain,
            {
                "thrust to weight": plain.thrust_to_weight,
                "log torque to inertia": np.log(plain.torque_to_inertia),
                "motor lag, rising": plain.tau_rise,
                "motor lag, falling": plain.tau_fall,
            },
        ),
        (late, {"action delay": late.action_delay}),
    ):
        flight = Flight(quads, seed=seed + 2, acceleration=policy.spec.observation_size == 25)
        log = fly(policy, flight, quads, flight.reset(), steps[-1], front, steps)
        alive = log.alive
        enough = alive.sum() >= 4 * log.hidden.shape[2]  # two flights per unit to fit, two to judge
        for name, values in quantities.items():
            results[name] = {
                f"{t:g} s": metrics.probe(h[alive], values[alive]) if enough else None
                for t, h in zip(PROBE_TIMES, log.hidden, strict=True)
            }
    return results


def measured_with(seed: int) -> dict[str, Any]:
    """Machine and versions that a measured number belongs to, other projects' included."""
    peers = {}
    for package in ("l2f", "foundation-policy"):
        try:
            peers[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            peers[package] = None
    return facts(seed) | peers


def save(output: Path, name: str, content: dict[str, Any]) -> Path:
    """Write `output`, or the file `name` in it where it is not a .json file; whole or not at all. Returns the path."""
    path = output if output.suffix == ".json" else output / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error.strerror}); what was there is kept") from error
    write_json(path, content)
    return path


def evaluate_command(
    policy_paths: Sequence[Path],
    output: Path,
    count: int = 1024,
    seed: int = 1,
    peer: Literal["none", "raptor"] = "none",
    console: Console | None = None,
    cases: Sequence[Case] = CASES,
) -> dict[str, Any]:
    """Evaluate policy files, print the tables, and write `output` (a .json file, or a folder that gets eval.json).

    With the peer, the published policy is flown beside them on the same quadrotors, and all of them once more in `l2f`.
    """
    if count < 2:
        raise EvaluationError(f"count is {count}; allowed: 2 or more quadrotors per case")
    console = console or Console(width=None if sys.stdout.isatty() else WIDE)
    runs: list[tuple[str, str, Flyer, Front | None]] = []
    content: dict[str, Any] = {"count": count, "seed": seed, "facts": measured_with(seed)}
    content |= {"policies": {}, "results": {}, "probes": {}}
    for path in policy_paths:
        policy, name = load_policy(path), _unique(_name_of(path), content["policies"])
        content["policies"][name] = {
            "file": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "parameter_count": policy.spec.parameter_count,
            "inputs": policy.spec.observation_size,
            "hidden": policy.spec.recurrent.size,
        }
        runs.append((name, "realign", policy, None))
    elsewhere = None
    if peer == "raptor":
        from sim.peers import L2fFlight, PublishedPolicy, published_version

        published = PublishedPolicy()
        name = _unique("published", content["policies"])
        package = f"foundation-policy {published_version()}"
        content["policies"][name] = {"package": package, "parameter_count": published.spec.parameter_count}
        runs.append((name, "realign", published, clip_errors))
        runs += [(name, "l2f", policy, front) for name, _, policy, front in runs]
        elsewhere = L2fFlight.of
    total = sum(len([c for c in cases if c.elsewhere or where == "realign"]) for _, where, _, _ in runs)
    flown = 0
    with progress("evaluating", total, unit="cases", console=console) as update:

        def done(case: str) -> None:
            nonlocal flown
            flown += 1
            update(flown, case)

        for name, where, policy, front in runs:
            results = evaluate(
                policy,
                count,
                seed,
                cases,
                elsewhere=elsewhere if where == "l2f" else None,
                front=front,
                done=lambda case, name=name, where=where: done(f"{name} in {where}: {case}"),
            )
            content["results"].setdefault(name, {})[where] = results
            if where == "realign" and not name.endswith(".so"):  # the same memory as the policy that it comes from
                content["probes"][name] = probes(policy, 2 * count, seed, front)
    path = save(output, "eval.json", content)
    for table in tables(content):
        console.print(table)
    machine = f"{content['facts']['cpu']}, {content['facts']['cores']} cores"
    console.print(f"{count} quadrotors a case, seed {seed}; 95 % intervals; {machine}; saved as {path}")
    return content


def _name_of(path: Path) -> str:
    """The run's name for the `policy.onnx` of a run; a compiled policy keeps its suffix."""
    if path.suffix == ".so":
        return path.name
    return path.resolve().parent.name if path.name == "policy.onnx" else path.stem


def _unique(name: str, taken: dict[str, Any]) -> str:
    names = [name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))]
    return next(n for n in names if n not in taken)


def tables(content: dict[str, Any]) -> list[Table]:
    """The results and the probes as tables."""
    runs = [(name, where) for name, by in content["results"].items() for where in by]
    main = Table(title="Evaluation")
    main.add_column("case", min_width=16, overflow="fold")
    main.add_column("target", justify="right", min_width=7)
    main.add_column("published,\nin l2f, once", justify="right", min_width=7)
    for name, where in runs:
        main.add_column(f"{name}\nin {where}", justify="right", min_width=9, overflow="fold")
    first = content["results"][runs[0][0]][runs[0][1]]
    for case, measured in first.items():
        for measure, entry in measured.items():
            cells = []
            for name, where in runs:
                found = content["results"][name][where].get(case, {}).get(measure)
                cells.append(_cell(found) if found else "-")
            label = case if len(measured) == 1 else f"{case}: {measure}"
            main.add_row(label, number(entry["target"], entry), number(entry["published"], entry), *cells)
    knows = Table(title="What the hidden state knows: R² of a linear readout")
    knows.add_column("policy")
    knows.add_column("quantity")
    for t in PROBE_TIMES:
        knows.add_column(f"{t:g} s", justify="right")
    for name, quantities in content["probes"].items():
        for quantity, values in quantities.items():
            knows.add_row(name, quantity, *("-" if v is None else f"{v:.2f}" for v in values.values()))
    return [main, knows]


def number(value: float | None, entry: dict[str, Any], unit: bool = True) -> str:
    """A value of this entry of the results, as people read it."""
    if value is None:
        return "-"
    if entry["kind"] == "share":
        return f"{100 * value:.1f} %" if unit else f"{100 * value:.1f}"
    if entry["unit"] == "m":
        return f"{100 * value:.2f} cm" if unit else f"{100 * value:.2f}"
    return f"{value:.0f}"


def _cell(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "no survivor"
    text = number(entry["value"], entry)
    if entry["low"] is not None:
        text += f" ({number(entry['low'], entry, False)} to {number(entry['high'], entry, False)})"
    return text if entry["met"] is None else f"{text} {'pass' if entry['met'] else 'miss'}"
