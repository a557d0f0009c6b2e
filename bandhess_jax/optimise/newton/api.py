"""Newton's method with banded Hessians: minimisation by `trust_region`, differentiable by `implicit`."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MethodType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding

from bandhess_common.checks import as_index, as_positive, check_args
from bandhess_common.options import HessianKind, ProbingName
from bandhess_common.progress import print_progress
from bandhess_common.report import describe, message_of, succeeded
from bandhess_common.status import History, Status, StepInfo

from ...band.stages import Layout
from ...band.structures import as_clean
from ...extraction.bandwidth import check_fits, detect_bandwidth
from ...extraction.linearise import linearize_gradient, linearize_residuals
from ...extraction.objective import Objective
from ...extraction.probing.protocol import Probing
from ...extraction.products import ChunkSize, Extraction, extract
from ...framework.checkpoint import Checkpoint, resumed
from ...framework.clock import Piece, check_host, in_pieces, is_traced
from ...framework.jit import Host, jit_call, prepare
from ...framework.packing import Packed, pack, unpack
from .implicit import close, implicit_solution
from .point import Functions, Options
from .split import fill, filled, split_stages
from .trust_region import State, advance, initial


class NewtonResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad f(x)|, accepted steps, a `Status`, and a `History` if asked for.

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + jnp.cosh(x - 1).sum()
    >>> result = newton(fun, jnp.zeros(4), 1)
    >>> result.success, round(float(result.value), 4)
    (True, 4.0)
    """

    x: Any
    value: Array
    grad_norm: Array
    steps: int | Array
    status: Status | Array
    history: History[Array] | None = None

    @property
    def success(self) -> bool | Array:
        """Whether the status is CONVERGED."""
        return succeeded(self.status)

    @property
    def message(self) -> str | None:
        """What the status means, and what to do about it; of a batch, how often each came. None where it is traced."""
        return message_of(self.status)

    def __repr__(self) -> str:
        return describe(self)


class Problem(NamedTuple):
    """What decides the program. Hashable."""

    objective: Objective
    extraction: Extraction
    hessian: str  # "exact", "gauss_newton", "given"
    options: Options


class User(NamedTuple):
    """What the user gave: functions, and arrays traced."""

    fun: Callable
    args: tuple
    hessian: str | Callable
    scale: Any
    callbacks: tuple[Callable[[StepInfo], None], ...]

    def report(self, info: StepInfo) -> None:
        for callback in self.callbacks:
            callback(info)


def _half_square(residuals: Any) -> Any:
    return sum(jnp.sum((leaf * jnp.conj(leaf)).real) for leaf in jax.tree.leaves(residuals)) / 2


def _half_square_of(residuals: Callable, *args: Any) -> Any:
    return _half_square(residuals(*args))


def _squared(residuals: Callable) -> Callable:
    """A method of the residuals' function, so that what is compiled for it belongs to that function."""
    return MethodType(_half_square_of, residuals)


class Given(NamedTuple):
    """The traced arrays of a call, but for those that the solution is differentiable in."""

    x0: Array  # ravelled
    scale: Array | None
    fixed: list[Array]
    band: tuple  # what the user's band function closes over


def functions_of(problem: Problem, user: User, x: Array) -> tuple[Callable, Callable, list[Array], Given]:
    """`(functions, value, consts, given)`: consts are the arrays that the objective depends on, value is
    `(x, consts, given) -> f` and functions `(consts, given) -> Functions`. The user's are traced once, here."""
    objective, extraction, kind, options = problem
    layout = objective.layout
    flat_fun = objective.bind(user.fun, (layout.unravel(x), *user.args), {})[0]

    def user_band(x: Array) -> Any:
        H = user.hessian(layout.unravel(x), *user.args)  # type: ignore[operator]
        H = as_clean(jax.tree.map(lambda a: jnp.asarray(a, layout.dtype), H), "hessian's result")
        check_fits(H := fill(layout, H), layout, "hessian's result", options.width)
        return H

    squares = kind == "gauss_newton"
    outer, consts, fixed = close(lambda x: user.fun(layout.unravel(x), *user.args) if squares else flat_fun(x)[0], x)
    closed_band, *band_consts = close(user_band, x) if kind == "given" else (None, [], [])
    scale = None if user.scale is None else layout.ravel(user.scale)
    given = Given(x, *lax.stop_gradient((scale, fixed, tuple(band_consts))))

    def value(x: Array, consts: list[Array], given: Given) -> Array:
        out = outer(x, consts, given.fixed)
        return jnp.asarray(_half_square(out) if squares else out, layout.dtype)  # a constant may be of any type

    def functions(consts: list[Array], given: Given) -> Functions:
        def derivatives(x: Array) -> tuple:
            if squares:
                r, forward, backward = linearize_residuals(lambda x: outer(x, consts, given.fixed), x)
                return _half_square(r).astype(layout.dtype), backward(r), lambda v: backward(forward(v))
            if closed_band is not None:
                return *jax.value_and_grad(value)(x, consts, given), None
            grad, product, (f, _) = linearize_gradient(lambda x: (value(x, consts, given), None), x)
            return f, grad, product

        def band(x: Array, product: Callable) -> Array:
            return extract(product, layout, extraction) if closed_band is None else closed_band(x, *given.band)

        return Functions(lambda x: value(x, consts, given), derivatives, band)

    return functions, value, consts, given


