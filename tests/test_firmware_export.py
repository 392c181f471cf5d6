"""The C code is the policy: the same actions to 2e-6 under any compiler flags, and never one that is not finite."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_policy import TRAINING, flights, random_weights, write

from controllers.compiled import CompiledPolicy
from controllers.policy import encode_golden, load_policy
from controllers.spec import ObservationTerm, PolicyError, quadrotor_spec
from firmware_export.cli import C, export_c, main
from firmware_export.compiled import compile_policy
from firmware_export.graph import ExportError
from firmware_export.reference import exp, sigmoid, tanh
from firmware_export.to_c import generate

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Werror -Wconversion -Wdouble-promotion -Wshadow".split()


def cc(*arguments: str | Path) -> None:
    subprocess.run(["cc", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported policy, hover.onnx, with all its files."""
    folder = tmp_path_factory.mktemp("export")
    export_c(C(write(folder / "hover.onnx", random_weights(0, spread=1.5)), folder, shared=True))
    return folder


def largest_difference(onnx_file: Path, compiled: CompiledPolicy, steps: int = 500, robots: int = 16) -> float:
    policy = load_policy(onnx_file)
    assert compiled.spec == policy.spec
    h = h_compiled = policy.reset(robots)
    worst = 0.0
    for obs in flights(1, steps, robots, policy.spec.observation_size):
        action, h = policy.step(obs, h)
        answer, h_compiled = compiled.step(obs, h_compiled)
        worst = max(worst, float(np.abs(answer - action).max()))
    return worst


# The same policy


@pytest.mark.parametrize(
    ("seed", "hidden", "inputs", "spread"), [(0, 16, 22, 1.0), (1, 16, 22, 2.0), (2, 24, 22, 1.5), (3, 16, 25, 1.5)]
)
def test_500_recurrent_steps_agree_with_the_onnx_file(
    tmp_path: Path, seed: int, hidden: int, inputs: int, spread: float
) -> None:
    path = write(tmp_path / "policy.onnx", random_weights(seed, hidden, inputs, spread))
    export_c(C(path, tmp_path, shared=True))
    compiled = load_policy(tmp_path / "policy.so")
    assert isinstance(compiled, CompiledPolicy)
    assert largest_difference(path, compiled) < 2e-6


def test_the_same_policy_gives_the_same_bytes(folder: Path) -> None:
    for target in ("generic", "crazyflie"):
        one, two = (folder / f"{target}_{copy}" for copy in ("one", "two"))
        files = [export_c(C(folder / "hover.onnx", place, target=target)) for place in (one, two)]  # type: ignore[arg-type]
        assert len(files[0]) == len(files[1]) > 8
        for first, second in zip(*files, strict=True):
            assert first.relative_to(one) == second.relative_to(two)
            assert first.read_bytes() == second.read_bytes()


def test_files_carry_the_chosen_name_and_nothing_else_is_left(folder: Path, tmp_path: Path) -> None:
    export_c(C(folder / "hover.onnx", tmp_path / "new" / "folder", name="mine"))
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    ours = {"mine.bin", "mine.c", "mine.h", "mine.onnx", "mine_batch.c", "mine_vectors.h", "REPORT.json", "REPORT.md"}
    assert names >= ours and not any(name.startswith(".") for name in names)


# The C code


@pytest.mark.parametrize("file", ["hover.c", "hover_batch.c"])
def test_it_compiles_without_a_warning_and_needs_no_library(folder: Path, tmp_path: Path, file: str) -> None:
    cc(*STRICT, "-O2", "-c", folder / file, "-o", tmp_path / "policy.o")
    listing = subprocess.run(["nm", "-u", tmp_path / "policy.o"], check=True, capture_output=True, text=True)
    assert set(listing.stdout.split()) - {"U"} <= {"_GLOBAL_OFFSET_TABLE_"}


def test_it_has_constants_and_no_variables(folder: Path, tmp_path: Path) -> None:
    cc("-std=c99", "-O2", "-fno-pie", "-c", folder / "hover.c", "-o", tmp_path / "policy.o")
    listing = subprocess.run(["nm", tmp_path / "policy.o"], check=True, capture_output=True, text=True)
    kinds = {line.split()[-2] for line in listing.stdout.splitlines()}
    assert kinds <= {"T", "t", "r", "R", "U"}, "d and b would be variables"


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_it_is_also_cpp(folder: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["c++", "-x", "c++", "-std=c++11", "-c", folder / "hover.c", "-o", tmp_path / "policy.o"], check=True
    )


