"""PyTorch's answer to `bandhess_common/interior_point/operations.py`: the engine run operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...band import structures
from ...band.noise import hash_noise
from ...linalg.solve import factor as factor_matrix

where, log, sqrt, isfinite, all, argmax = torch.where, torch.log, torch.sqrt, torch.isfinite, torch.all, torch.argmax

CELLS = 1 << 24  # of products that `gram` has in memory


def eps(like: Tensor) -> float:
    return torch.finfo(like.dtype).eps


def least(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


def number(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def count(value: int, like: Tensor) -> Tensor:
    return torch.tensor(value, dtype=torch.int32, device=like.device)


def real(mask: Tensor, like: Tensor) -> Tensor:
    return mask.to(like.dtype)


def full(shape: tuple[int, ...], value: float, like: Tensor) -> Tensor:
    return torch.full(shape, value, dtype=like.dtype, device=like.device)


def noise(like: Tensor, seed: int) -> Tensor:
    return hash_noise(like, seed)


def maximum(a: Tensor, b: Tensor | float) -> Tensor:
    return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)


def minimum(a: Tensor, b: Tensor | float) -> Tensor:
    return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)


def power_of_two(a: Tensor) -> Tensor:
    return torch.ldexp(torch.ones_like(a), torch.round(a).to(torch.int32))


def sum(a: Tensor, axis: int | None = None) -> Tensor:
    return a.sum() if axis is None else a.sum(axis)


def largest(a: Tensor, axis: int | None = None) -> Tensor:
    if axis is None:
        return a.abs().amax() if a.numel() else a.new_zeros(())
    return a.abs().amax(axis)


def median(a: Tensor, of: Tensor) -> Tensor:
    return a.where(of, torch.inf).sort().values[of.sum() // 2]


def join(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def put(a: Tensor, i: Any, value: Any) -> Tensor:
    a = a.clone()
    a[i] = value
    return a


def range(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, dtype=torch.int32, device=like.device)


def _columns(first: Tensor, L: int) -> Tensor:
    return first[:, None] + torch.arange(L, dtype=torch.int32, device=first.device)


def windows(v: Tensor, first: Tensor, L: int) -> Tensor:
    return v[_columns(first, L)]


def add_windows(rows: Tensor, first: Tensor, n: int) -> Tensor:
    columns = _columns(first, rows.shape[1])
    return rows.new_zeros(n).index_add(0, columns.flatten(), rows.flatten())


def gram(rows: Tensor, first: Tensor, weights: Tensor, band: Tensor) -> Tensor:
    """All products of two entries of a row at once, or as many as memory is for."""
    (r, L), n = rows.shape, band.shape[1]
    weighted, cells = weights[:, None] * rows, band.flatten().clone()
    below, left = torch.tril_indices(L, L, device=rows.device)
    for some in torch.arange(len(below), device=rows.device).split(max(1, CELLS // max(1, r))):
        i, j = below[some], left[some]
        cells.index_add_(0, ((i - j) * n + j + first[:, None]).flatten(), (weighted[:, i] * rows[:, j]).flatten())
    return cells.view_as(band)


def matvec(W: Tensor, v: Tensor, p: int) -> Tensor:
    return structures.matvec(structures.unstacked(W, p), v)


def factor(W: Tensor, p: int) -> tuple[Any, Tensor]:
    factored = factor_matrix(structures.unstacked(W, p))
    return factored, factored.ok


def solve(factored: Any, b: Tensor) -> Tensor:
    return factored.solve(b)


def when(wanted: Tensor, fun: Callable[[Any], Any], value: Any) -> Any:
    return fun(value) if wanted else value


def while_loop(wanted: Callable[[Any], Tensor], body: Callable[[Any], Any], value: Any) -> Any:
    while wanted(value):
        value = body(value)
    return value
