"""LU of general bands, in public: solves, determinants and their derivatives; and periodic bands, against dense."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
from backends import Backend
from matrices import general_band

# (n, l, u): usual, triangular of either kind, diagonal, wider than the matrix.
SIZES = [(9, 3, 2), (6, 0, 2), (6, 2, 0), (5, 0, 0), (3, 4, 3)]
sizes = pytest.mark.parametrize(("n", "l", "u"), SIZES)


def dense(n: int, l: int, u: int, seed: int = 0) -> np.ndarray:
    A = np.random.default_rng(seed).normal(size=(n, n))
    return np.where((np.subtract.outer(np.arange(n), np.arange(n)) <= l) & ~np.tri(n, n, -u - 1, bool).T, A, 0)


def closed(ab: np.ndarray, u: int) -> np.ndarray:
    """The matrix of a closed band, cell by cell."""
    rows, n = ab.shape
    A = np.zeros((n, n), ab.dtype)
    for r in range(rows):
        for j in range(n):
            A[(j + r - u) % n, j] = ab[r, j]
    return A


@sizes
def test_solves_and_determinants(backend: Backend, n: int, l: int, u: int) -> None:
    """Whatever stands in unused cells."""
    package, A, b = backend.package, dense(n, l, u), np.arange(1.0, 1 + 2 * n).reshape(n, 2)

    def every(ab: Any, b: Any) -> Any:
        lu = package.lu_factor(ab, l, u)
        solves = [package.lu_solve(lu, b, transpose=transpose) for transpose in (False, True)]
        return lu.ok, solves, package.lu_solve(lu, b[:, 0]), package.slogdet(lu)

    ok, solves, single, (sign, size) = backend.jit(every)(backend.array(general_band(A, l, u)), backend.array(b))
    assert bool(ok)
    for matrix, x in zip((A, A.T), map(backend.numpy, solves), strict=True):
        assert np.abs(matrix @ x - b).max() <= 1e-13 * np.abs(A).max() * np.abs(x).max()
    np.testing.assert_allclose(backend.numpy(single), backend.numpy(solves[0])[:, 0], rtol=1e-13)
    assert float(sign) == np.linalg.slogdet(A)[0]
    assert float(size) == pytest.approx(np.linalg.slogdet(A)[1], abs=1e-13 * n)


@pytest.mark.parametrize(("n", "l", "u"), [(9, 3, 2), (6, 0, 2), (3, 4, 3)])
def test_derivative_of_the_determinant_is_the_inverse(backend: Backend, n: int, l: int, u: int) -> None:
    A = dense(n, l, u, 1)
    ab = backend.array(np.nan_to_num(general_band(A, l, u)))
    log_size = lambda ab: backend.package.slogdet(backend.package.lu_factor(ab, l, u))[1]  # noqa: E731
    expected = np.nan_to_num(general_band(np.linalg.inv(A).T, l, u))
    tolerance = 1e-13 * np.linalg.cond(A) * np.abs(expected).max()
    both = backend.jit(backend.vmap(backend.grad(log_size)))(backend.xp.stack([ab, 2 * ab]))
    np.testing.assert_allclose(backend.numpy(both[0]), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(backend.numpy(both[1]), expected / 2, rtol=0, atol=tolerance)
    if l == 3:
        forward = backend.jit(lambda ab: backend.jvp(log_size, (ab,), (ab,))[1])(ab)
        assert float(forward) == pytest.approx(n, rel=1e-13 * np.linalg.cond(A))


def test_second_derivatives_of_the_determinant(backend: Backend) -> None:
    """To any order in JAX, and an error, not 0, in PyTorch."""
    ab = backend.array(np.nan_to_num(general_band(dense(4, 1, 1), 1, 1)))
    log_size = lambda ab: backend.package.slogdet(backend.package.lu_factor(ab, 1, 1))[1]  # noqa: E731
    along = lambda ab: (backend.grad(log_size)(ab) * ab).sum()  # noqa: E731  4, wherever one is
    if backend.name == "torch":
        with pytest.raises(RuntimeError, match="first derivatives only"):
            backend.grad(along)(ab)
    else:
        np.testing.assert_allclose(backend.numpy(backend.jit(backend.grad(along))(ab)), 0, atol=1e-11)


def test_solves_have_derivatives(backend: Backend) -> None:
    ab, b = np.nan_to_num(general_band(dense(5, 1, 2), 1, 2)), np.arange(1.0, 6)
    package = backend.package
    solve = backend.jit(lambda ab, b: package.lu_solve(package.lu_factor(ab, 1, 2), b, transpose=True))
    backend.check_derivatives(solve, ab, b)


def test_a_singular_matrix_is_data(backend: Backend) -> None:
    package, ab = backend.package, np.ones((3, 4))
    ab[:, 2] = 0

    def run(ab: Any, b: Any) -> tuple:
        lu = package.lu_factor(ab, 1, 1)
        return lu.ok, package.lu_solve(lu, b), package.slogdet(lu)

    ok, x, determinant = backend.jit(run)(backend.array(ab), backend.array(np.ones(4)))
    assert not bool(ok)
    assert np.isnan(backend.numpy(x)).all()
    assert [float(part) for part in determinant] == [0, -np.inf]


def test_a_factor_passes_through_transforms(backend: Backend) -> None:
    package = backend.package
    matrices = [dense(6, 1, 1, seed) for seed in (2, 3)]
    ab = backend.array(np.stack([np.nan_to_num(general_band(A, 1, 1)) for A in matrices]))
    lu = backend.jit(backend.vmap(lambda ab: package.lu_factor(ab, 1, 1)))(ab)
    x = backend.numpy(backend.jit(backend.vmap(package.lu_solve))(lu, backend.array(np.ones((2, 6)))))
    np.testing.assert_allclose(x, [np.linalg.solve(A, np.ones(6)) for A in matrices], rtol=1e-11)


def test_wrong_arguments(backend: Backend) -> None:
    package = backend.package
    with pytest.raises(ValueError, match=r"shape \(l \+ u \+ 1, n\) = \(4, n\)"):
        package.lu_factor(backend.array(np.ones((3, 4))), 2, 1)
    with pytest.raises(TypeError, match=r"real floating dtype.*solve_banded"):
        package.lu_factor(backend.array(np.ones((3, 4), complex)), 1, 1)


# --- Periodic bands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "l", "u"), [(9, 3, 1), (5, 2, 2), (2, 1, 0)])
def test_a_periodic_band_against_dense(backend: Backend, n: int, l: int, u: int) -> None:
    rng = np.random.default_rng(n)
    solve, ab = backend.package.scipy.solve_cyclic_banded, rng.normal(size=(l + u + 1, n))
    for band in (ab, ab + 1j * rng.normal(size=ab.shape))[: 1 + (n == 5)]:
        A, b = closed(band, u), rng.normal(size=(n, 2))
        x = backend.numpy(solve((l, u), backend.array(band), backend.array(b)))
        np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=0, atol=1e-13 * np.linalg.cond(A))


def test_a_ring_that_cannot_be_opened(backend: Backend) -> None:
    """A shift: the plain band that is left without the cells that wrap around has no inverse."""
    ab = np.zeros((3, 6))
    ab[0] = 1
    opened = ab.copy()
    opened[0, 0] = 0
    with pytest.raises(np.linalg.LinAlgError):
        scipy.linalg.solve_banded((1, 1), opened, np.ones(6))
    b = np.arange(6.0)
    x = backend.numpy(backend.package.scipy.solve_cyclic_banded((1, 1), backend.array(ab), backend.array(b)))
    np.testing.assert_array_equal(x, np.roll(b, 1))


def test_periodic_batches_derivatives_and_errors(backend: Backend) -> None:
    module = backend.package.scipy
    ab, b = np.random.default_rng(4).normal(size=(2, 3, 5)) + 2, np.arange(1.0, 6)
    x = backend.numpy(module.solve_cyclic_banded((1, 1), backend.array(ab), backend.array(b[:, None])))
    np.testing.assert_allclose(x[..., 0], [np.linalg.solve(closed(one, 1), b) for one in ab], rtol=1e-11)

    def total(ab: Any, b: Any) -> Any:
        return module.solve_cyclic_banded((1, 1), ab, b, check_finite=False).sum()

    # The adjoint of x = A^-1 b: v = A^-T 1 with respect to b, -v x^T in the cells of A.
    v = np.linalg.solve(closed(ab[0], 1).T, np.ones(5))
    by_b = backend.grad(lambda b: total(backend.array(ab[0]), b))(backend.array(b))
    by_ab = backend.numpy(backend.jit(backend.grad(lambda ab: total(ab, backend.array(b))))(backend.array(ab[0])))
    np.testing.assert_allclose(backend.numpy(by_b), v, rtol=1e-11)
    expected = [[-v[(j + r - 1) % 5] * x[0, j, 0] for j in range(5)] for r in range(3)]
    np.testing.assert_allclose(by_ab, expected, rtol=1e-10)
    with pytest.raises(module.LinAlgError, match="singular"):
        module.solve_cyclic_banded((1, 1), backend.array(0 * ab[0]), backend.array(b))
    with pytest.raises(ValueError, match=r"needs l \+ u < n"):
        module.solve_cyclic_banded((2, 1), backend.array(np.ones((4, 3))), backend.array(np.ones(3)))
    with pytest.raises(ValueError, match=r"l\+u\+1"):
        module.solve_cyclic_banded((2, 1), backend.array(np.ones((3, 5))), backend.array(b))
