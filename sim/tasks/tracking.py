"""Many simulated G1s that follow motions: the environment in which tracking policies learn and are judged.

One control step: actions become joint targets, late by each world's delay; the engine moves the robots; rewards compare
the state after the step with the motion at the same time; robots that are lost, or whose motion has ended, begin anew;
policies observe the measured state (late, biased, noisy) and the motion one control step ahead. So a robot that is
exactly where its motion is has error zero at every step, at its start too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.motion import Clip
from controllers.observation import JointState, MotionSample, Observer
from controllers.rotation_vectors import from_vector
from controllers.rotations import conjugate, from_axis_angle, multiply, rotate
from controllers.spec import PolicySpec
from sim.backends.engine import Engine
from sim.randomize import NOISE, START, Worlds, sample
from sim.robots.g1_kinematics import Bodies, Kinematics
from sim.tasks.critic import AsapCritic, privileged
from sim.tasks.motion_table import make_table
from sim.tasks.tracking_config import ASAP_NOISE, Ramp, TrackingConfig
from sim.tasks.tracking_terms import ANCHOR, ENDS, PENALTIES, TERMS, TRACKED, Step

Array = NDArray[np.floating]

BIN = 25  # control steps per bin of the failures
FORGET = 0.999  # share of a bin's failures that is left after a step in which an episode ended
DIVERGED = 1e4  # [m, rad, per s] no robot gets there; physics that diverges passes it before it is not finite
RENEWED = 4  # robots at most that come into new worlds at a control step: each costs MuJoCo 0.1 ms of constants
SMOOTH = 1e4  # episodes that the running mean of their length goes over (ASAP)
WORLDS = dataclasses.fields(Worlds)
SHORT, LONG = 40, 42  # [control steps] mean lengths between which curricula rest (ASAP)


class Tracking:
    """N robots that follow motions. `observe` after the start; then `step` as often as you like."""

    def __init__(
        self,
        engine: Engine,
        clips: Sequence[Clip],
        config: TrackingConfig,
        spec: PolicySpec,
        seed: int,
        from_start: bool = False,
    ) -> None:
        """
        Args:
            engine: The robots.
            clips: The motions; every episode follows one of them.
            config: The task.
            spec: Of the policy: `tracking_spec`, or that of a policy to be judged.
            seed: Of starts, worlds, noise and pushes.
            from_start: To be judged, not to learn: each episode begins with the motion's first state instead of
                anywhere in it, and pushes have their full strength.
        """
        self.engine, self.config, self.spec = engine, config.check(), spec
        self.count, self.from_start = engine.count, from_start
        robot = engine.robot
        self.kinematics = Kinematics(robot)
        self.table = make_table(clips, robot, config.control_step, config.rest)
        names = self.kinematics.names
        self.tracked = np.array([names.index(name) for name in TRACKED])
        self.ends = np.array([names.index(name) for name in ENDS])
        self.end_is_foot = np.array(["ankle" in name for name in ENDS])
        self.anchor = names.index(ANCHOR)
        self.anchors = np.array([self.anchor])
        self.points = np.array([index for index, name in enumerate(names) if "wrist" not in name])
        arm = ("shoulder", "elbow", "hand", "head")
        self.upper = np.array([i for i in self.points if any(word in names[i] for word in arm)])
        self.lower = np.array([i for i in self.points if i not in self.upper])
        self.hands_and_head = np.array([names.index(name) for name in ("left_hand", "right_hand", "head")])
        self.lower_limit = np.array([joint.lower for joint in robot.joints])
        self.upper_limit = np.array([joint.upper for joint in robot.joints])
        self.speed_limit = np.array([joint.speed_limit for joint in robot.joints])
        self.torque_limit = robot.torque_limit

        assert spec.joints is not None
        order = robot.joint_indices(spec.joints.names)
        self.seen = slice(None) if order.tolist() == list(range(len(robot.joints))) else order  # all: without copies
        self._gains = np.array(spec.joints.stiffness), np.array(spec.joints.damping)
        moving = self.table.moving * self.table.step
        self.observer = Observer(spec, self.count, np.full(self.count, moving[0]))
        self._moving = moving
        self._critic = AsapCritic(self) if config.observation == "asap" else None
        noise, joints = ASAP_NOISE if config.observation == "asap" else NOISE, len(self._gains[0])
        widths = {"tilt": 2, "angular_velocity": 3, "joint_position": joints, "joint_velocity": joints}
        self._noise = np.concatenate([np.full(size, noise[name]) for name, size in widths.items()])
        self._rng = np.random.default_rng(seed)
        self._bins = np.concatenate([[0], np.cumsum(-(-self.table.length // BIN))])
        self.failures = np.zeros(self._bins[-1])
        self._mean_length = 0.0
        self.ramps = {"penalty": config.penalty, "lost_distance": config.lost_distance, "soft": config.soft_limit}
        self.ramps["push"] = config.push
        self.level = {name: ramp.start for name, ramp in self.ramps.items()}
        if from_start:
            self.level["push"] = 1.0

        self.clip = np.zeros(self.count, dtype=np.int64)
        self.at = np.zeros(self.count, dtype=np.int64)  # control steps since the motion began
        self.begun = np.zeros(self.count, dtype=np.int64)  # `at` when the episode began
        self._targets = np.zeros((self.count, len(robot.joints)))
        self.action = np.zeros((self.count, spec.action_size))
        self._push_in = np.zeros(self.count, dtype=np.int64)
        first = np.zeros(self.count, dtype=np.int64)
        self.frames = self._wanted(first)  # of the robots' bodies, now
        self.worlds: Worlds = sample(self._rng, self.count, robot, config.spread)
        self.reset(np.arange(self.count))

    @property
    def soft(self) -> float:
        """Share of the limits within which nothing is paid."""
        return self.level["soft"]

    def soft_range(self) -> tuple[Array, Array]:
        """Of the joints [rad], (J,) each."""
        middle, half = (self.upper_limit + self.lower_limit) / 2, (self.upper_limit - self.lower_limit) / 2
        return middle - self.soft * half, middle + self.soft * half

    def rows(self) -> NDArray[np.integer]:
        """Where the robots should be now, as rows of the table."""
        return self.table.rows(self.clip, self.at)

    def reset(self, which: NDArray[np.integer], renewed: int | None = None) -> None:
        """Begin new episodes of those robots, in new worlds: all of them, or `renewed` at most."""
        if not len(which):
            return
        rng, table = self._rng, self.table
        moved = which if renewed is None or len(which) <= renewed else rng.choice(which, renewed, replace=False)
        worlds = sample(rng, len(moved), self.engine.robot, self.config.spread)
        self.worlds.put(moved, worlds)
        self.engine.vary(moved, worlds)
        self.clip[which], self.at[which] = self._starts(len(which))
        self.begun[which] = self.at[which]
        rows = table.rows(self.clip[which], self.at[which])
        qpos, qvel = self._first_state(rows)
        self.engine.set_state(which, qpos, qvel)
        self._moved(which)
        self._targets[which] = qpos[:, 7:]
        self.action[which] = self.spec.action.reset_value
        # The first push may come at once: most episodes are shorter than the time between two.
        self._push_in[which] = self._next_push(len(which), first=True)
        fresh = np.zeros(self.count, dtype=bool)
        fresh[which] = True
        self._durations(self.observer)
        self.observer.reset(fresh)
        if self._critic is not None:
            self._durations(self._critic.observer)
            self._critic.reset(fresh)

    def step(self, action: Array) -> tuple[dict[str, NDArray[np.float32]], Array, NDArray[np.bool_], dict[str, Any]]:
        """Act for one control step.

        Args:
            action: Of the policy, (N, actions).

        Returns:
            The next observations (`actor` and `critic`), rewards (N,), which episodes ended (N,), and facts of this
            step: `timeout` (ended because the motion did), `lost`, `broken` (state not finite, or `DIVERGED`), `breaks`
            (what led to such states, or None), `terms` (each reward per second, (N,)), `distance` (N, points),
            `length`, `clip` and `at` of the episodes, who was pushed at its end (`pushed`, (N,)), and the `step`
            itself, with its `found` unless `from_start` already that of the next episode where one began (a copy costs
            time).
        """
        config, engine = self.config, self.engine
        targets = np.array(self._targets)
        previous, self.action = self.action, np.clip(action, *self.spec.action.clip)
        targets[:, self.seen] = self.observer.targets(action)
        late = np.rint(self.worlds.action_delay / config.physics_step).astype(int)
        is_new = np.arange(config.substeps) >= late[:, None]  # (N, substeps)
        path = np.where(is_new[..., None], targets[:, None], self._targets[:, None])
        before = engine.qpos.copy(), engine.qvel.copy()
        engine.step(path)
        self._targets = targets
        self.at += 1

        rows = self.rows()
        sane = [(np.abs(state) < DIVERGED).all(axis=1) for state in (engine.qpos, engine.qvel)]  # NaN is not, either
        broken = ~(sane[0] & sane[1])
        breaks: dict[str, np.ndarray] | None = None
        if broken.any():
            bad = np.flatnonzero(broken)
            breaks = {"qpos": before[0][bad], "qvel": before[1][bad], "targets": path[bad]}
            breaks |= {f"worlds.{field.name}": getattr(self.worlds, field.name)[bad] for field in WORLDS}
            engine.set_state(bad, self.table.qpos[rows[bad]], self.table.qvel[rows[bad]])
        now = self._judge(rows, previous)
        self.frames = copy.deepcopy(now.found) if self.from_start else now.found
        terms = {name: term(now) for name, term in TERMS.items() if getattr(config.weights, name)}
        paid = sum(getattr(config.weights, name) * value for name, value in terms.items())
        penalties = {name: term(now) for name, term in PENALTIES.items() if getattr(config.weights, name)}
        owed = sum(getattr(config.weights, name) * value for name, value in penalties.items())
        lost = self._lost(now) | broken
        timeout = (self.at >= self.table.length[self.clip] - 1) & ~lost
        reward = config.control_step * (paid + self.level["penalty"] * owed) + config.weights.termination * lost
        reward = np.where(broken, config.weights.termination, reward)
        done = lost | timeout
        info: dict[str, Any] = {
            "timeout": timeout,
            "lost": lost,
            "broken": broken,
            "breaks": breaks,
            "terms": terms | penalties,
            "distance": now.distance,
            "step": now,
            "length": self.at - self.begun,
            "clip": self.clip.copy(),
            "at": self.at.copy(),
        }
        self._learn_from(done, lost)
        info["pushed"] = self._push(done)
        self.reset(np.flatnonzero(done), RENEWED)
        return self.observe(), reward, done, info

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """What actor and critic see now; the actor's is measured, the critic's is true."""
        times = self.at * self.table.step
        self.measured = self._measured()
        actor = self.observer.observe(self.measured, times, self.motions)
        critic = privileged(self) if self._critic is None else self._critic.observe(self, times)
        return {"actor": actor, "critic": critic}

    def observe_as(self, observer: Observer) -> NDArray[np.float32]:
        """What a policy with other inputs would have seen in `observe`, (N, inputs); call it after that, once."""
        self._durations(observer)
        return observer.observe(self.measured, self.at * self.table.step, self.motions)

    # --- what happens within a step

    def _judge(self, rows: NDArray[np.integer], previous: Array) -> Step:
        engine, table = self.engine, self.table
        wanted = self._wanted(rows)
        stiffness, damping = self._gains
        seen = self.seen
        torque = np.zeros((self.count, len(self.torque_limit)))
        torque[:, seen] = stiffness * (self._targets[:, seen] - engine.qpos[:, 7:][:, seen])
        torque[:, seen] -= damping * engine.qvel[:, 6:][:, seen]
        return Step(
            task=self,
            found=self.kinematics.of(engine.qpos, engine.qvel),
            wanted=wanted,
            qpos=engine.qpos.copy(),  # of this step, also when the robot begins anew at its end
            qvel=engine.qvel.copy(),
            wanted_qpos=table.qpos[rows],
            wanted_qvel=table.qvel[rows],
            held=table.contacts[rows],
            wanted_height=table.sole_height[rows],
            torque=np.clip(torque, -self.torque_limit, self.torque_limit),
            action=self.action,
            previous_action=previous,
        )

    def _wanted(self, rows: NDArray[np.integer]) -> Bodies:
        """Where the bodies should be, as an array of its own."""
        return Bodies(*(getattr(self.table.bodies, field.name)[rows] for field in dataclasses.fields(Bodies)))

    def _lost(self, now: Step) -> NDArray[np.bool_]:
        config = self.config
        down = np.array([0.0, 0.0, -1.0])
        found = rotate(conjugate(now.qpos[:, 3:7]), down)
        if config.observation == "asap":
            tilted = (np.abs(found[:, :2]) > np.sin(config.lost_angle)).any(axis=1)
            return tilted | (now.distance > self.level["lost_distance"]).any(axis=1)
        wanted = rotate(conjugate(now.wanted_qpos[:, 3:7]), down)
        tilted = np.einsum("ni,ni->n", found, wanted) < np.cos(config.lost_angle)
        above = now.found.position[:, self.ends, 2] - now.wanted.position[:, self.ends, 2]
        off = np.where(self.end_is_foot, above, np.abs(above))  # who is pushed on one leg may set the other down
        far = now.distance.mean(axis=1) > self.level["lost_distance"]
        return tilted | far | (off > config.lost_height).any(axis=1)

    def _starts(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Clip and step at which new episodes begin: often where episodes failed, or half a second before."""
        rng, length = self._rng, self.table.length
        if self.from_start:
            return rng.integers(len(length), size=count), np.zeros(count, dtype=np.int64)
        bins = len(self.failures)
        chance = np.full(bins, 1.0 / bins)
        if self.failures.any():
            spread = self.failures / self.failures.sum()
            before = np.zeros(bins)
            np.add.at(before, np.maximum(np.arange(bins) - 1, 0), 0.5 * spread)
            chance = self.config.uniform * chance + (1 - self.config.uniform) * (before + 0.5 * spread)
        place = rng.choice(bins, size=count, p=chance / chance.sum())
        clip = np.searchsorted(self._bins, place, side="right") - 1
        step = (place - self._bins[clip]) * BIN + rng.integers(BIN, size=count)
        return clip, np.minimum(step, np.maximum(length[clip] - 10, 0))

    def _first_state(self, rows: NDArray[np.integer]) -> tuple[Array, Array]:
        """The motion's states, a little off, with the lower sole where it belongs: on the floor, or as high as the
        motion has it."""
        rng, factor, table = self._rng, self.config.spread.start, self.table
        qpos, qvel = table.qpos[rows].copy(), table.qvel[rows].copy()
        if factor:

            def off(name: str, *shape: int) -> Array:
                return factor * START[name] * rng.uniform(-1, 1, (len(rows), *shape))

            turn = np.concatenate([off("tilt", 2), np.zeros((len(rows), 1))], axis=1)
            qpos[:, 3:7] = multiply(qpos[:, 3:7], from_vector(turn))
            qpos[:, 7:] = np.clip(
                qpos[:, 7:] + off("joint_position", qpos.shape[1] - 7), self.lower_limit, self.upper_limit
            )
            qvel[:, :3] += off("linear_velocity", 3)
            qvel[:, 3:6] += off("angular_velocity", 3)
            qvel[:, 6:] += off("joint_velocity", qvel.shape[1] - 6)
        lowest = self.kinematics.soles(self.kinematics.of(qpos, qvel))[0].reshape(len(rows), -1).min(axis=1)
        if factor:
            qpos[:, 2] += np.maximum(table.sole_height[rows].min(axis=1), 0.0) - lowest
        return qpos, qvel

    def _learn_from(self, done: NDArray[np.bool_], lost: NDArray[np.bool_]) -> None:
        """Remember where episodes failed and how long they were."""
        if self.from_start or not done.any():
            return
        bins = self._bins[self.clip[lost]] + np.minimum(self.at[lost], self.table.length[self.clip[lost]] - 1) // BIN
        self.failures *= FORGET
        np.add.at(self.failures, bins, 1.0)
        ended = int(done.sum())
        share = min(ended / SMOOTH, 1.0)
        self._mean_length += share * (float((self.at - self.begun)[done].mean()) - self._mean_length)
        direction = 1 if self._mean_length > LONG else -1 if self._mean_length < SHORT else 0
        for name, ramp in self.ramps.items():
            self.level[name] = _ramped(self.level[name], ramp, direction)

    def _push(self, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Push the robots whose time it is; which, (N,)."""
        spread, engine, rng = self.config.spread, self.engine, self._rng
        self._push_in -= 1
        pushed = (self._push_in <= 0) & ~done & bool(spread.push_speed or spread.push_turn)
        which = np.flatnonzero(pushed)
        if not len(which):
            return pushed
        qvel = engine.qvel[which].copy()
        direction = rng.uniform(0, 2 * np.pi, len(which))
        strength = self.level["push"]
        speed = strength * spread.push_speed * np.sqrt(rng.uniform(spread.push_least**2, 1.0, len(which)))
        qvel[:, 0] += speed * np.cos(direction)
        qvel[:, 1] += speed * np.sin(direction)
        qvel[:, 3:6] += strength * rng.uniform(-spread.push_turn, spread.push_turn, (len(which), 3))
        engine.set_state(which, engine.qpos[which].copy(), qvel)
        self._moved(which)
        self._push_in[which] = self._next_push(len(which))
        return pushed

    def _next_push(self, count: int, first: bool = False) -> NDArray[np.int64]:
        least, most = self.config.spread.push_period
        period = self._rng.uniform(0.0 if first else least, most, count)
        return np.maximum(np.rint(period / self.config.control_step), 1).astype(np.int64)

    def _moved(self, which: NDArray[np.integer]) -> None:
        """Bring the frames of robots up to date that were put into another state."""
        fresh = self.kinematics.of(self.engine.qpos[which], self.engine.qvel[which])
        for field in dataclasses.fields(Bodies):
            getattr(self.frames, field.name)[which] = getattr(fresh, field.name)

    # --- what is observed

    def _durations(self, observer: Observer) -> None:
        if observer.spec.motion is not None and observer.spec.motion.duration is None:
            observer.duration = (self._moving[self.clip]).astype(float)

    def motions(self, times: Array) -> MotionSample:
        steps = np.rint(times / self.table.step).astype(np.int64)
        motion = self.table.sample(self.table.rows(self.clip, steps))
        return dataclasses.replace(
            motion,
            joint_position=motion.joint_position[:, self.seen],
            joint_velocity=motion.joint_velocity[:, self.seen],
        )

    def _measured(self) -> JointState:
        """The state as sensors report it."""
        engine, worlds, rng, spread = self.engine, self.worlds, self._rng, self.config.spread
        late = np.rint(worlds.sensor_delay / self.config.physics_step).astype(int)
        at = np.maximum(engine.qpos_path.shape[1] - 1 - late, 0)
        robots = np.arange(self.count)
        qpos, qvel = engine.qpos_path[robots, at], engine.qvel_path[robots, at]

        joints = len(self._gains[0])
        drawn = rng.uniform(-spread.noise, spread.noise, (self.count, len(self._noise))) * self._noise
        turn = worlds.attitude_bias.copy()
        turn[:, :2] += drawn[:, :2]
        heading = from_axis_angle([0.0, 0.0, 1.0], turn[:, 2])
        tilt = from_vector(np.concatenate([turn[:, :2], np.zeros((self.count, 1))], axis=1))
        position = qpos[:, 7:][:, self.seen] + worlds.joint_bias[:, self.seen]
        return JointState(
            quaternion=multiply(heading, multiply(qpos[:, 3:7], tilt)),
            angular_velocity_b=qvel[:, 3:6] + drawn[:, 2:5],
            joint_position=position + drawn[:, 5 : 5 + joints],
            joint_velocity=qvel[:, 6:][:, self.seen] + drawn[:, 5 + joints :],
        )

    # --- to go on after an interruption

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the future depends on, as arrays by name."""
        found = {f"worlds.{field.name}": getattr(self.worlds, field.name) for field in WORLDS}
        found |= {
            "qpos_path": np.array(self.engine.qpos_path),
            "qvel_path": np.array(self.engine.qvel_path),
            "failures": self.failures,
            "clip": self.clip,
            "at": self.at,
            "begun": self.begun,
            "targets": self._targets,
            "action": self.action,
            "push_in": self._push_in,
            "rng": np.array(json.dumps(self._rng.bit_generator.state)),
            "level": np.array(json.dumps(self.level | {"mean_length": self._mean_length})),
        }
        found |= {f"observer.{name}": value for name, value in self.observer.state().items()}
        if self._critic is not None:
            found |= {f"critic.{name}": value for name, value in self._critic.state().items()}
        return {name: np.array(value) for name, value in found.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        everyone = np.arange(self.count)
        names = [field.name for field in WORLDS]
        self.worlds = Worlds(**{name: arrays[f"worlds.{name}"].copy() for name in names})
        self.engine.vary(everyone, self.worlds)
        self.engine.set_state(everyone, arrays["qpos_path"][:, -1], arrays["qvel_path"][:, -1])
        self.frames = self.kinematics.of(self.engine.qpos, self.engine.qvel)
        self.engine.qpos_path[:], self.engine.qvel_path[:] = arrays["qpos_path"], arrays["qvel_path"]
        self.failures = arrays["failures"].copy()
        self.clip, self.at, self.begun = (arrays[name].copy() for name in ("clip", "at", "begun"))
        self._targets, self.action = arrays["targets"].copy(), arrays["action"].copy()
        self._push_in = arrays["push_in"].copy()
        self._rng.bit_generator.state = json.loads(str(arrays["rng"]))
        self.level |= json.loads(str(arrays["level"]))
        self._mean_length = self.level.pop("mean_length")
        self.observer.restore({name[9:]: value for name, value in arrays.items() if name.startswith("observer.")})
        self._durations(self.observer)
        if self._critic is not None:
            self._critic.restore({name[7:]: value for name, value in arrays.items() if name.startswith("critic.")})
            self._durations(self._critic.observer)


def _ramped(value: float, ramp: Ramp, direction: int) -> float:
    return float(np.clip(value * (1 + ramp.rate * direction), ramp.low, ramp.high))
