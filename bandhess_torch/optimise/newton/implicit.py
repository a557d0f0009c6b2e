"""The minimiser as a function of what the objective depends on: the implicit function theorem, one more solve.

With g(x, c) = 0 at the minimiser, dx = -H^-1 (dg/dc) dc: never through the iterations. The minimum f(x(c), c) has the
derivative df/dc, whether or not H has an inverse: the envelope theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bandhess_common.stopping import UNSURE

from ...band.stages import Layout
from ...band.structures import Structure, diagonal, row_sums, shifted
from ...extraction.linearise import linearize_gradient
from ...extraction.products import Extraction, extract
from ...framework.transforms import eager, forward_rule
from ...linalg.solve import factor
from ..solved import nan_unless, one_where, solved


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

    def linearise(self, x: Tensor, status: Tensor, tensors: list[Tensor]) -> Linearised:
        grad, product, _ = linearize_gradient(lambda x: (self.value(x, tensors), None), x, self.layout.p)
        ab = extract(product, self.layout, self.extraction)
        fixed, one = tree_map(torch.detach, ab), x.new_ones(())
        regular = factor(shifted(fixed, -UNSURE * torch.finfo(x.dtype).eps * diagonal(fixed).abs())).ok
        # Where H has no inverse, another matrix stands in its place, so that a factor of 0 makes 0 of what it gives.
        repair = torch.where(regular, 0 * one, 1 + row_sums(fixed).max())
        moving_ab = shifted(ab, repair)
        if isinstance(ab, Structure):
            factored: Any = factor(moving_ab)
        else:  # the factor is a constant: derivatives go through the product H x alone
            factored = factor(shifted(fixed, repair))._replace(ab=moving_ab)
        moving = [i for i, tensor in enumerate(tensors) if tensor.is_floating_point()]

        def both(*moved: Tensor) -> tuple[Tensor, Tensor]:
            every = list(tensors)
            for i, tensor in zip(moving, moved, strict=True):
                every[i] = tensor
            return torch.func.grad_and_value(self.value)(x, every)

        pull = torch.func.vjp(both, *[tensors[i] for i in moving])[1]
        found, kept = solved(status), torch.where(regular, one, 0)
        return Linearised(moving, grad, factored.solve, found, found & regular, kept, pull)


class Linearised(NamedTuple):
    """The minimiser and the minimum to first order."""

    moving: list[int]  # the tensors that have derivatives
    grad: Tensor  # g
    solve: Callable[[Tensor], Tensor]  # b -> H^-1 b
    found: Tensor  # whether x is a solution
    unique: Tensor  # and H not singular to rounding, where x has no derivative
    kept: Tensor  # 1, or 0 there: the minimum has one, as g = 0 (the envelope theorem)
    pull: Callable  # (u, s) -> the transposed derivative of (g, f) with respect to the moving tensors


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(implicit: Implicit, *tensors: Tensor) -> tuple:
        return implicit.minimise(list(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.implicit, *tensors = inputs
        ctx.set_materialize_grads(False)  # where f alone is used, nothing asks for derivatives of x
        ctx.rest = len(output) - 2
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(output[0], output[2], *tensors)
        ctx.save_for_forward(output[0], output[2], *tensors)

    @staticmethod
    @eager
    def backward(ctx: Any, dx: Tensor | None, dvalue: Tensor | None, *_: Any) -> tuple:
        x, status, *tensors = ctx.saved_tensors
        at = ctx.implicit.linearise(x, status, tensors)
        u, s = torch.zeros_like(x), x.new_zeros(())
        if dx is not None:
            u = u - at.solve(nan_unless(at.unique, dx))
        if dvalue is not None:  # g, which is 0 but for the tolerance, takes off the error that x makes
            u, s = u - at.kept * at.solve(dvalue * at.grad), nan_unless(at.found, dvalue)
        given = dict(zip(at.moving, at.pull((u, s)), strict=True))
        return (None, *[given.get(i) for i in range(len(tensors))])

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _: None, *tangents: Any) -> tuple:
        x, status, *tensors = ctx.saved_tensors
        at = ctx.implicit.linearise(x, status, tensors)
        push = torch.func.vjp(lambda dgrad, dvalue: at.pull((dgrad, dvalue)), torch.zeros_like(x), x.new_zeros(()))[1]
        moved = [torch.zeros_like(tensors[i]) if tangents[i] is None else tangents[i] for i in at.moving]
        dgrad, dvalue = push(tuple(moved))
        dx = -at.solve(dgrad)
        dvalue = dvalue + at.kept * (at.grad @ dx)
        return one_where(at.unique, x) * dx, one_where(at.found, x) * dvalue, *[None] * ctx.rest

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

    Derivatives are NaN where status tells of no solution; those of x also where H is singular to rounding (H less
    8 eps of its diagonal is not positive definite). Those of all but x and value are zero.
    """
    return _Solution.apply(implicit, *tensors)
