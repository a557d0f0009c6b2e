"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there.

With L = f + y^T c - z^T G, the conditions grad L = 0, c = 0, mu / z - G = 0 have the symmetric Jacobian

        [  W   A^T  -B^T ]      W: Hessian of L         D = mu / z^2 = G / z
    K = [  A    0     0  ]      A: Jacobian of c
        [ -B    0    -D  ]      B: Jacobian of G

mu is what z G has come to. K is solved by `condensed.py`: a factorisation of M = W + A^T A / gamma +
B^T (D + gamma_b)^-1 B, which belongs to the matrix with -gamma and -gamma_b added on its lower right, and passes of
refinement, which remove them again. Without gamma_b the entries of D, of rounding size where an inequality is active,
would divide rounding errors.

Active rows may depend on each other: N^T (A, B) = 0 for the active rows of B, whose D is 0. Then K has no inverse, but
K v = b has solutions where b has no part along N, x is the same in all of them, and the passes converge to one: each
takes from b what M reaches, and adds nothing along N. A part along N stays, and each pass divides it by gamma anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.tolerances import GAMMA, REFINEMENTS

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...extraction.products import Extraction
from ...linalg.solve import factor
from ..solved import nan_unless
from .condensed import Bands, Functions, extract_bands, largest

Triple = tuple[Array, Array, Array]


def conditions(functions: Functions, held: Array, resting: Array, active: Array, v: tuple) -> tuple:
    """Zero at a solution v = (x, y, z, y, z), as a function of all that v depends on. K is its Jacobian by the first
    three, with 1 on the diagonal for a held variable and -1 for an entry of G that bounds nothing. The other two are
    the multipliers as results show them."""
    x, y, z, y_shown, z_shown = v
    (_, c, g), pull = jax.vjp(functions, x)
    mu = lax.stop_gradient(z * g)
    bounding = active & (z > 0)
    gap = jnp.where(bounding, mu / jnp.where(bounding, z, 1) - g, -z)
    return pull((jnp.ones((), x.dtype), y, -z))[0] + held * (x - resting), c, gap, y_shown - y, z_shown - z


class Refinement(NamedTuple):
    """The solve with K on its way."""

    v: Array
    r: Array  # what is left of b
    size: Array  # of the last correction, in units of force
    largest: Array  # of the sizes so far
    passes: Array
    better: Array


class System(NamedTuple):
    """K at a solution, and what solves with it: constants to derivatives, which go through K v."""

    product: Callable[[Triple], Triple]
    tight: Array  # 1 for a row of G that is an equality, to rounding: without its entry of D
    d: Array  # D + gamma_b
    entries: Array  # of D, where they are left out
    bands: Bands
    factored: Any
    m: int

    @classmethod
    def of(cls, layout: Layout, extraction: Extraction, held: Array, product: Callable, m: int, rows: int) -> System:
        none_x, none_y, none_z = jnp.zeros_like(held), jnp.zeros(m, held.dtype), jnp.zeros(rows, held.dtype)

        def push(v: Array) -> Triple:
            Wv, Av, minus_Bv = product((v, none_y, none_z))
            return Wv - held * v, Av, -minus_Bv

        def pull(u: Array, w: Array) -> Array:
            return product((none_x, u, -w))[0]

        D = -product((none_x, none_y, jnp.ones_like(none_z)))[2]
        tight, d = regular(push, D, held)
        bands = extract_bands(push, pull, 1 / d, held, m, layout, extraction)
        return cls(product, tight, d, tight * D, bands, factor(bands.condensed), m)

    def split(self, v: Array) -> Triple:
        n = len(self.bands.held)
        return v[:n], v[n : n + self.m], v[n + self.m :]

    def correct(self, r: Array) -> tuple[Array, Array, Array]:
        """e with K e = r, nearly; what is left of r; and the size of e."""
        bands, (r1, r2, r3) = self.bands, self.split(r)
        none_x, none_y, none_z = map(jnp.zeros_like, self.split(r))
        unit = jnp.where(bands.held > 0, bands.size_w, 1)  # M has this on the diagonal, and K 1
        ex = self.factored.solve(unit * r1 + self.product((none_x, r2 / bands.gamma, r3 / self.d))[0])
        _, Aex, minus_Bex = self.product((ex, none_y, none_z))
        ey, ez = (Aex - r2) / bands.gamma, (minus_Bex - r3) / self.d
        Ke1, Ke2, Ke3 = self.product((ex, ey, ez))
        size = largest(jnp.stack([bands.size_w * largest(ex), bands.size_a**0.5 * largest(ey), largest(ez)]))
        return jnp.concatenate([ex, ey, ez]), r - jnp.concatenate([Ke1, Ke2, Ke3 + self.entries * ez]), size

    def solve(self, b: Array) -> Array:
        """v with K v = b. NaN where M is not positive definite, or the passes do not converge, as where b has a part
        that dependent rows cannot take; but 0 for b = 0, which is what comes where nothing asks for v."""

        def turn(p: Refinement) -> Refinement:
            e, r, size = self.correct(p.r)
            better = (p.passes == 0) | (size <= p.size / 2)
            v, r = jnp.where(better, p.v + e, p.v), jnp.where(better, r, p.r)
            return Refinement(v, r, size, jnp.maximum(size, p.largest), p.passes + 1, better)

        zero, eps = jnp.zeros((), b.dtype), float(jnp.finfo(b.dtype).eps)
        start = Refinement(jnp.zeros_like(b), b, zero + 1, zero, jnp.int32(0), jnp.any(b != 0))
        end = lax.while_loop(lambda p: p.better & (p.size > eps * p.largest) & (p.passes < REFINEMENTS), turn, start)
        found = (end.passes == 0) | (end.size <= eps**0.25 * end.largest)
        return jnp.where(found, end.v, jnp.nan)

    def undetermined(self) -> Array:
        """Which of (y, z) are not unique: what is left there of numbers without a pattern, which rows that do not
        depend on each other take whole."""
        n, dtype = len(self.bands.held), self.d.dtype
        noise, least = hash_noise(jnp.zeros(self.m + len(self.d), dtype), 2), float(jnp.finfo(dtype).eps) ** 0.25

        def is_left(p: tuple[Array, Array]) -> Array:
            return (p[1] < REFINEMENTS) & (largest(p[0][n:]) > least)

        start = jnp.concatenate([jnp.zeros_like(self.bands.held), noise]), jnp.int32(0)
        r, _ = lax.while_loop(is_left, lambda p: (self.correct(p[0])[1], p[1] + 1), start)
        return ~(jnp.abs(r[n:]) <= least)


