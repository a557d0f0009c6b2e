# ruff: noqa: E501
"""Classical problems of optimal control, for `fresh.py`."""

from __future__ import annotations

import casadi as ca
import numpy as np
from cases import INF, Problem, stages
from transcription import times, trajectory

sqrt, sin, cos = ca.sqrt, ca.sin, ca.cos


def van_der_pol(scheme: str, N: int, time: bool) -> Problem:
    def slope(x, u):
        return [x[1], -x[0] + x[1] * (1 - x[0] ** 2) + u[0]]

    if time:
        return trajectory(
            "van der Pol in least time",
            N,
            slope,
            [0, 0],
            [0],
            1,
            scheme,
            {0: 1, 1: 1},
            {0: 0, 1: 0},
            {2: (-1, 1)},
            final=lambda e, T: T,
            free=(0, INF),
        )
    return trajectory(
        "van der Pol, x >= -.4",
        N,
        slope,
        [0, 0],
        [0],
        5,
        scheme,
        {0: 0, 1: 1},
        None,
        {0: (-INF, INF), 1: (-0.4, INF), 2: (-1, 1)},
        lambda x, u: x[0] ** 2 + x[1] ** 2 + u[0] ** 2,
    )


def rayleigh(scheme: str, N: int) -> Problem:
    def slope(x, u):
        return [x[1], -x[0] + x[1] * (1.4 - 0.14 * x[1] ** 2) + 4 * u[0]]

    return trajectory(
        "Rayleigh, mixed",
        N,
        slope,
        [0, 0],
        [0],
        4.5,
        scheme,
        {0: -5, 1: -5},
        None,
        None,
        lambda x, u: x[0] ** 2 + u[0] ** 2,
        path=lambda x, u: [-u[0] - x[0] / 6],
    )


def hypersensitive(scheme: str, N: int, T: float) -> Problem:
    return trajectory(
        f"hypersensitive T={T:g}",
        N,
        lambda x, u: [-(x[0] ** 3) + u[0]],
        [0],
        [0],
        T,
        scheme,
        {0: 1.5},
        {0: 1},
        None,
        lambda x, u: x[0] ** 2 + u[0] ** 2,
    )


def alp_rider(scheme: str, N: int) -> Problem:
    """Four stiff states that must stay above four peaks of time."""
    t = 20 * times(N)
    peaks = 0.01 + sum(a * np.exp(-b * (t - c) ** 2) for a, b, c in ((3, 12, 3), (3, 10, 6), (3, 6, 10), (8, 4, 15)))

    def slope(x, u):
        a, b, c, d = x
        v, w = u
        return [-10 * a + v + w, -2 * b + v - 2 * w, -3 * c + 5 * d + v - w, 5 * c - 3 * d + v + 3 * w]

    square = lambda x: sum(a**2 for a in x)  # noqa: E731
    return trajectory(
        "alp rider", N, slope, [2, 1 + t / 10, 2 - t / 20, 1 - 3 * t / 20], [0, 0], 20, scheme, dict(enumerate([2, 1, 2, 1])), dict(enumerate([2, 3, 1, -2])), None,
        lambda x, u: 100 * square(x) + 0.01 * square(u), path=lambda x, u: [square(x) - peaks],
    )  # fmt: skip


def chain(scheme: str, N: int) -> Problem:
    slope = lambda x, u: [u[0], x[0] * sqrt(1 + u[0] ** 2), sqrt(1 + u[0] ** 2)]  # noqa: E731
    return trajectory(
        "chain", N, slope, [2, 2, 2], [0], 1, scheme, {0: 1, 1: 0, 2: 0}, {0: 3, 2: 4}, final=lambda e, T: e[1]
    )


def brachistochrone(scheme: str, N: int) -> Problem:
    """With a wall, from rest and at rest everywhere: the start's speed is 0."""
    slope = lambda x, u: [x[2] * sin(u[0]), x[2] * cos(u[0]), 9.81 * cos(u[0])]  # noqa: E731
    return trajectory(
        "brachistochrone, wall", N, slope, [0, 0, 0], [0], 1, scheme, {0: 0, 1: 0, 2: 0}, {0: 2}, {3: (-3.2, 3.2)}, final=lambda e, T: T,
        path=lambda x, u: [0.5 * x[0] + 0.2 - x[1]], free=(0, INF),
    )  # fmt: skip


def zermelo(scheme: str, N: int) -> Problem:
    slope = lambda x, u: [cos(u[0]) - x[1] + 0.3 * sin(x[0]), sin(u[0]) + 0.2 * x[0]]  # noqa: E731
    return trajectory(
        "Zermelo",
        N,
        slope,
        [3.66, -1.86],
        [0],
        5,
        scheme,
        {0: 3.66, 1: -1.86},
        {0: 0, 1: 0},
        {2: (-6.3, 6.3)},
        final=lambda e, T: T,
        free=(0, INF),
    )


def estimation(scheme: str, N: int) -> Problem:
    """A pendulum's angle measured with outliers, Cauchy's loss; its noise and its friction are sought, too."""
    t = 6 * times(N)
    data = 2.2 * np.cos(2.3 * t) * np.exp(-0.12 * t) + 0.05 * np.sin(40 * t**2)
    data[5::9] += 3 * (-1) ** np.arange(len(data[5::9]))
    p = trajectory(
        "estimation",
        N,
        lambda x, u: [x[1], -9.81 * sin(x[0]) - x[2] * x[1] + u[0], 0],
        [0, 0, 0],
        [0],
        6,
        scheme,
        None,
        None,
        {2: (0, 5)},
        lambda x, u: 5 * u[0] ** 2,
    )
    return p._replace(f=p.f + ca.sum1(ca.log(1 + ((p.x[::4] - data) / 0.1) ** 2)))


def polygon(n: int) -> Problem:
    """COPS: the largest polygon of diameter 1; all corners against all."""
    x = ca.SX.sym("x", 2 * n)
    r, a = ca.vertcat(x[::2], 0), ca.vertcat(x[1::2], np.pi)
    far = [1 - r[i] ** 2 - r[j] ** 2 + 2 * r[i] * r[j] * cos(a[j] - a[i]) for i in range(n) for j in range(i + 1, n)]
    i = np.arange(1, n + 1) / (n + 1)
    f = -ca.sum1(r[1:] * r[:-1] * sin(a[1:] - a[:-1])) / 2
    g = ca.vertcat(*far, a[1:] - a[:-1])
    return Problem(
        f"polygon n={n}",
        x,
        f,
        ca.SX(0, 1),
        g,
        np.zeros(2 * n),
        stages([1, np.pi], n),
        stages([4 * i * (1 - i), np.pi * i], n),
        several=True,
    )
