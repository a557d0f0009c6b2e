"""Closed bands and borders by definition, entry by entry."""

from typing import Any

import numpy as np
from backends import Backend
from hypothesis import strategies as st

# (n, w, p, closed): a border of none, one, four; a diagonal; the least ring n = 2 w + 1; rings of all widths.
CASES = [(9, 2, 4, False), (8, 3, 0, False), (3, 4, 1, False), (0, 1, 2, False), (5, 2, 0, True), (6, 2, 0, True),
         (9, 2, 1, True), (11, 3, 4, True), (7, 0, 1, True), (40, 18, 1, True), (3, 1, 0, True)]  # fmt: skip
SIZES = st.tuples(st.sampled_from([7, 8, 12]), st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 4]), st.booleans())


def inside(n: int, w: int, p: int, closed: bool) -> np.ndarray:
    """Which entries such a matrix has."""
    mask = np.ones((n + p, n + p), bool)
    for i in range(n):
        for j in range(n):
            apart = abs(i - j)
            mask[i, j] = min(apart, n - apart) <= w if closed else apart <= w
    return mask


def symmetric(n: int, w: int, p: int, closed: bool, seed: int = 0) -> np.ndarray:
    """Distinct positive integers in all entries of one triangle, so that a misplaced one shows."""
    order = n + p
    values = np.random.default_rng(seed).permutation(np.arange(1.0, order**2 + 1)).reshape(order, order)
    lower = np.tril(values * inside(n, w, p, closed))
    return lower + np.tril(lower, -1).T


def definite(n: int, w: int, p: int, closed: bool, seed: int = 0) -> np.ndarray:
    """A positive definite one of moderate condition."""
    h = symmetric(n, w, p, closed, seed)
    h = (h - h.mean()) * inside(n, w, p, closed) / max(h.max(initial=1), 1)
    return h + np.diag(1.2 * np.abs(h).sum(1) + 0.1)


def stored(h: np.ndarray, n: int, w: int, p: int, closed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ab, border, corner) by the definition; NaN in cells that storage does not use."""
    ab = np.full((w + 1, n), np.nan)
    for r in range(w + 1):
        for j in range(n):
            if closed or j + r < n:
                ab[r, j] = h[(j + r) % n, j]
    return ab, h[n:, :n], h[n:, n:]


def structure(backend: Backend, parts: Any, closed: bool, dtype: str = "float64", bordered: bool = True) -> Any:
    """The parts, NumPy arrays or the backend's own, as a structure."""
    package = backend.package
    ab, border, corner = (x if backend.is_array(x) else backend.array(x, dtype) for x in parts)
    band = package.Cyclic(ab) if closed else ab
    return package.Bordered(band, border, corner) if bordered else band
