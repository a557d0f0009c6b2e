# ruff: noqa: RUF059
"""C1 and C2, quadrotors past circles, a race, an epidemic, and the convex chain of masses."""

from __future__ import annotations

import math
from typing import Any

import casadi as ca
import numpy as np
from cases import INF, Problem, make, rk4, same, trapezoid

GRAVITY = 9.81


def pendulum(T: int, zero: bool = False, limit: float = INF, end: bool = True) -> Problem:
    """C1; `zero`: from rest with zero controls; `limit`: of |u|."""
    h = 4 / T

    def build(z: list) -> tuple:
        u, th, om = z
        before = [ca.vertcat(0, th[:-1]), ca.vertcat(0, om[:-1])]
        a, b = rk4(lambda s: [s[1], u - GRAVITY * ca.sin(s[0])], before, h)
        return h / 2 * ca.sumsqr(u), [th - a, om - b, th[-1] - math.pi, om[-1]], []

    optimum = {100: 17.9232617522, 300: 17.9081575295, 1000: 17.9064389867}.get(T) if not zero else None
    t = np.arange(1, T + 1) / T
    start = [0, 0, 0] if zero else [0, math.pi * t, math.pi / 4]
    name = f"C1 T={T}" + (" from rest" if zero else "") + ("" if limit == INF else f" |u|<={limit}")
    several = zero or limit != INF
    return make(
        name, 3, start, T, build, [-limit, -INF, -INF], [limit, INF, INF],
        optimum=None if several else optimum, several=several,
    )  # fmt: skip


def cart(N: int) -> Problem:
    m1, m2, length, h = 1.0, 0.3, 0.5, 2 / N
    t = np.arange(N + 1) / N

    def build(z: list) -> tuple:
        *x, u = z
        s, c, turn = ca.sin(x[1]), ca.cos(x[1]), x[3]
        mass = m1 + m2 * (1 - c**2)
        push = (length * m2 * s * turn**2 + u + m2 * GRAVITY * c * s) / mass
        spin = -(length * m2 * c * s * turn**2 + u * c + (m1 + m2) * GRAVITY * s) / (length * mass)
        rows = [trapezoid(q, k, h) for q, k in zip(x, (x[2], turn, push, spin), strict=True)]
        rows += [q[0] for q in x] + [q[-1] - e for q, e in zip(x, (1, math.pi, 0, 0), strict=True)]
        return h / 2 * ca.sum1(u[:-1] ** 2 + u[1:] ** 2), rows, []

    optimum = {100: 58.8967101559, 1000: 58.8085891182}.get(N)
    return make(f"C2 N={N}", 5, [t, math.pi * t, 0, 0, 0], N + 1, build, optimum=optimum)


# --- Obstacles --------------------------------------------------------------------------------------------------------

CIRCLES = [(1.0, 0.1, 0.3), (2.0, -0.15, 0.4), (3.0, 0.2, 0.35), (1.5, 0.9, 0.3)]


def quadrotor(T: int, kind: str, circles: int) -> Problem:
    """A planar quadrotor from (0, 0) to (4, 0) in 4 s past circles that its straight start runs through."""
    h, m, inertia, arm = 4 / (T - 1), 1.0, 0.1, 0.25
    r = np.arange(T) / (T - 1)

    def slope(s: list, a: Any, b: Any) -> list:
        x, y, th, vx, vy, om = s
        return [vx, vy, om, -(a + b) * ca.sin(th) / m, (a + b) * ca.cos(th) / m - GRAVITY, arm * (a - b) / inertia]

    def build(z: list) -> tuple:
        *s, a, b = z
        if kind == "trapezoid":
            k = slope(s, a, b)
            rows = [trapezoid(q, p, h) for q, p in zip(s, k, strict=True)]
        elif kind == "collocation":  # Hermite-Simpson, compressed
            k = slope(s, a, b)
            mid = [(q[:-1] + q[1:]) / 2 + h / 8 * (p[:-1] - p[1:]) for q, p in zip(s, k, strict=True)]
            km = slope(mid, (a[:-1] + a[1:]) / 2, (b[:-1] + b[1:]) / 2)
            rows = [q[1:] - q[:-1] - h / 6 * (p[:-1] + 4 * pm + p[1:]) for q, p, pm in zip(s, k, km, strict=True)]
        else:
            after = rk4(lambda v: slope(v, a[:-1], b[:-1]), [q[:-1] for q in s], h)
            rows = [q[1:] - p for q, p in zip(s, after, strict=True)]
        rows += [q[0] for q in s] + [q[-1] - e for q, e in zip(s, (4, 0, 0, 0, 0, 0), strict=True)]
        g = [(s[0] - x) ** 2 + (s[1] - y) ** 2 - radius**2 for x, y, radius in CIRCLES[:circles]]
        return h * ca.sum1((a - m * GRAVITY / 2) ** 2 + (b - m * GRAVITY / 2) ** 2), rows, g

    thrust = m * GRAVITY / 2
    return make(
        f"QUAD {kind[:4]} T={T} {circles}", 8, [4 * r, 0, 0, 1, 0, 0, thrust, thrust], T, build,
        [-INF] * 6 + [0, 0], [INF] * 6 + [15, 15], several=True,
    )  # fmt: skip


