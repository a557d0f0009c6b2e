"""The numbers of one part as PyTorch has them: one number times an array of its grid's sizes, formed when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandhess_common.diagonals.fallback import UnknownError
from bandhess_common.grids import Grid, sizes, slices


class Late:
    """An array that is formed once it is asked for: what no part of the band needs is never formed."""

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


def form(a: Any) -> Any:
    return a.form() if isinstance(a, Late) else a


def on_grid(grid: Grid, array: Tensor) -> Tensor:
    """An array of the value's shape, or one without axes, on a part's grid."""
    return array if not array.ndim or array.shape == sizes(grid) else array[slices(grid)]


class Coefficient(NamedTuple):
    """`scale` times an array on a grid; times ones where that is None.

    `bandhess_common.diagonals.coefficients` says what the methods do.
    """

    scale: float
    array: Tensor | Late | None

    def _view(self, change: Callable[..., Tensor], *args: Any) -> Coefficient:
        return self if self.array is None else Coefficient(self.scale, Late(change, self.array, *args))

    def plus(self, other: Coefficient) -> Coefficient:
        if self.array is None and other.array is None:
            return Coefficient(self.scale + other.scale, None)
        for a, b in ((self, other), (other, self)):
            ratio = b.scale / a.scale if a.scale and a.array is not None else math.nan
            if ratio.is_integer() and abs(ratio) <= 2**20:  # exact, and one pass
                fun = torch.add if b.array is None else partial(torch.add, alpha=ratio)
                return Coefficient(a.scale, Late(fun, a.array, ratio if b.array is None else b.array))
        if self.array is None:
            return other.plus(self)
        if other.array is None:
            return Coefficient(1.0, Late(lambda a: a * self.scale + other.scale, self.array))
        return Coefficient(
            1.0, Late(lambda a, b: torch.add(a * self.scale, b, alpha=other.scale), self.array, other.array)
        )

    def negative(self) -> Coefficient:
        return Coefficient(-self.scale, self.array)

    def times(self, factor: Tensor | float, grid: Grid) -> Coefficient:
        if not isinstance(factor, Tensor):
            return Coefficient(self.scale * factor, self.array)
        factor = on_grid(grid, factor)
        return Coefficient(self.scale, factor if self.array is None else Late(torch.mul, self.array, factor))

    def over(self, divisor: Tensor | float, grid: Grid) -> Coefficient:
        """By a number, or a tensor without axes."""
        if self.array is None:
            if not divisor:
                raise UnknownError("a scale that is infinite")
            return Coefficient(self.scale / float(divisor), None)
        return Coefficient(self.scale, Late(torch.div, self.array, divisor))

    def where(self, mask: Tensor, grid: Grid, dtype: torch.dtype) -> Coefficient:
        mask = on_grid(grid, mask)
        ones = torch.ones((), dtype=dtype, device=mask.device) if self.array is None else self.array
        return Coefficient(self.scale, Late(lambda mask, array: torch.where(mask, array, 0), mask, ones))

    def sum(self, axes: Sequence[int], grid: Grid) -> Coefficient:
        if self.array is None:
            return Coefficient(self.scale * math.prod(grid[axis][1] for axis in axes), None)
        if any(grid[axis][1] > 1 for axis in axes):
            return self._view(torch.sum, axes)
        return self.reshape([size for axis, (_, size, _) in enumerate(grid) if axis not in axes])

    def contract(
        self, grid: Grid, rows: Grid, factor: Tensor, product: Callable, axes: Sequence[int], out: Grid
    ) -> Coefficient:
        """`axes` is one, and factor and result have as many axes as a matrix product has them."""
        factor = on_grid(rows, factor)
        if self.array is None:
            return Coefficient(self.scale, Late(lambda f: f.sum(axes, True).expand(sizes(out)), factor))
        outer = all(rows[axis][1] == 1 for axis in axes)
        return self._view(torch.mul if outer else product, factor)

    def take(self, entries: Mapping[int, slice]) -> Coefficient:
        if self.array is None:
            return self
        return self._view(Tensor.__getitem__, tuple(entries.get(axis, slice(None)) for axis in range(max(entries) + 1)))

    def flip(self, axes: Sequence[int]) -> Coefficient:
        return self._view(torch.flip, axes)

    def permute(self, axes: Sequence[int]) -> Coefficient:
        return self._view(torch.permute, axes)

    def expand(self, sizes: Sequence[int], axes: Sequence[int]) -> Coefficient:
        return self._view(_expand, sizes, axes)

    def reshape(self, sizes: Sequence[int]) -> Coefficient:
        return self._view(torch.reshape, sizes)

    def fill(self, grid: Grid, axis: int, length: int, dtype: torch.dtype) -> Coefficient:
        raise UnknownError("a row that is filled in part")  # it would form what is a view in all other cases


def _expand(array: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> Tensor:
    for axis in range(len(sizes)):
        if axis not in axes:
            array = array.unsqueeze(axis)
    return array.expand(sizes)
