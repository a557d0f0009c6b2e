"""Storage and stages by definition, entry by entry, and numbers to fill them with.

Nothing here imports the packages under test: these are what they are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

# --- Storage and stages, by definition -------------------------------------------------------------------------------


def store(h: np.ndarray, w: int) -> np.ndarray:
    """ab[d, j] = H[j + d, j], entry by entry; 0 in unused cells."""
    n = len(h)
    ab = np.zeros((w + 1, n), h.dtype)
    for d in range(w + 1):
        for j in range(n):
            if j + d < n:
                ab[d, j] = h[j + d, j]
    return ab


def unstore(ab: np.ndarray) -> np.ndarray:
    """The symmetric matrix of a band, entry by entry."""
    rows, n = ab.shape
    h = np.zeros((n, n), ab.dtype)
    for i in range(n):
        for j in range(n):
            if abs(i - j) < rows:
                h[i, j] = ab[abs(i - j), min(i, j)]
    return h


def unstore_lower(cb: np.ndarray) -> np.ndarray:
    """The lower triangular matrix of a banded factor."""
    return np.tril(unstore(cb))


def tree_leaves(tree: Any) -> list[np.ndarray]:
    """Leaves in pytree order; the trees of this suite write their dict keys in sorted order."""
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in tree_leaves(tree[key])]
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in tree_leaves(part)]
    return [tree]


def sizes(tree: Any) -> tuple[int, int]:
    """(T, d): stages, and scalars per stage."""
    leaves = tree_leaves(tree)
    return max(len(leaf) for leaf in leaves), sum(int(np.prod(leaf.shape[1:])) for leaf in leaves)


def ravel(tree: Any) -> tuple[np.ndarray, np.ndarray]:
    """(flat, dummy): stage by stage, leaf by leaf; where a leaf has no such stage, 0 stands and dummy is True."""
    leaves = tree_leaves(tree)
    flat, dummy = [], []
    for t in range(sizes(tree)[0]):
        for leaf in leaves:
            present = t < len(leaf)
            entries = leaf[t].ravel() if present else np.zeros(int(np.prod(leaf.shape[1:])))
            flat += list(entries)
            dummy += [not present] * len(entries)
    return np.array(flat), np.array(dummy, bool)


def assemble(n: int, elements: Iterable[tuple[Any, np.ndarray]]) -> np.ndarray:
    """Sum of local matrices, each given with its indices; negative indices stand for fixed values and are dropped."""
    h = np.zeros((n, n))
    for indices, local in elements:
        for a, i in enumerate(indices):
            for b, j in enumerate(indices):
                if i >= 0 and j >= 0:
                    h[i, j] += local[a, b]
    return h


# --- Objectives ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """An objective at a point. exact: all its numbers are integers, so every backend must agree to the last bit."""

    name: str
    objective: Callable[[Any], Callable]
    x: Any
    bandwidth: int  # in stages
    hessian: np.ndarray
    args: tuple[np.ndarray, ...] = ()
    exact: bool = False

    @property
    def band(self) -> np.ndarray:
        return store(self.hessian, (self.bandwidth + 1) * sizes(self.x)[1] - 1)

    def __str__(self) -> str:
        return self.name


def integers(n: int, seed: int, low: int = -3, high: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, n).astype(float)


def reals(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def unique_coefficients(rows: int, n: int, seed: int) -> np.ndarray:
    """A band of distinct positive integers: a misplaced entry cannot look like the right one."""
    return np.random.default_rng(seed).permutation(np.arange(1.0, rows * n + 1)).reshape(rows, n)
