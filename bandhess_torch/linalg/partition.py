"""Solving H x = b in parallel: block cyclic reduction (Heller 1976, SIAM J. Numer. Anal. 13, 484).

In blocks of s >= w columns a band is block tridiagonal,

    H =  D0  C1' .   .         Even blocks meet odd ones only, so all of them are eliminated at once:
         C1  D1  C2' .         with L = chol(D_i), U = L^-1 C_i and W = L^-1 C_{i+1}', block i changes
         .   C2  D2  C3'       its left neighbour by -U'U, its right one by -W'W, and couples the two
         .   .   C3  D3        by -W'U.

What is left is again block tridiagonal and positive definite, with half the blocks: log2(n / s) rounds of a few
kernels over many blocks, which is what a GPU wants. Everything is an ordinary batched operation, with any leading
dimensions, that vmaps and differentiates by itself; no loop runs over the columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import solve_triangular
from torch.nn.functional import pad


def _blocks(ab: Tensor, s: int) -> tuple[Tensor, Tensor]:
    """D and C, `(..., N, s, s)`; the last block is filled up with an identity, and C_0 is 0."""
    n = ab.shape[-1]
    N = -(-n // s)
    filled = torch.cat([pad(ab, (0, N * s - n)), ab.new_zeros((*ab.shape[:-2], 1, N * s))], -2)
    filled[..., 0, n:] = 1
    r, c = torch.arange(s, device=ab.device)[:, None], torch.arange(s, device=ab.device)
    start = s * torch.arange(N, device=ab.device)[:, None, None]

    def gather(offset: Tensor, column: Tensor) -> Tensor:
        zero = ab.shape[-2]  # a row of zeros, for what lies outside the band
        return filled[..., torch.where((offset >= 0) & (offset < zero), offset, zero), column]

    D = gather((r - c).abs(), start + torch.minimum(r, c))
    return D, gather(s + r - c, (start - s + c).clamp(min=0)) * (start > 0)


def _after(t: Tensor, blocks: int) -> Tensor:
    """The odd block after each of the even ones, 0 where there is none."""
    return pad(t, (0, 0, 0, 0, 0, blocks - t.shape[-3]))


def _before(t: Tensor, blocks: int) -> Tensor:
    """The odd block before each of the even ones, 0 where there is none."""
    return pad(t, (0, 0, 0, 0, 1, 0))[..., :blocks, :, :]


def reduce(ab: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """`(parts, ok)`: what `substitute` needs to solve with H, and whether H is positive definite.

    Args: ab `(..., w + 1, n)` with unused cells cleared.
    Returns: L `(..., N, s, s)` and [U W] `(..., N, s, 2 s)` of every round, then the last L; ok `(...)`.
    Cost: some 9 n s^2 flops, s = max(w, 8), in 5 kernels a round.
    """
    s = max(ab.shape[-2] - 1, 8)
    D, C = _blocks(ab, s)
    parts: list[Tensor] = []
    ok = torch.ones(ab.shape[:-2], dtype=torch.bool, device=ab.device)
    while True:
        L, info = torch.linalg.cholesky_ex(D[..., 0::2, :, :])
        ok = ok & (info == 0).all(-1) & L.isfinite().flatten(-3).all(-1)
        if D.shape[-3] <= 1:
            return (*parts, L), ok
        even, odd = L.shape[-3], D.shape[-3] // 2
        UW = solve_triangular(L, torch.cat([C[..., 0::2, :, :], _after(C[..., 1::2, :, :].mT, even)], -1), upper=False)
        parts += [L, UW]
        gram = UW.mT @ UW
        left = pad(gram[..., 1:, :s, :s], (0, 0, 0, 0, 0, odd - even + 1))
        D = D[..., 1::2, :, :] - gram[..., :odd, s:, s:] - left
        C = -gram[..., :odd, s:, :s]


def substitute(parts: Sequence[Tensor], b: Tensor) -> Tensor:
    """x `(..., n, k)` with H x = b, for the parts of H. Some 6 n s flops per column."""
    n, s = b.shape[-2], parts[0].shape[-1]
    b = pad(b, (0, 0, 0, -n % s)).unflatten(-2, (-1, s))
    *rounds, last = parts
    kept: list[Tensor] = []
    for L, UW in zip(rounds[0::2], rounds[1::2], strict=True):
        even, odd = L.shape[-3], b.shape[-3] // 2
        y = solve_triangular(L, b[..., 0::2, :, :], upper=False)
        update = UW.mT @ y
        left = pad(update[..., 1:, :s, :], (0, 0, 0, 0, 0, odd - even + 1))
        b = b[..., 1::2, :, :] - update[..., :odd, s:, :] - left
        kept.append(y)
    x = solve_triangular(last.mT, solve_triangular(last, b, upper=False), upper=True)
    for L, UW, y in zip(rounds[-2::-2], rounds[::-2], reversed(kept), strict=True):
        even = L.shape[-3]
        neighbours = torch.cat([_before(x, even), _after(x, even)], -2)
        interior = solve_triangular(L.mT, y - UW @ neighbours, upper=True)
        x = torch.stack([interior, _after(x, even)], -3).flatten(-4, -3)[..., : even + x.shape[-3], :, :]
    return x.flatten(-3, -2)[..., :n, :]


def logdet(parts: Sequence[Tensor]) -> Tensor:
    """log det H `(...)`, from its parts."""
    return sum(
        (2 * L.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1)) for L in parts[0::2]), start=parts[0].new_zeros(())
    )
