"""Other projects' quadrotor policy and simulator behind our interfaces, to measure both sides in one run.

`foundation-policy` is the published RAPTOR policy, `l2f` the simulator that it was trained in; the extra `[peers]`
installs both.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import sys
from typing import Any

import numpy as np

from controllers.spec import PolicySpec, Training, quadrotor_spec
from sim.backends.quadrotor import STATE
from sim.flight import LOST_POSITION, LOST_RATE, LOST_SPEED, Flight
from sim.robots.quadrotors import SPIN, Quadrotors
from sim.tasks import quadrotor as task

ROWS = (
    256  # per call of the published policy: from about 340 on, numpy's BLAS waits for threads longer than it computes
)


class PeerError(RuntimeError):
    """Another project's package is missing, or cannot do what is asked."""


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PeerError(f"{package} is not installed; install it with: pip install 'realign[peers]'") from error


def published_version() -> str:
    return importlib.metadata.version("foundation-policy")


class PublishedPolicy:
    """The published policy: no turn of the yaw error, no limits; its action is clipped as every integration does."""

    def __init__(self) -> None:
        self._model = _need("foundation_policy", "foundation-policy").Raptor()
        self._gru = self._model.layers[1]
        training = Training("published", 0, "", {"foundation-policy": published_version()}, "")
        self.spec: PolicySpec = quadrotor_spec(self._gru.initial_hidden_state.reshape(-1).tolist(), 2084, training)

    def reset(self, batch: int) -> np.ndarray:
        return self.spec.initial_state(batch)

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.spec.check_inputs(obs, h)
        action, after = np.empty((len(obs), 4), np.float32), np.empty_like(h)
        for start in range(0, len(obs), ROWS):
            rows = slice(start, start + ROWS)
            self._gru.state = h[rows]
            with np.errstate(over="ignore"):  # exp of a large number is infinite, and the gate then rightly 0
                action[rows] = self._model.evaluate_step(obs[rows])
            after[rows] = self._gru.state
        return action.clip(-1, 1), after


class Batch:
    """A batch of quadrotors in l2f: padded to a size that it was compiled for, driven by set points in [-1, 1]."""

    def __init__(self, quads: Quadrotors, seed: int, force: bool = True) -> None:
        self.l2f = _need("l2f", "l2f")
        if sys.platform == "linux":  # its threads wait actively and cost more than they bring: keep to one core
            ctypes.CDLL("libgomp.so.1").omp_set_num_threads(1)
        self.count = len(quads)
        sizes = [n for n in self.l2f.vector_selector if n >= self.count]
        if not sizes:
            raise PeerError(f"{self.count} quadrotors; allowed in one batch of l2f: {max(self.l2f.vector_selector)}")
        self.size = min(sizes)
        self.api = v = self.l2f.vector_selector[self.size]
        self.device, self.rng, self.env = self.l2f.Device(), v.VectorRng(), v.VectorEnvironment()
        self.parameters, self.states, self.next = v.VectorParameters(), v.VectorState(), v.VectorState()
        v.initialize_rng(self.device, self.rng, seed)
        v.initialize_environment(self.device, self.env)
        v.sample_initial_parameters(self.device, self.env, self.parameters, self.rng)
        self._inject(quads, force)
        v.sample_initial_state(self.device, self.env, self.parameters, self.states, self.rng)
        self._observation = np.zeros((self.size, self.env.OBSERVATION_DIM), np.float32)
        self._action = np.zeros((self.size, 4), np.float32)

    def _inject(self, quads: Quadrotors, force: bool) -> None:
        """Give every environment its quadrotor, as l2f's own JSON at full precision."""
        for name in ("dead_band", "battery_sag", "drag", "torque_std", "gust_std", "orientation_delay", "gyro_bias"):
            if np.any(getattr(quads, name)):
                raise PeerError(f"{name} is not zero; allowed in l2f: zero")
        env, parameters = self.env.environments[0], self.parameters.parameters
        template = json.loads(self.l2f.parameters_to_json(self.device, env, parameters[0]))
        for i, p in enumerate(parameters):
            j = min(i, self.count - 1)
            d, inertia = template["dynamics"], quads.inertia[j]
            d["mass"] = quads.mass[j]
            d["rotor_positions"] = (quads.rotor_positions[j] - quads.center_of_mass[j]).tolist()
            d["rotor_thrust_coefficients"] = np.outer(quads.motor_strength[j], quads.thrust_curve[j]).tolist()
            d["rotor_torque_constants"] = [quads.torque_constant[j]] * 4
            d["rotor_torque_directions"] = [[0.0, 0.0, s] for s in SPIN]
            d["rotor_time_constants_rising"] = [quads.tau_rise[j]] * 4
            d["rotor_time_constants_falling"] = [quads.tau_fall[j]] * 4
            d["J"], d["J_inv"] = np.diag(inertia).tolist(), np.diag(1 / inertia).tolist()
            std = float(quads.force_std[j] * quads.mass[j]) if force else 0.0
            template["disturbances"]["random_force"] = {"mean": 0.0, "std": std}
            self.l2f.parameters_from_json(self.device, env, json.dumps(template), p)
        self.parameters.parameters = parameters

    def set_state(self, state: np.ndarray) -> None:
        """Replace the states (count, 17); the constant forces, which l2f does not show, stay."""
        states = self.states.states
        for i, s in enumerate(states):
            row = state[min(i, self.count - 1)]
            s.position, s.orientation, s.linear_velocity = row[0:3], row[3:7], row[7:10]
            s.angular_velocity, s.rpm = row[10:13], row[13:17]
        self.states.states = states

    def copy_states(self) -> Any:
        """All states as l2f keeps them."""
        copied = self.api.VectorState()
        copied.assign(self.states)
        return copied

    def state(self) -> np.ndarray:
        """The states, (count, 17)."""
        result = np.empty((self.count, STATE), np.float32)
        for row, s in zip(result, self.states.states, strict=False):
            row[:] = (*s.position, *s.orientation, *s.linear_velocity, *s.angular_velocity, *s.rpm)
        return result

    def observe(self) -> np.ndarray:
        """Position, rotation matrix row by row, velocity and angular velocity, (count, 18)."""
        self.api.observe(self.device, self.env, self.parameters, self.states, self._observation, self.rng)
        return self._observation[: self.count, :18].copy()

    def step(self, action: np.ndarray) -> None:
        self._action[: self.count], self._action[self.count :] = action, action[-1]
        self.api.step(self.device, self.env, self.parameters, self.states, self._action, self.next, self.rng)
        self.states, self.next = self.next, self.states


