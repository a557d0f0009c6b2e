"""Which stages each row of the constraints touches, and the Jacobian read off products by that.

A row that belongs into a band of bandwidth k touches stages within a window of K = min(k + 1, T) stages. Of the stages
with one remainder modulo K it then touches one at most, so that K d products with one colour per remainder and scalar
give every entry of the Jacobian by itself, once the windows are known.

The windows come from the same colours: with a the product of a remainder's stages, weighted with noise, and b that of
the same weights times the stages' numbers, the touched stage is b / a. Numbers are taken digit by digit, so that
rounding cannot make a wrong stage of them. What a row touches is looked at in two points, for a gradient may vanish in
one: those at which a solve linearises first (`loop.py`). A product with noise refutes a window that holds not all of
its row (`derivatives.py`): then it is looked once more, there, for a row may touch more than at the start, as
max(0, x)^2 does. A row that touches stages further apart is refuted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...extraction.bandwidth import perturbed


def stages_in_window(layout: Layout, k: int) -> int:
    return min(k + 1, layout.T)


def seen_first(push: Callable[[Array], Array], layout: Layout, k: int) -> Array:
    """`(r,)` int32: the first of the K d columns that hold each of the rows, as far as they do not vanish where `push`,
    v -> J v, was linearised; the last ones for rows that do. Shared variables, the last ones, are left out."""
    T, d, K = layout.T, layout.d, stages_in_window(layout, k)
    base = 2**16 if layout.dtype.itemsize == 8 else 2**6
    digits = math.ceil(math.log(max(2, -(-T // K)), base))
    stage = jnp.arange(layout.n, dtype=jnp.int32) // d
    number, remainder = stage // K, jnp.where(stage < T, stage % K, -1)
    ones = jnp.ones(layout.n, jnp.int32)
    factors = jnp.stack([ones, *(number // base**i % base for i in range(digits))])
    weights = (3 + hash_noise(jnp.zeros(layout.n, layout.dtype), 3)) / 4

    def product(c: Array) -> Array:
        i, j = c // len(factors), c % len(factors)
        return push(jnp.where(remainder == i, factors[j].astype(weights.dtype) * weights, 0))

    found = lax.map(product, jnp.arange(K * len(factors), dtype=jnp.int32)).reshape(K, len(factors), -1)
    size = jnp.abs(found[:, 0])
    least = float(jnp.finfo(weights.dtype).eps) ** 0.75
    touched = (size > least * jnp.max(size, axis=0, keepdims=True)) & jnp.isfinite(found).all(axis=1)
    digit = jnp.round(found[:, 1:] / jnp.where(touched, found[:, 0], 1)[:, None])
    digit = jnp.clip(jnp.where(touched[:, None], digit, 0), 0, base - 1).astype(jnp.int32)
    place = jnp.array([base**i for i in range(digits)], jnp.int32)
    seen = K * jnp.sum(digit * place[None, :, None], axis=1, dtype=jnp.int32) + jnp.arange(K, dtype=jnp.int32)[:, None]
    return (d * jnp.minimum(jnp.min(jnp.where(touched, seen, T), axis=0), T - K)).astype(jnp.int32)


def nowhere(layout: Layout, k: int, r: int) -> Array:
    """What `seen_first` says of r rows before anything of them is seen."""
    return jnp.full(r, layout.d * (layout.T - stages_in_window(layout, k)), jnp.int32)


def windows(rows: Callable[[Array], Array], x: Array, layout: Layout, k: int) -> Array:
    """The same of functions of the flat x, in two points near it."""

    def look(seed: Array) -> Array:
        return seen_first(jax.linearize(rows, perturbed(x, seed))[1], layout, k)

    return jnp.min(lax.map(look, jnp.array([3, 4], jnp.uint32)), axis=0)


def read_off(products: Array, first: Array, width: int) -> Array:
    """The Jacobian's rows `(r, width)` from the products `(colours, r)` with all colours, column j having colour
    j mod colours, of which there are at least width."""
    columns = first[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
    return jnp.take_along_axis(products.T, columns % len(products), axis=1)


def rows_times(rows: Array, first: Array, v: Array, p: int) -> Array:
    """`(r,)`: the Jacobian times v, its last p columns being those of shared variables."""
    L = rows.shape[1] - p
    own = jnp.sum(rows[:, :L] * v[first[:, None] + jnp.arange(L, dtype=jnp.int32)[None]], axis=1)
    return own + rows[:, L:] @ v[len(v) - p :] if p else own
