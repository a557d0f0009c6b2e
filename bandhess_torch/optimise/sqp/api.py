"""Minimisation under constraints that are local in stages: SQP on a condensed band, with an interior point.

Here: arguments, results, and how x depends on them; the loop is in `primal_dual.py`, derivatives in `kkt.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bandhess_common.status import SQPHistory, Status, StepInfo, print_progress

from ...band.noise import hash_noise
from ...band.storage import as_index
from ...extraction.bandwidth import bandwidth_of
from ...extraction.objective import Objective, parameters, with_parameters
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction
from ...framework.transforms import eager
from .barrier import MU_START, SLACK
from .condensed import Functions
from .constraints import Bounds, Outputs, check_bounds
from .kkt import Conditions, Implicit
from .primal_dual import Iterate, Options, minimise


class SQPResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad L|, accepted steps, a `Status`, multipliers in the structure of
    the constraints (L = f + multipliers . c), the largest violation, an `SQPHistory` if asked for, and the
    multipliers (>= 0) of the bounds, `(lower, upper)` like x, and of the inequalities."""

    x: Any
    value: Any
    grad_norm: Any
    steps: Any
    status: Any
    multipliers: Any
    constraint_norm: Any
    history: SQPHistory | None = None
    bound_multipliers: Any = None
    inequality_multipliers: Any = None


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
            inside = x if bounds is None else bounds.hold(x)
            tree = layout.unravel(inside)
            value = flat_fun(inside)[0].to(layout.dtype)
            c = outputs.ravel(() if constraints is None else constraints(tree, *args))
            g = positive.ravel(() if inequalities is None else inequalities(tree, *args))
            return value, c, g if bounds is None else torch.cat([bounds.distances(inside), g])

        return cls(functions, flat, outputs, positive)


def _detach(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)


def _sqp(
    options: Options, funs: tuple, x0: Any, multipliers: Any, bounds: Any, args: tuple, callback: Callable | None
) -> tuple:
    layout = options.objective.layout
    n = layout.n
    if n == 0:
        return _without_variables(options, funs, x0, bounds, args)
    x0, outer = _detach(x0), (args, bounds, [parameters(fun) for fun in funs])
    args, bounds, _ = _detach(outer)
    with torch.no_grad():
        still = None if bounds is None else Bounds.of(bounds, layout)
        problem = Problem.of(options.objective, funs, x0, still, args)
        functions, x, equalities, inequalities = problem
        hold, active = layout.dummies(), torch.ones(inequalities.size, dtype=torch.bool, device=layout.device)
        if still is not None:
            hold, active = torch.maximum(hold, still.fixed), torch.cat([still.active, active])
            x = still.inside(x)
        g = functions(x)[2]
        s = torch.where(active, g.abs().clamp(min=SLACK), 1)
        z = torch.where(active, MU_START / s, 0)
        y = x.new_zeros(equalities.size)
        if multipliers is not None:
            y = equalities.ravel(_detach(multipliers))
        start = Iterate(x, s, y, z)
        end = minimise(options, functions, start, active, hold, multipliers is None, callback)
    best, steps, status = end.best, end.steps, end.status
    x, y, z = best.x, best.y, best.z
    leaves, treedef = tree_flatten(outer)
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]

    def bind(*tensors: Tensor) -> tuple[Functions, Tensor, Bounds | None]:
        every = dict(enumerate(leaves)) | dict(zip(moving, tensors, strict=True))
        args, bounds, given = tree_unflatten(list(every.values()), treedef)
        live = tuple(map(with_parameters, funs, given))
        box = None if bounds is None else Bounds.of(bounds, layout)
        resting = torch.zeros_like(best.x) if box is None else torch.where(box.fixed > 0, box.lower, 0)
        return Problem.of(options.objective, live, x0, box, args).functions, resting, box

    box = still
    if torch.is_grad_enabled() and moving:
        tensors = [leaves[i] for i in moving]
        solved = status in (Status.CONVERGED, Status.PRECISION_FLOOR)
        conditions = Conditions(lambda *tensors: bind(*tensors)[:2], hold, layout, options.extraction)
        x, y, z = Implicit.apply(conditions, solved, x, y, z, *tensors)
        live, _, box = bind(*tensors)
        value = live(x)[0]
    else:
        value = x.new_tensor(best.value)
    x = x if box is None else box.hold(x)
    grad_norm, violation = best.x.new_tensor(best.grad_norm), best.x.new_tensor(best.violation)
    if box is None:
        sides = None
    else:
        sides, z = (layout.unravel(z[:n]), layout.unravel(z[n : 2 * n])), z[2 * n :]
    below = inequalities.unravel(z) if funs[2] is not None else None
    history = None if end.history is None else SQPHistory(*map(best.x.new_tensor, zip(*end.history, strict=True)))
    y = equalities.unravel(y)
    return layout.unravel(x), value, grad_norm, steps, status, y, violation, history, sides, below