class L2fFlight:
    """Freshly reset flights, taken over into l2f: the same quadrotors, starts and references, with delays around it.

    The constant force is drawn by l2f with the same standard deviation, since it can be set no other way.
    """

    def __init__(self, flight: Flight) -> None:
        quads = self.quads = flight.quads
        for name in ("position_noise", "orientation_noise", "velocity_noise", "gyro_noise"):
            if np.any(getattr(quads, name)):
                raise PeerError(f"{name} is not zero; allowed in l2f: zero")
        self._batch = Batch(quads, seed=flight.seed)
        self._batch.set_state(flight.state)
        self._flight, self._width = flight, flight.width
        environment = quads.environment()
        self._box = environment[:, task.BOX]
        taps = {
            "action": (task.ACTION_TAPS, 4),
            "position": (task.POSITION_TAPS, 4),
            "velocity": (task.VELOCITY_TAPS, task.HISTORY + 1),
            "gyro": (task.GYRO_TAPS, 4),
        }
        self._taps = {k: environment[:, i : i + n].T[..., None].astype(np.float32) for k, (i, n) in taps.items()}
        self._actions = [flight.previous_action] * 4
        self._seen = [self._batch.observe()] * (task.HISTORY + 1)
        self._alive, self._lost = np.ones(len(quads), bool), np.zeros(len(quads), bool)

    @staticmethod
    def of(flight: Flight) -> tuple[L2fFlight, np.ndarray]:
        """The flights in l2f, and their first observation."""
        moved = L2fFlight(flight)
        return moved, moved._sense()

    def step(self, action: np.ndarray) -> np.ndarray:
        self._actions = [np.clip(action, -1, 1), *self._actions[:-1]]
        self._batch.step(self._delayed("action", self._actions))
        now = self._batch.observe()
        p, v, w = np.abs(now[:, 0:3]), np.abs(now[:, 12:15]), np.abs(now[:, 15:18])
        kept = (p <= self._box[:, None]) & (v <= task.SPEED_LIMIT) & (w <= task.RATE_LIMIT)
        self._alive &= kept.all(axis=1)
        self._lost |= ~((p <= LOST_POSITION) & (v <= LOST_SPEED) & (w <= LOST_RATE)).all(axis=1)
        now[self._lost] = self._seen[0][self._lost]
        self._seen = [now, *self._seen[:-1]]
        self._flight.advance_reference()
        return self._sense()

    def _delayed(self, sensor: str, samples: list[np.ndarray]) -> np.ndarray:
        taps = self._taps[sensor]
        total = np.zeros_like(samples[0])
        for weight, sample in zip(taps, samples, strict=False):
            if weight.any():
                total += weight * sample
        return total

    def _sense(self) -> np.ndarray:
        reference, seen = self._flight.reference, self._seen
        parts = [
            self._delayed("position", [s[:, 0:3] for s in seen]) - reference[:, 0:3],
            seen[0][:, 3:12],
            self._delayed("velocity", [s[:, 12:15] for s in seen]) - reference[:, 3:6],
            self._delayed("gyro", [s[:, 15:18] for s in seen]),
            self._actions[0],
            reference[:, 6:9],
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32)[:, : self._width]

    @property
    def position_error(self) -> np.ndarray:
        return self._seen[0][:, 0:3] - self._flight.reference[:, 0:3]

    @property
    def yaw_part(self) -> np.ndarray:
        r = self._seen[0]
        return np.sqrt(np.maximum(0, 1 - r[:, 3] - r[:, 7] + r[:, 11])) / 2

    @property
    def previous_action(self) -> np.ndarray:
        return self._actions[0]

    @property
    def alive(self) -> np.ndarray:
        return self._alive.copy()

    @property
    def lost(self) -> np.ndarray:
        return self._lost.copy()
