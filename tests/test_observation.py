"""The 22 numbers, in their order."""

from __future__ import annotations

import math

import numpy as np

from controllers.observation import QUADROTOR_OBSERVATION_SIZE, quadrotor_observation
from controllers.rotations import from_axis_angle


def test_terms_stand_in_order_with_the_rotation_row_by_row() -> None:
    quarter_yaw = from_axis_angle([0, 0, 1], math.pi / 2)
    observation = quadrotor_observation([1, 2, 3], quarter_yaw, [4, 5, 6], [7, 8, 9], [0.1, 0.2, 0.3, 0.4])
    expected = [1, 2, 3, 0, -1, 0, 1, 0, 0, 0, 0, 1, 4, 5, 6, 7, 8, 9, 0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(observation, np.array(expected, np.float32), atol=1e-7)
    assert observation.dtype == np.float32


def test_a_batch_is_its_members() -> None:
    rng = np.random.default_rng(0)
    terms = [rng.normal(size=(2, 3, size)) for size in (3, 4, 3, 3, 4)]
    batch = quadrotor_observation(*terms)
    assert batch.shape == (2, 3, QUADROTOR_OBSERVATION_SIZE)
    np.testing.assert_array_equal(batch[1, 2], quadrotor_observation(*(term[1, 2] for term in terms)))
