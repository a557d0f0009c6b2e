"""Band storage: the definition in loops first, then products, gradients, empty and over-wide bands, bad input."""

import warnings

import jax
import numpy as np
import pytest
import torch
from backends import Backend
from hypothesis import given
from hypothesis import strategies as st
from oracles import integers, store, unique_coefficients, unstore

import bandhess_jax
import bandhess_torch

# (n, w): ordinary, empty, single, diagonal, full, wider than the matrix, and wide enough for the loop over diagonals.
SIZES = [(0, 0), (0, 2), (1, 0), (1, 3), (6, 0), (5, 2), (4, 3), (3, 7), (40, 18)]
DENSE_SIZES = [(0, 2), (1, 3), (6, 0), (5, 2), (3, 7)]


def unique_band(n: int, w: int, seed: int = 0) -> np.ndarray:
    """Distinct integers in the used cells, zeros elsewhere."""
    ab = unique_coefficients(w + 1, n, seed)
    return np.where(np.arange(w + 1)[:, None] + np.arange(n) < n, ab, 0)


def poisoned(ab: np.ndarray) -> np.ndarray:
    """The band with NaN in the cells that storage does not use."""
    return np.where(np.arange(ab.shape[0])[:, None] + np.arange(ab.shape[1]) < ab.shape[1], ab, np.nan)


