"""LDL without pivoting: by definition, with large multipliers, solves, derivatives."""

import jax
import numpy as np
import pytest
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from matrices import (
    EPS,
    SIZES,
    cleared,
    indefinite_band,
    indefinite_factors,
    lapack_factor,
    poisoned,
    positive_band,
    rhs,
    rounding,
    scaled_residual,
)
from oracles import store, unstore, unstore_lower


def naive_ldl(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M D M^T = H entry by entry; an entry 0 over a pivot 0 gives 0."""
    n = len(h)
    M, D = np.eye(n), np.zeros(n)
    for j in range(n):
        D[j] = h[j, j] - sum(M[j, k] ** 2 * D[k] for k in range(j))
        for i in range(j + 1, n):
            c = h[i, j] - sum(M[i, k] * D[k] * M[j, k] for k in range(j))
            M[i, j] = c / D[j] if c else 0
    return M, D


def parts(ldb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    M = unstore_lower(ldb)
    np.fill_diagonal(M, 1)
    return M, ldb[0]


def expect_factors(ldb: np.ndarray, h: np.ndarray, w: int, dtype: str = "float64") -> None:
    """The product gives H back, relative to what was added up."""
    M, D = parts(ldb)
    assert np.all(np.abs(M * D @ M.T - h) <= rounding(w, dtype) * (np.abs(M) * np.abs(D) @ np.abs(M).T))


# --- The factors -----------------------------------------------------------------------------------------------------


def test_worked_example(backend: Backend) -> None:
    """[[4, 2], [2, -2]] = [[1, 0], [1/2, 1]] diag(4, -3) [[1, 1/2], [0, 1]]."""
    ldb = backend.numpy(backend.package.ldl(backend.array([[4.0, -2.0], [2.0, 0.0]])))
    np.testing.assert_array_equal(ldb, [[4, -3], [0.5, 0]])
    x = backend.numpy(backend.package.ldl_solve(backend.array(ldb), backend.array([6.0, 0.0])))
    np.testing.assert_allclose(x, [1, 1], rtol=2 * EPS)


@pytest.mark.parametrize(("n", "w"), SIZES)
def test_ldl(backend: Backend, n: int, w: int) -> None:
    ab = indefinite_band(n, w)
    ldb = backend.numpy(backend.jit(backend.package.ldl)(backend.array(poisoned(ab))))
    assert (ldb.shape, ldb.dtype) == (ab.shape, ab.dtype)
    expect_factors(ldb, unstore(ab), w)
    np.testing.assert_array_equal(ldb, cleared(ldb))
    for M, D in (indefinite_factors(n, w), naive_ldl(unstore(ab))):
        np.testing.assert_allclose(parts(ldb)[0], M, rtol=0, atol=64 * rounding(w))
        np.testing.assert_allclose(parts(ldb)[1], D, rtol=0, atol=64 * rounding(w))


@pytest.mark.parametrize(("n", "w"), [(8, 3), (30, 17)])
def test_positive_definite_is_cholesky(backend: Backend, n: int, w: int) -> None:
    """L = M sqrt(D), and L is LAPACK's."""
    ab = positive_band(n, w)
    M, D = parts(backend.numpy(backend.jit(backend.package.ldl)(backend.array(ab))))
    np.testing.assert_allclose(store(M * np.sqrt(D), w), lapack_factor(ab)[0], rtol=0, atol=4 * rounding(w))


@pytest.mark.parametrize(("n", "w"), [(8, 3), (30, 17)])
def test_backends_agree(n: int, w: int) -> None:
    ab = indefinite_band(n, w)
    factors = [backend.numpy(backend.jit(backend.package.ldl)(backend.array(ab))) for backend in BACKENDS.values()]
    np.testing.assert_allclose(*factors, rtol=0, atol=64 * rounding(w))


@given(seed=st.integers(0, 999), exponent=st.integers(-150, 150))
def test_scaling_rounds_nothing(backend: Backend, seed: int, exponent: int) -> None:
    """Powers of two on rows and columns, over the whole range of numbers: the same digits."""
    n, w = 8, 3
    power = 2.0 ** np.round(np.linspace(0, exponent, n))
    ab = indefinite_band(n, w, seed)
    scaled = store(power[:, None] * unstore(ab) * power, w)
    ldb, scaled = (backend.numpy(backend.jit(backend.package.ldl)(backend.array(a))) for a in (ab, scaled))
    M, D = parts(ldb)
    np.testing.assert_array_equal(scaled[0], D * power**2)
    np.testing.assert_array_equal(parts(scaled)[0], power[:, None] * M / power)


@pytest.mark.parametrize(
    ("n", "w", "pivot"),
    [(9, 1, 1e-20), (8, 3, 1e-30), (30, 5, 1e-12), (30, 17, 1e-5), (30, 17, 1e-9), (30, 17, -1e-100)],
)
def test_large_multipliers(backend: Backend, n: int, w: int, pivot: float) -> None:
    """No pivoting whatever comes: a tiny pivot gives huge multipliers, and still factors of something near H."""
    ab = indefinite_band(n, w)
    ab[0, 0] = pivot
    ldb = backend.numpy(backend.jit(backend.package.ldl)(backend.array(ab)))
    M, D = naive_ldl(unstore(ab))
    np.testing.assert_allclose(parts(ldb)[0][:, 0], M[:, 0], rtol=4 * EPS)
    np.testing.assert_allclose(parts(ldb)[1][:2], D[:2], rtol=4 * EPS)
    expect_factors(ldb, unstore(ab), w)


def test_zeros_stay_where_they_are(backend: Backend) -> None:
    """A row and column of zeros, and a block beyond it."""
    ab = np.array([[2.0, 0, 3, 3], [0, 0, 6, 0], [0, 0, 0, 0]])
    ldb = backend.numpy(backend.package.ldl(backend.array(ab)))
    np.testing.assert_array_equal(ldb, [[2, 0, 3, -9], [0, 0, 2, 0], [0, 0, 0, 0]])


def test_breakdown_shows(backend: Backend) -> None:
    """[[0, 1], [1, 0]] has no such factorisation."""
    ldb = backend.package.ldl(backend.array([[0.0, 0.0], [1.0, 0.0]]))
    assert not np.isfinite(backend.numpy(ldb)).all()
    assert [int(count) for count in backend.package.inertia(ldb)] == [-1, -1, -1]


def test_float32(backend: Backend) -> None:
    ab = indefinite_band(8, 3).astype("float32")
    ldb = backend.jit(backend.package.ldl)(backend.array(ab))
    assert backend.numpy(ldb).dtype == np.float32
    expect_factors(backend.numpy(ldb).astype("float64"), unstore(ab), 3, "float32")
    x = backend.numpy(backend.jit(backend.package.ldl_solve)(ldb, backend.array(rhs(8, None), "float32")))
    assert x.dtype == np.float32
    assert scaled_residual(unstore(ab), x, rhs(8, None)) <= 4 * rounding(3, "float32")


@pytest.mark.parametrize(("n", "w", "columns"), [(0, 2, None), (7, 0, 3), (8, 3, None), (8, 3, 0), (3, 6, 3)])
def test_ldl_solve(backend: Backend, n: int, w: int, columns: int | None) -> None:
    ab, b = indefinite_band(n, w), rhs(n, columns)
    ldb = poisoned(backend.numpy(backend.jit(backend.package.ldl)(backend.array(ab))))
    x = backend.numpy(backend.jit(backend.package.ldl_solve)(backend.array(ldb), backend.array(b)))
    assert (x.shape, x.dtype) == (b.shape, b.dtype)
    np.testing.assert_allclose(x, np.linalg.solve(unstore(ab), b), rtol=0, atol=256 * rounding(w))
    assert scaled_residual(unstore(ab), x, b) <= 8 * rounding(w)


# --- Derivatives and transforms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n", "w"), [("ldl", 4, 2), ("ldl_solve", 4, 1)])
def test_derivatives(backend: Backend, name: str, n: int, w: int) -> None:
    """First and second order, both modes, against finite differences."""
    ab, p = indefinite_band(n, w), backend.package
    args = (ab,) if name == "ldl" else (backend.numpy(p.ldl(backend.array(ab))), rhs(n, 2))
    backend.check_derivatives(backend.jit(getattr(p, name)), *args)


def test_gradient_against_dense(backend: Backend) -> None:
    """log |det H| from D, and b^T H^-1 b by M and D, at a size of several blocks: their gradients are known."""
    n, w = 70, 3
    ab, b = indefinite_band(n, w), rhs(n, None)

    def value(ab):
        ldb = backend.package.ldl(ab)
        log_det = backend.xp.sum(backend.xp.log(backend.xp.abs(ldb[0])))
        return log_det + backend.array(b) @ backend.package.ldl_solve(ldb, backend.array(b))

    inverse = np.linalg.inv(unstore(ab))
    dense = inverse - np.outer(inverse @ b, inverse @ b)
    expected = store(dense, w)
    expected[1:] *= 2
    grad = backend.numpy(backend.jit(backend.grad(value))(backend.array(poisoned(ab))))
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1024 * rounding(w) * np.abs(expected).max())


