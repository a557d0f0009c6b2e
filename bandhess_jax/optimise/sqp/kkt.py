"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there.

With L = f + y^T c - z^T G, the conditions grad L = 0, c = 0, mu / z - G = 0 have the symmetric Jacobian

        [  W   A^T  -B^T ]      W: Hessian of L         D = mu / z^2 = G / z
    K = [  A    0     0  ]      A: Jacobian of c
        [ -B    0    -D  ]      B: Jacobian of G

mu is what z G has come to. K is solved by `condensed.py`: a factorisation of M = W + A^T A / gamma +
B^T (D + gamma_b)^-1 B, which belongs to the matrix with -gamma and -gamma_b added on its lower right, and passes of
refinement, which remove them again. Without gamma_b the entries of D, of rounding size where an inequality is active,
would divide rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.tolerances import GAMMA, REFINEMENTS

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...extraction.products import Extraction
from ...linalg.solve import factor
from .condensed import Functions, extract_bands, largest

Triple = tuple[Array, Array, Array]


def conditions(functions: Functions, held: Array, resting: Array, active: Array, v: Triple) -> Triple:
    """Zero at a solution v = (x, y, z), as a function of all that v depends on. K is its Jacobian, with 1 on the
    diagonal for a held variable and -1 for an entry of G that bounds nothing."""
    x, y, z = v
    (_, c, g), pull = jax.vjp(functions, x)
    mu = lax.stop_gradient(z * g)
    bounding = active & (z > 0)
    gap = jnp.where(bounding, mu / jnp.where(bounding, z, 1) - g, -z)
    return pull((jnp.ones((), x.dtype), y, -z))[0] + held * (x - resting), c, gap


class Refinement(NamedTuple):
    """The solve with K on its way."""

    v: Array
    r: Array  # what is left of b
    size: Array  # of the last correction, in units of force
    largest: Array  # of the sizes so far
    passes: Array
    better: Array


def implicit_solve(
    layout: Layout, extraction: Extraction, held: Array, kkt: Callable[[Triple], Triple], b: Triple
) -> Triple:
    """v with K v = b, kkt being v -> K v. NaN where M is not positive definite, or the passes do not converge."""
    n, m = len(b[0]), len(b[1])
    if n == 0:  # no multipliers are better than others
        return b[0], jnp.nan * b[1], jnp.nan * b[2]
    none_x, none_y, none_z = (jnp.zeros_like(part) for part in b)

    def fixed(x: Array, y: Array, z: Array) -> Triple:  # the solver is a constant: derivatives go through K v
        return lax.stop_gradient(kkt((x, y, z)))

    def split(v: Array) -> Triple:
        return v[:n], v[n : n + m], v[n + m :]

    def push(v: Array) -> Triple:
        Wv, Av, minus_Bv = fixed(v, none_y, none_z)
        return Wv - held * v, Av, -minus_Bv

    def pull(u: Array, w: Array) -> Array:
        return fixed(none_x, u, -w)[0]

    d = regular(push, -fixed(none_x, none_y, jnp.ones_like(none_z))[2], held)
    bands = extract_bands(push, pull, 1 / d, held, m, layout, extraction)
    factored = factor(bands.condensed)
    unit = jnp.where(held > 0, bands.size_w, 1)  # M has this on the diagonal, and K 1

    def correct(p: Refinement) -> Refinement:
        r1, r2, r3 = split(p.r)
        ex = factored.solve(unit * r1 + pull(r2 / bands.gamma, -r3 / d))
        _, Aex, Bex = push(ex)
        e = (ex, (Aex - r2) / bands.gamma, -(r3 + Bex) / d)
        Ke = fixed(*e)
        size = largest(jnp.stack([bands.size_w * largest(ex), bands.size_a**0.5 * largest(e[1]), largest(e[2])]))
        better = (p.passes == 0) | (size <= p.size / 2)
        v, r = jnp.where(better, p.v + jnp.concatenate(e), p.v), jnp.where(better, p.r - jnp.concatenate(Ke), p.r)
        return Refinement(v, r, size, jnp.maximum(size, p.largest), p.passes + 1, better)

    def solve(_: Callable, b: Array) -> Array:
        zero, eps = jnp.zeros((), b.dtype), float(jnp.finfo(b.dtype).eps)
        start = Refinement(jnp.zeros_like(b), b, zero + 1, zero, jnp.int32(0), jnp.bool_(True))
        end = lax.while_loop(lambda p: p.better & (p.size > eps * p.largest) & (p.passes < REFINEMENTS), correct, start)
        return jnp.where(end.size <= eps**0.25 * end.largest, end.v, jnp.nan)

    # One vector, not three: custom_linear_solve cannot transpose where nothing depends on one of several parts.
    def product(v: Array) -> Array:
        return jnp.concatenate(kkt(split(v)))

    return split(lax.custom_linear_solve(product, jnp.concatenate(b), solve, symmetric=True))


def regular(push: Callable[[Array], Triple], d: Array, held: Array) -> Array:
    """D + gamma_b, with gamma_b to |B|^2 / |W| as gamma is to |A|^2 / |W|."""
    noise = hash_noise(held, 1) * (1 - held)
    Wv, _, Bv = push(noise)
    size_w, size_b = jnp.linalg.norm(Wv) * jnp.linalg.norm(noise), Bv @ Bv
    gamma_b = GAMMA[d.dtype.name] * size_b / jnp.where(size_w > 0, size_w, 1)
    return jnp.maximum(d, 0) + gamma_b
