"""The Newton system of a step, condensed to one positive definite band.

    [ H   J^T ] [ dx ]   [ b1 ]       H = W + z1 / d1 + z2 / d2 + zeta D^2 + delta I
    [ J   -E  ] [ dy ] = [ b2 ]       E = 0 for c;  d3 / z3 for g;  + p / zp + n / zn in restoration

With gamma_i > 0 added to every E_i the rows are eliminated: M = H + J^T G J, G = 1 / (E + gamma). M is positive
definite exactly when the regularised matrix has inertia (n, r, 0): the factorisation's failure is the inertia test
(WB, Algorithm IC), and nothing is pivoted.

gamma is taken off again by conjugate gradients on the multipliers v = gamma / (E + gamma) y,

    (J M^-1 J^T + E (E + gamma) / gamma) v = J M^-1 (b1 + J^T G b2) - b2,

preconditioned by gamma G^2. Every eigenvalue of the product is lambda / (lambda + gamma), lambda those of
J H^-1 J^T + E: all but a few are 1, so that few turns do. (The compiled engine tries plain refinement first: it gets to
the same residual in less time.)
"""

from __future__ import annotations

from typing import NamedTuple

from .operations import Array
from .products import gram, matvec, pull, push
from .state import Kit, Mode, Point, System, choose, exists


def ratio(k: Kit, a: Array, b: Array) -> Array:
    """a / b, 0 where b is not positive."""
    return k.ops.where(b > 0, a / k.ops.where(b > 0, b, 1.0), 0.0)


def pliancies(k: Kit, q: Point, elastic: Array) -> Array:
    """d / z, 0 where there is none: how far d gives way to a force."""
    return k.ops.where(exists(k, elastic), q.d / k.ops.maximum(q.z, k.least), 0.0)


def size(k: Kit, band: Array, least: Array) -> Array:
    """|W|, the root mean square of W v."""
    noise = k.ops.noise(k.p.free, 1) * k.p.free
    curved = matvec(k, band, noise)
    # With no free variable the noise is 0.
    return k.ops.maximum(k.ops.sqrt(ratio(k, curved @ curved, noise @ noise)), least)


def assembled(
    k: Kit, band: Array, rows: Array, q: Point, mode: Mode, dual: Array, least: Array, last: System
) -> System:
    """The system of a point, not yet factored. band: W, of fixed variables zeros. What neither it nor dual depends on
    stays where it is, and needs no shift."""
    ops = k.ops
    proximal = mode.zeta * mode.weight * k.p.free
    with_proximal = shifted_diagonal(k, band, proximal)
    here = size(k, with_proximal, least)
    stiffness = q.z / q.d
    lower, upper, *_ = k.split(stiffness)
    diagonal = ops.where(k.p.free > 0, proximal + lower + upper, here)
    *_, slack, p, n = k.split(pliancies(k, q, mode.elastic))
    s = condensed(k, last._replace(band=band, diagonal=diagonal, rows=rows, e=slack + p + n, size=here))
    hold = ops.where((s.condensed[0] == 0) & (dual == 0), here, 0.0)
    return s._replace(diagonal=s.diagonal + hold, condensed=shifted_diagonal(k, s.condensed, hold))


def shifted_diagonal(k: Kit, band: Array, diagonal: Array) -> Array:
    """The band plus a diagonal matrix."""
    return k.ops.put(band, 0, band[0] + diagonal)


def condensed(k: Kit, s: System) -> System:
    """With gamma_i, relative to J_i |H|^-1 J_i^T row by row, and M."""
    ops, c, p = k.ops, k.c, k.p
    H = shifted_diagonal(k, s.band, s.diagonal)
    absolute = ops.maximum(matvec(k, abs(H), ops.full(p.free.shape, 1.0, p.free)), s.size * s.column_size)
    squares = s.rows * s.rows
    top = ops.largest(ops.sum(squares, 1))
    least = ops.where(top > 0, k.eps * top, 1.0) / s.size
    gamma = c.gamma * ops.maximum(push(k, squares, 1 / absolute), least)
    M = gram(k, s.rows, 1 / (s.e + gamma), H)
    return s._replace(gamma=gamma, condensed=M, row_size=ops.sqrt(top))


