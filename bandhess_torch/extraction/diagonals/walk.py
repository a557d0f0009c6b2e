"""The band of a linear program without a probe: its diagonals, carried from operation to operation.

What `bandhess_jax/_diagonals.py` does with a traced program happens here in the backward pass itself: the gradient's
graph pulls back a `Carried` in place of a probe, a tensor without data that knows its value as

    value[i] = sum over o, and over grids that hold i, of part[i] v[o + strides . i]         (i a multi-index)

where a part is an array on a regular grid (start, size and step along every axis). Slices, paddings and concatenations
move grids and offsets o and form nothing, sums merge parts that are alike, and products multiply them. The parts of
the result at o = -r make the diagonal r places below the main one; what no part of them needs is never formed.
(Griewank and Walther, Evaluating Derivatives, 2008, chapter 7: sparse vector mode.)

A graph with other operations, or too long, is left to probing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .rules import OPERATIONS
from .values import LIMIT, Late, Part, UnknownError, Value, formed, moved


class Program:
    """What the values of one program have in common."""

    def __init__(self, like: Tensor) -> None:
        self.dtype, self.device = like.dtype, like.device
        self.spent = 0
        self.seen: list[tuple[Tensor, int]] = []  # coefficients, and of which version

    def operand(self, a: Any, ndim: int) -> Any:
        if type(a) is Carried:
            return a.value
        if type(a) is list:
            return [self.operand(each, ndim) for each in a]
        if isinstance(a, Tensor):
            if a.layout != torch.strided or (a.dtype != self.dtype and self._converts(a, ndim)):
                raise UnknownError
            self.seen.append((a, a._version))
        return a

    def _converts(self, factor: Tensor, ndim: int) -> bool:
        """Whether a value of so many axes takes another type from a factor."""
        return torch.result_type(torch.empty([1] * ndim, dtype=self.dtype), factor) != self.dtype

    def spend(self, parts: int) -> None:
        self.spent += parts
        if self.spent > LIMIT:
            raise UnknownError


class Carried(torch.Tensor):
    """A tensor without data that knows its `Value`."""

    value: Value
    program: Program
    shared: bool  # with a view

    @staticmethod
    def __new__(cls, value: Value, program: Program, shared: bool = False) -> Carried:
        new = torch.Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device=program.device)
        new.value, new.program, new.shared = value, program, shared
        return new

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        rule, writes, views = OPERATIONS.get(func, (None, False, False))
        if rule is None:
            raise UnknownError(str(func))
        like = args[0] if type(args[0]) is Carried else _first(args)
        program = like.program
        if kwargs and kwargs.get("dtype") not in (None, program.dtype):
            raise UnknownError
        operands = [a.value if type(a) is Carried else program.operand(a, like.ndim) for a in args]
        out = rule(*operands, **kwargs) if kwargs else rule(*operands)
        if type(out) is not Value:  # several, or none
            if type(out) is not list:
                return out
            like.shared = True
            program.spend(sum(len(each.parts) for each in out))
            return [Carried(each, program, True) for each in out]
        program.spend(len(out.parts))
        if writes:
            if type(args[0]) is not Carried or like.shared or out.shape != like.value.shape:
                raise UnknownError
            like.value = out
            return like
        if views:
            like.shared = True
        return Carried(out, program, views)


def _first(args: Any) -> Carried:
    return next(a for each in args for a in (each if type(each) is list else [each]) if type(a) is Carried)


@torch.no_grad()
def diagonals(product: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor | None:
    """The lower band `(rows, n)` of a linear program of vectors like x, or None where it is left to probing."""
    n, program = len(x), Program(x)
    v = Carried(Value((n,), (1,), x.dtype, {(0, ((0, n, 1),)): Part(1.0, None)}), program)
    try:
        out = product(v)
        return _band(out, rows) if isinstance(out, Carried) else None
    except Exception:  # a backward function of the user's may ask a tensor without data for anything
        return None


def _band(out: Carried, rows: int) -> Tensor:
    parts = moved(out.value, 0, 1).parts
    written = any(a._version != version for a, version in out.program.seen)
    if written or any(abs(o) >= rows for o, _ in parts):
        raise UnknownError
    band = torch.zeros(rows, *out.shape, dtype=out.dtype, device=out.device)
    for (o, grid), (scale, array) in parts.items():
        if o > 0:
            continue
        start, size, step = grid[0]
        cells = band[-o, start + o : start + o + (size - 1) * step + 1 : step]
        if array is None:
            cells += scale
        elif isinstance(array, Late) and array.fun is torch.mul and array.made is None:
            cells.addcmul_(*map(formed, array.args), value=scale)
        else:
            cells.add_(formed(array), alpha=scale)
    return band
