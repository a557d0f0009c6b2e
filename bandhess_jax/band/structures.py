"""What optimisers and extraction ask of a band: its product (`storage.matvec`), and what stands here.

They never look into a row of its array, so that another storage needs these few functions only.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from .storage import matvec


def diagonal(ab: Array) -> Array:
    """H's diagonal `(n,)`."""
    return ab[0]


def shifted(ab: Array, shift: Array | float) -> Array:
    """The band of H + shift I, or of H + diag(shift) for a shift `(n,)`."""
    return ab.at[0].add(shift)


def scaled(ab: Array, scale: Array) -> Array:
    """The band of S H S for a diagonal S `(n,)`."""
    rows, n = ab.shape
    return ab * scale[None] * jnp.stack([jnp.pad(scale[d:], (0, min(d, n))) for d in range(rows)])


def row_sums(ab: Array) -> Array:
    """sum_j |H[i, j]| `(n,)`."""
    return matvec(jnp.abs(ab), jnp.ones_like(ab[0]))
