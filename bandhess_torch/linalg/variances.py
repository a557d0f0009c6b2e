"""Variances under N(0, H^-1) from a factor of H, and nothing else of the inverse's band."""

from __future__ import annotations

import torch
from torch import Tensor

from bandhess_common.checks import check_rows

from ..band.structures import Bordered, Cyclic
from ..framework.transforms import eager, recorded
from .bordered import BorderedFactor, inverse_corner
from .inverse import inverse_band, variances
from .solve import Factor, factored_columns


@eager
def marginal_variances(factor: Factor | BorderedFactor) -> Tensor:
    """diag(H^-1): the variance of every variable of N(0, H^-1), shared ones last.

    Args: factor, what `bandhess_torch.factor` gives for a band, `Cyclic` or `Bordered`.
    Returns: `(n,)`, NaN where H is not positive definite. Cost and derivatives: as `inverse_band`, whose band is formed
      only where a derivative is recorded; a border of p costs 2 n p^2 flops more.

    >>> marginal_variances(factor(torch.tensor([[2.0, 2, 2], [-1, -1, 0]]))).round(decimals=4)
    tensor([0.7500, 1.0000, 0.7500])
    """
    if isinstance(factor, Factor):
        return _variances(factor)
    covariances, sensitivity = inverse_corner(factor), factor.solved
    own = _variances(factor.band) + ((sensitivity @ covariances) * sensitivity).sum(1)
    return torch.cat([own, covariances.diagonal()])


def _variances(factor: Factor) -> Tensor:
    columns = factored_columns(factor)
    if columns is None or recorded(factor.ab):
        return inverse_band(factor)[0]
    return torch.where(factor.ok, variances(columns), torch.nan)


def quadratic_variances(factor: Factor | BorderedFactor, A: Tensor) -> Tensor:
    """diag(A H^-1 A^T) for rows of A that touch one stage each: the variances of A x under N(0, H^-1).

    Args:
      factor: what `bandhess_torch.factor` gives for a band, `Cyclic` or `Bordered`, of T stages of d scalars.
      A: `(T, r, d)`: r rows for every stage, on its d scalars.

    Returns: `(T, r)`, NaN where H is not positive definite. Cost: as `inverse_band`, and 2 T r d (d + 1) flops.

    >>> A = torch.tensor([[[1.0]], [[2]], [[3]]])  # a row for each of the stages, of one scalar
    >>> quadratic_variances(factor(torch.tensor([[2.0, 2, 2], [-1, -1, 0]])), A).round(decimals=4)[:, 0]
    tensor([0.7500, 4.0000, 6.7500])
    """
    Z = inverse_band(factor)
    band = Z.band if isinstance(Z, Bordered) else Z
    ab = band.ab if isinstance(band, Cyclic) else band
    check_rows(tuple(A.shape), *ab.shape)
    T, _, d = A.shape
    i, j = torch.arange(d, device=A.device)[:, None], torch.arange(d, device=A.device)
    blocks = ab[(i - j).abs(), torch.arange(T, device=A.device)[:, None, None] * d + torch.minimum(i, j)]
    return torch.einsum("tra,tab,trb->tr", A, blocks, A)
