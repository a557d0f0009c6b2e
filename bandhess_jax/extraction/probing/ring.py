"""Direct probes around a ring: the last stage meets the first, and colours must not meet across that seam.

    T = 11 stages, k = 1: m = floor(T / (2k + 1)) = 3 stages a colour, in as many arcs of the ring

        stage     0 1 2 3 | 4 5 6 7 | 8 9 10          arcs of ceil(T / m) = 4 stages, T mod m of them, then of 3
        colour    0 1 2 3   0 1 2 3   0 1 2           the place in the arc

Stages of one colour are a whole arc apart, 2k + 1 at least. Colour c's columns in the longer arcs, and those in the
shorter ones, lie at equal distances: two sets of windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.ring import Arcs

from ...band.storage import clear_beyond_stages


@dataclass(frozen=True)
class Ring:
    """Every entry of a closed band as it stands, in the storage of `Cyclic`. `ceil(T / floor(T / (2k + 1))) d` products
    for T > 2k: 2k + 1 of them a scalar where that divides T, and at most 4k + 1."""

    def count(self, T: int, d: int, k: int) -> int:
        return Arcs.of(T, k).colours * d

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        arcs, j = Arcs.of(T, k), jnp.arange(T * d)
        first = arcs.longer * arcs.colours * d  # scalars in the longer arcs
        place = jnp.where(j < first, j % (arcs.colours * d), (j - first) % max((arcs.colours - 1) * d, 1))
        return (place == c).astype(dtype)

    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Any:
        arcs, rows = Arcs.of(T, k), (k + 1) * d
        longer, shorter = arcs.longer * arcs.colours * d, arcs.shorter * (arcs.colours - 1) * d
        # Column j shows itself in rows j .. j + rows - 1 around the ring: y goes on where it began.
        around = jnp.concatenate([y, y[: arcs.colours * d]])

        def windows(start: int, size: int, count: int) -> Array:
            part = lax.dynamic_slice(around, (start + c,), (size,))
            return part.reshape(count, size // max(count, 1))[:, :rows] if count else jnp.zeros((0, rows), y.dtype)

        return windows(0, longer, arcs.longer), windows(longer, shorter, arcs.shorter)

    def decode(self, kept: Any, T: int, d: int, k: int) -> Array:
        rows, colours = (k + 1) * d, kept[0].shape[0]
        longer = kept[0].transpose(2, 1, 0).reshape(rows, -1)
        shorter = kept[1][: colours - d].transpose(2, 1, 0).reshape(rows, -1)
        return clear_beyond_stages(jnp.concatenate([longer, shorter], axis=1), d)
