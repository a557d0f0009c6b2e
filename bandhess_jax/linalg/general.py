"""A general band's factor and what follows from it: `lu_factor`, `lu_solve`, `slogdet` (scipy #20948 asks for them).

The determinant's derivative is the inverse, of which the band alone is needed: d log|det A| = sum Z[j, i] dA[i, j],
Z = A^-1. It comes from the elimination, backwards (after Erisman and Tinney 1975, with interchanges). Let S be what
elimination has left before column k, Z its inverse. In the letters of `linalg/lu`, with P the interchange,

    P S = [ 1  0 ] [ d  r  ]        Z = [ (1 + r Z' m) / d   -r Z' / d ] P
          [ m  I ] [ 0  S' ]            [     -Z' m              Z'    ]

Multipliers m have l entries and r has l + u: a window of l + u rows and l columns of Z' gives that of Z, and its last
column, which belongs to the row of A that joined last, is that row's part of the band.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from bandhess_common.checks import as_index, check_general_shape
from bandhess_common.dtypes import native

from ..band.storage import as_rhs, transposed
from .lu import Elimination, eliminate, scan_columns, solve_eliminated, swapped


class LU(NamedTuple):
    """A factorised general band, from `lu_factor`: opaque, a pytree that passes through jit, vmap and scan.

    >>> lu = lu_factor(jnp.array([[0.0, 1, 1], [4, 4, 4], [1, 1, 0]]), 1, 1)
    >>> bool(lu.ok)
    True
    """

    ab: Array
    parts: tuple[Array, ...]

    @property
    def ok(self) -> Array:
        """True where every pivot is finite and not zero; elsewhere `lu_solve` gives NaN."""
        pivots = self.parts[0][:, 0]
        return jnp.all((pivots != 0) & jnp.isfinite(pivots))


def as_general(ab: ArrayLike, l: int, u: int) -> Array:
    """ab as a floating `(l + u + 1, n)` array, or an error that says what came."""
    ab = jnp.asarray(native(ab, "ab"))
    check_general_shape(ab.shape, as_index(l, "l"), as_index(u, "u"), "jax.vmap")
    if not jnp.issubdtype(ab.dtype, jnp.floating):
        raise TypeError(
            f"ab must have a real floating dtype, got {ab.dtype}; convert it with .astype(float), or solve a complex "
            "band with bandhess_jax.scipy.solve_banded"
        )
    return ab


def lu_factor(ab: ArrayLike, l: int, u: int) -> LU:
    """Factorise a general band by LU with partial pivoting, to solve with it many times.

    Args:
      ab: `(l + u + 1, n)`, diagonal ordered form as in `scipy.linalg.solve_banded`: `ab[u + i - j, j] = A[i, j]`.
      l: subdiagonals, a Python int.
      u: superdiagonals, likewise.

    Returns: `LU`, for `lu_solve` and `slogdet`; `.ok` is False where a pivot is zero or not finite. Nothing is raised
      for a singular A.

    Cost: 2 n l (l + u + 1) flops (LAPACK `gbtrf`).

    >>> lu = lu_factor(jnp.array([[0.0, 1, 1], [4, 4, 4], [1, 1, 0]]), 1, 1)
    >>> lu_solve(lu, jnp.array([5.0, 6, 5]))
    Array([1., 1., 1.], dtype=float32)
    """
    ab = as_general(ab, l, u)
    return LU(ab, tuple(eliminate(lax.stop_gradient(ab), l, u)))


def lu_solve(lu: LU, b: ArrayLike, *, transpose: bool = False) -> Array:
    """x with A x = b, or A^T x = b, for b `(n,)` or `(n, k)`.

    x is NaN where A is singular (a pivot is exactly zero) or not finite. Differentiable in both modes with respect to
    ab and b, to any order, at the cost of one more solve with the same factor.

    Cost: 2 n (2 l + u) flops per column (LAPACK `gbtrs`).

    >>> lu = lu_factor(jnp.array([[0.0, 1, 1], [4, 4, 4], [2, 2, 0]]), 1, 1)
    >>> lu_solve(lu, jnp.array([5.0, 7, 6])).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    >>> lu_solve(lu, jnp.array([6.0, 7, 5]), transpose=True).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """
    b = as_rhs(b, lu.ab)
    if b.size == 0:
        return b
    return solve_eliminated(lu.ab, lax.stop_gradient(Elimination(*lu.parts)), b, bool(transpose))


def slogdet(lu: LU) -> tuple[Array, Array]:
    """`(sign, log|det A|)`, scalars, as `jnp.linalg.slogdet` has them: `(0, -inf)` where A is singular.

    Cost: n flops; its derivative, in both modes and to any order, one more elimination and a scan of 4 n l (l + u)
    flops backwards. The derivative is NaN where A is singular.

    >>> lu = lu_factor(jnp.array([[0.0, 1, 1], [4, 4, 4], [1, 1, 0]]), 1, 1)
    >>> sign, log_size = slogdet(lu)  # the determinant is 56
    >>> float(sign), round(float(log_size), 4)
    (1.0, 4.0254)
    """
    upper, _, swaps = lu.parts
    singular = jnp.any(upper[:, 0] == 0)
    odd = jnp.sum(swaps > 0, dtype=jnp.int32) % 2
    sign = jnp.prod(jnp.sign(upper[:, 0])) * (1 - 2 * odd).astype(upper.dtype)
    return lax.stop_gradient(jnp.where(singular, 0, sign)), _log_size(lu.ab, lu.parts)


@jax.custom_jvp
def _log_size(ab: Array, parts: tuple[Array, ...]) -> Array:
    pivots = jnp.abs(parts[0][:, 0])
    return jnp.where(jnp.any(pivots == 0), -jnp.inf, jnp.sum(jnp.log(pivots)))


@_log_size.defjvp
def _log_size_rule(primals: tuple, tangents: tuple) -> tuple:
    (ab, parts), (dab, _) = primals, tangents
    l = parts[1].shape[1]
    return _log_size(ab, parts), jnp.sum(_inverse_transposed(ab, l) * dab)


def _inverse_transposed(ab: Array, l: int) -> Array:
    """`[u + i - j, j]` is (A^-1)[j, i]: where A has a cell, the transposed inverse's entry. By scans that can be
    differentiated as they stand."""
    rows, n = ab.shape
    if n == 0:
        return ab
    if l == 0:
        steps: tuple = (transposed(ab, 0).T, jnp.zeros((n, 0), ab.dtype), jnp.zeros(n, jnp.int32))
    else:
        steps = tuple(scan_columns(ab, l))

    def column(Z: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        upper, m, p = step
        d, r = upper[0], upper[1:]
        below = -Z @ m
        first = jnp.concatenate([((1 - r @ below) / d)[None], below])
        window = jnp.concatenate([first[None], jnp.concatenate([(-(r @ Z) / d)[None], Z]).T])  # its columns in rows
        window = swapped(window, p)
        return window[:l, : rows - 1].T, window[l]

    Z, last = lax.scan(column, jnp.zeros((rows - 1, l), ab.dtype), steps, reverse=True)
    ahead = [jnp.pad(Z[:, i], (l - i, 1))[:rows] for i in range(min(l, n))]  # rows of A that were there from the start
    columns = jnp.concatenate([jnp.stack(ahead), last])[:n] if ahead else last
    return transposed(columns.T, rows - 1 - l)
