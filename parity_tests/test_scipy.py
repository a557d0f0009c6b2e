"""The drop-ins for `scipy.linalg`: both forms, complex bands, and derivatives."""

import inspect
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from backends import BACKENDS, Backend
from hypothesis import given
from hypothesis import strategies as st
from matrices import general_band, general_dense
from scipy_cases import EPS, NAMES, backward_error, dtypes, hermitian_band, positive_dense, random


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(backend: Backend, name: str) -> None:
    def parameters(function: Any) -> list[tuple]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(backend.package.scipy, name)) == parameters(getattr(scipy.linalg, name))
    assert name in backend.package.scipy.__all__


@dtypes
def test_hermitian(backend: Backend, dtype: str) -> None:
    """In either form, unused cells never read: against the definition and SciPy."""
    n, w = 6, 2
    module, tolerance = backend.package.scipy, 64 * EPS[dtype]
    H, b = positive_dense(n, w, dtype), random((n, 2), dtype, 1)
    for lower in (True, False) if dtype == "complex128" else (dtype == "float32",):
        ab = hermitian_band(H, w, lower)
        x = backend.numpy(module.solveh_banded(backend.array(ab), backend.array(b), lower=lower, check_finite=False))
        assert (x.shape, x.dtype) == (b.shape, b.dtype)
        assert backward_error(H, x, b) <= tolerance
        clean = np.nan_to_num(ab)
        np.testing.assert_allclose(x, scipy.linalg.solveh_banded(clean, b, lower=lower), rtol=0, atol=16 * tolerance)

        cb = backend.numpy(module.cholesky_banded(backend.array(ab), lower=lower, check_finite=False))
        assert (cb.shape, cb.dtype) == (ab.shape, ab.dtype)
        factor = general_dense(cb, w, 0) if lower else general_dense(cb, 0, w)
        np.testing.assert_allclose(factor @ factor.conj().T if lower else factor.conj().T @ factor, H, atol=tolerance)
        np.testing.assert_array_equal(cb[np.isnan(ab)], 0)
        expected = scipy.linalg.cholesky_banded(clean, lower=lower)
        np.testing.assert_allclose(cb, np.where(np.isnan(ab), 0, expected), rtol=0, atol=4 * tolerance)

        poisoned = backend.array(np.where(np.isnan(ab), np.nan, cb))
        x = backend.numpy(module.cho_solve_banded((poisoned, lower), backend.array(b), check_finite=False))
        assert x.dtype == b.dtype
        assert backward_error(H, x, b) <= 4 * tolerance


@pytest.mark.parametrize(
    ("n", "l", "u", "columns", "dtype"),
    [
        (1, 0, 0, 2, "float64"),
        (1, 2, 1, 2, "float64"),
        (7, 0, 2, 2, "float64"),
        (7, 2, 0, 2, "complex64"),
        (7, 1, 1, 2, "float32"),
        (3, 4, 5, 2, "float64"),
        (20, 3, 2, 2, "complex128"),
        (20, 3, 2, None, "float64"),
    ],
)
def test_general(backend: Backend, n: int, l: int, u: int, columns: int | None, dtype: str) -> None:
    A = general_dense(random((l + u + 1, n), dtype), l, u)
    b = random((n,) if columns is None else (n, columns), dtype, 1)
    ab = general_band(A, l, u)
    arrays = backend.array(ab), backend.array(b)
    x = backend.numpy(backend.package.scipy.solve_banded((l, u), *arrays, check_finite=False))
    assert (x.shape, x.dtype) == (b.shape, b.dtype)
    assert backward_error(A, x, b) <= 16 * EPS[dtype]
    expected = scipy.linalg.solve_banded((l, u), np.nan_to_num(ab), b)
    np.testing.assert_allclose(x, expected, rtol=0, atol=64 * EPS[dtype] * np.linalg.cond(A) * np.abs(x).max())


def test_pivots_are_needed(backend: Backend) -> None:
    """A diagonal of exact zeros, then of tiny entries: without row interchanges NaN, or no digit right."""
    for diagonal in (0.0, 1e-20):
        A = general_dense(random((4, 8), "float64"), 2, 1)
        np.fill_diagonal(A, diagonal)
        b = A @ np.arange(1.0, 9)
        ab = backend.array(np.nan_to_num(general_band(A, 2, 1)))
        x = backend.numpy(backend.package.scipy.solve_banded((2, 1), ab, backend.array(b)))
        np.testing.assert_allclose(x, np.arange(1.0, 9), rtol=1e-10)


