"""One iteration up to the line search: what the derivatives say of the point, the ends, mu, and the step from it."""

from __future__ import annotations

from typing import NamedTuple

from ..status import Status
from .lag import renewed_lagging, watched_lag
from .measures import (
    error,
    gap,
    held_violated,
    hidden,
    least_mu,
    localised,
    lower_mu,
    met,
    residuals,
    theta,
    value_size,
    violation,
)
from .operations import Array
from .outcome import restored
from .predictor import begun_predictor, predicted, predictor_wanted, watched_predictor
from .products import masked, pull
from .requests import ask_derivatives, ask_values, ended, running
from .restoration import centred, resumed
from .search import begun, emptied, watched
from .state import ESTIMATE, SEARCH, Derivatives, Kit, Mode, Residuals, Solution, State, Step, choose
from .step import Curve, curve, direction, slope
from .system import assembled, factored, shift_until_definite


def visited(k: Kit, s: State, a: Derivatives) -> State:
    """With the linearisation at the point, or the end where something is not finite or f falls without end."""
    ops, p = k.ops, k.p
    rows, band = masked(k, a.rows) * s.h_scale[:, None], ops.where(p.cells, a.band, 0.0)
    total = a.grad * p.free  # of sigma f + y . h
    s = s._replace(f=s.f_scale * a.f, h=s.h_scale * a.h)
    s = ops.when(predictor_wanted(k, s), lambda s: begun_predictor(k, s, band, rows, total), s)
    q, mode = s.point, s.mode
    lower, upper, *_ = k.split(q.z)
    proximal = mode.zeta * mode.weight * (q.x - mode.x_r) * p.free
    gradient = ops.where(mode.elastic, proximal, total - pull(k, rows, q.y))
    local = localised(k, gradient, total + proximal - lower + upper, residuals(k, s.h, q, mode.mu), q, mode.elastic)
    system = assembled(k, band, rows, q, mode, local.dual, s.size_least, s.system)
    s = s._replace(local=local, system=system, fresh=0 * s.fresh + 1)
    finite = ops.isfinite(error(k, local, q, mode.elastic, 0.0)) & ops.isfinite(s.f)
    fallen, far = -s.f / ops.maximum(s.value_unit, 1.0), ops.largest(q.x)
    far_off = (ops.maximum(fallen, far) > k.c.unbounded) | (ops.minimum(fallen, far) > k.c.unbounded**0.5)
    falling = far_off & (fallen > 0)
    s, lags = watched_lag(k, s)
    s = ops.when(~lags, lambda s: choose_reported(k, s, finite), s)
    s = ended(k, s, [(~finite, Status.NONFINITE), (falling & ~mode.elastic & ~lags, Status.UNBOUNDED)])
    return ops.when(lags & running(s), lambda s: renewed_lagging(k, s), s)


def choose_reported(k: Kit, s: State, finite: Array) -> State:
    """With report and solution of the point, if that is finite."""
    ops, q, mode, units = k.ops, s.point, s.mode, k.p.units
    barrier = ops.sum(ops.real(k.p.always, q.x)) > 0
    lower, upper, *_ = k.split(q.z)
    solution = Solution(
        units * q.x, q.y * s.h_scale / s.f_scale, lower / (units * s.f_scale), upper / (units * s.f_scale),
        ops.where(barrier, ops.where(mode.elastic, mode.main_mu, mode.mu) / s.f_scale, 0.0),
    )  # fmt: skip
    report = s.report._replace(
        value=s.f / s.f_scale,
        grad_norm=ops.largest(s.local.dual / units) / s.f_scale,
        violation=violation(k, q.x, s.h, s.h_scale, units),
        mu=solution.mu,
        gap=gap(k, q, mode.mu) / s.f_scale,
    )
    return s._replace(report=report, solution=choose(k, finite, solution, s.solution))


class Verdict(NamedTuple):
    settled: Array  # stationary, and no negative curvature was found
    infeasible: Array  # the violation is no rounding


