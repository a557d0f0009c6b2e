"""How Newton's method ends: honestly."""

import math
from typing import Any

import numpy as np
import pytest
from backends import Backend
from hypothesis import given
from hypothesis import strategies as st
from minimisations import Landscape, landscape_derivatives
from newton_cases import ENDS, EPS, HERE, LANDSCAPE, TOL, N, on_landscape
from oracles import reals


@pytest.mark.parametrize("end", ENDS)
def test_ends(backend: Backend, end: str) -> None:
    c, x0, status = ENDS[end]
    result = on_landscape(backend, x0, c)
    assert result.status == backend.package.Status[status]
    assert isinstance(result.status, backend.package.Status)
    assert type(result.steps) is int
    if status in ("NONFINITE", "BAND_TOO_NARROW") and end != "coupling that shows later":
        assert result.steps == 0
        np.testing.assert_array_equal(backend.numpy(result.x), x0)


@pytest.mark.parametrize(("roundings", "status"), [(15, "STALLED"), (15 * 2**20, "MAX_STEPS")])
def test_creeping_is_no_progress(backend: Backend, roundings: int, status: str) -> None:
    """A valley whose floor is a kink: every step crosses it and falls by a third or two of its promise, so that neither
    does the radius grow nor a step fail. Steps of some roundings are an end; those a million times as long are not."""
    x0 = np.array([1 - roundings * np.finfo("float64").eps, 0])
    result = backend.package.newton(lambda x: backend.xp.abs(x[0] - 1) - x[1], backend.array(x0), 0, max_steps=100)
    assert result.status == backend.package.Status[status]
    assert 0 < float(result.x[1]) < 1e4 * roundings * np.finfo("float64").eps


@pytest.mark.parametrize("n", [2, 5])
def test_a_saddle_at_gershgorins_bound_is_left(backend: Backend, n: int) -> None:
    """Wells coupled by springs, from their common top: the least eigenvalue is -1, as Gershgorin's bound says."""
    fun = lambda x: backend.xp.sum((x**2 - 1) ** 2) / 4 + backend.xp.sum((x[1:] - x[:-1]) ** 2)  # noqa: E731
    result = backend.package.newton(fun, backend.array(np.zeros(n)), 1)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 0, atol=1e-12)


@pytest.mark.parametrize("end", ["convex", "falling plane", "kinks"])
def test_the_value_never_rises(backend: Backend, end: str) -> None:
    c, x0, _ = ENDS[end]
    result = on_landscape(backend, x0, c)
    start = float(LANDSCAPE[backend.name](backend.array(x0), backend.array(c.array())))
    assert float(result.value) < start


@pytest.mark.parametrize("spring", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    "start",
    [
        np.zeros(N),
        np.array([1.0, 0, 0, 0, 0, 0]),
        np.full(N, 1e-9),
        np.array([1.0, 1, 1, -1, -1, -1]),
        np.array([2.0, 0, 0, 0, 0, 0]),  # without springs, the gradient has no part in what curves downwards
    ],
    ids=["maximum", "off the maximum", "near the maximum", "wells", "hard case"],
)
def test_double_well_is_left_at_its_top(backend: Backend, spring: float, start: np.ndarray) -> None:
    """x^4/4 - x^2/2 in every variable: x = 0 is a stationary maximum, and no end for a minimisation."""
    c = Landscape(curvature=-1, quartic=1, spring=spring)
    result = on_landscape(backend, start, c)
    assert result.status == backend.package.Status.CONVERGED
    gradient, hessian = landscape_derivatives(backend.numpy(result.x), c)
    assert np.abs(gradient).max() <= 1e-6
    assert np.linalg.eigvalsh(hessian)[0] >= -TOL * np.linalg.norm(hessian, 2)
    assert float(result.value) < -0.1


