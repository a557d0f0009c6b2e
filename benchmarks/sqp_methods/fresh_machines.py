# ruff: noqa: E501
"""Robots, pendulums and cranes, for `fresh.py`."""

from __future__ import annotations

import math

import casadi as ca
import numpy as np
from cases import INF, Problem
from transcription import LEAST_TIME, times, trajectory

pi, sin, cos = math.pi, ca.sin, ca.cos


def flying_robot(scheme: str, N: int) -> Problem:
    """Sakawa's, with thrust's parts of either sign: min sum |u|, singular, bang-bang."""

    def slope(x, u):
        a, b = u[0] - u[1], u[2] - u[3]
        return [x[3], x[4], x[5], (a + b) * cos(x[2]), (a + b) * sin(x[2]), 0.2 * a - 0.2 * b]

    t = times(N)
    return trajectory(
        "free-flying robot", N, slope, [-10 + 10 * t, -10 + 10 * t, pi / 2 * (1 - t), 0, 0, 0], [0, 0, 0, 0], 12, scheme, dict(enumerate([-10, -10, pi / 2, 0, 0, 0])),
        dict(enumerate([0] * 6)), {6 + k: (0, 1) for k in range(4)}, lambda x, u: sum(u), path=lambda x, u: [1 - u[0] - u[1], 1 - u[2] - u[3]],
    )  # fmt: skip


def cart_pole(scheme: str, N: int, time: bool) -> Problem:
    """Swing-up from rest, everything 0 at first, force and rail limited."""

    def slope(x, u):
        s, c, w = sin(x[1]), cos(x[1]), x[3]
        mass = 1 + 0.3 * s**2
        return [
            x[2],
            w,
            (0.15 * s * w**2 + u[0] + 2.943 * c * s) / mass,
            -(0.15 * c * s * w**2 + u[0] * c + 12.753 * s) / (0.5 * mass),
        ]

    box, first, last = {0: (-1.5, 1.5), 4: (-12, 12)}, dict(enumerate([0, 0, 0, 0])), dict(enumerate([0, pi, 0, 0]))
    if time:
        return trajectory(
            "cart-pole in least time",
            N,
            slope,
            [0, pi * times(N), 0, 0],
            [0],
            2,
            scheme,
            first,
            last,
            box,
            final=LEAST_TIME,
            free=(0.1, 10),
        )
    return trajectory(
        "cart-pole from rest", N, slope, [0, 0, 0, 0], [0], 2.5, scheme, first, last, box, lambda x, u: u[0] ** 2
    )


def acrobot(scheme: str, N: int, T: float = 4) -> Problem:
    """A double pendulum with a motor at its elbow alone, from hanging to standing."""

    def slope(x, u):
        a, b, p, q = x
        c, s = cos(b), sin(b)
        m11, m12, m22 = 3 + 2 * c, 1 + c, 1.0
        h1 = -s * (2 * p * q + q**2) + 9.81 * (2 * sin(a) + sin(a + b))
        h2 = s * p**2 + 9.81 * sin(a + b)
        det = m11 * m22 - m12**2
        return [p, q, (-m22 * h1 - m12 * (u[0] - h2)) / det, (m12 * h1 + m11 * (u[0] - h2)) / det]

    t = times(N)
    return trajectory(
        "acrobot",
        N,
        slope,
        [pi * t, 0, 0, 0],
        [0],
        T,
        scheme,
        dict(enumerate([0] * 4)),
        {0: pi, 1: 0, 2: 0, 3: 0},
        {4: (-25, 25)},
        lambda x, u: u[0] ** 2,
    )


