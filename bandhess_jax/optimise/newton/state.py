"""What the trust-region method carries from turn to turn, and what a turn reads off it.

XLA compiles a kernel per array that it forms, so numbers travel in packs.

PyTorch's loop keeps it in local variables, in `trust_region`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from bandhess_common.status import History, StepInfo

from ...framework.packing import Packed, unpack
from .point import Facts, Options, Point
from .refinement import Work
from .subproblem import Answer

RUNNING = -1
ENDLESS = 2**30  # steps
SEARCH, REFINE, TRY, PLAIN = range(4)  # phases: a turn searches a step, and tries it if nothing is to be refined; a
# turn of refinement; the refined step is tried; as SEARCH, where refinement found nothing


def limits_of(tol: float, steps: int, dtype: Any) -> np.ndarray:
    """What a call may change without another program, in one array `(3,)`: tol; what a step must promise where the
    gradient is small, as a part of the size of f; the number of accepted steps, at most, exact up to 2^24 at least."""
    return np.array([tol, tol**1.5, min(steps, ENDLESS)], dtype if np.dtype(dtype).itemsize > 4 else "float32")


class Limits(NamedTuple):
    """Each by itself, as turns read them in many places."""

    tol: Array
    worth: Array
    steps: Array


class Search(NamedTuple):
    """Between two turns, in numbers."""

    radius: Array
    shift: Array  # tried first
    low: Array  # the wanted shift lies between these two
    high: Array
    guess: Array  # of the shift where `low` will not do
    grad_unit: Array  # the largest max|g| met so far, scaled
    value_floor: Array  # for objectives that end at 0
    fall: Array  # the size of f: |f(x0)|, or the first predicted decrease
    crept: Array  # short and poor accepted steps in a row
    phase: Any
    turns: Any  # of refinements of this step
    grow: Any  # the region grows to the refined step


class State(NamedTuple):
    point: Point
    work: Array  # Work, packed
    search: Array  # Search, packed
    answer: Array  # Answer of the step that is being refined, or that was tried last, packed
    steps: Array
    turns: Array
    status: Array
    open: Array  # with a status, and open: the band is still to be checked
    limits: Limits
    history: History | None

    @property
    def best(self) -> Array:
        """The best point."""
        return self.point.x

    @property
    def value(self) -> Array:
        return self.point.pack[0]

    @property
    def grad_norm(self) -> Array:
        return self.point.grad_norm

    @property
    def info(self) -> StepInfo:
        return StepInfo(self.steps, self.value, self.grad_norm, Answer(*self.answer).shift, Search(*self.search).radius)

    @property
    def stored(self) -> State:
        """What a state goes on from."""
        return self


def initial(options: Options, x: Array, limits: Array, scale: Array | None) -> State:
    """Nothing is known yet: the first turn visits x. limits are as `limits_of` has them; scale is not looked at yet."""
    dtype, n = options.layout.dtype, options.layout.n
    scale = jnp.ones(() if options.scale == "none" else n, dtype)
    grad, facts = jnp.zeros(n, dtype), jnp.zeros(len(Facts._fields), dtype)
    rows = jnp.full(options.rows, 0 if options.blank else jnp.nan, dtype)
    history = History(*[rows] * len(History._fields)) if options.rows else None
    none, search = jnp.int32(0), jnp.zeros(len(Search._fields), dtype)
    given = Limits(limits[0].astype(dtype), limits[1].astype(dtype), limits[2].astype(jnp.int32))
    point, answer = Point(x, grad, options.zero(), scale, facts), jnp.zeros(len(Answer._fields), dtype)
    work = jnp.zeros((len(Work._fields), n), dtype)
    state = State(point, work, search, answer, none, none, jnp.int32(RUNNING), jnp.bool_(True), given, history)
    return options.split(state)


def restored(options: Options, packed: Packed, x: Array, limits: Array, scale: Array | None) -> State:
    """The state that was packed; the initial one where none was yet."""
    return unpack(packed, initial(options, x, limits, scale))


class Outlook(NamedTuple):
    """What a turn reads off its state. Its branches do so anew: they take packs as they are, and numbers at a kernel
    each."""

    now: Facts
    at: Search
    unit: Array  # the size of f
    noise: Array  # of differences of f
    soft: Array  # less curvature than this is lost to rounding
    flat: Array  # max|g| <= tol G
    small: Array  # the gradient is: flat, or at rounding level
    enough: Array  # a step that promises less is not worth making; negative where the gradient is not small
    first: Array
    closing: Array
    visiting: Array  # either of the two
    refining: Array


def look(options: Options, s: State) -> Outlook:
    now, at = Facts(*s.point.pack), Search(*s.search)
    first, closing = s.turns == 0, s.status != RUNNING
    unit = jnp.maximum(jnp.abs(now.value), at.value_floor)
    flat = now.grad_norm <= s.limits.tol * at.grad_unit
    small = flat | (now.grad_norm <= 8 * now.rounding)
    return Outlook(
        now,
        at,
        unit=unit,
        noise=jnp.maximum(options.eps**0.6 * unit, 16 * options.eps * at.fall),
        soft=now.soft(options),
        flat=flat,
        small=small,
        enough=jnp.where(small, s.limits.worth * unit, -1),
        first=first,
        closing=closing,
        visiting=first | closing,
        refining=~(first | closing) & (at.phase == REFINE),
    )
