"""The method as an engine that asks: it knows nothing of the user's functions, and says where it wants their values.

    state = start(...)
    while state.request != DONE:
        if state.request == DERIVATIVES:
            state = begin(ops, problem, state, derivatives at state.x_request, state.sigma, state.y_request)
        else:
            state = trial(ops, problem, state, values at state.x_request)

A call that does not fit the request gives the state back unchanged. At the start derivatives are asked for three times:
beside x0 for the scales, at x0 for the first multipliers, and at x0 with these. Then follow a step's values, one or
more, and its derivatives.
"""

from __future__ import annotations

from ..status import Status
from .iteration import advanced, visited
from .operations import Array, Operations
from .outcome import accepted, failed, recoiled, taken
from .predictor import with_far_point
from .products import moved
from .requests import ask_derivatives, ask_values, concluded, ended, running
from .scaling import estimated, far_point, held, inside, placed, with_far_sizes
from .search import corrected_residuals, correction_wanted, renewed, tested
from .state import (
    CORRECT,
    DERIVATIVES,
    ESTIMATE,
    ESTIMATED,
    LINEARISE,
    PLACE,
    RUNNING,
    SCALE,
    SEARCH,
    TINY,
    VALUES,
    WARM,
    After,
    Derivatives,
    Kit,
    Local,
    Mode,
    Point,
    Problem,
    Report,
    Residuals,
    Search,
    Solution,
    State,
    Step,
    System,
    Values,
    choose,
    empty_filter,
    kit,
)
from .step import direction, fraction
from .system import factored
from .units import derivatives_in_units, in_units, measured


def start(ops: Operations, p: Problem, x: Array, kind: Array, given: Solution) -> State:
    """The first request.

    Args: x, where to start, `(n,)`; kind, of the start: ESTIMATED, GIVEN (y) or WARM (y, z and mu of a `solution`);
      given, these (its x is not read).
    """
    k = kit(ops, p)
    n, r, rows = x.shape[0], p.first.shape[0], p.cells.shape[0]
    zero, none = ops.number(0.0, x), ops.count(0, x)
    kind = none + kind
    at_x, at_r, at_d = 0 * x, ops.full((r,), 0.0, x), ops.full((2 * n + 3 * r,), 0.0, x)
    x_start = held(k, x)
    x = ops.where(kind == WARM, x_start, inside(k, x, x_start))
    z = ops.join(given.z_lower, given.z_upper, ops.full((3 * r,), 0.0, x))
    y = ops.where(kind == ESTIMATED, 0.0, given.y)
    band = ops.full((rows, n), 0.0, x)
    no, res, step = none > 0, Residuals(ops.join(at_x, at_x), at_r), Step(at_x, at_r, at_d, at_d)
    empty = empty_filter(ops, x)
    factor, _ = ops.factor(ops.put(band, 0, at_x + 1), k.shared)
    window = min(rows - k.shared, k.banded) + k.shared
    system = System(band, at_x, ops.full((r, window), 0.0, x), at_r, at_r, band, zero, at_x + 1, zero, zero, factor)
    search = Search(
        step, zero, zero, zero, step, zero, zero, zero, zero, zero, zero, no, zero, no, no, no, no, none, res, zero
    )
    q, mode = (
        Point(x, y, at_d + 1, z),
        Mode(
            no,
            zero + given.mu,
            zero,
            x,
            at_x + 1,
            empty,
            zero,
            empty,
            zero,
            none,
            none,
            zero,
            none,
            no,
            zero + float("inf"),
            none,
            none,
            none,
            none,
            no,
            none,
        ),
    )
    state = State(
        none, x, at_r, zero, none + RUNNING, none, none, zero, Report(*[zero] * len(Report._fields)),
        Solution(x, y, given.z_lower, given.z_upper, zero + given.mu), none, kind, x_start, at_x + 1, no,
        p.first, q, zero, at_r, zero, at_r, mode,
        Local(at_x, at_x, res, zero, zero, zero), system, search, no, After(q, mode), zero, zero, zero,
        none, none, none, zero, zero, no,
    )  # fmt: skip
    return ask_derivatives(k, state, SCALE, q._replace(x=far_point(k, x, x_start)), mode)


def begin(ops: Operations, p: Problem, state: State, a: Derivatives) -> State:
    """With the derivatives that were asked for."""
    before = in_hand(ops, p, state)
    k = before if a.first is None else before._replace(p=before.p._replace(first=a.first))
    a = derivatives_in_units(k, a)

    def answered(s: State) -> State:
        s = s._replace(fresh=0 * s.fresh, narrow=s.narrow + ops.number(a.narrow, s.narrow))
        bad = ~finite(k, a) & (s.stage != SCALE)
        ends = [(a.narrow > 0, Status.BAND_TOO_NARROW), (bad & ~s.pending, Status.NONFINITE)]
        s = ended(k, s, ends)
        recoiling = bad & s.pending & running(s)
        stage = ops.where(running(s) & ~recoiling, s.stage, -1)
        s = taken(before, s, s.pending & (stage >= 0))._replace(pending=s.pending & False)
        s = ops.when(recoiling, lambda s: recoiled(before, s), s)
        if a.first is not None:
            s = ops.when(stage == PLACE, lambda s: realigned(k, s), s)
        s = s._replace(first=ops.where(stage >= 0, k.p.first, s.first))
        s = ops.when(stage == SCALE, lambda s: beside(k, s, a), s)
        s = ops.when((stage == PLACE) & ~s.measured, lambda s: measured(k, s, a), s)
        stage = ops.where((stage == PLACE) & (s.stage == SCALE), -1, stage)  # once more, in other units
        s = ops.when(stage == PLACE, lambda s: placed(k, s, a), s)
        estimate = (stage == ESTIMATE) | ((stage == PLACE) & (s.start == ESTIMATED))
        s = ops.when(estimate, lambda s: estimated(k, s, a), s)
        prepared = (stage == PLACE) | (stage == ESTIMATE)
        s = ops.when(prepared, lambda s: ask_derivatives(k, s, LINEARISE, s.point, s.mode), s)
        s = ops.when(stage == LINEARISE, lambda s: visited(k, s, a), s)
        s = ops.when((stage == LINEARISE) & running(s) & ~s.fresh_y, lambda s: advanced(k, s), s)
        return concluded(k, s, stage == LINEARISE)

    return ops.when(state.request == DERIVATIVES, answered, state)


