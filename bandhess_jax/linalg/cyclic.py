"""General periodic bands, solved as plain ones by folding the ring.

    A =  a b . . c        ab =  m b f i l        n = 5, l = 1, u = 1: ab[r, j] = A[(j + r - u) mod n, j]; the cells that
         d e f . .              a e h k o        a plain band leaves unused hold what wraps around
         . g h i .              d g j n c
         . . j k l
         m . . n o

In the order 0, n - 1, 1, n - 2, ... neighbours around the ring are at most two places apart, those on the other side
included: the folded matrix is a plain band with 2 max(l, u) diagonals on either side, and LU with partial pivoting is
as safe for it as for any. (Opening the ring instead, with the last unknowns as a border, fails where the open band is
singular and A is not.)
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from .lu import solve_general


def solve_cyclic(ab: Array, b: Array, l: int, u: int) -> tuple[Array, Array]:
    """`(x, singular)` with A x = b, for a closed band `(l + u + 1, n)` and b `(n,)` or `(n, k)` of its dtype."""
    n = ab.shape[1]
    w = min(2 * max(l, u), n - 1)
    place, row = (lax.broadcasted_iota(jnp.int32, (2 * w + 1, n), axis) for axis in (1, 0))
    other = place + row - w  # the place of A's row
    i, j = _unfolded(other, n), _unfolded(place, n)
    cell = (i - j + u) % n
    inside = (other >= 0) & (other < n) & (cell <= l + u)
    folded = jnp.where(inside, ab[jnp.where(inside, cell, 0), j], 0)
    x, singular = solve_general(folded, b[_unfolded(jnp.arange(n), n)], w, w)
    index = jnp.arange(n)
    return x[jnp.where(2 * index < n, 2 * index, 2 * (n - 1 - index) + 1)], singular


def _unfolded(place: Array, n: int) -> Array:
    """Which unknown has that place: 0, n - 1, 1, n - 2, ..."""
    return jnp.where(place % 2 == 0, place // 2, n - 1 - place // 2)
