"""Direct probing: every entry is read off as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from ...band.storage import clear_beyond_stages


@dataclass(frozen=True)
class Direct:
    """One colour for every 2k + 1 stages: no two columns of a colour meet inside the band (Curtis, Powell, Reid 1974).

    Column (t, i) has colour (t mod (2k + 1)) d + i. `(2k + 1) d` products (never more than T d); exact: every entry
    is read off as it stands. Where the program allows it, the same entries come without products, by its diagonals
    (`extraction/diagonals`); a subclass forms them, unless it declares `exact_entries`, too.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Direct())(jnp.array([1.0, 2, 4, 8]))
    Array([[ 2.,  4.,  4.,  2.],
           [-2., -2., -2.,  0.]], dtype=float32)
    >>> Direct().count(T=100, d=2, k=1)  # products at most
    6
    """

    exact_entries: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.exact_entries = cls.__dict__.get("exact_entries", False)  # of the subclass' own methods, not of these

    def count(self, T: int, d: int, k: int) -> int:
        return min(2 * k + 1, T) * d

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        return (jnp.arange(T * d) % self.count(T, d, k) == c).astype(dtype)

    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Array:
        # Column j = c + m * colours shows itself in rows j .. j + (k + 1) d - 1: strided windows, `(m, row)`.
        colours = self.count(T, d, k)
        columns = -(-T * d // colours)
        padded = jnp.pad(y, (0, (columns + 1) * colours - T * d))
        return lax.dynamic_slice(padded, (c,), (columns * colours,)).reshape(columns, colours)[:, : (k + 1) * d]

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        band = kept.transpose(2, 1, 0).reshape((k + 1) * d, -1)[:, : T * d]
        return clear_beyond_stages(band, d)
