"""Solving with a border: the band's own factor, and that of a small Schur complement.

    [band    border^T] [x]   [f]        U = band^-1 f,  W = band^-1 border^T,  S = corner - border W
    [border  corner  ] [y] = [g]        S y = g - border U,  x = U - W y

S is p x p, and H is positive definite exactly where the band and S are (Schur; Haynsworth 1968); log det H is the sum
of theirs. Of the inverse,

    Z = [band^-1 + W S^-1 W^T   -W S^-1]
        [      -S^-1 W^T           S^-1]

the band, the border and the corner are formed. A solution alone needs no W: the compiled kernel takes S from half a
substitution (`kernels/border.h`). A factor keeps W, for solutions to come at one right-hand side each.

A closed band is one with its last w rows for a border (`band/ring`). How the band is solved with is not known here: the
band's own functions are arguments. Derivatives go through them, by their rules; so a reverse pass factorises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import Array, lax
from jax.typing import ArrayLike

from ..band.ring import Arrow, closed, opened
from ..band.storage import from_dense
from ..band.structures import Cyclic, Structure, as_structure, as_vector, dot, matvec
from ..framework.kernels import kernel
from .cholesky import cholesky_ex


class BorderedFactor(NamedTuple):
    """A factorised `Cyclic` or `Bordered`: what `factor` gives for them. Its fields are private. A pytree."""

    matrix: Structure
    band: Any  # the factor of the plain band
    solved: Array  # W
    schur: Array  # the Cholesky factor of S, NaN where S is not positive definite

    @property
    def ok(self) -> Array:
        """True where H is positive definite; elsewhere `solve` and `logdet` give NaN."""
        return self.band.ok & jnp.isfinite(self.schur).all()

    @property
    def info(self) -> Array:
        """int32: 0, or the order of the first leading minor that is not positive definite: of the band, or with it of
        the border's rows (of a closed band, its last)."""
        before, (m, p) = self.band.info, self.solved.shape
        minor = _first_failure(*lax.stop_gradient((self.matrix, self.solved))) if p else 0
        return jnp.where((before > 0) | (minor == 0), before, m + minor)

    def solve(self, b: ArrayLike) -> Array:
        """x with H x = b, for b `(n,)` or `(n, k)`, n being H's order."""
        b = as_vector(b, self.matrix)
        if b.size == 0:
            return b
        # The factor is a constant to the linear solve: derivatives go through the product H x alone.
        fixed = lax.stop_gradient(self)
        border = opened(fixed.matrix).border
        m = border.shape[1]

        def apply(_: object, b: Array) -> Array:
            return _eliminate(border, fixed.schur, fixed.solved, fixed.band.solve(b[:m]), b[m:])

        return lax.custom_linear_solve(lambda x: _product(self.matrix, x), b, apply, symmetric=True)

    def logdet(self) -> Array:
        """log det H, a scalar."""
        return self.band.logdet() + 2 * jnp.sum(jnp.log(jnp.diagonal(self.schur)))


def _product(H: Structure, x: Array) -> Array:
    """H x, for derivatives: an entry of the corner and its mirror image share theirs."""
    if not isinstance(H, Cyclic):
        H = H._replace(corner=(H.corner + H.corner.T) / 2)
    return matvec(H, x)


def factor(H: Structure, factor_band: Callable) -> BorderedFactor:
    """Cost: `factor_band`'s, a solve with p right-hand sides (p + w for a closed band), and 2 n p^2 flops."""
    cut = opened(H := as_structure(H))
    band = factor_band(cut.band)
    solved = band.solve(cut.border.T)
    return BorderedFactor(H, band, solved, _factor_schur(cut, solved))


def solve(H: Structure, b: ArrayLike, solve_band: Callable, factor_band: Callable, compiled: bool) -> Array:
    """x with H x = b: one solve of the band for [b, border^T], or where `compiled` and on a CPU the kernel that never
    goes backwards with the border (kernels/border.h). Where it is differentiated, one factor of the band serves the
    derivatives, too."""
    b = as_vector(b, H := as_structure(H))
    together = partial(_solve_together, solve_band)
    if compiled:
        together = partial(kernel, "solve_bordered", together)
    return _solve(together, factor_band, H, b) if b.size else b


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solve(together: Callable, factor_band: Callable, H: Structure, b: Array) -> Array:
    # What is linear in b alone can be transposed; W, solved for beside it, would be taken for a part of b.
    apply = lambda _, b: together(*opened(H), b)  # noqa: E731
    return lax.custom_linear_solve(lambda x: _product(H, x), b, apply, symmetric=True)


@_solve.defjvp
def _solve_jvp(together: Callable, factor_band: Callable, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (H, b), (dH, db) = primals, tangents
    factored = factor(lax.stop_gradient(H), factor_band)._replace(matrix=H)
    x = factored.solve(b)
    return x, factored.solve(db - _product(dH, x))


def _solve_together(solve_band: Callable, band: Array, border: Array, corner: Array, b: Array) -> Array:
    p, m = border.shape
    columns = jnp.concatenate([b.reshape(b.shape[0], -1)[:m], border.T], axis=1)
    both = solve_band(band, columns)
    k = columns.shape[1] - p
    solved = both[:, k:]
    schur = _factor_schur(Arrow(band, border, corner), solved)
    return _eliminate(border, schur, solved, both[:, :k].reshape(b[:m].shape), b[m:])


def _schur(cut: Arrow, solved: Array) -> Array:
    return cut.corner - dot(cut.border, solved)


@jax.jit
def _first_failure(H: Structure, solved: Array) -> Array:
    """0, or the order of the first leading minor of S that is not positive definite."""
    S = _schur(opened(H), solved)
    return cholesky_ex(from_dense((S + S.T) / 2, S.shape[0] - 1))[1]


def _factor_schur(cut: Arrow, solved: Array) -> Array:
    S = _schur(cut, solved)
    if not S.size:
        return S
    L = jnp.linalg.cholesky(S)  # of the mean of S and S^T
    return jnp.where(jnp.isfinite(L).all(), L, jnp.nan)


def _eliminate(border: Array, schur: Array, solved: Array, U: Array, g: Array) -> Array:
    if not border.shape[0]:
        return U
    y = jax.scipy.linalg.cho_solve((schur, True), g - dot(border, U))
    return jnp.concatenate([U - dot(solved, y), y])


def inverse_corner(of: BorderedFactor) -> Array:
    """S^-1 `(p, p)`, the corner of H^-1: what the border's variables have among each other."""
    return jax.scipy.linalg.cho_solve((of.schur, True), jnp.eye(len(of.schur), dtype=of.schur.dtype))


def inverse(of: BorderedFactor, invert_band: Callable) -> Structure:
    """The cells of H^-1 that H has. Cost: `invert_band`'s, and (2 w + 4) n p flops (p + w for p in a closed band)."""
    cut, W = opened(of.matrix), of.solved
    Z = invert_band(of.band)
    if not cut.border.shape[0]:
        return closed(Arrow(Z, cut.border, cut.corner), of.matrix)
    corner = inverse_corner(of)
    border = -dot(corner, W.T)
    m = W.shape[0]

    def update(d: int) -> Array:
        cells = -jnp.sum(border[:, d:] * W.T[:, : max(m - d, 0)], axis=0)
        return jnp.pad(cells, (0, m - cells.shape[0]))

    band = Z + jnp.stack([update(d) for d in range(Z.shape[0])])
    return closed(Arrow(band, border, corner), of.matrix)
