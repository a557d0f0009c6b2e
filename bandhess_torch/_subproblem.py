"""The trust-region subproblem on banded factors: the p of least g^T p + p^T H p / 2 within |p| <= radius.

p = -(H + shift I)^-1 g, with the shift that makes H + shift I positive definite and |p| equal to the radius, or 0
where the Newton step fits (Moré and Sorensen 1983; Conn, Gould, Toint, Trust-Region Methods, section 7.3). The shift
is found by trial: one factorisation each, which fails where H + shift I is not positive definite.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._bandwidth import hash_noise
from ._solve import factor
from ._storage import matvec

NEAR = 0.03  # how far |p| may be from the radius; at 0.1 the steps along GENROSE's valley hang on rounding
HARD = 0.02  # tolerance of the model where an eigenvector helps; at 0.2 chance picks among local minima


class Proposal(NamedTuple):
    """What one shift gives: p, and what is needed to better the shift where p does not fit the radius."""

    p: Tensor
    length: float  # of p before an eigenvector was added, or a cut made
    decrement: float  # g^T (H + shift I)^-1 g
    radius: float
    ok: bool  # H + shift I is positive definite
    fits: bool  # p may be tried
    short: bool  # p ends inside the radius though the shift is positive
    curvature: float  # where it does, of H + shift I along an approximate eigenvector: bounds the least eigenvalue
    secular: float  # the shift of Newton's method on 1/radius - 1/|p(shift)| = 0


def norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


def gershgorin(ab: Tensor) -> tuple[float, float]:
    """Bounds of the spectrum."""
    diagonal = ab[0]
    sums = matvec(ab.abs(), torch.ones_like(diagonal)) - diagonal.abs()
    return float((diagonal - sums).min()), float((diagonal + sums).max())


def scale_band(ab: Tensor, scale: Tensor) -> Tensor:
    """S H S for a diagonal S `(n,)`."""
    rows, n = ab.shape
    return ab * scale * torch.stack([pad(scale[d:], (0, min(d, n))) for d in range(rows)])


def inside(low: float, high: float) -> float:
    """A shift well inside the bracket, nearer its lower end."""
    return max(math.sqrt(low * high), low + 0.01 * (high - low))


def propose(
    g: Tensor, ab: Tensor, shift: float, radius: float, first: bool, clip: bool, free: Tensor, seed: int
) -> Proposal:
    """Factorise H + shift I and see where its step leads.

    first: this is the first step of all, and the radius grows to the Newton step. clip: the bracket of the shift is at
    rounding level, so take what there is, cut to the radius. free is 0 on dummy variables, 1 elsewhere; seed that of
    the eigenvector's start.
    """
    factored = factor(torch.cat([ab[:1] + shift, ab[1:]]))
    p = -factored.solve(g)
    length, decrement = norm(p), -float(g @ p)
    ok = bool(factored.ok) and math.isfinite(length)
    if first and ok:
        radius = max(radius, length)
    near = ok and (abs(length - radius) <= NEAR * radius or (shift == 0 and length <= (1 + NEAR) * radius))
    short = ok and shift > 0 and length < (1 - NEAR) * radius
    secular, curvature, hard = math.nan, 0.0, False
    if short:  # two turns of inverse iteration for an approximate eigenvector of the least eigenvalue
        z = hash_noise(g, seed) * free
        for _ in range(2):
            z = factored.solve(z)
            z = z / torch.linalg.vector_norm(z)
        curvature = float(z @ matvec(ab, z)) + shift
        pz, room = float(p @ z), max(radius**2 - length**2, 0.0)
        root = pz + (-1 if pz < 0 else 1) * math.sqrt(pz**2 + room)
        tau = room / root if root else 0.0  # the one of smaller size with |p + tau z| = radius
        hard = tau**2 * curvature <= HARD * (shift * radius**2 + decrement)
    if ok and not (near or hard):
        curve = float(p @ factored.solve(p))
        secular = shift + (length / radius - 1) * length**2 / curve if curve else math.nan
    if hard:
        p = p + tau * z
    elif clip and length:
        p = p * min(1.0, radius / length)
    return Proposal(p, length, decrement, radius, ok, ok and (near or hard or clip), short, curvature, secular)
