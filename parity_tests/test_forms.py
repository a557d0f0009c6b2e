"""What is not lower band storage is said, where the values are at hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import Backend

import bandhess_jax as bj

DENSE = np.diag(np.full(5, 4.0)) + np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1)
UPPER = np.array([[0, 1, 1, 1, 1], [4.0, 4, 4, 4, 4]])
LOWER = np.array([[4.0, 4, 4, 4, 4], [1, 1, 1, 1, 0]])


@pytest.mark.parametrize("name", ["solve", "cholesky", "factor", "matvec"])
@pytest.mark.parametrize(("ab", "found"), [(DENSE, "dense"), (2 * np.eye(5), "dense"), (UPPER, "upper")])
def test_other_storages(backend: Backend, name: str, ab: np.ndarray, found: str) -> None:
    call = getattr(backend.package, name)
    operands = [backend.array(a) for a in ((ab,) if name in ("cholesky", "factor") else (ab, np.ones(5)))]
    with pytest.raises(ValueError, match=f"ab must be in lower band storage.*{found}"):
        call(*operands)


@pytest.mark.parametrize(("ab", "found"), [(DENSE, "dense"), (UPPER, "upper")])
def test_constants_inside_a_transform(backend: Backend, ab: np.ndarray, found: str) -> None:
    known, b = backend.array(ab), backend.array(np.ones(5))
    with pytest.raises(ValueError, match=f"ab must be in lower band storage.*{found}"):
        backend.grad(lambda b: backend.xp.sum(backend.package.solve(known, b)))(b)
    gradient = backend.grad(lambda b: backend.xp.sum(backend.package.solve(backend.array(LOWER), b)))(b)
    np.testing.assert_allclose(gradient, np.linalg.solve(DENSE, np.ones(5)), rtol=1e-14)


def test_unknown_values_are_data(backend: Backend) -> None:
    bands = backend.array(np.stack([UPPER, LOWER]))
    found = backend.vmap(lambda ab: backend.package.matvec(ab, backend.array(np.ones(5))))(bands)
    np.testing.assert_array_equal(backend.numpy(found)[1], [5, 6, 6, 6, 5])
    assert jax.jit(bj.solve)(UPPER, np.ones(5)).shape == (5,)


def test_unused_cells_may_hold_anything(backend: Backend) -> None:
    spoiled = LOWER.copy()
    spoiled[1, -1] = 7
    a, b = (backend.numpy(backend.package.solve(*map(backend.array, (ab, np.ones(5))))) for ab in (spoiled, LOWER))
    np.testing.assert_array_equal(a, b)


def test_a_zero_on_the_diagonal_is_no_other_form(backend: Backend) -> None:
    ab = np.array([[0.0, 4, 4, 4, 4], [1, -1, 1, 1, 7]])  # 7 in the unused cell
    found = backend.package.matvec(*map(backend.array, (ab, np.arange(1.0, 6))))
    np.testing.assert_array_equal(found, [2, 6, 14, 24, 24])


def test_byte_orders_and_long_doubles() -> None:
    x = np.linspace(0.0, 1, 5)
    fun = lambda x: jnp.sum((x[1:] - x[:-1]) ** 2) + jnp.sum(x**2)  # noqa: E731
    other = x.astype(x.dtype.newbyteorder())
    np.testing.assert_array_equal(bj.hessian(fun, 1)(other), bj.hessian(fun, 1)(x))
    np.testing.assert_array_equal(bj.newton(fun, other, 1).x, bj.newton(fun, x, 1).x)
    np.testing.assert_array_equal(bj.solve(LOWER.astype(">f8"), other), bj.solve(LOWER, x))
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match=r"float32 or float64 .* got longdouble|float128"):
            bj.hessian(fun, 1)(x.astype(np.longdouble))
