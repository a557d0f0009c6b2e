"""H = M D M^T with M unit lower banded and D diagonal, without pivoting, and what its signs tell.

`ldl` gives M and D of an indefinite H as long as its leading minors do not vanish, and `inertia` says when small ones
have spoilt it. The derivatives are those of `linalg/blocks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from ..band.storage import as_band, as_rhs, clear_unused
from ..framework.kernels import kernel
from ..framework.transforms import apply, eager, forward_rule
from . import lapack
from .blocks import pull, push
from .triangular import solve_triangular


def on_every_band(rule: Any, ldb: Tensor, tangent: Tensor) -> Tensor:
    """`rule` on every band of a batch."""
    if ldb.numel() == 0:
        return tangent
    return rule(ldb, tangent) if ldb.ndim == 2 else vmap(lambda *lane: on_every_band(rule, *lane))(ldb, tangent)


def _by_columns(ab: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel `columns` by the definition, for every system of a batch at once, whatever the pivots."""
    *batch, rows, n = ab.shape
    lanes = ab.detach().cpu().reshape(-1, rows, n).numpy()
    found = np.zeros((len(lanes), n, rows), lanes.dtype)
    pending = np.zeros((len(lanes), rows, rows), lanes.dtype)
    with np.errstate(all="ignore"):
        for j in range(n):
            c = found[:, j] = lanes[:, :, j] - pending[:, 0]
            m = np.divide(c, c[:, :1], where=c != 0, out=np.zeros_like(c))
            pending[:, :-1, :-1] = pending[:, 1:, 1:] + c[:, 1:, None] * m[:, None, 1:]
    columns = torch.from_numpy(found).to(ab.device).reshape(*batch, n, rows)
    bad = ~((columns[..., 0] > 0) & (columns[..., 0] < torch.inf))
    first = torch.where(bad.any(-1), bad.to(torch.int32).argmax(-1) + 1, 0) if n else bad.new_zeros(batch)
    return columns, first.to(torch.int32)


def _divide(columns: Tensor) -> Tensor:
    """`[d, m]` from raw columns `[d, d m]`; a 0 below a pivot stays 0."""
    below = columns[..., 1:]
    return torch.cat([columns[..., :1], torch.where(below == 0, 0, below / columns[..., :1])], -1)


class _Columns(torch.autograd.Function):
    """`(raw columns, info)` of H = M D M^T, `(..., n, w + 1)`: row j holds d_j, and then d_j m_j."""

    @staticmethod
    def forward(ab: Tensor) -> tuple[Tensor, Tensor]:
        return kernel("columns", lapack.columns, ab)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[0])
        ctx.save_for_forward(output[0])

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor, _info: Tensor) -> Tensor:
        ldb = _divide(ctx.saved_tensors[0]).mT
        below = cotangent.mT[..., 1:, :]
        pivots = cotangent.mT[..., :1, :] + (below * ldb[..., 1:, :]).sum(-2, keepdim=True)
        return on_every_band(pull, ldb, torch.cat([pivots, below * ldb[..., :1, :]], -2))

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, None]:
        ldb = _divide(ctx.saved_tensors[0]).mT
        moved = on_every_band(push, ldb, tangent)
        below = moved[..., 1:, :] * ldb[..., :1, :] + ldb[..., 1:, :] * moved[..., :1, :]
        return torch.cat([moved[..., :1, :], below], -2).mT, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor) -> tuple:
        return apply(_Columns, ab.movedim(in_dims[0], 0)), (0, 0)


def raw_columns(ab: Tensor) -> tuple[Tensor, Tensor]:
    """`(columns, info)` for a positive definite band `(w + 1, n)`, whose unused cells are never read: columns
    `(n, w + 1)` with d_j and d_j m_j of H = M D M^T in row j, info (int32) 0 or the first pivot not in (0, inf)."""
    return apply(_Columns, ab)


class _Ldl(torch.autograd.Function):
    @staticmethod
    def forward(ab: Tensor) -> Tensor:
        return _divide(kernel("columns", _by_columns, ab, results=1)).mT.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return on_every_band(pull, ctx.saved_tensors[0], cotangent)

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return on_every_band(push, ctx.saved_tensors[0], tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor) -> tuple:
        return apply(_Ldl, ab.movedim(in_dims[0], 0)), 0


