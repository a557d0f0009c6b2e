"""The Newton system of a problem with constraints, condensed to one positive definite band.

The step solves, with A the Jacobian of c and H the (shifted) Hessian of the Lagrangian plus what the barrier adds,

    [ H  A^T ] [ dx ]   [ b1 ]       as      M ex = r1 + A^T r2 / gamma,   M = H + A^T A / gamma,
    [ A   0  ] [ dy ] = [ b2 ]               ey = (A ex - r2) / gamma,

repeated on the residuals r1, r2 of the uncondensed system. One pass alone solves the system with -gamma I in its lower
right corner; every further pass is a step of the method of multipliers on the linear system, which also removes the
rounding errors that 1/gamma brings. M is positive definite exactly when the regularised matrix has inertia
(n, m, 0), so Cholesky's failure is the inertia test and nothing is pivoted.

H and A^T A are extracted apart, by the same probes on one linearisation: gamma follows from their sizes, and an entry
of H outside the band would not show beside A^T A / gamma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.tolerances import GAMMA, NULL, PASSES, POOR, SHIFTS, dependent_rows

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.storage import matvec
from ...band.structures import diagonal, shifted
from ...extraction.bandwidth import too_narrow
from ...extraction.products import Extraction, extract
from ...framework.fusion import materialise, tidy
from ...linalg.solve import Factor, factor

Functions = Callable[[Array], tuple[Array, Array, Array]]  # x -> f, c (equalities), g (inequalities)


def only_if(wanted: Array, fun: Callable[[], Array], otherwise: Array) -> Array:
    """`fun()` where wanted. A loop of one turn: under vmap it runs only if some lane wants it, where `cond` always
    would."""
    return lax.while_loop(lambda s: s[0], lambda _: (jnp.bool_(False), fun()), (wanted, otherwise))[1]


class Linearisation(NamedTuple):
    """f, c, g at x and the first and second derivatives of L = f + y^T c - z^T g, from one evaluation."""

    value: Array
    grad: Array  # of L
    grad_f: Array
    c: Array
    g: Array
    push: Callable[[Array], tuple[Array, Array, Array, Array]]  # v -> W v, A v, B v, grad_f . v
    pull: Callable[[Array, Array], Array]  # u, w -> A^T u + B^T w

    @property
    def finite(self) -> Array:
        parts = (self.value, self.grad, self.c, self.g)
        return jnp.stack([jnp.isfinite(part).all() for part in parts]).all()


def linearise(functions: Functions, x: Array, y: Array, z: Array) -> Linearisation:
    def derivatives(x: Array) -> tuple[Array, Array, Array, Array]:
        def lagrangian(x: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            f, c, g = functions(x)
            return f + y @ c - z @ g, (f, c, g)

        grad, (f, c, g) = jax.grad(lagrangian, has_aux=True)(x)
        return grad, c, g, f

    (grad, c, g, f), push = tidy(lambda x: jax.linearize(derivatives, x), x)(x)
    transposed = jax.linear_transpose(lambda v: push(v)[1:3], x)

    def pull(u: Array, w: Array) -> Array:
        return transposed((u, w))[0]

    return Linearisation(f, grad, grad - pull(y, -z), c, g, push, pull)


class Bands(NamedTuple):
    """H (without shift) and A^T A, with zeros for held variables (dummies and fixed ones), and their sizes."""

    h: Array
    a: Array
    held: Array
    size_w: Array  # of W, root mean square of W v
    size_a: Array  # of A^T A, mean of its diagonal

    @property
    def gamma(self) -> Array:
        return GAMMA[self.h.dtype.name] * self.size_a / self.size_w


def extract_bands(
    push: Callable[[Array], tuple],
    pull: Callable[[Array, Array], Array],
    sigma: Array,
    held: Array,
    layout: Layout,
    extraction: Extraction,
    check: Array,
    context: tuple[int, Array, Array],
) -> tuple[Bands, Array]:
    """The bands, for barrier weights sigma of the inequalities, and (where `check`) whether they are too narrow.

    push and pull are the products of a `Linearisation`; context is (m, grad f, x).
    """
    m, grad_f, x = context
    dtype = layout.dtype

    def hessian(v: Array) -> Array:
        Wv, Av, Bv, *_ = push(v)
        return Wv + pull(jnp.zeros_like(Av), sigma * Bv) if len(sigma) else Wv

    def gram(v: Array) -> Array:
        _, Av, Bv, *_ = push(v)
        return pull(Av, jnp.zeros_like(Bv))

    def band(product: Callable[[Array], Array]) -> Array:
        ab = extract(product, layout, extraction)
        return shifted(ab, -layout.dummies()) if layout.ragged else ab

    h = band(hessian)
    a = band(gram) if m else jnp.zeros_like(h)
    noise = hash_noise(x, 1) * (1 - held)
    # In memory: XLA would fuse the product into the sum of its squares, entry by entry.
    curved = materialise(lambda v: push(v)[0] if len(sigma) else matvec(h, v), noise)
    size_w = jnp.linalg.norm(curved) / jnp.linalg.norm(noise)
    # Where the Lagrangian is linear, its gradient over the size of x stands in.
    least = jnp.finfo(dtype).eps ** 0.25 * largest(grad_f) / jnp.maximum(1, largest(x))
    size_w = jnp.maximum(size_w, least)
    size_w = jnp.where(size_w > 0, size_w, 1)
    size_a = jnp.mean(diagonal(a))
    size_a = jnp.where(size_a > 0, size_a, size_w)
    level = size_w / size_a  # puts both bands on one scale

    def narrow() -> Array:
        return too_narrow(lambda v: hessian(v) + level * gram(v), h + level * a)

    return Bands(h, a, held, size_w, size_a), only_if(check, narrow, jnp.bool_(False))


def factor_shifted(
    bands: Bands, last: Array, step: Callable[[Factor, Array], tuple[Array, Any]], tries: int = SHIFTS
) -> tuple[Factor, Array, Any]:
    """M with the first shift at which it factors and `step(factored, shift) -> (good, parts)` is good: 0, or a third of
    the last one, or eightfold steps from there. Returns factor, shift and parts."""
    m = bands.h + bands.a / bands.gamma
    m = shifted(m, bands.held * bands.size_w)

    def attempt(t: tuple) -> tuple:
        _, shift, count, poor, *_ = t
        factored = factor(shifted(m, (1 - bands.held) * shift))
        good, parts = step(factored, shift)
        first = jnp.where(last > 0, last / 3, 1e-3 * bands.size_w)
        larger = jnp.where(shift > 0, 8 * shift, first)
        return factored, larger, count + 1, poor + factored.ok.astype(jnp.int32), good, shift, parts

    def wanted(t: tuple) -> Array:
        _, _, count, poor, good, *_ = t
        return (count == 0) | (~good & (count < tries) & (poor < POOR))

    zero, none, no = jnp.zeros((), m.dtype), jnp.int32(0), jnp.bool_(False)
    shapes = jax.eval_shape(attempt, (None, zero, none, none, no))
    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    factored, *_, shift, parts = lax.while_loop(wanted, attempt, (empty[0], zero, none, none, no, *empty[5:]))
    return factored, shift, parts


class System(NamedTuple):
    """[[H, A^T], [A, 0]] as products, and the factored M."""

    apply_h: Callable[[Array], Array]
    push: Callable[[Array], Array]  # A v
    pull: Callable[[Array], Array]  # A^T u
    factored: Factor
    gamma: Array
    size_a: Array

    def solve(self, b1: Array, b2: Array, target: Array | float) -> tuple[Array, Array, Array, Array]:
        """dx, dy and what is left of b1 and b2, with H dx + A^T dy = b1 and A dx = b2, to the relative residual target.

        A pass that does not halve the residual is dropped: A is rank-deficient then (the first pass has solved the
        regularised system, which has a solution all the same), or rounding allows no better.
        """
        target = jnp.maximum(target, float(jnp.finfo(b1.dtype).eps) ** 0.75)

        size1, size2 = largest(b1), largest(b2)

        def once(p: _Pass) -> _Pass:
            ex = self.factored.solve(p.r1 - p.force)
            Aex = self.push(ex)
            ey = (Aex - p.r2) / self.gamma
            force = self.pull(ey)
            r1, r2 = p.r1 - self.apply_h(ex) - force, p.r2 - Aex
            forces = p.forces + largest(force)
            unit1 = size1 + forces
            unit2 = size2 + self.size_a**0.5 * largest(p.dx + ex)
            size = jnp.maximum(_ratio(largest(r1), unit1), _ratio(largest(r2), unit2))
            better = (p.taken == 0) | (size <= p.size / 2)
            new = _Pass(p.dx + ex, p.dy + ey, r1, r2, force, forces, size, p.taken, better)
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, p)._replace(taken=p.taken + 1, better=better)

        zero = jnp.zeros((), b1.dtype)
        none, force = jnp.int32(0), self.pull(-b2 / self.gamma)
        start = _Pass(jnp.zeros_like(b1), jnp.zeros_like(b2), b1, b2, force, zero, zero + 1, none, self.factored.ok)
        end = lax.while_loop(lambda p: p.better & (p.taken < PASSES) & (p.size > target), once, start)
        return end.dx, end.dy, end.r1, end.r2

    def correction(self, b1: Array, b2: Array) -> Array:
        """dx alone, unrefined."""
        return self.factored.solve(b1 + self.pull(b2 / self.gamma))

    def null_size(self, like: Array) -> Array:
        """|A^T u| / |u| for nearly the u that A^T shrinks most: I - A M^-1 A^T / gamma leaves null vectors of A^T as
        they are and takes all others to about gamma of their size."""

        def once(_: int, t: tuple[Array, Array]) -> tuple[Array, Array]:
            u = t[0] / jnp.linalg.norm(t[0])
            force = self.pull(u)
            return u - self.push(self.factored.solve(force / self.gamma)), jnp.linalg.norm(force)

        return lax.fori_loop(0, NULL, once, (hash_noise(like, 2), jnp.zeros((), like.dtype)))[1]

    def deficient(self, like: Array) -> Array:
        """True where rows of A are dependent."""
        return self.null_size(like) <= dependent_rows(float(jnp.finfo(like.dtype).eps)) * self.size_a**0.5


class _Pass(NamedTuple):
    dx: Array
    dy: Array
    r1: Array
    r2: Array
    force: Array  # A^T of -r2 / gamma, the last ey
    forces: Array  # bound of A^T dy
    size: Array  # of the residuals, relative
    taken: Array
    better: Array


def largest(a: Array) -> Array:
    return jnp.max(jnp.abs(a), initial=0)


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
