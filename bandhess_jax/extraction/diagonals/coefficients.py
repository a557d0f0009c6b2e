"""The numbers of one part as JAX has them: an array of its grid's sizes, or a constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.grids import Grid, sizes

from ...framework.programs import is_constant


def on_grid(grid: Grid, array: Any) -> Any:
    """An array of the value's shape, or a scalar, on a part's grid."""
    if jnp.ndim(array) == 0 or array.shape == sizes(grid):
        return array
    stops = [start + (size - 1) * step + 1 for start, size, step in grid]
    return lax.slice(array, [start for start, *_ in grid], stops, [step for *_, step in grid])


class Coefficient:
    """`bandhess_common.diagonals.coefficients` says what the methods do.

    A constant is a NumPy scalar, computed with while the program is traced: it leaves no operation there. A traced
    scalar is one number for all entries, too.
    """

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def _view(self, change: Callable[..., Any], *args: Any) -> Coefficient:
        return self if jnp.ndim(self.array) == 0 else Coefficient(change(self.array, *args))

    def formed(self, grid: Grid, dtype: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(self.array, dtype), sizes(grid))

    def plus(self, other: Coefficient) -> Coefficient:
        add = np.add if is_constant(self.array) and is_constant(other.array) else jnp.add
        return Coefficient(add(self.array, other.array))

    def negative(self) -> Coefficient:
        return Coefficient(-self.array)

    def times(self, factor: Any, grid: Grid) -> Coefficient:
        if not is_constant(self.array):
            return Coefficient(jnp.multiply(self.array, on_grid(grid, factor)))
        if is_constant(factor):
            return Coefficient(np.multiply(self.array, factor))
        factor = on_grid(grid, factor)
        return Coefficient(factor if float(self.array) == 1 else jnp.multiply(self.array, factor))

    def over(self, divisor: Any, grid: Grid) -> Coefficient:
        return Coefficient(jnp.divide(self.array, on_grid(grid, divisor)))

    def where(self, mask: Any, grid: Grid, dtype: Any) -> Coefficient:
        return Coefficient(jnp.where(on_grid(grid, mask), self.array, jnp.zeros((), dtype)))

    def convert(self, dtype: Any) -> Coefficient:
        constant = is_constant(self.array)
        return Coefficient(np.asarray(self.array).astype(dtype) if constant else self.array.astype(dtype))

    def sum(self, axes: Sequence[int], grid: Grid) -> Coefficient:
        if jnp.ndim(self.array) == 0:
            return Coefficient(self.array * math.prod(grid[axis][1] for axis in axes))
        return Coefficient(jnp.sum(self.array, tuple(axes)))

    def contract(
        self, grid: Grid, rows: Grid, factor: Array, product: Callable, axes: Sequence[int], out: Grid
    ) -> Coefficient:
        return Coefficient(product(self.formed(grid, factor.dtype), on_grid(rows, factor)))

    def take(self, entries: Mapping[int, slice]) -> Coefficient:
        def cut(array: Array) -> Array:
            bounds = [entries.get(axis, slice(None)).indices(size) for axis, size in enumerate(array.shape)]
            starts, stops, steps = zip(*bounds, strict=True)
            return lax.slice(array, starts, stops, steps)

        return self._view(cut)

    def flip(self, axes: Sequence[int]) -> Coefficient:
        return self._view(lax.rev, axes)

    def permute(self, axes: Sequence[int]) -> Coefficient:
        return self._view(lax.transpose, axes)

    def expand(self, sizes: Sequence[int], axes: Sequence[int]) -> Coefficient:
        return self._view(lax.broadcast_in_dim, sizes, axes)

    def reshape(self, sizes: Sequence[int]) -> Coefficient:
        return self._view(jnp.reshape, sizes)

    def fill(self, grid: Grid, axis: int, length: int, dtype: Any) -> Coefficient:
        start, size, step = grid[axis]
        config = [(0, 0, 0)] * len(grid)
        config[axis] = (start, length - start - (size - 1) * step - 1, step - 1)
        return Coefficient(lax.pad(self.formed(grid, dtype), jnp.zeros((), dtype), config))
