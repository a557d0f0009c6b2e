"""The minimiser as a function of what the objective depends on: the implicit function theorem, one more solve.

With g(x, c) = 0 at the minimiser, dx = -H^-1 (dg/dc) dc: never through the iterations. The minimum f(x(c), c) has the
derivative df/dc, whether or not H has an inverse: the envelope theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding

from bandhess_common.stopping import UNSURE

from ...band.stages import Layout
from ...band.structures import diagonal, row_sums, shifted
from ...extraction.products import Extraction, extract
from ...linalg.solve import factor, solve
from ..solved import nan_unless, solved
from .split import split


def close(fun: Callable, x: Array) -> tuple[Callable, list[Array], list[Array]]:
    """`(closed, consts, fixed)` with `fun(x) = closed(x, consts, fixed)`: the traced arrays that fun closes over, as
    arguments, so that a derivative rule sees them. consts are floating, fixed are not. fun is traced once, here."""
    program, shape = jax.make_jaxpr(fun, return_shape=True)(x)
    jaxpr, treedef = program.jaxpr, jax.tree.structure(shape)  # the program itself holds tracers
    traced = [isinstance(c, jax.core.Tracer) for c in program.consts]
    moving = [t and jnp.issubdtype(c.dtype, jnp.floating) for c, t in zip(program.consts, traced, strict=True)]
    kept = [None if t else c for c, t in zip(program.consts, traced, strict=True)]

    def closed(x: Array, consts: list[Array], fixed: list[Array]) -> Any:
        floating, others = iter(consts), iter(fixed)
        every = [
            next(floating) if moves else next(others) if given else c
            for c, given, moves in zip(kept, traced, moving, strict=True)
        ]
        return jax.tree.unflatten(treedef, jax.core.eval_jaxpr(jaxpr, every, x))

    pairs = list(zip(program.consts, traced, moving, strict=True))
    return closed, [c for c, _, moves in pairs if moves], [c for c, given, moves in pairs if given and not moves]


def implicit_solution(
    minimise: Callable[[list[Array], Any], tuple],
    value: Callable[[Array, list[Array], Any], Array],
    layout: Layout,
    extraction: Extraction,
    sharding: NamedSharding | None,
) -> Callable[[list[Array], Any], tuple]:
    """`minimise`, differentiable with respect to consts, to any order in both modes.

    minimise takes consts and a tree of other arrays, and returns `(x, value, status, *rest)`, floating arrays all;
    value is `(x, consts, others) -> f`; layout, extraction and sharding are those of its Hessian.

    Derivatives are NaN where status tells of no solution; those of x also where H is singular to rounding (H less
    8 eps of its diagonal is not positive definite). Those of `rest` are zero.
    """

    @jax.custom_jvp
    def solution(consts: list[Array], others: Any) -> tuple:
        return minimise(consts, others)

    @solution.defjvp
    def rule(primals: tuple, tangents: tuple) -> tuple:
        (consts, others), (dconsts, _) = primals, tangents
        out = solution(consts, others)
        x, _, status, *rest = out
        grad = jax.grad(value)
        product = jax.linearize(lambda x: grad(x, consts, others), x)[1]
        ab = split(layout, sharding, extract(product, layout, extraction))
        fixed = lax.stop_gradient(ab)
        doubt = UNSURE * jnp.finfo(x.dtype).eps * jnp.abs(diagonal(fixed))
        regular = factor(shifted(fixed, -doubt), sharding=sharding).ok
        found = solved(status)
        # Where H has no inverse, another matrix stands in its place, so that a factor of 0 makes 0 of what it gives.
        repair = jnp.where(regular, 0, 1 + jnp.max(row_sums(fixed, sharding)))
        dgrad = jax.jvp(lambda consts: grad(x, consts, others), (consts,), (dconsts,))[1]
        dx = -solve(shifted(ab, repair), dgrad, sharding=sharding)
        # g, which is 0 but for the tolerance, takes off the error that x makes.
        partial = jax.jvp(lambda consts: value(x, consts, others), (consts,), (dconsts,))[1]
        dvalue = partial + jnp.where(regular, jnp.vdot(grad(x, consts, others), dx), 0)
        return out, (
            nan_unless(found & regular, dx),
            nan_unless(found, dvalue),
            *jax.tree.map(jnp.zeros_like, (status, *rest)),
        )

    return solution
