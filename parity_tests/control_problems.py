"""Standard problems of optimal control (CUTEst, COPS 3) on columns, for both frameworks, with their optima.

A problem's functions take z `(stages, columns)`. Optima are IPOPT's, with its bounds unrelaxed where that shows.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

INF = math.inf


class Control(NamedTuple):
    cost: Callable
    constraints: Callable | None
    start: np.ndarray
    bandwidth: int
    optimum: float
    ipopt: int  # its iterations
    inequalities: Callable | None = None
    lower: Any = -INF  # per column, or per entry
    upper: Any = INF


def columns(z: Any) -> list:
    return [z[:, i] for i in range(z.shape[1])]


def trapezoid(a: Any, slope: Any, h: Any) -> Any:
    return a[1:] - a[:-1] - h / 2 * (slope[:-1] + slope[1:])


def ends(*pairs: tuple) -> list:
    """(column, first or last, value) -> what is to vanish."""
    return [(v[:1] if first else v[-1:]) - value for v, first, value in pairs]


def stages(*parts: Any) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*(np.asarray(part, float) for part in parts)), 1)


def hager2(xp: Any, array: Callable, N: int = 1000) -> Control:
    def cost(z: Any) -> Any:
        x, u = columns(z)
        return xp.sum(x[:-1] ** 2 + x[:-1] * x[1:] + x[1:] ** 2) / (6 * N) + xp.sum(u[1:] ** 2) / (4 * N)

    def constraints(z: Any) -> list:
        x, u = columns(z)
        return [(N - 0.25) * x[1:] - (N + 0.25) * x[:-1] - u[1:], *ends((x, True, 1), (u, True, 0))]

    return Control(cost, constraints, np.zeros((N + 1, 2)), 1, 0.4320822976, 1)


def yao(xp: Any, array: Callable, p: int = 2000) -> Control:
    n = p + 2
    goal = array(np.sin(np.arange(1, n + 1) / n))
    lower, upper = np.full((n, 1), -INF), np.full((n, 1), INF)
    lower[0], lower[-2:], upper[-2:] = 0.08, 0, 0

    def cost(z: Any) -> Any:
        return xp.sum((z[:, 0] - goal) ** 2) / 2

    def convex(z: Any) -> Any:
        return z[2:, 0] - 2 * z[1:-1, 0] + z[:-2, 0]

    return Control(cost, None, np.full((n, 1), 2.0), 2, 197.7046156, 22, convex, lower, upper)


def bryson_denham(xp: Any, array: Callable, N: int = 200) -> Control:
    def cost(z: Any) -> Any:
        u = z[:, 2]
        return xp.sum(u[:-1] ** 2 + u[1:] ** 2) / (4 * N)

    def constraints(z: Any) -> list:
        x, v, u = columns(z)
        sides = ends((x, True, 0), (v, True, 1), (x, False, 0), (v, False, -1))
        return [trapezoid(x, v, 1 / N), trapezoid(v, u, 1 / N), *sides]

    return Control(cost, constraints, np.zeros((N + 1, 3)), 1, 4.0008890577, 18, upper=[1 / 9, INF, INF])


def steering(xp: Any, array: Callable, N: int = 200) -> Control:
    r = np.arange(N + 1) / N

    def constraints(z: Any) -> list:
        u, a, b, c, d, h = columns(z)
        s = h[:-1]
        sides = ends(
            (a, True, 0), (b, True, 0), (c, True, 0), (d, True, 0), (b, False, 5), (c, False, 45), (d, False, 0)
        )
        rates = [(a, c), (b, d), (c, 100 * xp.cos(u)), (d, 100 * xp.sin(u))]
        return [h[1:] - h[:-1], *(trapezoid(x, slope, s) for x, slope in rates), *sides]

    start, side = stages(0, 0, 5 * r, 45 * r, 0, 1 / N), math.pi / 2
    lower, upper = [-side, -INF, -INF, -INF, -INF, 0], [side, INF, INF, INF, INF, INF]
    return Control(lambda z: N * z[-1, 5], constraints, start, 1, 0.554577016, 93, None, lower, upper)


def rocket(xp: Any, array: Callable, N: int = 400) -> Control:
    r = np.arange(N + 1) / N

    def constraints(z: Any) -> list:
        h, v, m, thrust, step = columns(z)
        drag, s = 310 * v**2 * xp.exp(-500 * (h - 1)), step[:-1]
        rates = [(h, v), (v, (thrust - drag) / m - 1 / h**2), (m, -2 * thrust)]
        sides = ends((h, True, 1), (v, True, 0), (m, True, 1), (m, False, 0.6))
        return [step[1:] - step[:-1], *(trapezoid(x, slope, s) for x, slope in rates), *sides]

    start = stages(1, r * (1 - r), 1 - 0.4 * r, 1.75, 1 / N)
    lower, upper = [1, 0, 0.6, 0, 0], [INF, INF, 1, 3.5, INF]
    return Control(lambda z: -z[-1, 0], constraints, start, 1, -1.0128361, 30, None, lower, upper)


def glider(xp: Any, array: Callable, N: int = 100) -> Control:
    r = np.arange(N + 1) / N

    def constraints(z: Any) -> list:
        x, y, p, q, c, h = columns(z)
        far = (x / 100 - 2.5) ** 2
        w = q - 2.5 * (1 - far) * xp.exp(-far)
        v = xp.sqrt(p**2 + w**2)
        drag, lift = (0.034 + 0.069662 * c**2) * 7.91 * v**2, c * 7.91 * v**2
        rates = [
            (x, p),
            (y, q),
            (p, (-lift * w / v - drag * p / v) / 100),
            (q, (lift * p / v - drag * w / v) / 100 - 9.81),
        ]
        sides = ends((x, True, 0), (y, True, 1000), (p, True, 13.23), (q, True, -1.288))
        sides += ends((y, False, 900), (p, False, 13.23), (q, False, -1.288))
        return [h[1:] - h[:-1], *(trapezoid(a, slope, h[:-1]) for a, slope in rates), *sides]

    start = stages(13.23 * r, 1000 - 100 * r, 13.23, -1.288, 0.7, 1 / N)
    lower, upper = [0, -INF, 0, -INF, 0, 0], [INF, INF, INF, INF, 1.4, INF]
    return Control(lambda z: -z[-1, 0], constraints, start, 1, -1254.61354, 90, None, lower, upper)


def camshape(xp: Any, array: Callable, n: int = 400) -> Control:
    angle = 2 * math.pi / (5 * (n + 1))

    def inequalities(z: Any) -> list:
        one = 0 * z[:1, 0] + 1
        full = xp.concatenate([one, one, z[:, 0], 2 * one])
        a, b, c = full[:-2], full[1:-1], full[2:]
        last, slope = z[-1:, 0], c - b
        return [
            a * b + b * c - 2 * a * c * math.cos(angle), 4 * last - 2 * last**2 * math.cos(angle),
            1.5 * angle - slope, 1.5 * angle + slope,
        ]  # fmt: skip

    start = np.full((n, 1), 1.5)
    return Control(lambda z: -math.pi / n * xp.sum(z), None, start, 2, -4.275688476, 37, inequalities, 1.0, 2.0)


def car(xp: Any, array: Callable, N: int = 120) -> Control:
    r = np.arange(N + 1) / N

    def constraints(z: Any) -> list:
        x, y, angle, v, u, a = columns(z)
        rates = [(x, v * xp.cos(angle)), (y, v * xp.sin(angle)), (angle, u), (v, a)]
        sides = ends((x, True, 0), (y, True, 0), (angle, True, 0), (v, True, 1))
        sides += ends((x, False, 4), (y, False, 0), (angle, False, 0), (v, False, 1))
        return [*(trapezoid(a, slope, 4 / N) for a, slope in rates), *sides]

    def discs(z: Any) -> list:
        x, y, *_ = columns(z)
        return [(x - 1.3) ** 2 + (y + 0.2) ** 2 - 0.25, (x - 2.8) ** 2 + (y - 0.25) ** 2 - 0.25]

    start = stages(4 * r, 0.3 * np.sin(math.pi * r), 0, 1, 0, 0)
    lower, upper = [-INF, -INF, -INF, -2, -3, -2], [INF, INF, INF, 4, 3, 2]
    return Control(lambda z: 4 / N * xp.sum(z[:, 4:] ** 2), constraints, start, 1, 1.87435545, 26, discs, lower, upper)


PROBLEMS = {make.__name__: make for make in (hager2, yao, bryson_denham, steering, rocket, glider, camshape, car)}
