"""A band, closed or with a border, and what optimisers and extraction ask of any of them.

    plain ab             Cyclic(ab): the unused cells hold what wraps around    Bordered(band, border, corner)

    a b . . .            a b . . y                                              a b . . . s
    b c d . .            b c d . .        ab = a c e g i                        b c d . . t
    . d e f .            . d e f .             b d f h y                        . d e f . u
    . . f g h            . . f g h                                              . . f g h v
    . . . h i            y . . h i                                              . . . h i z
                                                                                s t u v z q

    Cyclic: ab[r, j] = H[(j + r) mod n, j].        border = [s t u v z], (p, n) with p = 1;  corner = [q], (p, p)

A border's cell stands for two entries of H, as a band's below the diagonal; the corner is stored in full. The band of
a `Bordered` is plain or closed. Optimisers never look into an array of theirs, so that another storage needs the
functions of this file only.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from bandhess_common.checks import as_index, check_border, check_closed, check_vector

from . import mesh, storage
from .storage import as_band, as_rhs


class Cyclic(NamedTuple):
    """A closed band: H[i, j] = 0 unless i and j are at most w apart around the ring of n.

    ab: `(w + 1, n)`, `ab[r, j] = H[(j + r) mod n, j]`, n > 2 w (T > 2 k in stages; an entry that then has two cells is
    their sum). `matvec`, `to_dense`, `factor`, `solve`, `inverse_band`
    and `rcond` take it in the place of a band. A pytree.

    >>> to_dense(Cyclic(jnp.array([[4.0, 4, 4], [1, 2, 3]])))
    Array([[4., 1., 3.],
           [1., 4., 2.],
           [3., 2., 4.]], dtype=float32)
    """

    ab: Array


class Bordered(NamedTuple):
    """An arrowhead: a band whose n variables share p parameters, which come last.

    H = [[band, border^T], [border, corner]], of order n + p.

    band: `(w + 1, n)`, or a `Cyclic` of it.  border: `(p, n)`.  corner: `(p, p)`, symmetric, both triangles.
    `matvec`, `to_dense`, `factor`, `solve`, `inverse_band` and `rcond` take it in the place of a band. A pytree.

    >>> band, border = jnp.array([[4.0, 4, 4], [1, 1, 0]]), jnp.array([[7.0, 8, 9]])
    >>> to_dense(Bordered(band, border, corner=jnp.array([[50.0]])))
    Array([[ 4.,  1.,  0.,  7.],
           [ 1.,  4.,  1.,  8.],
           [ 0.,  1.,  4.,  9.],
           [ 7.,  8.,  9., 50.]], dtype=float32)
    """

    band: Any  # Array | Cyclic, which a type checker would ask for at every use
    border: Array
    corner: Array


Structure = Cyclic | Bordered
Matrix = TypeVar("Matrix", Array, Cyclic, Bordered)


def as_structure(H: Structure, name: str = "ab") -> Structure:
    """H if it is floating and its parts fit together, or an error that says what came."""
    if isinstance(H, Cyclic):
        ab = as_band(H.ab, f"{name}.ab", form=False)
        check_closed(tuple(ab.shape))
        return Cyclic(ab)
    if isinstance(H.band, Bordered):
        raise TypeError(
            f"{name}.band must be a plain band or Cyclic, got Bordered; put all shared rows into one border"
        )
    band = as_structure(H.band, f"{name}.band") if isinstance(H.band, Cyclic) else as_band(H.band, f"{name}.band")
    border, corner = jnp.asarray(H.border), jnp.asarray(H.corner)
    main = diagonal(band)
    check_border(border.shape, corner.shape, main.shape[0])
    if not main.dtype == border.dtype == corner.dtype:
        raise TypeError(
            f"{name}'s parts must have one dtype, got {main.dtype}, {border.dtype} and {corner.dtype}; "
            "convert them with .astype"
        )
    return Bordered(band, border, corner)


def as_matrix(H: ArrayLike | Structure, name: str = "ab") -> Array | Structure:
    """H as a floating band, or as a structure whose parts fit together, or an error that says what came."""
    return as_structure(H, name) if isinstance(H, Structure) else as_band(H, name)


def as_clean(H: ArrayLike | Structure, name: str = "ab") -> Array | Structure:
    """`as_matrix`, with exact zeros in the cells that a plain band does not use."""
    H = as_matrix(H, name)
    if isinstance(H, Bordered):
        return H._replace(band=as_clean(H.band, f"{name}.band"))
    return H if isinstance(H, Cyclic) else storage.clear_unused(H)


def as_vector(x: ArrayLike, H: Array | Structure, name: str = "b") -> Array:
    """x as `(n,)` or `(n, k)`, n being H's order, of H's dtype, or an error that says what came."""
    if not isinstance(H, Structure):
        return as_rhs(x, H, name)
    x, main = jnp.asarray(x), H.ab if isinstance(H, Cyclic) else H.corner
    check_vector(x.shape, order(H), name)
    if x.dtype != main.dtype:
        raise TypeError(f"{name} and H must have one dtype, got {x.dtype} and {main.dtype}; convert one with .astype")
    return x


def stacked(H: Array | Bordered) -> Array:
    """A plain band as it is; one with a border as `(w + 1 + p, n + p)`: the band with H's diagonal on top, and below it
    the shared variables' rows off the diagonal."""
    if not isinstance(H, Bordered):
        return H
    p, main = len(H.border), jnp.diagonal(H.corner)
    band = jnp.pad(H.band, ((0, 0), (0, p))).at[0, H.band.shape[1] :].set(main)
    return jnp.concatenate([band, jnp.concatenate([H.border, H.corner - jnp.diag(main)], axis=1)])


