"""What problems are written in: min f(x), c(x) = 0, g(x) >= 0, lower <= x <= upper, in CasADi, in order of stages.

x is a column of n = T d numbers, stage by stage; `columns` gives its d columns. `optimum` is None where the answer is a
status or where IPOPT's own value serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import casadi as ca
import numpy as np

INF = math.inf


class Problem(NamedTuple):
    name: str
    x: Any  # SX (n, 1)
    f: Any
    c: Any  # SX (m, 1)
    g: Any
    lower: np.ndarray
    upper: np.ndarray
    x0: np.ndarray
    optimum: float | None = None
    ending: str = "CONVERGED"
    several: bool = False  # local optima differ from start to start: a lower or other value is no failure


def vertcat(parts: Any) -> Any:
    parts = [p for p in parts if p is not None]
    return ca.vertcat(*parts) if parts else ca.SX(0, 1)


def columns(x: Any, d: int) -> list:
    return [x[i::d] for i in range(d)]


def stages(start: list, T: int) -> np.ndarray:
    """Row-major (T, d) of columns given as numbers or arrays."""
    return np.stack([np.broadcast_to(np.asarray(a, float), (T,)) for a in start], 1).ravel()


def make(
    name: str, d: int, start: list, T: int, build: Callable, lower: Any = None, upper: Any = None, **more: Any
) -> Problem:
    """`build(columns) -> f, [c], [g]`; bounds are lists of d numbers or None."""
    x = ca.SX.sym("x", T * d)
    f, c, g = build(columns(x, d))
    low = stages(lower or [-INF] * d, T)
    up = stages(upper or [INF] * d, T)
    return Problem(name, x, f, vertcat(c), vertcat(g), low, up, stages(start, T), **more)


def trapezoid(a: Any, slope: Any, h: Any) -> Any:
    return a[1:] - a[:-1] - h / 2 * (slope[:-1] + slope[1:])


def same(h: Any) -> Any:
    return h[1:] - h[:-1]


def rk4(slope: Callable, x: list, h: Any) -> list:
    def ahead(k: list, step: Any) -> list:
        return [a + step * b for a, b in zip(x, k, strict=True)]

    k1 = slope(x)
    k2 = slope(ahead(k1, h / 2))
    k3 = slope(ahead(k2, h / 2))
    k4 = slope(ahead(k3, h))
    return [a + h / 6 * (p + 2 * q + 2 * r + s) for a, p, q, r, s in zip(x, k1, k2, k3, k4, strict=True)]


def small(name: str, start: list, build: Callable, lower: Any = None, upper: Any = None, **more: Any) -> Problem:
    n = len(start)
    x = ca.SX.sym("x", n)
    f, c, g = build(x)
    low = np.broadcast_to(np.asarray(-INF if lower is None else lower, float), (n,)).copy()
    up = np.broadcast_to(np.asarray(INF if upper is None else upper, float), (n,)).copy()
    return Problem(name, x, ca.SX(f), vertcat(c), vertcat(g), low, up, np.array(start, float), **more)
