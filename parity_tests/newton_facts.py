"""Bands for the parts of newton's loop, and what is known of a point by the definition."""

from __future__ import annotations

import numpy as np
from oracles import store, unstore

from bandhess_jax.optimise.newton import point


def problem(n: int, w: int, dtype: str = "float64") -> tuple[np.ndarray, ...]:
    """A band, and three vectors."""
    rng = np.random.default_rng(n + w)
    ab = store(rng.normal(size=(n, n)), w)
    return tuple(np.asarray(a, dtype) for a in (ab, *rng.normal(size=(3, n))))


def naive(ab: np.ndarray, g: np.ndarray, x: np.ndarray, p: np.ndarray) -> point.Facts:
    H = np.asarray(unstore(ab), "float64")
    low, high, rounding = np.inf, -np.inf, 0.0
    for i in range(len(x)):
        radius = sum(abs(H[i, j]) for j in range(len(x)) if j != i)
        low, high = min(low, H[i, i] - radius), max(high, H[i, i] + radius)
        rounding = max(rounding, np.finfo(ab.dtype).eps * sum(abs(H[i, j] * x[j]) for j in range(len(x))))
    lengths = [np.sqrt(sum(a * a for a in v.tolist())) for v in (g, x)]
    slope = sum(a * b for a, b in zip(g.tolist(), p.tolist(), strict=True))
    return point.Facts(1.5, *lengths, slope, max(map(abs, g)), min(np.diag(H)), low, high, rounding)
