"""Direct probes around a ring: the last stage meets the first, and colours must not meet across that seam.

    T = 11 stages, k = 1: m = floor(T / (2k + 1)) = 3 stages a colour, in as many arcs of the ring

        stage     0 1 2 3 | 4 5 6 7 | 8 9 10          arcs of ceil(T / m) = 4 stages, T mod m of them, then of 3
        colour    0 1 2 3   0 1 2 3   0 1 2           the place in the arc

Stages of one colour are a whole arc apart, 2k + 1 at least. Colour c's columns in the longer arcs, and those in the
shorter ones, lie at equal distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.ring import Arcs

from ...band.storage import clear_beyond_stages
from .direct import read_off


@dataclass(frozen=True)
class Ring:
    """Every entry of a closed band as it stands, in the storage of `Cyclic`. `ceil(T / floor(T / (2k + 1))) d` products
    for T > 2k: 2k + 1 of them a scalar where that divides T, and at most 4k + 1."""

    def count(self, T: int, d: int, k: int) -> int:
        return Arcs.of(T, k).colours * d

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        # Where XLA sees what a probe consists of, it takes rolls of one apart, and devices gather it.
        return lax.optimization_barrier((_colour(jnp.arange(T * d), T, d, k) == c).astype(dtype))

    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Array:
        return y

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        known = read_off(kept, lambda j: _colour(j % (T * d), T, d, k), (k + 1) * d)
        return clear_beyond_stages(jnp.stack([known[0], *(jnp.roll(known[r], -r) for r in range(1, len(known)))]), d)


def _colour(j: Array, T: int, d: int, k: int) -> Array:
    """Of column j: its place in its arc."""
    arcs = Arcs.of(T, k)
    first = arcs.longer * arcs.colours * d  # scalars in the longer arcs
    return jnp.where(j < first, j % (arcs.colours * d), (j - first) % max((arcs.colours - 1) * d, 1))
