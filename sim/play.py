"""`sim play`: a policy on the simulated G1, in the browser, where you can push it, or as a video.

    sim play policy.onnx --clip squat.npz
    sim play --zero --clip squat.npz --video zero.mp4

Physics, observations and motions are those of the tracking task. Only the end of an episode differs: a robot that is
lost goes on for a while, so that one sees what became of it.
"""

from __future__ import annotations

import hashlib
import queue
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import gains, revision
from controllers.motion import Clip, ClipError, load_clip
from controllers.policy import Policy, load_policy
from controllers.rotations import from_axis_angle, rotate, yaw
from controllers.spec import PolicyError, PolicySpec, Training
from sim.backends.mujoco_cpu import MujocoCpu
from sim.motions.drawing import viewing
from sim.motions.play import APART, TICK, add_robot
from sim.randomize import NONE, Spread
from sim.robots.g1 import build_model
from sim.robots.g1_kinematics import Bodies
from sim.tasks.tracking import Tracking
from sim.tasks.tracking_config import Ramp, TrackingConfig, tracking_spec
from sim.tracking import LOST

Array = NDArray[np.floating]

Undriven = Literal["zero", "random"]
"""What answers in place of a policy: nothing but zeros, or evenly spread numbers from -1 to 1."""

FALLING = 1.5  # [s] that a lost robot goes on before it begins anew
BEHIND = 0.1  # [s] that the simulation may be behind the clock before it goes slower than real time
PUSHES = {"left": (0.0, 1.0), "right": (0.0, -1.0), "forward": (1.0, 0.0), "back": (-1.0, 0.0)}
"""Directions in the robot's heading."""
GHOST, LOST_GHOST = (70, 165, 110), (205, 60, 50)  # colours of the motion
OPACITY = 0.35  # of the motion


class Session:
    """N robots that follow motions from their start, step by step."""

    found: Bodies
    """Where the robots are."""
    wanted: Bodies
    """Where they should be."""
    distance: Array
    """Mean of their points from where they should be [m], (N,)."""
    lost: NDArray[np.bool_]
    """Whether they have been lost in this episode, (N,)."""
    reward: Array
    """Of the last step, per second, (N,)."""

    def __init__(
        self,
        driver: Policy | Undriven,
        clips: Sequence[Clip],
        robot: str | None = None,
        robots: int = 1,
        seed: int = 0,
        randomised: bool = False,
    ) -> None:
        """
        Args:
            driver: What answers to the observations.
            clips: The motions; every episode follows one of them.
            robot: Revision of the G1; the policy's own when absent.
            robots: N.
            seed: Of random answers, worlds and pushes.
            randomised: Whether worlds, noise, delays, starts and random pushes are those of the training.
        """
        if robots < 1:
            raise ValueError(f"robots is {robots}; allowed: 1 or more")
        spec = driver.spec if isinstance(driver, Policy) else undriven_spec(robot)
        if spec.joints is None:
            raise PolicyError(f"the policy is for a {spec.robot}; allowed: a policy with joints, for a G1")
        config = TrackingConfig(
            robot=robot or spec.robot,
            physics_step=1 / spec.rates.physics_hz,
            substeps=round(spec.rates.physics_hz / spec.rates.control_hz),
            lost_distance=Ramp(np.inf, np.inf, np.inf, 0.0),
            lost_angle=np.pi,
            lost_height=np.inf,
            spread=Spread() if randomised else NONE,
        )
        model = revision(config.robot)
        stiffness, damping = (values.copy() for values in gains(model, "asap"))  # of joints that the policy lacks
        driven = model.joint_indices(spec.joints.names)
        stiffness[driven], damping[driven] = spec.joints.stiffness, spec.joints.damping
        engine = MujocoCpu(model, robots, stiffness, damping, config.physics_step, config.substeps, threads=1)
        self.task = Tracking(engine, clips, config, spec, seed, from_start=True)
        self.count, self.anew = robots, True
        self.lost = np.zeros(robots, dtype=bool)
        self.losses = self.broken = 0
        self.reward = np.zeros(robots)
        self._steps_lost = np.zeros(robots, dtype=np.int64)
        self._driver = driver
        self._rng = np.random.default_rng([seed, 1])
        self._memory = spec.initial_state(robots)
        self._seen = self.task.observe()["actor"]
        self._look()

    @property
    def control_step(self) -> float:
        """[s]"""
        return self.task.config.control_step

    @property
    def time(self) -> Array:
        """Since the motions began [s], (N,)."""
        return self.task.at * self.control_step

    def step(self) -> None:
        """One control step. Robots whose motion has ended begin anew, and so do those that have been lost for long."""
        task = self.task
        if self.anew:
            over = self._steps_lost * self.control_step >= FALLING
            task.at[over] = task.table.length[task.clip[over]]  # past the end: the task begins them anew in this step
        _, reward, done, info = self._act()
        self.reward = reward / self.control_step
        self.broken += int(info["broken"].sum())
        self._memory[done] = task.spec.initial_state(int(done.sum()))
        self._look()
        far = self.distance > LOST
        self.losses += int((far & ~self.lost & ~done).sum())
        self.lost = (self.lost | far) & ~done
        self._steps_lost = np.where(self.lost, self._steps_lost + 1, 0)

    def push(self, velocity_w: Array, which: NDArray[np.integer] | None = None) -> None:
        """Change the velocity of robots at once. Their policies see it one control step later.

        Args:
            velocity_w: Horizontal, world [m/s], (2,) or one for each of them (k, 2).
            which: Robots, (k,); all when absent.
        """
        which = np.arange(self.count) if which is None else which
        engine = self.task.engine
        qvel = engine.qvel[which].copy()
        qvel[:, :2] += velocity_w
        engine.set_state(which, engine.qpos[which].copy(), qvel)

    def push_towards(self, name: str, speed: float) -> None:
        """Push all robots towards one of PUSHES, each in its own heading, by that speed [m/s]."""
        turn = from_axis_angle([0.0, 0.0, 1.0], yaw(self.found.quaternion[:, 0]))  # of the pelvis
        self.push(speed * rotate(turn, np.array([*PUSHES[name], 0.0]))[:, :2])

    def reset(self) -> None:
        """Begin anew with all robots."""
        self.task.reset(np.arange(self.count))
        self._memory = self.task.spec.initial_state(self.count)
        self._seen = self.task.observe()["actor"]
        self.lost[:], self._steps_lost[:], self.reward[:] = False, 0, 0.0
        self._look()

    def close(self) -> None:
        """Free the engine."""
        self.task.engine.close()

    def _act(self) -> tuple[Any, Array, NDArray[np.bool_], dict[str, Any]]:
        shape = (self.count, self.task.spec.action_size)
        if isinstance(self._driver, Policy):
            action, self._memory = self._driver.step(self._seen, self._memory)
            self._memory = self._memory.copy()  # some rows are begun anew
        else:
            action = np.zeros(shape) if self._driver == "zero" else self._rng.uniform(-1.0, 1.0, shape)
        result = self.task.step(action)
        self._seen = result[0]["actor"]
        return result

    def _look(self) -> None:
        """Where everything is now: after a step, and after those that ended in it have begun anew."""
        task, rows = self.task, self.task.rows()
        self.found = task.kinematics.of(task.engine.qpos, task.engine.qvel)
        bodies = task.table.bodies
        self.wanted = Bodies(
            bodies.position[rows], bodies.quaternion[rows], bodies.linear_velocity[rows], bodies.angular_velocity[rows]
        )
        off = self.found.position[:, task.points] - self.wanted.position[:, task.points]
        self.distance = np.linalg.norm(off, axis=-1).mean(axis=1)


