"""The banded functions of `scipy.linalg`, in-graph: the same signatures, defaults, storage forms, batches and errors.

They are what jax-ml/jax #12779 and #15880, pytorch/pytorch #118225 and cupy/cupy #6562 ask for. For a Hermitian matrix

    upper form:  * * c f i        lower form:  a d g j l        n = 5, w = 2, B = conj(b) and so on;
                 * b e h k                     B E H K *        * unused, never read; lower=False is the default,
                 a d g j l                     C F I * *        as in SciPy

and for a general one the diagonal ordered form, `ab[u + i - j, j] = A[i, j]`. All work under jit, vmap and grad;
`lower`, `l_and_u` and the flags are Python values there. What is a property of the values is an exception where they
are known, and NaN where they are not (under jit and the other transformations): a matrix that is not positive definite
or is singular. There `check_finite` checks nothing either. `overwrite_ab` and `overwrite_b` permit what JAX never does.

Arrays may be anything that `jnp.asarray` takes; integers become the default float, half precision float32, and ab and
b one dtype, real or complex. A complex Hermitian band is solved as the real band of twice the size that replaces each
entry a + ib by [[a, -b], [b, a]]: factor, derivatives and platforms are those of the real solvers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpy.linalg import LinAlgError

from bandhess_common.checks import as_index, check_cyclic_reach

from ..band.storage import transposed
from ..linalg.cholesky import cho_solve, cholesky_ex
from ..linalg.cyclic import solve_cyclic
from ..linalg.lu import solve_general
from ..linalg.solve import solve

__all__ = ["LinAlgError", "cho_solve_banded", "cholesky_banded", "solve_banded", "solve_cyclic_banded", "solveh_banded"]


def solveh_banded(
    ab: ArrayLike,
    b: ArrayLike,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    lower: bool = False,
    check_finite: bool = True,
) -> Array:
    """x with H x = b, for a Hermitian positive definite band.

    Args:
      ab: `(..., w + 1, n)`, upper form, or lower form where lower is true.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with ab's.
      overwrite_ab: accepted, without effect.
      overwrite_b: likewise.
      lower: ab is in lower form.
      check_finite: outside jit, raise ValueError where ab (unused cells included) or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.

    Raises: ValueError for shapes that do not match; outside jit numpy.linalg.LinAlgError, naming the leading minor,
      where H is not positive definite (under jit x is NaN).

    Cost: as `bandhess_jax.solve`; twice the flops of complex arithmetic for complex bands (LAPACK `pbsv`).

    >>> from bandhess_jax.scipy import solveh_banded
    >>> solveh_banded([[0.0, 1, 1], [4, 4, 4]], [5.0, 6, 5]).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """
    arrays = _arrays("solveh_banded", ab=ab, b=b)
    x, failed = _run(_solveh_banded, (bool(lower),), check_finite, arrays)
    if _known(failed):
        info = _run(_cholesky_banded, (bool(lower),), False, {"ab": arrays["ab"].astype(x.dtype)})[1]
        _raise_minor(info, "{}th leading minor not positive definite")
    return x


def cholesky_banded(ab: ArrayLike, overwrite_ab: bool = False, lower: bool = False, check_finite: bool = True) -> Array:
    """The Cholesky factor of a Hermitian positive definite band: L with H = L L^H, or U with H = U^H U.

    Args:
      ab: `(..., w + 1, n)`, upper form, or lower form where lower is true.
      overwrite_ab: accepted, without effect.
      lower: ab is in lower form, and so is the result.
      check_finite: outside jit, raise ValueError where ab (unused cells included) holds NaN or infinity.

    Returns: `(..., w + 1, n)`, U in upper form or L in lower form; unused cells are 0.

    Raises: outside jit numpy.linalg.LinAlgError, naming the leading minor, where H is not positive definite (under jit
      the result is NaN).

    Cost: as `bandhess_jax.cholesky`; twice the flops of complex arithmetic for complex bands (LAPACK `pbtrf`).

    >>> from bandhess_jax.scipy import cholesky_banded
    >>> cholesky_banded([[0.0, 2, 2], [4, 5, 5]]).round(decimals=4)
    Array([[0., 1., 1.],
           [2., 2., 2.]], dtype=float32)
    """
    cb, info = _run(_cholesky_banded, (bool(lower),), check_finite, _arrays("cholesky_banded", ab=ab))
    if _known(info):
        _raise_minor(info, "{}-th leading minor not positive definite")
    return cb


def cho_solve_banded(
    cb_and_lower: tuple[ArrayLike, bool], b: ArrayLike, overwrite_b: bool = False, check_finite: bool = True
) -> Array:
    """x with H x = b, from the factor.

    Args:
      cb_and_lower: `(cb, lower)`, the `(..., w + 1, n)` result of `cholesky_banded` and the form asked of it.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with cb's.
      overwrite_b: accepted, without effect.
      check_finite: outside jit, raise ValueError where cb or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.
    Raises: ValueError for shapes that do not match.
    Cost: as `bandhess_jax.cho_solve` (LAPACK `pbtrs`).

    >>> from bandhess_jax.scipy import cho_solve_banded
    >>> cho_solve_banded(([[0.0, 1, 1], [2, 2, 2]], False), [6.0, 9, 7]).round(decimals=4)  # U^H U x = b
    Array([1., 1., 1.], dtype=float32)
    """
    cb, lower = cb_and_lower
    return _run(_cho_solve_banded, (bool(lower),), check_finite, _arrays("cho_solve_banded", cb=cb, b=b))[0]


def solve_banded(
    l_and_u: tuple[int, int],
    ab: ArrayLike,
    b: ArrayLike,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Array:
    """x with A x = b, for a general band, by LU with partial pivoting.

    Args:
      l_and_u: `(l, u)`, the numbers of subdiagonals and superdiagonals; either may be an array of ints, one for each
        matrix of a batch.
      ab: `(..., l + u + 1, n)`, diagonal ordered form, `ab[u + i - j, j] = A[i, j]`.
      b: `(n,)` or `(..., n, k)`; leading axes broadcast with ab's.
      overwrite_ab: accepted, without effect.
      overwrite_b: likewise.
      check_finite: outside jit, raise ValueError where ab (unused cells included) or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.

    Raises: ValueError for shapes that do not match; outside jit numpy.linalg.LinAlgError where a pivot is exactly zero
      (under jit x is NaN).

    Cost: 2 n l (l + u + 1) flops, and 2 n (2 l + u) per right-hand side, three scans (LAPACK `gbsv`). A derivative
      costs one more solve with the same factor.

    >>> from bandhess_jax.scipy import solve_banded
    >>> solve_banded((1, 1), [[0.0, 1, 1], [4, 4, 4], [2, 2, 0]], [5.0, 7, 6]).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """
    nlower, nupper = l_and_u
    arrays = _arrays("solve_banded", ab=ab, b=b)
    if np.ndim(nlower) or np.ndim(nupper):
        return _by_bandwidths(nlower, nupper, arrays["ab"], arrays["b"], check_finite)
    l, u = as_index(nlower, "l_and_u[0]"), as_index(nupper, "l_and_u[1]")
    _check_rows(l, u, arrays["ab"])
    x, singular = _run(_solve_banded, (l, u), check_finite, arrays)
    if _known(singular):
        raise LinAlgError("singular matrix")
    return x


def solve_cyclic_banded(
    l_and_u: tuple[int, int],
    ab: ArrayLike,
    b: ArrayLike,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Array:
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
      check_finite: outside jit, raise ValueError where ab or b holds NaN or infinity.

    Returns: x, `(..., n)` or `(..., n, k)`.

    Raises: ValueError for shapes that do not match, or where entries meet on both ways round (l + u >= n: such a matrix
      is dense); outside jit numpy.linalg.LinAlgError where a pivot is exactly zero (under jit x is NaN).

    Cost: the ring is folded to a plain band with 2 max(l, u) diagonals on either side: with m = max(l, u),
      4 n m (4 m + 1) flops and 12 n m per right-hand side. A derivative costs one more solve.

    >>> from bandhess_jax.scipy import solve_cyclic_banded
    >>> solve_cyclic_banded((1, 1), [[1.0, 1, 1, 1], [4, 4, 4, 4], [2, 2, 2, 2]], [7.0, 7, 7, 7]).round(decimals=4)
    Array([1., 1., 1., 1.], dtype=float32)
    """
    l, u = as_index(l_and_u[0], "l_and_u[0]"), as_index(l_and_u[1], "l_and_u[1]")
    arrays = _arrays("solve_cyclic_banded", ab=ab, b=b)
    _check_rows(l, u, arrays["ab"])
    check_cyclic_reach(l, u, arrays["ab"].shape[-1])
    x, singular = _run(_solve_cyclic_banded, (l, u), check_finite, arrays)
    if _known(singular):
        raise LinAlgError("singular matrix")
    return x


