"""Quadratic programs, which `sqp` tells by two points and solves by predictor and corrector; those that are not convex,
or have no solution, the filter takes over."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, Backend
from scipy.linalg import expm

COUNT, T = 4, 30


def dynamics() -> tuple[np.ndarray, np.ndarray]:
    """Half a second of a chain of masses between springs, pushed apart by three actuators."""
    K = 2 * np.eye(COUNT) - np.eye(COUNT, k=1) - np.eye(COUNT, k=-1)
    F = np.zeros((COUNT, 3))
    F[0, 0], F[1, 0], F[1, 1], F[2, 1], F[2, 2], F[3, 2] = 1, -1, 1, -1, 1, -1
    rate = np.zeros((2 * COUNT + 3, 2 * COUNT + 3))
    rate[:COUNT, COUNT : 2 * COUNT] = np.eye(COUNT)
    rate[COUNT : 2 * COUNT, :COUNT], rate[COUNT : 2 * COUNT, 2 * COUNT :] = -K, F
    E = expm(rate / 2)
    return E[: 2 * COUNT, : 2 * COUNT], E[: 2 * COUNT, 2 * COUNT :]


@functools.cache
def functions(name: str) -> tuple:
    backend = BACKENDS[name]
    A, B = map(backend.array, dynamics())

    def cost(z: Any, x0: Any, bend: Any) -> Any:
        return (z**2).sum() + bend * (z[:, :3] ** 4).sum()

    def rows(z: Any, x0: Any, bend: Any) -> Any:
        before = backend.xp.concatenate([x0[None], z[:-1, 3:]], 0)
        return z[:, 3:] - before @ A.T - z[:, :3] @ B.T

    return cost, rows


def solve(backend: Backend, x0: np.ndarray, bend: float = 0.0, push: float = 0.5) -> Any:
    box = np.array([push] * 3 + [4.0] * (2 * COUNT))
    return backend.package.sqp(
        *functions(backend.name), backend.array(np.zeros((T, 3 + 2 * COUNT))), 1,
        args=(backend.array(x0), backend.array(bend)), bounds=(backend.array(-box), backend.array(box)), max_steps=100,
    )  # fmt: skip


X0 = np.random.default_rng(0).uniform(-3, 3, 2 * COUNT)


def test_chain_of_masses(backend: Backend) -> None:
    """At most 12 steps; a little of a fourth power beside it takes more."""
    result = solve(backend, X0)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 506.342427, rtol=1e-7)
    assert result.steps <= 12
    other = solve(backend, X0, bend=1e-3)
    assert other.status == backend.package.Status.CONVERGED
    assert other.steps > 12


def test_no_solution(backend: Backend) -> None:
    """Bounds that the state must leave in its first half second."""
    result = solve(backend, 3 * np.ones(2 * COUNT), push=0.1)
    assert result.status == backend.package.Status.INFEASIBLE


@pytest.mark.parametrize("curvature", [1.0, -1.0])
def test_convex_or_not(backend: Backend, curvature: float) -> None:
    """min sum x_i x_{i+1} + curvature sum x_i^2 in a box: at a vertex, or near the middle."""
    start, box = backend.array(np.linspace(0.1, 0.7, 7)), (-1.0, 2.0)
    result = backend.package.sqp(_coupled, None, start, 1, args=(backend.array(curvature),), bounds=box)
    assert result.status == backend.package.Status.CONVERGED
    x = backend.numpy(result.x)
    if curvature > 0:
        np.testing.assert_allclose(x, 0, atol=1e-4)
    else:
        np.testing.assert_allclose(np.minimum(np.abs(x + 1), np.abs(x - 2)), 0, atol=1e-6)


def _coupled(x: Any, curvature: Any) -> Any:
    return (x[1:] * x[:-1]).sum() + curvature * (x**2).sum()


def test_the_same_whether_somebody_listens(backend: Backend) -> None:
    """Where nobody hears of the steps they are made by the derivatives at the start, in the compiled engine."""
    cost, rows = functions(backend.name)
    args, box = (backend.array(X0), backend.array(0.0)), [0.5] * 3 + [4.0] * (2 * COUNT)
    bounds = tuple(backend.array(sign * np.array(box)) for sign in (-1, 1))
    start, heard = backend.array(np.zeros((T, 3 + 2 * COUNT))), []
    sqp = functools.partial(backend.package.sqp, cost, rows, start, 1, args=args, bounds=bounds)
    alone = sqp()
    for told in (sqp(history=True), sqp(callback=heard.append)):
        assert told.status == alone.status == backend.package.Status.CONVERGED
        assert int(told.steps) == int(alone.steps)
        np.testing.assert_allclose(backend.numpy(told.x), backend.numpy(alone.x), atol=1e-7)
        np.testing.assert_allclose(float(told.value), float(alone.value), rtol=1e-10)
    assert [int(info.step) for info in heard] == list(range(int(alone.steps) + 1))
    np.testing.assert_allclose(float(alone.value), float(cost(alone.x, *args)), rtol=1e-14)


def test_what_is_quadratic_near_the_start_alone(backend: Backend) -> None:
    """Huber's function from within its quadratic part: where that leads is not believed."""
    xp, target = backend.xp, backend.array(np.linspace(-8, 8, 12))

    def cost(x: Any) -> Any:
        far = abs(x - target)
        return xp.where(far < 1, far**2 / 2, far - 0.5).sum()

    def rows(x: Any) -> Any:
        return x[1:7] - x[:6] - 0.1

    sqp = functools.partial(backend.package.sqp, cost, rows, target + 0.5, 1, bounds=(-20.0, 20.0))
    alone, told = sqp(), sqp(history=True)
    assert alone.status == told.status == backend.package.Status.CONVERGED
    assert int(alone.steps) == int(told.steps)
    np.testing.assert_allclose(float(alone.value), float(cost(alone.x)), rtol=1e-14)
    np.testing.assert_allclose(float(alone.value), float(told.value), rtol=1e-9)
    assert float(alone.constraint_norm) < 1e-8
    # The first seven lie on a line of slope 0.1, at the median of what the pulls of the others leave.
    grid = np.linspace(-12, 12, 240001)
    off = np.abs(grid[:, None] + 0.1 * np.arange(7) - np.linspace(-8, 8, 12)[:7])
    least = np.where(off < 1, off**2 / 2, off - 0.5).sum(1).min()
    np.testing.assert_allclose(float(alone.value), least, atol=1e-6)
