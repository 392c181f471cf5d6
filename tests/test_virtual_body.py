"""The body of the virtual G1: the motors' law and limits, the gantry, the sensors, the view."""

from __future__ import annotations

import dataclasses
import time

import mujoco
import numpy as np
import pytest
from g1_commands import holding

from controllers.g1 import revision
from controllers.rotations import from_axis_angle, to_matrix
from deploy.unitree_hg import IMU_STATE, MOTOR_COMMAND, SLOTS, new_state
from deploy.virtual_body import Body, BodySettings, slots_of
from deploy.virtual_console import Viewer
from sim.robots.g1 import sole_heights

G1 = revision("g1_29dof")
KNEE = G1.joint_names.index("left_knee_joint")
STATE_HZ = 500.0


def body(**changes: float) -> Body:
    return Body(G1, dataclasses.replace(BodySettings(physics_hz=500.0), **changes), STATE_HZ, lift=0.05)


def motors(**values: float) -> np.ndarray:
    """Commands of the same values for all 29 motors, enabled."""
    rows = np.zeros(SLOTS, MOTOR_COMMAND)
    rows["mode"][:29] = 1
    for name, value in values.items():
        rows[name][:29] = value
    return rows


def test_torque_is_the_published_law_of_the_motors_at_every_physics_step() -> None:
    robot = body(full_torque_speed=0.99)
    for step in range(50):
        q, dq = robot.data.qpos[7:].copy(), robot.data.qvel[6:].copy()
        robot.command(motors(q=0.1, dq=0.2, tau=0.3, kp=8.0, kd=0.5))
        robot.advance()
        # The damping is integrated implicitly, so the torque is that of the state before the step.
        expected = np.float32(0.3) + 8.0 * (np.float32(0.1) - q) + 0.5 * (np.float32(0.2) - dq)
        np.testing.assert_allclose(robot.data.actuator_force, expected, atol=1e-6, err_msg=f"step {step}")


def test_torque_ends_at_the_motors_limit() -> None:
    robot = body()
    robot.command(motors(tau=1e4))
    robot.advance()
    np.testing.assert_allclose(robot.data.actuator_force, G1.torque_limit)


@pytest.mark.parametrize(("speed", "share"), [(0.0, 1.0), (0.8, 1.0), (0.9, 0.5), (1.0, 0.0), (1.2, 0.0), (-1.2, 1.0)])
def test_a_motor_loses_torque_towards_its_speed_limit_but_brakes_with_all(speed: float, share: float) -> None:
    robot = body()
    robot.data.qvel[6 + KNEE] = speed * G1.speed_limit[KNEE]
    robot.command(motors(tau=1e4))
    robot.advance()
    assert robot.data.actuator_force[KNEE] == pytest.approx(share * G1.torque_limit[KNEE], abs=1e-9)


def test_motors_that_are_not_enabled_give_no_torque() -> None:
    robot, rows, state = body(), motors(tau=5.0), new_state()
    rows["mode"][KNEE] = 0
    robot.command(rows)
    robot.advance()
    robot.sense(state, np.zeros((), IMU_STATE))
    assert robot.data.actuator_force[KNEE] == 0.0
    assert state["motor_state"]["mode"][KNEE] == 0
    assert np.count_nonzero(robot.data.actuator_force) == 28
    assert state["motor_state"]["tau_est"][KNEE + 1] == 5.0


def test_the_gantry_hangs_lowers_and_lets_go() -> None:
    robot = body()
    robot.command(holding()["motor_cmd"])

    def settle(seconds: float) -> float:
        """Height of the lowest sole."""
        for _ in range(round(seconds * STATE_HZ)):
            robot.advance()
        return float(sole_heights(robot.model, robot.data).min())

    assert settle(2.0) == pytest.approx(0.05, abs=0.02)
    assert robot.taut
    robot.hang(0.2)
    assert settle(2.0) == pytest.approx(0.2, abs=0.02)
    robot.hang(-0.2)
    assert settle(0.3) < 0.15
    robot.release()
    settle(3.0)
    assert not robot.taut
    assert robot.data.qpos[2] < 0.3, "it cannot balance by holding a pose"


def test_a_hanging_robot_measures_gravity_and_its_torso_as_its_waist_says() -> None:
    robot, state, torso = body(), new_state(), np.zeros((), IMU_STATE)
    rows = holding()["motor_cmd"]
    rows["q"][12:15] = 0.3, 0.2, 0.4
    robot.command(rows)
    forces = []
    for _ in range(1500):
        robot.advance()
        robot.sense(state, torso)
        pelvis = to_matrix(state["imu_state"]["quaternion"].astype(float))
        forces.append(pelvis @ state["imu_state"]["accelerometer"])
    np.testing.assert_allclose(np.mean(forces[-500:], axis=0), [0, 0, 9.81], atol=0.05)
    yaw, roll, pitch = state["motor_state"]["q"][12:15].astype(float)
    waist = [
        to_matrix(from_axis_angle(axis, angle))
        for angle, axis in ((yaw, (0, 0, 1)), (roll, (1, 0, 0)), (pitch, (0, 1, 0)))
    ]
    expected = pelvis @ waist[0] @ waist[1] @ waist[2]
    np.testing.assert_allclose(to_matrix(torso["quaternion"].astype(float)), expected, atol=1e-5)


def test_a_robot_without_wrists_keeps_the_slots_of_the_full_one() -> None:
    assert slots_of(revision("g1_23dof")).tolist() == [*range(19), 22, 23, 24, 25]
    assert slots_of(G1).tolist() == list(range(29))


def test_physics_must_divide_the_period() -> None:
    with pytest.raises(ValueError, match="physics at 750 Hz; allowed: a multiple of 500"):
        body(physics_hz=750.0)


def test_the_viewer_shows_where_the_bodies_are() -> None:
    pytest.importorskip("viser", minversion="1.0", reason="the viewer is not installed (extra [view])")
    robot = body()
    viewer = Viewer(robot.model, port=0)
    try:
        robot.data.qpos[:3] = 1.0, 2.0, 3.0
        mujoco.mj_kinematics(robot.model, robot.data)
        viewer.show(robot.data)
        pelvis = viewer.bodies[robot.model.body("pelvis").id]
        end = time.monotonic() + 5.0
        while not np.allclose(pelvis.position, (1.0, 2.0, 3.0)) and time.monotonic() < end:
            time.sleep(0.01)
        np.testing.assert_allclose(pelvis.position, (1.0, 2.0, 3.0))
    finally:
        viewer.close()