# --- Arguments -------------------------------------------------------------------------------------------------------


def _arrays(function: str, **arguments: ArrayLike) -> dict[str, Array]:
    """The arguments, a band and perhaps b, as arrays whose shapes fit together."""
    arrays = {name: jnp.asarray(value) for name, value in arguments.items()}
    for name, x in arrays.items():
        least, shape = (1, "(n,) or (..., n, k)") if name == "b" else (2, "(..., rows, n), in band storage")
        if x.ndim < least:
            raise ValueError(f"{name} must have shape {shape}, got {x.shape}")
    if "b" in arrays:
        (name, ab), (_, b) = arrays.items()
        rows, n = ab.shape[-2:]
        if n != b.shape[-2:][0]:
            raise ValueError(
                f"shapes of {name} and b are not compatible. b must have shape ({n},) or (..., {n}, k) to match {name} "
                f"of shape {ab.shape}, got {b.shape}"
            )
        if b.size and rows == 0:
            raise ValueError(f"{name} must have a row at least, the diagonal, got shape {ab.shape}")
    if 0 in _batch_shape(*arrays.values()):
        raise ValueError(f"`{function}` does not support zero-size batches.")
    return arrays


def _check_rows(l: int, u: int, ab: Array) -> None:
    if l + u + 1 != ab.shape[-2]:
        raise ValueError(
            f"invalid values for the number of lower and upper diagonals: l+u+1 ({l + u + 1}) does not equal "
            f"ab.shape[0] ({ab.shape[-2]})"
        )


