"""What critics see of the tracking task: the true state, which only a simulator knows.

A critic is thrown away after training, so it sees all that helps it to say how well a robot will do: where the bodies
are and should be, how fast they move, and what is particular about this robot's world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

import controllers.vectors  # noqa: F401 (before anything is compiled)
from controllers.observation import JointState, Observer
from controllers.rotations import conjugate, from_axis_angle, rotate, yaw

if TYPE_CHECKING:
    from sim.tasks.tracking import Tracking

Array = NDArray[np.floating]

LOWEST, HIGHEST = -0.02, 0.2  # [m], between which the soles' heights are told apart


def privileged(task: Tracking) -> NDArray[np.float32]:
    """For the preset `realign`, (N, inputs), in the frame of the robot's root: places of the tracked bodies and of the
    motion's relative to them, their velocities and the motion's, gravity, the motion's attitude, the root's angular
    velocity and height, joints, the motion's joints relative to them, the action, the soles' heights, time since the
    motion's start and until its end, friction, payload and delays."""
    worlds, length = task.worlds, task.table.length[task.clip]
    rows = task.table.rows(task.clip, task.at + 1)
    heights = task.kinematics.soles(task.frames)[0].min(axis=2)
    rest = [
        task.engine.qpos[:, 7:],
        task.engine.qvel[:, 6:],
        task.table.qpos[rows, 7:] - task.engine.qpos[:, 7:],
        task.action,
        np.clip(heights, LOWEST, HIGHEST) * 10,
        (task.at / length)[:, None],
        ((length - task.at) * task.table.step)[:, None],
        worlds.friction[:, None],
        worlds.payload[:, None],
        worlds.action_delay[:, None] * 50,
        worlds.sensor_delay[:, None] * 50,
    ]
    begin = 12 * len(task.tracked) + 13
    out = np.empty((task.count, begin + sum(part.shape[1] for part in rest)), dtype=np.float32)
    np.concatenate(rest, axis=1, out=out[:, begin:], casting="same_kind")
    found, wanted = task.frames, task.table.bodies
    _bodies(
        out,
        found.position,
        found.linear_velocity,
        wanted.position,
        wanted.linear_velocity,
        task.table.qpos,
        rows,
        task.tracked,
        task.engine.qpos,
        task.engine.qvel,
    )
    return out


@numba.njit(cache=True)
def _bodies(out, place, velocity, wanted_place, wanted_velocity, wanted_qpos, rows, which, qpos, qvel):
    count = len(which)
    for n in range(len(out)):
        r = rows[n]
        w, x, y, z = qpos[n, 3], qpos[n, 4], qpos[n, 5], qpos[n, 6]
        # The rotation's rows: what they give of a world vector are its components in the root's frame.
        turn = (
            (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
            (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
            (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
        )
        for k in range(count):
            b = which[k]
            for i in range(3):
                a, c, d = turn[i]
                px, py, pz = place[n, b, 0], place[n, b, 1], place[n, b, 2]
                out[n, 3 * k + i] = a * (px - place[n, 0, 0]) + c * (py - place[n, 0, 1]) + d * (pz - place[n, 0, 2])
                out[n, 3 * (count + k) + i] = (
                    a * (wanted_place[r, b, 0] - px)
                    + c * (wanted_place[r, b, 1] - py)
                    + d * (wanted_place[r, b, 2] - pz)
                )
                out[n, 3 * (2 * count + k) + i] = a * velocity[n, b, 0] + c * velocity[n, b, 1] + d * velocity[n, b, 2]
                out[n, 3 * (3 * count + k) + i] = (
                    a * wanted_velocity[r, b, 0] + c * wanted_velocity[r, b, 1] + d * wanted_velocity[r, b, 2]
                )
        # The first two columns of the motion's attitude in the root's frame.
        w, x, y, z = wanted_qpos[r, 3], wanted_qpos[r, 4], wanted_qpos[r, 5], wanted_qpos[r, 6]
        ex, ey, ez = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)
        fx, fy, fz = 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)
        at = 12 * count
        for i in range(3):
            a, c, d = turn[i]
            out[n, at + i] = -d
            out[n, at + 3 + 2 * i] = a * ex + c * ey + d * ez
            out[n, at + 4 + 2 * i] = a * fx + c * fy + d * fz
            out[n, at + 9 + i] = qvel[n, 3 + i]
        out[n, at + 12] = qpos[n, 2]


class AsapCritic:
    """ASAP's 557: the actor's 380 of the true state, the velocity and its history, and where the points are and should
    be, in the root's heading."""

    def __init__(self, task: Tracking) -> None:
        self.observer = Observer(task.spec, task.count, np.zeros(task.count))
        self._velocities = np.zeros((task.count, 5, 3))

    def reset(self, fresh: NDArray[np.bool_]) -> None:
        """Forget what those robots (N,) have done."""
        self.observer.reset(fresh)
        self._velocities[fresh] = 0.0

    def observe(self, task: Tracking, times: Array) -> NDArray[np.float32]:
        """What it sees at those times in the motions [s], (N, inputs)."""
        engine, rows = task.engine, task.table.rows(task.clip, task.at + 1)
        state = JointState(
            engine.qpos[:, 3:7],
            engine.qvel[:, 3:6],
            engine.qpos[:, 7:][:, task.seen],
            engine.qvel[:, 6:][:, task.seen],
        )
        actor = self.observer.observe(state, times, task.motions)
        self.observer.targets(task.action)
        velocity_b = 2.0 * rotate(conjugate(engine.qpos[:, 3:7]), engine.qvel[:, :3])
        history = self._velocities
        history[:, 1:] = history[:, :-1].copy()
        history[:, 0] = velocity_b
        turn = conjugate(from_axis_angle([0.0, 0.0, 1.0], yaw(engine.qpos[:, 3:7])))[:, None]
        found = task.frames.position[:, task.points]
        wanted = task.table.bodies.position[rows][:, task.points]
        parts = [
            actor,
            velocity_b,
            history[:, 1:].reshape(task.count, -1),
            rotate(turn, wanted - found).reshape(task.count, -1),
            rotate(turn, wanted - engine.qpos[:, None, :3]).reshape(task.count, -1),
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """What later observations depend on, as arrays by name."""
        return self.observer.state() | {"velocities": self._velocities}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.observer.restore(arrays)
        self._velocities = arrays["velocities"].copy()
