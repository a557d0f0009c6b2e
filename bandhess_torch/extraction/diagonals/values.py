"""Values that depend on a vector v linearly, each entry on a few neighbours in it: coefficients on grids.

value[i] = sum over o, and over grids that hold i, of part[i] v[o + strides . i]         (i a multi-index)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

LIMIT = 6000  # operations on parts, in all and within a rule
SHORT = 32  # entries along an axis, up to which a part may be taken apart there
TERMS = 8  # of a contracted axis, up to which a matrix product is a sum of products

Axis = tuple[int, int, int]  # start, size, step: of a part along one axis of its value
Grid = tuple[Axis, ...]


class UnknownError(Exception):
    """The program holds what this file has no rule for."""


class Late:
    """An array that is formed once it is asked for."""

    __slots__ = ("args", "fun", "made")

    def __init__(self, fun: Callable[..., Tensor], *args: Any) -> None:
        self.fun, self.args = fun, args
        self.made: Tensor | None = None

    def form(self) -> Tensor:
        todo = [self]  # a stack of its own: chains are longer than the interpreter's
        while todo:
            late = todo[-1]
            needed = [a for a in late.args if isinstance(a, Late) and a.made is None]
            todo += needed
            if not needed:
                if late.made is None:
                    late.made = late.fun(*[a.made if isinstance(a, Late) else a for a in late.args])
                    late.args = ()
                todo.pop()
        assert self.made is not None
        return self.made


def formed(a: Any) -> Any:
    return a.form() if isinstance(a, Late) else a


class Part(NamedTuple):
    """`scale` times an array on a grid; times ones where that is None."""

    scale: float
    array: Tensor | Late | None

    def apply(self, fun: Callable[..., Tensor], *args: Any) -> Part:
        return self if self.array is None else Part(self.scale, Late(fun, self.array, *args))

    def plus(self, other: Part) -> Part:
        if self.array is None and other.array is None:
            return Part(self.scale + other.scale, None)
        for a, b in ((self, other), (other, self)):
            ratio = b.scale / a.scale if a.scale and a.array is not None else math.nan
            if ratio.is_integer() and abs(ratio) <= 2**20:  # exact, and one pass
                fun = torch.add if b.array is None else partial(torch.add, alpha=ratio)
                return Part(a.scale, Late(fun, a.array, ratio if b.array is None else b.array))
        if self.array is None:
            return other.plus(self)
        if other.array is None:
            return Part(1.0, Late(lambda a: a * self.scale + other.scale, self.array))
        return Part(1.0, Late(lambda a, b: torch.add(a * self.scale, b, alpha=other.scale), self.array, other.array))


Parts = dict[tuple[int, Grid], Part]  # by offset and grid


class Value(NamedTuple):
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in v
    dtype: torch.dtype
    parts: Parts


def sizes_of(grid: Iterable[Axis]) -> tuple[int, ...]:
    return tuple(size for _, size, _ in grid)


def gathered(parts: Iterable[tuple[int, Sequence[Axis], Part]]) -> Parts:
    out: Parts = {}
    for count, (offset, grid, part) in enumerate(parts):
        if count > LIMIT:
            raise UnknownError
        key = offset, tuple((start, size, step if size > 1 else 1) for start, size, step in grid)
        if 0 not in sizes_of(key[1]):
            out[key] = out[key].plus(part) if key in out else part
    return out


def on_grid(grid: Grid, array: Tensor) -> Tensor:
    """An array of the value's shape on a part's grid."""
    if array.shape == sizes_of(grid):
        return array
    return array[tuple(slice(start, start + (size - 1) * step + 1, step) for start, size, step in grid)]


def apart(grid: Grid, part: Part, axis: int) -> Iterable[tuple[Grid, Part]]:
    """A part as parts of size 1 along an axis."""
    start, size, step = grid[axis]
    if size > SHORT:
        raise UnknownError
    for i in range(size):
        piece = part if size == 1 else part.apply(torch.narrow, axis, i, 1)
        yield (*grid[:axis], (start + i * step, 1, 1), *grid[axis + 1 :]), piece


def all_apart(parts: Parts, choose: Callable[[Grid], int | None]) -> list[tuple[int, Grid, Part]]:
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
    for axis in range(len(values[0].shape)) if len({value.strides for value in values}) > 1 else ():
        stride = max(values, key=partial(_reach, axis)).strides[axis]
        values = [moved(value, axis, stride) for value in values]
    return values
