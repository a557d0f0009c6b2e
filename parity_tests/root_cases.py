"""Residuals with banded Jacobians, for both backends: Broyden's systems, a boundary value problem, implicit steps.

Each is written twice: by `xp`, and in loops, as their sources write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def broyden_tridiagonal(xp: Any) -> Callable:
    """Moré, Garbow, Hillstrom (1981), problem 30, from -1."""

    def fun(y: Any, weight: Any = 2.0) -> Any:
        zero = 0 * y[:1]
        return (3 - weight * y) * y - xp.concatenate([zero, y[:-1]]) - 2 * xp.concatenate([y[1:], zero]) + 1

    return fun


def tridiagonal_in_loops(y: np.ndarray) -> np.ndarray:
    n, F = len(y), np.zeros(len(y))
    for i in range(n):
        F[i] = (3 - 2 * y[i]) * y[i] + 1
        F[i] -= (y[i - 1] if i > 0 else 0) + 2 * (y[i + 1] if i < n - 1 else 0)
    return F


def broyden_banded(xp: Any) -> Callable:
    """Problem 31: five unknowns before, one after, from -1."""

    def fun(y: Any) -> Any:
        zeros, s = xp.zeros_like(y[:5]), y * (1 + y)
        padded = xp.concatenate([zeros, s, zeros])
        n = y.shape[0]
        return y * (2 + 5 * y**2) + 1 - sum(padded[5 + k : 5 + k + n] for k in (-5, -4, -3, -2, -1, 1))

    return fun


def banded_in_loops(y: np.ndarray) -> np.ndarray:
    n, F = len(y), np.zeros(len(y))
    for i in range(n):
        F[i] = y[i] * (2 + 5 * y[i] ** 2) + 1
        for j in range(max(0, i - 5), min(n, i + 2)):
            if j != i:
                F[i] -= y[j] * (1 + y[j])
    return F


def boundary_value(xp: Any, T: int) -> Callable:
    """y'' = 3/2 y^2, y(0) = 4, y(1) = 1, which 4 / (1 + t)^2 solves (Stoer and Bulirsch, 7.3.1): stages (y, y'), the
    trapezoidal rule between them, one boundary condition before and one after."""

    def fun(stages: Any) -> Any:
        y, v = stages[:, 0], stages[:, 1]
        slope = xp.stack([v, 1.5 * y**2], 1)
        between = stages[1:] - stages[:-1] - (slope[1:] + slope[:-1]) / (2 * (T - 1))
        return xp.concatenate([y[:1] - 4, between.reshape(-1), y[-1:] - 1]).reshape(T, 2)

    return fun


def allen_cahn(xp: Any) -> Callable:
    """u_t = D u_xx + u - u^3 on [0, 1], no flux through the ends: D -> rate."""

    def rate(u: Any, D: Any) -> Any:
        n = u.shape[0]
        padded = xp.concatenate([u[:1], u, u[-1:]])
        return D * n**2 * (padded[2:] - 2 * u + padded[:-2]) + u - u**3

    return rate


def burgers(xp: Any) -> Callable:
    """u_t + (u^2 / 2)_x = D u_xx on [0, 1], 0 at both ends: stiff where a shock forms."""

    def rate(u: Any, D: Any) -> Any:
        n = u.shape[0]
        zero = 0 * u[:1]
        padded = xp.concatenate([zero, u, zero])
        flux = padded**2 / 2
        return D * (n + 1) ** 2 * (padded[2:] - 2 * u + padded[:-2]) - (n + 1) * (flux[2:] - flux[:-2]) / 2

    return rate


def implicit_step(rate: Callable, h: float) -> Callable:
    """The residual of the trapezoidal rule, of u given the state before."""

    def residual(u: Any, before: Any, D: Any) -> Any:
        return u - before - h / 2 * (rate(u, D) + rate(before, D))

    return residual
