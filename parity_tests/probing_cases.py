"""Banded operators for the tests of the probings, and the band that a probing recovers."""

import numpy as np
from backends import Backend
from oracles import unique_coefficients


def banded(T: int, d: int, k: int) -> np.ndarray:
    """A symmetric matrix of distinct integers that couples stages at most k apart."""
    h = unique_coefficients(T * d, T * d, 0)
    stage = np.arange(T * d) // d
    h = np.where(abs(stage[:, None] - stage) <= k, h, 0)
    return np.tril(h) + np.tril(h, -1).T


PROBINGS = ["direct", "substitution", "fourier", "random"]
ROUNDING = 64


def spread_band(T: int, d: int, k: int) -> np.ndarray:
    """Entries of size 1 within k stages."""
    rows, n = (k + 1) * d, T * d
    row, column = np.indices((rows, n))
    ab = np.random.default_rng(3).normal(size=(rows, n))
    return np.where((column + row < n) & ((column + row) // d - column // d <= k), ab, 0)


def recover(backend: Backend, ab: np.ndarray, d: int, k: int, probing: object, dtype: str = "float64") -> np.ndarray:
    """The band of the operator v -> ab v, which the package's own `matvec` applies."""
    band = backend.array(ab, dtype)
    like = backend.array(np.zeros((ab.shape[1] // d, d)), dtype)
    found = backend.package.from_matvec(
        lambda v: backend.package.matvec(band, v.reshape(-1)).reshape(v.shape), like, k, probing=probing
    )
    assert found.dtype == backend.dtype(dtype)
    return backend.numpy(found).astype(float)
