"""Minimisation under constraints that are local in stages: an interior-point method on a condensed band.

Here: arguments and results; the loop is in `loop.py`, derivatives of the solution in `implicit.py` and `kkt.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bandhess_common.checks import as_index, as_positive, check_args, check_function_or_none, check_stages
from bandhess_common.messages import sqp_message
from bandhess_common.options import ProbingName
from bandhess_common.progress import print_progress
from bandhess_common.report import describe, message_of, succeeded
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...band.fold import Folded
from ...band.noise import hash_noise
from ...band.stages import Layout
from ...extraction.bandwidth import detect_bandwidth
from ...extraction.objective import Objective
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction
from ...framework.contents import Host
from .constraints import check_bounds, entry
from .loop import Options
from .solve import User, solve


class SQPResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad L|, accepted steps, a `Status`, multipliers in the structure of
    the constraints (L = f + multipliers . c), the largest violation, an `SQPHistory` if asked for, the multipliers
    (>= 0) of the bounds, `(lower, upper)` like x, and of the inequalities, the barrier parameter at the end, and the
    row of (constraints, inequalities) that BAND_TOO_NARROW comes from, -1 for none.

    Derivatives of x, value and multipliers are NaN where the status is neither CONVERGED nor PRECISION_FLOOR, as
    `message` then says; those of x and multipliers also where the conditions at the solution are singular to rounding,
    and those of multipliers where active rows depend on each other, so that these are not unique.

    >>> fun, ends = lambda x: ((x[1:] - x[:-1]) ** 2).sum(), lambda x: jnp.stack([x[0] - 1, x[-1] - 4])
    >>> result = sqp(fun, ends, jnp.zeros(4), 1)
    >>> [f"{each:.3f}" for each in result.multipliers]
    ['2.000', '-2.000']
    >>> result.success
    True
    """

    x: Any
    value: Array
    grad_norm: Array
    steps: int | Array
    status: Status | Array
    multipliers: Any
    constraint_norm: Array
    history: SQPHistory[Array] | None = None
    bound_multipliers: tuple[Any, Any] | None = None
    inequality_multipliers: Any = None
    barrier: Array | None = None
    outside: int | Array = -1

    @property
    def success(self) -> bool | Array:
        """Whether the status is CONVERGED."""
        return succeeded(self.status)

    @property
    def message(self) -> str | None:
        """What the status means, and what to do about it; of a batch, how often each came. None where it is traced."""
        return message_of(self.status, lambda status: sqp_message(status, _outside(self)))

    def __repr__(self) -> str:
        return describe(self)


