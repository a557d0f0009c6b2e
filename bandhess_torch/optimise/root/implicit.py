"""The root as a function of what the residuals depend on: the implicit function theorem, one more solve.

With F(x, c) = 0 at the root, dx = -J^-1 (dF/dc) dc: never through the iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandhess_common.dogleg import SINGULAR

from ...extraction.jacobian import Residuals, general_band, linearize_rows
from ...framework.transforms import eager, forward_rule
from ...linalg.lu import eliminate, pivots_of, solve_eliminated
from ..solved import one_where, solved


@dataclass(frozen=True)
class Implicit:
    """What `implicit_root` needs: find takes tensors and returns `(x, status, *rest)`, tensors all; rows is
    `(x, tensors) -> F`."""

    find: Callable[[list[Tensor]], tuple]
    rows: Callable[[Tensor, list[Tensor]], Tensor]
    residuals: Residuals

    def linearise(self, x: Tensor, status: Tensor, tensors: list[Tensor]) -> Linearised:
        l, u = self.residuals.reach
        pull = linearize_rows(lambda x: (self.rows(x, tensors), None), x)[1]
        ab = general_band(pull, self.residuals)
        parts = eliminate(ab, l, u)
        fixed = ab.detach()
        least = SINGULAR * torch.finfo(x.dtype).eps * fixed.abs().max(0).values
        regular = (pivots_of(parts, l, u).abs() > least).all()
        moving = [i for i, tensor in enumerate(tensors) if tensor.is_floating_point()]

        def rows(*moved: Tensor) -> Tensor:
            every = list(tensors)
            for i, tensor in zip(moving, moved, strict=True):
                every[i] = tensor
            return self.rows(x, every)

        pull_tensors = torch.func.vjp(rows, *[tensors[i] for i in moving])[1]
        known = one_where(solved(status) & regular, x)

        def solve(b: Tensor, transpose: bool) -> Tensor:
            return -known * solve_eliminated(ab, parts, b, l, u, transpose)

        return Linearised(moving, solve, pull_tensors)


class Linearised(NamedTuple):
    """The root to first order."""

    moving: list[int]  # the tensors that have derivatives
    solve: Callable[[Tensor, bool], Tensor]  # b -> -J^-1 b, or -J^-T b; NaN where there is no root, or no inverse
    pull: Callable  # u -> (dF/dtensors)^T u


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(implicit: Implicit, *tensors: Tensor) -> tuple:
        return implicit.find(list(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.implicit, *tensors = inputs
        ctx.rest = len(output) - 1
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(output[0], output[1], *tensors)
        ctx.save_for_forward(output[0], output[1], *tensors)

    @staticmethod
    @eager
    def backward(ctx: Any, dx: Tensor, *_: Any) -> tuple:
        x, status, *tensors = ctx.saved_tensors
        at = ctx.implicit.linearise(x, status, tensors)
        given = dict(zip(at.moving, at.pull(at.solve(dx, True)), strict=True))
        return (None, *[given.get(i) for i in range(len(tensors))])

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _: None, *tangents: Any) -> tuple:
        x, status, *tensors = ctx.saved_tensors
        at = ctx.implicit.linearise(x, status, tensors)
        push = torch.func.vjp(at.pull, torch.zeros_like(x))[1]  # the transpose of what is linear
        moved = tuple(torch.zeros_like(tensors[i]) if tangents[i] is None else tangents[i] for i in at.moving)
        return at.solve(push(moved)[0], False), *[None] * ctx.rest

    @staticmethod
    def vmap(info: Any, in_dims: tuple, implicit: Implicit, *tensors: Tensor) -> tuple:
        dims = in_dims[1:]
        lanes = [
            _Root.apply(implicit, *(t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)))
            for i in range(info.batch_size)
        ]
        return tuple(map(torch.stack, zip(*lanes, strict=True))), (0,) * len(lanes[0])


def implicit_root(implicit: Implicit, tensors: list[Tensor]) -> tuple:
    """`implicit.find(tensors)`, differentiable to any order in both modes.

    Derivatives are NaN where status tells of no root, or J is singular to rounding (a pivot is below 8 eps of the
    largest entry of its column); those of all but x are zero.
    """
    return _Root.apply(implicit, *tensors)
