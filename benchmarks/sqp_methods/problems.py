# ruff: noqa: E501, RUF028, RUF059
"""The problems: min f(x), c(x) = 0, g(x) >= 0, lower <= x <= upper, written once in CasADi, in order of stages.

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
GRAVITY = 9.81


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


# --- The optimal control problems of the reference ------------------------------------------------------------------


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


# --- C1, C2 -----------------------------------------------------------------------------------------------------------


def rk4(slope: Callable, x: list, h: Any) -> list:
    def ahead(k: list, step: Any) -> list:
        return [a + step * b for a, b in zip(x, k, strict=True)]

    k1 = slope(x)
    k2 = slope(ahead(k1, h / 2))
    k3 = slope(ahead(k2, h / 2))
    k4 = slope(ahead(k3, h))
    return [a + h / 6 * (p + 2 * q + 2 * r + s) for a, p, q, r, s in zip(x, k1, k2, k3, k4, strict=True)]


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


# --- Small ones -------------------------------------------------------------------------------------------------------


def small(name: str, start: list, build: Callable, lower: Any = None, upper: Any = None, **more: Any) -> Problem:
    n = len(start)
    x = ca.SX.sym("x", n)
    f, c, g = build(x)
    low = np.broadcast_to(np.asarray(-INF if lower is None else lower, float), (n,)).copy()
    up = np.broadcast_to(np.asarray(INF if upper is None else upper, float), (n,)).copy()
    return Problem(name, x, ca.SX(f), vertcat(c), vertcat(g), low, up, np.array(start, float), **more)


def smalls() -> list[Problem]:
    out = []
    for s in (0.0, 1e-12):
        out.append(small(f"square=1 from {s:g}", [s] * 3, lambda x: (ca.sumsqr(x - 3), [x**2 - 1], []), optimum=12.0))
    out.append(small("x0 x1 saddle", [1, 1], lambda x: (x[0] * x[1], [x[0] + x[1] - 2], []), 0, 4, optimum=0.0))
    out.append(small("double wells", [0] * 4, lambda x: (ca.sumsqr(x**2 - 1), [], []), -5, 5, optimum=0.0))
    disc = lambda x: (  # noqa: E731
        ca.sumsqr(x - ca.DM([2.1, 1.5])), [], [ca.sumsqr(x - ca.DM([-0.1, 0.2])) - 0.5],
    )  # fmt: skip
    out.append(small("disc outside", [-3.4, -1.6], disc, optimum=0.0))
    wave = lambda p: lambda x: (  # noqa: E731
        ca.sumsqr(x - ca.DM(p)), [ca.sumsqr(x) - 2 + 0.3 * ca.sin(3 * x[0])], [],
    )  # fmt: skip
    out.append(small("wave bounded", [-2.6, -0.9], wave([0.8, 1.3]), [0, -0.6], several=True))
    out.append(small("wave", [-2.9, -1.9], wave([0.3, 0.0]), several=True))
    for s in (1e-8, 1e-4, 1.0, 1e4, 1e8):
        out.append(
            small(
                f"rows s={s:g}",
                [0, 0, 0],
                lambda x, s=s: (ca.sumsqr(x), [x[0] + x[1] - 1, s * (x[1] + x[2] - 1)], []),
                optimum=2 / 3,
            )  # fmt: skip
        )
    for e in (1e-6, 1e-7):
        out.append(
            small(
                f"dependent {e:g}",
                [0, 0, 0],
                lambda x, e=e: (ca.sumsqr(x), [x[0] + x[1] - 1, x[0] + (1 + e) * x[1] - 1 - e / 2], []),
                optimum=0.5,
            )  # fmt: skip
        )
    out.append(
        small("redundant", [0, 0, 0], lambda x: (ca.sumsqr(x), [x[0] + x[1] - 1, x[0] + x[1] - 1], []), optimum=0.5)
    )
    out.append(
        small(
            "squared row",
            [0, 0, 0],
            lambda x: (ca.sumsqr(x), [(x[0] - 1) ** 2, x[1] + x[2] - 1], []),
            optimum=1.5,
        )  # fmt: skip
    )
    out.append(small("1e8 (x - 1)", [0], lambda x: (ca.sumsqr(x), [1e8 * (x[0] - 1)], []), optimum=1.0))
    out.append(small("x>=2, x<=1", [0], lambda x: (1e16 * ca.sumsqr(x), [], [x[0] - 2, 1 - x[0]]), ending="INFEASIBLE"))
    out.append(small("circle apart", [1, 1], lambda x: (x[0], [ca.sumsqr(x) + 1], []), ending="INFEASIBLE"))
    out.append(
        small(
            "Waechter-Biegler",
            [-2, 3, 1],
            lambda x: (x[0], [x[0] ** 2 - x[1] - 1, x[0] - x[2] - 0.5], []),
            [-INF, 0, 0],
            optimum=1.0,
        )  # fmt: skip
    )
    out.append(small("unbounded", [1, 1], lambda x: (-(x[0] ** 2), [x[1] - 1], []), ending="UNBOUNDED"))
    out.append(
        small("max on a circle", [1, 0], lambda x: (-(x[0] ** 2) - 2 * x[1] ** 2, [ca.sumsqr(x) - 1], []), optimum=-2.0)
    )
    out.append(
        small(
            "Maratos",
            [math.cos(0.5), math.sin(0.5)],
            lambda x: (2 * (ca.sumsqr(x) - 1) - x[0], [ca.sumsqr(x) - 1], []),
            optimum=-1.0,
        )
    )
    out.append(
        small(
            "MPCC",
            [1, 1],
            lambda x: ((x[0] - 1) ** 2 + (x[1] - 2) ** 2, [], [-x[0] * x[1]]),
            0,
            None,
            several=True,
            optimum=1.0,
        )
    )
    return out


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


SETS = {"control": control, "equality": equality, "obstacles": obstacles, "others": others, "small": smalls, "scalings": scalings}  # fmt: skip


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


SETS |= {"random": randoms, "convex": lambda: [masses(30), masses(300)]}
