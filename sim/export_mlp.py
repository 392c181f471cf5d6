"""Writes `policy.onnx` of a network of dense layers, such as PPO trains for robots with joints.

The observation's mean and width are part of the network, so consumers feed what the specification says and nothing
else. Beside our own specification the file carries the keys that BeyondMimic's and mjlab's loaders read.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from controllers.evidence import KEY, make_evidence
from controllers.files import write_atomically
from controllers.g1 import revision
from controllers.policy import GOLDEN_STEPS, encode_golden, load_policy, open_session
from controllers.spec import PolicyError, PolicySpec

OPSET = 17
IR = 9  # of the file: the newest that onnxruntime 1.20 reads is later

Layers = Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]]


def write_mlp(
    path: Path,
    mean: NDArray[np.floating],
    width: NDArray[np.floating],
    layers: Layers,
    spec: PolicySpec,
    golden_obs: NDArray[np.floating],
) -> None:
    """Writes the policy file, whole or not at all, after it has been loaded once.

    Args:
        path: The file.
        mean: Of the observation, subtracted, (inputs,).
        width: What it is then divided by, (inputs,).
        layers: Weights (outputs, inputs) and biases (outputs,) of the layers; ELU between them, nothing after the last.
        spec: Its parameter count is replaced by the network's.
        golden_obs: Observations (steps, sequences, inputs) from real runs; 32 steps or more.
    """
    if golden_obs.ndim != 3 or len(golden_obs) < GOLDEN_STEPS:
        raise PolicyError(f"golden observations have shape {golden_obs.shape}; allowed: {GOLDEN_STEPS} steps or more")
    golden = golden_obs.astype(np.float32)
    arrays = {"mean": mean, "width": width}
    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "width"], ["x0"]),
    ]
    for index, (weight, bias) in enumerate(layers):
        arrays |= {f"W{index}": weight, f"b{index}": bias}
        last = index == len(layers) - 1
        out = "action" if last else f"y{index}"
        nodes.append(helper.make_node("Gemm", [f"x{index}", f"W{index}", f"b{index}"], [out], transB=1))
        if not last:
            nodes.append(helper.make_node("Elu", [out], [f"x{index + 1}"]))
    count = sum(weight.size + bias.size for weight, bias in layers)
    spec = dataclasses.replace(spec, parameter_count=int(count))
    tensor = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", tensor, ["batch", spec.observation_size])],
        [helper.make_tensor_value_info("action", tensor, ["batch", spec.action_size])],
        [numpy_helper.from_array(np.asarray(value, dtype=np.float32), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="realign")
    model.ir_version = IR
    onnx.checker.check_model(model)
    session = open_session(model.SerializeToString())
    actions = np.stack([np.asarray(session.run(["action"], {"obs": row})[0]) for row in golden])
    properties = {"policy_spec": spec.to_json(), "golden": encode_golden(golden, actions)} | foreign_keys(spec)
    properties[KEY] = make_evidence(spec, revision(spec.robot)).to_json()
    helper.set_model_props(model, properties)
    data = model.SerializeToString(deterministic=True)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "policy.onnx"
        trial.write_bytes(data)
        load_policy(trial)
    write_atomically(path, lambda file: file.write(data))


def foreign_keys(spec: PolicySpec) -> dict[str, str]:
    """The metadata that BeyondMimic and mjlab write: lists with commas, here at full precision."""
    if spec.joints is None:
        return {}
    joints = spec.joints

    def listed(values: Sequence[object]) -> str:
        return ",".join(str(value) for value in values)

    return {
        "joint_names": listed(joints.names),
        "joint_stiffness": listed(joints.stiffness),
        "joint_damping": listed(joints.damping),
        "default_joint_pos": listed(joints.default_position),
        "action_scale": listed(spec.action.scale),
        "command_names": "motion" if spec.motion else "",
        "observation_names": listed([term.name for term in spec.observation]),
        "observation_history_lengths": listed([term.history for term in spec.observation]),
        "run_path": spec.training.command,
    }
