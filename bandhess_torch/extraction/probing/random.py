"""Random probing: least squares, row by row, from more random products than a row has unknowns.

A row of stage s has unknowns in the stages s - k .. s + k only. With K Gaussian probes V, `(K, n)`, the products
`Y = V H` give K equations for its (2k + 1) d unknowns, with the same matrix `V[:, window(s)]` for every row of stage s.
Each off-diagonal entry is estimated twice, from its row and from its column, and the two are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.checks import as_index

from ...band.noise import gaussian


@dataclass(frozen=True)
class Random:
    """For noisy products: from finite-difference or stochastic gradients.

    Args:
      oversampling: products beyond the (2k + 1) d unknowns of a row; None: as many again, which keeps the least
        squares well conditioned (with K / unknowns = 2, about 6). 0 multiplies errors without bound; rows it leaves
        undetermined come out as NaN.
      seed: of the probes.
      return_noise: return `(ab, noise)`: noise is the standard deviation of one entry of one product, estimated
        from the residuals (NaN where no row has more products than unknowns).
      stages_at_once: rows are solved so many stages at a time, which bounds the memory.

    `(2k + 1) d + oversampling` products. Error: noise-free, some eps; with noise sigma in each product's entries,
    sigma / sqrt(oversampling - 1) on the diagonal, and by the averaging sigma / sqrt(2 (oversampling - 1)) off it.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
    >>> hessian(fun, 1, probing=Random(oversampling=6))(torch.tensor([1.0, 2, 4, 8])).round(decimals=3)[0]
    tensor([2., 4., 4., 2.])
    >>> Random().count(T=100, d=2, k=1)  # products
    12
    """

    oversampling: int | None = None
    seed: int = 0
    return_noise: bool = False
    stages_at_once: int = 4096

    def __post_init__(self) -> None:
        if self.oversampling is not None:
            as_index(self.oversampling, "oversampling")
        as_index(self.seed, "seed")
        as_index(self.stages_at_once, "stages_at_once", least=1)

    def count(self, T: int, d: int, k: int) -> int:
        unknowns = (2 * k + 1) * d
        return unknowns + (unknowns if self.oversampling is None else self.oversampling)

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        return gaussian(T * d, (self.seed, c), like)

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        return y

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Any:
        K, width = kept.shape[0], 2 * k + 1
        V = torch.stack([self.probe(c, T, d, k, kept) for c in range(K)]).reshape(K, T, d)
        V = pad(V, (0, 0, k, k))
        Y = kept.reshape(K, T, d)
        blocks, squares = [], []
        for first in range(0, T, self.stages_at_once):
            s = torch.arange(first, min(first + self.stages_at_once, T), device=kept.device)
            window = s[:, None] + torch.arange(width, device=kept.device)
            A = V[:, window].permute(1, 0, 2, 3).reshape(len(s), K, width * d)
            y = Y[:, s].transpose(0, 1)
            # Stages before the first and past the last have probes 0 and unknowns 0: an identity keeps them solvable.
            empty = ((window < k) | (window >= T + k)).repeat_interleave(d, 1).to(kept.dtype)
            factor, info = torch.linalg.cholesky_ex(A.mT @ A + torch.diag_embed(empty))
            factor = torch.where(info[:, None, None] == 0, factor, torch.nan)
            x = torch.cholesky_solve(A.mT @ y, factor)
            # One step of refinement undoes what squaring the condition number costs.
            x = x + torch.cholesky_solve(A.mT @ (y - A @ x) - empty[..., None] * x, factor)
            blocks.append(x.reshape(len(s), width, d, d))
            squares.append(((y - A @ x) ** 2).sum())
        X = torch.cat(blocks)
        # X[s, o, j, i] = H[(s, i), (s + o - k, j)]. D_e[s] = H[s + e, s], from its row and from its column.
        from_row = [pad(X[e:, k - e].transpose(1, 2), (0, 0, 0, 0, 0, e)) for e in range(k + 1)]
        from_column = [X[:, k + e] for e in range(k + 1)]
        D = (torch.stack(from_row) + torch.stack(from_column)) / 2  # (e, s, row, column)
        D = D.permute(0, 2, 1, 3).reshape((k + 1) * d, T, d)
        # Scalar column i of a stage starts i rows down: its band begins at the diagonal.
        ab = torch.stack([pad(D[i:, :, i], (0, 0, 0, i)) for i in range(d)], dim=2).reshape((k + 1) * d, T * d)
        if not self.return_noise:
            return ab
        # Degrees of freedom: near the ends the windows are shorter.
        present = sum(max(T - abs(o), 0) for o in range(-k, k + 1)) * d
        freedom = d * (K * T - present)
        return ab, torch.sqrt(torch.stack(squares).sum() / (freedom if freedom > 0 else torch.nan))
