"""The minimiser as a function of what the objective depends on: the implicit function theorem, one more solve.

With g(x, c) = 0 at the minimiser, dx = -H^-1 (dg/dc) dc: never through the iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bandhess_common.status import Status

from ...band.stages import Layout
from ...band.structures import row_sums, shifted
from ...extraction.linearise import linearize_gradient
from ...extraction.products import Extraction, extract
from ...framework.transforms import eager
from ...linalg.solve import factor


@dataclass(frozen=True)
class Implicit:
    """What `solution` needs.

    minimise takes tensors and returns `(x, value, status, *rest)`, tensors all; value is `(x, tensors) -> f`; layout
    and extraction are those of its Hessian.
    """

    minimise: Callable[[list[Tensor]], tuple]
    value: Callable[[Tensor, list[Tensor]], Tensor]
    layout: Layout
    extraction: Extraction

    def linearise(self, x: Tensor, status: Tensor, tensors: list[Tensor]) -> tuple:
        """`(moving, grad, solve, pull)`: the indices of tensors that have derivatives, g, b -> H^-1 b (NaN where x is
        no solution, or H is singular to rounding), and the transposed derivative of (g, f) with respect to those."""
        grad, product, _ = linearize_gradient(lambda x: (self.value(x, tensors), None), x)
        ab = extract(product, self.layout, self.extraction)
        fixed = ab.detach()
        norm = row_sums(fixed).max()
        regular = factor(shifted(fixed, -8 * torch.finfo(x.dtype).eps * norm)).ok
        solved = (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR)
        valid = torch.where(solved & regular, x.new_ones(()), torch.nan)
        factored = factor(fixed)._replace(ab=ab)
        moving = [i for i, tensor in enumerate(tensors) if tensor.is_floating_point()]

        def both(*moved: Tensor) -> tuple[Tensor, Tensor]:
            every = list(tensors)
            for i, tensor in zip(moving, moved, strict=True):
                every[i] = tensor
            return torch.func.grad_and_value(self.value)(x, every)

        pull = torch.func.vjp(both, *[tensors[i] for i in moving])[1]
        return moving, grad, lambda b: valid * factored.solve(b), pull


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(implicit: Implicit, *tensors: Tensor) -> tuple:
        return implicit.minimise(list(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.implicit, *tensors = inputs
        ctx.rest = len(output) - 2
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(output[0], output[2], *tensors)
        ctx.save_for_forward(output[0], output[2], *tensors)

    @staticmethod
    @eager
    def backward(ctx: Any, dx: Tensor, dvalue: Tensor, *_: Any) -> tuple:
        x, status, *tensors = ctx.saved_tensors
        moving, grad, solve, pull = ctx.implicit.linearise(x, status, tensors)
        given = dict(zip(moving, pull((-solve(dx + dvalue * grad), dvalue)), strict=True))
        return (None, *[given.get(i) for i in range(len(tensors))])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Any) -> tuple:
        x, status, *tensors = ctx.saved_tensors
        moving, grad, solve, pull = ctx.implicit.linearise(x, status, tensors)
        push = torch.func.vjp(lambda dgrad, dvalue: pull((dgrad, dvalue)), torch.zeros_like(x), x.new_zeros(()))[1]
        moved = [torch.zeros_like(tensors[i]) if tangents[i] is None else tangents[i] for i in moving]
        dgrad, dvalue = push(tuple(moved))
        dx = -solve(dgrad)
        return dx, dvalue + grad @ dx, *[None] * ctx.rest

    @staticmethod
    def vmap(info: Any, in_dims: tuple, implicit: Implicit, *tensors: Tensor) -> tuple:
        dims = in_dims[1:]
        lanes = [
            _Solution.apply(implicit, *(t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)))
            for i in range(info.batch_size)
        ]
        return tuple(map(torch.stack, zip(*lanes, strict=True))), (0,) * len(lanes[0])


def solution(implicit: Implicit, tensors: list[Tensor]) -> tuple:
    """`implicit.minimise(tensors)`, differentiable to any order in both modes.

    Derivatives are NaN where status tells of no solution, and where H is singular to rounding (its least eigenvalue is
    not above 8 eps |H|). Those of all but x and value are zero.
    """
    return _Solution.apply(implicit, *tensors)
