"""Numbers from many flights, each with its 95 % confidence interval, and how much a hidden state knows.

A number that is not finite is an error here: it would vanish in an average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z95 = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % confidence interval, and how many flights it rests on."""

    value: float
    low: float
    high: float
    count: int


def share(values: np.ndarray) -> Estimate:
    """Share of true values, with Wilson's interval."""
    n = len(_checked(values))
    p = float(np.mean(values))
    centre, spread = p + Z95**2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return Estimate(p, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale), n)


def mean(values: np.ndarray) -> Estimate:
    """Mean, with the normal interval."""
    v = _checked(values)
    m, error = float(v.mean()), Z95 * float(v.std(ddof=1)) / math.sqrt(len(v)) if len(v) > 1 else math.inf
    return Estimate(m, m - error, m + error, len(v))


def median(values: np.ndarray) -> Estimate:
    """Median, with the interval between order statistics: no assumption about the distribution."""
    v = np.sort(_checked(values))
    n, half = len(v), Z95 * math.sqrt(len(v)) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return Estimate(float(np.median(v)), float(v[low]), float(v[high]), n)


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values have shape {values.shape}; allowed: (1 or more,)")
    if not np.isfinite(values).all():
        i = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"value {i} of {len(values)} is {values[i]}; allowed: finite numbers")
    return values


def probe(hidden: np.ndarray, target: np.ndarray, ridge: float = 1e-3) -> float:
    """Coefficient of determination R² of a linear readout of `target` (n,) from `hidden` (n, units).

    Ridge regression on standardised units, fitted on the even rows and judged on the odd ones; below zero is worse than
    the mean.
    """
    x, y = np.asarray(hidden, dtype=float), _checked(target)
    centre, scale = x[::2].mean(axis=0), x[::2].std(axis=0) + 1e-9
    x = np.column_stack([(x - centre) / scale, np.ones(len(x))])
    train, test = slice(0, None, 2), slice(1, None, 2)
    penalty = ridge * len(x[train]) * np.diag([1.0] * (x.shape[1] - 1) + [0.0])
    weights = np.linalg.solve(x[train].T @ x[train] + penalty, x[train].T @ y[train])
    residual = y[test] - x[test] @ weights
    return float(1 - residual.var() / y[test].var() - residual.mean() ** 2 / y[test].var())
