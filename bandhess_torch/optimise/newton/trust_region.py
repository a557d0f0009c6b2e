"""The trust-region method as a loop of turns.

A turn solves a subproblem, and then ends, or tries the step: accepting it renews the derivatives, rejecting it shrinks
the radius. Factorisations are cheap beside derivatives, so trial points cost the value only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bandhess_common.status import History, Status, StepInfo
from bandhess_common.stopping import ACCEPT, CREEP, GOOD, SearchFacts, StepFacts, search_ends, step_ends

from ...band.noise import hash_noise
from ...framework.kept import program_of
from .point import Functions, Options, Point, Visits, soft
from .refinement import refine
from .subproblem import Answer, Query, inside, minimise_model, secular


class End(NamedTuple):
    x: Tensor
    value: float
    grad_norm: float
    steps: int
    status: Status
    history: History | None


class Search(NamedTuple):
    """Between two turns."""

    radius: float
    shift: float  # tried first
    low: float  # the wanted shift lies between these two
    high: float
    guess: float  # of the shift where `low` will not do
    grad_unit: float  # the largest max|g| met so far, scaled
    value_floor: float  # for objectives that end at 0
    fall: float  # the size of f: |f(x0)|, or the first predicted decrease
    crept: int  # short and poor accepted steps in a row


class Tried(NamedTuple):
    """A step that was tried, and its outcome."""

    new: Point  # where the next turn begins
    value: float
    ratio: float  # actual over predicted decrease
    moved: bool
    bad: bool
    floor: bool


@dataclass
class Reports:
    """What a callback sees, and the history."""

    callback: Callable | None
    keep: bool
    rows: list[tuple] = field(default_factory=list)

    def __call__(self, steps: int, point: Point, step: float, shift: float, radius: float, ratio: float) -> None:
        if self.keep:
            self.rows.append((point.value, point.report, step, shift, radius, ratio))
        if self.callback is not None:
            self.callback(StepInfo(steps, point.value, point.report, shift, radius))


def _first(cases: list[tuple[bool, Status]]) -> Status | None:
    """The status of the first case that holds."""
    return next((status for holds, status in cases if holds), None)


def _begin(options: Options, point: Point) -> Search:
    radius = max(1.0, point.length)
    low, high = point.bracket(radius)
    floor = options.eps**0.25 * min(1.0, abs(point.value))
    guess = point.grad_length / radius
    return Search(radius, low, low, high, guess, point.grad_norm, floor, abs(point.value), 0)


class Outlook(NamedTuple):
    """What a turn reads off its state."""

    unit: float  # the size of f
    noise: float  # of differences of f
    soft: float  # less curvature than this is lost to rounding
    flat: bool  # max|g| <= tol G
    small: bool  # the gradient is: flat, or at rounding level
    enough: float  # a step that promises less is not worth making; negative where the gradient is not small


def _look(options: Options, point: Point, at: Search) -> Outlook:
    unit = max(abs(point.value), at.value_floor)
    flat = point.grad_norm <= options.tol * at.grad_unit
    small = flat or point.grad_norm <= 8 * point.rounding
    noise = max(options.eps**0.6 * unit, 16 * options.eps * at.fall)
    enough = options.tol**1.5 * unit if small else -1.0
    return Outlook(unit, noise, soft(options, point), flat, small, enough)


def _refined(point: Point, start: Tensor, p: Tensor, t: Answer, view: Outlook, grow: bool) -> tuple[Tensor, Answer]:
    """The step by exact products, where the one found rests on curvature that is lost to rounding."""
    end = refine(point, start, max(t.shift, view.soft), t.radius, grow)
    if not end.turns:
        return p, t
    size = float(end.step.norm())
    answer = t._replace(
        radius=max(t.radius, size),
        size=size,
        slope=float(point.grad @ end.step),
        predicted=end.predicted,
        settled=end.predicted <= view.enough,
    )
    return end.step, answer


def _try(
    options: Options, evaluate: tuple[Callable, Callable], point: Point, view: Outlook, p: Tensor, t: Answer
) -> Tried:
    """evaluate is `(functions.value, (x, f(x)) -> Point)`."""
    value_at, visit_at = evaluate
    trial = point.moved(p)
    value = float(value_at(trial))
    ratio = (point.value - value) / t.predicted if t.predicted else math.nan
    accepted = t.predicted > 0 and ratio >= ACCEPT
    # Near the end differences of f are noise: where they do not speak for the step, the slopes at its ends do
    # (the trapezoidal rule; Hager and Zhang 2005), or the gradient.
    polish = not accepted and t.shift <= view.soft and t.predicted <= view.noise and value <= point.value + view.noise
    new = visit_at(trial, value) if polish or accepted else point
    bad = not (math.isfinite(value) and new.finite)
    earned = polish and -(t.slope + _slope(new, point, p)) / 2 >= ACCEPT * t.predicted > 0
    moved = not bad and (accepted or (polish and (earned or new.grad_norm < point.grad_norm)))
    floor = polish and not bad and not new.grad_norm <= point.grad_norm / 2
    floor = floor and (t.predicted <= 32 * options.eps * view.unit or (view.small and not earned))
    return Tried(new if moved else point, value, ratio, moved, bad, floor)


def _slope(new: Point, old: Point, p: Tensor) -> float:
    """g^T p at the new point, whose scale may have changed."""
    return float(new.grad @ (p if new.scale is None or old.scale is None else p * (old.scale / new.scale)))


def _next(options: Options, at: Search, t: Answer, tried: Tried, steps: int, short: bool) -> Search:
    point, fall = tried.new, max(at.fall, t.predicted) if steps == 0 else at.fall
    if tried.moved:
        grown = tried.ratio > GOOD and t.size >= 0.8 * t.radius
        radius = max(t.radius, 2 * t.size) if grown else t.radius
        low, high = point.bracket(radius)
        # The Newton step itself is tried first. Where it fails, a shift like the last one; or, as without curvature,
        # |g| / radius.
        guess = t.shift / 3 if t.shift > 0 else point.grad_length / radius
        crept = (at.crept + (tried.ratio <= GOOD)) if short else 0
        unit = max(at.grad_unit, point.grad_norm)
        return Search(radius, low, low, high, guess, unit, at.value_floor, fall, crept)
    curved = tried.value - point.value - t.slope
    cut = -t.slope / (2 * curved) if math.isfinite(curved) and curved > 0 else 0.1
    radius = min(max(cut, 0.1), 0.5) * t.size
    if not radius > 0:
        return at._replace(radius=radius, fall=fall)
    low, high = point.bracket(radius)
    low = max(low, t.shift)  # after a rejection the shift must grow
    high = max(low, high)
    shift = min(2 * t.shift, high) if t.shift > 0 else inside(low, high)
    newton = secular(t.shift, t.length, t.bend, radius)
    if low < newton < high:
        shift = newton
    return at._replace(radius=radius, shift=shift, low=low, high=high, fall=fall)


def _collapsed(options: Options, point: Point, view: Outlook, t: Answer, radius: float) -> bool:
    """The next step would be some roundings of x, and what it promises some roundings of f."""
    unseen = radius <= 4 * options.eps * point.length and t.predicted <= 32 * options.eps * view.unit
    return unseen or radius <= options.tiny**0.5


def minimise(options: Options, functions: Functions, x: Tensor, scale: Tensor | None, callback: Callable | None) -> End:
    """From x `(n,)` to the end.

    scale is `(n,)`, the sizes of the variables, where options.scale is "given"; callback is called with a `StepInfo`
    at the start and after every accepted step.
    """
    with program_of(functions.parts, "newton", functions.key) as program:
        return _minimise(options, Visits(options, functions, scale, program), x, callback)


def _minimise(options: Options, visits: Visits, x: Tensor, callback: Callable | None) -> End:
    began = time.perf_counter()
    layout, report = options.layout, Reports(callback, options.history)
    functions = visits.functions
    start = hash_noise(x, 0) if not layout.ragged else hash_noise(x, 0) * (1 - layout.dummies())
    point = visits(x)
    at = _begin(options, point)
    steps = turns = 0
    first = StepFacts(not point.finite, False, False, False, False, False, False)
    status = _first(step_ends(first._replace(narrow=not first.bad_start and point.wide())))
    report(0, point, 0.0, 0.0, at.radius, math.nan)

    while status is None:
        if time.perf_counter() - began >= options.max_seconds:
            status = Status.TIME_LIMIT
            break
        view = _look(options, point, at)
        query = Query(at.radius, at.shift, at.low, at.high, at.guess, view.soft, view.enough, turns == 0)
        p, t = minimise_model(point.grad, point.ab, start, query)
        if t.found and options.tiny < t.shift <= view.soft:
            p, t = _refined(point, start, p, t, view, turns == 0)
        turns += 1
        proven = t.shift <= options.tiny and view.flat
        status = _first(search_ends(SearchFacts(t.settled, proven, steps >= options.max_steps, not t.found)))
        if status is not None:
            break

        def visit_at(x: Tensor, value: float, old: Point = point) -> Point:
            return visits(x, old.scale, value)

        tried = _try(options, (functions.value, visit_at), point, view, p, t)
        short = t.size <= 128 * options.eps * point.length
        ahead = _next(options, at, t, tried, steps, short)
        collapsed = not tried.moved and _collapsed(options, point, view, t, ahead.radius)
        falling = tried.value <= -(options.eps**-1.5) * ahead.fall  # -inf included
        crept = ahead.crept >= CREEP
        floor = tried.floor or (crept and view.small)
        facts = StepFacts(False, False, falling, floor, collapsed, tried.bad, crept)
        status, point, at = _first(step_ends(facts)), tried.new, ahead
        if tried.moved:
            steps += 1
            report(steps, point, t.size, t.shift, at.radius, tried.ratio)

    # Couplings may vanish at x0 (products of zeros): the end is checked, too.
    if status in (Status.CONVERGED, Status.PRECISION_FLOOR, Status.STALLED) and steps and point.wide():
        status = Status.BAND_TOO_NARROW
    history = None
    if options.history:
        history = History(*torch.tensor(report.rows, dtype=layout.dtype, device=layout.device).unbind(1))
    return End(point.x, point.value, point.report, steps, status, history)
