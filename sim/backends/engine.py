"""What a physics engine has to do for N robots. Two engines do it: MuJoCo (`mujoco_cpu`) and Genesis
(`genesis_engine`); the tasks know only this.

Configurations are MuJoCo's in every engine: qpos is root position, root attitude (wxyz), joints in the robot's order;
qvel is root linear velocity in the world, root angular velocity in the body frame, joints.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import G1
from sim.randomize import Worlds

Array = NDArray[np.floating]
EngineName = Literal["mujoco", "genesis"]


class Engine(Protocol):
    """N copies of one robot on a floor."""

    robot: G1
    count: int
    """N."""
    physics_step: float
    """[s]"""
    substeps: int
    """Physics steps per control step."""
    qpos: Array
    """Now, (N, nq)."""
    qvel: Array
    """Now, (N, nv)."""
    qpos_path: Array
    """After each physics step of the last control step, (N, substeps, nq)."""
    qvel_path: Array
    """The same, (N, substeps, nv)."""

    def set_state(self, which: NDArray[np.integer], qpos: Array, qvel: Array) -> None:
        """Put those robots, by index, into these states; their paths become the state at rest in time."""
        ...

    def vary(self, which: NDArray[np.integer], worlds: Worlds) -> None:
        """Give those robots these bodies, joints and floors; rows of `worlds` belong to `which`."""
        ...

    def step(self, targets: Array) -> None:
        """One control step. A robot whose state is no longer finite is left as it is, not finite.

        Args:
            targets: Of the joint controllers at each physics step [rad], (N, substeps, joints).
        """
        ...

    def close(self) -> None:
        """Free threads and memory."""
        ...


def make_engine(
    name: EngineName,
    robot: G1,
    count: int,
    stiffness: Array,
    damping: Array,
    physics_step: float,
    substeps: int,
    device: str = "cpu",
) -> Engine:
    """That engine, on that device (MuJoCo: `cpu` only); other arguments as `sim.backends.mujoco_cpu.MujocoCpu` has
    them. Raises ValueError where there is no such engine or device, and never takes another instead."""
    if name == "mujoco":
        if device != "cpu":
            raise ValueError(f"engine mujoco on {device!r}; allowed: cpu")
        from sim.backends.mujoco_cpu import MujocoCpu

        return MujocoCpu(robot, count, stiffness, damping, physics_step, substeps)
    if name == "genesis":
        from sim.backends.genesis_engine import GenesisEngine

        return GenesisEngine(robot, count, stiffness, damping, physics_step, substeps, device)
    raise ValueError(f"engine {name!r} is not known; allowed: {', '.join(get_args(EngineName))}")
