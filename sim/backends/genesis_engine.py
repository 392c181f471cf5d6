"""Many G1s in Genesis: the second engine, with collision detection, constraint solver and integrator of its own.

It reads our MJCF, not our URDF. URDF has no armature, gains, capsules or pairs that may not touch, and a robot from it
stands on a floor that is another entity, which the foot's capsule would touch beside its four spheres. From MJCF it is
the same robot to the last digit: bodies, armature, servos, torque limits and the 225 pairs of shapes that may touch.

The servos are Genesis' own, which evaluates them at every physics step, with their damping implicit, as MuJoCo does. As
in `mujoco_cpu` a step is a function of state and targets alone: the solver starts anew at each control step.

Code and collision detection are another's; the equations of contact are MuJoCo's, with the same parameters. So swung,
held or dropped onto its feet the robot moves as in MuJoCo to 1e-7 or better (`tests/test_engines.py`). They part where
limbs meet: nearly parallel capsules have up to four points of contact here and one in MuJoCo, and a capsule flat on the
floor may have one point here and two there. A policy that does well in both is not fitted to one code; how it fares on
another floor is a matter of varied worlds.

Genesis belongs to the whole process: the first engine settles where it computes and in which precision. On a processor
it uses one thread, unless the environment variable QD_NUM_THREADS says otherwise before it starts. The first engine on
a machine compiles for a minute or two; later ones take that from a cache in the user's home.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1
from sim.randomize import NONE, Worlds, sample
from sim.robots.g1 import FRICTION, build_model, build_spec, to_mjcf

Array = NDArray[np.floating]
DEVICES = ("cpu", "cuda", "amdgpu")
Precision = Literal["32", "64"]

TORSO = "torso_link"
FLOOR_DEPTH = 1.0  # [m]; how far under the floor a shape is still pushed out
PARKED = 10.0  # [m]; where a robot whose state is not finite waits unseen
LEAST_FRICTION = 0.01  # Genesis takes this for anything below (`collider/contact.py`)

_running: tuple[str, str] | None = None  # what this process' Genesis was started with


class GenesisEngine:
    """See `sim.backends.engine.Engine`."""

    qpos: Array
    qvel: Array
    qpos_path: Array
    qvel_path: Array

    def __init__(
        self,
        robot: G1,
        count: int,
        stiffness: Array,
        damping: Array,
        physics_step: float = 0.005,
        substeps: int = 4,
        device: str = "cpu",
        precision: Precision = "64",
    ) -> None:
        """
        Args:
            robot: The revision.
            count: N.
            stiffness: Of the joint controllers [Nm/rad], (joints,).
            damping: Of the joint controllers [Nm s/rad], (joints,).
            physics_step: [s]
            substeps: Physics steps per control step.
            device: Where to compute: `cpu`, `cuda` or `amdgpu`; it is an error if that is not there.
            precision: Bits of its numbers. 64 costs nothing on a processor; a graphics card may be faster with 32.

        Raises:
            ValueError: Genesis is not installed, the device is not there, or another one is in use already.
        """
        self.robot, self.count, self.physics_step, self.substeps = robot, count, physics_step, substeps
        gains = {"stiffness": stiffness, "damping": damping, "timestep": physics_step, "scenery": False}
        self._nominal = model = build_model(robot, **gains)
        genesis = _start(device, precision)
        self._torch: Any = importlib.import_module("torch")
        self._real: Any = {"dtype": genesis.tc_float, "device": genesis.device}
        pairs = (model.ngeom * (model.ngeom - 1)) // 2  # room for all, so that contacts never run out of it
        self._scene = genesis.Scene(
            sim_options=genesis.options.SimOptions(dt=physics_step, substeps=1),
            rigid_options=genesis.options.RigidOptions(
                batch_links_info=True,  # every robot has masses and joints of its own
                batch_dofs_info=True,
                enable_adjacent_collision=True,  # the model says which pairs may not touch
                enable_neutral_collision=True,
                max_collision_pairs=pairs,
                contact_pruning_tolerance=None,
                integrator=genesis.integrator.implicitfast,
                constraint_solver=genesis.constraint_solver.Newton,
                iterations=model.opt.iterations,
                tolerance=max(model.opt.tolerance, 1e-5 if precision == "32" else 0.0),
                ls_iterations=model.opt.ls_iterations,
                ls_tolerance=model.opt.ls_tolerance,
                constraint_timeconst=float(model.geom_solref[0, 0]),  # Genesis' own is half of MuJoCo's
            ),
            show_viewer=False,
        )
        xml = to_mjcf(build_spec(robot, **gains))
        self._entity = self._scene.add_entity(genesis.morphs.MJCF(file=xml, align=False, visualization=False))
        self._scene.build(n_envs=count)
        self._solver = self._scene.rigid_solver
        self._deepen_floor()
        names = tuple(joint.name for joint in self._entity.joints if joint.n_dofs == 1)
        assert names == robot.joint_names, "Genesis' joints are in another order"
        self._dofs = range(6, model.nv)
        links = {link.name: link.idx for link in self._entity.links}
        self._links = [links[body.name] for body in robot.bodies]
        self._bodies = np.array([model.body(body.name).id for body in robot.bodies])
        self._torso = [body.name for body in robot.bodies].index(TORSO)

        self._stiffness, self._damping = np.tile(stiffness, (count, 1)), np.tile(damping, (count, 1))
        self._limit, self._hold = np.tile(robot.torque_limit, (count, 1)), np.zeros(count, dtype=bool)
        self._fixed = False  # whether Genesis' servos have other gains than ours now
        self._parked = model.qpos0.copy()
        self._parked[2] += PARKED
        self.qpos, self.qvel = np.zeros((count, model.nq)), np.zeros((count, model.nv))
        self.qpos_path = np.zeros((count, substeps, model.nq))
        self.qvel_path = np.zeros((count, substeps, model.nv))
        everyone = np.arange(count)
        self.set_state(everyone, np.tile(model.qpos0, (count, 1)), np.zeros((count, model.nv)))
        self.vary(everyone, sample(np.random.default_rng(0), count, robot, NONE))  # MJCF has six digits, this has all

    def set_state(self, which: NDArray[np.integer], qpos: Array, qvel: Array) -> None:
        self.qpos[which], self.qvel[which] = qpos, qvel
        self.qpos_path[which], self.qvel_path[which] = self.qpos[which][:, None], self.qvel[which][:, None]

    def vary(self, which: NDArray[np.integer], worlds: Worlds) -> None:
        if not len(which):
            return
        if worlds.friction.min() < LEAST_FRICTION:
            raise ValueError(f"friction of {worlds.friction.min():g} in Genesis; allowed: {LEAST_FRICTION} and more")
        nominal, bodies, solver, entity = self._nominal, self._bodies, self._solver, self._entity
        mass = nominal.body_mass[bodies] * worlds.mass
        mass[:, self._torso] += worlds.payload
        share = mass / nominal.body_mass[bodies]  # a heavier body has the same shape
        inertia = share[..., None, None] * (nominal.body_inertia[bodies][..., None] * np.eye(3))
        center = nominal.body_ipos[bodies[self._torso]] + worlds.center_of_mass
        self._limit[which] = self.robot.torque_limit * worlds.torque_limit
        self._stiffness[which] = nominal.actuator_gainprm[:, 0] * worlds.stiffness
        self._damping[which] = -nominal.actuator_biasprm[:, 2] * worlds.damping
        self._hold[which] = worlds.hold
        self._fixed = True  # the next step writes the gains

        envs, real = self._torch.as_tensor(np.asarray(which), device=self._real["device"]), self._tensor
        solver.set_links_mass(real(mass), self._links, envs)
        solver.set_links_inertia(real(inertia), self._links, envs)
        solver.set_links_COM(real(center[:, None]), [self._links[self._torso]], envs)
        ratio = np.tile(worlds.friction[:, None] / FRICTION, (1, solver.n_geoms))  # of both partners: the larger counts
        solver.set_geoms_friction_ratio(real(ratio), None, envs)
        entity.set_dofs_force_range(real(-self._limit[which]), real(self._limit[which]), self._dofs, envs)
        entity.set_dofs_frictionloss(real(worlds.joint_friction), self._dofs, envs)
        armature = nominal.dof_armature[6:] * worlds.armature
        entity.set_dofs_armature(real(armature), self._dofs, envs)  # contact stiffness follows from mass and armature

    def step(self, targets: Array) -> None:
        entity, real = self._entity, self._tensor
        finite = np.all(np.isfinite(self.qpos), axis=1) & np.all(np.isfinite(self.qvel), axis=1)
        qpos = np.where(finite[:, None], self.qpos, self._parked)
        qvel = np.where(finite[:, None], self.qvel, 0.0)
        control = np.where(finite[:, None, None], targets, self._parked[7:])
        begun = qpos[:, 7:], qvel[:, 6:]
        entity.set_qpos(real(qpos), skip_forward=True)  # and velocities too, or they are taken to the old positions
        entity.set_dofs_velocity(real(qvel), skip_forward=True)
        for step in range(self.substeps):
            now = qpos[:, 7:], qvel[:, 6:]
            self._command(control[:, step], now, self._torque(control[:, 0], *begun))
            self._scene.step(update_visualizer=False, refresh_visualizer=False)
            qpos, qvel = self._numbers(entity.get_qpos()), self._numbers(entity.get_dofs_velocity())
            failed = self._solver.get_error_envs_mask().cpu().numpy()
            finite &= ~failed & np.all(np.isfinite(qpos), axis=1) & np.all(np.isfinite(qvel), axis=1)
            self.qpos_path[:, step] = np.where(finite[:, None], qpos, np.nan)
            self.qvel_path[:, step] = np.where(finite[:, None], qvel, np.nan)
            if failed.any():  # Genesis would stop all of them
                which = np.flatnonzero(failed)
                entity.set_qpos(real(np.tile(self._parked, (len(which), 1))), None, which, zero_velocity=True)
                control[which] = self._parked[7:]
        self.qpos[:], self.qvel[:] = self.qpos_path[:, -1], self.qvel_path[:, -1]

    def _deepen_floor(self) -> None:
        """Give the floor's bounding box a depth.

        Genesis looks for contacts where bounding boxes overlap, and that of a plane is flat: a sphere of 5 mm under a
        foot that comes down at more than 2 m/s would pass it within one step of 5 ms, and the foot would sink.
        """
        geoms = self._solver.geoms
        floor = next(index for index, geom in enumerate(geoms) if geom.metadata["name"] == "floor")
        for boxes, index in (
            (self._solver.geoms_init_AABB, (floor, slice(0, 8, 2), 2)),  # every other corner is a lower one
            (self._solver.collider.collider_info.links_init_aabb_min, (geoms[floor].link.idx, 2)),
        ):
            values = boxes.to_numpy()
            values[index] = -FLOOR_DEPTH
            boxes.from_numpy(values)

    def _torque(self, target: Array, angle: Array, speed: Array) -> Array:
        """What the servos ask for before it is cut [Nm], (N, joints)."""
        return self._stiffness * (target - angle) - self._damping * speed

    def _command(self, target: Array, now: tuple[Array, Array], held: Array) -> None:
        """Set Genesis' servos for one physics step: force = gain target + bias + slope angle + drag speed.

        A servo at its torque limit, or one that holds its torque, has no gain, slope and drag. Genesis would keep the
        drag in its implicit integration although the torque no longer depends on speed: at 5 ms that doubles the
        inertia of a motor that is at its limit.
        """
        wanted = self._torque(target, *now)
        fixed = (np.abs(wanted) >= self._limit) | self._hold[:, None]
        if fixed.any() or self._fixed:
            bias = np.where(self._hold[:, None], held, wanted).clip(-self._limit, self._limit)
            gain, drag = np.where(fixed, 0.0, self._stiffness), np.where(fixed, 0.0, self._damping)
            terms = np.where(fixed, bias, 0.0), -gain, -drag
            self._entity.set_dofs_act_gain(self._tensor(gain), self._dofs)
            self._entity.set_dofs_act_bias(*(self._tensor(term) for term in terms), self._dofs)
            self._fixed = bool(fixed.any())
        self._entity.control_dofs_position(self._tensor(target), self._dofs)

    def touching_pairs(self) -> set[frozenset[str]]:
        """Names of the shapes that may touch each other, two by two."""
        names = [geom.metadata["name"] for geom in self._solver.geoms]
        return {frozenset((names[a], names[b])) for a, b in self._solver.collider._valid_collision_pairs}

    def close(self) -> None:
        self._scene.destroy()

    def _tensor(self, values: Array) -> Any:
        return self._torch.as_tensor(np.ascontiguousarray(values), **self._real)

    def _numbers(self, tensor: Any) -> Array:
        return tensor.cpu().numpy().astype(float)


def _start(device: str, precision: Precision) -> Any:
    """The module, started. Genesis' own `gs.gpu` would go on without a graphics card; a device by name does not."""
    global _running
    if device not in DEVICES:
        raise ValueError(f"engine genesis on {device!r}; allowed: {', '.join(DEVICES)}")
    try:
        genesis = importlib.import_module("genesis")
    except ImportError as error:
        raise ValueError(f"engine genesis: {error}; install the extra: pip install 'realign[genesis]'") from error
    if _running is None:
        try:
            genesis.init(backend=getattr(genesis, device), precision=precision, logging_level="warning")
        except genesis.GenesisException as error:
            raise ValueError(f"engine genesis does not start on {device!r}: {error}") from error
        _running = device, precision
    if _running != (device, precision):
        here = f"{_running[0]!r} with {_running[1]} bits, as it runs already"
        raise ValueError(f"engine genesis on {device!r} with {precision} bits; allowed in this process: {here}")
    return genesis
