"""The trust-region method as a state machine: one flat loop.

A turn solves a subproblem, and then ends, or tries the step: accepting it renews the derivatives, rejecting it shrinks
the radius. Factorisations are cheap beside derivatives, so trial points cost the value only. The first turn, which
knows nothing yet, and the last, which checks the band, visit a point for its derivatives alone, and so do the turns
that refine a step by products; thus the program holds the derivatives once.

`compiled` is the same method by kernels, where these serve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.status import History, Status, StepInfo
from bandhess_common.stopping import ACCEPT, CREEP, GOOD, SearchFacts, StepFacts, search_ends, step_ends
from bandhess_common.trust_region import REFINEMENTS

from ...band.noise import hash_noise
from . import refinement
from .point import Ask, Facts, Functions, Options, Point, visit
from .refinement import Work
from .state import PLAIN, REFINE, RUNNING, SEARCH, TRY, Search, State, look
from .subproblem import Answer, Query, inside, minimise_model, pack, secular


def _first(cases: list[tuple[Any, Status]], otherwise: Any = RUNNING) -> Array:
    """The status of the first case that holds."""
    status = jnp.int32(otherwise)
    for holds, code in reversed(cases):
        status = jnp.where(holds, jnp.int32(code), status)
    return status


def _search(options: Options, s: State, start: Array) -> tuple[Array, Array]:
    """The step and its `Answer`, packed; while refining, the preconditioned residual."""
    view, dtype = look(options, s), s.point.grad.dtype
    at, held = view.at, Answer(*s.answer)
    idle = view.visiting | ~s.open | (at.phase == TRY)
    query = Query(at.radius, at.shift, at.low, at.high, at.guess, view.soft, view.enough, grow=s.turns == 1, idle=idle)
    solve = refinement.plain(jnp.maximum(held.shift, view.soft))
    asked = jnp.where(view.refining, pack(solve, dtype), pack(query, dtype))
    return minimise_model(Work(*s.work).residual, s.point.ab, start, Query(*asked), options.sharding)


class Flags(NamedTuple):
    moved: Array
    bad: Array  # f or a derivative is not finite
    floor: Array  # differences of f are noise, and the step did not reduce the gradient by half
    narrow: Array  # the Hessian has entries outside the band


class Outcome(NamedTuple):
    """Of a turn's visit, if it made one."""

    point: Point  # where the next turn begins
    value: Array  # f at the trial
    ratio: Array  # actual over predicted decrease
    flags: Array  # Flags, packed
    image: Array  # H times the vector that is refined


def _evaluate(
    options: Options, functions: Functions, scale: Array | None, s: State, p: Array, z: Array, t: Array, still: Array
) -> Outcome:
    """Tries the step p, unless `still`; visits the trial where it serves, or x where that is the turn's purpose."""
    now, point = look(options, s), s.point
    trial = point.x + point.scale * p if options.scale != "none" else point.x + p
    still = still | now.visiting
    value = lax.cond(still & ~now.first, lambda _: now.now.value, lambda _: functions.value(trial), None)
    predicted = Answer(*t).predicted
    ratio = (now.now.value - value) / predicted
    accepted = ~still & (predicted > 0) & (ratio >= ACCEPT)
    # Near the end differences of f are noise: where they do not speak for the step, the slopes at its ends do (the
    # trapezoidal rule; Hager and Zhang 2005), or the gradient.
    polish = ~(still | accepted) & (Answer(*t).shift <= now.soft) & (predicted <= now.noise)
    polish = polish & (value <= now.now.value + now.noise)

    def go(_: None) -> Outcome:
        view, step = look(options, s), Answer(*t)
        ask = Ask(view.first, view.closing, view.refining, z)
        new, narrow, image = visit(options, functions, scale, point, trial, value, p, ask)
        then, grad_norm = Facts(*new.pack), view.now.grad_norm
        bad = ~then.finite
        earned = polish & (step.predicted > 0) & (-(step.slope + then.slope) / 2 >= ACCEPT * step.predicted)
        moved = ~bad & (accepted | (polish & (earned | (then.grad_norm < grad_norm))))
        moved = view.first | moved
        floor = polish & ~bad & ~(then.grad_norm <= grad_norm / 2)
        floor = floor & ((step.predicted <= 32 * options.eps * view.unit) | (view.small & ~earned))
        kept = jax.tree.map(lambda a, b: jnp.where(moved, a, b), new, point)
        flags = jnp.stack(Flags(moved, bad, floor, narrow))
        return Outcome(kept, value, ratio, flags, image)

    def stay(_: None) -> Outcome:
        no = jnp.bool_(False)
        return Outcome(point, value, ratio, jnp.stack(Flags(no, ~jnp.isfinite(value), no, no)), jnp.zeros_like(z))

    return lax.cond(now.visiting | now.refining | polish | accepted, go, stay, None)


