"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...band.stages import Layout
from ...band.storage import matvec
from ...extraction.products import Extraction
from ...framework.transforms import eager
from .condensed import Functions, System, extract_bands, factor_shifted, linearise

Triple = tuple[Tensor, Tensor, Tensor]


class Conditions(NamedTuple):
    """`grad L + hold (x - resting) = 0, c = 0, z G = 0`, as functions of (x, y, z) and of what a solution depends on.

    build takes the latter, tensors, and returns the problem's functions and the point where held variables rest.
    """

    build: Callable[..., tuple[Functions, Tensor]]
    hold: Tensor
    layout: Layout
    extraction: Extraction

    def residuals(self, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor) -> Triple:
        functions, resting = self.build(*tensors)

        def lagrangian(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            f, c, g = functions(x)
            return f + y @ c - z @ g, (c, g)

        grad, (c, g) = torch.func.grad(lagrangian, has_aux=True)(x)
        return grad + self.hold * (x - resting), c, z * g

    def product(self, v: Triple, transpose: bool, x: Tensor, y: Tensor, z: Tensor, *tensors: Tensor) -> Triple:
        """K v or K^T v."""

        def here(*point: Tensor) -> Triple:
            return self.residuals(*point, *tensors)

        if transpose:
            return torch.func.vjp(here, x, y, z)[1](v)
        return torch.func.jvp(here, (x, y, z), v)[1]


def kkt_solve(
    conditions: Conditions, transpose: bool, b: Any, x: Tensor, y: Tensor, z: Tensor, *tensors: Any
) -> Triple:
    """v with K v = b, or K^T v = b, K the Jacobian of the conditions at a solution (x, y, z):
    K (dx, dy, dz) = (W dx + A^T dy - B^T dz + hold dx, A dx, z B dx + G dz).

    The third part is eliminated; what remains is symmetric and solved like a step, without a shift.
    """
    build, hold, layout, extraction = conditions
    b1, b2, b3 = b
    lin = linearise(build(*[tensor.detach() for tensor in tensors])[0], x, y, z)
    zero_c, zero_g = torch.zeros_like(y), torch.zeros_like(z)
    bands, _ = extract_bands(lin, z / lin.g, hold, layout, extraction, False, x)
    factored, _, _ = factor_shifted(bands, 0.0, lambda f, _: (bool(f.ok), ()), tries=1)
    system = System(
        lambda v: matvec(bands.h, v) + bands.hold * bands.size_w * v,
        lambda v: lin.push(v)[0],
        lambda u: lin.pull(u, zero_g),
        factored,
        bands.gamma,
        bands.size_a,
    )
    if not factored.ok:
        return torch.full_like(x, torch.nan), torch.full_like(y, torch.nan), torch.full_like(z, torch.nan)
    into, out_of = (-z, torch.ones_like(z)) if transpose else (torch.ones_like(z), -z)
    rhs = b1 + lin.pull(zero_c, into * b3 / lin.g) if len(z) else b1
    rhs = torch.where(hold > 0, bands.size_w * rhs, rhs)  # a held variable's own equation is dx = b1
    v1, v2, *_ = system.solve(rhs, b2, target=0)
    return v1, v2, (b3 + out_of * lin.push(v1)[1]) / lin.g


class Solve(torch.autograd.Function):
    """`kkt_solve` as a function of b, of the solution, and of what that depends on: differentiable to any order."""

    @staticmethod
    def forward(ctx: Any, conditions: Conditions, transpose: bool, *operands: Tensor) -> Triple:
        v = kkt_solve(conditions, transpose, operands[:3], *operands[3:])
        ctx.conditions, ctx.transpose = conditions, transpose
        ctx.save_for_backward(*operands[3:], *v)
        return v

    @staticmethod
    @eager
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        *point, v1, v2, v3 = ctx.saved_tensors
        u = Solve.apply(ctx.conditions, not ctx.transpose, *cotangents, *point)
        pull = torch.func.vjp(partial(ctx.conditions.product, (v1, v2, v3), ctx.transpose), *point)[1]
        return None, None, *u, *[-part for part in pull(u)]


class Implicit(torch.autograd.Function):
    """A solution (x, y, z) as a function of tensors, by the implicit function theorem."""

    @staticmethod
    def forward(ctx: Any, conditions: Conditions, solved: bool, *operands: Tensor) -> Triple:
        x, y, z = (part.clone() for part in operands[:3])
        ctx.conditions, ctx.solved = conditions, solved
        ctx.save_for_backward(x, y, z, *operands[3:])
        return x, y, z

    @staticmethod
    @eager
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        x, y, z, *tensors = ctx.saved_tensors
        v = Solve.apply(ctx.conditions, True, *cotangents, x, y, z, *tensors)
        pull = torch.func.vjp(partial(ctx.conditions.residuals, x, y, z), *tensors)[1]
        sign = -1.0 if ctx.solved else torch.nan
        return None, None, None, None, None, *pull(tuple(sign * part for part in v))
