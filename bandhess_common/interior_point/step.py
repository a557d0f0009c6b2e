"""A step: from the system's solution to all variables, and how much of it keeps them positive."""

from __future__ import annotations

from typing import NamedTuple

from .operations import Array
from .products import matvec, push
from .state import Kit, Local, Mode, Point, Residuals, Step, System, exists
from .system import pliancies, ratio, solve


def direction(
    k: Kit, s: System, local: Local, res: Residuals, q: Point, mode: Mode, symmetric: Array, products: Array
) -> Step:
    """The Newton step for residuals `res` (WB 11 and 31, with a slack for every bound):

    b1 = -dual - (z1 + t1 - mu/d1 + z1/d1 rb1) + (z2 + t2 - mu/d2 + z2/d2 rb2)
    b2 = -rr + d3/z3 (y + mu/d3 - t3) + p/zp (y - rho + mu/p) - n/zn (-y - rho + mu/n)
    dd = dx + rb1, -dx + rb2, d3/z3 (dy + y + mu/d3 - t3), p/zp (dy + y - rho + mu/p), n/zn (-dy - y - rho + mu/n)
    dz = mu/d - z - z/d dd

    t, of what is bounded on one side alone, is a part of mu (`phi`).

    products: mu stands for mu less these, entry by entry of d.
    symmetric: noise is added to b1, which grows along negative curvature alone: a path through the middle of a disc
    is left so.
    """
    ops, rho = k.ops, k.c.rho
    there, pliant = exists(k, mode.elastic), pliancies(k, q, mode.elastic)
    centre = ops.where(there, (mode.mu - products) / q.d, 0.0)
    bounds, damping = 2 * q.x.shape[0], k.c.damping * mode.mu * k.p.damped
    change = q.z + damping - centre
    change_lower, change_upper = halves(change[:bounds] + (q.z / q.d)[:bounds] * res.bounds)
    b1 = -local.dual - change_lower + change_upper
    size = ops.sqrt(b1 @ b1 / max(b1.shape[0], 1))
    b1 = b1 + ops.where(symmetric, k.c.noise * size, 0.0) * k.p.noise
    forces = ops.where(there[bounds:], ops.join(q.y, q.y - rho, -q.y - rho) + (centre - damping)[bounds:], 0.0)
    give = pliant[bounds:]
    give_slack, give_p, give_n = thirds(give * forces)
    target = ops.where(mode.elastic, k.c.target_fine, ops.number(k.c.target, q.x))
    dx, dy = solve(k, s, b1 * k.p.free, -res.rows + give_slack + give_p - give_n, target)
    dd = ops.join(ops.join(dx, -dx) + res.bounds, give * (ops.join(dy, dy, -dy) + forces))
    dd = ops.where(there, dd, 0.0)
    return Step(dx, dy, dd, ops.where(there, centre - q.z - q.z / q.d * dd, 0.0))


def halves(v: Array) -> tuple[Array, Array]:
    n = v.shape[0] // 2
    return v[:n], v[n:]


def thirds(v: Array) -> tuple[Array, Array, Array]:
    n = v.shape[0] // 3
    return v[:n], v[n : 2 * n], v[2 * n :]


def slope(k: Kit, local: Local, q: Point, mode: Mode, step: Step) -> Array:
    """The barrier function's derivative along a step."""
    ops = k.ops
    *_, dp, dn = k.split(step.d)
    return (
        local.gradient @ step.x
        - mode.mu * ops.sum(step.d * (1 / q.d - k.c.damping * k.p.damped))
        + ops.where(mode.elastic, k.c.rho * ops.sum(dp + dn), 0.0)
    )


def fraction(k: Kit, v: Array, dv: Array, mu: Array) -> Array:
    """The largest part alpha <= 1 with v + alpha dv >= (1 - tau) v (WB 15), tau = max(0.99, 1 - mu) (WB 8)."""
    ops = k.ops
    tau = ops.minimum(ops.maximum(1 - mu, k.c.boundary), 1 - 4 * k.eps)
    return 1 / ops.maximum(ops.largest(ops.where(dv < 0, dv / (tau * v), 0.0)), 1.0)


class Curve(NamedTuple):
    """A direction of negative curvature, where one was found."""

    found: Array
    step: Step
    curvature: Array
    flat: Array  # there is one, but along it f would not change by its tolerance


def curve(k: Kit, s: System, local: Local, q: Point, mode: Mode) -> Curve:
    """Inverse iteration with the shifted matrix from noise: v <- dx of the system with right-hand side (v / |v|, 0).

    The curvature dx . v - delta |dx|^2 is that of H on the null space of J - E.
    """
    ops, c = k.ops, k.c

    def turn(t: tuple) -> tuple:
        v, _, count, _, _ = t
        v = v / ops.sqrt(v @ v)
        x, y = solve(k, s, v, 0 * q.y, c.target_curvature)
        square = x @ x
        return x, y, count + 1, x @ v - s.shift * square, square

    start = (ops.noise(k.p.free, 3) * k.p.free, 0 * q.y, ops.count(0, q.x), 0 * s.size, 0 * s.size)
    x, y, _, curvature, square = ops.while_loop(lambda t: t[2] < c.curvature_turns, turn, start)
    curvature = ops.maximum(curvature, curvature_along(k, s, x))
    length = c.curvature_length * ops.maximum(ops.largest(q.x), 1.0) / ops.largest(x)
    x, y = length * x, length * y
    bounds = 2 * x.shape[0]
    rows = pliancies(k, q, mode.elastic)[bounds:] * ops.join(y, y, -y)
    d = ops.where(exists(k, mode.elastic), ops.join(x, -x, rows), 0.0)
    step = Step(x, 0 * y, d, 0 * q.z)
    sign = ops.where(slope(k, local, q, mode, step) > 0, -1.0, 1 + 0 * s.size)
    found = curvature < -(k.eps**0.5) * s.size * square
    return Curve(found, Step(sign * x, 0 * y, sign * d, 0 * q.z), curvature * length * length, found & False)


def curvature_along(k: Kit, s: System, v: Array) -> Array:
    """v . H v, term by term: a solve with the shifted matrix tells it as the difference of two large numbers, and
    rounding where bounds are active may turn its sign."""
    along = push(k, s.rows, v)
    return v @ (matvec(k, s.band, v) + s.diagonal * v) + k.ops.sum(ratio(k, along * along, s.e))
