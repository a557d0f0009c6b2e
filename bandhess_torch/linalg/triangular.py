"""Substitution with a lower banded triangular factor, with derivative rules of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..band.storage import as_band, as_rhs
from ..framework.kernels import kernel
from ..framework.transforms import apply, eager, forward_rule, vmap_solve
from . import lapack


def outer_band(u: Tensor, v: Tensor, rows: int) -> Tensor:
    """The lower band of u v^T: `[..., d, j] = sum_c u[..., j + d, c] v[..., j, c]`, for `(..., n, k)`."""
    n = u.shape[-2]
    return torch.stack(
        [
            pad((u[..., d:, :] * v[..., : n - d, :]).sum(-1), (0, d)) if d < n else torch.zeros_like(u[..., 0])
            for d in range(rows)
        ],
        -2,
    )


def _lower_matvec(cb: Tensor, x: Tensor, transpose: bool) -> Tensor:
    """L x or L^T x for x `(..., n, k)`."""
    n, x = x.shape[-2], x.mT
    y = cb[..., :1, :] * x
    for d in range(1, min(cb.shape[-2], n)):
        cells = cb[..., d : d + 1, : n - d]
        y = y + (pad(cells * x[..., d:], (0, d)) if transpose else pad(cells * x[..., : n - d], (d, 0)))
    return y.mT


def columns(solve: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """`solve`, which takes `(n, k)`, on b `(n,)` or `(n, k)`."""
    return solve(b) if b.ndim == 2 else solve(b.unsqueeze(1)).squeeze(1)


class _Substitution(torch.autograd.Function):
    """On b `(..., n, k)` and cb `(..., w + 1, n)`, so that a vmap is one call."""

    @staticmethod
    def forward(b: Tensor, cb: Tensor, transpose: bool) -> Tensor:
        return kernel("triangular", lapack.triangular, cb, b, transpose=transpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, cb, ctx.transpose = inputs
        ctx.save_for_backward(cb, output)
        ctx.save_for_forward(cb, output)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        cb, x = ctx.saved_tensors
        gb = apply(_Substitution, cotangent, cb, not ctx.transpose)
        u, v = (x, gb) if ctx.transpose else (gb, x)
        return gb, -outer_band(u, v, cb.shape[-2]), None

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, db: Tensor | None, dcb: Tensor | None, _transpose: None) -> Tensor:
        cb, x = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        if dcb is not None:
            db = db - _lower_matvec(dcb, x, ctx.transpose)
        return apply(_Substitution, db, cb, ctx.transpose)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, b: Tensor, cb: Tensor, transpose: bool) -> tuple:
        return vmap_solve(lambda b, cb: apply(_Substitution, b, cb, transpose), info, in_dims[:2], b, cb)


@eager
def solve_triangular(cb: Tensor, b: Tensor, *, transpose: bool = False) -> Tensor:
    """x with L x = b, or L^T x = b when transpose: whitening, and drawing from N(0, H^-1).

    Args:
      cb: `(w + 1, n)`, a lower banded triangular factor such as `cholesky` gives.
      b: `(n,)` or `(n, k)`.
      transpose: solve with L^T.

    Returns: x, of b's shape. Cost: (2 w + 1) n flops per column (LAPACK `tbtrs`). Differentiable in both arguments at
      the cost of further substitutions.

    >>> cb = torch.tensor([[2.0, 2, 2], [1, 1, 0]])
    >>> solve_triangular(cb, torch.tensor([2.0, 3, 3]))
    tensor([1., 1., 1.])
    >>> solve_triangular(cb, torch.tensor([3.0, 3, 2]), transpose=True)
    tensor([1., 1., 1.])
    """
    cb = as_band(cb, "cb", form=False)
    return columns(lambda b: apply(_Substitution, b, cb, bool(transpose)), as_rhs(b, cb))
