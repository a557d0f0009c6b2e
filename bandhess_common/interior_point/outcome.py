"""The search's outcome: the step is taken, or none is found."""

from __future__ import annotations

from ..status import Status
from .measures import dual_met, error, hidden, least_mu, lower_mu, met, value_size
from .operations import Array
from .requests import ask_derivatives, ask_values, ended
from .restoration import back, entered
from .scaling import clipped
from .search import Trial, augmented, emptied, forgetful, watched_multipliers
from .state import ESTIMATE, LINEARISE, SEARCH, TINY, After, Kit, State, Values, choose, exists


def accepted(k: Kit, s: State, t: Trial, v: Values) -> State:
    """The step to the trial point (WB 14, 16), out of restoration if that has done its work. It is taken once the
    derivatives there are known to be finite."""
    ops, u, mode = k.ops, s.search, s.mode
    z = clipped(k, s.point.z + u.tried_alpha_z * u.tried.z, t.point.d, mode.mu)
    y = s.point.y + u.tried_alpha * u.tried.y
    point = t.point._replace(y=y, z=ops.where(exists(k, mode.elastic), z, 0.0))
    mode = forgetful(k, mode, u)
    mode = mode._replace(filter=augmented(k, mode.filter, u.theta, u.phi, t.augment))
    leaving, main_point, main_mode = back(k, point, mode, v)
    mode, renewing = watched_multipliers(k, mode, u, y, s.system.shift)
    after = After(choose(k, leaving, main_point, point), choose(k, leaving, main_mode, mode))
    stage = ops.where(leaving | renewing, 0 * s.stage + ESTIMATE, LINEARISE)
    return ask_derivatives(k, s._replace(pending=s.pending | True, after=after), stage, *after)


def taken(k: Kit, s: State, wanted: Array) -> State:
    """The step that was accepted, where wanted."""
    ops, u = k.ops, s.search
    length = u.tried_alpha * k.p.units * u.tried.x
    report = s.report._replace(step=ops.sqrt(length @ length), fraction=u.tried_alpha, shift=s.system.shift)
    point, mode = choose(k, wanted, s.after.point, s.point), choose(k, wanted, s.after.mode, s.mode)
    steps = ops.where(wanted, s.steps + 1, s.steps)
    return s._replace(point=point, mode=mode, steps=steps, report=choose(k, wanted, report, s.report))


def recoiled(k: Kit, s: State) -> State:
    """Half the step that was accepted: the derivatives to which it led are not finite."""
    u = s.search
    alpha = u.tried_alpha / 2
    search = u._replace(
        step=u.tried, alpha=alpha, alpha_z=u.tried_alpha_z, tried_alpha=alpha, first=u.first & False,
        finite=u.finite & False,
    )  # fmt: skip
    return ended(k, ask_values(k, s._replace(search=search), SEARCH), [(~(alpha >= u.alpha_least), Status.NONFINITE)])


def failed(k: Kit, s: State) -> State:
    """Alpha became too small. Where rounding hides progress the full step is taken and mu falls (WB 3.9), a few times;
    else restoration begins, or begins anew from here."""
    ops, c, u, mode = k.ops, k.c, s.search, s.mode
    # theta_least is large after a start far off.
    near = (u.theta <= mode.filter.theta_least) & (mode.elastic | (s.report.violation <= c.infeasible * k.p.tol))
    solves = mode.elastic | dual_met(k, s, k.p.tol**0.5)  # a huge shift, too, leaves no step
    tiny = ~u.curved & near & solves & (ops.largest(u.step.x / (1 + abs(s.point.x))) < c.tiny * k.eps)
    last = tiny & (s.tiny_steps >= c.tiny_steps)
    spent = mode.elastic & (mode.renewals >= c.renewals)
    feasible = ~mode.elastic & (u.theta <= c.stalled * k.p.tol)
    small, _ = met(k, s, hidden(k, s.system.rows, s.point.x))
    # Of negative curvature nothing can be seen in f.
    flat = u.curved & feasible & small & (error(k, s.local, s.point, mode.elastic, 0.0) <= k.p.tol)
    stops = ~tiny & u.finite & ~flat & feasible
    off = stops & (ops.largest(s.point.y) > c.multiplier_most) & (mode.last_renewals < c.last_renewals)
    s = ended(
        k, s,
        [
            (last & ~mode.elastic, Status.PRECISION_FLOOR),
            (last, Status.STALLED),
            (~tiny & ~u.finite, Status.NONFINITE),
            (~tiny & flat, Status.PRECISION_FLOOR),
            (~tiny & (spent | (feasible & ~off)), Status.STALLED),
        ],
    )  # fmt: skip
    s = ops.when(tiny & ~last, lambda s: crept(k, s), s)
    s = ops.when(~tiny & ~off & (s.request != 0), lambda s: restored(k, s), s)
    return ops.when(off, lambda s: renewed_here(k, s), s)


def renewed_here(k: Kit, s: State) -> State:
    """Multipliers are estimated anew at the point, and the filter forgets."""
    mode = s.mode._replace(
        filter=emptied(k, s.mode.filter, s.mode.last_renewals >= 0), last_renewals=s.mode.last_renewals + 1
    )
    none = 0 * s.report.step
    report = s.report._replace(step=none, fraction=none, shift=s.system.shift)
    s = s._replace(mode=mode, steps=s.steps + 1, report=report)
    return ask_derivatives(k, s, ESTIMATE, s.point, mode)


def crept(k: Kit, s: State) -> State:
    """The full step is tried once more, to be taken whatever it gives."""
    ops, u = k.ops, s.search
    least = least_mu(k, value_size(k, s.f, s.value_unit))
    falls = s.mode.mu > least
    mu = ops.where(falls, lower_mu(k, s.mode.mu, least), s.mode.mu)
    mode = s.mode._replace(mu=mu, filter=emptied(k, s.mode.filter, falls))
    search = u._replace(tried=u.step, tried_alpha=u.alpha_most, tried_alpha_z=u.alpha_z)
    return ask_values(k, s._replace(mode=mode, search=search, tiny_steps=s.tiny_steps + 1), TINY)


def restored(k: Kit, s: State) -> State:
    """Restoration begins at the point; that counts as a step."""
    s = entered(k, s)
    none = 0 * s.report.step
    s = s._replace(steps=s.steps + 1, report=s.report._replace(step=none, fraction=none, shift=s.system.shift))
    return ask_derivatives(k, s, LINEARISE, s.point, s.mode)
