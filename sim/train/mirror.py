"""Left and right exchanged: what a tracking policy and its critic would have seen and done on the other side.

A G1 is symmetric about its x-z plane, so the mirror image of a step is a step too, of the mirrored motion: the policy
is told which motion it is by what it sees of it. Learning from both teaches recoveries to either side at once (Mittal
et al. 2024, "Symmetry considerations for learning task symmetric robot policies").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.spec import PolicySpec
from sim.tasks.tracking_terms import TRACKED

Indices = NDArray[np.int64]
Signs = NDArray[np.float32]

VECTOR = np.array([1.0, -1.0, 1.0])
TURN = -VECTOR  # of axial vectors: angular velocities
COLUMNS = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])  # of a rotation matrix, the first two, row by row
EVEN = {"phase": np.ones(1), "motion_height": np.ones(1)}
SPATIAL = {
    "angular_velocity": TURN,
    "projected_gravity": VECTOR,
    "motion_orientation": COLUMNS,
    "motion_velocity": VECTOR,
    "motion_position": VECTOR,
}
OF_JOINTS = ("joint_offset", "joint_velocity", "motion_joint_error", "motion_joint_velocity", "motion_joint_offset")


def other_side(name: str) -> str:
    """The name with left and right exchanged."""
    return name.replace("left_", "#").replace("right_", "left_").replace("#", "right_")


def joints(names: tuple[str, ...]) -> tuple[Indices, Signs]:
    """Where each mirrored joint comes from, and whether it turns the other way: those about x (roll) and z (yaw) do."""
    index = [names.index(other_side(name)) for name in names]
    return np.array(index), np.array([-1.0 if "roll" in n or "yaw" in n else 1.0 for n in names], dtype=np.float32)


def actor(spec: PolicySpec) -> tuple[Indices, Signs]:
    """Of the policy's inputs: the mirrored ones are `inputs[:, index] * sign`.

    Raises:
        ValueError: The policy sees something of which the mirror image is not known.
    """
    assert spec.joints is not None
    index, sign = [], []
    at = 0
    for term in spec.observation:
        if term.sampled == "previous_action":
            one, signs = joints(spec.action.names)
        elif term.sampled in OF_JOINTS:
            one, signs = joints(spec.joints.names)
        elif term.sampled in SPATIAL or term.sampled in EVEN:
            signs = (SPATIAL | EVEN)[term.sampled]
            one = np.arange(len(signs))
        else:
            raise ValueError(f"mirror: {term.name} has no mirror image; allowed: policies of the preset realign")
        for _ in range(term.history):
            index.append(at + one)
            sign.append(signs)
            at += term.size
    return np.concatenate(index), np.concatenate(sign).astype(np.float32)


def critic(spec: PolicySpec) -> tuple[Indices, Signs]:
    """Of the inputs of `sim.tasks.critic.privileged`."""
    assert spec.joints is not None
    bodies = np.array([TRACKED.index(other_side(name)) for name in TRACKED])
    places = (3 * bodies[:, None] + np.arange(3)).ravel(), np.tile(VECTOR, len(TRACKED))
    joint, action = joints(spec.joints.names), joints(spec.action.names)
    parts = [places] * 4  # two of places, two of velocities
    parts += [(np.arange(len(signs)), signs) for signs in (VECTOR, COLUMNS, TURN, np.ones(1))]
    parts += [joint, joint, joint, action, (np.array([1, 0]), np.ones(2)), (np.arange(6), np.ones(6))]
    begins = np.cumsum([0, *(len(one) for one, _ in parts)])
    index = np.concatenate([begin + one for begin, (one, _) in zip(begins[:-1], parts, strict=True)])
    return index, np.concatenate([signs for _, signs in parts]).astype(np.float32)


class Mirroring:
    """Adds the mirror images of every batch's samples to it. In rsl-rl's PPO it takes the place of the symmetry
    extension, which would also pass the batch through the policy once more, for a loss that we do not use."""

    use_mirror_loss = False

    def __init__(self, spec: PolicySpec, device: str = "cpu") -> None:
        import torch

        self._torch = torch
        maps = {"actor": actor(spec), "critic": critic(spec), "action": joints(spec.action.names)}
        self._maps = {
            name: (torch.from_numpy(index).to(device), torch.from_numpy(sign).to(device))
            for name, (index, sign) in maps.items()
        }

    def augment_batch(self, batch: Any, original_batch_size: int) -> None:
        """Put the mirror images behind the samples, with the same advantages and returns."""
        torch = self._torch

        def mirrored(name: str, values: Any) -> Any:
            index, sign = self._maps[name]
            return torch.index_select(values, 1, index).mul_(sign)  # in a third of the time of values[:, index]

        seen = batch.observations
        images = seen.clone(recurse=False)
        for name in ("actor", "critic"):
            images[name] = mirrored(name, seen[name])
        batch.observations = torch.cat([seen, images])
        batch.actions = torch.cat([batch.actions, mirrored("action", batch.actions)])
        for name in ("old_actions_log_prob", "values", "advantages", "returns"):
            setattr(batch, name, getattr(batch, name).repeat(2, 1))

    def compute_loss(self, actor: Any, batch: Any, original_batch_size: int) -> Any:
        """Asymmetry itself costs nothing."""
        return self._torch.zeros(())
