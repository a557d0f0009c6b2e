"""Banded Cholesky `H = L L^T` and the two substitutions: LAPACK's, with derivative rules of their own.

Each rule is an `autograd.Function` with `jvp` and `vmap`, so that it composes with `torch.func`, to any order. The
derivatives of the factor run over blocks of columns: in blocks of b >= w columns L is block bidiagonal, diagonal
blocks D_i and blocks E_i below them, with

    P_i = A_i - E_{i-1} E_{i-1}^T,   D_i = chol(P_i),   E_i = B_i D_i^{-T}

for the blocks A_i, B_i of H, and the rules of the dense Cholesky hold block by block (Murray 2016, arXiv:1602.07527).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.linalg import solve_triangular as _dense_solve
from torch.nn.functional import pad

from . import _lapack
from ._storage import as_band, as_rhs, clear_unused, rows


def _to_blocks(ab: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The lower triangles of the diagonal blocks and the blocks below them, `(blocks, size, size)` each."""
    rows, n = ab.shape
    blocks = -(-n // size)
    padded = pad(ab, (0, blocks * size - n))
    r = torch.arange(size, device=ab.device)[:, None]
    c = torch.arange(size, device=ab.device)
    column = torch.arange(blocks, device=ab.device)[:, None, None] * size + c

    def gather(offset: Tensor) -> Tensor:
        inside = (offset >= 0) & (offset < rows)
        return torch.where(inside, padded[torch.where(inside, offset, 0), column], 0)

    return gather(r - c), gather(size + r - c)


def _to_band(diagonal: Tensor, below: Tensor, rows: int, n: int) -> Tensor:
    """The inverse of `_to_blocks`: reads the band off the blocks."""
    size = diagonal.shape[-1]
    row = torch.arange(n, device=diagonal.device) + torch.arange(rows, device=diagonal.device)[:, None]
    column = torch.arange(n, device=diagonal.device).expand(rows, n)
    block, r, c = column // size, row - column // size * size, column % size
    here = r < size
    return clear_unused(
        torch.where(here, diagonal[block, torch.where(here, r, 0), c], below[block, torch.where(here, 0, r - size), c])
    )


def _factor_blocks(cb: Tensor) -> tuple[Tensor, Tensor]:
    """L in blocks; the padding is an identity."""
    size = max(cb.shape[0] - 1, min(32, cb.shape[1]))
    D, E = _to_blocks(cb, size)
    padding = torch.arange(D.shape[0] * size, device=cb.device).reshape(-1, size) >= cb.shape[1]
    return D + torch.diag_embed(padding.to(cb.dtype)), E


def _half(m: Tensor) -> Tensor:
    """The lower triangle, its diagonal halved."""
    return m.tril(-1) + torch.diag_embed(m.diagonal(dim1=-2, dim2=-1)) / 2


def _push(cb: Tensor, dab: Tensor) -> Tensor:
    """The factor's tangent for a tangent of the band."""
    D, E = _factor_blocks(cb)
    dA, dB = _to_blocks(clear_unused(dab), D.shape[-1])
    dA = dA + dA.tril(-1).mT
    dD, dE = [], []
    update = torch.zeros_like(dA[0])
    for i in range(len(D)):
        inner = _dense_solve(D[i].mT, dA[i] - update, upper=True, left=False)
        dD.append(D[i] @ _half(_dense_solve(D[i], inner, upper=False)))
        dE.append(_dense_solve(D[i].mT, dB[i] - E[i] @ dD[i].mT, upper=True, left=False))
        update = dE[i] @ E[i].mT + E[i] @ dE[i].mT
    return _to_band(torch.stack(dD), torch.stack(dE), *cb.shape)


def _pull(cb: Tensor, cotangent: Tensor) -> Tensor:
    """The band's cotangent for a cotangent of the factor; an off-diagonal cell counts both of its entries."""
    D, E = _factor_blocks(cb)
    gD, gE = _to_blocks(clear_unused(cotangent), D.shape[-1])
    gA: list[Tensor] = []
    gB: list[Tensor] = []
    above = torch.zeros_like(gE[0])  # what block i + 1's diagonal passes up to E_i
    for i in reversed(range(len(D))):
        Z = _dense_solve(D[i], gE[i] + above, upper=False, left=False)
        gDi = (gD[i] - Z.mT @ E[i]).tril()
        S = _half(D[i].mT @ gDi)
        S = _dense_solve(D[i].mT, (S + S.mT) / 2, upper=True)
        S = _dense_solve(D[i], S, upper=False, left=False)
        gA.append(2 * S - torch.diag_embed(S.diagonal()))
        gB.append(Z)
        if i:
            above = -2 * S @ E[i - 1]
    return _to_band(torch.stack(gA[::-1]), torch.stack(gB[::-1]), *cb.shape)


def _batch(info: Any, in_dims: tuple, *operands: Any) -> list[tuple]:
    """The operands of each lane of a vmap."""
    columns = [
        [t] * info.batch_size if dim is None else t.movedim(dim, 0).unbind(0)
        for t, dim in zip(operands, in_dims, strict=True)
    ]
    return list(zip(*columns, strict=True))


class _Cholesky(torch.autograd.Function):
    @staticmethod
    def forward(ab: Tensor, check: bool) -> tuple[Tensor, Tensor]:
        cb, info = _lapack.pbtrf(ab)
        if info and check:
            raise torch.linalg.LinAlgError(
                f"cholesky: the leading minor of order {info} is not positive definite; cholesky_ex reports it instead"
            )
        if info:
            cb = torch.full_like(cb, torch.nan)
        return cb, torch.tensor(info, dtype=torch.int32, device=ab.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        cb, info = output
        ctx.mark_non_differentiable(info)
        ctx.save_for_backward(cb)
        ctx.save_for_forward(cb)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, _info: Tensor) -> tuple[Tensor, None]:
        (cb,) = ctx.saved_tensors
        return (_pull(cb, cotangent) if cb.numel() else cotangent), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _check: None) -> tuple[Tensor, None]:
        (cb,) = ctx.saved_tensors
        return (_push(cb, tangent) if cb.numel() else tangent), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, check: bool) -> tuple:
        lanes = [_Cholesky.apply(one, check) for one, _ in _batch(info, in_dims, ab, check)]
        return (torch.stack([cb for cb, _ in lanes]), torch.stack([i for _, i in lanes])), (0, 0)


