"""The normal equations of a least-squares problem over a motion, in which a frame is tied to a few next ones."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

Array = NDArray[np.floating]


class Band:
    """Normal matrix and right-hand side: blocks of n by n on the diagonal and `reach` of them below it."""

    def __init__(self, frames: int, n: int, reach: int = 2):
        self.frames, self.n = frames, n
        self.lower = np.zeros((reach * n + 1, frames, n))  # LAPACK's lower band storage
        self.right = np.zeros((frames, n))
        self._rows, self._columns = np.tril_indices(n)
        self._all_rows, self._all_columns = (index.ravel() for index in np.indices((n, n)))

    def add_own(self, blocks: Array) -> None:
        """(T, n, n) between the unknowns of a frame."""
        self.lower[self._rows - self._columns, :, self._columns] += blocks[:, self._rows, self._columns].T

    def add_next(self, blocks: Array) -> None:
        """(T - 1, n, n) between the unknowns of the next frame (rows) and a frame's (columns)."""
        place = self.n + self._all_rows - self._all_columns
        self.lower[place, :-1, self._all_columns] += blocks[:, self._all_rows, self._all_columns].T

    def add_differences(self, deviation: Array, weight: Array, order: int) -> None:
        """Differences of that order of the deviations (T, n) in every unknown, with weights (n,)."""
        inner = self.frames - order
        if inner < 1:
            return
        factors = [(-1.0) ** (order - i) * math.comb(order, i) for i in range(order + 1)]
        bend = np.diff(deviation, order, axis=0)
        for i, a in enumerate(factors):
            self.right[i : i + inner] -= a * weight * bend
            for k, b in enumerate(factors[i:]):
                self.lower[k * self.n, i : i + inner] += a * b * weight

    def add_rest(self, deviation: Array, weight: float) -> None:
        """First differences of the deviations (T, n) at both ends, in every unknown."""
        for i, j in ((0, 1), (self.frames - 2, self.frames - 1)):
            change = deviation[j] - deviation[i]
            self.right[i] += weight * change
            self.right[j] -= weight * change
            self.lower[0, [i, j]] += weight
            self.lower[self.n, i] -= weight

    def solve(self) -> Array:
        size = self.frames * self.n
        band = self.lower.reshape(len(self.lower), size)
        return solveh_banded(band, self.right.reshape(size), lower=True, check_finite=False).reshape(self.right.shape)
