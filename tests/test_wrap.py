"""Networks that say nothing about themselves become policies that do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from controllers.g1 import default_pose, gains, revision
from controllers.policy import load_policy
from controllers.spec import PolicyError
from sim.wrap import has_spec, load_foreign, read_spec, wrap_policy

ASAP = Path(__file__).parent.parent / "controllers" / "policies" / "asap.json"


def network(path: Path, inputs: int = 380, outputs: int = 23, gain: float = 0.1) -> Path:
    """A published network as they come: `actor_obs` [1, inputs] to `action` [1, outputs], no metadata."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(gain * rng.normal(size=(outputs, inputs)).astype(np.float32), "weight")
    bias = numpy_helper.from_array(np.linspace(-0.1, 0.1, outputs, dtype=np.float32), "bias")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["actor_obs", "weight", "bias"], ["action"], transB=1)],
        "actor",
        [helper.make_tensor_value_info("actor_obs", TensorProto.FLOAT, [1, inputs])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, outputs])],
        [weight, bias],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_the_asap_family_is_described_with_the_figures_of_the_robot() -> None:
    spec = read_spec(ASAP)
    robot = revision(spec.robot)
    assert (spec.observation_size, spec.action_size) == (380, 23)
    assert spec.joints is not None
    assert spec.joints.names == spec.action.names == robot.joint_names
    stiffness, damping = gains(robot, "asap")
    np.testing.assert_array_equal(spec.joints.stiffness, stiffness)
    np.testing.assert_array_equal(spec.joints.damping, damping)
    np.testing.assert_array_equal(spec.joints.default_position, default_pose(robot))
    np.testing.assert_array_equal(spec.action.offset, default_pose(robot))


def test_a_wrapped_network_answers_as_before_and_in_batches(tmp_path: Path) -> None:
    path = network(tmp_path / "actor.onnx")
    assert not has_spec(path)
    wrap_policy(path, read_spec(ASAP), tmp_path / "policy.onnx")
    assert has_spec(tmp_path / "policy.onnx")
    policy = load_policy(tmp_path / "policy.onnx")
    assert policy.spec.parameter_count == 380 * 23 + 23
    obs = np.random.default_rng(1).normal(size=(3, 380)).astype(np.float32)
    action, memory = policy.step(obs, policy.reset(3))
    weight, bias = (numpy_helper.to_array(x) for x in onnx.load(path).graph.initializer)
    np.testing.assert_allclose(action, obs @ weight.T + bias, atol=1e-5)
    assert memory.shape == (3, 0)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (379, 23, r"actor_obs has shape \[1, 379\]; allowed: \[1, 380\], as policy_spec says"),
        (380, 29, r"action has shape \[1, 29\]; allowed: \[1, 23\], as policy_spec says"),
    ],
)
def test_a_network_of_another_size_is_refused(tmp_path: Path, inputs: int, outputs: int, message: str) -> None:
    path = network(tmp_path / "actor.onnx", inputs, outputs)
    with pytest.raises(PolicyError, match=f"actor.onnx: {message}"):
        load_foreign(path, read_spec(ASAP))


def test_a_file_that_is_no_specification_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text("{}")
    with pytest.raises(PolicyError, match=r"spec.json: policy_spec.schema is None; allowed: 'realign.policy/1'"):
        read_spec(file)
