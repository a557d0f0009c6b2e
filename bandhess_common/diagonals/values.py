"""A value that depends on v linearly, each entry on a few neighbours in it.

    value[i] = sum over o, and over grids that hold i, of c[i] v[o + strides . i]         (i a multi-index)

The parts of a value are its coefficients c, by offset o and grid. Invariants: a part's grid is canonical, lies within
the value's shape and is not empty; c is a number or an array of the grid's sizes.

The same entries can be written with other strides, at the price of one part for each of them: along an axis the stride
s may become s' where every part is taken apart there, entry p moving to offset o + (s - s') p. `restride` does that,
`align` wherever values with different strides meet. Axes longer than SHORT are not taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..grids import Axis, Grid, canonical, replace, sizes
from .fallback import UnknownError

LIMIT = 6000  # parts of one value, at most
SHORT = 32  # entries along an axis, up to which a part may be taken apart there

Parts = dict[tuple[int, Grid], Any]  # (offset, grid) -> a Coefficient


class Value(NamedTuple):
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in v
    dtype: Any
    parts: Parts


def vector(n: int, dtype: Any, one: Any) -> Value:
    """v itself, of n entries; `one` is the coefficient 1."""
    return Value((n,), (1,), dtype, {(0, ((0, n, 1),)): one})


def collect(parts: Iterable[tuple[int, Sequence[Axis], Any]]) -> Parts:
    """Parts that are alike summed, empty ones dropped."""
    out: Parts = {}
    for count, (offset, grid, part) in enumerate(parts):
        if count > LIMIT:
            raise UnknownError("too many parts")
        key = offset, canonical(grid)
        if 0 not in sizes(key[1]):
            out[key] = out[key].plus(part) if key in out else part
    return out


def entries(grid: Grid, part: Any, axis: int) -> Iterator[tuple[Grid, Any]]:
    """A part as parts of size 1 along an axis."""
    start, size, step = grid[axis]
    if size > SHORT:
        raise UnknownError("an axis too long to be taken apart")
    for i in range(size):
        piece = part if size == 1 else part.take({axis: slice(i, i + 1)})
        yield replace(grid, axis, (start + i * step, 1, 1)), piece


def take_apart(parts: Parts, choose: Callable[[Grid], int | None]) -> list[tuple[int, Grid, Any]]:
    """The parts, each taken apart along the axis chosen for its grid until none is."""
    out, todo = [], [(*key, part) for key, part in parts.items()]
    while todo:
        o, grid, part = todo.pop()
        axis = choose(grid)
        if axis is None:
            out.append((o, grid, part))
        else:
            todo += [(o, *piece) for piece in entries(grid, part, axis)]
        if len(out) > LIMIT:
            raise UnknownError("too many parts")
    return out


def restride(value: Value, axis: int, stride: int) -> Value:
    """The same entries with another stride along an axis.

    stride 1:  0 | 0:2 | c      with stride 0      0 | 0:1 | c[:1]   and   1 | 1:2 | c[1:]
    """
    old = value.strides[axis]
    if old == stride:
        return value
    parts = collect(
        (o + (old - stride) * piece[axis][0], piece, part)
        for (o, grid), all_of_it in value.parts.items()
        for piece, part in entries(grid, all_of_it, axis)
    )
    return value._replace(strides=(*value.strides[:axis], stride, *value.strides[axis + 1 :]), parts=parts)


def _longest(axis: int, value: Value) -> int:
    return max((grid[axis][1] for _, grid in value.parts), default=0)


def align(values: Sequence[Value]) -> list[Value]:
    """All with the same strides: along every axis those of the value with the longest part, or of the first."""
    values = list(values)
    for axis in range(len(values[0].shape)) if len({value.strides for value in values}) > 1 else ():
        stride = max(values, key=partial(_longest, axis)).strides[axis]
        values = [restride(value, axis, stride) for value in values]
    return values
