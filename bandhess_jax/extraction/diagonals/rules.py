"""What every operation of a linear program does to the parts of a value: one rule each, named as JAX names them.

Operands that do not depend on v count as zero where they are added or joined: the program is linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ...framework.programs import is_constant
from .values import (
    TERMS,
    Axis,
    Grid,
    UnknownError,
    Value,
    aligned,
    all_apart,
    formed,
    gathered,
    moved,
    on_grid,
    reshaped,
    sizes_of,
)


def _add(*operands: Any) -> Value:
    values = aligned([a for a in operands if isinstance(a, Value)])  # what does not depend on v is zero
    return values[0]._replace(parts=gathered((*key, part) for value in values for key, part in value.parts.items()))


def _neg(a: Value) -> Value:
    return a._replace(parts={key: -part for key, part in a.parts.items()})


def _sub(a: Any, b: Any) -> Value:
    return _add(a, _neg(b)) if isinstance(b, Value) else a


def _mul(a: Any, b: Any) -> Any:
    value, factor = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(factor, Value):
        raise UnknownError  # not linear

    def product(grid: Grid, part: Any) -> Any:
        if is_constant(part) and is_constant(factor):
            return np.multiply(part, factor)
        one = is_constant(part) and float(part) == 1
        return on_grid(grid, factor) if one else jnp.multiply(part, on_grid(grid, factor))

    return value._replace(parts={key: product(key[1], part) for key, part in value.parts.items()})


def _div(a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise UnknownError
    return a._replace(parts={key: jnp.divide(part, on_grid(key[1], b)) for key, part in a.parts.items()})


def _convert(a: Value, new_dtype: Any, **_: Any) -> Value:
    if not jnp.issubdtype(new_dtype, jnp.floating):
        raise UnknownError
    parts = {
        key: np.asarray(part).astype(new_dtype) if is_constant(part) else part.astype(new_dtype)
        for key, part in a.parts.items()
    }
    return a._replace(dtype=new_dtype, parts=parts)


def _select(which: Any, *cases: Any) -> Value:
    if isinstance(which, Value):
        raise UnknownError
    values = iter(aligned([case for case in cases if isinstance(case, Value)]))
    parts = []
    for number, case in enumerate(cases):
        if isinstance(case, Value):
            value = next(values)
            for (o, grid), part in value.parts.items():
                chosen = on_grid(grid, which) == number
                parts.append((o, grid, jnp.where(chosen, part, jnp.zeros((), value.dtype))))
    return value._replace(parts=gathered(parts))


def transpose(a: Value, permutation: Sequence[int]) -> Value:
    pick = lambda of: tuple(of[i] for i in permutation)  # noqa: E731
    turn = lambda part: part if jnp.ndim(part) == 0 else lax.transpose(part, permutation)  # noqa: E731
    parts = {(o, pick(grid)): turn(part) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def _broadcast(a: Value, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any) -> Value:
    strides, new = [0] * len(shape), [axis for axis in range(len(shape)) if axis not in broadcast_dimensions]
    for axis, to in enumerate(broadcast_dimensions):
        if shape[to] != a.shape[axis]:
            a = moved(a, axis, 0)
            new.append(to)
        strides[to] = a.strides[axis]
    parts = []
    for (o, grid), part in a.parts.items():
        wide = [(0, shape[to], 1) if to in new else grid[broadcast_dimensions.index(to)] for to in range(len(shape))]
        if jnp.ndim(part):
            part = lax.broadcast_in_dim(part, sizes_of(tuple(wide)), broadcast_dimensions)
        parts.append((o, wide, part))
    return Value(tuple(shape), tuple(strides), a.dtype, gathered(parts))


def widened(a: Any, shape: Sequence[int]) -> Any:
    """As an operand of elementwise operations, which widen axes of length 1 and scalars without saying so."""
    if not isinstance(a, Value):
        return a if jnp.ndim(a) == 0 else jnp.broadcast_to(a, shape)
    return a if a.shape == tuple(shape) else _broadcast(a, shape, range(len(shape) - len(a.shape), len(shape)))


def _squeeze(a: Value, dimensions: Sequence[int]) -> Value:
    keep = [axis for axis in range(len(a.shape)) if axis not in dimensions]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    parts = {(o, pick(grid)): reshaped(part, sizes_of(pick(grid))) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


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


def cut(a: Value, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Any) -> Value:
    steps = strides or (1,) * len(a.shape)
    shape = tuple(-(-(b - a) // step) for a, b, step in zip(start_indices, limit_indices, steps, strict=True))
    shift = sum(start * stride for start, stride in zip(start_indices, a.strides, strict=True))
    parts = []
    for (o, grid), part in a.parts.items():
        cuts = [_cut(*each) for each in zip(grid, start_indices, limit_indices, steps, strict=True)]
        kept = [axis for axis, _ in cuts]
        if jnp.ndim(part) and 0 not in sizes_of(tuple(kept)) and sizes_of(tuple(kept)) != part.shape:
            entries = [entries for _, entries in cuts]
            part = lax.slice(part, [e.start for e in entries], [e.stop for e in entries], [e.step for e in entries])
        parts.append((o + shift, kept, part))
    new = tuple(stride * step for stride, step in zip(a.strides, steps, strict=True))
    return Value(shape, new, a.dtype, gathered(parts))


def _split(a: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    out, start = [], 0
    for size in sizes:
        starts, stops = [0] * len(a.shape), list(a.shape)
        starts[axis], stops[axis] = start, start + size
        out.append(cut(a, starts, stops, None))
        start += size
    return out


def _rev(a: Value, dimensions: Sequence[int]) -> Value:
    strides = tuple(-stride if axis in dimensions else stride for axis, stride in enumerate(a.strides))
    shift = sum(a.strides[axis] * (a.shape[axis] - 1) for axis in dimensions)
    parts = {}
    for (o, grid), part in a.parts.items():
        turned = list(grid)
        for axis in dimensions:
            start, size, step = grid[axis]
            turned[axis] = (a.shape[axis] - 1 - start - (size - 1) * step, size, step)
        parts[o + shift, tuple(turned)] = lax.rev(part, dimensions) if jnp.ndim(part) else part
    return Value(a.shape, strides, a.dtype, parts)


def _placed(a: Value, axis: int, low: int, gap: int, size: int, stride: int) -> Value:
    """In a longer axis: entry p at low + (gap + 1) p."""
    a = moved(a, axis, stride * (gap + 1))
    parts = {}
    for (o, grid), part in a.parts.items():
        start, count, step = grid[axis]
        there = (low + (gap + 1) * start, count, (gap + 1) * step if count > 1 else 1)
        parts[o - stride * low, (*grid[:axis], there, *grid[axis + 1 :])] = part
    shape, strides = list(a.shape), list(a.strides)
    shape[axis], strides[axis] = size, stride
    return Value(tuple(shape), tuple(strides), a.dtype, parts)


def _row_major(shape: Sequence[int], axis: int) -> int:
    return math.prod(shape[axis + 1 :])


def _pad(a: Any, zero: Any, padding_config: Sequence[tuple[int, int, int]]) -> Value:
    if not isinstance(a, Value) or isinstance(zero, Value):
        raise UnknownError
    padding_config = [(int(low), int(high), int(gap)) for low, high, gap in padding_config]
    wide = [
        size + max(size - 1, 0) * gap + max(low, 0) + max(high, 0)
        for size, (low, high, gap) in zip(a.shape, padding_config, strict=True)
    ]
    for axis, (low, _, gap) in enumerate(padding_config):
        stride = _row_major(wide, axis) if a.shape[axis] == 1 else a.strides[axis] // (gap + 1)
        a = _placed(a, axis, max(low, 0), gap, wide[axis], stride)
    starts = [max(-low, 0) for low, *_ in padding_config]
    stops = [size - max(-high, 0) for size, (_, high, _) in zip(wide, padding_config, strict=True)]
    return cut(a, starts, stops, None) if starts != [0] * len(wide) or stops != wide else a


def concatenate(*operands: Any, dimension: int) -> Value:
    values = [a for a in operands if isinstance(a, Value)]
    shape = list(values[0].shape)
    shape[dimension] = sum(a.shape[dimension] for a in operands)
    if all(a.shape[dimension] == 1 for a in values):
        values = [moved(a, dimension, _row_major(shape, dimension)) for a in values]
    queue, start, placed = iter(aligned(values)), 0, []
    for a in operands:
        if isinstance(a, Value):
            value = next(queue)
            placed.append(_placed(value, dimension, start, 0, shape[dimension], value.strides[dimension]))
        start += a.shape[dimension]
    return _add(*placed)


def _stack(*operands: Any, axis: int) -> Value:
    def row(a: Any) -> Any:
        if not isinstance(a, Value):
            return jnp.expand_dims(a, axis)
        shape = (*a.shape[:axis], 1, *a.shape[axis:])
        return _broadcast(a, shape, [i for i in range(len(shape)) if i != axis])

    return concatenate(*map(row, operands), dimension=axis)


def _unstack(a: Value, axis: int) -> list[Value]:
    return [_squeeze(row, [axis]) for row in _split(a, [1] * a.shape[axis], axis)]


def _reduce_sum(a: Value, axes: Sequence[int], **_: Any) -> Value:
    for axis in axes:
        a = moved(a, axis, 0)
    keep = [axis for axis in range(len(a.shape)) if axis not in axes]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    summed = lambda grid, part: (  # noqa: E731
        jnp.sum(part, tuple(axes)) if jnp.ndim(part) else part * math.prod(grid[axis][1] for axis in axes)
    )
    parts = gathered((o, pick(grid), summed(grid, part)) for (o, grid), part in a.parts.items())
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def _dot_general(a: Any, b: Any, dimension_numbers: Any, preferred_element_type: Any, **params: Any) -> Value:
    left = isinstance(a, Value)
    value, factor = (a, b) if left else (b, a)
    if isinstance(factor, Value) or factor.dtype != value.dtype or preferred_element_type not in (None, value.dtype):
        raise UnknownError
    (contracted, to), (batch, to_batch) = ((x, y) if left else (y, x) for x, y in dimension_numbers)
    for axis in contracted:
        value = moved(value, axis, 0)
    free = [axis for axis in range(len(value.shape)) if axis not in (*contracted, *batch)]
    other = [axis for axis in range(jnp.ndim(factor)) if axis not in (*to, *to_batch)]

    def order(of: Sequence[Any], others: Sequence[Any]) -> tuple:
        frees = [of[axis] for axis in free], list(others)
        return (*(of[axis] for axis in batch), *frees[not left], *frees[left])

    def short(grid: Grid) -> int | None:
        return next((axis for axis in contracted if 1 < grid[axis][1] <= TERMS), None)

    parts = []
    for o, grid, part in all_apart(value.parts, short):  # term by term: XLA fuses that
        whole = [(0, size, 1) for size in factor.shape]
        for axis, there in zip((*contracted, *batch), (*to, *to_batch), strict=True):
            whole[there] = grid[axis]
        one, two = formed(grid, part, value.dtype), on_grid(tuple(whole), factor)
        product = lax.dot_general(*((one, two) if left else (two, one)), dimension_numbers, **params)  # type: ignore[call-arg]
        parts.append((o, order(grid, [whole[axis] for axis in other]), product))
    shape = order(value.shape, [factor.shape[axis] for axis in other])
    return Value(shape, order(value.strides, [0] * len(other)), value.dtype, gathered(parts))


def _merged(a: Value, first: int, last: int) -> Value:
    """With the axes first .. last - 1 as one, row-major."""
    sizes = a.shape[first:last]
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
        parts.append((o, one, reshaped(part, sizes_of(one))))
    shape, strides = [(*of[:first], one, *of[last:]) for of, one in ((a.shape, math.prod(sizes)), (a.strides, stride))]
    return Value(shape, strides, a.dtype, gathered(parts))


def _unmerged(a: Value, axis: int, sizes: Sequence[int]) -> Value:
    """With one axis as several, row-major."""
    if len(sizes) == 1:
        return a
    total, inner = a.shape[axis], math.prod(sizes[1:])
    parts = []
    for (o, grid), part in a.parts.items():
        start, size, step = grid[axis]
        if step % inner == 0 or size == 1:
            outer, within = (start // inner, size, max(1, step // inner)), (start % inner, 1, 1)
        else:
            if step > 1 or start % inner or size % inner:
                config = [(0, 0, 0)] * len(grid)
                config[axis] = (start, total - start - (size - 1) * step - 1, step - 1)
                part = lax.pad(formed(grid, part, a.dtype), jnp.zeros((), a.dtype), config)
                start, size = 0, total
            outer, within = (start // inner, size // inner, 1), (0, inner, 1)
        new = (*grid[:axis], outer, within, *grid[axis + 1 :])
        parts.append((o, new, reshaped(part, sizes_of(new))))
    stride = a.strides[axis]
    shape = (*a.shape[:axis], sizes[0], inner, *a.shape[axis + 1 :])
    strides = (*a.strides[:axis], stride * inner, stride, *a.strides[axis + 1 :])
    return _unmerged(Value(shape, strides, a.dtype, gathered(parts)), axis + 1, sizes[1:])


def reshape(a: Value, new_sizes: Sequence[int], dimensions: Sequence[int] | None = None, **_: Any) -> Value:
    if 0 in new_sizes:
        raise UnknownError
    if dimensions is not None:
        a = transpose(a, dimensions)
    a = _squeeze(a, [axis for axis, size in enumerate(a.shape) if size == 1])
    left, axis = [size for size in new_sizes if size != 1], 0
    while left:
        sizes, last = [left.pop(0)], axis + 1
        while math.prod(sizes) != math.prod(a.shape[axis:last]):
            if math.prod(sizes) < math.prod(a.shape[axis:last]):
                sizes.append(left.pop(0))
            else:
                last += 1
        a = _unmerged(_merged(a, axis, last), axis, sizes)
        axis += len(sizes)
    return _broadcast(a, new_sizes, [axis for axis, size in enumerate(new_sizes) if size != 1])


RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "copy": lambda a: a,
    "convert_element_type": _convert,
    "select_n": _select,
    "transpose": transpose,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "slice": cut,
    "split": _split,
    "rev": _rev,
    "pad": _pad,
    "concatenate": concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "reduce_sum": _reduce_sum,
    "reshape": reshape,
    "dot_general": _dot_general,
}


ELEMENTWISE = {"add", "add_any", "sub", "neg", "mul", "div", "copy", "select_n"}
ARITHMETIC = {"neg", "mul", "div", "select_n", "convert_element_type", "reduce_sum", "dot_general"}
