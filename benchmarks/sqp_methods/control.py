"""The optimal control problems of the reference."""

from __future__ import annotations

import math

import casadi as ca
import numpy as np
from cases import INF, Problem, make, same, trapezoid

GRAVITY = 9.81


def hager2(N: int = 1000) -> Problem:
    def build(z: list) -> tuple:
        x, u = z
        a, b = x[:-1], x[1:]
        f = ca.sum1(a**2 + a * b + b**2) / (6 * N) + ca.sum1(u[1:] ** 2) / (4 * N)
        return f, [(N - 0.25) * b - (N + 0.25) * a - u[1:], x[0] - 1, u[0]], []

    return make("HAGER2", 2, [0, 0], N + 1, build, optimum=0.4320822976)


def yao(p: int = 2000) -> Problem:
    n = p + 2

    def build(z: list) -> tuple:
        (x,) = z
        f = ca.sumsqr(x - np.sin(np.arange(1, n + 1) / n)) / 2
        return f, [], [x[2:] - 2 * x[1:-1] + x[:-2]]

    lower, upper = np.full(n, -INF), np.full(n, INF)
    lower[0], lower[-2:], upper[-2:] = 0.08, 0, 0
    return make("YAO", 1, [2], n, build, optimum=197.7046156)._replace(lower=lower, upper=upper)


def bryson_denham(N: int = 200) -> Problem:
    def build(z: list) -> tuple:
        x, v, u = z
        h = 1 / N
        ends = [x[0], v[0] - 1, x[-1], v[-1] + 1]
        return h / 4 * ca.sum1(u[:-1] ** 2 + u[1:] ** 2), [trapezoid(x, v, h), trapezoid(v, u, h), *ends], []

    return make("BRYSON-DENHAM", 3, [0, 0, 0], N + 1, build, None, [1 / 9, INF, INF], optimum=4.0008890577)


def steering(N: int = 200) -> Problem:
    r = np.arange(N + 1) / N

    def build(z: list) -> tuple:
        u, x1, x2, x3, x4, h = z
        s = h[:-1]
        c = [trapezoid(x1, x3, s), trapezoid(x2, x4, s), trapezoid(x3, 100 * ca.cos(u), s)]
        c += [trapezoid(x4, 100 * ca.sin(u), s), same(h), x1[0], x2[0], x3[0], x4[0], x2[-1] - 5, x3[-1] - 45, x4[-1]]
        return N * h[-1], c, []

    box = math.pi / 2
    return make(
        "STEERING", 6, [0, 0, 5 * r, 45 * r, 0, 1 / N], N + 1, build,
        [-box, -INF, -INF, -INF, -INF, 0], [box, INF, INF, INF, INF, INF], optimum=0.554577016,
    )  # fmt: skip


def rocket(N: int = 400) -> Problem:
    r = np.arange(N + 1) / N

    def build(z: list) -> tuple:
        h, v, m, T, step = z
        s = step[:-1]
        D = 310 * v**2 * ca.exp(-500 * (h - 1))
        c = [trapezoid(h, v, s), trapezoid(v, (T - D) / m - 1 / h**2, s), trapezoid(m, -2 * T, s), same(step)]
        return -h[-1], [*c, h[0] - 1, v[0], m[0] - 1, m[-1] - 0.6], []

    return make(
        "ROCKET", 5, [1, r * (1 - r), 1 - 0.4 * r, 1.75, 1 / N], N + 1, build,
        [1, 0, 0.6, 0, 0], [INF, INF, 1, 3.5, INF], optimum=-1.0128361,
    )  # fmt: skip


def glider(N: int = 100) -> Problem:
    t = np.arange(N + 1) / N

    def build(z: list) -> tuple:
        x, y, p, q, c, h = z
        s = h[:-1]
        r = (x / 100 - 2.5) ** 2
        w = q - 2.5 * (1 - r) * ca.exp(-r)
        v = ca.sqrt(p**2 + w**2)
        D = 0.5 * (0.034 + 0.069662 * c**2) * 1.13 * 14 * v**2
        L = 0.5 * c * 1.13 * 14 * v**2
        parts = [trapezoid(x, p, s), trapezoid(y, q, s), trapezoid(p, (-L * w / v - D * p / v) / 100, s)]
        parts += [trapezoid(q, (L * p / v - D * w / v) / 100 - 9.81, s), same(h)]
        parts += [x[0], y[0] - 1000, p[0] - 13.23, q[0] + 1.288, y[-1] - 900, p[-1] - 13.23, q[-1] + 1.288]
        return -x[-1], parts, []

    return make(
        "GLIDER", 6, [13.23 * t, 1000 - 100 * t, 13.23, -1.288, 0.7, 1 / N], N + 1, build,
        [0, -INF, 0, -INF, 0, 0], [INF, INF, INF, INF, 1.4, INF], optimum=-1254.61354,
    )  # fmt: skip


def camshape(n: int = 400) -> Problem:
    d = 2 * math.pi / (5 * (n + 1))

    def build(z: list) -> tuple:
        (r,) = z
        full = ca.vertcat(1, 1, r, 2)
        a, b, c = full[:-2], full[1:-1], full[2:]
        convex = a * b + b * c - 2 * a * c * math.cos(d)
        last = 4 * r[-1] - 2 * r[-1] ** 2 * math.cos(d)
        slope = full[2:] - full[1:-1]
        return -math.pi / n * ca.sum1(r), [], [convex, last, 1.5 * d - slope, 1.5 * d + slope]

    return make("CAMSHAPE", 1, [1.5], n, build, [1], [2], optimum=-4.275688476)


def car(N: int = 120) -> Problem:
    r = np.arange(N + 1) / N

    def build(z: list) -> tuple:
        x, y, th, v, u, a = z
        h = 4 / N
        c = [trapezoid(x, v * ca.cos(th), h), trapezoid(y, v * ca.sin(th), h), trapezoid(th, u, h), trapezoid(v, a, h)]
        c += [x[0], y[0], th[0], v[0] - 1, x[-1] - 4, y[-1], th[-1], v[-1] - 1]
        g = [(x - 1.3) ** 2 + (y + 0.2) ** 2 - 0.25, (x - 2.8) ** 2 + (y - 0.25) ** 2 - 0.25]
        return h * ca.sum1(u**2 + a**2), c, g

    return make(
        "CAR", 6, [4 * r, 0.3 * np.sin(math.pi * r), 0, 1, 0, 0], N + 1, build,
        [-INF, -INF, -INF, -2, -3, -2], [INF, INF, INF, 4, 3, 2], several=True,
    )  # fmt: skip