def _next_search(options: Options, s: State, t: Answer, out: Outcome) -> Search:
    """The radius and the shift to begin with, after a step that was tried."""
    view, then = look(options, s), Facts(*out.point.pack)
    at, first, moved = view.at, view.first, Flags(*out.flags).moved
    grown = jnp.where((out.ratio > GOOD) & (t.size >= 0.8 * t.radius), jnp.maximum(t.radius, 2 * t.size), t.radius)
    grown = jnp.where(first, jnp.maximum(1, then.length), grown)
    curved = out.value - view.now.value - t.slope
    cut = jnp.where(jnp.isfinite(curved) & (curved > 0), jnp.clip(-t.slope / (2 * curved), 0.1, 0.5), 0.1)
    radius = jnp.where(moved, grown, jnp.where(view.closing, at.radius, cut * t.size))
    low, high = then.bracket(radius)
    # After a rejection the shift must grow; at a new point the Newton step itself is tried first.
    low = jnp.where(moved, low, jnp.maximum(low, t.shift))
    high = jnp.maximum(low, high)
    shift = jnp.where(t.shift > 0, jnp.minimum(2 * t.shift, high), inside(low, high))
    newton = secular(t.shift, t.length, t.bend, radius)
    shift = jnp.where((low < newton) & (newton < high), newton, shift)
    # Where that fails, a shift like the last one is tried; or, as where there is no curvature, |g| / radius.
    guess = jnp.where(t.shift > 0, t.shift / 3, then.grad_length / radius)
    short = ~first & (t.size <= 128 * options.eps * view.now.length)
    crept = jnp.where(short, jnp.where(out.ratio <= GOOD, at.crept + 1, at.crept), 0)
    begun = jnp.where(first, jnp.abs(out.value), t.predicted)
    return Search(
        radius=radius,
        shift=jnp.where(moved, low, shift),
        low=low,
        high=high,
        guess=jnp.where(moved, guess, at.guess),
        grad_unit=jnp.maximum(at.grad_unit, jnp.where(moved, then.grad_norm, 0)),
        value_floor=jnp.where(first, options.eps**0.25 * jnp.minimum(1, jnp.abs(out.value)), at.value_floor),
        fall=jnp.where(s.steps == 0, jnp.maximum(at.fall, begun), at.fall),
        crept=jnp.where(moved, crept, at.crept),
        phase=SEARCH,
        turns=0,
        grow=0,
    )


def _step(options: Options, callback: Callable | None, s: State, p: Array, answer: Array, out: Outcome) -> State:
    """The state after a step that was tried, or a visit."""
    view, t, then = look(options, s), Answer(*answer), Facts(*out.point.pack)
    first, (moved, bad, floor, narrow) = view.first, Flags(*out.flags)
    search = _next_search(options, s, t, out)
    # The next step would be some roundings of x, and what it promises some roundings of f.
    collapsed = (search.radius <= 4 * options.eps * view.now.length) & (t.predicted <= 32 * options.eps * view.unit)
    collapsed = ~moved & ~view.closing & (collapsed | (search.radius <= options.tiny**0.5))
    crept = search.crept >= CREEP
    facts = StepFacts(
        bad_start=first & bad,
        narrow=view.visiting & narrow,
        falling=~first & (out.value <= -(options.eps**-1.5) * search.fall),  # -inf included
        floor=floor | (crept & view.small),
        collapsed=collapsed,
        bad=bad,
        crept=crept,
    )
    status = _first(step_ends(facts))
    status = jnp.where(view.closing & ~narrow, s.status, status)
    steps, history = jnp.where(moved & ~first, s.steps + 1, s.steps), s.history
    if history is not None:
        ratio = jnp.where(first, 0 if options.blank else jnp.nan, out.ratio)
        row = History(then.value, out.point.grad_norm, t.size, t.shift, search.radius, ratio)
        index = jnp.where(moved, steps, options.rows)  # there is no such row
        history = jax.tree.map(lambda rows, a: rows.at[index].set(a, mode="drop"), history, row)
    if callback is not None:
        info = StepInfo(steps, then.value, out.point.grad_norm, t.shift, search.radius)
        lax.cond(moved, lambda info: jax.debug.callback(callback, info), lambda _: None, info)
    packed, work = pack(search, p.dtype), refinement.begin(out.point.grad)
    return State(out.point, work, packed, answer, steps, s.turns, status, s.open, s.limits, history)


