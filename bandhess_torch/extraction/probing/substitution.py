"""Substitution: half the probes, by symmetry (Powell and Toint 1979; Coleman and Moré 1984; Coleman and Cai 1986).

With one colour for every k + 1 stages a row sees two columns of a colour: one at most k stages before it, one after.
Seen from the other side, one of the two is known by symmetry. Let C = (k + 1) d, position j = m C + q, and Z[p, m, q]
the product of colour p in row (m, q). For colours p, q of stages a < r within the period

    Z[p, m, q] = G[m] + F[m],   Z[q, m, p] = F[m] + G[m - 1],   G[m] = H[(m, q), (m + 1, p)], F[m] = H[(m, q), (m, p)]

so G[m] - G[m - 1] = Z[p, m, q] - Z[q, m, p]: a cumulative sum. G is zero before the first period and after the last,
so it can be summed from both ends. Rounding errors add up along a sum, relative to its largest terms; every chain is
therefore joined where the two sums of |Z| passed on the way from either end are equal. A stretch of large entries then
spoils no other: with the first tenth of the entries scaled by 1e8, summing from one end leaves errors of 1e-6 in the
rest (n = 1e5, float64), the joined sums 4e-14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...framework.kernels import kernel
from ...framework.transforms import recorded
from .direct import one_of_every


def _from_both_ends(steps: Tensor, sizes: Tensor) -> Tensor:
    """Cumulative sums along axis 0 of `(m, chains)` steps that end at zero, joined at half of the summed sizes."""
    half = sizes.sum(0) / 2

    def after(x: Tensor) -> Tensor:
        """The sums of all later rows."""
        return pad(x[1:].flip(0).cumsum(0).flip(0), (0, 0, 0, 1))

    return torch.where(after(sizes) <= half, -after(steps), steps.cumsum(0))


def _decode(kept: Tensor, d: int) -> Tensor:
    """The band `(C, n)` from the products `(C, n)`."""
    C, n = kept.shape
    periods = -(-n // C)
    Z = pad(kept, (0, periods * C - n)).reshape(C, periods, C)

    # Tables: which pairs of colours make a chain, and where each cell of one period finds its value.
    stage = np.arange(C) // d
    p, q = np.nonzero(stage[:, None] < stage[None, :])
    chain = np.zeros((C, C), int)
    chain[p, q] = np.arange(len(p))
    offset, column = np.indices((C, C))
    row = (column + offset) % C
    inside = torch.tensor(column % d + offset < C, device=kept.device)
    later, same = stage[row] > stage[column], stage[row] == stage[column]
    where = np.where(same, row * C + column, C * C + chain[np.minimum(row, column), np.maximum(row, column)])
    where = np.where(later, where + len(p), where)

    Zt = Z.transpose(1, 2)  # (colour, row within the period, period)
    values = Zt.reshape(C * C, periods)
    if len(p):
        ahead, behind = Zt[p, q], Zt[q, p]
        G = _from_both_ends((ahead - behind).T, (ahead.abs() + behind.abs()).T).T
        F = behind - pad(G[:, :-1], (1, 0))
        values = torch.cat([values, G, F])
    cells = torch.where(inside[..., None], values[where], 0)
    return cells.transpose(1, 2).reshape(C, periods * C)[:, :n]


@dataclass(frozen=True)
class Substitution:
    """`(k + 1) d` products, about half of direct probing's.

    Error: each entry carries the rounding errors of at most T / (k + 1) products, along its chain to the nearer end
    as the file explains: some sqrt(T / k) eps times the largest entries on that way. Measured at n = 1e5 on entries of
    size 1: 4e-14 in float64, 2e-5 in float32 (direct: 2e-16, 1e-7). Use it where products are dear, in float64;
    not where a small entry between larger ones on both sides must be right to its last digits.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Substitution())(torch.tensor([1.0, 2, 4, 8]))
    tensor([[ 2.,  4.,  4.,  2.],
            [-2., -2., -2.,  0.]])
    >>> Substitution().count(T=100, d=2, k=1)  # products
    4
    """

    def count(self, T: int, d: int, k: int) -> int:
        return (k + 1) * d  # k < T

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        return one_of_every(self.count(T, d, k), range(c, c + 1), T * d, like)[0]

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        return y

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        return _decode(kept, d) if recorded(kept) else kernel("symmetry", _decode, kept, d=d)