@eager
def ldl(ab: Tensor) -> Tensor:
    """H = M D M^T with D diagonal and M unit lower banded, without pivoting, for positive definite and indefinite H.

    Args:
      ab: `(w + 1, n)`, lower band of H, float32 or float64. Values in unused cells are never read.

    Returns: ldb `(w + 1, n)`: row 0 is D, `ldb[d, j] = M[j + d, j]` below it. It exists where no leading minor of H
      but the last vanishes (infinite or NaN from such a column on), and is as accurate as pivots are large: `inertia`
      judges that. The factorisation of a positive definite H is always stable.

    Cost: n (w^2 + 3 w) flops.
      Differentiable in both modes, in O(n max(w, 16)^2).

    >>> ldl(torch.tensor([[4.0, 5, 5], [2, 2, 0]]))
    tensor([[4.0000, 4.0000, 4.0000],
            [0.5000, 0.5000, 0.0000]])
    """
    return apply(_Ldl, clear_unused(as_band(ab)))


@eager
def ldl_solve(ldb: Tensor, b: Tensor) -> Tensor:
    """x with M D M^T x = b, from the factorisation of `ldl`.

    Args: ldb `(w + 1, n)` from `ldl`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape; infinite or NaN where a pivot is 0, as division is. Cost: (4 w + 3) n flops per column
      (LAPACK `tbtrs` twice). Differentiable in both arguments at the cost of further substitutions.

    >>> ldb = ldl(torch.tensor([[1.0, 1, 1], [2, 2, 0]]))  # indefinite
    >>> ldl_solve(ldb, torch.tensor([3.0, 5, 3])).round(decimals=4)
    tensor([1., 1., 1.])
    """
    ldb = as_band(ldb, "ldb", form=False)
    b = as_rhs(b, ldb)
    unit = torch.cat([torch.ones_like(ldb[:1]), ldb[1:]])
    pivots = ldb[0].reshape((-1,) + (1,) * (b.ndim - 1))
    return solve_triangular(unit, solve_triangular(unit, b) / pivots, transpose=True)


def _growth(pivots: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """The diagonal of |M| |D| |M|^T, and the largest |entry| in each row of M D M^T, for M's band with its ones."""
    rows, n = unit.shape
    diagonal, H = torch.zeros_like(pivots), torch.zeros_like(unit)
    for k in range(min(rows, n)):  # what the columns c contribute to row c + k, and to column c + k below it
        scaled = (pivots * unit[k])[: n - k]
        diagonal[k:] += (scaled * unit[k, : n - k]).abs()
        H[: rows - k, k:] += scaled * unit[k:, : n - k]
    H = H.abs()
    largest = H.amax(0)
    for d in range(1, min(rows, n)):
        largest[d:] = torch.maximum(largest[d:], H[d, : n - d])
    return diagonal, largest


@eager
def inertia(ldb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many eigenvalues of H are positive, negative and zero: the signs of D (Sylvester's law of inertia).

    Args: ldb `(w + 1, n)` from `ldl`.

    Returns: `(positive, negative, zero)`, int32 scalars; all -1 where the count cannot be trusted. Computed factors
      are exact for some H + E with |E| <= (w + 2) eps |M| |D| |M|^T (Higham 2002, theorem 9.3), and the count is that
      of H + E. It is trusted while the growth max_i (|M| |D| |M|^T)_ii / max_j |H_ij| (about 1 for a positive definite
      H) is at most 1 / sqrt(eps), 7e7 in float64 and 3e3 in float32: then E is below sqrt(eps), relative to the
      largest entries of its row and column. Eigenvalues smaller than E, so scaled, may count on either side of 0; a
      pivot counts as 0 where it is 0 to rounding and nothing stands below it.

    Cost: some 2 n w^2 flops. Not differentiable: integers.

    >>> [int(count) for count in inertia(ldl(torch.tensor([[1.0, 1, 1], [2, 2, 0]])))]
    [2, 1, 0]
    """
    ldb = clear_unused(as_band(ldb, "ldb", form=False)).detach()
    pivots, unit = ldb[0], torch.cat([torch.ones_like(ldb[:1]), ldb[1:]])
    formed, largest = _growth(pivots, unit)
    eps = torch.finfo(ldb.dtype).eps
    trusted = ((formed <= eps**-0.5 * largest) & (formed < torch.inf)).all()

    def count(found: Tensor) -> Tensor:
        return torch.where(trusted, found.sum(dtype=torch.int32), -1)

    noise = eps * (ldb.shape[0] + 1) * formed
    zero = (pivots.abs() <= noise) & (ldb[1:] == 0).all(0)
    return count((pivots > 0) & ~zero), count((pivots < 0) & ~zero), count(zero)
