"""H = M D M^T with M unit lower banded and D diagonal, without pivoting, and what its signs tell.

`ldl` gives M and D of an indefinite H as long as its leading minors do not vanish, and `inertia` says when small ones
have spoilt it. BLAS does the work, and the derivatives are those of `linalg/blocks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from ..band.storage import as_band, as_rhs, clear_unused
from ..framework.transforms import apply, eager, resolved
from . import lapack
from .blocks import pull, push
from .triangular import solve_triangular


def on_every_band(rule: Any, ldb: Tensor, tangent: Tensor) -> Tensor:
    """`rule` on every band of a batch."""
    if ldb.numel() == 0:
        return tangent
    return rule(ldb, tangent) if ldb.ndim == 2 else vmap(lambda *lane: on_every_band(rule, *lane))(ldb, tangent)


def _factorise(ab: Tensor) -> Tensor:
    """D and, below, the multipliers M of H = M D M^T, for `(w + 1, n)` or a batch in front, with unused cells 0."""
    if ab.numel() == 0:
        return ab.clone()
    lanes = ab.detach().cpu().reshape(-1, *ab.shape[-2:]).numpy()
    batch, rows, n = lanes.shape
    # No entry couples one lane to the next: the batch is one long band.
    joined = _by_blas(lanes.transpose(1, 0, 2).reshape(rows, batch * n))
    if joined is not None:
        found = joined.reshape(rows, batch, n).transpose(1, 0, 2)
    else:
        found = np.stack([_by_columns(lane) if (one := _by_blas(lane)) is None else one for lane in lanes])
    return lapack.tensor(np.ascontiguousarray(found, dtype=lanes.dtype), ab).reshape(ab.shape)


def _by_blas(a: np.ndarray) -> np.ndarray | None:
    """D and M of a band, in float64; None where there is no such factorisation, or a number leaves the range.

    LAPACK's LU (`gbtrf`, of an H scaled so that it does not pivot) would not do: its U and D M^T round differently, and
    large multipliers blow the difference up. Here one triangle is formed, and the other is its mirror image.
    """
    rows, n = a.shape
    w = min(rows, n) - 1
    if w == 0:
        return a
    columns = np.zeros((n + w, w + 1))
    columns[:n] = a[: w + 1].T
    if not lapack.eliminate(columns):
        return None
    found, below = np.zeros((rows, n)), columns[:n, 1:].T
    found[0] = columns[:n, 0]
    with np.errstate(all="ignore"):
        np.divide(below, found[0], where=below != 0, out=found[1 : w + 1])
    return found if np.isfinite(found).all() else None


def _by_columns(a: np.ndarray) -> np.ndarray:
    """The same by the definition, whatever the pivots."""
    rows, n = a.shape
    found = np.empty_like(a)
    pending = np.zeros((rows, rows), a.dtype)
    with np.errstate(all="ignore"):
        for j in range(n):
            c = a[:, j] - pending[0]
            m = np.divide(c, c[0], where=c != 0, out=np.zeros_like(c))
            pending[:-1, :-1] = pending[1:, 1:] + c[1:, None] * m[1:]
            found[0, j], found[1:, j] = c[0], m[1:]
    return found


class _Ldl(torch.autograd.Function):
    @staticmethod
    def forward(ab: Tensor) -> Tensor:
        return _factorise(resolved(ab))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return on_every_band(pull, ctx.saved_tensors[0], cotangent)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return on_every_band(push, ctx.saved_tensors[0], tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor) -> tuple:
        return _Ldl.apply(ab.movedim(in_dims[0], 0)), 0


@eager
def ldl(ab: Tensor) -> Tensor:
    """H = M D M^T with D diagonal and M unit lower banded, without pivoting, for positive definite and indefinite H.

    Args:
      ab: `(w + 1, n)`, lower band of H, float32 or float64. Values in unused cells are never read.

    Returns: ldb `(w + 1, n)`: row 0 is D, `ldb[d, j] = M[j + d, j]` below it. It exists where no leading minor of H
      but the last vanishes (infinite or NaN from such a column on), and is as accurate as pivots are large: `inertia`
      judges that. The factorisation of a positive definite H is always stable.

    Cost: n (w^2 + 3 w) flops, a call of BLAS per column (`syr`; where M and D do not exist, several of NumPy's).
      Differentiable in both modes, in O(n max(w, 16)^2).
    """
    return apply(_Ldl, clear_unused(as_band(ab)))


@eager
def ldl_solve(ldb: Tensor, b: Tensor) -> Tensor:
    """x with M D M^T x = b, from the factorisation of `ldl`.

    Args: ldb `(w + 1, n)` from `ldl`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape; infinite or NaN where a pivot is 0, as division is. Cost: (4 w + 3) n flops per column
      (LAPACK `tbtrs` twice). Differentiable in both arguments at the cost of further substitutions.
    """
    ldb = as_band(ldb, "ldb")
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
    """
    ldb = clear_unused(as_band(ldb, "ldb")).detach()
    pivots, unit = ldb[0], torch.cat([torch.ones_like(ldb[:1]), ldb[1:]])
    formed, largest = _growth(pivots, unit)
    eps = torch.finfo(ldb.dtype).eps
    trusted = ((formed <= eps**-0.5 * largest) & (formed < torch.inf)).all()

    def count(found: Tensor) -> Tensor:
        return torch.where(trusted, found.sum(dtype=torch.int32), -1)

    noise = eps * (ldb.shape[0] + 1) * formed
    zero = (pivots.abs() <= noise) & (ldb[1:] == 0).all(0)
    return count((pivots > 0) & ~zero), count((pivots < 0) & ~zero), count(zero)