def test_vmap(backend: Backend) -> None:
    """Each lane as alone; one that breaks down leaves the others' bits as they are."""
    p, lanes = backend.package, np.stack([indefinite_band(7, 2, seed) for seed in range(3)])
    run = backend.jit(backend.vmap(lambda ab, b: (p.ldl(ab), p.ldl_solve(p.ldl(ab), b)), (0, None)))
    b = backend.array(rhs(7, None))
    ldb, x = map(backend.numpy, run(backend.array(lanes), b))
    for i in range(3):
        np.testing.assert_allclose(ldb[i], p.ldl(backend.array(lanes[i])), rtol=0, atol=rounding(2))
        assert scaled_residual(unstore(lanes[i]), x[i], rhs(7, None)) <= 8 * rounding(2)
    for bad in (np.nan, 0.0):  # a NaN, and a pivot 0
        lanes[1, 0, 0] = bad
        ldb_bad, x_bad = map(backend.numpy, run(backend.array(lanes), b))
        assert not np.isfinite(ldb_bad[1]).all()
        np.testing.assert_array_equal(ldb_bad[[0, 2]], ldb[[0, 2]])
        np.testing.assert_array_equal(x_bad[[0, 2]], x[[0, 2]])


def test_vmap_of_grad(backend: Backend) -> None:
    lanes = backend.array(np.stack([indefinite_band(6, 1, seed) for seed in range(2)]))

    def value(ab):
        return backend.xp.sum(backend.package.ldl(ab) ** 2)

    def both_orders(lanes):
        at_once = backend.grad(lambda lanes: backend.xp.sum(backend.vmap(value)(lanes)))(lanes)
        return backend.vmap(backend.grad(value))(lanes), at_once

    per_lane, at_once = map(backend.numpy, backend.jit(both_orders)(lanes))
    np.testing.assert_allclose(per_lane, at_once, rtol=64 * EPS)
    alone = backend.numpy(backend.jit(backend.grad(value))(backend.array(backend.numpy(lanes)[1])))
    np.testing.assert_allclose(per_lane[1], alone, rtol=256 * EPS)


def test_jit() -> None:
    package, ab = BACKENDS["jax"].package, indefinite_band(8, 3)
    expect_factors(np.asarray(jax.jit(package.ldl)(ab)), unstore(ab), 3)


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input(backend: Backend) -> None:
    p, ldb = backend.package, backend.array(indefinite_band(4, 1))
    with pytest.raises(ValueError, match=r"ab must be 2-D, shape \(w \+ 1, n\).*vmap"):
        p.ldl(backend.array(np.ones(4)))
    with pytest.raises(ValueError, match="ldb must be 2-D"):
        p.inertia(backend.array(np.ones(4)))
    with pytest.raises(ValueError, match="ldb must be 2-D"):
        p.ldl_solve(backend.array(np.ones(4)), backend.array(np.ones(4)))
    with pytest.raises(TypeError, match="ab must have a real floating dtype"):
        p.ldl(backend.array(np.ones((2, 4), "int64")))
    with pytest.raises(ValueError, match=r"b must have shape \(4,\)"):
        p.ldl_solve(ldb, backend.array(np.ones(3)))
    with pytest.raises(TypeError, match="b and ab must have one dtype"):
        p.ldl_solve(ldb, backend.array(np.ones(4), "float32"))
