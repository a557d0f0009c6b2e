"""Units: variables in mixed ones, and a cost that is large and flat at the start."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy_operations
import pytest
import torch
from control_problems import INF, Control, car
from interior_driver import Engine, Problem, banded, cut, windows
from test_interior_shared import swing

import bandhess_torch
from bandhess_common.interior_point import loop, state
from bandhess_common.interior_point.problem import problem as problem_of

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def in_units(p: Problem, units: np.ndarray, cost: float = 1.0) -> Problem:
    """In x / units, f times `cost`."""

    def values(x: np.ndarray) -> tuple:
        f, h = p.values(units * x)
        return cost * f, h

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        f, h, g, W, J = p.derivatives(units * x, cost * sigma, y)
        return cost * f, h, units * g, units[:, None] * W * units, J * units

    lower, upper = (np.asarray(b) / units for b in (p.lower, p.upper))
    return p._replace(values=values, derivatives=derivatives, x0=p.x0 / units, lower=lower, upper=upper)


def told(p: Problem, x: np.ndarray, sigma: float, y: np.ndarray, first: np.ndarray, L: int) -> list:
    f, h, g, W, J = p.derivatives(x, sigma, y)
    return [f, h, g, cut(J, first, L, p.shared), banded(W, p.rows, p.shared)]


def at_the_start(p: Problem) -> tuple[Engine, Any]:
    """The compiled engine and the portable one, after the derivatives beside the start and at it."""
    n, L = len(p.x0), p.rows
    first, _ = windows(p.derivatives(p.x0, 1.0, np.ones(1000))[-1], L, p.shared)
    r = len(first)
    engine = Engine(n, r, p.m, p.rows, p=p.shared)
    zeros = [np.zeros(r), np.zeros(n), np.zeros(n)]
    engine.start([p.lower, p.upper, p.fixed, p.x0, *zeros], first, [1e-8, 100, 0, 0])
    limits = (np.float64(1e-8), np.float64(100))
    task = problem_of(numpy_operations, p.lower, p.upper, p.fixed, first, p.m, limits, p.rows, p.shared)
    s = loop.start(numpy_operations, task, p.x0, np.int32(0), state.Solution(p.x0, *zeros, np.float64(0)))
    with np.errstate(all="ignore"):
        for _ in range(2):
            np.testing.assert_allclose(s.x_request, engine.vector("x_request"), rtol=1e-14)
            parts = told(p, s.x_request, 1.0, np.zeros(r), first, L)
            engine.begin(*parts)
            s = loop.begin(numpy_operations, task, s, state.Derivatives(*map(np.nan_to_num, parts), np.int32(0)))
    return engine, s


def equilibrated(J: np.ndarray, sweeps: int) -> np.ndarray:
    """Squares of column sizes of a dense J, entry by entry."""
    size = np.ones(J.shape[1])
    for _ in range(sweeps):
        rows = [sum(a**2 / d for a, d in zip(row, size, strict=True)) for row in J]
        sums = [sum(a**2 / total for a, total in zip(column, rows, strict=True)) for column in J.T]
        size = np.array([(d * s) ** 0.5 if s > 0 else 1.0 for d, s in zip(size, sums, strict=True)])
    used = np.any(J != 0, 0)
    return np.where(used, size / size[:-3][used[:-3]].max(), 1.0)  # the last three are shared


def test_sizes_of_columns() -> None:
    """By both engines as the definition has them, shared, fixed and unused variables among them. In other units those
    of stages are other by the units' squares, nearly, but for columns that a row has for itself."""
    p = swing(6, 3.0, shared=3, rows=6)
    units = np.where(np.arange(len(p.x0)) % 2, 1e-1, 1e1)
    found = {}
    for name, case in (("own", p), ("mixed", in_units(p, units))):
        engine, s = at_the_start(case)
        scale = engine.vector("h_scale")
        J = scale[:, None] * case.derivatives(engine.vector("x"), 1.0, np.ones(1000))[-1] * (1 - case.fixed)
        found[name] = equilibrated(J, 6)
        np.testing.assert_allclose(engine.vector("column_size"), found[name], rtol=1e-9)
        np.testing.assert_allclose(s.system.column_size, found[name], rtol=1e-9)
    assert found["own"][-1] == 1  # of the fixed variable
    alone = J[np.count_nonzero(J, 1) == 1]
    usual = np.any(J != 0, 0) & ~np.any(alone != 0, 0)
    change = (found["mixed"] / found["own"] / units**2)[:-3][usual[:-3]]
    assert len(change) > 10
    assert change.max() < 20 * change.min()


@pytest.mark.parametrize("room", [9.0, 0.02])
def test_scale_of_a_cost_that_is_flat_at_the_start(room: float) -> None:
    """The gradient's change along with x by 1, or up to the bounds, counts as the gradient does: of w u^2 / 2 from
    u = 0 it is w u."""
    n = 4
    weights = np.array([2.0, 5e4, 3.0, 1.0])

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        J = np.ones((1, n))
        h = np.array([x.sum() - 1])
        return weights @ x**2 / 2, h, sigma * weights * x + y[0] * J[0], sigma * np.diag(weights), J

    p = Problem(lambda x: derivatives(x, 1, np.zeros(1))[:2], derivatives, np.zeros(n), 1, np.full(n, -room),
                np.full(n, room), rows=4, fixed=np.zeros(n))  # fmt: skip
    engine, s = at_the_start(p)
    noise = np.abs(numpy_operations.hashed(n, 2))
    change = (weights * noise).max() * min(1, room / noise.max())
    assert change > 200
    assert engine.register("f_scale") == pytest.approx(1 / change, rel=1e-9)
    assert float(s.f_scale) == pytest.approx(engine.register("f_scale"), rel=1e-12)


