"""A linear program walked through with a value in the place of v, and the band read off what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.diagonals import band
from bandhess_common.diagonals.fallback import UnknownError, carry_or_none
from bandhess_common.diagonals.values import Value, vector

from ...framework.fusion import arranged
from ...framework.programs import bind, flattened, is_literal, needed
from .blocks import Blocks, apply, flat, is_linear
from .coefficients import Coefficient
from .translator import ARITHMETIC, ELEMENTWISE, widen

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr  # which brings pallas with it


def carry(
    program: ClosedJaxpr, n: int, rows: int, budget: int, closed: bool = False, trimmed: bool = False
) -> Array | None:
    """The lower band `(rows, n)` of a flat linear program of vectors `(n,)`, or None: see the package's docstring.

    The budget is the number of operations that the band takes. trimmed: without the diagonals below the last one that
    holds anything.
    """

    def carried() -> Array | None:
        most = budget + 1200  # some turn out not to be needed
        with np.errstate(all="ignore"):  # of constants
            arithmetic, shape = flattened(lambda: _band(follow(program, most), rows, closed, trimmed))
        if arithmetic is None or len(needed(arithmetic.jaxpr, arithmetic.jaxpr.outvars, ())) > budget:
            return None
        return arranged(arithmetic, shape)()

    return carry_or_none(carried)


def follow(program: ClosedJaxpr, most: int) -> Value:
    """What the program makes of v, by arithmetic on at most so many parts."""
    jaxpr = program.jaxpr
    (v,) = jaxpr.invars
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values[v] = vector(v.aval.shape[0], v.aval.dtype, Coefficient(np.ones((), v.aval.dtype)))
    spent = 0

    def read(atom: Any) -> Any:
        return atom.val if is_literal(atom) else values[atom]

    for equation in needed(jaxpr, jaxpr.outvars, ()):
        operands = [read(atom) for atom in equation.invars]
        if any(map(is_linear, operands)):
            results = _results(equation, operands)
            if equation.primitive.name in ARITHMETIC:
                spent += sum(len(a.parts) for a in (*operands, *results) if is_linear(a))
            if spent > most:
                raise UnknownError("too long")
        else:
            results = bind(equation, operands)
        values |= zip(equation.outvars, results, strict=True)
    result = read(jaxpr.outvars[0])
    if not is_linear(result):
        raise UnknownError("no part of it depends on v")
    return flat(result)


def _results(equation: Any, operands: list[Any]) -> list[Any]:
    """Of an equation with operands that depend on v: each of the shape and type that the equation says."""
    name, expected = equation.primitive.name, [variable.aval for variable in equation.outvars]
    if name in ELEMENTWISE and not any(isinstance(a, Blocks) for a in operands):
        operands = [widen(a, expected[0].shape) for a in operands]
    results = apply(name, operands, equation.params)
    for result, aval in zip(results, expected, strict=True):
        if (*result.shape,) != aval.shape or result.dtype != aval.dtype:
            raise TypeError(f"{name} gave {result.shape} {result.dtype} in the place of {aval.str_short()}")
    return results


def _band(value: Value, rows: int, closed: bool, trimmed: bool) -> Array:
    n, dtype = value.shape[0], value.dtype
    ab, last = [jnp.zeros(n, dtype)] * rows, 0
    for r, (start, size, step), part in (band.ring if closed else band.diagonals)(value, rows):
        config = [(start, n - start - (size - 1) * step - 1, step - 1)]
        ab[r] = ab[r] + lax.pad(part.formed([(start, size, step)], dtype), jnp.zeros((), dtype), config)
        last = max(last, r)
    return jnp.stack(ab[: last + 1] if trimmed else ab)
