"""Quadratic programs: where rows are linear and the objective quadratic, mu follows from a predictor, and a corrector
of second order completes the step (Mehrotra, SIAM J. Optimization 2 (1992) 575)."""

from __future__ import annotations

from .measures import error, least_mu, limits, residual_error, residuals, theta, value_size
from .operations import Array
from .products import matvec, pull, push
from .state import WARM, Derivatives, Kit, Local, Mode, Residuals, State, Step, empty_filter, exists
from .step import direction, fraction
from .system import ratio


def with_far_point(k: Kit, s: State, a: Derivatives) -> State:
    """Keeps what was found beside the start, until the first search."""
    u, x = s.search, s.x_request / k.p.units
    return s._replace(search=u._replace(step=u.step._replace(x=x, y=a.h), tried=u.tried._replace(x=a.grad)))


def begun_predictor(k: Kit, s: State, band: Array, rows: Array, total: Array) -> State:
    """At the first linearisation: whether values and gradient beside the start are what the derivatives here say, which
    at random points they are of linear and quadratic functions alone; then multipliers begin larger.

    band, rows, total: of the Hessian, the Jacobian and the gradient of f + y . h, scaled.
    """
    ops, c, q = k.ops, k.c, s.point
    far, gradient_far = s.search.step, s.search.tried.x
    force = pull(k, rows, q.y)
    gradient = total - force
    move = (far.x - q.x) * k.p.free
    curved, along = matvec(k, band, move), push(k, rows, move)
    off = ops.largest((s.f_scale * gradient_far - gradient - curved) * k.p.free)
    size = ops.largest(gradient) + ops.largest(curved) + ops.largest(force)
    unit = abs(s.h) + push(k, abs(rows), abs(move)) + k.least
    left = ops.largest((s.h_scale * far.y - s.h - along) / unit)
    moved = ops.all((move != 0) | (k.p.free == 0))
    straight = moved & (off <= c.straight * size) & (left <= c.straight)
    z = ops.where(straight, c.predictor_z * q.z, q.z)
    return s._replace(point=q._replace(z=z), mode=s.mode._replace(quadratic=straight))


def predictor_wanted(k: Kit, s: State) -> Array:
    positive = k.ops.sum(k.ops.real(k.p.always, s.f)) > 0
    return (s.steps == 0) & ~s.mode.elastic & (s.start != WARM) & positive


def mean_product(k: Kit, d: Array, z: Array) -> Array:
    """Of d z, which are 0 where there are none."""
    ops = k.ops
    return ratio(k, ops.sum(ops.where(k.p.always, d * z, 0.0)), ops.sum(ops.real(k.p.always, d)))


def watched_predictor(k: Kit, s: State) -> State:
    """The filter takes over where the problem is not convex or the error does not fall."""
    ops, c, q, mode = k.ops, k.c, s.point, s.mode
    size = error(k, s.local, q, mode.elastic, 0.0)
    fallen = size <= mode.best_error / 2
    best, since = ops.where(fallen, size, mode.best_error), ops.where(fallen, 0, mode.since_best + 1)
    on = mode.quadratic & (s.system.shift == 0) & (since < c.predictor_steps)
    left = mode.quadratic & ~on
    mu = ops.maximum(mean_product(k, q.d, q.z), least_mu(k, value_size(k, s.f, s.value_unit)))
    mu = ops.where(left, ops.minimum(mu, c.mu_start), mode.mu)
    res = residuals(k, s.h, q, mu)
    new = limits(k, empty_filter(ops, mu), theta(k, res))
    filter = type(new)(*(ops.where(left, a, b) for a, b in zip(new, mode.filter, strict=True)))
    mode = mode._replace(
        quadratic=on, mu=mu, filter=filter,
        best_error=ops.where(mode.quadratic, best, mode.best_error),
        since_best=ops.where(mode.quadratic, since, mode.since_best),
    )  # fmt: skip
    return s._replace(mode=mode, local=s.local._replace(residuals=res))


def predicted(k: Kit, s: State) -> tuple[Mode, Residuals, Array]:
    """The mode with mu from the affine step, for mu = 0: mu falls by what that leaves of the mean of d z; residuals
    with it, and the products of second order of that step."""
    ops, q, mode = k.ops, s.point, s.mode
    affine = mode._replace(mu=0 * mode.mu)
    step: Step = direction(k, s.system, s.local, s.local.residuals, q, affine, mode.elastic, 0 * q.d)
    d = q.d + fraction(k, q.d, step.d, affine.mu) * step.d
    z = q.z + fraction(k, q.z, step.z, affine.mu) * step.z
    mean, left = mean_product(k, q.d, q.z), ops.maximum(mean_product(k, d, z), 0.0)
    mu = ops.maximum(mean * ratio(k, left, mean) ** k.c.predictor_power, least_mu(k, value_size(k, s.f, s.value_unit)))
    return mode._replace(mu=mu), residuals(k, s.h, q, mu), step.d * step.z


def longer(k: Kit, s: State, local: Local, step: Step, alpha: Array, alpha_z: Array) -> Array:
    """How far to go along a step that can be made in full, 1 unless a longer one is the last.

    Where d and z of a bound both fall to 0, they are a double root of d z, of which Newton's step leaves 1/4 and a
    corrected one 1/7: along a line through the root, as the way is where residuals are gone, a longer step brings
    d z to mu. It leaves (alpha - 1) times them.
    """
    ops, q, mode = k.ops, s.point, s.mode
    there, enough = exists(k, mode.elastic), k.p.tol * local.s_c

    def left(by: Array | float) -> Array:
        return ops.largest(ops.where(there, (q.d + by * step.d) * (q.z + by * step.z), 0.0))

    falls = ops.maximum(-step.d / q.d, -step.z / ops.maximum(q.z, k.least))
    most = ops.largest(ops.where(there, ops.maximum(falls, 0.0), 0.0))
    rest = ops.maximum(ops.sqrt(ratio(k, mode.mu, left(0.0))), 1 - k.c.boundary)
    by = ops.minimum((1 - rest) / ops.maximum(most, k.least), 2.0)
    ends = (by > 1) & ((by - 1) * residual_error(k, local) <= k.p.tol) & (left(by) <= enough)
    full = mode.quadratic & (alpha == 1) & (alpha_z == 1)
    return ops.where(full & ends & (left(1.0) > enough), by, 1.0)
