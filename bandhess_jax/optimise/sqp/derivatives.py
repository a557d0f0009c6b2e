"""All derivatives that a step of `sqp` needs, by one linearisation of the gradient of L = sigma f + y . h.

The Hessian's band comes as `hessian`'s does, the Jacobian's rows from products with colours (`rows.py`): from the same
products where the Hessian takes some. Shared variables take a product each, which gives their columns of both. One
product with noise tells whether anything lies outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.structures import matvec, stacked, unstacked
from ...extraction.products import (
    Extraction,
    bordered,
    extract_beside,
    multiply,
    of_stages,
    shared_unit,
    with_shared,
)
from ...framework.fusion import arranged, tidy
from ...framework.kernels import kernel
from ...framework.programs import flattened
from .rows import read_off, rows_times, seen_first, stages_in_window

Functions = Callable[[Array], tuple[Array, Array]]  # x -> f, h


class Derivatives(NamedTuple):
    """As the engines want them."""

    value: Array
    h: Array
    grad: Array  # of L
    first: Array  # (r,) the columns in which the windows of the rows begin
    rows: Array  # (r, K d + p) of the Jacobian of h: from column first[i] on, then of the shared variables
    band: Array  # of the Hessian of L, `stacked`
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


def _sought(
    seen: Callable[[], Array], placed: Callable[[Array], tuple[Array, Array]], first: Array, looking: Array, like: Array
) -> tuple[Array, Array, Array]:
    """first, rows and narrow. What is seen here comes to the windows where looking, and where `placed`, which gives
    rows and narrow for windows, finds a row outside. `like` is as the rows are. Loops of two turns at most: under vmap
    both ways of a conditional would be gone each time."""

    def turn(state: tuple) -> tuple:
        _, look, first, _, _ = state
        more = lambda state: (jnp.bool_(False), jnp.minimum(state[1], seen()))  # noqa: E731
        first = lax.while_loop(lambda state: state[0], more, (look, first))[1]
        rows, narrow = placed(first)
        return jnp.bool_(False), ~look & (narrow > 1), first, rows, narrow

    def going(state: tuple) -> Array:
        begins, look, *_ = state
        return begins | look

    return lax.while_loop(going, turn, (jnp.bool_(True), looking, first, like, jnp.int32(0)))[2:]


def _verdict(W: Array, rows: Array, first: Array, v: Array, product: Array, again: Array, *, shared: int) -> Array:
    """As the kernel `interior_narrow` has it."""
    n, eps = len(v), float(jnp.finfo(v.dtype).eps)

    def expected(W: Array, rows: Array, v: Array) -> Array:
        return jnp.concatenate([matvec(unstacked(W, shared), v), rows_times(rows, first, v, shared)])

    both = jax.tree.map(lambda a: jnp.stack([a, jnp.abs(a)]), (W, rows, v))
    known, scale = lax.map(lambda s: expected(*s), both)
    noise = 64 * jnp.max(jnp.where(scale > 0, jnp.abs(product - again) / jnp.where(scale > 0, scale, 1), 0))
    of_rows = jnp.arange(len(scale), dtype=jnp.int32) >= n
    largest = jnp.where(of_rows, jnp.max(scale[n:], initial=0), jnp.max(scale[:n]))
    error = jnp.abs(product - known)
    wrong = (error > jnp.maximum(eps**0.5, noise) * scale) & (error > 32 * eps * largest)
    row = jnp.argmax(wrong & of_rows).astype(jnp.int32) - n
    return jnp.where((wrong & of_rows).any(), 2 + row, wrong.any().astype(jnp.int32)).astype(v.dtype)


def _narrow(push: Callable[[Array], tuple[Array, Array]], W: Array, rows: Array, first: Array, layout: Layout) -> Array:
    """Whether a product with noise differs from that with what was extracted, by more than rounding explains. As
    `too_narrow` says, for both in one vector; how much rounding explains, a second product shows, of a rescaled vector,
    which is formed where the first one is suspect."""
    v = hash_noise(jnp.zeros(layout.n, layout.dtype), 0) * (1 - layout.dummies() if layout.ragged else 1)

    def look(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, product, _ = state
        by = jnp.where(turn == 0, 1, jnp.pi).astype(v.dtype)
        again = jnp.concatenate(push(by * v)) / by
        product = jnp.where(turn == 0, again, product)
        operands = W, rows, first, v, product, again
        return turn + 1, product, kernel("interior_narrow", _verdict, *operands, shared=layout.p)

    def going(state: tuple[Array, Array, Array]) -> Array:
        turn, _, narrow = state
        return (turn == 0) | ((turn == 1) & (narrow > 0))

    none = jnp.zeros(layout.n + len(rows), layout.dtype)
    return lax.while_loop(going, look, (jnp.int32(0), none, none[0]))[2].astype(jnp.int32)


def derivatives(
    functions: Functions,
    x: Array,
    sigma: Array,
    y: Array,
    first: Array,
    layout: Layout,
    extraction: Extraction,
    check: bool,
    looking: Array | None = None,
) -> Derivatives:
    """Those at x, with weights sigma and y `(r,)` of f and h; first `(r,)` are the windows of the rows. With `looking`
    they are what was seen of these before (`rows.nowhere` at first): what is seen at x comes to it where looking is
    true, and where a row turns out to reach outside."""

    def gradient(x: Array) -> tuple[tuple[Array, Array], Array]:
        def lagrangian(x: Array) -> tuple[Array, tuple[Array, Array]]:
            f, h = functions(x)
            return sigma * f + y @ h, (f, h)

        grad, (f, h) = jax.grad(lagrangian, has_aux=True)(x)
        return (grad, h), f

    (grad, h), push, f = tidy(lambda x: jax.linearize(gradient, x, has_aux=True), x)(x)

    def of_both(v: Array) -> tuple[Array, Array]:
        on_x, on_y = push(with_shared(layout, v))
        return of_stages(layout, on_x), on_y

    stages, own = (layout.stages, of_both) if any(layout.shared) else (layout, push)
    band, beside = extract_beside(own, stages, extraction)
    width = stages_in_window(stages, extraction.bandwidth) * stages.d
    products = jnp.zeros((width, 0), layout.dtype) if beside is None else beside
    if len(y) and beside is None:
        products = _jacobian(lambda v: own(v)[1], stages, extraction)
    H: Any = band
    of_rows = jnp.zeros((0, len(y)), layout.dtype)
    if layout.p:
        columns, of_rows = multiply(lambda i: push(shared_unit(layout, i)), layout.p, extraction.chunk_size, layout.n)
        H = bordered(band, columns)
    W = stacked(H)

    def placed(first: Array) -> tuple[Array, Array]:
        rows = jnp.concatenate([read_off(products, first, width), of_rows.T], axis=1)
        return rows, _narrow(push, W, rows, first, layout) if check else jnp.int32(0)

    if looking is None or not len(y):
        rows, narrow = placed(first)
    else:
        seen = lambda: seen_first(lambda v: push(v)[1], layout, extraction.bandwidth)  # noqa: E731
        blank = jnp.zeros((len(y), width + layout.p), layout.dtype)
        first, rows, narrow = _sought(seen, placed, first, looking, blank)
    return Derivatives(f, h, grad, first, rows, W, narrow)
