"""`band_error`: rounding level for the right band, large for every kind of wrong one."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from chains import window_chain
from oracles import Problem, integers, reals, store, unique_coefficients
from problems import PROBLEMS, polynomial

# Gaussian coefficients may be small where an entry is wrong, but not by this much.
SEEN = 1e-3
ROUNDING = 256
# Not "polynomial matrix k=2": XLA takes over a minute to compile its product fused with the check.
NAMES = ("rosenbrock", "polynomial n=14 w=0", "steering ragged", "path2d flat", "curly10")
CHOSEN = [problem for problem in PROBLEMS if problem.name in NAMES]


def inputs(backend: Backend, problem: Problem, dtype: str = "float64") -> tuple:
    x = backend.tree_map(lambda leaf: backend.array(leaf, dtype), problem.x)
    return x, *(backend.array(arg, dtype) for arg in problem.args)


def error_of(backend: Backend, problem: Problem, ab: np.ndarray, dtype: str = "float64", seed: int = 0) -> float:
    check = backend.package.band_error(problem.objective(backend.xp), seed=seed)
    error = check(backend.array(ab, dtype), *inputs(backend, problem, dtype))
    assert tuple(error.shape) == ()
    assert error.dtype == backend.dtype(dtype)
    return float(error)


@pytest.mark.parametrize("problem", CHOSEN, ids=str)
def test_right_band(backend: Backend, problem: Problem) -> None:
    assert error_of(backend, problem, problem.band) <= ROUNDING * np.finfo("float64").eps


@pytest.mark.parametrize("problem", [problem for problem in CHOSEN if problem.bandwidth > 0], ids=str)
def test_too_narrow(backend: Backend, problem: Problem) -> None:
    """The band that `hessian` itself gives when the bandwidth is one stage short."""
    check = backend.package.band_error(problem.objective(backend.xp))
    args = inputs(backend, problem)
    narrow = backend.package.hessian(problem.objective(backend.xp), problem.bandwidth - 1)(*args)
    assert float(check(narrow, *args)) > SEEN
    right = backend.package.hessian(problem.objective(backend.xp), problem.bandwidth)(*args)
    assert float(check(right, *args)) <= ROUNDING * np.finfo("float64").eps


def test_wrong_stage_structure(backend: Backend) -> None:
    """Coupling across three stages of two scalars is more than bandwidth 2 allows, though few scalars take part."""

    def fun(x):
        return backend.xp.sum(x**2) + x[0, 1] * x[3, 0]

    x = backend.array(reals(10, 0).reshape(5, 2))
    for k, wrong in [(1, True), (2, True), (3, False)]:
        error = float(backend.package.band_error(fun)(backend.package.hessian(fun, k)(x), x))
        assert error > SEEN if wrong else error <= ROUNDING * np.finfo("float64").eps


def test_definition(backend: Backend) -> None:
    """Of order 1 when entries are: |H v - ab v| / (|ab| |v|) lies between 0 and |H - ab| / |ab| on a diagonal."""
    problem = polynomial(6, 0)
    for factor in (0.5, 2.0, -1.0):
        expected = abs(1 - factor) / abs(factor)
        assert error_of(backend, problem, problem.band * factor) == pytest.approx(expected, rel=1e-12)


def spoil_swap(ab: np.ndarray) -> np.ndarray:
    ab[1, [3, 4]] = ab[1, [4, 3]]
    return ab


def spoil_sign(ab: np.ndarray) -> np.ndarray:
    ab[2, 5] *= -1
    return ab


def spoil_shift(ab: np.ndarray) -> np.ndarray:
    ab[2] = np.roll(ab[2], 1)
    return ab


def spoil_lost(ab: np.ndarray) -> np.ndarray:
    ab[3, 0] = 0
    return ab


@pytest.mark.parametrize("spoil", [spoil_swap, spoil_sign, spoil_shift, spoil_lost])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_misplaced_entries(backend: Backend, spoil: Callable, seed: int) -> None:
    problem = polynomial(12, 3)
    assert error_of(backend, problem, spoil(problem.band.copy()), seed=seed) > 1e-4
    assert error_of(backend, problem, problem.band, seed=seed) <= ROUNDING * np.finfo("float64").eps


def test_small_rows_count_as_much_as_large_ones(backend: Backend) -> None:
    """A norm-wise ratio would miss a wrong entry of a badly scaled band."""
    scale = backend.array(10.0 ** np.arange(0, -12, -1.0))

    def fun(x):
        y = scale * x
        return backend.xp.sum((y[1:] - y[:-1]) ** 2)

    x = backend.array(reals(12, 0))
    ab = backend.numpy(backend.package.hessian(fun, 1)(x)).copy()
    ab[1, -2] *= 2  # an entry of 1e-21 beside others of 1
    assert float(backend.package.band_error(fun)(backend.array(ab), x)) > SEEN


def test_zero_over_zero_and_something_over_zero(backend: Backend) -> None:
    x, zero = backend.array(reals(4, 0)), backend.array(np.zeros((1, 4)))
    assert float(backend.package.band_error(lambda x: backend.xp.sum(3 * x))(zero, x)) == 0
    assert float(backend.package.band_error(lambda x: x[1] ** 2 + 0 * backend.xp.sum(x))(zero, x)) == np.inf


def test_float32(backend: Backend) -> None:
    problem = window_chain(20, 2)
    assert error_of(backend, problem, problem.band, "float32") <= ROUNDING * np.finfo("float32").eps
    assert error_of(backend, problem, np.vstack([problem.band[:2], 0 * problem.band[2:]]), "float32") > SEEN


def test_nan_in_unused_cells_is_not_seen(backend: Backend) -> None:
    problem = polynomial(9, 2)
    ab = np.where(np.arange(3)[:, None] + np.arange(9) < 9, problem.band, np.nan)
    assert error_of(backend, problem, ab) <= ROUNDING * np.finfo("float64").eps


@pytest.mark.parametrize("where", [(0, 0), (1, 4)])
def test_nan_in_the_band_is_not_small(backend: Backend, where: tuple[int, int]) -> None:
    problem = polynomial(9, 2)
    ab = problem.band.copy()
    ab[where] = np.nan
    assert not error_of(backend, problem, ab) <= 1


def test_arguments(backend: Backend) -> None:
    """argnums, has_aux and keywords, as in `hessian`."""

    def fun(scale, x, *, power):
        return backend.xp.sum(scale * x[1:] ** power * x[:-1]), x

    args = backend.array(2.0), backend.array(integers(6, 0))
    ab = backend.package.hessian(fun, 1, argnums=1, has_aux=True)(*args, power=2)[0]
    check = backend.package.band_error(fun, argnums=1, has_aux=True)
    assert float(check(ab, *args, power=2)) <= ROUNDING * np.finfo("float64").eps
    assert float(check(ab, *args, power=3)) > SEEN


def test_products(backend: Backend) -> None:
    """One product."""
    A = unique_coefficients(5, 5, 0)
    products: list = []
    fun = backend.quadratic(A + A.T, products)
    error = backend.package.band_error(fun)(backend.array(store(A + A.T, 4)), backend.array(np.ones(5)))
    assert float(error) <= ROUNDING * np.finfo("float64").eps
    assert len(products) == 1


def test_empty(backend: Backend) -> None:
    empty = backend.array(np.zeros(0))
    error = backend.package.band_error(lambda x: backend.xp.sum(x**2))(backend.array(np.zeros((2, 0))), empty)
    assert float(error) == 0


def test_jit() -> None:
    problem, backend = polynomial(9, 2), BACKENDS["jax"]
    check = jax.jit(backend.package.band_error(problem.objective(backend.xp)))
    args = inputs(backend, problem)
    assert float(check(backend.array(problem.band), *args)) <= ROUNDING * np.finfo("float64").eps
    assert float(check(backend.array(problem.band + 1), *args)) > SEEN


def test_vmap(backend: Backend) -> None:
    x = backend.array(integers(3 * 6, 0).reshape(3, 6))

    def fun(x):
        return backend.xp.sum(x[1:] ** 2 * x[:-1])

    def error(x):
        return backend.package.band_error(fun)(backend.package.hessian(fun, 1)(x), x)

    errors = backend.numpy(backend.vmap(error)(x))
    assert errors.shape == (3,)
    assert np.all(errors <= ROUNDING * np.finfo("float64").eps)


def test_bad_input(backend: Backend) -> None:
    x, ab = backend.array(np.ones(4)), backend.array(np.ones((2, 4)))
    check = backend.package.band_error(lambda x: backend.xp.sum(x**2))
    bad = [
        (ValueError, r"ab must be \(w \+ 1, 4\)", lambda: check(backend.array(np.ones((2, 5))), x)),
        (ValueError, r"ab must be \(w \+ 1, 4\)", lambda: check(backend.array(np.ones((2, 4)), "float32"), x)),
        (ValueError, "ab must be 2-D", lambda: check(x, x)),
        (TypeError, "ab must have a real floating dtype", lambda: check(backend.array(np.ones((2, 4)), "int32"), x)),
        (TypeError, "argument 0 must have a real floating dtype", lambda: check(ab, backend.array([1, 2, 3, 4]))),
        (ValueError, r"argument 0 .*argnums", lambda: check(ab)),
        (TypeError, "fun must return a real scalar", lambda: backend.package.band_error(lambda x: x)(ab, x)),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()
