"""What every operation of a backward pass does to the parts of a value: one rule each, keyed by ATen's operation.

Operands that do not depend on v count as zero where they are added or joined: the program is linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .values import (
    SHORT,
    TERMS,
    Axis,
    Grid,
    Late,
    Part,
    UnknownError,
    Value,
    aligned,
    all_apart,
    gathered,
    moved,
    on_grid,
    sizes_of,
)

aten = torch.ops.aten


def _add(a: Any, b: Any, alpha: float = 1) -> Value:
    b = _scaled(b, alpha) if isinstance(b, Value) and alpha != 1 else b
    if isinstance(a, Value) and isinstance(b, Value) and a.shape == b.shape and a.strides == b.strides:
        first, others = a, [b]
    else:
        first, *others = aligned(_wide([a, b]))  # what does not depend on v is zero
    parts = dict(first.parts)
    for value in others:
        for key, part in value.parts.items():
            parts[key] = parts[key].plus(part) if key in parts else part
    return Value(first.shape, first.strides, first.dtype, parts)


def _wide(operands: Sequence[Any]) -> list[Value]:
    shapes = {tuple(a.shape) for a in operands if isinstance(a, (Value, Tensor))}
    values = [a for a in operands if isinstance(a, Value)]
    return [_expand(a, torch.broadcast_shapes(*shapes)) for a in values] if len(shapes) > 1 else values


def _sub(a: Any, b: Any, alpha: float = 1) -> Value:
    return _add(a, b, -alpha)


def _scaled(a: Value, by: float) -> Value:
    parts, largest = {}, torch.finfo(a.dtype).max
    for key, (scale, array) in a.parts.items():
        parts[key] = Part(scale * by, array)
        if not abs(scale * by) <= largest:
            raise UnknownError  # such a scale would make zeros of arrays NaN
    return Value(a.shape, a.strides, a.dtype, parts)


def _mul(a: Any, b: Any) -> Value:
    value, factor = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(factor, Value):
        raise UnknownError  # not linear
    if not isinstance(factor, Tensor):
        return _scaled(value, float(factor))
    if factor.shape != value.shape:
        (value,) = _wide([value, factor])
        factor = factor.expand(value.shape)

    parts = {}
    if factor.dtype != value.dtype:  # integers
        factor = factor.to(value.dtype)
    for key, (scale, array) in value.parts.items():
        cut = on_grid(key[1], factor)
        parts[key] = Part(scale, cut if array is None else Late(torch.mul, array, cut))
    return Value(value.shape, value.strides, value.dtype, parts)


def _div(a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise UnknownError
    if isinstance(b, Tensor) and b.ndim:
        return _mul(a, b.to(a.dtype).reciprocal())
    parts = {}
    for key, (scale, array) in a.parts.items():
        parts[key] = Part(scale / float(b), None) if array is None else Part(scale, Late(torch.div, array, b))
    return _scaled(a._replace(parts=parts), 1)


def _where(which: Any, a: Any, b: Any) -> Value:
    if isinstance(which, Value):
        raise UnknownError
    which = which.bool()
    values = iter(aligned(_wide([a, b, which])))
    out = []
    for chosen, case in ((which, a), (~which, b)):
        if isinstance(case, Value):
            value = next(values)
            mask = chosen.expand(value.shape)
            for (o, grid), (scale, array) in value.parts.items():
                cut = on_grid(grid, mask)
                ones = torch.ones((), dtype=value.dtype, device=mask.device) if array is None else array
                out.append((o, grid, Part(scale, Late(lambda m, a: torch.where(m, a, 0), cut, ones))))
    return value._replace(parts=gathered(out))


def _masked(a: Value, mask: Tensor, value: float) -> Value:
    if value:
        raise UnknownError  # not linear
    return _where(mask, mask, a)


def _permute(a: Value, dims: Sequence[int]) -> Value:
    pick = lambda of: tuple(of[axis] for axis in dims)  # noqa: E731
    parts = {(o, pick(grid)): part.apply(torch.permute, tuple(dims)) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def _transpose(a: Value, first: int = -2, second: int = -1) -> Value:
    dims = list(range(len(a.shape)))
    dims[first], dims[second] = dims[second], dims[first]
    return _permute(a, dims)


def _expand(a: Value, shape: Sequence[int], **_: Any) -> Value:
    new = len(shape) - len(a.shape)
    shape = tuple(a.shape[i - new] if size == -1 else size for i, size in enumerate(shape))
    if shape == a.shape:
        return a
    longer = [axis for axis in range(len(shape)) if axis < new or shape[axis] != a.shape[axis - new]]
    for axis in longer[new:]:
        a = moved(a, axis - new, 0)
    parts = []
    for (o, grid), part in a.parts.items():
        wide = tuple((0, shape[axis], 1) if axis in longer else grid[axis - new] for axis in range(len(shape)))
        parts.append((o, wide, part.apply(Tensor.expand, sizes_of(wide))))
    return Value(shape, (*[0] * new, *a.strides), a.dtype, gathered(parts))


def _cut(axis: Axis, start: int, stop: int, step: int) -> tuple[Axis, slice]:
    """What [start:stop:step] leaves of an axis, and which entries of the part that is."""
    own, size, gap = axis
    repeat = step // math.gcd(gap, step)
    first = max(0, -(-(start - own) // gap))
    fits = [i for i in range(first, first + repeat) if (own + gap * i - start) % step == 0]
    last = min(size - 1, (stop - 1 - own) // gap)
    if not fits or fits[0] > last:
        return (0, 0, 1), slice(0, 0)
    entries = slice(fits[0], last + 1, repeat)
    return ((own + gap * fits[0] - start) // step, len(range(last + 1)[entries]), gap * repeat // step), entries


def _slice(a: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    dim %= len(a.shape)
    first, stop, _ = slice(start, end).indices(a.shape[dim])
    parts = []
    for (o, grid), part in a.parts.items():
        axis, entries = _cut(grid[dim], first, stop, step)
        if axis[1] != grid[dim][1]:
            part = part.apply(lambda array, entries: array[(slice(None),) * dim + (entries,)], entries)
        parts.append((o + first * a.strides[dim], (*grid[:dim], axis, *grid[dim + 1 :]), part))
    shape, strides = list(a.shape), list(a.strides)
    shape[dim], strides[dim] = len(range(first, stop, step)), strides[dim] * step
    return Value(tuple(shape), tuple(strides), a.dtype, gathered(parts))


def _flip(a: Value, dims: Sequence[int]) -> Value:
    axes = [axis % len(a.shape) for axis in dims]
    parts = {}
    for (o, grid), part in a.parts.items():
        turned = list(grid)
        for axis in axes:
            start, size, step = grid[axis]
            turned[axis] = (a.shape[axis] - 1 - start - (size - 1) * step, size, step)
        shift = sum(a.strides[axis] * (a.shape[axis] - 1) for axis in axes)
        parts[o + shift, tuple(turned)] = part.apply(torch.flip, axes)
    strides = tuple(-stride if axis in axes else stride for axis, stride in enumerate(a.strides))
    return a._replace(strides=strides, parts=parts)


def _squeeze(a: Value, dims: Any = None) -> Value:
    dims = [dims] if isinstance(dims, int) else range(len(a.shape)) if dims is None else dims
    gone = [axis % len(a.shape) for axis in dims if a.shape[axis] == 1]
    keep = [axis for axis in range(len(a.shape)) if axis not in gone]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    parts = {(o, pick(grid)): part.apply(torch.reshape, sizes_of(pick(grid))) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def _unsqueeze(a: Value, dim: int) -> Value:
    dim %= len(a.shape) + 1
    put = lambda of, new: (*of[:dim], new, *of[dim:])  # noqa: E731
    parts = {(o, put(grid, (0, 1, 1))): part.apply(torch.unsqueeze, dim) for (o, grid), part in a.parts.items()}
    return Value(put(a.shape, 1), put(a.strides, 0), a.dtype, parts)


def _select(a: Value, dim: int, index: int) -> Value:
    index %= a.shape[dim]
    return _squeeze(_slice(a, dim, index, index + 1), dim)


def _row_major(shape: Sequence[int], axis: int) -> int:
    return math.prod(shape[axis + 1 :])


def _placed(a: Value, axis: int, low: int, step: int, size: int, stride: int) -> Value:
    """In a longer axis: entry p at low + step p."""
    a = moved(a, axis, stride * step)
    parts = {}
    for (o, grid), part in a.parts.items():
        start, count, gap = grid[axis]
        there = (low + step * start, count, step * gap if count > 1 else 1)
        parts[o - stride * low, (*grid[:axis], there, *grid[axis + 1 :])] = part
    shape, strides = list(a.shape), list(a.strides)
    shape[axis], strides[axis] = size, stride
    return Value(tuple(shape), tuple(strides), a.dtype, parts)


def _slice_backward(a: Value, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Value:
    dim %= len(sizes)
    first, *_ = slice(start, end).indices(sizes[dim])
    stride = _row_major(sizes, dim) if a.shape[dim] == 1 else a.strides[dim] // step
    return _placed(a, dim, first, step, sizes[dim], stride)


def _select_backward(a: Value, sizes: Sequence[int], dim: int, index: int) -> Value:
    index %= sizes[dim]
    return _slice_backward(_unsqueeze(a, dim), sizes, dim, index, index + 1, 1)


def _pad(a: Value, pad: Sequence[int], value: float = 0) -> Value:
    if value:
        raise UnknownError  # not linear
    for i in range(len(pad) // 2):
        axis, (low, high) = len(a.shape) - 1 - i, pad[2 * i : 2 * i + 2]
        a = _slice(a, axis, max(-low, 0), a.shape[axis] - max(-high, 0))
        size = a.shape[axis] + max(low, 0) + max(high, 0)
        stride = _row_major(a.shape, axis) if a.shape[axis] == 1 else a.strides[axis]
        a = _placed(a, axis, max(low, 0), 1, size, stride)
    return a


def _cat(operands: Sequence[Any], dim: int = 0) -> Value:
    operands = [a for a in operands if tuple(a.shape) != (0,)]
    values = [a for a in operands if isinstance(a, Value)]
    dim %= len(values[0].shape)
    shape = list(values[0].shape)
    shape[dim] = sum(a.shape[dim] for a in operands)
    if all(a.shape[dim] == 1 for a in values):
        values = [moved(a, dim, _row_major(shape, dim)) for a in values]
    queue, start, placed = iter(aligned(values)), 0, []
    for a in operands:
        if isinstance(a, Value):
            value = next(queue)
            placed.append(_placed(value, dim, start, 1, shape[dim], value.strides[dim]))
        start += a.shape[dim]
    return reduce(_add, placed)


def _stack(operands: Sequence[Any], dim: int = 0) -> Value:
    return _cat([_unsqueeze(a, dim) if isinstance(a, Value) else a.unsqueeze(dim) for a in operands], dim)


def _roll(a: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    if not dims:
        return _reshape(_roll(_reshape(a, [-1]), shifts, [0]), a.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        cut = -shift % a.shape[dim]
        a = _cat([_slice(a, dim, cut), _slice(a, dim, 0, cut)], dim) if cut else a
    return a


def _unfold(a: Value, dim: int, size: int, step: int) -> Value:
    dim %= len(a.shape)
    last = (a.shape[dim] - size) // step * step
    if size > SHORT:
        raise UnknownError
    return _stack([_slice(a, dim, i, last + i + 1, step) for i in range(size)], len(a.shape))


def _unfold_backward(a: Value, sizes: Sequence[int], dim: int, size: int, step: int) -> Value:
    dim %= len(sizes)
    last = (sizes[dim] - size) // step * step
    if size > SHORT:
        raise UnknownError
    rows = (_slice_backward(_select(a, -1, i), sizes, dim, i, last + i + 1, step) for i in range(size))
    return reduce(_add, rows)


def _unbind(a: Value, dim: int = 0) -> list[Value]:
    if a.shape[dim] > SHORT:
        raise UnknownError
    return [_select(a, dim, i) for i in range(a.shape[dim])]


def _reduce_sum(a: Value, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
    dims = [dims] if isinstance(dims, int) else dims or range(len(a.shape))
    axes = sorted(axis % len(a.shape) for axis in dims)
    for axis in axes:
        a = moved(a, axis, 0)
    keep = [axis for axis in range(len(a.shape)) if axis not in axes]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    parts = []
    for (o, grid), part in a.parts.items():
        if part.array is None:
            part = Part(part.scale * math.prod(grid[axis][1] for axis in axes), None)
        elif any(grid[axis][1] > 1 for axis in axes):
            part = part.apply(torch.sum, axes)
        else:
            part = part.apply(torch.reshape, sizes_of(pick(grid)))
        parts.append((o, pick(grid), part))
    a = Value(pick(a.shape), pick(a.strides), a.dtype, gathered(parts))
    for axis in axes if keepdim else ():
        a = _unsqueeze(a, axis)
    return a


def _matmul(a: Any, b: Any) -> Value:
    """`(..., i, j) (..., j, k)`: along a short j term by term."""
    left = isinstance(a, Value)
    value, factor = (a, b) if left else (b, a)
    if isinstance(factor, Value):
        raise UnknownError
    if not left:  # B A = (A^T B^T)^T
        return _transpose(_matmul(_transpose(value), factor.transpose(-2, -1)))
    axis = len(value.shape) - 1
    value = moved(value, axis, 0)
    parts, fresh = [], (0, factor.shape[-1], 1)
    for o, grid, part in all_apart(value.parts, lambda grid: axis if 1 < grid[axis][1] <= TERMS else None):
        rows = on_grid((*grid[:-2], grid[axis], fresh), factor)
        if part.array is None:
            sizes = sizes_of((*grid[:-1], fresh))
            product = Part(part.scale, Late(lambda rows, sizes: rows.sum(-2, True).expand(sizes), rows, sizes))
        else:
            product = part.apply(torch.mul if grid[axis][1] == 1 else torch.matmul, rows)
        parts.append((o, (*grid[:-1], fresh), product))
    return Value((*value.shape[:-1], factor.shape[-1]), (*value.strides[:-1], 0), value.dtype, gathered(parts))


def _merged(a: Value, first: int, last: int) -> Value:
    """With the axes first .. last - 1 as one, row-major."""
    longest = max(range(first, last), key=lambda axis: a.shape[axis])
    stride = a.strides[longest] // _row_major(a.shape[:last], longest)
    for axis in range(first, last):
        a = moved(a, axis, stride * _row_major(a.shape[:last], axis))

    def spread(grid: Grid) -> list[int]:
        return [axis for axis in range(first, last) if grid[axis][1] > 1]

    def step(grid: Grid, axis: int) -> int:
        return grid[axis][2] * _row_major(a.shape[:last], axis)

    def uneven(grid: Grid) -> int | None:
        even = all(step(grid, p) == step(grid, q) * grid[q][1] for p, q in pairwise(spread(grid)))
        return None if even else min(spread(grid), key=lambda axis: grid[axis][1])

    parts = []
    for o, grid, part in all_apart(a.parts, uneven):
        start = sum(grid[axis][0] * _row_major(a.shape[:last], axis) for axis in range(first, last))
        size, own = math.prod(sizes_of(grid[first:last])), spread(grid)
        one = (*grid[:first], (start, size, step(grid, own[-1]) if own else 1), *grid[last:])
        parts.append((o, one, part.apply(torch.reshape, sizes_of(one))))
    size = math.prod(a.shape[first:last])
    shape, strides = [(*of[:first], one, *of[last:]) for of, one in ((a.shape, size), (a.strides, stride))]
    return Value(shape, strides, a.dtype, gathered(parts))


def _unmerged(a: Value, axis: int, sizes: Sequence[int]) -> Value:
    """With one axis as several, row-major."""
    if len(sizes) == 1:
        return a
    inner = math.prod(sizes[1:])
    parts = []
    for (o, grid), part in a.parts.items():
        start, size, step = grid[axis]
        if step % inner == 0 or size == 1:
            outer, within = (start // inner, size, max(1, step // inner)), (start % inner, 1, 1)
        elif step == 1 and start % inner == 0 and size % inner == 0:
            outer, within = (start // inner, size // inner, 1), (0, inner, 1)
        else:
            raise UnknownError
        new = (*grid[:axis], outer, within, *grid[axis + 1 :])
        parts.append((o, new, part.apply(torch.reshape, sizes_of(new))))
    stride = a.strides[axis]
    shape = (*a.shape[:axis], sizes[0], inner, *a.shape[axis + 1 :])
    strides = (*a.strides[:axis], stride * inner, stride, *a.strides[axis + 1 :])
    return _unmerged(Value(shape, strides, a.dtype, gathered(parts)), axis + 1, sizes[1:])


def _reshape(a: Value, sizes: Sequence[int], **_: Any) -> Value:
    if -1 in sizes:
        rest = math.prod(a.shape) // -math.prod(sizes)
        sizes = [rest if size == -1 else size for size in sizes]
    if 0 in a.shape:
        raise UnknownError
    a = _squeeze(a)
    left, axis = [size for size in sizes if size != 1], 0
    while left:
        group, last = [left.pop(0)], axis + 1
        while math.prod(group) != math.prod(a.shape[axis:last]):
            if math.prod(group) < math.prod(a.shape[axis:last]):
                group.append(left.pop(0))
            else:
                last += 1
        a = _unmerged(_merged(a, axis, last), axis, group)
        axis += len(group)
    for axis, size in enumerate(sizes):
        if size == 1:
            a = _unsqueeze(a, axis)
    return a


RULES: dict[Any, Callable[..., Any]] = {
    aten.is_same_size.default: lambda a, b: a.shape == tuple(b.shape),
    aten.add.Tensor: _add,
    aten.sub.Tensor: _sub,
    aten.neg.default: lambda a: _scaled(a, -1),
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.tanh_backward.default: lambda a, out: _mul(a, aten.tanh_backward(torch.ones_like(out), out)),
    aten.sigmoid_backward.default: lambda a, out: _mul(a, aten.sigmoid_backward(torch.ones_like(out), out)),
    aten.threshold_backward.default: lambda a, x, threshold: _where(x <= threshold, x, a),  # and NaN
    aten.masked_fill.Scalar: _masked,
    aten.zeros_like.default: lambda a, **_: a._replace(parts={}),
    aten.where.self: _where,
    aten.clone.default: lambda a, **_: a,
    aten.detach.default: lambda a: a,
    aten.alias.default: lambda a: a,
    aten.expand.default: _expand,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: lambda a: _transpose(a) if len(a.shape) == 2 else a,
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
    aten.sum.dim_IntList: _reduce_sum,
    aten.sum.default: _reduce_sum,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.reshape.default: _reshape,
}


IN_PLACE = {
    aten.add_.Tensor: _add,
    aten.sub_.Tensor: _sub,
    aten.mul_.Tensor: _mul,
    aten.mul_.Scalar: _mul,
    aten.div_.Tensor: _div,
    aten.div_.Scalar: _div,
    aten.masked_fill_.Scalar: _masked,
}
# What gives a view: nothing may be written to it, nor to what it is a view of.
VIEWS = {
    aten.alias.default,
    aten.detach.default,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.unfold.default,
    aten.view.default,
    aten.reshape.default,
}
# Looked up once an operation: its rule, whether it writes to its first operand, and whether it gives a view.
OPERATIONS: dict[Any, tuple[Any, bool, bool]] = {func: (rule, False, func in VIEWS) for func, rule in RULES.items()}
OPERATIONS |= {func: (rule, True, False) for func, rule in IN_PLACE.items()}
