"""The trust-region subproblem on banded factors: the p of least g^T p + p^T H p / 2 within |p| <= radius.

p = -(H + shift I)^-1 g, with the shift that makes H + shift I positive definite and |p| equal to the radius, or 0
where the Newton step fits (Moré and Sorensen 1983; Conn, Gould, Toint, Trust-Region Methods, section 7.3). The shift
is found by trial: one factorisation each, which fails where H + shift I is not positive definite.

On a CPU the compiled kernel searches (`bandhess_common/kernels/trust_region.h`), by the same algorithm.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandhess_common.trust_region import GROW, HARD, NEAR, TRIES

from ...band.structures import Structure, shifted
from ...framework.kernels import kernel
from ...linalg import solve as solver


class Query(NamedTuple):
    """What is asked."""

    radius: float
    shift: float  # tried first
    low: float  # the wanted shift lies between these two
    high: float
    guess: float  # tried where H + shift I is not positive definite
    soft: float  # less curvature than this counts as none
    enough: float  # g^T (H + shift I)^-1 g / 2 not worth a step, where the gradient is small; else negative
    grow: bool  # where the first shift serves, the radius grows to its step


class Answer(NamedTuple):
    """What is found: p is apart."""

    radius: float
    shift: float
    length: float  # of -(H + shift I)^-1 g
    bend: float  # p^T (H + shift I)^-1 p of that step: what `secular` needs
    size: float  # |p|, an eigenvector added or a cut made
    slope: float  # g^T p
    predicted: float  # the model's decrease
    found: bool  # p may be tried
    settled: bool  # H + soft I is positive definite, and its step not worth making


def inside(low: float, high: float) -> float:
    """A shift well inside the bracket, nearer its lower end."""
    return max(math.sqrt(low * high), low + 0.01 * (high - low))


def secular(shift: float, length: float, bend: float, radius: float) -> float:
    """The next shift by Newton's method on 1/radius - 1/|p(shift)| = 0."""
    return shift + (length / radius - 1) * length * length / bend if bend else math.nan


class _Shifted:
    """H + shift I and its factor."""

    def __init__(self, ab: Any) -> None:
        self.ab = ab

    def factorise(self, shift: float) -> bool:
        self.factor = solver.factor(shifted(self.ab, shift))
        return bool(self.factor.ok)

    def solve(self, b: Tensor) -> Tensor:
        return self.factor.solve(b)

    def energy(self, b: Tensor) -> float:
        return float(b @ self.factor.solve(b))


def minimise_model(g: Tensor, ab: Any, start: Tensor, query: Query) -> tuple[Tensor, Answer]:
    """`(p, Answer)` for g, start `(n,)` and H of order n; start is where an eigenvector is looked for."""
    if isinstance(ab, Structure) or ab.device.type != "cpu" or solver.partitioned(ab):
        return _search(g, ab, start, query)
    numbers = torch.tensor([*query, 0], dtype=ab.dtype, device="cpu")  # the last: nothing is asked
    p, answer = kernel("subproblem", _search_packed, g, ab, start, numbers)
    facts = Answer(*answer.tolist())
    return p, facts._replace(found=bool(facts.found), settled=bool(facts.settled))


def _search_packed(g: Tensor, ab: Tensor, start: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    *query, _ = numbers.tolist()
    p, answer = _search(g, ab, start, Query(*query))
    return p, torch.tensor(answer, dtype=ab.dtype)


def _search(g: Tensor, ab: Any, start: Tensor, query: Query) -> tuple[Tensor, Answer]:
    model = _Shifted(ab)
    radius, shift, low, high, guess, soft, enough, grow = query
    failed, z, warm = False, start, False
    for tries in range(TRIES + 1):
        ok, short, length = model.factorise(shift), False, 0.0
        if ok:
            p = -model.solve(g)
            length = math.sqrt(p @ p)
            ok = math.isfinite(length)
        if ok:
            decrement = -float(g @ p)
            if grow and tries == 0:
                radius = max(radius, length)
            near = abs(length - radius) <= NEAR * radius or (shift == 0 and length <= (1 + NEAR) * radius)
            settled = shift <= soft and decrement / 2 <= enough
            short = shift > 0 and length < (1 - NEAR) * radius
            bend = model.energy(p)
            hard, cut = False, 1.0
            if short and not near and not settled:
                # Inverse iteration, for an approximate eigenvector of the least eigenvalue. Its curvature under
                # H + shift I bounds that.
                for _ in range(1 if warm else 2):
                    y = model.solve(z)
                    square = float(y @ y)
                    curvature = float(z @ y) / square if square else math.nan
                    z = y / math.sqrt(square) if square else y
                warm = True
                # The tau of smaller size with |p + tau z| = radius. To the model it costs curvature tau^2 / 2.
                pz, room = float(p @ z), max(radius * radius - length * length, 0.0)
                root = pz + (-1 if pz < 0 else 1) * math.sqrt(pz * pz + room)
                tau = room / root if root else math.nan
                allowed = HARD * (shift * radius * radius + decrement) / (tau * tau) if tau * tau else math.inf
                hard = curvature <= allowed
            # Many tries are spent: take what there is, cut to the radius; or lengthened to it, where it promises more.
            clip = not (near or settled or hard) and tries >= TRIES // 2
            if clip and short and shift * (radius * radius - length * length) > tau * tau * curvature:
                hard = True
            if near or settled or hard or clip:
                size, twice = length, decrement + shift * length * length
                if hard:
                    p, size = p + tau * z, radius
                    twice = decrement + shift * radius * radius - tau * tau * curvature
                elif clip:
                    cut = min(1.0, radius / length) if length else 1.0
                    p, size = cut * p, cut * length
                    twice = 2 * cut * decrement - cut * cut * (decrement - shift * length * length)
                answer = Answer(radius, shift, length, bend, size, float(g @ p), twice / 2, True, settled)
                return p, answer
        if ok and length < radius:
            high = min(high, shift)
        else:
            low = max(low, shift)
        if short and shift - curvature > low:
            low = shift - curvature
        if not ok and shift >= 0.9999 * high:  # Gershgorin's bound may be attained: never close in on it
            high = 1.1 * max(shift, soft)
        if ok:
            newton = secular(shift, length, bend, radius)
            aim = shift - curvature + allowed / 2 if short else math.nan  # here z should do
            if low < newton < high:
                shift = newton
            elif low < aim < min(shift, high):
                shift = aim
            else:
                shift = inside(low, high)
        elif enough >= 0 and shift < soft:  # a stationary point: is the curvature negative, or merely zero?
            shift = soft
        elif not failed and low < guess < high:
            shift = guess
        else:
            shift = min(GROW * shift, inside(low, high)) if shift > 0 else inside(low, high)
        failed = failed or not ok
        high = max(high, shift)
    return 0 * g, Answer(radius, shift, 0.0, math.nan, 0.0, 0.0, 0.0, False, False)
