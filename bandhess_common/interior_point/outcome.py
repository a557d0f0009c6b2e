"""The search's outcome: the step is taken, or none is found."""

from __future__ import annotations

from ..status import Status
from .measures import least_mu, lower_mu, value_size
from .requests import ask_derivatives, ask_values, ended
from .restoration import back, entered
from .scaling import clipped
from .search import Trial, augmented, emptied
from .state import ESTIMATE, LINEARISE, TINY, Kit, State, Values, choose, exists


def moved(k: Kit, s: State, t: Trial, v: Values) -> State:
    """At the trial point (WB 14, 16), out of restoration if that has done its work."""
    ops, u, mode = k.ops, s.search, s.mode
    z = clipped(k, s.point.z + u.tried_alpha_z * u.tried.z, t.point.d, mode.mu)
    z = ops.where(exists(k, mode.elastic), z, 0.0)
    filter = augmented(k, mode.filter, u.theta, u.phi, t.augment)
    length = u.tried_alpha * u.tried.x
    report = s.report._replace(
        step=ops.sqrt(length @ length), fraction=u.tried_alpha, shift=ops.where(u.curved, 0.0, 1.0) * s.system.shift
    )
    s = s._replace(
        point=t.point._replace(y=s.point.y + u.tried_alpha * u.tried.y, z=z), mode=mode._replace(filter=filter), f=v.f,
        h=v.h, steps=s.steps + 1, report=report,
    )  # fmt: skip
    leaving, point, mode = back(k, s)
    s = s._replace(point=choose(k, leaving, point, s.point), mode=choose(k, leaving, mode, s.mode))
    return ask_derivatives(k, s, ops.where(leaving, 0 * s.stage + ESTIMATE, LINEARISE))


def failed(k: Kit, s: State) -> State:
    """Alpha became too small. Where rounding hides progress the full step is taken and mu falls (WB 3.9), a few times;
    else restoration begins."""
    ops, c, u, mode = k.ops, k.c, s.search, s.mode
    tiny = ~u.curved & (ops.largest(u.step.x / (1 + abs(s.point.x))) < c.tiny * k.eps)
    last = tiny & (s.tiny_steps >= c.tiny_steps)
    feasible = u.theta <= c.stalled * k.p.tol
    s = ended(
        k, s,
        [
            (last & ~mode.elastic, Status.PRECISION_FLOOR),
            (last, Status.STALLED),
            (~tiny & ~u.finite, Status.NONFINITE),
            (~tiny & (mode.elastic | feasible), Status.STALLED),
        ],
    )  # fmt: skip
    s = ops.when(tiny & ~last, lambda s: crept(k, s), s)
    return ops.when(~tiny & (s.request != 0), lambda s: restored(k, s), s)


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
    return ask_derivatives(k, s, LINEARISE)
