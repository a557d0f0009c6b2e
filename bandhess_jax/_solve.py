"""Solving H x = b: the factorisation that is fastest on the platform, behind one opaque object."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ._ldl import divide, first_bad_pivot, ldl_columns, unit_backward, unit_forward
from ._storage import as_band, as_rhs, clear_unused, matvec


class Factor(NamedTuple):
    """A factorised positive definite band. Its fields are private. A pytree: it passes through jit, vmap and scan."""

    ab: Array
    pivots: Array
    unit: Array
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
        # The factor is a constant to the linear solve: derivatives go through the product H x alone.
        pivots, unit, ok = lax.stop_gradient((self.pivots, self.unit, self.ok))

        def apply(_: object, b: Array) -> Array:
            return jnp.where(ok, unit_backward(unit, divide(unit_forward(unit, b), pivots)), jnp.nan)

        return lax.custom_linear_solve(lambda x: matvec(self.ab, x), b, apply, symmetric=True)

    def logdet(self) -> Array:
        """log det H, a scalar."""
        return jnp.where(self.ok, jnp.sum(jnp.log(self.pivots)), jnp.nan)


def factor(ab: ArrayLike) -> Factor:
    """Factorise the band `ab` `(w + 1, n)` of a positive definite H once, to solve with it many times.

    Returns: `Factor` with `.solve(b)`, `.logdet()` and `.ok`. Cost: as `cholesky`.
    """
    ab = clear_unused(as_band(ab))
    columns = ldl_columns(ab)
    pivots = columns[:, 0]
    return Factor(ab, pivots, columns[:, 1:] / pivots[:, None], first_bad_pivot(lax.stop_gradient(pivots)))


def solve(ab: ArrayLike, b: ArrayLike) -> Array:
    """x with H x = b for positive definite H.

    Args: ab `(w + 1, n)`, lower band of H; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape; NaN where H is not positive definite.
    Cost: one factorisation, n (w^2 + 3 w + 1) flops, and (4 w + 2) n per right-hand side (LAPACK `pbsv`). The
      derivative costs one more solve: with `v = solve(ab, xbar)`, `bbar = v`, and `abbar[d, j]` is
      `-(v[j + d] x[j] + v[j] x[j + d])` (once, for d = 0), summed over right-hand sides.
    """
    ab = as_band(ab)
    # The factor is taken of a constant: a gradient then factorises nothing again.
    return factor(lax.stop_gradient(ab))._replace(ab=clear_unused(ab)).solve(b)
