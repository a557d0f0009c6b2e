"""Newton's method: reference optima, the same steps in both backends, scales, choices of the Hessian."""

import functools
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from backends import BACKENDS, Backend
from minimisations import MINIMISATIONS, Landscape, Minimisation, landscape_derivatives
from newton_cases import EPS, HERE, LANDSCAPE, TOL, N, on_landscape
from problems import steering_stages


@functools.cache
def minimise(problem: Minimisation, name: str) -> Any:
    backend = BACKENDS[name]
    return backend.package.newton(problem.objective(backend.xp), backend.array(problem.start), problem.bandwidth)


# --- Reference problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", MINIMISATIONS, ids=str)
def test_reference_optimum(backend: Backend, problem: Minimisation) -> None:
    result = minimise(problem, backend.name)
    fun = problem.objective(backend.xp)
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    assert abs(float(result.value) - problem.optimum) <= 1e-8 * max(1, abs(problem.optimum))
    # What is reported is what is there. (An entry of the gradient is a difference of much larger terms.)
    assert tuple(result.x.shape) == problem.start.shape
    scale = max(1, abs(problem.optimum))
    value, gradient = backend.jit(lambda x: (fun(x), backend.grad(fun)(x)))(result.x)
    np.testing.assert_allclose(float(value), float(result.value), rtol=0, atol=64 * EPS * scale)
    largest = np.abs(backend.numpy(gradient)).max()
    np.testing.assert_allclose(largest, float(result.grad_norm), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(("name", "limit"), [("path2d", 9), ("curly10", 16), ("genrose", 850)])
def test_few_steps(backend: Backend, name: str, limit: int) -> None:
    problem = next(problem for problem in MINIMISATIONS if problem.name == name)
    assert 0 < minimise(problem, backend.name).steps <= limit


@pytest.mark.parametrize("problem", MINIMISATIONS, ids=str)
def test_backends_take_the_same_steps(problem: Minimisation) -> None:
    """To the step on short runs; along GENROSE's valley, rounding adds up over several hundred of them."""
    by_jax, by_torch = minimise(problem, "jax"), minimise(problem, "torch")
    if max(by_jax.steps, by_torch.steps) < 50:
        assert by_jax.steps == by_torch.steps
    else:
        assert abs(by_jax.steps - by_torch.steps) <= 0.05 * max(by_jax.steps, by_torch.steps)
    assert by_jax.status == by_torch.status
    np.testing.assert_allclose(float(by_jax.value), float(by_torch.value), rtol=1e-8, atol=1e-8)


def test_ragged_tree(backend: Backend) -> None:
    """{"q": (T, 3), "u": (T - 1, 2)}: to the minimiser, in the structure of the start, with scales given like it."""
    problem = steering_stages(7, ragged=True)
    fun, args = problem.objective(backend.xp), tuple(map(backend.array, problem.args))
    x0 = backend.tree_map(lambda leaf: backend.array(leaf), problem.x)
    scale = backend.tree_map(lambda leaf: 3 + backend.xp.abs(leaf), x0)
    result = backend.package.newton(fun, x0, 1, args=args, scale=scale)
    assert result.status == backend.package.Status.CONVERGED
    assert {key: tuple(leaf.shape) for key, leaf in result.x.items()} == {k: v.shape for k, v in problem.x.items()}
    # 0.5 |r|^2 + sum u^4 / 4 + q^2 / 2 >= 0, with equality at the origin alone.
    assert 0 <= float(result.value) <= 1e-8
    gradient = backend.leaves(backend.jit(backend.grad(fun))(result.x, *args))
    largest = max(np.abs(backend.numpy(leaf)).max() for leaf in gradient)
    np.testing.assert_allclose(largest, float(result.grad_norm), rtol=1e-6, atol=1e-15)


def test_float32(backend: Backend) -> None:
    x0 = backend.array(np.full(50, 2.0), "float32")
    result = backend.package.newton(
        lambda x: backend.xp.sum((x - 1) ** 4) + backend.xp.sum((x[1:] - x[:-1]) ** 2), x0, 1
    )
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    for part in (result.x, result.value, result.grad_norm):
        assert part.dtype == backend.dtype("float32")
    assert 0 <= float(result.value) <= 50 * np.finfo("float32").eps ** 0.5


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 3)])
def test_small_sizes(backend: Backend, n: int, k: int) -> None:
    result = backend.package.newton(lambda x: backend.xp.sum((x - 3) ** 2), backend.array(np.zeros(n)), k)
    assert result.status == backend.package.Status.CONVERGED
    assert float(result.grad_norm) <= TOL
    np.testing.assert_allclose(backend.numpy(result.x), np.full(n, 3.0), rtol=0, atol=1e-12)


