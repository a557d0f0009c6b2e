"""The trust-region method by compiled kernels (`bandhess_common/kernels/newton.h`), on CPUs and plain bands.

The program holds what is the user's alone: f, the derivatives, products with H. Where and which of them is asked for is
the kernels' matter, and all that `trust_region` decides: XLA needs some 10 ms for each small array that it forms, and
that loop forms a hundred.

PyTorch's loop is `trust_region`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.kernels.interior import DERIVATIVES, DONE, VALUES
from bandhess_common.kernels.newton import BEST, HEAD, NUMBERS, VECTORS, settings
from bandhess_common.status import History, StepInfo

from ...framework.kernels import cpu_kernels
from ...framework.packing import Packed, contents
from .point import Functions, Options


class State(NamedTuple):
    """Between two turns."""

    numbers: Array
    vectors: Array
    band: Array
    x: Any  # (n,) where something is asked for; None where the state is stored
    probe: Any  # (n,) what is multiplied by H
    turns: Array
    history: History | None

    def number(self, name: str) -> Array:
        return self.numbers[HEAD.index(name)]

    def integer(self, name: str) -> Array:
        return self.number(name).astype(jnp.int32)

    @property
    def open(self) -> Array:
        return self.number("request") != DONE

    @property
    def status(self) -> Array:
        return self.integer("status")

    @property
    def steps(self) -> Array:
        return self.integer("steps")

    @property
    def best(self) -> Array:
        """The best point."""
        return self.vectors[BEST]

    @property
    def value(self) -> Array:
        return self.number("value")

    @property
    def grad_norm(self) -> Array:
        return self.number("grad_norm")

    @property
    def info(self) -> StepInfo:
        return StepInfo(self.steps, *map(self.number, ("value", "grad_norm", "shift", "radius")))

    @property
    def stored(self) -> State:
        """What a state goes on from."""
        return self._replace(x=None, probe=None)


def serves(options: Options) -> bool:
    layout = options.layout
    plain = not (layout.periodic or any(layout.shared)) and options.sharding is None
    real = layout.dtype in (np.float32, np.float64)
    return plain and real and cpu_kernels() == "compiled" and jax.default_backend() == "cpu"


def _blank(options: Options) -> State:
    """A state's structure."""
    layout = options.layout
    zeros = (jnp.zeros(shape, layout.dtype) for shape in ((NUMBERS,), (VECTORS, layout.n), (options.width, layout.n)))
    rows = jnp.full(options.rows, 0 if options.blank else jnp.nan, layout.dtype)
    history = History(*[rows] * len(History._fields)) if options.rows else None
    numbers, vectors, band = zeros
    return State(numbers, vectors, band, None, None, jnp.int32(0), history)


def _call(name: str, s: State, *operands: Any, before: tuple = ()) -> State:
    """The kernel's results in the place of the state, whose memory they take."""
    arrays = s.numbers, s.vectors, s.band
    vector = jax.ShapeDtypeStruct(s.vectors.shape[-1:], s.vectors.dtype)
    call = jax.ffi.ffi_call(
        f"bandhess_newton_{name}",
        (*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays), vector, vector),
        vmap_method="broadcast_all",
        input_output_aliases={len(before) + i: i for i in range(3)},
    )
    numbers, vectors, band, x, probe = call(*before, *arrays, *operands)
    return State(numbers, vectors, band, x, probe, s.turns, s.history)


def _started(options: Options, x: Array, limits: Array, scale: Array | None, before: State, begun: Any) -> State:
    table = settings(options.scale, options.given, options.check_band)
    none, dummies = jnp.zeros(0, x.dtype), options.dummies
    optional = (none if a is None else a for a in (scale, dummies))
    given = x, limits, jnp.asarray(np.array(table, x.dtype)), *optional, jnp.asarray(begun, jnp.int32)
    return _call("start", before, before=given)


def initial(options: Options, x: Array, limits: Array, scale: Array | None) -> State:
    """Nothing is known yet. limits are as `limits_of` has them, scale `(n,)` is sizes of the variables, where given."""
    return _started(options, x, limits, scale, _blank(options), 0)


def restored(options: Options, packed: Packed, x: Array, limits: Array, scale: Array | None) -> State:
    """The state that was packed; the initial one where none was yet."""
    blank, begun = _blank(options), packed.integers[0]
    before = contents(packed, blank)
    history = jax.tree.map(lambda rows, none: jnp.where(begun > 0, rows, none), before.history, blank.history)
    return _started(options, x, limits, scale, before._replace(history=history), begun)


def _noted(options: Options, callback: Callable | None, s: State) -> State:
    """Reports on a new iterate."""
    fresh, steps, history = s.number("fresh") > 0, s.steps, s.history
    if history is not None:
        ratio = jnp.where(steps == 0, 0 if options.blank else jnp.nan, s.number("ratio"))
        size, shift, radius = map(s.number, ("size", "shift", "radius"))
        row = History(s.value, s.grad_norm, size, shift, radius, ratio)
        place = jnp.where(fresh, steps, options.rows)  # there is no such row
        history = jax.tree.map(lambda rows, a: rows.at[place].set(a, mode="drop"), history, row)
    if callback is not None:
        lax.cond(fresh, lambda info: jax.debug.callback(callback, info), lambda _: None, s.info)
    return s._replace(history=history)


def turns(
    options: Options, functions: Functions, scale: Array | None, callback: Callable | None, x: Array
) -> Callable[[State], State]:
    """From one state to the next, as `trust_region.turns` has it; but a turn tries steps until one serves."""
    pi = np.array([1, np.pi], options.layout.dtype)

    def trial(s: State) -> State:
        return _call("trial", s, functions.value(s.x))

    def turn(s: State) -> State:
        s = lax.while_loop(lambda s: s.number("request") == VALUES, trial, s)
        # Where the trials came to the end, what follows is asked for by no one, and changes nothing.
        grad, product = functions.derivatives(s.x)
        wanted = (s.number("request") == DERIVATIVES) & (s.number("wants_band") > 0)
        ab = lax.cond(wanted, lambda: functions.band(s.x, product), lambda: jnp.zeros_like(s.band))
        products = jnp.zeros((2, len(grad)), grad.dtype)
        if product is not None:
            # In a loop: one product in the program, whatever it is for.
            one = lambda i, done: done.at[i].set(product(jnp.asarray(pi)[i] * s.probe))  # noqa: E731
            products = lax.fori_loop(0, s.integer("products"), one, products)
        s = _noted(options, callback, _call("begin", s, grad, ab, products))
        return s._replace(turns=s.turns + 1)

    return turn
