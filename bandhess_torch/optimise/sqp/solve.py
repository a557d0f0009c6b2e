"""One call of `sqp`: the loop, what it gives as tensors, and how these depend on what the problem depends on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from bandhess_common.status import SQPHistory, Status

from ...extraction.objective import parameters, with_parameters
from ...framework.kept import floating
from .engine import Solution, Start
from .evaluations import User
from .implicit import solution
from .kkt import Implicit
from .loop import End, Options, minimise
from .problem import Problem, Setting

Given = Callable[[Setting], Start]


def detached(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def solve(
    options: Options, funs: tuple, x0: Any, bounds: Any, args: tuple, given: Given, report: Callable | None
) -> tuple:
    """The whole call, differentiable in all that the problem depends on: what `SQPResult` is made of."""
    layout = options.objective.layout
    leaves, treedef = tree_flatten((args, bounds, [parameters(fun) for fun in funs]))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    first = Setting.of(options, funs, *detached((x0, bounds, args)))
    kind, *start = given(first)

    def given_by(tensors: list[Tensor]) -> tuple:
        """args, bounds, and modules' parameters, from the start and what of them is a tensor."""
        every = dict(enumerate(leaves)) | dict(zip(where, tensors[len(start) :], strict=True))
        return tree_unflatten(list(every.values()), treedef)

    def setting(tensors: list[Tensor]) -> Setting:
        args, bounds, given = given_by(tensors)
        live = tuple(map(with_parameters, funs, given))
        return Setting.of(options, live, layout.unravel(tensors[0]), bounds, args, first.problem)

    def run(tensors: list[Tensor]) -> tuple:
        with torch.no_grad():
            here, (args, _, given) = setting(tensors), given_by(tensors)
            user = User(here.problem.joined, [part for part in funs if part is not None], floating((args, given)))
            begin = Start(kind, *tensors[: len(start)])
            if layout.n == 0:
                end = _without_variables(options, here.problem, begin.x)
            else:
                end = minimise(options, user, here.task(options), begin, report)
            z = here.multipliers(end.solution)
        x, y, mu = end.solution.x, end.solution.y[: here.problem.equalities.size].clone(), end.solution.mu
        status, *integers = (
            torch.tensor(i, dtype=torch.int32, device=x.device) for i in (end.status, end.steps, end.outside)
        )
        value, *numbers = (x.new_tensor(number) for number in (end.value, end.grad_norm, end.violation))
        rows = map(x.new_tensor, zip(*end.history, strict=True)) if options.history else ()
        return x, y, z, status, value, *integers, *numbers, mu, *rows

    tensors = [*start, *(leaves[i] for i in where)]
    implicit = Implicit(run, lambda tensors: setting(tensors).terms, layout, options.extraction)
    return _parts(options, setting(tensors), solution(implicit, tensors), funs[2] is not None)


def _without_variables(options: Options, problem: Problem, x: Tensor) -> End:
    """Where there is nothing to choose: the constraints hold or they do not."""
    value, c, g = problem.functions(x)
    violation = torch.cat([c.abs(), -g, c.new_zeros(1)]).max()
    status = Status.CONVERGED if violation <= options.tol / 2 else Status.INFEASIBLE
    if not violation.isfinite():
        status = Status.NONFINITE
    rows = [SQPHistory(float(value), 0.0, float(violation), 0.0, 0.0, 0.0, 0.0)]
    none, zeros = x.new_zeros(0), x.new_zeros(len(c) + len(g))  # an input itself may not be the end
    return End(
        Solution(none, zeros, none, none, x.new_zeros(())), status, 0, float(value), 0.0, float(violation), -1, rows
    )


def _parts(options: Options, setting: Setting, found: tuple, inequalities: bool) -> tuple:
    x, y, z, status, value, steps, outside, grad_norm, violation, mu, *rows = found
    (problem, box, *_), sides, layout = setting, None, options.objective.layout
    if box is not None:
        n, x = layout.n, box.fix(x)
        sides, z = (layout.unravel(z[:n]), layout.unravel(z[n : 2 * n])), z[2 * n :]
    below = problem.inequalities.unravel(z) if inequalities else None
    y, history = problem.equalities.unravel(y), SQPHistory(*rows) if rows else None
    with suppress(RuntimeError):  # inside vmap values cannot be looked at
        steps, status, outside = int(steps), Status(int(status)), int(outside)
    return layout.unravel(x), value, grad_norm, steps, status, y, violation, history, sides, below, mu, outside
