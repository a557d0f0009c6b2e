"""Values of any shape, ravelled and joined to one axis: where that has no strides of its own.

    a (40, 3), strides 5 1, ravelled: entry 3 t + i reads v[o + 5 t + i], and no stride of 3 t + i is 5 t + i.

Such a vector is kept as the values whose entries follow each other in it, and what is elementwise goes on within them,
until it is cut or reshaped to those again. JAX alone has this file, for it carries any program: those of least squares
and of constraints ravel residuals to one vector and back. PyTorch carries the gradient's own graph, which does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jax.numpy as jnp

from bandhess_common.diagonals.fallback import UnknownError
from bandhess_common.diagonals.geometry import permute, reshape, slice_
from bandhess_common.diagonals.values import Parts, Value

from .translator import ELEMENTWISE, translate


class Blocks(NamedTuple):
    """An array of one axis: the entries of these values, one value after the other."""

    values: tuple[Value, ...]

    @property
    def sizes(self) -> list[int]:
        return [math.prod(value.shape) for value in self.values]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)

    @property
    def dtype(self) -> Any:
        return self.values[0].dtype

    @property
    def parts(self) -> Parts:
        return {key: part for value in self.values for key, part in value.parts.items()}


def is_linear(a: Any) -> bool:
    """Whether an operand depends on v."""
    return isinstance(a, (Value, Blocks))


def flat(a: Value | Blocks) -> Value:
    """As a value of one axis."""
    if isinstance(a, Blocks):
        if len(a.values) != 1:
            raise UnknownError("blocks of several values")
        (a,) = a.values
    return a if len(a.shape) == 1 else reshape(a, (math.prod(a.shape),))


def apply(name: str, operands: Sequence[Any], params: Any) -> list[Any]:
    """The results of an operation on values, blocks and what does not depend on v."""
    if any(isinstance(a, Blocks) for a in operands):
        return _on_blocks(name, operands, params)
    try:
        return translate(name, operands, params)
    except UnknownError:
        if name == "reshape" and len(params["new_sizes"]) == 1:
            (a,) = operands
            return [Blocks((a if params["dimensions"] is None else permute(a, params["dimensions"]),))]
        if name == "concatenate" and len(operands[0].shape) == 1:
            return [_join(operands)]
        raise


def _on_blocks(name: str, operands: Sequence[Any], params: Any) -> list[Any]:
    if name in ELEMENTWISE:
        return [_elementwise(name, operands, params)]
    if name == "concatenate":
        return [_join(operands)]
    a = operands[0]
    if name == "slice" and params["strides"] in (None, (1,)):
        return [_cut(a, int(params["start_indices"][0]), int(params["limit_indices"][0]))]
    if name == "split":
        ends = accumulate(params["sizes"])
        return [_cut(a, end - size, end) for end, size in zip(ends, params["sizes"], strict=True)]
    if name == "pad" and isinstance(a, Blocks) and not is_linear(operands[1]):
        return [_pad(a, *map(int, params["padding_config"][0]))]
    if name == "reshape" and len(a.values) == 1:
        return apply(name, a.values, params)
    raise UnknownError(f"{name} of blocks")


def _zeros(size: int, dtype: Any) -> Value:
    return Value((size,), (1,), dtype, {})


def _join(operands: Sequence[Any]) -> Blocks:
    dtype = next(a.dtype for a in operands if is_linear(a))
    values: list[Value] = []
    for a in operands:
        values += a.values if isinstance(a, Blocks) else [a if isinstance(a, Value) else _zeros(a.shape[0], dtype)]
    return Blocks(tuple(values))


def _cut(a: Blocks, start: int, stop: int) -> Blocks | Value:
    """Entries start .. stop - 1: whole values, and of those at the ends a part."""
    values, at = [], 0
    for value, size in zip(a.values, a.sizes, strict=True):
        low, high = max(start - at, 0), min(stop - at, size)
        if low < high:
            values.append(value if high - low == size else slice_(flat(value), {0: (low, high, 1)}))
        at += size
    return values[0] if len(values) == 1 and len(values[0].shape) == 1 else Blocks(tuple(values))


def _pad(a: Blocks, low: int, high: int, gap: int) -> Blocks:
    """Zeros before and behind, or less where their number is negative."""
    if gap:
        raise UnknownError("gaps in blocks")
    kept = _cut(a, max(-low, 0), a.shape[0] - max(-high, 0))
    before, behind = ([_zeros(size, a.dtype)] if size > 0 else [] for size in (low, high))
    return _join([*before, kept, *behind])


def _elementwise(name: str, operands: Sequence[Any], params: Any) -> Blocks:
    """Value by value; other operands are cut as the blocks are."""
    blocks = next(a for a in operands if isinstance(a, Blocks))
    ends = list(accumulate(blocks.sizes))
    rows = zip(*(_pieces(a, blocks, ends) for a in operands), strict=True)
    return Blocks(tuple(translate(name, row, params)[0] for row in rows))


def _pieces(a: Any, like: Blocks, ends: Sequence[int]) -> list[Any]:
    """What of an operand meets each of the blocks."""
    shape = a.shape if is_linear(a) else jnp.shape(a)
    if shape != like.shape and (shape or is_linear(a)):
        raise UnknownError("blocks and another shape")
    if isinstance(a, Blocks):
        if [value.shape for value in a.values] != [value.shape for value in like.values]:
            raise UnknownError("blocks of different shapes")
        return list(a.values)
    if not shape:
        return [a] * len(ends)
    starts, shapes = [0, *ends[:-1]], [value.shape for value in like.values]
    bounds = zip(starts, ends, shapes, strict=True)
    if isinstance(a, Value):
        return [reshape(slice_(a, {0: (start, end, 1)}), shape) for start, end, shape in bounds]
    return [jnp.reshape(a[start:end], shape) for start, end, shape in bounds]
