"""How fast the tracking task of the G1 is on this machine: bare physics, the whole environment, and with learning.

The three are timed in alternation and medians are reported, so that other load on the machine hits all alike. Bare
physics is the same engine with the same robots, states, targets and control steps, and nothing else. With `--mjlab` the
tracking task of mjlab runs in turns with ours, in the Python environment that you name, on its simulator's CPU device.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from controllers.g1 import gains, revision
from controllers.motion import Clip, load_clip
from controllers.spec import Training
from sim.backends.mujoco_cpu import MujocoCpu
from sim.run import facts, progress, write_json
from sim.tasks.motion_table import make_table
from sim.tasks.tracking import Tracking
from sim.tasks.tracking_config import TrackingConfig, robot_of, tracking_spec

CLIP = Path(__file__).parent / "motions" / "library" / "squat.npz"
STEPS = 24  # control steps per timing: an update's worth


@dataclass(frozen=True)
class BenchG1:
    """Time the tracking task of the G1 on this machine: physics alone, the environment, and training."""

    robots: int = 512
    """Robots that are simulated at once."""
    repeats: int = 9
    """Timings of each."""
    learning: bool = True
    """Also time training; needs the extra [train]."""
    mjlab: Path | None = None
    """Python of an environment in which mjlab is installed, to run its tracking task in turns with ours."""
    output: Path | None = None
    """File for the numbers (.json)."""


def bench_g1_command(settings: BenchG1) -> dict[str, Any]:
    """Measure, print the table, write the file, return the numbers."""
    config, clip = TrackingConfig(), load_clip(CLIP)
    robot = robot_of(config)
    stiffness, damping = gains(robot, config.gains)
    spec = tracking_spec(config, Training("sim bench g1", 0, "", {}, ""), "squat", clip.duration, None)
    engine = MujocoCpu(robot, settings.robots, stiffness, damping, config.physics_step, config.substeps)
    task = Tracking(engine, [clip], config, spec, seed=0)
    rng, scale = np.random.default_rng(0), 0.3  # as a policy's noise early in training
    seconds: dict[str, list[float]] = {"physics": [], "environment": []}
    steps: list[tuple[np.ndarray, ...]] = []
    everyone, recorded = np.arange(settings.robots), engine.step

    def record(targets: np.ndarray) -> None:
        steps.append((engine.qpos.copy(), engine.qvel.copy(), targets.copy()))
        recorded(targets)

    learner = _learner(settings, spec, clip, config) if settings.learning else None
    with progress("timing", settings.repeats, unit="rounds") as show:
        task.observe()
        for repeat in range(settings.repeats + 1):
            engine.step = record  # type: ignore[method-assign]
            steps.clear()
            start = time.perf_counter()
            for _ in range(STEPS):
                task.step(scale * rng.standard_normal((settings.robots, spec.action_size)))
            environment = time.perf_counter() - start
            engine.step = recorded  # type: ignore[method-assign]
            after = task.state()
            physics = 0.0
            for *state, targets in steps:
                engine.set_state(everyone, *state)
                start = time.perf_counter()
                engine.step(targets)
                physics += time.perf_counter() - start
            task.restore(after)
            rounds = {"physics": physics, "environment": environment}
            if learner is not None:
                start = time.perf_counter()
                learner.iterate(Path("broken"))
                rounds["training"] = time.perf_counter() - start
            if settings.mjlab is not None:
                rounds["mjlab"] = _mjlab(settings.mjlab, settings.robots, clip)
            if repeat:  # the first warms up
                for name, value in rounds.items():
                    seconds.setdefault(name, []).append(value)
                show(repeat)
    engine.close()
    samples = settings.robots * STEPS
    rates = {name: [samples / value for value in values] for name, values in seconds.items()}
    share = [p / e for p, e in zip(seconds["physics"], seconds["environment"], strict=True)]
    content: dict[str, Any] = {
        "facts": facts(0) | {"mujoco": mujoco.__version__},
        "settings": {"robots": settings.robots, "repeats": settings.repeats},
        "rates": {name: _spread(values) for name, values in rates.items()},
        "environment of physics": _spread(share),
    }
    if "mjlab" in rates:
        ratio = [ours / theirs for ours, theirs in zip(rates["environment"], rates["mjlab"], strict=True)]
        content["times mjlab"] = _spread(ratio)
    if settings.output is not None:
        settings.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings.output, content)
    Console().print(_table(content))
    return content


def _learner(settings: BenchG1, spec: Any, clip: Any, config: TrackingConfig) -> Any:
    from sim.train.track import Learner
    from sim.train.track_config import TrackConfig

    robot = robot_of(config)
    engine = MujocoCpu(robot, settings.robots, *gains(robot, config.gains), config.physics_step, config.substeps)
    settings_of_training = TrackConfig(clip=("squat",), robots=settings.robots, steps=STEPS)
    return Learner(settings_of_training, Tracking(engine, [clip], dataclasses.replace(config), spec, seed=1))


def _mjlab(python: Path, robots: int, clip: Clip) -> float:
    """Seconds that mjlab's tracking task takes for as many steps, on the CPU, without its start."""
    script = Path(__file__).with_name("mjlab_rate.py")
    try:
        with tempfile.TemporaryDirectory() as folder:
            motion = Path(folder) / "motion.npz"
            np.savez(motion, allow_pickle=False, **mjlab_motion(clip))
            words = [str(python), str(script), str(robots), str(STEPS), str(motion)]
            done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder)
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"--mjlab {python}: did not answer with a time ({error})") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"--mjlab {python}: {last}") from error


def mjlab_motion(clip: Clip) -> dict[str, np.ndarray]:
    """The motion as mjlab's tracking task reads it: joints and body frames in the world, of the robot of 29 joints."""
    robot = revision("g1_29dof")
    table = make_table([clip], robot, 1 / clip.fps, rest=0.0)
    count = len(robot.bodies)
    frames = {
        f"body_{name}_w": getattr(table.bodies, field)[:, :count].astype(np.float32)
        for name, field in (
            ("pos", "position"),
            ("quat", "quaternion"),
            ("lin_vel", "linear_velocity"),
            ("ang_vel", "angular_velocity"),
        )
    }
    joints = {"joint_pos": table.qpos[:, 7:], "joint_vel": table.qvel[:, 6:]}
    return {"fps": np.array([clip.fps])} | {n: v.astype(np.float32) for n, v in joints.items()} | frames


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": float(min(values)), "high": float(max(values))}


def _table(content: dict[str, Any]) -> Table:
    table = Table("G1 tracking, simulated", "median", "range", "target")
    rows = {
        "physics": ("physics alone [control steps/s]", ""),
        "environment": ("environment: observation, reward, reset too", ""),
        "training": ("training: with learning", "8,000"),
        "mjlab": ("mjlab's tracking task, its CPU device", ""),
    }
    for name, values in content["rates"].items():
        title, target = rows[name]
        table.add_row(title, f"{values['median']:,.0f}", f"{values['low']:,.0f} to {values['high']:,.0f}", target)
    share = content["environment of physics"]
    table.add_row(
        "environment, as a share of physics alone",
        f"{share['median']:.0%}",
        f"{share['low']:.0%} to {share['high']:.0%}",
        "85 %",
    )
    if "times mjlab" in content:
        ratio = content["times mjlab"]
        table.add_row(
            "environment / mjlab", f"{ratio['median']:.0f}", f"{ratio['low']:.0f} to {ratio['high']:.0f}", "30"
        )
    where = content["facts"]
    table.caption = f"{where['cpu']}, {where['cores']} cores; python {where['python']}, mujoco {where['mujoco']}"
    return table
