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

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.checks import as_index, check_border, check_closed, check_vector

from . import storage
from .storage import as_band, as_rhs


class Cyclic(NamedTuple):
    """A closed band: H[i, j] = 0 unless i and j are at most w apart around the ring of n.

    ab: `(w + 1, n)`, `ab[r, j] = H[(j + r) mod n, j]`, n > 2 w (T > 2 k in stages; an entry that then has two cells is
    their sum). `matvec`, `to_dense`, `factor`, `solve`, `inverse_band`
    and `rcond` take it in the place of a band. A pytree.

    >>> to_dense(Cyclic(torch.tensor([[4.0, 4, 4], [1, 2, 3]])))
    tensor([[4., 1., 3.],
            [1., 4., 2.],
            [3., 2., 4.]])
    """

    ab: Tensor


class Bordered(NamedTuple):
    """An arrowhead: a band whose n variables share p parameters, which come last.

    H = [[band, border^T], [border, corner]], of order n + p.

    band: `(w + 1, n)`, or a `Cyclic` of it.  border: `(p, n)`.  corner: `(p, p)`, symmetric, both triangles.
    `matvec`, `to_dense`, `factor`, `solve`, `inverse_band` and `rcond` take it in the place of a band. A pytree.

    >>> band, border = torch.tensor([[4.0, 4, 4], [1, 1, 0]]), torch.tensor([[7.0, 8, 9]])
    >>> to_dense(Bordered(band, border, corner=torch.tensor([[50.0]])))
    tensor([[ 4.,  1.,  0.,  7.],
            [ 1.,  4.,  1.,  8.],
            [ 0.,  1.,  4.,  9.],
            [ 7.,  8.,  9., 50.]])
    """

    band: Any  # Tensor | Cyclic, which a type checker would ask for at every use
    border: Tensor
    corner: Tensor


Structure = Cyclic | Bordered
Matrix = TypeVar("Matrix", Tensor, Cyclic, Bordered)


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
    border, corner = H.border, H.corner
    for part in (border, corner):
        if not isinstance(part, Tensor):
            raise TypeError(f"{name}.border and .corner must be torch.Tensors, got {type(part).__name__}")
    main = diagonal(band)
    check_border(tuple(border.shape), tuple(corner.shape), main.shape[0])
    kinds = [f"{part.dtype} on {part.device}" for part in (main, border, corner)]
    if len(set(kinds)) > 1:
        raise TypeError(f"{name}'s parts must have one dtype and device, got {', '.join(kinds)}; convert them with .to")
    return Bordered(band, border, corner)


def as_matrix(H: Tensor | Structure, name: str = "ab") -> Tensor | Structure:
    """H as a floating band, or as a structure whose parts fit together, or an error that says what came."""
    return as_structure(H, name) if isinstance(H, Structure) else as_band(H, name)


def as_clean(H: Tensor | Structure, name: str = "ab") -> Tensor | Structure:
    """`as_matrix`, with exact zeros in the cells that a plain band does not use."""
    H = as_matrix(H, name)
    if isinstance(H, Bordered):
        return H._replace(band=as_clean(H.band, f"{name}.band"))
    return H if isinstance(H, Cyclic) else storage.clear_unused(H)


def as_vector(x: Tensor, H: Tensor | Structure, name: str = "b") -> Tensor:
    """x as `(n,)` or `(n, k)`, n being H's order, of H's dtype, or an error that says what came."""
    if not isinstance(H, Structure):
        return as_rhs(x, H, name)
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    check_vector(tuple(x.shape), order(H), name)
    main = H.ab if isinstance(H, Cyclic) else H.corner
    if x.dtype != main.dtype or x.device != main.device:
        raise TypeError(
            f"{name} and H must have one dtype and device, got {x.dtype} on {x.device} and {main.dtype} on "
            f"{main.device}; convert one with .to"
        )
    return x


