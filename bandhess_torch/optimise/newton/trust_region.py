"""The trust-region method as a loop of turns.

A turn solves a subproblem, and then ends, or tries the step: accepting it renews the derivatives, rejecting it shrinks
the radius. Factorisations are cheap beside derivatives, so trial points cost the value only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bandhess_common.status import History, Status, StepInfo

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...band.storage import matvec
from ...band.structures import diagonal, shifted
from ...band.structures import scaled as scaled_band
from ...extraction.bandwidth import too_narrow
from .subproblem import Query, inside, minimise_model, secular

ACCEPT = 0.25  # least ratio of actual to predicted decrease; accepting less lets early steps land far from the valley
CREEP = 32  # so many accepted steps in a row of at most 128 eps |x| end the run: between kinks they may never end


class Options(NamedTuple):
    layout: Layout
    width: int  # rows of the band
    scale: str  # "none", "diagonal", "given"
    tol: float
    max_steps: int
    max_seconds: float
    check_band: bool
    history: bool


class Functions(NamedTuple):
    """All that the loop sees of the objective, on the ravelled vector."""

    value: Callable[[Tensor], Tensor]
    derivatives: Callable[[Tensor], tuple]  # x -> (value, grad, product; None where the band is given)
    band: Callable[[Tensor, Callable], Tensor]  # (x, product) -> ab


class Point(NamedTuple):
    """An iterate, and what is known there of the loop's variables, x / scale."""

    x: Tensor
    value: float
    grad: Tensor
    ab: Tensor
    scale: Tensor | None  # (n,), powers of two
    grad_length: float  # |g|
    length: float  # |x|
    grad_norm: float  # max|g|
    least: float  # the least diagonal entry of H
    low: float  # Gershgorin's bounds of the spectrum
    high: float
    rounding: float  # size of the gradient's rounding errors, eps |H| |x|, at its largest
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


class End(NamedTuple):
    x: Tensor
    value: float
    grad_norm: float
    steps: int
    status: Status
    history: History | None


def _power_of_two(x: Tensor) -> Tensor:
    """The power of two next above x > 0: scaling by it rounds nothing."""
    return x / torch.frexp(x).mantissa