def _batch_shape(*operands: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(x.shape[:-2] for x in operands))


def _run(core: Callable, options: tuple, check_finite: bool, arrays: dict[str, Array]) -> tuple[Array, Array]:
    """core(*arrays, *options) over batches, compiled: `(result, failed)`. Raises where check_finite finds something."""
    result, failed, finite = _compiled(core, options, bool(check_finite), *arrays.values())
    for name, is_finite in zip(arrays, finite, strict=False):
        if _known(~is_finite):
            raise ValueError(f"array must not contain infs or NaNs: {name} does; check_finite=False lets it pass")
    return result, failed


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(core: Callable, options: tuple, check_finite: bool, *arrays: Array) -> tuple[Array, Array, list[Array]]:
    finite = [jnp.isfinite(x).all() for x in arrays] if check_finite else []
    floats = [x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float) for x in arrays]
    dtype = np.result_type(np.float32, *(x.dtype for x in floats))  # also where jnp promotes nothing
    return *_over_batches(core, options, [x.astype(dtype) for x in floats]), finite


def _known(flags: Array) -> bool:
    """Whether a flag is set, where that can be known: outside jit and the other transformations."""
    return not isinstance(flags, jax.core.Tracer) and bool(np.any(flags))


def _raise_minor(info: Array, text: str) -> None:
    """LinAlgError for the first matrix of the batch that failed, if one did."""
    for order in np.ravel(info):
        if order:
            raise LinAlgError(text.format(order))


def _over_batches(core: Callable, options: tuple, operands: list[Array]) -> Any:
    """`core` of matrices (and of a vector), mapped over leading axes that broadcast as SciPy's do."""
    batch = _batch_shape(*operands)
    if not batch:
        return core(*operands, *options)
    # One matrix for a batch of right-hand sides stays one, and is factorised once.
    flat = [_flat(x, batch) if x.ndim > 2 else x for x in operands]
    mapped = jax.vmap(lambda *one: core(*one, *options), in_axes=[0 if x.ndim > 2 else None for x in operands])
    return jax.tree.map(lambda y: y.reshape(batch + y.shape[1:]), mapped(*flat))


def _flat(x: Array, batch: tuple[int, ...]) -> Array:
    """x broadcast to a batch whose axes are one."""
    return jnp.broadcast_to(x, batch + x.shape[-2:]).reshape(math.prod(batch), *x.shape[-2:])


