"""Quadrotors in the air, one step at a time: the environment in which any policy, from anywhere, can be flown.

    flight = Flight(sample("raptor", 1024, seed=1), seed=2)
    observation, h = flight.reset(), policy.reset(1024)
    for _ in range(500):
        action, h = policy.step(observation, h)
        observation = flight.step(action)
    survived = flight.alive

It is made of the same block functions as the training kernels, so what is evaluated is what was trained in. A flight
that tumbles beyond every physical bound (`LOST_*`) is held where it is: it has failed, and it must not overflow.
Whatever else is not finite is an error that names the quadrotor, the channel and the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np

from sim.backends.quadrotor import (
    LANES,
    ONE,
    PARAMS,
    STATE,
    TIME_STEP,
    WRENCH,
    advance,
    from_blocks,
    parallel_kernel,
    to_blocks,
)
from sim.robots.quadrotors import Quadrotors
from sim.tasks import quadrotor as task
from sim.tasks.quadrotor import (
    ACTIONS,
    ENVIRONMENT,
    EPISODE,
    HISTORY,
    NOISES,
    OBSERVATION,
    REFERENCE,
    broken,
    exogenous,
    observe,
    restart,
    sensor_noise,
    set_point,
)

SPAN = 16  # steps before the histories are moved back to the front of their memory
LOST_POSITION, LOST_SPEED, LOST_RATE = 1000.0, 200.0, 200.0  # per axis [m], [m/s], [rad/s]

STATE_NAMES = (
    *("position_w x", "position_w y", "position_w z"),
    *("quaternion w", "quaternion x", "quaternion y", "quaternion z"),
    *("velocity_w x", "velocity_w y", "velocity_w z"),
    *("angular_velocity_b x", "angular_velocity_b y", "angular_velocity_b z"),
    *(f"motor {i}" for i in range(4)),
)
OBSERVATION_NAMES = (
    *(f"position_error {c}" for c in "xyz"),
    *(f"rotation_matrix {r}{c}" for r in range(3) for c in range(3)),
    *(f"velocity_error {c}" for c in "xyz"),
    *(f"angular_velocity {c}" for c in "xyz"),
    *(f"previous_action {i}" for i in range(4)),
    *(f"reference_acceleration {c}" for c in "xyz"),
)
ACTION_NAMES = tuple(f"action {i}" for i in range(4))

_f = np.float32
_LOST_POSITION, _LOST_SPEED, _LOST_RATE, _HUGE = _f(LOST_POSITION), _f(LOST_SPEED), _f(LOST_RATE), _f(1e30)
_S, _A = STATE * LANES, 4 * LANES


class FlightError(ValueError):
    """A number that is not finite has appeared in a flight."""


@dataclass(frozen=True)
class Figure:
    """A figure eight (Lissajous curve) through the origin, whose speed grows linearly from rest."""

    period: float
    """Of the slowest axis [s]."""
    amplitude: tuple[float, float, float] = (1.0, 0.5, 0.0)
    """Per axis [m]."""
    harmonic: tuple[float, float, float] = (1.0, 2.0, 1.0)
    """Cycles per period, per axis."""
    ramp: float = 3.0
    """Until full speed [s]."""


# Kernels index with plain integers: [block, channels * LANES]. `k` is the slot in which the kept history begins.
@parallel_kernel
def _begin(x, a, s, rng, e, start):
    for b in nb.prange(x.shape[0]):
        for i in range(LANES):
            restart(x[b], a[b], s[b], rng[b], e[b], start, i)


@nb.njit(error_model="numpy")
def _sense_block(k, row, x, a, s, rng, e, ref, w, o, out, fault):
    noise = np.empty(NOISES * LANES, np.float32)
    exogenous(s, rng, e, ref, w)
    sensor_noise(rng, noise)
    observe(x[k * _S : (k + HISTORY + 1) * _S], ref, a[(k + ACTIONS - 1) * _A : (k + ACTIONS) * _A], e, noise, o)
    for i in range(min(LANES, out.shape[0] - row)):
        for c in range(OBSERVATION):
            v = o[c * LANES + i]
            out[row + i, c] = v
            if not abs(v) < _HUGE:
                fault[0] = 1
        for c in range(OBSERVATION, out.shape[1]):
            out[row + i, c] = ref[(6 + c - OBSERVATION) * LANES + i]


@parallel_kernel
def _sense(k, x, a, s, rng, e, ref, w, out, faults):
    for b in nb.prange(x.shape[0]):
        o = np.empty(OBSERVATION * LANES, np.float32)
        _sense_block(k, b * LANES, x[b], a[b], s[b], rng[b], e[b], ref[b], w[b], o, out, faults[b])


@parallel_kernel
def _advance_reference(s, rng, e, ref, w):
    for b in nb.prange(s.shape[0]):
        exogenous(s[b], rng[b], e[b], ref[b], w[b])


@parallel_kernel
def _fly(k, action, x, a, s, rng, e, c, ref, w, alive, lost, out, faults):
    for b in nb.prange(x.shape[0]):
        row = b * LANES
        xb, ab = x[b], a[b]
        now = xb[(k + HISTORY) * _S : (k + HISTORY + 1) * _S]
        after = xb[(k + HISTORY + 1) * _S : (k + HISTORY + 2) * _S]
        newest = ab[(k + ACTIONS) * _A : (k + ACTIONS + 1) * _A]
        for i in range(LANES):
            r = min(row + i, action.shape[0] - 1)
            for j in range(4):
                newest[j * LANES + i] = min(max(action[r, j], -ONE), ONE)
        u = np.empty(_A, np.float32)
        set_point(ab[k * _A : (k + ACTIONS + 1) * _A], e[b], u)
        advance(now, u, w[b], c[b], after)
        for i in range(LANES):
            if broken(after, e[b, task.BOX * LANES + i], i):
                alive[b, i] = False
            gone = lost[b, i]
            for j in range(3):
                # A NaN fails every comparison, so the test is for what is allowed.
                gone |= not (
                    abs(after[j * LANES + i]) <= _LOST_POSITION
                    and abs(after[(7 + j) * LANES + i]) <= _LOST_SPEED
                    and abs(after[(10 + j) * LANES + i]) <= _LOST_RATE
                )
            for j in range(STATE):
                if not abs(after[j * LANES + i]) < _HUGE and not lost[b, i]:
                    faults[b, 0] = 1
            if gone and faults[b, 0] == 0:
                lost[b, i] = True
                for j in range(STATE):
                    after[j * LANES + i] = now[j * LANES + i]
        o = np.empty(OBSERVATION * LANES, np.float32)
        _sense_block(k + 1, row, xb, ab, s[b], rng[b], e[b], ref[b], w[b], o, out, faults[b])


class Flight:
    """Many quadrotors, each on its own flight, stepped together at 100 Hz.

    Args:
        quads: What flies, with the disturbances, delays and noise that it meets.
        start: Distribution of starts, in the order of `sim.tasks.quadrotor.START`; RAPTOR's where left out.
        seed: Of starts, disturbances and noise: the same seed gives the same flights.
        acceleration: Whether the reference's acceleration follows the 22 observations.
        box_arms: Half the box that a flight must stay in, in arms of its quadrotor.
        spawn: Half the box that flights start in [m].
    """

    def __init__(
        self,
        quads: Quadrotors,
        start: np.ndarray | None = None,
        seed: int = 0,
        acceleration: bool = False,
        box_arms: float = 20.0,
        spawn: float = 0.5,
    ) -> None:
        self.quads, self.count, self.seed = quads, len(quads), seed
        self._start = task.NAIVE_START if start is None else np.asarray(start, dtype=np.float32)
        blocks = -(-self.count // LANES)
        self._c = to_blocks(quads.parameters()).reshape(blocks, PARAMS * LANES)
        self._e = to_blocks(quads.environment(box_arms, np.inf, spawn)).reshape(blocks, ENVIRONMENT * LANES)
        self._x = np.zeros((blocks, (HISTORY + 1 + SPAN) * _S), np.float32)
        self._a = np.zeros((blocks, (ACTIONS + SPAN) * _A), np.float32)
        self._s = np.zeros((blocks, EPISODE * LANES), np.float32)
        self._ref = np.zeros((blocks, REFERENCE * LANES), np.float32)
        self._w = np.zeros((blocks, WRENCH * LANES), np.float32)
        self._rng = np.random.default_rng(seed).integers(0, 2**32, (blocks, LANES), dtype=np.uint32)
        self._alive, self._lost = np.ones((blocks, LANES), np.bool_), np.zeros((blocks, LANES), np.bool_)
        self._faults = np.zeros((blocks, 1), np.int32)
        self._observation = np.zeros((self.count, OBSERVATION + 3 * acceleration), np.float32)
        self._k = self.steps = 0

    def reset(
        self,
        state: np.ndarray | None = None,
        force: np.ndarray | None = None,
        previous_action: np.ndarray | None = None,
        figure: Figure | None = None,
    ) -> np.ndarray:
        """Begin new flights, drawn from the distribution of starts, and return the first observation (count, 22 or 25).

        Args:
            state: Replaces the drawn states, (count, 17); channels as in `STATE_NAMES`.
            force: Replaces the drawn constant forces, over mass, world frame, (count, 3) [m/s^2].
            previous_action: Replaces the drawn previous actions (which correspond to the motors), (count, 4).
            figure: Replaces the drawn references.
        """
        self._k = self.steps = 0
        self._alive[:], self._lost[:], self._faults[:] = True, False, 0
        _begin(self._x, self._a, self._s, self._rng, self._e, self._start)
        if state is not None:
            self._put(self._x, 0, np.tile(self._fit("state", state, STATE), HISTORY + 1))
            motors = 2 * np.asarray(state)[:, 13:] - 1
            self._put(self._a, 0, np.tile(motors if self._start[11] == 0 else 0 * motors, ACTIONS))
        if previous_action is not None:
            self._put(self._a, 0, np.tile(self._fit("previous_action", previous_action, 4), ACTIONS))
        if force is not None:
            self._put(self._s, task.FORCE, self._fit("force", force, 3))
        if figure is not None:
            columns = np.zeros((self.count, EPISODE), np.float32)
            columns[:, task.AMPLITUDE : task.AMPLITUDE + 3] = figure.amplitude
            columns[:, task.HARMONIC : task.HARMONIC + 3] = figure.harmonic
            columns[:, task.OMEGA], columns[:, task.RAMP] = 2 * np.pi / figure.period, figure.ramp
            # All of the Langevin reference is zero, so that only the figure eight is left.
            self._put(self._s, task.RAW_POSITION, columns[:, task.RAW_POSITION : task.FORCE])
        self._raise_faults(self.state, STATE_NAMES)
        _sense(
            *(0, self._x, self._a, self._s, self._rng, self._e, self._ref, self._w),
            *(self._observation, self._faults),
        )
        self._raise_faults(self._observation, OBSERVATION_NAMES)
        return self._observation.copy()

    def step(self, action: np.ndarray) -> np.ndarray:
        """Fly one time step with these actions (count, 4), clipped to [-1, 1], and return the next observation."""
        action = np.ascontiguousarray(self._fit("action", action, 4), dtype=np.float32)
        self._raise_faults(action, ACTION_NAMES)
        _fly(
            *(self._k, action, self._x, self._a, self._s, self._rng, self._e, self._c, self._ref, self._w),
            *(self._alive, self._lost, self._observation, self._faults),
        )
        self._k, self.steps = self._k + 1, self.steps + 1
        if self._faults.any():
            self._raise_faults(self.state, STATE_NAMES)
            self._raise_faults(self._observation, OBSERVATION_NAMES)
        if self._k == SPAN:
            self._x[:, : (HISTORY + 1) * _S] = self._x[:, SPAN * _S :]
            self._a[:, : ACTIONS * _A] = self._a[:, SPAN * _A :]
            self._k = 0
        return self._observation.copy()

    def advance_reference(self) -> None:
        """Move only the references and gusts on by one step: for flights that continue in another simulator."""
        _advance_reference(self._s, self._rng, self._e, self._ref, self._w)
        self.steps += 1

    @property
    def width(self) -> int:
        """Numbers in one observation: 22, or 25 with the reference's acceleration."""
        return self._observation.shape[1]

    @property
    def state(self) -> np.ndarray:
        """Position, quaternion wxyz, velocity, angular velocity and motors, (count, 17)."""
        k = self._k + HISTORY
        return self._take(self._x[:, k * _S : (k + 1) * _S])

    @property
    def previous_action(self) -> np.ndarray:
        """The newest action, (count, 4)."""
        k = self._k + ACTIONS - 1
        return self._take(self._a[:, k * _A : (k + 1) * _A])

    @property
    def reference(self) -> np.ndarray:
        """Position, velocity and acceleration to follow, world frame, (count, 9)."""
        return self._take(self._ref)

    @property
    def position_error(self) -> np.ndarray:
        """True position less reference, world frame, (count, 3) [m]."""
        k = (self._k + HISTORY) * _S
        return self._take(self._x[:, k : k + 3 * LANES]) - self._take(self._ref[:, : 3 * LANES])

    @property
    def yaw_part(self) -> np.ndarray:
        """The quaternion's z component, which RAPTOR's reward looks at, (count,)."""
        k = (self._k + HISTORY) * _S + 6 * LANES
        return self._x[:, k : k + LANES].reshape(-1)[: self.count].copy()

    @property
    def force(self) -> np.ndarray:
        """Constant force of each flight over mass, world frame, (count, 3) [m/s^2]."""
        return self._take(self._s[:, task.FORCE * LANES : (task.FORCE + 3) * LANES])

    @property
    def alive(self) -> np.ndarray:
        """Whether each flight has kept within RAPTOR's limits since the reset, (count,)."""
        return self._alive.reshape(-1)[: self.count].copy()

    @property
    def lost(self) -> np.ndarray:
        """Whether each flight has tumbled beyond every physical bound and is held, (count,)."""
        return self._lost.reshape(-1)[: self.count].copy()

    def _take(self, blocks: np.ndarray) -> np.ndarray:
        return from_blocks(blocks.reshape(len(blocks), -1, LANES), self.count)

    def _put(self, blocks: np.ndarray, channel: int, columns: np.ndarray) -> None:
        columns = to_blocks(columns)
        blocks[:, channel * LANES : (channel + columns.shape[1]) * LANES] = columns.reshape(len(blocks), -1)

    def _fit(self, name: str, array: np.ndarray, width: int) -> np.ndarray:
        array = np.asarray(array)
        if array.shape != (self.count, width):
            raise FlightError(f"{name} has shape {array.shape}; allowed: {(self.count, width)}")
        return array

    def _raise_faults(self, array: np.ndarray, names: Sequence[str]) -> None:
        if not np.isfinite(array).all():
            quad, channel = np.argwhere(~np.isfinite(array))[0]
            raise FlightError(
                f"{names[channel]} of quadrotor {quad} is {array[quad, channel]} at step {self.steps} "
                f"({self.steps * TIME_STEP:.2f} s); allowed: finite numbers"
            )
