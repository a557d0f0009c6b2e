"""What says how good a point is: residuals, theta, phi, the error E(mu), the violation."""

from __future__ import annotations

from .operations import Array
from .products import push
from .state import Filter, Kit, Local, Mode, Point, Residuals, State, exists


def distances(k: Kit, x: Array) -> Array:
    """`(2n,)`: from the bounds."""
    return k.ops.join(x, -x) - k.p.edges


def relaxation(k: Kit, mu: Array) -> Array:
    """By how much, in units of max(1, |bound|), bounds and inequalities give way: nothing in the limit of mu. Where
    they leave no interior (x >= 1 beside x[0] = 1) multipliers would grow without end."""
    return k.ops.minimum(k.c.relax_factor * mu, k.c.relax)


def residuals(k: Kit, h: Array, q: Point, mu: Array) -> Residuals:
    """Of bounds: distance + relax unit - d; of rows: h + [g] (relax - d) - p + n."""
    ops, relax = k.ops, relaxation(k, mu)
    *_, slack, p, n = k.split(q.d)
    bounds = distances(k, q.x) + relax * k.p.unit - q.d[: k.p.unit.shape[0]]
    rows = h + ops.where(k.p.inequality, relax - slack, 0.0) - (p - n)
    return Residuals(ops.where(k.p.bounded, bounds, 0.0), rows)


def theta(k: Kit, res: Residuals) -> Array:
    """The 1-norm of the residuals."""
    return k.ops.sum(abs(res.bounds)) + k.ops.sum(abs(res.rows))


def limits(k: Kit, f: Filter, theta0: Array) -> Filter:
    """With the bounds of theta that follow from the first one (WB 21, 19)."""
    unit = k.ops.maximum(theta0, 1.0)
    return f._replace(theta_most=k.c.theta_most * unit, theta_least=k.c.theta_least * unit)


def objective(k: Kit, f: Array, q: Point, mode: Mode) -> Array:
    """f, or in restoration rho sum (p + n) + zeta / 2 |D (x - x_R)|^2 (WB 30)."""
    *_, p, n = k.split(q.d)
    far = q.x - mode.x_r
    elastic = k.c.rho * k.ops.sum(p + n) + mode.zeta / 2 * k.ops.sum(mode.weight * far * far)
    return k.ops.where(mode.elastic, elastic, f)


def phi(k: Kit, f: Array, q: Point, mode: Mode) -> Array:
    """The barrier function (WB 3). What is bounded on one side alone is damped, by a part of mu times its distance:
    where nothing else depends on it, the barrier would take it to infinity (WB 3.7)."""
    damped = k.c.damping * k.ops.sum(k.p.damped * q.d)
    return objective(k, f, q, mode) - mode.mu * (k.ops.sum(k.ops.log(q.d)) - damped)


def localised(k: Kit, gradient: Array, dual: Array, res: Residuals, q: Point, elastic: Array) -> Local:
    """With the parts of E(mu) that do not depend on mu (WB 5, 6)."""
    ops, rho = k.ops, k.c.rho
    there = exists(k, elastic)
    forces = ops.join(-q.y, rho - q.y, rho + q.y)  # the Lagrangian's derivatives by the slacks of g, p and n
    begin = q.d.shape[0] - forces.shape[0]
    forces = ops.where(there[begin:], forces - q.z[begin:], 0.0)
    total, count = ops.sum(q.z), ops.sum(ops.real(there, q.z))
    s_d = (ops.sum(abs(q.y)) + total) / ops.maximum(count + q.y.shape[0], 1.0)
    s_d = ops.maximum(s_d, k.c.error_scale) / k.c.error_scale
    s_c = ops.maximum(total / ops.maximum(count, 1.0), k.c.error_scale) / k.c.error_scale
    return Local(gradient, dual, res, ops.maximum(ops.largest(dual), ops.largest(forces)) / s_d, s_d, s_c)


def primal_error(k: Kit, local: Local) -> Array:
    """The largest residual."""
    return k.ops.maximum(k.ops.largest(local.residuals.bounds), k.ops.largest(local.residuals.rows))


def residual_error(k: Kit, local: Local) -> Array:
    """E(mu) without complementarity."""
    return k.ops.maximum(local.dual_error, primal_error(k, local))


