"""What a quadrotor policy sees. The one implementation: the robot and the evaluation both call it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .rotations import to_matrix

QUADROTOR_OBSERVATION_SIZE = 22


def quadrotor_observation(
    position_error_w: ArrayLike,
    quaternion: ArrayLike,
    velocity_error_w: ArrayLike,
    angular_velocity_b: ArrayLike,
    previous_action: ArrayLike,
) -> NDArray[np.float32]:
    """Stacks the 22 inputs of a quadrotor policy, (..., 22).

    Args:
        position_error_w: Position minus reference [m], world frame, (..., 3).
        quaternion: Attitude, body to world, (..., 4). Turn the world so that the reference yaw is zero.
        velocity_error_w: Velocity minus reference [m/s], world frame, (..., 3).
        angular_velocity_b: Angular velocity [rad/s], body frame, (..., 3).
        previous_action: What the policy answered last, in [-1, 1], motor order, (..., 4).
    """
    quaternion = np.asarray(quaternion)
    matrix = to_matrix(quaternion).reshape(*quaternion.shape[:-1], 9)  # row by row
    terms = (position_error_w, matrix, velocity_error_w, angular_velocity_b, previous_action)
    return np.concatenate([np.asarray(term, dtype=np.float32) for term in terms], axis=-1)