def _refine(options: Options, s: State, z: Array, answer: Array, image: Array) -> State:
    """The state after a turn of refinement: the first only takes note of the step that is to be refined."""
    at, t, begins = Search(*s.search), Answer(*answer), Search(*s.search).phase != REFINE
    noted = pack(t._replace(size=0, slope=0, predicted=0, settled=0), z.dtype)
    held, found = jnp.where(begins, noted, s.answer), ~begins & (t.found > 0)
    vectors = s.work, s.point.grad, z, image
    work, held, more = refinement.advance(*vectors, found, at.grow > 0, held)
    again = begins | ((more > 0) & (at.turns < REFINEMENTS))
    search = at._replace(
        phase=jnp.where(again, REFINE, jnp.where(Answer(*held).predicted > 0, TRY, PLAIN)),
        turns=at.turns + 1,
        grow=jnp.where(begins, s.turns == 1, at.grow > 0),
    )
    return s._replace(work=work, search=pack(search, z.dtype), answer=held)


def turns(
    options: Options, functions: Functions, scale: Array | None, callback: Callable | None, x: Array
) -> Callable[[State], State]:
    """From one state to the next; of x the shape matters.

    scale is `(n,)`, the sizes of the variables, where options.scale is "given"; callback is called with a `StepInfo`
    at the start and after every accepted step.
    """
    start = options.split(hash_noise(x, 0))
    if options.dummies is not None:
        start = start * (1 - options.dummies)

    def turn(s: State) -> State:
        view = look(options, s)
        z, answer = _search(options, s, start)
        trying = view.at.phase == TRY
        settles = (Answer(*s.answer).predicted <= view.enough).astype(answer.dtype)
        held = Answer(*s.answer)._replace(settled=settles)
        answer = jnp.where(trying, jnp.stack(held), answer)
        t = Answer(*answer)
        lost = (options.tiny < t.shift) & (t.shift <= view.soft) & (t.found > 0)
        begins = ~view.visiting & (view.at.phase == SEARCH) & lost
        still = view.refining | begins
        settled, full, nothing = t.settled > 0, s.steps >= s.limits.steps, ~(t.found > 0)

        def end(_: None) -> State:
            view, t = look(options, s), Answer(*answer)
            proven = (t.shift <= options.tiny) & view.flat
            return s._replace(status=_first(search_ends(SearchFacts(settled, proven, full, nothing))))

        def attempt(_: None) -> State:
            p = jnp.where(still | view.visiting, 0, z + Work(*s.work).step)  # one of the two is 0
            out = _evaluate(options, functions, scale, s, p, z, answer, still)
            return lax.cond(
                still,
                lambda _: _refine(options, s, z, answer, out.image),
                lambda _: _step(options, callback, s, p, answer, out),
                None,
            )

        ends = ~view.visiting & ~still & (settled | full | nothing)
        out = lax.cond(ends, end, attempt, None)
        again = jnp.bool_(False)
        if options.check_band:  # couplings may vanish at x0 (products of zeros): the end is checked, too
            codes = (Status.CONVERGED, Status.PRECISION_FLOOR, Status.STALLED)
            ended = jnp.any(jnp.stack([out.status == code for code in codes]))
            again = (out.steps > 0) & (s.status == RUNNING) & ended
        return options.split(out._replace(turns=s.turns + 1, open=(out.status == RUNNING) | again, limits=s.limits))

    return turn
