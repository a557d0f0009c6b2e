"""Banded LU with partial pivoting, for general bands in diagonal ordered form, `ab[u + i - j, j] = A[i, j]`:

    A =  a b . . .        ab =  * b f j n        n = 5, l = 2 subdiagonals, u = 1 superdiagonal
         c e f . .              a e i m q
         d h i j .              c h l p *        * unused, never read
         . k l m n              d k o * *
         . . o p q

Column k needs only the l + 1 rows that reach it, l + u + 1 wide each. The largest entry of their first column is the
pivot, its row becomes U's, the row on top takes its place, and the others lose their multiple of it:

    rows k .. k + l, columns k .. k + l + u:   swap 0 and p,   m = rows[1:, 0] / rows[0, 0],   rows[1:] -= m rows[0]

The interchanges fill U up to l + u superdiagonals. Real or complex. Factor and substitutions are scans over the
columns and stay apart, for the reason given in `linalg/ldl`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..band.general import times, times_transposed
from ..band.storage import sheared, transposed
from ..framework.kernels import kernel
from .ldl import divide, unit_backward, unit_forward


class Elimination(NamedTuple):
    """U by rows `(n, l + u + 1)`, diagonal first; the multipliers `(n, l)`; how far below the pivots stood `(n,)`."""

    upper: Array
    multipliers: Array
    swaps: Array

    @property
    def singular(self) -> Array:
        """True where a pivot is exactly zero (LAPACK's `info > 0`)."""
        return (self.upper[:, 0] == 0).any()


def _size(x: Array) -> Array:
    """|x|, or |Re x| + |Im x|, as LAPACK compares complex pivots."""
    return jnp.abs(x.real) + jnp.abs(x.imag) if jnp.iscomplexobj(x) else jnp.abs(x)


def swapped(rows: Array, p: Array) -> Array:
    """`rows` with the first and the p-th exchanged, by selection: a gather would be slow in a batch."""
    index = lax.broadcasted_iota(jnp.int32, rows.shape, 0)
    pivot = jnp.where(index == p, rows, 0).sum(0)
    return jnp.where(index == 0, pivot, jnp.where(index == p, rows[0], rows))


def _joining(x: Array, l: int) -> tuple[Array, Array]:
    """The first l rows of x `(n, ...)`, and for each column the row that joins there, l further down."""
    padded = jnp.pad(x, [(0, l), *[(0, 0)] * (x.ndim - 1)])
    return padded[:l], padded[l:]


def eliminate(ab: Array, l: int, u: int) -> Elimination:
    """Factorise a band `(l + u + 1, n)`. Cost: 2 n l (l + u + 1) flops, one scan (LAPACK `gbtrf`)."""
    if l == 0:
        n = ab.shape[1]
        return Elimination(transposed(ab, l).T, jnp.zeros((n, 0), ab.dtype), jnp.zeros(n, jnp.int32))
    return Elimination(*kernel("lu", scan_columns, ab, results=3, l=l))


def scan_columns(ab: Array, l: int) -> list[Array]:
    rows = transposed(ab, l).T  # row i, from column i - l on
    width = rows.shape[1]

    def column(pending: Array, row: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        window = jnp.concatenate([pending, row[None]])
        p = jnp.argmax(_size(window[:, 0])).astype(jnp.int32)
        window = swapped(window, p)
        pivot, rest = window[0], window[1:]
        m = rest[:, 0] / pivot[0]
        return jnp.pad(rest[:, 1:] - jnp.outer(m, pivot[1:]), ((0, 0), (0, 1))), (pivot, m, p)

    first, joining = _joining(rows, l)
    first = sheared(jnp.pad(first[::-1, 1:], ((0, 0), (0, l))), width)[::-1]  # all from column 0 on
    return list(lax.scan(column, first, joining)[1])


def substitute(lu: Elimination, b: Array, transpose: bool) -> Array:
    """A^-1 b, or A^-T b, for b `(n,)` or `(n, k)`. Cost: 2 n (2 l + u) flops per column, two scans (LAPACK `gbtrs`)."""
    return kernel("lu_solve", _scan_solve, *lu, b, transpose=transpose)


def _scan_solve(upper: Array, multipliers: Array, swaps: Array, b: Array, transpose: bool) -> Array:
    lu = Elimination(upper, multipliers, swaps)
    if b.ndim == 2:
        return jax.vmap(partial(_scan_solve, *lu, transpose=transpose), in_axes=1, out_axes=1)(b)
    pivots, unit = lu.upper[:, 0], divide(lu.upper[:, 1:], lu.upper[:, 0])  # U = D V
    if transpose:
        return _eliminate_backward(lu, divide(unit_forward(unit, b), pivots))
    return unit_backward(unit, divide(_eliminate_forward(lu, b), pivots))


def _eliminate_forward(lu: Elimination, b: Array) -> Array:
    """What the elimination makes of b `(n,)`: swap and subtract, column by column."""
    l = lu.multipliers.shape[1]
    if l == 0:
        return b

    def column(pending: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        m, p, bj = step
        window = swapped(jnp.concatenate([pending, bj[None]]), p)
        return window[1:] - m * window[0], window[0]

    first, joining = _joining(b, l)
    return lax.scan(column, first, (lu.multipliers, lu.swaps, joining))[1]


def _eliminate_backward(lu: Elimination, b: Array) -> Array:
    """The transpose of `_eliminate_forward`: column by column in reverse, subtract and swap with one of l below."""
    n, l = lu.multipliers.shape
    if l == 0:
        return b

    def column(below: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        m, p, bj = step
        window = swapped(jnp.concatenate([(bj - jnp.sum(m * below))[None], below]), p)
        return window[:-1], window[-1]

    steps = (lu.multipliers, lu.swaps, b)
    first, after = lax.scan(column, jnp.zeros(l, b.dtype), steps, reverse=True)
    return jnp.concatenate([first, after])[:n]


def solve_eliminated(ab: Array, lu: Elimination, b: Array, transpose: bool = False) -> Array:
    """A^-1 b, or A^-T b, for the constants lu that `eliminate` made of ab; NaN where a pivot is exactly zero.

    Differentiable in both modes, at the cost of one more solve: derivatives go through the product A x alone.
    """
    l = lu.multipliers.shape[1]
    u = ab.shape[0] - 1 - l

    def apply(transpose: bool, b: Array) -> Array:
        return jnp.where(lu.singular, jnp.nan, substitute(lu, b, transpose))

    def product(x: Array) -> Array:
        return times_transposed(ab, x, u) if transpose else times(ab, x, l)

    return lax.custom_linear_solve(product, b, lambda _, b: apply(transpose, b), lambda _, b: apply(not transpose, b))


def solve_general(ab: Array, b: Array, l: int, u: int) -> tuple[Array, Array]:
    """`(x, singular)` with A x = b, for a band `(l + u + 1, n)` and b `(n,)` or `(n, k)` of its dtype.

    x is NaN where a pivot is exactly zero. Differentiable in both modes, at the cost of one more solve with the same
    factor.
    """
    lu = eliminate(lax.stop_gradient(ab), l, u)
    return solve_eliminated(ab, lu, b), lu.singular
