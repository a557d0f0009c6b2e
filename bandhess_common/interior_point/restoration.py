"""Restoration as a mode of the same loop (WB 3.3): least violation near a point where the line search failed.

    min rho sum (p + n) + zeta / 2 |D (x - x_R)|^2    with    h - slack - p + n = 0,  p, n > 0

Eliminated, p and n only change E and the right-hand side of the system.
"""

from __future__ import annotations

from .measures import limits, phi, residuals, theta
from .operations import Array
from .search import acceptable, augmented, emptied
from .state import Kit, Mode, Point, State, Values, choose, empty_filter


def entered(k: Kit, s: State) -> State:
    """From the point at which the search failed, which the filter remembers; in a restoration the same once more, with
    other p and n. These minimise rho (p + n) - mu log p n for rr - p + n = 0 (WB 33)."""
    ops, rho, old = k.ops, k.c.rho, s.mode
    own = s.point.d.shape[0] - 2 * s.h.shape[0]
    none = ops.full((2 * s.h.shape[0],), 1.0, s.f)
    q = s.point._replace(d=ops.join(s.point.d[:own], none))
    mu = ops.maximum(old.mu, ops.largest(residuals(k, s.h, q, old.mu).rows))
    r = residuals(k, s.h, q, mu).rows
    a = (mu - rho * r) / (2 * rho)
    n = ops.maximum(a + ops.sqrt(a * a + mu * r / (2 * rho)), k.c.elastic_least)
    p = ops.maximum(r + n, k.c.elastic_least)
    new = Point(q.x, 0 * q.y, ops.join(q.d[:own], p, n), ops.join(ops.minimum(q.z[:own], rho), mu / p, mu / n))
    empty = limits(k, empty_filter(ops, mu), theta(k, residuals(k, s.h, new, mu)))
    again = old.elastic
    main = choose(k, again, old.main_filter, augmented(k, old.filter, s.search.theta, s.search.phi, ~again))
    main_mu, main_theta = ops.where(again, old.main_mu, old.mu), ops.where(again, old.main_theta, s.search.theta)
    entries, renewals = ops.where(again, old.entries, old.entries + 1), ops.where(again, old.renewals + 1, 0)
    weight = 1 / ops.maximum(abs(q.x), 1.0)
    mode = Mode(
        again | ~again, mu, ops.sqrt(mu), q.x, weight * weight, empty, main_mu, main, main_theta, entries, renewals,
        0 * mu, old.since_mark, old.quadratic, old.best_error, old.since_best,
        old.barred_steps, old.forgotten, old.short_row, old.renewed, old.last_renewals,
    )  # fmt: skip
    return s._replace(point=new, mode=mode)


def centred(k: Kit, s: State, wanted: Array) -> State:
    """With x_R at the point: the proximal term may hold x where the violation alone would not."""
    x_r = k.ops.where(wanted, s.point.x, s.mode.x_r)
    return s._replace(mode=s.mode._replace(x_r=x_r, filter=emptied(k, s.mode.filter, wanted)))


def back(k: Kit, q: Point, old: Mode, v: Values) -> tuple[Array, Point, Mode]:
    """Whether a point with values v ends restoration, theta having fallen to 0.9 of its first, or further where there
    were others before, and the main filter accepting it; the point and mode with which the problem is taken up again.
    """
    ops = k.ops
    point, mode = resumed(k, q, old)
    theta1 = theta(k, residuals(k, v.h, point, mode.mu))
    part = ops.where(old.entries > k.c.restorations, k.c.restored_late, ops.number(k.c.restored, old.mu))
    ok = old.elastic & (theta1 <= part * old.main_theta)
    return ok & acceptable(k, mode.filter, theta1, phi(k, v.f, point, mode)), point, mode


def resumed(k: Kit, q: Point, old: Mode) -> tuple[Point, Mode]:
    """The user's problem again, at a point of restoration."""
    ops = k.ops
    own = q.d.shape[0] - 2 * q.y.shape[0]
    none = 0 * ops.join(q.y, q.y)
    large = ops.largest(q.z[:own]) > k.c.restored_multiplier
    z = ops.where(large, 1.0, q.z[:own])
    d = ops.join(q.d[:own], none + 1)
    z = ops.where(k.p.always, ops.join(z, none), 0.0)
    mode = old._replace(
        elastic=old.elastic & False, mu=old.main_mu, zeta=0 * old.zeta, filter=old.main_filter,
        short_row=0 * old.short_row, renewed=old.renewed & False,
    )  # fmt: skip
    return Point(q.x, 0 * q.y, d, z), mode
