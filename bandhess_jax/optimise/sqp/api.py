"""Minimisation under constraints that are local in stages: SQP on a condensed band, with an interior point.

Here: arguments, results, and how x depends on them; the loop is in `primal_dual.py`, derivatives in `implicit.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.checks import as_index, as_positive, check_args, check_function_or_none
from bandhess_common.progress import print_progress
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...band.noise import hash_noise
from ...extraction.bandwidth import detect_bandwidth
from ...extraction.objective import Objective
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction
from ...framework.clock import Piece, check_host, in_pieces, is_traced
from ...framework.jit import Host, jit_call, prepare
from ...framework.packing import Packed, pack, unpack
from .condensed import largest
from .constraints import check_bounds
from .implicit import differentiable_where
from .kkt import conditions, implicit_solve
from .primal_dual import Options, State, advance, initial
from .problem import Problem, Setting


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


STEPS, STATUS = (SQPResult._fields.index(name) for name in ("steps", "status"))


def _notes(end: State) -> tuple:
    return end.best.grad_norm, end.best.violation, end.steps, end.status, end.history


def _sqp(
    options: Options, funs: tuple, x0: Any, multipliers: Any, bounds: Any, args: tuple, callback: Callable | None
) -> tuple:
    layout = options.objective.layout
    if layout.n == 0:
        return _without_variables(options, funs, x0, bounds, args)
    setting = Setting.of(options, funs, x0, bounds, args)
    functions, held, active = setting.problem.functions, setting.held, setting.active
    optimality = functools.partial(conditions, functions, held, setting.resting, active)

    def solve(_: Callable, start: tuple[Array, Array, Array]) -> tuple:
        state = initial(options, setting.start(*start[:2]), multipliers is None)
        end = advance(options, functions, active, held, callback, state)
        # custom_root wants floats.
        return (end.best.x, end.best.y, end.best.z), jax.tree.map(lambda a: a.astype(layout.dtype), _notes(end))

    start = (setting.problem.x, setting.multipliers(multipliers, layout.dtype), jnp.zeros(len(active), layout.dtype))
    tangent_solve = functools.partial(implicit_solve, layout, options.extraction, held)
    solution, notes = lax.custom_root(optimality, start, solve, tangent_solve, has_aux=True)
    grad_norm, violation, steps, status, history = notes
    steps, status = steps.astype(jnp.int32), status.astype(jnp.int32)
    solved = (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR)
    x, y, z = (differentiable_where(solved, part) for part in solution)
    notes = grad_norm, violation, steps, status, history
    return setting.result(layout, x, y, z, setting.problem.functions(x)[0], notes, funs[2] is not None)


def _start(options: Options, setting: Setting, multipliers: Any) -> State:
    y = setting.multipliers(multipliers, options.objective.layout.dtype)
    return initial(options, setting.start(setting.problem.x, y), multipliers is None)


def _packed_start(options: Options, funs: tuple, x0: Any, multipliers: Any, bounds: Any, args: tuple, _: Any) -> Packed:
    return pack(_start(options, Setting.of(options, funs, x0, bounds, args), multipliers))


def _turns(
    options: Options,
    funs: tuple,
    x0: Any,
    multipliers: Any,
    bounds: Any,
    args: tuple,
    callback: Any,
    state: Packed,
    limits: tuple,
) -> Piece:
    setting = Setting.of(options, funs, x0, bounds, args)
    begun = unpack(state, _start(options, setting, multipliers))
    end = advance(options, setting.problem.functions, setting.active, setting.held, callback, begun, limits)
    best, layout = end.best, options.objective.layout
    shown = setting.result(layout, best.x, best.y, best.z, best.value, _notes(end), funs[2] is not None)
    return Piece(pack(end), end.open, shown)


def _eager(
    options: Options,
    funs: tuple,
    x0: Any,
    multipliers: Any,
    bounds: Any,
    args: tuple,
    callback: Callable | None,
    max_seconds: float | None,
) -> tuple | None:
    """As `_sqp`, in pieces: the host looks at the clock between them, and can be interrupted. None where something is
    traced, unless there is a time limit: then it is an error."""
    operands = x0, multipliers, bounds, args
    piece = prepare(_turns, options, funs, *operands, callback)
    if max_seconds is not None:
        check_host(operands, "sqp")
    elif is_traced(operands) or piece.traced:
        return None

    def turns(state: Packed, last: int, max_steps: int = options.max_steps) -> Piece:
        return piece(state, more=((np.int32(last), np.int32(max_steps)),))

    layout, width = options.objective.layout, options.extraction.bandwidth + 1
    size = 16 * layout.n * layout.d * width  # a turn factorises and multiplies many times
    end = in_pieces(turns, piece.shape_of(_packed_start), size, max_seconds)
    if is_traced(end):  # the functions close over tracers
        if max_seconds is None:
            return None
        check_host(end, "sqp")
    if not end.open:
        return end.shown
    # The derivatives where it stands, and no step from there.
    end = turns(end.state, np.iinfo(np.int32).max, int(end.shown[STEPS]))
    status = end.shown[STATUS]
    status = np.int32(Status.TIME_LIMIT) if status == Status.MAX_STEPS else status
    return *end.shown[:STATUS], status, *end.shown[STATUS + 1 :]


def _without_variables(options: Options, funs: tuple, x0: Any, bounds: Any, args: tuple) -> tuple:
    """What `_sqp` returns where there is nothing to choose: the constraints hold or they do not."""
    functions, x, equalities, inequalities = Problem.of(options.objective, funs, x0, None, args)
    value, c, g = functions(x)
    violation = jnp.maximum(largest(c), jnp.max(-g, initial=0))
    met = violation <= options.tol / 16
    status = jnp.where(met, Status.CONVERGED, jnp.where(jnp.isfinite(violation), Status.INFEASIBLE, Status.NONFINITE))
    y = equalities.unravel(jnp.zeros_like(c))
    sides = None if bounds is None else (x0, x0)
    below = inequalities.unravel(jnp.zeros_like(g)) if funs[2] is not None else None
    zero, history = jnp.zeros((), c.dtype), None
    if options.history:
        first = SQPHistory(value, zero, violation, zero, zero, zero, zero)
        history = jax.tree.map(
            lambda a: jnp.full(options.max_steps + 1, jnp.nan if options.blank else 0, c.dtype).at[0].set(a), first
        )
    return x0, value, zero, jnp.int32(0), status.astype(jnp.int32), y, violation, history, sides, below


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
      multipliers: start of the constraints' multipliers, as a result holds them (warm start); None: least squares.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      max_seconds: bound of the time, compilation apart: the loop then runs in pieces, between which the host looks
        at the clock (at least one turn runs, and one more at the end). Outside jit, vmap and grad only.
      callback: called with a `StepInfo` at x0 and after every accepted step (through `jax.debug.callback`); grad_norm
        is that of the Lagrangian, and radius holds the step's length.
      verbose: print a line of progress per step.
      history: keep an `SQPHistory`: steps + 1 entries outside jit; max_steps + 1 inside, NaN beyond the last step.
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
      derivatives. Status and steps are Python integers outside jit, integer arrays inside, and nothing is raised there.

    Cost: a step takes one linearisation, 2 (2k + 1) d products with it, and about one banded factorisation.
    One `lax.while_loop`: works under jit and vmap (lanes that end stay as they are). x, value and multipliers are
    differentiable with respect to args and bounds, to any order and in both modes, by the implicit function theorem:
    one more linearisation and solve. A derivative is NaN where the status is not CONVERGED or PRECISION_FLOOR, and
    where the conditions at the solution are singular to rounding (the Hessian on the null space of the constraints).
    """
    check_args(args)
    objective = Objective.of(fun, 0, False, (x0, *args), "x0")
    layout = objective.layout
    if tol is None:
        tol = float(jnp.finfo(layout.dtype).eps) ** 0.5
    tol = as_positive(tol, "tol")
    if max_seconds is not None:
        max_seconds = as_positive(max_seconds, "max_seconds")
    check_bounds(bounds, layout)
    check_function_or_none(constraints, "constraints")
    check_function_or_none(inequalities, "inequalities")
    if bandwidth is None:
        bandwidth = detect_bandwidth(_couplings(fun, constraints, inequalities))(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout.n, (x0, args))
    if extraction.chunk_size == "auto":  # on a CPU: folded products gain nothing from a batch (benchmarks/README.md)
        extraction = extraction._replace(chunk_size=1)
    steps_bound = as_index(max_steps, "max_steps")
    blank = not jax.config.jax_debug_nans  # type: ignore[attr-defined]
    options = Options(objective, extraction, tol, steps_bound, bool(check_band), bool(history), blank)
    if callback is not None and verbose:
        user = callback

        def callback(info: StepInfo) -> None:
            print_progress(info)
            user(info)

    elif verbose:
        callback = print_progress
    callback = None if callback is None else Host(callback)
    operands = ((fun, constraints, inequalities), x0, multipliers, bounds, args, callback)
    parts = _eager(options, *operands, max_seconds) if layout.n else None
    parts = jit_call(_sqp, options, *operands) if parts is None else parts
    result = SQPResult(*parts)
    if isinstance(result.status, jax.core.Tracer):
        return result
    if callback is not None:
        jax.effects_barrier()
    steps = int(result.steps)
    way = jax.tree.map(lambda rows: rows[: steps + 1], result.history)
    return result._replace(steps=steps, status=Status(int(result.status)), history=way)


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
