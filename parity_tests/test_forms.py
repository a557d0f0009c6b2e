"""What is not lower band storage is said, where the values are at hand. JAX: PyTorch raises that H is indefinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bandhess_jax as bj

DENSE = np.diag(np.full(5, 4.0)) + np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1)
UPPER = np.array([[0, 1, 1, 1, 1], [4.0, 4, 4, 4, 4]])
LOWER = np.array([[4.0, 4, 4, 4, 4], [1, 1, 1, 1, 0]])


@pytest.mark.parametrize("name", ["solve", "cholesky", "factor", "matvec"])
@pytest.mark.parametrize(("ab", "found"), [(DENSE, "dense"), (2 * np.eye(5), "dense"), (UPPER, "upper")])
def test_other_storages(name: str, ab: np.ndarray, found: str) -> None:
    call = getattr(bj, name)
    operands = (jnp.asarray(ab),) if name in ("cholesky", "factor") else (jnp.asarray(ab), jnp.ones(5))
    with pytest.raises(ValueError, match=f"ab must be in lower band storage.*{found}"):
        call(*operands)
    jax.jit(call)(*operands)  # unknown values: data


def test_unused_cells_may_hold_anything() -> None:
    spoiled = LOWER.copy()
    spoiled[1, -1] = 7
    np.testing.assert_array_equal(bj.solve(spoiled, np.ones(5)), bj.solve(LOWER, np.ones(5)))


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
