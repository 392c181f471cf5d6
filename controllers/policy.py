"""Loads a policy file, proves that it is what it says, and steps it.

A file is trusted only after it has flown its own golden sequences: the same observations must give the same actions,
through the recurrence, on this machine and with this version of the runtime.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import onnxruntime

from .compiled import CompiledPolicy
from .spec import PolicyError, PolicySpec

GOLDEN_TOLERANCE = 1e-5
GOLDEN_STEPS = 32
"""The fewest recurrent steps that golden sequences must have."""


class Policy:
    """One policy, stepped for any number of robots at once; the caller carries the recurrent state."""

    def __init__(
        self, session: onnxruntime.InferenceSession, spec: PolicySpec, golden_robot: str | None = None
    ) -> None:
        """
        Args:
            session: On the model.
            spec: What the file says about it.
            golden_robot: What it shows about the robot around it, for `controllers.evidence`.
        """
        self.spec, self.golden_robot = spec, golden_robot
        self._session = session

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
        recurrent = self.spec.recurrent
        if not recurrent.size:
            return np.asarray(self._session.run(["action"], {"obs": obs})[0]), h
        results = self._session.run(["action", recurrent.output], {"obs": obs, recurrent.input: h})
        action, h_out = map(np.asarray, results)
        return action, h_out


def load_policy(path: str | Path) -> Policy | CompiledPolicy:
    """The policy in that file, checked: `policy.onnx`, or a library that `firmware-export c --shared` made."""
    path = Path(path)
    if not path.is_file():
        raise PolicyError(f"{path}: no such file")
    try:
        if path.suffix == ".so":
            return CompiledPolicy(path)
        return _load_onnx(path)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from error


def open_session(model: str | bytes) -> onnxruntime.InferenceSession:
    """A session on a model file, or on its bytes, as every policy runs: on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # tiny networks: a second thread costs more than it brings
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what goes wrong is raised here
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no common base class for what it raises
        raise PolicyError(f"not a model that onnxruntime can read: {str(error).splitlines()[0]}") from error


def _load_onnx(path: Path) -> Policy:
    session = open_session(str(path))
    metadata = session.get_modelmeta().custom_metadata_map
    for key in ("policy_spec", "golden"):
        if key not in metadata:
            raise PolicyError(f"{key} is not in the metadata; allowed: a file that `sim train` wrote")
    spec = PolicySpec.from_json(metadata["policy_spec"])
    _check_shapes(session, spec)
    policy = Policy(session, spec, metadata.get("golden_robot"))
    _replay(policy, metadata["golden"])
    return policy


def _check_shapes(session: onnxruntime.InferenceSession, spec: PolicySpec) -> None:
    recurrent = spec.recurrent
    inputs, outputs = {"obs": spec.observation_size}, {"action": spec.action_size}
    if recurrent.size:
        inputs[recurrent.input] = outputs[recurrent.output] = recurrent.size
    for side, found, expected in (
        ("inputs", session.get_inputs(), inputs),
        ("outputs", session.get_outputs(), outputs),
    ):
        if {node.name for node in found} != set(expected):
            raise PolicyError(f"{side} are {[node.name for node in found]}; allowed: {list(expected)}")
        for node in found:
            size = expected[node.name]
            fits = len(node.shape) == 2 and not isinstance(node.shape[0], int) and node.shape[1] == size
            if not fits or node.type != "tensor(float)":
                raise PolicyError(
                    f"{node.name} is {node.type} of shape {node.shape}; "
                    f"allowed: tensor(float) of shape ['batch', {size}], as policy_spec says"
                )


def _replay(policy: Policy, golden: str) -> None:
    """Raises PolicyError unless the policy answers its golden observations with its golden actions."""
    observations, actions = decode_golden(golden)
    spec = policy.spec
    expected = (*observations.shape[:2], spec.action_size)
    if observations.ndim != 3 or observations.shape[2] != spec.observation_size or actions.shape != expected:
        raise PolicyError(
            f"golden holds observations {observations.shape} and actions {actions.shape}; allowed: "
            f"(steps, sequences, {spec.observation_size}) and (steps, sequences, {spec.action_size})"
        )
    if len(observations) < GOLDEN_STEPS:
        raise PolicyError(f"golden has {len(observations)} steps; allowed: {GOLDEN_STEPS} or more")
    h = policy.reset(observations.shape[1])
    for step, (obs, action) in enumerate(zip(observations, actions, strict=True)):
        answer, h = policy.step(obs, h)
        error = np.abs(answer - action).max()
        if not error <= GOLDEN_TOLERANCE:
            raise PolicyError(
                f"golden actions differ by {error:.2g} at step {step}; allowed: {GOLDEN_TOLERANCE:g} "
                f"(the weights or the runtime have changed)"
            )


def encode_golden(observations: np.ndarray, actions: np.ndarray) -> str:
    """Golden sequences (steps, sequences, size), which start at the initial state, as JSON text."""
    return json.dumps({"obs": pack_array(observations), "action": pack_array(actions)})


def decode_golden(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The observations and actions of `encode_golden`."""
    try:
        raw = json.loads(text)
        return unpack_array(raw["obs"]), unpack_array(raw["action"])
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(
            f"golden cannot be read ({error}); allowed: obs and action, each with shape and base64 float32"
        ) from error


def pack_array(array: np.ndarray) -> dict[str, object]:
    """That array in single precision, as plain JSON."""
    data = base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()
    return {"shape": list(array.shape), "float32": data}


def unpack_array(packed: dict) -> np.ndarray:
    """The array of `pack_array`. Raises ValueError, KeyError or TypeError for anything else."""
    data = np.frombuffer(base64.b64decode(packed["float32"], validate=True), dtype="<f4")
    return data.reshape(packed["shape"]).astype(np.float32)