def error(k: Kit, local: Local, q: Point, elastic: Array, mu: Array | float) -> Array:
    """E(mu) (WB 5)."""
    products = k.ops.largest(k.ops.where(exists(k, elastic), q.d * q.z - mu, 0.0))
    return k.ops.maximum(residual_error(k, local), products / local.s_c)


def violation(k: Kit, x: Array, h: Array, h_scale: Array | float, units: Array, hidden: Array | float = 0.0) -> Array:
    """The largest; of rows, over their scales, what exceeds `hidden`, of bounds in these units of x."""
    ops = k.ops
    out = ops.maximum(abs(h) - hidden, 0.0) / h_scale
    out = ops.where(k.p.inequality & (h > 0), 0.0, out)
    bounds = ops.where(k.p.bounded, ops.maximum(-distances(k, x), 0.0) * ops.join(units, units), 0.0)
    return ops.maximum(ops.largest(out), ops.largest(bounds))


def hidden(k: Kit, rows: Array, x: Array) -> Array:
    """What rounding hides of the rows' values: of J x."""
    return k.c.rounding_rows * k.eps * push(k, abs(rows), abs(x))


def dual_met(k: Kit, s: State, enough: Array | float) -> Array:
    """Whether the Lagrangian's gradient is at most `enough`, but for what rounding hides of J^T y: a mean of
    multipliers that have run off is no measure for it."""
    hidden = k.c.rounding_rows * k.eps * s.system.row_size * k.ops.largest(s.point.y)
    return s.local.dual_error * s.local.s_d <= enough + k.ops.minimum(hidden, k.c.dual_hidden)


def held_violated(k: Kit, s: State) -> Array:
    """In restoration, the largest scaled violation of rows whose multipliers say that it can not be less: of others p
    and n are no more than what mu leaves of them."""
    ops = k.ops
    left = ops.where(k.p.inequality, ops.maximum(-s.h, 0.0), abs(s.h))
    return ops.largest(ops.where(abs(s.point.y) < k.c.rho / 2, 0.0, left))


def met(k: Kit, s: State, unseen: Array) -> tuple[Array, Array]:
    """Whether gradient, violation, gap and residuals, less what is `unseen` of rows, are small enough; and the
    violation."""
    q, value = s.point, value_size(k, s.f, s.value_unit)
    excess = violation(k, q.x, s.h, s.h_scale, k.p.units, unseen)
    change = gap(k, q, s.mode.mu) + price(k, s.local, q, unseen)
    small = (excess <= k.p.tol / 2) & (change <= k.c.gap * k.p.tol * value)
    return small & dual_met(k, s, k.p.tol * k.ops.minimum(s.local.s_d, k.c.dual_scale)), excess


def gap(k: Kit, q: Point, mu: Array) -> Array:
    """Sum of slack times multiplier, of bounds and inequalities, with what their relaxation adds."""
    ops, relax = k.ops, relaxation(k, mu)
    r = q.y.shape[0]
    unit = ops.join(k.p.unit, ops.full((r,), 0.0, q.x))
    own = unit.shape[0]
    return ops.sum(ops.where(k.p.always[:own], (q.d[:own] + relax * unit) * q.z[:own], 0.0))


def price(k: Kit, local: Local, q: Point, hidden: Array) -> Array:
    """By how much the rows' residuals, less what rounding hides of them, may change f."""
    return abs(q.y) @ k.ops.maximum(abs(local.residuals.rows) - hidden, 0.0)


def value_size(k: Kit, f: Array, first: Array) -> Array:
    """|f|, or where it is nearly 0 a part of its first size."""
    return k.ops.maximum(abs(f), k.eps**k.c.floor_mean * k.ops.minimum(first, 1.0))


def least_mu(k: Kit, value: Array) -> Array:
    """Below it mu does not fall: the sum of slack times multiplier is well below tol |f| then."""
    ops = k.ops
    count = ops.maximum(ops.sum(ops.real(k.p.always, value)), 1.0)
    return k.c.mu_least * k.p.tol * ops.minimum(10 * value / count, 1.0)


def lower_mu(k: Kit, mu: Array, least: Array) -> Array:
    """The next barrier parameter (WB 7)."""
    return k.ops.maximum(k.ops.minimum(k.c.mu_factor * mu, mu**k.c.mu_power), least)
