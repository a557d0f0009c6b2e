"""Newton's method with banded Hessians: arguments and results. A call is in `solve`, the method in `trust_region`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bandhess_common.checks import as_index, as_positive, check_args
from bandhess_common.options import HessianKind, ProbingName
from bandhess_common.progress import print_progress
from bandhess_common.report import describe, message_of, succeeded
from bandhess_common.status import History, Status, StepInfo

from ...band.stages import Layout
from ...extraction.bandwidth import detect_bandwidth
from ...extraction.objective import Objective
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction
from ...framework.transforms import eager
from .point import Options
from .solve import Problem, solve, squared


class NewtonResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad f(x)|, accepted steps, a `Status`, and a `History` if asked for.

    Derivatives of x and value are NaN where the status is neither CONVERGED nor PRECISION_FLOOR, as `message` then
    says; those of x also where the Hessian is singular to rounding.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + torch.cosh(x - 1).sum()
    >>> result = newton(fun, torch.zeros(4), 1)
    >>> result.success, round(float(result.value), 4)
    (True, 4.0)
    """

    x: Any
    value: Tensor
    grad_norm: Tensor
    steps: int | Tensor
    status: Status | Tensor
    history: History[Tensor] | None = None

    @property
    def success(self) -> bool | Tensor:
        """Whether the status is CONVERGED."""
        return succeeded(self.status)

    @property
    def message(self) -> str | None:
        """What the status means, and what to do about it; of a batch, how often each came. None where it is traced."""
        return message_of(self.status)

    def __repr__(self) -> str:
        return describe(self)


def _check_scale(scale: Any, layout: Layout, stage_axes: Any) -> str:
    """ "none", "diagonal" or "given"."""
    if scale is None or (isinstance(scale, str) and scale == "diagonal"):
        return scale or "none"
    if isinstance(scale, str):
        raise ValueError(f'scale must be None, "diagonal" or sizes in the structure of x0, got {scale!r}')
    given = Layout.of(scale, "scale", stage_axes)
    if (given.treedef, given.shapes) != (layout.treedef, layout.shapes):
        raise ValueError(
            f"scale must have the structure of x0, leaves of shapes {list(layout.shapes)}, got {list(given.shapes)}"
        )
    if not all(bool(((leaf > 0) & leaf.isfinite()).all()) for leaf in tree_leaves(scale) if leaf is not None):
        raise ValueError("scale must be positive and finite throughout: it gives the size of each variable")
    return "given"


