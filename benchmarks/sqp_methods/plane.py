"""Random problems of two to four variables: curves, discs and bounds, and each with a fault of eight kinds."""

from __future__ import annotations

import casadi as ca
import numpy as np
from cases import INF, Problem, small

OBJECTIVES = ("near", "near", "near", "weighted", "linear", "quartic", "product")
CURVES = ("circle", "wave", "cubic", "hyperbola", "ellipse", "sine", "lemniscate", "exponential")
FAULTS = ("twice", "squared", "origin", "fixed", "scaled x", "scaled rows", "scaled f", "large bounds")


def objective(kind: str, x: ca.SX, at: np.ndarray, weights: np.ndarray, slope: np.ndarray) -> ca.SX:
    far = x - at
    return {
        "near": ca.sumsqr(far),
        "weighted": ca.sumsqr(far * weights),
        "linear": ca.dot(slope, x) + 0.05 * ca.sumsqr(x),
        "quartic": ca.sumsqr(far**2) + 0.1 * ca.dot(slope, x),
        "product": x[0] * x[1] + 0.3 * ca.sumsqr(far),
    }[kind]


def curve(kind: str, x: ca.SX, order: np.ndarray, size: float, bend: float, often: float, slope: np.ndarray) -> ca.SX:
    a, b = x[int(order[0])], x[int(order[1])]
    return {
        "circle": ca.sumsqr(x) - size**2,
        "wave": ca.sumsqr(x) - size**2 + bend * ca.sin(often * a),
        "cubic": b - bend * a**3 + a / 2 - 0.2,
        "hyperbola": a * b - bend,
        "ellipse": a**2 + 4 * b**2 - size**2 + 0.2 * ca.dot(slope, x),
        "sine": b - bend * ca.sin(often * a),
        "lemniscate": (a**2 + b**2) ** 2 - size * (a**2 - b**2) - 0.1,
        "exponential": ca.exp(bend * a) - size - b,
    }[kind]


def plain(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([2, 2, 2, 3, 4]))
    kind, at = str(rng.choice(OBJECTIVES)), rng.uniform(-2.5, 2.5, n)
    weights, slope = 10 ** rng.uniform(-1, 1, n), rng.standard_normal(n)
    curves = [
        (
            str(rng.choice(CURVES)),
            rng.permutation(n),
            *rng.uniform([0.5, 0.1, 1], [2.5, 0.9, 5]),
            rng.standard_normal(n),
        )
        for _ in range(int(rng.choice([0, 1, 1, 1, 2] if n > 2 else [0, 1, 1])))
    ]
    discs = [(rng.uniform(-1.5, 1.5, n), rng.uniform(0.2, 1.2), rng.random() < 0.2) for _ in range(rng.integers(3))]
    held = rng.random(n) < 0.25, rng.random(n) < 0.15
    lower, upper = np.where(held[0], rng.uniform(-2, 0.3, n), -INF), np.where(held[1], rng.uniform(0.4, 2.5, n), INF)

    def build(x: ca.SX) -> tuple:
        rows = [curve(shape, x, order, *numbers) for shape, order, *numbers in curves]
        outside = [4 - ca.sumsqr(x - m) if within else ca.sumsqr(x - m) - r**2 for m, r, within in discs]
        return objective(kind, x, at, weights, slope), rows, outside

    return small(f"plane {seed}", list(rng.uniform(-3.5, 3.5, n)), build, lower, upper, several=True)


def faulty(seed: int) -> Problem:
    """With a first row that stands there twice, times 1 + x0^2, or squared, beside itself or alone; from the origin; a
    variable fixed by its bounds; variables, rows or f times 1e-6 to 1e8; bounds of 1e3 to 1e12."""
    rng, p, fault = np.random.default_rng(77_000 + seed), plain(seed), FAULTS[seed % len(FAULTS)]
    c, n = p.c, p.x.numel()
    scale = float(10.0 ** rng.integers(-6, 9))
    if fault in ("twice", "squared") and not c.numel():
        return p
    if fault == "twice":
        p = p._replace(c=ca.vertcat(c, c[0] * (1 + p.x[0] ** 2)))
    elif fault == "squared":
        p = p._replace(
            c=ca.vertcat(c, c[0] ** 2) if rng.random() < 0.5 else ca.vertcat(c[0] ** 2, *ca.vertsplit(c)[1:])
        )
    elif fault == "origin":
        p = p._replace(x0=np.zeros(n))
    elif fault == "fixed":
        at = int(rng.integers(n))
        value = np.clip(p.x0[at] / 3, p.lower[at], p.upper[at])
        lower, upper = (np.where(np.arange(n) == at, value, side) for side in (p.lower, p.upper))
        p = p._replace(lower=lower, upper=upper)
    elif fault == "scaled x":
        new = ca.SX.sym("x", n)
        f, c, g = ca.substitute([p.f, p.c, p.g], [p.x], [new * scale])
        p = p._replace(x=new, f=f, c=c, g=g, lower=p.lower / scale, upper=p.upper / scale, x0=p.x0 / scale)
    elif fault == "scaled rows":
        p = p._replace(c=c * scale)
    elif fault == "scaled f":
        p = p._replace(f=p.f * scale)
    else:
        large = 10.0 ** rng.integers(3, 13)
        p = p._replace(lower=np.maximum(p.lower, -large), upper=np.minimum(p.upper, large))
    return p._replace(name=f"plane {seed} {fault}")


def plane() -> list[Problem]:
    return [faulty(seed) for seed in range(400)]
