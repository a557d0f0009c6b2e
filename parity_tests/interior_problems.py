"""Small problems for the compiled interior-point engine, with derivatives written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from interior_driver import Problem

INF = np.inf


def problem(f: Callable, h: Callable, x0: Any, **more: Any) -> Problem:
    """f(x) -> f, f', f''; h(x) -> h, J, [h_i'']."""

    def values(x: np.ndarray) -> tuple:
        return f(x)[0], np.array(h(x)[0], float)

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        value, g, W = f(x)
        rows, J, curved = h(x)
        rows, J = np.array(rows, float), np.array(J, float).reshape(len(rows), len(x))
        W = sigma * np.array(W, float)
        for i, C in enumerate(curved):
            W = W + y[i] * np.array(C, float)
        return value, rows, sigma * np.array(g, float) + J.T @ y[: len(rows)], W, J

    return Problem(values, derivatives, np.array(x0, float), **more)


def none(x: np.ndarray) -> tuple:
    return [], np.zeros((0, len(x))), []


def linear(A: Any, b: Any) -> Callable:
    A = np.array(A, float)
    return lambda x: (A @ x - b, A, [0 * np.eye(len(x))] * len(A))


def square(weights: Any, centre: Any) -> Callable:
    weights, centre = np.array(weights, float), np.array(centre, float)
    return lambda x: (
        weights @ (x - centre) ** 2 / 2, weights * (x - centre), np.diag(weights),
    )  # fmt: skip


def circle(x: np.ndarray) -> tuple:
    return [x @ x - 1], [2 * x], [2 * np.eye(len(x))]


def chain(T: int, bound: float) -> Problem:
    """A pendulum swung by a torque: (angle, speed, torque) a stage."""
    n, step = 3 * T, 4 / T

    def f(x: np.ndarray) -> tuple:
        z = x.reshape(T, 3)
        g, d = 0 * z, 0 * z
        g[:, 2], d[:, 2] = step * z[:, 2], step
        return step * (z[:, 2] ** 2).sum() / 2, g.ravel(), np.diag(d.ravel())

    def h(x: np.ndarray) -> tuple:
        z = x.reshape(T, 3)
        a, v, u = z.T
        rows = [a[0], v[0], *(a[1:] - a[:-1] - step * v[:-1]), *(v[1:] - v[:-1] - step * (u[:-1] - 9 * np.sin(a[:-1])))]
        rows += [a[-1] - np.pi, v[-1]]
        J, curved = np.zeros((2 * T + 2, n)), []
        J[0, 0] = J[1, 1] = J[-2, n - 3] = J[-1, n - 2] = 1
        for t in range(T - 1):
            J[2 + t, [3 * t + 3, 3 * t, 3 * t + 1]] = 1, -1, -step
            J[1 + T + t, [3 * t + 4, 3 * t + 1, 3 * t + 2, 3 * t]] = 1, -1, -step, step * 9 * np.cos(a[t])
        for i in range(2 * T + 2):
            C = np.zeros((n, n))
            t = i - 1 - T
            if 0 <= t < T - 1:
                C[3 * t, 3 * t] = -step * 9 * np.sin(a[t])
            curved.append(C)
        return rows, J, curved

    upper = np.tile([INF, INF, bound], T)
    x0 = np.stack([np.linspace(0, np.pi, T), np.full(T, np.pi / 4), np.zeros(T)], 1).ravel()
    return problem(f, h, x0, m=2 * T + 2, lower=-upper, upper=upper, rows=5)
