"""Small policies of any layers, as files: what a trainer other than ours might have written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_policy import TRAINING

from controllers.policy import encode_golden
from controllers.spec import ObservationTerm, RecurrentState, quadrotor_spec

Node = tuple[str, str, str, dict[str, Any]]
"""Operator, names of its inputs and of its outputs between spaces (two in a row: one is left out), attributes."""


def write_network(
    path: Path, nodes: list[Node], constants: dict[str, np.ndarray], inputs: int, outputs: int, state: int
) -> Path:
    """Writes a policy of `obs` and `h_in` to `action` and `h_out`; without memory where `state` is 0."""

    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    memory = [("h_in", "h_out")] if state else []
    graph = helper.make_graph(
        [helper.make_node(kind, a.split(" "), b.split(" "), name=b.split()[0], **more) for kind, a, b, more in nodes],
        "network",
        [value("obs", inputs), *(value(name, state) for name, _ in memory)],
        [value("action", outputs), *(value(name, state) for _, name in memory)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    count = sum(np.asarray(array).size for array in constants.values())
    spec = quadrotor_spec([0.1] * state, count, TRAINING)
    names = tuple(f"joint_{index}" for index in range(outputs))
    action = replace(spec.action, names=names, scale=(1.0,) * outputs, offset=(0.0,) * outputs)
    recurrent = spec.recurrent if state else RecurrentState("", "", 0, ())
    terms = (ObservationTerm("all", inputs, "1", "none"),)
    spec = replace(spec, robot="cart", action=action, observation=terms, recurrent=recurrent, limits=())
    session = ReferenceEvaluator(model)
    observations = np.random.default_rng(1).normal(size=(40, 2, inputs)).astype(np.float32)
    h, actions = spec.initial_state(2), []
    for obs in observations:
        if state:
            answer, h = session.run(None, {"obs": obs, "h_in": h})
        else:
            (answer,) = session.run(None, {"obs": obs})
        actions.append(answer)
    golden = encode_golden(observations, np.stack(actions).astype(np.float32))
    helper.set_model_props(model, {"policy_spec": spec.to_json(), "golden": golden})
    onnx.save(model, path)
    return path


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights as after initialisation."""
    return (rng.uniform(-1, 1, shape) / np.sqrt(shape[-1])).astype(np.float32)


def lstm_policy(path: Path, units: int = 5, inputs: int = 6) -> Path:
    """Dense and tanh, an LSTM whose two states are one, a head that reads the hidden one."""
    rng = np.random.default_rng(2)
    constants = {
        **{"W0": draw(rng, 7, inputs), "b0": draw(rng, 7), "W": draw(rng, 1, 4 * units, 7)},
        **{"R": draw(rng, 1, 4 * units, units), "B": draw(rng, 1, 8 * units), "W2": draw(rng, 3, units)},
        **{"b2": draw(rng, 3), "first": np.array([0]), "halves": np.array([units, units])},
    }
    nodes: list[Node] = [
        ("Gemm", "obs W0 b0", "dense", {"transB": 1}),
        ("Tanh", "dense", "tanh", {}),
        ("Unsqueeze", "tanh first", "sequence", {}),
        ("Split", "h_in halves", "hidden cell", {"axis": 1}),
        ("Unsqueeze", "hidden first", "hidden_in", {}),
        ("Unsqueeze", "cell first", "cell_in", {}),
        ("LSTM", "sequence W R B  hidden_in cell_in", " hidden_after cell_after", {"hidden_size": units}),
        ("Squeeze", "hidden_after first", "hidden_out", {}),
        ("Squeeze", "cell_after first", "cell_out", {}),
        ("Concat", "hidden_out cell_out", "h_out", {"axis": 1}),
        ("Gemm", "hidden_out W2 b2", "action", {"transB": 1}),
    ]
    return write_network(path, nodes, constants, inputs, 3, 2 * units)


def tracking_policy(path: Path, inputs: int = 154, outputs: int = 29, widths: tuple[int, ...] = (64, 48)) -> Path:
    """As trainers of legged robots write them: normalised observations, ELU layers, no memory."""
    rng = np.random.default_rng(3)
    constants: dict[str, np.ndarray] = {
        "mean": rng.normal(size=(1, inputs)).astype(np.float32),
        "std": rng.uniform(0.5, 2, (1, inputs)).astype(np.float32),
    }
    nodes: list[Node] = [("Sub", "obs mean", "centred", {}), ("Div", "centred std", "normalised", {})]
    size, last = inputs, "normalised"
    for index, width in enumerate(widths):
        constants |= {f"W{index}": draw(rng, width, size), f"b{index}": draw(rng, width)}
        nodes.append(("Gemm", f"{last} W{index} b{index}", f"layer{index}", {"transB": 1}))
        nodes.append(("Elu", f"layer{index}", f"elu{index}", {"alpha": 1.0}))
        size, last = width, f"elu{index}"
    constants |= {"Wout": draw(rng, outputs, size), "bout": draw(rng, outputs)}
    nodes.append(("Gemm", f"{last} Wout bout", "action", {"transB": 1}))
    return write_network(path, nodes, constants, inputs, outputs, 0)


def normalised_policy(path: Path) -> Path:
    """Layer and batch normalisation, a GRU of 6 whose candidate has no bias, sigmoid at the end."""
    rng = np.random.default_rng(4)
    constants = {
        **{"scale": 1 + draw(rng, 9), "shift": draw(rng, 9), "mean": draw(rng, 9)},
        **{"variance": rng.uniform(0.5, 2, 9).astype(np.float32), "W": draw(rng, 1, 18, 9), "R": draw(rng, 1, 18, 6)},
        **{"W2": draw(rng, 6, 2), "first": np.array([0])},
    }
    nodes: list[Node] = [
        ("BatchNormalization", "obs scale shift mean variance", "batch", {"epsilon": 1e-3}),
        ("LayerNormalization", "batch scale shift", "layer", {}),
        ("Relu", "layer", "relu", {}),
        ("Unsqueeze", "relu first", "sequence", {}),
        ("Unsqueeze", "h_in first", "before", {}),
        ("GRU", "sequence W R   before", " after", {"hidden_size": 6, "linear_before_reset": 1}),
        ("Squeeze", "after first", "h_out", {}),
        ("MatMul", "h_out W2", "head", {}),
        ("Neg", "head", "negative", {}),
        ("Sigmoid", "negative", "action", {}),
    ]
    return write_network(path, nodes, constants, 9, 2, 6)
