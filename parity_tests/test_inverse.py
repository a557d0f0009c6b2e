"""The selected inverse: by definition, against the dense inverse, its derivatives, their memory, transforms."""

import numpy as np
import pytest
from backends import BACKENDS, Backend
from matrices import SIZES, cleared, lower_factor, poisoned, positive_band, rhs
from oracles import store, unstore

EPS = np.finfo("float64").eps


def rounding(w: int, dtype: str = "float64") -> float:
    """On these well-conditioned matrices errors stay within a small multiple of (w + 2) eps."""
    return 64 * (w + 2) * float(np.finfo(dtype).eps)


def naive_inverse(L: np.ndarray, w: int) -> np.ndarray:
    """Z = H^-1 within the band, entry by entry from the last: Z L = L^-T (Takahashi)."""
    n = len(L)
    Z = np.zeros((n, n))
    for j in reversed(range(n)):
        for i in reversed(range(j, min(j + w + 1, n))):
            below = sum(Z[i, k] * L[k, j] for k in range(j + 1, min(j + w + 1, n)))
            Z[i, j] = Z[j, i] = ((i == j) / L[j, j] - below) / L[j, j]
    return Z


def inverse_of(backend: Backend):
    """ab -> the band of H^-1."""
    return lambda ab: backend.package.inverse_band(backend.package.cholesky(ab))


def test_worked_example(backend: Backend) -> None:
    """[[4, 2], [2, 10]]^-1 = [[10, -2], [-2, 4]] / 36."""
    Z = backend.numpy(inverse_of(backend)(backend.array([[4.0, 10.0], [2.0, 0.0]])))
    np.testing.assert_allclose(Z, np.array([[10, 4], [-2, 0]]) / 36, rtol=4 * EPS)


@pytest.mark.parametrize(("n", "w"), [*SIZES, (70, 3)])
def test_inverse_band(backend: Backend, n: int, w: int) -> None:
    L = lower_factor(n, w)
    Z = backend.numpy(backend.jit(backend.package.inverse_band)(backend.array(poisoned(store(L, w)))))
    assert (Z.shape, Z.dtype) == ((w + 1, n), np.float64)
    np.testing.assert_array_equal(Z, cleared(Z))
    for expected in (naive_inverse(L, w), np.linalg.inv(L @ L.T)):
        np.testing.assert_allclose(Z, store(expected, w), rtol=0, atol=rounding(w) * np.abs(Z).max(initial=0))


def test_float32(backend: Backend) -> None:
    L = lower_factor(8, 3)
    Z = backend.numpy(backend.package.inverse_band(backend.array(store(L, 3), "float32")))
    assert Z.dtype == np.float32
    np.testing.assert_allclose(
        Z, store(np.linalg.inv(L @ L.T), 3), rtol=0, atol=rounding(3, "float32") * np.abs(Z).max()
    )


@pytest.mark.parametrize(("n", "w"), [(8, 3), (70, 3)])
def test_backends_agree(n: int, w: int) -> None:
    cb = store(lower_factor(n, w), w)
    results = [backend.numpy(backend.package.inverse_band(backend.array(cb))) for backend in BACKENDS.values()]
    np.testing.assert_allclose(*results, rtol=0, atol=rounding(w) * np.abs(results[0]).max())


def test_marginal_variances(backend: Backend) -> None:
    """What row 0 is for: the variances of x = L^-T z."""
    cb = backend.package.cholesky(backend.array(positive_band(6, 2)))
    X = backend.numpy(backend.package.solve_triangular(cb, backend.array(np.eye(6)), transpose=True))
    variances = backend.numpy(backend.package.inverse_band(cb))[0]
    np.testing.assert_allclose(variances, (X**2).sum(1), rtol=64 * EPS)


def test_a_failed_factor_gives_nan(backend: Backend) -> None:
    ab = positive_band(6, 1)
    ab[0, 3] = -1
    cb, info = backend.package.cholesky_ex(backend.array(ab))
    assert int(info) == 4
    Z = backend.numpy(backend.package.inverse_band(cb))
    np.testing.assert_array_equal(Z, cleared(np.full_like(ab, np.nan)))


# --- Derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "w"), [(5, 2), (4, 0)])
def test_derivatives(backend: Backend, n: int, w: int) -> None:
    """First and second order, both modes, against finite differences; the unused cells included (they count 0)."""
    backend.check_derivatives(backend.jit(backend.package.inverse_band), store(lower_factor(n, w), w))


