"""Banded Cholesky `H = L L^T`, with a derivative rule of its own.

The rule is an `autograd.Function` with `jvp` and `vmap`, so that it composes with `torch.func`, to any order. The
derivatives of the factor are those of `linalg/ldl`: L = M sqrt(D).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..band.storage import as_band, clear_unused
from ..framework.kernels import compiled, kernel, served
from ..framework.transforms import apply, eager, forward_rule
from . import lapack
from .blocks import pull, push
from .ldl import on_every_band
from .triangular import solve_triangular


def _to_ldl(cb: Tensor) -> Tensor:
    """L = M sqrt(D): D and M, in `ldl`'s storage."""
    return torch.cat([cb[:1] ** 2, cb[1:] / cb[:1]])


def _push(cb: Tensor, dab: Tensor) -> Tensor:
    """The factor's tangent for a tangent of the band, by that of M and D."""
    ldb = _to_ldl(cb)
    dldb = push(ldb, dab)
    droot = dldb[:1] / (2 * cb[:1])
    return torch.cat([droot, dldb[1:] * cb[:1] + ldb[1:] * droot])


def _pull(cb: Tensor, cotangent: Tensor) -> Tensor:
    """The band's cotangent for a cotangent of the factor, by those of M and D."""
    ldb, cotangent = _to_ldl(cb), clear_unused(cotangent)
    groot = cotangent[:1] + (cotangent[1:] * ldb[1:]).sum(0)
    return pull(ldb, torch.cat([groot / (2 * cb[:1]), cotangent[1:] * cb[:1]]))


def raise_minor(info: Tensor) -> None:
    """LinAlgError where info `(...)` is not 0, naming the minor, and in a batch the matrix."""
    if not (info.count_nonzero() if info.ndim else info.item()):  # in less time than any()
        return
    where = tuple(info.nonzero()[0].tolist())
    matrix = f" (matrix {where[0] if len(where) == 1 else where} of the batch)" if where else ""
    raise torch.linalg.LinAlgError(
        f"cholesky: the leading minor of order {int(info[where])} is not positive definite{matrix}; "
        "cholesky_ex reports it instead"
    )


def definite(name: str, plain: Callable, *operands: Tensor) -> Tensor:
    """The first result of a kernel whose second is info; LinAlgError where that is not 0, which only then is made."""
    if served(operands[0].dtype):
        (result,), fine = compiled(name, operands, 1, {})
        if fine:
            return result
    result, info = kernel(name, plain, *operands, results=2)
    raise_minor(info)
    return result


class _Cholesky(torch.autograd.Function):
    """On ab `(..., w + 1, n)`, so that a vmap is one call."""

    @staticmethod
    def forward(ab: Tensor, check: bool) -> tuple[Tensor, Tensor]:
        cb, info = kernel("cholesky", lapack.cholesky, ab)
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
    @eager
    def backward(ctx: Any, cotangent: Tensor, _info: Tensor) -> tuple[Tensor, None]:
        return on_every_band(_pull, ctx.saved_tensors[0], cotangent), None

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, tangent: Tensor, _check: None) -> tuple[Tensor, None]:
        return on_every_band(_push, ctx.saved_tensors[0], tangent), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, check: bool) -> tuple:
        return apply(_Cholesky, ab.movedim(in_dims[0], 0), check), (0, 0)


@eager
def cholesky_ex(ab: Tensor) -> tuple[Tensor, Tensor]:
    """As `cholesky`, with the verdict: `(cb, info)`.

    info (int32, scalar) is 0, or the 1-based order of the first leading minor that is not positive definite (LAPACK
    `pbtrf`), read as the first pivot that is not in (0, inf), NaN included. cb is all NaN where info is not 0.

    >>> cb, info = cholesky_ex(torch.tensor([[4.0, 1, 4], [2, 2, 0]]))
    >>> int(info)
    2
    """
    return apply(_Cholesky, as_band(ab), False)


@eager
def cholesky(ab: Tensor) -> Tensor:
    """The banded Cholesky factor: L with H = L L^T, in the same storage.

    Args:
      ab: `(w + 1, n)`, lower band of H, float32 or float64. Values in unused cells are never read.

    Returns: cb `(w + 1, n)`, `cb[d, j] = L[j + d, j]`.

    Raises: torch.linalg.LinAlgError, naming the leading minor, where H is not positive definite, as
      `torch.linalg.cholesky` (`cholesky_ex` reports it instead).

    Cost: n (w^2 + 3 w + 1) flops (LAPACK `pbtrf`); differentiable in both modes, in O(n max(w, 16)^2).

    >>> cholesky(torch.tensor([[4.0, 5, 5], [2, 2, 0]])).round(decimals=4)
    tensor([[2., 2., 2.],
            [1., 1., 0.]])
    """
    return apply(_Cholesky, as_band(ab), True)[0]


@eager
def cho_solve(cb: Tensor, b: Tensor) -> Tensor:
    """x with L L^T x = b, from the factor.

    Args: cb `(w + 1, n)` from `cholesky`; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape. Cost: (4 w + 2) n flops per column (LAPACK `pbtrs`).

    >>> cb = cholesky(torch.tensor([[4.0, 4, 4], [1, 1, 0]]))
    >>> cho_solve(cb, torch.tensor([5.0, 6, 5])).round(decimals=4)
    tensor([1., 1., 1.])
    """
    return solve_triangular(cb, solve_triangular(cb, b), transpose=True)


def logdet(cb: Tensor) -> Tensor:
    """log det H from its factor cb `(w + 1, n)`: twice the sum of the logarithms of L's diagonal; a scalar.

    >>> round(float(logdet(cholesky(torch.tensor([[4.0, 4, 4], [1, 1, 0]])))), 4)  # the determinant is 56
    4.0254
    """
    return 2 * as_band(cb, "cb", form=False)[0].log().sum()