def test_saddle_is_left(backend: Backend) -> None:
    """Gradient zero and curvature of both signs at the start: minus in the rigid motion, plus in all others."""
    c = Landscape(curvature=-0.01, quartic=1, spring=10)
    _, hessian = landscape_derivatives(np.zeros(N), c)
    low, second = np.linalg.eigvalsh(hessian)[:2]
    assert low < 0 < second
    result = on_landscape(backend, np.zeros(N), c)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(np.abs(backend.numpy(result.x)), 0.1, rtol=0, atol=1e-6)


def test_a_small_saddle_is_no_minimum(backend: Backend) -> None:
    """Curvatures of 1e-20 and -1e-20 count in float32, too, though their squares do not."""
    start = backend.array(np.array([1.0, 0.0]), "float32")
    result = backend.package.newton(lambda x: 1e-20 * (x[0] ** 2 - x[1] ** 2 + x[1] ** 4), start, 0)
    assert result.status != backend.package.Status.CONVERGED or abs(float(result.x[1])) > 0.5


WAY: list = []  # one callback for all examples below, so that they share a program


def note(info: Any) -> None:
    WAY.append(float(info.grad_norm))


@given(
    tilt=st.sampled_from([0.0, 0.3, -1.0]),
    curvature=st.sampled_from([-2.0, -0.5, 0.0, 1.0]),
    spring=st.sampled_from([-0.5, 0.0, 0.3, 5.0]),
    size=st.sampled_from([1e-6, 0.5, 4.0]),
    seed=st.integers(0, 99),
)
def test_converged_means_a_minimum(
    backend: Backend, tilt: float, curvature: float, spring: float, size: float, seed: int
) -> None:
    """The stopping formula of the docstring, and second-order honesty, on landscapes that have a minimum."""
    c = Landscape(tilt, curvature, quartic=1, spring=spring)
    WAY.clear()
    result = on_landscape(backend, size * reals(N, seed), c, callback=note)
    assert result.status == backend.package.Status.CONVERGED
    x = backend.numpy(result.x)
    gradient, hessian = landscape_derivatives(x, c)
    np.testing.assert_allclose(float(result.grad_norm), np.abs(gradient).max(), rtol=1e-6, atol=1e-14)
    rounding = 8 * EPS * (np.abs(hessian) @ np.abs(x)).max()
    assert np.abs(gradient).max() <= 1.001 * max(TOL * max(1, *WAY), rounding)
    assert np.linalg.eigvalsh(hessian)[0] >= -TOL * np.abs(hessian).sum(1).max()


@pytest.mark.parametrize("max_steps", [0, 2])
def test_max_steps(backend: Backend, max_steps: int) -> None:
    result = on_landscape(backend, 4 * HERE, Landscape(quartic=1, spring=1), max_steps=max_steps)
    assert result.status == backend.package.Status.MAX_STEPS
    assert result.steps == max_steps


def test_unchecked_band(backend: Backend) -> None:
    c, x0, _ = ENDS["coupling outside the band"]
    result = on_landscape(backend, x0, c, check_band=False)
    assert result.status != backend.package.Status.BAND_TOO_NARROW
    assert float(result.value) < float(LANDSCAPE[backend.name](backend.array(x0), backend.array(c.array())))


def test_domain_with_a_border(backend: Backend) -> None:
    """Trial points where f is NaN (log of a negative number) are turned down, not fallen for."""

    def fun(x):
        return backend.xp.sum(x**2 / 2 - backend.xp.log(x)) + backend.xp.sum((x[1:] - x[:-1]) ** 2)

    result = backend.package.newton(fun, backend.array(10.0 ** np.linspace(-3, 1, N)), 1)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(result.x), np.ones(N), rtol=0, atol=1e-7)


def test_minimum_outside_the_domain(backend: Backend) -> None:
    """f is NaN where x <= 0.5 somewhere, and falls towards there."""

    def fun(x):
        return backend.xp.sum(x**2) / 2 + 0 * backend.xp.sum(backend.xp.log(x - 0.5))

    result = backend.package.newton(fun, backend.array(np.full(3, 2.0)), 0)
    assert result.status == backend.package.Status.NONFINITE
    np.testing.assert_allclose(backend.numpy(result.x).min(), 0.5, rtol=1e-6)
    assert math.isfinite(float(result.value))