@eager
def newton(
    fun: Callable,
    x0: Any,
    bandwidth: int | None,
    *,
    args: tuple = (),
    hessian: HessianKind | Callable = "exact",
    scale: Literal["diagonal"] | Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    callback: Callable[[StepInfo[float]], None] | None = None,
    verbose: bool = False,
    history: bool = False,
    check_band: bool = True,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
    stage_axes: Any = 0,
    periodic: bool = False,
) -> NewtonResult:
    """Minimise `fun(x, *args)` by Newton's method with its exact banded Hessian.

    Args:
      fun: real scalar function, twice differentiable; anything that `torch.func.grad` takes. It is called at every
        trial point, but its derivatives come, in long solves and where fun comes again, by a list of tensor operations
        that was written down once (`framework/tape.py`), as long as that gives fun's value to the last bit, and if fun
        reads no values. The list dies with fun; what changes from call to call goes into args.
      x0: start: a tensor or tree of stages (`ravel_stages`).
      bandwidth: of the Hessian, in stages; None detects it (`detect_bandwidth`).
      args: further arguments of `fun`.
      hessian: "exact"; "gauss_newton", where `fun` returns residuals (a tensor or a tree of them), the objective is
        0.5 |residuals|^2 and its Hessian is taken as J^T J; or a function `(x, *args) -> ab` that gives the band,
        `((k + 1) d, T d)` (or the structure) as `bandhess_torch.hessian` does, and is not checked.
      scale: sizes of the variables, positive, in x0's structure: the trust region is |p / scale| <= radius, and the
        loop's variables are x / scale. "diagonal" takes |H[j, j]|^(-1/2), the smallest met so far. Rounded up to
        powers of two, so that scaling itself rounds nothing.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      max_seconds: bound of the time, looked at before every factorisation; x0 is always evaluated.
      callback: called with a `StepInfo` at x0 and after every accepted step.
      verbose: print a line of progress per step.
      history: keep a `History` of steps + 1 entries.
      check_band: spend a product at x0, and one more at the end, on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.
      stage_axes: as in `hessian`: None marks leaves of any shape that all stages share (a final time, masses,
        coefficients), and which `result.x` has in their places.
      periodic: as in `hessian`: the last stage meets the first.

    Returns: `NewtonResult`. CONVERGED is a proof. H(x), less 8 eps of its diagonal entries (what rounding may have
      added), is positive definite, and with it

          max|g| <= tol G   and   g^T H^-1 g / 2 <= tol^1.5 max(|f(x)|, eps^0.25 min(1, |f(x0)|)),

      G being the largest max|g| met on the way, and all of it in the variables x / scale. PRECISION_FLOOR: x is as good
      as rounding lets it be, without that proof: max|g| is not below tol G but below 8 eps max(|H| |x|); or in some
      direction the curvature is lost to rounding (condition numbers above some 0.1 / eps), so that H + 64 eps |H| I
      alone is positive definite: steps are then refined by products with H, and what the last promises meets the
      second formula; or the step reduces neither f, whose differences are noise, nor the gradient by half. Other ends:
      MAX_STEPS, STALLED, NONFINITE, BAND_TOO_NARROW, UNBOUNDED, TIME_LIMIT. x is always the best point found. Status
      and steps are Python integers, tensors inside `torch.func.vmap`.

    Derivatives: x and value are differentiable with respect to the tensors in `args` by the implicit function
      theorem, in autograd and `torch.func`: in both modes, to any order, never through the iterations, with the exact
      Hessian whatever `hessian=` is; likewise to the parameters of a `torch.nn.Module` where `fun` is one, or a method
      of one. What another `fun` closes over is a constant: pass it in `args` to have its gradient.
      Nothing flows to x0, nor through grad_norm and history. All are NaN where the status is neither CONVERGED
      nor PRECISION_FLOOR; those of x also where H is singular to rounding (less 8 eps of its diagonal entries it is not
      positive definite). A minimum that is not unique has a value, and the value a derivative.

    Cost: a step takes one `value_grad_hessian`, about 1 to 5 banded Cholesky factorisations, and one value per trial;
    a derivative one Hessian, two factorisations, one solve. `torch.func.vmap` solves
    one problem after another, on a GPU, too.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + torch.cosh(x - 1).sum()
    >>> result = newton(fun, torch.zeros(4), 1)
    >>> result.status
    <Status.CONVERGED: 0>
    >>> result.x.round(decimals=3)
    tensor([1., 1., 1., 1.])
    """
    check_args(args)
    objective = Objective.of(fun, 0, None, (x0, *args), "x0", stage_axes=stage_axes, periodic=periodic)
    layout = objective.layout
    if not (callable(hessian) or hessian in ("exact", "gauss_newton")):
        raise ValueError(f'hessian must be "exact", "gauss_newton" or a function (x, *args) -> ab, got {hessian!r}')
    tol = torch.finfo(layout.dtype).eps ** 0.5 if tol is None else as_positive(tol, "tol")
    seconds = math.inf if max_seconds is None else as_positive(max_seconds, "max_seconds")
    scaling = _check_scale(scale, layout, stage_axes)
    if bandwidth is None:
        whole = squared(fun) if hessian == "gauss_newton" else fun
        bandwidth = detect_bandwidth(whole, stage_axes=stage_axes, periodic=periodic)(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size).fit(layout)
    width, check_band = (extraction.bandwidth + 1) * layout.d, bool(check_band) and not callable(hessian)
    steps_bound = as_index(max_steps, "max_steps")
    options = Options(layout, width, scaling, tol, steps_bound, seconds, check_band, bool(history))
    callbacks = tuple(each for each in (print_progress if verbose else None, callback) if each)
    problem = Problem(objective, extraction, hessian, options, fun, callbacks)
    return NewtonResult(*solve(problem, x0, args, scale if scaling == "given" else None))