def advanced(k: Kit, s: State) -> State:
    """From a linearisation to an end or the first trial of a step."""
    ops, mode = k.ops, s.mode
    system, definite = shift_until_definite(k, s.system, s.last_shift)
    near = (system.shift > 0) & (ops.largest(s.local.residuals.rows) <= k.c.mu_error * mode.mu)
    s = s._replace(
        system=system,
        last_shift=ops.where(system.shift > 0, system.shift, s.last_shift),
        shifted=ops.where(near & ~mode.elastic, s.shifted + 1, 0),
    )
    s, bend, ends = judged(k, s)
    spent = k.ops.number(s.steps, k.p.max_steps) >= k.p.max_steps
    stuck, closing = ends.settled & mode.elastic, ends.settled & ~mode.elastic
    s = ended(
        k, s,
        [
            (~definite, Status.STALLED),
            (stuck & ends.infeasible, Status.INFEASIBLE),
            (stuck & (mode.entries > 2 * k.c.restorations), Status.STALLED),
            (spent & ~closing & ~stuck, Status.MAX_STEPS),
        ],
    )  # fmt: skip
    s = ops.when(stuck & running(s), lambda s: taken_up(k, s), s)
    return ops.when(~stuck & running(s), lambda s: departed(k, s, bend, closing, spent), s)


def taken_up(k: Kit, s: State) -> State:
    """Restoration has ended at a feasible point that the filter bars: it forgets, and the problem is taken up there."""
    point, mode = resumed(k, s.point, s.mode)
    mode = mode._replace(filter=emptied(k, mode.filter, ~mode.elastic))
    none = 0 * s.report.step
    report = s.report._replace(step=none, fraction=none, shift=s.system.shift)
    s = s._replace(point=point, mode=mode, steps=s.steps + 1, report=report)
    return ask_derivatives(k, s, ESTIMATE, point, mode)


def judged(k: Kit, s: State) -> tuple[State, Curve, Verdict]:
    """Whether the point is stationary, a direction of negative curvature where one is looked for, and in restoration
    the same again without the proximal term, if that holds the point where it is."""
    ops, c, q, tol = k.ops, k.c, s.point, k.p.tol
    elastic, unseen = s.mode.elastic, hidden(k, s.system.rows, q.x)
    small, excess = met(k, s, unseen)
    stationary = (error(k, s.local, q, elastic, 0.0) <= tol) & (elastic | small)
    near = error(k, s.local, q, elastic, s.mode.mu) <= c.curvature_error * s.mode.mu
    looking = (stationary | near) & (s.system.shift > k.eps**0.5 * s.system.size)
    none = Curve(elastic & False, s.search.step, 0 * s.f, elastic & False)
    bend = ops.when(looking, lambda _: curve(k, s.system, s.local, q, s.mode), none)
    flat = bend.found & ~elastic & ~(-bend.curvature / 2 > tol * value_size(k, s.f, s.value_unit))
    bend = bend._replace(found=bend.found & ~flat, flat=flat)
    settled = stationary & ~bend.found
    recentre = settled & elastic & (ops.largest(s.local.gradient) > c.centred * c.rho)
    s = centred(k, s, recentre)
    dual = ops.where(recentre, s.local.dual - s.local.gradient, s.local.dual)
    gradient = ops.where(recentre, 0.0, s.local.gradient)
    s = s._replace(local=localised(k, gradient, dual, s.local.residuals, q, elastic))
    settled = settled & (error(k, s.local, q, elastic, 0.0) <= tol)
    violated = ops.maximum(excess, violation(k, q.x, s.h, 1.0, 0 * q.x + 1, unseen)) > c.infeasible * tol
    violated = violated & (held_violated(k, s) > tol)
    return s, bend, Verdict(settled, violated)


