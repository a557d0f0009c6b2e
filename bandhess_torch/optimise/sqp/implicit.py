"""A solution as a function of what the problem depends on: derivative rules for the loop, and for the solve with K.

With F(v, p) = 0 the conditions at a solution v, dv = -K^-1 (dF/dp) dp: never through the iterations. The value has the
derivative dL/dp, whether or not K has an inverse: the envelope theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...framework.transforms import apply, eager, forward_rule
from ..solved import one_where, solved
from .kkt import Implicit, implicit_solve


def lanes(function: Any, info: Any, in_dims: tuple, first: Any, *tensors: Tensor) -> list[Any]:
    """`function.apply(first, *tensors)` for one lane of a vmap after the other."""
    pairs = list(zip(tensors, in_dims[1:], strict=True))
    return [
        function.apply(first, *(t if dim is None else t.select(dim, i) for t, dim in pairs))
        for i in range(info.batch_size)
    ]


def pushed(fun: Callable[..., Tensor], at: list[Tensor], tangents: list[Tensor | None]) -> Tensor:
    """The derivative of fun along tangents (None: zero): its pull back, which is linear, pulled back in its turn."""
    out, pull, *_ = torch.func.vjp(fun, *at)
    given = tuple(torch.zeros_like(t) if dt is None else dt for t, dt in zip(at, tangents, strict=True))
    return torch.func.vjp(pull, torch.zeros_like(out))[1](given)[0]


class _Solve(torch.autograd.Function):
    """`implicit_solve`, as a function of b, of the solution, and of what that depends on."""

    @staticmethod
    def forward(implicit: Implicit, b: Tensor, *point: Tensor) -> Tensor:
        return implicit_solve(implicit, b, *point)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.implicit, _, *point = inputs
        ctx.save_for_backward(output, *point)
        ctx.save_for_forward(output, *point)

    @staticmethod
    @eager
    def backward(ctx: Any, dv: Tensor) -> tuple:
        v, *point = ctx.saved_tensors
        u = _Solve.apply(ctx.implicit, dv, *point)
        moving = [i for i, t in enumerate(point) if t.is_floating_point()]
        pull = torch.func.vjp(_product_of(ctx.implicit, v, point, moving), *[point[i] for i in moving])[1]
        given = dict(zip(moving, pull(-u), strict=True))
        return None, u, *[given.get(i) for i in range(len(point))]

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _: None, db: Tensor | None, *dpoint: Any) -> Tensor:
        v, *point = ctx.saved_tensors
        moving = [i for i, t in enumerate(point) if t.is_floating_point()]
        tangents = [dpoint[i] for i in moving]
        dKv = pushed(_product_of(ctx.implicit, v, point, moving), [point[i] for i in moving], tangents)
        return _Solve.apply(ctx.implicit, -dKv if db is None else db - dKv, *point)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, implicit: Implicit, *tensors: Tensor) -> tuple:
        return torch.stack(lanes(_Solve, info, in_dims, implicit, *tensors)), 0


def _product_of(implicit: Implicit, v: Tensor, point: list[Tensor], moving: list[int]) -> Callable[..., Tensor]:
    """K v as a function of the floating tensors in point."""
    return lambda *moved: implicit.product(v, *_with(point, moving, moved))


def _with(every: list[Tensor], which: list[int], new: Any) -> list[Tensor]:
    every = list(every)
    for i, tensor in zip(which, new, strict=True):
        every[i] = tensor
    return every


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(implicit: Implicit, *tensors: Tensor) -> tuple:
        return implicit.minimise(list(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.implicit, *tensors = inputs
        ctx.rest = len(output) - 3
        ctx.mark_non_differentiable(*output[3:])
        ctx.save_for_backward(*output[:4], *tensors)
        ctx.save_for_forward(*output[:4], *tensors)

    @staticmethod
    @eager
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        *point, status = ctx.saved_tensors[:4]
        tensors = ctx.saved_tensors[4:]
        moving = [i for i, t in enumerate(tensors) if t.is_floating_point()]
        b = one_where(solved(status), point[0]) * torch.cat(cotangents[:3])
        u = _Solve.apply(ctx.implicit, b, *point, *tensors)
        pull = torch.func.vjp(_residuals_of(ctx.implicit, point, tensors, moving), *[tensors[i] for i in moving])[1]
        given = dict(zip(moving, pull(-u), strict=True))
        return None, *[given.get(i) for i in range(len(tensors))]

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _: None, *tangents: Any) -> tuple:
        *point, status = ctx.saved_tensors[:4]
        tensors = ctx.saved_tensors[4:]
        moving = [i for i, t in enumerate(tensors) if t.is_floating_point()]
        residuals = _residuals_of(ctx.implicit, point, tensors, moving)
        db = pushed(residuals, [tensors[i] for i in moving], [tangents[i] for i in moving])
        dv = -_Solve.apply(ctx.implicit, one_where(solved(status), point[0]) * db, *point, *tensors)
        return *dv.split([len(part) for part in point]), *[None] * ctx.rest

    @staticmethod
    def vmap(info: Any, in_dims: tuple, implicit: Implicit, *tensors: Tensor) -> tuple:
        out = tuple(map(torch.stack, zip(*lanes(_Solution, info, in_dims, implicit, *tensors), strict=True)))
        return out, (0,) * len(out)


def _residuals_of(implicit: Implicit, point: Any, tensors: Any, moving: list[int]) -> Callable[..., Tensor]:
    """The conditions as a function of the floating tensors among those that the solution depends on."""
    return lambda *moved: implicit.residuals(tuple(point), _with(tensors, moving, moved))


class _Value(torch.autograd.Function):
    """The value at a solution (x, y, z), whose derivative is that of L with respect to what it depends on besides."""

    @staticmethod
    def forward(implicit: Implicit, value: Tensor, status: Tensor, *point: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.implicit, _, *rest = inputs
        ctx.save_for_backward(*rest)
        ctx.save_for_forward(*rest)

    @staticmethod
    @eager
    def backward(ctx: Any, dvalue: Tensor) -> tuple:
        status, *point = ctx.saved_tensors
        lagrangian, moving = _lagrangian_of(ctx.implicit, point)
        pull = torch.func.vjp(lagrangian, *[point[i] for i in moving])[1]
        given = dict(zip(moving, pull(one_where(solved(status), dvalue) * dvalue), strict=True))
        return None, None, None, *[given.get(i) for i in range(len(point))]

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _: None, dvalue: None, dstatus: None, *tangents: Any) -> Tensor:
        status, *point = ctx.saved_tensors
        lagrangian, moving = _lagrangian_of(ctx.implicit, point)
        moved = pushed(lagrangian, [point[i] for i in moving], [tangents[i] for i in moving])
        return one_where(solved(status), moved) * moved

    @staticmethod
    def vmap(info: Any, in_dims: tuple, implicit: Implicit, *tensors: Tensor) -> tuple:
        return torch.stack(lanes(_Value, info, in_dims, implicit, *tensors)), 0


def _lagrangian_of(implicit: Implicit, point: list[Tensor]) -> tuple[Callable[..., Tensor], list[int]]:
    """L at (x, y, z) as a function of the floating tensors behind them in `point`, and which these are."""
    moving = [i for i, t in enumerate(point) if i >= 3 and t.is_floating_point()]

    def lagrangian(*moved: Tensor) -> Tensor:
        x, y, z, *tensors = _with(point, moving, moved)
        f, c, g = implicit.build(tensors).functions(x)
        return f + y @ c - z @ g

    return lagrangian, moving


def solution(implicit: Implicit, tensors: list[Tensor]) -> tuple:
    """`implicit.minimise(tensors)`, differentiable to any order in both modes.

    Derivatives are NaN where status tells of no solution; those of (x, y, z) also where K is singular to rounding.
    Those of all but (x, y, z) and the value are zero.
    """
    x, y, z, status, value, *rest = apply(_Solution, implicit, *tensors)
    return x, y, z, status, apply(_Value, implicit, value, status, x, y, z, *tensors), *rest
