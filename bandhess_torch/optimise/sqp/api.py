"""Minimisation under constraints that are local in stages: SQP on a condensed band, with an interior point.

Here: arguments and results; a call is in `solve.py`, the loop in `loop.py`, derivatives of a step in `derivatives.py`,
those of a solution in `implicit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bandhess_common.checks import as_index, as_positive, check_args, check_function_or_none, check_stages
from bandhess_common.messages import sqp_message
from bandhess_common.options import ProbingName
from bandhess_common.progress import print_progress
from bandhess_common.report import describe, message_of, succeeded
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...band.fold import Folded
from ...band.noise import hash_noise
from ...extraction.bandwidth import detect_bandwidth
from ...extraction.objective import Objective
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction
from ...framework.transforms import eager
from .constraints import check_bounds, entry
from .loop import Options
from .problem import first_start, warm_start
from .solve import Given, detached, solve


class SQPResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad L|, accepted steps, a `Status`, multipliers in the structure of
    the constraints (L = f + multipliers . c), the largest violation, an `SQPHistory` if asked for, the multipliers
    (>= 0) of the bounds, `(lower, upper)` like x, and of the inequalities, the barrier parameter at the end, and the
    row of (constraints, inequalities) that BAND_TOO_NARROW comes from, -1 for none.

    Derivatives of x, value and multipliers are NaN where the status is neither CONVERGED nor PRECISION_FLOOR, as
    `message` then says; those of x and multipliers also where the conditions at the solution are singular to rounding,
    and those of multipliers where active rows depend on each other, so that these are not unique.

    >>> fun, ends = lambda x: ((x[1:] - x[:-1]) ** 2).sum(), lambda x: torch.stack([x[0] - 1, x[-1] - 4])
    >>> result = sqp(fun, ends, torch.zeros(4), 1)
    >>> [f"{each:.3f}" for each in result.multipliers]
    ['2.000', '-2.000']
    >>> result.success
    True
    """

    x: Any
    value: Tensor
    grad_norm: Tensor
    steps: int | Tensor
    status: Status | Tensor
    multipliers: Any
    constraint_norm: Tensor
    history: SQPHistory[Tensor] | None = None
    bound_multipliers: tuple[Any, Any] | None = None
    inequality_multipliers: Any = None
    barrier: Tensor | None = None
    outside: int | Tensor = -1

    @property
    def success(self) -> bool | Tensor:
        """Whether the status is CONVERGED."""
        return succeeded(self.status)

    @property
    def message(self) -> str | None:
        """What the status means, and what to do about it; of a batch, how often each came. None inside vmap."""
        return message_of(self.status, lambda status: sqp_message(status, _outside(self)))

    def __repr__(self) -> str:
        return describe(self)


