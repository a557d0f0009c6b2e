"""The loop of `sqp`: brings values and derivatives to where the engine asks for them, until it is done.

The user's functions stand in the program twice: in the derivatives, and in the values of a line search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.kernels.interior import DERIVATIVES, DONE, VALUES
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...extraction.objective import Objective
from ...extraction.products import Extraction
from .derivatives import Derivatives, Functions, derivatives
from .engine import Box, Engine, Solution, Start
from .rows import windows

UNSEEN = 2  # turns before the first iterate is linearised; the first is at a second point, the others at the start


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
    engine: Array
    first: Array  # of the rows' windows
    turns: Array
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
    rows = jnp.zeros(engine.layout.r, jnp.int32)
    return State(jnp.zeros(engine.layout.size, dtype), rows, *[jnp.int32(0)] * 2, Seen(*[unseen] * 3), history)


def initial(options: Options, engine: Engine, functions: Functions, box: Box, x: Array, start: Start) -> State:
    state = blank(options, engine)
    if engine.layout.r:
        first = windows(lambda x: functions(x)[1], x, options.objective.layout, options.extraction.bandwidth)
        state = state._replace(first=first)
    return state._replace(engine=engine.start(box, state.first, x, start))


def is_open(engine: Engine, state: State) -> Array:
    return engine.register(state.engine, "request") == DERIVATIVES


def end_of(engine: Engine, state: State) -> End:
    """Where the loop stands; MAX_STEPS where it is open."""
    register = lambda name: engine.register(state.engine, name).astype(jnp.int32)  # noqa: E731
    status = jnp.where(is_open(engine, state), Status.MAX_STEPS, register("status"))
    solution = engine.solution(state.engine)
    return End(solution, state.seen, register("steps"), status, register("narrow"), state.history)


def _noted(
    engine: Engine, before: State, state: Array, at: Derivatives, box: Box, callback: Callable | None
) -> State:
    """The reports on what was linearised, after a `begin`; on the start, too, where that ends the loop at once."""
    register = lambda name: engine.register(state, name)  # noqa: E731
    fresh = register("fresh") > 0
    at_once = (register("request") == DONE) & (before.turns <= UNSEEN) & ~fresh
    values = Seen(register("value"), register("grad_norm"), register("violation"))
    grad_norm = jnp.max(jnp.abs(at.grad) * (1 - box.held))
    inequalities = jnp.arange(len(at.h)) >= engine.m
    violation = jnp.max(jnp.where(inequalities, -at.h, jnp.abs(at.h)), initial=0)
    values = jax.tree.map(lambda a, b: jnp.where(at_once, a, b), Seen(at.value, grad_norm, violation), values)
    fresh |= at_once
    steps = register("steps").astype(jnp.int32)
    if callback is not None:
        info = StepInfo(steps, values.value, values.grad_norm, register("shift"), register("fraction"))
        lax.cond(fresh, lambda info: jax.debug.callback(callback, info), lambda _: None, info)
    history = before.history
    if history is not None:
        row = SQPHistory(*values, *map(register, ("step", "fraction", "shift", "mu")))
        place = jnp.where(fresh, steps, len(history.value))
        history = jax.tree.map(lambda rows, a: rows.at[place].set(a, mode="drop"), history, row)
    seen = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), values, before.seen)
    return before._replace(engine=state, turns=before.turns + 1, seen=seen, history=history)


def advance(
    options: Options,
    engine: Engine,
    functions: Functions,
    box: Box,
    callback: Callable | None,
    state: State,
    last: Array | None = None,
) -> State:
    """Turn until the end, or until `last` iterates at most have been linearised in all. A turn brings derivatives, and
    values until the engine is content with its step."""

    def trial(state: Array) -> Array:
        return engine.trial(state, *functions(engine.vector(state, "x_request")))

    def turn(s: State) -> State:
        x, y = (engine.vector(s.engine, name) for name in ("x_request", "y_request"))
        sigma = engine.register(s.engine, "sigma")
        at = derivatives(functions, x, sigma, y, s.first, options.objective.layout, options.extraction, options.check_band)
        # Said at the start, whose values are then known.
        narrow = jnp.maximum(at.narrow, s.narrow)
        s, at = s._replace(narrow=narrow), at._replace(narrow=jnp.where(s.turns == 0, 0, narrow))
        s = _noted(engine, s, engine.begin(s.engine, at), at, box, callback)
        searching = lambda state: engine.register(state, "request") == VALUES  # noqa: E731
        return s._replace(engine=lax.while_loop(searching, trial, s.engine))

    def going(s: State) -> Array:
        return is_open(engine, s) if last is None else is_open(engine, s) & (s.turns < last + UNSEEN)

    return lax.while_loop(going, turn, state)
