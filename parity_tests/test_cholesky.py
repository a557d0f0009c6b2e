"""Banded Cholesky: by definition, against LAPACK, derivatives, transforms, memory."""

from typing import Any

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from matrices import (
    EPS,
    SIZES,
    break_minor,
    lapack_factor,
    lower_factor,
    naive_cholesky,
    poisoned,
    positive_band,
    rhs,
    rounding,
    scaled_residual,
)
from oracles import reals, store, unstore, unstore_lower

sizes = pytest.mark.parametrize(("n", "w"), SIZES)


# --- The factor ------------------------------------------------------------------------------------------------------


def test_worked_example(backend: Backend) -> None:
    """[[4, 2], [2, 10]] = [[2, 0], [1, 3]] [[2, 1], [0, 3]]."""
    cb = backend.package.cholesky(backend.array([[4.0, 10.0], [2.0, 0.0]]))
    np.testing.assert_allclose(backend.numpy(cb), [[2, 3], [1, 0]], rtol=2 * EPS)


@sizes
def test_cholesky(backend: Backend, n: int, w: int) -> None:
    ab = positive_band(n, w)
    cb, info = map(backend.numpy, backend.package.cholesky_ex(backend.array(poisoned(ab))))
    assert cb.shape == ab.shape
    assert cb.dtype == ab.dtype
    assert (info.shape, info.dtype, int(info)) == ((), np.int32, 0)
    np.testing.assert_allclose(cb, store(naive_cholesky(unstore(ab)), w), rtol=0, atol=4 * rounding(w))
    if n:
        np.testing.assert_allclose(cb, lapack_factor(ab)[0], rtol=0, atol=4 * rounding(w))
    # Unused cells are exactly 0, and the product gives H back.
    np.testing.assert_array_equal(cb, store(unstore_lower(cb), w))
    L = unstore_lower(cb)
    assert np.all(np.abs(L @ L.T - unstore(ab)) <= rounding(w) * (np.abs(L) @ np.abs(L).T))


@given(size=st.sampled_from([(7, 0), (9, 1), (8, 3)]), seed=st.integers(0, 999), exponent=st.integers(-8, 8))
def test_cholesky_is_backward_stable(backend: Backend, size: tuple[int, int], seed: int, exponent: int) -> None:
    """Whatever the scaling of rows and columns: |L L^T - H| <= c eps |L| |L|^T entry by entry."""
    n, w = size
    scale = 10.0 ** np.linspace(0, exponent, n)
    L = scale[:, None] * lower_factor(n, w, seed)
    ab = store(L @ L.T, w)
    cb = backend.numpy(backend.package.cholesky(backend.array(ab)))
    L = unstore_lower(cb)
    assert np.all(np.abs(L @ L.T - unstore(ab)) <= rounding(w) * (np.abs(L) @ np.abs(L).T))


def test_float32(backend: Backend) -> None:
    ab = positive_band(8, 3).astype("float32")
    cb, info = map(backend.numpy, backend.jit(backend.package.cholesky_ex)(backend.array(ab, "float32")))
    assert int(info) == 0
    assert cb.dtype == np.float32
    np.testing.assert_allclose(cb, lapack_factor(ab)[0], rtol=0, atol=4 * rounding(3, "float32"))
    x = backend.jit(backend.package.cho_solve)(backend.array(cb), backend.array(rhs(8, 2), "float32"))
    assert backend.numpy(x).dtype == np.float32
    assert scaled_residual(unstore(ab), backend.numpy(x), rhs(8, 2)) <= 4 * rounding(3, "float32")
    assert backend.package.logdet(backend.array(cb)).dtype == backend.dtype("float32")


@sizes
def test_backends_agree(n: int, w: int) -> None:
    ab = positive_band(n, w)
    factors = [backend.numpy(backend.package.cholesky(backend.array(ab))) for backend in BACKENDS.values()]
    np.testing.assert_allclose(*factors, rtol=0, atol=4 * rounding(w))


# --- Derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "w"), [("cholesky", 2, 3), ("logdet", 4, 2), ("forward", 5, 2), ("backward", 4, 0)]
)
def test_derivatives(backend: Backend, name: str, n: int, w: int) -> None:
    """First and second order, both modes, against finite differences; the unused cells included (they count 0)."""
    p = backend.package
    factor, band, b = store(lower_factor(n, w), w), positive_band(n, w), rhs(n, 2)
    cases = {
        "cholesky": (p.cholesky, (band,)),
        "logdet": (lambda ab: p.logdet(p.cholesky(ab)), (band,)),
        "forward": (p.solve_triangular, (factor, b)),
        "backward": (lambda cb, b: p.solve_triangular(cb, b, transpose=True), (factor, b)),
    }
    fun, args = cases[name]
    backend.check_derivatives(backend.jit(fun), *args)


@pytest.mark.parametrize(("n", "w"), [(6, 0), (3, 5), (40, 17)])
def test_logdet_gradient_is_the_inverse(backend: Backend, n: int, w: int) -> None:
    """d logdet / d ab[0, j] = (H^-1)[j, j], and twice (H^-1)[j + d, j] off the diagonal: two entries of H."""
    ab = positive_band(n, w)
    inverse = store(np.linalg.inv(unstore(ab)), w)
    inverse[1:] *= 2
    grad = backend.grad(lambda ab: backend.package.logdet(backend.package.cholesky(ab)))
    grad = backend.jit(grad)(backend.array(poisoned(ab)))
    np.testing.assert_allclose(backend.numpy(grad), inverse, rtol=0, atol=256 * rounding(w))


