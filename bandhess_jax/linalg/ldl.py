"""The serial core of the solvers: H = M D M^T with M unit lower banded, as three scans over the columns.

Column j of the factor needs only the pending updates of the columns before it, a symmetric w x w window S:

    c = a_j - S[:, 0],   pivot d_j = c[0],   m_j = c[1:] / d_j,   S <- shift(S) + c[1:] m_j^T

There is no pivoting: `ldl` gives M and D of an indefinite H as long as its leading minors do not vanish, and `inertia`
says when small ones have spoilt it.

The form decides the speed: XLA compiles each scan's body into one CPU kernel as long as it is small, so factor,
forward and backward substitution stay apart (one fused scan is 10 to 20 times slower), nothing is updated in place,
and no square root or division but 1 / d_j stands in the chain from column to column. Two columns per turn save loop
overhead while the body still compiles to one kernel: the limits on w below were measured.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..band.storage import as_band, as_rhs, clear_unused
from ..framework.kernels import kernel


def _shift(window: Array) -> Array:
    return jnp.pad(window[1:, 1:], ((0, 1), (0, 1)))


@jax.custom_jvp
def ldl_columns(ab: Array) -> Array:
    """`(n, w + 1)`: row j holds d_j and then d_j m_j, for a band `(w + 1, n)` with unused cells cleared.

    No pivoting and no test: a pivot that is not in (0, inf) shows in column 0, and up to the first such pivot the
    pivots are those of Cholesky. An entry 0 below a pivot stays 0 in M, so that a row and column of zeros harms no
    other. Differentiable: the tangent is one linear scan, which JAX transposes.
    """
    return ab.T if ab.shape[0] == 1 else kernel("columns", _scan_columns, ab)


def _scan_columns(ab: Array) -> Array:
    w = ab.shape[0] - 1

    def column(S: Array, a: Array) -> tuple[Array, Array]:
        c = a - jnp.pad(S[:, 0], (0, 1))
        return _shift(S) + jnp.outer(c[1:], jnp.where(c[1:] == 0, 0, c[1:] * (1 / c[0]))), c

    return lax.scan(column, jnp.zeros((w, w), ab.dtype), ab.T, unroll=2 if w <= 2 else 1)[1]


@ldl_columns.defjvp
def _ldl_columns_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    columns, dab = ldl_columns(*primals), tangents[0]
    w = columns.shape[1] - 1
    if w == 0:
        return columns, dab.T

    def column(dS: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        da, c = step
        m = c[1:] / c[0]
        dc = da - jnp.pad(dS[:, 0], (0, 1))
        dm = (dc[1:] - m * dc[0]) / c[0]
        return _shift(dS) + jnp.outer(dc[1:], m) + jnp.outer(c[1:], dm), dc

    return columns, lax.scan(column, jnp.zeros((w, w), dab.dtype), (dab.T, columns))[1]


def unit_forward(unit: Array, b: Array) -> Array:
    """M^-1 b, for unit `(n, w)` (row j: m_j) and b `(n,)` or `(n, k)`; p holds what is pending for the coming rows."""
    w = unit.shape[1]
    if b.ndim == 2:
        return jax.vmap(unit_forward, in_axes=(None, 1), out_axes=1)(unit, b)
    if w == 0:
        return b

    def column(p: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        m, bj = step
        x = bj - p[0]
        return jnp.pad(p[1:], (0, 1)) + m * x, x

    return lax.scan(column, jnp.zeros(w, b.dtype), (unit, b), unroll=2 if w <= 4 else 1)[1]


def unit_backward(unit: Array, b: Array) -> Array:
    """M^-T b, for unit `(n, w)` and b `(n,)` or `(n, k)`; xs holds the w unknowns below."""
    w = unit.shape[1]
    if b.ndim == 2:
        return jax.vmap(unit_backward, in_axes=(None, 1), out_axes=1)(unit, b)
    if w == 0:
        return b

    def column(xs: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        m, bj = step
        x = bj - jnp.sum(m * xs)
        return jnp.concatenate([x[None], xs[:-1]]), x

    return lax.scan(column, jnp.zeros(w, b.dtype), (unit, b), reverse=True, unroll=2 if w <= 4 else 1)[1]


def columns_solve(columns: Array, b: Array, raw: bool) -> Array:
    """(M D M^T)^-1 b, for b `(n,)` or `(n, k)`. Row j of columns `(n, w + 1)` holds d_j and then m_j, raw: d_j m_j."""
    return kernel("substitute", _scan_solve, columns, b, raw=raw)


def _scan_solve(columns: Array, b: Array, raw: bool) -> Array:
    pivots, unit = columns[:, 0], columns[:, 1:]
    unit = unit / pivots[:, None] if raw else unit
    return unit_backward(unit, divide(unit_forward(unit, b), pivots))


def first_bad_pivot(pivots: Array) -> Array:
    """int32: 0, or the 1-based index of the first pivot that is not in (0, inf)."""
    if pivots.shape[0] == 0:
        return jnp.int32(0)
    bad = ~((pivots > 0) & (pivots < jnp.inf))
    return jnp.where(bad.any(), jnp.argmax(bad) + 1, 0).astype(jnp.int32)


def divide(a: Array, pivots: Array) -> Array:
    """Row j of a, `(n,)` or `(n, k)`, divided by the j-th pivot."""
    return a / pivots.reshape((-1,) + (1,) * (a.ndim - 1))


def lower_matvec(cb: Array, x: Array, transpose: bool) -> Array:
    """L x or L^T x for x `(n,)` or `(n, k)`, one diagonal after the other."""
    n = x.shape[0]
    cells = cb.reshape(cb.shape + (1,) * (x.ndim - 1))
    y = cells[0] * x
    for d in range(1, min(cb.shape[0], n)):
        part = cells[d, : n - d] * (x[d:] if transpose else x[: n - d])
        y = y + jnp.pad(part, [(0, d) if transpose else (d, 0), *[(0, 0)] * (x.ndim - 1)])
    return y


def ldl(ab: ArrayLike) -> Array:
    """H = M D M^T with D diagonal and M unit lower banded, without pivoting, for positive definite and indefinite H.

    Args:
      ab: `(w + 1, n)`, lower band of H. Values in unused cells are never read.

    Returns: ldb `(w + 1, n)`: row 0 is D, `ldb[d, j] = M[j + d, j]` below it. It exists where no leading minor of H
      but the last vanishes (infinite or NaN from such a column on), and is as accurate as pivots are large: `inertia`
      judges that. The factorisation of a positive definite H is always stable.

    Cost: n (w^2 + 3 w) flops, one scan; differentiable in both modes at the same order (LAPACK has it for w = 1,
      `pttrf`; Golub and Van Loan 2013, section 4.3.6).

    >>> ldl(jnp.array([[4.0, 5, 5], [2, 2, 0]]))
    Array([[4. , 4. , 4. ],
           [0.5, 0.5, 0. ]], dtype=float32)
    """
    columns = ldl_columns(clear_unused(as_band(ab)))
    pivots = columns[:, 0]
    unit = columns[:, 1:] / jnp.where((columns == 0).all(1), 1, pivots)[:, None]
    return clear_unused(jnp.concatenate([pivots[:, None], unit], axis=1).T)


def ldl_solve(ldb: ArrayLike, b: ArrayLike) -> Array:
    """x with M D M^T x = b, from the factorisation of `ldl`.

    Args: ldb `(w + 1, n)` from `ldl`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape; infinite or NaN where a pivot is 0, as division is. Cost: (4 w + 1) n flops per column,
      two scans. Differentiable in both arguments at the cost of further solves.

    >>> ldb = ldl(jnp.array([[1.0, 1, 1], [2, 2, 0]]))  # indefinite
    >>> ldl_solve(ldb, jnp.array([3.0, 5, 3])).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """
    ldb = clear_unused(as_band(ldb, "ldb", form=False))
    b = as_rhs(b, ldb)
    if b.size == 0:
        return b
    unit = ldb.at[0].set(1)

    def matvec(x: Array) -> Array:
        y = lower_matvec(unit, x, True)
        return lower_matvec(unit, y * ldb[0].reshape((-1,) + (1,) * (y.ndim - 1)), False)

    def apply(_: object, b: Array) -> Array:
        return columns_solve(ldb.T, b, raw=False)

    return lax.custom_linear_solve(matvec, b, apply, symmetric=True)


def _growth(pivots: Array, unit: Array) -> tuple[Array, Array]:
    """The diagonal of |M| |D| |M|^T, and the largest |entry| in each row of M D M^T, for M's band with its ones."""
    rows, n = unit.shape
    diagonal, H = jnp.zeros_like(pivots), jnp.zeros_like(unit)
    for k in range(min(rows, n)):  # what the columns c contribute to row c + k, and to column c + k below it
        scaled = (pivots * unit[k])[: n - k]
        diagonal = diagonal + jnp.pad(jnp.abs(scaled * unit[k, : n - k]), (k, 0))
        H = H + jnp.pad(scaled[None] * unit[k:, : n - k], ((0, k), (k, 0)))
    H = jnp.abs(H)
    largest = jnp.max(H, axis=0)
    for d in range(1, min(rows, n)):
        largest = jnp.maximum(largest, jnp.pad(H[d, : n - d], (d, 0)))
    return diagonal, largest


