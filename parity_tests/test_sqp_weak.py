"""Quadratic programs whose bounds are weakly active, and results of calls that share one program's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from backends import Backend

T = 100


def cost(x: Any, goal: Any) -> Any:
    return 100 + ((x - goal) ** 2).sum()


def solve(backend: Backend, goal: np.ndarray, lower: np.ndarray) -> Any:
    start, goal, lower = (backend.array(a) for a in (np.full(T, 3.0), goal, lower))
    return backend.package.sqp(cost, None, start, 0, args=(goal,), bounds=(lower, None), tol=1e-10, history=True)


def test_weakly_active_bounds_end_by_a_longer_step(backend: Backend) -> None:
    """Others leave a seventh of d z, which is a double root there."""
    goal = np.linspace(1, 1.5, T)
    weak = solve(backend, goal, np.where(np.arange(T) % 2, goal, goal - 5))
    strong = solve(backend, goal, np.where(np.arange(T) % 2, goal + 1, goal - 5))
    assert weak.status == strong.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(weak.x), goal, atol=2e-5)
    fractions = backend.numpy(weak.history.fraction)
    assert (fractions[:-1] <= 1).all()
    assert 1 < fractions[-1] <= 2
    assert backend.numpy(strong.history.fraction).max() <= 1


def test_a_result_is_kept_when_its_program_runs_again(backend: Backend) -> None:
    """The engine's state takes the memory of the call before."""
    goals = np.linspace(1, 2, T), np.linspace(5, -5, T)
    first, *_, again = (solve(backend, goal, goal - 1) for goal in (goals[0], goals[1], goals[0]))
    other = solve(backend, goals[1], goals[1] - 1)
    np.testing.assert_allclose(backend.numpy(first.x), goals[0], atol=1e-8)
    np.testing.assert_array_equal(backend.numpy(first.x), backend.numpy(again.x))
    np.testing.assert_allclose(backend.numpy(other.x), goals[1], atol=1e-8)
