"""Ends that are none: what has nowhere to go stays, a point that misses a row is no solution, and what only the filter
bars is taken up again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends import Backend
from interior_driver import Engine, banded, cut, solve, windows
from interior_quadratics import BACKENDS, INF, SUM, Quadratics, engine, quadratics, run, setup, squares
from test_interior_gain import dense, end_of, engines

from bandhess_common.interior_point import loop, state
from bandhess_common.interior_point.constants import Constants
from bandhess_common.kernels.interior import REGISTERS
from bandhess_common.status import Status

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@engines
def test_what_is_bounded_on_one_side_and_stands_nowhere_stays(engine: str) -> None:
    """The last control by Euler's rule: x1 = x0^2 + u0, and u1 >= 0, u2 <= 5 in nothing. Undamped, the barrier takes
    them to where the problem is called UNBOUNDED."""
    f = (0, {0: -2, 1: -4}, squares(2, 2, 2, 0, 0))
    p = quadratics(5, f, [(0, {1: -1, 2: 1}, {(0, 0): 2.0})], [], [-INF, -INF, 0, 0, -INF], [INF] * 4 + [5.0])
    status, x, _ = end_of(engine, p)
    assert status is Status.CONVERGED
    np.testing.assert_allclose(x[:3], plain(), atol=1e-6)
    assert 0 < x[3] < 1e6
    assert -1e6 < x[4] < 5


def plain() -> list[float]:
    """min a^2 - 2 a + b^2 - 4 b + u^2 with b = a^2 + u, u >= 0: without its bound u would be negative at no optimum."""
    best = min((a * a - 2 * a + (a * a + u) ** 2 - 4 * (a * a + u) + u * u, a, u) for a, u in grid())
    _, a, u = best
    for _ in range(60):  # Newton's method in a and u
        b = a * a + u
        g = np.array([2 * a - 2 + (2 * b - 4) * 2 * a, 2 * b - 4 + 2 * u])
        H = np.array([[2 + 8 * a * a + 2 * (2 * b - 4), 4 * a], [4 * a, 4.0]])
        a, u = np.array([a, u]) - np.linalg.solve(H, g)
    assert u > 1e-3
    return [a, a * a + u, u]


def grid() -> list[tuple[float, float]]:
    return [(a, u) for a in np.linspace(0, 2, 41) for u in np.linspace(0, 2, 41)]


@engines
@pytest.mark.parametrize("far", [1e6, 1e10])
def test_a_start_far_off_makes_no_point_near(engine: str, far: float) -> None:
    """y = 1 and x^2 = -1: at x = 0 no step is left, but the row is off by 1, however far the start was."""
    p = quadratics(2, (0, {}, {}), [(-1, {1: 1.0}, {}), (1, {}, {(0, 0): 2.0})], [], x0=[0, far])
    status, x, _ = end_of(engine, p)
    assert status is Status.INFEASIBLE
    np.testing.assert_allclose(x, [0, 1], atol=1e-3)


@engines
def test_what_nothing_depends_on_leaves_a_quadratic_program_one(engine: str) -> None:
    """No shift is asked for, which would turn the predictor off."""
    p = quadratics(
        4, (0, {0: -2, 2: 1}, squares(2, 2, 2, 0)), [SUM], [], [0, 0, 0, -INF], [0.3, 1, 1, INF], [0.1, 0.1, 0.1, 7]
    )
    status, x, _ = end_of(engine, p)
    assert status is Status.CONVERGED
    assert x[3] == 7
    np.testing.assert_allclose(x[:3], [0.3, 0.7, 0], atol=1e-7)
    if engine == "compiled":
        shifts = [r["delta"] for r in solve(dense(p)).history]
    else:
        shifts = [float(run(engine, p, tol=1e-8, max_steps=steps).system.shift) for steps in range(4)]
    assert not any(shifts)


FAR = quadratics(
    2, (0, {1: -1}, {(0, 0): 1, (0, 1): 3, (1, 1): 2}), [(1, {0: -1, 1: 3}, squares(1, 1))], [], [-INF, -3], [INF, 3],
    [8, 19],
)  # fmt: skip


def bar(s: Any) -> Any:
    """The main filter with an entry that no point passes."""
    ops, f = BACKENDS["numpy"].ops, s.mode.main_filter
    f = f._replace(theta=ops.put(f.theta, 0, -1.0), phi=ops.put(f.phi, 0, -INF))
    return s._replace(mode=s.mode._replace(main_filter=f))


def test_what_only_the_filter_bars_is_taken_up_again() -> None:
    """A restoration that can never leave by the filter ends at a feasible point, from where both engines go on."""
    with np.errstate(all="ignore"):
        portable, compiled = portable_end(FAR), compiled_end(FAR)
    assert portable.status == Status.CONVERGED
    assert compiled.register("status") == Status.CONVERGED
    assert compiled.register("entries") == portable.mode.entries >= 1
    other = [0.568408834711, -0.204695174754]  # than without the entry: this one is a solution, too
    assert np.abs(end_of("numpy", FAR)[1] - other).max() > 1
    np.testing.assert_allclose(portable.solution.x, other, atol=1e-7)
    np.testing.assert_allclose(compiled.solution()[0], other, atol=1e-7)


def portable_end(p: Quadratics) -> Any:
    to, problem = setup("numpy", p, np.float64, 1e-8, 200)
    zero = np.zeros(2)
    s = loop.start(
        BACKENDS["numpy"].ops, problem, p.x0, state.ESTIMATED, state.Solution(p.x0, np.zeros(1), zero, zero, to(0.0))
    )
    begin, trial = engine("numpy")
    barred = 0
    while s.request != state.DONE:
        if s.request == state.DERIVATIVES:
            parts = p.derivatives(s.x_request, float(s.sigma), s.y_request)
            s = begin(problem, s, state.Derivatives(*map(to, (*parts[:-1], 0))))
        else:
            s = trial(problem, s, state.Values(*map(to, p.values(s.x_request))))
        if s.mode.elastic and not barred:
            s, barred = bar(s), 1
    assert barred
    return s


def compiled_end(p: Quadratics) -> Engine:
    made = Engine(2, 1, 1, 2)
    start, count = made.layout.place("v7")
    rounded = lambda count: -(-count // 8) * 8  # noqa: E731
    filter_theta = start + rounded(count) + rounded(len(Constants._fields))
    first, _ = windows(np.ones((1, 2)), 2)
    made.start([p.lower, p.upper, np.zeros(2), p.x0, np.zeros(1), np.zeros(2), np.zeros(2)], first, [1e-8, 200, 0, 0])
    barred = 0
    while made.register("request"):
        x = made.vector("x_request")
        if made.register("request") == state.DERIVATIVES:
            weights, J = np.concatenate([[made.register("sigma")], made.vector("y_request")]), p.b + p.A @ x
            W = np.tensordot(weights, p.A, 1)
            made.begin(*p.values(x), weights @ J, cut(J[1:], first, 2), banded(W, 2))
        else:
            made.trial(*p.values(x))
        if made.register("elastic") and not barred:
            made.state[REGISTERS.index("main_count")] = barred = 1
            made.state[[filter_theta, filter_theta + 64]] = -1.0, -INF
    assert barred
    return made


def test_both_frameworks(backend: Backend) -> None:
    """A last control that stands nowhere, bounded below: stages (x, u) by Euler's rule."""
    xp, T = backend.xp, 6

    def cost(z: Any) -> Any:
        return xp.sum((z[:, 0] - 1) ** 2) + xp.sum(xp.exp(z[:, 0])) + xp.sum(z[:-1, 1] ** 2)

    def constraints(z: Any) -> Any:
        return z[1:, 0] - z[:-1, 0] ** 2 - z[:-1, 1]

    low = backend.array(np.tile([-10.0, 0.0], (T, 1)))
    result = backend.package.sqp(cost, constraints, backend.array(np.zeros((T, 2))), 3, bounds=(low, None))
    assert result.status == backend.package.Status.CONVERGED
    assert float(result.x[-1, 1]) < 1e6
