"""Other networks than the quadrotor's, other precisions, and the weights as a file of their own."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_network import Node, draw, lstm_policy, normalised_policy, tracking_policy, write_network
from tiny_policy import flights, random_weights, write

from controllers.policy import load_policy
from firmware_export.cli import C, export_c
from firmware_export.exact import observations, replay
from firmware_export.graph import ExportError
from firmware_export.to_c import Source, generate, read
from firmware_export.weights import HEADER, blocks, quantised

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Werror -Wconversion -Wdouble-promotion -Wshadow".split()
NETWORKS = {"lstm": lstm_policy, "tracking": tracking_policy, "normalised": normalised_policy}


def library(source: Source, folder: Path, *flags: str) -> ctypes.CDLL:
    """The exported functions, compiled here with the strictest warnings."""
    command = ["cc", *STRICT, *(flags or ["-O2"]), "-fPIC", "-shared", folder / f"{source.name}.c"]
    subprocess.run([*command, "-o", folder / f"{source.name}_test.so", "-lm"], check=True)
    return ctypes.CDLL(str(folder / f"{source.name}_test.so"))


def in_c(source: Source, folder: Path, obs: np.ndarray, *flags: str) -> np.ndarray:
    """The actions (steps, sequences, outputs) of the compiled code."""
    code = library(source, folder, *flags)
    _, outputs, state_size = source.sizes
    actions = np.empty((*obs.shape[:2], outputs), np.float32)
    for sequence in range(obs.shape[1]):
        state = np.zeros(max(state_size, 1), np.float32)
        code[f"{source.name}_reset"](state.ctypes)
        for step in range(len(obs)):
            row, answer = np.ascontiguousarray(obs[step, sequence]), np.empty(outputs, np.float32)
            assert code[f"{source.name}_infer"](state.ctypes, state.ctypes, row.ctypes, answer.ctypes) == 0
            actions[step, sequence] = answer
    return actions


# Networks


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_c_and_reference_agree_bit_for_bit(tmp_path: Path, kind: str, dtype: str) -> None:
    path = NETWORKS[kind](tmp_path / f"{kind}.onnx")
    export_c(C(path, tmp_path, dtype=dtype))  # type: ignore[arg-type]  # one of its literals
    source = read(path, dtype=dtype)  # type: ignore[arg-type]
    obs = observations(source.golden[0], 500, 2)
    np.testing.assert_array_equal(in_c(source, tmp_path, obs), source.reference.replay(obs))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_reference_is_the_network_to_2e_6(tmp_path: Path, kind: str) -> None:
    path = NETWORKS[kind](tmp_path / f"{kind}.onnx")
    source, policy = read(path), load_policy(path)
    obs = observations(source.golden[0], 500, 2)
    ports = source.spec.recurrent.input, source.spec.recurrent.output
    exact = replay(source.program, np.array(source.spec.recurrent.initial), ports, obs)
    np.testing.assert_allclose(source.reference.replay(obs), exact, atol=2e-6)
    h = policy.reset(2)
    for row, expected in zip(obs[:100], exact, strict=False):
        action, h = policy.step(row, h)
        np.testing.assert_allclose(action, expected, atol=3e-6)


@pytest.mark.parametrize("kind", NETWORKS)
def test_with_the_c_librarys_functions_it_is_the_same_to_1e_5(tmp_path: Path, kind: str) -> None:
    path = NETWORKS[kind](tmp_path / f"{kind}.onnx")
    export_c(C(path, tmp_path, activation="libm"))
    source = read(path, activation="libm")
    obs = observations(source.golden[0], 100, 2)
    np.testing.assert_allclose(in_c(source, tmp_path, obs), source.reference.replay(obs), atol=1e-5)


def test_a_policy_without_memory_compiles_for_simulation_too(tmp_path: Path) -> None:
    path = tracking_policy(tmp_path / "tracking.onnx")
    export_c(C(path, tmp_path, shared=True))
    policy, compiled = load_policy(path), load_policy(tmp_path / "tracking.so")
    obs = np.random.default_rng(0).normal(size=(7, 154))
    expected, _ = policy.step(obs, policy.reset(7))
    np.testing.assert_allclose(compiled.step(obs, compiled.reset(7))[0], expected, atol=2e-6)


def test_every_node_that_is_not_translated_is_named(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("Softmax", "obs", "soft", {}),
        ("Exp", "soft", "power", {}),
        ("Add", "power obs", "action", {}),
        ("Identity", "h_in", "h_out", {}),
    ]
    path = write_network(tmp_path / "soft.onnx", nodes, {}, 3, 3, 1)
    with pytest.raises(ExportError, match=r"soft\.onnx: soft is a Softmax and power is a Exp; allowed: Abs, Add"):
        generate(path)


def test_what_cannot_be_proven_finite_is_checked_while_it_runs(tmp_path: Path) -> None:
    nodes: list[Node] = [("Div", "obs h_in", "action", {}), ("Identity", "h_in", "h_out", {})]
    path = write_network(tmp_path / "ratio.onnx", nodes, {}, 1, 1, 1)
    export_c(C(path, tmp_path))
    source = read(path)
    assert source.bounds.checked == {"action_0"}
    infer = library(source, tmp_path, "-Ofast")["ratio_infer"]
    for bottom, code in ((0.5, 0), (0.0, 3), (1e-20, 3)):
        state, obs, action = (np.array([x], np.float32) for x in (bottom, 1e3, 7))
        assert infer(state.ctypes, state.ctypes, obs.ctypes, action.ctypes) == code
        assert action[0] == (2e3 if code == 0 else 7)


def test_the_quadrotors_network_is_proven_finite_from_finite_inputs(tmp_path: Path) -> None:
    source = read(write(tmp_path / "quad.onnx", random_weights(0, spread=2)))
    assert source.bounds.checked == set()
    h = np.full((64, 16), 4e9, np.float32)
    obs = np.random.default_rng(0).choice(np.array([-4e9, -1, 0, 1e-30, 4e9], np.float32), size=(64, 22))
    action, after = source.reference.step(obs, h)
    assert np.isfinite(action).all() and np.isfinite(after).all()


# Precision


def test_half_floats_and_integers_are_close_and_a_fraction_of_the_size(tmp_path: Path) -> None:
    path = write(tmp_path / "quad.onnx", random_weights(0))
    full, half, whole = (read(path, dtype=dtype) for dtype in ("f32", "f16", "i8"))
    obs = flights(1, 200, 4)
    exact = full.reference.replay(obs)
    assert 0 < np.abs(half.reference.replay(obs) - exact).max() < 2e-3
    assert 0 < np.abs(whole.reference.replay(obs) - exact).max() < 5e-2
    assert len(half.weights.data) < 0.55 * len(full.weights.data)
    assert len(whole.weights.data) < 0.45 * len(full.weights.data)


def test_integers_have_a_scale_per_row_that_uses_their_whole_range() -> None:
    matrix = quantised("w", np.array([[1.0, -0.5], [0.0, 0.0], [-1e-3, 5e-4]]), "i8")
    np.testing.assert_array_equal(matrix.weight, [[127, -64], [0, 0], [-127, 64]])
    assert matrix.scale is not None
    np.testing.assert_allclose(matrix.scale, [1 / 127, 1, 1e-3 / 127], rtol=1e-6)


def test_half_floats_below_their_normal_range_are_zero() -> None:
    matrix = quantised("w", np.array([[1e-6, 7e-5, 65504.0]]), "f16")
    np.testing.assert_allclose(matrix.weight, [[0, 7e-5, 65504]], rtol=1e-3)
    with pytest.raises(ExportError, match="w holds 70000; allowed with --dtype f16: up to 65504"):
        quantised("w", np.array([[7e4]]), "f16")


def test_matrices_are_stored_in_blocks_of_rows_column_after_column() -> None:
    weight = np.arange(2 * 19).reshape(19, 2)
    stored = blocks(weight)
    np.testing.assert_array_equal(stored[:16], weight[:16, 0])
    np.testing.assert_array_equal(stored[16:32], weight[:16, 1])
    np.testing.assert_array_equal(stored[32:], [*weight[16:, 0], 0, *weight[16:, 1], 0])


# Weights as a file


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Callable[..., tuple[int, int]]]:
    """A file of weights, and the loader: code and, where it is 0, the offset of the weights in the file."""
    folder = tmp_path_factory.mktemp("blob")
    path = write(folder / "quad.onnx", random_weights(0))
    export_c(C(path, folder))
    load = library(read(path), folder)["quad_load"]

    def call(data: bytes, shift: int = 0, size: int | None = None) -> tuple[int, int]:
        room = ctypes.create_string_buffer(len(data) + 16)
        start = (ctypes.addressof(room) + 7) // 8 * 8 + shift
        ctypes.memmove(start, data, len(data))
        weights = ctypes.c_void_p(0)
        code = load(ctypes.c_void_p(start), ctypes.c_uint32(len(data) if size is None else size), ctypes.byref(weights))
        return code, (weights.value or start) - start

    return (folder / "quad.bin").read_bytes(), call


def signed(data: bytes, **words: int) -> bytes:
    """The file with words of its header replaced, and the header's CRC put right."""
    places = {"magic": 0, "version": 4, "bytes": 8, "layout": 12, "sizes": 16, "state": 20, "crc": 24}
    head = bytearray(data[: HEADER.size - 4])
    for name, word in words.items():
        head[places[name] : places[name] + 4] = struct.pack("<I", word)
    return bytes(head) + struct.pack("<I", zlib.crc32(head)) + data[HEADER.size :]


