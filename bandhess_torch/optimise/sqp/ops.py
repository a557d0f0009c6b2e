"""PyTorch's answer to bandhess_common/interior_point/operations.py, which says what each function is."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bandhess_common.interior_point import noise as hashed

from ...band.storage import product
from ...linalg import solve as linear

log, sqrt, isfinite, argmax = torch.log, torch.sqrt, torch.isfinite, torch.argmax


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
    return like.new_full(shape, value)


def noise(like: Tensor, seed: int) -> Tensor:
    return number(hashed.noise(len(like), seed), like)


def where(mask: Tensor, a: Any, b: Any) -> Tensor:
    return torch.where(mask, a, b)


def maximum(a: Tensor, b: Any) -> Tensor:
    return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)


def minimum(a: Tensor, b: Any) -> Tensor:
    return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)


def sum(a: Tensor, axis: int | None = None) -> Tensor:
    return a.sum() if axis is None else a.sum(axis)


def all(a: Tensor) -> Tensor:
    return a.all()


def largest(a: Tensor, axis: int | None = None) -> Tensor:
    if not a.numel():
        return a.new_zeros(() if axis is None else a.sum(axis).shape)
    return a.abs().amax() if axis is None else a.abs().amax(axis)


def join(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def put(a: Tensor, i: Any, value: Any) -> Tensor:
    a = a.clone()
    a[i] = value
    return a


def range(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, dtype=torch.int32, device=like.device)


def _places(first: Tensor, L: int) -> Tensor:
    return first.long()[:, None] + torch.arange(L, device=first.device)


def windows(v: Tensor, first: Tensor, L: int) -> Tensor:
    return v[_places(first, L)]


def add_windows(rows: Tensor, first: Tensor, n: int) -> Tensor:
    return rows.new_zeros(n).index_add_(0, _places(first, rows.shape[1]).flatten(), rows.flatten())


def gram(rows: Tensor, first: Tensor, weights: Tensor, band: Tensor) -> Tensor:
    out, L = band.clone(), rows.shape[1]
    places, weighted = _places(first, L), weights[:, None] * rows
    for d in builtins.range(L):
        out[d].index_add_(0, places[:, : L - d].flatten(), (weighted[:, d:] * rows[:, : L - d]).flatten())
    return out


def matvec(band: Tensor, v: Tensor) -> Tensor:
    return product(band, v[:, None])[:, 0]


def factor(band: Tensor) -> tuple[linear.Factor, Tensor]:
    found = linear.factor(band)
    return found, torch.as_tensor(found.ok, device=band.device)


def solve(factor: linear.Factor, b: Tensor) -> Tensor:
    return factor.solve(b)


def when(wanted: Tensor, fun: Callable[[Any], Any], value: Any) -> Any:
    return fun(value) if wanted else value


def while_loop(wanted: Callable[[Any], Tensor], body: Callable[[Any], Any], value: Any) -> Any:
    while wanted(value):
        value = body(value)
    return value