def undriven_spec(robot: str | None) -> PolicySpec:
    """What a policy of the default task on that revision would say about itself."""
    config = TrackingConfig()
    config = replace(config, robot=robot or config.robot).check()
    return tracking_spec(config, Training("sim play", 0, "", {}, ""), None, None, None)


class Viewer:
    """A server on `port` (0 takes any) that shows a session and lets its visitors disturb it."""

    def __init__(self, session: Session, names: Sequence[str], port: int = 8080) -> None:
        """
        Args:
            session: The robots.
            names: Of the motions.
            port: Of the server.
        """
        viser = viewing("viser")
        self.session, self._names = session, names
        self._wishes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # visitors act in other threads
        self._owed = 0.0  # [s] that the simulation is behind the clock
        self._server = viser.ViserServer(port=port, verbose=False)
        self.port = self._server.get_port()
        scene, gui = self._server.scene, self._server.gui
        scene.set_up_direction("+z")
        scene.add_grid("/floor", width=20, height=20, cell_size=0.5, position=(0, 0, 0))
        middle = APART * (session.count - 1) / 2
        self._server.initial_camera.position = (1.8 + middle, middle + 1.0, 1.0)
        self._server.initial_camera.look_at = (0.0, middle, 0.6)
        model = build_model(session.task.engine.robot, floor=False, scenery=False)
        self.robots, self.ghosts, self._ghost_solids = [], [], []
        for index in range(session.count):
            bodies, solids = add_robot(scene, model, f"/{index}/robot")
            for solid in solids.values():
                solid.on_click(lambda event, index=index: self.push_away(index, event.ray_direction))
            self.robots.append(bodies[1:])  # without the world
            bodies, solids = add_robot(scene, model, f"/{index}/motion")
            self.ghosts.append(bodies[1:])
            self._ghost_solids.append(list(solids.values()))
        self._shown_lost: list[bool | None] = [None] * session.count
        self.status = gui.add_markdown("")
        self.pause = gui.add_checkbox("pause", False)
        self.speed = gui.add_slider("speed", 0.05, 1.0, 0.05, 1.0, hint="1 is real time, less is slow motion")
        self.strength = gui.add_slider("strength of a push [m/s]", 0.1, 2.0, 0.1, 0.5)
        pushes = gui.add_button_group("push", tuple(PUSHES))
        pushes.on_click(lambda event: self._wish(lambda: session.push_towards(event.target.value, self.strength.value)))
        reset = gui.add_button("reset")
        reset.on_click(lambda _: self._wish(session.reset))
        self.anew = gui.add_checkbox("begin anew when lost", True)
        ghost = gui.add_checkbox("show the motion", True)
        ghost.on_update(lambda _: self._show_motion(ghost.value))
        gui.add_markdown("Click on the robot to push it away from you.")
        self.show()

    def run(self) -> None:
        """Play in real time until interrupted."""
        last = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            self.advance(now - last)
            last = now

    def advance(self, seconds: float) -> None:
        """Do what visitors have asked for, let that much time pass, and show the result."""
        session = self.session
        session.anew = self.anew.value
        while not self._wishes.empty():
            self._wishes.get()()
        if not self.pause.value:
            self._owed = min(self._owed + seconds * self.speed.value, max(BEHIND, session.control_step))
            while self._owed >= session.control_step:
                session.step()
                self._owed -= session.control_step
        self.show()

    def show(self) -> None:
        """Put everything where it is now."""
        session = self.session
        with self._server.atomic():
            for handles, bodies in ((self.robots, session.found), (self.ghosts, session.wanted)):
                for index, own in enumerate(handles):
                    place = np.array([0.0, APART * index, 0.0])
                    for body, handle in enumerate(own):  # both in the robot's order; hands and head follow
                        handle.position = bodies.position[index, body] + place
                        handle.wxyz = bodies.quaternion[index, body]
            for index, lost in enumerate(session.lost.tolist()):
                if lost != self._shown_lost[index]:
                    for solid in self._ghost_solids[index]:
                        solid.color, solid.opacity = LOST_GHOST if lost else GHOST, OPACITY
                    self._shown_lost[index] = lost
            self.status.content = self._text()

    def push_away(self, index: int, ray: Sequence[float]) -> None:
        """Push one robot along a line of sight, horizontally.

        Args:
            index: Of the robot.
            ray: Direction of the line, world, (3,).
        """
        away = np.array(ray[:2], dtype=float)
        length = np.linalg.norm(away)
        if length < 1e-3:  # from straight above there is no horizontal direction
            return
        velocity = self.strength.value * away / length
        self._wish(lambda: self.session.push(velocity, np.array([index])))

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def _text(self) -> str:
        session = self.session
        if session.count == 1:
            state = "**lost**" if session.lost[0] else "following"
            clip = int(session.task.clip[0])
            lines = [f"{self._names[clip]}, {session.time[0]:.1f} s: {state}"]
        else:
            lines = [f"{int(session.lost.sum())} of {session.count} lost"]
        lines.append(f"error {1000 * session.distance.mean():.0f} mm, reward {session.reward.mean():.2f} per s")
        lines.append(f"lost so far: {session.losses}")
        if session.broken:
            lines.append(f"states that were not finite: {session.broken}")
        return "  \n".join(lines)

    def _wish(self, wish: Callable[[], None]) -> None:
        self._wishes.put(wish)

    def _show_motion(self, visible: bool) -> None:
        for own in self.ghosts:
            for handle in own:
                handle.visible = visible


