"""Random policies for tests, with the size and the spread of trained ones, and observations as in flight."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controllers.observation import quadrotor_observation
from controllers.spec import PolicySpec, Training, quadrotor_spec
from sim.export import Weights, parameter_count, write_policy

TRAINING = Training("sim train quad-student", 3, "0123abc", {"numpy": "2"}, "two cores")


def random_weights(seed: int, hidden: int = 16, inputs: int = 22, spread: float = 1.0) -> Weights:
    """Weights as after initialisation in torch, times `spread`; trained ones lie between 1 and 2."""
    rng = np.random.default_rng(seed)

    def draw(fan_in: int, *shape: int) -> np.ndarray:
        return (rng.uniform(-spread, spread, shape) / np.sqrt(fan_in)).astype(np.float32)

    return {
        "W0": draw(inputs, 16, inputs),
        "b0": draw(inputs, 16),
        "Wi": draw(hidden, 3 * hidden, 16),
        "bi": draw(hidden, 3 * hidden),
        "Wh": draw(hidden, 3 * hidden, hidden),
        "bh": draw(hidden, 3 * hidden),
        "W2": draw(hidden, 4, hidden),
        "b2": draw(hidden, 4),
        "h0": draw(hidden, hidden),
    }


def spec_of(weights: Weights) -> PolicySpec:
    acceleration = weights["W0"].shape[1] == 25
    return quadrotor_spec(weights["h0"].tolist(), parameter_count(weights), TRAINING, acceleration)


def flights(seed: int, steps: int, robots: int, inputs: int = 22) -> np.ndarray:
    """Observations (steps, robots, inputs) at any attitude, and well beyond every limit."""
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=(steps, robots, 4))
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    position, velocity, rate, acceleration = (
        scale * rng.normal(size=(steps, robots, 3)) for scale in (0.5, 1.0, 3.0, 4.0)
    )
    action = rng.uniform(-1, 1, size=(steps, robots, 4))
    observation = quadrotor_observation(position, quaternion, velocity, rate, action)
    return np.concatenate([observation, np.float32(acceleration)], axis=-1)[..., :inputs]


def write(path: Path, weights: Weights) -> Path:
    write_policy(path, weights, spec_of(weights), flights(0, 40, 3, weights["W0"].shape[1]))
    return path
