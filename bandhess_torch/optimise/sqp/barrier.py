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

import torch
from torch import Tensor

MU_START = 0.1
SLACK = 0.01  # least slack of an inequality at the start
MULTIPLIER_RANGE = 1e10  # z stays within this factor of mu / s


class Barrier(NamedTuple):
    """What the barrier adds to one step: weights, and the right-hand side's part in the space of G."""

    s: Tensor
    z: Tensor
    r: Tensor  # G(x) - s
    mu: Tensor  # per entry: 0 where inactive

    @property
    def sigma(self) -> Tensor:
        return self.z / self.s

    @property
    def force(self) -> Tensor:
        return self.z - self.mu / self.s + self.sigma * self.r

    def slack_step(self, Bdx: Tensor) -> Tensor:
        return Bdx + self.r

    def multiplier_step(self, ds: Tensor) -> Tensor:
        return self.mu / self.s - self.z - self.sigma * ds


def to_boundary(v: Tensor, dv: Tensor, keep: float) -> float:
    """The largest step length <= 1 that leaves each entry of v its (1 - keep)th part."""
    falling = dv < 0
    return min(1.0, float((-keep * v[falling] / dv[falling]).min())) if falling.any() else 1.0


def clip_multipliers(z: Tensor, s: Tensor, mu: Tensor) -> Tensor:
    return torch.clamp(z, mu / (MULTIPLIER_RANGE * s), MULTIPLIER_RANGE * mu / s)


def next_mu(mu: float, error: Callable[[float], float], least: float) -> float:
    """mu, lowered as often (twice at most) as the barrier problem's error allows."""
    for _ in range(2):
        if error(mu) <= 10 * mu:
            mu = max(least, min(0.2 * mu, mu**1.5))
    return mu
