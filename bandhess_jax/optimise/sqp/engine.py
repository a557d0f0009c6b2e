"""The interior-point method by requests: where `loop.py` brings values and derivatives to.

On CPUs it is compiled; elsewhere, and inside `portable()`, the portable one (`bandhess_common/interior_point`) is
traced, which takes far longer to compile.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.interior_point import loop
from bandhess_common.interior_point import state as portable
from bandhess_common.interior_point.constants import constants_of_engine
from bandhess_common.interior_point.problem import problem as problem_of
from bandhess_common.interior_point.state import Solution
from bandhess_common.kernels.interior import REGISTERS, Layout, words

from ...framework.kernels import cpu_kernels
from . import ops
from .derivatives import Derivatives

COLD, MULTIPLIERS, WARM = 0.0, 1.0, 2.0
"""How it starts: with the constraints' multipliers by least squares, with given ones, or where another solve ended."""


class Box(NamedTuple):
    """Bounds `(n,)`, infinite where there is none; held variables are where `lower` says."""

    lower: Array
    upper: Array
    held: Array  # 1 on fixed variables and dummies


class Start(NamedTuple):
    """Where a solve begins."""

    y: Array
    z_lower: Array
    z_upper: Array
    numbers: Array  # (5,): tol, max_steps, COLD, MULTIPLIERS or WARM, mu, 1 where nobody asks for each iterate


class Engine(Protocol):
    """What both are. A head is what a loop reads of a state; `start` gives the state before where that has begun, and
    comes, as `begin` and `trial` do, with the head."""

    @property
    def layout(self) -> Layout: ...
    @property
    def m(self) -> int: ...
    def start(self, box: Box, x: Array, start: Start, before: Any, begun: Any) -> tuple: ...
    def blank(self) -> tuple: ...
    def begin(self, state: Any, at: Derivatives) -> tuple: ...
    def trial(self, state: Any, f: Array, h: Array) -> tuple: ...
    def solution(self, state: Any) -> Solution: ...
    def register(self, head: Any, name: str) -> Array: ...
    def vector(self, head: Any, name: str) -> Array: ...


class Compiled(NamedTuple):
    """The compiled kernels, for m equalities among the rows. Their state is one flat array
    (`bandhess_common/kernels/interior.py`), and they write into the memory of the state that they are given."""

    layout: Layout
    m: int
    dtype: np.dtype

    def start(self, box: Box, x: Array, start: Start, before: Array, begun: Any) -> tuple:
        table = np.array(constants_of_engine(float(np.finfo(self.dtype).eps)))
        numbers = start.numbers.at[2].set(jnp.where(begun, -1, start.numbers[2]))
        constants = jnp.asarray(table.view(words(self.dtype.name, 1)[0]))
        operands = *box, x, *start._replace(numbers=numbers), constants, before
        return self._turn("start", {"rows": self.layout.rows, "m": self.m}, *operands)

    def blank(self) -> tuple:
        """A state's and a head's structure."""
        return tuple(jnp.zeros(a.shape, a.dtype) for a in self._shapes)

    def begin(self, state: Array, at: Derivatives) -> tuple:
        """After a request for derivatives."""
        operands = at._replace(narrow=at.narrow.astype(self.dtype))
        return self._turn("begin", {}, state, *operands)

    def trial(self, state: Array, f: Array, h: Array) -> tuple:
        """After a request for values."""
        return self._turn("trial", {"n": self.layout.n, "rows": self.layout.rows}, state, f, h)

    def solution(self, state: Array) -> Solution:
        n, r, rows, _ = self.layout
        shapes = [jax.ShapeDtypeStruct(shape, self.dtype) for shape in ((n,), (r,), (n,), (n,), ())]
        return Solution(*self._call("solution", shapes, {"n": n, "r": r, "rows": rows}, state))

    def register(self, head: Array, name: str) -> Array:
        return head[REGISTERS.index(name)]

    def vector(self, head: Array, name: str) -> Array:
        start, end = self.layout.request(name)
        return head[start:end]

    @property
    def _shapes(self) -> list[jax.ShapeDtypeStruct]:
        """Of a state and a head."""
        word, count = words(self.dtype.name, self.layout.size)
        return [jax.ShapeDtypeStruct((count,), word), jax.ShapeDtypeStruct((self.layout.head,), self.dtype)]

    def _turn(self, name: str, options: dict[str, int], *operands: Array) -> tuple:
        return tuple(self._call(name, self._shapes, options, *operands))

    def _call(self, name: str, shapes: list, options: dict[str, int], *operands: Array) -> Any:
        call = jax.ffi.ffi_call(
            f"bandhess_interior_{name}",
            shapes,
            vmap_method="broadcast_all",
            input_output_aliases={"start": {9: 0}, "begin": {0: 0}, "trial": {0: 0}}.get(name),
        )
        options = options | {"shared": self.layout.p}
        return call(*operands, **{option: np.float64(value) for option, value in options.items()})


