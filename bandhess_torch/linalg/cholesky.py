"""Banded Cholesky `H = L L^T` and the two substitutions: LAPACK's, with derivative rules of their own.

Each rule is an `autograd.Function` with `jvp` and `vmap`, so that it composes with `torch.func`, to any order. The
derivatives of the factor are those of `linalg/ldl`: L = M sqrt(D).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..band.storage import as_band, as_rhs, clear_unused
from ..framework.transforms import apply, vmap_solve
from . import lapack
from . import ldl as _ldl


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


def raise_minor(info: Tensor) -> None:
    """LinAlgError where info `(...)` is not 0, naming the minor, and in a batch the matrix."""
    if not info.any():
        return
    where = tuple(info.nonzero()[0].tolist())
    matrix = f" (matrix {where[0] if len(where) == 1 else where} of the batch)" if where else ""
    raise torch.linalg.LinAlgError(
        f"cholesky: the leading minor of order {int(info[where])} is not positive definite{matrix}; "
        "cholesky_ex reports it instead"
    )


class _Cholesky(torch.autograd.Function):
    """On ab `(..., w + 1, n)`, so that a vmap is one call."""

    @staticmethod
    def forward(ab: Tensor, check: bool) -> tuple[Tensor, Tensor]:
        cb, info = lapack.pbtrf(ab)
        if check:
            raise_minor(info)
        return cb, info

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        cb, info = output
        ctx.mark_non_differentiable(info)
        ctx.save_for_backward(cb)
        ctx.save_for_forward(cb)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, _info: Tensor) -> tuple[Tensor, None]:
        return _ldl.each(_pull, ctx.saved_tensors[0], cotangent), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _check: None) -> tuple[Tensor, None]:
        return _ldl.each(_push, ctx.saved_tensors[0], tangent), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, check: bool) -> tuple:
        return _Cholesky.apply(ab.movedim(in_dims[0], 0), check), (0, 0)


def cholesky_ex(ab: Tensor) -> tuple[Tensor, Tensor]:
    """As `cholesky`, with the verdict: `(cb, info)`.

    info (int32, scalar) is 0, or the 1-based order of the first leading minor that is not positive definite (LAPACK
    `pbtrf`), read as the first pivot that is not in (0, inf), NaN included. cb is all NaN where info is not 0.
    """
    return apply(_Cholesky, as_band(ab), False)


def cholesky(ab: Tensor) -> Tensor:
    """The banded Cholesky factor: L with H = L L^T, in the same storage.

    Args:
      ab: `(w + 1, n)`, lower band of H, float32 or float64. Values in unused cells are never read.

    Returns: cb `(w + 1, n)`, `cb[d, j] = L[j + d, j]`.

    Raises: torch.linalg.LinAlgError, naming the leading minor, where H is not positive definite, as
      `torch.linalg.cholesky` (`cholesky_ex` reports it instead).

    Cost: n (w^2 + 3 w + 1) flops (LAPACK `pbtrf`); differentiable in both modes, in O(n max(w, 16)^2).
    """
    return apply(_Cholesky, as_band(ab), True)[0]


def outer_band(u: Tensor, v: Tensor, rows: int) -> Tensor:
    """The lower band of u v^T: `[..., d, j] = sum_c u[..., j + d, c] v[..., j, c]`, for `(..., n, k)`."""
    n = u.shape[-2]
    return torch.stack(
        [
            pad((u[..., d:, :] * v[..., : n - d, :]).sum(-1), (0, d)) if d < n else torch.zeros_like(u[..., 0])
            for d in range(rows)
        ],
        -2,
    )


def _lower_matvec(cb: Tensor, x: Tensor, transpose: bool) -> Tensor:
    """L x or L^T x for x `(..., n, k)`."""
    n, x = x.shape[-2], x.mT
    y = cb[..., :1, :] * x
    for d in range(1, min(cb.shape[-2], n)):
        cells = cb[..., d : d + 1, : n - d]
        y = y + (pad(cells * x[..., d:], (0, d)) if transpose else pad(cells * x[..., : n - d], (d, 0)))
    return y.mT


def columns(solve: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """`solve`, which takes `(n, k)`, on b `(n,)` or `(n, k)`."""
    return solve(b) if b.ndim == 2 else solve(b[:, None])[:, 0]


class _Substitution(torch.autograd.Function):
    """On b `(..., n, k)` and cb `(..., w + 1, n)`, so that a vmap is one call."""

    @staticmethod
    def forward(b: Tensor, cb: Tensor, transpose: bool) -> Tensor:
        return lapack.tbtrs(cb, b, transpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, cb, ctx.transpose = inputs
        ctx.save_for_backward(cb, output)
        ctx.save_for_forward(cb, output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        cb, x = ctx.saved_tensors
        gb = _Substitution.apply(cotangent, cb, not ctx.transpose)
        u, v = (x, gb) if ctx.transpose else (gb, x)
        return gb, -outer_band(u, v, cb.shape[-2]), None

    @staticmethod
    def jvp(ctx: Any, db: Tensor | None, dcb: Tensor | None, _transpose: None) -> Tensor:
        cb, x = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        if dcb is not None:
            db = db - _lower_matvec(dcb, x, ctx.transpose)
        return _Substitution.apply(db, cb, ctx.transpose)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, b: Tensor, cb: Tensor, transpose: bool) -> tuple:
        return vmap_solve(lambda b, cb: _Substitution.apply(b, cb, transpose), info, in_dims[:2], b, cb)


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
    return columns(lambda b: apply(_Substitution, b, cb, bool(transpose)), as_rhs(b, cb))


def cho_solve(cb: Tensor, b: Tensor) -> Tensor:
    """x with L L^T x = b, from the factor.

    Args: cb `(w + 1, n)` from `cholesky`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape. Cost: (4 w + 2) n flops per column (LAPACK `pbtrs`).
    """
    return solve_triangular(cb, solve_triangular(cb, b), transpose=True)


def logdet(cb: Tensor) -> Tensor:
    """log det H from its factor cb `(w + 1, n)`: twice the sum of the logarithms of L's diagonal; a scalar."""
    return 2 * as_band(cb, "cb")[0].log().sum()
