"""Teachers of tracking policies: what published or earlier policies would do is learnt first, by imitation.

The pupil acts, its teachers say what they would have done in the states that it gets into, and it learns that (DAgger,
Ross et al. 2011). Meanwhile its critic learns what the pupil's states are worth, so that PPO can go on from there: of a
policy file alone it could not, for a file holds no critic, and a critic that knows nothing spoils the policy that it
judges. With one teacher for each motion, many policies become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.compiled import CompiledPolicy
from controllers.observation import Observer
from controllers.policy import Policy, load_policy
from controllers.spec import PolicySpec
from sim.tasks.tracking import Tracking

Array = NDArray[np.floating]

SHARED = ("robot", "action", "joints", "rates", "recurrent")
"""What teachers and pupil must have in common; what they observe may differ."""


class Teachers:
    """One policy for each motion, or one for all of them. At each control step call `answers`, then, after the robots
    have acted, `follow`."""

    def __init__(self, paths: Sequence[str], motions: int, spec: PolicySpec, robots: int) -> None:
        """
        Args:
            paths: Policy files: one, or one for each motion, in their order.
            motions: How many there are.
            spec: The pupil's.
            robots: N.

        Raises:
            ValueError: One commands something else than the pupil.
        """
        loaded: dict[str, Policy | CompiledPolicy] = {path: load_policy(Path(path)) for path in dict.fromkeys(paths)}
        for path, policy in loaded.items():
            other = [name for name in SHARED if getattr(policy.spec, name) != getattr(spec, name)]
            if other:
                raise ValueError(f"teacher {path}: differs from this training's policy in {', '.join(other)}; allowed: "
                                 f"policies of the same robot that act in the same way")  # fmt: skip
        self._policies = list(loaded.values())
        order = list(loaded)
        self._of = np.array([order.index(path) for path in (paths if len(paths) > 1 else list(paths) * motions)])
        self._observers = {
            index: Observer(policy.spec, robots, np.zeros(robots))
            for index, policy in enumerate(self._policies)
            if policy.spec.observation != spec.observation
        }

    def answers(self, task: Tracking, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What they would do, (N, actions).

        Args:
            task: Which has just been observed.
            obs: What the pupil observes, (N, inputs).
        """
        found = np.empty((len(obs), self._policies[0].spec.action_size), dtype=np.float32)
        teacher = self._of[task.clip]
        for index, policy in enumerate(self._policies):
            seen = task.observe_as(self._observers[index]) if index in self._observers else obs
            which = teacher == index
            if which.any():
                found[which] = policy.step(seen[which], policy.reset(int(which.sum())))[0]
        return found

    def follow(self, action: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        """Remember what the robots did instead (N, actions), and forget those whose episode has ended (N,)."""
        for observer in self._observers.values():
            observer.targets(action)
            observer.reset(done)

    def state(self) -> dict[str, np.ndarray]:
        """What later answers depend on, as arrays by name."""
        states = {index: observer.state() for index, observer in self._observers.items()}
        return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        for index, observer in self._observers.items():
            begin = f"{index}."
            observer.restore({n.removeprefix(begin): v for n, v in arrays.items() if n.startswith(begin)})


def imitate(ppo: Any, rate: float) -> dict[str, float]:
    """One update of rsl-rl's PPO in which the policy learns the answers that stand in its storage in place of the
    actions, by least squares, and the critic the returns. What they lost, as `ppo.update` says it.

    Args:
        ppo: With a storage that is full and whose returns are computed.
        rate: Of learning.
    """
    import torch

    ppo.learning_rate = rate
    for group in ppo.optimizer.param_groups:
        group["lr"] = rate
    total, count = np.zeros(2), 0
    for batch in ppo.storage.mini_batch_generator(ppo.num_mini_batches, ppo.num_learning_epochs):
        if ppo.symmetry:
            ppo.symmetry.augment_batch(batch, batch.observations.batch_size[0])
        off = (ppo.actor(batch.observations) - batch.actions).square().mean()
        value = (ppo.critic(batch.observations) - batch.returns).square().mean()
        ppo.optimizer.zero_grad()
        (off + value).backward()
        if ppo.is_multi_gpu:
            ppo.reduce_parameters()
        for network in (ppo.actor, ppo.critic):
            torch.nn.utils.clip_grad_norm_(network.parameters(), ppo.max_grad_norm)
        ppo.optimizer.step()
        total += off.item(), value.item()
        count += 1
    seen = ppo.storage.observations.flatten(0, 1)
    ppo.actor.update_normalization(seen)
    ppo.critic.update_normalization(seen)
    ppo.storage.clear()
    return {"imitation": total[0] / count, "value": total[1] / count}
