"""The trust-region method as a state machine: one flat loop.

A turn solves a subproblem, and then ends, or tries the step: accepting it renews the derivatives, rejecting it shrinks
the radius. Factorisations are cheap beside derivatives, so trial points cost the value only. The first turn, which
knows nothing yet, and the last, which checks the band, visit a point for its derivatives alone; thus the program holds
them once.

XLA compiles a kernel per array that it forms, so numbers travel in packs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.status import History, Status, StepInfo

from ...band.noise import hash_noise
from ...band.spectrum import gershgorin_discs
from ...band.stages import Layout
from ...band.storage import matvec
from ...band.structures import diagonal, shifted
from ...band.structures import scaled as scaled_band
from ...extraction.bandwidth import too_narrow
from .subproblem import Answer, Query, inside, minimise_model, secular

RUNNING = -1
ACCEPT = 0.25  # least ratio of actual to predicted decrease; accepting less lets early steps land far from the valley
CREEP = 32  # so many accepted steps in a row of at most 128 eps |x| end the run: between kinks they may never end


class Options(NamedTuple):
    """What decides the program. Hashable."""

    layout: Layout
    width: int  # rows of the band
    scale: str  # "none", "diagonal", "given"
    tol: float
    max_steps: int
    check_band: bool
    history: bool


class Functions(NamedTuple):
    """All that the loop sees of the objective, on the ravelled vector."""

    value: Callable[[Array], Array]
    derivatives: Callable[[Array], tuple]  # x -> (value, grad, product; None where the band is given)
    band: Callable[[Array, Callable], Array]  # (x, product) -> ab


class Facts(NamedTuple):
    """Numbers known at a point, in scaled variables."""

    value: Array
    grad_length: Array  # |g|
    length: Array  # |x|
    grad_norm: Array  # max|g|
    least: Array  # the least diagonal entry of H
    low: Array  # Gershgorin's bounds of H's spectrum
    high: Array
    rounding: Array  # size of the gradient's rounding errors, eps |H| |x|, at its largest

    @property
    def norm(self) -> Array:
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    @property
    def finite(self) -> Array:
        return jnp.isfinite(self.value) & jnp.isfinite(self.grad_norm) & jnp.isfinite(self.norm)

    def bracket(self, radius: Array) -> tuple[Array, Array]:
        """Bounds of the shift."""
        wanted = self.grad_length / radius
        low = jnp.maximum(0, jnp.maximum(-self.least, wanted - self.norm))
        return low, jnp.maximum(low, wanted + jnp.maximum(0, -self.low))


class Point(NamedTuple):
    """An iterate and its derivatives with respect to the loop's variables, x / scale."""

    x: Array
    grad: Array
    ab: Array
    scale: Array  # (n,), powers of two; or the number 1
    pack: Array  # Facts

    @property
    def grad_norm(self) -> Array:
        """max|g|, not scaled."""
        return jnp.max(jnp.abs(self.grad / self.scale))


class Search(NamedTuple):
    """Where the search for a step stands."""

    radius: Array
    shift: Array
    low: Array  # the wanted shift lies between these two
    high: Array
    guess: Array  # of the shift where `low` will not do
    grad_unit: Array  # the largest max|g| met so far, scaled
    value_floor: Array  # for objectives that end at 0
    fall: Array  # the size of f: |f(x0)|, or the first predicted decrease
    crept: Array  # accepted steps in a row of few roundings each


class Outlook(NamedTuple):
    """What a turn reads off its state. Its branches do so anew: they take packs as they are, and numbers at a kernel
    each."""

    now: Facts
    at: Search
    unit: Array  # the size of f
    soft: Array  # less curvature than this counts as none
    small: Array  # the gradient is
    first: Array
    closing: Array
    visiting: Array  # either of the two


class State(NamedTuple):
    point: Point
    search: Array  # Search, packed
    steps: Array
    turns: Array
    status: Array
    open: Array  # with a status, and open: the band is still to be checked
    history: History | None


def initial(options: Options, x: Any, xp: Any = jnp) -> State:
    """Nothing is known yet: the first turn visits x. Arrays of the module xp, NumPy or JAX's."""
    dtype, n = options.layout.dtype, options.layout.n
    scale = xp.ones(() if options.scale == "none" else n, dtype)
    grad, band, facts = (xp.zeros(shape, dtype) for shape in (n, (options.width, n), len(Facts._fields)))
    rows = xp.full(options.max_steps + 1, xp.nan, dtype)
    history = History(*[rows] * len(History._fields)) if options.history else None
    none, search = xp.int32(0), xp.zeros(len(Search._fields), dtype)
    point = Point(x, grad, band, scale, facts)
    return State(point, search, none, none, xp.int32(RUNNING), xp.bool_(True), history)


def _power_of_two(x: Array) -> Array:
    """The power of two next above x > 0: scaling by it rounds nothing."""
    return x / jnp.frexp(x)[0]


