"""`root`: known roots, honest statuses, derivatives by the implicit function theorem, and steps of implicit methods."""

from typing import Any

import jax
import numpy as np
import pytest
import root_cases
import scipy.integrate
import scipy.optimize
from backends import Backend

import bandhess_jax
from bandhess_jax import Status

SYSTEMS = {
    "tridiagonal": (root_cases.broyden_tridiagonal, root_cases.tridiagonal_in_loops, 1, 1),
    "banded": (root_cases.broyden_banded, root_cases.banded_in_loops, 5, 1),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_broyden(backend: Backend, name: str) -> None:
    """The functions are those of the book, and the roots are SciPy's, who solves them with a dense Jacobian."""
    build, loops, lower, upper = SYSTEMS[name]
    fun, start = build(backend.xp), -np.ones(30)
    y = np.random.default_rng(0).normal(size=30)
    np.testing.assert_allclose(backend.numpy(fun(backend.array(y))), loops(y), rtol=0, atol=1e-13)
    result = backend.package.root(fun, backend.array(start), lower, upper, tol=1e-12)
    assert result.status == Status.CONVERGED
    assert result.steps == {"tridiagonal": 5, "banded": 6}[name]
    assert float(result.residual_norm) == pytest.approx(np.abs(loops(backend.numpy(result.x))).max(), abs=1e-14)
    expected = scipy.optimize.root(loops, start, tol=1e-13).x
    np.testing.assert_allclose(backend.numpy(result.x), expected, rtol=0, atol=1e-11)


def test_boundary_value_problem(backend: Backend) -> None:
    """Of second order in the step: 16 times the stages, an error 256 times smaller. The other solution is not it."""
    errors = []
    for T in (21, 321):
        t = np.linspace(0, 1, T)
        start = np.stack([4 - 3 * t, -3 + 0 * t], 1)
        result = backend.package.root(root_cases.boundary_value(backend.xp, T), backend.array(start), 1, 1)
        assert result.status == Status.CONVERGED
        errors.append(np.abs(backend.numpy(result.x)[:, 0] - 4 / (1 + t) ** 2).max())
    assert errors[0] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(256, rel=0.05)


ENDS = {
    # A far start, from which Newton's own steps diverge.
    "far": (lambda xp: lambda y: xp.arctan(y), 20.0, Status.CONVERGED),
    # Trials outside the domain are turned down.
    "domain": (lambda xp: lambda y: xp.sqrt(y) - 1, 9.0, Status.CONVERGED),
    # 0 is a minimum of |F|^2 and no root.
    "no root": (lambda xp: lambda y: y**2 + 1, 0.3, Status.STALLED),
    # F is 0, but J is, too: nothing says that this root is isolated.
    "zero": (lambda xp: lambda y: 0 * y, 1.0, Status.PRECISION_FLOOR),
    # Between two neighbouring y the cubes jump past 0, and tol asks for less.
    "noise": (lambda xp: lambda y: (y + 1e6) ** 3 - (1e6 + 0.3) ** 3 - 150, 1.0, Status.PRECISION_FLOOR),
    "not finite": (lambda xp: lambda y: xp.log(y), -1.0, Status.NONFINITE),
    "edge": (lambda xp: lambda y: xp.where(y > 0.5, y, xp.nan), 1.0, Status.NONFINITE),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends(backend: Backend, name: str) -> None:
    build, start, status = ENDS[name]
    tol = 1e-15 if name == "noise" else None
    result = backend.package.root(build(backend.xp), backend.array(np.full(3, start)), 0, 0, tol=tol)
    assert result.status == status
    if status == Status.CONVERGED:
        assert float(result.residual_norm) < 1e-7
    if name == "noise":
        np.testing.assert_allclose(backend.numpy(result.x), 0.3, rtol=0, atol=1e-9)


def test_band_too_narrow_and_max_steps(backend: Backend) -> None:
    fun, start = root_cases.broyden_tridiagonal(backend.xp), backend.array(-np.ones(30))
    root = backend.package.root
    assert root(fun, start, 0, 1).status == Status.BAND_TOO_NARROW
    spent = root(fun, start, 1, 1, max_steps=2)
    assert (spent.status, spent.steps) == (Status.MAX_STEPS, 2)
    # A coupling that vanishes at the start is found at the end.
    hidden = lambda y: y - 1 + (y - 0.5) ** 2 * (y[:1] - 1)  # noqa: E731
    assert root(hidden, backend.array(np.full(4, 0.5)), 0, 0).status == Status.BAND_TOO_NARROW
    assert root(hidden, backend.array(np.full(4, 0.5)), 0, 0, check_band=False).status == Status.CONVERGED


def test_derivatives_and_batches(backend: Backend) -> None:
    """In both modes, and twice, against differences; lanes of a batch end by themselves."""
    fun, start = root_cases.broyden_tridiagonal(backend.xp), backend.array(-np.ones(8))
    total = lambda w: backend.package.root(fun, start, 1, 1, args=(w,), tol=1e-13).x.sum()  # noqa: E731
    weights, h = backend.array([2.0, 3.0, 2.0 + 1e-4, 2.0 - 1e-4]), 1e-4
    slope = backend.grad(total)

    def every_one(w: Any) -> tuple:
        forward = lambda w: backend.jvp(total, (w,), (w,))[1]  # noqa: E731
        return total(w), slope(w), forward(w), backend.grad(slope)(w)

    values, first, forward, second = map(backend.numpy, backend.jit(backend.vmap(every_one))(weights))
    assert first[0] == pytest.approx((values[2] - values[3]) / (2 * h), rel=1e-6)
    assert second[0] == pytest.approx((first[2] - first[3]) / (2 * h), rel=1e-6)
    np.testing.assert_allclose(forward, backend.numpy(weights) * first, rtol=1e-12)


def test_no_derivative_where_there_is_no_root(backend: Backend) -> None:
    fun = lambda y, a: y**2 + a  # noqa: E731
    total = lambda a: backend.package.root(fun, backend.array([0.3]), 0, 0, args=(a,)).x.sum()  # noqa: E731
    assert np.isnan(float(backend.jit(backend.grad(total))(backend.array(1.0))))


END = 0.5
PROBLEMS = {
    "Allen-Cahn": (root_cases.allen_cahn, 1e-2, lambda x: np.cos(3 * np.pi * x) / 2 + 0.1),
    "Burgers": (root_cases.burgers, 1e-2, lambda x: np.sin(2 * np.pi * x) + np.sin(np.pi * x) / 2),
}


def march(backend: Backend, rate: Any, start: np.ndarray, D: Any, steps: int = 64) -> tuple[Any, Any]:
    """The end, and whether each step converged: `lax.scan` in JAX, a loop in PyTorch."""
    residual = root_cases.implicit_step(rate, END / steps)

    def step(u: Any, _: Any) -> tuple[Any, Any]:
        result = backend.package.root(residual, u, 1, 1, args=(u, D), tol=1e-10)
        return result.x, result.status

    if backend.name == "jax":
        u, statuses = jax.lax.scan(step, backend.array(start), length=steps)
        return u, (statuses <= Status.PRECISION_FLOOR).all()
    u, good = backend.array(start), True
    for _ in range(steps):
        u, status = step(u, None)
        good &= status <= Status.PRECISION_FLOOR
    return u, good


@pytest.mark.parametrize("name", PROBLEMS)
def test_implicit_steps(backend: Backend, name: str) -> None:
    """Against SciPy's BDF on the same grid."""
    build, D, initial = PROBLEMS[name]
    start = initial(np.linspace(0, 1, 42)[1:-1])
    rate = build(np)
    band = np.tri(40, 40, 1) - np.tri(40, 40, -2)
    # SciPy's first BDF step subtracts a row of its table that `np.empty` left unset, and throws the result away; it
    # warns where the memory happens to hold a signalling NaN (scipy #16883, numba #8931).
    with np.errstate(invalid="ignore"):
        exact = scipy.integrate.solve_ivp(
            lambda _, u: rate(u, D), (0, END), start, method="BDF", rtol=1e-9, atol=1e-10, jac_sparsity=band
        ).y[:, -1]
    assert np.isfinite(exact).all()
    u, good = backend.jit(lambda D: march(backend, build(backend.xp), start, D))(backend.array(D))
    assert bool(good)
    assert np.abs(backend.numpy(u) - exact).max() < 2e-3
    assert np.abs(start - exact).max() > 0.05


def test_the_derivative_goes_through_all_steps(backend: Backend) -> None:
    build, D, initial = PROBLEMS["Allen-Cahn"]
    start, h = initial(np.linspace(0, 1, 12)[1:-1]), 1e-5
    energy = lambda D: (march(backend, build(backend.xp), start, D, 8)[0] ** 2).sum()  # noqa: E731
    slope = float(backend.jit(backend.grad(energy))(backend.array(D)))
    energy = backend.jit(energy)
    difference = (float(energy(backend.array(D + h))) - float(energy(backend.array(D - h)))) / (2 * h)
    assert slope == pytest.approx(difference, rel=1e-5)


def test_wrong_arguments(backend: Backend) -> None:
    root, y0 = backend.package.root, backend.array(np.ones(3))
    with pytest.raises(TypeError, match="args must be a tuple"):
        root(lambda y, a: y, y0, 0, 0, args=1.0)
    with pytest.raises(ValueError, match="tol must be positive"):
        root(lambda y: y, y0, 0, 0, tol=0.0)
    with pytest.raises(ValueError, match="as many residuals a stage"):
        root(lambda y: y[1:], y0, 0, 0)
    empty = root(lambda y: y, y0[:0], 0, 0)
    assert (empty.status, empty.steps, float(empty.residual_norm)) == (Status.CONVERGED, 0, 0)


def test_a_new_tolerance_does_not_retrace() -> None:
    traces = []

    def fun(y: Any) -> Any:
        traces.append(None)
        return y**3 - 2

    counts = []
    for tol, max_steps in ((1e-6, 50), (1e-12, 60)):
        assert bandhess_jax.root(fun, jax.numpy.ones(4), 0, 0, tol=tol, max_steps=max_steps).status == Status.CONVERGED
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0
