"""Derivatives of a solution by the implicit function theorem: one solve with the KKT matrix there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._condensed import Functions, System, extract_bands, factor_shifted, linearise
from ._hessian import Extraction
from ._stages import Layout
from ._storage import matvec

Triple = tuple[Tensor, Tensor, Tensor]


def transposed_solve(
    functions: Functions, solution: Any, b: Any, hold: Tensor, layout: Layout, extraction: Extraction
) -> Triple:
    """v with K^T v = b, K the Jacobian of `grad L + hold x = 0, c = 0, z G = 0` at a solution (x, y, z):
    K (dx, dy, dz) = (W dx + A^T dy - B^T dz + hold dx, A dx, z B dx + G dz).

    The third part is eliminated; what remains is symmetric and solved like a step, without a shift.
    """
    x, y, z = solution
    b1, b2, b3 = b
    lin = linearise(functions, x, y, z)
    zero_c, zero_g = torch.zeros_like(y), torch.zeros_like(z)
    sigma = z / lin.g
    bands, _ = extract_bands(lin.push, lin.pull, sigma, hold, layout, extraction, False, (len(y), lin.grad_f, x))
    factored, _, _ = factor_shifted(bands, 0.0, lambda f, _: (bool(f.ok), ()), tries=1)
    system = System(
        lambda v: matvec(bands.h, v) + bands.hold * bands.size_w * v,
        lambda v: lin.push(v)[1],
        lambda u: lin.pull(u, zero_g),
        factored,
        bands.gamma,
        bands.size_a,
    )
    if not factored.ok:
        return torch.full_like(x, torch.nan), torch.full_like(y, torch.nan), torch.full_like(z, torch.nan)
    rhs = b1 - lin.pull(zero_c, z * b3 / lin.g) if len(z) else b1
    rhs = torch.where(hold > 0, bands.size_w * rhs, rhs)  # a held variable's own equation is dx = b1
    v1, v2, _ = system.solve(rhs, b2, target=0)
    return v1, v2, (b3 + lin.push(v1)[2]) / lin.g


class Implicit(torch.autograd.Function):
    """(x, y, z) as functions of the conditions' residuals, whose own graph leads to what the solution depends on."""

    @staticmethod
    def forward(ctx: Any, how: tuple, solved: bool, x: Tensor, y: Tensor, z: Tensor, *residuals: Tensor) -> Triple:
        ctx.how, ctx.solved = how, solved
        ctx.save_for_backward(x, y, z)
        return x.clone(), y.clone(), z.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        functions, hold, layout, extraction = ctx.how
        with torch.no_grad():
            v = transposed_solve(functions, ctx.saved_tensors, cotangents, hold, layout, extraction)
        sign = -1.0 if ctx.solved else torch.nan
        return None, None, None, None, None, *(sign * part for part in v)


def attach(
    functions: Functions,
    detached: Functions,
    solution: Triple,
    resting: Tensor,
    hold: Tensor,
    solved: bool,
    layout: Layout,
    extraction: Extraction,
) -> Triple:
    """The solution with its graph; `detached` are the functions without one."""
    x, y, z = solution
    with torch.enable_grad():
        free = x.detach().requires_grad_()
        f, c, g = functions(free)
        (grad,) = torch.autograd.grad(f + y @ c - z @ g, free, create_graph=True)
        residuals = (grad + hold * (x - resting), c, z * g)
        return Implicit.apply((detached, hold, layout, extraction), solved, x, y, z, *residuals)
