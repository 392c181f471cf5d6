"""How good is a policy? The same named cases (`sim/cases.py`) for every policy, each number with its confidence
interval and its target.

With `bound`, the flights that a policy loses in the survival cases are handed to an optimal controller that knows
everything (`sim/train/bound.py`): what it cannot save either, nobody can."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from controllers.policy import load_policy
from controllers.spec import POSITION_ERROR_LIMIT, VELOCITY_ERROR_LIMIT, PolicySpec
from sim import metrics
from sim.backends.quadrotor import TIME_STEP
from sim.cases import CASES, Case, Log, Measure, calm, survived
from sim.flight import Flight
from sim.metrics import Estimate
from sim.robots.quadrotors import Quadrotors, sample
from sim.run import facts, progress, write_json

WIDE = 160  # columns of a table in a file
NOBODY = "nobody survives"  # the measure that `bound` adds
PROBE_TIMES = (0.1, 0.2, 0.5, 1.0, 2.0)  # [s]


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
    bound: bool = False,
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
        bound: Add to each survival case the share of starts from which not even optimal control survives. Cases with
            gusts are left out.
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
        state, force = flight.state, flight.force
        log = fly(policy, environment, quads, observation, steps, front if case.clipped else None)
        results[case.name] = {measure.name: _summary(measure, log) for measure in case.measures}
        if bound and case.elsewhere and any(measure.of is survived for measure in case.measures):
            nobody = Measure(NOBODY, lambda log, state=state, force=force: _nobody(log, state, force), "share")
            results[case.name][NOBODY] = _summary(nobody, log)
        done(case.name)
    return results


def _nobody(log: Log, state: np.ndarray, force: np.ndarray) -> np.ndarray:
    """From which starts neither the policy nor optimal control survives, (n,): first states (n, 17), forces (n, 3)."""
    from sim.train.bound import survivable  # compiles kernels that a plain evaluation does not need

    result = ~log.alive
    lost = np.flatnonzero(result)
    if len(lost):
        result[lost] = ~survivable(log.quads[lost], state[lost], force[lost])
    return result


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
    bound: bool = False,
) -> dict[str, Any]:
    """Evaluate policy files, print the tables, and write `output` (a .json file, or a folder that gets eval.json).

    With the peer, the published policy is flown beside them on the same quadrotors, and all of them once more in `l2f`.
    With `bound`, optimal control tries what the policy files lose in our simulator; that takes minutes.
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
                bound=bound and where == "realign" and front is None,
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
