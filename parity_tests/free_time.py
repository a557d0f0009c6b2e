"""Minimum-time problems of COPS 3 (Dolan, Moré, Munson 2004) whose step length is one number that all stages share, or
one a stage, tied by equalities. A problem's functions take `{"x": states, "u": controls, "h": step}`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

INF = math.inf


class FreeTime(NamedTuple):
    """A problem of N steps. Its optima, for the N that they are named with, are IPOPT's."""

    cost: Callable  # x, u, step -> number; step is that of the last stage
    rates: Callable  # x, u -> columns of x'
    x: np.ndarray  # start
    u: np.ndarray
    first: dict[int, float]  # columns of x given at the start, and
    last: dict[int, float]  # at the end
    lower: tuple  # of x, u and the step
    upper: tuple
    optimum: dict[int, float]


def steering(xp: Any, N: int) -> FreeTime:
    r = np.arange(N + 1) / N
    x = np.stack([0 * r, 5 * r, 45 * r, 0 * r], 1)
    side = math.pi / 2

    def rates(x: Any, u: Any) -> list:
        return [x[:, 2], x[:, 3], 100 * xp.cos(u[:, 0]), 100 * xp.sin(u[:, 0])]

    return FreeTime(
        lambda x, u, h: N * h, rates, x, 0 * r[:, None], {0: 0, 1: 0, 2: 0, 3: 0}, {1: 5, 2: 45, 3: 0},
        ([-INF] * 4, [-side], 0.0), ([INF] * 4, [side], INF), {200: 0.554577016},
    )  # fmt: skip


def rocket(xp: Any, N: int) -> FreeTime:
    r = np.arange(N + 1) / N
    x = np.stack([0 * r + 1, r * (1 - r), 1 - 0.4 * r], 1)

    def rates(x: Any, u: Any) -> list:
        h, v, m = x[:, 0], x[:, 1], x[:, 2]
        drag = 310 * v**2 * xp.exp(-500 * (h - 1))
        return [v, (u[:, 0] - drag) / m - 1 / h**2, -2 * u[:, 0]]

    return FreeTime(
        lambda x, u, h: -x[-1, 0], rates, x, 0 * r[:, None] + 1.75, {0: 1, 1: 0, 2: 1}, {2: 0.6},
        ([1, 0, 0.6], [0], 0.0), ([INF, INF, 1], [3.5], INF), {400: -1.0128361},
    )  # fmt: skip


def robot(xp: Any, N: int) -> FreeTime:
    """An arm of length 5 that slides, turns and tilts: rho, theta, phi and their rates."""
    r = np.arange(N + 1) / N
    turn = 2 * math.pi / 3
    x = np.stack([0 * r + 4.5, turn * r**2, 0 * r + math.pi / 4, 0 * r, 2 * turn * r, 0 * r], 1)

    def rates(x: Any, u: Any) -> list:
        rho, phi = x[:, 0], x[:, 2]
        tilt = ((5 - rho) ** 3 + rho**3) / 3
        return [x[:, 3], x[:, 4], x[:, 5], u[:, 0] / 5, u[:, 1] / (tilt * xp.sin(phi) ** 2), u[:, 2] / tilt]

    ends = {0: 4.5, 2: math.pi / 4, 3: 0, 4: 0, 5: 0}
    return FreeTime(
        lambda x, u, h: N * h, rates, x, np.zeros((N + 1, 3)), {**ends, 1: 0}, {**ends, 1: turn},
        ([0, -math.pi, 0, -INF, -INF, -INF], [-1] * 3, 0.0), ([5, math.pi, math.pi, INF, INF, INF], [1] * 3, INF),
        {200: 9.14139551},
    )  # fmt: skip


PROBLEMS = {"STEERING": (steering, 200), "ROCKET": (rocket, 400), "ROBOT": (robot, 200)}


def arguments(p: FreeTime, xp: Any, array: Callable, shared: bool) -> tuple[tuple, dict]:
    """What `sqp` takes: `(fun, constraints, x0, bandwidth)` and options."""
    N = len(p.x) - 1
    size = () if shared else (N + 1,)

    def fun(z: dict) -> Any:
        return p.cost(z["x"], z["u"], z["h"] if shared else z["h"][-1])

    def constraints(z: dict) -> dict:
        x, slopes = z["x"], xp.stack(p.rates(z["x"], z["u"]), 1)
        step = z["h"] if shared else z["h"][:-1, None]
        gaps = {"motion": x[1:] - x[:-1] - step / 2 * (slopes[1:] + slopes[:-1])}
        gaps["first"] = xp.stack([x[0, i] - value for i, value in p.first.items()])
        gaps["last"] = xp.stack([x[-1, i] - value for i, value in p.last.items()])
        return gaps if shared else {**gaps, "tied": z["h"][1:] - z["h"][:-1]}

    def side(x: Any, u: Any, h: float) -> dict:
        whole = (np.broadcast_to(np.asarray(a, float), b.shape) for a, b in ((x, p.x), (u, p.u)))
        return dict(zip("xuh", map(array, (*whole, np.full(size, h))), strict=True))

    x0 = {"x": array(p.x), "u": array(p.u), "h": array(np.full(size, 1 / N))}
    options: dict = {"bounds": (side(*p.lower), side(*p.upper))}
    if shared:
        options["stage_axes"] = {"x": 0, "u": 0, "h": None}
    return (fun, constraints, x0, 1), options
