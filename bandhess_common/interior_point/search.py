"""The filter line search: which trial is accepted, and how far alpha may fall."""

from __future__ import annotations

from typing import NamedTuple

from .measures import phi, residuals, theta
from .operations import Array
from .predictor import longer
from .state import Filter, Kit, Local, Mode, Point, Residuals, Search, State, Step, Values, empty_filter
from .step import Curve, fraction, slope


def emptied(k: Kit, f: Filter, wanted: Array) -> Filter:
    """Without entries where wanted."""
    none = empty_filter(k.ops, f.theta_most)
    return f._replace(theta=k.ops.where(wanted, none.theta, f.theta), phi=k.ops.where(wanted, none.phi, f.phi))


def augmented(k: Kit, f: Filter, theta0: Array, phi0: Array, wanted: Array) -> Filter:
    """With the pair that later points must beat (WB 22). The entry of largest theta, unused ones first, makes room."""
    i = k.ops.argmax(f.theta)
    entry = k.ops.where(wanted, (1 - k.c.theta_fall) * theta0, f.theta[i])
    value = k.ops.where(wanted, phi0 - k.c.phi_fall * theta0, f.phi[i])
    return f._replace(theta=k.ops.put(f.theta, i, entry), phi=k.ops.put(f.phi, i, value))


def acceptable(k: Kit, f: Filter, theta1: Array, phi1: Array) -> Array:
    """To the filter (WB 21, 22). Without finite theta and phi nothing is."""
    beaten = k.ops.all((theta1 < f.theta) | (phi1 < f.phi))
    return beaten & (theta1 <= f.theta_most) & k.ops.isfinite(theta1) & k.ops.isfinite(phi1)


def least_alpha(k: Kit, f: Filter, theta0: Array, slope0: Array) -> Array:
    """Below it restoration takes over (WB 23); never below rounding."""
    ops, c = k.ops, k.c
    steep = ops.where(slope0 < 0, -slope0, 1.0)
    by_phi = c.phi_fall * theta0 / steep
    by_switch = theta0**c.theta_power / steep**c.phi_power
    least = ops.minimum(by_phi, c.theta_fall)
    least = ops.where(theta0 <= f.theta_least, ops.minimum(least, by_switch), least)
    return ops.maximum(c.alpha_least * ops.where(slope0 < 0, least, c.theta_fall), k.eps)


def begun(k: Kit, s: State, local: Local, step: Step, curve: Curve) -> Search:
    """A search along a step from the point, with the full step first."""
    ops, q, mode = k.ops, s.point, s.mode
    phi0, theta0, slope0 = phi(k, s.f, q, mode), theta(k, local.residuals), slope(k, local, q, mode, step)
    alpha, alpha_z = fraction(k, q.d, step.d, mode.mu), fraction(k, q.z, step.z, mode.mu)
    longer_by = longer(k, s, local, step, alpha, alpha_z)
    alpha, alpha_z = alpha * longer_by, alpha_z * longer_by
    least = ops.where(curve.found, k.c.alpha_least_curved, least_alpha(k, mode.filter, theta0, slope0))
    no = curve.found & False
    return Search(
        step, alpha, alpha, alpha_z, step, alpha, alpha_z, least, phi0, theta0, slope0, curve.found, curve.curvature,
        ~no, no, no, no, ops.count(0, q.x), local.residuals, theta0,
    )  # fmt: skip


def watched(k: Kit, mode: Mode, theta0: Array) -> tuple[Mode, Array]:
    """Whether a point far from feasible has come no nearer for long: multipliers may have run off, or there is no
    feasible point; and the mode with theta's mark."""
    ops, c = k.ops, k.c
    least = ops.maximum(c.creeping * mode.theta_mark, mode.filter.theta_least)
    fallen = (mode.theta_mark == 0) | (theta0 <= least)
    mark, since = ops.where(fallen, theta0, mode.theta_mark), ops.where(fallen, 0, mode.since_mark + 1)
    mark, since = ops.where(mode.elastic, mode.theta_mark, mark), ops.where(mode.elastic, mode.since_mark, since)
    return mode._replace(theta_mark=mark, since_mark=since), ~mode.elastic & (since >= c.creeping_steps)


def renewed(k: Kit, s: State, step: Step) -> Search:
    """The search along another step with a larger shift: the bounds for accepting stay."""
    alpha, alpha_z = fraction(k, s.point.d, step.d, s.mode.mu), fraction(k, s.point.z, step.z, s.mode.mu)
    yes = s.search.first | True
    return s.search._replace(
        step=step, alpha=alpha, alpha_most=alpha, alpha_z=alpha_z, slope=slope(k, s.local, s.point, s.mode, step),
        tried=step, tried_alpha=alpha, tried_alpha_z=alpha_z, first=yes, raised=yes,
    )  # fmt: skip


