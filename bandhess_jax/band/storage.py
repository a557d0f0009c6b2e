"""Lower band storage: `ab[d, j] = H[j + d, j]`, shape `(w + 1, n)`, as in LAPACK's and SciPy's lower form.

    H =  a b c 0 0        ab =  a d g i k        n = 5, w = 2 (w = number of subdiagonals, LAPACK's kd)
         b d e f 0              b e h j *
         c e g h .              c f . * *        * unused: stored as 0, and never read
         0 f h i j
         0 0 . j k

A cell below the diagonal stands for two entries of H, so the gradient with respect to it is the sum over both.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from bandhess_common.checks import as_index, check_band_shape, check_plain, check_rhs_shape
from bandhess_common.dtypes import native


def as_band(ab: ArrayLike, name: str = "ab", *, form: bool = True) -> Array:
    """`ab` as a floating `(w + 1, n)` array, or an error that says what came. form: other storages of H are refused."""
    check_plain(ab, name)
    ab = jnp.asarray(native(ab, name))
    check_band_shape(ab.shape, name, "jax.vmap")
    if not jnp.issubdtype(ab.dtype, jnp.floating):
        raise TypeError(f"{name} must have a real floating dtype, got {ab.dtype}; convert it with .astype(float)")
    if form:
        _check_form(ab, name)
    return ab


def _check_form(ab: Array, name: str) -> None:
    """An error where the values are at hand and say that this is another storage of H.

    A dense matrix is square and symmetric, and has its last diagonal entry where lower form has an unused cell; upper
    form begins with an unused cell, where lower form has the first diagonal entry, and ends with the diagonal, which is
    positive where H can be factored.
    """
    rows, n = ab.shape
    if rows < 2 or n < 2 or isinstance(ab, jax.core.Tracer) or ab.devices() != {jax.devices("cpu")[0]}:
        return
    values = np.asarray(ab)
    if values[-1, -1] == 0 or not np.isfinite(values[-1, -1]):
        return
    dense = rows == n and np.array_equal(values, values.T)
    upper = values[0, 0] == 0 and bool((values[-1] > 0).all())
    if dense or upper:
        found = f"a dense matrix of shape {ab.shape}; use from_dense" if dense else "upper form; transpose it"
        raise ValueError(
            f"{name} must be in lower band storage, {name}[d, j] = H[j + d, j], the diagonal in row 0, got {found}"
        )


def as_rhs(b: ArrayLike, ab: Array, name: str = "b") -> Array:
    """`b` as an `(n,)` or `(n, k)` array of `ab`'s dtype, or an error that says what came."""
    b = jnp.asarray(native(b, name))
    check_rhs_shape(b.shape, ab.shape, name)
    if b.dtype != ab.dtype:
        raise TypeError(f"{name} and ab must have one dtype, got {b.dtype} and {ab.dtype}; convert one with .astype")
    return b


def clear_unused(ab: Array) -> Array:
    """`ab` with exact zeros in the cells that storage does not use (whatever stood there, NaN included)."""
    rows, n = ab.shape
    row, column = lax.broadcasted_iota(jnp.int32, (rows, n), 0), lax.broadcasted_iota(jnp.int32, (rows, n), 1)
    return jnp.where(row + column < n, ab, 0)


def clear_beyond_stages(ab: Array, d: int, rows: int | None = None) -> Array:
    """Zeros for the cells of a band of (k + 1) d rows, of which ab may hold the first alone, that are further than k
    stages of d scalars from the diagonal."""
    rows = len(ab) if rows is None else rows
    if len(ab) + d - 1 <= rows:
        return ab
    # Scalar i of a stage reaches (k + 1) d - i rows down to the end of stage t + k.
    row, column = lax.broadcasted_iota(jnp.int32, ab.shape, 0), lax.broadcasted_iota(jnp.int32, ab.shape, 1)
    return jnp.where(row + column % d < rows, ab, 0)


def sheared(x: Array, n: int) -> Array:
    """`[c, i] = x[c, i + c]` for i < n, x at least n + its rows - 1 wide: each row starts one further on."""
    rows, width = x.shape
    return jnp.pad(x.reshape(-1), (0, rows)).reshape(rows, width + 1)[:, :n]