def inertia(ldb: ArrayLike) -> tuple[Array, Array, Array]:
    """How many eigenvalues of H are positive, negative and zero: the signs of D (Sylvester's law of inertia).

    Args: ldb `(w + 1, n)` from `ldl`.

    Returns: `(positive, negative, zero)`, int32 scalars; all -1 where the count cannot be trusted. Computed factors
      are exact for some H + E with |E| <= (w + 2) eps |M| |D| |M|^T (Higham 2002, theorem 9.3), and the count is that
      of H + E. It is trusted while the growth max_i (|M| |D| |M|^T)_ii / max_j |H_ij| (about 1 for a positive definite
      H) is at most 1 / sqrt(eps), 7e7 in float64 and 3e3 in float32: then E is below sqrt(eps), relative to the
      largest entries of its row and column. Eigenvalues smaller than E, so scaled, may count on either side of 0; a
      pivot counts as 0 where it is 0 to rounding and nothing stands below it.

    Cost: some 2 n w^2 flops. Not differentiable: integers.

    >>> [int(count) for count in inertia(ldl(jnp.array([[1.0, 1, 1], [2, 2, 0]])))]
    [2, 1, 0]
    """
    ldb = lax.stop_gradient(clear_unused(as_band(ldb, "ldb", form=False)))
    pivots, unit = ldb[0], ldb.at[0].set(1)
    formed, largest = _growth(pivots, unit)
    eps = float(jnp.finfo(ldb.dtype).eps)
    trusted = jnp.all((formed <= eps**-0.5 * largest) & (formed < jnp.inf))

    def count(found: Array) -> Array:
        return jnp.where(trusted, jnp.sum(found, dtype=jnp.int32), -1)

    noise = eps * (ldb.shape[0] + 1) * formed
    zero = (jnp.abs(pivots) <= noise) & (ldb[1:] == 0).all(0)
    return count((pivots > 0) & ~zero), count((pivots < 0) & ~zero), count(zero)
