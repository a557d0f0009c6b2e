"""Banded Cholesky `H = L L^T` and the two substitutions, each its own scan over the columns.

The scans are written so that XLA compiles each body into one kernel on a CPU: small carries, results as scan outputs,
no buffer updated in place, and factor, forward and backward substitution kept apart (one fused scan is 10 to 20 times
slower). Column j of the factor needs only the pending updates of the columns before it, a symmetric w x w window S:

    l = (a_j - S[:, 0]) / sqrt(pivot),   S <- shift(S) + l[1:] l[1:]^T

Derivatives never go through the factor loop: the tangent of the factor is its own linear scan, which JAX transposes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ._storage import as_band, as_rhs, clear_unused


def _shift(window: Array) -> Array:
    return jnp.pad(window[1:, 1:], ((0, 1), (0, 1)))


@jax.custom_jvp
def _factor(ab: Array) -> Array:
    """L of a cleared band; NaN from the first pivot that is not in (0, inf) on."""
    w = ab.shape[0] - 1
    if w == 0:
        return jnp.where((ab > 0) & (ab < jnp.inf), jnp.sqrt(ab), jnp.nan)

    def column(S: Array, a: Array) -> tuple[Array, Array]:
        col = a - jnp.pad(S[:, 0], (0, 1))
        # 0 * inf, inf * 0 and rsqrt of a negative pivot are all NaN, so a bad pivot marks itself and what follows.
        l = col * lax.rsqrt(col[0])
        return _shift(S) + jnp.outer(l[1:], l[1:]), l

    return lax.scan(column, jnp.zeros((w, w), ab.dtype), ab.T)[1].T


@_factor.defjvp
def _factor_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    cb = _factor(*primals)
    dab = clear_unused(tangents[0])
    w = cb.shape[0] - 1

    def column(dS: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        da, l = step
        dcol = da - jnp.pad(dS[:, 0], (0, 1))
        dl = dcol / l[0] - l * (dcol[0] / (2 * l[0] ** 2))
        return _shift(dS) + jnp.outer(dl[1:], l[1:]) + jnp.outer(l[1:], dl[1:]), dl

    if w == 0:
        return cb, dab / (2 * cb)
    return cb, lax.scan(column, jnp.zeros((w, w), cb.dtype), (dab.T, cb.T))[1].T


def cholesky_ex(ab: ArrayLike) -> tuple[Array, Array]:
    """As `cholesky`, with the verdict: `(cb, info)`.

    info (int32, scalar) is 0, or the 1-based order of the first leading minor that is not positive definite (LAPACK
    `pbtrf`), read as the first pivot that is not in (0, inf), NaN included. cb is all NaN where info is not 0.
    """
    ab = clear_unused(as_band(ab))
    if ab.shape[1] == 0:
        return ab, jnp.int32(0)
    cb = _factor(ab)
    bad = jnp.isnan(lax.stop_gradient(cb[0]))
    info = jnp.where(bad.any(), jnp.argmax(bad) + 1, 0).astype(jnp.int32)
    return jnp.where(info == 0, clear_unused(cb), jnp.nan), info


def cholesky(ab: ArrayLike) -> Array:
    """The banded Cholesky factor: L with H = L L^T, in the same storage.

    Args:
      ab: `(w + 1, n)`, lower band of H. Values in unused cells are never read.

    Returns: cb `(w + 1, n)`, `cb[d, j] = L[j + d, j]`; all NaN where H is not positive definite, as
      `jnp.linalg.cholesky` (`cholesky_ex` tells where).

    Cost: n (w^2 + 3 w + 1) flops, one scan; differentiable in both modes at the same order. (LAPACK `pbtf2`.)
    """
    return cholesky_ex(ab)[0]


def _forward(cb: Array, b: Array) -> Array:
    """L^-1 b for b `(n, k)`; p holds what earlier columns have added to the coming w rows."""
    w = cb.shape[0] - 1
    if w == 0:
        return b / cb.T

    def column(p: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        l, bj = step
        x = (bj - p[0]) / l[0]
        return jnp.pad(p[1:], ((0, 1), (0, 0))) + l[1:, None] * x, x

    return lax.scan(column, jnp.zeros((w, b.shape[1]), b.dtype), (cb.T, b))[1]


def _backward(cb: Array, b: Array) -> Array:
    """L^-T b for b `(n, k)`; xs holds the w unknowns below."""
    w = cb.shape[0] - 1
    if w == 0:
        return b / cb.T

    def column(xs: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        l, bj = step
        x = (bj - jnp.sum(l[1:, None] * xs, axis=0)) / l[0]
        return jnp.pad(xs[:-1], ((1, 0), (0, 0))) + jnp.pad(x[None], ((0, w - 1), (0, 0))), x

    return lax.scan(column, jnp.zeros((w, b.shape[1]), b.dtype), (cb.T, b), reverse=True)[1]


def _lower_matvec(cb: Array, x: Array, transpose: bool) -> Array:
    """L x or L^T x for x `(n, k)`, one loop over the diagonals."""
    n = x.shape[0]
    y = cb[0, :, None] * x
    for d in range(1, min(cb.shape[0], n)):
        cells = cb[d, : n - d, None]
        y = y + (
            jnp.pad(cells * x[d:], ((0, d), (0, 0))) if transpose else jnp.pad(cells * x[: n - d], ((d, 0), (0, 0)))
        )
    return y


def substitute(cb: Array, b: Array) -> Array:
    """L^-T L^-1 b for b `(n,)` or `(n, k)`; no derivative rule of its own."""
    columns = b.reshape(b.shape[0], -1)
    return _backward(cb, _forward(cb, columns)).reshape(b.shape)


def solve_triangular(cb: ArrayLike, b: ArrayLike, *, transpose: bool = False) -> Array:
    """x with L x = b, or L^T x = b when transpose: whitening, and drawing from N(0, H^-1).

    Args:
      cb: `(w + 1, n)`, a lower banded triangular factor such as `cholesky` gives.
      b: `(n,)` or `(n, k)`.
      transpose: solve with L^T.

    Returns: x, of b's shape. Cost: (2 w + 1) n flops per column, one scan (LAPACK `tbtrs`). Differentiable in both
      arguments at the cost of further substitutions.
    """
    cb = clear_unused(as_band(cb, "cb"))
    b = as_rhs(b, cb)
    if b.size == 0:
        return b
    solvers = (_forward, _backward)
    x = lax.custom_linear_solve(
        lambda x: _lower_matvec(cb, x, transpose),
        b.reshape(b.shape[0], -1),
        lambda _, b: solvers[transpose](cb, b),
        lambda _, b: solvers[not transpose](cb, b),
    )
    return x.reshape(b.shape)


def cho_solve(cb: ArrayLike, b: ArrayLike) -> Array:
    """x with L L^T x = b, from the factor.

    Args: cb `(w + 1, n)` from `cholesky`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape. Cost: (4 w + 2) n flops per column, two scans (LAPACK `pbtrs`).
    """
    return solve_triangular(cb, solve_triangular(cb, b), transpose=True)


def logdet(cb: ArrayLike) -> Array:
    """log det H from its factor cb `(w + 1, n)`: twice the sum of the logarithms of L's diagonal; a scalar."""
    return 2 * jnp.sum(jnp.log(as_band(cb, "cb")[0]))
