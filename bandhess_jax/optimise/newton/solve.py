"""One call of `newton`, as a program: with derivatives where something is traced, in pieces where nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.status import History, Status, StepInfo

from ...band.structures import as_clean
from ...extraction.bandwidth import check_fits
from ...extraction.linearise import linearize_gradient, linearize_residuals
from ...extraction.objective import Objective
from ...extraction.products import Extraction, extract
from ...framework.checkpoint import digest, orbax, resumed
from ...framework.clock import Piece, check_host, in_pieces, is_traced
from ...framework.jit import jit_call, prepare
from ...framework.lanes import Loop, run
from ...framework.packing import Packed, pack
from ..reports import state_of, told
from ..solved import differentiable_where, solved
from . import compiled, state, trust_region
from .implicit import close, implicit_solution
from .point import Functions, Options
from .split import fill, split_stages


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
    limits: np.ndarray | Array  # as `limits_of` has them

    def report(self, info: StepInfo) -> None:
        for callback in self.callbacks:
            callback(info)


def _half_square(residuals: Any) -> Any:
    return sum(jnp.sum((leaf * jnp.conj(leaf)).real) for leaf in jax.tree.leaves(residuals)) / 2


def _half_square_of(residuals: Callable, *args: Any) -> Any:
    return _half_square(residuals(*args))


def squared(residuals: Callable) -> Callable:
    """A method of the residuals' function, so that what is compiled for it belongs to that function."""
    return MethodType(_half_square_of, residuals)


class Given(NamedTuple):
    """The traced arrays of a call, but for those that the solution is differentiable in."""

    x0: Array  # ravelled
    limits: Array
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
    given = Given(x, *lax.stop_gradient((jnp.asarray(user.limits), scale, fixed, tuple(band_consts))))

    def value(x: Array, consts: list[Array], given: Given) -> Array:
        out = outer(x, consts, given.fixed)
        return jnp.asarray(_half_square(out) if squares else out, layout.dtype)  # a constant may be of any type

    def functions(consts: list[Array], given: Given) -> Functions:
        def derivatives(x: Array) -> tuple:
            if squares:
                r, forward, backward = linearize_residuals(lambda x: outer(x, consts, given.fixed), x)
                return backward(r), lambda v: backward(forward(v))
            if closed_band is not None:
                return jax.grad(value)(x, consts, given), None
            return linearize_gradient(lambda x: (value(x, consts, given), None), x)[:2]

        def band(x: Array, product: Callable) -> Array:
            return extract(product, layout, extraction) if closed_band is None else closed_band(x, *given.band)

        return Functions(lambda x: value(x, consts, given), derivatives, band)

    return functions, value, consts, given


class Method(NamedTuple):
    """The loop, by kernels or not: `initial` and `restored` give states, `turns` what leads from one to the next."""

    initial: Callable[..., Any]
    restored: Callable[..., Any]
    turns: Callable[..., Callable]


COMPILED = Method(compiled.initial, compiled.restored, compiled.turns)
PORTABLE = Method(state.initial, state.restored, trust_region.turns)


def method_of(options: Options) -> Method:
    return COMPILED if compiled.serves(options) else PORTABLE


def advance(turn: Callable, s: Any, last: Any) -> Any:
    """Turn until the end, or until `last` turns have been made in all."""
    return lax.while_loop(lambda s: s.open & (s.turns < last), turn, s)


def _end(s: Any) -> tuple:
    """Numbers that tangents know of: steps and status become integers again in `_newton`."""
    integers = (a.astype(jnp.float32) for a in (s.status, s.steps))
    return s.best, s.value, *integers, s.grad_norm, s.history


def _newton(problem: Problem, user: User, x0: Any) -> tuple:
    """`(x, value, grad_norm, steps, status, history)`."""
    layout, report = problem.objective.layout, user.report if user.callbacks else None
    options = problem.options
    functions, value, consts, given = functions_of(problem, user, lax.stop_gradient(options.split(layout.ravel(x0))))

    def loop(consts: list[Array], given: Given) -> Loop:
        method, start = method_of(options), (given.x0, given.limits, given.scale)
        turn = method.turns(options, functions(consts, given), given.scale, report, given.x0)
        return Loop(lambda: method.initial(options, *start), lambda s: s.open, turn, _end)

    minimise = partial(run, loop, plain=report is not None or options.sharding is not None)

    solution = implicit_solution(minimise, value, layout, problem.extraction, options.sharding) if consts else minimise
    x, f, status, steps, grad_norm, history = solution(consts, given)
    x = split_stages(layout, options.sharding, layout.unravel(x))
    return x, f, grad_norm, steps.astype(int), status.astype(int), history


def _given(problem: Problem, user: User, x0: Any) -> tuple:
    """What a state begins with."""
    layout = problem.objective.layout
    scale = None if user.scale is None else layout.ravel(user.scale)
    return lax.stop_gradient((layout.ravel(x0), jnp.asarray(user.limits), scale))


def _start(problem: Problem, user: User, x0: Any) -> Any:
    return method_of(problem.options).initial(problem.options, *_given(problem, user, x0)).stored


