"""A general band's factor and what follows from it: `lu_factor`, `lu_solve`, `slogdet` (scipy #20948 asks for them).

The determinant's derivative is the inverse, of which the band alone is needed: d log|det A| = sum Z[j, i] dA[i, j],
Z = A^-1. It comes from the elimination, backwards (after Erisman and Tinney 1975, with interchanges). Let S be what
elimination has left before column k, Z its inverse. With d the pivot, r the rest of its row, m the multipliers, and P
the interchange,

    P S = [ 1  0 ] [ d  r  ]        Z = [ (1 + r Z' m) / d   -r Z' / d ] P
          [ m  I ] [ 0  S' ]            [     -Z' m              Z'    ]

Multipliers m have l entries and r has l + u: a window of l + u rows and l columns of Z' gives that of Z, and its last
column, which belongs to the row of A that joined last, is that row's part of the band.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bandhess_common.checks import as_index, check_general_shape

from ..band.general import cleared
from ..band.storage import as_rhs, transposed
from ..framework.transforms import apply, batch, eager, forward_rule
from .lu import eliminate, pivots_of, solve_eliminated


class LU(NamedTuple):
    """A factorised general band, from `lu_factor`: opaque, a pytree that passes through `torch.func`'s transforms.

    >>> lu = lu_factor(torch.tensor([[0.0, 1, 1], [4, 4, 4], [1, 1, 0]]), 1, 1)
    >>> bool(lu.ok)
    True
    """

    ab: Tensor
    parts: tuple[Tensor, ...]

    @property
    def ok(self) -> Tensor:
        """True where every pivot is finite and not zero; elsewhere `lu_solve` gives NaN."""
        pivots = pivots_of(self.parts, *_reach(self.ab, self.parts))
        return ((pivots != 0) & pivots.isfinite()).all(-1)


def _reach(ab: Tensor, parts: tuple[Tensor, ...]) -> tuple[int, int]:
    """`(l, u)` of a factor."""
    rows = ab.shape[-2]
    l = parts[1].shape[-1] if len(parts) == 3 else parts[0].shape[-2] - rows
    return l, rows - 1 - l


def as_general(ab: Tensor, l: int, u: int) -> Tensor:
    """ab as it is, `(l + u + 1, n)` and floating, with zeros in its unused cells, or an error that says what came."""
    if not isinstance(ab, Tensor):
        raise TypeError(f"ab must be a torch.Tensor, got {type(ab).__name__}; convert it with torch.as_tensor")
    check_general_shape(tuple(ab.shape), as_index(l, "l"), as_index(u, "u"), "torch.func.vmap")
    if not ab.is_floating_point():
        raise TypeError(
            f"ab must have a real floating dtype, got {ab.dtype}; convert it with .double(), or solve a complex band "
            "with bandhess_torch.scipy.solve_banded"
        )
    return cleared(ab, l, u)


@eager
def lu_factor(ab: Tensor, l: int, u: int) -> LU:
    """Factorise a general band by LU with partial pivoting, to solve with it many times.

    Args:
      ab: `(l + u + 1, n)`, diagonal ordered form as in `scipy.linalg.solve_banded`: `ab[u + i - j, j] = A[i, j]`.
      l: subdiagonals, a Python int.
      u: superdiagonals, likewise.

    Returns: `LU`, for `lu_solve` and `slogdet`; `.ok` is False where a pivot is zero or not finite. Nothing is raised
      for a singular A.

    Cost: 2 n l (l + u + 1) flops (LAPACK `gbtrf`).

    >>> lu = lu_factor(torch.tensor([[0.0, 1, 1], [4, 4, 4], [1, 1, 0]]), 1, 1)
    >>> lu_solve(lu, torch.tensor([5.0, 6, 5]))
    tensor([1., 1., 1.])
    """
    ab = as_general(ab, l, u)
    return LU(ab, eliminate(ab, l, u))


@eager
def lu_solve(lu: LU, b: Tensor, *, transpose: bool = False) -> Tensor:
    """x with A x = b, or A^T x = b, for b `(n,)` or `(n, k)`.

    x is NaN where A is singular (a pivot is exactly zero) or not finite. Differentiable in both modes with respect to
    ab and b, to any order, at the cost of one more solve with the same factor.

    Cost: 2 n (2 l + u) flops per column (LAPACK `gbtrs`).

    >>> lu = lu_factor(torch.tensor([[0.0, 1, 1], [4, 4, 4], [2, 2, 0]]), 1, 1)
    >>> lu_solve(lu, torch.tensor([5.0, 7, 6])).round(decimals=4)
    tensor([1., 1., 1.])
    >>> lu_solve(lu, torch.tensor([6.0, 7, 5]), transpose=True).round(decimals=4)
    tensor([1., 1., 1.])
    """
    b = as_rhs(b, lu.ab)
    if b.numel() == 0:
        return b
    x = solve_eliminated(lu.ab, lu.parts, b, *_reach(lu.ab, lu.parts), bool(transpose))
    return x * torch.where(lu.ok, 1.0, torch.nan).to(x.dtype)  # a factor, so that cotangents become NaN, too


@eager
def slogdet(lu: LU) -> tuple[Tensor, Tensor]:
    """`(sign, log|det A|)`, scalars, as `torch.linalg.slogdet` has them: `(0, -inf)` where A is singular.

    Cost: n flops; its derivative, in both modes, once (that derivative has none), a loop over the columns in NumPy,
    4 n l (l + u) flops. The derivative is NaN where A is singular.

    >>> lu = lu_factor(torch.tensor([[0.0, 1, 1], [4, 4, 4], [1, 1, 0]]), 1, 1)
    >>> sign, log_size = slogdet(lu)  # the determinant is 56
    >>> float(sign), round(float(log_size), 4)
    (1.0, 4.0254)
    """
    l, u = _reach(lu.ab, lu.parts)
    pivots = pivots_of(lu.parts, l, u)
    singular = (pivots == 0).any(-1)
    sign = pivots.sign().prod(-1) * (1 - 2 * (_swaps(lu.parts) != 0).sum(-1).remainder(2)).to(pivots.dtype)
    return torch.where(singular, 0, sign).detach(), apply(_LogSize, lu.ab, l, u, *lu.parts)


def _swaps(parts: tuple[Tensor, ...]) -> Tensor:
    """How far below the pivots stood."""
    if len(parts) == 3:
        return parts[2]
    pivots = parts[1][..., 0, :]
    return pivots - torch.arange(pivots.shape[-1], dtype=pivots.dtype, device=pivots.device)


_ONCE = "slogdet has first derivatives only; bandhess_jax.slogdet has them to any order"


class _LogSize(torch.autograd.Function):
    """log|det A|, of ab `(..., l + u + 1, n)` and its factor."""

    @staticmethod
    def forward(ab: Tensor, l: int, u: int, *parts: Tensor) -> Tensor:
        pivots = pivots_of(parts, l, u).abs()
        return torch.where((pivots == 0).any(-1), -torch.inf, pivots.log().sum(-1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ab, ctx.l, ctx.u, *parts = inputs
        ctx.save_for_backward(ab, *parts)
        ctx.save_for_forward(ab, *parts)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> tuple:
        ab, *parts = ctx.saved_tensors
        inverse = apply(_Inverse, ab, ctx.l, ctx.u, *parts)
        return cotangent[..., None, None] * inverse, None, None, *[None] * len(parts)

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, dab: Tensor, *_: None) -> Tensor:
        ab, *parts = ctx.saved_tensors
        return (apply(_Inverse, ab, ctx.l, ctx.u, *parts) * dab).sum((-2, -1))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, l: int, u: int, *parts: Tensor) -> tuple:
        ab, *parts = batch(info, (in_dims[0], *in_dims[3:]), ab, *parts)  # type: ignore[assignment]
        return _LogSize.apply(ab, l, u, *parts), 0


class _Inverse(torch.autograd.Function):
    """`_inverse_transposed`, whose derivative is an error and not silently 0."""

    @staticmethod
    def forward(ab: Tensor, l: int, u: int, *parts: Tensor) -> Tensor:
        return _inverse_transposed(ab, parts, l, u)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> None:
        raise RuntimeError(_ONCE)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise RuntimeError(_ONCE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, l: int, u: int, *parts: Tensor) -> tuple:
        ab, *parts = batch(info, (in_dims[0], *in_dims[3:]), ab, *parts)  # type: ignore[assignment]
        return _Inverse.apply(ab, l, u, *parts), 0


def _rows(parts: tuple[Tensor, ...], l: int, u: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U by rows `(..., n, l + u + 1)`, multipliers `(..., n, l)`, and how far below the pivots stood."""
    swaps = _swaps(parts).cpu().numpy()
    if len(parts) == 3:
        return parts[0].cpu().numpy(), parts[1].cpu().numpy(), swaps
    upper = transposed(parts[0][..., : l + u + 1, :], 0).mT  # LAPACK's U is upper band storage
    return upper.cpu().numpy(), parts[0][..., l + u + 1 :, :].mT.cpu().numpy(), swaps


