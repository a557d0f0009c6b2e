"""Quadratic programs that the compiled engine solves between requests, and those of which it asks for each point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from interior_driver import Problem, solve

from bandhess_common.status import Status

N, TOL = 12, 1e-8


def program(seed: int = 0, shared: int = 0) -> Problem:
    """min x P x / 2 + q x, A x = b, C x >= d, and bounds, all banded, with `shared` dense columns at the end."""
    rng = np.random.default_rng(seed)
    near = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) < 3
    near[N - shared :] = near[:, N - shared :] = True
    root = np.where(near, rng.normal(size=(N, N)), 0) * (np.arange(N)[:, None] >= np.arange(N))
    P = np.diag(rng.uniform(0.5, 2, N)) + np.where(near, root + root.T, 0) / 8
    P += np.eye(N) * max(0, 0.1 - np.linalg.eigvalsh(P)[0])
    J = np.where(near, rng.normal(size=(N, N)), 0)[2 : N - shared - 2 : 2]
    q, b = rng.normal(size=N) * 3, rng.normal(size=len(J)) / 4
    m = len(J) // 2

    def values(x: Any) -> tuple:
        return x @ P @ x / 2 + q @ x, J @ x - b

    def derivatives(x: Any, sigma: float, y: Any) -> tuple:
        f, h = values(x)
        return f, h, sigma * (P @ x + q) + J.T @ y[: len(J)], sigma * P, J

    return Problem(values, derivatives, np.zeros(N), m, -1.0, 1.0, shared=shared)


def counted(p: Problem) -> tuple[Problem, list]:
    points: list = []

    def noted(function: Callable) -> Callable:
        def call(x: Any, *rest: Any) -> Any:
            points.append(np.array(x))
            return function(x, *rest)

        return call

    return p._replace(values=noted(p.values), derivatives=noted(p.derivatives)), points


@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_by_few_requests(seed: int, shared: int) -> None:
    """Where it starts it is asked for three times: beside the start, and there without and with multipliers."""
    p = program(seed, shared)
    asked, alone = solve(p), solve(p, alone=True)
    assert asked.status == alone.status == Status.CONVERGED
    assert asked.registers["quadratic"] > 0
    assert alone.steps == asked.steps > 4
    assert (alone.begins, alone.trials) == (4, 0)
    assert asked.begins == 3 + asked.steps
    np.testing.assert_allclose(alone.x, asked.x, atol=1e-9)
    np.testing.assert_allclose(alone.y, asked.y, atol=1e-7)
    np.testing.assert_allclose(alone.z_lower, asked.z_lower, atol=1e-7)
    for name in ("value", "violation", "grad_norm", "mu", "f_new"):  # the last is of the step before, which followed
        np.testing.assert_allclose(alone.registers[name], asked.registers[name], atol=1e-9)


def test_float32() -> None:
    p = program()
    alone, fine = solve(p, dtype="float32", tol=1e-5, alone=True), solve(p)
    assert alone.status == Status.CONVERGED
    assert alone.begins <= 6
    np.testing.assert_allclose(alone.x, fine.x, atol=1e-3)


def test_an_end_is_of_the_functions() -> None:
    """Steps at an end: the last derivatives are those of the point that it says."""
    p, points = counted(program())
    end = solve(p, alone=True)
    np.testing.assert_array_equal(points[-1], end.x)
    f, h = program().values(end.x)
    assert end.registers["value"] == pytest.approx(f, rel=1e-15)
    assert np.abs(h[: p.m]).max() <= TOL
    assert end.registers["violation"] <= TOL


def kinked(reach: float) -> Problem:
    """Quadratic up to |x| = reach, linear beyond (Huber): derivatives at 0 say nothing of that."""
    target = np.linspace(-8, 8, N)

    def values(x: Any) -> tuple:
        far = np.abs(x - target)
        return np.where(far < reach, far**2 / 2, reach * (far - reach / 2)).sum(), np.diff(x)[: N // 2] - 0.1

    def derivatives(x: Any, sigma: float, y: Any) -> tuple:
        far = x - target
        rows = (np.eye(N, k=1) - np.eye(N))[: N // 2]
        inside = np.abs(far) < reach
        return *values(x), sigma * np.clip(far, -reach, reach) + rows.T @ y[: len(rows)], np.diag(sigma * inside), rows

    return Problem(values, derivatives, target + reach / 2, N // 2, -20.0, 20.0)


def test_what_is_quadratic_near_the_start_alone_begins_anew() -> None:
    """What follows from the start is refuted, and the same as ever is found, in as many steps."""
    p = kinked(1.0)
    asked, alone = solve(p), solve(p, alone=True)
    assert asked.status == alone.status == Status.CONVERGED
    assert alone.registers["alone"] == 0
    assert alone.steps == asked.steps
    assert alone.begins > asked.begins
    np.testing.assert_allclose(alone.x, asked.x, atol=1e-12)


def test_where_values_end() -> None:
    """Quadratic where they are numbers: a point that follows and has none begins anew, too."""

    def broken(function: Callable) -> Callable:
        def call(x: Any, *rest: Any) -> tuple:
            f, *others = function(x, *rest)
            return (f if np.abs(x).max() < 0.3 else np.nan), *others

        return call

    p = program()
    p = p._replace(values=broken(p.values), derivatives=broken(p.derivatives))
    asked, alone = solve(p, max_steps=30), solve(p, max_steps=30, alone=True)
    assert alone.status == asked.status
    assert alone.registers["alone"] == 0
    np.testing.assert_allclose(alone.x, asked.x, atol=1e-12)


def test_a_limit_of_steps_and_other_ends() -> None:
    p = program()
    asked, alone = solve(p, max_steps=3), solve(p, max_steps=3, alone=True)
    assert asked.status == alone.status == Status.MAX_STEPS
    assert asked.steps == alone.steps == 3
    np.testing.assert_allclose(alone.x, asked.x, atol=1e-6)  # linear systems are solved to 1e-9

    def values(x: Any) -> tuple:
        return 0.0, np.array([x.sum(), x.sum() - 1])

    def derivatives(x: Any, sigma: float, y: Any) -> tuple:
        rows = np.ones((2, 3))
        return *values(x), rows.T @ y[:2], np.zeros((3, 3)), rows

    apart = Problem(values, derivatives, np.zeros(3), 2, -5.0, 5.0)
    asked, alone = solve(apart), solve(apart, alone=True)
    assert asked.status == alone.status
    assert asked.status in (Status.INFEASIBLE, Status.RANK_DEFICIENT)


def test_curvature_is_seen() -> None:
    """A quadratic program that is not convex ends at no maximum."""
    signs = np.where(np.arange(N) % 3 == 0, -1.0, 1.0)

    def values(x: Any) -> tuple:
        return signs @ x**2 / 2, np.array([x.sum()])

    def derivatives(x: Any, sigma: float, y: Any) -> tuple:
        return *values(x), sigma * signs * x + y[0], np.diag(sigma * signs), np.ones((1, N))

    p = Problem(values, derivatives, np.zeros(N), 1, -1.0, 1.0)
    asked, alone = solve(p), solve(p, alone=True)
    assert asked.status == alone.status == Status.CONVERGED
    assert alone.registers["value"] == pytest.approx(asked.registers["value"])
    assert (np.abs(alone.x[signs < 0]) > 0.9).all()
