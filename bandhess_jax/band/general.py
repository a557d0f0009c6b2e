"""Products with a general band in diagonal ordered form, `ab[u + i - j, j] = A[i, j]`, `(l + u + 1, n)`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .storage import sheared, transposed


def cleared(ab: Array, u: int) -> Array:
    """ab with zeros in its unused cells, whatever stood there."""
    row = lax.broadcasted_iota(jnp.int32, ab.shape, 0) + lax.broadcasted_iota(jnp.int32, ab.shape, 1) - u
    return jnp.where((row >= 0) & (row < ab.shape[1]), ab, 0)


def times(ab: Array, x: Array, l: int) -> Array:
    """A x for x `(n,)` or `(n, k)`."""
    return _rows_times(transposed(ab, l), x, l)


def times_transposed(ab: Array, x: Array, u: int) -> Array:
    """A^T x for x `(n,)` or `(n, k)`."""
    return _rows_times(cleared(ab, u), x, u)


def _rows_times(rows: Array, x: Array, before: int) -> Array:
    """`[i] = sum_c rows[c, i] x[i - before + c]`."""
    if x.ndim == 2:
        return jax.vmap(_rows_times, in_axes=(None, 1, None), out_axes=1)(rows, x, before)
    count, n = rows.shape
    around = sheared(jnp.broadcast_to(jnp.pad(x, (before, count - before)), (count, n + count)), n)
    return jnp.sum(rows * around, axis=0)