def factored(k: Kit, s: System, shift: Array, relative: float = 0.0) -> tuple[System, Array]:
    """M + delta I factored, its diagonal larger by a relative shift, and whether it could be. What nothing depends on
    has a diagonal entry of 0, which becomes the smallest number there is."""
    more = shift * k.p.free
    if relative > 0:
        more = more + k.ops.maximum(relative * s.condensed[0], k.least)
    factor, ok = k.ops.factor(shifted_diagonal(k, s.condensed, more), k.shared)
    return s._replace(shift=shift, factor=factor), ok


def shift_until_definite(k: Kit, s: System, last: Array) -> tuple[System, Array]:
    """Delta: 0, then a third of the last one and eightfold steps; the first time 1e-4 |W| and hundredfold (WB, IC).
    And whether one was found."""
    ops, c = k.ops, k.c
    first = ops.where(last > 0, last / c.shift_fall, c.shift_first * s.size)
    grow = ops.where(last > 0, c.shift_grow, ops.number(c.shift_grow_first, last))

    def attempt(t: tuple) -> tuple:
        shift, *_ = t
        system, ok = factored(k, s._replace(factor=t[1]), shift)
        return ops.where(shift > 0, shift * grow, first), system.factor, shift, ok

    start = (0 * last, s.factor, 0 * last, s.size < 0)
    _, factor, shift, ok = ops.while_loop(lambda t: ~t[3] & (t[2] < c.shift_most), attempt, start)
    return s._replace(factor=factor, shift=shift), ok


class Round(NamedTuple):
    """The iterate of a solve."""

    x: Array
    y: Array
    r1: Array  # residuals of the system without gamma
    r2: Array
    error: Array  # the larger, relative
    count: Array
    go_on: Array


class Turn(NamedTuple):
    """Of conjugate gradients: x and multipliers v, residual s = J x - r2, direction d."""

    x: Array
    v: Array
    s: Array
    d: Array
    plain: Array  # x of the regularised system
    square: Array  # of s in the preconditioner's norm
    square0: Array
    enough: Array  # of s
    count: Array
    go_on: Array


