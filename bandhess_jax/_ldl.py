"""The serial core of the solvers: H = M D M^T with M unit lower banded, as three scans over the columns.

Column j of the factor needs only the pending updates of the columns before it, a symmetric w x w window S:

    c = a_j - S[:, 0],   pivot d_j = c[0],   m_j = c[1:] / d_j,   S <- shift(S) + c[1:] m_j^T

The form decides the speed: XLA compiles each scan's body into one CPU kernel as long as it is small, so factor,
forward and backward substitution stay apart (one fused scan is 10 to 20 times slower), nothing is updated in place,
and no square root or division but 1 / d_j stands in the chain from column to column. Two columns per turn save loop
overhead while the body still compiles to one kernel: the limits on w below were measured.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


def _shift(window: Array) -> Array:
    return jnp.pad(window[1:, 1:], ((0, 1), (0, 1)))


@jax.custom_jvp
def ldl_columns(ab: Array) -> Array:
    """`(n, w + 1)`: row j holds d_j and then d_j m_j, for a band `(w + 1, n)` with unused cells cleared.

    No pivoting and no test: a pivot that is not in (0, inf) shows in column 0, and up to the first such pivot the
    pivots are those of Cholesky. Differentiable: the tangent is one linear scan, which JAX transposes.
    """
    w = ab.shape[0] - 1
    if w == 0:
        return ab.T

    def column(S: Array, a: Array) -> tuple[Array, Array]:
        c = a - jnp.pad(S[:, 0], (0, 1))
        return _shift(S) + jnp.outer(c[1:], c[1:] * (1 / c[0])), c

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


def first_bad_pivot(pivots: Array) -> Array:
    """int32: 0, or the 1-based index of the first pivot that is not in (0, inf)."""
    if pivots.shape[0] == 0:
        return jnp.int32(0)
    bad = ~((pivots > 0) & (pivots < jnp.inf))
    return jnp.where(bad.any(), jnp.argmax(bad) + 1, 0).astype(jnp.int32)


def divide(a: Array, pivots: Array) -> Array:
    """Row j of a, `(n,)` or `(n, k)`, divided by the j-th pivot."""
    return a / pivots.reshape((-1,) + (1,) * (a.ndim - 1))
