"""The banded eigenvalue problems of `scipy.linalg`, on tensors: the same signatures, defaults, forms and errors.

A selected range costs O(n) an eigenvalue (`bisection.py`); the whole spectrum goes through a dense matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.eigen import check_driver, check_indices, check_range, check_select
from bandhess_common.options import Driver, Select

from ..band.storage import clear_unused
from ..framework.transforms import eager
from .arguments import as_numpy, as_tensors, is_finite
from .bisection import Count, eigenpairs, product, radius
from .forms import lower_form


def eig_banded(
    a_band: Tensor | ArrayLike,
    lower: bool = False,
    eigvals_only: bool = False,
    overwrite_a_band: bool = False,
    select: Select = "a",
    select_range: Any = None,
    max_ev: int = 0,
    check_finite: bool = True,
) -> Any:
    """Eigenvalues in ascending order, and vectors, of a Hermitian band.

    Args:
      a_band: `(..., w + 1, n)`, upper form, or lower form where lower is true.
      lower: a_band is in lower form.
      eigvals_only: return the values alone.
      overwrite_a_band: accepted, without effect.
      select: "a" all; "i" those with indices in select_range, both ends included; "v" those in the interval
        (low, high], for one matrix.
      select_range: `(first, last)` or `(low, high)`.
      max_ev: accepted, without effect.
      check_finite: raise ValueError where a_band (unused cells included) holds NaN or infinity.

    Returns: w `(..., m)`, or `(w, v)` with v `(..., n, m)`, orthonormal columns, v[:, i] of w[i]. NaN where H is not
      finite, or where rounding leaves the inertia of H - s I undecided.

    Raises: ValueError for a wrong selection.

    Derivatives: of values and vectors, first ones in reverse mode (of all, what torch.linalg.eigh has), where the
      eigenvalues are distinct. Cost: a selected one some 160 banded factorisations (80 in float32), batched, and
      O(n m^2) for vectors; "a" is O(n^3) with an (n, n) matrix.

    >>> from bandhess_torch.scipy import eig_banded
    >>> w, v = eig_banded([[2.0, 3, 5], [0, 0, 0]], lower=True)
    >>> w.round(decimals=4)
    tensor([2., 3., 5.], dtype=torch.float64)
    """
    ab, kind = as_tensors("eig_banded", ab=a_band)["ab"], check_select(select)
    if check_finite and not is_finite(ab):
        raise ValueError("array must not contain infs or NaNs: a_band does; check_finite=False lets it pass")
    n, lower = ab.shape[-1], bool(lower)
    whole = kind == "a" or n == 0
    if not whole:
        first, count = check_indices(select_range, n) if kind == "i" else _indices(ab, lower, select_range)
    matrices = ab.flatten(0, -3) if ab.ndim > 2 else ab[None]
    lanes = [_whole(a, lower) if whole else _selected(a, lower, first, count) for a in matrices]
    w, v = (torch.stack(part).reshape(*ab.shape[:-2], *part[0].shape) for part in zip(*lanes, strict=True))
    return w if eigvals_only else (w, v)


def eigvals_banded(
    a_band: Tensor | ArrayLike,
    lower: bool = False,
    overwrite_a_band: bool = False,
    select: Select = "a",
    select_range: Any = None,
    check_finite: bool = True,
) -> Tensor:
    """The values of `eig_banded`.

    >>> from bandhess_torch.scipy import eigvals_banded
    >>> eigvals_banded([[0.0, -1, -1], [2, 2, 2]], select="i", select_range=(1, 1)).round(decimals=4)  # the middle one
    tensor([2.], dtype=torch.float64)
    """
    return eig_banded(a_band, lower, True, overwrite_a_band, select, select_range, 0, check_finite)


def eigh_tridiagonal(
    d: Tensor | ArrayLike,
    e: Tensor | ArrayLike,
    eigvals_only: bool = False,
    select: Select = "a",
    select_range: Any = None,
    check_finite: bool = True,
    tol: float = 0.0,
    lapack_driver: Driver = "auto",
) -> Any:
    """Eigenvalues in ascending order, and vectors, of a real symmetric tridiagonal matrix.

    Args:
      d: `(n,)`, the diagonal.
      e: `(n - 1,)`, the entries beside it.
      eigvals_only: return the values alone.
      select: as in `eig_banded`.
      select_range: likewise.
      check_finite: raise ValueError where d or e holds NaN or infinity.
      tol: accepted, without effect: eigenvalues are accurate to rounding of |H|.
      lapack_driver: checked as SciPy checks it; it chooses nothing.

    Returns: w `(m,)`, or `(w, v)` with v `(n, m)`.
    Raises: ValueError for sizes that do not match, a wrong selection or driver; TypeError for complex entries.
    Cost and derivatives: as `eig_banded`.

    >>> from bandhess_torch.scipy import eigh_tridiagonal
    >>> w, v = eigh_tridiagonal([2.0, 2], [-1.0])
    >>> w.round(decimals=4)
    tensor([1., 3.], dtype=torch.float64)
    """
    d, e = (a if isinstance(a, Tensor) else torch.as_tensor(as_numpy(name, a)) for name, a in (("d", d), ("e", e)))
    if d.is_complex() or e.is_complex():
        raise TypeError(f"d and e must be real, got {d.dtype} and {e.dtype}; eig_banded takes Hermitian bands")
    if d.ndim != 1 or e.ndim != 1 or (len(d) and len(e) != len(d) - 1):
        raise ValueError(f"d must have shape (n,) and e shape (n - 1,), got {tuple(d.shape)} and {tuple(e.shape)}")
    check_driver(lapack_driver, whole=check_select(select) == "a", vectors=not eigvals_only)
    d, e = (a if a.is_floating_point() else a.double() for a in (d, e))
    dtype = torch.promote_types(d.dtype, e.dtype)
    ab = torch.stack([d.to(dtype), pad(e.to(dtype), (0, len(d) - len(e)))])
    return eig_banded(ab, True, eigvals_only, False, select, select_range, 0, check_finite)


def eigvalsh_tridiagonal(
    d: Tensor | ArrayLike,
    e: Tensor | ArrayLike,
    select: Select = "a",
    select_range: Any = None,
    check_finite: bool = True,
    tol: float = 0.0,
    lapack_driver: Driver = "auto",
) -> Tensor:
    """The values of `eigh_tridiagonal`.

    >>> from bandhess_torch.scipy import eigvalsh_tridiagonal
    >>> eigvalsh_tridiagonal([2.0, 2], [-1.0]).round(decimals=4)
    tensor([1., 3.], dtype=torch.float64)
    """
    return eigh_tridiagonal(d, e, True, select, select_range, check_finite, tol, lapack_driver)


def _whole(ab: Tensor, lower: bool) -> tuple[Tensor, Tensor]:
    ab = clear_unused(lower_form(ab, lower)) if ab.numel() else ab
    eye = torch.eye(ab.shape[1], dtype=ab.dtype, device=ab.device)
    w, v = torch.linalg.eigh(product(ab, eye) if ab.numel() else ab[:0, :0])
    return w, v


def _selected(ab: Tensor, lower: bool, first: int, count: int) -> tuple[Tensor, Tensor]:
    if count == 0:
        values = ab.real if ab.is_complex() else ab
        return values.new_zeros(0), ab.new_zeros(ab.shape[1], 0)
    return eigenpairs(lower_form(ab, lower), first, count)


@eager
def _indices(ab: Tensor, lower: bool, select_range: Any) -> tuple[int, int]:
    """`(first, count)` of the eigenvalues in an interval (low, high]."""
    low, high = map(float, check_range(select_range))
    if ab.ndim > 2:
        raise ValueError(f"select='v' takes one matrix, got a batch of shape {tuple(ab.shape)}; use select='i'")
    if not low < high:
        raise ValueError(f"select_range must be (low, high) with low < high for select='v', got {select_range!r}")
    first, last = (_count(ab, lower, end) for end in (low, high))
    return first, last - first


def _count(ab: Tensor, lower: bool, end: float) -> int:
    """How many eigenvalues are at most `end`. A count in doubt is taken again, roundings further on."""
    ab = clear_unused(lower_form(ab.detach(), lower))
    size = float(radius(ab)) or 1.0
    shift, eps = max(-1.1, min(1.1, end / size)), torch.finfo(ab.dtype).eps
    shifts = shift + eps * 2.0 ** torch.arange(1, 9, dtype=torch.float64, device=ab.device)
    found = Count.apply(ab / size, shifts.to(ab.real.dtype if ab.is_complex() else ab.dtype))
    trusted = found[found >= 0]
    if len(trusted) == 0:
        raise ValueError(f"no eigenvalue count at {end} can be trusted: move select_range a little")
    return int(trusted[0])