def play_command(
    driver: Path | Undriven,
    clip_paths: Sequence[Path],
    robot: str | None,
    robots: int,
    seed: int,
    randomised: bool,
    port: int,
    video_path: Path | None,
    fps: int,
) -> None:
    """Show the session in the browser until the user interrupts, or write it as a video: each motion once."""
    if not clip_paths:
        raise ClipError("no motion is named; allowed: one clip.npz or more")
    clips = [load_clip(path) for path in clip_paths]
    names = [path.stem for path in clip_paths]
    answers = driver if isinstance(driver, str) else _policy(driver, clip_paths)
    if video_path is not None:
        from sim.video import video

        sessions = [Session(answers, [clip], robot, robots, seed, randomised) for clip in clips]
        video(list(zip(names, sessions, strict=True)), video_path, fps)
        print(video_path)
        return
    session = Session(answers, clips, robot, robots, seed, randomised)
    viewer = Viewer(session, names, port)
    print(f"http://localhost:{viewer.port}", flush=True)
    try:
        viewer.run()
    except KeyboardInterrupt:
        viewer.stop()
    session.close()


def _policy(path: Path, clip_paths: Sequence[Path]) -> Policy:
    """That policy; says so where it was trained on another motion than these."""
    policy = load_policy(path)
    if not isinstance(policy, Policy):
        raise PolicyError(f"{path}: a compiled policy; allowed here: policy.onnx")
    motion = policy.spec.motion
    if motion is not None and motion.sha256 is not None:
        for clip in clip_paths:
            if hashlib.sha256(clip.read_bytes()).hexdigest() != motion.sha256:
                print(f"sim: {path} was trained on {motion.name}, not on {clip}", file=sys.stderr)
    return policy
