"""A point of the trust-region method: the derivatives there, in the loop's variables x / scale, and what they tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bandhess_common.stopping import LOST, UNSURE

from ...band.stages import Layout
from ...band.structures import diagonal, magnitude, matvec, shifted
from ...band.structures import product as times
from ...band.structures import scaled as scaled_band
from ...extraction.bandwidth import too_narrow
from ...extraction.products import LONG
from ...framework.guard import guarded
from ...framework.kept import Program
from ...framework.recorder import Recorder, recordable
from ...framework.tape import Tape

# At which point derivatives are written down, which costs what some nine points by the tape save, so that it pays where
# as many come again; of long vectors, whose diagonals are Python's work, two.
VISIT, EARLY = 14, 3


class Options(NamedTuple):
    layout: Layout
    width: int  # rows of the band
    scale: str  # "none", "diagonal", "given"
    tol: float
    max_steps: int
    max_seconds: float
    check_band: bool
    history: bool

    @property
    def eps(self) -> float:
        return torch.finfo(self.layout.dtype).eps

    @property
    def tiny(self) -> float:
        return torch.finfo(self.layout.dtype).tiny


class Functions(NamedTuple):
    """All that the loop sees of the objective, on the ravelled vector."""

    value: Callable[[Tensor], Tensor]
    derivatives: Callable[[Tensor], tuple]  # x -> (value, grad, product; None where the band is given)
    band: Callable[[Tensor, Callable], Any]  # (x, product) -> ab
    parts: list[Callable]  # the user's own, of which these are made
    held: list[Tensor]  # what they take beside x
    key: Hashable  # and what else


class Point(NamedTuple):
    """An iterate, and what is known there of the loop's variables, x / scale."""

    x: Tensor
    value: float
    grad: Tensor
    ab: Any  # H, less UNSURE eps of its diagonal: what is positive definite then, is so in spite of rounding
    scale: Tensor | None  # (n,), powers of two
    grad_length: float  # |g|
    length: float  # |x|
    grad_norm: float  # max|g|
    least: float  # the least diagonal entry of H
    low: float  # Gershgorin's bounds of the spectrum
    high: float
    rounding: float  # size of the gradient's rounding errors, eps |H| |x|, at its largest
    product: Callable[[Tensor], Tensor]  # v -> H v: by derivatives where they are known, more exact than the band
    wide: Callable[[], bool]  # has the Hessian entries outside the band?

    @property
    def norm(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def report(self) -> float:
        """max|g|, not scaled."""
        return self.grad_norm if self.scale is None else float((self.grad / self.scale).abs().max())

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.grad_norm) and math.isfinite(self.norm)

    def bracket(self, radius: float) -> tuple[float, float]:
        """Bounds of the shift."""
        wanted = self.grad_length / radius
        low = max(0.0, -self.least, wanted - self.norm)
        return low, max(low, wanted + max(0.0, -self.low))

    def moved(self, p: Tensor) -> Tensor:
        """x after a step p in the loop's variables."""
        return self.x + (p if self.scale is None else self.scale * p)


def _power_of_two(x: Tensor) -> Tensor:
    """The power of two next above x > 0: scaling by it rounds nothing."""
    return x / torch.frexp(x).mantissa


def _units(options: Options, ab: Any, scale: Tensor | None, old: Tensor | None) -> Tensor:
    """Sizes of the variables: those given, or the smallest |H[j, j]|^(-1/2) met (Moré 1978)."""
    if scale is not None:
        dummies = options.layout.dummies() if options.layout.ragged else None
        return _power_of_two(scale if dummies is None else torch.where(dummies > 0, 1, scale))
    sizes = diagonal(ab).abs()
    sizes = sizes.clamp(min=options.eps**0.5 * float(sizes.max()))
    units = torch.where(sizes > 0, sizes, 1) ** -0.5
    return _power_of_two(units if old is None else torch.minimum(units, old))


class Measured(NamedTuple):
    """What a point is made of, as tensors."""

    facts: Tensor  # (8,): f, |g|, |x|, max|g|, less the least diagonal entry, Gershgorin's bounds, rounding
    grad: Tensor
    raw: Any  # H, not scaled
    lowered: Any  # H in the loop's variables, less what rounding may have added
    units: Tensor | None


Product = Callable[[Tensor], Tensor]