class CFunctions:
    """The functions of the header, called one by one; the state is an array of its 16 numbers."""

    def __init__(self, folder: Path, build: Path, *flags: str) -> None:
        cc(*flags, "-fPIC", "-shared", folder / "hover.c", "-o", build)
        library = ctypes.CDLL(str(build))
        self.selftest = library.hover_selftest
        self.selftest.restype = ctypes.c_float
        self._library = library

    def reset(self) -> np.ndarray:
        state = np.empty(16, np.float32)
        self._library.hover_reset(state.ctypes)
        return state

    def infer(self, before: np.ndarray, after: np.ndarray, obs: np.ndarray, action: np.ndarray) -> int:
        return self._library.hover_infer(before.ctypes, after.ctypes, obs.ctypes, action.ctypes)


@pytest.mark.parametrize("flags", ["-std=c99 -O0", "-Ofast", "-O3 -ffast-math -march=native", "-Os -ffp-contract=fast"])
def test_every_optimisation_gives_the_same_bits_and_still_sees_nan(folder: Path, tmp_path: Path, flags: str) -> None:
    plain = CFunctions(folder, tmp_path / "plain.so", "-std=c99", "-O2")
    other = CFunctions(folder, tmp_path / "other.so", *flags.split())
    assert plain.selftest() == other.selftest() == 0
    state, other_state = plain.reset(), other.reset()
    action, other_action = np.empty(4, np.float32), np.empty(4, np.float32)
    for obs in flights(4, 200, 1)[:, 0]:
        assert plain.infer(state, state, obs, action) == 0
        assert other.infer(other_state, other_state, obs, other_action) == 0
        np.testing.assert_array_equal(other_action, action)
        np.testing.assert_array_equal(other_state, state)
    assert other.infer(other_state, other_state, np.full(22, np.nan, np.float32), other_action) != 0


def test_one_state_for_both_ends_is_the_same_as_two(folder: Path, tmp_path: Path) -> None:
    functions = CFunctions(folder, tmp_path / "policy.so")
    obs, action, other_action = flights(5, 1, 1)[0, 0], np.empty(4, np.float32), np.empty(4, np.float32)
    before, after, same = functions.reset(), functions.reset(), functions.reset()
    functions.infer(before, after, obs, action)
    functions.infer(same, same, obs, other_action)
    np.testing.assert_array_equal(before, functions.reset())
    np.testing.assert_array_equal(after, same)
    np.testing.assert_array_equal(action, other_action)


def test_what_is_not_finite_is_reported_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    functions = CFunctions(folder, tmp_path / "policy.so")
    good = flights(6, 1, 1)[0, 0]

    def answer(state: np.ndarray, obs: np.ndarray) -> int:
        after, action = np.full(16, 7, np.float32), np.full(4, 7, np.float32)
        code = functions.infer(state, after, obs, action)
        assert code == 0 or ((after == 7).all() and (action == 7).all())
        return code

    for bad in (np.nan, np.inf, -np.inf, 1e10):
        for index in range(22):
            assert answer(functions.reset(), np.where(np.arange(22) == index, bad, good).astype(np.float32)) == 1
        for index in range(16):
            assert answer(np.where(np.arange(16) == index, bad, 0).astype(np.float32), good) == 2

    assert answer(functions.reset(), good) == 0


@pytest.mark.parametrize("flags", ["-std=c99 -O2", "-Ofast"])
def test_its_own_functions_are_right_to_the_last_bits(folder: Path, tmp_path: Path, flags: str) -> None:
    other_policy(tmp_path / "other.onnx")
    export_c(C(tmp_path / "other.onnx", tmp_path))
    (tmp_path / "probe.c").write_text(
        '#define HOVER_IMPLEMENTATION\n#include "hover.h"\n#define OTHER_IMPLEMENTATION\n#include "other.h"\n'
        "float probe_power(float x) { float pair[2] = {x, 0.0f}; hover_powers(pair, 2, 1.0f); return pair[0]; }\n"
        "float probe_exp(float x) { return other_exp(x); }\n"
        "float probe_tanh(float x) { return other_tanh(x); }\n"
        "float probe_sigmoid(float x) { return other_sigmoid(x); }\n"
        "float probe_sqrt(float x) { return hover_sqrt(x); }\n"
    )
    cc(*flags.split(), "-fPIC", "-shared", "-I", folder, tmp_path / "probe.c", "-o", tmp_path / "probe.so")
    library = ctypes.CDLL(str(tmp_path / "probe.so"))

    def call(name: str, values: np.ndarray) -> np.ndarray:
        function = getattr(library, f"probe_{name}")
        function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
        return np.array([function(x) for x in values])

    x = np.linspace(-20, 20, 4001, dtype=np.float32).astype(float)
    np.testing.assert_allclose(call("power", x), np.exp2(x), rtol=2e-7)
    np.testing.assert_allclose(call("exp", x), np.exp(x), rtol=1.5e-6)
    np.testing.assert_allclose(call("tanh", x), np.tanh(x), atol=2e-7)
    np.testing.assert_allclose(call("sigmoid", x), 1 / (1 + np.exp(-x)), atol=1.5e-7)
    far = np.array([-3e38, -1e4, 1e4, 3e38])
    np.testing.assert_array_equal(call("tanh", far), [-1, -1, 1, 1])
    np.testing.assert_allclose(call("sigmoid", far), [0, 0, 1, 1], atol=1e-9)
    y = np.float32(np.logspace(-37, 38, 2001)).astype(float)
    np.testing.assert_allclose(call("sqrt", y), np.sqrt(y), rtol=1.2e-7)
    np.testing.assert_array_equal(call("sqrt", np.array([0, 1e-39])), [0, 0])
    assert np.isnan(call("sqrt", np.array([-1.0]))[0])
    for name, mine in (("exp", exp), ("tanh", tanh), ("sigmoid", sigmoid)):
        np.testing.assert_array_equal(np.float32(call(name, x)), mine(x.astype(np.float32)))