def test_a_good_file_is_used_in_place(loader: tuple[bytes, Callable]) -> None:
    data, load = loader
    assert load(data) == (0, HEADER.size)
    assert load(data, shift=4) == (0, HEADER.size)


def test_a_bad_file_is_refused_by_the_first_thing_that_is_wrong(loader: tuple[bytes, Callable]) -> None:
    data, load = loader
    assert load(data, shift=2)[0] == 6
    assert load(data[:31])[0] == load(data[:-1])[0] == load(data + b"\0")[0] == 5
    assert load(signed(data, magic=1))[0] == 7
    assert load(signed(data, version=0x00200002))[0] == 8
    assert load(data[:12] + b"\1" + data[13:])[0] == 9
    for change in ({"layout": 1}, {"sizes": 1}, {"state": 1}):
        assert load(signed(data, **change))[0] == 10
    assert load(signed(data, bytes=len(data)))[0] == 5
    assert load(signed(data, crc=1))[0] == load(data[:-1] + bytes([data[-1] ^ 1]))[0] == 11


def test_weights_of_another_policy_of_the_same_kind_fly_from_a_file(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{name}.onnx", random_weights(seed)) for seed, name in enumerate(("one", "two")))
    first, second = read(one), read(two)
    assert first.layout == second.layout and first.weights.crc != second.weights.crc
    assert first.layout != read(write(tmp_path / "big.onnx", random_weights(0, hidden=24))).layout
    assert first.layout != read(one, dtype="i8").layout
    export_c(C(one, tmp_path))
    export_c(C(two, tmp_path))
    code = library(first, tmp_path)
    data = (tmp_path / "two.bin").read_bytes()
    file = (ctypes.c_uint32 * (len(data) // 4)).from_buffer_copy(data)
    weights = ctypes.c_void_p()
    assert code["one_load"](file, len(data), ctypes.byref(weights)) == 0
    code["one_crc"].restype = ctypes.c_uint32
    assert code["one_crc"](weights) == second.weights.crc
    obs = flights(0, 50, 1)
    state, action = np.empty(16, np.float32), np.empty(4, np.float32)
    code["one_reset_with"](weights, state.ctypes)
    for row, expected in zip(obs[:, 0], second.reference.replay(obs)[:, 0], strict=True):
        assert code["one_infer_with"](weights, state.ctypes, state.ctypes, row.ctypes, action.ctypes) == 0
        np.testing.assert_array_equal(action, expected)


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    weight = draw(np.random.default_rng(0), 1, 1)
    constants = {"W": weight, "b": np.array([0.0], np.float32), "huge": np.array([[np.inf]], np.float32)}
    nodes: list[Node] = [
        ("Gemm", "obs W b", "layer", {}),
        ("Min", "layer huge", "action", {}),
        ("Identity", "h_in", "h_out", {}),
    ]
    path = write_network(tmp_path / "huge.onnx", nodes, constants, 1, 1, 1)
    with pytest.raises(ExportError, match=r"huge\.onnx: action reads the number inf; allowed: finite numbers"):
        generate(path)


def test_without_weights_of_its_own_it_still_compiles_and_is_small(tmp_path: Path) -> None:
    export_c(C(write(tmp_path / "quad.onnx", random_weights(0)), tmp_path))
    for flags in ("-std=c99", "-x c++ -std=c++11"):
        strict = STRICT if "c99" in flags else ["-Wall", "-Wextra", "-Werror"]
        command = ["cc", *strict, *flags.split(), "-O2", "-DQUAD_NO_WEIGHTS", "-c", tmp_path / "quad.c"]
        subprocess.run([*command, "-o", tmp_path / "quad.o"], check=True)
        symbols = subprocess.run(["nm", tmp_path / "quad.o"], check=True, capture_output=True, text=True).stdout
        assert "quad_infer_with" in symbols and "quad_weights_embedded" not in symbols


def test_the_metadata_says_what_the_policy_file_says(tmp_path: Path) -> None:
    path = write(tmp_path / "quad.onnx", random_weights(0))
    export_c(C(path, tmp_path))
    (tmp_path / "about.c").write_text(
        '#include <stdio.h>\n#include "quad.h"\n'
        "int main(void) {\n"
        "    const quad_info *info = quad_metadata();\n"
        '    printf("%s|%s|%s|%u|%g|%g|", info->name, info->architecture, info->dtype, (unsigned)info->parameters,\n'
        "        (double)info->native_hz, (double)info->previous_action_at_reset);\n"
        "    for (int i = 0; i < info->term_count; i++)\n"
        '        printf("%s %u %s;", info->terms[i].name, (unsigned)info->terms[i].size, info->terms[i].unit);\n'
        "    for (int i = 0; i < info->action_size; i++)\n"
        '        printf("%s %g %g;", info->outputs[i].name, (double)info->outputs[i].scale,\n'
        "            (double)info->outputs[i].offset);\n"
        "    return info->weights_crc != QUAD_WEIGHTS_CRC || quad_crc(quad_embedded()) != QUAD_WEIGHTS_CRC;\n"
        "}\n"
    )
    subprocess.run(["cc", "-std=c99", "about.c", "quad.c", "-o", "about"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "about"], check=True, capture_output=True, text=True).stdout
    spec = load_policy(path).spec
    terms = "".join(f"{term.name} {term.size} {term.unit};" for term in spec.observation)
    outputs = "".join(f"{name} 0.5 0.5;" for name in spec.action.names)
    assert printed == f"quad|22 -> dense 16 -> gru 16 -> dense 4|f32|2084|100|0|{terms}{outputs}"
