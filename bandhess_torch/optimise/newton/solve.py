"""One call of `newton`: the objective on flat vectors, the loop, and how its end depends on arguments."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bandhess_common.status import History, Status, StepInfo

from ...band.structures import as_clean
from ...extraction.bandwidth import check_fits
from ...extraction.linearise import linearize_gradient, linearize_residuals
from ...extraction.objective import Objective, parameters, with_parameters
from ...extraction.products import Extraction, extract
from ...framework.kept import floating
from ..solved import differentiable_where, solved
from .implicit import Implicit, solution
from .point import Functions, Options
from .trust_region import minimise


class Problem(NamedTuple):
    """What the user gave, checked."""

    objective: Objective
    extraction: Extraction
    hessian: str | Callable
    options: Options
    fun: Callable
    callbacks: tuple[Callable[[StepInfo], None], ...]

    def report(self, info: StepInfo) -> None:
        for callback in self.callbacks:
            callback(info)


def _half_square(residuals: Any) -> Any:
    return sum((leaf * leaf.conj()).real.sum() for leaf in tree_leaves(residuals)) / 2


def squared(residuals: Callable) -> Callable:
    return lambda *args: _half_square(residuals(*args))


def _value(problem: Problem, x: Tensor, args: tuple) -> Tensor:
    layout = problem.objective.layout
    fun = squared(problem.fun) if problem.hessian == "gauss_newton" else problem.fun
    return problem.objective.bind(fun, (layout.unravel(x), *args), {})[0](x)[0].to(layout.dtype)


def _functions(problem: Problem, args: tuple, fun: Callable, held: list[Tensor]) -> Functions:
    """fun is the user's, where problem.fun is that with other parameters."""
    layout, extraction = problem.objective.layout, problem.extraction

    def residuals(x: Tensor) -> Any:
        return problem.fun(layout.unravel(x), *args)

    def derivatives(x: Tensor) -> tuple:
        if problem.hessian == "gauss_newton":
            r, forward, backward = linearize_residuals(residuals, x)
            return _half_square(r), backward(r), lambda v: backward(forward(v))
        if callable(problem.hessian):
            grad, value = torch.func.grad_and_value(lambda x: _value(problem, x, args))(x)
            return value, grad, None
        grad, product, (value, _) = linearize_gradient(lambda x: (_value(problem, x, args), None), x, layout.p)
        return value, grad, product

    def band(x: Tensor, product: Callable) -> Any:
        if not callable(problem.hessian):
            return extract(product, layout, extraction)
        H = tree_map(lambda a: a.detach().to(layout.dtype), problem.hessian(layout.unravel(x), *args))
        H = as_clean(H, "hessian's result")
        check_fits(H, layout, "hessian's result", problem.options.width)
        return H

    own = callable(problem.hessian) or problem.options.scale != "none"  # what a guard would not see
    kinds = tuple((t.shape, t.dtype, t.requires_grad) for t in held)
    key = object() if own else (layout, extraction.key, problem.hessian, problem.options.width, kinds)
    return Functions(lambda x: _value(problem, x, args), derivatives, band, [fun], held, key)


def _newton(problem: Problem, x0: Any, args: tuple, scale: Any) -> tuple:
    """`(x, value, status, steps, grad_norm, *history)`, tensors all; x is flat."""
    layout = problem.objective.layout
    leaves, treedef = tree_flatten((args, parameters(problem.fun)))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    start = layout.ravel(x0).detach()
    sizes = [] if scale is None else [layout.ravel(scale).detach()]

    def rebuild(tensors: list[Tensor]) -> tuple[Problem, tuple]:
        every = list(leaves)
        for i, tensor in zip(where, tensors, strict=True):
            every[i] = tensor
        args, given = tree_unflatten(every, treedef)
        return problem._replace(fun=with_parameters(problem.fun, given)), args

    def run(tensors: list[Tensor]) -> tuple:
        x, *tensors = tensors
        scale = tensors.pop(0) if sizes else None
        here, args = rebuild(tensors)
        functions = _functions(here, args, problem.fun, floating(tensors))
        end = minimise(problem.options, functions, x, scale, problem.report if problem.callbacks else None)
        # Tensors of their own: views, or an input, may not be the output of an autograd.Function.
        integers = (torch.tensor(i, dtype=torch.int32, device=x.device) for i in (end.status, end.steps))
        rest = (x.new_tensor(end.grad_norm), *(row.clone() for row in end.history or ()))
        return end.x.clone(), x.new_tensor(end.value), *integers, *rest

    def value(x: Tensor, tensors: list[Tensor]) -> Tensor:
        here, args = rebuild(tensors[1 + len(sizes) :])
        return _value(here, x, args)

    implicit = Implicit(run, value, layout, problem.extraction)
    return solution(implicit, [start, *sizes, *(leaves[i] for i in where)])


def _empty(problem: Problem, x0: Any, args: tuple) -> tuple:
    """There is nothing to minimise over."""
    value = _value(problem, problem.objective.layout.ravel(x0), args)
    zero, none = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.int32)
    status = torch.where(value.isfinite(), none + Status.CONVERGED, none + Status.NONFINITE)
    rows = (row.detach()[None] for row in (value, zero, zero, zero, zero, zero + torch.nan))
    value = differentiable_where(solved(status), value)
    return x0, value, status, none, zero, *(rows if problem.options.history else ())


def solve(problem: Problem, x0: Any, args: tuple, scale: Any) -> tuple:
    """The whole call: `(x, value, grad_norm, steps, status, history)`."""
    layout = problem.objective.layout
    if layout.n == 0:
        x, value, status, steps, grad_norm, *way = _empty(problem, x0, args)
    else:
        flat, value, status, steps, grad_norm, *way = _newton(problem, x0, args, scale)
        x = layout.unravel(flat)
    with suppress(RuntimeError):  # inside vmap values cannot be looked at
        steps, status = int(steps), Status(int(status))
    return x, value, grad_norm, steps, status, History(*way) if way else None
