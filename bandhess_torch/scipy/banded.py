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

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

from bandhess_common.checks import as_index, check_cyclic_reach

from ..band.storage import transposed
from ..framework.transforms import eager
from ..linalg.cholesky import cho_solve, cholesky
from ..linalg.cyclic import solve_cyclic
from ..linalg.lu import solve_general
from ..linalg.solve import solve

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
    return _run(_solveh_banded, (bool(lower),), check_finite, _tensors("solveh_banded", ab=ab, b=b))


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
    return _run(_cholesky_banded, (bool(lower),), check_finite, _tensors("cholesky_banded", ab=ab))


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
    return _run(_cho_solve_banded, (bool(lower),), check_finite, _tensors("cho_solve_banded", cb=cb, b=b))


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
    tensors = _tensors("solve_banded", ab=ab, b=b)
    if np.ndim(nlower) or np.ndim(nupper):
        return _by_bandwidths(nlower, nupper, tensors["ab"], tensors["b"], check_finite)
    l, u = as_index(nlower, "l_and_u[0]"), as_index(nupper, "l_and_u[1]")
    _check_rows(l, u, tensors["ab"])
    return _run(_solve_banded, (l, u), check_finite, tensors)


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
    arrays = _tensors("solve_cyclic_banded", ab=ab, b=b)
    _check_rows(l, u, arrays["ab"])
    check_cyclic_reach(l, u, arrays["ab"].shape[-1])
    return _run(_solve_cyclic_banded, (l, u), check_finite, arrays)


# --- Arguments -------------------------------------------------------------------------------------------------------


def _tensors(function: str, **arguments: Tensor | ArrayLike) -> dict[str, Tensor]:
    """The arguments, a band and perhaps b, as tensors of one dtype and device, whose shapes fit together."""
    devices = {value.device for value in arguments.values() if isinstance(value, Tensor)}
    if len(devices) > 1:
        raise TypeError(f"{' and '.join(arguments)} must be on one device, got {devices}; move one with .to")
    device = next(iter(devices), None)
    tensors = {
        name: value if isinstance(value, Tensor) else torch.as_tensor(_numpy(name, value), device=device)
        for name, value in arguments.items()
    }
    for name, x in tensors.items():
        least, shape = (1, "(n,) or (..., n, k)") if name == "b" else (2, "(..., rows, n), in band storage")
        if x.ndim < least:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")
    if "b" in tensors:
        (name, ab), (_, b) = tensors.items()
        count, n = ab.shape[-2:]
        if n != b.shape[-2:][0]:
            raise ValueError(
                f"shapes of {name} and b are not compatible. b must have shape ({n},) or (..., {n}, k) to match {name} "
                f"of shape {tuple(ab.shape)}, got {tuple(b.shape)}"
            )
        if b.numel() and count == 0:
            raise ValueError(f"{name} must have a row at least, the diagonal, got shape {tuple(ab.shape)}")
    if 0 in _batch_shape(*tensors.values()):
        raise ValueError(f"`{function}` does not support zero-size batches.")
    dtype = torch.float32
    for x in tensors.values():
        dtype = torch.promote_types(dtype, x.dtype if x.is_floating_point() or x.is_complex() else torch.float64)
    return {name: x.to(dtype).resolve_conj() for name, x in tensors.items()}


def _check_rows(l: int, u: int, ab: Tensor) -> None:
    if l + u + 1 != ab.shape[-2]:
        raise ValueError(
            f"invalid values for the number of lower and upper diagonals: l+u+1 ({l + u + 1}) does not equal "
            f"ab.shape[0] ({ab.shape[-2]})"
        )


def _batch_shape(*operands: Tensor) -> tuple[int, ...]:
    return np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in operands))


def _numpy(name: str, value: ArrayLike) -> np.ndarray:
    if np.ma.isMaskedArray(value):
        raise ValueError(f"masked arrays are not supported: {name} is one; fill it with .filled()")
    x = np.asarray(value)
    if x.dtype.kind not in "fciub":
        raise ValueError(f"object arrays are not supported: {name} has dtype {x.dtype}, it must be numeric")
    # Extended precision becomes double, and so do integers.
    double, width = (np.complex128, 16) if x.dtype.kind == "c" else (np.float64, 8)
    return np.array(x, np.result_type(x, np.float32) if x.dtype.kind in "fc" and x.itemsize < width else double)


def _run(core: Callable, options: tuple, check_finite: bool, tensors: dict[str, Tensor]) -> Tensor:
    """core(*tensors, *options) over batches."""
    for name, x in tensors.items():
        if check_finite and not _is_finite(x):
            raise ValueError(f"array must not contain infs or NaNs: {name} does; check_finite=False lets it pass")
    return _over_batches(core, options, list(tensors.values()))


def _is_finite(x: Tensor) -> bool:
    try:
        return bool(torch.isfinite(x).all())
    except RuntimeError:  # inside vmap values cannot be looked at
        return True