@pytest.mark.parametrize(
    ("cost", "expected"), [(1e-3, 1e3), (0.0, 1.0), (2.0, 0.5), (1e5, 1e-5), (1e-12, 1e8), (1e12, 1e-8)]
)
def test_scale_of_a_cost(cost: float, expected: float) -> None:
    """A linear one, whose gradient is `cost`, comes to 1 as far as 1e-8 and 1e8 take it, or remains without one."""
    n = 3

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        return cost * x.sum(), np.zeros(0), np.full(n, sigma * cost), np.zeros((n, n)), np.zeros((0, n))

    p = Problem(lambda x: derivatives(x, 1, np.zeros(0))[:2], derivatives, np.zeros(n), 0, np.full(n, -1.0),
                np.full(n, 1.0), rows=1, fixed=np.zeros(n))  # fmt: skip
    engine, s = at_the_start(p)
    assert engine.register("f_scale") == pytest.approx(expected, rel=1e-12)
    assert float(s.f_scale) == pytest.approx(expected, rel=1e-12)


def test_starts_are_moved_inside() -> None:
    """By 1e-2 max(1, |bound|), at most 1e-2 of the width; inside by their own distance, at least a tenth of that."""
    cases = [  # lower, upper, given, where it begins
        (0, INF, -1, 0.01), (0, INF, 0, 0.01), (0, INF, 1e-4, 1e-3), (0, INF, 5e-3, 5e-3), (0, INF, 0.5, 0.5),
        (10, INF, 10, 10.1), (10, INF, 10.001, 10.01), (-INF, -10, -10.05, -10.05), (-INF, -10, 3, -10.1),
        (0, 0.2, 0, 2e-3), (0, 0.2, 1e-5, 2e-4), (0, 0.2, 0.2 - 1e-5, 0.2 - 2e-4), (-INF, INF, 7, 7),
    ]  # fmt: skip
    lower, upper, given, expected = np.array(cases, float).T
    n = len(cases)

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        return x @ x / 2, np.zeros(0), sigma * x, sigma * np.eye(n), np.zeros((0, n))

    p = Problem(lambda x: derivatives(x, 1, np.zeros(0))[:2], derivatives, given, 0, lower, upper, rows=1,
                fixed=np.zeros(n))  # fmt: skip
    engine, s = at_the_start(p)
    np.testing.assert_allclose(engine.vector("x"), expected, rtol=1e-14)
    np.testing.assert_allclose(s.point.x, expected, rtol=1e-14)


@pytest.mark.parametrize("by", [1e-5, 1.0, 1e5])
def test_scales_of_rows(by: float) -> None:
    """The median of equalities becomes 1, and that of inequalities, the upper one of two; what is then beyond 1e-2 and
    100 comes to that edge. A row without derivatives tells no size."""
    sizes = [by * a for a in (3.0, 700.0, 2.0, 0.0, 5e-3, 7.0)] + [4.0, 20.0]
    expected = [1 / (3 * by), 100 / (700 * by), 1 / (3 * by), None, 1e-2 / (5e-3 * by), 1 / (3 * by), 1 / 20, 1 / 20]
    n = r = len(sizes)

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        J = np.diag(sizes)
        return x.sum(), J @ x, sigma * np.ones(n) + J @ y[:r], np.zeros((n, n)), J

    p = Problem(lambda x: derivatives(x, 1, np.zeros(r))[:2], derivatives, np.zeros(n), 6, np.full(n, -INF),
                np.full(n, INF), rows=1, fixed=np.zeros(n))  # fmt: skip
    engine, s = at_the_start(p)
    told = [i for i, scale in enumerate(expected) if scale is not None]
    found = engine.vector("h_scale")
    np.testing.assert_allclose(found[told], [expected[i] for i in told], rtol=1e-12)
    np.testing.assert_allclose(s.h_scale, found, rtol=1e-12)


def solved(c: Control, units: np.ndarray, cost: float = 1.0, start: Any = None) -> Any:
    scale = torch.as_tensor(units)
    x0 = c.start if start is None else start
    lower, upper = (torch.as_tensor(np.asarray(b) / units) for b in (c.lower, c.upper))
    return bandhess_torch.sqp(
        lambda z: cost * c.cost(z * scale), lambda z: c.constraints(z * scale), torch.as_tensor(x0 / units),
        c.bandwidth,
        inequalities=lambda z: c.inequalities(z * scale), bounds=(lower, upper),
    )  # fmt: skip


@pytest.mark.parametrize("unit", [1e2, 1e-2])
def test_a_car_in_mixed_units(unit: float) -> None:
    """Hundreds and hundredths in turn: an answer of the plain problem, which has several."""
    c = car(torch, torch.as_tensor, N=20)
    plain = solved(c, np.ones(6))
    units = np.array([unit, 1 / unit] * 3)
    mixed = solved(c, units, cost=1e3)
    assert plain.status == mixed.status == bandhess_torch.Status.CONVERGED
    assert mixed.steps <= 2 * plain.steps
    own = solved(c, np.ones(6), start=mixed.x.numpy() * units)
    assert own.status == bandhess_torch.Status.CONVERGED
    assert float(mixed.value) / 1e3 == pytest.approx(float(own.value), rel=1e-6)
    np.testing.assert_allclose(mixed.x.numpy() * units, own.x.numpy(), atol=1e-4)
