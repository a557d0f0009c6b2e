"""The interior-point method by requests: where `loop.py` brings values and derivatives to.

The state is one flat array of the compiled kernels (`bandhess_common/kernels/interior.py`). They write into the memory
of the state that they are given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bandhess_common.interior_point.constants import constants
from bandhess_common.kernels.interior import REGISTERS, Layout

from ...framework.kernels import cpu_kernels
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
    numbers: Array  # (4,): tol, max_steps, COLD, MULTIPLIERS or WARM, mu


class Solution(NamedTuple):
    """The last iterate with finite derivatives, unscaled: L = f + y . h - z_lower (x - lower) - z_upper (upper - x)."""

    x: Array
    y: Array
    z_lower: Array
    z_upper: Array
    mu: Array


class Compiled(NamedTuple):
    """The compiled kernels, for m equalities among the rows."""

    layout: Layout
    m: int
    dtype: np.dtype

    def start(self, box: Box, first: Array, x: Array, start: Start) -> Array:
        dtype = self.dtype
        table = jnp.asarray(np.array(constants(float(np.finfo(dtype).eps)), dtype))
        operands = *box, first, x, *start, table
        return self._call("start", [self.layout.size], {"rows": self.layout.rows, "m": self.m}, *operands)

    def begin(self, state: Array, at: Derivatives) -> Array:
        """After a request for derivatives."""
        operands = at.value, at.h, at.grad, at.rows, at.band, at.narrow.astype(self.dtype)
        return self._call("begin", [self.layout.size], {}, state, *operands)

    def trial(self, state: Array, f: Array, h: Array) -> Array:
        """After a request for values."""
        options = {"n": self.layout.n, "rows": self.layout.rows}
        return self._call("trial", [self.layout.size], options, state, f, h)

    def solution(self, state: Array) -> Solution:
        n, r, rows = self.layout
        return Solution(*self._call("solution", [n, r, n, n, None], {"n": n, "r": r, "rows": rows}, state))

    def head(self, state: Array) -> Array:
        """The state's first entries: all that a loop reads of it, but for the solution. To be read from this array, not
        from the state, which the next call writes over: XLA would keep a copy of it."""
        start, count = self.layout.place("y_request")
        return state[: start + count]

    def register(self, head: Array, name: str) -> Array:
        return head[REGISTERS.index(name)]

    def vector(self, head: Array, name: str) -> Array:
        start, count = self.layout.place(name)
        return head[start : start + count]

    def _call(self, name: str, sizes: list[int | None], options: dict[str, int], *operands: Array) -> Any:
        shapes = [jax.ShapeDtypeStruct(() if size is None else (size,), self.dtype) for size in sizes]
        call = jax.ffi.ffi_call(
            f"bandhess_interior_{name}",
            shapes[0] if len(shapes) == 1 else tuple(shapes),
            vmap_method="broadcast_all",
            input_output_aliases={0: 0} if name in ("begin", "trial") else None,
        )
        return call(*operands, **{option: np.float64(value) for option, value in options.items()})


Engine = Compiled
"""Whatever has these methods."""


def engine(n: int, r: int, m: int, rows: int, dtype: np.dtype) -> Engine:
    """For n variables, r rows of which m are equalities, and a band of so many diagonals."""
    if cpu_kernels() != "compiled" or jax.default_backend() != "cpu" or dtype not in (np.float32, np.float64):
        raise NotImplementedError(
            f"sqp runs on a CPU by compiled kernels, in float32 or float64; got {dtype}, platform "
            f"{jax.default_backend()}, kernels {cpu_kernels()}"
        )
    return Compiled(Layout(n, r, rows), m, dtype)
