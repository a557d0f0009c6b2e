"""The root as a function of what the residuals depend on: the implicit function theorem, one more solve.

With F(x, c) = 0 at the root, dx = -J^-1 (dF/dc) dc: never through the iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.dogleg import SINGULAR

from ...extraction.jacobian import Residuals, general_band, linearize_rows
from ...linalg.lu import eliminate, solve_eliminated
from ..solved import nan_unless, solved


def implicit_root(
    find: Callable[[list[Array], Any], tuple],
    rows: Callable[[Array, list[Array], Any], Array],
    residuals: Residuals,
) -> Callable[[list[Array], Any], tuple]:
    """`find`, differentiable with respect to consts, to any order in both modes.

    find takes consts and a tree of other arrays, and returns `(x, status, *rest)`, floating arrays all; rows is
    `(x, consts, others) -> F`. Derivatives are NaN where status tells of no root, or J is singular to rounding (a
    pivot is below 8 eps of the largest entry of its column); those of `rest` are zero.
    """

    @jax.custom_jvp
    def root(consts: list[Array], others: Any) -> tuple:
        return find(consts, others)

    @root.defjvp
    def rule(primals: tuple, tangents: tuple) -> tuple:
        (consts, others), (dconsts, _) = primals, tangents
        out = root(consts, others)
        x, status, *rest = out
        push = linearize_rows(lambda x: (rows(x, consts, others), None), x)[1]
        ab = general_band(push, residuals)
        fixed = lax.stop_gradient(ab)
        lu, eps = eliminate(fixed, *residuals.reach), float(jnp.finfo(x.dtype).eps)
        regular = jnp.all(jnp.abs(lu.upper[:, 0]) > SINGULAR * eps * jnp.max(jnp.abs(fixed), axis=0))
        dF = jax.jvp(lambda consts: rows(x, consts, others), (consts,), (dconsts,))[1]
        dx = nan_unless(solved(status) & regular, -solve_eliminated(ab, lu, dF))
        return out, (dx, *jax.tree.map(jnp.zeros_like, (status, *rest)))

    return root
