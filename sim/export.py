"""Between trained weights and `policy.onnx`, in both directions, and the same network in numpy.

The network is more than its weights: it first turns the world about the vertical so that the yaw error is at most
45 degrees (an exact symmetry, as gravity does not care), then limits the errors that it reacts to, and at the end clips
the action. All of it is part of the file, so no integration can forget it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from controllers.policy import GOLDEN_STEPS, Policy, encode_golden, load_policy, open_session
from controllers.spec import ACCELERATION_LIMIT, POSITION_ERROR_LIMIT, VELOCITY_ERROR_LIMIT, PolicyError, PolicySpec

OPSET, IR_VERSION = 17, 8  # old enough for every runtime in use, new enough for every operator here

Weights = dict[str, np.ndarray]
"""W0 (16, inputs), b0, Wi (3H, 16), bi, Wh (3H, H), bh, W2 (4, H), b2, h0 (H,), all float32.

The gates stand in torch's order: reset, update, new.
"""

ONE, SQRT_HALF = np.float32(1), np.float32(math.sqrt(0.5))

# Where the observation holds the two horizontal components of what is turned: position error, the columns of the
# rotation matrix, velocity error and, when present, the reference acceleration.
TURNED_X = (0, 3, 4, 5, 12, 22)
TURNED_Y = (1, 6, 7, 8, 13, 23)


def parameter_count(weights: Weights) -> int:
    """Trained numbers, the initial state included."""
    return sum(array.size for array in weights.values())


def student_forward(weights: Weights, obs: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference: actions (batch, 4) and next states (batch, H) of observations (batch, inputs), in float32."""
    w = weights
    x = np.maximum(preprocess(obs) @ w["W0"].T + w["b0"], 0)
    input_r, input_z, input_n = np.split(x @ w["Wi"].T + w["bi"], 3, axis=-1)
    state_r, state_z, state_n = np.split(h @ w["Wh"].T + w["bh"], 3, axis=-1)
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and the gate then rightly 0
        r = 1 / (1 + np.exp(-(input_r + state_r)))
        z = 1 / (1 + np.exp(-(input_z + state_z)))
    h = (1 - z) * np.tanh(input_n + r * state_n) + z * h
    return np.clip(h @ w["W2"].T + w["b2"], -1, 1), h


def preprocess(obs: np.ndarray) -> np.ndarray:
    """The observation with the yaw error brought within 45 degrees and the errors limited, (batch, inputs)."""
    obs = np.array(obs, dtype=np.float32)
    x = obs[:, 3] + obs[:, 7] + np.float32(1e-3)  # R00 + R11, kept off zero for a quadrotor upside down
    y = obs[:, 6] - obs[:, 4]  # R10 - R01
    n = 1 / np.sqrt(x * x + y * y + np.float32(1e-12))
    c, s = x * n, y * n  # cosine and sine of the yaw error
    beyond = c < SQRT_HALF
    cos = np.where(beyond, (c + np.abs(s)) * SQRT_HALF, 1)[:, None]
    sin = np.where(beyond, np.where(s < 0, -ONE, ONE) * (np.abs(s) - c) * SQRT_HALF, 0)[:, None]
    count = 6 if obs.shape[1] == 25 else 5
    ix, iy = list(TURNED_X[:count]), list(TURNED_Y[:count])
    a, b = obs[:, ix], obs[:, iy]
    obs[:, ix], obs[:, iy] = cos * a + sin * b, cos * b - sin * a
    obs[:, 0:3] = obs[:, 0:3].clip(-POSITION_ERROR_LIMIT, POSITION_ERROR_LIMIT)
    obs[:, 12:15] = obs[:, 12:15].clip(-VELOCITY_ERROR_LIMIT, VELOCITY_ERROR_LIMIT)
    obs[:, 22:25] = obs[:, 22:25].clip(-ACCELERATION_LIMIT, ACCELERATION_LIMIT)
    return obs


