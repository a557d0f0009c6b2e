"""A point of the trust-region method: the derivatives there, in the loop's variables x / scale, and what they tell.

XLA compiles a kernel per array that it forms, so numbers travel in packs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding

from bandhess_common.stopping import LOST, UNSURE

from ...band.spectrum import gershgorin_discs
from ...band.stages import Layout
from ...band.structures import Bordered, Cyclic, Structure, diagonal, magnitude, matvec, shifted
from ...band.structures import scaled as scaled_band
from ...extraction.bandwidth import noise_pair, too_narrow
from .split import split


class Options(NamedTuple):
    """What decides the program. Hashable."""

    layout: Layout
    width: int  # rows of the band
    scale: str  # "none", "diagonal", "given"
    check_band: bool
    rows: int  # of the history; 0 without one
    blank: bool  # where the history has no entry: NaN, or 0 under jax_debug_nans
    sharding: NamedSharding | None = None
    given: bool = False  # the band is the user's

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.layout.dtype).eps)

    @property
    def tiny(self) -> float:
        return float(jnp.finfo(self.layout.dtype).tiny)

    @property
    def dummies(self) -> Array | None:
        return self.layout.dummies() if self.layout.ragged else None

    def split(self, tree: Any) -> Any:
        """Over the devices, where there are several."""
        return split(self.layout, self.sharding, tree)

    def zero(self) -> Array | Structure:
        """A Hessian of zeros, stored as all others."""
        layout = self.layout
        ab = jnp.zeros((self.width, layout.T * layout.d), layout.dtype)
        band = Cyclic(ab) if layout.periodic else ab
        if not any(layout.shared):
            return band
        border, corner = (jnp.zeros((layout.p, size), layout.dtype) for size in (ab.shape[1], layout.p))
        return Bordered(band, border, corner)


class Functions(NamedTuple):
    """All that the loop sees of the objective, on the ravelled vector."""

    value: Callable[[Array], Array]
    derivatives: Callable[[Array], tuple]  # x -> (grad, product; None where the band is given)
    band: Callable[[Array, Callable], Any]  # (x, product) -> ab


class Facts(NamedTuple):
    """Numbers known at a point, in scaled variables."""

    value: Array
    grad_length: Array  # |g|
    length: Array  # |x|
    slope: Array  # g^T p of the step p that led here
    grad_norm: Array  # max|g|
    least: Array  # the least diagonal entry of H
    low: Array  # Gershgorin's bounds of H's spectrum
    high: Array
    rounding: Array  # size of the gradient's rounding errors, eps |H| |x|, at its largest

    @property
    def norm(self) -> Array:
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    @property
    def finite(self) -> Array:
        return jnp.isfinite(self.value) & jnp.isfinite(self.grad_norm) & jnp.isfinite(self.norm)

    def bracket(self, radius: Array) -> tuple[Array, Array]:
        """Bounds of the shift."""
        wanted = self.grad_length / radius
        low = jnp.maximum(jnp.maximum(0, -self.least), wanted - self.norm)
        return low, jnp.maximum(low, wanted + jnp.maximum(0, -self.low))

    def soft(self, options: Options) -> Array:
        """Less curvature than this is lost to rounding."""
        return jnp.maximum(LOST * options.eps * self.norm, options.tiny)


class Point(NamedTuple):
    """An iterate, and what is known there of the loop's variables, x / scale."""

    x: Array
    grad: Array
    ab: Any  # H, less UNSURE eps of its diagonal: what is positive definite then, is so in spite of rounding
    scale: Array  # (n,), powers of two; () where nothing is scaled
    pack: Array  # Facts

    @property
    def grad_norm(self) -> Array:
        """max|g|, not scaled."""
        return jnp.max(jnp.abs(self.grad / self.scale)) if self.scale.ndim else Facts(*self.pack).grad_norm


class Ask(NamedTuple):
    """What a visit is for, besides the derivatives."""

    first: Array  # of x0: the band is checked
    closing: Array  # of the last x, once more: the same
    refining: Array  # of the same x: H times the vector is wanted; its band is known
    vector: Array


def _power_of_two(x: Array) -> Array:
    """The power of two next above x > 0: scaling by it rounds nothing."""
    return x / jnp.frexp(x)[0]


