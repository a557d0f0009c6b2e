"""One call of `sqp`, as a program: with derivatives where something is traced, in pieces where nothing is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.kernels.interior import Layout as Sizes
from bandhess_common.status import SQPHistory, Status, StepInfo

from ...framework.clock import Piece, check_host, in_pieces, is_traced
from ...framework.jit import jit_call, prepare
from ...framework.lanes import Loop, run
from ...framework.packing import contents, pack, unpack
from ..reports import state_of, told
from ..solved import differentiable_where, solved
from .condensed import largest
from .engine import COLD, MULTIPLIERS, WARM, Engine, Solution, Start, engine
from .implicit import envelope
from .kkt import conditions, implicit_solve
from .loop import UNSEEN, End, Options, Seen, State, advance, blank, end_of, initial, is_open, turns
from .problem import Data, Problem


class User(NamedTuple):
    """What the user gave."""

    functions: tuple[Callable, Callable | None, Callable | None]
    x0: Any
    bounds: Any
    args: tuple
    callbacks: tuple[Callable[[StepInfo], None], ...]

    @property
    def report(self) -> Callable[[StepInfo], None] | None:
        def report(info: StepInfo) -> None:
            for callback in self.callbacks:
                callback(info)

        return report if self.callbacks else None


class Given(NamedTuple):
    """Where to begin, and what bounds the work: arrays all, so that others of them do not retrace."""

    multipliers: Any
    bound_multipliers: Any
    inequality_multipliers: Any
    barrier: Any
    numbers: Any  # tol, max_steps, how to start, whether nobody asks for each iterate

    def start(self, problem: Problem) -> Start:
        layout = problem.objective.layout
        y = problem.equalities.ravel(self.multipliers)
        z = problem.inequalities.ravel(self.inequality_multipliers, "inequality multipliers")
        lower, upper = map(layout.ravel, self.bound_multipliers)
        numbers = jnp.concatenate(
            [self.numbers[:3], jnp.reshape(self.barrier, 1), self.numbers[3:]], dtype=layout.dtype
        )
        return lax.stop_gradient(Start(jnp.concatenate([y, -z]), lower, upper, numbers))


class Parts(NamedTuple):
    """What a result is made of: `SQPResult`'s fields."""

    x: Any
    value: Any
    grad_norm: Any
    steps: Any
    status: Any
    multipliers: Any
    constraint_norm: Any
    history: SQPHistory | None
    bound_multipliers: Any
    inequality_multipliers: Any
    barrier: Any
    outside: Any


def _engine(options: Options, equalities: int, inequalities: int) -> Engine:
    layout = options.objective.layout
    rows = (options.extraction.bandwidth + 1) * layout.d
    return engine(Sizes(layout.n, equalities + inequalities, rows, layout.p), equalities, layout.dtype)


def _engine_of(options: Options, problem: Problem) -> Engine:
    return _engine(options, problem.equalities.size, problem.inequalities.size)


def _problem(options: Options, user: User) -> tuple[Problem, Array]:
    return Problem.of(options.objective, user.functions, user.x0, user.bounds, user.args)


def _run(options: Options, problem: Problem, callback: Callable | None, x: Array, start: Start) -> End:
    """From the start to the end."""
    if options.objective.layout.n == 0:
        return _without_variables(options, problem, x, start)
    kernels = _engine_of(options, problem)

    def loop(data: Data, x: Array, start: Start) -> Loop:
        here = problem.on(data)
        turn = turns(options, kernels, here.rows, here.sides, callback)
        begin = functools.partial(initial, options, kernels, here.sides, x, start)
        return Loop(begin, functools.partial(is_open, kernels), turn, functools.partial(end_of, kernels))

    return run(loop, problem.data, x, start, plain=callback is not None)


