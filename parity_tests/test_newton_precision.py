"""newton where rounding decides: a status is true, measured in exact arithmetic, and lost curvature is no excuse."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend

import bandhess_jax

N = 6


def chain(xp: Any) -> Any:
    """sum a (x - t)^2 / 2 + sum b (x[1:] - x[:-1] - d)^2 / 2."""
    return lambda x, a, t, b, d: (xp.sum(a * (x - t) ** 2) + xp.sum(b * (x[1:] - x[:-1] - d) ** 2)) / 2


# One function object per backend, so that the tests share programs.
CHAIN = {name: chain(backend.xp) for name, backend in BACKENDS.items()}


def rational(*arrays: Any) -> list[list[Fraction]]:
    return [[Fraction(float(entry)) for entry in array] for array in arrays]


def exact_minimum(*coefficients: np.ndarray) -> tuple[list[Fraction], Any]:
    """The minimiser of the chain, and its f, in rational numbers (elimination of a tridiagonal system)."""
    a, t, b, d = rational(*coefficients)
    n = len(a)
    own = [a[i] + (b[i] if i < n - 1 else 0) + (b[i - 1] if i else 0) for i in range(n)]
    right = [a[i] * t[i] - (b[i] * d[i] if i < n - 1 else 0) + (b[i - 1] * d[i - 1] if i else 0) for i in range(n)]
    for i in range(1, n):
        factor = -b[i - 1] / own[i - 1]
        own[i] += factor * b[i - 1]
        right[i] -= factor * right[i - 1]
    x = [right[-1] / own[-1]]
    for i in range(n - 2, -1, -1):
        x.insert(0, (right[i] + b[i] * x[0]) / own[i])

    def value(x: list[Fraction]) -> Fraction:
        pulls = sum(a[i] * (x[i] - t[i]) ** 2 for i in range(n))
        return (pulls + sum(b[i] * (x[i + 1] - x[i] - d[i]) ** 2 for i in range(n - 1))) / 2

    return x, value


def graded(seed: int, dtype: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """A start and coefficients over many powers of ten; every other chain hangs on one or two entries alone."""
    rng = np.random.default_rng(seed)
    span = rng.choice([2, 6, 12, 20] if dtype == "float64" else [1, 3, 6, 10])
    a, b = 10 ** rng.uniform(-span / 2, span / 2, N), 10 ** rng.uniform(-span / 2, span / 2, N - 1)
    if seed % 2:
        a, b = a * (rng.permutation(N) < 1 + seed % 4 // 2), b * 10 ** rng.uniform(0, span)
    t, d = 10 ** rng.uniform(-2, 2) * rng.normal(size=N), rng.normal(size=N - 1)
    return rng.normal(size=N).astype(dtype), [array.astype(dtype) for array in (a, t, b, d)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_converged_is_true(backend: Backend, dtype: str) -> None:
    """f(x) - f* is what the docstring promises of CONVERGED; where rounding ends the run, it adds its own to that."""
    eps, statuses = float(np.finfo(dtype).eps), []
    for seed in range(100):
        x0, coefficients = graded(seed, dtype)
        args = tuple(backend.array(array, dtype) for array in coefficients)
        result = backend.package.newton(CHAIN[backend.name], backend.array(x0, dtype), 1, args=args, max_steps=200)
        best, value = exact_minimum(*coefficients)
        start, here = rational(x0, backend.numpy(result.x))
        f0, f = float(value(start)), float(value(here))
        gap = float(value(here) - value(best))
        statuses.append(result.status.name)
        promised = 2 * eps**0.75 * max(abs(f), eps**0.25 * min(1, f0))
        if result.status.name == "CONVERGED":
            assert gap <= promised, seed
        # What some roundings of every entry of x do to f. (Where the condition is above eps^-1.25, products lose the
        # least curvature, too.)
        a, _, b, _ = coefficients
        rounding = 64 * N * eps**2 * float(a.max() + b.max()) * float(np.square(backend.numpy(result.x)).max())
        assert gap <= promised + rounding or float(b.max()) > eps**-1.25 * float(a.sum()), seed
    assert set(statuses) <= {"CONVERGED", "PRECISION_FLOOR"}
    assert 0 < statuses.count("PRECISION_FLOOR") < 50


@pytest.mark.parametrize(("dtype", "weight"), [("float32", 1e8), ("float64", 1e20)])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_big_weights(backend: Backend, dtype: str, weight: float, start: float) -> None:
    """The answer x = 5 is representable; the band of H has lost what tells it."""
    args = [backend.array(array, dtype) for array in (np.ones(N), np.full(N, 5.0), np.full(N - 1, weight), 0 * HERE)]
    result = backend.package.newton(CHAIN[backend.name], backend.array(np.full(N, start), dtype), 1, args=tuple(args))
    assert result.status == backend.package.Status.PRECISION_FLOOR
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(backend.numpy(result.x), np.full(N, 5.0), rtol=eps**0.6)
    assert float(result.value) <= eps**0.75 * 12.5 * N


HERE = np.linspace(0.2, 0.5, N - 1)


def far_scales(xp: Any) -> Any:
    return lambda x: 1e20 * (x[0] - 1) ** 2 / 2 + xp.cos(x[1])


def cancels(xp: Any) -> Any:
    return lambda x: 1e6 * xp.sum(1 - xp.cos(x - 0.3))


def flattens(xp: Any) -> Any:
    return lambda x: 1e4 * xp.sum(xp.log(1 + x**2))


@pytest.mark.parametrize(
    ("fun", "start", "answer"),
    [
        (far_scales, [0, 0.3], [1, np.pi]),
        (cancels, HERE, np.full(N - 1, 0.3)),
        (flattens, HERE, np.zeros(N - 1)),
    ],
    ids=["scales far apart", "f cancels", "f is flat below rounding"],
)
def test_to_the_minimiser(backend: Backend, fun: Any, start: Any, answer: Any) -> None:
    """Neither one variable's size nor noise in f ends a run before its time."""
    result = backend.package.newton(fun(backend.xp), backend.array(np.array(start, float)), 0)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(result.x), answer, rtol=0, atol=1e-6)


