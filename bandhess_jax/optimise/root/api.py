"""Roots of residuals with a banded Jacobian: found by `dogleg`, differentiable by `implicit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.checks import as_chunk_size, as_index, as_positive, check_args
from bandhess_common.status import Status

from ...extraction.jacobian import Residuals
from ...extraction.products import ChunkSize
from ...framework.clock import is_traced
from ...framework.jit import prepare
from ..newton.implicit import close
from .dogleg import Limits, search
from .implicit import implicit_root


class RootResult(NamedTuple):
    """x in the argument's structure, max|F(x)|, accepted steps, and a `Status`.

    >>> result = root(lambda y: y**2 - 4, jnp.array([1.0, 3, 5]), 0, 0)
    >>> result.x.round(decimals=3)
    Array([2., 2., 2.], dtype=float32)
    >>> float(result.residual_norm) < 1e-3
    True
    """

    x: Any
    residual_norm: Array
    steps: int | Array
    status: Status | Array


class User(NamedTuple):
    """What the user gave: functions, and arrays traced."""

    fun: Callable
    args: tuple
    limits: Limits


def _root(options: tuple[Residuals, bool], user: User, y0: Any) -> tuple:
    residuals, check_band = options
    layout = residuals.layout
    flat_fun, x0 = residuals.bind(user.fun, (y0, *user.args), {})
    x0 = lax.stop_gradient(x0)
    closed, consts, fixed = close(lambda x: flat_fun(x)[0], x0)
    others = lax.stop_gradient((x0, fixed, user.limits))

    def find(consts: list, others: tuple) -> tuple:
        x0, fixed, limits = others
        s = search(residuals, lambda x: (closed(x, consts, fixed), None), limits, check_band, x0)
        # As numbers that tangents know of: steps and status become integers again below.
        return s.point.x, *(a.astype(jnp.float32) for a in (s.status, s.steps)), s.point.size

    solution = implicit_root(find, lambda x, consts, others: closed(x, consts, others[1]), residuals)
    x, status, steps, size = (solution if consts else find)(consts, others)
    return layout.unravel(x), size, jnp.maximum(steps, 0).astype(jnp.int32), status.astype(jnp.int32)


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
        differentiable, pure and traceable. Changes of what it reads from outside are noticed but in modules, sets,
        files and jitted functions (`help(bandhess_jax)` has the whole list).
      y0: start: an array or tree of stages (`ravel_stages`).
      lower: stages before its own that a residual depends on.
      upper: stages after its own that a residual depends on.
      args: further arguments of `fun`. New arrays in them do not retrace.
      tol: relative tolerance, by default sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32. A new one does not retrace.
      max_steps: bound of the accepted steps. Likewise.
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
      Status and steps are Python integers outside jit, integer arrays inside, and nothing is raised there.

    Derivatives: x is differentiable with respect to `args`, and to traced arrays that `fun` closes over, by the
      implicit function theorem: in both modes, to any order, never through the iterations. Those with respect to y0 are
      zero, as those of residual_norm. All are NaN where the status is neither CONVERGED nor PRECISION_FLOOR, or J is
      singular to rounding.

    Cost: a step, and one that is turned down, takes one linearisation of fun, (lower + upper + 1) d products and one
    banded LU; a derivative one more of each. One `lax.while_loop` that holds fun once: works under jit, in `lax.scan`,
    and under vmap (lanes that end stay as they are).

    >>> F = lambda y: jnp.diff(y, 2, prepend=0.0, append=1.0) - 0.01 * y**3  # y'' = y^3, y(0) = 0, y(1) = 1
    >>> root(F, jnp.zeros(9), 1, 1).status
    <Status.CONVERGED: 0>
    """
    check_args(args)
    lower, upper = as_index(lower, "lower"), as_index(upper, "upper")
    residuals = Residuals.of(fun, lower, upper, 0, False, as_chunk_size(chunk_size), (y0, *args), "y0")
    dtype = residuals.layout.dtype
    tol = float(jnp.finfo(dtype).eps) ** 0.5 if tol is None else as_positive(tol, "tol")
    limits = Limits(np.asarray(tol, dtype), np.int32(as_index(max_steps, "max_steps")))
    if residuals.layout.n == 0:
        return RootResult(y0, jnp.zeros((), dtype), 0, Status.CONVERGED)
    x, size, steps, status = prepare(_root, (residuals, bool(check_band)), User(fun, args, limits), y0)(quick=True)
    if not is_traced(status):
        steps, status = int(steps), Status(int(status))
    return RootResult(x, size, steps, status)
