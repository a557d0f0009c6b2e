"""Values of any shape, ravelled and joined to one axis: where that has no strides of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .rules import ELEMENTWISE, RULES, cut, reshape, transpose
from .values import Parts, UnknownError, Value


class Blocks(NamedTuple):
    """An array of one axis."""

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


def apply(name: str, operands: Sequence[Any], params: Any) -> Any:
    """An operation on values, blocks and what does not depend on v."""
    if any(isinstance(a, Blocks) for a in operands):
        return _by_blocks(name, operands, params)
    if name not in RULES:
        raise UnknownError(name)
    try:
        return RULES[name](*operands, **params)
    except UnknownError:
        if name == "reshape" and len(params["new_sizes"]) == 1:
            (a,) = operands
            return Blocks((a if params["dimensions"] is None else transpose(a, params["dimensions"]),))
        if name == "concatenate" and len(operands[0].shape) == 1:
            return _joined(operands)
        raise


def _joined(operands: Sequence[Any]) -> Blocks:
    dtype = next(a.values[0].dtype if isinstance(a, Blocks) else a.dtype for a in operands if is_linear(a))
    values: list[Value] = []
    for a in operands:
        values += a.values if isinstance(a, Blocks) else [a if isinstance(a, Value) else _nothing(a.shape[0], dtype)]
    return Blocks(tuple(values))


def _nothing(size: int, dtype: Any) -> Value:
    return Value((size,), (1,), dtype, {})


def is_linear(a: Any) -> bool:
    return isinstance(a, (Value, Blocks))


def _cut_blocks(a: Blocks, start: int, stop: int) -> Blocks | Value:
    """Entries start .. stop - 1."""
    values, at = [], 0
    for value, size in zip(a.values, a.sizes, strict=True):
        low, high = max(start - at, 0), min(stop - at, size)
        if low < high:
            values.append(value if high - low == size else cut(whole(value), (low,), (high,), None))
        at += size
    return values[0] if len(values) == 1 and len(values[0].shape) == 1 else Blocks(tuple(values))


def whole(a: Any) -> Value:
    """As a value, of one axis."""
    if isinstance(a, Blocks):
        if len(a.values) != 1:
            raise UnknownError
        a = a.values[0]
    return a if len(a.shape) == 1 else reshape(a, (math.prod(a.shape),))


def _by_blocks(name: str, operands: Sequence[Any], params: Any) -> Any:
    """The rules for operations on arrays of one axis of which some are in blocks."""
    if name in ELEMENTWISE or name == "convert_element_type":
        blocks = next(a for a in operands if isinstance(a, Blocks))
        rows: list[list[Any]] = [[] for _ in blocks.values]
        for a in operands:
            shape = a.shape if is_linear(a) else jnp.shape(a)
            if shape != blocks.shape and (shape or is_linear(a)):
                raise UnknownError
            if isinstance(a, Blocks) and [v.shape for v in a.values] != [v.shape for v in blocks.values]:
                raise UnknownError
            at = 0
            for i, (value, size) in enumerate(zip(blocks.values, blocks.sizes, strict=True)):
                if isinstance(a, Blocks):
                    piece: Any = a.values[i]
                elif isinstance(a, Value):
                    piece = reshape(cut(a, (at,), (at + size,), None), value.shape)
                else:
                    piece = a if jnp.ndim(a) == 0 else jnp.reshape(a[at : at + size], value.shape)
                rows[i].append(piece)
                at += size
        return Blocks(tuple(RULES[name](*row, **params) for row in rows))
    (a, *rest) = operands
    if name == "slice" and params["strides"] in (None, (1,)):
        return _cut_blocks(a, int(params["start_indices"][0]), int(params["limit_indices"][0]))
    if name == "split":
        ends = np.cumsum(params["sizes"]).tolist()
        return [_cut_blocks(a, end - size, end) for end, size in zip(ends, params["sizes"], strict=True)]
    if name == "pad" and not isinstance(rest[0], (Value, Blocks)):
        ((low, high, gap),) = params["padding_config"]
        if gap == 0:
            kept = _cut_blocks(a, max(-low, 0), a.shape[0] - max(-high, 0))
            values = kept.values if isinstance(kept, Blocks) else (kept,)
            around = [(_nothing(int(size), a.values[0].dtype),) if size > 0 else () for size in (low, high)]
            return Blocks((*around[0], *values, *around[1]))
    if name == "reshape" and len(a.values) == 1:
        return apply(name, a.values, params)
    if name == "concatenate":
        return _joined(operands)
    raise UnknownError(name)
