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
    narrow: Array  # 0, 1: the Hessian has entries outside the band, 2 + i: row i of the Jacobian outside its window


def _jacobian(push: Callable[[Array], Array], layout: Layout, extraction: Extraction) -> Array:
    """Products `(K d, r)` with one colour per column of a window."""
    width = stages_in_window(layout, extraction.bandwidth) * layout.d
    like = jax.ShapeDtypeStruct((layout.n,), layout.dtype)
    flat, shape = flattened(push, like)
    push = push if flat is None else arranged(flat, shape)
    column = jnp.arange(layout.n, dtype=jnp.int32) % width

    def product(c: Array) -> Array:
        return push((column == c.astype(jnp.int32)).astype(layout.dtype))

    return multiply(product, width, extraction.chunk_size, layout.n)


def _narrow(
    push: Callable[[Array], tuple[Array, Array]], band: Array, rows: Array, first: Array, layout: Layout
) -> Array:
    """Whether products with noise differ from those with what was extracted, by more than rounding explains: how much
    that is, a second product shows, of a rescaled vector. As `too_narrow` says, for both in one vector."""
    n, eps = layout.n, float(jnp.finfo(layout.dtype).eps)
    v = hash_noise(band[0], 0) * (1 - layout.dummies() if layout.ragged else 1)
    product, again = lax.map(lambda v: jnp.concatenate(push(v)), jnp.stack([v, jnp.pi * v]))

    def expected(band: Array, rows: Array, v: Array) -> Array:
        return jnp.concatenate([matvec(band, v), rows_times(rows, first, v)])

    known, scale = lax.map(lambda s: expected(*s), tuple(jnp.stack([a, jnp.abs(a)]) for a in (band, rows, v)))
    noise = 64 * jnp.max(jnp.where(scale > 0, jnp.abs(product - again / jnp.pi) / jnp.where(scale > 0, scale, 1), 0))
    of_rows = jnp.arange(len(scale), dtype=jnp.int32) >= n
    largest = jnp.where(of_rows, jnp.max(scale[n:], initial=0), jnp.max(scale[:n]))
    error = jnp.abs(product - known)
    wrong = (error > jnp.maximum(eps**0.5, noise) * scale) & (error > 32 * eps * largest)
    row = jnp.argmax(wrong & of_rows).astype(jnp.int32) - n
    return jnp.where((wrong & of_rows).any(), 2 + row, wrong.any().astype(jnp.int32))


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