def path(n: int = 10, start: str = "straight") -> Problem:
    """Ten points from (0, 0) to (1, 0) past a disc in the middle, shortest squared length."""
    r = np.arange(1, n + 1) / (n + 1)

    def build(z: list) -> tuple:
        x, y = z
        a, b = ca.vertcat(0, x, 1), ca.vertcat(0, y, 0)
        return ca.sumsqr(same(a)) + ca.sumsqr(same(b)), [], [(x - 0.5) ** 2 + y**2 - 0.04]

    offset = {"straight": 0, "near": 1e-3, "beside": 0.1}[start]
    return make(f"PATH {start}", 2, [r, offset], n, build, several=True)


def race(N: int, p0: float = 0.0, v0: float = 1.0, T0: float = 1.0) -> Problem:
    """p' = v, v' = u - v, v <= 1 - sin(2 pi p) / 2, 0 <= u <= 1, p(1) = 1 in the least time; RK4."""
    r = np.arange(N + 1) / N

    def build(z: list) -> tuple:
        p, v, u, h = z
        a, b = rk4(lambda s: [s[1], u[:-1] - s[1]], [p[:-1], v[:-1]], h[:-1])
        rows = [p[1:] - a, v[1:] - b, same(h), p[0], v[0], p[-1] - 1]
        return N * h[-1], rows, [1 - ca.sin(2 * math.pi * p) / 2 - v]

    return make(
        f"RACE N={N} v={v0} T={T0}", 4, [p0 * r, v0, 0, T0 / N], N + 1, build,
        [-INF, -INF, 0, 0], [INF, INF, 1, INF], several=True,
    )  # fmt: skip


def sir(T: int = 40) -> Problem:
    """Rates of an epidemic replicated per stage, fitted to a series; everything >= 0."""
    s, i, data = 0.99, 0.01, []
    for _ in range(T):
        data.append(i)
        s, i = s - 0.5 * s * i, i + 0.5 * s * i - 0.1 * i
    noise = 1 + 0.05 * np.sin(7.0 * np.arange(T) ** 2)
    data = np.array(data) * noise

    def build(z: list) -> tuple:
        s, i, beta, rate = z
        new = beta[:-1] * s[:-1] * i[:-1]
        rows = [s[1:] - s[:-1] + new, i[1:] - i[:-1] - new + rate[:-1] * i[:-1], same(beta), same(rate)]
        return ca.sumsqr(i - data), [*rows, s[0] + i[0] - 1], []

    return make("SIR", 4, [0.9, 0.1, 0.3, 0.2], T, build, [0] * 4, None)


def masses(T: int = 30, count: int = 4) -> Problem:
    """Convex quadratic: a chain of masses between springs, 2 count states, 3 controls, all bounded."""
    n, h = count, 0.5
    K = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    F = np.zeros((n, 3))
    F[0, 0], F[1, 0], F[1, 1], F[2, 1], F[2, 2], F[3, 2] = 1, -1, 1, -1, 1, -1
    big = np.block(
        [[np.zeros((n, n)), np.eye(n), np.zeros((n, 3))], [-K, np.zeros((n, n)), F], [np.zeros((3, 2 * n + 3))]]
    )
    from scipy.linalg import expm

    E = expm(h * big)
    A, B = E[: 2 * n, : 2 * n], E[: 2 * n, 2 * n :]
    x0 = np.random.default_rng(0).uniform(-3, 3, 2 * n)

    def build(z: list) -> tuple:
        u, x = ca.horzcat(*z[:3]), ca.horzcat(*z[3:])
        before = ca.vertcat(ca.DM(x0).T, x[:-1, :])
        return ca.sumsqr(x) + ca.sumsqr(u), [ca.vec((x - before @ A.T - u @ B.T).T)], []

    box = [0.5] * 3 + [4.0] * (2 * n)
    return make(f"MASSES T={T}", 3 + 2 * n, [0.0] * (3 + 2 * n), T, build, [-b for b in box], box)
