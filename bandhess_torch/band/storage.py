"""Lower band storage: `ab[d, j] = H[j + d, j]`, shape `(w + 1, n)`, as in LAPACK's and SciPy's lower form.

    H =  a b c 0 0        ab =  a d g i k        n = 5, w = 2 (w = number of subdiagonals, LAPACK's kd)
         b d e f 0              b e h j *
         c e g h .              c f . * *        * unused: stored as 0, and never read
         0 f h i j
         0 0 . j k

A cell below the diagonal stands for two entries of H, so the gradient with respect to it is the sum over both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import pad

from bandhess_common.checks import as_index, check_band_shape, check_plain, check_rhs_shape


def as_band(ab: Tensor, name: str = "ab", *, form: bool = True) -> Tensor:
    """`ab` if it is a floating `(w + 1, n)` tensor, or an error that says what came.

    form: other storages of H are refused.
    """
    check_plain(ab, name)
    if not isinstance(ab, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(ab).__name__}; convert it with torch.as_tensor")
    check_band_shape(tuple(ab.shape), name, "torch.func.vmap")
    if not ab.is_floating_point():
        raise TypeError(f"{name} must have a real floating dtype, got {ab.dtype}; convert it with .double()")
    if form:
        _check_form(ab, name)
    return ab


def _check_form(ab: Tensor, name: str) -> None:
    """An error where the values are at hand and say that this is another storage of H.

    A dense matrix is square and symmetric, and has its last diagonal entry where lower form has an unused cell; upper
    form begins with an unused cell, where lower form has the first diagonal entry, and ends with the diagonal, which is
    positive where H can be factored.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(ab):
        return
    rows, n = ab.shape
    if (
        ab.dtype not in (torch.float32, torch.float64)
        or rows < 2
        or n < 2
        or not ab.is_cpu
        or type(ab) not in (Tensor, Parameter)
    ):
        return
    # NumPy reads an entry ten times as fast, and cannot inside a transform, which wraps even what it does not touch.
    values: Any = ab.detach() if ab.requires_grad else ab
    if torch._C._functorch.maybe_current_level() is None:
        values = values.resolve_neg().numpy()
    last = values[-1, -1]
    if last == 0 or not math.isfinite(last):
        return
    dense = rows == n and bool((values == values.T).all())
    upper = values[0, 0] == 0 and bool((values[-1] > 0).all())
    if dense or upper:
        found = f"a dense matrix of shape {tuple(ab.shape)}; use from_dense" if dense else "upper form; transpose it"
        raise ValueError(
            f"{name} must be in lower band storage, {name}[d, j] = H[j + d, j], the diagonal in row 0, got {found}"
        )


def as_rhs(b: Tensor, ab: Tensor, name: str = "b") -> Tensor:
    """`b` if it is `(n,)` or `(n, k)` with `ab`'s dtype and device, or an error that says what came."""
    if not isinstance(b, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(b).__name__}; convert it with torch.as_tensor")
    check_rhs_shape(tuple(b.shape), tuple(ab.shape), name)
    if b.dtype != ab.dtype or b.device != ab.device:
        raise TypeError(
            f"{name} and ab must have one dtype and device, got {b.dtype} on {b.device} and {ab.dtype} on {ab.device}; "
            "convert one with .to"
        )
    return b


def clear_unused(ab: Tensor) -> Tensor:
    """`ab` with exact zeros in the cells that storage does not use (whatever stood there, NaN included)."""
    rows, n = ab.shape
    used = max(n - rows + 1, 0)  # columns without unused cells
    return torch.cat([ab[:, :used], ab[:, used:].flip(1).triu().flip(1)], dim=1)


def clear_beyond_stages(ab: Tensor, d: int) -> Tensor:
    """Zeros, in place, in the cells of a band `((k + 1) d, n)` that are further than k stages of d scalars from the
    diagonal: scalar i of a stage reaches i rows less far down than the first one, before the next stage begins."""
    for i in range(1, d):
        ab[-i:, i::d] = 0
    return ab


