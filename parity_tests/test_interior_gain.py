"""CONVERGED does not depend on units: what the next step would gain is asked for, and curvature in any units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends import Backend
from interior_driver import Problem, solve
from interior_quadratics import Quadratics, quadratics, run

from bandhess_common.status import Status

pytestmark = pytest.mark.usefixtures("compiled_kernels")

SUM = (-1.0, {0: 1, 1: 1}, {})
engines = pytest.mark.parametrize("engine", ["compiled", "numpy", "torch"])


def end_of(engine: str, p: Quadratics, shared: int = 0) -> tuple[Status, np.ndarray, float]:
    """Status, x and value."""
    if engine != "compiled":
        s = run(engine, p, tol=1e-8)
        return Status(int(s.status)), np.asarray(s.solution.x), float(s.report.value)

    end = solve(dense(p, shared))
    return end.status, end.x, end.registers["value"]


def dense(p: Quadratics, shared: int = 0) -> Problem:
    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        weights, J = np.concatenate([[sigma], y[: len(p.c) - 1]]), p.b + p.A @ x
        return *p.values(x), weights @ J, np.tensordot(weights, p.A, 1), J[1:]

    return Problem(p.values, derivatives, p.x0, p.m, p.lower, p.upper, shared=shared)


def hidden(units: list[float], goals: list[float]) -> Quadratics:
    """(unit x - goal)^2 / 2 for every x, under x[0] + x[1] = 1."""
    u, a = np.array(units), np.array(goals)
    f = (a @ a / 2, dict(enumerate(-u * a)), {(i, i): v for i, v in enumerate(u * u)})
    return quadratics(len(u), f, [SUM], [], x0=[0.5, 0.5, 0, 0])


@engines
def test_a_small_gradient_of_a_small_curvature(engine: str) -> None:
    """Gradients of 1e-9 pass the test of the largest entry at the start, where half of f can be gained."""
    status, x, value = end_of(engine, hidden([1, 1, 1e-9, 1e-10], [0.5, 0.5, 1, -2]))
    assert status is Status.CONVERGED
    np.testing.assert_allclose(x * [1, 1, 1e-9, 1e-10], [0.5, 0.5, 1, -2], atol=1e-6)
    assert value < 1e-8


@engines
def test_a_maximum_in_small_units(engine: str) -> None:
    """The curvature -1e-10 beside 1 is no rounding: such a point is not CONVERGED."""
    p = hidden([1, 1, 1, 1], [0.5, 0.5, 3, 0])
    p.A[0, 3, 3] = -1e-10
    status, x, _ = end_of(engine, p)
    np.testing.assert_allclose(x, [0.5, 0.5, 3, 0], atol=1e-3)
    assert status is Status.PRECISION_FLOOR


@engines
@pytest.mark.parametrize("offset", [1000.0, 0.0])
def test_a_maximum_that_f_does_not_feel(engine: str, offset: float) -> None:
    """offset + x0^2 - 1e-5 x3^2 for abs(x3) <= 1, from the maximum: beside 1000 the 1e-5 that f may fall by is 1e-8
    of it, and the end is not CONVERGED but soon; beside 0 it is all there is."""
    f = (offset, {}, {(0, 0): 2.0, (1, 1): 2.0, (2, 2): 2.0, (3, 3): -2e-5})
    p = quadratics(4, f, [(0.0, {0: 1, 1: 1}, {})], [], lower=-1, upper=1, x0=[0.5, -0.5, 0, 0])
    status, x, value = end_of(engine, p)
    if offset:
        assert status is Status.PRECISION_FLOOR
        assert abs(value - offset) <= 1e-8 * offset
        np.testing.assert_allclose(x, 0, atol=1e-3)
    else:
        assert status is Status.CONVERGED
        np.testing.assert_allclose(abs(x), [0, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize(("engine", "shared"), [("compiled", 0), ("compiled", 1), ("numpy", 0), ("torch", 0)])
def test_a_variable_that_nothing_depends_on(engine: str, shared: int) -> None:
    """It stays where it is: there is no curvature to be asked for."""
    p = hidden([1, 1, 1, 0], [0.5, 0.5, 3, 0])._replace(x0=np.array([2.0, -1, 0, 7]))
    status, x, _ = end_of(engine, p, shared)
    assert status is Status.CONVERGED
    np.testing.assert_allclose(x, [0.5, 0.5, 3, 7], atol=1e-8)


@engines
def test_residuals_are_worth_little(engine: str) -> None:
    """x^2 = 2 at y = -35 to where y times what is left is 20 tol of what f, scaled by 1/100, counts for, not to 1e-8 of
    the row."""
    f = (-100 * 2**0.5, {0: 100.0}, {})
    p = quadratics(2, f, [(-2, {}, {(0, 0): 2.0}), (0, {1: 1.0}, {})], [], x0=1.5)
    status, _, value = end_of(engine, p)
    assert status is Status.CONVERGED
    assert abs(value) <= 20e-8 * 2.0**-13 * 100


def test_both_frameworks(backend: Backend) -> None:
    units = backend.array(np.array([1, 1e-9, 1, 1e-10]))
    goal = backend.array(np.array([0.5, 1.0, 0.5, -2.0]))

    def cost(x: Any) -> Any:
        return backend.xp.sum((units * x - goal) ** 2)

    result = backend.package.sqp(cost, lambda x: x[:1] - 0.5, backend.array(np.array([0.5, 0, 0.5, 0])), 1)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(units * result.x), backend.numpy(goal), atol=1e-6)
