"""Many quadrotors at once: sampling them, saving them, and turning them into the simulator's parameters.

Four distributions:
- `raptor`: the published one (RAPTOR, section 3; its released code), exactly, to compare with the published policy;
- `standard`: the same without its oddities: the size deviation is centred, and the disturbance force scales with
  weight and thrust margin (three sigma use a tenth of the margin), with the same average size as published;
- `wide`: `standard` plus all that real quadrotors have: other thrust curves, weak motors, a shifted centre of mass,
  other inertia ratios and geometries, drag, delays of actuators and sensors, noise, battery sag, torques and gusts;
  each with its own probability;
- `hard`: the corners of `standard` where the most flights are lost: lift in plenty (three quarters) or hardly enough,
  motors that slow down late, little torque (three fifths); a third each with the published, a linear and a concave
  thrust curve.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from controllers.airframe import AIRFRAMES, Airframe
from sim.backends.quadrotor import GRAVITY, PARAMETER, TIME_STEP
from sim.tasks import quadrotor as task

Preset = Literal["raptor", "standard", "wide", "hard"]
SPIN = np.array([-1.0, 1.0, -1.0, 1.0])

# Thrust-curve families on [0, 1]: shares of c0, c1, c2 at full thrust.
CURVES = {
    "crazyflie": (0.0320, 0.1305, 0.8375),
    "linear": (0.0, 1.0, 0.0),
    "concave": (-0.0702, 1.1882, -0.1180),  # the ARPL racing quadrotor
    "quadratic": (0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class Quadrotors:
    """Arrays over n quadrotors: the fields of `Airframe`, and the disturbances that each of them meets."""

    mass: np.ndarray
    rotor_positions: np.ndarray
    thrust_curve: np.ndarray
    torque_constant: np.ndarray
    tau_rise: np.ndarray
    tau_fall: np.ndarray
    inertia: np.ndarray
    center_of_mass: np.ndarray
    motor_strength: np.ndarray
    dead_band: np.ndarray
    saturation: np.ndarray
    drag: np.ndarray
    battery_sag: np.ndarray
    action_delay: np.ndarray
    position_delay: np.ndarray
    orientation_delay: np.ndarray
    velocity_delay: np.ndarray
    gyro_delay: np.ndarray
    position_noise: np.ndarray
    orientation_noise: np.ndarray
    velocity_noise: np.ndarray
    gyro_noise: np.ndarray
    gyro_bias: np.ndarray
    force_std: np.ndarray
    """Standard deviation of the force that is constant through an episode, per axis, over mass [m/s^2]."""
    torque_std: np.ndarray
    """The same for torque, over inertia [rad/s^2]."""
    gust_std: np.ndarray
    """Standard deviation of the gusts' force, per axis, over mass [m/s^2]."""
    gust_time: np.ndarray
    """Correlation time of the gusts [s]."""

    def __len__(self) -> int:
        return len(self.mass)

    def __getitem__(self, index) -> Quadrotors:
        """The quadrotors that an index array or slice selects."""
        return Quadrotors(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def replace(self, **changes) -> Quadrotors:
        """A copy with some fields set for all quadrotors; scalars and single rows are repeated."""
        arrays = {
            k: np.broadcast_to(np.asarray(v, dtype=float), getattr(self, k).shape).copy() for k, v in changes.items()
        }
        return dataclasses.replace(self, **arrays)

    @property
    def arm(self) -> np.ndarray:
        """Largest rotor distance from the geometric centre [m]."""
        return np.linalg.norm(self.rotor_positions, axis=-1).max(axis=-1)

    @property
    def full_thrust(self) -> np.ndarray:
        """Thrust of one nominal rotor at full command [N]."""
        return self.thrust_curve.sum(axis=-1)

    @property
    def thrust_to_weight(self) -> np.ndarray:
        return 4 * self.full_thrust / (self.mass * GRAVITY)

    @property
    def torque_to_inertia(self) -> np.ndarray:
        """Roll authority sqrt(2) |x| F / Jxx [rad/s^2] (RAPTOR's definition)."""
        return np.sqrt(2) * np.abs(self.rotor_positions[:, 0, 0]) * self.full_thrust / self.inertia[:, 0]

    def trim(self) -> np.ndarray:
        """Motor commands in [0, 1] at which thrust equals weight and all torques vanish, (n, 4).

        Solves the thrust allocation, then inverts the thrust curve and the battery sag by a few fixed-point steps. A
        command outside [0, 1] means that this quadrotor cannot hover; `sample` draws such a quadrotor again."""
        n = len(self)
        r = self.rotor_positions - self.center_of_mass[:, None]
        allocation = np.stack([np.ones((n, 4)), r[..., 1], -r[..., 0], self.torque_constant[:, None] * SPIN], axis=1)
        need = np.zeros((n, 4))
        need[:, 0] = self.mass * GRAVITY
        thrust = np.linalg.solve(allocation, need[..., None])[..., 0] / self.motor_strength
        c0, c1, c2 = self.thrust_curve.T[:, :, None]
        sag, m = np.ones(n), np.zeros((n, 4))
        for _ in range(20):
            rest = c0 - thrust / sag[:, None]
            root = np.sqrt(np.maximum(c1**2 - 4 * c2 * rest, 0.0))
            effective = -2 * rest / (c1 + root + 1e-30)
            m = effective * (1 - self.dead_band)[:, None] + self.dead_band[:, None]
            sag = 1 - self.battery_sag * np.clip(m, 0, 1).mean(axis=1)
        return np.where(effective > self.saturation[:, None], 2.0, m)

    def parameters(self) -> np.ndarray:
        """The simulator's dynamics parameters, (n, PARAMS)."""
        m, (jx, jy, jz) = self.mass, self.inertia.T
        r = self.rotor_positions - self.center_of_mass[:, None]
        columns = [
            self.thrust_curve / m[:, None],
            self.motor_strength,
            np.stack([self.dead_band, 1 / (1 - self.dead_band), self.saturation, self.battery_sag / 4], 1),
            r[..., 0] * (m / jy)[:, None],
            r[..., 1] * (m / jx)[:, None],
            np.stack([self.torque_constant * m / jz, (jz - jy) / jx, (jx - jz) / jy, (jy - jx) / jz], 1),
            np.stack([1 / self.tau_rise, 1 / self.tau_fall], 1),
            self.drag,
        ]
        result = np.concatenate(columns, axis=1)
        assert result.shape[1] == len(PARAMETER)
        return result

    def environment(self, box_arms: float = 20.0, spawn_arms: float = 10.0, spawn_limit: float = 0.5) -> np.ndarray:
        """The task's parameters, (n, ENVIRONMENT): delays, noise, disturbances, start and termination boxes, trim."""
        e = np.zeros((len(self), task.ENVIRONMENT))
        for start, count, delay in (
            (task.ACTION_TAPS, 4, self.action_delay),
            (task.POSITION_TAPS, 4, self.position_delay),
            (task.ORIENTATION_TAPS, 4, self.orientation_delay),
            (task.GYRO_TAPS, 4, self.gyro_delay),
            (task.VELOCITY_TAPS, task.HISTORY + 1, self.velocity_delay),
        ):
            e[:, start : start + count] = task.delay_taps(delay, count)
        e[:, task.POSITION_NOISE], e[:, task.ORIENTATION_NOISE] = self.position_noise, self.orientation_noise
        e[:, task.VELOCITY_NOISE], e[:, task.GYRO_NOISE] = self.velocity_noise, self.gyro_noise
        e[:, task.GYRO_BIAS : task.GYRO_BIAS + 3] = self.gyro_bias
        e[:, task.FORCE_STD], e[:, task.TORQUE_STD], e[:, task.GUST_STD] = (
            self.force_std,
            self.torque_std,
            self.gust_std,
        )
        e[:, task.GUST_DECAY] = np.exp(-TIME_STEP / self.gust_time)
        e[:, task.BOX] = box_arms * self.arm
        e[:, task.SPAWN] = np.minimum(spawn_arms * self.arm, spawn_limit)
        e[:, task.TRIM : task.TRIM + 4] = 2 * self.trim() - 1
        return e

    def save(self, path: Path, **about) -> None:
        """Write all quadrotors and what made them (seed, preset) to one npz file, atomically."""
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as f:
            np.savez_compressed(f, about=json.dumps(about), **dataclasses.asdict(self))
        os.replace(temporary, path)

    @staticmethod
    def load(path: Path) -> tuple[Quadrotors, dict]:
        """Quadrotors and the record of what made them. Raises ValueError where the file is not one that `save`
        wrote."""
        try:
            with np.load(path) as f:
                names = [field.name for field in dataclasses.fields(Quadrotors)]
                return Quadrotors(**{k: f[k] for k in names}), json.loads(str(f["about"]))
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not a file of quadrotors written by this version ({error})") from error


def from_airframes(airframes: list[Airframe]) -> Quadrotors:
    """The given airframes, without disturbances."""
    shared = [f.name for f in dataclasses.fields(Quadrotors) if hasattr(airframes[0], f.name)]
    n = len(airframes)
    arrays = {k: np.array([getattr(a, k) for a in airframes], dtype=float) for k in shared}
    return Quadrotors(
        **arrays, force_std=np.zeros(n), torque_std=np.zeros(n), gust_std=np.zeros(n), gust_time=np.ones(n)
    )


def sample(preset: Preset, count: int, seed: int) -> Quadrotors:
    """`count` quadrotors of a distribution; the same seed gives the same quadrotors, and every one of them can hover.

    Raises ValueError for an unknown preset or a negative count."""
    if preset not in get_args(Preset):
        raise ValueError(f"preset {preset!r} is not known: allowed are {', '.join(get_args(Preset))}")
    if count < 1:
        raise ValueError(f"count is {count}: at least 1 quadrotor is needed")
    rng = np.random.default_rng(seed)
    quads = _sample(preset, count, rng)
    for _ in range(100):
        m = quads.trim()
        bad = np.flatnonzero(~np.all((m > 0.02) & (m < 0.93), axis=1)) if preset == "wide" else np.array([], dtype=int)
        if not len(bad):
            return quads
        again = _sample(preset, len(bad), rng)
        merged = {f.name: getattr(quads, f.name).copy() for f in dataclasses.fields(quads)}
        for name, values in merged.items():
            values[bad] = getattr(again, name)
        quads = Quadrotors(**merged)
    raise ValueError(f"preset {preset!r} gives too many quadrotors that cannot hover")


def _sample(preset: Preset, n: int, rng: np.random.Generator) -> Quadrotors:
    base = AIRFRAMES["crazyflie"]
    u = lambda low, high, *shape: rng.uniform(low, high, (n, *shape))  # noqa: E731 (three uses a line below)
    t2w = u(1.5, 5.0)
    mass = u(0.02 ** (1 / 3), 5.0 ** (1 / 3)) ** 3
    scale = (mass / base.mass) ** (1 / 3)
    full = t2w * mass * GRAVITY / 4
    curve = np.array(base.thrust_curve) / sum(base.thrust_curve)
    t2i = u(40.0, 1200.0)
    x = rng.normal(-0.1 if preset == "raptor" else 0.0, 0.1, n)
    size = scale * np.where(x < 0, 1 / (1 - x), 1 + x)
    rotors = np.array(base.rotor_positions) * size[:, None, None]
    jx = np.sqrt(2) * np.abs(rotors[:, 0, 0]) * full / t2i
    inertia = jx[:, None] * np.array(base.inertia) / base.inertia[0]
    zeros = lambda *shape: np.zeros((n, *shape))  # noqa: E731 (as above)
    kappa = u(0.0, 0.3) * np.maximum(0.0, t2w - 1)
    force = kappa * t2w / 3 if preset == "raptor" else kappa / 9 * GRAVITY
    quads = Quadrotors(
        mass=mass,
        rotor_positions=rotors,
        thrust_curve=full[:, None] * curve,
        torque_constant=u(0.005, 0.05),
        tau_rise=u(0.03, 0.10),
        tau_fall=u(0.03, 0.30),
        inertia=inertia,
        center_of_mass=zeros(3),
        motor_strength=np.ones((n, 4)),
        dead_band=zeros(),
        saturation=np.ones(n),
        drag=zeros(3),
        battery_sag=zeros(),
        action_delay=zeros(),
        position_delay=zeros(),
        orientation_delay=zeros(),
        velocity_delay=zeros(),
        gyro_delay=zeros(),
        position_noise=zeros(),
        orientation_noise=zeros(),
        velocity_noise=zeros(),
        gyro_noise=zeros(),
        gyro_bias=zeros(3),
        force_std=force,
        torque_std=zeros(),
        gust_std=zeros(),
        gust_time=np.ones(n),
    )
    if preset == "hard":
        return _harden(quads, rng)
    return _widen(quads, rng) if preset == "wide" else quads


def _harden(q: Quadrotors, rng: np.random.Generator) -> Quadrotors:
    n = len(q)
    t2w = np.where(rng.random(n) < 0.75, rng.uniform(3.0, 5.0, n), rng.uniform(1.5, 2.2, n))
    t2i = np.where(rng.random(n) < 0.6, rng.uniform(40.0, 120.0, n), rng.uniform(120.0, 1200.0, n))
    families = np.array([CURVES[name] for name in ("crazyflie", "linear", "concave")])
    full = t2w * q.mass * GRAVITY / 4
    inertia = q.inertia * (q.torque_to_inertia / t2i * full / q.full_thrust)[:, None]
    return dataclasses.replace(
        q,
        thrust_curve=full[:, None] * families[rng.integers(0, 3, n)],
        inertia=inertia,
        tau_fall=rng.uniform(0.12, 0.30, n),
    )


def _widen(q: Quadrotors, rng: np.random.Generator) -> Quadrotors:
    n = len(q)
    u = lambda low, high, *shape: rng.uniform(low, high, (n, *shape))  # noqa: E731 (many uses below)

    def some(share: float, *shape: int) -> np.ndarray:
        """One for a share of the quadrotors, zero for the others; broadcasts over trailing axes."""
        return (rng.random(n) < share).reshape(n, *([1] * len(shape))).astype(float)

    # Thrust curves: half stay, three tenths take one family, the rest a random mixture of all four.
    families = np.array(list(CURVES.values()))
    weights = np.eye(4)[np.zeros(n, dtype=int)]
    kind = rng.random(n)
    weights[kind > 0.5] = np.eye(4)[rng.integers(0, 4, n)][kind > 0.5]
    weights[kind > 0.8] = rng.dirichlet(np.ones(4), n)[kind > 0.8]
    curve = q.full_thrust[:, None] * (weights @ families)
    # A fifth has low authority, where the published policy fails.
    t2i = np.where(rng.random(n) < 0.2, u(40.0, 120.0), q.torque_to_inertia)
    inertia = q.inertia * (q.torque_to_inertia / t2i)[:, None]
    ratios = 1 + some(0.3, 1) * np.stack([np.zeros(n), u(-0.25, 0.25), u(-0.2, 0.1)], 1)
    inertia = inertia * ratios
    # A body with more than the sum of the other two moments about one axis does not exist.
    inertia[:, 2] = np.minimum(inertia[:, 2], 0.98 * (inertia[:, 0] + inertia[:, 1]))
    stretch = 1 + some(0.3, 1) * np.stack([u(-0.2, 0.2), u(-0.2, 0.2), np.zeros(n)], 1)
    rotors = q.rotor_positions * stretch[:, None]
    strength = (
        1
        - some(0.3, 1) * np.eye(4)[rng.integers(0, 4, n)] * u(0.0, 0.25)[:, None]
        + 0.03 * some(0.5, 1) * rng.normal(size=(n, 4)).clip(-2, 2)
    )
    offset = some(0.3, 1) * rng.uniform(-0.12, 0.12, (n, 3)) * np.array([1, 1, 0]) * np.abs(rotors[:, :1, 0])
    t2w = q.thrust_to_weight
    return dataclasses.replace(
        q,
        thrust_curve=curve,
        inertia=inertia,
        rotor_positions=rotors,
        motor_strength=strength,
        center_of_mass=offset,
        dead_band=some(0.15) * u(0.0, 0.1),
        saturation=1 - some(0.15) * u(0.0, 0.1),
        battery_sag=some(0.25) * u(0.0, 0.15),
        drag=some(0.4, 1) * u(0.0, 0.5)[:, None] * np.array([1.0, 1.0, 0.7]),
        action_delay=some(0.35) * u(0.0, 0.025),
        position_delay=some(0.2) * u(0.0, 0.03),
        orientation_delay=some(0.15) * u(0.0, 0.015),
        velocity_delay=some(0.3) * u(0.0, 0.10),
        gyro_delay=some(0.25) * u(0.0, 0.015),
        position_noise=some(0.3) * u(0.0, 0.01),
        orientation_noise=some(0.3) * u(0.0, 0.01),
        velocity_noise=some(0.3) * u(0.0, 0.05),
        gyro_noise=some(0.3) * u(0.0, 0.1),
        gyro_bias=some(0.2, 1) * rng.uniform(-0.02, 0.02, (n, 3)),
        force_std=q.force_std * some(0.75),
        torque_std=some(0.3) * u(0.0, 0.02) * t2i,
        gust_std=some(0.3) * u(0.0, 0.08) * GRAVITY * (t2w - 1).clip(0, 2),
        gust_time=u(0.2, 1.5),
    )
