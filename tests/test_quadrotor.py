"""Laws of the quadrotor's physics, worked by hand, and its adjoint against finite differences."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import ArrayLike

from controllers.airframe import AIRFRAMES
from sim.backends.quadrotor import (
    GRAVITY,
    LANES,
    PARAMS,
    STATE,
    TIME_STEP,
    WRENCH,
    from_blocks,
    step_batch,
    step_batch_adjoint,
    to_blocks,
)
from sim.robots.quadrotors import Quadrotors, from_airframes, sample

X, Q, V, W, M = slice(0, 3), slice(3, 7), slice(7, 10), slice(10, 13), slice(13, 17)


def one(**changes) -> Quadrotors:
    """A two kilogram quadrotor without thrust at command zero."""
    return from_airframes([AIRFRAMES["x500_sim"]]).replace(**changes)


def rest(count: int = 1, **parts) -> np.ndarray:
    state = np.zeros((count, STATE))
    state[:, 3] = 1
    for name, value in parts.items():
        state[:, {"x": X, "q": Q, "v": V, "w": W, "m": M}[name]] = value
    return state


def fly(
    quads: Quadrotors, state: np.ndarray, command: ArrayLike, seconds: float, wrench: ArrayLike = 0.0
) -> np.ndarray:
    n = len(quads)
    commands = np.broadcast_to(np.asarray(command, float), (n, 4))
    x, u, w, c = (
        to_blocks(z).reshape(-1)
        for z in (state, commands, np.broadcast_to(np.asarray(wrench, float), (n, WRENCH)), quads.parameters())
    )
    after = np.zeros_like(x)
    for _ in range(round(seconds / TIME_STEP)):
        step_batch(x, u, w, c, after)
        x, after = after, x
    return from_blocks(x.reshape(-1, STATE, LANES), n).astype(float)


def test_without_thrust_it_falls_freely():
    end = fly(one(), rest(), 0.0, 1.0)[0]
    assert end[2] == pytest.approx(-GRAVITY / 2, abs=1e-4)
    assert end[9] == pytest.approx(-GRAVITY, abs=1e-4)


def test_full_thrust_accelerates_by_thrust_to_weight_less_one():
    quads = one()
    end = fly(quads, rest(m=1.0), 1.0, 0.5)[0]
    assert end[9] == pytest.approx((quads.thrust_to_weight[0] - 1) * GRAVITY * 0.5, rel=1e-4)


def test_thrust_points_along_the_body_z_axis():
    # Rolled by 90 degrees, left goes up and up goes to the right: the thrust pushes towards -y.
    quads, half = one(), np.sqrt(0.5)
    end = fly(quads, rest(q=(half, half, 0, 0), m=1.0), 1.0, 0.1)[0]
    assert end[V] == pytest.approx([0, -quads.thrust_to_weight[0] * GRAVITY * 0.1, -GRAVITY * 0.1], abs=1e-4)


def test_every_sampled_quadrotor_hovers_at_its_trim():
    quads = sample("wide", 100, 3)
    trim = quads.trim()
    end = fly(quads, rest(100, m=trim), trim, 0.5)
    # What rounding leaves grows with the authority, so the bound is loose against the gravity that it holds.
    assert np.abs(end[:, X]).max() < 2e-3
    assert np.abs(end[:, W]).max() < 2e-2


@pytest.mark.parametrize(("first", "command", "tau"), [(0.2, 0.9, 0.05), (0.9, 0.2, 0.2)])
def test_motors_follow_an_exponential_with_separate_lags(first, command, tau):
    end = fly(one(tau_rise=0.05, tau_fall=0.2), rest(m=first), command, 0.1)[0]
    assert end[M] == pytest.approx(command + (first - command) * np.exp(-0.1 / tau), abs=1e-5)


def test_torque_free_rotation_keeps_energy_and_angular_momentum():
    quads = one(inertia=(0.02, 0.025, 0.04))
    begin, inertia = rest(w=(4.0, 1.0, 2.0)), np.array([0.02, 0.025, 0.04])
    end = fly(quads, begin, 0.0, 2.0)[0]

    def momentum(state):
        w, x, y, z = state[Q]
        matrix = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return matrix @ (inertia * state[W])

    assert (inertia * end[W] ** 2).sum() == pytest.approx((inertia * begin[0, W] ** 2).sum(), rel=1e-5)
    assert momentum(end) == pytest.approx(momentum(begin[0]), rel=1e-4, abs=1e-5)
    assert np.linalg.norm(end[Q]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("faster", "axis", "sign"),
    [((2, 3), 0, 1), ((1, 2), 1, 1), ((1, 3), 2, 1), ((0, 1), 0, -1), ((0, 3), 1, -1), ((0, 2), 2, -1)],
)
def test_two_faster_motors_turn_about_one_axis(faster, axis, sign):
    """Left ones roll right (+x), back ones pitch forward (+y), those that spin against +z yaw left (+z)."""
    quads = one()
    motors = np.full(4, 0.6)
    motors[list(faster)] = 0.8
    end = fly(quads, rest(m=motors), motors, TIME_STEP)[0]
    thrust = quads.thrust_curve[0, 2] * 2 * (0.8**2 - 0.6**2)
    lever = abs(quads.rotor_positions[0, 0, 0]) if axis < 2 else quads.torque_constant[0]
    expected = np.zeros(3)
    expected[axis] = sign * lever * thrust / quads.inertia[0, axis] * TIME_STEP
    assert end[W] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_shifted_centre_of_mass_turns_equal_thrust_into_torque():
    # Centre of mass in front: the rotors are on average behind it and lift the tail.
    quads = one(center_of_mass=(0.01, 0.0, 0.0))
    end = fly(quads, rest(m=0.7), 0.7, TIME_STEP)[0]
    lift = 4 * quads.thrust_curve[0, 2] * 0.7**2
    assert end[W] == pytest.approx([0, 0.01 * lift / quads.inertia[0, 1] * TIME_STEP, 0], rel=1e-4, abs=1e-6)


def acceleration(quads: Quadrotors, motors) -> float:
    return fly(quads, rest(m=motors), motors, TIME_STEP)[0, 9] / TIME_STEP + GRAVITY


def test_commands_inside_the_dead_band_lift_nothing():
    assert acceleration(one(dead_band=0.1), 0.1) == pytest.approx(0, abs=1e-3)
    # Beyond it, the rest of the range is stretched to full thrust: (0.55 - 0.1) / 0.9 = 0.5.
    assert acceleration(one(dead_band=0.1), 0.55) == pytest.approx(acceleration(one(), 0.5), rel=1e-4)


def test_commands_above_saturation_lift_no_more():
    assert acceleration(one(saturation=0.8), 0.95) == pytest.approx(acceleration(one(), 0.8), rel=1e-4)


def test_battery_sag_takes_its_share_at_full_command_and_half_of_it_at_half():
    full, half = acceleration(one(), 1.0), acceleration(one(), 0.5)
    assert acceleration(one(battery_sag=0.2), 1.0) == pytest.approx(0.8 * full, rel=1e-4)
    assert acceleration(one(battery_sag=0.2), 0.5) == pytest.approx(0.9 * half, rel=1e-4)


def test_a_weak_motor_lifts_its_share():
    weak = one(motor_strength=(0.8, 1, 1, 1))
    assert acceleration(weak, 0.7) == pytest.approx(0.95 * acceleration(one(), 0.7), rel=1e-4)


def test_drag_slows_down_exponentially_in_the_body_frame():
    # Yawed by 90 degrees, the body's y axis points to -x of the world.
    half = np.sqrt(0.5)
    begin = rest(q=(half, 0, 0, half), v=(2.0, 1.0, 0.0))
    end = fly(one(drag=(0.5, 0.2, 0.0)), begin, 0.0, 1.0, wrench=(0, 0, GRAVITY, 0, 0, 0))[0]
    assert end[V] == pytest.approx([2 * np.exp(-0.2), 1 * np.exp(-0.5), 0], abs=1e-4)


def test_external_force_and_torque_add_their_accelerations():
    end = fly(one(), rest(), 0.0, 0.1, wrench=(1.0, -2.0, GRAVITY, 3.0, 0.0, 0.0))[0]
    assert end[V] == pytest.approx([0.1, -0.2, 0], abs=1e-5)
    assert end[W] == pytest.approx([0.3, 0, 0], abs=1e-5)


def test_the_airframe_and_the_simulator_agree_on_thrust():
    for airframe in AIRFRAMES.values():
        quads = from_airframes([airframe])
        expected = airframe.thrust(np.full(4, 0.6)).sum() / airframe.mass
        assert acceleration(quads, 0.6) == pytest.approx(expected, rel=1e-3), airframe.name


def test_adjoint_agrees_with_finite_differences():
    n, rng, step = 32, np.random.default_rng(0), 1e-6
    quads = sample("wide", n, 5)
    state = rng.normal(size=(n, STATE))
    state[:, Q] /= np.linalg.norm(state[:, Q], axis=1, keepdims=True)
    state[:, M] = rng.uniform(0.2, 0.8, (n, 4))
    command, wrench, gradient = rng.uniform(0.1, 0.9, (n, 4)), rng.normal(size=(n, WRENCH)), rng.normal(size=(n, STATE))

    def blocks(z: np.ndarray) -> np.ndarray:  # float64, in which differences are exact enough
        return np.ascontiguousarray(z.reshape(-1, LANES, z.shape[1]).transpose(0, 2, 1)).reshape(-1)

    c, w = blocks(quads.parameters()), blocks(wrench)
    assert c.size == n * PARAMS

    def after(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        out = np.zeros(n * STATE)
        step_batch(blocks(x), blocks(u), w, c, out)
        return from_blocks(out.reshape(-1, STATE, LANES), n)

    def slope(x: np.ndarray, u: np.ndarray, dx: np.ndarray, du: np.ndarray) -> np.ndarray:
        difference = after(x + step * dx, u + step * du) - after(x - step * dx, u - step * du)
        return (gradient * difference).sum(1) / (2 * step)

    gx, gu = np.zeros(n * STATE), np.zeros(n * 4)
    step_batch_adjoint(blocks(state), blocks(command), w, c, blocks(after(state, command)), blocks(gradient), gx, gu)
    gx, gu = from_blocks(gx.reshape(-1, STATE, LANES), n), from_blocks(gu.reshape(-1, 4, LANES), n)
    for channel in range(STATE):
        if Q.start <= channel < Q.stop:
            continue  # not free: below, along the sphere
        d = np.zeros((n, STATE))
        d[:, channel] = 1
        assert gx[:, channel] == pytest.approx(slope(state, command, d, 0 * command), rel=1e-4, abs=1e-5), channel
    for channel in range(4):
        d = np.zeros((n, 4))
        d[:, channel] = 1
        assert gu[:, channel] == pytest.approx(slope(state, command, 0 * state, d), rel=1e-4, abs=1e-5), channel
    for _ in range(3):
        d = np.zeros((n, STATE))
        d[:, Q] = rng.normal(size=(n, 4))
        d[:, Q] -= (d[:, Q] * state[:, Q]).sum(1, keepdims=True) * state[:, Q]
        assert (gx * d).sum(1) == pytest.approx(slope(state, command, d, 0 * command), rel=1e-4, abs=1e-4)


def test_blocks_keep_every_row_and_repeat_the_last():
    columns = np.arange(35, dtype=float).reshape(7, 5)
    blocks = to_blocks(columns)
    assert blocks.shape == (1, 5, LANES)
    assert (blocks[0, :, 7:] == columns[-1][:, None]).all()
    assert (from_blocks(blocks, 7) == columns).all()


def test_whatever_is_imported_first_kernels_are_compiled_for_the_same_processor() -> None:
    """numba reads its settings at the first compilation in a process: one that comes too early would give kernels
    other, slower machine code, and other bits than in the processes next to it."""
    code = "import {}; import sim.backends.quadrotor; from numba.core.registry import cpu_target as t; "
    code += "print(t.target_context.codegen().magic_tuple())"
    said = {
        subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True).stdout
        for first in ("sim.backends.quadrotor", "controllers.rotations", "sim.robots.g1_kinematics", "sim.bench_g1")
    }
    assert len(said) == 1
