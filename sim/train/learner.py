"""The student as numbers: its settings, the layout of its weights, and the optimiser that changes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.backends.quadrotor import LANES
from sim.robots.quadrotors import Preset
from sim.train.student import DENSE, INPUTS


@dataclass(frozen=True)
class StudentConfig:
    """How the student is trained."""

    teachers: str = ""
    """Run folder of the teachers; may be empty where there is no imitation."""
    warm_start: str = ""
    """A policy.onnx to start from instead of random weights."""
    hidden: int = 16
    """Width of the memory; 16 gives 2084 parameters."""
    acceleration: bool = False
    """Add the reference's acceleration to the observation (25 inputs instead of 22)."""
    imitation_updates: int = 2000
    """Updates by imitation; 0 leaves the teachers out."""
    tuning_updates: int = 100000
    """Updates through the simulator; 0 gives imitation only."""
    imitation_rate: float = 4e-3
    """Largest learning rate of imitation."""
    tuning_rate: float = 4e-3
    """Largest learning rate of tuning."""
    batch: int = 512
    """Quadrotors per update."""
    steps: int = 148
    """Steps per window, forward and backward; below 100 the student is short-sighted."""
    life: float = 6.0
    """Length of an episode [s]; the memory is carried from window to window."""
    preset: Preset = "wide"
    """Quadrotors for tuning."""
    plain: float = 0.35
    """Share of the tuning quadrotors that come from the standard preset instead."""
    hard: float = 0.2
    """Share of the tuning quadrotors that come from the preset `hard` instead."""
    short: float = 0.3
    """Share of the flights in tuning that begin anew with every window: a start decides within a third of a second who
    survives, and a flight of full length has only one."""
    pool: int = 32768
    """Quadrotors sampled for tuning."""
    clip: float = 0.5
    """Largest norm of the gradient."""
    limit: float = 2000.0
    """Bound of one flight's adjoint, in units of an average step's weight."""
    decay: float = 0.12
    """Pull of the weights towards zero, per update and unit of the learning rate: large gains magnify rounding."""
    average: float = 0.999
    """Decay of the running average of the weights, which is the student that counts."""
    position: float = 1.0
    """Cost of the distance, far away."""
    near: float = 1.5
    """Cost of the last centimetres."""
    near_width: float = 0.08
    """Distance within which `near` is steep [m]."""
    tilt: float = 0.3
    """Cost of tilt and yaw error."""
    change: float = 0.2
    """Cost of a change of the action."""
    unusual: float = 0.3
    """Share of tuning starts that are not RAPTOR's: any attitude, far away, upside down, on a figure eight."""
    echo: float = 0.1
    """Weight of the echo loss, in tuning, on a quarter of the blocks; see `sim/train/student.py`."""
    edge: float = 20.0
    """Cost of coming close to RAPTOR's limits of position and speed, per metre and per m/s beyond 70 % and 1.5 m/s."""
    seed: int = 0
    """Seed of network, quadrotors, starts and noise."""


def sizes(hidden: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The memory's width, three times that, and that rounded up to LANES, as tuples of these lengths (compile-time
    sizes)."""
    return (0,) * hidden, (0,) * (3 * hidden), (0,) * (-(-hidden // LANES) * LANES)


def weight_shapes(config: StudentConfig) -> dict[str, tuple[int, ...]]:
    """Tensors of the kernel's flat weights, in order."""
    h = config.hidden
    return {
        "W0": (DENSE, INPUTS),
        "Wi": (3 * h, DENSE),
        "bi": (3 * h,),
        "Wh": (3 * h, h),
        "bh": (3 * h,),
        "W2": (4, h),
        "b2": (4,),
    }


def pack(weights: dict[str, np.ndarray], config: StudentConfig) -> np.ndarray:
    """Flat kernel weights from the tensors of a policy file (`sim.export`)."""
    n = 25 if config.acceleration else 22
    w0 = np.zeros((DENSE, INPUTS), np.float32)
    w0[:, :n], w0[:, n] = weights["W0"], weights["b0"]
    return np.concatenate([(w0 if k == "W0" else weights[k]).ravel() for k in weight_shapes(config)]).astype(np.float32)


def unpack(flat: np.ndarray, config: StudentConfig) -> dict[str, np.ndarray]:
    """Tensors of a policy file from flat kernel weights."""
    n = 25 if config.acceleration else 22
    result, start = {}, 0
    for name, shape in weight_shapes(config).items():
        size = math.prod(shape)
        result[name] = flat[start : start + size].reshape(shape).astype(np.float32)
        start += size
    w0 = result.pop("W0")
    return {"W0": w0[:, :n].copy(), "b0": w0[:, n].copy(), **result, "h0": np.zeros(config.hidden, np.float32)}


def initial_weights(config: StudentConfig) -> np.ndarray:
    """Uniform within the inverse square root of the fan-in, and a small output layer, from the seed."""
    rng = np.random.default_rng(config.seed)
    n = 25 if config.acceleration else 22
    fan = {
        "W0": n,
        "Wi": DENSE,
        "bi": config.hidden,
        "Wh": config.hidden,
        "bh": config.hidden,
        "W2": config.hidden,
        "b2": config.hidden,
    }
    scale = {"W2": 0.3, "b2": 0.0}
    parts = []
    for name, shape in weight_shapes(config).items():
        w = rng.uniform(-1, 1, shape) * scale.get(name, 1.0) / math.sqrt(fan[name])
        if name == "W0":
            w[:, n + 1 :] = 0
        parts.append(w.ravel())
    return np.concatenate(parts).astype(np.float32)


class Learner:
    """Flat weights, Adam, and the running average of the weights."""

    def __init__(self, weights: np.ndarray, config: StudentConfig):
        self.config = config
        self.w, self.mean = weights.copy(), weights.copy()
        self.m, self.v = np.zeros_like(weights), np.zeros_like(weights)
        self.updates = 0

    def arrays(self) -> dict[str, np.ndarray]:
        return {"w": self.w, "mean": self.mean, "m": self.m, "v": self.v}

    def restart(self) -> None:
        """Begin another phase: from the averaged weights, with a fresh optimiser."""
        self.w = self.mean.copy()
        self.m, self.v = np.zeros_like(self.w), np.zeros_like(self.w)
        self.updates = 0

    def update(self, gradient: np.ndarray, rate: float) -> float:
        """One step of Adam (0.9, 0.99) on the clipped gradient; a non-finite gradient is left out. Returns its norm."""
        norm = float(np.linalg.norm(gradient))
        if not math.isfinite(norm):
            return norm
        g = gradient * min(1.0, self.config.clip / (norm + 1e-12))
        self.updates += 1
        self.m = (0.9 * self.m + 0.1 * g).astype(np.float32)
        self.v = (0.99 * self.v + 0.01 * g * g).astype(np.float32)
        step = self.m / (1 - 0.9**self.updates) / (np.sqrt(self.v / (1 - 0.99**self.updates)) + 1e-8)
        self.w = (self.w - rate * (step + self.config.decay * self.w)).astype(np.float32)
        decay = min(self.config.average, self.updates / (self.updates + 10))
        self.mean = (decay * self.mean + (1 - decay) * self.w).astype(np.float32)
        return norm
