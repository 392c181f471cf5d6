"""Two engines, one robot: laws that each must keep, and how far MuJoCo and Genesis agree when it is dropped, held and
swung.

Figures of the comparison, measured with MuJoCo 4.0.0 and Genesis 1.4.5 in double precision, stand beside each test;
what the test allows is some times that."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from controllers.g1 import gains, revision
from sim.backends import genesis_engine
from sim.backends.engine import Engine, EngineName, make_engine
from sim.backends.mujoco_cpu import MujocoCpu, with_pairs
from sim.randomize import NONE, Spread, Worlds, sample
from sim.robots.g1 import build_model, build_spec, standing

Array = NDArray[np.floating]

COUNT, STEP, SUBSTEPS = 4, 0.005, 4
ROBOT = revision("g1_29dof")
GAINS = gains(ROBOT, "reflected")
MODEL = build_model(ROBOT, stiffness=GAINS[0], damping=GAINS[1], timestep=STEP, scenery=False)
EVERYONE = np.arange(COUNT)
GRAVITY = -MODEL.opt.gravity[2]
STANDING = standing(MODEL, ROBOT)
STANDING[2] -= 1e-4  # touching: whether soles at exactly zero touch is a matter of rounding
POSE = STANDING[7:].copy()
ALOFT = STANDING + np.r_[0, 0, 2.0, np.zeros(MODEL.nq - 3)]
ARMS = [ROBOT.joint_names.index(f"{side}_shoulder_roll_joint") for side in ("left", "right")]
ALOFT[7:][ARMS] += [0.5, -0.5]  # away from the torso, so that they can swing freely
SPREAD = ALOFT[7:]

has_genesis = importlib.util.find_spec("genesis") is not None
needs_genesis = pytest.mark.skipif(not has_genesis, reason="Genesis is not installed: pip install 'realign[genesis]'")


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """One of each that is installed: Genesis takes a while to build."""
    names: list[EngineName] = ["mujoco", "genesis"] if has_genesis else ["mujoco"]
    made = {name: make_engine(name, ROBOT, COUNT, *GAINS, STEP, SUBSTEPS) for name in names}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(params=["mujoco", pytest.param("genesis", marks=needs_genesis)])
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """Each of them, with the robot on paper."""
    chosen = engines[request.param]
    chosen.vary(EVERYONE, worlds())
    return chosen


def worlds(spread: Spread = NONE, seed: int = 0, **changes: Array) -> Worlds:
    return dataclasses.replace(sample(np.random.default_rng(seed), COUNT, ROBOT, spread), **changes)


def factor(value: float) -> Array:
    """For every joint of every robot."""
    return np.full((COUNT, len(ROBOT.joints)), value)


def place(engine: Engine, qpos: Array, qvel: Array | None = None) -> None:
    still = np.zeros((COUNT, MODEL.nv))
    engine.set_state(EVERYONE, np.broadcast_to(qpos, (COUNT, MODEL.nq)), still if qvel is None else still + qvel)


def targets(angles: Array) -> Array:
    """The same for all robots and physics steps, (COUNT, SUBSTEPS, joints)."""
    return np.broadcast_to(angles, (COUNT, SUBSTEPS, len(ROBOT.joints)))


def fly(engine: Engine, steps: int, angles: Array = POSE) -> tuple[Array, Array]:
    """States after each physics step, (COUNT, steps * SUBSTEPS, nq) and (.., nv)."""
    qpos, qvel = [], []
    for _ in range(steps):
        engine.step(targets(angles))
        qpos.append(engine.qpos_path.copy())
        qvel.append(engine.qvel_path.copy())
    return np.concatenate(qpos, axis=1), np.concatenate(qvel, axis=1)


def swing(seed: int, size: float = 0.1) -> tuple[Array, Array]:
    """Velocities and changes of the targets, at random, that move every joint but bring no limbs together."""
    rng = np.random.default_rng(seed)
    return size * rng.normal(size=(COUNT, MODEL.nv)), size * rng.normal(size=(SUBSTEPS, len(POSE)))


def solo(qpos: Array, qvel: Array) -> mujoco.MjData:
    """That state of the robot on paper, with everything computed from it."""
    data = mujoco.MjData(MODEL)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(MODEL, data)
    return data


# What each engine must do


def test_a_robot_in_free_fall_falls_as_computed_by_hand(engine: Engine) -> None:
    place(engine, ALOFT)
    qpos, qvel = fly(engine, 5, SPREAD)
    n = np.arange(1, 5 * SUBSTEPS + 1)  # velocity first, then position: g h^2 (1 + 2 + .. + n)
    np.testing.assert_allclose(ALOFT[2] - qpos[0, :, 2], GRAVITY * STEP**2 * n * (n + 1) / 2, atol=1e-9)
    np.testing.assert_allclose(qvel[0, :, 2], -GRAVITY * STEP * n, atol=1e-9)
    np.testing.assert_allclose(qpos[0, :, 7:], np.broadcast_to(SPREAD, (20, 29)), atol=1e-9)


def test_root_velocities_are_linear_in_the_world_and_angular_in_the_body(engine: Engine) -> None:
    """A robot that lies on its side turns about its own x axis, which points along the world's y."""
    qpos = ALOFT.copy()
    qpos[3:7] = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    place(engine, qpos, np.r_[0.3, 0, 0, 0.5, 0, 0, np.zeros(29)])
    engine.step(targets(SPREAD))
    time = STEP * SUBSTEPS
    data = solo(engine.qpos[0], engine.qvel[0])
    found = data.body("pelvis").xmat.reshape(3, 3) @ solo(qpos, np.zeros(35)).body("pelvis").xmat.reshape(3, 3).T
    np.testing.assert_allclose([found[0, 2], found[2, 0]], np.sin(0.5 * time) * np.array([1, -1]), rtol=0.05)
    assert engine.qpos[0, 0] == pytest.approx(0.3 * time, rel=0.05)