def _newton(problem: Problem, user: User, x0: Any) -> tuple:
    """`(x, value, grad_norm, steps, status, history)`."""
    layout, report = problem.objective.layout, user.report if user.callbacks else None
    options = problem.options
    functions, value, consts, given = functions_of(problem, user, lax.stop_gradient(options.split(layout.ravel(x0))))

    def minimise(consts: list[Array], given: Given) -> tuple:
        start = initial(options, given.x0)
        s = advance(options, functions(consts, given), given.scale, report, start, None)
        # As numbers that tangents know of: steps and status become integers again below.
        integers = (a.astype(jnp.float32) for a in (s.status, s.steps))
        return s.point.x, s.point.pack[0], *integers, s.point.grad_norm, s.history

    solution = implicit_solution(minimise, value, layout, problem.extraction, options.sharding) if consts else minimise
    x, f, status, steps, grad_norm, history = solution(consts, given)
    x = split_stages(layout, options.sharding, layout.unravel(x))
    return x, f, grad_norm, steps.astype(jnp.int32), status.astype(jnp.int32), history


def _start(problem: Problem, _: User, x0: Any) -> State:
    return initial(problem.options, lax.stop_gradient(problem.objective.layout.ravel(x0)))


def _packed_start(problem: Problem, user: User, x0: Any) -> Packed:
    return problem.options.split(pack(_start(problem, user, x0)))


def _turns(problem: Problem, user: User, x0: Any, state: Packed, last: Array) -> Piece:
    layout, report = problem.objective.layout, user.report if user.callbacks else None
    s = unpack(state, _start(problem, user, x0))
    functions, _, consts, given = functions_of(problem, user, s.point.x)
    s = advance(problem.options, functions(consts, given), given.scale, report, s, last)
    point = s.point
    x = split_stages(layout, problem.options.sharding, layout.unravel(point.x))
    shown = x, point.pack[0], point.grad_norm, s.steps, s.status, s.history
    return Piece(problem.options.split(pack(s)), s.open, shown)


def _eager(problem: Problem, user: User, x0: Any, max_seconds: float | None) -> tuple | None:
    """As `_newton`, in pieces: the host looks at the clock between them, and can be interrupted. None where something
    is traced, unless there is a time limit: then it is an error."""
    operands, piece = (x0, user.args, user.scale), prepare(_turns, problem, user, x0)
    if max_seconds is not None:
        check_host(operands, "newton")
    elif is_traced(operands) or piece.traced:
        return None

    def turns(state: Packed, last: int) -> Piece:
        return piece(state, more=(np.int32(last),), quick=True)

    end = in_pieces(
        turns, piece.shape_of(_packed_start), problem.objective.layout.n * problem.options.width, max_seconds
    )
    if is_traced(end):  # fun closes over tracers
        if max_seconds is None:
            return None
        check_host(end, "newton")
    return _shown(end)


def _shown(end: Piece) -> tuple:
    *rest, status, history = end.shown
    return *rest, np.int32(Status.TIME_LIMIT) if end.open else status, history


def _resumed(problem: Problem, user: User, x0: Any, max_seconds: float | None, folder: str | os.PathLike) -> tuple:
    """As `_newton`, a turn at a time, saved in the folder after every accepted step."""
    piece = prepare(_turns, problem, user, x0)
    if is_traced((x0, user.args, user.scale)) or piece.traced:
        raise ValueError(
            "checkpoint needs the host to write files: call newton outside jit, vmap and grad, or leave it out"
        )
    about = repr((problem.options._replace(sharding=None), problem.hessian, problem.extraction.bandwidth))
    return _shown(
        resumed(
            lambda state, last: piece(state, more=(np.int32(last),), quick=True),
            prepare(_packed_start, problem, user, x0)(quick=True),
            lambda piece: piece.shown[3],
            Checkpoint(folder, about),
            max_seconds,
        )
    )


