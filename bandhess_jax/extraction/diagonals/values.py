"""Values that depend on a vector v linearly, each entry on a few neighbours in it: coefficients on grids.

value[i] = sum over o, and over grids that hold i, of part[i] v[o + strides . i]         (i a multi-index)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...framework.programs import is_constant

LIMIT = 6000  # parts of one value, at most
SHORT = 32  # entries along an axis, up to which a part may be taken apart there
TERMS = 8  # of a contracted axis, up to which a matrix product is a sum of products

Axis = tuple[int, int, int]  # start, size, step: of a part along one axis of its value
Grid = tuple[Axis, ...]
Parts = dict[tuple[int, Grid], Any]  # (offset, grid) -> an array of the grid's sizes, or a scalar


class UnknownError(Exception):
    """The program holds what this file has no rule for."""


class Value(NamedTuple):
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in v
    dtype: Any
    parts: Parts


def sizes_of(grid: Grid) -> tuple[int, ...]:
    return tuple(size for _, size, _ in grid)


def gathered(parts: Iterable[tuple[int, Sequence[Axis], Any]]) -> Parts:
    out: Parts = {}
    for count, (offset, grid, part) in enumerate(parts):
        if count > LIMIT:
            raise UnknownError
        key = offset, tuple((start, size, step if size > 1 else 1) for start, size, step in grid)
        if 0 in sizes_of(key[1]):
            continue
        if key in out:
            part = np.add(out[key], part) if is_constant(out[key]) and is_constant(part) else jnp.add(out[key], part)
        out[key] = part
    return out


def on_grid(grid: Grid, array: Any) -> Any:
    """An array of the value's shape, or a scalar, on a part's grid."""
    if jnp.ndim(array) == 0:
        return array
    if array.shape == sizes_of(grid):
        return array
    stops = [start + (size - 1) * step + 1 for start, size, step in grid]
    return lax.slice(array, [start for start, *_ in grid], stops, [step for *_, step in grid])


def formed(grid: Grid, part: Any, dtype: Any) -> Array:
    return jnp.broadcast_to(jnp.asarray(part, dtype), sizes_of(grid))


def reshaped(part: Any, shape: Sequence[int]) -> Any:
    return part if jnp.ndim(part) == 0 else jnp.reshape(part, shape)


def apart(grid: Grid, part: Any, axis: int) -> Iterable[tuple[Grid, Any]]:
    """A part as parts of size 1 along an axis."""
    start, size, step = grid[axis]
    if size > SHORT:
        raise UnknownError
    for i in range(size):
        piece = part if jnp.ndim(part) == 0 or size == 1 else lax.slice_in_dim(part, i, i + 1, axis=axis)
        yield (*grid[:axis], (start + i * step, 1, 1), *grid[axis + 1 :]), piece


def all_apart(parts: Parts, choose: Callable[[Grid], int | None]) -> list[tuple[int, Grid, Any]]:
    """The parts, each taken apart along the axis chosen for its grid until none is."""
    out, todo = [], [(*key, part) for key, part in parts.items()]
    while todo:
        o, grid, part = todo.pop()
        axis = choose(grid)
        if axis is None:
            out.append((o, grid, part))
        else:
            todo += [(o, piece, cut) for piece, cut in apart(grid, part, axis)]
        if len(out) > LIMIT:
            raise UnknownError
    return out


def moved(value: Value, axis: int, stride: int) -> Value:
    """The same value with another stride along an axis: every entry there changes its offset, each by its own."""
    old = value.strides[axis]
    if old == stride:
        return value
    parts = gathered(
        (o + (old - stride) * piece[axis][0], piece, part)
        for (o, grid), whole in value.parts.items()
        for piece, part in apart(grid, whole, axis)
    )
    return value._replace(strides=(*value.strides[:axis], stride, *value.strides[axis + 1 :]), parts=parts)


def _reach(axis: int, value: Value) -> int:
    return max((grid[axis][1] for _, grid in value.parts), default=0)


def aligned(values: Sequence[Value]) -> list[Value]:
    """All with the same strides: along every axis those of the value with the longest part, or of the first."""
    values = list(values)
    for axis in range(len(values[0].shape)):
        stride = max(values, key=partial(_reach, axis)).strides[axis]
        values = [moved(value, axis, stride) for value in values]
    return values