# On this computer


def test_a_compiled_policy_names_what_is_not_finite(folder: Path) -> None:
    policy = load_policy(folder / "hover.so")
    obs, h = flights(7, 1, 3)[0], policy.reset(3)
    with pytest.raises(PolicyError, match=r"position_error\[0\] of robot 1 is inf"):
        policy.step(np.where(np.arange(66).reshape(3, 22) == 22, np.inf, obs), h)
    with pytest.raises(PolicyError, match=r"recurrent state has shape \(2, 16\); allowed: \(3, 16\)"):
        policy.step(obs, h[:2])
    free = [*range(9, 12), *range(15, 22)]
    obs[2, free] = 3e38 * np.sign(random_weights(0)["W0"][0, free])
    with pytest.raises(PolicyError, match="answer to robot 2 is not finite"):
        policy.step(obs, h)  # finite, but beyond what the C code takes


def test_a_library_that_is_rebuilt_is_loaded_anew(tmp_path: Path) -> None:
    policies = []
    for seed in (0, 1):
        export_c(C(write(tmp_path / "policy.onnx", random_weights(seed)), tmp_path, shared=True))
        policies.append(load_policy(tmp_path / "policy.so"))
    actions = [policy.step(flights(0, 1, 1)[0], policy.reset(1))[0] for policy in policies]
    assert not np.allclose(*actions)


def test_a_library_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(PolicyError, match=r"text\.so: not a compiled policy"):
        load_policy(tmp_path / "text.so")


def test_a_missing_compiler_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -x")
    with pytest.raises(ExportError, match="there is no C compiler 'no-such-compiler'"):
        compile_policy(folder, "hover")


# Other graphs


