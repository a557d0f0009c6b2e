"""The user's three functions, bounds and start, made one problem on flat vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...extraction.objective import Objective
from .barrier import MU_START, SLACK
from .condensed import Functions
from .constraints import Bounds, Outputs
from .kkt import Terms
from .primal_dual import Iterate, Options


class Problem(NamedTuple):
    """The three functions, made one: `functions(x) -> (f, c, G)` on flat vectors."""

    functions: Functions
    x: Tensor  # x0, flat
    equalities: Outputs
    inequalities: Outputs

    @classmethod
    def of(cls, objective: Objective, funs: tuple, x0: Any, bounds: Bounds | None, args: tuple) -> Problem:
        fun, constraints, inequalities = funs
        flat_fun, flat = objective.bind(fun, (x0, *args), {})
        layout = objective.layout
        like = torch.empty(0, dtype=layout.dtype, device=layout.device)
        outputs = Outputs.of(constraints, "constraints", (x0, *args), like)
        positive = Outputs.of(inequalities, "inequalities", (x0, *args), like)

        def functions(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            inside = x if bounds is None else bounds.fix(x)
            tree = layout.unravel(inside)
            value = flat_fun(inside)[0].to(layout.dtype)
            c = outputs.ravel(() if constraints is None else constraints(tree, *args))
            g = positive.ravel(() if inequalities is None else inequalities(tree, *args))
            return value, c, g if bounds is None else torch.cat([bounds.distances(inside), g])

        return cls(functions, flat, outputs, positive)


class Setting(NamedTuple):
    """A problem in the loop's terms."""

    problem: Problem
    box: Bounds | None
    held: Tensor  # 1 on dummies and fixed variables
    active: Tensor  # the entries of G that bound
    resting: Tensor  # where held variables are

    @classmethod
    def of(cls, options: Options, funs: tuple, x0: Any, bounds: Any, args: tuple) -> Setting:
        layout = options.objective.layout
        box = None if bounds is None else Bounds.of(bounds, layout)
        problem = Problem.of(options.objective, funs, x0, box, args)
        held, active = layout.dummies(), torch.ones(problem.inequalities.size, dtype=torch.bool, device=layout.device)
        resting = torch.zeros_like(held)
        if box is not None:
            held, active = torch.maximum(held, box.fixed), torch.cat([box.active, active])
            resting = torch.where(box.fixed > 0, box.lower, 0)
        return cls(problem, box, held, active, resting)

    @property
    def terms(self) -> Terms:
        return Terms(self.problem.functions, self.held, self.resting, self.active)

    def start(self, y: Tensor) -> Iterate:
        x = self.problem.x if self.box is None else self.box.inside(self.problem.x)
        g = self.problem.functions(x)[2]
        s = torch.where(self.active, g.abs().clamp(min=SLACK), 1)
        return Iterate(x, s, y, torch.where(self.active, MU_START / s, 0).to(x.dtype))