def test_a_flying_robot_keeps_its_angular_momentum_and_gains_that_of_gravity(engine: Engine) -> None:
    """Whatever the servos do: kicks of 0.1 rad over half a second change it by no more than the time step's error."""
    place(engine, ALOFT, swing(1)[0])

    def momentum() -> tuple[Array, Array]:
        data = solo(engine.qpos[0], engine.qvel[0])
        mujoco.mj_subtreeVel(MODEL, data)
        return data.subtree_linvel[1] * MODEL.body_subtreemass[1], data.subtree_angmom[1].copy()

    linear, angular = momentum()
    fly(engine, 25, SPREAD + swing(1)[1])
    linear_later, angular_later = momentum()
    falling = [0, 0, -GRAVITY * 0.5 * ROBOT.mass]
    np.testing.assert_allclose(linear_later - linear, falling, atol=0.01 * ROBOT.mass * GRAVITY * 0.5)
    np.testing.assert_allclose(angular_later, angular, atol=0.05)


def by_hand(wanted: Array, hold: bool) -> tuple[Array, Array]:
    """From rest aloft: (M + h D) a = torque - bias, with the torque computed anew at each physics step and its damping
    D implicit; or the torque of the control step's start; or that of the limit. What is held or cut has no D.

    The mass matrix M and the bias are MuJoCo's. Returns states after each physics step, (SUBSTEPS, nq) and (.., nv)."""
    stiffness, damping = GAINS
    qpos, qvel, path = ALOFT.copy(), np.zeros(MODEL.nv), []
    held = stiffness * (wanted[0] - qpos[7:])
    for target in wanted:
        data, mass = solo(qpos, qvel), np.zeros((MODEL.nv, MODEL.nv))
        torque = held if hold else stiffness * (target - qpos[7:]) - damping * qvel[6:]
        drag = np.where((np.abs(torque) < ROBOT.torque_limit) & (not hold), damping, 0.0)
        mujoco.mj_fullM(MODEL, data, mass)
        mass[range(6, MODEL.nv), range(6, MODEL.nv)] += STEP * drag
        force = np.r_[np.zeros(6), np.clip(torque, -ROBOT.torque_limit, ROBOT.torque_limit)] - data.qfrc_bias
        qvel = qvel + STEP * np.linalg.solve(mass, force)
        mujoco.mj_integratePos(MODEL, qpos, qvel, STEP)
        path.append((qpos.copy(), qvel))
    return np.array([q for q, _ in path]), np.array([v for _, v in path])