@pytest.mark.parametrize(("n", "w"), [(3, 4), (70, 3)])
def test_derivatives_against_dense(backend: Backend, n: int, w: int) -> None:
    """Gradient and Hessian-vector product against differentiating the dense inverse of the dense matrix."""
    ab, weight, v = positive_band(n, w), rhs(n, w + 1).T.copy(), cleared(rhs(n, w + 1, 3).T)

    def dense(ab):
        Z = backend.xp.linalg.inv(backend.package.to_dense(ab))
        return backend.xp.sum(backend.array(weight) * backend.package.from_dense(within * Z, w))

    def banded(ab):
        return backend.xp.sum(backend.array(weight) * inverse_of(backend)(ab))

    within = backend.array(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= w, "float64")

    def derivatives(fun):
        return backend.jit(lambda ab, v: backend.jvp(backend.grad(fun), (ab,), (v,)))

    expected = derivatives(dense)(backend.array(ab), backend.array(v))
    found = derivatives(banded)(backend.array(poisoned(ab)), backend.array(poisoned(v)))
    for a, b in zip(found, expected, strict=True):
        b = backend.numpy(b)
        np.testing.assert_allclose(backend.numpy(a), b, rtol=0, atol=16 * rounding(w) * np.abs(b).max())


def test_second_derivative_of_logdet(backend: Backend) -> None:
    """d logdet = tr(Z dH): the derivative of `inverse_band` is the second derivative of `logdet`."""
    ab, v = backend.array(positive_band(7, 2)), backend.array(cleared(rhs(7, 3).T))
    log_det = lambda ab: backend.package.logdet(backend.package.cholesky(ab))  # noqa: E731
    weight = backend.array([[1.0], [2.0], [2.0]])
    both = backend.jit(lambda ab, v: (
        backend.jvp(backend.grad(log_det), (ab,), (v,))[1], weight * backend.jvp(inverse_of(backend), (ab,), (v,))[1]
    ))  # fmt: skip
    second, first = map(backend.numpy, both(ab, v))
    np.testing.assert_allclose(second, first, rtol=0, atol=rounding(2) * np.abs(second).max())


def test_memory(backend: Backend) -> None:
    """Neither the inverse nor its gradient, nor the factor's, forms a dense matrix or a window per column."""
    n, w = 600, 12
    ab = backend.array(positive_band(n, w))
    loss = lambda ab: backend.xp.sum(inverse_of(backend)(ab) ** 2)  # noqa: E731
    blocks = max(w + 1, 32 if backend.name == "torch" else 0)
    factor_loss = lambda ab: backend.xp.sum(backend.package.cholesky(ab) ** 2)  # noqa: E731
    for fun in (inverse_of(backend), backend.grad(loss), backend.grad(factor_loss)):
        assert backend.largest_array(fun, ab) <= 4 * blocks * n
    assert 4 * blocks * n < n * n
    assert backend.name == "torch" or 4 * blocks * n < n * w * w


# --- Transforms ------------------------------------------------------------------------------------------------------


def test_vmap(backend: Backend) -> None:
    """Each lane as alone, gradients too, in either order of vmap and grad."""
    lanes = np.stack([positive_band(7, 2, seed) for seed in range(3)])
    value = lambda ab: backend.xp.sum(inverse_of(backend)(ab) ** 2)  # noqa: E731

    def everything(lanes):
        at_once = backend.grad(lambda lanes: backend.xp.sum(backend.vmap(value)(lanes)))(lanes)
        return backend.vmap(inverse_of(backend))(lanes), backend.vmap(backend.grad(value))(lanes), at_once

    Z, per_lane, at_once = map(backend.numpy, backend.jit(everything)(backend.array(lanes)))
    np.testing.assert_allclose(per_lane, at_once, rtol=0, atol=rounding(2) * np.abs(at_once).max())
    for i in range(3):
        inverse = np.linalg.inv(unstore(lanes[i]))
        np.testing.assert_allclose(Z[i], store(inverse, 2), rtol=0, atol=rounding(2) * np.abs(inverse).max())
    one = backend.numpy(backend.jit(backend.grad(value))(backend.array(lanes[2])))
    np.testing.assert_allclose(per_lane[2], one, rtol=0, atol=rounding(2) * np.abs(one).max())


def test_bad_input(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"cb must be 2-D, shape \(w \+ 1, n\).*vmap"):
        backend.package.inverse_band(backend.array(np.ones(4)))
    with pytest.raises(TypeError, match="cb must have a real floating dtype"):
        backend.package.inverse_band(backend.array(np.ones((2, 4), "int64")))