def _check_start(start: Any, multipliers: Any, layout: Layout) -> None:
    if not isinstance(start, SQPResult):
        raise TypeError(f"start must be an SQPResult or None, got {type(start).__name__}")
    if multipliers is not None:
        raise ValueError("start has multipliers of its own: give start or multipliers, not both")
    found = [tuple(jnp.shape(leaf)) for leaf in jax.tree.leaves(start.x)]
    if jax.tree.structure(start.x) != layout.treedef or found != list(layout.shapes):
        raise ValueError(f"start.x must be like x0, leaves of shapes {list(layout.shapes)}, got {found}")


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
    callback: Callable[[StepInfo[Array]], None] | None = None,
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
      fun: real scalar function, twice differentiable, pure and traceable. Changes of what the three functions read
        from outside are noticed but in modules, sets, files and jitted functions (`help(bandhess_jax)` has the list).
      constraints: function that returns an array or a tree of them, each entry local in stages; None: none.
      x0: start: an array or tree of stages (`ravel_stages`). It need not meet the constraints; it is moved into the
        interior of the bounds.
      bandwidth: of the condensed band, in stages: that of fun's Hessian, and of J^T J for constraints and inequalities
        (constraints that couple stages t .. t + k give k). None detects it (outside jit).
      args: further arguments of all three functions. New arrays in them do not retrace.
      inequalities: function that returns an array or a tree of them, each entry local in stages.
      bounds: `(lower, upper)`, each None, a number, or a tree like x0 whose leaves are None, numbers or arrays that
        broadcast to x0's; infinite entries do not bound, equal ones fix a variable.
      multipliers: start of the constraints' multipliers, as a result holds them; None: least squares.
      start: the result of a call before, of a problem of this structure: x (x0 then gives the structure alone), all
        multipliers and the barrier parameter are where it ended. At its own solution that takes one step at most, after
        a small change of the problem a few. `start._replace(x=...)` begins elsewhere. A result goes into jit and vmap
        as it is, and through `lax.scan`, whether the call that it is from was inside or not (without history).
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
        In float32 the compiled kernels (CPU) round the three functions and x to float32 and nothing else, so that 1e-5
        is within reach; the portable ones (GPU) compute in float32, where badly conditioned problems may stall.
      max_steps: bound of the accepted steps.
      max_seconds: bound of the time, compilation apart: the loop then runs in pieces, between which the host looks
        at the clock (at least x0 is linearised, and a step tried). Outside jit, vmap and grad only.
      callback: called with a `StepInfo` at x0 and after every accepted step (inside jit through
        `jax.debug.callback`); grad_norm is that of the Lagrangian, and radius holds the step's length. Neither it nor
        verbose, tol or max_steps compiles anything anew.
      verbose: print a line of progress per step.
      history: keep an `SQPHistory`: steps + 1 entries outside jit; max_steps + 1 inside, NaN beyond the last step.
      check_band: spend two products per step on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.
      stage_axes: as in `hessian`: None marks leaves of any shape that all stages share (a final time, masses). They may
        have bounds and stand in every constraint. Each takes a product more per step, and a right-hand side more per
        factorisation. Prefer it to a copy per stage, tied by equalities: the solution is the same, the time about so.
      periodic: the last stage meets the first, as in `hessian`: variables, constraints and inequalities are local
        around the ring. (The solver lays it double, stage t beside stage T - 1 - t: a band of twice the scalars.)

    Returns: `SQPResult`. Its status is CONVERGED where the Hessian of the Lagrangian and barrier is positive definite
      on the null space of the constraints' Jacobian (the condensed matrix has a Cholesky factor, its diagonal larger by
      16 eps at most); and, in functions scaled once, with slacks d,
      L = f + y . (c, g) - z . (x - lower, upper - x), and Newton's step p from x,

          max|grad L| <= tol s_d,   |(c, g - d)| <= tol,   |d z| <= tol s_c,   violation <= tol / 2 unscaled, and
          d . z + |y| . |(c, g - d)| <= 20 tol F,   |grad L . p| <= tol^1.5 F,   F = max(|f(x)|, eps^0.25 min(1, |f0|)),

      s_d and s_c being the mean multiplier over 100, at least 1, s_d at most 100 but for the rounding of J^T y, and
      |f0| the larger of |f| at x0 and beside it. The last line holds whatever the units of x: the largest entry alone
      hides what small columns may gain.
      (Scales bring the largest derivative of f near x0 to 1, and so the median of the equalities' largest ones and
      that of the inequalities', rows besides to within 0.01 and 100: the units of all of them count for nothing. Those
      of x are estimated.)
      Other ends: PRECISION_FLOOR (steps at rounding level bring nothing more, or twenty points passed all but the last
      line, lacked the positive curvature, or, in float32, were further off by no more than rounding hides; one is
      enough where neither a step nor negative curvature promises tol F),
      MAX_STEPS, STALLED, NONFINITE, BAND_TOO_NARROW,
      INFEASIBLE (the violation's sum is locally least), RANK_DEFICIENT (what would be CONVERGED or
      PRECISION_FLOOR, but the equalities' Jacobian has dependent rows, so that multipliers are not unique),
      UNBOUNDED, TIME_LIMIT. `message` says what to do. x is the last point with finite derivatives. Status and steps
      are Python integers outside jit, integer arrays inside, and nothing is raised there.

    Method: primal-dual interior point with a filter line search and a restoration phase (Wächter and Biegler,
      Mathematical Programming 106, 2006), each linear system condensed to one positive definite band, and
      refined, or solved by conjugate gradients on the multipliers (benchmarks/sqp_methods). It runs on one device: the
      loop is one compiled kernel on whole arrays, where `newton` has `sharding`.

    Cost: a step takes one linearisation, (2k + 1) d products with it at most, one for each shared variable, two more
    for check_band, and about one banded factorisation. In a quadratic program (linear rows, a quadratic objective) the
    compiled method goes on by the derivatives at its start until an end is to be confirmed, unless a caller wants to
    hear of each step (callback, verbose, history). Works under jit and vmap. x, value and multipliers are
    differentiable with respect to args and bounds, to any order and in both modes, never through the iterations: x and
    multipliers by the implicit function theorem (one more linearisation and solve), value by the envelope theorem. A
    derivative is NaN where the status is not CONVERGED or PRECISION_FLOOR; those of x and multipliers also where the
    conditions at the solution are singular to rounding (the Hessian on the null space of the constraints). Where active
    rows depend on each other (a rate's copies, tied, each at its bound; a limit that stands there twice) multipliers
    that are not unique have none, and x has them along what moves these rows together: along anything else it has none
    (NaN in forward mode; in reverse mode the rows share, and their cotangents add up to what such a motion needs).

    Under vmap a problem that ends holds up no other, as in `newton`: on a CPU problems go one after another, on other
    devices in a pool of lanes; with callback or verbose side by side until the last has ended.

    >>> fun, ends = lambda x: ((x[1:] - x[:-1]) ** 2).sum(), lambda x: jnp.stack([x[0] - 1, x[-1] - 4])
    >>> result = sqp(fun, ends, jnp.zeros(4), 1)
    >>> result.status
    <Status.CONVERGED: 0>
    >>> [f"{each:.3f}" for each in result.x]
    ['1.000', '2.000', '3.000', '4.000']

    A controller's next call begins where the last one ended:

    >>> import jax
    >>> ends = lambda x, goal: jnp.stack([x[0] - 1, x[-1] - goal])
    >>> tick = jax.jit(lambda goal, last: sqp(lambda x, _: fun(x), ends, last.x, 1, args=(goal,), start=last))
    >>> result = tick(5.0, result)
    >>> [f"{each:.3f}" for each in tick(6.0, result).multipliers]
    ['3.333', '-3.333']
    """
    check_args(args)
    objective = Objective.of(fun, 0, False, (x0, *args), "x0", stage_axes=stage_axes, periodic=periodic)
    layout = objective.layout
    if layout.dtype.itemsize < 4:
        raise TypeError(f"sqp takes float32 and float64, got {layout.dtype}; convert x0 with .astype(jnp.float32)")
    check_stages(layout.T * layout.d, layout.p)
    tol = float(jnp.finfo(layout.dtype).eps) ** 0.5 if tol is None else as_positive(tol, "tol")
    max_steps = as_index(max_steps, "max_steps")
    if max_seconds is not None:
        max_seconds = as_positive(max_seconds, "max_seconds")
    check_bounds(bounds, layout)
    check_function_or_none(constraints, "constraints")
    check_function_or_none(inequalities, "inequalities")
    if start is not None:
        _check_start(start, multipliers, layout)
        x0 = start.x
    if bandwidth is None:
        coupled = _couplings(fun, constraints, inequalities)
        bandwidth = detect_bandwidth(coupled, stage_axes=stage_axes, periodic=periodic)(x0, *args)
    if periodic:
        objective = objective._replace(layout=(layout := Folded(layout)))  # type: ignore[arg-type, assignment]
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout, (x0, args))
    if extraction.chunk_size == "auto":  # on a CPU: folded products gain nothing from a batch (benchmarks/README.md)
        extraction = extraction._replace(chunk_size=1)
    blank = not jax.config.jax_debug_nans  # type: ignore[attr-defined]
    options = Options(objective, extraction, bool(check_band), max_steps + 1 if history else None, blank)
    reporters = tuple(Host(each) for each in (print_progress if verbose else None, callback) if each)
    user = User((fun, constraints, inequalities), x0, bounds, args, reporters)
    result = SQPResult(*solve(options, user, (tol, max_steps), multipliers, start, max_seconds))
    if isinstance(result.status, jax.core.Tracer):
        return result
    if reporters:
        jax.effects_barrier()
    steps, status = int(result.steps), Status(int(result.status))
    way = jax.tree.map(lambda rows: rows[: steps + 1], result.history)
    return result._replace(steps=steps, status=status, history=way, outside=int(result.outside))


def _outside(result: SQPResult) -> str:
    """The name of the row of the constraints that reaches outside the band; "" where none does."""
    row = int(result.outside)
    if row < 0:
        return ""
    equalities = sum(leaf.size for leaf in jax.tree.leaves(result.multipliers))
    if row < equalities:
        return f"constraints(x){entry(result.multipliers, row)}"
    return f"inequalities(x){entry(result.inequality_multipliers, row - equalities)}"


def _coupled(fun: Callable, constraints: Callable | None, inequalities: Callable | None, x: Any, *args: Any) -> Any:
    total = fun(x, *args)
    for other in (constraints, inequalities):
        for leaf in [] if other is None else jax.tree.leaves(other(x, *args)):
            total = total + jnp.sum(leaf**2) + jnp.sum(leaf * hash_noise(leaf.ravel(), 3).reshape(leaf.shape))
    return total


def _couplings(fun: Callable, constraints: Callable | None, inequalities: Callable | None) -> Callable:
    """A scalar function whose Hessian has the pattern of the condensed band's. A method of fun, so that what was
    compiled for it is found again by fun."""
    return functools.partial(MethodType(_coupled, fun), constraints, inequalities)
