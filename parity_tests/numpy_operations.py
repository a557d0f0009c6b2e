"""NumPy's and SciPy's answer to `interior_point/operations.py`: an oracle that is read at a glance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

where, maximum, minimum, log, sqrt, isfinite = np.where, np.maximum, np.minimum, np.log, np.sqrt, np.isfinite
sum, all, argmax = np.sum, np.all, np.argmax


def hashed(count: int, seed: int) -> np.ndarray:
    """`count` numbers in [-1, 1), as `band/noise.py` has them: the index, hashed (Murmur3's finaliser). Seed 1 serves
    for the size of W, 2 for the second point of scaling and against symmetric paths, 3 for negative curvature, 4 for
    dependent rows."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(2246822507)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(3266489909)
    return (h ^ (h >> np.uint32(16))).astype(np.float64) / 2.0**31 - 1


def eps(like: np.ndarray) -> float:
    return float(np.finfo(like.dtype).eps)


def least(like: np.ndarray) -> float:
    return float(np.finfo(like.dtype).tiny)


def number(value: Any, like: np.ndarray) -> np.ndarray:
    return np.asarray(value, like.dtype)


def count(value: int, like: np.ndarray) -> np.ndarray:
    return np.asarray(value, np.int32)


def real(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(mask).astype(like.dtype)


def full(shape: tuple[int, ...], value: float, like: np.ndarray) -> np.ndarray:
    return np.full(shape, value, like.dtype)


def noise(like: np.ndarray, seed: int) -> np.ndarray:
    return hashed(len(like), seed).astype(like.dtype)


def median(a: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.sort(np.where(of, a, np.inf))[of.sum() // 2]


def power_of_two(a: np.ndarray) -> np.ndarray:
    return np.ldexp(np.ones_like(a), np.rint(a).astype(np.int32))


def largest(a: np.ndarray, axis: int | None = None) -> np.ndarray:
    return np.max(np.abs(a), axis=axis, initial=0)


def join(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def put(a: np.ndarray, i: Any, value: Any) -> np.ndarray:
    a = a.copy()
    a[i] = value
    return a


def range(n: int, like: np.ndarray) -> np.ndarray:
    return np.arange(n, dtype=np.int32)


def windows(v: np.ndarray, first: np.ndarray, L: int) -> np.ndarray:
    return v[first[:, None] + np.arange(L)]


def add_windows(rows: np.ndarray, first: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros(n, rows.dtype)
    np.add.at(out, first[:, None] + np.arange(rows.shape[1]), rows)
    return out


def gram(rows: np.ndarray, first: np.ndarray, weights: np.ndarray, band: np.ndarray) -> np.ndarray:
    out, L = band.copy(), rows.shape[1]
    for d in np.arange(L):
        np.add.at(out[d], first[:, None] + np.arange(L - d), weights[:, None] * rows[:, d:] * rows[:, : L - d])
    return out


def dense(W: np.ndarray, p: int) -> np.ndarray:
    """The matrix of a lower band with a border of p, entry by entry."""
    n = W.shape[1]
    H, banded = np.diag(W[0]), n - p
    for d in np.arange(1, min(len(W) - p, banded)):
        for j in np.arange(banded - d):
            H[j + d, j] = H[j, j + d] = W[d, j]
    for q in np.arange(p):
        for j in np.arange(n):
            if j != banded + q:
                H[banded + q, j] = H[j, banded + q] = W[len(W) - p + q, j]
    return H


def matvec(band: np.ndarray, v: np.ndarray, p: int) -> np.ndarray:
    if p:
        return dense(band, p) @ v
    out, n = band[0] * v, len(v)
    for d in np.arange(1, min(len(band), n)):
        out[d:] += band[d, : n - d] * v[: n - d]
        out[: n - d] += band[d, : n - d] * v[d:]
    return out


def factor(band: np.ndarray, p: int) -> tuple[Any, np.ndarray]:
    try:
        if p:
            c = np.linalg.cholesky(dense(band, p))
            return (c, True), np.isfinite(c).all()
        c = scipy.linalg.cholesky_banded(band[: band.shape[1]], lower=True, check_finite=False)
        return c, np.isfinite(c).all()
    except np.linalg.LinAlgError:
        return (np.full((band.shape[1],) * 2, np.nan), True) if p else np.full_like(band, np.nan), np.bool_(False)


def solve(c: Any, b: np.ndarray) -> np.ndarray:
    if isinstance(c, tuple):
        return scipy.linalg.cho_solve(c, b, check_finite=False)
    return scipy.linalg.cho_solve_banded((c, True), b, check_finite=False)


def when(wanted: np.ndarray, fun: Callable[[Any], Any], value: Any) -> Any:
    return fun(value) if wanted else value


def while_loop(wanted: Callable[[Any], np.ndarray], body: Callable[[Any], Any], value: Any) -> Any:
    while wanted(value):
        value = body(value)
    return value