def product(ab: Tensor, x: Tensor) -> Tensor:
    """H x for ab `(..., w + 1, n)` and x `(..., n, k)`."""
    n, x = ab.shape[-1], x.mT
    y = ab[..., :1, :] * x
    for d in range(1, min(ab.shape[-2], n)):
        cells = ab[..., d : d + 1, : n - d]
        y = y + pad(cells * x[..., : n - d], (d, 0)) + pad(cells * x[..., d:], (0, d))
    return y.mT


def transposed(ab: Tensor, l: int) -> Tensor:
    """The band of A^T, which has u subdiagonals, from a general one, `ab[..., u + i - j, j] = A[i, j]`.

    ab is `(..., l + u + 1, n)`. Unused cells become exact zeros. Lower and upper form of one matrix are each other's
    (with l = 0 and l = w); and row i of A, from column i - l on, is column i of the result.
    """
    count, n = ab.shape[-2:]
    # [c, i] = padded[c, i + c]: each row starts one further on when the rows are cut one longer.
    padded = pad(ab.flip(-2), (l, count - l))
    return pad(padded.flatten(-2), (0, count)).unflatten(-1, (count, n + count + 1))[..., :n]


def matvec(ab: Tensor, x: Tensor) -> Tensor:
    """H x from the band of H.

    Args:
      ab: `(w + 1, n)`, lower band storage.
      x: `(n,)` or `(n, k)`.

    Returns: H x, of x's shape; about (4 w + 2) n flops per column.
    """
    ab = as_band(ab)
    x = as_rhs(x, ab, "x")
    return product(ab, x) if x.ndim == 2 else product(ab, x[:, None])[:, 0]


def to_dense(ab: Tensor) -> Tensor:
    """The symmetric `(n, n)` matrix that `ab` `(w + 1, n)` stores. For looking at, and for tests."""
    ab = as_band(ab)
    i = torch.arange(ab.shape[1], device=ab.device)
    offset = (i[:, None] - i).abs()
    inside = offset < ab.shape[0]
    return torch.where(inside, ab[torch.where(inside, offset, 0), torch.minimum(i[:, None], i)], 0)


def from_dense(h: Tensor, w: int) -> Tensor:
    """The band `(w + 1, n)` of a symmetric `(n, n)` matrix; `w` counts scalars. Reads the lower triangle.

    Raises ValueError when a non-zero entry of `h`, in either triangle, lies further than w from the diagonal (inside
    torch.func.vmap such entries are dropped).
    """
    w = as_index(w, "w")
    n = check_square(h)
    check_reach(h, lambda i, j: (i - j).abs(), w)
    if n == 0:
        return h.new_zeros((w + 1, 0))
    row, column = torch.arange(w + 1, device=h.device)[:, None], torch.arange(n, device=h.device)
    inside = row + column < n
    return torch.where(inside, h[torch.where(inside, row + column, 0), column], 0)


def check_square(h: Tensor) -> int:
    """h's order."""
    if not isinstance(h, Tensor):
        raise TypeError(f"h must be a torch.Tensor, got {type(h).__name__}; convert it with torch.as_tensor")
    if h.ndim != 2 or h.shape[0] != h.shape[1]:
        raise ValueError(f"h must be a square matrix, got shape {tuple(h.shape)}")
    return h.shape[0]


def check_reach(h: Tensor, offset: Callable[[Tensor, Tensor], Tensor], w: int) -> None:
    """ValueError where a non-zero entry [i, j] of h has an offset beyond w."""
    try:
        i, j = torch.nonzero(h.detach(), as_tuple=True)
        reach = int(offset(i, j).max()) if len(i) else 0
    except RuntimeError:  # inside vmap values cannot be looked at
        return
    if reach > w:
        raise ValueError(f"h has non-zero entries up to {reach} off its diagonal, w is {w}; pass w={reach}")
