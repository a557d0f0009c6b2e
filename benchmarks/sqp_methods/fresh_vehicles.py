# ruff: noqa: E501
"""Vehicles, for `fresh.py`."""

from __future__ import annotations

import math

import casadi as ca
import numpy as np
from cases import INF, Problem
from transcription import LEAST_TIME, square, times, trajectory

pi, exp, sqrt, sin, cos = math.pi, ca.exp, ca.sqrt, ca.sin, ca.cos


def goddard(scheme: str, N: int) -> Problem:
    """Feet, slugs and seconds, final time free, dynamic pressure limited."""

    def slope(x, u):
        h, v, m = x
        return [v, (u[0] - 5.49153484e-5 * v**2 * exp(-h / 23800)) / m - 32.174, -u[0] / 1580.9425]

    t = times(N)
    return trajectory(
        "Goddard, ft", N, slope, [18000 * t, 400, 3 - 2 * t], [96], 30, scheme, {0: 0, 1: 0, 2: 3}, None, {0: (0, INF), 1: (0, INF), 2: (1, 3), 3: (0, 193)},
        final=lambda e, T: -e[0], path=lambda x, u: [20 - 5.49153484e-5 * x[1] ** 2 * exp(-x[0] / 23800)], free=(5, 100),
    )  # fmt: skip


def orbit(scheme: str, N: int, goal: float | None) -> Problem:
    """Low thrust between circular orbits: the largest radius in a fixed time, or a given one in the least."""

    def slope(x, u):
        r, _, a, b, m = x
        push = 0.1405 / m
        return [a, b / r, b**2 / r - 1 / r**2 + push * sin(u[0]), -a * b / r + push * cos(u[0]), -0.0749 + 0 * r]

    t = times(N)
    start, box, first = (
        [1 + 0.3 * t, 2 * t, 0, 1, 1 - 0.2 * t],
        {0: (0.5, 5), 4: (0.05, 1), 5: (-pi, 2 * pi)},
        dict(enumerate([1, 0, 0, 1, 1])),
    )
    if goal is None:
        return trajectory(
            "orbit, farthest",
            N,
            slope,
            start,
            [1],
            3.32,
            scheme,
            first,
            {2: 0},
            box,
            final=lambda e, T: -e[0],
            rows=lambda x, u: [x[3][-1] ** 2 * x[0][-1] - 1],
        )
    return trajectory(
        f"orbit to {goal:g}",
        N,
        slope,
        start,
        [1],
        3,
        scheme,
        first,
        {0: goal, 2: 0, 3: goal**-0.5},
        box,
        final=LEAST_TIME,
        free=(0.1, 12),
    )


def gates(scheme: str, N: int) -> Problem:
    """A planar quadrotor in least time through two gates, past a disc between them."""

    def slope(x, u):
        return [x[3], x[4], x[5], -(u[0] + u[1]) * sin(x[2]), (u[0] + u[1]) * cos(x[2]) - 9.81, 2.5 * (u[0] - u[1])]

    a, b = N // 3, 2 * N // 3
    return trajectory(
        "gates", N, slope, [4 * times(N), 1, 0, 0, 0, 0], [4.9, 4.9], 4, scheme, dict(enumerate([0, 1, 0, 0, 0, 0])), dict(enumerate([4, 1, 0, 0, 0, 0])), {2: (-1.5, 1.5), 6: (0, 12), 7: (0, 12)},
        final=LEAST_TIME, rows=lambda x, u: [x[0][a] - 1.2, x[1][a] - 2, x[0][b] - 2.8, x[1][b] - 0.5], path=lambda x, u: [(x[0] - 2) ** 2 + (x[1] - 1.2) ** 2 - 0.09], free=(0.5, 20),
    )  # fmt: skip


def car(x: list, u: list) -> list:
    """Position, heading, speed, steering angle by acceleration and rate of steering."""
    return [x[3] * cos(x[2]), x[3] * sin(x[2]), x[3] * ca.tan(x[4]) / 2.5, u[0], u[1]]


