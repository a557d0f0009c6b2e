"""From ATen's operations, of a backward pass, to the rules of `bandhess_common.diagonals`.

A translation takes the operation's arguments as ATen's schema has them: axes may be negative, sizes -1, and operands of
elementwise operations widen each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bandhess_common.diagonals import arithmetic, geometry
from bandhess_common.diagonals.fallback import UnknownError
from bandhess_common.diagonals.values import SHORT, Value

aten = torch.ops.aten


def _widen(operands: Sequence[Any]) -> list[Value]:
    """Those that depend on v, with the shape that all have together."""
    values = [a for a in operands if type(a) is Value]
    shapes = {tuple(a.shape) for a in operands if type(a) is Value or isinstance(a, Tensor)}
    return [_expand(a, torch.broadcast_shapes(*shapes)) for a in values] if len(shapes) > 1 else values


def _add(a: Any, b: Any, alpha: float = 1) -> Value:
    return arithmetic.add(*_widen([a, _scale(b, alpha) if isinstance(b, Value) and alpha != 1 else b]))


def _sub(a: Any, b: Any, alpha: float = 1) -> Value:
    return _add(a, b, -alpha)


def _scale(a: Value, factor: complex) -> Value:
    if isinstance(factor, complex):
        raise UnknownError("another type")
    return _finite(arithmetic.scale(a, float(factor)))


def _finite(a: Value) -> Value:
    largest = torch.finfo(a.dtype).max
    for part in a.parts.values():
        if not abs(part.scale) <= largest:
            raise UnknownError("a scale that makes zeros of arrays NaN")
    return a


def _mul(a: Any, b: Any) -> Value:
    value, factor = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(factor, Value):
        raise UnknownError("not linear")
    if not isinstance(factor, Tensor):
        return _scale(value, factor)
    if factor.shape != value.shape:
        (value,) = _widen([value, factor])
        factor = factor.expand(value.shape)
    return arithmetic.scale(value, factor if factor.dtype == value.dtype else factor.to(value.dtype))  # of integers


def _div(a: Any, b: Any) -> Value:
    if isinstance(b, Value):
        raise UnknownError("not linear")
    if isinstance(b, Tensor) and b.ndim:
        return _mul(a, b.to(a.dtype).reciprocal())
    return _finite(arithmetic.divide(a, b))


def _where(which: Any, a: Any, b: Any) -> Value:
    if isinstance(which, Value):
        raise UnknownError("not linear")
    which = which.bool()
    values = _widen([a, b, which])
    masks = [mask.expand(values[0].shape) for mask, case in ((which, a), (~which, b)) if isinstance(case, Value)]
    return arithmetic.where([*zip(masks, values, strict=True)])


def _masked_fill(a: Value, mask: Tensor, value: float) -> Value:
    if value:
        raise UnknownError("not linear")
    return _where(mask, mask, a)


def _tanh_backward(a: Value, out: Tensor) -> Value:
    return _mul(a, aten.tanh_backward(torch.ones_like(out), out))


def _sigmoid_backward(a: Value, out: Tensor) -> Value:
    return _mul(a, aten.sigmoid_backward(torch.ones_like(out), out))


def _threshold_backward(a: Value, x: Tensor, threshold: float) -> Value:
    return _where(x <= threshold, x, a)  # where x is NaN, it is a


def _sum(a: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    dims = [dim] if isinstance(dim, int) else dim or range(len(a.shape))
    axes = sorted(axis % len(a.shape) for axis in dims)
    a = arithmetic.sum_over(a, axes)
    for axis in axes if keepdim else ():
        a = geometry.unsqueeze(a, axis)
    return a


def _matmul(a: Any, b: Any) -> Value:
    """`(..., i, j) (..., j, k)`."""
    first = isinstance(a, Value)
    value, factor = (a, b) if first else (b, a)
    if isinstance(factor, Value):
        raise UnknownError("not linear")
    batch, last = range(len(value.shape) - 2), len(value.shape) - 1
    summed = ([last], [last - 1]) if first else ([last - 1], [last])
    product = torch.matmul if first else lambda c, factor: torch.matmul(factor, c)
    return arithmetic.contract(value, factor, summed, (batch, batch), first, product)


def _permute(a: Value, dims: Sequence[int]) -> Value:
    return geometry.permute(a, [axis % len(a.shape) for axis in dims])


def _transpose(a: Value, first: int, second: int) -> Value:
    dims = list(range(len(a.shape)))
    dims[first], dims[second] = dims[second], dims[first]
    return geometry.permute(a, dims)


def _t(a: Value) -> Value:
    return _transpose(a, 0, 1) if len(a.shape) == 2 else a


def _expand(a: Value, size: Sequence[int], implicit: bool = False) -> Value:
    new = len(size) - len(a.shape)
    shape = tuple(a.shape[i - new] if length == -1 else length for i, length in enumerate(size))
    return geometry.expand(a, shape, range(new, len(shape)))


def _slice(a: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    dim %= len(a.shape)
    first, stop, _ = slice(start, end).indices(a.shape[dim])
    return geometry.slice_(a, {dim: (first, stop, step)})


def _select(a: Value, dim: int, index: int) -> Value:
    dim, index = dim % len(a.shape), index % a.shape[dim]
    return geometry.squeeze(geometry.slice_(a, {dim: (index, index + 1, 1)}), [dim])


def _unbind(a: Value, dim: int = 0) -> list[Value]:
    if a.shape[dim] > SHORT:
        raise UnknownError("an axis too long to be taken apart")
    return [_select(a, dim, i) for i in range(a.shape[dim])]


def _flip(a: Value, dims: Sequence[int]) -> Value:
    return geometry.flip(a, [axis % len(a.shape) for axis in dims])


def _roll(a: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    if not dims:
        return _reshape(_roll(_reshape(a, [-1]), shifts, [0]), a.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        cut = -shift % a.shape[dim]
        a = _cat([_slice(a, dim, cut), _slice(a, dim, 0, cut)], dim) if cut else a
    return a


def _squeeze(a: Value, dim: Any = None) -> Value:
    dims = [dim] if isinstance(dim, int) else range(len(a.shape)) if dim is None else dim
    return geometry.squeeze(a, [axis % len(a.shape) for axis in dims if a.shape[axis] == 1])


def _unsqueeze(a: Value, dim: int) -> Value:
    return geometry.unsqueeze(a, dim % (len(a.shape) + 1))


def _slice_backward(a: Value, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Value:
    dim %= len(sizes)
    first, *_ = slice(start, end).indices(sizes[dim])
    return geometry.place(a, dim, first, step, sizes[dim])


def _select_backward(a: Value, sizes: Sequence[int], dim: int, index: int) -> Value:
    dim, index = dim % len(sizes), index % sizes[dim]
    return geometry.place(geometry.unsqueeze(a, dim), dim, index, 1, sizes[dim])


def _pad(a: Value, pad: Sequence[int], value: float = 0) -> Value:
    if value:
        raise UnknownError("not linear")
    for i in range(len(pad) // 2):
        axis, (low, high) = len(a.shape) - 1 - i, pad[2 * i : 2 * i + 2]
        a = _slice(a, axis, max(-low, 0), a.shape[axis] - max(-high, 0))
        a = geometry.place(a, axis, max(low, 0), 1, a.shape[axis] + max(low, 0) + max(high, 0))
    return a


def _cat(tensors: Sequence[Any], dim: int = 0) -> Value:
    operands = [a for a in tensors if tuple(a.shape) != (0,)]  # which fits everything
    return geometry.concatenate(operands, dim % len(operands[0].shape))


def _stack(tensors: Sequence[Any], dim: int = 0) -> Value:
    return geometry.stack(tensors, dim % (len(tensors[0].shape) + 1), torch.unsqueeze)


def _unfold(a: Value, dimension: int, size: int, step: int) -> Value:
    """Windows of a length along an axis, in a last axis of their own."""
    dimension %= len(a.shape)
    last = (a.shape[dimension] - size) // step * step
    if size > SHORT:
        raise UnknownError("windows too long to be taken apart")
    return _stack([_slice(a, dimension, i, last + i + 1, step) for i in range(size)], -1)


def _unfold_backward(a: Value, sizes: Sequence[int], dim: int, size: int, step: int) -> Value:
    dim %= len(sizes)
    last = (sizes[dim] - size) // step * step
    if size > SHORT:
        raise UnknownError("windows too long to be taken apart")
    return arithmetic.add(*(_slice_backward(_select(a, -1, i), sizes, dim, i, last + i + 1, step) for i in range(size)))


def _reshape(a: Value, sizes: Sequence[int]) -> Value:
    if -1 in sizes:
        rest = math.prod(a.shape) // -math.prod(sizes)
        sizes = [rest if size == -1 else size for size in sizes]
    return geometry.reshape(a, sizes)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    aten.is_same_size.default: lambda a, b: a.shape == tuple(b.shape),
    aten.add.Tensor: _add,
    aten.sub.Tensor: _sub,
    aten.neg.default: lambda a: arithmetic.negate(a),
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.tanh_backward.default: _tanh_backward,
    aten.sigmoid_backward.default: _sigmoid_backward,
    aten.threshold_backward.default: _threshold_backward,
    aten.masked_fill.Scalar: _masked_fill,
    aten.zeros_like.default: lambda a, **_: a._replace(parts={}),
    aten.where.self: _where,
    aten.clone.default: lambda a, memory_format=None: a,
    aten.detach.default: lambda a: a,
    aten.alias.default: lambda a: a,
    aten.expand.default: _expand,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _t,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.flip.default: _flip,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.squeeze.default: _squeeze,
    aten.unsqueeze.default: _unsqueeze,
    aten.slice_backward.default: _slice_backward,
    aten.select_backward.default: _select_backward,
    aten.constant_pad_nd.default: _pad,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.roll.default: _roll,
    aten.unfold.default: _unfold,
    aten.unfold_backward.default: _unfold_backward,
    aten.unbind.int: _unbind,
    aten.sum.dim_IntList: _sum,
    aten.sum.default: _sum,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.reshape.default: _reshape,
    aten.add_.Tensor: _add,
    aten.sub_.Tensor: _sub,
    aten.mul_.Tensor: _mul,
    aten.mul_.Scalar: _mul,
    aten.div_.Tensor: _div,
    aten.div_.Scalar: _div,
    aten.masked_fill_.Scalar: _masked_fill,
}
