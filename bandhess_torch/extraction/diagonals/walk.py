"""The gradient's graph walked through by autograd itself, with a value in the place of v.

The engine pulls back a `Carried` in place of a probe: a tensor without data, that knows its value. What no part of the
band needs is never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bandhess_common.diagonals import band, fallback
from bandhess_common.diagonals.fallback import UnknownError, carry_or_none
from bandhess_common.diagonals.values import Value, vector

from .coefficients import Coefficient, Late, form
from .translator import TRANSLATIONS


class Program(NamedTuple):
    """A linear function of vectors of a type and on a device."""

    function: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device


def carry(program: Program, n: int, rows: int, budget: int, closed: bool = False) -> Tensor | None:
    """The lower band `(rows, n)` of a linear program of vectors `(n,)`, or None: see the package's docstring.

    The budget is the number of parts that all its operations give together.
    """

    @torch.no_grad()
    def carried() -> Tensor | None:
        out = program.function(start(program, n, budget))
        return _band(out, rows, closed) if isinstance(out, Carried) else None

    return carry_or_none(carried)


def start(program: Program, n: int, budget: int) -> Carried:
    """v itself, as the program takes it."""
    return Carried(vector(n, program.dtype, Coefficient(1.0, None)), Walk(program.dtype, program.device, budget))


class Operation(NamedTuple):
    """What becomes of an operation, and what it does to its first operand."""

    translate: Callable[..., Any]
    writes: bool  # to it
    views: bool  # gives a view of it: nothing may be written to either from then on


def _operation(func: Any) -> Operation:
    alias = func._schema.returns[0].alias_info  # (a!) for what is written to, (a) for what gives a view
    writes = alias is not None and alias.is_write
    return Operation(TRANSLATIONS[func], writes, alias is not None and not writes)


OPERATIONS = {func: _operation(func) for func in TRANSLATIONS}


class Walk:
    """What the values of one walk have in common."""

    def __init__(self, dtype: torch.dtype, device: torch.device, budget: int) -> None:
        self.dtype, self.device, self.left = dtype, device, budget
        self.seen: list[tuple[Tensor, int]] = []  # coefficients, and of which version

    def operand(self, a: Any, ndim: int) -> Any:
        """As the translations take it, beside a value of so many axes."""
        if type(a) is Carried:
            return a.value
        if type(a) is list:
            return [self.operand(each, ndim) for each in a]
        if isinstance(a, Tensor):
            if a.layout != torch.strided or (a.dtype != self.dtype and self._converts(a, ndim)):
                raise UnknownError("another type")
            self.seen.append((a, a._version))
        return a

    def _converts(self, factor: Tensor, ndim: int) -> bool:
        """Whether a value of so many axes takes another type from a factor."""
        return torch.result_type(torch.empty([1] * ndim, dtype=self.dtype), factor) != self.dtype

    def spend(self, parts: int) -> None:
        self.left -= parts
        if self.left < 0:
            raise UnknownError("too long")


class Carried(torch.Tensor):
    """A tensor without data that knows its `Value`."""

    value: Value
    walk: Walk
    shared: bool  # with a view

    @staticmethod
    def __new__(cls, value: Value, walk: Walk, shared: bool = False) -> Carried:
        new = torch.Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device=walk.device)
        new.value, new.walk, new.shared = value, walk, shared
        return new

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        operation = OPERATIONS.get(func)
        if operation is None:
            raise UnknownError(str(func))
        translate, writes, views = operation
        like = args[0] if type(args[0]) is Carried else _first(args)
        walk = like.walk
        if kwargs and kwargs.get("dtype") not in (None, walk.dtype):
            raise UnknownError("another type")
        operands = [a.value if type(a) is Carried else walk.operand(a, like.ndim) for a in args]
        out = translate(*operands, **kwargs) if kwargs else translate(*operands)
        if fallback.strict:
            _compare(func, args, kwargs or {}, out)
        if type(out) is not Value:  # several, or none
            if type(out) is not list:
                return out
            like.shared = True
            walk.spend(sum(len(each.parts) for each in out))
            return [Carried(each, walk, True) for each in out]
        walk.spend(len(out.parts))
        if writes:
            if type(args[0]) is not Carried or like.shared or out.shape != like.value.shape:
                raise UnknownError("writes what another reads")
            like.value = out
            return like
        if views:
            like.shared = True
        return Carried(out, walk, views)


def _first(args: Any) -> Carried:
    return next(a for each in args for a in (each if type(each) is list else [each]) if type(a) is Carried)


def _compare(func: Any, args: Any, kwargs: dict, out: Any) -> None:
    """A translation's result with what ATen says of tensors without data: shapes and types. In the tests alone, for it
    costs more than the translation; the engine itself compares what a node returns with what it was given."""
    bare = lambda a: torch.empty(a.shape, dtype=a.dtype, device="meta") if isinstance(a, Tensor) else a  # noqa: E731
    expected = func(*tree_map(bare, args), **kwargs)
    for one, other in zip(out, expected, strict=True) if isinstance(out, list) else [(out, expected)]:
        if isinstance(one, Value) and (one.shape, one.dtype) != (tuple(other.shape), other.dtype):
            raise TypeError(f"{func} gave {one.shape} {one.dtype} in the place of {tuple(other.shape)} {other.dtype}")


def _band(out: Carried, rows: int, closed: bool) -> Tensor:
    if any(a._version != version for a, version in out.walk.seen):
        raise UnknownError("a coefficient was written to")
    ab = torch.zeros(rows, *out.shape, dtype=out.dtype, device=out.device)
    for r, (start, size, step), (scale, array) in (band.ring if closed else band.diagonals)(out.value, rows):
        cells = ab[r, start : start + (size - 1) * step + 1 : step]
        if array is None:
            cells += scale
        elif isinstance(array, Late) and array.fun is torch.mul and array.made is None:
            cells.addcmul_(*map(form, array.args), value=scale)
        else:
            cells.add_(form(array), alpha=scale)
    return ab
