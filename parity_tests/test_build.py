"""Bands from diagonals, blocks and sparse matrices, and variances from a factor: against dense algebra."""

from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse
import torch
from arrowheads import definite, stored, structure
from backends import Backend
from jax.experimental.sparse import BCOO


def lower(T: int, d: int, k: int, closed: bool) -> np.ndarray:
    """Symmetric, distinct integers within k stages."""
    n = T * d
    values = np.arange(1.0, n * n + 1).reshape(n, n)
    H = np.tril(values) + np.tril(values, -1).T
    apart = np.abs(np.arange(n)[:, None] // d - np.arange(n) // d)
    return np.where((np.minimum(apart, T - apart) if closed else apart) <= k, H, 0)


@pytest.mark.parametrize("closed", [False, True])
def test_from_diagonals(backend: Backend, closed: bool) -> None:
    H, n = lower(7, 1, 2, closed), 7
    rows = [np.array([H[(j + r) % n, j] for j in range(n if closed else n - r)]) for r in range(3)]
    build = backend.jit(lambda *rows: backend.package.to_dense(backend.package.from_diagonals(*rows, periodic=closed)))
    np.testing.assert_array_equal(backend.numpy(build(*map(backend.array, rows))), H)
    with pytest.raises(ValueError, match="must have shapes"):
        backend.package.from_diagonals(backend.array(rows[0]), backend.array(rows[0][:3]), periodic=closed)


@pytest.mark.parametrize("size", [(5, 2, 1), (4, 3, 1), (6, 1, 2), (3, 2, 0), (7, 2, 2)], ids=str)
@pytest.mark.parametrize("closed", [False, True])
def test_from_blocks(backend: Backend, size: tuple, closed: bool) -> None:
    T, d, k = size
    H = lower(T, d, k, closed).reshape(T, d, T, d)
    blocks = [np.stack([H[(t + e) % T, :, t] for t in range(T if closed else T - e)]) for e in range(k + 1)]

    def build(*blocks: Any) -> tuple:
        ab = backend.package.from_blocks(*blocks, periodic=closed)
        return ab, backend.package.to_dense(ab)

    ab, dense = backend.jit(build)(*map(backend.array, blocks))
    assert backend.leaves(ab)[0].shape == ((k + 1) * d, T * d)
    np.testing.assert_array_equal(backend.numpy(dense), H.reshape(T * d, T * d))
    with pytest.raises(ValueError, match="blocks must have shapes"):
        backend.package.from_blocks(backend.array(blocks[0]), backend.array(blocks[0][:-2]), periodic=closed)


def sparse(backend: Backend, H: np.ndarray) -> list[Any]:
    """As SciPy and the framework have it; an explicit zero far off counts for nothing."""
    own = {
        "jax": lambda: [BCOO.fromdense(jax.numpy.asarray(H))],
        "torch": lambda: [torch.as_tensor(H).to_sparse_coo()],
    }[backend.name]()
    far = scipy.sparse.coo_array((np.append(H[np.nonzero(H)], 0.0), [np.append(x, y) for x, y in
                                  zip(np.nonzero(H), (len(H) - 1, 0), strict=True)]), shape=H.shape)  # fmt: skip
    return [scipy.sparse.csr_array(H), far, *own]


def test_from_sparse(backend: Backend) -> None:
    H = lower(6, 1, 2, False)
    for matrix in sparse(backend, H):
        ab = backend.package.from_sparse(matrix)
        assert ab.shape == (3, 6)
        np.testing.assert_array_equal(backend.numpy(backend.package.to_dense(ab)), H)
        assert backend.package.from_sparse(matrix, 4).shape == (5, 6)
        with pytest.raises(ValueError, match="2 off its diagonal"):
            backend.package.from_sparse(matrix, 1)
    with pytest.raises(TypeError, match="use from_dense"):
        backend.package.from_sparse(backend.array(H))


@pytest.mark.parametrize("case", [(8, 3, 0, False), (8, 3, 2, False), (10, 3, 1, True)], ids=str)
def test_variances(backend: Backend, case: tuple) -> None:
    """Of every variable, and of two rows on each stage of two scalars, against the dense inverse."""
    n, _, p, closed = case
    h, package = definite(*case), backend.package
    H = structure(backend, [np.nan_to_num(x) for x in stored(h, *case)], closed, bordered=p > 0)
    Z = np.linalg.inv(h)
    A = np.random.default_rng(0).normal(size=(n // 2, 2, 2))
    expected = [[a @ Z[2 * t : 2 * t + 2, 2 * t : 2 * t + 2] @ a for a in A[t]] for t in range(n // 2)]

    def variances(H: Any, A: Any) -> tuple:
        factor = package.factor(H)
        return factor, package.marginal_variances(factor), package.quadratic_variances(factor, A)

    factor, marginal, found = backend.jit(variances)(H, backend.array(A))
    np.testing.assert_allclose(backend.numpy(marginal), np.diag(Z), rtol=1e-11)
    np.testing.assert_allclose(backend.numpy(found), expected, rtol=1e-11)
    with pytest.raises(ValueError, match=r"A must have shape \(T, r, d\)"):
        package.quadratic_variances(factor, backend.array(np.ones((3, 1, 3))))
    indefinite = package.factor(-H) if not hasattr(H, "_fields") else None
    if indefinite is not None:
        assert np.isnan(backend.numpy(package.marginal_variances(indefinite))).all()