def residual(k: Kit, s: System, b1: Array, b2: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """r1, r2 and the larger of the two, relative."""
    ops, force = k.ops, pull(k, s.rows, y)
    r1 = b1 - matvec(k, s.band, x) - (s.diagonal + s.shift * k.p.free) * x - force
    r2 = b2 - push(k, s.rows, x) + s.e * y
    first = ratio(k, ops.largest(r1), ops.largest(b1) + ops.largest(force))
    return r1, r2, ops.maximum(first, ratio(k, ops.largest(r2), unit(k, s, b2, x)))


def unit(k: Kit, s: System, b2: Array, x: Array) -> Array:
    """What the second residual is measured in: never less than J x is rounded to."""
    ops = k.ops
    rounding = k.c.rounding_rows * k.eps * s.row_size * ops.largest(x)
    return ops.largest(b2) + k.c.target_small * ops.largest(push(k, abs(s.rows), abs(x))) + rounding


def gradients(k: Kit, s: System, b2: Array, t: Round, target: Array | float) -> tuple[Array, Array, Array]:
    """Conjugate gradients for the residuals of a round: dx, v, and dx of the regularised system.

    The first turn, x = M^-1 (r1 + J^T G r2), is written as all others: from x = 0, s = -r2 along d = -G r2.
    """
    ops, c, G = k.ops, k.c, 1 / (s.e + s.gamma)
    stiff, precondition = s.e * (s.e + s.gamma) / s.gamma, s.gamma * G * G

    def once(u: Turn) -> Turn:
        later = u.count > 0
        m = ops.solve(s.factor, pull(k, s.rows, u.d) - ops.where(later, 0.0, t.r1))
        q = push(k, s.rows, m) + ops.where(later, stiff * u.d, 0.0)
        curvature = u.d @ q
        ok = ~later | (curvature > c.cg_flat * (u.d @ (u.d / precondition)))  # else a row is dependent on others
        a = ops.where(later, u.square / ops.where(ok & later, curvature, 1.0), 1 + 0 * s.size)
        a = ops.where(ok, a, 0.0)
        x, v, rest = u.x - a * m, u.v + ops.where(later, a, 0.0) * u.d, u.s - a * q
        z = precondition * rest
        square = rest @ z
        d = z + ops.where(later, square / ops.where(later, u.square, 1.0), 0.0) * u.d
        met = later & (ops.largest(rest) <= u.enough)
        enough = ops.when(~later, lambda _: target * unit(k, s, b2, t.x + x), u.enough)
        square0 = ops.where(later, u.square0, square)
        go_on = ok & ~met & (square > c.cg_least * square0)
        plain = ops.where(later, u.plain, x)
        return Turn(x, v, rest, d, plain, square, square0, enough, u.count + 1, go_on)

    zero = 0 * s.size
    start = Turn(0 * t.x, 0 * t.y, -t.r2, -G * t.r2, 0 * t.x, zero, zero, zero, 0 * t.count, zero < 1)
    end = ops.while_loop(lambda u: u.go_on & (u.count <= c.cg_steps), once, start)
    return end.x, end.v, end.plain


def solve(k: Kit, s: System, b1: Array, b2: Array, target: Array | float) -> tuple[Array, Array]:
    """dx and dy, to the relative residual `target` where rounding and the rank of J allow."""
    ops, c = k.ops, k.c

    def measured(x: Array, y: Array, t: Round) -> Round:
        r1, r2, error = residual(k, s, b1, b2, x, y)
        return Round(x, y, r1, r2, error, t.count + 1, ~(error <= target))

    def once(t: Round) -> Round:
        x, v, plain = gradients(k, s, b2, t, target)

        def regularised(u: Round) -> Round:
            w = measured(plain, (push(k, s.rows, plain) - b2) / (s.e + s.gamma), t)
            better = (w.error < u.error) | ~ops.isfinite(u.error)
            return choose(k, better, w, u._replace(error=u.error + float("inf")))

        new = measured(t.x + x, t.y + v * (s.e + s.gamma) / s.gamma, t)
        new = ops.when((t.count == 0) & ~(new.error < c.poor), regularised, new)
        good = ops.isfinite(new.error) & ((t.count == 0) | (new.error <= t.error / 2))
        return choose(k, good, new, t._replace(go_on=~t.go_on))

    zero = 0 * s.size
    start = Round(0 * b1, 0 * b2, b1, b2, zero, ops.count(0, b1), zero < 1)
    end = ops.while_loop(lambda t: t.go_on & (t.count < c.rounds), once, start)
    return end.x, end.y


def dependent(k: Kit, s: System) -> Array:
    """Whether rows of the equalities are dependent: I - G^1/2 J M^-1 J^T G^1/2 leaves null vectors of J^T G^1/2 as they
    are and takes others to about gamma / (lambda + gamma) of their size."""
    ops = k.ops
    own = ops.real(~k.p.inequality, s.e)
    root = own / ops.sqrt(s.e + s.gamma)
    size = ops.sum(s.rows * s.rows, 1)

    def turn(t: tuple) -> tuple:
        u, count, _ = t
        u = u / ops.sqrt(u @ u)
        v = root * u
        force = pull(k, s.rows, v)
        rest = u - root * push(k, s.rows, ops.solve(s.factor, force))
        whole = v @ (size * v)  # 0 of rows that are 0
        return rest, count + 1, ops.where(whole == 0, 0.0, ops.sqrt((force @ force) / whole))

    start = (own * ops.noise(s.e, 4), ops.count(0, s.e), 0 * s.size)
    least = ops.while_loop(lambda t: t[1] < k.c.null_turns, turn, start)[2]
    return least <= k.c.dependent  # NaN, which no null vector leaves: u has become 0, or there are no equalities
