"""Direct probing: every entry is read off as it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...band.storage import clear_beyond_stages

_FEW = 8  # colours: a chain of selections is as fast as a gather up to here, and fuses


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
        if jax.device_count() > 1:  # among which the stages may be split: then nothing may move
            return y
        # Column j = c + m * colours shows itself in rows j .. j + (k + 1) d - 1: strided windows, `(m, row)`, half of
        # the products.
        colours = self.count(T, d, k)
        columns = -(-T * d // colours)
        padded = jnp.pad(y, (0, (columns + 1) * colours - T * d))
        return lax.dynamic_slice(padded, (c,), (columns * colours,)).reshape(columns, colours)[:, : (k + 1) * d]

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        colours, rows = self.count(T, d, k), (k + 1) * d
        if kept.ndim == 3:
            return clear_beyond_stages(kept.transpose(2, 1, 0).reshape(rows, -1)[:, : T * d], d)
        known = read_off(kept, lambda j: j % colours, rows)
        return clear_beyond_stages(jnp.stack([jnp.pad(row[r:], (0, r)) for r, row in enumerate(known)]), d)


def read_off(products: Array, colour: Callable[[Array], Array], rows: int) -> Array:
    """`[r, i] = H[i, i - r]`, `(rows, n)`, from the products `(colours, n)`: that of column i - r's colour at row i.

    Each entry comes from its own place in a product, so that nothing moves where the stages lie on several devices.
    """
    r = lax.broadcasted_iota(jnp.int32, (rows, products.shape[1]), 0)
    i = lax.broadcasted_iota(jnp.int32, r.shape, 1)
    if len(products) <= _FEW:
        return lax.select_n(colour(i - r), *(jnp.broadcast_to(product, r.shape) for product in products))
    return jnp.take_along_axis(products, colour(i - r), axis=0, mode="promise_in_bounds")
