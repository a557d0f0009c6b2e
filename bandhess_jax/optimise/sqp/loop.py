"""The loop of `sqp`: brings values and derivatives to where the engine asks for them, until it is done.

The user's functions stand in the program twice: in the derivatives, and in the values of a line search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.kernels.interior import DERIVATIVES, DONE, VALUES
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...extraction.objective import Objective
from ...extraction.products import Extraction
from ...framework.fusion import tidy
from .derivatives import Derivatives, Functions, derivatives
from .engine import Box, Engine, Solution, Start
from .rows import nowhere

UNSEEN = 2  # turns before the first iterate is linearised; the first is at a second point, the others at the start. In
# these two it is seen what the rows of the constraints touch.


class Options(NamedTuple):
    """What decides the program. Hashable."""

    objective: Objective
    extraction: Extraction
    check_band: bool
    rows: int | None  # of the history
    blank: bool  # where nothing is known: NaN, or numbers under jax_debug_nans


class Seen(NamedTuple):
    """Of the last iterate that was linearised."""

    value: Array
    grad_norm: Array
    violation: Array


class State(NamedTuple):
    engine: Any
    head: Any  # of the engine's state
    first: Array  # of the rows' windows, as far as they were seen
    turns: Array
    trials: Array
    noted: Array  # steps whose iterate is in `seen`, -1 for none
    narrow: Array  # what the first turn said of the band
    seen: Seen
    history: SQPHistory | None


class End(NamedTuple):
    solution: Solution
    seen: Seen
    steps: Array
    status: Array
    narrow: Array
    history: SQPHistory | None


def blank(options: Options, engine: Engine) -> State:
    """A state's structure."""
    dtype = options.objective.layout.dtype
    nothing = jnp.asarray(jnp.nan if options.blank else 0, dtype)
    unseen = jnp.asarray(jnp.nan if options.blank else jnp.inf, dtype)
    history = None
    if options.rows is not None:
        history = SQPHistory(*[jnp.full(options.rows, nothing)] * len(SQPHistory._fields))
    rows = nowhere(options.objective.layout, options.extraction.bandwidth, engine.layout.r)
    (whole, head), none = engine.blank(), jnp.int32(0)
    seen = Seen(unseen, unseen, unseen)
    return State(whole, head, rows, none, none, none - 1, none, seen, history)


def initial(
    options: Options,
    engine: Engine,
    box: Box,
    x: Array,
    start: Start,
    before: State | None = None,
    begun: Any = False,
) -> State:
    """The first state, or the one before where that has begun. It takes the memory of the engine's state before."""
    before = blank(options, engine) if before is None else before
    state, head = engine.start(box, x, start, before.engine, begun)
    return before._replace(engine=state, head=head)


def is_open(engine: Engine, state: State) -> Array:
    return engine.register(state.head, "request") == DERIVATIVES


def end_of(engine: Engine, state: State) -> End:
    """Where the loop stands; MAX_STEPS where it is open."""
    register = lambda name: engine.register(state.head, name).astype(jnp.int32)  # noqa: E731
    status = jnp.where(is_open(engine, state), Status.MAX_STEPS, register("status"))
    solution = engine.solution(state.engine)
    return End(solution, state.seen, register("steps"), status, register("narrow"), state.history)


def _noted(engine: Engine, before: State, s: State, at: Derivatives, box: Box, callback: Callable | None) -> State:
    """The reports on what a turn linearised: on the start, too, where that ends the loop at once. At the end of the
    turn: what read the state between two calls of the engine would make XLA copy it."""
    register = lambda name: engine.register(s.head, name)  # noqa: E731
    steps = register("steps").astype(jnp.int32)
    last = (register("fresh") > 0) | (s.trials > before.trials)
    fresh = last & (steps > s.noted)  # an end is confirmed where it was seen
    at_once = (register("request") == DONE) & (s.noted < 0) & ~fresh
    values = Seen(register("value"), register("grad_norm"), register("violation"))
    grad_norm = jnp.max(jnp.abs(at.grad) * (1 - box.held))
    inequalities = jnp.arange(len(at.h)) >= engine.m
    violation = jnp.max(jnp.where(inequalities, -at.h, jnp.abs(at.h)), initial=0)
    values = jax.tree.map(lambda a, b: jnp.where(at_once, a, b), Seen(at.value, grad_norm, violation), values)
    fresh, last = fresh | at_once, last | at_once
    if callback is not None:
        info = StepInfo(steps, values.value, values.grad_norm, register("shift"), register("fraction"))
        lax.cond(fresh, lambda info: jax.debug.callback(callback, info), lambda _: None, info)
    history = s.history
    if history is not None:
        row = SQPHistory(*values, *map(register, ("step", "fraction", "shift", "mu")))
        place = jnp.where(fresh, steps, len(history.value))
        history = jax.tree.map(lambda rows, a: rows.at[place].set(a, mode="drop"), history, row)
    seen = jax.tree.map(lambda a, b: jnp.where(last, a, b), values, s.seen)
    return s._replace(turns=s.turns + 1, noted=jnp.where(fresh, steps, s.noted), seen=seen, history=history)


def turns(
    options: Options, engine: Engine, functions: Functions, box: Box, callback: Callable | None
) -> Callable[[State], State]:
    """From one state to the next: derivatives, and values until the engine is content with its step."""

    def trial(s: State) -> State:
        x = engine.vector(s.head, "x_request")
        state, head = engine.trial(s.engine, *tidy(functions, x)(x))
        return s._replace(engine=state, head=head, trials=s.trials + 1)

    def turn(s: State) -> State:
        x, y = (engine.vector(s.head, name) for name in ("x_request", "y_request"))
        sigma = engine.register(s.head, "sigma")
        how = options.objective.layout, options.extraction, options.check_band
        at = derivatives(functions, x, sigma, y, s.first, *how, looking=s.turns < UNSEEN)
        # Said at the start, whose values are then known.
        narrow = jnp.maximum(at.narrow, s.narrow)
        s, at = s._replace(first=at.first, narrow=narrow), at._replace(narrow=jnp.where(s.turns == 0, 0, narrow))
        state, head = engine.begin(s.engine, at)
        begun = s._replace(engine=state, head=head)
        end = lax.while_loop(lambda s: engine.register(s.head, "request") == VALUES, trial, begun)
        return _noted(engine, s, end, at, box, callback)

    return turn


def advance(engine: Engine, turn: Callable[[State], State], state: State, last: Array) -> State:
    """Turn until the end, or until `last` iterates at most have been linearised in all."""
    return lax.while_loop(lambda s: is_open(engine, s) & (s.turns < last + UNSEEN), turn, state)
