"""Which ends have derivatives: solutions. Those of any other end are NaN, which no caller takes for a slope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bandhess_common.status import Status

from ..framework.transforms import batch, eager, forward_rule


def solved(status: Tensor) -> Tensor:
    """Whether an optimiser ended at a solution."""
    return (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR)


def one_where(ok: Tensor, like: Tensor) -> Tensor:
    """1 where ok, else NaN: a factor of derivatives, and no choice among them, so that cotangents get it, too."""
    return torch.where(ok, 1.0, torch.nan).to(like.dtype)


class _Where(torch.autograd.Function):
    """Of (ok, t), whose cotangents are NaN where not ok."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor]:
        return None, nan_unless(ctx.saved_tensors[0], cotangent)


class _Known(_Where):
    @staticmethod
    def forward(ok: Tensor, t: Tensor) -> Tensor:
        return torch.where(ok | (t == 0), t, torch.nan)

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _ok: None, tangent: Tensor) -> Tensor:
        return nan_unless(ctx.saved_tensors[0], tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ok: Tensor, t: Tensor) -> tuple[Tensor, int]:
        ok, t = batch(info, in_dims, ok, t)
        return _Known.apply(ok.reshape(ok.shape + (1,) * (t.ndim - ok.ndim)), t), 0


def nan_unless(ok: Tensor, t: Tensor) -> Tensor:
    """A linear function of cotangents: t where ok, or where t is 0, else NaN. Of what nothing depends on, no NaN comes
    back, as 0 times NaN would."""
    return _Known.apply(ok, t)


class _Differentiable(_Where):
    generate_vmap_rule = True

    @staticmethod
    def forward(ok: Tensor, v: Tensor) -> Tensor:
        return v.clone()

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, _ok: None, tangent: Tensor) -> Tensor:
        return tangent * one_where(ctx.saved_tensors[0], tangent)


def differentiable_where(ok: Tensor, v: Tensor) -> Tensor:
    """v, whose derivative is NaN where not ok."""
    return _Differentiable.apply(ok, v)
