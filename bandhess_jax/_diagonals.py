"""The band of a linear program without a probe: its diagonals, carried from operation to operation.

A linear program of slices, paddings, sums and products with coefficients maps v to values of which every entry is a
sum over a few neighbours of v. Such a value, of any shape, is kept as

    value[i] = sum over o, and over grids that hold i, of part[i] v[o + strides . i]         (i a multi-index)

where a part is an array on a regular grid (start, size and step along every axis). Slices, paddings and concatenations
move grids and offsets o and form nothing, sums merge parts that are alike, and products multiply them. The parts of
the result at o = -r make the diagonal r places below the main one. (Griewank and Walther, Evaluating Derivatives, 2008,
chapter 7: sparse vector mode; here the pattern is a few diagonals.)

Compared with probing no column is computed that is zero, none twice, and nothing above the diagonal: for a window of
w + 1 entries (w + 1)(w + 2) / 2 multiplications an entry instead of some 2 (w + 1)^2. A program with other operations
(loops, gathers, foreign calls), or too long if unrolled like this, is left to probing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from ._fusion import arranged, bind, flattened, is_constant, needed

_LIMIT = 6000  # parts of one value, at most
_SHORT = 32  # entries along an axis, up to which a part may be taken apart there
_TERMS = 8  # of a contracted axis, up to which a matrix product is a sum of products

Axis = tuple[int, int, int]  # start, size, step: of a part along one axis of its value
Grid = tuple[Axis, ...]
Parts = dict[tuple[int, Grid], Any]  # (offset, grid) -> an array of the grid's sizes, or a scalar


class UnknownError(Exception):
    """The program holds what this file has no rule for."""


class Value(NamedTuple):
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in v
    dtype: Any
    parts: Parts


def _sizes(grid: Grid) -> tuple[int, ...]:
    return tuple(size for _, size, _ in grid)


def _sum(parts: Iterable[tuple[int, Sequence[Axis], Any]]) -> Parts:
    out: Parts = {}
    for count, (offset, grid, part) in enumerate(parts):
        if count > _LIMIT:
            raise UnknownError
        key = offset, tuple((start, size, step if size > 1 else 1) for start, size, step in grid)
        if 0 in _sizes(key[1]):
            continue
        if key in out:
            part = np.add(out[key], part) if is_constant(out[key]) and is_constant(part) else jnp.add(out[key], part)
        out[key] = part
    return out


def _on(grid: Grid, array: Any) -> Any:
    """An array of the value's shape, or a scalar, on a part's grid."""
    if jnp.ndim(array) == 0:
        return array
    if array.shape == _sizes(grid):
        return array
    stops = [start + (size - 1) * step + 1 for start, size, step in grid]
    return lax.slice(array, [start for start, *_ in grid], stops, [step for *_, step in grid])


def _formed(grid: Grid, part: Any, dtype: Any) -> Array:
    return jnp.broadcast_to(jnp.asarray(part, dtype), _sizes(grid))


def _reshaped(part: Any, shape: Sequence[int]) -> Any:
    return part if jnp.ndim(part) == 0 else jnp.reshape(part, shape)


def _apart(grid: Grid, part: Any, axis: int) -> Iterable[tuple[Grid, Any]]:
    """A part as parts of size 1 along an axis."""
    start, size, step = grid[axis]
    if size > _SHORT:
        raise UnknownError
    for i in range(size):
        piece = part if jnp.ndim(part) == 0 or size == 1 else lax.slice_in_dim(part, i, i + 1, axis=axis)
        yield (*grid[:axis], (start + i * step, 1, 1), *grid[axis + 1 :]), piece


def _all_apart(parts: Parts, choose: Callable[[Grid], int | None]) -> list[tuple[int, Grid, Any]]:
    """The parts, each taken apart along the axis chosen for its grid until none is."""
    out, todo = [], [(*key, part) for key, part in parts.items()]
    while todo:
        o, grid, part = todo.pop()
        axis = choose(grid)
        if axis is None:
            out.append((o, grid, part))
        else:
            todo += [(o, piece, cut) for piece, cut in _apart(grid, part, axis)]
        if len(out) > _LIMIT:
            raise UnknownError
    return out


def _moved(value: Value, axis: int, stride: int) -> Value:
    """The same value with another stride along an axis: every entry there changes its offset, each by its own."""
    old = value.strides[axis]
    if old == stride:
        return value
    parts = _sum(
        (o + (old - stride) * piece[axis][0], piece, part)
        for (o, grid), whole in value.parts.items()
        for piece, part in _apart(grid, whole, axis)
    )
    return value._replace(strides=(*value.strides[:axis], stride, *value.strides[axis + 1 :]), parts=parts)


def _reach(axis: int, value: Value) -> int:
    return max((grid[axis][1] for _, grid in value.parts), default=0)


def _aligned(values: Sequence[Value]) -> list[Value]:
    """All with the same strides: along every axis those of the value with the longest part, or of the first."""
    values = list(values)
    for axis in range(len(values[0].shape)):
        stride = max(values, key=partial(_reach, axis)).strides[axis]
        values = [_moved(value, axis, stride) for value in values]
    return values


def _add(*operands: Any) -> Value:
    values = _aligned([a for a in operands if isinstance(a, Value)])  # what does not depend on v is zero
    return values[0]._replace(parts=_sum((*key, part) for value in values for key, part in value.parts.items()))


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
        return _on(grid, factor) if one else jnp.multiply(part, _on(grid, factor))

    return value._replace(parts={key: product(key[1], part) for key, part in value.parts.items()})


def _div(a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise UnknownError
    return a._replace(parts={key: jnp.divide(part, _on(key[1], b)) for key, part in a.parts.items()})


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
    values = iter(_aligned([case for case in cases if isinstance(case, Value)]))
    parts = []
    for number, case in enumerate(cases):
        if isinstance(case, Value):
            value = next(values)
            for (o, grid), part in value.parts.items():
                chosen = _on(grid, which) == number
                parts.append((o, grid, jnp.where(chosen, part, jnp.zeros((), value.dtype))))
    return value._replace(parts=_sum(parts))


def _transpose(a: Value, permutation: Sequence[int]) -> Value:
    pick = lambda of: tuple(of[i] for i in permutation)  # noqa: E731
    turn = lambda part: part if jnp.ndim(part) == 0 else lax.transpose(part, permutation)  # noqa: E731
    parts = {(o, pick(grid)): turn(part) for (o, grid), part in a.parts.items()}
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def _broadcast(a: Value, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any) -> Value:
    strides, new = [0] * len(shape), [axis for axis in range(len(shape)) if axis not in broadcast_dimensions]
    for axis, to in enumerate(broadcast_dimensions):
        if shape[to] != a.shape[axis]:
            a = _moved(a, axis, 0)
            new.append(to)
        strides[to] = a.strides[axis]
    parts = []
    for (o, grid), part in a.parts.items():
        wide = [(0, shape[to], 1) if to in new else grid[broadcast_dimensions.index(to)] for to in range(len(shape))]
        if jnp.ndim(part):
            part = lax.broadcast_in_dim(part, _sizes(tuple(wide)), broadcast_dimensions)
        parts.append((o, wide, part))
    return Value(tuple(shape), tuple(strides), a.dtype, _sum(parts))


def _widened(a: Any, shape: Sequence[int]) -> Any:
    """As an operand of elementwise operations, which widen axes of length 1 and scalars without saying so."""
    if not isinstance(a, Value):
        return a if jnp.ndim(a) == 0 else jnp.broadcast_to(a, shape)
    return a if a.shape == tuple(shape) else _broadcast(a, shape, range(len(shape) - len(a.shape), len(shape)))


def _squeeze(a: Value, dimensions: Sequence[int]) -> Value:
    keep = [axis for axis in range(len(a.shape)) if axis not in dimensions]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    parts = {(o, pick(grid)): _reshaped(part, _sizes(pick(grid))) for (o, grid), part in a.parts.items()}
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


def _slice(a: Value, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Any) -> Value:
    steps = strides or (1,) * len(a.shape)
    shape = tuple(-(-(b - a) // step) for a, b, step in zip(start_indices, limit_indices, steps, strict=True))
    shift = sum(start * stride for start, stride in zip(start_indices, a.strides, strict=True))
    parts = []
    for (o, grid), part in a.parts.items():
        cuts = [_cut(*each) for each in zip(grid, start_indices, limit_indices, steps, strict=True)]
        kept = [axis for axis, _ in cuts]
        if jnp.ndim(part) and 0 not in _sizes(tuple(kept)) and _sizes(tuple(kept)) != part.shape:
            entries = [entries for _, entries in cuts]
            part = lax.slice(part, [e.start for e in entries], [e.stop for e in entries], [e.step for e in entries])
        parts.append((o + shift, kept, part))
    new = tuple(stride * step for stride, step in zip(a.strides, steps, strict=True))
    return Value(shape, new, a.dtype, _sum(parts))


def _split(a: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    out, start = [], 0
    for size in sizes:
        starts, stops = [0] * len(a.shape), list(a.shape)
        starts[axis], stops[axis] = start, start + size
        out.append(_slice(a, starts, stops, None))
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
    a = _moved(a, axis, stride * (gap + 1))
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
    return _slice(a, starts, stops, None) if starts != [0] * len(wide) or stops != wide else a


def _concatenate(*operands: Any, dimension: int) -> Value:
    values = [a for a in operands if isinstance(a, Value)]
    shape = list(values[0].shape)
    shape[dimension] = sum(a.shape[dimension] for a in operands)
    if all(a.shape[dimension] == 1 for a in values):
        values = [_moved(a, dimension, _row_major(shape, dimension)) for a in values]
    aligned, start, placed = iter(_aligned(values)), 0, []
    for a in operands:
        if isinstance(a, Value):
            value = next(aligned)
            placed.append(_placed(value, dimension, start, 0, shape[dimension], value.strides[dimension]))
        start += a.shape[dimension]
    return _add(*placed)


def _stack(*operands: Any, axis: int) -> Value:
    def row(a: Any) -> Any:
        if not isinstance(a, Value):
            return jnp.expand_dims(a, axis)
        shape = (*a.shape[:axis], 1, *a.shape[axis:])
        return _broadcast(a, shape, [i for i in range(len(shape)) if i != axis])

    return _concatenate(*map(row, operands), dimension=axis)


def _unstack(a: Value, axis: int) -> list[Value]:
    return [_squeeze(row, [axis]) for row in _split(a, [1] * a.shape[axis], axis)]


def _reduce_sum(a: Value, axes: Sequence[int], **_: Any) -> Value:
    for axis in axes:
        a = _moved(a, axis, 0)
    keep = [axis for axis in range(len(a.shape)) if axis not in axes]
    pick = lambda of: tuple(of[axis] for axis in keep)  # noqa: E731
    summed = lambda grid, part: (  # noqa: E731
        jnp.sum(part, tuple(axes)) if jnp.ndim(part) else part * math.prod(grid[axis][1] for axis in axes)
    )
    parts = _sum((o, pick(grid), summed(grid, part)) for (o, grid), part in a.parts.items())
    return Value(pick(a.shape), pick(a.strides), a.dtype, parts)


def _dot_general(a: Any, b: Any, dimension_numbers: Any, preferred_element_type: Any, **params: Any) -> Value:
    left = isinstance(a, Value)
    value, factor = (a, b) if left else (b, a)
    if isinstance(factor, Value) or factor.dtype != value.dtype or preferred_element_type not in (None, value.dtype):
        raise UnknownError
    (contracted, to), (batch, to_batch) = ((x, y) if left else (y, x) for x, y in dimension_numbers)
    for axis in contracted:
        value = _moved(value, axis, 0)
    free = [axis for axis in range(len(value.shape)) if axis not in (*contracted, *batch)]
    other = [axis for axis in range(jnp.ndim(factor)) if axis not in (*to, *to_batch)]

    def order(of: Sequence[Any], others: Sequence[Any]) -> tuple:
        frees = [of[axis] for axis in free], list(others)
        return (*(of[axis] for axis in batch), *frees[not left], *frees[left])

    def short(grid: Grid) -> int | None:
        return next((axis for axis in contracted if 1 < grid[axis][1] <= _TERMS), None)

    parts = []
    for o, grid, part in _all_apart(value.parts, short):  # term by term: XLA fuses that
        whole = [(0, size, 1) for size in factor.shape]
        for axis, there in zip((*contracted, *batch), (*to, *to_batch), strict=True):
            whole[there] = grid[axis]
        one, two = _formed(grid, part, value.dtype), _on(tuple(whole), factor)
        product = lax.dot_general(*((one, two) if left else (two, one)), dimension_numbers, **params)  # type: ignore[call-arg]
        parts.append((o, order(grid, [whole[axis] for axis in other]), product))
    shape = order(value.shape, [factor.shape[axis] for axis in other])
    return Value(shape, order(value.strides, [0] * len(other)), value.dtype, _sum(parts))


def _merged(a: Value, first: int, last: int) -> Value:
    """With the axes first .. last - 1 as one, row-major."""
    sizes = a.shape[first:last]
    longest = max(range(first, last), key=lambda axis: a.shape[axis])
    stride = a.strides[longest] // _row_major(a.shape[:last], longest)
    for axis in range(first, last):
        a = _moved(a, axis, stride * _row_major(a.shape[:last], axis))

    def spread(grid: Grid) -> list[int]:
        return [axis for axis in range(first, last) if grid[axis][1] > 1]

    def step(grid: Grid, axis: int) -> int:
        return grid[axis][2] * _row_major(a.shape[:last], axis)

    def uneven(grid: Grid) -> int | None:
        even = all(step(grid, p) == step(grid, q) * grid[q][1] for p, q in pairwise(spread(grid)))
        return None if even else min(spread(grid), key=lambda axis: grid[axis][1])

    parts = []
    for o, grid, part in _all_apart(a.parts, uneven):
        start = sum(grid[axis][0] * _row_major(a.shape[:last], axis) for axis in range(first, last))
        size, own = math.prod(_sizes(grid[first:last])), spread(grid)
        one = (*grid[:first], (start, size, step(grid, own[-1]) if own else 1), *grid[last:])
        parts.append((o, one, _reshaped(part, _sizes(one))))
    shape, strides = [(*of[:first], one, *of[last:]) for of, one in ((a.shape, math.prod(sizes)), (a.strides, stride))]
    return Value(shape, strides, a.dtype, _sum(parts))


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
                part = lax.pad(_formed(grid, part, a.dtype), jnp.zeros((), a.dtype), config)
                start, size = 0, total
            outer, within = (start // inner, size // inner, 1), (0, inner, 1)
        new = (*grid[:axis], outer, within, *grid[axis + 1 :])
        parts.append((o, new, _reshaped(part, _sizes(new))))
    stride = a.strides[axis]
    shape = (*a.shape[:axis], sizes[0], inner, *a.shape[axis + 1 :])
    strides = (*a.strides[:axis], stride * inner, stride, *a.strides[axis + 1 :])
    return _unmerged(Value(shape, strides, a.dtype, _sum(parts)), axis + 1, sizes[1:])


def _reshape(a: Value, new_sizes: Sequence[int]) -> Value:
    if 0 in new_sizes:
        raise UnknownError
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


class Blocks(NamedTuple):
    """Values of any shape, ravelled and joined to an array of one axis: where that has no strides of its own."""

    values: tuple[Value, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)

    @property
    def sizes(self) -> list[int]:
        return [math.prod(value.shape) for value in self.values]

    @property
    def parts(self) -> Parts:
        return {key: part for value in self.values for key, part in value.parts.items()}


def _reshape_or_ravel(
    a: Value, new_sizes: Sequence[int], dimensions: Sequence[int] | None = None, **_: Any
) -> Blocks | Value:
    a = a if dimensions is None else _transpose(a, dimensions)
    try:
        return _reshape(a, new_sizes)
    except UnknownError:
        if len(new_sizes) != 1:
            raise
        return Blocks((a,))


def _joined(*operands: Any, dimension: int) -> Blocks | Value:
    """Concatenated, in blocks where strides differ."""
    if not any(isinstance(a, Blocks) for a in operands):
        try:
            return _concatenate(*operands, dimension=dimension)
        except UnknownError:
            if jnp.ndim(operands[0]) != 1 and len(operands[0].shape) != 1:
                raise
    dtype = next(a.values[0].dtype if isinstance(a, Blocks) else a.dtype for a in operands if _is_linear(a))
    values: list[Value] = []
    for a in operands:
        values += a.values if isinstance(a, Blocks) else [a if isinstance(a, Value) else _nothing(a.shape[0], dtype)]
    return Blocks(tuple(values))


def _nothing(size: int, dtype: Any) -> Value:
    return Value((size,), (1,), dtype, {})


def _is_linear(a: Any) -> bool:
    return isinstance(a, (Value, Blocks))


def _cut_blocks(a: Blocks, start: int, stop: int) -> Blocks | Value:
    """Entries start .. stop - 1."""
    values, at = [], 0
    for value, size in zip(a.values, a.sizes, strict=True):
        low, high = max(start - at, 0), min(stop - at, size)
        if low < high:
            values.append(value if high - low == size else _slice(_whole(value), (low,), (high,), None))
        at += size
    return values[0] if len(values) == 1 and len(values[0].shape) == 1 else Blocks(tuple(values))


def _whole(a: Any) -> Value:
    """As a value, of one axis."""
    if isinstance(a, Blocks):
        if len(a.values) != 1:
            raise UnknownError
        a = a.values[0]
    return a if len(a.shape) == 1 else _reshape(a, (math.prod(a.shape),))


def _by_blocks(name: str, operands: Sequence[Any], params: Any) -> Any:
    """The rules for operations on arrays of one axis of which some are in blocks."""
    if name in _ELEMENTWISE or name == "convert_element_type":
        blocks = next(a for a in operands if isinstance(a, Blocks))
        rows: list[list[Any]] = [[] for _ in blocks.values]
        for a in operands:
            if isinstance(a, Blocks) and [v.shape for v in a.values] != [v.shape for v in blocks.values]:
                raise UnknownError
            at = 0
            for i, (value, size) in enumerate(zip(blocks.values, blocks.sizes, strict=True)):
                if isinstance(a, Blocks):
                    piece: Any = a.values[i]
                elif isinstance(a, Value):
                    piece = _reshape(_slice(a, (at,), (at + size,), None), value.shape)
                else:
                    piece = a if jnp.ndim(a) == 0 else jnp.reshape(a[at : at + size], value.shape)
                rows[i].append(piece)
                at += size
        return Blocks(tuple(_RULES[name](*row, **params) for row in rows))
    (a, *rest) = operands
    if name == "slice" and not params["strides"]:
        return _cut_blocks(a, params["start_indices"][0], params["limit_indices"][0])
    if name == "split":
        ends = np.cumsum(params["sizes"]).tolist()
        return [_cut_blocks(a, end - size, end) for end, size in zip(ends, params["sizes"], strict=True)]
    if name == "pad" and not isinstance(rest[0], (Value, Blocks)):
        ((low, high, gap),) = params["padding_config"]
        if gap == 0 and min(low, high) >= 0:
            dtype = a.values[0].dtype
            around = [(_nothing(size, dtype),) if size else () for size in (int(low), int(high))]
            return Blocks((*around[0], *a.values, *around[1]))
    if name == "reshape":
        (value,) = a.values if len(a.values) == 1 else (_whole(a),)
        return _reshape_or_ravel(value, **params)
    if name == "concatenate":
        return _joined(*operands, **params)
    raise UnknownError(name)


_RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "copy": lambda a: a,
    "convert_element_type": _convert,
    "select_n": _select,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "slice": _slice,
    "split": _split,
    "rev": _rev,
    "pad": _pad,
    "concatenate": _joined,
    "stack": _stack,
    "unstack": _unstack,
    "reduce_sum": _reduce_sum,
    "reshape": _reshape_or_ravel,
    "dot_general": _dot_general,
}


_ELEMENTWISE = {"add", "add_any", "sub", "neg", "mul", "div", "copy", "select_n"}
_ARITHMETIC = {"neg", "mul", "div", "select_n", "convert_element_type", "reduce_sum", "dot_general"}


def _carry(closed: ClosedJaxpr, n: int, dtype: Any, most: int) -> Value:
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values[closed.jaxpr.invars[0]] = Value((n,), (1,), dtype, {(0, ((0, n, 1),)): np.ones((), dtype)})
    spent = 0

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in needed(closed.jaxpr, closed.jaxpr.outvars, ()):
        operands, name = [read(atom) for atom in equation.invars], equation.primitive.name
        if any(map(_is_linear, operands)):
            if name not in _RULES:
                raise UnknownError(name)
            params = {} if name in _ELEMENTWISE else equation.params
            in_blocks = any(isinstance(a, Blocks) for a in operands)
            if name in _ELEMENTWISE and not in_blocks:
                operands = [
                    _widened(a, equation.outvars[0].aval.shape)  # type: ignore[attr-defined]
                    for a in operands
                ]
            results = _by_blocks(name, operands, params) if in_blocks else _RULES[name](*operands, **params)
            results = results if isinstance(results, list) else [results]
            if name in _ARITHMETIC:
                spent += sum(len(a.parts) for a in (*operands, *results) if _is_linear(a))
            if spent > most:
                raise UnknownError
        else:
            results = bind(equation, operands)
        values |= zip(equation.outvars, results, strict=True)
    result = read(closed.jaxpr.outvars[0])
    if not _is_linear(result):
        raise UnknownError
    return _moved(_whole(result), 0, 1)


def diagonals(matvec: Callable[[Array], Array], n: int, rows: int, dtype: Any, longest: int) -> Array | None:
    """The lower band `(rows, n)` of a linear program by at most so many operations, or None: then it takes probes."""
    closed, _ = flattened(matvec, jax.ShapeDtypeStruct((n,), dtype))
    if closed is None:
        return None
    try:
        with np.errstate(all="ignore"):  # of constants
            flat, shape = flattened(
                lambda: _band(_carry(closed, n, dtype, 4 * longest // 3), rows)
            )  # some are not needed
    except UnknownError:
        return None
    if flat is None or len(needed(flat.jaxpr, flat.jaxpr.outvars, ())) > longest:
        return None
    return arranged(flat, shape)()


def _band(value: Value, rows: int) -> Array:
    n, dtype = value.shape[0], value.dtype
    band = [jnp.zeros(n, dtype)] * rows
    for (o, grid), part in value.parts.items():
        start, size, step = grid[0]
        if start + o >= n or start + (size - 1) * step + o < 0:
            continue  # zeros, from where `_unmerged` filled a grid up
        if abs(o) >= rows:
            raise UnknownError
        if o <= 0:
            config = [(start + o, n - (start + o) - (size - 1) * step - 1, step - 1)]
            band[-o] = band[-o] + lax.pad(_formed(grid, part, dtype), jnp.zeros((), dtype), config)
    return jnp.stack(band)
