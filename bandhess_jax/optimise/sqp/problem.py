"""The user's three functions, bounds and start, made one problem on flat vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ...band.stages import Layout
from ...extraction.objective import Objective
from .barrier import MU_START, SLACK
from .condensed import Functions
from .constraints import Bounds, Outputs
from .primal_dual import Iterate, Options


class Problem(NamedTuple):
    """The three functions, made one: `functions(x) -> (f, c, G)` on flat vectors."""

    functions: Functions
    x: Array  # x0, flat
    equalities: Outputs
    inequalities: Outputs

    @classmethod
    def of(cls, objective: Objective, funs: tuple, x0: Any, bounds: Bounds | None, args: tuple) -> Problem:
        fun, constraints, inequalities = funs
        flat_fun, flat = objective.bind(fun, (x0, *args), {})
        layout = objective.layout
        outputs = Outputs.of(constraints, "constraints", (x0, *args), layout.dtype)
        positive = Outputs.of(inequalities, "inequalities", (x0, *args), layout.dtype)

        def functions(x: Array) -> tuple[Array, Array, Array]:
            inside = x if bounds is None else bounds.fix(x)
            tree = layout.unravel(inside)
            value = flat_fun(inside)[0].astype(layout.dtype)
            c = outputs.ravel(() if constraints is None else constraints(tree, *args))
            g = positive.ravel(() if inequalities is None else inequalities(tree, *args))
            return value, c, g if bounds is None else jnp.concatenate([bounds.distances(inside), g])

        return cls(functions, flat, outputs, positive)


class Setting(NamedTuple):
    """A problem in the loop's terms."""

    problem: Problem
    box: Bounds | None
    held: Array  # 1 on dummies and fixed variables
    active: Array  # the entries of G that bound
    resting: Array  # where held variables are

    @classmethod
    def of(cls, options: Options, funs: tuple, x0: Any, bounds: Any, args: tuple) -> Setting:
        layout = options.objective.layout
        box = None if bounds is None else Bounds.of(bounds, layout)
        problem = Problem.of(options.objective, funs, x0, box, args)
        held, active = layout.dummies(), jnp.ones(problem.inequalities.size, bool)
        resting = jnp.zeros(layout.n, layout.dtype)
        if box is not None:
            held, active = jnp.maximum(held, box.fixed), jnp.concatenate([box.active, active])
            resting = jnp.where(box.fixed > 0, box.lower, 0)
        return cls(problem, box, held, active, resting)

    def start(self, x: Array, y: Array) -> Iterate:
        x = x if self.box is None else self.box.inside(x)
        g = self.problem.functions(x)[2]
        s = jnp.where(self.active, jnp.maximum(jnp.abs(g), SLACK), 1)
        return Iterate(x, s, y, jnp.where(self.active, MU_START / s, 0).astype(x.dtype))

    def multipliers(self, given: Any, dtype: Any) -> Array:
        equalities = self.problem.equalities
        return jnp.zeros(equalities.size, dtype) if given is None else equalities.ravel(given)

    def result(
        self, layout: Layout, x: Array, y: Array, z: Array, value: Array, notes: tuple, has_inequalities: bool
    ) -> tuple:
        """The parts of an `SQPResult`; notes: grad_norm, violation, steps, status, history."""
        _, _, equalities, inequalities = self.problem
        grad_norm, violation, steps, status, history = notes
        sides = None
        if self.box is not None:
            n, x = layout.n, self.box.fix(x)
            sides, z = (layout.unravel(z[:n]), layout.unravel(z[n : 2 * n])), z[2 * n :]
        below = inequalities.unravel(z) if has_inequalities else None
        y = equalities.unravel(y)
        return layout.unravel(x), value, grad_norm, steps, status, y, violation, history, sides, below
