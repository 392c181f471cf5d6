"""The student's kernel: its network is the policy file's network, and its gradients are those of what it computes."""

from __future__ import annotations

import numpy as np
import pytest

from sim import export
from sim.backends.quadrotor import LANES, STATE, to_blocks
from sim.robots.quadrotors import Quadrotors, sample
from sim.tasks import quadrotor as task
from sim.train import student
from sim.train.distill import Flights, examine
from sim.train.learner import Learner, StudentConfig, initial_weights, pack, sizes, unpack
from sim.train.teacher import SCALES
from sim.train.teacher import WEIGHTS as TEACHER_WEIGHTS
from sim.train.teachers import start_distribution

STEPS = 12
CONFIG = StudentConfig(hidden=16)
COST = np.array([1.0, 1.0, 0.15, 0.05, 0.3, 0.3, 0.01, 0.2, 0.1, 3.0], np.float32)


def _window(
    weights: np.ndarray, quads: Quadrotors, imitation: float, tuning: float, windows: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and report of the last of a few windows; the same flights for every call.

    For imitation the teachers fly: the gradient then lacks nothing, as the flight does not depend on the student."""
    rng = np.random.default_rng(3)
    c, e = to_blocks(quads.parameters()), to_blocks(quads.environment())
    n = len(c)
    flights = Flights(n, CONFIG.hidden, rng)
    scales = np.tile(np.array([2.0, 0.3, 1.0, 0.01], np.float32), (n, 1))
    assert scales.shape[1] == SCALES
    teachers = (rng.normal(size=(n, TEACHER_WEIGHTS)) * 0.05).astype(np.float32)
    gradient, report = np.zeros((n, weights.size), np.float32), np.zeros((n, 4), np.float32)
    start = start_distribution(0.3, figure=0.3, langevin=0.5)
    first = initial_weights(CONFIG)
    for i in range(windows):
        last = i == windows - 1
        student.window(
            *(np.arange(n), *sizes(CONFIG.hidden), False, weights if last else first),
            *(flights.x, flights.a, flights.s, flights.rng, flights.h, c.reshape(n, -1), e.reshape(n, -1)),
            *(scales, teachers, np.arange(n), np.float32(imitation), start, STEPS, np.float32(100)),
            *(
                np.float32(imitation),
                np.float32(tuning),
                COST,
                np.float32(1e9),
                np.zeros(n, np.float32),
                gradient,
                report,
            ),
        )
    return gradient.mean(0), report.mean(0)


@pytest.mark.parametrize(("imitation", "tuning", "column"), [(1.0, 0.0, 0), (0.0, 1.0, 1)])
def test_gradient_is_the_slope_of_the_loss(imitation: float, tuning: float, column: int) -> None:
    quads = sample("wide", 2 * LANES, 4).replace(position_noise=0.0, gust_std=0.0)
    weights = initial_weights(CONFIG)
    gradient, _ = _window(weights, quads, imitation, tuning)
    rng = np.random.default_rng(0)
    for block in range(4):
        # Random directions weighted by the gradient, so that the slope is well above float32 noise.
        direction = gradient * rng.uniform(0, 1, gradient.size) * (np.arange(gradient.size) % 4 == block)
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        step = np.float32(2e-3)
        high = _window(weights + step * direction, quads, imitation, tuning)[1][column]
        low = _window(weights - step * direction, quads, imitation, tuning)[1][column]
        assert (high - low) / (2 * step) == pytest.approx(float(gradient @ direction), rel=0.03)


def test_weights_survive_packing_and_unpacking() -> None:
    weights = initial_weights(CONFIG)
    assert np.array_equal(pack(unpack(weights, CONFIG), CONFIG), weights)
    assert export.parameter_count(unpack(weights, CONFIG)) == 2084


def test_kernel_network_equals_the_exported_network() -> None:
    rng = np.random.default_rng(1)
    weights = initial_weights(CONFIG) * 2
    tensors = unpack(weights, CONFIG)
    state = rng.normal(size=(LANES, STATE))
    state[:, 3:7] /= np.linalg.norm(state[:, 3:7], axis=1, keepdims=True)
    q0, q1, q2, q3 = state[:, 3:7].T
    r = np.stack(
        [
            *(1 - 2 * (q2**2 + q3**2), 2 * (q1 * q2 - q0 * q3), 2 * (q1 * q3 + q0 * q2)),
            *(2 * (q1 * q2 + q0 * q3), 1 - 2 * (q1**2 + q3**2), 2 * (q2 * q3 - q0 * q1)),
            *(2 * (q1 * q3 - q0 * q2), 2 * (q2 * q3 + q0 * q1), 1 - 2 * (q1**2 + q2**2)),
        ],
        1,
    )
    obs = np.concatenate([state[:, :3], r, state[:, 7:13], rng.uniform(-1, 1, (LANES, 4))], 1).astype(np.float32)
    h = rng.uniform(-1, 1, (LANES, 16)).astype(np.float32)
    o = to_blocks(np.concatenate([obs, np.zeros((LANES, 3))], 1)).reshape(-1)
    x, y, gates = np.zeros(32 * LANES, np.float32), np.zeros(16 * LANES, np.float32), np.zeros(64 * LANES, np.float32)
    after, raw = np.zeros(16 * LANES, np.float32), np.zeros(4 * LANES, np.float32)
    gi, gh = np.zeros(48 * LANES, np.float32), np.zeros(48 * LANES, np.float32)
    task.preprocess(o, False, x)
    student.student_step(weights, x, to_blocks(h).reshape(-1), y, gates, after, raw, gi, gh, *sizes(16)[:2])
    action, expected = export.student_forward(tensors, obs, h)
    assert np.abs(after.reshape(16, LANES).T - expected).max() < 1e-5
    assert np.abs(np.clip(raw.reshape(4, LANES).T, -1, 1) - action).max() < 1e-5


def test_random_network_does_not_fly() -> None:
    assert examine(initial_weights(CONFIG), CONFIG, sample("raptor", 64, 0), 0)["survived"] < 0.2


def test_echo_loss_pulls_a_neighbouring_memory_back() -> None:
    """Trained on the echo loss alone, two memories on the same observations end closer than they began."""
    rng = np.random.default_rng(5)
    weights = initial_weights(CONFIG)
    weights[512 + 768 + 48 : 512 + 768 + 48 + 768] *= 6  # recurrent weights so large that memories drift apart
    quads = sample("standard", LANES, 4)
    c, e = to_blocks(quads.parameters()).reshape(1, -1), to_blocks(quads.environment()).reshape(1, -1)
    teachers, start = np.zeros((1, TEACHER_WEIGHTS), np.float32), start_distribution(0.3)

    def gap(w: np.ndarray) -> float:
        h, other, apart = rng.normal(size=(1, 16)).astype(np.float32), None, 0.0
        tensors = unpack(w, CONFIG)
        other = h + np.float32(0.02)
        for _ in range(60):
            obs = (rng.normal(size=(1, 22)) * 0.1).astype(np.float32)
            (a, h), (b, other) = export.student_forward(tensors, obs, h), export.student_forward(tensors, obs, other)
            apart = float(np.abs(a - b).max())
        return apart

    before = np.mean([gap(weights) for _ in range(20)])
    learner = Learner(weights, CONFIG)
    flights = Flights(1, CONFIG.hidden, np.random.default_rng(0))
    for _ in range(60):
        gradient, report = np.zeros((1, weights.size), np.float32), np.zeros((1, 4), np.float32)
        student.window(
            *(np.arange(1), *sizes(CONFIG.hidden), False, learner.w, flights.x, flights.a, flights.s),
            *(flights.rng, flights.h, c, e, np.ones((1, SCALES), np.float32), teachers, np.zeros(1, np.int64)),
            *(np.float32(0), start, 40, np.float32(100), np.float32(0), np.float32(1e-9), COST, np.float32(1e9)),
            *(np.ones(1, np.float32), gradient, report),
        )
        learner.update(gradient[0], 1e-2)
    assert np.mean([gap(learner.w) for _ in range(20)]) < 0.5 * before
