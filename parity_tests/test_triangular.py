"""Substitution with a banded factor, and its determinant."""

from typing import Any

import numpy as np
import pytest
from backends import Backend
from matrices import (
    EPS,
    lower_factor,
    naive_backward,
    naive_forward,
    poisoned,
    positive_band,
    rhs,
    rounding,
    scaled_residual,
)
from oracles import store, unstore
from scipy.linalg import lapack


@pytest.mark.parametrize(
    ("n", "w", "columns"),
    [(0, 2, None), (1, 2, None), (7, 0, 3), (8, 3, None), (8, 3, 0), (8, 3, 1), (3, 6, 3), (30, 17, None)],
)
def test_substitution(backend: Backend, n: int, w: int, columns: int | None) -> None:
    L, b = lower_factor(n, w), rhs(n, columns)
    cb = backend.array(poisoned(store(L, w)))

    def check(x, naive: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        x = backend.numpy(x)
        assert x.shape == b.shape
        assert x.dtype == b.dtype
        np.testing.assert_allclose(x, naive, rtol=0, atol=32 * rounding(w) * np.abs(naive).max(initial=1))
        return x

    def solutions(cb: Any, b: Any) -> tuple:
        p = backend.package
        return p.solve_triangular(cb, b), p.solve_triangular(cb, b, transpose=True), p.cho_solve(cb, b)

    forward, backward, both = backend.jit(solutions)(cb, backend.array(b))
    x = check(forward, naive_forward(L, b), L)
    assert scaled_residual(L, x, b) <= rounding(w)
    x = check(backward, naive_backward(L, b), L.T)
    assert scaled_residual(L.T, x, b) <= rounding(w)
    x = check(both, naive_backward(L, naive_forward(L, b)), L @ L.T)
    if n and b.size:
        expected, info = lapack.dpbtrs(store(L, w), b, lower=1)
        assert info == 0
        np.testing.assert_allclose(x, expected, rtol=0, atol=32 * rounding(w) * np.abs(expected).max())


def test_drawing_from_the_gaussian(backend: Backend) -> None:
    """What L^-T is for: x = L^-T z has covariance H^-1, exactly so column by column."""
    ab = positive_band(6, 2)
    cb = backend.package.cholesky(backend.array(ab))
    X = backend.numpy(backend.package.solve_triangular(cb, backend.array(np.eye(6)), transpose=True))
    np.testing.assert_allclose(X @ X.T @ unstore(ab), np.eye(6), rtol=0, atol=64 * EPS)


@pytest.mark.parametrize(("n", "w"), [(0, 1), (1, 0), (8, 3), (30, 17)])
def test_logdet(backend: Backend, n: int, w: int) -> None:
    L = lower_factor(n, w)
    value = backend.numpy(backend.package.logdet(backend.array(poisoned(store(L, w)))))
    assert value.shape == ()
    np.testing.assert_allclose(value, np.linalg.slogdet(L @ L.T)[1], rtol=0, atol=16 * (n + 1) * EPS)


def test_logdet_beyond_the_range_of_det(backend: Backend) -> None:
    cb = backend.array(np.full((1, 500), 1e-10))
    np.testing.assert_allclose(float(backend.package.logdet(cb)), 1000 * np.log(1e-10), rtol=1e-14)
