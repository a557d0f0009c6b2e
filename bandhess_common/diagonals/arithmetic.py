"""Sums and products of values: add, scale, where, sum, contract.

A program is linear in v, so that what does not depend on v is zero wherever it is added or joined; a product of two
values that depend on v is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..grids import Axis, Grid, full
from .fallback import UnknownError
from .values import LIMIT, Value, align, collect, restride, take_apart

TERMS = 8  # of a contracted axis, up to which a product is a sum of products


def add(*values: Value) -> Value:
    """Of one shape.

    stride 1:  0 | 0:4 | a   and   0 | 0:4 | b,  1 | 0:4 | c      give      0 | 0:4 | a + b,  1 | 0:4 | c
    """
    first, *others = align(values)
    parts = dict(first.parts)
    for value in others:
        for key, part in value.parts.items():
            parts[key] = parts[key].plus(part) if key in parts else part
    if len(parts) > LIMIT:
        raise UnknownError("too many parts")
    return Value(first.shape, first.strides, first.dtype, parts)


def negate(a: Value) -> Value:
    """1 | 0:4 | c      gives      1 | 0:4 | -c"""
    return Value(a.shape, a.strides, a.dtype, {key: part.negative() for key, part in a.parts.items()})


def scale(a: Value, factor: Any) -> Value:
    """By a number, or an array of the value's shape.

    1 | 2:4 | c      gives      1 | 2:4 | c factor[2:4]
    """
    return Value(a.shape, a.strides, a.dtype, {key: part.times(factor, key[1]) for key, part in a.parts.items()})


def divide(a: Value, divisor: Any) -> Value:
    """By a number, or an array of the value's shape: as `scale`, rounded as a division."""
    return a._replace(parts={key: part.over(divisor, key[1]) for key, part in a.parts.items()})


def where(choices: Sequence[tuple[Any, Value]]) -> Value:
    """The sum of values of one shape, each where its mask holds and zero elsewhere; a mask has that shape or none.

    1 | 2:4 | c      gives      1 | 2:4 | c where mask[2:4]
    """
    aligned = align([value for _, value in choices])
    parts = [
        (o, grid, part.where(mask, grid, value.dtype))
        for (mask, _), value in zip(choices, aligned, strict=True)
        for (o, grid), part in value.parts.items()
    ]
    return aligned[0]._replace(parts=collect(parts))


def sum_over(a: Value, axes: Sequence[int]) -> Value:
    """Without these axes.

    (4, 2), strides 2 1:  0 | 0:4 x 0:2 | c      with stride 0 along the second      0 | 0:4 x 0:1,  1 | 0:4 x 1:2
    gives (4,), stride 2:  0 | 0:4 | c[:, 0],  1 | 0:4 | c[:, 1]
    """
    for axis in axes:
        a = restride(a, axis, 0)
    keep = [axis for axis in range(len(a.shape)) if axis not in axes]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    parts = collect((o, pick(grid), part.sum(axes, grid)) for (o, grid), part in a.parts.items())
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


Pairs = tuple[Sequence[int], Sequence[int]]  # axes of the value, and of the factor


def contract(a: Value, factor: Any, summed: Pairs, batch: Pairs, first: bool, product: Callable) -> Value:
    """A product of tensors, over some axes of both.

    The result's axes are the batch's, then those that only the value and only the factor have, in this order if the
    value is `first`. `product` multiplies coefficients and factor. The result does not move in v along the factor's
    axes, so their stride is zero; nor may the value along the axes summed over.

    (4, 2), strides 2 1:  0 | 0:4 x 0:2 | c      times a matrix F (2, 3) gives
    (4, 3), strides 2 0:  0 | 0:4 x 0:3 | c[:, :1] F[:1],  1 | 0:4 x 0:3 | c[:, 1:] F[1:]
    """
    for axis in summed[0]:
        a = restride(a, axis, 0)
    free = [axis for axis in range(len(a.shape)) if axis not in (*summed[0], *batch[0])]
    other = [axis for axis in range(len(factor.shape)) if axis not in (*summed[1], *batch[1])]

    def order(own: Sequence[Any], its: Sequence[Any]) -> tuple:
        frees = [own[axis] for axis in free], [its[axis] for axis in other]
        return (*(own[axis] for axis in batch[0]), *frees[not first], *frees[first])

    def short(grid: Grid) -> int | None:
        return next((axis for axis in summed[0] if 1 < grid[axis][1] <= TERMS), None)

    parts = []
    for o, grid, part in take_apart(a.parts, short):
        rows: list[Axis] = list(full(factor.shape))
        for axis, there in zip((*summed[0], *batch[0]), (*summed[1], *batch[1]), strict=True):
            rows[there] = grid[axis]
        out = order(grid, rows)
        parts.append((o, out, part.contract(grid, tuple(rows), factor, product, summed[1], out)))
    shape, strides = order(a.shape, factor.shape), order(a.strides, [0] * len(factor.shape))
    return Value(shape, strides, a.dtype, collect(parts))
