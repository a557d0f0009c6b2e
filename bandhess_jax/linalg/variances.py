"""Variances under N(0, H^-1) from a factor of H, and nothing else of the inverse's band."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from bandhess_common.checks import check_rows

from ..band.structures import Bordered, Cyclic, dot
from ..framework.kernels import kernel
from .bordered import BorderedFactor, inverse_corner
from .inverse import inverse_band, inverse_columns
from .solve import Factor, factored_columns


def marginal_variances(factor: Factor | BorderedFactor) -> Array:
    """diag(H^-1): the variance of every variable of N(0, H^-1), shared ones last.

    Args: factor, what `bandhess_jax.factor` gives for a band, `Cyclic` or `Bordered`.
    Returns: `(n,)`, NaN where H is not positive definite. Cost and derivatives: as `inverse_band`, whose band is
      formed only where derivatives are; a border of p costs 2 n p^2 flops more.

    >>> marginal_variances(factor(jnp.array([[2.0, 2, 2], [-1, -1, 0]]))).round(decimals=4)
    Array([0.75, 1.  , 0.75], dtype=float32)
    """
    if not isinstance(factor, BorderedFactor):
        return _of_band(factor)
    covariances, sensitivity = inverse_corner(factor), factor.solved
    own = _of_band(factor.band) + jnp.sum(dot(sensitivity, covariances) * sensitivity, axis=1)
    return jnp.concatenate([own, jnp.diagonal(covariances)])


def _of_band(factor: Factor) -> Array:
    # What is split over devices forms the band, each its own part.
    return _variances(factored_columns(factor)) if isinstance(factor, Factor) else inverse_band(factor)[0]


@jax.custom_jvp
def _variances(columns: Array) -> Array:
    return kernel("variances", _top, columns)


def _top(columns: Array) -> Array:
    return inverse_columns(columns[:, 1:] / columns[:, :1], 1 / columns[:, 0])[:, 0]


@_variances.defjvp
def _variances_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return jax.jvp(_top, primals, tangents)


def quadratic_variances(factor: Factor | BorderedFactor, A: ArrayLike) -> Array:
    """diag(A H^-1 A^T) for rows of A that touch one stage each: the variances of A x under N(0, H^-1).

    Args:
      factor: what `bandhess_jax.factor` gives for a band, `Cyclic` or `Bordered`, of T stages of d scalars.
      A: `(T, r, d)`: r rows for every stage, on its d scalars.

    Returns: `(T, r)`, NaN where H is not positive definite. Cost: as `inverse_band`, and 2 T r d (d + 1) flops.

    >>> A = jnp.array([[[1.0]], [[2]], [[3]]])  # a row for each of the stages, of one scalar
    >>> quadratic_variances(factor(jnp.array([[2.0, 2, 2], [-1, -1, 0]])), A).round(decimals=4)[:, 0]
    Array([0.75, 4.  , 6.75], dtype=float32)
    """
    Z, A = inverse_band(factor), jnp.asarray(A)
    band = Z.band if isinstance(Z, Bordered) else Z
    ab = band.ab if isinstance(band, Cyclic) else band
    check_rows(A.shape, *ab.shape)
    T, _, d = A.shape
    i, j = np.indices((d, d))
    blocks = ab[np.abs(i - j), jnp.arange(T)[:, None, None] * d + np.minimum(i, j)[None]]
    return jnp.einsum("tra,tab,trb->tr", A, blocks, A, precision=lax.Precision.HIGHEST)
