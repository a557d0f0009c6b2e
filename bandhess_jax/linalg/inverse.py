"""The band of H^-1 from the factor, without the rest of it (Takahashi, Fagan and Chin 1973; Erisman and Tinney 1975).

With H = M D M^T and Z = H^-1, the identity Z M = M^-T D^-1 gives column j of Z from the w x w window W of Z below and
to the right of it, W = Z[j+1 .. j+w, j+1 .. j+w], because m_j has no entries beyond:

    z = Z[j+1 .. j+w, j] = -W m_j,   Z[j, j] = 1 / d_j - m_j . z

so that Z is found column by column from the last, and only its band is ever needed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from ..band.storage import as_band, clear_unused
from ..band.structures import Structure
from ..framework.kernels import kernel
from . import bordered, sharded
from .cholesky import cholesky
from .solve import Factor, factor


@jax.custom_jvp
def inverse_columns(unit: Array, reciprocals: Array) -> Array:
    """`(n, w + 1)`: row j holds Z[j .. j + w, j], for unit `(n, w)` (row j: m_j) and 1 / d_j `(n,)`.

    Differentiable: the tangent is one linear scan, which JAX transposes.
    """
    return kernel("inverse", _scan_inverse, unit, reciprocals) if unit.shape[1] else reciprocals[:, None]


def _scan_inverse(unit: Array, reciprocals: Array) -> Array:
    w = unit.shape[1]

    def column(W: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        m, r = step
        z = -jnp.sum(W * m[None], axis=1)
        return _grow(W, z, r - jnp.sum(m * z))

    return lax.scan(column, jnp.zeros((w, w), unit.dtype), (unit, reciprocals), reverse=True)[1]


def _grow(W: Array, z: Array, corner: Array) -> tuple[Array, Array]:
    """The window of the column before, and this column: W with the row and column (corner, z) put before it."""
    grown = jnp.block([[corner[None, None], z[None, :]], [z[:, None], W]])
    return grown[:-1, :-1], grown[0]


def _window_products(columns: Array, v: Array) -> Array:
    """Row j: the window W of column j times v_j, for v `(n, w)`."""
    n, w = v.shape
    columns = jnp.pad(columns, ((0, w), (0, 0)))
    j, i = jnp.arange(n)[:, None] + 1, jnp.arange(w)[None]

    @jax.checkpoint  # keep the columns, not n windows, for the reverse pass
    def add(y: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        k, vk = step
        return y + columns[j + jnp.minimum(i, k), jnp.abs(i - k)] * vk[:, None], None

    return lax.scan(add, jnp.zeros_like(v), (i[0], v.T))[0]


@inverse_columns.defjvp
def _inverse_columns_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (unit, _), (dunit, dr) = primals, tangents
    columns, w = inverse_columns(*primals), unit.shape[1]
    if w == 0:
        return columns, dr[:, None]

    # Two sources, formed for all columns at once: what m_j's tangent does to z, and to Z[j, j].
    dz_source = _window_products(columns, dunit)
    corner_source = dr - jnp.sum(dunit * columns[:, 1:], axis=1)

    def column(dW: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        m, source, corner = step
        dz = -jnp.sum(dW * m[None], axis=1) - source
        return _grow(dW, dz, corner - jnp.sum(m * dz))

    steps = (unit, dz_source, corner_source)
    return columns, lax.scan(column, jnp.zeros((w, w), unit.dtype), steps, reverse=True)[1]


def inverse_band(
    cb: ArrayLike | Factor | bordered.BorderedFactor, *, sharding: NamedSharding | None = None
) -> Array | Structure:
    """The band of H^-1, from a factor of H: row 0 holds the marginal variances of N(0, H^-1).

    Args:
      cb: `(w + 1, n)` from `cholesky` (values in unused cells are never read); or what `factor` gives for a band,
        `Cyclic` or `Bordered`.
      sharding: None, or as `factor` has it, for a cb from `cholesky`: H is formed and factorised again, in parts. What
        `factor` gave with a sharding is inverted where it is.

    Returns: `(w + 1, n)`: `[d, j]` is (H^-1)[j + d, j], 0 in unused cells. H^-1 itself is dense; what lies outside the
      band is not formed. NaN where cb is. For a structure, the same one: of `Bordered` the band of the inverse, its
      border (the covariances of variables and parameters) and its corner (those of the parameters).

    Cost: n (2 w^2 + 5 w) flops, one scan (Takahashi's selected inverse). Differentiable in both modes, at the same
      order, in memory for a few bands. A structure costs one `cholesky` of its band more, and (2 w + 4) n p flops.
    """
    if isinstance(cb, bordered.BorderedFactor):
        return bordered.inverse(cb, lambda ab: inverse_band(cholesky(ab)))
    if isinstance(cb, sharded.ShardedFactor):
        return sharded.inverse(cb, inverse_band)
    if isinstance(cb, Factor):
        cb = cholesky(cb.ab)
    cb = clear_unused(as_band(cb, "cb", form=False))
    if sharding is not None:
        return inverse_band(factor(sharded.squared(cb), sharding=sharding))
    return clear_unused(inverse_columns((cb[1:] / cb[:1]).T, 1 / cb[0] ** 2).T)