@pytest.mark.parametrize(("n", "w"), [(9, 1), (70, 3)])
def test_cholesky_gradient_against_dense(backend: Backend, n: int, w: int) -> None:
    """Against differentiating the dense factorisation of the dense matrix, at sizes of several blocks."""
    ab, weight = positive_band(n, w), unstore_lower(np.where(positive_band(n, w), reals(n, 3), 0))

    def dense(ab):
        L = backend.xp.linalg.cholesky(backend.package.to_dense(ab))
        return backend.xp.sum(backend.array(weight) * L)

    def banded(ab):
        return backend.xp.sum(backend.array(store(weight, w)) * backend.package.cholesky(ab))

    expected = backend.numpy(backend.jit(backend.grad(dense))(backend.array(ab)))
    grad = backend.numpy(backend.jit(backend.grad(banded))(backend.array(ab)))
    np.testing.assert_allclose(grad, expected, rtol=0, atol=256 * rounding(w) * np.abs(expected).max())


def test_second_derivative_of_logdet(backend: Backend) -> None:
    """For a diagonal H: - 1 / h^2 on the diagonal."""
    h = np.array([1.0, 2.0, 4.0])
    hessian = backend.dense_hessian(lambda h: backend.package.logdet(backend.package.cholesky(h[None])))
    np.testing.assert_allclose(
        backend.numpy(backend.jit(hessian)(backend.array(h))), np.diag(-1 / h**2), rtol=0, atol=4 * EPS
    )


# --- Transforms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [0, 2])
def test_vmap(backend: Backend, w: int) -> None:
    ab = np.stack([positive_band(8, w, seed) for seed in range(3)])
    b = rhs(3 * 8, None).reshape(3, 8)
    p = backend.package

    def lanes(ab: Any, b: Any) -> tuple:
        cb = backend.vmap(p.cholesky)(ab)
        backward = backend.vmap(lambda cb, b: p.solve_triangular(cb, b, transpose=True), (0, None))
        return cb, backend.vmap(p.cho_solve)(cb, b), backward(cb, b[0]), backend.vmap(p.logdet)(cb)

    cb, x, y, values = map(backend.numpy, backend.jit(lanes)(backend.array(ab), backend.array(b)))
    for i in range(3):
        one = p.cholesky(backend.array(ab[i]))
        np.testing.assert_allclose(backend.numpy(cb[i]), backend.numpy(one), rtol=0, atol=rounding(w))
        assert scaled_residual(unstore(ab[i]), backend.numpy(x[i]), b[i]) <= 8 * rounding(w)
        np.testing.assert_allclose(
            unstore_lower(backend.numpy(one)).T @ backend.numpy(y[i]), b[0], atol=rounding(w) * 8
        )
        np.testing.assert_allclose(float(values[i]), np.linalg.slogdet(unstore(ab[i]))[1], rtol=0, atol=256 * EPS)


def test_vmap_reports_each_lane(backend: Backend) -> None:
    ab = positive_band(6, 1)
    lanes = np.stack([ab, break_minor(ab, 3, -1.0), ab, break_minor(ab, 6, -1.0)])
    cb, info = map(backend.numpy, backend.vmap(backend.package.cholesky_ex)(backend.array(lanes)))
    np.testing.assert_array_equal(info, [0, 3, 0, 6])
    np.testing.assert_array_equal(np.isnan(cb).all(axis=(1, 2)), [False, True, False, True])
    np.testing.assert_allclose(cb[0], lapack_factor(ab)[0], rtol=0, atol=rounding(1))
    np.testing.assert_array_equal(cb[2], cb[0])


def test_vmap_of_grad(backend: Backend) -> None:
    ab = np.stack([positive_band(6, 1, seed) for seed in range(2)])
    grad = backend.grad(lambda ab: backend.package.logdet(backend.package.cholesky(ab)))
    batched = backend.jit(backend.vmap(grad))(backend.array(ab))
    for i in range(2):
        inverse = store(np.linalg.inv(unstore(ab[i])), 1)
        inverse[1] *= 2
        np.testing.assert_allclose(backend.numpy(batched[i]), inverse, rtol=0, atol=64 * EPS)


def test_jit() -> None:
    package, ab = BACKENDS["jax"].package, positive_band(8, 3)
    cb, info = jax.jit(package.cholesky_ex)(ab)
    assert int(info) == 0
    np.testing.assert_allclose(cb, lapack_factor(ab)[0], rtol=0, atol=rounding(3))
    _, info = jax.jit(package.cholesky_ex)(break_minor(ab, 5, -1.0))
    assert int(info) == 5


def test_no_dense_matrix(backend: Backend) -> None:
    n, w = 1009, 3
    ab, b = positive_band(n, w), rhs(n, None)
    p = backend.package
    calls = [
        (p.cholesky, backend.array(ab)),
        (lambda ab: p.logdet(p.cholesky(ab)), backend.array(ab)),
        (backend.grad(lambda ab: p.logdet(p.cholesky(ab))), backend.array(ab)),
        (p.solve_triangular, backend.array(ab), backend.array(b)),
        (p.solve, backend.array(ab), backend.array(b)),
        (backend.grad(lambda ab, b: backend.xp.sum(p.solve(ab, b))), backend.array(ab), backend.array(b)),
    ]
    for fun, *args in calls:
        # The gradient of the factor may work on blocks of some tens of columns.
        assert backend.largest_array(fun, *args) <= 64 * n
    assert backend.largest_array(p.to_dense, backend.array(ab)) >= n * n, "this test could not fail"