def _measure(
    options: Options, functions: Functions, scale: Tensor | None, x: Tensor, old: Tensor | None
) -> tuple[Measured, Product]:
    value, grad, product = functions.derivatives(x)
    raw = functions.band(x, product)
    dummies = options.layout.dummies() if options.layout.ragged else None
    if dummies is not None:
        raw = shifted(raw, -dummies * diagonal(raw))
    units, ab, in_units = None, raw, x
    if options.scale != "none":
        units = _units(options, raw, scale, old)
        grad, ab, in_units = units * grad, scaled_band(raw, units), x / units
    absolute, centres = magnitude(ab), diagonal(ab)
    sums, noise = times(absolute, torch.stack([torch.ones_like(x), options.eps * in_units.abs()]).mT).unbind(1)
    radii = sums - centres.abs()  # of Gershgorin's discs
    largest = torch.stack([grad.abs(), -centres, radii - centres, radii + centres, noise]).amax(1)
    lengths = torch.linalg.vector_norm(torch.stack([grad, in_units]), dim=1)
    doubt = -UNSURE * options.eps * centres.abs()
    if dummies is not None:
        # Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
        norm = largest[2:4].abs().amax()
        doubt = doubt + torch.where(norm > 0, norm, 1) * dummies
    facts = torch.cat([value[None], lengths, largest])
    return Measured(facts, grad, raw, shifted(ab, doubt), units), product


def _point(options: Options, x: Tensor, found: Measured, product: Product | None) -> Point:
    facts, grad, raw, lowered, units = found
    f, grad_length, length, grad_norm, least, low, high, rounding = facts.tolist()  # one wait for the device

    def scaled_product(v: Tensor) -> Tensor:
        if product is None:
            return matvec(raw if units is None else scaled_band(raw, units), v)
        return product(v) if units is None else units * product(units * v)

    def wide() -> bool:
        return options.check_band and product is not None and bool(too_narrow(product, raw))

    numbers = grad_length, length, grad_norm, -least, -low, high, rounding
    return Point(x, f, grad, lowered, units, *numbers, scaled_product, wide)


class Visits:
    """Makes points, by autograd at first, then by a tape (`framework/tape.py`), as long as that gives the f(x) that is
    known of a trial point to the last bit: a function that does not do the same each time is left to autograd."""

    def __init__(self, options: Options, functions: Functions, scale: Tensor | None, program: Program) -> None:
        """scale `(n,)`: the sizes of the variables, where the user gave them."""
        self.options, self.functions, self.scale, self.program = options, functions, scale, program
        self.count = 0

    def _value(self, x: Tensor) -> list[Tensor]:
        return [self.functions.value(x)]

    def __call__(self, x: Tensor, old: Tensor | None = None, value: float = math.nan) -> Point:
        """The point x `(n,)`; old are the sizes at the point before, value is f(x) where that is known."""
        self.count += 1
        if self.count == 1:
            known = self.program.check(self._value, x, self.functions.held)
            value = math.nan if known is None else float(known[0])
        tape = self.program.tapes.get("point")
        if tape is not None:
            point = self._again(tape, x)
            if point.value == value:
                return point
            self.program.forget()
        measure = partial(_measure, self.options, self.functions, self.scale, x, old)
        if not self._now(len(x)):
            return _point(self.options, x, *measure())
        self.program.guard_by(guarded(self._value, x, self.functions.held)[0])
        with Recorder() as recorder:
            found, product = measure()
        leaves, self.program.common = tree_flatten(found)
        self.program.write("point", recorder, [x], leaves, self.functions.held)
        return _point(self.options, x, found, product)

    def _now(self, n: int) -> bool:
        """Whether to write down."""
        if self.options.scale == "diagonal" or "point" in self.program.tapes or not recordable():
            return False
        return self.program.writes("point") or self.count == (VISIT if n < LONG else EARLY)

    def _again(self, tape: Tape, x: Tensor) -> Point:
        made: list[Product] = []

        def product(v: Tensor) -> Tensor:
            """H v, for the rare case that it is asked for."""
            if not made:
                made.append(self.functions.derivatives(x)[2])
            return made[0](v)

        return _point(self.options, x, tree_unflatten(tape(x), self.program.common), product)


def soft(options: Options, point: Point) -> float:
    """Less curvature than this is lost to rounding."""
    return max(LOST * options.eps * point.norm, options.tiny)