@pytest.mark.parametrize("reach", [0.3, 5.0], ids=["within their limits", "at their limits"])
@pytest.mark.parametrize("hold", [False, True], ids=["at each physics step", "held"])
def test_servos_act_as_computed_by_hand(engine: Engine, hold: bool, reach: float) -> None:
    """Two wrists are told to move: one at once, one two physics steps late, as delays make it."""
    left, right = (ROBOT.joint_names.index(f"{side}_wrist_yaw_joint") for side in ("left", "right"))
    wanted = np.tile(SPREAD, (SUBSTEPS, 1))
    wanted[:, left] += reach
    wanted[2:, right] += reach
    engine.vary(EVERYONE, worlds(hold=np.full(COUNT, hold)))
    place(engine, ALOFT)
    engine.step(np.tile(wanted, (COUNT, 1, 1)))
    qpos, qvel = by_hand(wanted, hold)
    np.testing.assert_allclose(engine.qpos_path[0], qpos, atol=1e-8)
    np.testing.assert_allclose(engine.qvel_path[0], qvel, atol=1e-6)
    otherwise, _ = by_hand(wanted, not hold)
    assert np.abs(qpos[-1, 7 + left] - otherwise[-1, 7 + left]) > 0.005  # so the test tells them apart
    assert (qpos[-1, 7 + right] > SPREAD[right] + 0.01) == (not hold)


def test_equal_runs_are_equal_to_the_bit(engine: Engine) -> None:
    def run() -> tuple[Array, Array]:
        engine.vary(EVERYONE, worlds(Spread(), 3))
        place(engine, STANDING, swing(3)[0])
        return fly(engine, 10, POSE + swing(3)[1])

    for first, second in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_step_depends_on_state_and_targets_alone(engine: Engine) -> None:
    place(engine, STANDING, swing(4)[0])
    fly(engine, 5, POSE + swing(4)[1])
    qpos, qvel = engine.qpos.copy(), engine.qvel.copy()
    engine.step(targets(POSE))
    expected = engine.qpos_path.copy()
    place(engine, ALOFT)  # another life
    fly(engine, 2)
    engine.set_state(EVERYONE, qpos, qvel)
    engine.step(targets(POSE))
    np.testing.assert_array_equal(engine.qpos_path, expected)


def test_a_new_state_is_that_robots_alone_and_its_path_is_at_rest_in_time(engine: Engine) -> None:
    place(engine, STANDING)
    fly(engine, 2)
    before, path = engine.qpos.copy(), engine.qpos_path.copy()
    np.testing.assert_array_equal(path[:, -1], before)
    assert (np.diff(path[:, :, 2], axis=1) != 0).all()
    engine.set_state(np.array([2]), ALOFT[None], np.ones((1, MODEL.nv)))
    np.testing.assert_array_equal(np.delete(engine.qpos, 2, axis=0), np.delete(before, 2, axis=0))
    np.testing.assert_array_equal(np.delete(engine.qpos_path, 2, axis=0), np.delete(path, 2, axis=0))
    np.testing.assert_array_equal(engine.qpos_path[2], np.broadcast_to(ALOFT, (SUBSTEPS, MODEL.nq)))
    np.testing.assert_array_equal(engine.qvel_path[2], np.ones((SUBSTEPS, MODEL.nv)))


@pytest.mark.parametrize("cause", ["a state that is no number", "a speed beyond all numbers"])
def test_a_state_that_is_not_finite_stays_so_and_spoils_no_other(engine: Engine, cause: str) -> None:
    place(engine, STANDING)
    fly(engine, 3)
    clean = engine.qpos.copy()

    place(engine, STANDING)
    qpos, qvel = STANDING[None].copy(), np.zeros((1, MODEL.nv))
    if cause == "a state that is no number":
        qpos[0, 9] = np.nan
    else:
        qvel[0, 8] = 1e250
    engine.set_state(np.array([1]), qpos, qvel)
    fly(engine, 3)
    assert not np.isfinite(engine.qpos[1]).all()
    np.testing.assert_array_equal(np.delete(engine.qpos, 1, axis=0), np.delete(clean, 1, axis=0))

    place(engine, STANDING)  # and it can begin anew
    fly(engine, 3)
    np.testing.assert_array_equal(engine.qpos, clean)


# What varies


