"""Solving H x = b in parallel: partition the columns, eliminate inside every part at once, reduce what joins them.

The band is cut into P parts of q columns: q - w interior ones, then w that separate the part from the next.

    H =  I0 .  .  .        I: interior columns of a part, S: its separator
         S0 S0 .  .        Interiors meet separators only, so all of them are eliminated side by side:
         .  I1 I1 .        q - w steps, with the parts in the trailing axis of every array.
         .  S1 S1 S1

The forward scan is the serial one of `linalg/ldl`, with right-hand sides [E | b], E the coupling of the interior to the
separator on its left. What it carries at its end is what the separators need: the window is the update of the right
separator's block, the pending rows are the coupling between the two separators and the update of the right one's
right-hand side, and the Gram matrix of the eliminated right-hand sides is the update of the left separator. The
separators form a block tridiagonal system, again positive definite, which block cyclic reduction halves until one
block is left. One scan backwards then gives all interiors.

The steps are what costs on a GPU, not the flops. A pass that factorises takes as many as one that only solves, so
nothing of a factorisation is kept but its pivots (H is positive definite where all of them are positive).
Source: Wang 1981 (ACM TOMS 7, 170) for the parts, Heller 1976 (SIAM J. Numer. Anal. 13, 484) for the reduction.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _backward(L: Array, y: Array) -> Array:
    return lax.linalg.triangular_solve(L, y, left_side=True, lower=True, transpose_a=True)


def _reduce(D: Array, C: Array, b: Array) -> tuple[Array, Array]:
    """Block cyclic reduction: `(x, pivots)`, `(N, w, k)` and `(N, w)`.

    D `(N, w, w)` holds the diagonal blocks (symmetric), C the blocks on their left (C[0] is 0), b is `(N, w, k)`. The
    even blocks are eliminated at once; each changes its two odd neighbours and couples them.
    """
    N, w = b.shape[:2]
    L = jnp.linalg.cholesky(D[0::2], symmetrize_input=False)
    pivots = jnp.square(jnp.diagonal(L, axis1=1, axis2=2))
    if N == 1:
        y = lax.linalg.triangular_solve(L, b, left_side=True, lower=True)
        return _backward(L, y), pivots

    odd = N // 2
    right = jnp.pad(C[1::2].mT, ((0, len(L) - odd), (0, 0), (0, 0)))
    y = lax.linalg.triangular_solve(L, jnp.concatenate([C[0::2], right, b[0::2]], 2), left_side=True, lower=True)
    gram = _times(y[:, :, : 2 * w].mT, y)
    to_left, to_right = gram[:, :w], gram[:odd, w:]
    to_left = jnp.pad(to_left[1:], ((0, odd + 1 - len(L)), (0, 0), (0, 0)))
    inner, inner_pivots = _reduce(
        D[1::2] - to_right[:, :, w : 2 * w] - to_left[:, :, :w],
        -to_right[:, :, :w],
        b[1::2] - to_right[:, :, 2 * w :] - to_left[:, :, 2 * w :],
    )
    before = jnp.pad(inner, ((1, 0), (0, 0), (0, 0)))[: len(L)]
    after = jnp.pad(inner, ((0, len(L) - odd), (0, 0), (0, 0)))
    x = _backward(L, y[:, :, 2 * w :] - _times(y[:, :, :w], before) - _times(y[:, :, w : 2 * w], after))

    def interleave(even: Array, odd: Array) -> Array:
        odd = jnp.pad(odd, [(0, len(even) - len(odd)), *[(0, 0)] * (odd.ndim - 1)])
        return jnp.stack([even, odd], 1).reshape(2 * len(even), *even.shape[1:])[:N]

    return interleave(x, inner), interleave(pivots, inner_pivots)


def partition(ab: Array, b: Array, q: int | None = None) -> tuple[Array, Array]:
    """`(x, pivots)` with H x = b.

    Args: ab `(w + 1, n)` with unused cells cleared; b `(n, k)`; q the columns of a part, at least 2 w.
    Returns: x `(n, k)`, and the pivots `(n,)` of the elimination: their product is det H, and all are in (0, inf)
      where H is positive definite; elsewhere x is of no use.
    Cost: 2 (q - w) steps and log2(n / q) reductions; some n (4 w^2 + 4 w k) flops.
    """
    (rows, n), k = ab.shape, b.shape[1]
    w = rows - 1
    if w == 0 or n == 0:
        return b / ab[0][:, None], ab[0]
    # A column of a separator costs some four of an interior, a reduction some four steps.
    q = max(32, 4 * w) if q is None else q
    P = -(-n // q)
    # The columns of all parts side by side, (q, w + 1, P) and (q, k, P), the last part filled up with an identity.
    columns = jnp.pad(ab, ((0, 0), (0, P * q - n))).at[0, n:].set(1).reshape(rows, P, q).transpose(2, 0, 1)
    b = jnp.pad(b, ((0, P * q - n), (0, 0))).reshape(P, q, k).transpose(1, 2, 0)
    x, pivots = _solve_parts(columns, b)
    return x.transpose(2, 0, 1).reshape(P * q, k)[:n], pivots.T.reshape(P * q)[:n]


@jax.jit  # one program for all n of P parts
def _solve_parts(columns: Array, b: Array) -> tuple[Array, Array]:
    """`partition` on columns `(q, w + 1, P)` and b `(q, k, P)`; x and the pivots likewise."""
    q, rows, P = columns.shape
    w, k = rows - 1, b.shape[1]
    m = q - w
    row, column = jnp.arange(w)[:, None], jnp.arange(w)[None]
    # Row i of an interior meets column c of the separator on its left in the cell d = w + i - c, if i <= c.
    left = jnp.where((row <= column)[..., None], columns[m + column, jnp.where(row <= column, w + row - column, 0)], 0)
    left = jnp.pad(left[:, :, :-1], ((0, 0), (0, 0), (1, 0)))

    def eliminate(carry: tuple[Array, Array, Array], step: tuple[Array, Array]) -> tuple[tuple, tuple]:
        (S, R, G), (a, bj) = carry, step
        c = a - jnp.pad(S[:, 0], ((0, 1), (0, 0)))
        r = jnp.pad(bj, ((w, 0), (0, 0))) - R[0]
        unit = c[1:] / c[:1]
        S = jnp.pad(S[1:, 1:], ((0, 1), (0, 1), (0, 0))) + c[1:, None] * unit[None]
        R = jnp.pad(R[1:], ((0, 1), (0, 0), (0, 0))) + unit[:, None] * r[None]
        return (S, R, G + r[:w, None] * (r / c[:1])[None]), (c, r)

    S = jnp.zeros((w, w, P), columns.dtype)
    R = jnp.pad(-left, ((0, 0), (0, k), (0, 0)))
    (S, R, G), (c, r) = lax.scan(eliminate, (S, R, jnp.zeros_like(R)), (columns[:m], b[:m]))

    # The separators' system, block by block.
    own = columns[m + jnp.minimum(row, column), jnp.abs(row - column)]
    after = jnp.pad(G[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
    blocks = (own - S - after[:, :w], -R[:, :w], b[m:] - R[:, w:] - after[:, w:])
    x_s, pivots_s = _reduce(*(block.transpose(2, 0, 1) for block in blocks))
    x_s = x_s.transpose(1, 2, 0)

    # All interiors: y - V x_left, then the columns below.
    x_left = jnp.pad(x_s[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    y = r[:, w:] - jnp.sum(r[:, :w, None] * x_left[None], 1)

    def substitute(xs: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        c, y = step
        x = (y - jnp.sum(c[1:, None] * xs, 0)) / c[:1]
        return jnp.concatenate([x[None], xs[:-1]]), x

    x = jnp.concatenate([lax.scan(substitute, x_s, (c, y), reverse=True)[1], x_s])
    return x, jnp.concatenate([c[:, 0], pivots_s.T])
