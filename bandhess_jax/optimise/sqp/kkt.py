"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...band.stages import Layout
from ...band.storage import matvec
from ...extraction.products import Extraction
from .condensed import System, extract_bands, factor_shifted

Triple = tuple[Array, Array, Array]


@jax.custom_jvp
def differentiable_where(ok: Array, v: Array) -> Array:
    """v, whose derivative is NaN where not ok."""
    return v


@differentiable_where.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    ok, v = primals
    return v, tangents[1] * jnp.where(ok, 1, jnp.nan)  # a factor, so that the transpose keeps it


def implicit_solve(
    layout: Layout, extraction: Extraction, hold: Array, active: Array, kkt: Callable[[Triple], Triple], b: Triple
) -> Triple:
    """v with kkt(v) = b, for the linearised conditions `grad L + hold x = 0, c = 0, z G = 0` at a solution:
    kkt(dx, dy, dz) = (W dx + A^T dy - B^T dz + hold dx, A dx, z B dx + G dz).

    dz is eliminated; what remains is symmetric and solved like a step, to the last bit and without a shift.
    """
    b1, b2, b3 = b
    none_x, none_y, none_z = jnp.zeros_like(b1), jnp.zeros_like(b2), jnp.zeros_like(b3)
    g = lax.stop_gradient(kkt((none_x, none_y, jnp.ones_like(b3)))[2])

    def push(v: Array) -> Triple:
        Wv, Av, zBv = kkt((v, none_y, none_z))
        return Wv - hold * v, Av, zBv

    def pull(u: Array, w: Array) -> Array:
        return kkt((none_x, u, -w))[0]

    def reduced(v: tuple[Array, Array]) -> tuple[Array, Array]:
        dx, dy = v
        Wv, Av, zBv = push(dx)
        return Wv + hold * dx + pull(dy, zBv / g), Av

    bands, _ = extract_bands(push, pull, 1 / g, hold, layout, extraction, jnp.bool_(False), (len(b2), none_x, none_x))
    zero = jnp.zeros((), layout.dtype)
    factored, _, _ = factor_shifted(bands, zero, lambda f, _: (f.ok, ()), tries=1)
    system = System(
        lambda v: matvec(bands.h, v) + bands.hold * v,
        lambda v: push(v)[1],
        lambda u: pull(u, none_z),
        factored,
        bands.gamma,
        bands.size_a,
    )
    rhs = (b1 + pull(none_y, b3 / g), b2)
    dx, dy = lax.custom_linear_solve(reduced, rhs, lambda _, b: system.solve(b[0], b[1], target=0)[:2], symmetric=True)
    return dx, dy, (b3 - push(dx)[2]) / g