def stacked(H: Tensor | Bordered) -> Tensor:
    """A plain band as it is; one with a border as `(w + 1 + p, n + p)`: the band with H's diagonal on top, and below it
    the shared variables' rows off the diagonal."""
    if not isinstance(H, Bordered):
        return H
    main = H.corner.diagonal()
    band = torch.cat([H.band, H.band.new_zeros(len(H.band), len(main))], 1)
    band[0, H.band.shape[1] :] = main
    return torch.cat([band, torch.cat([H.border, H.corner - main.diag()], 1)])


def unstacked(W: Tensor, p: int) -> Tensor | Bordered:
    """What `stacked` made, for p shared variables."""
    if not p:
        return W
    n = W.shape[1] - p
    return Bordered(W[:-p, :n], W[-p:, :n], W[-p:, n:] + W[0, n:].diag())


def order(H: Tensor | Structure) -> int:
    """n; n + p with a border."""
    if isinstance(H, Cyclic):
        return H.ab.shape[1]
    return H.border.shape[1] + len(H.border) if isinstance(H, Bordered) else H.shape[1]


def diagonal(H: Tensor | Structure) -> Tensor:
    """H's diagonal `(n,)`, `(n + p,)` with a border."""
    if isinstance(H, Cyclic):
        return H.ab[0]
    if isinstance(H, Bordered):
        return torch.cat([diagonal(H.band), H.corner.diagonal()])
    return H[0]


def shifted(H: Matrix, shift: Tensor | float) -> Matrix:
    """H + shift I, or H + diag(shift) for a shift of H's order."""
    if isinstance(H, Cyclic):
        return Cyclic(shifted(H.ab, shift))
    if isinstance(H, Bordered):
        n = H.border.shape[1]
        first, last = (shift[:n], shift[n:]) if isinstance(shift, Tensor) and shift.ndim else (shift, shift)
        corner = H.corner + torch.eye(len(H.corner), dtype=H.corner.dtype, device=H.corner.device) * last
        return Bordered(shifted(H.band, first), H.border, corner)
    return torch.cat([H[:1] + shift, H[1:]])


def scaled(H: Matrix, scale: Tensor) -> Matrix:
    """S H S for a diagonal S of H's order."""
    if isinstance(H, Cyclic):
        return Cyclic(H.ab * scale * torch.stack([scale.roll(-r) for r in range(H.ab.shape[0])]))
    if isinstance(H, Bordered):
        n = H.border.shape[1]
        first, last = scale[:n], scale[n:, None]
        return Bordered(scaled(H.band, first), H.border * last * first, H.corner * last * last.T)
    rows, n = H.shape
    return H * scale * torch.stack([pad(scale[d:], (0, min(d, n))) for d in range(rows)])


def magnitude(H: Tensor | Structure) -> Any:
    """|H|, entry by entry."""
    return pytree.tree_map(torch.abs, H)


def row_sums(H: Tensor | Structure) -> Tensor:
    """sum_j |H[i, j]|, one a row."""
    return matvec(magnitude(H), torch.ones_like(diagonal(H)))


def matvec(ab: Tensor | Structure, x: Tensor) -> Tensor:
    """H x.

    Args:
      ab: H as a band `(w + 1, n)`, lower band storage, or `Cyclic` or `Bordered`.
      x: `(n,)` or `(n, k)`; with a border of p, `(n + p,)` or `(n + p, k)`.

    Returns: H x, of x's shape; about (4 w + 2) n flops per column, and 4 p n for a border.

    >>> matvec(torch.tensor([[4.0, 4, 4], [1, 1, 0]]), torch.tensor([1.0, 2, 3]))
    tensor([ 6., 12., 14.])
    """
    H = as_matrix(ab)
    x = as_vector(x, H, "x")
    return product(H, x) if x.ndim == 2 else product(H, x[:, None])[:, 0]


