"""The published RAPTOR policy as one of our policy files, so that it is exported like any other.

Its weights and an example of 500 steps come with the package foundation-policy (extra [peers]); the example becomes the
golden sequences. The network has no limits inside, so the spec leaves them to the caller.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from controllers.policy import encode_golden
from controllers.spec import PolicySpec, Training, quadrotor_spec

from .graph import ExportError

NAME = "raptor"
PACKAGE = "foundation-policy"


def is_published(path: Path) -> bool:
    """Whether that is the name of the published policy, or a checkpoint in its format."""
    return (str(path) == NAME and not path.exists()) or path.suffix == ".h5"


def as_policy(path: Path, folder: Path) -> Path:
    """Writes raptor.onnx into `folder`; returns its path.

    Args:
        path: `raptor`, the checkpoint of the installed package; or a checkpoint.h5.
        folder: Where to write.
    """
    checkpoint = _installed() if path.suffix != ".h5" else path
    if not checkpoint.is_file():
        raise ExportError(f"{checkpoint}: no such file")
    weights, observations, actions = read_checkpoint(checkpoint)
    model = _model(weights)
    spec = _spec(weights)
    golden = encode_golden(observations, actions.clip(-1, 1))
    helper.set_model_props(model, {"policy_spec": spec.to_json(), "golden": golden})
    policy = folder / (f"{NAME}.onnx" if path.suffix != ".h5" else f"{path.stem}.onnx")
    policy.write_bytes(model.SerializeToString(deterministic=True))
    return policy


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights by name; the example's observations (steps, 2, 22) and its actions before they are clipped."""
    h5py = _need("h5py")
    try:
        with h5py.File(path, "r") as file:
            layers = file["actor/layers"]

            def numbers(name: str) -> np.ndarray:
                return np.asarray(layers[f"{name}/parameters"][()], dtype=np.float32)

            weights = {
                "W0": numbers("0/weights"),
                "b0": numbers("0/biases").ravel(),
                "Wi": _onnx_gates(numbers("1/weights_input")),
                "Wh": _onnx_gates(numbers("1/weights_hidden")),
                "bi": _onnx_gates(numbers("1/biases_input")),
                "bh": _onnx_gates(numbers("1/biases_hidden")),
                "h0": numbers("1/initial_hidden_state").ravel(),
                "W2": numbers("2/weights"),
                "b2": numbers("2/biases").ravel(),
            }
            found = [layers[str(i)].attrs.get("activation_function", layers[str(i)].attrs["type"]) for i in range(3)]
            example = [np.asarray(file[f"example/{part}"][()], dtype=np.float32) for part in ("input", "output")]
    except (OSError, KeyError) as error:
        raise ExportError(f"{path}: not a checkpoint of the published policy ({error})") from error
    if found != ["RELU", "gru", "IDENTITY"]:
        raise ExportError(f"{path}: its layers are {', '.join(map(str, found))}; allowed: RELU, gru, IDENTITY")
    return weights, example[0], example[1]


def _installed() -> Path:
    spec = importlib.util.find_spec("foundation_policy")
    if spec is None or spec.origin is None:
        raise ExportError(f"{PACKAGE} is not installed; install it with: pip install 'realign[peers]'")
    return Path(spec.origin).parent / "blob" / "checkpoint.h5"


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"{module} is not installed; install it with: pip install 'realign[peers]'") from error


def _onnx_gates(array: np.ndarray) -> np.ndarray:
    """From the order reset, update, new to that of ONNX: update, reset, new."""
    reset, update, new = np.split(array, 3)
    return np.concatenate([update, reset, new])


def _spec(weights: dict[str, np.ndarray]) -> PolicySpec:
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    training = Training("published", 0, "", {PACKAGE: version}, "")
    count = sum(array.size for array in weights.values())
    spec = quadrotor_spec(weights["h0"].tolist(), count, training)
    limits = [dataclasses.replace(limit, applied="by the caller") for limit in spec.limits if limit.unit != "rad"]
    return dataclasses.replace(spec, limits=tuple(limits))


def _model(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    hidden = len(weights["h0"])
    constants = {
        **{name: weights[name] for name in ("W0", "b0", "W2", "b2")},
        "Wi": weights["Wi"][None],
        "Wh": weights["Wh"][None],
        "bi_bh": np.concatenate([weights["bi"], weights["bh"]])[None],
        "first": np.array([0], np.int64),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    nodes = [
        helper.make_node("Gemm", ["obs", "W0", "b0"], ["dense"], "dense", transB=1),
        helper.make_node("Relu", ["dense"], ["relu"], "relu"),
        helper.make_node("Unsqueeze", ["relu", "first"], ["sequence"], "sequence"),
        helper.make_node("Unsqueeze", ["h_in", "first"], ["direction"], "direction"),
        helper.make_node(
            "GRU",
            ["sequence", "Wi", "Wh", "bi_bh", "", "direction"],
            ["", "after"],
            "gru",
            hidden_size=hidden,
            linear_before_reset=1,
        ),
        helper.make_node("Squeeze", ["after", "first"], ["h_out"], "h_out"),
        helper.make_node("Gemm", ["h_out", "W2", "b2"], ["raw_action"], "raw_action", transB=1),
        helper.make_node("Clip", ["raw_action", "low", "high"], ["action"], "action"),
    ]

    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        nodes,
        "published_policy",
        [value("obs", weights["W0"].shape[1]), value("h_in", hidden)],
        [value("action", len(weights["b2"])), value("h_out", hidden)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="realign")
