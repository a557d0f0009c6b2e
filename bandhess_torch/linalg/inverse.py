"""The band of H^-1 from the factor, without the rest of it (Takahashi, Fagan and Chin 1973; Erisman and Tinney 1975).

In blocks of columns, L = [D_0; E_0 D_1; ...] is block bidiagonal, and Z L = L^-T gives for Z = H^-1

    Z_{i+1,i} = -Z_{i+1,i+1} F_i,   Z_ii = (D_i D_i^T)^{-1} + F_i^T Z_{i+1,i+1} F_i,   F_i = E_i D_i^{-1}

so that Z is found block by block from the last, and only its band is ever needed. The compiled kernel does the same
column by column; the blocks serve where derivatives are recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import solve_triangular as _dense_solve

from ..band.storage import as_band, clear_unused
from ..band.structures import Structure
from ..framework.kernels import kernel
from ..framework.transforms import eager, recorded
from . import bordered
from .blocks import congruences_backward, shift, to_band, to_blocks
from .cholesky import cholesky_ex
from .solve import Factor, factored_columns


@eager
def inverse_band(cb: Tensor | Factor | bordered.BorderedFactor) -> Tensor | Structure:
    """The band of H^-1, from a factor of H: row 0 holds the marginal variances of N(0, H^-1).

    Args:
      cb: `(w + 1, n)` from `cholesky` (values in unused cells are never read); or what `factor` gives for a band,
        `Cyclic` or `Bordered`.

    Returns: `(w + 1, n)`: `[d, j]` is (H^-1)[j + d, j], 0 in unused cells. H^-1 itself is dense; what lies outside the
      band is not formed. NaN where cb is. For a structure, the same one: of `Bordered` the band of the inverse, its
      border (the covariances of variables and parameters) and its corner (those of the parameters).

    Cost: O(n max(w, 16)^2) (Takahashi's selected inverse, in blocks). Differentiable in both modes, at the same order.
      A structure costs (2 w + 4) n p flops more.

    >>> inverse_band(cholesky(torch.tensor([[2.0, 2, 2], [-1, -1, 0]]))).round(decimals=4)
    tensor([[0.7500, 1.0000, 0.7500],
            [0.5000, 0.5000, 0.0000]])
    """
    if isinstance(cb, bordered.BorderedFactor):
        return bordered.inverse(cb, inverse_band)
    if isinstance(cb, Factor):
        columns = factored_columns(cb)
        if columns is not None and not recorded(cb.ab):
            Z = _columns(columns[:, 1:] / columns[:, :1], 1 / columns[:, 0])
            return torch.where(cb.ok, clear_unused(Z.mT), torch.nan)
        cb = torch.where(cb.ok, cholesky_ex(cb.ab)[0], torch.nan)
    cb = as_band(cb, "cb", form=False)
    if cb.numel() == 0:
        return cb.clone()
    if recorded(cb):
        return _by_blocks(cb)
    cb = clear_unused(cb)
    unit, reciprocals = (cb[1:] / cb[0]).mT, 1 / cb[0] ** 2
    return clear_unused(_columns(unit, reciprocals).mT)


def _columns(unit: Tensor, reciprocals: Tensor) -> Tensor:
    """`(n, w + 1)`: row j holds Z[j .. j + w, j], for unit `(n, w)` (row j: m_j) and 1 / d_j `(n,)`."""
    return kernel("inverse", _columns_by_blocks, unit, reciprocals)


def variances(columns: Tensor) -> Tensor:
    """`(n,)`: the diagonal of H^-1, for what `factored_columns` gives."""
    return kernel("variances", _diagonal_by_blocks, columns)


def _diagonal_by_blocks(columns: Tensor) -> Tensor:
    return _columns_by_blocks(columns[:, 1:] / columns[:, :1], 1 / columns[:, 0])[:, 0]


def _columns_by_blocks(unit: Tensor, reciprocals: Tensor) -> Tensor:
    root = reciprocals.rsqrt()
    return _by_blocks(torch.cat([root[None], unit.mT * root])).mT


def _by_blocks(cb: Tensor) -> Tensor:
    D, E = to_blocks(cb)
    outside = torch.arange(D.shape[0] * D.shape[1], device=cb.device).reshape(D.shape[:2]) >= cb.shape[1]
    D = D + torch.diag_embed(outside.to(cb.dtype))  # an identity follows the last column
    inverse = _dense_solve(D, torch.eye(D.shape[-1], dtype=cb.dtype, device=cb.device), upper=False)
    F = E @ inverse
    Z = congruences_backward(inverse.mT @ inverse, F)
    return to_band(Z, -shift(Z, -1) @ F, *cb.shape)
