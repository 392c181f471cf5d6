"""How fast the quadrotor simulator is on this machine, next to the public one and next to what the core could do.

Everything is timed in one process, in alternation, and medians are reported, so that other load on the machine hits all
alike. Rates of one core are per second of that core's time; those of two threads, and their scaling, are by the clock
on the wall and need an otherwise idle machine.

Operations of a step are counted in the simulator's own source: each addition, subtraction, multiplication, division,
square root, minimum and maximum is one; comparisons, selections and sign changes are none. The peak is what a chain of
fused multiply-adds reaches on data in the nearest cache (two operations each).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
from rich.console import Console
from rich.table import Table

from sim.backends import quadrotor as backend
from sim.backends.quadrotor import WRENCH, parallel_kernel, step_batch, step_batch_adjoint, to_blocks
from sim.evaluate import measured_with, save
from sim.flight import Flight
from sim.robots.quadrotors import Quadrotors, sample

COUNT = 4096
REPEATS = 11
STEPS = 100  # per timing


def operations(name: str = "rk4") -> int:
    """Floating-point operations of one call of a function of the simulator, with all that it calls."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(backend, name).py_func)))
    total = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            total += 1
        elif isinstance(node, ast.Call):
            callee = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if callee in ("min", "max", "sqrt"):
                total += 1
            elif hasattr(getattr(backend, callee, None), "py_func"):
                total += operations(callee)
    return total


@nb.njit(fastmath={"contract"}, error_model="numpy", nogil=True, cache=True)
def _multiply_add(x, a, b, rounds):
    """16 fused multiply-adds on every element, `rounds` times; elements are independent and fill the pipelines."""
    for _ in range(rounds):
        for i in range(x.size):
            v = x[i]
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            v = v * a + b
            x[i] = v


@parallel_kernel
def _multiply_add_all(x, a, b, rounds):
    for k in nb.prange(x.shape[0]):
        _multiply_add(x[k], a, b, rounds)


