"""Commands for tests of the G1's runtime and of the virtual robot."""

from __future__ import annotations

import numpy as np

from controllers.g1 import default_pose, gains, revision
from deploy.unitree_hg import new_command
from deploy.virtual_body import slots_of


def holding(robot_name: str = "g1_29dof") -> np.ndarray:
    """A command that holds the default pose with the ASAP gains."""
    robot = revision(robot_name)
    command, slots = new_command(mode_machine=5), slots_of(robot)
    motors = command["motor_cmd"]
    motors["mode"][slots] = 1
    motors["kp"][slots], motors["kd"][slots] = gains(robot, "asap")
    motors["q"][slots] = default_pose(robot)
    return command
