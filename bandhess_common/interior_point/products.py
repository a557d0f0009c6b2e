"""Products with the Jacobian's rows and with the Hessian's matrix W, where the last p of the n variables may be shared.

Rows `(r, L + p)`: row i holds the columns first[i] .. first[i] + L - 1, then those of the shared variables.
W `(w + 1 + p, n)`: its band, with the diagonal of all n variables on top, then the rows of the shared ones off it:

    a b . | s        a c d | f
    b c e | t        b e . | .         for w = 1, p = 1 and n = 4
    . e d | u        s t u | .
    s t u | f
"""

from __future__ import annotations

from .operations import Array
from .state import Kit


def push(k: Kit, rows: Array, v: Array) -> Array:
    """J v."""
    ops, L = k.ops, rows.shape[1] - k.shared
    if not k.shared:
        return ops.sum(rows * ops.windows(v, k.p.first, L), 1)
    return ops.sum(rows[:, :L] * ops.windows(v, k.p.first, L), 1) + rows[:, L:] @ v[k.banded :]


def pull(k: Kit, rows: Array, u: Array) -> Array:
    """J^T u."""
    ops, L, n = k.ops, rows.shape[1] - k.shared, k.p.held.shape[0]
    if not k.shared:
        return ops.add_windows(rows * u[:, None], k.p.first, n)
    return ops.join(ops.add_windows(rows[:, :L] * u[:, None], k.p.first, k.banded), rows[:, L:].T @ u)


def moved(k: Kit, rows: Array, by: Array) -> Array:
    """Rows whose windows begin `by` columns later: what these do not hold is dropped, what is new is 0."""
    ops, (r, width) = k.ops, rows.shape
    L = width - k.shared
    own = (slice(None), slice(0, L))
    wide = ops.put(ops.full((r, 3 * L), 0.0, rows), (slice(None), slice(L, 2 * L)), rows[own])
    row = ops.range(r, k.p.free)
    start = 3 * L * row + L + ops.maximum(ops.minimum(by, L), -L)
    return ops.put(rows, own, ops.windows(wide.reshape(-1), start, L))


def masked(k: Kit, rows: Array) -> Array:
    """J without the columns of fixed variables."""
    return by_columns(k, rows, k.p.free)


def by_columns(k: Kit, rows: Array, v: Array) -> Array:
    """J diag(v)."""
    ops, L = k.ops, rows.shape[1] - k.shared
    if not k.shared:
        return rows * ops.windows(v, k.p.first, L)
    own = rows[:, :L] * ops.windows(v, k.p.first, L)
    return ops.put(rows * v[None, k.banded - L :], (slice(None), slice(0, L)), own)


def matvec(k: Kit, W: Array, v: Array) -> Array:
    """W v."""
    return k.ops.matvec(W, v, k.shared)


def gram(k: Kit, rows: Array, weights: Array, W: Array) -> Array:
    """W + J^T diag(weights) J."""
    ops, L = k.ops, rows.shape[1] - k.shared
    if not k.shared:
        return ops.gram(rows, k.p.first, weights, W)
    W = ops.gram(rows[:, :L], k.p.first, weights, W)
    for q in range(k.shared):
        force = pull(k, rows, weights * rows[:, L + q])
        at, row = k.banded + q, q - k.shared
        W = ops.put(W, (0, at), W[0, at] + force[at])
        W = ops.put(W, row, W[row] + ops.put(force, at, 0.0))
    return W