def test_sizes_apart(backend: Backend) -> None:
    """float32, one variable a million times the others: no step is too short because of it."""

    def fun(x: Any) -> Any:
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + (x[2] / 1e6 - 1) ** 2

    result = backend.package.newton(fun, backend.array(np.array([-1.2, 1, 2e6]), "float32"), 1)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(result.x), [1, 1, 1e6], rtol=1e-2)


def test_the_minimum_has_a_derivative_where_the_minimiser_has_none(backend: Backend) -> None:
    """min sum (x[1:] - x[:-1] - p)^2 + p . p: x may be moved as a whole, and the minimum is p . p."""

    def fun(x: Any, p: Any) -> Any:
        return backend.xp.sum((x[1:] - x[:-1] - p) ** 2) + backend.xp.sum(p**2)

    def least(p: Any) -> Any:
        return backend.package.newton(fun, backend.array(np.zeros(N)), 1, args=(p,)).value

    p = backend.array(HERE)
    np.testing.assert_allclose(backend.numpy(backend.grad(least)(p)), 2 * HERE, rtol=1e-6)
    _, tangent = backend.jvp(least, (p,), (p,))
    np.testing.assert_allclose(float(tangent), 2 * HERE @ HERE, rtol=1e-6)


@pytest.mark.parametrize("option", [{"history": True, "scale": "diagonal"}, {"max_seconds": 100.0}], ids=str)
def test_under_strict_settings_of_jax(option: dict) -> None:
    """No NaN leaves a healthy program, no dtype or rank is promoted in silence, and no tracer escapes."""
    x0 = jnp.zeros(N, "float32")
    args = tuple(jnp.asarray(array, "float32") for array in (np.ones(N), np.ones(N), np.ones(N - 1), np.ones(N - 1)))

    def solve(x0: Any, args: tuple) -> Any:
        return bandhess_jax.newton(lambda *every: CHAIN["jax"](*every), x0, 1, args=args, **option).status

    strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.checking_leaks()
    with jax.debug_nans(True), strict[0], strict[1], strict[2]:
        assert solve(x0, args) == bandhess_jax.Status.CONVERGED
        if "max_seconds" not in option:
            assert jax.jit(solve)(x0, args) == bandhess_jax.Status.CONVERGED
