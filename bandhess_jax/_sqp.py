"""Minimisation under constraints that are local in stages: SQP on a condensed band, with an interior point.

Here: arguments, results, and how x depends on them; the loop is in `_primal_dual.py`, derivatives in `_kkt.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ._bandwidth import detect_bandwidth, hash_noise
from ._condensed import Functions, largest
from ._constraints import Bounds, Outputs, check_bounds
from ._hessian import ChunkSize, Extraction, Objective
from ._interior import MU_START, SLACK
from ._jit import jit_call
from ._kkt import differentiable_where, implicit_solve
from ._primal_dual import Iterate, Options, minimise
from ._probing import Probing
from ._status import Status, StepInfo, print_progress
from ._storage import as_index


class SQPResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad L|, accepted steps, a `Status`, multipliers in the structure of
    the constraints (L = f + multipliers . c), the largest violation, the history if asked for, and the multipliers
    (>= 0) of the bounds, `(lower, upper)` like x, and of the inequalities."""

    x: Any
    value: Any
    grad_norm: Any
    steps: Any
    status: Any
    multipliers: Any
    constraint_norm: Any
    history: Any = None
    bound_multipliers: Any = None
    inequality_multipliers: Any = None


class Problem(NamedTuple):
    """The three functions, made one: `functions(x) -> (f, c, G)` on flat vectors."""

    functions: Functions
    x: Array  # x0, flat
    equalities: Outputs
    inequalities: Outputs

    @classmethod
    def of(cls, objective: Objective, funs: tuple, x0: Any, bounds: Bounds | None, args: tuple) -> Problem:
        fun, constraints, inequalities = funs
        flat_fun, flat = objective.bind(fun, (x0, *args), {})
        layout = objective.layout
        outputs = Outputs.of(constraints, "constraints", (x0, *args), layout.dtype)
        positive = Outputs.of(inequalities, "inequalities", (x0, *args), layout.dtype)

        def functions(x: Array) -> tuple[Array, Array, Array]:
            inside = x if bounds is None else bounds.hold(x)
            tree = layout.unravel(inside)
            value = flat_fun(inside)[0].astype(layout.dtype)
            c = outputs.ravel(() if constraints is None else constraints(tree, *args))
            g = positive.ravel(() if inequalities is None else inequalities(tree, *args))
            return value, c, g if bounds is None else jnp.concatenate([bounds.distances(inside), g])

        return cls(functions, flat, outputs, positive)


