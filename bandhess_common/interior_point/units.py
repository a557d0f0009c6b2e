"""Units of variables: the engine's x, and all that stands beside it, is the user's in units chosen at the start.

In them the method's bare numbers, such as the push from bounds, the shift of the Hessian and the tests of steps, mean
what they mean where x is of size 1. Relative to each other they make the Jacobian's columns equally large; their common
size is that of the start, or of the way to where rows are met. They are powers of 2, so that nothing is rounded, and
remain 1 where all is within a few decades.
"""

from __future__ import annotations

import math

from .operations import Array, Operations
from .problem import by_cells
from .products import by_columns, masked, pull, push
from .requests import ask_derivatives
from .scaling import far_point, inside, seen
from .state import SCALE, WARM, Derivatives, Kit, Problem, State, kit
from .step import halves
from .system import ratio


def in_units(ops: Operations, p: Problem, units: Array) -> Problem:
    """The problem in x / units."""
    both = ops.join(units, units)
    edges = p.edges / both
    return p._replace(edges=edges, unit=ops.maximum(abs(edges), 1.0), width=p.width / both, units=units)


def derivatives_in_units(k: Kit, a: Derivatives) -> Derivatives:
    """What the user's are by x / units."""
    units, rows = k.p.units, k.p.cells.shape[0] - k.shared
    band = a.band * by_cells(k.ops, units, rows, k.shared)
    return a._replace(grad=a.grad * units, rows=by_columns(k, a.rows, units), band=band)


def measured(k: Kit, s: State, a: Derivatives) -> State:
    """With units; where some are not 1, what was asked for is asked for again, from the start in these."""
    units, wanted = chosen(k, s, a)
    s = s._replace(units=units, measured=s.measured | True)

    def again(s: State) -> State:
        new = kit(k.ops, in_units(k.ops, k.p, units))
        given = s.x_start / units
        x = k.ops.where(s.start == WARM, given, inside(new, given, given))
        s = s._replace(point=s.point._replace(x=x))
        return ask_derivatives(new, s, SCALE, s.point._replace(x=far_point(new, x, given)), s.mode)

    return k.ops.when(wanted, again, s)


def chosen(k: Kit, s: State, a: Derivatives) -> tuple[Array, Array]:
    """Units, and whether there are any but 1, from the derivatives at the start and beside it."""
    ops, c, rows = k.ops, k.c, seen(k, s, a)
    columns = equilibrated(k, rows)
    used, relative = columns > 0, ops.sqrt(columns)
    log = ops.log(ops.where(used, relative, 1.0)) / math.log(2)
    count = ops.sum(ops.real(used, log))
    mean = ops.sum(log) / ops.maximum(count, 1.0)
    least, most = (log[ops.argmax(ops.where(used, sign * log, -float("inf")))] for sign in (-1, 1))
    size = ops.where(used, size_at_start(k, s), 0.0)
    roots = ops.sum(ops.sqrt(ratio(k, size, relative))) / ops.maximum(ops.sum(ops.real(size > 0, log)), 1.0)
    given = a.h - push(k, masked(k, a.rows), s.point.x - s.x_start)  # before the start was pushed inside
    way = ops.largest(ratio(k, abs(given), ops.largest(by_columns(k, rows, relative), 1)))
    common = ops.maximum(roots * roots, way / c.unit_way)
    by = ops.log(ops.where(common > 0, common, 1.0)) / math.log(2)
    within = (most - least <= c.unit_spread) & (abs(mean + by) <= c.unit_common)
    wanted = (common > 0) & (count > 0) & ~within
    most = ops.minimum(room_between_bounds(k), c.unit_most)
    power = ops.maximum(ops.minimum(ops.where(used, log, mean) + by, most), -c.unit_most)
    return ops.where(wanted & (k.p.free > 0), ops.power_of_two(power), 1.0), wanted


def room_between_bounds(k: Kit) -> Array:
    """The logarithm to the base 2 of how far x can go between two bounds, which no unit exceeds: a variable that rows
    tell little of, such as an angle that acts on velocities far from 1, would be taken for a large one."""
    ops, (low, high), (below, above) = k.ops, halves(k.p.edges), halves(k.p.bounded)
    width = -high - low
    there = below & above & (width > 0)
    return ops.where(there, ops.log(ops.where(there, width, 1.0)) / math.log(2), k.c.unit_most)


def equilibrated(k: Kit, rows: Array) -> Array:
    """Squares of factors for the columns that bring the Jacobian's rows and columns near the length 1 (Ruiz 2001), 0 of
    a column that has no entry in a row of several. A row of one entry is a bound: it says nothing of its column beside
    others."""
    ops, squares = k.ops, rows * rows

    def sweep(t: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        column, row, count = t
        across, down = push(k, squares, column), pull(k, squares, row)
        return ops.sqrt(ratio(k, column, down)), ops.sqrt(ratio(k, row, across)), count + 1

    one = 0 * k.p.free + 1
    several = ops.real(ops.sum(ops.real(rows != 0, one), 1) > 1, one)
    return ops.while_loop(lambda t: t[2] < k.c.unit_sweeps, sweep, (one, several, ops.count(0, one)))[0]


def size_at_start(k: Kit, s: State) -> Array:
    """What is known of each variable's size: |x|, or the bound next to 0; 0 where nothing is. A bound that is very
    large may stand for none."""
    ops, x = k.ops, abs(s.x_start)
    edges = abs(k.p.edges)
    low, high = halves(ops.where(edges <= k.c.unit_bound, edges, 0.0))
    near = ops.where((low > 0) & (high > 0), ops.minimum(low, high), ops.maximum(low, high))
    return ops.where(x > 0, x, near)