def rigid(**changes: Array) -> Worlds:
    """Servos ten times as stiff: the robot stands by itself."""
    return dataclasses.replace(worlds(), stiffness=factor(10.0), damping=factor(3.2), **changes)


def test_a_heavier_robot_stands_lower_and_a_limp_one_falls(engine: Engine) -> None:
    mass, limit = np.ones((COUNT, len(ROBOT.bodies))), factor(1.0)
    payload = np.array([0.0, 20.0, 0.0, 0.0])
    mass[2] = 1.5
    limit[3] = 0.05
    engine.vary(EVERYONE, rigid(mass=mass, payload=payload, torque_limit=limit))
    place(engine, STANDING)
    fly(engine, 50)
    height = engine.qpos[:, 2] - STANDING[2]
    assert height[0] == pytest.approx(0, abs=0.01)
    assert height[1] < height[0] - 0.001
    assert height[2] < height[0] - 0.001
    assert height[3] < -0.2


def test_a_shifted_center_of_mass_leans_the_robot_its_way(engine: Engine) -> None:
    shift = np.zeros((COUNT, 3))
    shift[1, 0], shift[2, 0] = 0.05, -0.05
    engine.vary(EVERYONE, rigid(center_of_mass=shift))
    place(engine, STANDING)
    fly(engine, 25)
    assert engine.qpos[1, 0] > engine.qpos[0, 0] + 0.001 > engine.qpos[2, 0] + 0.002


def test_a_robot_on_ice_slides_as_computed_by_hand_and_one_on_rubber_stops(engine: Engine) -> None:
    friction, speed, time = np.array([0.05, 1.0, 0.1, 1.0]), 0.5, 0.3
    engine.vary(EVERYONE, rigid(friction=friction))
    place(engine, STANDING, np.r_[0, speed, np.zeros(33)])
    fly(engine, round(time / STEP / SUBSTEPS))
    center = [solo(engine.qpos[row], engine.qvel[row]).subtree_com[1, 1] for row in range(3)]
    slid = np.array(center) - solo(STANDING, np.zeros(MODEL.nv)).subtree_com[1, 1]
    by_hand = speed * time - friction[:3] * GRAVITY * time**2 / 2  # v t - mu g t^2 / 2
    assert slid[[0, 2]] == pytest.approx(by_hand[[0, 2]], rel=0.05)
    feet = [
        solo(state, np.zeros(MODEL.nv)).body("left_ankle_roll_link").xpos[1] for state in (STANDING, *engine.qpos[:3])
    ]
    assert feet[2] - feet[0] < 0.02  # and there it tips over
    assert feet[1] - feet[0] > feet[3] - feet[0] > 0.08


def test_joint_friction_holds_a_limp_arm_and_armature_slows_it(engine: Engine) -> None:
    friction, armature = factor(0.0), factor(1.0)
    friction[1], armature[2] = 10.0, 20.0
    arm = ROBOT.joint_names.index("left_shoulder_pitch_joint")
    engine.vary(EVERYONE, worlds(stiffness=factor(0), damping=factor(0), joint_friction=friction, armature=armature))
    qvel = np.zeros(MODEL.nv)
    qvel[6 + arm] = 1.0
    place(engine, ALOFT, qvel)
    engine.step(targets(POSE))
    speed = engine.qvel[:, 6 + arm]
    assert abs(speed[1]) < 0.2 < 0.5 < speed[0]
    assert speed[3] == speed[0] != speed[2]


def test_one_robots_changes_are_no_others(engine: Engine) -> None:
    place(engine, STANDING)
    fly(engine, 5)
    plain = engine.qpos.copy()
    varied = worlds(Spread(smooth=0.0), 5)
    engine.vary(np.array([2]), varied.rows(np.array([2])))
    place(engine, STANDING)
    fly(engine, 5)
    np.testing.assert_array_equal(np.delete(engine.qpos, 2, axis=0), np.delete(plain, 2, axis=0))
    assert np.abs(engine.qpos[2] - plain[2]).max() > 1e-4
    engine.vary(EVERYONE, worlds())  # changes are from the robot on paper, not from the last ones
    place(engine, STANDING)
    fly(engine, 5)
    np.testing.assert_array_equal(engine.qpos, plain)