def _sqp(
    options: Options, funs: tuple, x0: Any, multipliers: Any, bounds: Any, args: tuple, callback: Callable | None
) -> tuple:
    layout = options.objective.layout
    n, dtype = layout.n, layout.dtype
    if n == 0:
        return _without_variables(options, funs, x0, bounds, args)
    box = None if bounds is None else Bounds.of(bounds, layout)
    functions, x, equalities, inequalities = Problem.of(options.objective, funs, x0, box, args)
    hold, active = layout.dummies(), jnp.ones(inequalities.size, bool)
    if box is not None:
        hold, active = jnp.maximum(hold, box.fixed), jnp.concatenate([box.active, active])
    resting = jnp.zeros(n, dtype) if box is None else jnp.where(box.fixed > 0, box.lower, 0)

    def optimality(v: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Zero at a solution, as a function of all that x depends on."""
        x, y, z = v
        (_, c, g), pull = jax.vjp(functions, x)
        return pull((jnp.ones((), dtype), y, -z))[0] + hold * (x - resting), c, z * g

    def solve(_: Callable, start: tuple[Array, Array, Array]) -> tuple:
        x, y, z = start
        x = x if box is None else box.inside(x)
        g = functions(x)[2]
        s = jnp.where(active, jnp.maximum(jnp.abs(g), SLACK), 1)
        z = jnp.where(active, MU_START / s, 0).astype(dtype)
        end = minimise(options, functions, Iterate(x, s, y, z), active, hold, multipliers is None, callback)
        best = end.best
        # custom_root wants floats.
        notes = (best.grad_norm, best.violation, end.steps.astype(dtype), end.status.astype(dtype))
        return (best.x, best.y, best.z), notes

    y = jnp.zeros(equalities.size, dtype) if multipliers is None else equalities.ravel(multipliers)
    start = (x, y, jnp.zeros(len(active), dtype))
    tangent_solve = functools.partial(implicit_solve, layout, options.extraction, hold, active)
    (x, y, z), notes = lax.custom_root(optimality, start, solve, tangent_solve, has_aux=True)
    grad_norm, violation, steps, status = notes
    steps, status = steps.astype(jnp.int32), status.astype(jnp.int32)
    solved = (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR)
    x, y, z = (differentiable_where(solved, part) for part in (x, y, z))
    value = functions(x)[0]
    x = x if box is None else box.hold(x)
    if box is None:
        sides = None
    else:
        sides, z = (layout.unravel(z[:n]), layout.unravel(z[n : 2 * n])), z[2 * n :]
    below = inequalities.unravel(z) if funs[2] is not None else None
    return layout.unravel(x), value, grad_norm, steps, status, equalities.unravel(y), violation, sides, below


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
    zero = jnp.zeros((), c.dtype)
    return x0, value, zero, jnp.int32(0), status.astype(jnp.int32), y, violation, sides, below


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
    callback: Callable[[StepInfo], None] | None = None,
    verbose: bool = False,
    check_band: bool = True,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> SQPResult:
    """Minimise `fun(x, *args)` under `constraints(x, *args) = 0`, bounds and `inequalities(x, *args) >= 0`.

    Args:
      fun: real scalar function, twice differentiable, pure and traceable.
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
      callback: called with a `StepInfo` at x0 and after every accepted step (through `jax.debug.callback`); grad_norm
        is that of the Lagrangian, and radius holds the step's length.
      verbose: print a line of progress per step.
      check_band: spend products at x0 and at the end on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.

    Returns: `SQPResult`. Its status is CONVERGED where H = W + s I, for some 0 <= s <= sqrt(eps) |W|, is positive
      definite on the null space of the constraints' Jacobian (W: Hessian of the Lagrangian and barrier), and

          max|grad L| <= tol G,   violation <= tol / 16   and
          |dx . grad L| / 2 + |y| . |c| + s . z <= tol / 4 max(|f(x)|, eps^0.25 min(1, |f(x0)|)),

      G being the largest max|grad f| met on the way, dx the next step, y and z the multipliers. Other ends:
      PRECISION_FLOOR (steps at rounding level bring nothing more), MAX_STEPS, STALLED, NONFINITE, BAND_TOO_NARROW,
      INFEASIBLE (no step reduces the violation: a point where it is locally least), RANK_DEFICIENT (the constraints'
      Jacobian has dependent rows, so that multipliers are not unique; x may be fine), UNBOUNDED. x is the last point
      with finite derivatives. Status and steps are Python integers outside jit, integer arrays inside, and nothing is
      raised there.

    Cost: a step takes one linearisation, 2 (2k + 1) d products with it, and about one banded factorisation.
    One `lax.while_loop`: works under jit and vmap (lanes that end stay as they are). x, value and multipliers are
    differentiable with respect to args and bounds, to any order and in both modes, by the implicit function theorem:
    one more linearisation and solve; the derivative is NaN where the status is not CONVERGED or PRECISION_FLOOR.
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; write args=(value,) for one argument")
    objective = Objective.of(fun, 0, False, (x0, *args), "x0")
    layout = objective.layout
    if tol is None:
        tol = float(jnp.finfo(layout.dtype).eps) ** 0.5
    if not (isinstance(tol, float | int) and tol > 0):
        raise ValueError(f"tol must be positive, a number, got {tol!r}")
    check_bounds(bounds, layout)
    for name, other in (("constraints", constraints), ("inequalities", inequalities)):
        if other is not None and not callable(other):
            raise TypeError(f"{name} must be a function or None, got {type(other).__name__}")
    if bandwidth is None:
        bandwidth = detect_bandwidth(_couplings(fun, constraints, inequalities))(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout, (x0, args))
    options = Options(objective, extraction, float(tol), as_index(max_steps, "max_steps"), bool(check_band))
    if callback is not None and verbose:
        user = callback

        def callback(info: StepInfo) -> None:
            print_progress(info)
            user(info)

    elif verbose:
        callback = print_progress
    funs = (fun, constraints, inequalities)
    parts = jit_call(_sqp, options, funs, x0, multipliers, bounds, args, callback)
    x, value, grad_norm, steps, status, multipliers, violation, sides, below = parts
    if not isinstance(status, jax.core.Tracer):
        if callback is not None:
            jax.effects_barrier()
        steps, status = int(steps), Status(int(status))
    return SQPResult(x, value, grad_norm, steps, status, multipliers, violation, None, sides, below)


def _couplings(fun: Callable, constraints: Callable | None, inequalities: Callable | None) -> Callable:
    """A scalar function whose Hessian has the pattern of the condensed band's."""

    def coupled(x: Any, *args: Any) -> Any:
        total = fun(x, *args)
        for other in (constraints, inequalities):
            for leaf in [] if other is None else jax.tree.leaves(other(x, *args)):
                total = total + jnp.sum(leaf**2) + jnp.sum(leaf * hash_noise(leaf.ravel(), 3).reshape(leaf.shape))
        return total

    return coupled