def write_policy(path: str | Path, weights: Weights, spec: PolicySpec, golden_obs: np.ndarray) -> None:
    """Writes `policy.onnx`; what was at `path` stays whole until the new file is complete and has been loaded once.

    Args:
        path: The file.
        weights: See `Weights`.
        spec: Its sizes, initial state and parameter count must be those of the weights.
        golden_obs: Observations (steps, sequences, inputs) whose actions are stored as the file's own test; at least 32
            steps and two sequences, from flights.
    """
    path = Path(path)
    weights = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.items()}
    _check(weights, spec, golden_obs)
    model = _model(weights)
    actions = _golden_actions(model, spec, golden_obs)
    helper.set_model_props(model, {"policy_spec": spec.to_json(), "golden": encode_golden(golden_obs, actions)})
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".onnx", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(model.SerializeToString(deterministic=True))
                file.flush()
                os.fsync(file.fileno())
            load_policy(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise PolicyError(f"{path}: cannot be written ({error.strerror}); what was there is unchanged") from error


def read_weights(path: str | Path) -> Weights:
    """The weights of a file that `write_policy` wrote, bit for bit."""
    spec = load_policy(path).spec
    arrays = {array.name: numpy_helper.to_array(array) for array in onnx.load(path).graph.initializer}
    if missing := [name for name in ("W0", "b0", "Wi", "Wh", "bi_bh", "W2", "b2") if name not in arrays]:
        raise PolicyError(f"{path}: has no {', '.join(missing)}; allowed: a file that `sim train` wrote")
    bi, bh = np.split(arrays["bi_bh"][0], 2)
    weights = {
        "W0": arrays["W0"],
        "b0": arrays["b0"],
        "Wi": _swap_gates(arrays["Wi"][0]),
        "bi": _swap_gates(bi),
        "Wh": _swap_gates(arrays["Wh"][0]),
        "bh": _swap_gates(bh),
        "W2": arrays["W2"],
        "b2": arrays["b2"],
        "h0": np.asarray(spec.recurrent.initial),
    }
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.items()}


