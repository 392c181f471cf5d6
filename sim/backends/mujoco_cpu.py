"""Many G1s in MuJoCo on the processor's cores: the reference engine.

Every robot has a model of its own, so that mass, friction and gains may differ. All models share the shapes and the
contacts of `sim/robots/g1.py`. A step is a function of state and targets alone (the solver starts anew at each control
step), so equal runs are equal to the bit, on any number of threads.
"""

from __future__ import annotations

import copy
import itertools

import mujoco
import numba
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

from controllers.g1 import G1
from sim.randomize import Worlds
from sim.robots.g1 import build_spec

Array = NDArray[np.floating]

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS
TORSO = "torso_link"


def with_pairs(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The model with a list of what may touch what, which MuJoCo would otherwise work out at each step: the same
    contacts to the bit, and a step takes a twelfth less. Friction is the pairs' then. Changes `spec`."""
    model = spec.compile()
    parent = model.body_weldid[model.body_parentid]
    excluded = {(int(both) >> 16, int(both) & 0xFFFF) for both in model.exclude_signature}
    pairs = []
    for first, second in itertools.combinations(range(model.ngeom), 2):
        kinds = model.geom_contype[[first, second]] & model.geom_conaffinity[[second, first]]
        bodies = model.geom_bodyid[first], model.geom_bodyid[second]
        a, b = model.body_weldid[bodies[0]], model.body_weldid[bodies[1]]
        neighbours = a == b or (a and b and (parent[a] == b or parent[b] == a))
        if kinds.any() and not neighbours and excluded.isdisjoint((bodies, bodies[::-1])):
            pairs.append((model.geom(first).name, model.geom(second).name))
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    for first, second in pairs:
        spec.add_pair(geomname1=first, geomname2=second, condim=3)
    return spec.compile()


class MujocoCpu:
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
        threads: int | None = None,
    ) -> None:
        """
        Args:
            robot: The revision.
            count: N.
            stiffness: Of the joint controllers [Nm/rad], (joints,).
            damping: Of the joint controllers [Nm s/rad], (joints,).
            physics_step: [s]
            substeps: Physics steps per control step.
            threads: As many as numba uses when absent, so that one setting rules both.
        """
        self.robot, self.count, self.physics_step, self.substeps = robot, count, physics_step, substeps
        self._nominal = with_pairs(
            build_spec(robot, stiffness=stiffness, damping=damping, timestep=physics_step, scenery=False)
        )
        # A state that is not finite must show; MuJoCo would start over at the origin.
        self._nominal.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        # Same physics in less time: one robot is one island, and of its Jacobian each foot fills less than half.
        self._nominal.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
        self._nominal.opt.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
        model = self._nominal
        self._models = [copy.copy(model) for _ in range(count)]
        threads = min(threads or numba.get_num_threads(), count)
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._scratch = mujoco.MjData(model)
        self._torso = model.body(TORSO).id
        self._bodies = np.array([model.body(body.name).id for body in robot.bodies])
        self._stiffness, self._damping = np.tile(stiffness, (count, 1)), np.tile(damping, (count, 1))
        self._limit = np.tile(robot.torque_limit, (count, 1))
        self._hold = np.zeros(count, dtype=bool)

        size = mujoco.mj_stateSize(model, STATE.value)
        self._state = np.zeros((count, size))
        self._paths = np.zeros((count, substeps, size))
        self._sensors = np.zeros((count, substeps, 0))
        end = 1 + model.nq
        self.qpos, self.qvel = self._state[:, 1:end], self._state[:, end : end + model.nv]
        self.qpos_path, self.qvel_path = self._paths[:, :, 1:end], self._paths[:, :, end : end + model.nv]
        self.set_state(np.arange(count), np.tile(model.qpos0, (count, 1)), np.zeros((count, model.nv)))

    def set_state(self, which: NDArray[np.integer], qpos: Array, qvel: Array) -> None:
        self._state[which] = 0.0
        self.qpos[which], self.qvel[which] = qpos, qvel
        self._paths[which] = self._state[which][:, None]

    def vary(self, which: NDArray[np.integer], worlds: Worlds) -> None:
        nominal = self._nominal
        mass = nominal.body_mass[self._bodies] * worlds.mass
        self._stiffness[which] = nominal.actuator_gainprm[:, 0] * worlds.stiffness
        self._damping[which] = -nominal.actuator_biasprm[:, 2] * worlds.damping
        self._limit[which] = self.robot.torque_limit * worlds.torque_limit
        self._hold[which] = worlds.hold
        for row, index in enumerate(which):
            model = self._models[index]
            model.body_mass[self._bodies] = mass[row]
            model.body_mass[self._torso] += worlds.payload[row]
            share = model.body_mass[1:] / nominal.body_mass[1:]
            model.body_inertia[1:] = nominal.body_inertia[1:] * share[:, None]
            model.body_ipos[self._torso] = nominal.body_ipos[self._torso] + worlds.center_of_mass[row]
            model.pair_friction[:, :2] = worlds.friction[row]
            model.dof_armature[6:] = nominal.dof_armature[6:] * worlds.armature[row]
            model.dof_frictionloss[6:] = worlds.joint_friction[row]
            model.actuator_forcerange[:, 0], model.actuator_forcerange[:, 1] = -self._limit[index], self._limit[index]
            held = self._hold[index]  # then the control is a torque
            model.actuator_gainprm[:, 0] = 1.0 if held else self._stiffness[index]
            model.actuator_biasprm[:, 1] = 0.0 if held else -self._stiffness[index]
            model.actuator_biasprm[:, 2] = 0.0 if held else -self._damping[index]
            mujoco.mj_setConst(model, self._scratch)  # contact stiffness follows from mass and armature

    def step(self, targets: Array) -> None:
        control = np.array(targets, dtype=float)
        if self._hold.any():
            held = self._hold
            torque = self._stiffness[held] * (control[held, 0] - self.qpos[held, 7:])
            torque -= self._damping[held] * self.qvel[held, 6:]
            control[held] = torque[:, None]
        self._pool.rollout(
            self._models,
            self._data,
            np.ascontiguousarray(self._state),
            control,
            skip_checks=True,
            nstep=self.substeps,
            state=self._paths,
            sensordata=self._sensors,
        )
        self._state[:] = self._paths[:, -1]
        self._state[:, 0] = 0.0

    def close(self) -> None:
        self._pool.close()
