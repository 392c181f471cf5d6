"""The networks of tracking policies and their critics: rsl-rl's, which learn what inputs are normal from fewer samples,
and multiply in bfloat16 where the processor is faster at it.

Imports torch, which loads slowly: import it where networks are made.
"""

from __future__ import annotations

import torch
from rsl_rl.models import MLPModel
from tensordict import TensorDict
from torch import Tensor, nn

EVERY = 5  # of the samples of an update one tells the mean and spread: torch's variance of all took 4 % of a training


class Model(MLPModel):
    """A network behind the running normalisation of its inputs."""

    def update_normalization(self, obs: TensorDict) -> None:
        """Learn the mean and spread of inputs (samples, inputs)."""
        super().update_normalization(obs[::EVERY])


class HalfLinear(nn.Linear):
    """A layer that multiplies in bfloat16. Always, not in updates alone (autocast): PPO compares the policy with what
    it was when it acted. Where rounding differs between the two, that looks like a change of the policy, and the rate
    of learning is adapted to it, down to its least."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.bfloat16(), self.bias.bfloat16()
        return nn.functional.linear(input.bfloat16(), weight, bias).float()


def halve(model: MLPModel) -> None:
    """Let all layers but the last multiply in bfloat16."""
    for layer in [module for module in model.mlp.modules() if isinstance(module, nn.Linear)][:-1]:
        layer.__class__ = HalfLinear


def is_half_faster() -> bool:
    """Whether the processor multiplies in bfloat16, but torch does not do so of itself: for float32 matrices it uses
    that with AMX alone, not with AVX-512's."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16")) and not has.get("amx_bf16")