def _inverse_transposed(ab: Tensor, parts: tuple[Tensor, ...], l: int, u: int) -> Tensor:
    """`[..., u + i - j, j]` is (A^-1)[j, i]: where A has a cell, the transposed inverse's entry."""
    (count, n), lanes = ab.shape[-2:], ab.shape[:-2]
    if n == 0:
        return ab
    upper, multipliers, swaps = _rows(parts, l, u)
    window = np.zeros((*lanes, count, l + 1), upper.dtype)  # of Z: its columns are the rows of A that have joined
    columns = np.zeros((*lanes, n + l, count), upper.dtype)  # the row of A that joins before column k at k + l
    with np.errstate(all="ignore"):  # where A is singular all is NaN
        for k in reversed(range(n)):
            Z, d, r = window[..., :-1, :-1], upper[..., k, :1], upper[..., k, None, 1:]
            below = -(Z @ multipliers[..., k, :, None])
            after = np.empty_like(window)
            after[..., 1:, 0], after[..., 1:, 1:] = below[..., 0], Z
            after[..., 0, 0] = ((1 - r @ below)[..., 0, 0]) / d[..., 0]
            after[..., 0, 1:] = -(r @ Z)[..., 0, :] / d
            place = swaps[..., k, None, None].astype(np.int64)
            first, chosen = after[..., :1].copy(), np.take_along_axis(after, place, -1)
            np.put_along_axis(after, place, first, -1)
            after[..., :1] = chosen
            columns[..., k + l, :], window = after[..., -1], after
    for i in range(min(l, n)):  # the rows that were there from the start, whose first cells are unused
        columns[..., i, l - i :] = window[..., : count - (l - i), i]
    band = torch.from_numpy(np.ascontiguousarray(columns[..., :n, :])).to(ab.device)
    return transposed(band.mT, u)
