"""What does not change during a run, from what the caller says."""

from __future__ import annotations

from .operations import Array, Operations
from .state import Problem


def problem(
    ops: Operations,
    lower: Array,
    upper: Array,
    fixed: Array,
    first: Array,
    m: int,
    limits: tuple,
    rows: int,
    shared: int = 0,
) -> Problem:
    """Args: lower, upper, fixed `(n,)`; first `(r,)`; m, the number of equalities; limits, tol and max_steps; rows,
    those of the band, w + 1; shared, how many of the variables, the last, are."""
    n, r = lower.shape[0], first.shape[0]
    free = 1 - fixed
    both = ops.join(lower, -upper)
    bounded = ops.isfinite(both) & (ops.join(free, free) > 0)
    edges = ops.where(bounded, both, 0.0)
    unit = ops.maximum(abs(edges), 1.0)
    width = ops.join(upper - lower, upper - lower)
    inequality = ops.range(r, lower) >= m
    none = ops.full((2 * r,), 0.0, lower) > 0
    always = ops.join(bounded, inequality, none)
    elastic = ops.join(ops.full((2 * n + r,), 0.0, lower) > 0, ~none)
    held = ops.where(fixed > 0, lower, 0.0)
    return Problem(
        edges, bounded, unit, width, 0 * held + 1, held, free, held[n - shared :],
        by_cells(ops, free, rows, shared) > 0, inequality, first, always, elastic, ops.noise(lower, 2) * free,
        ops.number(limits[0], lower), ops.number(limits[1], lower),
    )  # fmt: skip


def by_cells(ops: Operations, v: Array, rows: int, shared: int) -> Array:
    """v_i v_j in the cells of W."""
    n = v.shape[0]
    banded = v * ops.real(ops.range(n, v) < n - shared, v)
    beyond = ops.windows(ops.join(banded, ops.full((rows - 1,), 0.0, v)), ops.range(n, v), rows)
    cells = ops.put(beyond.T * banded[None], 0, v * v)
    if shared:
        border = v[n - shared :, None] * v[None]
        whole = ops.put(ops.full((rows + shared, n), 0.0, v), slice(0, rows), cells)
        cells = ops.put(whole, slice(rows, None), border)
    return cells
