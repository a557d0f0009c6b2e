"""Banded Cholesky `H = L L^T` and the two substitutions: LAPACK's, with derivative rules of their own.

Each rule is an `autograd.Function` with `jvp` and `vmap`, so that it composes with `torch.func`, to any order. The
derivatives of the factor are those of `_ldl`: L = M sqrt(D).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from . import _lapack, _ldl
from ._storage import as_band, as_rhs, clear_unused, rows


def _to_ldl(cb: Tensor) -> Tensor:
    """L = M sqrt(D): D and M, in `ldl`'s storage."""
    return torch.cat([cb[:1] ** 2, cb[1:] / cb[:1]])


def _push(cb: Tensor, dab: Tensor) -> Tensor:
    """The factor's tangent for a tangent of the band, by that of M and D."""
    ldb = _to_ldl(cb)
    dldb = _ldl.push(ldb, dab)
    droot = dldb[:1] / (2 * cb[:1])
    return torch.cat([droot, dldb[1:] * cb[:1] + ldb[1:] * droot])


def _pull(cb: Tensor, cotangent: Tensor) -> Tensor:
    """The band's cotangent for a cotangent of the factor, by those of M and D."""
    ldb, cotangent = _to_ldl(cb), clear_unused(cotangent)
    groot = cotangent[:1] + (cotangent[1:] * ldb[1:]).sum(0)
    return _ldl.pull(ldb, torch.cat([groot / (2 * cb[:1]), cotangent[1:] * cb[:1]]))


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
