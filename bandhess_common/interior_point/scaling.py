"""The start: scales of the objective and rows, the point moved inside its bounds, slacks and multipliers."""

from __future__ import annotations

from .measures import distances, least_mu, limits, relaxation, residuals, theta, value_size
from .operations import Array
from .products import masked, pull, push
from .state import WARM, Derivatives, Kit, Point, State
from .step import halves
from .system import condensed, factored, ratio, solve


def inside(k: Kit, x: Array, given: Array) -> Array:
    """Away from the bounds by min(1e-2 max(1, |bound|), 1e-2 (upper - lower)) (WB 3.6), by a tenth of it where the
    start as it was `given` is no farther inside: a step of time may be small for good reason, unless units are guesses,
    as is then what is near."""
    ops = k.ops
    far, room = ops.minimum(k.c.push * k.p.unit, k.c.push_width * k.p.width), distances(k, given)
    far = ops.where((room > 0) & ~apart(k), ops.minimum(far, ops.maximum(room, k.c.push_near * far)), far)
    low, high = halves(ops.where(k.p.bounded, k.p.edges + far, -float("inf")))
    return held(k, ops.minimum(ops.maximum(x, low), -high))


def apart(k: Kit) -> Array:
    """Whether units of variables differ so much that they are guesses."""
    ops, p = k.ops, k.p
    most, least = (ops.largest(ops.where(p.free > 0, p.units**sign, 0.0)) for sign in (1, -1))
    return most * least > 2.0**k.c.unit_apart


def held(k: Kit, x: Array) -> Array:
    return k.ops.where(k.p.free > 0, x, k.p.held)


def far_point(k: Kit, x: Array, given: Array) -> Array:
    """Beside x, on the other side where a bound leaves no room: a gradient that vanishes at x alone is no size."""
    far = k.c.scale_far * k.ops.maximum(abs(x), 1.0) * k.p.noise
    beside = inside(k, x + far, given)
    return k.ops.where(beside == x, inside(k, x - far, given), beside)


def sizes(k: Kit, a: Derivatives) -> tuple[Array, Array]:
    """The largest derivative of f and of each row, 0 where it is not finite."""
    ops = k.ops
    top_f, top = ops.largest(a.grad * k.p.free), ops.largest(masked(k, a.rows), 1)
    return ops.where(ops.isfinite(top_f), top_f, 0.0), ops.where(ops.isfinite(top), top, 0.0)


def with_far_sizes(k: Kit, s: State, a: Derivatives) -> State:
    f, h = sizes(k, a)
    value = k.ops.where(k.ops.isfinite(a.f), abs(a.f), 0.0)
    rows = masked(k, a.rows)
    system = s.system._replace(rows=k.ops.where(k.ops.isfinite(rows), abs(rows), 0.0))
    return s._replace(f_scale=f, h_scale=h, value_unit=value, system=system)


def seen(k: Kit, s: State, a: Derivatives) -> Array:
    """|J| at the start, but 0 for what nearly vanishes there beside |J| at the second point: next to an axis of
    symmetry columns tell as little of sizes as they do on it."""
    rows = abs(masked(k, a.rows))
    return k.ops.where(rows >= k.c.vanishing * s.system.rows, rows, 0.0)


def within(k: Kit, scale: Array) -> Array:
    return k.ops.maximum(k.ops.minimum(scale, k.c.scale_grow), k.c.scale_floor)


def to_edge(k: Kit, top: Array) -> Array:
    """What is beyond 1e-2 and 100 comes to that edge (WB 3.8)."""
    size = k.ops.maximum(top, k.least)
    return k.ops.minimum(k.c.scale_most / size, 1.0) * k.ops.maximum(k.c.scale_least / size, 1.0)


def value_scale(k: Kit, top: Array) -> Array:
    """The largest derivative of f is brought to 1; a small one of float32, whose rounding grows with it, to 1e-2. Where
    units are guesses, all that is within edges remains."""
    ops, size = k.ops, k.ops.maximum(top, k.least)
    to_one = ops.minimum(1 / size, ops.maximum(k.c.scale_value / size, 1.0))
    return ops.where(top > 0, within(k, ops.where(apart(k), to_edge(k, top), to_one)), 1.0)


def row_scales(k: Kit, top: Array) -> Array:
    """For the largest entries of the rows' gradients. The median of the equalities' is brought to 1, and that of the
    inequalities', whatever units all of them are in."""
    ops, p = k.ops, k.p
    if not top.shape[0]:
        return top
    kinds = (ops.median(top, kind & (top > 0)) for kind in (p.inequality, ~p.inequality))
    common = ops.where(p.inequality, *kinds)
    common = ops.where(ops.isfinite(common) & ~apart(k), common, 1.0)
    return within(k, to_edge(k, top / common) / common)


def placed(k: Kit, s: State, a: Derivatives) -> State:
    """Scales, and the first slacks and multipliers."""
    ops, c = k.ops, k.c
    top_f, top = sizes(k, a)
    top_f = ops.maximum(ops.maximum(top_f, bend(k, s, a)), s.f_scale)
    f_scale, h_scale = value_scale(k, top_f), row_scales(k, ops.maximum(top, s.h_scale))
    f, h, x = f_scale * a.f, h_scale * a.h, s.point.x
    # A warm start may lie where f nearly vanishes: what it is beside, is its size.
    value_unit = ops.where(f == 0, 1.0, ops.maximum(abs(f), f_scale * s.value_unit))
    q, mu = slacks(k, s, h, f_scale, h_scale, least_mu(k, value_size(k, f, value_unit)))
    filter = limits(k, s.mode.filter, theta(k, residuals(k, h, q, mu)))
    steepness = ops.maximum(f_scale * ops.largest(a.grad * k.p.free), c.size_least)
    system = s.system._replace(column_size=column_sizes(k, seen(k, s, a)))
    return s._replace(
        point=q, system=system, f_scale=f_scale, h_scale=h_scale, f=f, h=h, mode=s.mode._replace(mu=mu, filter=filter),
        value_unit=value_unit,
        size_least=k.eps**c.floor_mean * steepness / ops.maximum(ops.largest(x), 1.0),
    )  # fmt: skip