def test_mujoco_gives_the_same_bits_on_one_thread_and_on_two() -> None:
    found = []
    for threads in (1, 2):
        engine = MujocoCpu(ROBOT, COUNT, *GAINS, STEP, SUBSTEPS, threads=threads)
        engine.vary(EVERYONE, worlds(Spread(hold=0.5), 6))
        place(engine, STANDING, swing(6)[0])
        found.append(fly(engine, 30, POSE + swing(6)[1]))
        engine.close()
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_listed_pairs_are_the_contacts_that_mujoco_finds() -> None:
    """A robot thrown to the floor with its limbs in each other comes to the same states, bit for bit."""
    spec = build_spec(ROBOT, stiffness=GAINS[0], damping=GAINS[1], timestep=STEP, scenery=False)
    models, rng = (MODEL, with_pairs(spec)), np.random.default_rng(3)
    low, touching = ALOFT - np.r_[0, 0, 2.2, np.zeros(MODEL.nq - 3)], set()
    for _ in range(COUNT):
        joints, speeds, targets = (rng.uniform(-1, 1, shape) for shape in (len(POSE), MODEL.nv, (40, len(POSE))))
        found = []
        for model in models:
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:] = low + np.r_[np.zeros(7), joints], 2 * speeds
            for target in targets:
                data.ctrl[:] = target
                mujoco.mj_step(model, data)
                touching |= {0 in model.geom_bodyid[contact.geom] for contact in data.contact}
            found.append(data.qpos)
        np.testing.assert_array_equal(*found)
    assert touching == {True, False}  # the floor, and each other


# How far they agree


@needs_genesis
class TestAgreement:
    """Largest difference of any coordinate of any robot, in metres and radians, at any physics step."""

    @staticmethod
    def compare(
        engines: dict[str, Engine], varied: Worlds, qpos: Array, qvel: Array | None, steps: int, angles: Array = POSE
    ) -> tuple[Array, Array]:
        """Paths in both, (2, COUNT, time, nq) and (2, COUNT, time, nv)."""
        found = []
        for engine in engines.values():
            engine.vary(EVERYONE, varied)
            place(engine, qpos, qvel)
            found.append(fly(engine, steps, angles))
        return np.stack([run[0] for run in found]), np.stack([run[1] for run in found])

    def test_the_same_shapes_may_touch(self, engines: dict[str, Engine]) -> None:
        genesis = engines["genesis"]
        assert isinstance(genesis, genesis_engine.GenesisEngine)
        excluded = {int(signature) for signature in MODEL.exclude_signature}

        def may_touch(first: int, second: int) -> bool:
            bodies = sorted(MODEL.geom_bodyid[[first, second]])
            bits = [(MODEL.geom_contype[a] & MODEL.geom_conaffinity[b]) for a, b in ((first, second), (second, first))]
            parents = MODEL.body_parentid[bodies]
            related = bodies[0] == bodies[1] or (bodies[0] != 0 and parents[1] == bodies[0])
            return bool(any(bits)) and not related and (int(bodies[0]) << 16) + int(bodies[1]) not in excluded

        pairs = ((a, b) for a in range(MODEL.ngeom) for b in range(a + 1, MODEL.ngeom) if may_touch(a, b))
        expected = {frozenset((MODEL.geom(a).name, MODEL.geom(b).name)) for a, b in pairs}
        assert genesis.touching_pairs() == expected
        assert len(expected) == 225

    def test_swung_in_the_air(self, engines: dict[str, Engine]) -> None:
        """2e-11 after half a second, in four worlds that differ in everything but joint friction."""
        varied = worlds(dataclasses.replace(Spread(), hold=0.0, smooth=1.0), 7)
        qpos, qvel = self.compare(engines, varied, ALOFT, swing(7)[0], 25, SPREAD + swing(7)[1])
        assert np.ptp(qpos[0, :, :, 7:], axis=1).max() > 0.1
        assert np.abs(qpos[0] - qpos[1]).max() < 1e-8
        energy = [[solo(*state).energy[1] for state in zip(qpos[e, 0], qvel[e, 0], strict=True)] for e in (0, 1)]
        np.testing.assert_allclose(energy[0], energy[1], rtol=1e-6)

    def test_swung_with_joint_friction(self, engines: dict[str, Engine]) -> None:
        """4e-11."""
        varied = worlds(dataclasses.replace(Spread(), smooth=0.0), 8)
        qpos, _ = self.compare(engines, varied, ALOFT, swing(8)[0], 25, SPREAD + swing(8)[1])
        assert np.abs(qpos[0] - qpos[1]).max() < 1e-8

    def test_held_for_a_second(self, engines: dict[str, Engine]) -> None:
        """2e-7; in both the robot sinks by 3.2 mm."""
        qpos, _ = self.compare(engines, rigid(), STANDING, None, 50)
        assert qpos[:, :, -1, 2] == pytest.approx(STANDING[2], abs=0.01)
        assert np.abs(qpos[0] - qpos[1]).max() < 1e-5

    def test_dropped_onto_its_feet(self, engines: dict[str, Engine]) -> None:
        """From 30 cm, 0.8 s: 4e-8."""
        from_above = STANDING + np.r_[0, 0, 0.3, np.zeros(33)]
        qpos, _ = self.compare(engines, rigid(), from_above, None, 40)
        assert np.abs(qpos[0] - qpos[1]).max() < 1e-5

    def test_a_foot_that_comes_down_fast_does_not_pass_the_floor(self, engines: dict[str, Engine]) -> None:
        """At 12 m/s, in one physics step six times the diameter of the spheres under its feet: 1e-7."""
        above = STANDING + np.r_[0, 0, 0.02, np.zeros(33)]
        qpos, _ = self.compare(engines, rigid(), above, np.r_[0, 0, -12.0, np.zeros(32)], 5)
        assert np.abs(qpos[0] - qpos[1]).max() < 1e-5
        soles = [[solo(qpos[e, 0, t], np.zeros(35)).geom("left_sole_0").xpos[2] for t in (2, -1)] for e in (0, 1)]
        assert np.max(soles, axis=0)[0] < -0.05  # deep under the floor
        assert np.min(soles, axis=0)[1] > -0.01  # and up again

    def test_fallen_to_the_floor(self, engines: dict[str, Engine]) -> None:
        """8e-10 until limbs meet after half a second; then up to 0.26 rad in a joint, and 1 mm in height at the end."""
        qpos, _ = self.compare(engines, worlds(), STANDING, np.r_[0.8, np.zeros(34)], 100)
        assert np.abs(qpos[0, :, :100] - qpos[1, :, :100]).max() < 1e-6
        assert (qpos[:, :, -1, 2] < 0.2).all()
        assert (qpos[:, :, -1, 2] > 0.05).all()
        assert qpos[0, :, -1, 2] == pytest.approx(qpos[1, :, -1, 2], abs=0.02)