def parking(scheme: str, N: int, back: bool) -> Problem:
    """Into a gap between two parked cars, rounded boxes, backwards or from a straight line."""
    t = times(N)
    box = lambda x, a: ((x[0] - a) / 2.6) ** 6 + ((x[1] + 1) / 1.6) ** 6 - 1  # noqa: E731
    x, y = (
        (np.where(t < 0.5, -6 + 16 * t, 2 - 4 * (t - 0.5)), 2.5 - 3.3 * np.maximum(0, 2 * t - 1))
        if back
        else (-6 + 6 * t, 2.5 - 3.3 * t)
    )
    return trajectory(
        "parking" + (", back" if back else ""), N, car, [x, y, 0, 0.5, 0], [0, 0], 10, scheme, dict(enumerate([-6, 2.5, 0, 0, 0])), dict(enumerate([0, -0.8, 0, 0, 0])),
        {0: (-10, 10), 1: (-1.5, 6), 2: (-pi, pi), 3: (-2, 2), 4: (-0.6, 0.6), 5: (-1, 1), 6: (-1, 1)}, lambda x, u: 1 + 0.01 * square(u), path=lambda x, u: [box(x, -4.5), box(x, 4.5)], free=(1, 60),
    )  # fmt: skip


def overtaking(scheme: str, N: int) -> Problem:
    """Past a slower car ahead and before an oncoming one, both moving ellipses; straight start through the first."""
    t = times(N)
    first, second = 25 + 12 * 6 * t, 190 - 15 * 6 * t
    ellipse = lambda x, at, y: ((x[0] - at) / 7) ** 2 + ((x[1] - y) / 2.2) ** 2 - 1  # noqa: E731
    return trajectory(
        "overtaking", N, car, [120 * t, 0, 0, 20, 0], [0, 0], 6, scheme, dict(enumerate([0, 0, 0, 18, 0])), {1: 0, 2: 0, 4: 0}, {1: (-1.5, 5), 3: (5, 33), 4: (-0.5, 0.5), 5: (-8, 4), 6: (-0.5, 0.5)},
        lambda x, u: 0.1 * u[0] ** 2 + 50 * u[1] ** 2 + 0.01 * (x[3] - 20) ** 2 + 0.1 * x[1] ** 2, path=lambda x, u: [ellipse(x, first, 0), ellipse(x, second, 3.5)],
    )  # fmt: skip


def race_line(scheme: str, N: int) -> Problem:
    """Least time over a bending track, by arc length: offset, heading, speed, time; friction's circle."""
    s = 300 * times(N)
    bend = 0.02 * np.sin(s / 25) + 0.012 * np.sin(s / 9)

    def slope(x, u):
        n, a, v, _ = x
        k = bend[: n.shape[0]] if n.shape[0] == N + 1 else (bend[1:] + bend[:-1]) / 2
        rate = v * cos(a) / (1 - n * k)
        return [v * sin(a) / rate, v * u[0] / rate - k, u[1] / rate, 1 / rate]

    return trajectory(
        "race line", N, slope, [0, 0, 10, 30 * times(N)], [0, 0], 300, scheme, {0: 0, 1: 0, 2: 10, 3: 0}, None, {0: (-4, 4), 1: (-1, 1), 2: (2, 60), 4: (-0.3, 0.3), 5: (-9, 5)},
        final=lambda e, T: e[3], path=lambda x, u: [81 - u[1] ** 2 - (x[2] ** 2 * u[0]) ** 2],
    )  # fmt: skip


