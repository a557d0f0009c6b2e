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


def ldl(ab: Tensor) -> Tensor:
    """D and, below, the multipliers M of H = M D M^T, for `(w + 1, n)` or a batch in front, with unused cells 0."""
    if ab.numel() == 0:
        return ab.clone()
    lanes = ab.detach().cpu().reshape(-1, *ab.shape[-2:]).numpy()
    batch, rows, n = lanes.shape
    # No entry couples one lane to the next: the batch is one long band.
    joined = _unpivoted_lu(lanes.transpose(1, 0, 2).reshape(rows, batch * n))
    if joined is not None:
        found = joined.reshape(rows, batch, n).transpose(1, 0, 2)
    else:
        found = np.stack([_by_columns(lane) if (one := _unpivoted_lu(lane)) is None else one for lane in lanes])
    return _tensor(np.ascontiguousarray(found, dtype=lanes.dtype), ab).reshape(ab.shape)


def _unpivoted_lu(a: np.ndarray) -> np.ndarray | None:
    """D and M of a band, in float64 by LAPACK's `gbtrf`; None where that fails.

    `gbtrf` takes the largest entry of a column for its pivot. In T H T^-1 with T = diag(2^(-g i)) the entries below the
    diagonal are so small that this is always the diagonal's, as long as no multiplier exceeds 2^g; powers of two round
    nothing. The rows and columns of H are scaled first so that their largest entries are about 1.
    """
    rows, n = a.shape
    w = min(rows, n) - 1
    if w == 0:
        return a
    d = np.arange(w + 1)[:, None]
    used = a[: w + 1].astype("float64")
    if not np.isfinite(used).all():
        return None
    below = np.minimum(d + np.arange(n), n - 1)
    largest = np.abs(used).max(0)
    np.maximum.at(largest, below, np.abs(used))
    half = np.frexp(largest)[1] // 2
    grade = d * min(100, 400 // w)
    scaling = -(half[below] + half)

    lu = np.zeros((3 * w + 1, n), order="F")
    lu[2 * w :] = np.ldexp(used, scaling - grade)
    for k in range(1, w + 1):
        lu[2 * w - k, k:] = np.ldexp(used[k, : n - k], scaling[k, : n - k] + grade[k])
    lu, pivots, _ = _routine("gbtrf", torch.float64)(lu, w, w, overwrite_ab=True)
    if np.any(pivots != np.arange(n)) or not np.isfinite(lu).all():
        return None
    found = np.zeros((rows, n))
    found[0] = np.ldexp(lu[2 * w], 2 * half)
    found[1 : w + 1] = np.ldexp(lu[2 * w + 1 :], grade[1:] + half[below[1:]] - half)
    return found


def _by_columns(a: np.ndarray) -> np.ndarray:
    """The same by the definition, a column at a time, whatever the multipliers."""
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
