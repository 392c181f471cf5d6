"""Settings of a training of tracking policies; they load without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sim.backends.engine import EngineName
from sim.tasks.tracking_config import ASAP, TrackingConfig


@dataclass(frozen=True)
class TrackConfig:
    """A training."""

    clip: tuple[str, ...] = ()
    """clip.npz to track; several become one policy that tracks all of them."""
    warm_start: str = ""
    """Run folder of a training of the same inputs and layers whose networks this one begins with."""
    teachers: tuple[str, ...] = ()
    """policy.onnx to imitate at first, of the same task: one for each clip, in their order, or one for all. A smaller
    `noise`, such as 0.3, lets the policy stand meanwhile."""
    imitation: float = 0.5
    """Share of the updates, the first ones, in which the teachers are imitated, while the critic learns what the states
    are worth; then PPO goes on without teachers. 1: all."""
    task: TrackingConfig = field(default_factory=TrackingConfig)
    """The task."""
    robots: int = 512
    """Robots that are simulated at once, on all devices together."""
    engine: EngineName = "mujoco"
    """Physics of training and judgements: MuJoCo, always on the processor, or Genesis (extra [genesis])."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks learn, and where Genesis computes. auto: the processor; with several devices cuda where it is. The
    path through cuda was never run on a graphics card."""
    devices: int = 1
    """Processes that learn one policy, each with its share of the robots, gradients averaged (torchrun); with cuda
    each on a graphics card of its own."""
    steps: int = 24
    """Control steps of each between two updates."""
    iterations: int = 1000
    """Updates."""
    hidden: tuple[int, ...] = (256, 128, 128)
    """Units of the layers of actor and critic."""
    mirror: bool = True
    """Learn from the mirror image of every sample too; only where the policy can tell a motion from its mirror image,
    so not with the observation of the preset asap."""
    epochs: int = 2
    """Passes over the samples of an update."""
    batches: int = 8
    """Parts that the samples are divided into in each pass."""
    rate: float = 1e-3
    """Of learning, at the start."""
    kl: float = 0.04
    """Change of the policy per update that the rate of learning is adapted to."""
    gamma: float = 0.985
    """Discount per control step."""
    lam: float = 0.95
    """Of the generalised advantage estimate."""
    noise: float = 0.8
    """Standard deviation of the actions at the start. With half of it a policy stands sooner, but is slow to find out
    that a step saves it."""
    average: float = 0.96
    """Of the running average of the policy's weights, which is judged and saved: the share that stays at an update."""
    entropy: float = 0.005
    """Worth of the actions' entropy."""
    anneal: float = 0.5
    """Share of the updates, the last ones, in which `kl` falls to a quarter and `entropy` to nothing: a policy that
    goes on trying new things never becomes sure of the ones that it has found. 0: neither falls."""
    judged: int = 128
    """Robots of each judgement."""
    judge_every: int = 50
    """Updates between two judgements."""
    fast: bool = True
    """Multiply matrices in bfloat16 where the processor can (AMX, AVX-512), which is not exact to the last bit of
    float32."""
    video: bool = True
    """Write a video of the policy at the end; needs the extra [view] and off-screen drawing, and is left out with a
    line where they are missing."""
    seed: int = 0

    def annealed(self, done: float) -> tuple[float, float]:
        """`kl` and `entropy` after that share of the updates."""
        left = min((1 - done) / self.anneal, 1.0) if self.anneal else 1.0
        return self.kl * (0.25 + 0.75 * left), self.entropy * left

    def imitating(self, iteration: int) -> bool:
        """Whether teachers are imitated in that update, counted from 0."""
        return bool(self.teachers) and iteration < self.imitation * self.iterations

    def teaching_rate(self, iteration: int) -> float:
        """Rate of learning in that update of the imitation: it falls to a tenth, evenly."""
        return self.rate * (1 - 0.9 * iteration / (self.imitation * self.iterations))

    def check(self) -> TrackConfig:
        """Itself with `device` settled, or a ValueError that names the setting."""
        if not self.clip:
            raise ValueError("clip is missing; allowed: one clip.npz or more (`sim motions import` makes them)")
        for name in ("robots", "steps", "iterations", "epochs", "batches", "judged", "judge_every", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.robots % self.devices:
            raise ValueError(f"devices is {self.devices}; allowed: what divides the {self.robots} robots evenly")
        if self.mirror and self.task.observation == "asap":
            raise ValueError("mirror with the observation asap; allowed: --no-mirror (the phase of a motion is that of "
                             "its mirror image too)")  # fmt: skip
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}; allowed: 0, the last policy alone, up to below 1")
        if not 0 <= self.anneal <= 1:
            raise ValueError(f"anneal is {self.anneal}; allowed: 0 to 1")
        if not 0 < self.imitation <= 1:
            raise ValueError(f"imitation is {self.imitation}; allowed: above 0, at most 1")
        if len(self.teachers) not in (0, 1, len(self.clip)):
            raise ValueError(f"teachers are {len(self.teachers)}; allowed: none, 1, or one for each of the "
                             f"{len(self.clip)} clips")  # fmt: skip
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma is {self.gamma}; allowed: between 0 and 1")
        self.task.check()
        return dataclasses.replace(self, device=self._settled())

    def _settled(self) -> Literal["cpu", "cuda"]:
        """`device`, with auto decided."""
        if self.device == "cpu" or (self.device == "auto" and self.devices == 1):
            return "cpu"
        import torch  # only here: it loads slowly

        there = torch.cuda.device_count()
        if self.device == "auto" and not there:
            return "cpu"
        if self.devices > there:
            raise ValueError(
                f"devices is {self.devices} on cuda; allowed on this machine: {f'1 to {there}' if there else 'none'} "
                f"(--device cpu learns without a graphics card)"
            )
        return "cuda"


PUBLISHED = TrackConfig(task=ASAP, mirror=False, epochs=5, batches=4, gamma=0.99, kl=0.01, entropy=0.01, anneal=0)
TRAININGS = {"realign": TrackConfig(), "asap": PUBLISHED}
"""Defaults by preset; what `PUBLISHED` sets is as in ASAP's configuration."""