def bend(k: Kit, s: State, a: Derivatives) -> Array:
    """How far the gradient of f would change along with x by max(1, |x|), or as far as bounds let it, from its change
    up to the second point: f may be flat at the start alone."""
    ops, x, far = k.ops, s.point.x, s.search
    move = (far.step.x - x) * k.p.free
    room = ops.maximum(distances(k, x), k.least)
    spent = ops.where(k.p.bounded, ops.maximum(ops.join(-move, move), 0.0) / room, 0.0)
    change = ops.largest((far.tried.x - a.grad) * k.p.free) / ops.maximum(ops.largest(spent), k.c.scale_far)
    return ops.where(ops.isfinite(change), change, 0.0)


def column_sizes(k: Kit, rows: Array) -> Array:
    """How large the columns of what was `seen` are, squared, beside rows of one size: the largest of stages 1, and 1 of
    a column of zeros. Each sweep brings the sizes of all rows and columns nearer to each other (Ruiz 2001)."""
    ops, squares = k.ops, rows * rows

    def sweep(t: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        size, _, count = t
        row = push(k, squares, 1 / size)
        sums = pull(k, squares, ratio(k, 0 * row + 1, row))
        return ops.where(sums > 0, ops.sqrt(size * sums), 1.0), sums, count + 1

    one = 0 * k.p.free + 1
    size, sums, _ = ops.while_loop(lambda t: t[2] < k.c.column_sweeps, sweep, (one, one, ops.count(0, one)))
    top = ops.largest(ops.where(sums > 0, size, 0.0)[: k.banded])
    return ops.where((sums > 0) & (top > 0), size / ops.where(top > 0, top, 1.0), 1.0)


def slacks(k: Kit, s: State, h: Array, f_scale: Array, h_scale: Array, least: Array) -> tuple[Point, Array]:
    """The first point and mu. A warm start keeps both, mu down to the `least` of an end: there z and slack times z = mu
    tell each other."""
    ops, c, q = k.ops, k.c, s.point
    warm = s.start == WARM
    y = q.y * f_scale / h_scale
    z = ops.join(q.z[: 2 * q.x.shape[0]] * f_scale * ops.join(k.p.units, k.p.units), ops.maximum(-y, 0.0), 0 * y, 0 * y)
    mu = ops.maximum(s.mode.mu * f_scale, least)
    mu = ops.where(warm, ops.minimum(mu, c.mu_start), c.mu_start)
    relax = relaxation(k, mu)
    gaps = ops.join(distances(k, q.x), h)
    none = ops.full((2 * y.shape[0],), 1.0, y)
    kept = ops.join(gaps + relax * ops.join(k.p.unit, 0 * y + 1), none)
    kept = ops.maximum(kept, mu / ops.maximum(z, 1.0))
    fresh = ops.join(gaps[: 2 * q.x.shape[0]], ops.maximum(h, c.slack_least), none)
    d = ops.where(k.p.always, ops.where(warm, kept, fresh), 1.0)
    z = ops.where(warm, clipped(k, ops.maximum(z, c.warm * mu / d), d, mu), 1 + 0 * d)
    return Point(q.x, y, d, ops.where(k.p.always, z, 0.0)), mu


def clipped(k: Kit, z: Array, d: Array, mu: Array) -> Array:
    """Z within mu / (1e10 d) and 1e10 mu / d (WB 16)."""
    return k.ops.minimum(k.ops.maximum(z, mu / (k.c.multiplier_range * d)), k.c.multiplier_range * mu / d)


def estimated(k: Kit, s: State, a: Derivatives) -> State:
    """Y that leaves the least gradient of the Lagrangian, 0 where it is large. The last shift was for others."""
    ops, q = k.ops, s.point
    lower, upper, *_ = k.split(q.z)
    y = least_gradient(k, s, masked(k, a.rows) * s.h_scale[:, None], s.f_scale * a.grad * k.p.free - lower + upper)
    usable = ops.largest(y) <= k.c.multiplier_most
    none = 0 * s.last_shift
    point = q._replace(y=ops.where(usable, y, 0.0))
    return s._replace(point=point, last_shift=none, last_dual=none + float("inf"), last_top=none + float("inf"))


def least_gradient(k: Kit, s: State, rows: Array, gradient: Array) -> Array:
    """Y that leaves the least of gradient + J^T y (WB 36)."""
    ops, q = k.ops, s.point
    like = s.system._replace(
        band=0 * s.system.band, diagonal=0 * q.x + 1, rows=rows, e=ops.real(k.p.inequality, q.x), size=1 + 0 * s.f
    )
    system, _ = factored(k, condensed(k, like), 0 * s.f)
    _, _, slack, *_ = k.split(q.z)
    y = solve(k, system, -gradient, slack, k.c.target)[1]
    return ops.where(ops.isfinite(ops.sum(y)), y, 0.0)