def _units(options: Options, ab: Any, scale: Array | None, old: Array, first: Array) -> Array:
    """Sizes of the variables: those given, or the smallest |H[j, j]|^(-1/2) met (Moré 1978)."""
    if scale is not None:
        dummies = options.dummies
        return _power_of_two(scale if dummies is None else jnp.where(dummies > 0, 1, scale))
    sizes = jnp.abs(diagonal(ab))
    sizes = jnp.maximum(sizes, options.eps**0.5 * jnp.max(sizes))
    units = jnp.where(sizes > 0, sizes, 1) ** -0.5
    return _power_of_two(jnp.where(first, units, jnp.minimum(units, old)))


def _by_products(options: Options, old: Point, ab: Any, product: Callable | None, ask: Ask) -> tuple[Array, Array]:
    """`(narrow, image)`, as `visit` has them; image in old's variables, by derivatives where they are known: those are
    more exact than the band."""
    if product is None:
        by_band = lambda: matvec(old.ab, ask.vector, sharding=options.sharding)  # noqa: E731
        return jnp.bool_(False), lax.cond(ask.refining, by_band, lambda: old.grad)
    checking = (ask.first | ask.closing) & options.check_band
    scaled = options.scale != "none"

    def multiplied() -> tuple[Array, Array]:
        noise, vector = noise_pair(ab), old.scale * ask.vector if scaled else ask.vector
        vectors = jnp.where(checking, noise, jnp.broadcast_to(vector, noise.shape))
        # In a loop: one product in the program, whatever it holds.
        products = lax.fori_loop(
            0,
            jnp.where(checking, 2, 1),
            lambda i, done: done.at[i].set(product(vectors[i])),
            jnp.zeros_like(vectors),
        )
        narrow = checking & too_narrow(products, ab, options.sharding)
        return narrow, old.scale * products[0] if scaled else products[0]

    return lax.cond(checking | ask.refining, multiplied, lambda: (jnp.bool_(False), old.grad))


def visit(
    options: Options,
    functions: Functions,
    scale: Array | None,
    old: Point,
    x: Array,
    value: Array,
    p: Array,
    ask: Ask,
) -> tuple[Point, Array, Array]:
    """`(point, narrow, image)`: the point x `(n,)` of this value, reached by the step p; whether its Hessian has
    entries outside the band, where that is asked for; H vector, where that is. scale is what the user gave."""
    scaled, dummies = options.scale != "none", options.dummies
    grad, product = functions.derivatives(x)

    def again(_: None) -> Any:
        return scaled_band(old.ab, 1 / old.scale) if scaled else old.ab

    ab = lax.cond(ask.closing | ask.refining, again, lambda _: options.split(functions.band(x, product)), None)
    if dummies is not None:
        ab = shifted(ab, -dummies * diagonal(ab))
    narrow, image = _by_products(options, old, ab, product, ask)
    units, z = old.scale, x
    if scaled:
        units = _units(options, ab, scale, old.scale, ask.first)
        grad, ab, z, p = units * grad, scaled_band(ab, units), x / units, old.scale / units * p
    pack = facts(ab, grad, z, p, value, options.sharding)
    centres = diagonal(ab)
    doubt = -UNSURE * options.eps * jnp.abs(centres)
    if dummies is not None:
        # Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
        size = Facts(*pack).norm
        doubt = doubt + dummies * jnp.where(size > 0, size, 1)
    return Point(x, grad, shifted(ab, doubt), units, pack), narrow, image


def facts(ab: Any, grad: Array, x: Array, p: Array, value: Array, sharding: NamedSharding | None = None) -> Array:
    """`Facts`, packed. XLA makes kernels of every reduction, so that these are few."""
    low, high = gershgorin_discs(ab, sharding)
    rounding = float(jnp.finfo(x.dtype).eps) * matvec(magnitude(ab), jnp.abs(x), sharding=sharding)
    signs = np.array([1, -1, -1, 1, 1], grad.dtype)
    largest = jnp.max(jnp.stack([jnp.abs(grad), -diagonal(ab), -low, high, rounding]), axis=1)
    sums = jnp.sum(jnp.stack([grad, x, grad]) * jnp.stack([grad, x, p]), axis=1)
    return jnp.concatenate([value[None], jnp.sqrt(sums[:2]), sums[2:], signs * largest])