class Trial(NamedTuple):
    """A trial point and what the tests say of it."""

    point: Point  # y and z as they were
    residuals: Residuals
    theta: Array
    finite: Array
    accepted: Array
    augment: Array  # the filter gets an entry
    barred: Array  # by the filter


def tested(k: Kit, s: State, v: Values) -> Trial:
    """Whether a trial is accepted: by Armijo's rule under the switching condition (WB 19, 20), else where theta or phi
    falls enough (WB 18). v is scaled."""
    ops, c, u, mode = k.ops, k.c, s.search, s.mode
    q = s.point._replace(x=s.point.x + u.tried_alpha * u.tried.x, d=s.point.d + u.tried_alpha * u.tried.d)
    res, alpha = residuals(k, v.h, q, mode.mu), u.tried_alpha
    theta1, phi1 = theta(k, res), phi(k, v.f, q, mode)
    rounding = c.phi_rounding * k.eps * ops.maximum(abs(u.phi), ops.minimum(s.value_unit, 1.0))
    steep = ops.where(u.slope < 0, -u.slope, 0.0)
    switching = (u.slope < 0) & (alpha * steep**c.phi_power > u.theta**c.theta_power)
    armijo = phi1 <= u.phi + c.armijo * alpha * u.slope + rounding
    falls = (theta1 <= (1 - c.theta_fall) * u.theta) | (phi1 <= u.phi - c.phi_fall * u.theta + rounding)
    by_phi = (u.theta <= mode.filter.theta_least) & switching
    curved = phi1 <= u.phi + c.curvature_armijo * (alpha * u.slope + alpha * alpha / 2 * u.curvature) + rounding
    good = (u.curved & curved) | (~u.curved & ((by_phi & armijo) | (~by_phi & falls)))
    finite = ops.isfinite(theta1) & ops.isfinite(phi1)
    passed = acceptable(k, mode.filter, theta1, phi1 - rounding)
    accepted = (good & passed) | (mode.quadratic & finite)
    augment = accepted & ~mode.quadratic & ~u.curved & ~by_phi & ~(switching & armijo)
    return Trial(q, res, theta1, finite, accepted, augment, finite & ~passed)


def forgetful(k: Kit, mode: Mode, u: Search) -> Mode:
    """Of the step that is taken. The filter's entries may be of a way that is left behind, and cut every step to next
    to nothing: after a few such steps it forgets them. (Ipopt has options for this, filter_reset_trigger and
    max_filter_resets.)"""
    ops, c = k.ops, k.c
    held_back = u.barred & (u.tried_alpha < c.raise_short * u.alpha_most)
    steps = ops.where(held_back, mode.barred_steps + 1, 0)
    forgets = (steps >= c.barred) & (mode.forgotten < c.forgotten)
    return mode._replace(
        filter=emptied(k, mode.filter, forgets), barred_steps=ops.where(forgets, 0, steps),
        forgotten=ops.where(forgets, mode.forgotten + 1, mode.forgotten),
    )  # fmt: skip


def watched_multipliers(k: Kit, mode: Mode, u: Search, y: Array, shift: Array) -> tuple[Mode, Array]:
    """Of the step that is taken, to multipliers y: whether these are to be estimated anew there. Those of rows that
    nearly depend on each other may have run off: the Lagrangian then bends so much, and asks for such shifts, that no
    step goes far."""
    ops, c = k.ops, k.c
    row = ops.where(u.tried_alpha < c.short_step, mode.short_row + 1, 0)
    creeps = row >= c.short_steps
    off = (ops.largest(y) > ops.where(creeps, c.multiplier_most, c.multiplier_far)) & (creeps | (shift > 0))
    off = off & ~mode.elastic & ~mode.quadratic & ~mode.renewed
    return mode._replace(short_row=ops.where(mode.elastic, mode.short_row, row), renewed=mode.renewed | off), off


def correction_wanted(k: Kit, s: State, t: Trial, correcting: Array) -> Array:
    """Second-order correction (WB 3.4): theta of the full step is no smaller, and later falls from one trial
    to the next: what a step leaves of curved rows may take several to be no more than what phi gains."""
    u, c = s.search, k.c
    again = correcting & (t.theta <= c.correction_fall * u.theta_last) & (u.corrections < c.corrections)
    first = ~correcting & u.first & (t.theta >= u.theta) & t.finite & ~u.curved
    return ~t.accepted & (first | again)


def corrected_residuals(k: Kit, s: State, t: Trial, correcting: Array) -> Residuals:
    """alpha times the residuals that the last step aimed at, and those it left (WB 27)."""
    u, old = s.search, s.local.residuals
    bounds = k.ops.where(correcting, u.residuals.bounds, old.bounds)
    rows = k.ops.where(correcting, u.residuals.rows, old.rows)
    return Residuals(u.tried_alpha * bounds + t.residuals.bounds, u.tried_alpha * rows + t.residuals.rows)
