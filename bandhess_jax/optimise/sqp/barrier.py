"""Bounds and inequalities for `sqp`: G(x) >= 0 with slacks s > 0 and multipliers z > 0, by a primal-dual barrier.

G(x) = (x - lower, upper - x, inequalities(x)), each part where it exists; entries without a finite bound are constant
1 with s = 1, z = 0, and take no part. The barrier problem min f - mu sum log s, c(x) = 0, G(x) - s = 0 has the Newton
step, with B the Jacobian of G, r = G(x) - s and Sigma = diag(z / s),

    (W + B^T Sigma B) dx + A^T dy = -(grad L + B^T (z - mu / s + Sigma r)),   A dx = -c,
    ds = B dx + r,   dz = mu / s - z - Sigma ds

so that slacks and their multipliers are eliminated and the band stays as it was. The rules for mu and the distance to
the boundary are IPOPT's (Wächter and Biegler 2006), whose numbers they use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

MU_START = 0.1
SLACK = 0.01  # least slack of an inequality at the start
MULTIPLIER_RANGE = 1e10  # z stays within this factor of mu / s


class Barrier(NamedTuple):
    """What the barrier adds to one step: weights, and the right-hand side's part in the space of G."""

    s: Array
    z: Array
    r: Array  # G(x) - s
    mu: Array  # per entry: 0 where inactive

    @property
    def sigma(self) -> Array:
        return self.z / self.s

    @property
    def force(self) -> Array:
        return self.z - self.mu / self.s + self.sigma * self.r

    def slack_step(self, Bdx: Array) -> Array:
        return Bdx + self.r

    def multiplier_step(self, ds: Array) -> Array:
        return self.mu / self.s - self.z - self.sigma * ds


def to_boundary(v: Array, dv: Array, keep: Array) -> Array:
    """The largest step length <= 1 that leaves each entry of v its (1 - keep)th part."""
    return jnp.min(jnp.where(dv < 0, -keep * v / jnp.where(dv < 0, dv, 1), 1), initial=1)


def clip_multipliers(z: Array, s: Array, mu: Array) -> Array:
    return jnp.clip(z, mu / (MULTIPLIER_RANGE * s), MULTIPLIER_RANGE * mu / s)


def next_mu(mu: Array, error: Callable[[Array], Array], least: Array) -> Array:
    """mu, lowered as often (twice at most) as the barrier problem's error allows."""
    for _ in range(2):
        lower = jnp.maximum(least, jnp.minimum(0.2 * mu, mu**1.5))
        mu = jnp.where(error(mu) <= 10 * mu, lower, mu)
    return mu
