"""Tensors to LAPACK and back, through SciPy's wrappers.

LAPACK reads `(w + 1, n)` column by column, which in memory is a C-ordered `(n, w + 1)`: one transposition of the
input, and none of the result, whose tensor keeps LAPACK's memory and strides. Solves with it copy nothing
more than the right-hand side. CUDA tensors make the trip to the CPU and back.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor


@cache
def _routine(name: str, dtype: torch.dtype) -> Any:
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"banded factorisations take float32 and float64, got {dtype}; convert with .double()")
    return get_lapack_funcs((name,), dtype=str(dtype).removeprefix("torch."))[0]


def _columns(t: Tensor) -> np.ndarray:
    """`t` as a Fortran-ordered array; shares memory where t is LAPACK's own result."""
    t = t.detach().cpu()
    return t.numpy() if t.ndim == 1 else t.mT.contiguous().numpy().T


def _tensor(a: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(a).to(like.device)


def pbtrf(ab: Tensor) -> tuple[Tensor, int]:
    """`(cb, info)`; info also counts a pivot that is NaN or infinite, which LAPACK lets pass. Unused cells are 0."""
    rows, n = ab.shape
    pbtrf = _routine("pbtrf", ab.dtype)
    if n == 0:
        return ab.clone(), 0
    a = _columns(ab)
    cb, info = pbtrf(a, lower=1, overwrite_ab=not np.shares_memory(a, ab.detach().cpu().numpy()))
    pivots = cb[0, : info - 1 if info else n]
    bad = np.flatnonzero(~np.isfinite(pivots))
    if len(bad):
        info = int(bad[0]) + 1
    for d in range(1, rows):
        cb[d, max(n - d, 0) :] = 0
    return _tensor(cb, ab), int(info)


def pbtrs(cb: Tensor, b: Tensor) -> Tensor:
    """L^-T L^-1 b for b `(n,)` or `(n, k)`."""
    if b.numel() == 0:
        return b.clone()
    return _tensor(_routine("pbtrs", cb.dtype)(_columns(cb), _columns(b), lower=1)[0], b)


def tbtrs(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
    """L^-1 b or L^-T b for b `(n,)` or `(n, k)`; a zero on the diagonal gives NaN or infinity, as division does."""
    if b.numel() == 0:
        return b.clone()
    x, info = _routine("tbtrs", cb.dtype)(
        _columns(cb), _columns(b.reshape(len(b), -1)), uplo="L", trans="NT"[transpose]
    )
    return _tensor(x if info == 0 else np.full_like(x, np.nan), b).reshape(b.shape)