def implicit_solve(layout: Layout, extraction: Extraction, held: Array, jacobian: Callable, b: tuple) -> tuple:
    """v with the Jacobian of `conditions` times v = b. The parts that results show are NaN where multipliers are not
    unique; the others, which derivatives of higher order go through, are then one choice of many."""
    n, m = len(b[0]), len(b[1])
    if n == 0:  # no multipliers are better than others
        y, z = (nan_unless(jnp.bool_(False), part) for part in b[1:3])
        return b[0], y, z, b[3] + y, b[4] + z

    def product(v: Triple) -> Triple:
        return jacobian((*v, *v[1:]))[:3]

    # The solver is a constant: derivatives go through K v.
    system = System.of(layout, extraction, held, lambda v: lax.stop_gradient(product(v)), m, len(b[2]))

    # One vector, not three: custom_linear_solve cannot transpose where nothing depends on one of several parts.
    def flat_product(v: Array) -> Array:
        x, y, z = system.split(v)
        minus_D = product((jnp.zeros_like(x), jnp.zeros_like(y), jnp.ones_like(z)))[2]
        Kx, Ky, Kz = product((x, y, z))
        return jnp.concatenate([Kx, Ky, Kz - system.tight * minus_D * z])

    v = lax.custom_linear_solve(flat_product, jnp.concatenate(b[:3]), lambda _, b: system.solve(b), symmetric=True)

    def unique(_: Callable, u: Array) -> Array:
        return jnp.where(system.undetermined() & jnp.any(u != 0), jnp.nan, u)

    def identity(u: Array) -> Array:
        """By K in name, for JAX (0.10) cannot differentiate a solve whose solver alone reads what moves."""
        return u + 0 * flat_product(jnp.concatenate([jnp.zeros_like(b[0]), u]))[n:]

    # Cotangents pass as they are: for those of what is not unique the solve with K does not converge.
    u = jnp.concatenate([b[3], b[4]]) + v[n:]
    shown = lax.custom_linear_solve(identity, u, unique, lambda _, u: u)
    return *system.split(v), shown[:m], shown[m:]


def regular(push: Callable[[Array], Triple], d: Array, held: Array) -> tuple[Array, Array]:
    """Which rows of G are equalities, and D + gamma_b without their entries of D; gamma_b is to |B|^2 / |W| as gamma is
    to |A|^2 / |W|.

    A row is one where its entry of D is small against its own |B|^2 / |W|: the barrier has left it between 0 and that.
    Where active rows depend on each other, the passes of refinement would share out b among their multipliers as D
    says, and take gamma / D of them."""
    noise = hash_noise(held, 1)
    noise = (noise + jnp.sign(noise)) / 2 * (1 - held)  # nowhere next to 0
    Wv, _, Bv = push(noise)
    length, size_w = jnp.linalg.norm(noise), jnp.linalg.norm(Wv)
    weight = length / jnp.where(length * size_w > 0, size_w, 1)
    tight = d < float(jnp.finfo(d.dtype).eps) ** 0.25 * weight * Bv**2
    gamma_b = GAMMA[d.dtype.name] * (Bv @ Bv) * weight / jnp.where(length > 0, length**2, 1)
    return tight.astype(d.dtype), jnp.where(tight, 0, jnp.maximum(d, 0)) + gamma_b
