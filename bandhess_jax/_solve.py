"""Solving H x = b: the factorisation that is fastest on the platform, behind one opaque object."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array, lax
from jax.typing import ArrayLike

from . import _cholesky
from ._storage import as_band, as_rhs, clear_unused, matvec


class Factor(NamedTuple):
    """A factorised positive definite band. Its fields are private. A pytree: it passes through jit, vmap and scan."""

    ab: Array
    cb: Array
    info: Array

    @property
    def ok(self) -> Array:
        """True where H is positive definite; elsewhere `solve` and `logdet` give NaN."""
        return self.info == 0

    def solve(self, b: ArrayLike) -> Array:
        """x with H x = b, for b `(n,)` or `(n, k)`. A reverse pass makes one more solve, and no factorisation."""
        b = as_rhs(b, self.ab)
        if b.size == 0:
            return b
        cb = lax.stop_gradient(self.cb)
        return lax.custom_linear_solve(
            lambda x: matvec(self.ab, x), b, lambda _, b: _cholesky.substitute(cb, b), symmetric=True
        )

    def logdet(self) -> Array:
        """log det H, a scalar."""
        return _cholesky.logdet(self.cb)


def factor(ab: ArrayLike) -> Factor:
    """Factorise the band `ab` `(w + 1, n)` of a positive definite H once, to solve with it many times.

    Returns: `Factor` with `.solve(b)`, `.logdet()` and `.ok`. Cost: as `cholesky`.
    """
    ab = clear_unused(as_band(ab))
    return Factor(ab, *_cholesky.cholesky_ex(ab))


def solve(ab: ArrayLike, b: ArrayLike) -> Array:
    """x with H x = b for positive definite H.

    Args: ab `(w + 1, n)`, lower band of H; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape; NaN where H is not positive definite.
    Cost: one factorisation, n (w^2 + 3 w + 1) flops, and (4 w + 2) n per right-hand side (LAPACK `pbsv`). The
      derivative costs one more solve: with `v = solve(ab, xbar)`, `bbar = v`, and `abbar[d, j]` is
      `-(v[j + d] x[j] + v[j] x[j + d])` (once, for d = 0), summed over right-hand sides.
    """
    ab = clear_unused(as_band(ab))
    b = as_rhs(b, ab)
    if b.size == 0:
        return b
    # The factor is taken outside the linear solve, and of a constant: a gradient then factorises nothing again.
    cb = _cholesky.cholesky(lax.stop_gradient(ab))
    return lax.custom_linear_solve(lambda x: matvec(ab, x), b, lambda _, b: _cholesky.substitute(cb, b), symmetric=True)
