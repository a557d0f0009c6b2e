"""The substitutions with a banded triangular factor, `L x = b` and `L^T x = b`."""

from __future__ import annotations

from jax import Array, lax
from jax.typing import ArrayLike

from ..band.storage import as_band, as_rhs, clear_unused
from ..framework.kernels import kernel
from .ldl import divide, lower_matvec, unit_backward, unit_forward


def _substitute(cb: Array, b: Array, transpose: bool) -> Array:
    unit = (cb[1:] / cb[:1]).T
    return unit_backward(unit, divide(b, cb[0])) if transpose else divide(unit_forward(unit, b), cb[0])


def solve_triangular(cb: ArrayLike, b: ArrayLike, *, transpose: bool = False) -> Array:
    """x with L x = b, or L^T x = b when transpose: whitening, and drawing from N(0, H^-1).

    Args:
      cb: `(w + 1, n)`, a lower banded triangular factor such as `cholesky` gives.
      b: `(n,)` or `(n, k)`.
      transpose: solve with L^T.

    Returns: x, of b's shape. Cost: (2 w + 1) n flops per column, one scan (LAPACK `tbtrs`). Differentiable in both
      arguments at the cost of further substitutions.

    >>> cb = jnp.array([[2.0, 2, 2], [1, 1, 0]])
    >>> solve_triangular(cb, jnp.array([2.0, 3, 3]))
    Array([1., 1., 1.], dtype=float32)
    >>> solve_triangular(cb, jnp.array([3.0, 3, 2]), transpose=True)
    Array([1., 1., 1.], dtype=float32)
    """
    cb = clear_unused(as_band(cb, "cb", form=False))
    b = as_rhs(b, cb)
    if b.size == 0:
        return b
    transpose = bool(transpose)
    return lax.custom_linear_solve(
        lambda x: lower_matvec(cb, x, transpose),
        b,
        lambda _, b: kernel("triangular", _substitute, cb, b, transpose=transpose),
        lambda _, b: kernel("triangular", _substitute, cb, b, transpose=not transpose),
    )
