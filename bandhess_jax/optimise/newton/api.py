"""Newton's method with banded Hessians: arguments and results. A call is in `solve`, the method in `trust_region`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

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
from ...framework.contents import Host
from .point import Options
from .solve import Problem, User, solve, squared
from .split import filled, split_stages
from .state import limits_of


class NewtonResult(NamedTuple):
    """x in the argument's structure, f(x), max|grad f(x)|, accepted steps, a `Status`, and a `History` if asked for.

    Derivatives of x and value are NaN where the status is neither CONVERGED nor PRECISION_FLOOR, as `message` then
    says; those of x also where the Hessian is singular to rounding.

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
      callback: called with a `StepInfo` at x0 and after every accepted step. Neither it nor verbose, tol or max_steps
        compiles anything anew: turns are then called one by one (inside jit, and with sharding or checkpoint, it
        becomes a `jax.debug.callback` of the program).
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
      checkpoint: a folder in which orbax-checkpoint (the extra `checkpoint`) saves the state after every accepted step;
        where it has one the run goes on from there, and makes the steps that it would have made. It may be killed at
        any moment, and several processes share one folder. What another run has saved there is an error, which names
        what differs: options; x0, args and scale, whose values are hashed; fun, by its value and max|g| at x0, where
        each call begins. A turn is then a program's run, and a save takes some 40 ms, or 3 s for 10^8 numbers, of
        which there are ((k + 1) d + 11) n. Outside jit, vmap and grad only.

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

    Cost: a step takes one gradient and Hessian, about 1 to 5 banded Cholesky factorisations, and one value per trial
    (x0 is one); a derivative one Hessian, two factorisations, one solve. One `lax.while_loop`: works under jit, vmap.

    Under vmap a problem that ends holds up no other. On a CPU problems go one after another, each with its own number
    of steps. On other devices they go side by side in a pool of lanes, as many as have 2^22 numbers in their states
    (some 50 for n = 10^4 and bandwidth 1), and the next that waits takes the lane of one that ends; what is evaluated
    for one lane is evaluated for all. With callback, verbose or sharding all go side by side until the last has ended.

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
        whole = squared(fun) if kind == "gauss_newton" else fun
        bandwidth = detect_bandwidth(whole, stage_axes=stage_axes, periodic=periodic)(x0, *args)
    extraction = Extraction.of(bandwidth, probing, chunk_size).resolve(layout, (x0, args))
    max_steps = as_index(max_steps, "max_steps")
    width, check_band = (extraction.bandwidth + 1) * layout.d, bool(check_band) and kind != "given"
    options = Options(
        layout,
        width,
        scaling,
        check_band,
        max_steps + 1 if history else 0,
        jax.config.jax_debug_nans,  # type: ignore[attr-defined]
        sharding,
        kind == "given",
    )
    problem = Problem(objective, extraction, kind, options)
    callbacks = tuple(Host(each) for each in (print_progress if verbose else None, callback) if each)
    limits = limits_of(tol, max_steps, layout.dtype)
    user = User(fun, args, hessian, scale if scaling == "given" else None, callbacks, limits)
    limit = None if max_seconds is None else as_positive(max_seconds, "max_seconds")
    if limit is not None and sharding is not None:
        raise ValueError(
            "max_seconds must be None with sharding, as the clocks of several processes do not agree; bound the work "
            "with max_steps"
        )
    x, value, grad_norm, steps, status, way = solve(problem, user, x0, limit, checkpoint)
    if not isinstance(status, jax.core.Tracer):
        if callbacks:
            jax.effects_barrier()
        steps, status = int(steps), Status(int(status))
        way = jax.tree.map(lambda rows: rows[: steps + 1], way)
    return NewtonResult(x, value, grad_norm, steps, status, way)
