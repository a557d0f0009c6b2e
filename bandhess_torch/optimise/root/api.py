"""Roots of residuals with a banded Jacobian: found by `dogleg`, differentiable by `implicit`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bandhess_common.checks import as_chunk_size, as_index, as_positive, check_args
from bandhess_common.status import Status

from ...extraction.jacobian import Residuals
from ...extraction.objective import parameters, with_parameters
from ...extraction.products import ChunkSize
from ...framework.transforms import eager
from .dogleg import search
from .implicit import Implicit, implicit_root


class RootResult(NamedTuple):
    """x in the argument's structure, max|F(x)|, accepted steps, and a `Status`.

    >>> result = root(lambda y: y**2 - 4, torch.tensor([1.0, 3, 5]), 0, 0)
    >>> result.x.round(decimals=3)
    tensor([2., 2., 2.])
    >>> float(result.residual_norm) < 1e-3
    True
    """

    x: Any
    residual_norm: Tensor
    steps: int | Tensor
    status: Status | Tensor


class Problem(NamedTuple):
    """What the user gave, checked."""

    residuals: Residuals
    fun: Callable
    tol: float
    max_steps: int
    check_band: bool


def _root(problem: Problem, y0: Any, args: tuple) -> tuple:
    """`(x, status, steps, residual_norm)`, tensors all; x is flat."""
    residuals, fun, tol, max_steps, check_band = problem
    layout = residuals.layout
    leaves, treedef = tree_flatten((args, parameters(fun)))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def rows(x: Tensor, tensors: list[Tensor]) -> Tensor:
        every = list(leaves)
        for i, tensor in zip(where, tensors[1:], strict=True):
            every[i] = tensor
        args, given = tree_unflatten(every, treedef)
        whole = with_parameters(fun, given)
        return residuals.bind(whole, (layout.unravel(x), *args), {})[0](x)[0]

    def find(tensors: list[Tensor]) -> tuple:
        x0 = tensors[0]
        end = search(residuals, lambda x: (rows(x, tensors), None), tol, max_steps, check_band, x0)
        # Tensors of their own: views, or an input, may not be the output of an autograd.Function.
        integers = (torch.tensor(i, dtype=torch.int32, device=x0.device) for i in (end.status, end.steps))
        return end.x.clone(), *integers, x0.new_tensor(end.size)

    start = layout.ravel(y0).detach()
    return implicit_root(Implicit(find, rows, residuals), [start, *(leaves[i] for i in where)])


@eager
def root(
    fun: Callable,
    y0: Any,
    lower: int,
    upper: int,
    *,
    args: tuple = (),
    tol: float | None = None,
    max_steps: int = 200,
    check_band: bool = True,
    chunk_size: ChunkSize = "auto",
) -> RootResult:
    """Solve `fun(y, *args) = 0` by Newton's method with its banded Jacobian, safeguarded by Powell's dogleg.

    For implicit steps of 1-D partial differential equations, two-point boundary value problems, and what else couples
    neighbouring stages without being the gradient of something.

    Args:
      fun: takes a tree of T stages of d scalars and returns a tree of T stages of d residuals, as for `jacobian`;
        anything that `torch.func.vjp` takes.
      y0: start: a tensor or tree of stages (`ravel_stages`).
      lower: stages before its own that a residual depends on.
      upper: stages after its own that a residual depends on.
      args: further arguments of `fun`.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      check_band: spend two products at y0, and two at the end, on finding entries outside the band.
      chunk_size: as in `jacobian`.

    Returns: `RootResult`. With D the norms of the Jacobian's columns, CONVERGED means that J has no zero pivot, and

          max|F| <= tol G   and   |D J^-1 F| <= tol max(|D x|, |D (x - x0)|),

      G being the largest max|F| met: Newton's next step, which is the error of x up to terms of second order, is within
      tol of the way made. PRECISION_FLOOR: x is as good as rounding lets it be, without that proof: max|F| <= 8 eps
      max(|J| |x|), or a Newton step within sqrt(eps) of the way did not halve max|F|. STALLED: the linear model, in the
      region where it can be trusted, promises to reduce |F|^2 by no more than sqrt(eps) of it: x is close to a
      stationary point of |F|^2 that is no root, or fun is not smooth there; start elsewhere. Other ends: MAX_STEPS,
      NONFINITE, BAND_TOO_NARROW (at y0, or where the rest of CONVERGED held). x is always the best point found, by |F|.
      Status and steps are Python integers, tensors inside `torch.func.vmap`.

    Derivatives: x is differentiable with respect to the tensors in `args` by the implicit function theorem, in autograd
      and `torch.func`: in both modes, to any order, never through the iterations; likewise to the parameters of a
      `torch.nn.Module` where `fun` is one, or a method of one. What another `fun` closes over is a constant. Nothing
      flows to y0, nor through residual_norm. All are NaN where the status is neither CONVERGED nor PRECISION_FLOOR, or
      J is singular to rounding.

    Cost: a step, and one that is turned down, takes one graph of fun, (lower + upper + 1) d products pulled back
      through it and one banded LU; a derivative one more of each. `torch.func.vmap` solves one lane after the other.

    >>> F = lambda y: torch.cat([0 * y[:1], y, 0 * y[:1] + 1]).diff(n=2) - 0.01 * y**3  # y'' = y^3, y(0) = 0, y(1) = 1
    >>> root(F, torch.zeros(9), 1, 1).status
    <Status.CONVERGED: 0>
    """
    check_args(args)
    lower, upper = as_index(lower, "lower"), as_index(upper, "upper")
    residuals = Residuals.of(fun, lower, upper, 0, False, as_chunk_size(chunk_size), (y0, *args), "y0")
    layout = residuals.layout
    tol = torch.finfo(layout.dtype).eps ** 0.5 if tol is None else as_positive(tol, "tol")
    problem = Problem(residuals, fun, tol, as_index(max_steps, "max_steps"), bool(check_band))
    if layout.n == 0:
        return RootResult(y0, torch.zeros((), dtype=layout.dtype, device=layout.device), 0, Status.CONVERGED)
    flat, status, steps, size = _root(problem, y0, args)
    x = layout.unravel(flat)
    with suppress(RuntimeError):  # inside vmap values cannot be looked at
        steps, status = int(steps), Status(int(status))
    return RootResult(x, size, steps, status)
