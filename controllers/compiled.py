"""A policy that was compiled to machine code, behind the same two calls as `controllers.policy.Policy`.

The library carries its own specification and self-test; `firmware-export c --shared` makes it.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from pathlib import Path

import numpy as np

from .spec import PolicyError, PolicySpec

SELFTEST_TOLERANCE = 1e-5


class CompiledPolicy:
    """One compiled policy, stepped for any number of robots at once; the caller carries the recurrent state."""

    def __init__(self, path: str | Path) -> None:
        # The loader answers with the old library when it knows the path, so each load gets a new path.
        with tempfile.TemporaryDirectory() as folder:
            copy = str(Path(folder) / Path(path).name)
            try:
                shutil.copy(path, copy)
                library = ctypes.CDLL(copy)
                spec, selftest, step = (
                    library.realign_policy_describe,
                    library.realign_policy_verify,
                    library.realign_policy_step_all,
                )
            except (OSError, AttributeError) as error:
                raise PolicyError(
                    f"not a compiled policy ({str(error).replace(copy, 'the library')}); "
                    f"allowed: a library that `firmware-export c --shared` made on this kind of machine"
                ) from error
        spec.restype = ctypes.c_char_p
        selftest.restype = ctypes.c_float
        floats = np.ctypeslib.ndpointer(dtype=np.float32, ndim=2, flags="C_CONTIGUOUS")
        step.argtypes = [ctypes.c_long, floats, floats, floats, floats]
        step.restype = ctypes.c_long
        self.spec = PolicySpec.from_json(spec().decode())
        self._step = step
        error = selftest()
        if not error <= SELFTEST_TOLERANCE:
            raise PolicyError(f"the self-test is off by {error:.2g}; allowed: {SELFTEST_TOLERANCE:g}")

    def reset(self, batch: int) -> np.ndarray:
        """The recurrent state of robots that have not flown yet, (batch, state)."""
        return self.spec.initial_state(batch)

    def step(self, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The actions (batch, outputs) and the next recurrent state.

        Args:
            obs: Observations, (batch, inputs); all must be finite.
            h: Recurrent state, (batch, state); all must be finite.
        """
        obs = np.ascontiguousarray(obs, dtype=np.float32)
        h = np.ascontiguousarray(h, dtype=np.float32)
        self.spec.check_inputs(obs, h)
        action = np.empty((len(obs), self.spec.action_size), dtype=np.float32)
        h_out = np.empty_like(h)
        done = self._step(len(obs), obs, h, action, h_out)
        if done != len(obs):
            raise PolicyError(f"the answer to robot {done} is not finite; allowed: observations that do not overflow")
        return action, h_out
