"""Banded LU with partial pivoting, for general bands in diagonal ordered form, `ab[u + i - j, j] = A[i, j]`:

    A =  a b . . .        ab =  * b f j n        n = 5, l = 2 subdiagonals, u = 1 superdiagonal
         c e f . .              a e i m q
         d h i j .              c h l p *        * unused, never read
         . k l m n              d k o * *
         . . o p q

Real bands by the compiled kernel, complex ones by LAPACK, with derivative rules of their own: the factor is a constant
to them, A's part in the derivative goes through the product A x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..band.general import around, cleared, product_general
from ..framework.kernels import kernel
from ..framework.transforms import apply, eager, forward_rule, vmap_solve
from . import lapack
from .triangular import columns


def pivots_of(parts: tuple[Tensor, ...], l: int, u: int) -> Tensor:
    """The pivots `(..., n)` of a factor."""
    return parts[0][..., :, 0] if len(parts) == 3 else parts[0][..., l + u, :]


class _Factor(torch.autograd.Function):
    """The factor of ab `(..., l + u + 1, n)`: what the kernel `lu` gives, or LAPACK's two parts. Not differentiable."""

    @staticmethod
    def forward(ab: Tensor, l: int, u: int, strict: bool) -> tuple[Tensor, ...]:
        parts = kernel("lu", lapack.lu, ab, l=l)
        zero = pivots_of(parts, l, u) == 0
        if strict and zero.any():
            first = int(zero.nonzero()[0, -1]) + 1
            raise torch.linalg.LinAlgError(f"solve_general: the matrix is singular, pivot {first} is exactly 0")
        return parts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, l: int, u: int, strict: bool) -> tuple:
        parts = apply(_Factor, ab.movedim(in_dims[0], 0), l, u, strict)
        return parts, (0,) * len(parts)


class _Solve(torch.autograd.Function):
    """A^-1 b or A^-H b, on b `(..., n, k)`, ab `(..., l + u + 1, n)` and its factor, so that a vmap is one call."""

    @staticmethod
    def forward(b: Tensor, ab: Tensor, l: int, u: int, adjoint: bool, *parts: Tensor) -> Tensor:
        if len(parts) == 2:
            return lapack.lu_solve(*parts, b, l, u, adjoint)
        return kernel("lu_solve", lapack.lu_solve, *parts, b, transpose=adjoint)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ab, ctx.l, ctx.u, ctx.adjoint, *parts = inputs
        ctx.save_for_backward(output, ab, *parts)
        ctx.save_for_forward(output, ab, *parts)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> tuple:
        x, ab, *parts = ctx.saved_tensors
        v = apply(_Solve, cotangent, ab, ctx.l, ctx.u, not ctx.adjoint, *parts)
        row, column = (x, v) if ctx.adjoint else (v, x)  # -row column^H on the band, summed over right-hand sides
        cells = around(row, ctx.u, ctx.l + ctx.u + 1) * column.mT.conj()[..., None, :]
        return v, -cells.sum(-3), None, None, None, *[None] * len(parts)

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, db: Tensor | None, dab: Tensor | None, *_: None) -> Tensor:
        x, ab, *parts = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        if dab is not None:
            db = db - product_general(dab, x, ctx.l, ctx.u, ctx.adjoint)
        return apply(_Solve, db, ab, ctx.l, ctx.u, ctx.adjoint, *parts)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, b: Tensor, ab: Tensor, l: int, u: int, adjoint: bool, *parts: Tensor) -> tuple:
        def solve(b: Tensor, ab: Tensor, *parts: Tensor) -> Tensor:
            return apply(_Solve, b, ab, l, u, adjoint, *parts)

        return vmap_solve(solve, info, (*in_dims[:2], *in_dims[5:]), b, ab, *parts)


def eliminate(ab: Tensor, l: int, u: int, strict: bool = False) -> tuple[Tensor, ...]:
    """The factor of a band `(l + u + 1, n)`, a constant to derivatives. strict: LinAlgError where a pivot is 0."""
    return apply(_Factor, ab.detach(), l, u, strict)


def solve_eliminated(
    ab: Tensor, parts: tuple[Tensor, ...], b: Tensor, l: int, u: int, transpose: bool = False
) -> Tensor:
    """A^-1 b, or A^-H b, with what `eliminate` made of ab, whose unused cells are 0; differentiable in both modes."""
    return columns(lambda b: apply(_Solve, b, ab, l, u, transpose, *parts), b)


def solve_general(ab: Tensor, b: Tensor, l: int, u: int) -> Tensor:
    """x with A x = b, for a band `(l + u + 1, n)` and b `(n,)` or `(n, k)` of its dtype.

    Raises torch.linalg.LinAlgError where a pivot is exactly zero. Differentiable in both modes, at the cost of one more
    solve with the same factor (LAPACK `gbtrf`, `gbtrs`).
    """
    ab = cleared(ab, l, u)  # with zeros in the unused cells
    return solve_eliminated(ab, eliminate(ab, l, u, strict=True), b, l, u)
