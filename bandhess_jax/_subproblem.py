"""The trust-region subproblem on banded factors: the p of least g^T p + p^T H p / 2 within |p| <= radius.

p = -(H + shift I)^-1 g, with the shift that makes H + shift I positive definite and |p| equal to the radius, or 0
where the Newton step fits (Moré and Sorensen 1983; Conn, Gould, Toint, Trust-Region Methods, section 7.3). The shift
is found by trial: one factorisation each, which fails where H + shift I is not positive definite.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ._bandwidth import hash_noise
from ._solve import factor
from ._storage import matvec

NEAR = 0.03  # how far |p| may be from the radius; at 0.1 the steps along GENROSE's valley hang on rounding
HARD = 0.02  # tolerance of the model where an eigenvector helps; at 0.2 chance picks among local minima


class Proposal(NamedTuple):
    """What one shift gives: p, and what is needed to better the shift where p does not fit the radius."""

    p: Array
    length: Array  # of p before an eigenvector was added, or a cut made
    decrement: Array  # g^T (H + shift I)^-1 g
    radius: Array
    ok: Array  # H + shift I is positive definite
    fits: Array  # p may be tried
    short: Array  # p ends inside the radius though the shift is positive
    curvature: Array  # where it does, of H + shift I along an approximate eigenvector: bounds the least eigenvalue
    secular: Array  # the shift of Newton's method on 1/radius - 1/|p(shift)| = 0


def gershgorin(ab: Array) -> tuple[Array, Array]:
    """Bounds of the spectrum."""
    sums = matvec(jnp.abs(ab.at[0].set(0)), jnp.ones(ab.shape[1], ab.dtype))
    return jnp.min(ab[0] - sums), jnp.max(ab[0] + sums)


def scale_band(ab: Array, scale: Array) -> Array:
    """S H S for a diagonal S `(n,)`."""
    rows, n = ab.shape
    return ab * scale * jnp.stack([jnp.pad(scale[d:], (0, min(d, n))) for d in range(rows)])


def inside(low: Array, high: Array) -> Array:
    """A shift well inside the bracket, nearer its lower end."""
    return jnp.maximum(jnp.sqrt(low * high), low + 0.01 * (high - low))


def dots(*vectors: Array) -> Array:
    """All their inner products, in one call."""
    stacked = jnp.stack(vectors)
    return jnp.matmul(stacked, stacked.T, precision=lax.Precision.HIGHEST)


def propose(
    g: Array, ab: Array, shift: Array, radius: Array, first: Array, clip: Array, free: Array, seed: Array, idle: Array
) -> Proposal:
    """Factorise H + shift I and see where its step leads.

    first: this is the first step of all, and the radius grows to the Newton step. clip: the bracket of the shift is at
    rounding level, so take what there is, cut to the radius. free is 0 on dummy variables, 1 elsewhere; seed that of
    the eigenvector's start. idle: do nothing.
    """
    zero = jnp.zeros_like(g)

    def judge(positive: Array, length: Array) -> tuple[Array, Array, Array, Array]:
        ok = positive & jnp.isfinite(length)
        reach = jnp.where(first & ok, jnp.maximum(radius, length), radius)
        near = (jnp.abs(length - reach) <= NEAR * reach) | ((shift == 0) & (length <= (1 + NEAR) * reach))
        return ok, reach, ok & near, ok & (shift > 0) & (length < (1 - NEAR) * reach)

    # One loop for all solves, so that the program holds one: p; where p is short, two turns of inverse iteration
    # for an approximate eigenvector of the least eigenvalue; and, where p does not fit, the secular derivative.
    def search(_: None) -> tuple:
        factored = factor(ab.at[0].add(shift))

        def solve(carry: tuple) -> tuple:
            k, p, z, q = carry
            y = factored.solve(jnp.where(k == 0, -g, jnp.where(k == 3, p, z)))
            size = jnp.linalg.norm(y)
            p, q = jnp.where(k == 0, y, p), jnp.where(k == 3, y, q)
            z = jnp.where((k == 1) | (k == 2), y / size, z)
            ok, _, near, short = judge(factored.ok, size)
            return jnp.where(k > 0, k + 1, jnp.where(near | ~ok, 4, jnp.where(short, 1, 3))), p, z, q

        start = (jnp.where(factored.ok, 0, 4), zero, hash_noise(g, seed) * free, zero)
        return factored.ok, *lax.while_loop(lambda carry: carry[0] < 4, solve, start)[1:]

    positive, p, z, q = lax.cond(idle, lambda _: (jnp.bool_(False), zero, zero, zero), search, None)
    (_, gp, _, _), (_, pp, pz, pq), _, _ = dots(g, p, z, q)
    length, decrement = jnp.sqrt(pp), -gp
    ok, radius, near, short = judge(positive, length)

    secular = shift + (length / radius - 1) * length**2 / pq
    curvature = jnp.where(short, z @ matvec(ab, z) + shift, 0)
    # The tau of smaller size with |p + tau z| = radius.
    room = jnp.maximum(radius**2 - pp, 0)
    tau = room / (pz + jnp.where(pz < 0, -1, 1) * jnp.sqrt(pz**2 + room))
    hard = short & (tau**2 * curvature <= HARD * (shift * radius**2 + decrement))
    cut = jnp.where(clip & ~hard, jnp.minimum(1, radius / length), 1)
    p = cut * p + jnp.where(hard, tau, 0) * z
    return Proposal(p, length, decrement, radius, ok, ok & (near | hard | clip), short, curvature, secular)
