"""What the tests of `newton` minimise: reference problems, and one landscape for every end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from chains import broyden, cosine, curly10, engval1, genrose, tridia
from problems import path2d, path2d_start


class Landscape(NamedTuple):
    """Coefficients of `landscape`: by them alone its minimisation ends in any of the ways there are."""

    tilt: float = 0
    curvature: float = 0
    quartic: float = 0
    spring: float = 0
    kink: float = 0
    far: float = 0  # couples stages two apart: outside bandwidth 1
    far_later: float = 0  # as far, but not at the origin

    def array(self) -> np.ndarray:
        return np.array(self, float)


def landscape(xp: Any) -> Callable:
    """One function for many ends: a program that is compiled once serves them all. Its bandwidth is meant to be 1."""

    def fun(x: Any, c: Any) -> Any:
        tilt, curvature, quartic, spring, kink, far, far_later = (c[i] for i in range(7))
        value = tilt * xp.sum(x) + curvature * xp.sum(x**2) / 2 + quartic * xp.sum(x**4) / 4
        value = value + spring * xp.sum((x[1:] - x[:-1]) ** 2) / 2 + kink * xp.sum(xp.abs(x - 1))
        return value + far * xp.sum(x[2:] * x[:-2]) + far_later * xp.sum(x[2:] ** 2 * x[:-2] ** 2)

    return fun


def landscape_derivatives(x: np.ndarray, c: Landscape) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and dense Hessian, without kink and far couplings."""
    n = len(x)
    pull = np.diff(np.eye(n), axis=0)
    springs = c.spring * pull.T @ pull
    gradient = c.tilt + c.curvature * x + c.quartic * x**3 + springs @ x
    return gradient, np.diag(c.curvature + 3 * c.quartic * x**2) + springs


@dataclass(frozen=True, eq=False)
class Minimisation:
    """A reference problem for Newton's method: its start, and the optimal value two other solvers agree on."""

    name: str
    objective: Callable[[Any], Callable]
    start: np.ndarray
    bandwidth: int
    optimum: float

    def __str__(self) -> str:
        return self.name


def ramp(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 1)


MINIMISATIONS = [
    Minimisation("genrose", genrose, ramp(1000), 1, 1.0),
    Minimisation("engval1", engval1, np.full(1000, 2.0), 1, 1108.1947188),
    Minimisation("cosine", cosine, np.ones(1000), 1, -999.0),
    Minimisation("tridia", tridia, np.ones(1000), 1, 0.0),
    Minimisation("broyden", broyden, -np.ones(1000), 2, 0.0),
    Minimisation("curly10", curly10, 1e-4 * ramp(1000), 10, -100316.290241),
    Minimisation("path2d", path2d, path2d_start(1000).reshape(-1, 2), 2, 1.731691528),
]