def _by_bandwidths(nlower: Any, nupper: Any, ab: Array, b: Array, check_finite: bool) -> Array:
    """`solve_banded` of a batch whose matrices have each their own (l, u): those of one shape together."""
    nlower, nupper = np.broadcast_arrays(nlower, nupper)
    batch = np.broadcast_shapes(nlower.shape, _batch_shape(ab, b))
    pairs = np.stack([np.broadcast_to(count, batch).ravel() for count in (nlower, nupper)], axis=1)
    distinct, kind = np.unique(pairs, axis=0, return_inverse=True)
    groups = [np.flatnonzero(kind == k) for k in range(len(distinct))]
    parts = [
        solve_banded(
            pair, _flat(ab, batch)[group], _flat(b, batch)[group] if b.ndim > 1 else b, check_finite=check_finite
        )
        for pair, group in zip(distinct, groups, strict=True)
    ]
    x = jnp.concatenate(parts)[np.argsort(np.concatenate(groups))]
    return x.reshape(batch + x.shape[1:])


# --- Forms -----------------------------------------------------------------------------------------------------------


def _lower_form(ab: Array, lower: bool) -> Array:
    return ab if lower else transposed(ab, 0).conj()


def _upper_form(cb: Array) -> Array:
    return transposed(cb, cb.shape[0] - 1).conj()


def _real_band(ab: Array) -> Array:
    """A complex lower band `(w + 1, n)`, of a Hermitian matrix or of its factor, as the real `(2 w + 2, 2 n)`.

    The diagonal counts as real. [2 d, 2 j] and [2 d, 2 j + 1] hold the real part of [d, j], [2 d + 1, 2 j] holds its
    imaginary part, and [2 d - 1, 2 j + 1] that with the other sign.
    """
    w, n = ab.shape[0] - 1, ab.shape[1]
    imag = jnp.pad(ab.imag[1:], ((1, 1), (0, 0)))
    even = jnp.stack([ab.real, ab.real], axis=-1)
    odd = jnp.stack([imag[:-1], -imag[1:]], axis=-1)
    return jnp.stack([even, odd], axis=1).reshape(2 * (w + 1), 2 * n)


def _complex_band(cb: Array) -> Array:
    """The inverse of `_real_band`."""
    return lax.complex(cb[::2, ::2], jnp.pad(cb[3::2, ::2], ((1, 0), (0, 0))))


def _by_real(solver: Callable, ab: Array, b: Array) -> Array:
    """solver(ab, b), for complex operands by the real system of twice the size."""
    if not jnp.iscomplexobj(b):
        return solver(ab, b)
    x = solver(_real_band(ab), jnp.stack([b.real, b.imag], axis=1).reshape(-1, *b.shape[1:]))
    return lax.complex(x[::2], x[1::2])


# --- One matrix: (result, failed), of operands of one dtype ----------------------------------------------------------


def _solveh_banded(ab: Array, b: Array, lower: bool) -> tuple[Array, Array]:
    x = _by_real(solve, _lower_form(ab, lower), b) if b.size else b
    return x, jnp.isnan(x).any()  # failure shows as NaN; what failed is asked only then


def _cholesky_banded(ab: Array, lower: bool) -> tuple[Array, Array]:
    if ab.size == 0:
        return ab, jnp.int32(0)
    ab = _lower_form(ab, lower)
    if jnp.iscomplexobj(ab):
        cb, info = cholesky_ex(_real_band(ab))
        cb, info = _complex_band(cb), (info + 1) // 2  # a pair of pivots is one complex pivot
    else:
        cb, info = cholesky_ex(ab)
    return cb if lower else _upper_form(cb), info


def _cho_solve_banded(cb: Array, b: Array, lower: bool) -> tuple[Array, Array]:
    return _by_real(cho_solve, _lower_form(cb, lower), b) if b.size else b, jnp.array(False)


def _solve_banded(ab: Array, b: Array, l: int, u: int) -> tuple[Array, Array]:
    return solve_general(ab, b, l, u) if b.size else (b, jnp.array(False))


def _solve_cyclic_banded(ab: Array, b: Array, l: int, u: int) -> tuple[Array, Array]:
    return solve_cyclic(ab, b, l, u) if b.size else (b, jnp.array(False))
