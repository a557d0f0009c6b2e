"""The engines with shared variables: a border beside the band. The oracle is the same problem in a band without zeros,
whose Newton systems are the same matrices: every step must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy_operations
import pytest
from interior_driver import Problem, banded, cut, solve, windows

from bandhess_common.interior_point import loop, state
from bandhess_common.interior_point.problem import problem as problem_of
from bandhess_common.status import Status

pytestmark = pytest.mark.usefixtures("compiled_kernels")

INF = np.inf


def swing(T: int, weight: float, **more: Any) -> Problem:
    """A pendulum swung by a torque in a free time: (angle, speed, torque) a stage, then the shared step length s, the
    shared friction r, bounded and paid for, and a shared number that is fixed."""
    n, p = 3 * T, 3

    def parts(x: np.ndarray) -> tuple:
        return *x[:n].reshape(T, 3).T, *x[n:]

    def values(x: np.ndarray) -> tuple:
        a, v, u, s, r, c = parts(x)
        f = s * (u**2).sum() / 2 + weight * s + (r - 0.3) ** 2 + s * r * c
        rates = u[:-1] - 9 * np.sin(a[:-1]) - r * v[:-1]
        h = [a[0], v[0], *(a[1:] - a[:-1] - s * v[:-1]), *(v[1:] - v[:-1] - s * rates), a[-1] - np.pi, v[-1]]
        return f, np.array([*h, 0.5 - r - 0.1 * s * c])  # the last an inequality

    def derivatives(x: np.ndarray, sigma: float, y: np.ndarray) -> tuple:
        a, v, u, s, r, c = parts(x)
        f, h = values(x)
        N, i_s, i_r, i_c = n + p, n, n + 1, n + 2
        g, W, J = np.zeros(N), np.zeros((N, N)), np.zeros((len(h), N))
        y = np.asarray(y, float)[: len(h)]

        def curve(i: int, j: int, amount: float) -> None:
            W[i, j] += amount
            if i != j:
                W[j, i] += amount

        g[2:n:3], g[i_s] = s * u, (u**2).sum() / 2 + weight + r * c
        g[i_r], g[i_c] = 2 * (r - 0.3) + s * c, s * r
        for t in range(T):
            curve(3 * t + 2, 3 * t + 2, sigma * s)
            curve(3 * t + 2, i_s, sigma * u[t])
        curve(i_r, i_r, 2 * sigma)
        curve(i_s, i_r, sigma * c)
        curve(i_s, i_c, sigma * r)
        curve(i_r, i_c, sigma * s)
        J[0, 0] = J[1, 1] = J[-3, n - 3] = J[-2, n - 2] = 1
        for t in range(T - 1):
            rate = u[t] - 9 * np.sin(a[t]) - r * v[t]
            J[2 + t, [3 * t + 3, 3 * t, 3 * t + 1, i_s]] = 1, -1, -s, -v[t]
            curve(3 * t + 1, i_s, -y[2 + t])
            i, at, av, au = 1 + T + t, 3 * t, 3 * t + 1, 3 * t + 2
            J[i, [3 * t + 4, av, au, at]] = 1, -1 + s * r, -s, 9 * s * np.cos(a[t])
            J[i, [i_s, i_r]] = -rate, s * v[t]
            curve(at, at, -9 * s * np.sin(a[t]) * y[i])
            curve(at, i_s, 9 * np.cos(a[t]) * y[i])
            curve(av, i_s, r * y[i])
            curve(av, i_r, s * y[i])
            curve(au, i_s, -y[i])
            curve(i_s, i_r, v[t] * y[i])
        J[-1, [i_r, i_s, i_c]] = -1, -0.1 * c, -0.1 * s
        curve(i_s, i_c, -0.1 * y[-1])
        return f, h, sigma * g + J.T @ y, W, J

    x0 = np.stack([np.linspace(0, np.pi, T), np.full(T, 0.8), np.zeros(T)], 1).ravel()
    upper = np.concatenate([np.tile([INF, INF, 6.0], T), [1.0, INF, INF]])
    lower = np.concatenate([-upper[:n], [0.01, 0.05, 0.7]])
    fixed = np.concatenate([np.zeros(n + 2), [1.0]])
    x0 = np.concatenate([x0, [4 / T, 0.2, 0.7]])
    return Problem(values, derivatives, x0, 2 * T + 2, lower, upper, fixed=fixed, **more)


def test_derivatives_are_right() -> None:
    p = swing(4, 3.0)
    rng = np.random.default_rng(3)
    x, y, e = rng.normal(size=15), rng.normal(size=11), 1e-6
    _, _, g, W, J = p.derivatives(x, 1.7, y)
    for j in range(15):
        step = e * np.eye(15)[j]
        up, down = p.values(x + step), p.values(x - step)
        np.testing.assert_allclose(J[:, j], (up[1] - down[1]) / (2 * e), atol=1e-7)
        np.testing.assert_allclose(g[j], (1.7 * (up[0] - down[0]) + y @ (up[1] - down[1])) / (2 * e), atol=1e-6)
        up, down = p.derivatives(x + step, 1.7, y)[2], p.derivatives(x - step, 1.7, y)[2]
        np.testing.assert_allclose(W[:, j], (up - down) / (2 * e), atol=1e-6)


@pytest.mark.parametrize("T", [3, 12, 50])
def test_a_border_takes_the_steps_of_a_band_without_zeros(T: int) -> None:
    whole, border = solve(swing(T, 3.0)), solve(swing(T, 3.0, shared=3, rows=6))
    assert border.status == whole.status == Status.CONVERGED
    assert whole.steps > 5
    for name in ("value", "grad_norm", "step", "shift"):
        ours, theirs = ([row[name] for row in end.history[:7]] for end in (border, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    if T < 50:  # on the longest rounding grows to other paths, and these lead to other optima
        assert border.steps == whole.steps
        np.testing.assert_allclose(border.x, whole.x, atol=1e-6)
        np.testing.assert_allclose(border.y, whole.y, atol=1e-5)
    assert border.x[-1] == 0.7  # which is fixed
    assert border.x[-2] > 0.05  # and this bounded
    assert solve(swing(T, 3.0, shared=3, rows=6), warm=border).steps <= 1


def test_the_portable_engine_takes_them_too() -> None:
    p, compiled = swing(12, 3.0, shared=3, rows=6), solve(swing(12, 3.0, shared=3, rows=6))
    n, f, h = len(p.x0), *p.values(p.x0)
    L = 6
    first, _ = windows(p.derivatives(p.x0, 1.0, np.ones(len(h)))[-1], L, p.shared)
    task = problem_of(
        numpy_operations, p.lower, p.upper, p.fixed, first, p.m, (np.float64(1e-8), np.float64(500)), p.rows, p.shared
    )
    zeros = np.zeros(len(h)), np.zeros(n), np.zeros(n), np.float64(0)
    with np.errstate(all="ignore"):
        s = loop.start(numpy_operations, task, p.x0, np.int32(0), state.Solution(p.x0, *zeros))
        while s.request:
            if s.request == state.DERIVATIVES:
                f, h, g, W, J = p.derivatives(s.x_request, float(s.sigma), s.y_request)
                W = np.nan_to_num(banded(W, p.rows, p.shared))
                given = state.Derivatives(np.float64(f), h, g, cut(J, first, L, p.shared), W, np.int32(0))
                s = loop.begin(numpy_operations, task, s, given)
            else:
                f, h = p.values(s.x_request)
                s = loop.trial(numpy_operations, task, s, state.Values(np.float64(f), h))
    assert (s.status, s.steps) == (compiled.status, compiled.steps)
    np.testing.assert_allclose(s.solution.x, compiled.x, atol=1e-8)