def _without_variables(options: Options, problem: Problem, x: Array, start: Start) -> End:
    """Where there is nothing to choose: the constraints hold or they do not."""
    value, h = problem.rows(x)
    m, rows = problem.equalities.size, options.rows
    violation = jnp.maximum(largest(h[:m]), jnp.max(-h[m:], initial=0))
    status = jnp.where(jnp.isfinite(violation), Status.INFEASIBLE, Status.NONFINITE)
    status = jnp.where(violation <= start.numbers[0] / 2, Status.CONVERGED, status)
    zero, none = jnp.zeros((), h.dtype), jnp.int32(0)
    history = None
    if rows is not None:
        first = SQPHistory(value, zero, violation, zero, zero, zero, zero)
        history = jax.tree.map(lambda a: jnp.full(rows, jnp.nan if options.blank else 0, h.dtype).at[0].set(a), first)
    return End(Solution(x, jnp.zeros_like(h), x, x, zero), Seen(value, zero, violation), none, status, none, history)


def _triple(problem: Problem, end: End) -> tuple[Array, Array, Array]:
    """x, y and the multipliers z of G, as `kkt.conditions` has them."""
    m, (x, y, z_lower, z_upper, _) = problem.equalities.size, end.solution
    sides = [] if problem.data.box is None else [z_lower, z_upper]
    return x, y[:m], jnp.concatenate([*sides, -y[m:]])


def _least(problem: Problem, triple: tuple, end: End) -> Array:
    """The value, as a function of the data."""

    def lagrangian(at: tuple, given: tuple) -> Array:
        (x, y, z, others), (consts, box) = at, given
        value, c, g = problem.on(Data(consts, others, box)).parts(x)
        return value + y @ c - z @ g

    consts, others, box = problem.data
    return envelope(lagrangian, end.seen.value, (*triple, others), (consts, box))


def _parts(problem: Problem, triple: tuple, value: Array, end: End, inequalities: bool) -> Parts:
    x, y, z = triple
    box, layout = problem.data.box, problem.objective.layout
    sides, below = problem.split(z)
    return Parts(
        layout.unravel(x if box is None else box.fix(x)), value, end.seen.grad_norm, end.steps, end.status,
        problem.equalities.unravel(y), end.seen.violation, end.history, sides,
        problem.inequalities.unravel(below) if inequalities else None, end.solution.mu,
        jnp.maximum(end.narrow - 2, -1),
    )  # fmt: skip


def _sqp(options: Options, *rest: Any) -> Parts:
    """As one program, differentiable in all that the problem depends on."""
    user, given = User(*rest[:-1]), rest[-1]
    layout = options.objective.layout
    problem, x0 = _problem(options, user)
    start, data = given.start(problem), problem.data
    optimality = functools.partial(conditions, problem.parts, problem.held, problem.resting, problem.active)

    def solve(_: Callable, guess: tuple) -> tuple:
        end = _run(options, problem.on(lax.stop_gradient(data)), user.report, guess[0], start)
        x, y, z = _triple(problem, end)
        # custom_root wants floats.
        return (x, y, z, y, z), jax.tree.map(lambda a: a.astype(layout.dtype), end)

    multipliers = (jnp.zeros(size, layout.dtype) for size in (problem.equalities.size, len(problem.active)))
    guess = x0, *(2 * tuple(multipliers))
    tangent_solve = functools.partial(implicit_solve, layout, options.extraction, problem.held)
    solution, end = lax.custom_root(optimality, guess, solve, tangent_solve, has_aux=True)
    # Integers like Python's, so that a loop may carry a result that a call outside jit began with.
    end = end._replace(**{name: getattr(end, name).astype(int) for name in ("steps", "status", "narrow")})
    ok = solved(end.status)
    x, y, z, *shown = (differentiable_where(ok, part) for part in solution)
    value = differentiable_where(ok, _least(problem, (x, y, z), end))
    return _parts(problem, (x, *shown), value, end, user.functions[2] is not None)


def _like(options: Options, *rest: Any) -> tuple:
    """Of which only the shapes matter: multipliers, x, and a state, packed and not."""
    problem, x0 = _problem(options, User(*rest))
    trees = (outputs.unravel(jnp.zeros(outputs.size, outputs.dtype)) for outputs in problem[2:4])
    state = blank(options, _engine_of(options, problem)) if len(x0) else None
    return *trees, options.objective.layout.unravel(x0), None if state is None else pack(state), state


