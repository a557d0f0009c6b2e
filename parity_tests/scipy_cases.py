"""Bands in SciPy's forms, and how well a system is solved."""

import numpy as np
import pytest
from matrices import general_band

NAMES = ("solveh_banded", "cholesky_banded", "cho_solve_banded", "solve_banded")


EPS = {name: float(np.finfo(name).eps) for name in ("float32", "float64", "complex64", "complex128")}
dtypes = pytest.mark.parametrize("dtype", sorted(EPS))


def random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if dtype.startswith("complex") else x).astype(dtype)


def positive_dense(n: int, w: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Hermitian, positive definite, of half-bandwidth w."""
    L = random((n, n), dtype, seed) / np.sqrt(w + 1)
    L = np.where(np.subtract.outer(np.arange(n), np.arange(n)) > w, 0, np.tril(L))
    np.fill_diagonal(L, 1.5)
    return (L @ L.conj().T).astype(dtype)


def hermitian_band(H: np.ndarray, w: int, lower: bool) -> np.ndarray:
    return general_band(H, w, 0) if lower else general_band(H, 0, w)


def backward_error(A: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(A @ x - b).max() / (np.abs(A).max() * np.abs(x).max() + np.abs(b).max()))
