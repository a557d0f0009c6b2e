"""Where the eigenvalues of a band or structure lie (Gershgorin)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding

from .structures import Structure, diagonal, row_sums


def gershgorin_discs(ab: Array | Structure, sharding: NamedSharding | None = None) -> tuple[Array, Array]:
    """The ends `(n,)` of the intervals, one per row, whose union holds the spectrum."""
    centres = diagonal(ab)
    radii = row_sums(ab, sharding) - jnp.abs(centres)
    return centres - radii, centres + radii


def gershgorin(ab: Array | Structure) -> tuple[Array, Array]:
    """Bounds of the spectrum."""
    low, high = gershgorin_discs(ab)
    return jnp.min(low), jnp.max(high)