def _info(options: Options, like: tuple, piece: Piece) -> StepInfo:
    """After a turn, whose step the engine's head still shows."""
    s: State = state_of(piece.state, like[-1])
    sizes = (sum(leaf.size for leaf in jax.tree.leaves(multipliers)) for multipliers in like[:2])
    kernels, head = _engine(options, *sizes), jax.tree.map(np.asarray, s.head)
    shift, fraction = (kernels.register(head, name) for name in ("shift", "fraction"))
    return StepInfo(s.noted, s.seen.value, s.seen.grad_norm, shift, fraction)


def _turns(options: Options, *rest: Any) -> Piece:
    *operands, packed, given, last = rest
    user = User(*operands)
    problem, x0 = _problem(options, user)
    here = problem.on(lax.stop_gradient(problem.data))
    kernels = _engine_of(options, problem)
    sides = here.sides
    nothing = blank(options, kernels)
    # The engine's state is not chosen between two: what begins takes its memory.
    before = unpack(packed, nothing)._replace(engine=contents(packed, nothing).engine)
    start = given.start(problem)
    state = initial(options, kernels, sides, x0, start, before, packed.integers[0] > 0)
    state = advance(kernels, turns(options, kernels, here.rows, sides, user.report), state, last)
    end = end_of(kernels, state)
    # The value is traced where the functions close over tracers, which says that this is no place for pieces.
    triple = _triple(here, end)
    shown = _parts(here, triple, _least(problem, triple, end), end, user.functions[2] is not None)
    return Piece(pack(state), is_open(kernels, state), shown)


def _given(like: tuple, numbers: tuple[float, int, bool], multipliers: Any, start: Any, dtype: np.dtype) -> Given:
    zeros = lambda tree: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)  # noqa: E731
    y, z, x, *_ = like
    kind = COLD if multipliers is None else MULTIPLIERS
    parts = zeros(y) if multipliers is None else multipliers, (zeros(x), zeros(x)), zeros(z), np.zeros((), dtype)
    if start is not None:
        kind, sides, below = WARM, start.bound_multipliers, start.inequality_multipliers
        parts = (
            start.multipliers,
            parts[1] if sides is None else sides,
            parts[2] if below is None else below,
            start.barrier,
        )
    return Given(*parts, np.array([*numbers[:2], kind, numbers[2]]))


def solve(
    options: Options, user: User, numbers: tuple[float, int], multipliers: Any, start: Any, max_seconds: float | None
) -> Parts:
    """The whole call; numbers are tol and max_steps. In pieces where nothing is traced: the host looks at the clock
    between them, and can be interrupted."""
    layout = options.objective.layout
    piece = prepare(_turns, options, *user._replace(callbacks=()))
    operands = user.x0, user.bounds, user.args, multipliers, start
    if max_seconds is not None:
        check_host(operands, "sqp")
    like = piece.shape_of(_like)
    alone = options.rows is None and user.report is None
    given = _given(like, (*numbers, alone), multipliers, start, layout.dtype)
    if layout.n and (max_seconds is not None or not (is_traced(operands) or piece.traced)):
        size = 16 * layout.n * layout.d * (options.extraction.bandwidth + 1)  # a turn factorises and multiplies often
        turns = lambda state, last: piece(state, more=(given, np.int32(last)), quick=True)  # noqa: E731
        if user.report is not None:
            turns = told(turns, functools.partial(_info, options, like), user.report, begun=-UNSEEN)
        end = in_pieces(turns, like[-2], size, max_seconds, piece.spare)
        if not is_traced(end):
            late = bool(end.open)
            return end.shown._replace(status=np.int32(Status.TIME_LIMIT)) if late else end.shown
        if max_seconds is not None:  # the functions close over tracers
            check_host(end, "sqp")
    return jit_call(_sqp, options, *user, given)