def other_policy(path: Path, *extra: onnx.NodeProto) -> Path:
    """A policy of 6 inputs, 3 state numbers and 2 actions that uses the operators that the quadrotor's does not."""
    rng = np.random.default_rng(0)
    constants = {
        "weight": rng.normal(size=(6, 4)).astype(np.float32),
        "table": rng.normal(size=(4,)).astype(np.float32),
        "half": np.float32(0.5),
        "one": np.array([1]),
        "two": np.array([2]),
        "three": np.array([3]),
        "four": np.array([4]),
        "minus_one": np.array([-1]),
        "end": np.array([2**63 - 1]),
        "sizes": np.array([1, 3]),
        "square": np.array([0, 2, 2]),
        "row": np.array([0, -1]),
    }
    nodes = [
        ("MatMul", "obs weight", "product", {}),
        ("Add", "product table", "sum", {}),
        ("Tanh", "sum", "tanh", {}),
        ("Split", "tanh sizes", "head tail", {"axis": 1}),
        ("Sigmoid", "head", "gate", {}),
        ("Slice", "obs minus_three end one", "last", {}),
        ("Slice", "obs zero end one two", "even", {}),
        ("Div", "last gate", "ratio", {}),
        ("Min", "ratio tail even", "low", {}),
        ("Max", "low h_in", "high", {}),
        ("Greater", "high half", "greater", {}),
        ("GreaterOrEqual", "tail half", "at_least", {}),
        ("Where", "greater tail high", "chosen", {}),
        ("Where", "at_least chosen tail", "picked", {}),
        ("Mul", "picked half", "h_out", {}),
        ("Concat", "h_out head", "all", {"axis": -1}),
        ("Reshape", "all square", "matrix", {}),
        ("Reshape", "matrix row", "flat", {}),
        ("Clip", "flat  half", "clipped", {}),  # no lower bound
        ("Relu", "clipped", "relu", {}),
        ("Gather", "relu twice", "repeated", {"axis": 1}),
        ("Gemm", "repeated small", "mixed", {}),
        ("Add", "mixed relu", "both", {}),
        ("Abs", "both", "positive", {}),
        ("Gather", "positive pair", "action", {"axis": 1}),
    ]
    constants |= {"minus_three": np.array([-3]), "zero": np.array([0]), "pair": np.array([3, -3])}
    constants |= {"twice": np.array([1, 1]), "small": rng.normal(size=(2, 4)).astype(np.float32)}

    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        [helper.make_node(kind, a.split(" "), b.split(), name=b.split()[0], **more) for kind, a, b, more in nodes]
        + list(extra),
        "other",
        [value("obs", 6), value("h_in", 3)],
        [value("action", 2), value("h_out", 3)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    spec = quadrotor_spec([0.1, 0.2, 0.3], 28, TRAINING)
    action = replace(spec.action, names=("left", "right"), scale=(1.0, 1.0), offset=(0.0, 0.0))
    spec = replace(spec, robot="cart", action=action, observation=(ObservationTerm("all", 6, "m", "none"),))
    session = ReferenceEvaluator(model)
    observations = np.random.default_rng(1).normal(size=(40, 2, 6)).astype(np.float32)
    h, actions = spec.initial_state(2), []
    for obs in observations:
        answer, h = session.run(None, {"obs": obs, "h_in": h})
        actions.append(answer)
    golden = encode_golden(observations, np.stack(actions))
    helper.set_model_props(model, {"policy_spec": spec.to_json(), "golden": golden})
    onnx.save(model, path)
    return path


def test_the_other_operators_agree_with_the_onnx_file(tmp_path: Path) -> None:
    path = other_policy(tmp_path / "other.onnx")
    export_c(C(path, tmp_path, shared=True))
    cc(*STRICT, "-O2", "-c", tmp_path / "other.c", "-o", tmp_path / "other.o")
    policy, compiled = load_policy(path), load_policy(tmp_path / "other.so")
    h = h_compiled = policy.reset(5)
    for obs in np.random.default_rng(2).normal(size=(50, 5, 6)):
        action, h = policy.step(obs, h)
        answer, h_compiled = compiled.step(obs, h_compiled)
        np.testing.assert_allclose(answer, action, atol=2e-6)
        np.testing.assert_allclose(h_compiled, h, atol=2e-6)


def test_an_operator_that_is_not_translated_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["obs"], ["unused"], name="my_softmax")
    path = other_policy(tmp_path / "other.onnx", node)
    with pytest.raises(ExportError, match=r"other\.onnx: my_softmax is a Softmax; allowed: Abs, Add"):
        export_c(C(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_setting_that_is_not_translated_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["obs", "weight"], ["unused"], name="my_gemm", alpha=2.0)
    path = other_policy(tmp_path / "other.onnx", node)
    with pytest.raises(ExportError, match=r"my_gemm is a Gemm with alpha = 2\.0; allowed: 1\.0"):
        generate(path)


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.onnx", "-o", "out"], "none.onnx: no such file"),
        (["{policy}", "-o", "out", "--name", "2fast"], "name is '2fast'; allowed: letters"),
        (["{policy}", "-o", "{policy}"], "File exists"),
    ],
)
def test_the_command_fails_in_one_sentence(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(policy=folder / "hover.onnx") for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["firmware-export", "c", *filled])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_command_prints_what_it_wrote(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["firmware-export", "c", str(folder / "hover.onnx"), "-o", str(tmp_path), "--shared"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    printed = [Path(line) for line in capsys.readouterr().out.split()]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(printed)
    names = [path.name for path in printed]
    assert names[:4] == ["hover.h", "hover.c", "hover_vectors.h", "hover_batch.c"]
    assert names[-5:] == ["REPORT.md", "REPORT.json", "hover.bin", "hover.onnx", "hover.so"]


def test_a_readme_that_no_export_wrote_stays(tmp_path: Path) -> None:
    policy = write(tmp_path / "hover.onnx", random_weights(0))
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ExportError, match=r"has a README.md that no export wrote; allowed: a folder of its own"):
        export_c(C(policy, tmp_path))
    assert (tmp_path / "README.md").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "hover.onnx"]
    export_c(C(policy, tmp_path / "own"))
    export_c(C(policy, tmp_path / "own"))  # again: what an export wrote may be replaced
