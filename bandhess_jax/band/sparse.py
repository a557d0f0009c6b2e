"""The band as a general sparse matrix, for libraries that take one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax.typing import ArrayLike

from .storage import as_band

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO  # which brings much of SciPy with it


def to_bcoo(ab: ArrayLike) -> BCOO:
    """The symmetric `(n, n)` matrix that `ab` `(w + 1, n)` stores, as a `jax.experimental.sparse.BCOO`.

    Both triangles, row by row, every cell of the band included though it be 0: n + v (2 n - v - 1) entries, with
    v = min(w, n - 1). Differentiable; works under jit.

    >>> to_bcoo(jnp.array([[4.0, 4, 4], [1, 1, 0]])).todense()
    Array([[4., 1., 0.],
           [1., 4., 1.],
           [0., 1., 4.]], dtype=float32)
    """
    from jax.experimental.sparse import BCOO

    ab = as_band(ab)
    n = ab.shape[1]
    w = max(min(ab.shape[0], n) - 1, 0)
    row = jnp.arange(n, dtype=jnp.int32)[:, None]
    column = row + jnp.arange(-w, w + 1, dtype=jnp.int32)[None]
    inside = jnp.nonzero((column >= 0) & (column < n), size=n + w * (2 * n - w - 1))
    i, k = (index.astype(jnp.int32) for index in inside)
    j = column[i, k] if n else i
    indices = jnp.stack([i, j], axis=1).astype(jnp.int32)
    cells = ab[jnp.abs(i - j), jnp.minimum(i, j)] if n else ab[0]
    return BCOO((cells, indices), shape=(n, n), indices_sorted=True, unique_indices=True)
