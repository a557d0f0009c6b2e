"""Products with a general band in diagonal ordered form, `ab[..., u + i - j, j] = A[i, j]`, `(..., l + u + 1, n)`."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from .storage import transposed


def cleared(ab: Tensor, l: int, u: int) -> Tensor:
    """ab with zeros in its unused cells, whatever stood there."""
    return transposed(transposed(ab, l), u)


def around(x: Tensor, before: int, count: int) -> Tensor:
    """`[..., k, c, i] = x[..., i - before + c, k]` for c < count, 0 outside: what a band's cells meet."""
    return pad(x.mT, (before, count - 1 - before)).unfold(-1, x.shape[-2], 1)


def product_general(ab: Tensor, x: Tensor, l: int, u: int, adjoint: bool = False) -> Tensor:
    """A x or A^H x for x `(..., n, k)`; A^H x where unused cells are 0."""
    rows, before = (ab.conj(), u) if adjoint else (transposed(ab, l), l)
    return (rows[..., None, :, :] * around(x, before, l + u + 1)).sum(-2).mT


def times(ab: Tensor, x: Tensor, l: int) -> Tensor:
    """A x for x `(n,)`."""
    return product_general(ab, x[:, None], l, ab.shape[0] - 1 - l)[:, 0] if len(x) else x


def times_transposed(ab: Tensor, x: Tensor, u: int) -> Tensor:
    """A^T x for x `(n,)`, where unused cells are 0."""
    return product_general(ab, x[:, None], ab.shape[0] - 1 - u, u, adjoint=True)[:, 0] if len(x) else x