def unstacked(W: Array, p: int) -> Array | Bordered:
    """What `stacked` made, for p shared variables."""
    if not p:
        return W
    n = W.shape[1] - p
    return Bordered(W[:-p, :n], W[-p:, :n], W[-p:, n:] + jnp.diag(W[0, n:]))


def order(H: Array | Structure) -> int:
    """n; n + p with a border."""
    if isinstance(H, Cyclic):
        return H.ab.shape[1]
    return H.border.shape[1] + len(H.border) if isinstance(H, Bordered) else H.shape[1]


def diagonal(H: Array | Structure) -> Array:
    """H's diagonal `(n,)`, `(n + p,)` with a border."""
    if isinstance(H, Cyclic):
        return H.ab[0]
    if isinstance(H, Bordered):
        return jnp.concatenate([diagonal(H.band), jnp.diagonal(H.corner)])
    return H[0]


def shifted(H: Matrix, shift: Array | float) -> Matrix:
    """H + shift I, or H + diag(shift) for a shift of H's order."""
    if isinstance(H, Cyclic):
        return Cyclic(H.ab.at[0].add(shift))
    if isinstance(H, Bordered):
        n = H.border.shape[1]
        first, last = (shift[:n], shift[n:]) if isinstance(shift, Array) and shift.ndim else (shift, shift)
        i = jnp.arange(H.corner.shape[0])
        return Bordered(shifted(H.band, first), H.border, H.corner.at[i, i].add(last))
    return H.at[0].add(shift)


def scaled(H: Matrix, scale: Array) -> Matrix:
    """S H S for a diagonal S of H's order."""
    if isinstance(H, Cyclic):
        return Cyclic(H.ab * scale[None] * jnp.stack([jnp.roll(scale, -r) for r in range(H.ab.shape[0])]))
    if isinstance(H, Bordered):
        n = H.border.shape[1]
        first, last = scale[:n], scale[n:, None]
        return Bordered(scaled(H.band, first), H.border * last * first[None], H.corner * last * last.T)
    rows, n = H.shape
    return H * scale[None] * jnp.stack([jnp.pad(scale[d:], (0, min(d, n))) for d in range(rows)])


def magnitude(H: Array | Structure) -> Any:
    """|H|, entry by entry."""
    return jax.tree.map(jnp.abs, H)


def row_sums(H: Array | Structure, sharding: NamedSharding | None = None) -> Array:
    """sum_j |H[i, j]|, one a row."""
    return matvec(magnitude(H), jnp.ones_like(diagonal(H)), sharding=sharding)


def matvec(ab: ArrayLike | Structure, x: ArrayLike, *, sharding: NamedSharding | None = None) -> Array:
    """H x.

    Args:
      ab: H as a band `(w + 1, n)`, lower band storage, or `Cyclic` or `Bordered`.
      x: `(n,)` or `(n, k)`; with a border of p, `(n + p,)` or `(n + p, k)`.
      sharding: None, or as `factor` has it: a device sends 2 w numbers of a plain band's product, whatever w is
        (without it XLA places the product of a sharded band, and gathers x for w > 16).

    Returns: H x, of x's shape; about (4 w + 2) n flops per column, and 4 p n for a border.

    >>> matvec(jnp.array([[4.0, 4, 4], [1, 1, 0]]), jnp.array([1.0, 2, 3]))
    Array([ 6., 12., 14.], dtype=float32)
    """
    H = as_matrix(ab)
    return _product(H, as_vector(x, H, "x"), sharding)


