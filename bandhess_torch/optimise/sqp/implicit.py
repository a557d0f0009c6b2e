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
from ..solved import nan_unless, one_where, solved
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
    def forward(how: tuple[Implicit, bool], b: Tensor, *point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return implicit_solve(*how, b, *point)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        (ctx.implicit, _), _, *point = inputs
        v, tight, unsure = output
        ctx.mark_non_differentiable(tight, unsure)
        ctx.save_for_backward(tight, v, *point)
        ctx.save_for_forward(tight, v, *point)

    @staticmethod
    @eager
    def backward(ctx: Any, dv: Tensor, *_: Any) -> tuple:
        tight, v, *point = ctx.saved_tensors
        u = _Solve.apply((ctx.implicit, False), dv, *point)[0]
        moving = [i for i, t in enumerate(point) if t.is_floating_point()]
        pull = torch.func.vjp(_product_of(ctx.implicit, tight, v, point, moving), *[point[i] for i in moving])[1]
        given = dict(zip(moving, pull(-u), strict=True))
        return None, u, *[given.get(i) for i in range(len(point))]

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _: None, db: Tensor | None, *dpoint: Any) -> tuple:
        tight, v, *point = ctx.saved_tensors
        moving = [i for i, t in enumerate(point) if t.is_floating_point()]
        tangents = [dpoint[i] for i in moving]
        dKv = pushed(_product_of(ctx.implicit, tight, v, point, moving), [point[i] for i in moving], tangents)
        return _Solve.apply((ctx.implicit, False), -dKv if db is None else db - dKv, *point)[0], None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, how: tuple[Implicit, bool], *tensors: Tensor) -> tuple:
        out = tuple(map(torch.stack, zip(*lanes(_Solve, info, in_dims, how, *tensors), strict=True)))
        return out, (0, 0, 0)


def _product_of(
    implicit: Implicit, tight: Tensor, v: Tensor, point: list[Tensor], moving: list[int]
) -> Callable[..., Tensor]:
    """K v as a function of the floating tensors in point."""
    return lambda *moved: implicit.product(tight, v, *_with(point, moving, moved))


def _with(every: list[Tensor], which: list[int], new: Any) -> list[Tensor]:
    every = list(every)
    for i, tensor in zip(which, new, strict=True):
        every[i] = tensor
    return every


class _Solution(torch.autograd.Function):
    """(x, y, z), the status, (y, z) once more as results show them, and the rest. Derivatives of higher order go
    through the first (y, z), of which there may be many; results show no derivative of what is not unique."""

    @staticmethod
    def forward(implicit: Implicit, *tensors: Tensor) -> tuple:
        x, y, z, status, *rest = implicit.minimise(list(tensors))
        return x, y, z, status, y.clone(), z.clone(), *rest

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.implicit, *tensors = inputs
        ctx.rest = len(output) - 6
        ctx.mark_non_differentiable(output[3], *output[6:])
        ctx.save_for_backward(*output[:4], *tensors)
        ctx.save_for_forward(*output[:4], *tensors)

    @staticmethod
    @eager
    def backward(ctx: Any, dx: Tensor, dy: Tensor, dz: Tensor, _: Any, *cotangents: Any) -> tuple:
        *point, status = ctx.saved_tensors[:4]
        tensors = ctx.saved_tensors[4:]
        moving = [i for i, t in enumerate(tensors) if t.is_floating_point()]
        b = nan_unless(solved(status), torch.cat([dx, dy + cotangents[0], dz + cotangents[1]]))
        # Multipliers that are not unique need no test: for their cotangents the solve does not converge.
        u = _Solve.apply((ctx.implicit, False), b, *point, *tensors)[0]
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
        dv, _, unsure = _Solve.apply((ctx.implicit, True), -one_where(solved(status), point[0]) * db, *point, *tensors)
        sizes = [len(part) for part in point]
        shown = torch.where(unsure, torch.nan, 1.0).to(dv) * dv[sizes[0] :]
        return *dv.split(sizes), None, *shown.split(sizes[1:]), *[None] * ctx.rest

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
        given = dict(zip(moving, pull(nan_unless(solved(status), dvalue)), strict=True))
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

    Derivatives are NaN where status tells of no solution; those of x also where it is singular to rounding, and those
    of (y, z) where they are not unique. Those of all but (x, y, z) and the value are zero.
    """
    x, y, z, status, y_shown, z_shown, value, *rest = apply(_Solution, implicit, *tensors)
    return x, y_shown, z_shown, status, apply(_Value, implicit, value, status, x, y, z, *tensors), *rest
