"""The objectives, each written once for both backends, with its Hessian in closed form in NumPy.

`Problem.objective(xp)` is the function, for xp = jax.numpy or torch; `Problem.hessian` is dense, from a formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from chains import (
    blog_chain,
    broyden_chain,
    cosine_chain,
    curly10_chain,
    engval1_chain,
    genrose_chain,
    rosenbrock_chain,
    tridia_chain,
    window_chain,
)
from oracles import Problem, assemble, integers, ravel, reals, sizes, tree_leaves, unique_coefficients


def staged_polynomial(name: str, x: Any, k: int, seed: int = 3) -> Problem:
    """sum_{r, j} c[r, j] x_j x_{j+r} + sum_j c[0, j] x_j^3, over pairs at most k stages apart, c unique integers."""
    T, d = sizes(x)
    flat, dummy = ravel(x)
    n = T * d
    rows = min((k + 1) * d, n)
    c = unique_coefficients(rows, n, seed)
    h = np.zeros((n, n))
    for r in range(rows):
        for j in range(n):
            if j + r >= n or (j + r) // d - j // d > k or dummy[j] or dummy[min(j + r, n - 1)]:
                c[r, j] = 0
            elif r == 0:
                h[j, j] = 2 * c[0, j] + 6 * c[0, j] * flat[j]
            else:
                h[j, j + r] = h[j + r, j] = c[r, j]
    h += np.diag(dummy.astype(float))  # dummy variables: unit diagonal, no coupling

    def objective(xp: Any) -> Callable:
        def fun(tree: Any, c: Any) -> Any:
            columns = []
            for leaf in tree_leaves(tree):
                column = leaf.reshape(leaf.shape[0], -1)
                gap = [xp.zeros_like(column[:1])] * (T - leaf.shape[0])
                columns.append(xp.concatenate([column, *gap], 0))
            v = xp.concatenate(columns, 1).reshape(-1)
            value = xp.sum(c[0] * v**3)
            for r in range(rows):
                value = value + xp.sum(c[r, : n - r] * v[: n - r] * v[r:])
            return value

        return fun

    return Problem(name, objective, x, k, h, (c,), exact=True)


def polynomial(n: int, k: int) -> Problem:
    return staged_polynomial(f"polynomial n={n} w={k}", integers(n, n + k), k)


BUMPS = ((0.30, 0.38, 0.10), (0.62, 0.52, 0.12), (0.75, 0.86, 0.08))
KAPPA = 1e-3


def path2d(xp: Any) -> Callable:
    """A stiff path among smooth bumps; takes the points as (N, 2) or flat (2 N,)."""

    def fun(x: Any) -> Any:
        p = x.reshape(-1, 2)
        h = 1 / (p.shape[0] + 1)
        start = xp.zeros_like(p[:1])
        full = xp.concatenate([start, start, p, start + 1, start + 1], 0)
        first, second = full[1:] - full[:-1], full[2:] - 2 * full[1:-1] + full[:-2]
        value = xp.sum(first**2) / (2 * h) + KAPPA / (2 * h**3) * xp.sum(second**2)
        for cx, cy, s in BUMPS:
            value = value + 20 * h * xp.sum(xp.exp(-((p[:, 0] - cx) ** 2 + (p[:, 1] - cy) ** 2) / (2 * s**2)))
        return value

    return fun


def path2d_start(n: int) -> np.ndarray:
    t = np.arange(1, n // 2 + 1) / (n // 2 + 1)
    arch = 0.3 * np.sin(np.pi * t) / np.sqrt(2)
    return np.stack([t - arch, t + arch], 1).ravel()


def path2d_hessian(x: np.ndarray) -> np.ndarray:
    p = x.reshape(-1, 2)
    N = len(p)
    h = 1 / (N + 1)

    def point(i: int) -> int:  # the doubled ends are fixed
        return i if 0 <= i < N else -1

    elements = []
    for c in range(2):

        def at(i: int, c: int = c) -> int:
            return 2 * point(i) + c if point(i) >= 0 else -1

        d1, d2 = np.array([-1, 1]), np.array([1, -2, 1])
        elements += [((at(i), at(i + 1)), np.outer(d1, d1) / h) for i in range(-2, N + 1)]
        elements += [((at(i - 1), at(i), at(i + 1)), np.outer(d2, d2) * KAPPA / h**3) for i in range(-1, N + 1)]
    for i in range(N):
        for cx, cy, s in BUMPS:
            r = p[i] - (cx, cy)
            bump = 20 * h * np.exp(-r @ r / (2 * s**2))
            elements.append(((2 * i, 2 * i + 1), bump * (np.outer(r, r) / s**4 - np.eye(2) / s**2)))
    return assemble(2 * N, elements)


def path2d_flat(n: int) -> Problem:
    x = path2d_start(n)
    return Problem("path2d flat", path2d, x, 4, path2d_hessian(x))


def path2d_stages(n: int) -> Problem:
    x = path2d_start(n)
    return Problem("path2d stages", path2d, x.reshape(-1, 2), 2, path2d_hessian(x))


STEP = 0.5
MIX = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.75]])


def steering(xp: Any) -> Callable:
    """For {"q": (T, 3), "u": (T, 2) or (T - 1, 2)}, and r_t = q_{t+1} - q_t - STEP (sin q_t + mix u_t):
    sum r^2 / 2 + u^4 / 4 + q^2 / 2."""

    def fun(x: Any, mix: Any) -> Any:
        q, u = x["q"], x["u"]
        r = q[1:] - q[:-1] - STEP * (xp.sin(q[:-1]) + u[: q.shape[0] - 1] @ mix.T)
        return 0.5 * xp.sum(r**2) + xp.sum(u**4) / 4 + 0.5 * xp.sum(q**2)

    return fun


def steering_stages(T: int, ragged: bool) -> Problem:
    q, u = reals(3 * T, 5).reshape(T, 3), reals(2 * T, 6).reshape(T, 2)[: T - ragged]
    elements = [(range(5 * T), np.diag(np.tile([1.0, 1, 1, 0, 0], T)))]
    for t in range(len(u)):
        elements.append((range(5 * t + 3, 5 * t + 5), np.diag(3 * u[t] ** 2)))
    for t in range(T - 1):
        r = q[t + 1] - q[t] - STEP * (np.sin(q[t]) + MIX @ u[t])
        J = np.hstack([-np.eye(3) - STEP * np.diag(np.cos(q[t])), -STEP * MIX, np.eye(3)])
        curvature = np.diag(np.concatenate([STEP * np.sin(q[t]) * r, np.zeros(5)]))
        elements.append((range(5 * t, 5 * t + 8), J.T @ J + curvature))
    if ragged:
        elements.append((range(5 * T - 2, 5 * T), np.eye(2)))  # the dummies
    name = "steering ragged" if ragged else "steering"
    return Problem(name, steering, {"q": q, "u": u}, 1, assemble(5 * T, elements), (MIX,))


TREE = {"q": integers(24, 12).reshape(8, 3), "u": integers(16, 13).reshape(8, 2)}
RAGGED_TREE = {"q": integers(18, 14).reshape(6, 3), "u": integers(20, 15).reshape(5, 2, 2)}
PROBLEMS = [
    blog_chain(12),
    rosenbrock_chain(17),
    genrose_chain(15),
    polynomial(14, 0),
    polynomial(23, 3),
    polynomial(5, 4),
    staged_polynomial("polynomial matrix k=2", integers(27, 16).reshape(9, 3), 2),
    staged_polynomial("polynomial tree k=1", TREE, 1),
    staged_polynomial("polynomial tree k=0", TREE, 0),
    staged_polynomial("polynomial ragged k=2", RAGGED_TREE, 2),
    window_chain(20, 2),
    window_chain(31, 5),
    path2d_flat(24),
    path2d_stages(24),
    steering_stages(7, ragged=False),
    steering_stages(7, ragged=True),
    engval1_chain(16),
    cosine_chain(16),
    tridia_chain(16),
    broyden_chain(18),
    curly10_chain(25),
]
