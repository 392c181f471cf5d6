"""The networks of tracking policies and their critics: rsl-rl's, which learn what inputs are normal from fewer samples.

Imports torch, which loads slowly: import it where networks are made.
"""

from __future__ import annotations

from rsl_rl.models import MLPModel
from tensordict import TensorDict

EVERY = 5  # of the samples of an update one tells the mean and spread: torch's variance of all took 4 % of a training


class Model(MLPModel):
    """A network behind the running normalisation of its inputs."""

    def update_normalization(self, obs: TensorDict) -> None:
        """Learn the mean and spread of inputs (samples, inputs)."""
        super().update_normalization(obs[::EVERY])
