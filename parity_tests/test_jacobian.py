"""Banded Jacobians: every entry in its cell, at the promised number of products, in both backends alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import Backend
from matrices import general_band

# (T, d, lower, upper): usual, stages of two, one side only, a band wider than the matrix, one stage.
SIZES = [(7, 1, 2, 1), (6, 2, 1, 1), (5, 2, 0, 2), (3, 2, 4, 1), (1, 2, 1, 1)]
sizes = pytest.mark.parametrize(("T", "d", "lower", "upper"), SIZES)


def coupling(T: int, d: int, lower: int, upper: int) -> np.ndarray:
    """A matrix of distinct integers wherever residuals of stage s may depend on variables of stage t."""
    A = np.zeros((T * d, T * d))
    for row in range(T * d):
        for column in range(T * d):
            if -upper <= row // d - column // d <= lower:
                A[row, column] = 1 + row * T * d + column
    return A


def stored(J: np.ndarray, d: int, lower: int, upper: int) -> np.ndarray:
    """By definition, 0 in unused cells."""
    return np.nan_to_num(general_band(J, (lower + 1) * d - 1, (upper + 1) * d - 1))


def counted(backend: Backend, A: np.ndarray, products: list) -> Any:
    """x -> A x whose every derivative's product adds to `products`."""
    if backend.name == "torch":
        return backend.linear(A, products)

    def product(v: np.ndarray) -> np.ndarray:
        products.append(v)
        return A @ v

    @jax.custom_jvp
    def fun(x: Any) -> Any:
        return A @ x

    fun.defjvp(lambda primals, tangents: (fun(*primals), backend.on_host(product)(*tangents)))
    return fun


@sizes
def test_every_entry_is_in_its_cell(backend: Backend, T: int, d: int, lower: int, upper: int) -> None:
    """Exactly, in both backends, for integers; and the products are counted."""
    A, products = coupling(T, d, lower, upper), []
    fun = counted(backend, A, products)
    x = backend.array(np.arange(1.0, 1 + T * d).reshape(T, d))
    ab = backend.package.jacobian(lambda x: fun(x.reshape(-1)).reshape(T, d), lower, upper, chunk_size=1)(x)
    backend.settle()
    np.testing.assert_array_equal(backend.numpy(ab), stored(A, d, lower, upper))
    assert len(products) == min((lower + upper + 1) * d, T * d)


def local(backend: Backend, x: Any, weight: float = 1.0) -> Any:
    """Residuals (6, 2) that reach one stage back and two ahead, and bend."""
    xp = backend.xp
    zeros = 0 * x[:1]
    before, after = xp.concatenate([zeros, x[:-1]]), xp.concatenate([x[2:], zeros, zeros])
    return weight * xp.sin(x) * after + before * x + xp.exp(-x)


def test_curved_residuals_against_the_dense_jacobian(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    dense = np.asarray(jax.jacfwd(lambda x: local(BACKEND_OF_JAX, x, 0.5))(x)).reshape(12, 12)
    for chunk_size in (1, None):
        jacobian = backend.package.jacobian(
            lambda weight, x: (local(backend, x, weight), weight), 1, 2, argnums=1, has_aux=True, chunk_size=chunk_size
        )
        ab, aux = jacobian(backend.array(0.5), backend.array(x))
        assert float(aux) == 0.5
        np.testing.assert_allclose(backend.numpy(ab), stored(dense, 2, 1, 2), rtol=0, atol=4e-16 * np.abs(dense).max())


class _Jax:
    xp = jnp


BACKEND_OF_JAX: Any = _Jax()


def test_transforms(backend: Backend) -> None:
    """jit, vmap and grad see through."""
    x = backend.array(np.random.default_rng(1).normal(size=(2, 6, 2)))
    band = backend.package.jacobian(lambda x: local(backend, x), 1, 2)
    expected = np.stack([backend.numpy(band(row)) for row in x])
    np.testing.assert_allclose(backend.numpy(backend.jit(backend.vmap(band))(x)), expected, rtol=0, atol=1e-15)
    power = backend.package.jacobian(lambda y: y**3, 0, 0)
    y = backend.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(backend.numpy(backend.grad(lambda y: power(y).sum())(y)), [6, 12, 18])


def test_trees_and_ragged_ends(backend: Backend) -> None:
    """Leaves of other structures in and out; a dummy variable meets a dummy residual in a 1."""
    xp = backend.xp
    x = {"q": backend.array(np.arange(8.0).reshape(4, 2)), "u": backend.array(np.array([2.0, 3.0, 5.0]))}

    def fun(x: Any) -> Any:
        q, u = x["q"], x["u"]
        joined = xp.concatenate([u * q[1:, 0], 0 * q[:1, 0]])
        return joined, u**2 + q[:-1, 1], q[:, 0] * q[:, 1]

    ab = backend.numpy(backend.package.jacobian(fun, 0, 1)(x))
    J = np.zeros((12, 12))
    for t in range(4):
        q, r, u, now = 3 * t, 3 * t + 1, 3 * t + 2, x["q"][t]
        J[3 * t + 2, q], J[3 * t + 2, r] = float(now[1]), float(now[0])  # the third leaf of the result
        if t < 3:
            J[3 * t, u], J[3 * t, q + 3] = float(x["q"][t + 1, 0]), float(x["u"][t])
            J[3 * t + 1, u], J[3 * t + 1, r] = 2 * float(x["u"][t]), 1
    J[10, 11] = 1  # the last stage lacks its second residual and its u
    np.testing.assert_array_equal(ab, stored(J, 3, 0, 1))


def test_error_tells_of_entries_outside(backend: Backend) -> None:
    package, x = backend.package, backend.array(np.random.default_rng(2).normal(size=(6, 2)))
    fun = lambda x: local(backend, x)  # noqa: E731
    right, wrong = package.jacobian(fun, 1, 2)(x), package.jacobian(fun, 1, 1)(x)
    assert float(package.jacobian_error(fun, 1, 2)(right, x)) < 1e-14
    assert float(package.jacobian_error(fun, 1, 1)(wrong, x)) > 1e-3
    poisoned = stored(np.ones((12, 12)), 2, 1, 2)
    poisoned = np.where(poisoned == 0, np.nan, backend.numpy(right))  # what stands in unused cells is not looked at
    assert float(package.jacobian_error(fun, 1, 2)(backend.array(poisoned), x)) < 1e-14


def test_wrong_arguments_say_what_to_do(backend: Backend) -> None:
    jacobian, x = backend.package.jacobian, backend.array(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"as many residuals a stage.*T = 4 stages of d = 2.*gauss_newton"):
        jacobian(lambda x: x[:, 0], 0, 0)(x)
    with pytest.raises(ValueError, match="lower must be an int >= 0, got -1"):
        jacobian(lambda x: x, -1, 0)
    half = (lambda x: x.astype("float32")) if backend.name == "jax" else lambda x: x.float()
    with pytest.raises(TypeError, match="must return residuals of its argument's dtype"):
        jacobian(half, 0, 0)(x)
    with pytest.raises(ValueError, match=r"ab must be \(3, 8\) of"):
        backend.package.jacobian_error(lambda x: x, 0, 0)(x, x)
    assert jacobian(lambda x: x, 0, 1)(x[:0]).shape == (5, 0)