@given(seed=st.integers(0, 999), exponent=st.integers(-12, 12))
def test_general_is_backward_stable(backend: Backend, seed: int, exponent: int) -> None:
    """Whatever the scaling of the columns, which partial pivoting does not see."""
    scale = 10.0 ** np.linspace(0, exponent, 8)
    A = general_dense(random((4, 8), "float64", seed), 2, 1) * scale
    b = random((8,), "float64", seed + 1)
    ab = backend.array(np.nan_to_num(general_band(A, 2, 1)))
    x = backend.numpy(backend.package.scipy.solve_banded((2, 1), ab, backend.array(b)))
    assert backward_error(A / scale, x * scale, b) <= 32 * EPS["float64"]


def basis(l: int, u: int, n: int) -> np.ndarray:
    """`[d, j]`: the dense matrix of a band that is 1 in that cell, 0 for unused cells."""
    cells = np.eye((l + u + 1) * n).reshape(l + u + 1, n, l + u + 1, n)
    return np.array([[general_dense(cell, l, u) for cell in row] for row in cells])


def banded(backend: Backend, name: str) -> Any:
    """A real function of reals `(2, 3, 5)` and `(2, 5)`: of a complex band, in upper form or l = u = 1, and b."""
    xp, module = backend.xp, backend.package.scipy

    def function(ab: Any, b: Any) -> Any:
        ab, b = backend.complex(ab[0], ab[1]), backend.complex(b[0], b[1])
        if name == "solve_banded":
            return weigh(module.solve_banded((1, 1), ab, b, check_finite=False))
        ab = xp.stack([ab[0], ab[1], ab[2] + 8])
        if name == "solveh_banded":
            return weigh(module.solveh_banded(ab, b, check_finite=False))
        cb = module.cholesky_banded(ab, check_finite=False)
        return weigh(cb) + weigh(module.cho_solve_banded((cb, False), b, check_finite=False))

    return function


def weigh(x: Any) -> Any:
    return (abs(x) ** 2).sum() + (x.real**3 * x.imag).sum()


def dense(name: str) -> Any:
    """The same by torch's dense algebra."""
    cells = torch.tensor(basis(1, 1, 5) if name == "solve_banded" else basis(0, 2, 5), dtype=torch.complex128)

    def function(ab: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ab, b = ab[0] + 1j * ab[1], b[0] + 1j * b[1]
        A = torch.einsum("dj,djik->ik", ab, cells)
        if name == "solve_banded":
            return weigh(torch.linalg.solve(A, b))
        upper = A.triu(1)
        H = upper + upper.mH + torch.diag(A.diagonal().real + 8)
        x = torch.linalg.solve(H, b)
        return weigh(x) if name == "solveh_banded" else weigh(torch.linalg.cholesky(H.conj()).mT) + weigh(x)

    return function


@pytest.mark.parametrize("name", ["solve_banded", "solveh_banded", "cholesky_banded"])
def test_derivatives(backend: Backend, name: str) -> None:
    """Value, gradient and its directional derivative (forward over reverse), of complex bands, in a batch."""
    arrays = [random((2, 2, *shape), "float64", seed) for seed, shape in enumerate([(3, 5), (5,)] * 2)]

    def derivatives(backend: Backend, function: Any) -> list[np.ndarray]:
        gradient = backend.grad(function, (0, 1))

        def one(ab: Any, b: Any, dab: Any, db: Any) -> Any:
            return function(ab, b), backend.jvp(gradient, (ab, b), (dab, db))

        leaves = backend.leaves(backend.jit(backend.vmap(one))(*map(backend.array, arrays)))
        return [backend.numpy(leaf) for leaf in leaves]

    expected = derivatives(BACKENDS["torch"], dense(name))
    assert len(expected) == 5
    for ours, leaf in zip(derivatives(backend, banded(backend, name)), expected, strict=True):
        np.testing.assert_allclose(ours, leaf, rtol=0, atol=1e-10 * np.abs(leaf).max())


@pytest.mark.parametrize("name", ["solve_banded", "solveh_banded", "cholesky_banded"])
def test_autograd_without_functorch(name: str) -> None:
    """torch's own checks: plain autograd, forward mode and twice."""
    point = random((2, 3, 5), "float64"), random((2, 5), "float64", 1)
    BACKENDS["torch"].check_derivatives(banded(BACKENDS["torch"], name), *point)
