"""A problem of `sqp` as compiled functions of flat vectors, for other solvers: what `bandhess_jax.ipopt` is made of.

min f(x)   subject to   h(x) = 0 in its first `equalities` entries, h(x) >= 0 in the others, lower <= x <= upper
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bandhess_common.checks import as_index, check_args, check_function_or_none

from ...band.stages import Layout
from ...extraction.objective import Objective
from ...extraction.products import Extraction
from .constraints import check_bounds
from .derivatives import Derivatives, derivatives
from .problem import Problem
from .rows import stages_in_window, windows


class Callbacks(NamedTuple):
    """n variables (dummies of ragged leaves are fixed at 0 by their bounds) and m rows of h."""

    layout: Layout
    bandwidth: int
    x0: Array
    lower: Array
    upper: Array
    equalities: int
    first: Array
    """`(m,)`: row i of the Jacobian lies in columns first[i] .. first[i] + width - 1."""
    values: Callable[[ArrayLike], tuple[Array, Array]]
    """x -> f, h."""
    derivatives: Callable[[ArrayLike, ArrayLike, ArrayLike], Derivatives]
    """`(x, sigma, y)` -> f, h, and of sigma f + y . h: `grad`, the Hessian's `band` `((k + 1) d, n)`; the Jacobian's
    `rows` `(m, width)`; `narrow`, 0 where both hold all there is, 1 where the band does not, 2 + i where row i."""

    @property
    def width(self) -> int:
        return stages_in_window(self.layout, self.bandwidth) * self.layout.d

    @classmethod
    def of(
        cls,
        funs: tuple[Callable, Callable | None, Callable | None],
        x0: Any,
        bandwidth: int,
        bounds: tuple[Any, Any] | None,
        args: tuple,
    ) -> Callbacks:
        """funs: objective, constraints and inequalities, as all arguments those of `sqp`, checked here."""
        check_args(args)
        for function, name in zip(funs[1:], ("constraints", "inequalities"), strict=True):
            check_function_or_none(function, name)
        objective = Objective.of(funs[0], 0, False, (x0, *args), "x0")
        layout = objective.layout
        check_bounds(bounds, layout)
        extraction = Extraction.of(as_index(bandwidth, "bandwidth"), "direct", "auto").resolve(layout, (x0, args))
        problem, flat = Problem.of(objective, funs, x0, bounds, args)
        equalities, m = problem.equalities.size, problem.equalities.size + problem.inequalities.size
        first, k = jnp.zeros(0, jnp.int32), extraction.bandwidth
        if m:
            first = jax.jit(lambda x: windows(lambda x: problem.rows(x)[1], x, layout, k))(flat)

        def parts(x: Array, sigma: Any, y: Array) -> Derivatives:
            return derivatives(problem.rows, x, sigma, y, first, layout, extraction, True)

        sides = problem.sides
        return cls(layout, k, flat, sides.lower, sides.upper, equalities, first, jax.jit(problem.rows), jax.jit(parts))
