"""What serves where the compiled kernels do not: LAPACK's routines through SciPy, one system after the other.

Each function takes and gives what the kernel of its name does (`bandhess_common/kernels/table.py`), a batch in front.
Complex general bands always come here: the kernels are real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@cache
def _routine(name: str, dtype: torch.dtype) -> Any:
    if dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"banded factorisations take float32 and float64, got {dtype}; convert with .double()")
    from scipy.linalg import get_lapack_funcs  # which takes a third of a second to import

    return get_lapack_funcs((name,), dtype=str(dtype).removeprefix("torch."))[0]


def _by_lane(one: Callable[..., tuple], count: int, *operands: Tensor) -> tuple[Tensor, ...]:
    """`one`, of NumPy arrays, on every system of a batch; all operands are matrices."""
    batch = operands[0].shape[:-2]
    lanes = [t.detach().cpu().resolve_conj().resolve_neg().reshape(-1, *t.shape[-2:]).numpy() for t in operands]
    found = [one(*lane) for lane in zip(*lanes, strict=True)]
    if not found:  # an empty batch: the shapes are those of a system of zeros
        found = [one(*(np.zeros(lane.shape[1:], lane.dtype) for lane in lanes))]
        stacked = [np.stack([part])[:0] for part in found[0]]
    else:
        stacked = list(map(np.stack, zip(*found, strict=True)))
    assert len(stacked) == count
    return tuple(torch.from_numpy(a.reshape((*batch, *a.shape[1:]))).to(operands[0].device) for a in stacked)


def _clear(cb: np.ndarray) -> np.ndarray:
    rows, n = cb.shape
    return np.where(np.add.outer(np.arange(rows), np.arange(n)) < n, cb, 0)


def _cholesky(ab: np.ndarray, pbtrf: Any) -> tuple[np.ndarray, np.ndarray]:
    if ab.size == 0:
        return ab, np.zeros((), np.int32)
    ab = _clear(ab)
    cb, info = pbtrf(ab, lower=1)
    bad = ~np.isfinite(cb[0])  # LAPACK lets NaN and infinity pass
    if not info and bad.any():
        info = bad.argmax() + 1
    return np.full_like(ab, np.nan) if info else _clear(cb), np.array(info, np.int32)


def cholesky(ab: Tensor) -> tuple[Tensor, ...]:
    pbtrf = _routine("pbtrf", ab.dtype)
    return _by_lane(lambda a: _cholesky(a, pbtrf), 2, ab)


def _triangular(cb: np.ndarray, b: np.ndarray, tbtrs: Any, trans: str) -> np.ndarray:
    if b.size == 0:
        return b
    x, singular = tbtrs(_clear(cb), b, uplo="L", trans=trans)
    return np.full_like(b, np.nan) if singular else x


def triangular(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
    tbtrs = _routine("tbtrs", cb.dtype)
    return _by_lane(lambda c, b: (_triangular(c, b, tbtrs, "T" if transpose else "N"),), 1, cb, b)[0]


def columns(ab: Tensor) -> tuple[Tensor, Tensor]:
    """NaN where info is not 0."""
    cb, info = cholesky(ab)
    return (cb * cb[..., :1, :]).mT.contiguous(), info


def substitute(columns: Tensor, b: Tensor, raw: bool) -> Tensor:
    pivots = columns[..., :1]
    cb = torch.cat([pivots.sqrt(), columns[..., 1:] / pivots.sqrt() if raw else columns[..., 1:] * pivots.sqrt()], -1)
    cb = cb.mT
    return triangular(cb, triangular(cb, b, False), True)


def solve(ab: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    raw, info = columns(ab)
    x = substitute(raw, b, True) if b.ndim == ab.ndim else substitute(raw, b[..., None], True)[..., 0]
    return x, info, torch.cat([raw[..., :1], raw[..., 1:] / raw[..., :1]], -1)


def lu(ab: Tensor, l: int) -> tuple[Tensor, ...]:
    """LAPACK's own factor: `(lu, pivots)`, `(..., 2 l + u + 1, n)` and `(..., 1, n)`."""
    gbtrf, u = _routine("gbtrf", ab.dtype), ab.shape[-2] - 1 - l

    def one(a: np.ndarray) -> tuple:
        padded = np.concatenate([np.zeros((l, a.shape[1]), a.dtype), a])
        factor, pivots, _ = gbtrf(padded, l, u) if a.size else (padded, np.zeros(a.shape[1], np.int32), 0)
        return factor, pivots[None]

    return _by_lane(one, 2, ab)


def lu_solve(factor: Tensor, pivots: Tensor, b: Tensor, l: int, u: int, adjoint: bool) -> Tensor:
    gbtrs = _routine("gbtrs", factor.dtype)

    def one(a: np.ndarray, swaps: np.ndarray, b: np.ndarray) -> tuple:
        return (gbtrs(a, l, u, b, swaps[0], trans=2 if adjoint else 0)[0] if b.size else b,)

    return _by_lane(one, 1, factor, pivots, b)[0]
