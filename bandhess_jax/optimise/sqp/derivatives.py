"""All derivatives that a step of `sqp` needs, by one linearisation of the gradient of L = sigma f + y . h.

The Hessian's band comes as `hessian`'s does, the Jacobian's rows from products with colours (`rows.py`): from the same
products where the Hessian takes some. One product with noise tells whether anything lies outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.storage import matvec
from ...extraction.bandwidth import is_wrong
from ...extraction.products import Extraction, extract_beside, multiply
from ...framework.fusion import arranged, tidy
from ...framework.programs import flattened
from .rows import read_off, rows_times, stages_in_window

Functions = Callable[[Array], tuple[Array, Array]]  # x -> f, h


class Derivatives(NamedTuple):
    """As the engines want them."""

    value: Array
    h: Array
    grad: Array  # of L
    rows: Array  # (r, K d) of the Jacobian of h, from column first[i] on
    band: Array  # of the Hessian of L
    narrow: Array  # 0, 1: the Hessian has entries outside the band, 2: the Jacobian outside the rows' windows


def _jacobian(push: Callable[[Array], Array], layout: Layout, extraction: Extraction) -> Array:
    """Products `(K d, r)` with one colour per column of a window."""
    width = stages_in_window(layout, extraction.bandwidth) * layout.d
    like = jax.ShapeDtypeStruct((layout.n,), layout.dtype)
    flat, shape = flattened(push, like)
    push = push if flat is None else arranged(flat, shape)
    column = jnp.arange(layout.n, dtype=jnp.int32) % width

    def product(c: Array) -> Array:
        return push((column == c).astype(layout.dtype))

    return multiply(product, width, extraction.chunk_size, layout.n)


def _narrow(
    push: Callable[[Array], tuple[Array, Array]], band: Array, rows: Array, first: Array, layout: Layout
) -> Array:
    """Whether products with noise differ from those with what was extracted, by more than rounding explains: where the
    first product of a loop is in doubt, a second one, of a rescaled vector, shows how much that is."""
    v = hash_noise(band[0], 0) * (1 - layout.dummies() if layout.ragged else 1)
    expected = matvec(band, v), rows_times(rows, first, v)
    scales = matvec(jnp.abs(band), jnp.abs(v)), rows_times(jnp.abs(rows), first, jnp.abs(v))

    def noise(a: Array, b: Array, scale: Array) -> Array:
        return 64 * jnp.max(jnp.where(scale > 0, jnp.abs(a - b) / jnp.where(scale > 0, scale, 1), 0), initial=0)

    def once(s: tuple) -> tuple:
        turn, before, _ = s
        factor = jnp.where(turn == 0, 1, jnp.pi).astype(v.dtype)
        products = tuple(p / factor for p in push(factor * v))
        of_first = tuple(jnp.where(turn == 0, p, b) for p, b in zip(products, before, strict=True))
        rounding = jnp.stack([noise(p, b, s) for p, b, s in zip(products, of_first, scales, strict=True)]).max()
        wrong = [
            is_wrong(jnp.abs(p - e), s, rounding).any() for p, e, s in zip(of_first, expected, scales, strict=True)
        ]
        return turn + 1, of_first, jnp.where(wrong[1], 2, jnp.where(wrong[0], 1, 0)).astype(jnp.int32)

    start = jnp.int32(0), expected, jnp.int32(1)
    return lax.while_loop(lambda s: (s[0] < 2) & (s[2] > 0), once, start)[2]


def derivatives(
    functions: Functions,
    x: Array,
    sigma: Array,
    y: Array,
    first: Array,
    layout: Layout,
    extraction: Extraction,
    check: bool,
) -> Derivatives:
    """Those at x, with weights sigma and y `(r,)` of f and h; first `(r,)` are the windows of the rows."""

    def gradient(x: Array) -> tuple[tuple[Array, Array], Array]:
        def lagrangian(x: Array) -> tuple[Array, tuple[Array, Array]]:
            f, h = functions(x)
            return sigma * f + y @ h, (f, h)

        grad, (f, h) = jax.grad(lagrangian, has_aux=True)(x)
        return (grad, h), f

    (grad, h), push, f = tidy(lambda x: jax.linearize(gradient, x, has_aux=True), x)(x)
    band, products = extract_beside(push, layout, extraction)
    width = stages_in_window(layout, extraction.bandwidth) * layout.d
    rows = jnp.zeros((0, width), layout.dtype)
    if len(y):
        products = _jacobian(lambda v: push(v)[1], layout, extraction) if products is None else products
        rows = read_off(products, first, width)
    narrow = _narrow(push, band, rows, first, layout) if check else jnp.int32(0)
    return Derivatives(f, h, grad, rows, band, narrow)