def _product(H: Array | Structure, x: Array, sharding: NamedSharding | None = None) -> Array:
    if isinstance(H, Cyclic):  # a plain band, of a ring that was opened and continued for w entries at both ends
        w, n = H.ab.shape[0] - 1, H.ab.shape[1]
        around = [jnp.concatenate([part[..., n - w :], part, part[..., :w]], -1) for part in (H.ab, x.T)]
        return storage.matvec(around[0], around[1].T)[w : w + n]
    if isinstance(H, Bordered):
        n = H.border.shape[1]
        first, last = x[:n], x[n:]
        above = _product(H.band, first, sharding) + dot(H.border.T, last)
        return jnp.concatenate([above, dot(H.border, first) + dot(H.corner, last)])
    return storage.matvec(H, x) if sharding is None else mesh.product(H, x, sharding)


def dot(a: Array, b: Array) -> Array:
    """a @ b in a's precision, also where the platform's default is less."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def to_dense(ab: ArrayLike | Structure) -> Array:
    """The symmetric matrix that `ab` stores. For looking at, and for tests.

    Args: ab, a band `(w + 1, n)`, `Cyclic` or `Bordered`.
    Returns: `(n, n)`; `(n + p, n + p)` with a border of p.

    >>> to_dense(jnp.array([[4.0, 4, 4], [1, 1, 0]]))
    Array([[4., 1., 0.],
           [1., 4., 1.],
           [0., 1., 4.]], dtype=float32)
    """
    H = as_matrix(ab)
    if isinstance(H, Cyclic):
        rows, n = H.ab.shape
        i, j = jnp.indices((n, n), dtype=jnp.int32)
        below, above = (i - j) % max(n, 1), (j - i) % max(n, 1)
        lower = jnp.where(below < rows, H.ab[jnp.minimum(below, rows - 1), j], 0)
        # Where n <= 2 w an entry has a cell on either way round, and is their sum.
        return lower + jnp.where((above < rows) & (above > 0), H.ab[jnp.minimum(above, rows - 1), i], 0)
    if isinstance(H, Bordered):
        return jnp.block([[to_dense(H.band), H.border.T], [H.border, H.corner]])
    return storage.to_dense(H)


def from_dense(h: ArrayLike, w: int, *, periodic: bool = False, border: int = 0) -> Array | Structure:
    """The band of a symmetric `(n, n)` matrix; `w` counts scalars. Reads the lower triangle, and what wraps around.

    Args:
      h: `(n, n)`; with a border, `(n + border, n + border)`.
      w: the number of subdiagonals.
      periodic: give a `Cyclic`; n > 2 w.
      border: the number p of last rows and columns that any entry may meet: give a `Bordered`.

    Returns: `(w + 1, n)`, or the structure asked for.

    Raises ValueError outside jit when a non-zero entry of `h`, in either triangle, lies further than w from the
    diagonal (around the ring where periodic) and not in the border (under jit such entries are dropped).

    >>> from_dense(jnp.array([[4.0, 1, 0], [1, 4, 1], [0, 1, 4]]), 1)
    Array([[4., 4., 4.],
           [1., 1., 0.]], dtype=float32)
    """
    h = jnp.asarray(h)
    p = as_index(border, "border")
    if p:
        n = storage.check_square(h) - p
        if n < 0:
            raise ValueError(f"h must have {p} rows at least, those of the border, got shape {h.shape}")
        corner = jnp.tril(h[n:, n:])
        return Bordered(from_dense(h[:n, :n], w, periodic=periodic), h[n:, :n], corner + jnp.tril(corner, -1).T)
    if not periodic:
        return storage.from_dense(h, w)
    w = as_index(w, "w")
    n = storage.check_square(h)
    check_closed((w + 1, n))
    storage.check_reach(h, lambda i, j: jnp.minimum((i - j) % max(n, 1), (j - i) % max(n, 1)), w)
    return cyclic_cells(h, w)


def cyclic_cells(h: Array, w: int) -> Cyclic:
    """Of a symmetric `(n, n)` matrix, w < n. An entry that has two cells, where n <= 2 w, goes into one of them."""
    n = h.shape[0]
    row, column = jnp.arange(w + 1)[:, None], jnp.arange(n)[None]
    other = n - row  # the row of the cell on the other way round
    own = (row < other) | (other > w) | ((row == other) & (column < row))
    return Cyclic(jnp.where(own, h[(row + column) % max(n, 1), column], 0))