def _without_variables(options: Options, funs: tuple, x0: Any, bounds: Any, args: tuple) -> tuple:
    """What `_sqp` returns where there is nothing to choose: the constraints hold or they do not."""
    functions, x, equalities, inequalities = Problem.of(options.objective, funs, x0, None, args)
    value, c, g = functions(x)
    violation = torch.cat([c.abs(), -g, c.new_zeros(1)]).max()
    status = Status.CONVERGED if violation <= options.tol / 16 else Status.INFEASIBLE
    if not violation.isfinite():
        status = Status.NONFINITE
    y = equalities.unravel(torch.zeros_like(c))
    sides = None if bounds is None else (x0, x0)
    below = inequalities.unravel(torch.zeros_like(g)) if funs[2] is not None else None
    zero = violation.new_zeros(())
    rows = (row.detach()[None] for row in (value, zero, violation, zero, zero, zero, zero))
    history = SQPHistory(*rows) if options.history else None
    return x0, value, zero, 0, status, y, violation, history, sides, below


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
    tol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    callback: Callable[[StepInfo], None] | None = None,
    verbose: bool = False,
    history: bool = False,
    check_band: bool = True,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> SQPResult:
    """Minimise `fun(x, *args)` under `constraints(x, *args) = 0`, bounds and `inequalities(x, *args) >= 0`.

    Args:
      fun: real scalar function, twice differentiable, anything that `torch.func.grad` takes.
      constraints: function that returns a tensor or a tree of them, each entry local in stages; None: none.
      x0: start: a tensor or tree of stages (`ravel_stages`). It need not meet the constraints; it is moved into the
        interior of the bounds.
      bandwidth: of the condensed band, in stages: that of fun's Hessian, and of J^T J for constraints and inequalities
        (constraints that couple stages t .. t + k give k). None detects it.
      args: further arguments of all three functions.
      inequalities: function that returns a tensor or a tree of them, each entry local in stages.
      bounds: `(lower, upper)`, each None, a number, or a tree like x0 whose leaves are None, numbers or tensors that
        broadcast to x0's; infinite entries do not bound, equal ones fix a variable.
      multipliers: start of the constraints' multipliers, as a result holds them (warm start); None: least squares.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      max_seconds: bound of the time, looked at once per step; x0 is always evaluated.
      callback: called with a `StepInfo` at x0 and after every accepted step; grad_norm
        is that of the Lagrangian, and radius holds the step's length.
      verbose: print a line of progress per step.
      history: keep an `SQPHistory` of steps + 1 entries.
      check_band: spend products at x0 and at the end on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.

    Returns: `SQPResult`. Its status is CONVERGED where H = W + s I, for some 0 <= s <= sqrt(eps) |W|, is positive
      definite on the null space of the constraints' Jacobian (W: Hessian of the Lagrangian and barrier), and

          max|grad L| <= tol G,   violation <= tol / 16   and
          |dx . grad L| / 2 + |y| . |c| + s . z <= tol / 4 max(|f(x)|, eps^0.25 min(1, |f(x0)|)),

      G being the largest max|grad f| met on the way, dx the next step, y and z the multipliers. Other ends:
      PRECISION_FLOOR (steps at rounding level bring nothing more), MAX_STEPS, STALLED, NONFINITE, BAND_TOO_NARROW,
      INFEASIBLE (no step reduces the violation: as a rule it is locally least there, but a start where a violated
      constraint's gradient is zero looks the same), RANK_DEFICIENT (the constraints' Jacobian has dependent rows, so
      that multipliers are not unique; x may be fine), UNBOUNDED, TIME_LIMIT. x is the last point with finite
      derivatives.

    Cost: a step takes one linearisation, 2 (2k + 1) d products with it, and about one banded factorisation. x, value
    and multipliers have an autograd graph to those tensors in args and bounds that require gradients, by the implicit
    function theorem, to any order: one more linearisation and solve each time; the derivative is NaN where the status
    is not CONVERGED or PRECISION_FLOOR.
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; write args=(value,) for one argument")
    objective = Objective.of(fun, 0, None, (x0, *args), "x0")
    layout = objective.layout
    if tol is None:
        tol = torch.finfo(layout.dtype).eps ** 0.5
    for name, number in (("tol", tol), ("max_seconds", max_seconds)):
        if number is not None and not (isinstance(number, float | int) and number > 0):
            raise ValueError(f"{name} must be positive, a number, got {number!r}")
    check_bounds(bounds, layout)
    for name, other in (("constraints", constraints), ("inequalities", inequalities)):
        if other is not None and not callable(other):
            raise TypeError(f"{name} must be a function or None, got {type(other).__name__}")
    if bandwidth is None:
        bandwidth = bandwidth_of(_couplings(fun, constraints, inequalities), (_detach(x0), *_detach(args)))
    extraction = Extraction.of(bandwidth, probing, chunk_size)
    steps_bound, seconds = as_index(max_steps, "max_steps"), math.inf if max_seconds is None else max_seconds
    options = Options(objective, extraction, float(tol), steps_bound, seconds, bool(check_band), bool(history))
    reporters = [reporter for reporter in (print_progress if verbose else None, callback) if reporter]

    def report(info: StepInfo) -> None:
        for reporter in reporters:
            reporter(info)

    funs = (fun, constraints, inequalities)
    parts = _sqp(options, funs, x0, multipliers, bounds, args, report if reporters else None)
    return SQPResult(*parts)


def _couplings(fun: Callable, constraints: Callable | None, inequalities: Callable | None) -> Callable:
    """A scalar function whose Hessian has the pattern of the condensed band's."""

    def coupled(x: Any, *args: Any) -> Any:
        total = fun(x, *args)
        for other in (constraints, inequalities):
            for leaf in [] if other is None else tree_leaves(other(x, *args)):
                total = total + (leaf**2).sum() + (leaf.reshape(-1) * hash_noise(leaf.reshape(-1), 3)).sum()
        return total

    return coupled