def bench_quadrotor(count: int = COUNT, repeats: int = REPEATS) -> dict[str, Any]:
    """Rates of the simulator, its adjoint and `l2f` at `count` quadrotors (a power of two up to 8192, for l2f).

    Returns steps per second as medians over `repeats`, and what they are relative to each other and to the peak."""
    quads = sample("raptor", count, 1)
    flight = Flight(quads, seed=1)
    flight.reset()
    state, action = flight.state, quads.trim()
    x, u, w, c = (to_blocks(z).reshape(-1) for z in (state, action, np.zeros((count, WRENCH)), quads.parameters()))
    first = x.copy()
    after, g, gx, gu = np.zeros_like(x), np.ones_like(x), np.zeros_like(x), np.zeros_like(u)
    cores = min(2, nb.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # numba fills its configuration at run time
    lanes = np.ones((8, 512), np.float32)
    rounds = 4000
    factor, term = np.float32(0.999), np.float32(0.001)

    def forward() -> int:
        nonlocal x, after
        x[:] = first  # the same flight every time, so that nothing grows without bound
        for _ in range(STEPS):
            step_batch(x, u, w, c, after)
            x, after = after, x
        return STEPS * count

    def both() -> int:
        x[:] = first
        for _ in range(STEPS // 4):
            step_batch(x, u, w, c, after)
            step_batch_adjoint(x, u, w, c, after, g, gx, gu)
        return STEPS // 4 * count

    def peak() -> int:
        _multiply_add_all(lanes, factor, term, rounds)
        return 2 * 16 * rounds * lanes.size

    timed: dict[str, tuple[int, Callable[[], int]]] = {
        "step": (1, forward),
        "step_and_adjoint": (1, both),
        "peak": (1, peak),
    }
    if cores > 1:
        timed |= {"step_two_threads": (2, forward), "step_and_adjoint_two_threads": (2, both)}
    peer = _l2f_step(quads, state)
    if peer:
        timed["l2f_step"] = (1, peer)
    rates: dict[str, list[float]] = {name: [] for name in timed}
    walls: dict[str, list[float]] = {name: [] for name in timed}
    before = nb.get_num_threads()
    try:
        for repeat in range(repeats + 1):
            for name, (threads, run) in timed.items():
                nb.set_num_threads(threads)
                wall, busy = time.perf_counter(), time.thread_time()
                done = run()
                wall, busy = time.perf_counter() - wall, time.thread_time() - busy
                if repeat:  # the first is for compiling and for the caches
                    rates[name].append(done / (busy if threads == 1 else wall))
                    walls[name].append(wall)
    finally:
        nb.set_num_threads(before)
    if not np.isfinite(x).all():
        raise ValueError("a state is not finite after the benchmark; the rates would mean nothing")
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    flops = operations()
    result: dict[str, Any] = {"count": count, "repeats": repeats, "facts": measured_with(1), "rates": medians}
    result["operations_per_step"] = flops
    result["share_of_peak"] = flops * medians["step"] / medians["peak"]
    result["ratio_to_l2f"] = medians["step"] / medians["l2f_step"] if peer else None
    wall = {name: float(np.median(values)) for name, values in walls.items()}
    result["two_thread_scaling"] = wall["step"] / wall["step_two_threads"] if cores > 1 else None
    if peer:
        # Both sides of a ratio from the same round, so the load of other programs largely cancels.
        ratios = np.sort(np.array(rates["step"]) / np.array(rates["l2f_step"]))
        result["ratio_to_l2f"] = float(np.median(ratios))
        result["ratio_to_l2f_range"] = [float(ratios[0]), float(ratios[-1])]
    return result


def _l2f_step(quads: Quadrotors, state: np.ndarray) -> Callable[[], int] | None:
    """Steps of the public simulator on the same flights, or nothing where it is not installed."""
    from sim.peers import Batch, PeerError

    try:
        batch = Batch(quads, seed=1, force=False)
    except PeerError:
        return None
    action = np.ascontiguousarray(np.resize(2 * quads.trim() - 1, (batch.size, 4)), dtype=np.float32)
    arguments = batch.device, batch.env, batch.parameters

    batch.set_state(state)
    first = batch.copy_states()

    def run() -> int:
        now, after = batch.states, batch.next
        now.assign(first)
        for _ in range(STEPS // 5):
            batch.api.step(*arguments, now, action, after, batch.rng)
            now, after = after, now
        return STEPS // 5 * batch.size

    return run


def bench_command(output: Path | None = None, console: Console | None = None) -> dict[str, Any]:
    """Measure, print a table and write `output` (a .json file, or a folder that gets bench.json)."""
    console = console or Console()
    result = bench_quadrotor(COUNT, REPEATS)
    rates = result["rates"]
    table = Table(title=f"Quadrotor simulator, {result['count']} quadrotors")
    table.add_column("what")
    table.add_column("million steps a second", justify="right")
    table.add_column("note")
    ratio = result["ratio_to_l2f"]
    share, peak = 100 * result["share_of_peak"], rates["peak"] / 1e9
    note = f"{share:.0f} % of the core's {peak:.0f} GFLOP/s at {result['operations_per_step']} operations a step"
    rows = [
        ("step, one core", "step", note),
        ("step and adjoint, one core", "step_and_adjoint", ""),
        ("step, two threads", "step_two_threads", f"{result['two_thread_scaling'] or 0:.2f} times one"),
        ("step and adjoint, two threads", "step_and_adjoint_two_threads", ""),
        ("l2f step, one core", "l2f_step", f"ours is {ratio:.1f} times as fast" if ratio else ""),
    ]
    for title, key, note in rows:
        if key in rates:
            table.add_row(title, f"{rates[key] / 1e6:.2f}", note)
    console.print(table)
    if not ratio:
        console.print("l2f is not installed, so there is no comparison; install it with: pip install 'realign[peers]'")
    about = result["facts"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "numba", "numpy", "l2f") if about[name])
    console.print(f"{about['cpu']}, {about['cores']} cores; {versions}; medians of {result['repeats']}")
    if output is not None:
        save(output, "bench.json", result)
    return result
