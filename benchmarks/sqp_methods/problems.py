# ruff: noqa: E501
"""The sets of problems, their scalings, and random ones."""

from __future__ import annotations

import casadi as ca
import numpy as np
from cases import INF, Problem, make
from control import bryson_denham, camshape, car, glider, hager2, rocket, steering, yao
from fresh import fresh
from plane import plane
from small import smalls
from trajectories import cart, masses, path, pendulum, quadrotor, race, sir

# --- Scalings ---------------------------------------------------------------------------------------------------------


def scaled(p: Problem, x: float = 1, c: float = 1, f: float = 1, mixed: bool = False, suffix: str = "") -> Problem:
    """The same problem in variables x / scale, with constraints and objective multiplied. `mixed`: scales alternate
    between s and 1 / s."""
    n, m = p.x.numel(), p.c.numel()
    sx, sc = np.full(n, float(x)), np.full(m, float(c))
    if mixed:
        sx[1::2], sc[1::2] = 1 / x, 1 / c
    new = ca.SX.sym("x", n)
    parts = ca.substitute([p.f * f, p.c * ca.DM(sc), p.g], [p.x], [new * ca.DM(sx)])
    optimum = None if p.optimum is None else p.optimum * f
    name = p.name + suffix
    return p._replace(
        name=name, x=new, f=parts[0], c=parts[1], g=parts[2], lower=p.lower / sx, upper=p.upper / sx, x0=p.x0 / sx,
        optimum=optimum,
    )  # fmt: skip


# --- Random ones, and a convex quadratic program ----------------------------------------------------------------------


def random_control(seed: int) -> Problem:
    """Random dynamics, bounds, obstacles, duplicated and inconsistent rows, scalings 1e-8 .. 1e8."""
    rng = np.random.default_rng(seed)
    ns, nu, N = int(rng.integers(1, 5)), int(rng.integers(1, 3)), int(rng.integers(8, 41))
    d = ns + nu
    A, B, S = rng.standard_normal((ns, ns)) / ns**0.5, rng.standard_normal((ns, nu)), rng.standard_normal((ns, ns))
    a, b, h = rng.standard_normal(ns), rng.standard_normal(ns), 2.0 / N
    bend, free_end = rng.choice([0.0, 1.0, 3.0]), rng.random() < 0.4
    limit = rng.choice([INF, 1.0, 3.0, 10.0])
    wall = rng.choice([INF, 1.5, 3.0])
    disc = rng.random() < 0.4 and ns >= 2
    centre, radius = (a + b)[:2] / 2 + 0.2 * rng.standard_normal(2) if ns >= 2 else None, rng.uniform(0.1, 0.5)
    twice, clash = rng.random() < 0.15, rng.random() < 0.1
    s_c = 10.0 ** rng.integers(-8, 9) if rng.random() < 0.3 else 1.0
    s_f = 10.0 ** rng.integers(-8, 9) if rng.random() < 0.2 else 1.0
    q = rng.uniform(0, 1) * rng.choice([0.0, 1.0])

    def build(z: list) -> tuple:
        x, u = ca.horzcat(*z[:ns]), ca.horzcat(*z[ns:])
        rate = x @ A.T + bend * ca.sin(x @ S.T) + u @ B.T
        rows = [ca.vec((x[1:, :] - x[:-1, :] - h / 2 * (rate[1:, :] + rate[:-1, :])).T), (x[0, :] - a[None, :]).T]
        if not free_end:
            rows.append((x[-1, :] - b[None, :]).T)
        if twice:
            rows += [rows[0][: min(4, rows[0].numel())], rows[1]]
        if clash:
            rows.append(x[0, 0] - a[0] - 0.5)
        f = h * (ca.sumsqr(u) + q * ca.sumsqr(x)) + (ca.sumsqr(x[-1, :] - b[None, :]) if free_end else 0)
        g = [(x[:, 0] - centre[0]) ** 2 + (x[:, 1] - centre[1]) ** 2 - radius**2] if disc else []
        return s_f * f, [s_c * ca.vertcat(*rows)], g

    r = np.arange(N + 1) / N
    reach = wall + max(np.max(np.abs(a)), np.max(np.abs(b)))
    box = [reach] * ns + [limit] * nu
    start = [a[i] + r * (b[i] - a[i]) for i in range(ns)] + [0.0] * nu
    return make(f"random {seed}", d, start, N + 1, build, [-v for v in box], box, several=True)


def randoms(first: int = 0, last: int = 300) -> list[Problem]:
    return [random_control(i) for i in range(first, last)]


# --- Lists ------------------------------------------------------------------------------------------------------------


def control() -> list[Problem]:
    return [hager2(), yao(), bryson_denham(), steering(), rocket(), glider(), camshape(), car()]


def equality() -> list[Problem]:
    return [pendulum(100), pendulum(300), pendulum(1000), cart(100), cart(1000)]


def obstacles() -> list[Problem]:
    quads = [
        quadrotor(T, kind, n)
        for T in (31, 61)
        for kind in ("collocation", "trapezoid", "shooting")
        for n in (1, 2, 3, 4)
    ]
    return quads + [path(10, s) for s in ("straight", "near", "beside")]


def others() -> list[Problem]:
    races = [race(N, v0=v, T0=T) for N in (20, 100) for v, T in ((1.0, 1.0), (0.5, 2.0))]
    swing = [pendulum(100, zero=True), pendulum(100, zero=True, limit=6.0), pendulum(100, limit=6.0)]
    return races + swing + [sir()]


def scalings() -> list[Problem]:
    out = []
    for s in (1e-4, 1e4):
        for p in (pendulum(100), car(), bryson_denham()):
            out += [
                scaled(p, x=s, suffix=f" x*{s:g}"), scaled(p, c=s, suffix=f" c*{s:g}"), scaled(p, f=s, suffix=f" f*{s:g}"),
            ]  # fmt: skip
    for p in (pendulum(100), car(), bryson_denham()):
        out += [scaled(p, x=1e2, c=1e-2, mixed=True, suffix=" mixed")]
    return out


def convex() -> list[Problem]:
    return [masses(30), masses(300)]


SETS = {"control": control, "equality": equality, "obstacles": obstacles, "others": others, "small": smalls, "scalings": scalings, "random": randoms, "convex": convex, "fresh": fresh, "plane": plane}  # fmt: skip
