"""Bands in blocks of b >= w columns, and the derivatives of H = M D M^T over them.

H is block tridiagonal, with blocks A_i on the diagonal and B_i below it, M block bidiagonal, with M_i and E_i:

    P_i = A_i - E_{i-1} D_{i-1} E_{i-1}^T = M_i D_i M_i^T,   E_i = B_i M_i^{-T} D_i^{-1},   F_i = E_i M_i^{-1}

A tangent obeys dP_{i+1} = dA_{i+1} - dB_i F_i^T - F_i dB_i^T + F_i dP_i F_i^T, and within a block, with X = M_i^{-1}
dP_i M_i^{-T}, dD_i = diag(X) and dM_i = M_i strict_lower(X) D_i^{-1} (as for the dense Cholesky: Murray 2016,
arXiv:1602.07527). So all is batched over the blocks but the recurrence Z_{i+1} = P_{i+1} + F_i Z_i F_i^T, or with
transposes from the last block to the first. That one has a derivative rule, which is the same recurrence again.

Batches of blocks are what PyTorch's kernels want; XLA compiles the recurrence column by column, in JAX' `ldl`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.linalg import solve_triangular as _dense_solve
from torch.nn.functional import pad

from ..band.storage import clear_unused
from ..framework.transforms import eager, forward_rule


def to_blocks(ab: Tensor) -> tuple[Tensor, Tensor]:
    """The lower triangles of the diagonal blocks and the blocks below them, `(blocks, size, size)` each."""
    rows, n = ab.shape
    size = max(rows - 1, min(16, n))  # at least w; large enough that calls per block do not dominate
    blocks = -(-n // size)
    padded = pad(clear_unused(ab), (0, blocks * size - n))
    r = torch.arange(size, device=ab.device)[:, None]
    c = torch.arange(size, device=ab.device)
    column = torch.arange(blocks, device=ab.device)[:, None, None] * size + c

    def gather(offset: Tensor) -> Tensor:
        inside = (offset >= 0) & (offset < rows)
        return torch.where(inside, padded[torch.where(inside, offset, 0), column], 0)

    return gather(r - c), gather(size + r - c)


def to_band(diagonal: Tensor, below: Tensor, rows: int, n: int) -> Tensor:
    """The inverse of `to_blocks`: reads the band off the blocks."""
    size = diagonal.shape[-1]
    row = torch.arange(n, device=diagonal.device) + torch.arange(rows, device=diagonal.device)[:, None]
    column = torch.arange(n, device=diagonal.device).expand(rows, n)
    block, r, c = column // size, row - column // size * size, column % size
    here = r < size
    return clear_unused(
        torch.where(here, diagonal[block, torch.where(here, r, 0), c], below[block, torch.where(here, 0, r - size), c])
    )


class _Congruences(torch.autograd.Function):
    """Z_i = P_i + F_i^T Z_{i+1} F_i from the last block to the first, over axis -3; the last F_i is not used.

    Its derivatives are recurrences of the same kind, so that they can be differentiated again.
    """

    @staticmethod
    def forward(P: Tensor, F: Tensor) -> Tensor:
        Z, factors = list(P.unbind(-3)), F.unbind(-3)
        for i in reversed(range(len(Z) - 1)):
            Z[i] = Z[i] + factors[i].mT @ (Z[i + 1] @ factors[i])
        return torch.stack(Z, -3)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], output)
        ctx.save_for_forward(inputs[1], output)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        F, Z = ctx.saved_tensors
        gP = congruences_forward(cotangent, F)
        after = shift(Z, -1)
        return gP, after @ F @ gP.mT + after.mT @ F @ gP

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, dP: Tensor | None, dF: Tensor | None) -> Tensor:
        F, Z = ctx.saved_tensors
        source = torch.zeros_like(Z) if dP is None else dP
        if dF is not None:
            after = shift(Z, -1)
            source = source + dF.mT @ after @ F + F.mT @ after @ dF
        return _Congruences.apply(source, F)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *operands: Tensor) -> tuple:
        lanes = [
            t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(operands, in_dims, strict=True)
        ]
        return _Congruences.apply(*lanes), 0


def shift(blocks: Tensor, by: int) -> Tensor:
    """Block i moves to place i + by, for by = 1 or -1; a zero block fills the place left."""
    rest = blocks.shape[-3] - 1
    zero = torch.zeros_like(blocks.narrow(-3, 0, 1))
    return torch.cat([zero, blocks.narrow(-3, 0, rest)] if by == 1 else [blocks.narrow(-3, 1, rest), zero], -3)


def congruences_backward(P: Tensor, F: Tensor) -> Tensor:
    """Z_i = P_i + F_i^T Z_{i+1} F_i, for P and F `(blocks, size, size)`."""
    return _Congruences.apply(P, F)


def congruences_forward(P: Tensor, F: Tensor) -> Tensor:
    """Z_{i+1} = P_{i+1} + F_i Z_i F_i^T: the same recurrence with the blocks in reverse order."""
    return _Congruences.apply(P.flip(-3), shift(F.flip(-3).mT, -1)).flip(-3)


def _factor_blocks(ldb: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """M_i (the lower triangle below its unit diagonal matters), 1 / D_i as rows, E_i and F_i."""
    M, E = to_blocks(ldb)
    pivots = M.diagonal(dim1=-2, dim2=-1)
    outside = torch.arange(pivots.numel(), device=ldb.device).reshape(pivots.shape) >= ldb.shape[1]
    reciprocals = 1 / torch.where(outside, 1, pivots)[..., None, :]
    return M, reciprocals, E, _right(M, E)


def _left(M: Tensor, x: Tensor) -> Tensor:
    """M^-1 x"""
    return _dense_solve(M, x, upper=False, unitriangular=True)


def _right(M: Tensor, x: Tensor) -> Tensor:
    """x M^-1"""
    return _dense_solve(M, x, upper=False, left=False, unitriangular=True)


def _unit(M: Tensor) -> Tensor:
    return M.tril(-1) + torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)


def push(ldb: Tensor, dab: Tensor) -> Tensor:
    """The tangent of D and M for a tangent of the band."""
    M, reciprocals, E, F = _factor_blocks(ldb)
    dA, dB = to_blocks(dab)
    coupling = dB @ F.mT
    dP = congruences_forward(dA + dA.tril(-1).mT - shift(coupling + coupling.mT, 1), F)
    X = _left(M, _left(M, dP).mT)
    dM = _unit(M) @ (X.tril(-1) * reciprocals)
    dE = (_left(M, dB.mT).mT - E @ X.triu()) * reciprocals
    return to_band(dM + torch.diag_embed(X.diagonal(dim1=-2, dim2=-1)), dE, *ldb.shape)


def pull(ldb: Tensor, cotangent: Tensor) -> Tensor:
    """The band's cotangent for a cotangent of D and M: the transpose of `push`. An off-diagonal cell counts both of
    its entries."""
    M, reciprocals, E, F = _factor_blocks(ldb)
    gM, gE = to_blocks(cotangent)
    gE = gE * reciprocals
    gX = (_unit(M).mT @ (gM.tril(-1) * reciprocals)).tril(-1) - (E.mT @ gE).triu()
    gX = gX + torch.diag_embed(gM.diagonal(dim1=-2, dim2=-1))
    gP = _right(M, _right(M, gX).mT)
    gA = congruences_backward((gP + gP.mT) / 2, F)
    gB = _right(M, gE) - 2 * shift(gA, -1) @ F
    return to_band(gA + gA.tril(-1), gB, *ldb.shape)