@eager
def sqp(
    fun: Callable,
    constraints: Callable | None,
    x0: Any,
    bandwidth: int | None,
    *,
    args: tuple = (),
    inequalities: Callable | None = None,
    bounds: tuple[Any, Any] | None = None,
    multipliers: Any = None,
    start: SQPResult | None = None,
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
) -> SQPResult:
    """Minimise `fun(x, *args)` under `constraints(x, *args) = 0`, bounds and `inequalities(x, *args) >= 0`.

    Args:
      fun: real scalar function, twice differentiable, anything that `torch.func.grad` takes. It is called at every
        point, as the other two are, but their derivatives come, in long solves and where the same functions come again,
        by a list of tensor operations that was written down once (`framework/tape.py`), as long as that gives their
        values to the last bit, and if they read no values. The list dies with fun; what changes goes into args.
      constraints: function that returns a tensor or a tree of them, each entry local in stages; None: none.
      x0: start: a tensor or tree of stages (`ravel_stages`). It need not meet the constraints; it is moved into the
        interior of the bounds.
      bandwidth: of the condensed band, in stages: that of fun's Hessian, and of J^T J for constraints and inequalities
        (constraints that couple stages t .. t + k give k). None detects it.
      args: further arguments of all three functions.
      inequalities: function that returns a tensor or a tree of them, each entry local in stages.
      bounds: `(lower, upper)`, each None, a number, or a tree like x0 whose leaves are None, numbers or tensors that
        broadcast to x0's; infinite entries do not bound, equal ones fix a variable.
      multipliers: start of the constraints' multipliers, as a result holds them; None: least squares.
      start: a previous result, of this problem or one like it, from which to go on (full warm start): its x in the
        place of x0, all its multipliers, and its barrier. From its own solution that takes one step at most. It may
        come from outside a function that is compiled or mapped: `vmap(lambda p, r: sqp(..., start=r), (0, None))`.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
        In float32 the compiled kernels (CPU) round the three functions and x to float32 and nothing else, so that 1e-5
        is within reach; the portable ones (GPU) compute in float32, where badly conditioned problems may stall.
      max_steps: bound of the accepted steps.
      max_seconds: bound of the time, looked at once per step; x0 is always evaluated.
      callback: called with a `StepInfo` at x0 and after every accepted step; grad_norm is that of the Lagrangian, and
        radius holds which part of the full step was taken.
      verbose: print a line of progress per step.
      history: keep an `SQPHistory` of steps + 1 entries.
      check_band: spend one product a step on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.
      stage_axes: as in `hessian`: None marks leaves of any shape that all stages share (a final time, masses). They may
        have bounds and stand in every constraint. Each takes a product more per step, and a right-hand side more per
        factorisation. Prefer it to a copy per stage, tied by equalities: the solution is the same, the time about so.
      periodic: the last stage meets the first, as in `hessian`: variables, constraints and inequalities are local
        around the ring. (The solver lays it double, stage t beside stage T - 1 - t: a band of twice the scalars.)

    Returns: `SQPResult`. Its status is CONVERGED where the Hessian of the Lagrangian and barrier is positive definite
      on the null space of the constraints' Jacobian (the condensed matrix has a Cholesky factor, its diagonal larger by
      16 eps at most), and, with Newton's step p from x,

          max|grad L| <= tol s_d,   |c|, -g <= tol / 2,   max s z <= tol s_c   and
          s . z + |y| . |(c, g - s)| <= 20 tol F,   |grad L . p| <= tol^1.5 F,   F = max(|f(x)|, eps^0.25 min(1, |f0|)),

      s being the slacks of bounds and inequalities, s_d = max(1, mean(|y|, z) / 100), but for the rounding of J^T y at
      most 100, s_c = max(1, mean(z) / 100), y and z the multipliers, and |f0| the larger of |f| at x0 and beside it.
      The last line holds whatever the units of x: the largest entry alone hides what small columns may gain. Here f and
      each constraint are scaled so that their gradients at the start are at most 100; the second test holds for the
      constraints as they are, too, less 16 eps |J| |x|, which is rounding. Other ends: PRECISION_FLOOR (steps at
      rounding level bring nothing more, or twenty points passed all but the last line, lacked the positive curvature,
      or, in float32, were further off by no more than rounding hides; one is enough where neither a step nor negative
      curvature promises tol of f), MAX_STEPS, STALLED, NONFINITE, BAND_TOO_NARROW (`message` names what lies outside),
      INFEASIBLE (the violation is stationary), RANK_DEFICIENT (what would be CONVERGED or PRECISION_FLOOR, but the
      equalities' Jacobian has dependent rows, so that multipliers are not unique), UNBOUNDED, TIME_LIMIT. x is the last
      point with finite derivatives.

    Cost: a step takes one linearisation, (2k + 1) d + 1 products with it, one more for each shared variable, and about
    one banded factorisation. In a quadratic program (linear rows, a quadratic objective) the compiled method goes on by
    the derivatives at its start until an end is to be confirmed, unless a caller wants to hear of each step
    (callback, verbose, history). x, value and multipliers are differentiable with respect to the tensors in args and
    bounds, in autograd and `torch.func`, to any order and in both modes, by the implicit function theorem: one more
    linearisation and solve each time. The value's derivative is that of the Lagrangian (the envelope theorem). A
    derivative is NaN where the status is not CONVERGED or PRECISION_FLOOR, and, but for the value's, where the
    conditions at the solution are singular to rounding (the Hessian on the null space of the constraints). Where active
    rows depend on each other (a rate's copies, tied, each at its bound; a limit that stands there twice) multipliers
    that are not unique have none, and x has them along what moves these rows together: along anything else it has none
    (NaN in forward mode; in reverse mode the rows share, and their cotangents add up to what such a motion needs).
    `torch.func.vmap` solves one problem after another, on a GPU, too.

    >>> fun, ends = lambda x: ((x[1:] - x[:-1]) ** 2).sum(), lambda x: torch.stack([x[0] - 1, x[-1] - 4])
    >>> result = sqp(fun, ends, torch.zeros(4), 1)
    >>> result.status
    <Status.CONVERGED: 0>
    >>> [f"{each:.3f}" for each in result.x]
    ['1.000', '2.000', '3.000', '4.000']
    """
    check_args(args)
    objective = Objective.of(fun, 0, None, (x0, *args), "x0", stage_axes=stage_axes, periodic=periodic)
    layout = objective.layout
    check_stages(layout.T * layout.d, layout.p)
    tol = torch.finfo(layout.dtype).eps ** 0.5 if tol is None else as_positive(tol, "tol")
    if max_seconds is not None:
        max_seconds = as_positive(max_seconds, "max_seconds")
    check_bounds(bounds, layout)
    if start is not None and not isinstance(start, SQPResult):
        raise TypeError(f"start must be an SQPResult or None, got {type(start).__name__}")
    if start is not None and multipliers is not None:
        raise ValueError("give start or multipliers, not both: start holds multipliers; start._replace changes them")
    check_function_or_none(constraints, "constraints")
    check_function_or_none(inequalities, "inequalities")
    if bandwidth is None:
        coupled = _couplings(fun, constraints, inequalities)
        detect = detect_bandwidth(coupled, stage_axes=stage_axes, periodic=periodic)
        bandwidth = detect(detached(x0), *detached(args))
    if periodic:
        objective = objective._replace(layout=Folded(layout))  # type: ignore[arg-type]
    extraction = Extraction.of(bandwidth, probing, chunk_size)
    steps_bound, seconds = as_index(max_steps, "max_steps"), math.inf if max_seconds is None else max_seconds
    options = Options(objective, extraction, tol, steps_bound, seconds, bool(check_band), bool(history))
    reporters = [reporter for reporter in (print_progress if verbose else None, callback) if reporter]

    def report(info: StepInfo) -> None:
        for reporter in reporters:
            reporter(info)

    funs = (fun, constraints, inequalities)
    given: Given = partial(first_start, multipliers=detached(multipliers))
    if start is not None:
        given = partial(warm_start, end=detached(start))
    return SQPResult(*solve(options, funs, x0, bounds, args, given, report if reporters else None))


def _outside(result: SQPResult) -> str:
    """The name of the row of the constraints that reaches outside the band; "" where none does."""
    row = int(result.outside)
    if row < 0:
        return ""
    equalities = sum(leaf.numel() for leaf in tree_leaves(result.multipliers))
    if row < equalities:
        return f"constraints(x){entry(result.multipliers, row)}"
    return f"inequalities(x){entry(result.inequality_multipliers, row - equalities)}"


def _couplings(fun: Callable, constraints: Callable | None, inequalities: Callable | None) -> Callable:
    """A scalar function whose Hessian has the pattern of the condensed band's."""

    def coupled(x: Any, *args: Any) -> Any:
        total = fun(x, *args)
        for other in (constraints, inequalities):
            for leaf in [] if other is None else tree_leaves(other(x, *args)):
                total = total + (leaf**2).sum() + (leaf.reshape(-1) * hash_noise(leaf.reshape(-1), 3)).sum()
        return total

    return coupled
