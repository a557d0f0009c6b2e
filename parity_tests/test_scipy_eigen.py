"""Banded eigenvalue problems: SciPy's own tests with ours in their place, selected ranges, clusters, derivatives."""

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import torch
from backends import BACKENDS, Backend
from scipy.linalg.tests import test_decomp
from scipy_cases import EPS, hermitian_band, random

import bandhess_jax as bj
import bandhess_torch as bh

NAMES = ("eig_banded", "eigvals_banded", "eigh_tridiagonal", "eigvalsh_tridiagonal")


class DropIns:
    """SciPy's tests see the backend's functions, their results as NumPy. Each test must call one."""

    @pytest.fixture(autouse=True)
    def _replace(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        calls = []

        def adapted(name: str) -> Any:
            def function(*args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                found = getattr(backend.package.scipy, name)(*args, **kwargs)
                assert all(map(backend.is_array, backend.leaves(found)))
                return backend.tree_map(backend.numpy, found)

            return function

        for name in NAMES:
            monkeypatch.setattr(test_decomp, name, adapted(name))
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
        assert calls


class TestEigBanded(DropIns):
    setup_method = test_decomp.TestEigBanded.setup_method
    create_bandmat = test_decomp.TestEigBanded.create_bandmat
    test_eigvals_banded = test_decomp.TestEigBanded.test_eigvals_banded
    test_eig_banded = test_decomp.TestEigBanded.test_eig_banded
    test_empty = test_decomp.TestEigBanded.test_empty


class TestEigTridiagonal(DropIns, test_decomp.TestEigTridiagonal):
    pass


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(name: str, backend: Backend) -> None:
    ours, theirs = (inspect.signature(getattr(m, name)).parameters for m in (backend.package.scipy, scipy.linalg))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def hermitian(n: int, w: int, dtype: str) -> np.ndarray:
    H = random((n, n), dtype)
    H = (H + H.conj().T) / 2
    return np.where(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) > w, 0, H).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_a_selected_range(dtype: str, backend: Backend) -> None:
    """Of a batch: values, residuals and orthogonality to rounding."""
    n, w = 60, 3
    batch = np.stack([hermitian(n, w, dtype), 1e3 * hermitian(n, w, dtype)[::-1, ::-1]])
    ab = backend.array(np.stack([hermitian_band(H, w, False) for H in batch]))
    found = backend.package.scipy.eig_banded(ab, select="i", select_range=(20, 23), check_finite=False)
    for H, values, vectors in zip(batch, *map(backend.numpy, found), strict=True):
        size = np.abs(H).sum(1).max()
        np.testing.assert_allclose(values, np.linalg.eigvalsh(H)[20:24], atol=16 * EPS[dtype] * size)
        np.testing.assert_allclose(H @ vectors, vectors * values, atol=64 * EPS[dtype] * size)
        np.testing.assert_allclose(vectors.conj().T @ vectors, np.eye(4), atol=64 * EPS[dtype])
        assert vectors.dtype == dtype


def test_clusters_and_pivots_that_vanish(backend: Backend) -> None:
    """Five chains side by side, decoupled: each eigenvalue comes five times, and every leading minor at 0 vanishes."""
    chain = scipy.linalg.toeplitz([0.0, 0.0, 1.0] + [0.0] * 7)
    H = np.kron(np.eye(5), chain)
    ab, expected = backend.array(hermitian_band(H, 2, True)), np.linalg.eigvalsh(H)
    found = backend.package.scipy.eig_banded(ab, True, select="i", select_range=(3, 30), check_finite=False)
    values, vectors = map(backend.numpy, found)
    np.testing.assert_allclose(values, expected[3:31], atol=1e-14)
    np.testing.assert_allclose(H @ vectors, vectors * values, atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(28), atol=1e-13)


def test_counts_are_refused_where_pivots_grow(backend: Backend) -> None:
    """H = [[e, 1, 1], [1, 1, 1], [1, 1, 5]] has one negative eigenvalue; rounding makes the pivots say otherwise."""
    ab = backend.array([[1e-20, 1, 5], [1, 1, 0], [1, 0, 0]], "float64")
    module = BACKENDS[backend.name].package.scipy.bisection
    shift = backend.array(0.0, "float64")
    count = module.count_below(ab, shift if backend.name == "jax" else shift[None])
    assert int(count) == -1
    values = backend.package.scipy.eigvals_banded(ab, True, select="i", select_range=(0, 1))
    np.testing.assert_allclose(
        backend.numpy(values), np.linalg.eigvalsh([[0, 1, 1], [1, 1, 1], [1, 1, 5]])[:2], atol=1e-14
    )


def test_what_is_not_finite_is_nan(backend: Backend) -> None:
    ab = np.ones((2, 5))
    ab[0, 2] = np.nan
    eig = backend.package.scipy.eig_banded
    values = eig(backend.array(ab), lower=True, select="i", select_range=(1, 2), check_finite=False)[0]
    assert np.isnan(backend.numpy(values)).all()
    with pytest.raises(ValueError, match="infs or NaNs"):
        eig(backend.array(ab), lower=True)


@pytest.mark.parametrize(("select", "select_range", "text"), [
    ("x", None, "select must be"), ("i", None, "select_range must be"), ("i", (0, 5), "last < 5"),
    ("i", (0.5, 2), "two ints"), ("v", (2.0, 1.0), "low < high"),
])  # fmt: skip
def test_wrong_selections(select: str, select_range: Any, text: str, backend: Backend) -> None:
    with pytest.raises(ValueError, match=text):
        backend.package.scipy.eig_banded(np.ones((2, 5)), select=select, select_range=select_range)


AB = np.random.default_rng(1).normal(size=(3, 6))
WEIGHTS = np.arange(1.0, 7.0)


def number(values: Any, vectors: Any) -> Any:
    """Of a pair's values and vectors, whatever the vectors' signs."""
    squares = vectors**2
    return values[0] ** 2 + values[1] * values[0] + (squares[:, 0] * squares[:, 1]).sum()


def test_derivatives_in_jax() -> None:
    """First and second ones of a selected range, in jit, are those of the dense problem."""

    def selected(ab: Any) -> Any:
        return number(*bj.scipy.eig_banded(ab, lower=True, select="i", select_range=(1, 2)))

    def dense(ab: Any) -> Any:
        values, vectors = jnp.linalg.eigh(bj.to_dense(ab))
        return number(values[1:3], vectors[:, 1:3])

    def both(f: Any) -> Any:
        return lambda ab: (jax.grad(f)(ab), jax.jvp(jax.grad(f), (ab,), (jnp.ones_like(ab),))[1])

    found, expected = (jax.jit(both(f))(jnp.asarray(AB)) for f in (selected, dense))
    assert float(jnp.abs(found[0]).max()) > 0.1
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="inside jit use select='i'"):
        jax.jit(lambda ab: bj.scipy.eig_banded(ab, select="v", select_range=(0, 1)))(AB)


def test_derivatives_in_torch() -> None:
    """First ones of a selected range are those of the whole spectrum; second ones are an error, not a number."""
    ab = torch.tensor(AB, requires_grad=True)
    values, vectors = bh.scipy.eig_banded(ab, lower=True)
    (expected,) = torch.autograd.grad(number(values[1:3], vectors[:, 1:3]), ab)
    value = number(*bh.scipy.eig_banded(ab, lower=True, select="i", select_range=(1, 2)))
    (found,) = torch.autograd.grad(value, ab, create_graph=True)
    torch.testing.assert_close(found, expected)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        found.sum().backward()