def minimise(options: Options, functions: Functions, x: Tensor, scale: Tensor | None, callback: Callable | None) -> End:
    """From x `(n,)` to the end.

    scale is `(n,)`, the sizes of the variables, where options.scale is "given"; callback is called with a `StepInfo`
    at the start and after every accepted step.
    """
    began = time.perf_counter()
    layout = options.layout
    eps, tiny = torch.finfo(layout.dtype).eps, torch.finfo(layout.dtype).tiny
    dummies = layout.dummies() if layout.ragged else None
    start = hash_noise(x, 0) if dummies is None else hash_noise(x, 0) * (1 - dummies)

    def visit(x: Tensor, old: Tensor | None) -> Point:
        value, grad, product = functions.derivatives(x)
        raw = functions.band(x, product)
        if dummies is not None:
            raw = shifted(raw, -dummies * diagonal(raw))
        units, ab, in_units = None, raw, x
        if options.scale != "none":
            if scale is not None:
                units = scale if dummies is None else torch.where(dummies > 0, 1, scale)
            else:  # the smallest met (Moré 1978)
                sizes = diagonal(raw).abs()
                sizes = sizes.clamp(min=eps**0.5 * float(sizes.max()))
                units = torch.where(sizes > 0, sizes, 1) ** -0.5
                units = units if old is None else torch.minimum(units, old)
            units = _power_of_two(units)
            grad, ab, in_units = units * grad, scaled_band(raw, units), x / units
        absolute = ab.abs()
        sums, noise = matvec(absolute, torch.stack([torch.ones_like(x), eps * in_units.abs()]).mT).unbind(1)
        centres = diagonal(ab)
        radii = sums - centres.abs()  # of Gershgorin's discs
        largest = torch.stack([grad.abs(), -centres, radii - centres, radii + centres, noise]).amax(1)
        lengths = torch.linalg.vector_norm(torch.stack([grad, in_units]), dim=1)
        facts = torch.cat([value[None], lengths, largest]).tolist()  # one wait for the device
        f, grad_length, length, grad_norm, least, low, high, rounding = facts
        if dummies is not None:
            # Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
            ab = shifted(ab, (max(abs(low), abs(high)) or 1.0) * dummies)

        def wide() -> bool:
            return options.check_band and bool(too_narrow(product, raw))

        return Point(x, f, grad, ab, units, grad_length, length, grad_norm, -least, -low, high, rounding, wide)

    rows: list[tuple] = []

    def arrive(step: float, shift: float, ratio: float) -> None:
        if options.history:
            rows.append(History(point.value, point.report, step, shift, radius, ratio))
        if callback is not None:
            callback(StepInfo(steps, point.value, point.report, shift, radius))

    point = visit(x, None)
    value_floor = eps**0.25 * min(1.0, abs(point.value))  # for objectives that end at 0
    grad_unit = point.grad_norm  # the largest max|g| met so far, scaled
    fall = abs(point.value)  # the size of f: |f(x0)|, or the first predicted decrease
    radius = max(1.0, point.length)
    low, high = point.bracket(radius)  # the wanted shift lies between these two
    shift = low
    guess = point.grad_length / radius  # of the shift where `low` will not do
    steps = turns = crept = 0
    status = None
    if not point.finite:
        status = Status.NONFINITE
    elif point.wide():
        status = Status.BAND_TOO_NARROW
    arrive(0.0, 0.0, math.nan)

    while status is None:
        if time.perf_counter() - began >= options.max_seconds:
            status = Status.TIME_LIMIT
            break
        unit = max(abs(point.value), value_floor)
        soft = max(eps**0.5 * point.norm, tiny)  # less curvature than this counts as none
        small = point.grad_norm <= max(options.tol * grad_unit, 8 * point.rounding)
        enough = 2 * options.tol**1.5 * unit if small else -1.0
        query = Query(radius, shift, low, high, guess, soft, enough, turns == 0)
        p, t = minimise_model(point.grad, point.ab, start, query)
        turns += 1
        if t.settled:
            status = Status.CONVERGED
        elif steps >= options.max_steps:
            status = Status.MAX_STEPS
        elif not t.found:
            status = Status.STALLED
        else:  # try the step
            trial = point.x + (p if point.scale is None else point.scale * p)
            value, predicted = float(functions.value(trial)), t.predicted
            ratio = (point.value - value) / predicted if predicted else math.nan
            # Near the end differences of f are noise: where they do not speak for the step, the gradient decides.
            rounding = eps**0.6 * unit
            accepted = predicted > 0 and ratio >= ACCEPT
            polish = not accepted and t.shift <= soft and predicted <= rounding and value <= point.value + rounding
            new = visit(trial, point.scale) if polish or accepted else point
            bad = not (math.isfinite(value) and new.finite)
            floor = polish and not bad and not new.grad_norm <= point.grad_norm / 2
            floor = floor and (small or predicted <= 32 * eps * unit)
            moved = not bad and (accepted or (polish and new.grad_norm < point.grad_norm))
            if steps == 0:
                fall = max(fall, predicted)
            if moved:
                grown = ratio > 0.75 and t.size >= 0.8 * t.radius
                radius = max(t.radius, 2 * t.size) if grown else t.radius
                grad_unit = max(grad_unit, new.grad_norm)
                crept = crept + 1 if t.size <= 128 * eps * point.length else 0
                collapsed, steps = False, steps + 1
                low, high = new.bracket(radius)
                shift = low  # 0, mostly: the Newton step itself is tried first
                # Where that fails, a shift like the last one is tried; or, as without curvature, |g| / radius.
                guess = t.shift / 3 if t.shift > 0 else new.grad_length / radius
            else:
                curved = value - point.value - t.slope
                cut = -t.slope / (2 * curved) if math.isfinite(curved) and curved > 0 else 0.1
                radius = min(max(cut, 0.1), 0.5) * t.size
                collapsed = radius <= max(4 * eps * point.length, tiny**0.5)
                if not collapsed:
                    low, high = point.bracket(radius)
                    low = max(low, t.shift)  # after a rejection the shift must grow
                    high = max(low, high)
                    newton = secular(t.shift, t.length, t.bend, radius)
                    if low < newton < high:
                        shift = newton
                    else:
                        shift = min(2 * t.shift, high) if t.shift > 0 else inside(low, high)
            if value <= -(eps**-1.5) * fall:  # -inf included
                status = Status.UNBOUNDED
            elif floor:
                status = Status.PRECISION_FLOOR
            elif collapsed:
                status = Status.NONFINITE if bad else Status.STALLED
            elif crept >= CREEP:
                status = Status.STALLED
            if moved:
                point = new
                arrive(t.size, t.shift, ratio)

    # Couplings may vanish at x0 (products of zeros): the end is checked, too.
    if status in (Status.CONVERGED, Status.PRECISION_FLOOR, Status.STALLED) and steps and point.wide():
        status = Status.BAND_TOO_NARROW
    history = None
    if options.history:
        history = History(*torch.tensor(rows, dtype=layout.dtype, device=layout.device).unbind(1))
    return End(point.x, point.value, point.report, steps, status, history)
