"""The condensed band of a problem's conditions: one positive definite band in the place of the KKT matrix.

With A the Jacobian of c and H the Hessian of the Lagrangian plus what inequalities add,

    [ H  A^T ] [ dx ]   [ b1 ]       as      M ex = r1 + A^T r2 / gamma,   M = H + A^T A / gamma,
    [ A   0  ] [ dy ] = [ b2 ]               ey = (A ex - r2) / gamma,

repeated on the residuals r1, r2 of the uncondensed system. One pass alone solves the system with -gamma I in its lower
right corner; every further pass is a step of the method of multipliers on the linear system, which also removes the
rounding errors that 1/gamma brings. M is positive definite exactly when the regularised matrix has inertia (n, m, 0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bandhess_common.tolerances import GAMMA

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.structures import diagonal, shifted
from ...extraction.products import Extraction, extract
from ...framework.fusion import materialise

Functions = Callable[[Array], tuple[Array, Array, Array]]  # x -> f, c (equalities), G (bounds and inequalities)


class Bands(NamedTuple):
    """H and A^T A, bands or structures, with zeros for held variables (dummies and fixed ones), and their sizes."""

    h: Any
    a: Any
    held: Array
    size_w: Array  # of W, root mean square of W v
    size_a: Array  # of A^T A, mean of its diagonal

    @property
    def gamma(self) -> Array:
        return GAMMA[self.held.dtype.name] * self.size_a / self.size_w

    @property
    def condensed(self) -> Any:
        """M, with `size_w` on the diagonal of held variables."""
        M = jax.tree.map(lambda h, a: h + a / self.gamma, self.h, self.a)
        return shifted(M, self.held * self.size_w)


def extract_bands(
    push: Callable[[Array], tuple[Array, Array, Array]],
    pull: Callable[[Array, Array], Array],
    sigma: Array,
    held: Array,
    m: int,
    layout: Layout,
    extraction: Extraction,
) -> Bands:
    """The bands, for weights sigma of the inequalities. push is v -> W v, A v, B v; pull is u, w -> A^T u + B^T w."""

    def hessian(v: Array) -> Array:
        Wv, Av, Bv = push(v)
        return Wv + pull(jnp.zeros_like(Av), sigma * Bv) if len(sigma) else Wv

    def gram(v: Array) -> Array:
        _, Av, Bv = push(v)
        return pull(Av, jnp.zeros_like(Bv))

    def band(product: Callable[[Array], Array]) -> Any:
        ab = extract(product, layout, extraction)
        return shifted(ab, -layout.dummies()) if layout.ragged else ab

    h = band(hessian)
    a = band(gram) if m else jax.tree.map(jnp.zeros_like, h)
    noise = hash_noise(held, 1) * (1 - held)
    # In memory: XLA would fuse the product into the sum of its squares, entry by entry.
    size_w = jnp.linalg.norm(materialise(lambda v: push(v)[0], noise)) / jnp.linalg.norm(noise)
    size_w = jnp.where(size_w > 0, size_w, 1)
    size_a = jnp.mean(diagonal(a))
    return Bands(h, a, held, size_w, jnp.where(size_a > 0, size_a, size_w))


def largest(a: Array) -> Array:
    return jnp.max(jnp.abs(a), initial=0)
