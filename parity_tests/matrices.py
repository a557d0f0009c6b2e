"""Positive definite bands, and what LAPACK and plain loops make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from oracles import store, unstore
from scipy.linalg import lapack

if TYPE_CHECKING:  # sharded_worker.py starts sooner without PyTorch
    from backends import Backend

# (n, w): empty, single, diagonal, usual, full, wider than the matrix, wide.
SIZES = [(0, 2), (1, 2), (7, 0), (8, 3), (5, 4), (3, 6), (30, 17)]
EPS = np.finfo("float64").eps


def rounding(w: int, dtype: str = "float64") -> float:
    """The backward error of a banded factorisation or substitution is below (w + some) eps (Higham 2002, theorems 9.3
    and 10.3); well-conditioned factors add a small factor in the forward direction."""
    return 8 * (w + 2) * float(np.finfo(dtype).eps)


def ways_to_solve(backend: Backend) -> list[Callable]:
    return [backend.package.solve, backend.jit(lambda ab, b: backend.package.factor(ab).solve(b))]


def lower_factor(n: int, w: int, seed: int = 0) -> np.ndarray:
    """A banded lower triangle with a positive diagonal, well conditioned."""
    rng = np.random.default_rng(seed)
    L = np.tril(rng.normal(size=(n, n))) / math.sqrt(w + 1)
    L[np.subtract.outer(np.arange(n), np.arange(n)) > w] = 0
    np.fill_diagonal(L, rng.uniform(1, 2, n))
    return L


def positive_band(n: int, w: int, seed: int = 0) -> np.ndarray:
    L = lower_factor(n, w, seed)
    return store(L @ L.T, w)


def indefinite_factors(n: int, w: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Well-conditioned M (dense, unit lower, banded) and D of both signs."""
    M = lower_factor(n, w, seed)
    M /= np.diag(M)
    np.fill_diagonal(M, 1)
    rng = np.random.default_rng(seed + 1)
    return M, rng.uniform(1, 3, n) * np.where(rng.random(n) < 0.5, -1, 1)


def indefinite_band(n: int, w: int, seed: int = 0) -> np.ndarray:
    M, D = indefinite_factors(n, w, seed)
    return store(M * D @ M.T, w)


def poisoned(ab: np.ndarray) -> np.ndarray:
    """The band with NaN in the cells that storage does not use."""
    return np.where(np.arange(ab.shape[0])[:, None] + np.arange(ab.shape[1]) < ab.shape[1], ab, np.nan)


def cleared(ab: np.ndarray) -> np.ndarray:
    return np.where(np.arange(ab.shape[0])[:, None] + np.arange(ab.shape[1]) < ab.shape[1], ab, 0)


def naive_cholesky(h: np.ndarray) -> np.ndarray:
    """L L^T = H entry by entry; NaN from the first pivot that is not positive."""
    n = len(h)
    L = np.zeros((n, n))
    for j in range(n):
        pivot = h[j, j] - sum(L[j, k] ** 2 for k in range(j))
        L[j, j] = math.sqrt(pivot) if pivot > 0 else math.nan
        for i in range(j + 1, n):
            L[i, j] = (h[i, j] - sum(L[i, k] * L[j, k] for k in range(j))) / L[j, j]
    return L


def first_failure(h: np.ndarray) -> int:
    """0, or the order of the first leading minor that is not positive definite: by its eigenvalues, minor by minor."""
    for order in range(1, len(h) + 1):
        minor = h[:order, :order]
        if not np.isfinite(minor).all() or np.linalg.eigvalsh(minor)[0] <= 0:
            return order
    return 0


def break_minor(ab: np.ndarray, order: int, pivot: float) -> np.ndarray:
    """The band with its order-th pivot made what is given: the first minor to fail where that is not positive."""
    h = unstore(ab)
    L = naive_cholesky(h)
    ab = ab.copy()
    ab[0, order - 1] += pivot - L[order - 1, order - 1] ** 2
    return ab


def naive_forward(L: np.ndarray, b: np.ndarray) -> np.ndarray:
    x = np.zeros_like(b)
    for i in range(len(b)):
        x[i] = (b[i] - sum(L[i, k] * x[k] for k in range(i))) / L[i, i]
    return x


def naive_backward(L: np.ndarray, b: np.ndarray) -> np.ndarray:
    x = np.zeros_like(b)
    for i in reversed(range(len(b))):
        x[i] = (b[i] - sum(L[k, i] * x[k] for k in range(i + 1, len(b)))) / L[i, i]
    return x


def lapack_factor(ab: np.ndarray) -> tuple[np.ndarray, int]:
    cb, info = (lapack.dpbtrf if ab.dtype == np.float64 else lapack.spbtrf)(ab, lower=1)
    return cleared(cb), info


def lapack_solve(ab: np.ndarray, b: np.ndarray) -> np.ndarray:
    cb, info = lapack.dpbtrf(ab, lower=1)
    assert info == 0
    x, info = lapack.dpbtrs(cb, b, lower=1)
    assert info == 0
    return x


def rhs(n: int, columns: int | None, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n,) if columns is None else (n, columns))


def scaled_residual(h: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    """max |H x - b| / (|H| |x| + |b|): the component-wise backward error."""
    scale = np.abs(h) @ np.abs(x) + np.abs(b)
    return float(np.max(np.divide(np.abs(h @ x - b), scale, where=scale > 0, out=np.zeros_like(scale)), initial=0))


def general_dense(ab: np.ndarray, l: int, u: int) -> np.ndarray:
    """The matrix of a band in diagonal ordered form."""
    n = ab.shape[1]
    A = np.zeros((n, n), ab.dtype)
    for i in range(n):
        for j in range(n):
            if -u <= i - j <= l:
                A[i, j] = ab[u + i - j, j]
    return A


def general_band(A: np.ndarray, l: int, u: int) -> np.ndarray:
    """Diagonal ordered form, with NaN in the cells that storage does not use."""
    n = len(A)
    ab = np.full((l + u + 1, n), np.nan, A.dtype)
    for i in range(n):
        for j in range(n):
            if -u <= i - j <= l:
                ab[u + i - j, j] = A[i, j]
    return ab


def naive_lu(A: np.ndarray, l: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Gaussian elimination, the first largest as pivot: U, the multipliers `(n, l)`, how far below each pivot stood."""
    U, n = A.copy(), len(A)
    multipliers, swaps = np.zeros((n, l)), []
    for k in range(n):
        p = max(range(k, min(k + l + 1, n)), key=lambda i: abs(U[i, k]))
        swaps.append(p - k)
        U[[k, p]] = U[[p, k]]
        for i in range(k + 1, min(k + l + 1, n)):
            multipliers[k, i - k - 1] = m = U[i, k] / U[k, k]
            U[i] -= m * U[k]
            U[i, k] = 0
    return U, multipliers, swaps
