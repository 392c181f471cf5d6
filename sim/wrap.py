"""Makes a `policy.onnx` of a network that someone else published without saying what it needs.

The network stays as it is; inputs and outputs get our names and any batch size, and the file gets a specification,
which the caller must know, and golden sequences. From then on it is a policy like any other, and every consumer can
check it.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from controllers.evidence import KEY, make_evidence
from controllers.files import write_atomically
from controllers.g1 import revision
from controllers.policy import GOLDEN_STEPS, Policy, encode_golden, load_policy, open_session
from controllers.spec import PolicyError, PolicySpec

SEQUENCES = 4  # of golden observations
AGREEMENT = 1e-4  # largest difference between the wrapped network and the original; batches are summed in another order


def read_spec(path: Path) -> PolicySpec:
    """The specification in that JSON file."""
    try:
        return PolicySpec.from_json(path.read_text(encoding="utf-8"))
    except (PolicyError, OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {error}") from error


def has_spec(path: Path) -> bool:
    """Whether that ONNX file says itself what it needs."""
    metadata = open_session(str(path)).get_modelmeta().custom_metadata_map
    return "policy_spec" in metadata


def wrap_policy(path: Path, spec: PolicySpec, output: Path) -> None:
    """Writes `output`, a policy file with the network of `path`, whole or not at all.

    Args:
        path: ONNX file with one float input (1 or any, inputs) and one float output (1 or any, actions), no memory.
        spec: What the network needs; its parameter count is replaced by that of the file.
        output: The policy file.
    """
    try:
        data = _wrapped(path, spec).SerializeToString(deterministic=True)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from error
    write_atomically(output, lambda file: file.write(data))


def load_foreign(path: Path, spec: PolicySpec) -> Policy:
    """The policy that `wrap_policy` would write, checked like any other."""
    with tempfile.TemporaryDirectory() as folder:
        wrapped = Path(folder) / path.name
        wrap_policy(path, spec, wrapped)
        policy = load_policy(wrapped)
    assert isinstance(policy, Policy)
    return policy


def _wrapped(path: Path, spec: PolicySpec) -> onnx.ModelProto:
    if spec.recurrent.size:
        raise PolicyError(f"policy_spec.recurrent.size is {spec.recurrent.size}; allowed for a network to wrap: 0")
    original = open_session(str(path))  # refuses what is not a model, in words
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [node for node in model.graph.input if node.name not in weights]
    for side, nodes, new, size in (
        ("inputs", inputs, "obs", spec.observation_size),
        ("outputs", list(model.graph.output), "action", spec.action_size),
    ):
        if len(nodes) != 1:
            raise PolicyError(f"{side} are {[node.name for node in nodes]}; allowed: one")
        shape = [dim.dim_value or dim.dim_param for dim in nodes[0].type.tensor_type.shape.dim]
        if len(shape) != 2 or shape[1] != size:
            raise PolicyError(f"{nodes[0].name} has shape {shape}; allowed: [1, {size}], as policy_spec says")
        _rename(model.graph, nodes[0].name, new)
        nodes[0].CopyFrom(helper.make_tensor_value_info(new, onnx.TensorProto.FLOAT, ["batch", size]))
    del model.graph.value_info[:]  # they name the old batch size

    rng = np.random.default_rng(0)
    obs = rng.normal(0, 0.3, (GOLDEN_STEPS, SEQUENCES, spec.observation_size)).astype(np.float32)
    answers = open_session(model.SerializeToString())
    actions = np.stack([np.asarray(answers.run(["action"], {"obs": row})[0]) for row in obs])
    name = original.get_inputs()[0].name
    for sequence in range(SEQUENCES):
        single = np.asarray(original.run(None, {name: obs[0, sequence : sequence + 1]})[0])
        error = float(np.abs(single - actions[0, sequence]).max())
        if not error <= AGREEMENT:
            raise PolicyError(f"actions of a batch differ from single ones by {error:.2g}; allowed: {AGREEMENT:g}")

    count = sum(int(numpy_helper.to_array(tensor).size) for tensor in model.graph.initializer)
    spec = dataclasses.replace(spec, parameter_count=count)
    properties = {"policy_spec": spec.to_json(), "golden": encode_golden(obs, actions)}
    if spec.joints is not None:
        properties[KEY] = make_evidence(spec, revision(spec.robot)).to_json()
    helper.set_model_props(model, properties)
    return model


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value another name, wherever the graph says it."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