OPS = cast(Any, ops)  # a module, which has what the protocol of operations lists


class Running(NamedTuple):
    """The portable engine's state, with the problem that its functions want."""

    problem: portable.Problem
    state: portable.State


class Head(NamedTuple):
    """What a loop reads of it."""

    registers: Array
    x_request: Array
    y_request: Array


class Portable(NamedTuple):
    """The portable engine, with the same methods."""

    layout: Layout
    m: int
    dtype: np.dtype

    def start(self, box: Box, x: Array, start: Start, before: Running, begun: Any) -> tuple:
        new = functools.partial(self._start, box, x, start)
        return self._with_head(new() if begun is False else lax.cond(begun, lambda: before, new))

    def _start(self, box: Box, x: Array, start: Start) -> Running:
        tol, max_steps, kind, mu, _ = start.numbers
        first = jnp.zeros(self.layout.r, jnp.int32)  # `begin` brings them
        problem = problem_of(OPS, *box, first, self.m, (tol, max_steps), *self.layout[2:])
        given = portable.Solution(x, start.y, start.z_lower, start.z_upper, mu)
        return Running(problem, loop.start(OPS, problem, x, kind.astype(jnp.int32), given))

    def blank(self) -> tuple:
        n, r, *_ = self.layout
        vector, rows, numbers = (jnp.zeros(size, self.dtype) for size in (n, r, 5))
        box, start = Box(*[vector] * 3), Start(rows, vector, vector, numbers)
        shapes = jax.eval_shape(self._start, box, vector, start)
        return self._with_head(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes))

    def begin(self, running: Running, at: Derivatives) -> tuple:
        n, _, rows, p = self.layout[:4]
        count = len(at.band) - p
        empty = jnp.zeros((rows - count, n), self.dtype)  # the diagonals that hold nothing
        band = jnp.concatenate([at.band[:count], empty, at.band[count:]])
        given = portable.Derivatives(at.value, at.h, at.grad, at.rows, band, at.narrow, at.first)
        return self._with_head(running._replace(state=loop.begin(OPS, running.problem, running.state, given)))

    def trial(self, running: Running, f: Array, h: Array) -> tuple:
        values = portable.Values(f, h)
        return self._with_head(running._replace(state=loop.trial(OPS, running.problem, running.state, values)))

    def solution(self, running: Running) -> Solution:
        return Solution(*running.state.solution)

    def _with_head(self, running: Running) -> tuple[Running, Head]:
        s = running.state
        numbers = s.status, s.request, s.sigma, s.steps, *s.report, s.fresh, s.narrow
        return running, Head(jnp.stack([jnp.asarray(a, self.dtype) for a in numbers]), s.x_request, s.y_request)

    def register(self, head: Head, name: str) -> Array:
        return head.registers[REGISTERS.index(name)]

    def vector(self, head: Head, name: str) -> Array:
        return getattr(head, name)


def engine(layout: Layout, m: int, dtype: np.dtype) -> Engine:
    """For m equalities among the rows."""
    compiled = cpu_kernels() == "compiled" and jax.default_backend() == "cpu" and dtype in (np.float32, np.float64)
    return (Compiled if compiled else Portable)(layout, m, dtype)
