"""The user's three functions, bounds and start, made one problem on flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...band.stages import Layout
from ...extraction.objective import Objective
from .condensed import Functions
from .constraints import Bounds, Outputs
from .engine import ESTIMATED, GIVEN, WARM, Solution, Start, Task
from .kkt import Terms
from .loop import Options
from .rows import stages_in_window


class Problem(NamedTuple):
    """The three functions on flat vectors: `functions(x) -> (f, c, g)`."""

    functions: Functions
    x: Tensor  # x0, flat
    equalities: Outputs
    inequalities: Outputs

    @classmethod
    def of(cls, objective: Objective, funs: tuple, x0: Any, args: tuple, known: Problem | None = None) -> Problem:
        """known: with other args, which spares looking at the outputs."""
        fun, constraints, inequalities = funs
        flat_fun, flat = objective.bind(fun, (x0, *args), {})
        layout = objective.layout
        if known is None:
            like = torch.empty(0, dtype=layout.dtype, device=layout.device)
            outputs = Outputs.of(constraints, "constraints", (x0, *args), like)
            positive = Outputs.of(inequalities, "inequalities", (x0, *args), like)
        else:
            outputs, positive = known.equalities, known.inequalities

        def functions(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            tree = layout.unravel(x)
            value = flat_fun(x)[0].to(layout.dtype)
            c = outputs.joined(() if constraints is None else constraints(tree, *args))
            g = positive.joined(() if inequalities is None else inequalities(tree, *args))
            return value, c, g

        return cls(functions, flat, outputs, positive)

    def joined(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f and h = (c, g), as the loop wants them."""
        f, c, g = self.functions(x)
        return f, (torch.cat([c, g]) if len(c) and len(g) else c if len(c) else g)


class Setting(NamedTuple):
    """A problem with its bounds."""

    problem: Problem
    box: Bounds | None
    held: Tensor  # 1 on dummies and fixed variables
    layout: Layout

    @classmethod
    def of(
        cls, options: Options, funs: tuple, x0: Any, bounds: Any, args: tuple, known: Problem | None = None
    ) -> Setting:
        layout = options.objective.layout
        problem, held = Problem.of(options.objective, funs, x0, args, known), layout.dummies()
        box = None if bounds is None else Bounds.of(bounds, layout)
        return cls(problem, box, held if box is None else torch.maximum(held, box.fixed), layout)

    @property
    def bounded(self) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """`x -> (f, c, G)`, G the distances from the bounds and g; fixed variables are where they are fixed."""
        box, functions = self.box, self.problem.functions
        if box is None:
            return functions

        def of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            inside = box.fix(x)
            f, c, g = functions(inside)
            return f, c, torch.cat([box.distances(inside), g])

        return of

    @property
    def terms(self) -> Terms:
        active, resting = self.held.new_ones(self.problem.inequalities.size, dtype=torch.bool), 0 * self.held
        if self.box is not None:
            active = torch.cat([self.box.active, active])
            resting = torch.where(self.box.fixed > 0, self.box.lower, 0)
        return Terms(self.bounded, self.held, resting, active)

    def task(self, options: Options) -> Task:
        layout, k = self.layout, options.extraction.bandwidth
        infinite = torch.full_like(self.held, torch.inf)
        lower, upper = (-infinite, infinite) if self.box is None else self.box[:2]
        if layout.ragged:
            dummies = layout.dummies() > 0
            lower, upper = torch.where(dummies, 0, lower), torch.where(dummies, 0, upper)
        rows = stages_in_window(layout, k) * layout.d
        m = self.problem.equalities.size
        return Task(lower, upper, self.held, m, rows, layout.p, options.tol, options.max_steps, not options.history)

    def multipliers(self, end: Solution) -> Tensor:
        """Those of G, as the conditions of a solution have them."""
        _, y, z_lower, z_upper, _ = end
        z = (-y[self.problem.equalities.size :]).clamp(min=0)
        return z if self.box is None else torch.where(self.terms.active, torch.cat([z_lower, z_upper, z]), 0)


def first_start(setting: Setting, multipliers: Any) -> Start:
    """From x0, with multipliers of the constraints as given, or None: estimated."""
    x, equalities = setting.problem.x, setting.problem.equalities
    y = x.new_zeros(equalities.size) if multipliers is None else equalities.ravel(multipliers)
    y = torch.cat([y, x.new_zeros(setting.problem.inequalities.size)])
    return Start(ESTIMATED if multipliers is None else GIVEN, x, y, 0 * x, 0 * x, x.new_zeros(()))


def warm_start(setting: Setting, end: Any) -> Start:
    """From where a previous `SQPResult` ended: its x, all its multipliers, and its barrier."""
    problem, layout = setting.problem, setting.layout
    x, y = layout.ravel(end.x), problem.equalities.ravel(end.multipliers)
    below = () if end.inequality_multipliers is None else end.inequality_multipliers
    z = problem.inequalities.ravel(below, "inequality_multipliers")
    lower, upper = (0 * x, 0 * x) if end.bound_multipliers is None else map(layout.ravel, end.bound_multipliers)
    return Start(WARM, x, torch.cat([y, -z]), lower, upper, torch.as_tensor(end.barrier).to(x))