def _packed_start(problem: Problem, user: User, x0: Any) -> Packed:
    return problem.options.split(pack(_start(problem, user, x0)))


def _turns(problem: Problem, user: User, x0: Any, packed: Packed, last: Array) -> Piece:
    options, report = problem.options, user.report if user.callbacks else None
    method, layout = method_of(options), problem.objective.layout
    s = method.restored(options, packed, *_given(problem, user, x0))
    functions, _, consts, given = functions_of(problem, user, s.best)
    s = advance(method.turns(options, functions(consts, given), given.scale, report, s.best), s, last)
    x = split_stages(layout, options.sharding, layout.unravel(s.best))
    return Piece(options.split(pack(s.stored)), s.open, (x, s.value, s.grad_norm, s.steps, s.status, s.history))


def _eager(problem: Problem, user: User, x0: Any, max_seconds: float | None) -> tuple | None:
    """As `_newton`, in pieces: the host looks at the clock between them, and can be interrupted. None where something
    is traced, unless there is a time limit: then it is an error."""
    operands, piece = (x0, user.args, user.scale), prepare(_turns, problem, user._replace(callbacks=()), x0)
    if max_seconds is not None:
        check_host(operands, "newton")
    elif is_traced(operands) or piece.traced:
        return None

    def turns(packed: Packed, last: int) -> Piece:
        return piece(packed, more=(np.int32(last),), quick=True)

    size = problem.objective.layout.n * problem.options.width
    reporting = told(turns, partial(_info, piece.shape_of(_start)), user.report) if user.callbacks else turns
    end = in_pieces(reporting, piece.shape_of(_packed_start), size, max_seconds)
    if is_traced(end):  # fun closes over tracers
        if max_seconds is None:
            return None
        check_host(end, "newton")
    return _shown(end)


def _info(like: Any, piece: Piece) -> StepInfo:
    return state_of(piece.state, like).info


def _shown(end: Piece) -> tuple:
    *rest, status, history = end.shown
    return *rest, np.int32(Status.TIME_LIMIT) if end.open else status, history


def _resumed(problem: Problem, user: User, x0: Any, max_seconds: float | None, folder: str | os.PathLike) -> tuple:
    """As `_newton`, a turn at a time, saved in the folder after every accepted step."""
    orbax()  # missing, it is missed before anything is compiled
    piece = prepare(_turns, problem, user, x0)
    if is_traced((x0, user.args, user.scale)) or piece.traced:
        raise ValueError(
            "checkpoint needs the host to write files: call newton outside jit, vmap and grad, or leave it out"
        )
    return _shown(
        resumed(
            lambda packed, last: piece(packed, more=(np.int32(last),), quick=True),
            prepare(_packed_start, problem, user, x0)(quick=True),
            lambda piece: piece.shown[3],
            folder,
            lambda first: _about(problem, user, x0, first),
            max_seconds,
        )
    )


def _about(problem: Problem, user: User, x0: Any, first: Piece) -> dict[str, str]:
    """What tells a run from others, by the names of `newton`'s arguments; fun by what the first turn finds at x0."""
    options, layout = problem.options, problem.objective.layout
    over = options.sharding and (dict(options.sharding.mesh.shape), options.sharding.spec, jax.process_count())
    told = {
        "fun at x0": [float(number) for number in first.shown[1:3]],
        "x0": (layout.treedef, digest(x0)),
        "bandwidth": problem.extraction.bandwidth,
        "args": digest(user.args),
        "hessian": problem.hessian,
        "scale": (options.scale, digest(user.scale)),
        "tol": user.limits[0],
        "max_steps": user.limits[2],
        "history": options.rows > 0,
        "check_band": options.check_band,
        "stage_axes": layout.shared,
        "periodic": layout.periodic,
        "sharding": over,
        "kernels": compiled.serves(options),
    }
    return {name: str(value) for name, value in told.items()}


def _empty(problem: Problem, user: User, x0: Any) -> tuple:
    """There is nothing to minimise over."""
    fun = squared(user.fun) if problem.hessian == "gauss_newton" else user.fun
    value = jnp.asarray(fun(x0, *user.args))
    zero = jnp.zeros_like(value)
    status = jnp.where(jnp.isfinite(value), Status.CONVERGED, Status.NONFINITE).astype(int)
    history = _start(problem, user, x0).history
    if history is not None:
        first = History(lax.stop_gradient(value), zero, zero, zero, zero, zero + jnp.nan)
        history = jax.tree.map(lambda rows, a: rows.at[0].set(a), history, first)
    return x0, differentiable_where(solved(status), value), zero, jnp.int32(0), status, history


def solve(
    problem: Problem, user: User, x0: Any, max_seconds: float | None, checkpoint: str | os.PathLike | None
) -> tuple:
    """The whole call: `(x, value, grad_norm, steps, status, history)`."""
    if problem.objective.layout.n == 0:
        return _empty(problem, user, x0)
    if checkpoint is not None:
        return _resumed(problem, user, x0, max_seconds, checkpoint)
    if problem.options.sharding is not None:
        return prepare(_newton, problem, user, x0)(quick=True)
    return _eager(problem, user, x0, max_seconds) or jit_call(_newton, problem, user, x0)
