"""A status is a certificate: on a hundred random problems CONVERGED is checked densely against the conditions of first
and second order, INFEASIBLE against those of the violation alone."""

from __future__ import annotations

import numpy as np
from interior_driver import End, Problem, solve
from scipy.linalg import null_space
from scipy.optimize import linprog

from bandhess_common.status import Status

INF = np.inf
SEEDS = range(100)


def random_problem(seed: int) -> tuple[Problem, np.ndarray, np.ndarray]:
    """Indefinite quadratics and a quartic under quadratic equalities and inequalities, some of them contradictory, with
    rows of sizes 1e-3 .. 1e3; and the bounds."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    m, k = int(rng.integers(0, max(1, n - 1))), int(rng.integers(0, 4))
    r = 1 + m + k
    A = rng.normal(size=(r, n, n))
    A = (A + A.transpose(0, 2, 1)) / 2 * rng.choice([0, 0.3, 1], r)[:, None, None]
    b, c = rng.normal(size=(r, n)), rng.normal(size=r) * rng.choice([0.1, 1, 5])
    size = 10.0 ** rng.uniform(-3, 3, r)
    A, b, c = A * size[:, None, None], b * size[:, None], c * size
    quartic = 0.1 * size[0]
    lower = np.where(rng.random(n) < 0.3, -rng.random(n), -INF)
    upper = np.where(rng.random(n) < 0.3, rng.random(n), INF)

    def all_values(x: np.ndarray) -> np.ndarray:
        v = c + b @ x + np.einsum("rij,i,j->r", A, x, x) / 2
        v[0] += quartic * np.sum(x**4)
        return v

    def values(x: np.ndarray) -> tuple:
        v = all_values(x)
        return v[0], v[1:]

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        v, J = all_values(x), b + A @ x
        J[0] += 4 * quartic * x**3
        y = y[: r - 1]
        W = np.tensordot(np.concatenate([[sigma], y]), A, 1) + sigma * np.diag(12 * quartic * x**2)
        return v[0], v[1:], sigma * J[0] + J[1:].T @ y, W, J[1:]

    start = np.clip(rng.normal(size=n) * rng.choice([0.1, 1, 3]), lower, upper)
    return Problem(values, derivatives, start, m, lower, upper), lower, upper


def assert_optimal(p: Problem, end: End, lower: np.ndarray, upper: np.ndarray) -> None:
    """KKT, and a Hessian of the Lagrangian that is positive semidefinite where no active constraint is left."""
    x, y, n = end.x, end.y, len(end.x)
    f, h, dual, W, J = p.derivatives(x, 1.0, y)
    unit = max(np.abs(p.derivatives(at, 1.0, 0 * y)[2]).max() for at in (x, p.x0))
    unit = max(unit, np.abs(J * y[:, None]).max(initial=0))
    assert np.abs(dual - end.z_lower + end.z_upper).max() <= 1e-5 * unit
    assert max(np.abs(h[: p.m]).max(initial=0), -h[p.m :].min(initial=0)) <= 1e-8
    assert np.all(x >= lower - 1e-8)
    assert np.all(x <= upper + 1e-8)
    assert y[p.m :].max(initial=-INF) <= 1e-8 * unit
    gaps = [np.minimum(h[p.m :], 1e3) * -y[p.m :], np.where(lower > -INF, x - lower, 0) * end.z_lower,
            np.where(upper < INF, upper - x, 0) * end.z_upper]  # fmt: skip
    assert np.abs(np.concatenate(gaps)).max(initial=0) <= 1e-5 * max(abs(f), unit)
    rows = np.linalg.norm(J, axis=1) + 1e-300
    active = [J[: p.m], J[p.m :][h[p.m :] <= 1e-5 * rows[p.m :]], np.eye(n)[(x - lower < 1e-5) | (upper - x < 1e-5)]]
    A = np.concatenate(active)
    Z = null_space(A / np.linalg.norm(A, axis=1)[:, None], rcond=1e-9) if len(A) else np.eye(n)
    if Z.shape[1]:
        assert np.linalg.eigvalsh(Z.T @ W @ Z).min() >= -1e-5 * np.linalg.norm(W, 2)


def assert_infeasible(p: Problem, end: End, lower: np.ndarray, upper: np.ndarray) -> None:
    """No direction reduces the sum of the violations, of rows as the engine scales them, by first order."""
    x, radius = end.x, 1e-3
    _, h, _, _, J = p.derivatives(x, 0.0, 0 * end.y)
    h, J = end.row_scales * h, end.row_scales[:, None] * J
    r, n = J.shape
    # min sum s with s >= +-(h + J d) for equalities, s >= -(h + J d) for inequalities
    equal = np.arange(r) < p.m
    rows = np.concatenate([np.hstack([-J, -np.eye(r)]), np.hstack([J, -np.eye(r)])[equal]])
    side = np.concatenate([h, -h[equal]])
    box = [(max(-radius, a - v), min(radius, b - v)) for a, b, v in zip(lower, upper, x, strict=True)]
    best = linprog([0] * n + [1] * r, rows, side, bounds=[(min(a, 0), max(b, 0)) for a, b in box] + [(0, None)] * r)
    now = np.sum(np.where(equal, np.abs(h), np.maximum(-h, 0)))
    assert now > 1e-7
    assert now - best.fun <= 1e-3 * max(now, radius)


def test_ends_are_what_they_say() -> None:
    counts = dict.fromkeys(Status, 0)
    for seed in SEEDS:
        p, lower, upper = random_problem(seed)
        end = solve(p, max_steps=300)
        counts[end.status] += 1
        if end.status == Status.CONVERGED:
            assert_optimal(p, end, lower, upper)
        elif end.status == Status.INFEASIBLE:
            assert_infeasible(p, end, lower, upper)
    assert counts[Status.CONVERGED] >= 60, counts
    assert counts[Status.CONVERGED] + counts[Status.INFEASIBLE] >= 90, counts
