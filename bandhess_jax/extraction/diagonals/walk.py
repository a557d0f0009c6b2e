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

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from ...framework.fusion import arranged
from ...framework.programs import bind, flattened, needed
from .blocks import Blocks, apply, is_linear, whole
from .rules import ARITHMETIC, ELEMENTWISE, widened
from .values import UnknownError, Value, formed, moved


def _carry(closed: ClosedJaxpr, n: int, dtype: Any, most: int) -> Value:
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values[closed.jaxpr.invars[0]] = Value((n,), (1,), dtype, {(0, ((0, n, 1),)): np.ones((), dtype)})
    spent = 0

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in needed(closed.jaxpr, closed.jaxpr.outvars, ()):
        operands, name = [read(atom) for atom in equation.invars], equation.primitive.name
        if any(map(is_linear, operands)):
            params = {} if name in ELEMENTWISE else equation.params
            if name in ELEMENTWISE and not any(isinstance(a, Blocks) for a in operands):
                operands = [
                    widened(a, equation.outvars[0].aval.shape)  # type: ignore[attr-defined]
                    for a in operands
                ]
            results = apply(name, operands, params)
            results = results if isinstance(results, list) else [results]
            if name in ARITHMETIC:
                spent += sum(len(a.parts) for a in (*operands, *results) if is_linear(a))
            if spent > most:
                raise UnknownError
        else:
            results = bind(equation, operands)
        values |= zip(equation.outvars, results, strict=True)
    result = read(closed.jaxpr.outvars[0])
    if not is_linear(result):
        raise UnknownError
    return moved(whole(result), 0, 1)


def diagonals(closed: ClosedJaxpr, n: int, rows: int, dtype: Any, longest: int) -> Array | None:
    """The lower band `(rows, n)` of a flat linear program by at most so many operations; or None: it takes probes."""
    try:
        with np.errstate(all="ignore"):  # of constants
            most = longest + 1200  # some turn out not to be needed
            flat, shape = flattened(lambda: _band(_carry(closed, n, dtype, most), rows))
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
            band[-o] = band[-o] + lax.pad(formed(grid, part, dtype), jnp.zeros((), dtype), config)
    return jnp.stack(band)
