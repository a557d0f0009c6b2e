"""The banded eigenvalue problems of `scipy.linalg`, in-graph: the same signatures, defaults, forms, batches and errors.

A selected range costs O(n) an eigenvalue (`bisection.py`); the whole spectrum goes through a dense matrix.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bandhess_common.eigen import check_driver, check_indices, check_range, check_select
from bandhess_common.options import Driver, Select

from ..band.storage import clear_unused
from .arguments import as_array, as_arrays, run
from .bisection import count_below, eigenpairs, product, radius
from .forms import lower_form


def eig_banded(
    a_band: ArrayLike,
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
        (low, high], outside jit and for one matrix.
      select_range: `(first, last)` or `(low, high)`.
      max_ev: accepted, without effect.
      check_finite: outside jit, raise ValueError where a_band (unused cells included) holds NaN or infinity.

    Returns: w `(..., m)`, or `(w, v)` with v `(..., n, m)`, orthonormal columns, v[:, i] of w[i]. NaN where H is not
      finite, or where rounding leaves the inertia of H - s I undecided.

    Raises: ValueError for a wrong selection.

    Derivatives: of values and vectors in both modes, to any order, where the eigenvalues are distinct. Cost: a
      selected one some 160 banded factorisations (80 in float32), batched, and O(n m^2) for vectors; "a" is O(n^3)
      with an (n, n) matrix.

    >>> from bandhess_jax.scipy import eig_banded
    >>> w, v = eig_banded([[2.0, 3, 5], [0, 0, 0]], lower=True)
    >>> w.round(decimals=4)
    Array([2., 3., 5.], dtype=float32)
    """
    arrays = as_arrays("eig_banded", ab=a_band)
    ab, kind = arrays["ab"], check_select(select)
    n, lower = ab.shape[-1], bool(lower)
    if kind == "a" or n == 0:
        w, v = run(_whole, (lower,), check_finite, arrays)
    else:
        first, count = check_indices(select_range, n) if kind == "i" else _indices(ab, lower, select_range)
        w, v = run(_selected, (lower, first, count), check_finite, arrays)
    return w if eigvals_only else (w, v)


def eigvals_banded(
    a_band: ArrayLike,
    lower: bool = False,
    overwrite_a_band: bool = False,
    select: Select = "a",
    select_range: Any = None,
    check_finite: bool = True,
) -> Array:
    """The values of `eig_banded`.

    >>> from bandhess_jax.scipy import eigvals_banded
    >>> eigvals_banded([[0.0, -1, -1], [2, 2, 2]], select="i", select_range=(1, 1)).round(decimals=4)  # the middle one
    Array([2.], dtype=float32)
    """
    return eig_banded(a_band, lower, True, overwrite_a_band, select, select_range, 0, check_finite)