def product(H: Tensor | Structure, x: Tensor) -> Tensor:
    """H x for x `(n, k)`, unchecked."""
    if isinstance(H, Cyclic):  # a plain band, of a ring that was opened and continued for w entries at both ends
        w, n = H.ab.shape[0] - 1, H.ab.shape[1]
        around = [torch.cat([part[..., n - w :], part, part[..., :w]], -1) for part in (H.ab, x.mT)]
        return storage.product(around[0], around[1].mT)[w : w + n]
    if isinstance(H, Bordered):
        n = H.border.shape[1]
        first, last = x[:n], x[n:]
        return torch.cat([product(H.band, first) + H.border.mT @ last, H.border @ first + H.corner @ last])
    return storage.product(H, x)


def to_dense(ab: Tensor | Structure) -> Tensor:
    """The symmetric matrix that `ab` stores. For looking at, and for tests.

    Args: ab, a band `(w + 1, n)`, `Cyclic` or `Bordered`.
    Returns: `(n, n)`; `(n + p, n + p)` with a border of p.

    >>> to_dense(torch.tensor([[4.0, 4, 4], [1, 1, 0]]))
    tensor([[4., 1., 0.],
            [1., 4., 1.],
            [0., 1., 4.]])
    """
    H = as_matrix(ab)
    if isinstance(H, Cyclic):
        rows, n = H.ab.shape
        j = torch.arange(n, device=H.ab.device)
        i = j[:, None]
        below, above = (i - j) % max(n, 1), (j - i) % max(n, 1)
        lower = torch.where(below < rows, H.ab[below.clamp(max=rows - 1), j], 0)
        # Where n <= 2 w an entry has a cell on either way round, and is their sum.
        return lower + torch.where((above < rows) & (above > 0), H.ab[above.clamp(max=rows - 1), i], 0)
    if isinstance(H, Bordered):
        return torch.cat([torch.cat([to_dense(H.band), H.border.mT], 1), torch.cat([H.border, H.corner], 1)])
    return storage.to_dense(H)


def from_dense(h: Tensor, w: int, *, periodic: bool = False, border: int = 0) -> Tensor | Structure:
    """The band of a symmetric `(n, n)` matrix; `w` counts scalars. Reads the lower triangle, and what wraps around.

    Args:
      h: `(n, n)`; with a border, `(n + border, n + border)`.
      w: the number of subdiagonals.
      periodic: give a `Cyclic`; n > 2 w.
      border: the number p of last rows and columns that any entry may meet: give a `Bordered`.

    Returns: `(w + 1, n)`, or the structure asked for.

    Raises ValueError when a non-zero entry of `h`, in either triangle, lies further than w from the
    diagonal (around the ring where periodic) and not in the border (inside
    torch.func.vmap such entries are dropped).

    >>> from_dense(torch.tensor([[4.0, 1, 0], [1, 4, 1], [0, 1, 4]]), 1)
    tensor([[4., 4., 4.],
            [1., 1., 0.]])
    """
    p = as_index(border, "border")
    if p:
        n = storage.check_square(h) - p
        if n < 0:
            raise ValueError(f"h must have {p} rows at least, those of the border, got shape {tuple(h.shape)}")
        corner = h[n:, n:].tril()
        return Bordered(from_dense(h[:n, :n], w, periodic=periodic), h[n:, :n], corner + corner.tril(-1).mT)
    if not periodic:
        return storage.from_dense(h, w)
    w = as_index(w, "w")
    n = storage.check_square(h)
    check_closed((w + 1, n))
    storage.check_reach(h, lambda i, j: torch.minimum((i - j) % max(n, 1), (j - i) % max(n, 1)), w)
    return cyclic_cells(h, w)


def cyclic_cells(h: Tensor, w: int) -> Cyclic:
    """Of a symmetric `(n, n)` matrix, w < n. An entry that has two cells, where n <= 2 w, goes into one of them."""
    n = h.shape[0]
    row, column = torch.arange(w + 1, device=h.device)[:, None], torch.arange(n, device=h.device)
    other = n - row  # the row of the cell on the other way round
    own = (row < other) | (other > w) | ((row == other) & (column < row))
    return Cyclic(torch.where(own, h[(row + column) % max(n, 1), column], 0))
