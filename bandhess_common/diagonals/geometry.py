"""Entries taken, placed, turned and counted otherwise: slice, place, flip, permute, expand, reshape, stack.

They form nothing: grids, offsets and strides move, and coefficients at most are viewed otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .. import grids
from ..grids import Grid, replace, row_major, sizes
from .arithmetic import add
from .fallback import UnknownError
from .values import Value, align, collect, restride, take_apart


def slice_(a: Value, cuts: Mapping[int, tuple[int, int, int]]) -> Value:
    """[start:stop:step] along some axes, start and stop within them.

    stride 1:  0 | 0:6 | c      by 1:6:2 gives      stride 2:  1 | 0:3 | c[1:6:2]
    """
    shape, strides, shift = list(a.shape), list(a.strides), 0
    for axis, (start, stop, step) in cuts.items():
        shift += start * a.strides[axis]
        shape[axis], strides[axis] = len(range(start, stop, step)), a.strides[axis] * step
    parts = []
    for (o, grid), part in a.parts.items():
        kept, taken = list(grid), {}
        for axis, bounds in cuts.items():
            kept[axis], entries = grids.cut(grid[axis], *bounds)
            if not kept[axis][1]:
                break
            if kept[axis][1] != grid[axis][1]:
                taken[axis] = entries
        else:
            parts.append((o + shift, kept, part.take(taken) if taken else part))
    return Value(tuple(shape), tuple(strides), a.dtype, collect(parts))


def place(a: Value, axis: int, low: int, step: int, length: int, stride: int | None = None) -> Value:
    """In a longer axis, otherwise zero: entry p at low + step p. Its stride there, if it matters, may be given.

    stride 2:  1 | 0:3 | c      at 1 3 5 of 6 gives      stride 1:  0 | 1:6:2 | c      (v[1 + 2 p] = v[0 + (1 + 2 p)])
    """
    if stride is None:  # one entry has none of its own
        stride = row_major(a.shape, axis) if a.shape[axis] == 1 else a.strides[axis] // step
    a = restride(a, axis, stride * step)
    parts = {
        (o - stride * low, replace(grid, axis, grids.place(grid[axis], low, step))): part
        for (o, grid), part in a.parts.items()
    }
    shape, strides = list(a.shape), list(a.strides)
    shape[axis], strides[axis] = length, stride
    return Value(tuple(shape), tuple(strides), a.dtype, parts)


def flip(a: Value, axes: Sequence[int]) -> Value:
    """From the other end.

    (5,), stride 1:  1 | 0:4 | c      gives      stride -1:  5 | 1:5 | c[::-1]
    """
    shift = sum(a.strides[axis] * (a.shape[axis] - 1) for axis in axes)
    parts = {}
    for (o, grid), part in a.parts.items():
        for axis in axes:
            grid = replace(grid, axis, grids.flip(grid[axis], a.shape[axis]))
        parts[o + shift, grid] = part.flip(axes)
    strides = tuple(-stride if axis in axes else stride for axis, stride in enumerate(a.strides))
    return a._replace(strides=strides, parts=parts)


def permute(a: Value, axes: Sequence[int]) -> Value:
    """strides 2 1:  0 | 0:4 x 0:2 | c      by 1 0 gives      strides 1 2:  0 | 0:2 x 0:4 | c^T"""
    pick = lambda of: tuple(of[axis] for axis in axes)  # noqa: E731
    parts = {(o, pick(grid)): part.permute(axes) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def expand(a: Value, shape: Sequence[int], axes: Sequence[int]) -> Value:
    """Axis k becomes axes[k], in ascending order; the value is repeated along the others, and where it has length 1.

    (4,), stride 1:  0 | 0:4 | c      to (4, 3) by its axis 0 gives      strides 1 0:  0 | 0:4 x 0:3 | c, each repeated
    """
    if tuple(shape) == a.shape:
        return a
    longer = [to for to in range(len(shape)) if to not in axes]
    strides = [0] * len(shape)
    for axis, to in enumerate(axes):
        if shape[to] != a.shape[axis]:
            a = restride(a, axis, 0)
            longer.append(to)
        strides[to] = a.strides[axis]
    parts = []
    for (o, grid), part in a.parts.items():
        wide = [(0, shape[to], 1) if to in longer else grid[axes.index(to)] for to in range(len(shape))]
        parts.append((o, wide, part.expand(sizes(wide), axes)))
    return Value(tuple(shape), tuple(strides), a.dtype, collect(parts))


def squeeze(a: Value, axes: Sequence[int]) -> Value:
    """Without axes of length 1: their index is 0, which adds nothing."""
    keep = [axis for axis in range(len(a.shape)) if axis not in axes]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    parts = {(o, pick(grid)): part.reshape(sizes(pick(grid))) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def unsqueeze(a: Value, axis: int) -> Value:
    """With a new axis of length 1, before the one given."""
    shape = (*a.shape[:axis], 1, *a.shape[axis:])
    return expand(a, shape, [to for to in range(len(shape)) if to != axis])


def reshape(a: Value, shape: Sequence[int]) -> Value:
    """In memory order: axes are merged and split as far as need be, and axes of length 1 come last.

    (4, 2), strides 2 1:  0 | 0:4 x 0:2 | c      to (8,) gives      stride 1:  0 | 0:8 | c.reshape(8)
    """
    if 0 in shape:
        raise UnknownError("no entries")
    a = squeeze(a, [axis for axis, size in enumerate(a.shape) if size == 1])
    long, at = [axis for axis, size in enumerate(shape) if size != 1], 0
    for count, lengths in grids.common_groups(a.shape, [shape[axis] for axis in long]):
        a = _split(_merge(a, at, at + count), at, lengths)
        at += len(lengths)
    return expand(a, shape, long)


def _merge(a: Value, first: int, last: int) -> Value:
    """With the axes first .. last - 1 as one, in memory order, which moves in v as the longest of them does.

    (2, 3), strides 6 1:  0 | 0:2 x 0:3 | c      first has strides 3 1, at the price of two parts,
    0 | 0:1 x 0:3 | c[:1],  3 | 1:2 x 0:3 | c[1:]      and gives (6,), stride 1:  0 | 0:3 | c[0],  3 | 3:6 | c[1]
    """
    lengths = a.shape[first:last]
    longest = max(range(last - first), key=lengths.__getitem__)
    stride = a.strides[first + longest] // row_major(lengths, longest)
    for k in range(last - first):
        a = restride(a, first + k, stride * row_major(lengths, k))

    def uneven(grid: Grid) -> int | None:
        if grids.merge(grid[first:last], lengths) is not None:
            return None
        return min((axis for axis in range(first, last) if grid[axis][1] > 1), key=lambda axis: grid[axis][1])

    parts = []
    for o, grid, part in take_apart(a.parts, uneven):
        merged = grids.merge(grid[first:last], lengths)
        assert merged is not None
        one = (*grid[:first], merged, *grid[last:])
        parts.append((o, one, part.reshape(sizes(one))))
    shape, strides = [
        (*of[:first], one, *of[last:]) for of, one in ((a.shape, math.prod(lengths)), (a.strides, stride))
    ]
    return Value(shape, strides, a.dtype, collect(parts))


def _split(a: Value, axis: int, lengths: Sequence[int]) -> Value:
    """With one axis as several of these lengths, in memory order.

    (6,), stride 1:  2 | 0:3 | c      as (2, 3) gives      strides 3 1:  2 | 0:1 x 0:3 | c
    (6,), stride 1:  2 | 0:4 | c      is no grid there: its row is filled up with zeros      2 | 0:2 x 0:3 | c 0 0
    """
    if len(lengths) == 1:
        return a
    inner = math.prod(lengths[1:])
    parts = []
    for (o, grid), part in a.parts.items():
        two = grids.split(grid[axis], inner)
        if two is None:
            part = part.fill(grid, axis, a.shape[axis], a.dtype)
            two = (0, lengths[0], 1), (0, inner, 1)
        new = replace(grid, axis, *two)
        parts.append((o, new, part.reshape(sizes(new))))
    shape = (*a.shape[:axis], lengths[0], inner, *a.shape[axis + 1 :])
    strides = (*a.strides[:axis], a.strides[axis] * inner, a.strides[axis], *a.strides[axis + 1 :])
    return _split(Value(shape, strides, a.dtype, collect(parts)), axis + 1, lengths[1:])


def concatenate(operands: Sequence[Any], axis: int) -> Value:
    """Values, and arrays that do not depend on v, one after the other.

    stride 1:  0 | 0:2 | a   then an array of 3, then   2 | 0:2 | b      give (7,):  0 | 0:2 | a,  -3 | 5:7 | b
    """
    values = [a for a in operands if isinstance(a, Value)]
    shape = list(values[0].shape)
    shape[axis] = sum(a.shape[axis] for a in operands)
    if all(a.shape[axis] == 1 for a in values):  # no value has a stride of its own
        values = [restride(a, axis, row_major(shape, axis)) for a in values]
    left, start, placed = iter(align(values)), 0, []
    for a in operands:
        if isinstance(a, Value):
            value = next(left)
            placed.append(place(value, axis, start, 1, shape[axis], value.strides[axis]))
        start += a.shape[axis]
    return add(*placed)


def stack(operands: Sequence[Any], axis: int, expand_dims: Any) -> Value:
    """Along a new axis: (4,) and (4,) give (4, 2) for axis 1. `expand_dims` gives an array an axis of length 1."""
    return concatenate([unsqueeze(a, axis) if isinstance(a, Value) else expand_dims(a, axis) for a in operands], axis)