def arm(scheme: str, N: int) -> Problem:
    """Two links in a plane, torques limited, least time, from all at rest."""

    def slope(x, u):
        _, b, p, q = x
        c, s = cos(b), sin(b)
        m11, m12, m22 = 5 / 3 + c, 1 / 3 + c / 2, 1 / 3
        f1, f2 = u[0] + s * q * (2 * p + q) / 2, u[1] - s * p**2 / 2
        det = m11 * m22 - m12**2
        return [p, q, (m22 * f1 - m12 * f2) / det, (m11 * f2 - m12 * f1) / det]

    return trajectory(
        "two-link arm",
        N,
        slope,
        [0, 0, 0, 0],
        [0, 0],
        2,
        scheme,
        {0: 0, 1: 0, 2: 0, 3: 0},
        {0: 0.5, 1: 0.522, 2: 0, 3: 0},
        {4: (-1, 1), 5: (-1, 1)},
        final=LEAST_TIME,
        free=(0, 20),
    )


def robot(scheme: str, N: int) -> Problem:
    """COPS: a telescopic arm in least time."""

    def slope(x, u):
        r, _, c, *rates = x
        inertia = ((5 - r) ** 3 + r**3) / 3
        return [*rates, u[0] / 5, u[1] / (inertia * sin(c) ** 2), u[2] / inertia]

    t = times(N)
    ends = [4.5, 0, pi / 4, 0, 0, 0]
    return trajectory(
        "robot arm", N, slope, [4.5, 2 * pi / 3 * t, pi / 4, 0, 0, 0], [0, 0, 0], 1, scheme, dict(enumerate(ends)), dict(enumerate([4.5, 2 * pi / 3, pi / 4, 0, 0, 0])),
        {0: (0, 5), 1: (-pi, pi), 2: (0, pi), 6: (-1, 1), 7: (-1, 1), 8: (-1, 1)}, final=LEAST_TIME, free=(0, INF),
    )  # fmt: skip


def crane(scheme: str, N: int) -> Problem:
    """Sakawa and Shindo's container crane."""

    def slope(x, u):
        return [x[3], x[4], x[5], u[0] + 17.2656 * x[2], u[1], -(u[0] + 27.0756 * x[2] + 2 * x[4] * x[5]) / x[1]]

    box = {1: (5, 30), 3: (-2.5, 2.5), 4: (-1, 1), 6: (-2.834, 2.834), 7: (-0.809, 0.713)}
    return trajectory(
        "crane",
        N,
        slope,
        [0, 22, 0, 0, 0, 0],
        [0, 0],
        9,
        scheme,
        dict(enumerate([0, 22, 0, 0, -1, 0])),
        dict(enumerate([10, 14, 0, 2.5, 0, 0])),
        box,
        lambda x, u: x[2] ** 2 + x[5] ** 2,
    )


def pendulum_dae(N: int) -> Problem:
    """A pendulum in Cartesian coordinates, its rod's force an unknown of each stage, to rest on top in 2 s; implicit Euler."""
    h, t = 2 / N, times(N)

    def rows(x, u):
        px, py, vx, vy = x
        ax, ay = -u[1] * px - u[0] * py, -u[1] * py - 9.81 + u[0] * px
        out = [b[1:] - b[:-1] - h * k[1:] for b, k in ((px, vx), (py, vy), (vx, ax), (vy, ay))]
        hold = px**2 + py**2 - 1
        return [*out, hold[1:], px[0], py[0] + 1, vx[0], vy[0], py[-1] - 1, vx[-1]]

    p = trajectory(
        "pendulum as a DAE",
        N,
        lambda x, u: x,
        [np.sin(pi * t), -np.cos(pi * t), 0, 0],
        [0, 0],
        2,
        box={4: (-12, 12)},
        running=lambda x, u: u[0] ** 2,
        rows=rows,
    )
    return p._replace(c=p.c[4 * N :], name=p.name.replace("trap", "Euler"))


def block(scheme: str, N: int) -> Problem:
    """Kelly's block moved by the least absolute work, whose parts of either sign are variables."""
    slope = lambda x, u: [x[1], u[0]]  # noqa: E731
    return trajectory(
        "block, |work|",
        N,
        slope,
        [0, 0],
        [0, 0, 0],
        1,
        scheme,
        {0: 0, 1: 0},
        {0: 1, 1: 0},
        {2: (-8, 8), 3: (0, INF), 4: (0, INF)},
        lambda x, u: u[1] + u[2],
        rows=lambda x, u: [u[1] - u[2] - u[0] * x[1]],
    )
