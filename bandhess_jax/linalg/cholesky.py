"""Banded Cholesky `H = L L^T`, from the columns of `linalg/ldl`: L = M sqrt(D)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from ..band.mesh import parts_of
from ..band.storage import as_band, clear_unused
from ..framework.kernels import kernel
from .ldl import first_bad_pivot, ldl_columns
from .triangular import solve_triangular


def cholesky_ex(ab: ArrayLike) -> tuple[Array, Array]:
    """As `cholesky`, with the verdict: `(cb, info)`.

    info (int32, scalar) is 0, or the 1-based order of the first leading minor that is not positive definite (LAPACK
    `pbtrf`), read as the first pivot that is not in (0, inf), NaN included. cb is all NaN where info is not 0.
    """
    return _cholesky(as_band(ab))


@jax.custom_jvp
def _cholesky(ab: Array) -> tuple[Array, Array]:
    return kernel("cholesky", _from_columns, ab, results=2)


@_cholesky.defjvp
def _cholesky_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple:
    return jax.jvp(_from_columns, primals, tangents)


def _from_columns(ab: Array) -> tuple[Array, Array]:
    columns = ldl_columns(clear_unused(ab))
    info = first_bad_pivot(lax.stop_gradient(columns[:, 0]))
    cb = clear_unused((columns * lax.rsqrt(columns[:, :1])).T)
    return jnp.where(info == 0, cb, jnp.nan), info


def cholesky(ab: ArrayLike) -> Array:
    """The banded Cholesky factor: L with H = L L^T, in the same storage.

    Args:
      ab: `(w + 1, n)`, lower band of H. Values in unused cells are never read.

    Returns: cb `(w + 1, n)`, `cb[d, j] = L[j + d, j]`; all NaN where H is not positive definite, as
      `jnp.linalg.cholesky` (`cholesky_ex` tells where).

    Cost: n (w^2 + 3 w + 1) flops, one scan; differentiable in both modes at the same order (LAPACK `pbtrf`).
    """
    return cholesky_ex(ab)[0]


def cho_solve(cb: ArrayLike, b: ArrayLike) -> Array:
    """x with L L^T x = b, from the factor.

    Args: cb `(w + 1, n)` from `cholesky`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape. Cost: (4 w + 2) n flops per column, two scans (LAPACK `pbtrs`).
    """
    return solve_triangular(cb, solve_triangular(cb, b), transpose=True)


def logdet(cb: ArrayLike, *, sharding: NamedSharding | None = None) -> Array:
    """log det H from its factor cb `(w + 1, n)`: twice the sum of the logarithms of L's diagonal; a scalar.

    sharding: None, or as `factor` has it, for a cb from `cholesky`: each device sums its columns' logarithms. What
    `factor` gave with a sharding has its own `.logdet()`.
    """
    cb = as_band(cb, "cb", form=False)
    if sharding is not None:
        cb = parts_of(sharding, cb.shape[1], cb.shape[0] - 1).placed(cb, 1)
    return 2 * jnp.sum(jnp.log(cb[0]))
