"""The demo's objectives, each written once for both frameworks: `xp` is the module `jax.numpy` or `torch`."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

# Bumps to avoid: centre and width.
BUMPS = np.array([[0.30, 0.38, 0.10], [0.62, 0.52, 0.12], [0.75, 0.86, 0.08]])
# Least values, to the digits on which independent solvers agree.
PATH_MINIMUM = {1000: 1.731691528, 10000: 1.734592765}

# Coal-mining disasters in Great Britain, 1851 on (Jarrett 1979): a digit per year.
DIGITS = (
    "454014340633402633545314415534252234213221111300101100310322011101010002100011023311211112420014000100000100101"
)
DISASTERS = np.array([float(digit) for digit in DIGITS])
YEARS = 1851 + np.arange(len(DISASTERS))


def chain(x: Any) -> Any:
    """Springs between neighbours and to a wall at either end. H = tridiag(-1, 2, -1)."""
    return ((x[1:] - x[:-1]) ** 2).sum() / 2 + x[0] ** 2 / 2 + x[-1] ** 2 / 2


def path(xp: ModuleType) -> Callable[[Any], Any]:
    """A stiff path from (0, 0) to (1, 1) among smooth bumps; x holds its n/2 free points, (x, y) after (x, y).

    Length / 2h + stiffness / 2h^3 + 20 h times the height of the bumps. The second difference couples a point to the
    next but one; there, x to x and y to y only: bandwidth 4.
    """

    def energy(x: Any) -> Any:
        points = x.reshape(-1, 2)
        h = 1 / (len(points) + 1)
        bumps = xp.asarray(BUMPS, dtype=x.dtype)
        start = xp.zeros_like(points[:1])
        ends = xp.concatenate([start, start, points, start + 1, start + 1])  # doubled: clamped
        first = ends[1:] - ends[:-1]
        second = first[1:] - first[:-1]
        distance = ((points[:, None] - bumps[:, :2]) ** 2).sum(-1)
        height = xp.exp(-distance / (2 * bumps[:, 2] ** 2)).sum()
        return (first**2).sum() / (2 * h) + 1e-3 * (second**2).sum() / (2 * h**3) + 20 * h * height

    return energy


def path_start(n: int) -> np.ndarray:
    t = np.arange(1, n // 2 + 1) / (n // 2 + 1)
    bulge = 0.3 * np.sin(math.pi * t) / math.sqrt(2)
    return np.stack([t - bulge, t + bulge], axis=1).ravel()


def smooth_counts(xp: ModuleType) -> Callable[[Any, Any, float], Any]:
    """Counts y ~ Poisson(exp(x)) of a log-rate x that bends little; weight: of the squared second differences."""

    def energy(x: Any, counts: Any, weight: float) -> Any:
        bend = x[2:] - 2 * x[1:-1] + x[:-2]
        return (xp.exp(x) - counts * x).sum() + weight / 2 * (bend**2).sum()

    return energy
