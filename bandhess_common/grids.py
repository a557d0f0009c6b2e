"""Regular grids in the index space of an array: integers alone.

An axis of a grid is `(start, size, step)`: the indices start, start + step, ..., size of them. A grid has one for every
axis of the array that it lies in.

    array of 3 x 5, grid ((0, 2, 2), (1, 3, 1)):        . x x x .
                                                        . . . . .
                                                        . x x x .

The functions say where a grid lies after its array was cut, reversed, placed in a longer one, or given other axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

Axis = tuple[int, int, int]  # start, size, step
Grid = tuple[Axis, ...]


def full(shape: Iterable[int]) -> Grid:
    """Every index of an array."""
    return tuple((0, size, 1) for size in shape)


def sizes(grid: Iterable[Axis]) -> tuple[int, ...]:
    return tuple([size for _, size, _ in grid])  # a list first: half the time of a generator, here and below


def canonical(grid: Iterable[Axis]) -> Grid:
    """The same grid, with step 1 along the axes where it has one entry: equal grids are then equal tuples."""
    return tuple([(start, size, step if size > 1 else 1) for start, size, step in grid])


def replace(grid: Grid, axis: int, *new: Axis) -> Grid:
    """With other axes in the place of one."""
    return (*grid[:axis], *new, *grid[axis + 1 :])


def slices(grid: Iterable[Axis]) -> tuple[slice, ...]:
    """What takes a grid's entries from an array."""
    return tuple([slice(start, start + (size - 1) * step + 1, step) for start, size, step in grid])


def row_major(shape: Sequence[int], axis: int) -> int:
    """Entries between neighbours along an axis, in memory order."""
    return math.prod(shape[axis + 1 :])


def cut(axis: Axis, start: int, stop: int, step: int) -> tuple[Axis, slice]:
    """What [start:stop:step] leaves of an axis, and which of its entries that are.

    (1, 4, 2) is 1 3 5 7. Of it [2:7] leaves 3 5, now at 1 3: ((1, 2, 2), 1:3). [1:8:4] leaves 1 5, now at 0 1:
    ((0, 2, 1), 0:4:2).
    """
    own, size, gap = axis
    if gap == step == 1:  # by far the most frequent
        first = max(0, start - own)
        last = max(first, min(size, stop - own))
        return (own + first - start, last - first, 1), slice(first, last)
    repeat = step // math.gcd(gap, step)  # every so many entries lie on the cut's steps
    first = max(0, -(-(start - own) // gap))
    fits = [i for i in range(first, first + repeat) if (own + gap * i - start) % step == 0]
    last = min(size - 1, (stop - 1 - own) // gap)
    if not fits or fits[0] > last:
        return (0, 0, 1), slice(0, 0)
    left = (last - fits[0]) // repeat + 1
    return ((own + gap * fits[0] - start) // step, left, gap * repeat // step), slice(fits[0], last + 1, repeat)


def flip(axis: Axis, length: int) -> Axis:
    """Counted from the other end: of 5, the entries 0 2 are then at 2 4."""
    start, size, step = axis
    return length - 1 - start - (size - 1) * step, size, step


def place(axis: Axis, low: int, step: int) -> Axis:
    """Index p at low + step p of a longer axis: 0 1 2 by (1, 2) are then at 1 3 5."""
    start, size, own = axis
    return low + step * start, size, step * own if size > 1 else 1


def merge(axes: Sequence[Axis], lengths: Sequence[int]) -> Axis | None:
    """Several axes as one, in memory order; None where that has no single step.

    Of 3 x 4: (0, 2, 1) x (1, 1, 1) is 1 5, which is (1, 2, 4). (0, 2, 1) x (1, 2, 1) is 1 2 5 6: none.
    """
    spans = [row_major(lengths, k) for k in range(len(axes))]
    start = sum(own * span for (own, _, _), span in zip(axes, spans, strict=True))
    long = [(size, step * span) for (_, size, step), span in zip(axes, spans, strict=True) if size > 1]
    if any(outer != size * inner for (_, outer), (size, inner) in pairwise(long)):
        return None
    return start, math.prod(sizes(axes)), long[-1][1] if long else 1


def split(axis: Axis, inner: int) -> tuple[Axis, Axis] | None:
    """One axis as two, the inner one of the length given; None where the entries are no grid there.

    As rows of 4: 1 5 9 is (0, 3, 1) x (1, 1, 1); 4 5 .. 11 is (1, 2, 1) x (0, 4, 1); 1 2 .. 5 is none.
    """
    start, size, step = axis
    if step % inner == 0 or size == 1:
        return (start // inner, size, max(1, step // inner)), (start % inner, 1, 1)
    if step == 1 and start % inner == 0 and size % inner == 0:
        return (start // inner, size // inner, 1), (0, inner, 1)
    return None


def common_groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """How a shape becomes another of as many entries: so many axes of the old one are merged, and split into these.

    (6, 2, 5) to (3, 4, 5): two into 3, 4; one into 5. Neither shape has axes of length 1.
    """
    left, axis = list(new), 0
    while left:
        group, last = [left.pop(0)], axis + 1
        while (behind := math.prod(group) - math.prod(old[axis:last])) != 0:
            if behind < 0:
                group.append(left.pop(0))
            else:
                last += 1
        yield last - axis, group
        axis = last