def departed(k: Kit, s: State, bend: Curve, closing: Array, spent: Array) -> State:
    """With mu lowered where the barrier problem is solved (WB 7), and the search along the step begun; or the end, if
    the point is `closing`, having passed all other tests, and the step is worth little."""
    ops, q = k.ops, s.point
    s = watched_predictor(k, s)
    old, predicts = s.mode, s.mode.quadratic & ~closing
    lowering = ~bend.found & ~predicts & ~closing
    mode, res = ops.when(lowering, lambda t: lowered(k, s, t), (old, s.local.residuals))
    mode, res, products = ops.when(predicts, lambda _: predicted(k, s), (mode, res, 0 * q.d))
    s = s._replace(mode=mode, local=s.local._replace(residuals=res))
    symmetric = s.shifted >= k.c.noise_after
    step = ops.when(
        ~bend.found,
        lambda _: direction(k, s.system, s.local, s.local.residuals, q, mode, symmetric, products),
        bend.step,
    )
    little = closing & ~worth_taking(k, s, step)
    shifted = little & (s.system.shift > 0)
    little = ops.when(shifted, lambda _: worth_little_unshifted(k, s, mode, symmetric), little)
    s, step = quieted(k, s, step, symmetric & ~bend.found & ~predicts)
    s = s._replace(search=begun(k, s, s.local, step, bend))
    mode, creeping = watched(k, s.mode, s.search.theta)
    s = ask_values(k, s._replace(mode=mode), SEARCH)
    ends = [
        (little, Status.CONVERGED),
        (closing & ((s.held >= k.c.held) | nearly_flat(k, s, bend, step)), Status.PRECISION_FLOOR),
        (closing & spent, Status.MAX_STEPS),
    ]
    s = ended(k, s._replace(held=ops.where(closing, s.held + 1, s.held)), ends)
    return ops.when(creeping & running(s), lambda s: restored(k, s), s)


def quieted(k: Kit, s: State, step: Step, noisy: Array) -> tuple[State, Step]:
    """With the step without noise, where that turned it uphill and phi decides."""
    ops, q, mode = k.ops, s.point, s.mode
    phi_decides = theta(k, s.local.residuals) <= mode.filter.theta_least
    uphill = noisy & phi_decides & (slope(k, s.local, q, mode, step) > 0)
    step = ops.when(
        uphill, lambda _: direction(k, s.system, s.local, s.local.residuals, q, mode, noisy & False, 0 * q.d), step
    )
    return s._replace(shifted=ops.where(uphill, 0, s.shifted)), step


def worth_little_unshifted(k: Kit, s: State, mode: Mode, symmetric: Array) -> Array:
    """Whether M is positive definite without the shift, but for its rounding, in any units, and that step, too, is
    worth little: a shift may hide what can be gained."""
    system, ok = factored(k, s.system, 0 * s.system.shift, k.c.rounding_matrix * k.eps)
    step = direction(k, system, s.local, s.local.residuals, s.point, mode, symmetric, 0 * s.point.d)
    return ok & ~worth_taking(k, s, step)


def nearly_flat(k: Kit, s: State, bend: Curve, step: Step) -> Array:
    """Whether curvature is negative, or none beyond rounding, and neither along it nor by the shifted step can f fall
    by its tolerance."""
    shift = s.system.shift
    hidden_curvature = (shift > 0) & (shift <= k.eps**0.5 * s.system.size)
    return (bend.flat | hidden_curvature) & ~worth_taking(k, s, step, 1.0)


def worth_taking(k: Kit, s: State, step: Step, power: float | None = None) -> Array:
    """Whether the step would still change f, by tol^power of it, whatever the units."""
    gain = abs(s.local.dual @ step.x)
    power = k.c.gain_power if power is None else power
    return ~(gain <= k.p.tol**power * value_size(k, s.f, s.value_unit))


def lowered(k: Kit, s: State, start: tuple[Mode, Residuals]) -> tuple[Mode, Residuals]:
    """While E(mu) <= 10 mu; the filter starts anew, and residuals are those of the new relaxation."""
    ops, q, least = k.ops, s.point, least_mu(k, value_size(k, s.f, s.value_unit))
    elastic = s.mode.elastic

    def wanted(t: tuple[Array, Residuals]) -> Array:
        mu, res = t
        local = s.local._replace(residuals=res)
        return (error(k, local, q, elastic, mu) <= k.c.mu_error * mu) & (mu > least)

    def fall(t: tuple[Array, Residuals]) -> tuple[Array, Residuals]:
        mu = lower_mu(k, t[0], least)
        return mu, residuals(k, s.h, q, mu)

    mode, res = start
    mu, res = ops.while_loop(wanted, fall, (mode.mu, res))
    fell = mu < mode.mu
    zeta = ops.where(fell & elastic, ops.sqrt(mu), mode.zeta)
    return mode._replace(mu=mu, zeta=zeta, filter=emptied(k, mode.filter, fell)), res