def naive_matvec(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    y = np.zeros_like(x)
    for i in range(len(h)):
        for j in range(len(h)):
            y[i] += h[i, j] * x[j]
    return y


def test_worked_example(backend: Backend) -> None:
    """The matrix drawn in the documentation, with numbers for letters."""
    h = np.array([[1, 2, 3, 0, 0], [2, 4, 5, 6, 0], [3, 5, 7, 8, 9], [0, 6, 8, 10, 11], [0, 0, 9, 11, 12]], float)
    ab = np.array([[1, 4, 7, 10, 12], [2, 5, 8, 11, 0], [3, 6, 9, 0, 0]], float)
    np.testing.assert_array_equal(backend.package.from_dense(backend.array(h), 2), ab)
    np.testing.assert_array_equal(backend.package.to_dense(backend.array(ab)), h)


@pytest.mark.parametrize(("n", "w", "dtype"), [*((n, w, "float64") for n, w in DENSE_SIZES), (9, 4, "float32")])
def test_dense_and_back(backend: Backend, n: int, w: int, dtype: str) -> None:
    ab = unique_band(n, w)
    h = unstore(ab)
    dense = backend.jit(backend.package.to_dense)(backend.array(poisoned(ab), dtype))
    np.testing.assert_array_equal(backend.numpy(dense), h.astype(dtype), strict=True)
    back = backend.jit(lambda h: backend.package.from_dense(h, w))(backend.array(h, dtype))
    np.testing.assert_array_equal(backend.numpy(back), store(h, w).astype(dtype), strict=True)


@given(size=st.sampled_from(SIZES), columns=st.sampled_from([None, 0, 1, 3]), seed=st.integers(0, 99))
def test_matvec_is_the_dense_product(backend: Backend, size: tuple[int, int], columns: int | None, seed: int) -> None:
    n, w = size
    ab = unique_band(n, w, seed)
    x = integers(n * (1 if columns is None else columns), seed).reshape((n,) if columns is None else (n, columns))
    y = backend.numpy(backend.jit(backend.package.matvec)(backend.array(poisoned(ab)), backend.array(x)))
    np.testing.assert_array_equal(y, naive_matvec(unstore(ab), x), strict=True)  # integers: no rounding
    np.testing.assert_array_equal(y, unstore(ab) @ x, strict=True)


@pytest.mark.parametrize("w", [3, 18])
def test_matvec_keeps_float32(backend: Backend, w: int) -> None:
    ab, x = unique_band(21, w), integers(21, 1)
    y = backend.numpy(backend.package.matvec(backend.array(ab, "float32"), backend.array(x, "float32")))
    np.testing.assert_array_equal(y, (unstore(ab) @ x).astype("float32"), strict=True)


@pytest.mark.parametrize(("n", "w"), [(7, 0), (7, 2), (40, 18)])
def test_matvec_batches(backend: Backend, n: int, w: int) -> None:
    ab = np.stack([unique_band(n, w, seed) for seed in range(3)])
    x = integers(3 * n, 4).reshape(3, n)
    y = backend.jit(backend.vmap(backend.package.matvec))(backend.array(ab), backend.array(x))
    np.testing.assert_array_equal(y, np.stack([unstore(a) @ v for a, v in zip(ab, x, strict=True)]))


@pytest.mark.parametrize(("n", "w"), [(6, 0), (6, 2), (3, 7), (24, 18)])
def test_gradient_of_a_cell_sums_both_entries(backend: Backend, n: int, w: int) -> None:
    """y^T H x: d / d ab[0, j] = y_j x_j, d / d ab[d, j] = y_{j+d} x_j + y_j x_{j+d}."""
    x, y = integers(n, 5), integers(n, 6)
    expected = np.zeros((w + 1, n))
    for d in range(w + 1):
        for j in range(n - d):
            expected[d, j] = y[j] * x[j] if d == 0 else y[j + d] * x[j] + y[j] * x[j + d]

    def by_matvec(ab):
        return backend.xp.sum(backend.array(y) * backend.package.matvec(ab, backend.array(x)))

    def by_dense(ab):
        return backend.array(y) @ backend.package.to_dense(ab) @ backend.array(x)

    for fun in (by_matvec, by_dense):
        np.testing.assert_array_equal(backend.jit(backend.grad(fun))(backend.array(unique_band(n, w))), expected)


def test_from_dense_gradient_reads_the_lower_triangle(backend: Backend) -> None:
    weight = unique_band(5, 2)
    h = backend.array(unstore(unique_band(5, 2, 1)))
    grad = backend.grad(lambda h: backend.xp.sum(backend.array(weight) * backend.package.from_dense(h, 2)))
    np.testing.assert_array_equal(grad(h), np.tril(unstore(weight)))


@pytest.mark.parametrize(("i", "j"), [(4, 1), (1, 4)])
def test_from_dense_refuses_what_lies_outside(backend: Backend, i: int, j: int) -> None:
    h = np.eye(6)
    h[i, j] = 1e-300
    with pytest.raises(ValueError, match=r"h has non-zero entries up to 3 .* w is 2"):
        backend.package.from_dense(backend.array(h), 2)
    np.testing.assert_array_equal(backend.package.from_dense(backend.array(h), 3), store(np.tril(h), 3))


def sparse(backend: Backend, ab: object, **options: object) -> object:
    package = backend.package
    return jax.jit(package.to_bcoo)(ab) if backend.name == "jax" else package.to_sparse(ab, **options)


def coordinates(backend: Backend, matrix: object) -> tuple[np.ndarray, np.ndarray]:
    """`(entries, 2)` indices, and the entries."""
    if backend.name == "jax":
        return np.asarray(matrix.indices), np.asarray(matrix.data)
    return matrix.indices().numpy().T, matrix.values().numpy()


@pytest.mark.parametrize(("n", "w"), [(0, 2), (1, 3), (6, 0), (5, 2), (3, 7)])
def test_sparse(backend: Backend, n: int, w: int) -> None:
    """Every cell inside the band once per triangle, row by row, zeros included."""
    ab = unique_band(n, w)
    h = unstore(ab)
    matrix = sparse(backend, backend.array(poisoned(ab)))
    indices, entries = coordinates(backend, matrix)
    inside = [(i, j) for i in range(n) for j in range(n) if abs(i - j) <= w]
    np.testing.assert_array_equal(indices, np.array(inside).reshape(-1, 2))
    np.testing.assert_array_equal(entries, [h[i, j] for i, j in inside])
    assert tuple(matrix.shape) == (n, n)
    assert (matrix.indices_sorted and matrix.unique_indices) if backend.name == "jax" else matrix.is_coalesced()
    dense = jax.jit(lambda matrix: matrix.todense())(matrix) if backend.name == "jax" else matrix.to_dense()
    np.testing.assert_array_equal(dense, h)


def test_sparse_gradient(backend: Backend) -> None:
    """Of x^T H x: x_j^2 on the diagonal, 2 x_{j+d} x_j below it."""
    x = integers(5, 5)
    expected = 2 * store(np.outer(x, x), 2)
    expected[0] /= 2
    ab = backend.array(poisoned(unique_band(5, 2)))
    if backend.name == "jax":
        grad = jax.jit(jax.grad(lambda ab: x @ (sparse(backend, ab) @ x)))(ab)
        np.testing.assert_array_equal(grad, expected)
        batch = jax.jit(lambda ab: jax.vmap(bandhess_jax.to_bcoo)(ab).todense())(np.stack([ab, 2 * ab]))
        np.testing.assert_array_equal(batch[1], 2 * unstore(unique_band(5, 2)))
        return
    for layout in (torch.sparse_coo, torch.sparse_csr):
        leaf, y = ab.clone().requires_grad_(), backend.array(x)
        with warnings.catch_warnings():  # torch calls its CSR a beta
            warnings.simplefilter("ignore")
            (y @ (sparse(backend, leaf, layout=layout) @ y)).backward()
        np.testing.assert_array_equal(leaf.grad, expected)


def test_sparse_rows() -> None:
    """torch's CSR, its invariants checked by torch; another layout is refused."""
    ab = unique_band(5, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = bandhess_torch.to_sparse(torch.tensor(poisoned(ab)), layout=torch.sparse_csr)
        parts = (matrix.crow_indices(), matrix.col_indices(), matrix.values(), matrix.shape)
        torch.sparse_csr_tensor(*parts, check_invariants=True)
    np.testing.assert_array_equal(matrix.to_dense(), unstore(ab))
    with pytest.raises(ValueError, match=r"layout must be torch.sparse_coo or torch.sparse_csr, got torch.strided"):
        bandhess_torch.to_sparse(torch.tensor(ab), layout=torch.strided)
    with pytest.raises(RuntimeError, match=r"to_sparse does not run inside torch.func.vmap"):
        torch.func.vmap(bandhess_torch.to_sparse)(torch.tensor(ab)[None])


def test_bad_input(backend: Backend) -> None:
    p = backend.package
    ab, x, h = backend.array(np.ones((2, 4))), backend.array(np.ones(4)), backend.array(np.eye(4))
    bad = [
        (ValueError, "ab must be 2-D", lambda: p.matvec(x, x)),
        (ValueError, "ab must be 2-D", lambda: p.to_dense(backend.array(np.ones((2, 3, 4))))),
        (ValueError, "ab must be 2-D", lambda: p.to_dense(backend.array(np.ones((0, 4))))),
        (TypeError, "ab must have a real floating dtype", lambda: p.to_dense(backend.array(np.ones((2, 4)), "int32"))),
        (TypeError, "ab must have a real floating dtype", lambda: p.matvec(backend.array(np.ones((2, 4)) * 1j), x)),
        (ValueError, "ab must be 2-D", lambda: sparse(backend, x)),
        (ValueError, r"x must have shape \(4,\)", lambda: p.matvec(ab, backend.array(np.ones(3)))),
        (ValueError, r"x must have shape \(4,\)", lambda: p.matvec(ab, backend.array(np.ones((4, 1, 1))))),
        (ValueError, r"x must have shape \(4,\)", lambda: p.matvec(ab, backend.array(1.0))),
        (TypeError, "x and ab must have one dtype", lambda: p.matvec(ab, backend.array(np.ones(4), "float32"))),
        (ValueError, "h must be a square matrix", lambda: p.from_dense(ab, 1)),
        (ValueError, "h must be a square matrix", lambda: p.from_dense(x, 1)),
        (ValueError, "w must be an int >= 0", lambda: p.from_dense(h, -1)),
        (TypeError, "w must be an int >= 0", lambda: p.from_dense(h, 1.0)),
        (TypeError, "w must be an int >= 0", lambda: p.from_dense(h, True)),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()
