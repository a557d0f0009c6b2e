"""The banded functions of `scipy.linalg` on tensors: the same signatures, defaults, storage forms, batches and errors.

They are what jax-ml/jax #12779 and #15880, pytorch/pytorch #118225 and cupy/cupy #6562 ask for. For a Hermitian matrix

    upper form:  * * c f i        lower form:  a d g j l        n = 5, w = 2, B = conj(b) and so on;
                 * b e h k                     B E H K *        * unused, never read; lower=False is the default,
                 a d g j l                     C F I * *        as in SciPy

and for a general one the diagonal ordered form, `ab[u + i - j, j] = A[i, j]`. All compose with torch.func and autograd.
`overwrite_ab` and `overwrite_b` permit what is never done. `LinAlgError` is both NumPy's (SciPy's) and torch's.

What is not a tensor goes through NumPy, so Python floats are double. Integers become float64, half precision float32,
and ab and b one dtype, real or complex. A complex Hermitian band is solved as the real band of twice the size that
replaces each entry a + ib by [[a, -b], [b, a]]: factor, derivatives and platforms are those of the real solvers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bandhess_common.checks import as_index, check_cyclic_reach

from ..framework.transforms import eager
from ..linalg.cholesky import cho_solve, cholesky
from ..linalg.cyclic import solve_cyclic
from ..linalg.lu import solve_general
from ..linalg.solve import solve
from .arguments import as_tensors, batch_shape, check_rows, flattened, run
from .forms import by_real, complex_band, lower_form, real_band, upper_form

__all__ = ["LinAlgError", "cho_solve_banded", "cholesky_banded", "solve_banded", "solve_cyclic_banded", "solveh_banded"]


class LinAlgError(np.linalg.LinAlgError, torch.linalg.LinAlgError):
    """A matrix is not positive definite, or singular: NumPy's error, as SciPy raises it, and PyTorch's.

    >>> from bandhess_torch.scipy import LinAlgError, solveh_banded
    >>> try:
    ...     solveh_banded([[0.0, 2, 2], [1, 1, 1]], [1.0, 1, 1])
    ... except LinAlgError as error:
    ...     print(error)
    2th leading minor not positive definite
    """


@eager
def solveh_banded(
    ab: Tensor | ArrayLike,
    b: Tensor | ArrayLike,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    lower: bool = False,
    check_finite: bool = True,
) -> Tensor:
    """x with H x = b, for a Hermitian positive definite band.

    Args:
      ab: `(..., w + 1, n)`, upper form, or lower form where lower is true.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with ab's.
      overwrite_ab: accepted, without effect.
      overwrite_b: likewise.
      lower: ab is in lower form.
      check_finite: outside vmap, raise ValueError where ab (unused cells included) or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.

    Raises: ValueError for shapes that do not match; LinAlgError, naming the leading minor, where H is not positive
      definite.

    Cost: as `bandhess_torch.solve`; twice the flops of complex arithmetic for complex bands (LAPACK `pbsv`).

    >>> from bandhess_torch.scipy import solveh_banded
    >>> solveh_banded([[0.0, 1, 1], [4, 4, 4]], [5.0, 6, 5]).round(decimals=4)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    return run(_solveh_banded, (bool(lower),), check_finite, as_tensors("solveh_banded", ab=ab, b=b))


@eager
def cholesky_banded(
    ab: Tensor | ArrayLike, overwrite_ab: bool = False, lower: bool = False, check_finite: bool = True
) -> Tensor:
    """The Cholesky factor of a Hermitian positive definite band: L with H = L L^H, or U with H = U^H U.

    Args:
      ab: `(..., w + 1, n)`, upper form, or lower form where lower is true.
      overwrite_ab: accepted, without effect.
      lower: ab is in lower form, and so is the result.
      check_finite: outside vmap, raise ValueError where ab (unused cells included) holds NaN or infinity.

    Returns: `(..., w + 1, n)`, U in upper form or L in lower form; unused cells are 0.
    Raises: LinAlgError, naming the leading minor, where H is not positive definite.
    Cost: as `bandhess_torch.cholesky`; twice the flops of complex arithmetic for complex bands (LAPACK `pbtrf`).

    >>> from bandhess_torch.scipy import cholesky_banded
    >>> cholesky_banded([[0.0, 2, 2], [4, 5, 5]]).round(decimals=4)
    tensor([[0., 1., 1.],
            [2., 2., 2.]], dtype=torch.float64)
    """
    return run(_cholesky_banded, (bool(lower),), check_finite, as_tensors("cholesky_banded", ab=ab))