def _over_batches(core: Callable, options: tuple, operands: list[Tensor]) -> Tensor:
    """`core` of matrices (and of a vector), mapped over leading axes that broadcast as SciPy's do."""
    batch = _batch_shape(*operands)
    if not batch:
        return core(*operands, *options)
    # One matrix for a batch of right-hand sides stays one, and is factorised once.
    flat = [_flat(x, batch) if x.ndim > 2 else x for x in operands]
    in_dims = tuple(0 if x.ndim > 2 else None for x in operands)
    out = torch.func.vmap(lambda *one: core(*one, *options), in_dims=in_dims)(*flat)
    return out.reshape(batch + out.shape[1:])


def _flat(x: Tensor, batch: tuple[int, ...]) -> Tensor:
    """x broadcast to a batch whose axes are one."""
    return x.expand(batch + x.shape[-2:]).reshape(math.prod(batch), *x.shape[-2:])


def _by_bandwidths(nlower: Any, nupper: Any, ab: Tensor, b: Tensor, check_finite: bool) -> Tensor:
    """`solve_banded` of a batch whose matrices have each their own (l, u): those of one shape together."""
    nlower, nupper = np.broadcast_arrays(nlower, nupper)
    batch = np.broadcast_shapes(nlower.shape, _batch_shape(ab, b))
    pairs = np.stack([np.broadcast_to(count, batch).ravel() for count in (nlower, nupper)], axis=1)
    distinct, kind = np.unique(pairs, axis=0, return_inverse=True)
    groups = [torch.tensor(np.flatnonzero(kind == k), device=ab.device) for k in range(len(distinct))]
    parts = [
        solve_banded(
            pair, _flat(ab, batch)[group], _flat(b, batch)[group] if b.ndim > 1 else b, check_finite=check_finite
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


# --- Forms -----------------------------------------------------------------------------------------------------------


def _conj(x: Tensor) -> Tensor:
    """The conjugate, which torch computes lazily: neither vmap nor NumPy can read that."""
    return torch.complex(x.real, -x.imag) if x.is_complex() else x


def _lower_form(ab: Tensor, lower: bool) -> Tensor:
    return ab if lower else _conj(transposed(ab, 0))


def _upper_form(cb: Tensor) -> Tensor:
    return _conj(transposed(cb, cb.shape[0] - 1))


def _real_band(ab: Tensor) -> Tensor:
    """A complex lower band `(w + 1, n)`, of a Hermitian matrix or of its factor, as the real `(2 w + 2, 2 n)`.

    The diagonal counts as real. [2 d, 2 j] and [2 d, 2 j + 1] hold the real part of [d, j], [2 d + 1, 2 j] holds its
    imaginary part, and [2 d - 1, 2 j + 1] that with the other sign.
    """
    w, n = ab.shape[0] - 1, ab.shape[1]
    imag = pad(ab.imag[1:], (0, 0, 1, 1))
    even = torch.stack([ab.real, ab.real], -1)
    odd = torch.stack([imag[:-1], -imag[1:]], -1)
    return torch.stack([even, odd], 1).reshape(2 * (w + 1), 2 * n)


def _complex_band(cb: Tensor) -> Tensor:
    """The inverse of `_real_band`."""
    return torch.complex(cb[::2, ::2], pad(cb[3::2, ::2], (0, 0, 1, 0)))


def _by_real(solver: Callable, ab: Tensor, b: Tensor) -> Tensor:
    """solver(ab, b), for complex operands by the real system of twice the size."""
    if not b.is_complex():
        return solver(ab, b)
    x = solver(_real_band(ab), torch.stack([b.real, b.imag], 1).reshape(-1, *b.shape[1:]))
    return torch.complex(x[::2], x[1::2])


# --- One matrix, operands of one dtype -------------------------------------------------------------------------------


def _solveh_banded(ab: Tensor, b: Tensor, lower: bool) -> Tensor:
    with _scipy_error("{}th leading minor not positive definite", ab):
        return _by_real(solve, _lower_form(ab, lower), b) if b.numel() else b


def _cholesky_banded(ab: Tensor, lower: bool) -> Tensor:
    if ab.numel() == 0:
        return ab
    ab = _lower_form(ab, lower)
    with _scipy_error("{}-th leading minor not positive definite", ab):
        cb = _complex_band(cholesky(_real_band(ab))) if ab.is_complex() else cholesky(ab)
    return cb if lower else _upper_form(cb)


def _cho_solve_banded(cb: Tensor, b: Tensor, lower: bool) -> Tensor:
    return _by_real(cho_solve, _lower_form(cb, lower), b) if b.numel() else b


def _solve_banded(ab: Tensor, b: Tensor, l: int, u: int) -> Tensor:
    with _scipy_error("singular matrix", ab):
        return solve_general(ab, b, l, u) if b.numel() else b


def _solve_cyclic_banded(ab: Tensor, b: Tensor, l: int, u: int) -> Tensor:
    with _scipy_error("singular matrix", ab):
        return solve_cyclic(ab, b, l, u) if b.numel() else b
