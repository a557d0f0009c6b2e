"""Substitution: half the probes, by symmetry (Powell and Toint 1979; Coleman and Moré 1984; Coleman and Cai 1986).

With one colour for every k + 1 stages a row sees two columns of a colour: one at most k stages before it, one after.
Seen from the other side, one of the two is known by symmetry. Let C = (k + 1) d, position j = m C + q, and Z[p, m, q]
the product of colour p in row (m, q). For colours p, q of stages a < r within the period

    Z[p, m, q] = G[m] + F[m],   Z[q, m, p] = F[m] + G[m - 1],   G[m] = H[(m, q), (m + 1, p)], F[m] = H[(m, q), (m, p)]

so G[m] - G[m - 1] = Z[p, m, q] - Z[q, m, p]: a cumulative sum. G is zero before the first period and after the last,
so it can be summed from both ends. Rounding errors add up along a sum, relative to its largest terms; every chain is
therefore joined where the two sums of |Z| passed on the way from either end are equal. A stretch of large entries then
spoils no other: with the first tenth of the entries scaled by 1e8, summing from one end leaves errors of 1e-6 in the
rest (n = 1e5, float64), the joined sums 4e-14.

Where the compiled kernels serve, one of them walks along the chains; elsewhere scans or cumulative sums do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...framework.kernels import kernel


def _from_both_ends(steps: Array, sizes: Array) -> Array:
    """Cumulative sums along axis 0 of `(m, chains)` steps that end at zero, joined at half of the summed sizes."""
    half = jnp.sum(sizes, axis=0) / 2

    def on_cpu(steps: Array, sizes: Array) -> Array:
        zero = jnp.zeros_like(half)
        _, left = lax.scan(lambda G, step: (G + step, G + step), zero, steps)

        def back(carry: tuple[Array, Array], row: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (G, passed), (step, size, left) = carry, row
            return (G - step, passed + size), jnp.where(passed <= half, G, left)

        return lax.scan(back, (zero, zero), (steps, sizes, left), reverse=True)[1]

    def elsewhere(steps: Array, sizes: Array) -> Array:
        ahead = lambda x: jnp.pad(x[1:], ((0, 1), (0, 0)))  # noqa: E731
        right = -ahead(lax.cumsum(steps, reverse=True))
        return jnp.where(ahead(lax.cumsum(sizes, reverse=True)) <= half[None], right, lax.cumsum(steps))

    return lax.platform_dependent(steps, sizes, cpu=on_cpu, default=elsewhere)


@dataclass(frozen=True)
class Substitution:
    """`(k + 1) d` products, about half of direct probing's.

    Error: each entry carries the rounding errors of at most T / (k + 1) products, along its chain to the nearer end
    as the file explains: some sqrt(T / k) eps times the largest entries on that way. Measured at n = 1e5 on entries of
    size 1: 4e-14 in float64, 2e-5 in float32 (direct: 2e-16, 1e-7). Use it in float64 where products are formed whole:
    by matrix products, sequential scans, host callbacks. XLA forms of an elementwise product the rows alone that are
    kept, and direct probing keeps (k + 1) d of every (2k + 1) d: as many entries in all as here. Not where a small
    entry between larger ones on both sides must be right to its last digits. Nor over several devices: the sums run
    along all stages, so that every device gathers all products, where direct and Fourier probing send halos.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Substitution())(jnp.array([1.0, 2, 4, 8]))
    Array([[ 2.,  4.,  4.,  2.],
           [-2., -2., -2.,  0.]], dtype=float32)
    >>> Substitution().count(T=100, d=2, k=1)  # products
    4
    """

    def count(self, T: int, d: int, k: int) -> int:
        return (k + 1) * d  # k < T

    def probe(self, c: Array, T: int, d: int, k: int, dtype: Any) -> Array:
        return (jnp.arange(T * d) % self.count(T, d, k) == c).astype(dtype)

    def keep(self, c: Array, y: Array, T: int, d: int, k: int) -> Array:
        return y

    def decode(self, kept: Array, T: int, d: int, k: int) -> Array:
        return decode_products(d, kept)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def decode_products(d: int, products: Array) -> Array:
    """The band `(C, n)` from the products `(C, n)` of all colours."""
    return kernel("symmetry", _decode_products, products, d=d)


@decode_products.defjvp
def _decode_products_jvp(d: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Linear, but for where chains are joined: as the primal values have it.
    return decode_products(d, *primals), jax.jvp(partial(_decode_products, d=d), primals, tangents)[1]


def _decode_products(products: Array, d: int) -> Array:
    C, n = products.shape
    periods = -(-n // C)
    Z = jnp.pad(products, ((0, 0), (0, periods * C - n))).reshape(C, periods, C)

    # Static tables: which pairs of colours make a chain, and where each cell of one period finds its value.
    stage = np.arange(C) // d
    p, q = np.nonzero(stage[:, None] < stage[None, :])
    chain = np.zeros((C, C), int)
    chain[p, q] = np.arange(len(p))
    offset, column = np.indices((C, C))
    row = (column + offset) % C
    inside = column % d + offset < C
    later, same = stage[row] > stage[column], stage[row] == stage[column]
    where = np.where(same, row * C + column, C * C + chain[np.minimum(row, column), np.maximum(row, column)])
    where = np.where(later, where + len(p), where)

    Zt = Z.transpose(0, 2, 1)  # (colour, row within the period, period)
    if len(p):
        ahead, behind = Zt[p, q], Zt[q, p]
        G = _from_both_ends((ahead - behind).T, (jnp.abs(ahead) + jnp.abs(behind)).T).T
        F = behind - jnp.pad(G[:, :-1], ((0, 0), (1, 0)))
        values = jnp.concatenate([Zt.reshape(C * C, periods), G, F])
    else:
        values = Zt.reshape(C * C, periods)
    cells = jnp.where(inside[..., None], values[where], 0)
    return cells.transpose(0, 2, 1).reshape(C, periods * C)[:, :n]