@eager
def cho_solve_banded(
    cb_and_lower: tuple[Tensor | ArrayLike, bool],
    b: Tensor | ArrayLike,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Tensor:
    """x with H x = b, from the factor.

    Args:
      cb_and_lower: `(cb, lower)`, the `(..., w + 1, n)` result of `cholesky_banded` and the form asked of it.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with cb's.
      overwrite_b: accepted, without effect.
      check_finite: outside vmap, raise ValueError where cb or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.
    Raises: ValueError for shapes that do not match.
    Cost: as `bandhess_torch.cho_solve` (LAPACK `pbtrs`).

    >>> from bandhess_torch.scipy import cho_solve_banded
    >>> cho_solve_banded(([[0.0, 1, 1], [2, 2, 2]], False), [6.0, 9, 7]).round(decimals=4)  # U^H U x = b
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    cb, lower = cb_and_lower
    return run(_cho_solve_banded, (bool(lower),), check_finite, as_tensors("cho_solve_banded", cb=cb, b=b))


@eager
def solve_banded(
    l_and_u: tuple[int, int],
    ab: Tensor | ArrayLike,
    b: Tensor | ArrayLike,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Tensor:
    """x with A x = b, for a general band, by LU with partial pivoting.

    Args:
      l_and_u: `(l, u)`, the numbers of subdiagonals and superdiagonals; either may be an array of ints, one for each
        matrix of a batch.
      ab: `(..., l + u + 1, n)`, diagonal ordered form, `ab[u + i - j, j] = A[i, j]`.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with ab's.
      overwrite_ab: accepted, without effect.
      overwrite_b: likewise.
      check_finite: outside vmap, raise ValueError where ab (unused cells included) or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.

    Raises: ValueError for shapes that do not match; LinAlgError where a pivot is exactly zero.

    Cost: 2 n l (l + u + 1) flops, and 2 n (2 l + u) per right-hand side (LAPACK `gbsv`). A derivative costs one more
      solve with the same factor.

    >>> from bandhess_torch.scipy import solve_banded
    >>> solve_banded((1, 1), [[0.0, 1, 1], [4, 4, 4], [2, 2, 0]], [5.0, 7, 6]).round(decimals=4)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    nlower, nupper = l_and_u
    tensors = as_tensors("solve_banded", ab=ab, b=b)
    if np.ndim(nlower) or np.ndim(nupper):
        return _by_bandwidths(nlower, nupper, tensors["ab"], tensors["b"], check_finite)
    l, u = as_index(nlower, "l_and_u[0]"), as_index(nupper, "l_and_u[1]")
    check_rows(l, u, tensors["ab"])
    return run(_solve_banded, (l, u), check_finite, tensors)


@eager
def solve_cyclic_banded(
    l_and_u: tuple[int, int],
    ab: Tensor | ArrayLike,
    b: Tensor | ArrayLike,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Tensor:
    """x with A x = b, for a general periodic band (scipy #13701 asks for it), by LU with partial pivoting.

    The cells that a plain band leaves unused hold what wraps around, `ab[r, j] = A[(j + r - u) mod n, j]`. With l = 2,
    u = 1 and n = 6, and entries named by row and column,

        A =  00 01  .  . 04 05        ab =  50 01 12 23 34 45
             10 11 12  .  . 15              00 11 22 33 44 55
             20 21 22 23  .  .              10 21 32 43 54 05
              . 31 32 33 34  .              20 31 42 53 04 15
              .  . 42 43 44 45
             50  .  . 53 54 55

    Args:
      l_and_u: `(l, u)`, the numbers of subdiagonals and superdiagonals, l + u < n.
      ab: `(..., l + u + 1, n)`.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with ab's.
      overwrite_ab: accepted, without effect.
      overwrite_b: likewise.
      check_finite: outside vmap, raise ValueError where ab or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.

    Raises: ValueError for shapes that do not match, or where entries meet on both ways round (l + u >= n: such a matrix
      is dense); LinAlgError where a pivot is exactly zero.

    Cost: the ring is folded to a plain band with 2 max(l, u) diagonals on either side: with m = max(l, u),
      4 n m (4 m + 1) flops and 12 n m per right-hand side. A derivative costs one more solve.

    >>> from bandhess_torch.scipy import solve_cyclic_banded
    >>> solve_cyclic_banded((1, 1), [[1.0, 1, 1, 1], [4, 4, 4, 4], [2, 2, 2, 2]], [7.0, 7, 7, 7]).round(decimals=4)
    tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    l, u = as_index(l_and_u[0], "l_and_u[0]"), as_index(l_and_u[1], "l_and_u[1]")
    arrays = as_tensors("solve_cyclic_banded", ab=ab, b=b)
    check_rows(l, u, arrays["ab"])
    check_cyclic_reach(l, u, arrays["ab"].shape[-1])
    return run(_solve_cyclic_banded, (l, u), check_finite, arrays)


def _by_bandwidths(nlower: Any, nupper: Any, ab: Tensor, b: Tensor, check_finite: bool) -> Tensor:
    """`solve_banded` of a batch whose matrices have each their own (l, u): those of one shape together."""
    nlower, nupper = np.broadcast_arrays(nlower, nupper)
    batch = np.broadcast_shapes(nlower.shape, batch_shape(ab, b))
    pairs = np.stack([np.broadcast_to(count, batch).ravel() for count in (nlower, nupper)], axis=1)
    distinct, kind = np.unique(pairs, axis=0, return_inverse=True)
    groups = [torch.tensor(np.flatnonzero(kind == k), device=ab.device) for k in range(len(distinct))]
    parts = [
        solve_banded(
            pair,
            flattened(ab, batch)[group],
            flattened(b, batch)[group] if b.ndim > 1 else b,
            check_finite=check_finite,
        )
        for pair, group in zip(distinct, groups, strict=True)
    ]
    x = torch.cat(parts)[torch.argsort(torch.cat(groups))]
    return x.reshape(batch + x.shape[1:])


@contextmanager
def _scipy_error(text: str, ab: Tensor) -> Iterator[None]:
    """The solvers' LinAlgError, from inside vmap too, with SciPy's text."""
    try:
        yield
    except torch.linalg.LinAlgError as error:
        order = int(re.findall(r"\d+", str(error))[0])
        # Each pivot of a complex band is two of the real one's.
        raise LinAlgError(text.format((order + 1) // 2 if ab.is_complex() else order)) from None


# --- One matrix, operands of one dtype -------------------------------------------------------------------------------


def _solveh_banded(ab: Tensor, b: Tensor, lower: bool) -> Tensor:
    with _scipy_error("{}th leading minor not positive definite", ab):
        return by_real(solve, lower_form(ab, lower), b) if b.numel() else b


def _cholesky_banded(ab: Tensor, lower: bool) -> Tensor:
    if ab.numel() == 0:
        return ab
    ab = lower_form(ab, lower)
    with _scipy_error("{}-th leading minor not positive definite", ab):
        cb = complex_band(cholesky(real_band(ab))) if ab.is_complex() else cholesky(ab)
    return cb if lower else upper_form(cb)


def _cho_solve_banded(cb: Tensor, b: Tensor, lower: bool) -> Tensor:
    return by_real(cho_solve, lower_form(cb, lower), b) if b.numel() else b


def _solve_banded(ab: Tensor, b: Tensor, l: int, u: int) -> Tensor:
    with _scipy_error("singular matrix", ab):
        return solve_general(ab, b, l, u) if b.numel() else b


def _solve_cyclic_banded(ab: Tensor, b: Tensor, l: int, u: int) -> Tensor:
    with _scipy_error("singular matrix", ab):
        return solve_cyclic(ab, b, l, u) if b.numel() else b