# What is refused


def test_an_engine_or_device_that_is_not_there_is_refused(engines: dict[str, Engine]) -> None:
    with pytest.raises(ValueError, match="engine 'bullet' is not known; allowed: mujoco, genesis"):
        make_engine("bullet", ROBOT, 1, *GAINS, STEP, SUBSTEPS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="engine mujoco on 'cuda'; allowed: cpu"):
        make_engine("mujoco", ROBOT, 1, *GAINS, STEP, SUBSTEPS, device="cuda")
    with pytest.raises(ValueError, match="engine genesis on 'gpu'; allowed: cpu, cuda, amdgpu"):
        make_engine("genesis", ROBOT, 1, *GAINS, STEP, SUBSTEPS, device="gpu")


@pytest.mark.skipif(has_genesis, reason="Genesis is installed")
def test_without_genesis_it_is_said_how_to_get_it() -> None:
    with pytest.raises(ValueError, match=r"engine genesis: No module named 'genesis'.*realign\[genesis\]"):
        make_engine("genesis", ROBOT, 1, *GAINS, STEP, SUBSTEPS)


@needs_genesis
def test_genesis_refuses_what_it_would_change_in_silence(engines: dict[str, Engine]) -> None:
    with pytest.raises(ValueError, match=r"friction of 0.005 in Genesis; allowed: 0.01 and more"):
        engines["genesis"].vary(EVERYONE, worlds(friction=np.full(COUNT, 0.005)))
    with pytest.raises(ValueError, match="on 'cuda' with 64 bits; allowed in this process: 'cpu' with 64 bits"):
        make_engine("genesis", ROBOT, 1, *GAINS, STEP, SUBSTEPS, device="cuda")