def eigh_tridiagonal(
    d: ArrayLike,
    e: ArrayLike,
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
      check_finite: outside jit, raise ValueError where d or e holds NaN or infinity.
      tol: accepted, without effect: eigenvalues are accurate to rounding of |H|.
      lapack_driver: checked as SciPy checks it; it chooses nothing.

    Returns: w `(m,)`, or `(w, v)` with v `(n, m)`.
    Raises: ValueError for sizes that do not match, a wrong selection or driver; TypeError for complex entries.
    Cost and derivatives: as `eig_banded`.

    >>> from bandhess_jax.scipy import eigh_tridiagonal
    >>> w, v = eigh_tridiagonal([2.0, 2], [-1.0])
    >>> w.round(decimals=4)
    Array([1., 3.], dtype=float32)
    """
    d, e = as_array(d), as_array(e)
    if jnp.iscomplexobj(d) or jnp.iscomplexobj(e):
        raise TypeError(f"d and e must be real, got {d.dtype} and {e.dtype}; eig_banded takes Hermitian bands")
    if d.ndim != 1 or e.ndim != 1 or (d.size and e.size != d.size - 1):
        raise ValueError(f"d must have shape (n,) and e shape (n - 1,), got {d.shape} and {e.shape}")
    check_driver(lapack_driver, whole=check_select(select) == "a", vectors=not eigvals_only)
    return eig_banded(_stacked(d, e), True, eigvals_only, False, select, select_range, 0, check_finite)


def eigvalsh_tridiagonal(
    d: ArrayLike,
    e: ArrayLike,
    select: Select = "a",
    select_range: Any = None,
    check_finite: bool = True,
    tol: float = 0.0,
    lapack_driver: Driver = "auto",
) -> Array:
    """The values of `eigh_tridiagonal`.

    >>> from bandhess_jax.scipy import eigvalsh_tridiagonal
    >>> eigvalsh_tridiagonal([2.0, 2], [-1.0]).round(decimals=4)
    Array([1., 3.], dtype=float32)
    """
    return eigh_tridiagonal(d, e, True, select, select_range, check_finite, tol, lapack_driver)


@jax.jit
def _stacked(d: Array, e: Array) -> Array:
    """The lower band of a tridiagonal matrix."""
    floats = [a.dtype if jnp.issubdtype(a.dtype, jnp.floating) else jnp.dtype(float) for a in (d, e)]
    dtype = np.result_type(np.float32, *floats)  # also where jnp promotes nothing
    return jnp.stack([d.astype(dtype), jnp.pad(e.astype(dtype), (0, d.size - e.size))])


def _whole(ab: Array, lower: bool) -> tuple[Array, Array]:
    ab = clear_unused(lower_form(ab, lower)) if ab.size else ab
    w, v = jnp.linalg.eigh(product(ab, jnp.eye(ab.shape[1], dtype=ab.dtype)) if ab.size else ab[:0, :0])
    return w, v


def _selected(ab: Array, lower: bool, first: int, count: int) -> tuple[Array, Array]:
    if count == 0:
        return jnp.zeros(0, jnp.finfo(ab.dtype).dtype), jnp.zeros((ab.shape[1], 0), ab.dtype)
    return eigenpairs(lower_form(ab, lower), first, count)


def _indices(ab: Array, lower: bool, select_range: Any) -> tuple[int, int]:
    """`(first, count)` of the eigenvalues in an interval (low, high]."""
    low, high = check_range(select_range)
    if any(isinstance(a, jax.core.Tracer) for a in (ab, low, high)):
        raise ValueError("select='v' has a result whose shape depends on values: inside jit use select='i'")
    if ab.ndim > 2:
        raise ValueError(f"select='v' takes one matrix, got a batch of shape {ab.shape}; use select='i'")
    if not low < high:
        raise ValueError(f"select_range must be (low, high) with low < high for select='v', got {select_range!r}")
    first, last = (_count(ab, lower, end) for end in (low, high))
    return first, last - first


def _count(ab: Array, lower: bool, end: float) -> int:
    """How many eigenvalues are at most `end`. A count in doubt is taken again, roundings further on."""
    scaled, size = _scaled(ab, lower)
    dtype = jnp.finfo(scaled.dtype)
    shift = max(-1.1, min(1.1, float(end) / float(size)))
    for k in range(1, 9):
        found = int(_counted(scaled, np.asarray(shift + 2**k * float(dtype.eps), dtype.dtype)))
        if found >= 0:
            return found
    raise ValueError(f"no eigenvalue count at {end} can be trusted: move select_range a little")


@partial(jax.jit, static_argnums=1)
def _scaled(ab: Array, lower: bool) -> tuple[Array, Array]:
    """The lower band of H / size, and size, about |H|."""
    ab = clear_unused(lower_form(ab if jnp.issubdtype(ab.dtype, jnp.inexact) else ab.astype(float), lower))
    size = radius(ab)
    size = jnp.where(size == 0, 1, size)
    return ab / size.astype(ab.dtype), size


_counted = jax.jit(count_below)