def _swap_gates(array: np.ndarray) -> np.ndarray:
    """From torch's gate order (reset, update, new) to that of ONNX (update, reset, new), or back."""
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def _check(weights: Weights, spec: PolicySpec, golden_obs: np.ndarray) -> None:
    """Raises PolicyError unless the weights fit each other, the spec and the golden observations."""
    inputs, hidden = spec.observation_size, spec.recurrent.size
    features = len(weights["b0"])
    shapes = {
        "W0": (features, inputs),
        "b0": (features,),
        "Wi": (3 * hidden, features),
        "bi": (3 * hidden,),
        "Wh": (3 * hidden, hidden),
        "bh": (3 * hidden,),
        "W2": (spec.action_size, hidden),
        "b2": (spec.action_size,),
        "h0": (hidden,),
    }
    if inputs not in (22, 25):
        raise PolicyError(f"policy_spec.observation has {inputs} numbers; allowed: 22, or 25 with the acceleration")
    if set(weights) != set(shapes):
        raise PolicyError(f"weights are {sorted(weights)}; allowed: {sorted(shapes)}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise PolicyError(f"weight {name} has shape {weights[name].shape}; allowed: {shape}, as policy_spec says")
        if not np.isfinite(weights[name]).all():
            raise PolicyError(f"weight {name} holds a number that is not finite; allowed: finite numbers")
    if not np.array_equal(weights["h0"], np.asarray(spec.recurrent.initial, np.float32)):
        raise PolicyError("policy_spec.recurrent.initial differs from weight h0; allowed: the same numbers")
    if spec.parameter_count != parameter_count(weights):
        raise PolicyError(f"policy_spec.parameter_count is {spec.parameter_count}; allowed: {parameter_count(weights)}")
    steps, sequences, width = golden_obs.shape if golden_obs.ndim == 3 else (0, 0, 0)
    if steps < GOLDEN_STEPS or sequences < 2 or width != inputs:
        raise PolicyError(
            f"golden_obs has shape {golden_obs.shape}; allowed: ({GOLDEN_STEPS} or more, 2 or more, {inputs})"
        )


def _golden_actions(model: onnx.ModelProto, spec: PolicySpec, golden_obs: np.ndarray) -> np.ndarray:
    """What the model answers to the golden observations, (steps, sequences, 4)."""
    policy = Policy(open_session(model.SerializeToString()), spec)
    h = policy.reset(golden_obs.shape[1])
    actions = []
    for obs in golden_obs:
        action, h = policy.step(obs, h)
        actions.append(action)
    return np.stack(actions)


def _model(weights: Weights) -> onnx.ModelProto:
    """The network as an ONNX graph: see `preprocess` and `student_forward` for the same in numpy."""
    inputs, hidden, outputs = weights["W0"].shape[1], len(weights["h0"]), len(weights["b2"])
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def op(kind: str, operands: Sequence[str], result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, operands, [result], name=result, **attributes))
        return result

    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        constants[name] = np.asarray(value, dtype=dtype)
        return name

    def take(source: str, columns: Sequence[int], result: str) -> str:
        return op("Gather", [source, constant(f"{result}_columns", columns, np.int64)], result, axis=1)

    def clip(source: str, limit: float, result: str) -> str:
        bounds = [constant(f"{result}_low", -limit), constant(f"{result}_high", limit)]
        return op("Clip", [source, *bounds], result)

    # Cosine c and sine s of the yaw error.
    op("Add", [take("obs", [3], "R00"), take("obs", [7], "R11")], "trace")
    op("Add", ["trace", constant("off_zero", 1e-3)], "x")
    op("Sub", [take("obs", [6], "R10"), take("obs", [4], "R01")], "y")
    op("Add", [op("Mul", ["x", "x"], "xx"), op("Mul", ["y", "y"], "yy")], "norm_squared")
    op("Sqrt", [op("Add", ["norm_squared", constant("tiny", 1e-12)], "norm_squared_tiny")], "norm")
    op("Reciprocal", ["norm"], "n")
    op("Mul", ["x", "n"], "c")
    op("Mul", ["y", "n"], "s")

    # Beyond 45 degrees, turn by what is too much: cosine and sine of the yaw error less 45 degrees towards zero.
    constant("sqrt_half", SQRT_HALF)
    constant("zero", 0)
    constant("one", 1)
    op("Less", ["c", "sqrt_half"], "beyond")
    op("Abs", ["s"], "abs_s")
    op("Mul", [op("Add", ["c", "abs_s"], "c_plus_abs_s"), "sqrt_half"], "turn_cos")
    op("Mul", [op("Sub", ["abs_s", "c"], "abs_s_minus_c"), "sqrt_half"], "abs_turn_sin")
    op("Where", [op("Less", ["s", "zero"], "s_negative"), constant("minus_one", -1), "one"], "sign_s")
    op("Mul", ["sign_s", "abs_turn_sin"], "turn_sin")
    op("Where", ["beyond", "turn_cos", "one"], "cos")
    op("Where", ["beyond", "turn_sin", "zero"], "sin")
    count = 6 if inputs == 25 else 5
    take("obs", TURNED_X[:count], "unturned_x")
    take("obs", TURNED_Y[:count], "unturned_y")
    op("Add", [op("Mul", ["cos", "unturned_x"], "cos_x"), op("Mul", ["sin", "unturned_y"], "sin_y")], "turned_x")
    op("Sub", [op("Mul", ["cos", "unturned_y"], "cos_y"), op("Mul", ["sin", "unturned_x"], "sin_x")], "turned_y")

    # Back into the order of the observation, with the limits.
    op("Concat", ["turned_x", "turned_y", "obs"], "parts", axis=1)
    columns = [2 * count + column for column in range(inputs)]
    for index in range(count):
        columns[TURNED_X[index]], columns[TURNED_Y[index]] = index, count + index
    features = [
        clip(take("parts", columns[0:3], "position"), POSITION_ERROR_LIMIT, "position_limited"),
        take("parts", columns[3:12], "rotation"),
        clip(take("parts", columns[12:15], "velocity"), VELOCITY_ERROR_LIMIT, "velocity_limited"),
        take("parts", columns[15:22], "rest"),
    ]
    if inputs == 25:
        features.append(clip(take("parts", columns[22:25], "acceleration"), ACCELERATION_LIMIT, "acceleration_limited"))
    op("Concat", features, "features", axis=1)

    # The weights, under the names by which `read_weights` finds them.
    constant("W0", weights["W0"])
    constant("b0", weights["b0"])
    constant("Wi", _swap_gates(weights["Wi"])[None])
    constant("Wh", _swap_gates(weights["Wh"])[None])
    constant("bi_bh", np.concatenate([_swap_gates(weights["bi"]), _swap_gates(weights["bh"])])[None])
    constant("W2", weights["W2"])
    constant("b2", weights["b2"])
    constant("axis_0", [0], np.int64)
    op("Relu", [op("Gemm", ["features", "W0", "b0"], "dense", transB=1)], "relu")
    op("Unsqueeze", ["relu", "axis_0"], "relu_sequence")
    op("Unsqueeze", ["h_in", "axis_0"], "h_in_direction")
    gru = ["relu_sequence", "Wi", "Wh", "bi_bh", "", "h_in_direction"]
    nodes.append(
        helper.make_node("GRU", gru, ["", "h_direction"], name="gru", hidden_size=hidden, linear_before_reset=1)
    )
    op("Squeeze", ["h_direction", "axis_0"], "h_out")
    clip(op("Gemm", ["h_out", "W2", "b2"], "raw_action", transB=1), 1.0, "action")

    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        nodes,
        "quadrotor_policy",
        [value("obs", inputs), value("h_in", hidden)],
        [value("action", outputs), value("h_out", hidden)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="realign"
    )
    onnx.checker.check_model(model, full_check=True)
    return model
