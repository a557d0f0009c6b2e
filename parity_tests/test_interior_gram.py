"""J^T G J of the compiled engine, which takes four rows, two or one of a window together, by the solution of quadratic
programs with equalities, against their dense optimality conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from interior_driver import Problem, solve

from bandhess_common.status import Status


def program(width: int, each: int, shuffled: bool) -> tuple[Problem, np.ndarray]:
    """`each` rows in every window of so many columns, and the solution."""
    rng = np.random.default_rng([width, each, shuffled])
    n = 3 * width + 2
    starts = np.repeat(np.arange(0, n - width + 1, max(each, width // 2)), each)
    starts = rng.permutation(starts) if shuffled else starts
    J = np.zeros((len(starts), n))
    for row, start in zip(J, starts, strict=True):
        row[start : start + width] = rng.normal(size=width)
    P, q, b = np.diag(rng.uniform(1, 2, n)), rng.normal(size=n), rng.normal(size=len(J))

    def values(x: Any) -> tuple:
        return x @ P @ x / 2 + q @ x, J @ x - b

    def derivatives(x: Any, sigma: float, y: Any) -> tuple:
        return *values(x), sigma * (P @ x + q) + J.T @ y[: len(J)], sigma * P, J

    whole = np.block([[P, J.T], [J, np.zeros((len(J), len(J)))]])
    solution = np.linalg.solve(whole, np.concatenate([-q, b]))
    return Problem(values, derivatives, np.zeros(n), len(J), rows=width), solution


WIDTHS = 4, 5, 7, 9, 10, 13, 17, 18, 22, 33


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("width", "each"), [(w, e) for w in WIDTHS for e in (1, 2, 3, 4, 7) if 2 * e <= w])
def test_rows_of_every_width(width: int, each: int, shuffled: bool) -> None:
    p, solution = program(width, each, shuffled)
    end = solve(p, tol=1e-10)
    assert end.status == Status.CONVERGED
    assert end.steps <= 2
    n = len(end.x)
    np.testing.assert_allclose(end.x, solution[:n], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(end.y, solution[n:], rtol=1e-6, atol=1e-7)
