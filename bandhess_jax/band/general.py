"""Products with a general band in diagonal ordered form, `ab[u + i - j, j] = A[i, j]`, `(l + u + 1, n)`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .storage import sheared, transposed

FEW = 33  # rows: so many are taken one after the other, in one fused pass


def cleared(ab: Array, u: int) -> Array:
    """ab with zeros in its unused cells, whatever stood there."""
    row = lax.broadcasted_iota(jnp.int32, ab.shape, 0) + lax.broadcasted_iota(jnp.int32, ab.shape, 1) - u
    return jnp.where((row >= 0) & (row < ab.shape[1]), ab, 0)


def times(ab: Array, x: Array, l: int) -> Array:
    """A x for x `(n,)` or `(n, k)`."""
    rows = ab.shape[0]
    if x.ndim == 2:
        return jax.vmap(times, in_axes=(None, 1, None), out_axes=1)(ab, x, l)
    if rows > FEW:
        return _rows_times(transposed(ab, l), x, l)
    # Row r belongs r - u rows below its column; unused cells fall off the ends.
    u, y = rows - 1 - l, jnp.zeros_like(x)
    for r in range(rows):
        y = y + lax.pad(ab[r] * x, jnp.zeros((), x.dtype), [(r - u, u - r, 0)])
    return y


def times_transposed(ab: Array, x: Array, u: int) -> Array:
    """A^T x for x `(n,)` or `(n, k)`."""
    return _rows_times(cleared(ab, u), x, u)


def _rows_times(rows: Array, x: Array, before: int) -> Array:
    """`[i] = sum_c rows[c, i] x[i - before + c]`."""
    if x.ndim == 2:
        return jax.vmap(_rows_times, in_axes=(None, 1, None), out_axes=1)(rows, x, before)
    count, n = rows.shape
    padded = jnp.pad(x, (before, count - before))
    if count > FEW:
        return jnp.sum(rows * sheared(jnp.broadcast_to(padded, (count, n + count)), n), axis=0)
    y = jnp.zeros_like(x)
    for c in range(count):
        y = y + rows[c] * lax.slice(padded, (c,), (c + n,))
    return y
