"""Trajectories by one of three transcriptions: what `fresh.py` is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np
from cases import INF, Problem, make, rk4, same

LEAST_TIME = lambda ends, T: T  # noqa: E731


def times(N: int) -> np.ndarray:
    return np.arange(N + 1) / N


def square(a: list) -> Any:
    return sum(b**2 for b in a)


def joined(scheme: str, slope: Callable, x: list, u: list, h: Any) -> list:
    """Rows that join neighbouring knots: `trapezoid`, `simpson` (Hermite-Simpson, compressed) or `shooting` (RK4, with
    controls constant over a step). `h`: of each step, or a number."""
    before, after = [a[:-1] for a in x], [a[1:] for a in x]
    if scheme == "shooting":
        held = [a[:-1] for a in u]
        return [a - b for a, b in zip(after, rk4(lambda s: slope(s, held), before, h), strict=True)]
    k = [ca.SX(a) + 0 * x[0] for a in slope(x, u)]
    if scheme == "trapezoid":
        return [b - a - h / 2 * (p[:-1] + p[1:]) for a, b, p in zip(before, after, k, strict=True)]
    middle = [(a + b) / 2 + h / 8 * (p[:-1] - p[1:]) for a, b, p in zip(before, after, k, strict=True)]
    km = slope(middle, [(a[:-1] + a[1:]) / 2 for a in u])
    return [b - a - h / 6 * (p[:-1] + 4 * m + p[1:]) for a, b, p, m in zip(before, after, k, km, strict=True)]


def trajectory(
    name: str,
    N: int,
    slope: Callable,
    x: list,
    u: list,
    T: Any,
    scheme: str = "trapezoid",
    first: dict | None = None,
    last: dict | None = None,
    box: dict | None = None,
    running: Callable | None = None,
    final: Callable | None = None,
    path: Callable | None = None,
    rows: Callable | None = None,
    free: tuple | None = None,
    grid: Any = None,
) -> Problem:
    """Knots 0..N of the columns x (states) and u (controls), given as first guesses, joined by x' = slope(x, u).

    T: the final time, where `free` = (lower, upper) is given its first guess. first, last: values of states by number;
    box: (lower, upper) of columns by number; `running(x, u)` is integrated, `final(ends, T)` added, path(x, u) >= 0,
    rows(x, u) = 0. `grid`: steps relative to T.
    """  # fmt: skip
    ns, nu = len(x), len(u)
    d = ns + nu + (free is not None)
    steps = np.full(N, 1 / N) if grid is None else np.asarray(grid)

    def build(z: list) -> tuple:
        s, controls = z[:ns], z[ns : ns + nu]
        time = z[-1] if free else None
        h = steps * time[:-1] if free else steps * T
        c = joined(scheme, slope, s, controls, h)
        c += [same(time)] if free else []
        c += [s[i][0] - a for i, a in (first or {}).items()] + [s[i][-1] - a for i, a in (last or {}).items()]
        c += list(rows(s, controls)) if rows else []
        f = ca.SX(0)
        if running:
            rate = running(s, controls)
            f += ca.sum1(h * rate[:-1]) if scheme == "shooting" else ca.sum1(h * (rate[:-1] + rate[1:])) / 2
        if final:
            f += final([a[-1] for a in s], time[-1] if free else T)
        return f, c, list(path(s, controls)) if path else []

    low, up = [-INF] * d, [INF] * d
    for i, (a, b) in (box or {}).items():
        low[i], up[i] = a, b
    if free:
        low[-1], up[-1] = free
    start = [*x, *u] + ([T] if free else [])
    return make(f"{name} {scheme[:4]} N={N}", d, start, N + 1, build, low, up, several=True)