def test_tolerance(backend: Backend) -> None:
    """A looser tolerance than the default takes fewer steps and leaves a larger gradient."""
    c = Landscape(quartic=1, spring=1)
    loose, tight = on_landscape(backend, 4 * HERE, c, tol=1e-2), on_landscape(backend, 4 * HERE, c)
    assert loose.status == tight.status == backend.package.Status.CONVERGED
    assert loose.steps < tight.steps
    assert float(tight.grad_norm) < float(loose.grad_norm)


# --- Scales and Hessians ---------------------------------------------------------------------------------------------


def test_scale(backend: Backend) -> None:
    """In x / scale the problem is the plain landscape: the same steps to the same point, to the last bit."""
    sizes = 2.0 ** np.array([0, 10, -7, 3, -12, 5])
    c = Landscape(tilt=0.1, curvature=-1, quartic=1, spring=0.5)
    args = (backend.array(c.array()), backend.array(sizes))
    plain = on_landscape(backend, 4 * HERE, c)

    def fun(x, c, sizes):
        return LANDSCAPE[backend.name](x / sizes, c)

    def solve(scale):
        return backend.package.newton(fun, backend.array(4 * HERE * sizes), 1, args=args, scale=scale)

    given = solve(backend.array(sizes * 0.75))  # 0.75 is rounded up
    np.testing.assert_array_equal(backend.numpy(given.x), backend.numpy(plain.x) * sizes)
    assert (given.steps, float(given.value), given.status) == (plain.steps, float(plain.value), plain.status)
    gradient = landscape_derivatives(backend.numpy(plain.x), c)[0]
    np.testing.assert_allclose(float(given.grad_norm), np.abs(gradient / sizes).max(), rtol=1e-3, atol=1e-12)
    unscaled, diagonal = solve(None), solve("diagonal")
    assert unscaled.steps > 2 * given.steps
    assert diagonal.steps <= 2 * given.steps
    assert diagonal.status == backend.package.Status.CONVERGED


def test_hessians(backend: Backend) -> None:
    """Least squares by J^T J, by the same band given as a function, and by the exact Hessian: one minimiser."""
    xp, package = backend.xp, backend.package

    def residuals(x, target):
        return {"valley": 10 * (x[1:] - x[:-1] ** 2), "pull": (x - target)[:, None]}

    def fun(x, target):
        r = residuals(x, target)
        return (xp.sum(r["valley"] ** 2) + xp.sum(r["pull"] ** 2)) / 2

    def band(x, target):
        return package.gauss_newton(residuals, 1)(x, target)

    x0, target = backend.array(HERE), backend.array(np.linspace(1, 2, N))
    squares = package.newton(residuals, x0, 1, args=(target,), hessian="gauss_newton")
    given = package.newton(fun, x0, 1, args=(target,), hessian=band)
    exact = package.newton(fun, x0, 1, args=(target,))

    def flat(x):
        return np.concatenate([10 * (x[1:] - x[:-1] ** 2), x - np.linspace(1, 2, N)])

    known = scipy.optimize.least_squares(flat, HERE, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    for result in (squares, given, exact):
        assert result.status in (package.Status.CONVERGED, package.Status.PRECISION_FLOOR)
        np.testing.assert_allclose(backend.numpy(result.x), known.x, rtol=0, atol=1e-5)
        np.testing.assert_allclose(float(result.value), known.cost, rtol=1e-9)
    assert squares.steps == given.steps > exact.steps
    with pytest.raises(ValueError, match=r"hessian's result must be \(2, 6\) .*got shape \(1, 6\)"):
        package.newton(fun, x0, 1, args=(target,), hessian=lambda x, target: band(x, target)[:1])


def test_too_narrow_for_the_residuals(backend: Backend) -> None:
    result = backend.package.newton(
        lambda x: x[2:] - x[:-2] ** 2, backend.array(HERE), 1, hessian="gauss_newton", max_steps=5
    )
    assert result.status == backend.package.Status.BAND_TOO_NARROW
