"""From a jaxpr's operations to the rules of `bandhess_common.diagonals`, by the names that JAX gives them.

A translation takes the operands of an equation, and its parameters by name; it does nothing with those that say nothing
about numbers (`sharding` and the like). A parameter that no translation has, as a newer JAX may add one, must be None,
which asks for nothing; with any other value the operation is unknown.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
from jax import lax

from bandhess_common.diagonals import arithmetic, geometry
from bandhess_common.diagonals.fallback import UnknownError
from bandhess_common.diagonals.values import Value, collect
from bandhess_common.grids import sizes


def translate(name: str, operands: Sequence[Any], params: Any) -> list[Any]:
    """The results of an operation with some Value among its operands; elementwise, they are of one shape or scalars."""
    if name not in TRANSLATIONS:
        raise UnknownError(name)
    known = _signature(name).parameters
    params = {key: value for key, value in params.items() if key in known or value is not None}
    try:
        _signature(name).bind(*operands, **params)
    except TypeError as error:
        raise UnknownError(f"{name}: {error}") from None
    results = TRANSLATIONS[name](*operands, **params)
    return results if isinstance(results, list) else [results]


@cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(TRANSLATIONS[name])


def widen(a: Any, shape: Sequence[int]) -> Any:
    """As an operand of elementwise operations, which widen axes of length 1 and scalars without saying so."""
    if not isinstance(a, Value):
        return a if jnp.ndim(a) == 0 else jnp.broadcast_to(a, shape)
    return geometry.expand(a, shape, range(len(shape) - len(a.shape), len(shape)))


def _add(*operands: Any) -> Value:
    return arithmetic.add(*(a for a in operands if isinstance(a, Value)))


def _sub(a: Any, b: Any) -> Value:
    return _add(a, arithmetic.negate(b)) if isinstance(b, Value) else a


def _mul(a: Any, b: Any) -> Value:
    value, factor = (a, b) if isinstance(a, Value) else (b, a)
    if isinstance(factor, Value):
        raise UnknownError("not linear")
    return arithmetic.scale(value, factor)


def _div(a: Any, b: Any) -> Value:
    if isinstance(b, Value):
        raise UnknownError("not linear")
    return arithmetic.divide(a, b)


def _convert(a: Value, new_dtype: Any, weak_type: Any = None, sharding: Any = None) -> Value:
    if not jnp.issubdtype(new_dtype, jnp.floating):
        raise UnknownError("not linear")
    return a._replace(dtype=new_dtype, parts={key: part.convert(new_dtype) for key, part in a.parts.items()})


def _select(which: Any, *cases: Any) -> Value:
    if isinstance(which, Value):
        raise UnknownError("not linear")
    chosen = [which == jnp.asarray(k, which.dtype) for k in range(len(cases))]  # which is boolean where cases are two
    return arithmetic.where([(c, case) for c, case in zip(chosen, cases, strict=True) if isinstance(case, Value)])


def _broadcast(a: Value, shape: Sequence[int], broadcast_dimensions: Sequence[int], sharding: Any = None) -> Value:
    return geometry.expand(a, shape, broadcast_dimensions)


def _slice(a: Value, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Any) -> Value:
    bounds = zip(start_indices, limit_indices, strides or (1,) * len(a.shape), strict=True)
    return geometry.slice_(a, {axis: cut for axis, cut in enumerate(bounds) if cut != (0, a.shape[axis], 1)})


def _split(a: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [geometry.slice_(a, {axis: (end - size, end, 1)}) for end, size in zip(ends, sizes, strict=True)]


def _pad(a: Any, zero: Any, padding_config: Sequence[tuple[int, int, int]]) -> Value:
    if not isinstance(a, Value) or isinstance(zero, Value):
        raise UnknownError("not linear")
    cuts = {}
    for axis, (low, high, gap) in reversed([*enumerate(padding_config)]):
        low, high, step, size = int(low), int(high), int(gap) + 1, a.shape[axis]
        length = max(low, 0) + size + max(size - 1, 0) * (step - 1) + max(high, 0)
        a = geometry.place(a, axis, max(low, 0), step, length)
        if min(low, high) < 0:
            cuts[axis] = (max(-low, 0), length - max(-high, 0), 1)
    return geometry.slice_(a, cuts) if cuts else a


def _concatenate(*operands: Any, dimension: int) -> Value:
    return geometry.concatenate(operands, dimension)


def _stack(*operands: Any, axis: int) -> Value:
    return geometry.stack(operands, axis, jnp.expand_dims)


def _unstack(a: Value, axis: int) -> list[Value]:
    return [geometry.squeeze(row, [axis]) for row in _split(a, [1] * a.shape[axis], axis)]


def _reduce_sum(a: Value, axes: Sequence[int], out_sharding: Any = None) -> Value:
    return arithmetic.sum_over(a, axes)


def _reshape(a: Value, new_sizes: Sequence[int], dimensions: Sequence[int] | None, sharding: Any = None) -> Value:
    a = a if dimensions is None else geometry.permute(a, dimensions)
    return geometry.reshape(_whole(a) if len(new_sizes) == 1 < len(a.shape) else a, new_sizes)


def _whole(a: Value) -> Value:
    """With windows of rows, [1:] say, filled up with zeros to all rows.

    Devices that share the rows of (512, 3) evenly share its ravelled entries alike: those of a window they would not.
    """
    T, parts = a.shape[0], []
    for (o, grid), part in a.parts.items():
        (_, size, step), *inner = grid
        if 1 < size < T and step == 1 and math.prod(sizes(inner)) > 1 and jnp.ndim(part.array):
            part, grid = part.fill(grid, 0, T, a.dtype), ((0, T, 1), *inner)
        parts.append((o, grid, part))
    return a._replace(parts=collect(parts))


def _dot_general(
    a: Any, b: Any, dimension_numbers: Any, precision: Any, preferred_element_type: Any, out_sharding: Any = None
) -> Value:
    first = isinstance(a, Value)
    value, factor = (a, b) if first else (b, a)
    if isinstance(factor, Value) or factor.dtype != value.dtype or preferred_element_type not in (None, value.dtype):
        raise UnknownError("not linear, or of several types")

    def product(c: Any, factor: Any) -> Any:
        operands = (c, factor) if first else (factor, c)
        return lax.dot_general(
            *operands, dimension_numbers, precision=precision, preferred_element_type=preferred_element_type
        )

    summed, batch = (pair if first else pair[::-1] for pair in dimension_numbers)
    return arithmetic.contract(value, factor, summed, batch, first, product)


TRANSLATIONS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "neg": lambda a: arithmetic.negate(a),
    "mul": _mul,
    "div": _div,
    "copy": lambda a: a,
    "convert_element_type": _convert,
    "select_n": _select,
    "transpose": lambda a, permutation: geometry.permute(a, permutation),
    "broadcast_in_dim": _broadcast,
    "squeeze": lambda a, dimensions: geometry.squeeze(a, dimensions),
    "slice": _slice,
    "split": _split,
    "rev": lambda a, dimensions: geometry.flip(a, dimensions),
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "reduce_sum": _reduce_sum,
    "reshape": _reshape,
    "dot_general": _dot_general,
}
ELEMENTWISE = {"add", "add_any", "sub", "neg", "mul", "div", "copy", "select_n", "convert_element_type"}
ARITHMETIC = {"neg", "mul", "div", "select_n", "convert_element_type", "reduce_sum", "dot_general"}