def realigned(k: Kit, s: State) -> State:
    """With what was seen of the rows at the second point in the windows that they have now."""
    return s._replace(system=s.system._replace(rows=moved(k, s.system.rows, k.p.first - s.first)))


def in_hand(ops: Operations, p: Problem, state: State) -> Kit:
    """The problem in the state's units, its rows where the state's begin."""
    return kit(ops, in_units(ops, p._replace(first=state.first), state.units))


def finite(k: Kit, a: Derivatives) -> Array:
    ops = k.ops
    rows = ops.all(ops.isfinite(a.grad)) & ops.all(ops.isfinite(a.h)) & ops.all(ops.isfinite(a.rows))
    return rows & ops.isfinite(a.f) & ops.all(ops.isfinite(ops.where(k.p.cells, a.band, 0.0)))


def beside(k: Kit, s: State, a: Derivatives) -> State:
    """The sizes at the second point are known."""
    return ask_derivatives(k, with_far_sizes(k, with_far_point(k, s, a), a), PLACE, s.point, s.mode)


def trial(ops: Operations, p: Problem, state: State, v: Values) -> State:
    """With the values that were asked for."""
    k = in_hand(ops, p, state)

    def answered(s: State) -> State:
        s = s._replace(fresh=0 * s.fresh)
        return concluded(k, turned(k, s, Values(s.f_scale * v.f, s.h_scale * v.h)), s.status == RUNNING)

    return ops.when(state.request == VALUES, answered, state)


def turned(k: Kit, s: State, v: Values) -> State:
    """One trial: the step is taken, corrected, halved, exchanged for one with a larger shift, or given up."""
    ops, c = k.ops, k.c
    correcting, tiny = s.stage == CORRECT, s.stage == TINY
    t = tested(k, s, v)
    t = t._replace(accepted=t.accepted | tiny, augment=t.augment & ~tiny)
    correct = correction_wanted(k, s, t, correcting)
    shorter = ~t.accepted & ~correct
    u = s.search._replace(finite=s.search.finite | t.finite, barred=ops.where(t.accepted, s.search.barred, t.barred))
    alpha = u.alpha / 2
    halved = u._replace(alpha=alpha, tried=u.step, tried_alpha=alpha, tried_alpha_z=u.alpha_z, first=u.first & False)
    long = alpha >= u.alpha_least
    may_raise = ~u.raised & ~u.curved & ~s.mode.elastic & (s.system.shift <= c.raise_most * s.system.size)
    raised = shorter & long & may_raise & (alpha < c.raise_short * u.alpha_most)
    res = choose(k, correct, corrected_residuals(k, s, t, correcting), s.local.residuals)
    s = s._replace(search=choose(k, shorter, halved, u))
    s = ops.when(raised, lambda s: with_larger_shift(k, s), s)
    symmetric = s.shifted >= c.noise_after
    step = ops.when(
        raised | correct,
        lambda _: direction(k, s.system, s.local, res, s.point, s.mode, symmetric, 0 * s.point.d),
        s.search.tried,
    )
    s = s._replace(search=choose(k, raised, renewed(k, s, step), s.search))
    s = s._replace(search=choose(k, correct, corrected(k, s, step, res, t.theta, correcting), s.search))
    s = ops.when(~t.accepted, lambda s: ask_values(k, s, ops.where(correct, 0 * s.stage + CORRECT, SEARCH)), s)
    s = ops.when(t.accepted, lambda s: accepted(k, s, t, v), s)
    return ops.when(shorter & ~long, lambda s: failed(k, s), s)


def with_larger_shift(k: Kit, s: State) -> State:
    """Once, before a short step: a larger shift turns it towards the gradient, and there is no noise in it."""
    ops, c = k.ops, k.c
    shift = ops.maximum(c.shift_grow * s.system.shift, ops.maximum(s.last_shift, c.shift_first * s.system.size))
    return s._replace(system=factored(k, s.system, shift)[0], last_shift=shift, shifted=0 * s.shifted)


def corrected(k: Kit, s: State, step: Step, res: Residuals, theta: Array, correcting: Array) -> Search:
    """The search with a correction of second order to be tried; theta, of the trial before."""
    ops, u = k.ops, s.search
    return u._replace(
        tried=step, tried_alpha=fraction(k, s.point.d, step.d, s.mode.mu),
        tried_alpha_z=fraction(k, s.point.z, step.z, s.mode.mu), residuals=res,
        corrections=ops.where(correcting, u.corrections + 1, 1), theta_last=theta,
    )  # fmt: skip