def _empty(problem: Problem, user: User, x0: Any) -> tuple:
    """There is nothing to minimise over."""
    fun = _squared(user.fun) if problem.hessian == "gauss_newton" else user.fun
    value = jnp.asarray(fun(x0, *user.args))
    zero = jnp.zeros_like(value)
    status = jnp.where(jnp.isfinite(value), Status.CONVERGED, Status.NONFINITE).astype(jnp.int32)
    history = initial(problem.options, problem.objective.layout.ravel(x0)).history
    if history is not None:
        first = History(value, zero, zero, zero, zero, zero + jnp.nan)
        history = jax.tree.map(lambda rows, a: rows.at[0].set(a), history, first)
    return x0, value, zero, jnp.int32(0), status, history


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
    known = [leaf for leaf in jax.tree.leaves(scale) if not isinstance(leaf, jax.core.Tracer)]
    if not all(np.all((np.asarray(leaf) > 0) & np.isfinite(leaf)) for leaf in known):
        raise ValueError("scale must be positive and finite throughout: it gives the size of each variable")
    return "given"


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
    callback: Callable[[StepInfo[Array]], None] | None = None,
    verbose: bool = False,
    history: bool = False,
    check_band: bool = True,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
    stage_axes: Any = 0,
    periodic: bool = False,
    sharding: NamedSharding | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> NewtonResult:
    """Minimise `fun(x, *args)` by Newton's method with its exact banded Hessian.

    Args:
      fun: real scalar function, twice differentiable, pure and traceable. Changes of what it reads from outside are
        noticed but in modules, sets, files and jitted functions (`help(bandhess_jax)` has the whole list).
      x0: start: an array or tree of stages (`ravel_stages`).
      bandwidth: of the Hessian, in stages; None detects it (`detect_bandwidth`; outside jit).
      args: further arguments of `fun`. New arrays in them do not retrace.
      hessian: "exact"; "gauss_newton", where `fun` returns residuals (an array or a tree of them), the objective is
        0.5 |residuals|^2 and its Hessian is taken as J^T J; or a function `(x, *args) -> ab` that gives the band,
        `((k + 1) d, T d)` (or the structure) as `bandhess_jax.hessian` does, and is not checked.
      scale: sizes of the variables, positive, in x0's structure: the trust region is |p / scale| <= radius, and the
        loop's variables are x / scale. "diagonal" takes |H[j, j]|^(-1/2), the smallest met so far. Rounded up to
        powers of two, so that scaling itself rounds nothing.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
      max_steps: bound of the accepted steps.
      max_seconds: bound of the time, compilation apart: the loop then runs in pieces, between which the host looks
        at the clock (at least one turn runs). Outside jit, vmap and grad only.
      callback: called with a `StepInfo` at x0 and after every accepted step (through `jax.debug.callback`).
      verbose: print a line of progress per step.
      history: keep a `History`: steps + 1 entries outside jit; max_steps + 1 inside, NaN beyond the last step.
      check_band: spend a product at x0, and one more at the end, on finding entries outside the band.
      probing: as in `hessian`.
      chunk_size: as in `hessian`.
      stage_axes: as in `hessian`: None marks leaves of any shape that all stages share (a final time, masses,
        coefficients), and which `result.x` has in their places.
      periodic: as in `hessian`: the last stage meets the first.
      sharding: None, or `NamedSharding(mesh, P("stages"))`, which names the mesh axis that the stages are split over:
        all vectors and bands of the loop are, and what the devices gather does not grow with T. Leaves of x0 and of the
        result are split where the devices divide their stages, and whole on every device where they do not (the loop
        then adds stages of its own). One program: max_seconds is not for it, nor bandwidth=None where several processes
        run. `sqp` has no such argument.
      checkpoint: a folder in which the state is saved after every accepted step; where it has one, of the same fun, x0
        and args, the run goes on from there, and makes the steps that it would have made. It may be killed at any
        moment, and several processes share one folder. A turn is then a program's run, and a step writes some
        ((k + 1) d + 10) n numbers. Outside jit, vmap and grad only.

    Returns: `NewtonResult`. CONVERGED is a proof. H(x), less 8 eps of its diagonal entries (what rounding may have
      added), is positive definite, and with it

          max|g| <= tol G   and   g^T H^-1 g / 2 <= tol^1.5 max(|f(x)|, eps^0.25 min(1, |f(x0)|)),

      G being the largest max|g| met on the way, and all of it in the variables x / scale. PRECISION_FLOOR: x is as good
      as rounding lets it be, without that proof: max|g| is not below tol G but below 8 eps max(|H| |x|); or in some
      direction the curvature is lost to rounding (condition numbers above some 0.1 / eps), so that H + 64 eps |H| I
      alone is positive definite: steps are then refined by products with H, and what the last promises meets the
      second formula; or the step reduces neither f, whose differences are noise, nor the gradient by half. Other ends:
      MAX_STEPS, STALLED, NONFINITE, BAND_TOO_NARROW, UNBOUNDED, TIME_LIMIT. x is always the best point found. Status
      and steps are Python integers outside jit, integer arrays inside, and nothing is raised there.

    Derivatives: x and value are differentiable with respect to `args`, and to traced arrays that `fun` closes over,
      by the implicit function theorem: in both modes, to any order, never through the iterations, with the exact
      Hessian whatever `hessian=` is. Those with respect to x0 are zero, as those of grad_norm and history. All are
      NaN where the status is neither CONVERGED nor PRECISION_FLOOR; those of x also where H is singular to rounding
      (less 8 eps of its diagonal entries it is not positive definite). A minimum that is not unique has a value, and
      the value a derivative.

    Cost: a step takes one `value_grad_hessian`, about 1 to 5 banded Cholesky factorisations, and one value per trial;
    a derivative one Hessian, two factorisations, one solve. One `lax.while_loop`: works under jit and vmap (lanes
    that end stay as they are).

    >>> fun = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + jnp.cosh(x - 1).sum()
    >>> result = newton(fun, jnp.zeros(4), 1)
    >>> result.status
    <Status.CONVERGED: 0>
    >>> result.x.round(decimals=3)
    Array([1., 1., 1., 1.], dtype=float32)
    """
    check_args(args)
    objective = Objective.of(fun, 0, False, (x0, *args), "x0", stage_axes=stage_axes, periodic=periodic)
    layout = filled(objective.layout, sharding)
    objective, x0 = objective._replace(layout=layout), split_stages(layout, sharding, x0)
    kind = "given" if callable(hessian) else hessian
    if kind not in ("given", "exact", "gauss_newton"):
        raise ValueError(f'hessian must be "exact", "gauss_newton" or a function (x, *args) -> ab, got {hessian!r}')
    tol = float(jnp.finfo(layout.dtype).eps) ** 0.5 if tol is None else as_positive(tol, "tol")
    scaling = _check_scale(scale, layout, stage_axes)
    if bandwidth is None:
        whole = _squared(fun) if kind == "gauss_newton" else fun
        bandwidth = detect_bandwidth(whole, stage_axes=stage_axes, periodic=periodic)(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout, (x0, args))
    width, check_band = (extraction.bandwidth + 1) * layout.d, bool(check_band) and kind != "given"
    options = Options(
        layout,
        width,
        scaling,
        tol,
        as_index(max_steps, "max_steps"),
        check_band,
        bool(history),
        jax.config.jax_debug_nans,  # type: ignore[attr-defined]
        sharding,
    )
    problem = Problem(objective, extraction, kind, options)
    callbacks = tuple(Host(each) for each in (print_progress if verbose else None, callback) if each)
    user = User(fun, args, hessian, scale if scaling == "given" else None, callbacks)
    if layout.n == 0:
        out = _empty(problem, user, x0)
    else:
        limit = None if max_seconds is None else as_positive(max_seconds, "max_seconds")
        if limit is not None and sharding is not None:
            raise ValueError(
                "max_seconds must be None with sharding, as the clocks of several processes do not agree; bound the "
                "work with max_steps"
            )
        if checkpoint is not None:
            out = _resumed(problem, user, x0, limit, checkpoint)
        elif sharding is not None:
            out = prepare(_newton, problem, user, x0)(quick=True)
        else:
            out = _eager(problem, user, x0, limit) or jit_call(_newton, problem, user, x0)
    x, value, grad_norm, steps, status, way = out
    if not isinstance(status, jax.core.Tracer):
        if callbacks:
            jax.effects_barrier()
        steps, status = int(steps), Status(int(status))
        way = jax.tree.map(lambda rows: rows[: steps + 1], way)
    return NewtonResult(x, value, grad_norm, steps, status, way)