def slew(scheme: str, N: int, kind: str, time: bool) -> Problem:
    """A rigid body turned by 180 degrees and to rest: quaternions, whose norm is a redundant row, or modified Rodrigues parameters."""

    def spin(w, u):
        return [
            (u[0] + (2 - 3) * w[1] * w[2]) / 1,
            (u[1] + (3 - 1) * w[2] * w[0]) / 2,
            (u[2] + (1 - 2) * w[0] * w[1]) / 3,
        ]

    def quaternion(x, u):
        a, b, c, d, *w = x
        p, q, r = w
        return [
            -(b * p + c * q + d * r) / 2,
            (a * p + c * r - d * q) / 2,
            (a * q - b * r + d * p) / 2,
            (a * r + b * q - c * p) / 2,
            *spin(w, u),
        ]

    def rodrigues(x, u):
        *s, p, q, r = x
        k, along = 1 - square(s), s[0] * p + s[1] * q + s[2] * r
        turn = [s[1] * r - s[2] * q, s[2] * p - s[0] * r, s[0] * q - s[1] * p]
        return [(k * w + 2 * c + 2 * a * along) / 4 for w, c, a in zip((p, q, r), turn, s, strict=True)] + spin(
            [p, q, r], u
        )

    t = times(N)
    if kind == "quaternions":
        x, first, last, motion = (
            [np.cos(pi * t / 2), np.sin(pi * t / 2), 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
            [0, 0.6, 0.8, 0, 0, 0, 0],
            quaternion,
        )
    else:
        x, first, last, motion = [0.6 * t, 0.8 * t, 0, 0, 0, 0], [0] * 6, [0.6, 0.8, 0, 0, 0, 0], rodrigues
    n = len(x)
    box = {n + k: (-1, 1) for k in range(3)}
    more = {"final": LEAST_TIME, "free": (0.5, 20)} if time else {"running": lambda x, u: square(u)}
    return trajectory(
        f"slew, {kind}" + (", least time" if time else ""),
        N,
        motion,
        x,
        [0, 0, 0],
        5,
        scheme,
        dict(enumerate(first)),
        dict(enumerate(last)),
        box,
        **more,
    )


def lander(scheme: str, N: int) -> Problem:
    """On the moon in metres and kilograms, least fuel, time free: bang-bang."""
    slope = lambda x, u: [x[1], u[0] / x[2] - 1.62, -u[0] / 3050]  # noqa: E731
    return trajectory(
        "moon lander",
        N,
        slope,
        [1500, -20, 1000],
        [2000],
        60,
        scheme,
        {0: 1500, 1: -20, 2: 1000},
        {0: 0, 1: 0},
        {0: (0, INF), 2: (300, 1000), 3: (0, 4500)},
        final=lambda e, T: -e[2],
        free=(1, 500),
    )


def glider(scheme: str, N: int, still: bool) -> Problem:
    """COPS' hang glider, by other rules than the reference's and from a start that stands still."""

    def slope(x, u):
        px, _, a, b = x
        r = (px / 100 - 2.5) ** 2
        w = b - 2.5 * (1 - r) * exp(-r)
        v = sqrt(a**2 + w**2)
        D, L = 0.5 * (0.034 + 0.069662 * u[0] ** 2) * 15.82 * v, 0.5 * u[0] * 15.82 * v
        return [a, b, (-L * w - D * a) / 100, (L * a - D * w) / 100 - 9.81]

    t = times(N)
    x = [0, 950, 10, -1] if still else [1000 * t, 1000 - 100 * t, 13.23, -1.288]
    return trajectory(
        "glider" + (", still" if still else ""), N, slope, x, [0.7], 100, scheme, {0: 0, 1: 1000, 2: 13.23, 3: -1.288}, {1: 900, 2: 13.23, 3: -1.288}, {0: (0, INF), 2: (0, INF), 4: (0, 1.4)},
        final=lambda e, T: -e[0], free=(1, INF),
    )  # fmt: skip


def reentry(scheme: str, N: int) -> Problem:
    """Betts' shuttle in metres and radians: the largest cross range."""

    def slope(x, u):
        h, _, lat, v, g, psi = x
        deg, mu, r = u[0] * 180 / pi, 3.986e14, 6371200 + h
        rho = 1.2256 * exp(-h / 7254.24)
        q = 0.5 * rho * v**2 * 249.9 / 92079
        L, D = q * (-0.20704 + 0.029244 * deg), q * (0.07854 - 0.0061592 * deg + 0.000621408 * deg**2)
        grav = mu / r**2
        turn = L * sin(u[1]) / (v * cos(g)) + v / r * cos(g) * sin(psi) * sin(lat) / cos(lat)
        return [
            v * sin(g),
            v / r * cos(g) * sin(psi) / cos(lat),
            v / r * cos(g) * cos(psi),
            -D - grav * sin(g),
            L / v * cos(u[1]) + cos(g) * (v / r - grav / v),
            turn,
        ]

    t, d = times(N), pi / 180
    first = [79248, 0, 0, 7803, -d, 90 * d]
    return trajectory(
        "re-entry, m", N, slope, [79248 - 54864 * t, 0, 0, 7803 - 7041 * t, -d, 90 * d], [17 * d, -45 * d], 2000, scheme, dict(enumerate(first)), {0: 24384, 3: 762, 4: -5 * d},
        {0: (0, INF), 2: (-89 * d, 89 * d), 3: (1, INF), 4: (-89 * d, 89 * d), 6: (-90 * d, 90 * d), 7: (-89 * d, d)}, final=lambda e, T: -e[2], free=(500, 4000),
    )  # fmt: skip
