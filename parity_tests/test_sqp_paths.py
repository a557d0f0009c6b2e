"""Trajectories that are hard to begin with: obstacles in the way of the start, rest, rates that are only positive, a
race at its limits, and numbers of very different sizes. Optima: IPOPT from the same starts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from control_problems import INF, columns, ends, stages, trapezoid
from trajectories import GRAVITY, pendulum_cost, pendulum_dynamics, pendulum_start


@functools.cache
def scaled_pendulum(name: str) -> tuple[Callable, Callable]:
    """C1 in units: z in `columns`, rows times `rows`, the cost times `cost`."""
    cost, dynamics = pendulum_cost(BACKENDS[name].xp), pendulum_dynamics(BACKENDS[name].xp)

    def scaled_cost(z: Any, columns: Any, rows: Any, by: Any) -> Any:
        return by * cost(z * columns[None])

    def scaled_dynamics(z: Any, columns: Any, rows: Any, by: Any) -> Any:
        defects, end = dynamics(z * columns[None])
        return rows[None] * defects, rows * end

    return scaled_cost, scaled_dynamics


def swing(backend: Backend, start: Any, limit: float, columns: Any = 1.0, rows: Any = 1.0, by: float = 1.0) -> Any:
    columns, rows = np.broadcast_to(columns, 3) * 1.0, np.broadcast_to(rows, 2) * 1.0
    bound = np.array([limit, INF, INF]) / columns
    args = tuple(map(backend.array, (columns, rows, by)))
    return backend.package.sqp(
        *scaled_pendulum(backend.name), backend.array(start / columns), 1, args=args,
        bounds=(backend.array(-bound), backend.array(bound)),
    )  # fmt: skip


SCALES = {
    "variables small": {"columns": 1e-4}, "variables large": {"columns": 1e4}, "rows small": {"rows": 1e-4},
    "rows large": {"rows": 1e4}, "cost small": {"by": 1e-4}, "cost large": {"by": 1e4},
    "mixed": {"columns": [10, 0.1, 1], "rows": [10, 0.1]},
}  # fmt: skip


@functools.cache
def unscaled(name: str) -> Any:
    return swing(BACKENDS[name], pendulum_start(100), 5.0)


@pytest.mark.parametrize("case", SCALES)
def test_scales(backend: Backend, case: str) -> None:
    """Steps change by little, the answer not at all."""
    plain, scaled = unscaled(backend.name), swing(backend, pendulum_start(100), 5.0, **SCALES[case])
    assert plain.status == scaled.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(plain.value), 18.106338248990, rtol=1e-7)
    np.testing.assert_allclose(float(scaled.value) / SCALES[case].get("by", 1.0), float(plain.value), rtol=1e-6)
    assert scaled.steps <= 1.5 * plain.steps


def test_swing_from_rest(backend: Backend) -> None:
    """No control, no motion: the Hessian of the Lagrangian is indefinite there."""
    result = swing(backend, np.zeros((100, 3)), INF)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 12.5941385745, rtol=1e-7)
    assert result.steps <= 30


def runge_kutta(slope: Callable, x: list, h: Any) -> list:
    k1 = slope(x)
    k2 = slope([a + h / 2 * k for a, k in zip(x, k1, strict=True)])
    k3 = slope([a + h / 2 * k for a, k in zip(x, k2, strict=True)])
    k4 = slope([a + h * k for a, k in zip(x, k3, strict=True)])
    return [a + h / 6 * (p + 2 * q + 2 * r + s) for a, p, q, r, s in zip(x, k1, k2, k3, k4, strict=True)]


@functools.cache
def race(name: str, N: int = 20) -> tuple[Callable, Callable, Callable]:
    """Columns p, v, u and the step length: p' = v, v' = u - v, least time to p = 1, v <= 1 - sin(2 pi p) / 2."""
    xp = BACKENDS[name].xp

    def rows(z: Any) -> list:
        p, v, u, h = columns(z)
        after = runge_kutta(lambda x: [x[1], u[:-1] - x[1]], [p[:-1], v[:-1]], h[:-1])
        return [
            p[1:] - after[0], v[1:] - after[1], h[1:] - h[:-1], *ends((p, True, 0), (v, True, 0), (p, False, 1)),
        ]  # fmt: skip

    return lambda z: N * z[-1, 3], rows, lambda z: 1 - xp.sin(2 * np.pi * z[:, 0]) / 2 - z[:, 1]


@pytest.mark.parametrize(("v", "T"), [(1.0, 1.0), (0.5, 2.0)])
def test_race(backend: Backend, v: float, T: float) -> None:
    cost, rows, limit = race(backend.name)
    lower, upper = backend.array([-INF, -INF, 0, 0]), backend.array([INF, INF, 1, INF])
    start = backend.array(stages(np.zeros(21), v, 0, T / 20))
    result = backend.package.sqp(cost, rows, start, 1, inequalities=limit, bounds=(lower, upper))
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 1.9012479, rtol=1e-6)
    assert result.steps <= 40


def test_epidemic(backend: Backend) -> None:
    """Its two rates, replicated per stage, fitted to a series; all that is asked is `bounds=(0., None)`."""
    xp, T = backend.xp, 40
    s, i, series = 0.99, 0.01, []
    for _ in range(T):
        series.append(i)
        s, i = s - 0.5 * s * i, i + 0.5 * s * i - 0.1 * i
    data = backend.array(np.array(series) * (1 + 0.05 * np.sin(7.0 * np.arange(T) ** 2)))

    def rows(z: dict) -> dict:
        s, i, beta, rate = z["s"], z["i"], z["beta"], z["rate"]
        new = beta[:-1] * s[:-1] * i[:-1]
        return {
            "s": s[1:] - s[:-1] + new, "i": i[1:] - i[:-1] - new + rate[:-1] * i[:-1], "beta": beta[1:] - beta[:-1],
            "rate": rate[1:] - rate[:-1], "all": s[:1] + i[:1] - 1,
        }  # fmt: skip

    values = {"s": 0.9, "i": 0.1, "beta": 0.3, "rate": 0.2}
    start = {name: backend.array(np.full(T, value)) for name, value in values.items()}
    result = backend.package.sqp(lambda z: xp.sum((z["i"] - data) ** 2), rows, start, 1, bounds=(0.0, None))
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 0.0045253067, rtol=1e-6)
    assert result.steps <= 1.5 * 14
    np.testing.assert_allclose(backend.numpy(result.x["beta"]), 0.5, atol=0.05)


@pytest.mark.parametrize("offset", [0.0, 1e-3, 0.1])
def test_path_past_a_disc(backend: Backend, offset: float) -> None:
    """Ten points from (0, 0) to (1, 0) through a disc: it is left to one side, also from its axis of symmetry."""
    start = backend.array(stages(np.arange(1, 11) / 11, offset))
    result = backend.package.sqp(_length(backend.name), None, start, 1, inequalities=_outside)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 0.106, rtol=1e-6)  # straight through, a saddle, it would be 0.196
    assert result.steps <= 35


def _outside(z: Any) -> Any:
    return (z[:, 0] - 0.5) ** 2 + z[:, 1] ** 2 - 0.04


@functools.cache
def _length(name: str) -> Callable:
    def length(z: Any) -> Any:
        return (z[0] ** 2).sum() + ((z[1:] - z[:-1]) ** 2).sum() + (z[-1, 0] - 1) ** 2 + z[-1, 1] ** 2

    return length


T, CIRCLES = 31, ((1.0, 0.1, 0.3), (2.0, -0.15, 0.4), (3.0, 0.2, 0.35), (1.5, 0.9, 0.3))


def test_quadrotor_past_circles(backend: Backend) -> None:
    """In a plane, from (0, 0) to (4, 0) in 4 s, from a straight line through three of four circles: by multiple
    shooting with a Runge-Kutta step under `lax.scan` in JAX, by the trapezoidal rule in PyTorch."""
    xp, h, arm, inertia = backend.xp, 4 / (T - 1), 0.25, 0.1
    scanned = backend.name == "jax"

    def slope(x: list) -> list:
        _, _, angle, vx, vy, spin, a, b = x
        along, up = -(a + b) * xp.sin(angle), (a + b) * xp.cos(angle) - GRAVITY
        return [vx, vy, spin, along, up, arm * (a - b) / inertia, 0 * a, 0 * b]

    def shot(z: Any) -> Any:
        step = lambda _, x: (None, jnp.stack(runge_kutta(slope, list(x), h)[:6]))  # noqa: E731
        return z[1:, :6] - jax.lax.scan(step, None, z[:-1])[1]

    def rows(z: Any) -> list:
        x = columns(z)
        first, last = ((q, True, 0) for q in x[:6]), ((q, False, 4 * (q is x[0])) for q in x[:6])
        goal = ends(*first, *last)
        if scanned:
            return [shot(z), *goal]
        return [*(trapezoid(q, k, h) for q, k in zip(x[:6], slope(x), strict=False)), *goal]

    def outside(z: Any) -> list:
        return [(z[:, 0] - x) ** 2 + (z[:, 1] - y) ** 2 - r**2 for x, y, r in CIRCLES]

    hover, r = GRAVITY / 2, np.arange(T) / (T - 1)
    result = backend.package.sqp(
        lambda z: h * xp.sum((z[:, 6:] - hover) ** 2), rows,
        backend.array(stages(4 * r, 0, 0, 1, 0, 0, hover, hover)), 1, inequalities=outside,
        bounds=(backend.array([-INF] * 6 + [0.0] * 2), backend.array([INF] * 6 + [15.0] * 2)),
    )  # fmt: skip
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 4.46708086 if scanned else 5.34046346, rtol=1e-6)
    assert result.steps <= 30
    assert min(float(backend.numpy(g).min()) for g in outside(result.x)) > -1e-8


@pytest.mark.parametrize("radius", [0.2, 0.3])
@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-9, 1e-6])
def test_starts_next_to_an_axis_of_symmetry(backend: Backend, radius: float, off: float) -> None:
    """Ten points past a disc, from on or next to the line through its centre, to where a start well off it leads:
    columns of the Jacobian that nearly vanish at the start are no measure of variables."""

    def cost(z: Any) -> Any:
        ends = z[0, 0] ** 2 + z[0, 1] ** 2 + (z[-1, 0] - 1) ** 2 + z[-1, 1] ** 2
        return ((z[1:] - z[:-1]) ** 2).sum() + ends

    def end(off: float) -> Any:
        start = np.stack([np.arange(1, 11) / 11, np.full(10, off)], axis=1)
        outside = lambda z: (z[:, 0] - 0.5) ** 2 + z[:, 1] ** 2 - radius**2  # noqa: E731
        return backend.package.sqp(cost, None, backend.array(start), 1, inequalities=outside)

    near, far = end(off), end(0.1)
    assert near.status == far.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(near.value), float(far.value), rtol=1e-6)
    assert near.steps <= 40