def _first(cases: list[tuple[Array, Any]]) -> Array:
    """The status of the first case that holds."""
    status = jnp.int32(RUNNING)
    for holds, code in reversed(cases):
        status = jnp.where(holds, jnp.int32(code), status)
    return status


def advance(
    options: Options, functions: Functions, scale: Array | None, callback: Callable | None, s: State, last: Any
) -> State:
    """Turn until the end, or until `last` turns have been made in all.

    scale is `(n,)`, the sizes of the variables, where options.scale is "given"; callback is called with a `StepInfo`
    at the start and after every accepted step.
    """
    layout, dtype = options.layout, options.layout.dtype
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    scaled = options.scale != "none"
    dummies = layout.dummies() if layout.ragged else None
    free = jnp.ones((), dtype) if dummies is None else 1 - dummies

    def visit(s: State, x: Array, closing: Array) -> tuple[Point, Array]:
        """The point, and whether its Hessian has entries outside the band (asked at x0, and when closing)."""
        old, first = s.point, s.turns == 0
        value, grad, product = functions.derivatives(x)

        def again(_: None) -> Array:
            return scaled_band(old.ab, 1 / old.scale) if scaled else old.ab

        ab = lax.cond(closing, again, lambda _: functions.band(x, product), None)
        if dummies is not None:
            ab = shifted(ab, -dummies * diagonal(ab))
        narrow = jnp.bool_(False)
        if options.check_band:
            narrow = lax.cond(first | closing, lambda _: too_narrow(product, ab), lambda _: narrow, None)

        units = old.scale
        if scaled:
            if scale is not None:
                units = scale if dummies is None else jnp.where(dummies > 0, 1, scale)
            else:  # the smallest met (Moré 1978)
                sizes = jnp.abs(diagonal(ab))
                sizes = jnp.maximum(sizes, eps**0.5 * jnp.max(sizes))
                units = jnp.where(sizes > 0, sizes, 1) ** -0.5
                units = jnp.where(first, units, jnp.minimum(units, old.scale))
            units = _power_of_two(units)
            grad, ab = units * grad, scaled_band(ab, units)
        in_units = x / units
        low, high = gershgorin_discs(ab)
        rounding = eps * matvec(jnp.abs(ab), jnp.abs(in_units))
        # In packs: XLA makes kernels of every reduction.
        largest = jnp.max(jnp.stack([jnp.abs(grad), -diagonal(ab), -low, high, rounding]), axis=1)
        lengths = jnp.sqrt(jnp.sum(jnp.stack([grad, in_units]) ** 2, axis=1))
        if dummies is not None:
            # Dummy variables take the size of the rest, so that they change neither norm nor definiteness.
            size = jnp.max(jnp.abs(largest[2:4]))
            ab = shifted(ab, dummies * jnp.where(size > 0, size, 1))
        signs = np.array([1, -1, -1, 1, 1], dtype)
        return Point(x, grad, ab, units, jnp.concatenate([value[None], lengths, signs * largest])), narrow

    start = hash_noise(s.point.x, 0) * free

    def look(s: State) -> Outlook:
        now, at = Facts(*s.point.pack), Search(*s.search)
        first, closing = s.turns == 0, s.status != RUNNING
        return Outlook(
            now,
            at,
            unit=jnp.maximum(jnp.abs(now.value), at.value_floor),
            soft=jnp.maximum(eps**0.5 * now.norm, tiny),
            small=now.grad_norm <= jnp.maximum(options.tol * at.grad_unit, 8 * now.rounding),
            first=first,
            closing=closing,
            visiting=first | closing,
        )

    def turn(s: State) -> State:
        point, ahead = s.point, look(s)
        at, enough = ahead.at, jnp.where(ahead.small, 2 * options.tol**1.5 * ahead.unit, -1)
        grow, idle = s.turns == 1, ahead.visiting | ~s.open
        query = Query(at.radius, at.shift, at.low, at.high, at.guess, ahead.soft, enough, grow, idle)
        p, answer = minimise_model(point.grad, point.ab, start, query)
        found, settled = Answer(*answer).found > 0, Answer(*answer).settled > 0
        full = s.steps >= options.max_steps

        def end(_: None) -> State:
            return s._replace(
                status=_first([(settled, Status.CONVERGED), (full, Status.MAX_STEPS), (~found, Status.STALLED)])
            )

        def attempt(_: None) -> State:
            (now, at, unit, soft, _small, first, closing, visiting), t = look(s), Answer(*answer)
            trial = point.x + point.scale * p if scaled else point.x + p
            value = lax.cond(visiting, lambda _: now.value, lambda _: functions.value(trial), None)
            ratio = (now.value - value) / t.predicted
            # Near the end differences of f are noise: where they do not speak for the step, the gradient decides.
            rounding = eps**0.6 * unit
            accepted = ~visiting & (t.predicted > 0) & (ratio >= ACCEPT)
            polish = ~(visiting | accepted) & (t.shift <= soft) & (t.predicted <= rounding)
            polish = polish & (value <= now.value + rounding)

            def go(_: None) -> tuple[Point, Array, Array, Array, Array]:
                here = look(s)
                new, narrow = visit(s, trial, here.closing)
                then, grad_norm = Facts(*new.pack), here.now.grad_norm
                bad = ~jnp.isfinite(jnp.where(here.first, then.value, value)) | ~then.finite
                moved = (here.first | ~bad & (accepted | (then.grad_norm < grad_norm))) & ~here.closing
                rounded = here.small | (Answer(*answer).predicted <= 32 * eps * here.unit)
                floor = polish & ~bad & ~(then.grad_norm <= grad_norm / 2) & rounded
                return jax.tree.map(lambda a, b: jnp.where(moved, a, b), new, point), moved, bad, floor, narrow

            def stay(_: None) -> tuple[Point, Array, Array, Array, Array]:
                no = jnp.bool_(False)
                return point, no, ~jnp.isfinite(value), no, no

            new, moved, bad, floor, narrow = lax.cond(visiting | polish | accepted, go, stay, None)
            then = Facts(*new.pack)
            value = jnp.where(first, then.value, value)
            grown = jnp.where((ratio > 0.75) & (t.size >= 0.8 * t.radius), jnp.maximum(t.radius, 2 * t.size), t.radius)
            grown = jnp.where(first, jnp.maximum(1, then.length), grown)
            curved = value - now.value - t.slope
            cut = jnp.where(jnp.isfinite(curved) & (curved > 0), jnp.clip(-t.slope / (2 * curved), 0.1, 0.5), 0.1)
            radius = jnp.where(moved, grown, cut * t.size)
            low, high = then.bracket(radius)
            # After a rejection the shift must grow; at a new point the Newton step itself is tried first.
            low = jnp.where(moved, low, jnp.maximum(low, t.shift))
            high = jnp.maximum(low, high)
            shift = jnp.where(t.shift > 0, jnp.minimum(2 * t.shift, high), inside(low, high))
            newton = secular(t.shift, t.length, t.bend, radius)
            shift = jnp.where((low < newton) & (newton < high), newton, shift)
            shift = jnp.where(moved, low, shift)
            # Where that fails, a shift like the last one is tried; or, as where there is no curvature, |g| / radius.
            guess = jnp.where(t.shift > 0, t.shift / 3, then.grad_length / radius)
            collapsed = ~moved & (radius <= jnp.maximum(4 * eps * now.length, tiny**0.5))
            short = ~first & (t.size <= 128 * eps * now.length)
            crept = jnp.where(moved, jnp.where(short, at.crept + 1, 0), at.crept)
            fall = jnp.where(s.steps == 0, jnp.maximum(at.fall, jnp.where(first, jnp.abs(value), t.predicted)), at.fall)
            status = _first([
                (closing & ~narrow, s.status),
                (first & bad, Status.NONFINITE),
                (visiting & narrow, Status.BAND_TOO_NARROW),
                (~first & (value <= -(eps**-1.5) * fall), Status.UNBOUNDED),  # -inf included
                (floor, Status.PRECISION_FLOOR),
                (collapsed & bad, Status.NONFINITE),
                (collapsed | (crept >= CREEP), Status.STALLED),
            ])  # fmt: skip
            search = Search(
                radius=radius,
                shift=shift,
                low=low,
                high=high,
                guess=jnp.where(moved, guess, at.guess),
                grad_unit=jnp.maximum(at.grad_unit, jnp.where(moved, then.grad_norm, 0)),
                value_floor=jnp.where(first, eps**0.25 * jnp.minimum(1, jnp.abs(value)), at.value_floor),
                fall=fall,
                crept=crept,
            )
            steps = s.steps + (moved & ~first)
            history = s.history
            if history is not None:
                row = History(then.value, new.grad_norm, t.size, t.shift, radius, ratio)
                index = jnp.where(moved, steps, options.max_steps + 1)  # there is no such row
                history = jax.tree.map(lambda rows, a: rows.at[index].set(a, mode="drop"), history, row)
            if callback is not None:
                info = StepInfo(steps, then.value, new.grad_norm, t.shift, radius)
                lax.cond(moved, lambda info: jax.debug.callback(callback, info), lambda _: None, info)
            return State(new, jnp.stack(search), steps, s.turns, status, s.open, history)

        out = lax.cond(~ahead.visiting & (~found | settled | full), end, attempt, None)
        again = jnp.bool_(False)
        if options.check_band:  # couplings may vanish at x0 (products of zeros): the end is checked, too
            codes = (Status.CONVERGED, Status.PRECISION_FLOOR, Status.STALLED)
            again = (out.steps > 0) & (s.status == RUNNING) & sum(out.status == code for code in codes).astype(bool)
        return out._replace(turns=s.turns + 1, open=(out.status == RUNNING) | again)

    return lax.while_loop(lambda s: s.open if last is None else s.open & (s.turns < last), turn, s)