def transposed(ab: Array, l: int) -> Array:
    """The band of A^T, which has u subdiagonals, from a general one, `ab[u + i - j, j] = A[i, j]`.

    ab is `(l + u + 1, n)`. Unused cells become exact zeros. Lower and upper form of one matrix are each other's (with
    l = 0 and l = w); and row i of A, from column i - l on, is column i of the result.
    """
    rows, n = ab.shape
    return sheared(jnp.pad(ab[::-1], ((0, 0), (l, rows - l))), n)


def matvec(ab: ArrayLike, x: ArrayLike) -> Array:
    """H x from the band of H.

    Args:
      ab: `(w + 1, n)`, lower band storage.
      x: `(n,)` or `(n, k)`.

    Returns: H x, of x's shape; about (4 w + 2) n flops per column.
    """
    ab = as_band(ab)
    x = as_rhs(x, ab, "x")
    n, w = ab.shape[1], min(ab.shape[0], ab.shape[1]) - 1
    if n == 0:
        return x
    ab = ab.reshape(ab.shape + (1,) * (x.ndim - 1))
    if w <= 16:  # one fused pass
        y = ab[0] * x
        for d in range(1, w + 1):
            cells = ab[d, : n - d]
            pad = [(0, 0)] * (x.ndim - 1)
            y = y + jnp.pad(cells * x[: n - d], [(d, 0), *pad]) + jnp.pad(cells * x[d:], [(0, d), *pad])
        return y

    # A wide band in a loop over its diagonals: the program stays small.
    clean = clear_unused(ab[..., 0] if x.ndim == 2 else ab).reshape(ab.shape)
    ahead = jnp.pad(x, [(0, w), *[(0, 0)] * (x.ndim - 1)])

    def add_diagonal(y: Array, d: Array) -> tuple[Array, None]:
        cells = lax.dynamic_index_in_dim(clean, d, keepdims=False)
        below = lax.dynamic_update_slice_in_dim(jnp.zeros_like(ahead), cells * x, d, 0)[:n]
        return y + below + cells * lax.dynamic_slice_in_dim(ahead, d, n), None

    return lax.scan(add_diagonal, clean[0] * x, jnp.arange(1, w + 1))[0]


def to_dense(ab: ArrayLike) -> Array:
    """The symmetric `(n, n)` matrix that `ab` `(w + 1, n)` stores. For looking at, and for tests."""
    ab = as_band(ab)
    i, j = jnp.indices((ab.shape[1],) * 2, dtype=jnp.int32)
    offset = jnp.abs(i - j)
    inside = offset < ab.shape[0]
    return jnp.where(inside, ab[jnp.where(inside, offset, 0), jnp.minimum(i, j)], 0)


def from_dense(h: ArrayLike, w: int) -> Array:
    """The band `(w + 1, n)` of a symmetric `(n, n)` matrix; `w` counts scalars. Reads the lower triangle.

    Raises ValueError outside jit when a non-zero entry of `h`, in either triangle, lies further than w from the
    diagonal (under jit such entries are dropped).
    """
    h = jnp.asarray(h)
    w = as_index(w, "w")
    n = check_square(h)
    check_reach(h, lambda i, j: jnp.abs(i - j), w)
    row, column = jnp.arange(w + 1)[:, None], jnp.arange(n)[None, :]
    inside = row + column < n
    return jnp.where(inside, h[jnp.where(inside, row + column, 0), column], 0) if n else jnp.zeros((w + 1, 0), h.dtype)


def check_square(h: Array) -> int:
    """h's order."""
    if h.ndim != 2 or h.shape[0] != h.shape[1]:
        raise ValueError(f"h must be a square matrix, got shape {h.shape}")
    return h.shape[0]


def check_reach(h: Array, offset: Callable[[Array, Array], Array], w: int) -> None:
    """ValueError where a non-zero entry [i, j] of h has an offset beyond w; under jit values cannot be looked at."""
    if isinstance(h, jax.core.Tracer):
        return
    reach = int(jnp.max(offset(*jnp.nonzero(h)), initial=0))
    if reach > w:
        raise ValueError(f"h has non-zero entries up to {reach} off its diagonal, w is {w}; pass w={reach}")