def cholesky_ex(ab: Tensor) -> tuple[Tensor, Tensor]:
    """As `cholesky`, with the verdict: `(cb, info)`.

    info (int32, scalar) is 0, or the 1-based order of the first leading minor that is not positive definite (LAPACK
    `pbtrf`), read as the first pivot that is not in (0, inf), NaN included. cb is all NaN where info is not 0.
    """
    return _Cholesky.apply(as_band(ab), False)


def cholesky(ab: Tensor) -> Tensor:
    """The banded Cholesky factor: L with H = L L^T, in the same storage.

    Args:
      ab: `(w + 1, n)`, lower band of H, float32 or float64. Values in unused cells are never read.

    Returns: cb `(w + 1, n)`, `cb[d, j] = L[j + d, j]`.

    Raises: torch.linalg.LinAlgError, naming the leading minor, where H is not positive definite, as
      `torch.linalg.cholesky` (`cholesky_ex` reports it instead).

    Cost: n (w^2 + 3 w + 1) flops (LAPACK `pbtrf`); differentiable in both modes, in O(n max(w, 32)^2).
    """
    return _Cholesky.apply(as_band(ab), True)[0]


def outer_band(u: Tensor, v: Tensor, rows: int) -> Tensor:
    """The lower band of u v^T, summed over columns: `[d, j] = sum_c u[j + d, c] v[j, c]`, for `(n,)` or `(n, k)`."""
    n = u.shape[0]
    u, v = u.reshape(n, -1), v.reshape(n, -1)
    return torch.stack([pad((u[d:] * v[: n - d]).sum(1), (0, d)) if d < n else u.new_zeros(n) for d in range(rows)])


def _lower_matvec(cb: Tensor, x: Tensor, transpose: bool) -> Tensor:
    """L x or L^T x."""
    n, x = x.shape[0], rows(x)
    y = cb[0] * x
    for d in range(1, min(cb.shape[0], n)):
        cells = cb[d, : n - d]
        y = y + (pad(cells * x[..., d:], (0, d)) if transpose else pad(cells * x[..., : n - d], (d, 0)))
    return rows(y)


class _Substitution(torch.autograd.Function):
    @staticmethod
    def forward(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
        return _lapack.tbtrs(cb, b, transpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        cb, _, ctx.transpose = inputs
        ctx.save_for_backward(cb, output)
        ctx.save_for_forward(cb, output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        cb, x = ctx.saved_tensors
        gb = _Substitution.apply(cb, cotangent, not ctx.transpose)
        u, v = (x, gb) if ctx.transpose else (gb, x)
        return -outer_band(u, v, cb.shape[0]), gb, None

    @staticmethod
    def jvp(ctx: Any, dcb: Tensor, db: Tensor, _transpose: None) -> Tensor:
        cb, x = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        if dcb is not None:
            db = db - _lower_matvec(dcb, x, ctx.transpose)
        return _Substitution.apply(cb, db, ctx.transpose)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, cb: Tensor, b: Tensor, transpose: bool) -> tuple:
        return torch.stack([_Substitution.apply(*one) for one in _batch(info, in_dims, cb, b, transpose)]), 0


def solve_triangular(cb: Tensor, b: Tensor, *, transpose: bool = False) -> Tensor:
    """x with L x = b, or L^T x = b when transpose: whitening, and drawing from N(0, H^-1).

    Args:
      cb: `(w + 1, n)`, a lower banded triangular factor such as `cholesky` gives.
      b: `(n,)` or `(n, k)`.
      transpose: solve with L^T.

    Returns: x, of b's shape. Cost: (2 w + 1) n flops per column (LAPACK `tbtrs`). Differentiable in both arguments at
      the cost of further substitutions.
    """
    cb = as_band(cb, "cb")
    return _Substitution.apply(cb, as_rhs(b, cb), bool(transpose))


def cho_solve(cb: Tensor, b: Tensor) -> Tensor:
    """x with L L^T x = b, from the factor.

    Args: cb `(w + 1, n)` from `cholesky`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape. Cost: (4 w + 2) n flops per column (LAPACK `pbtrs`).
    """
    return solve_triangular(cb, solve_triangular(cb, b), transpose=True)


def logdet(cb: Tensor) -> Tensor:
    """log det H from its factor cb `(w + 1, n)`: twice the sum of the logarithms of L's diagonal; a scalar."""
    return 2 * as_band(cb, "cb")[0].log().sum()
