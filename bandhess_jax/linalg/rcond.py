"""How near to singular H is: the condition number in the 1-norm, estimated from the factor.

|H^-1|_1 = max over |x|_1 = 1 of |H^-1 x|_1, a convex function that is largest at a unit vector: climb from unit vector
to unit vector along its gradient H^-1 sign(H^-1 x) (Hager 1984; Higham 1988, ACM TOMS 14, 381, whose alternating vector
guards against a poor local maximum; LAPACK `lacn2`, `pbcon`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..band.storage import as_band, clear_unused
from ..band.structures import Structure, as_matrix, diagonal, row_sums
from .bordered import BorderedFactor
from .cholesky import cho_solve


def rcond(cb: ArrayLike | BorderedFactor, ab: ArrayLike | Structure) -> Array:
    """1 / (|H|_1 |H^-1|_1) of a positive definite H, estimated: near 1 is good, near eps is singular to rounding.

    Args: cb `(w + 1, n)` from `cholesky`; ab `(w + 1, n)`, the band of H itself, for its norm. For an H that is
      `Cyclic` or `Bordered`, `factor(H)` and H.

    Returns: a scalar. |H^-1|_1 is estimated from below, seldom by more than a factor of 3, so the result is rarely
      above 3 times the truth, and below it by rounding only. 1 for n = 0; NaN where cb is (H not positive definite).

    Cost: 5 to 11 solves with the factor. Not differentiable: its gradient is zero.

    >>> ab = jnp.array([[1.0, 1, 0.5], [0, 0, 0]])
    >>> round(float(rcond(cholesky(ab), ab)), 4)
    0.5
    """
    if isinstance(ab, Structure) or isinstance(cb, BorderedFactor):
        if not (isinstance(ab, Structure) and isinstance(cb, BorderedFactor)):
            raise TypeError(
                f"for a structure cb must be factor(ab), got cb {type(cb).__name__} and ab {type(ab).__name__}"
            )
        factored, H = lax.stop_gradient((cb, as_matrix(ab)))
        return _rcond(H, factored.solve)
    cb, ab = clear_unused(as_band(cb, "cb", form=False)), clear_unused(as_band(ab))
    if cb.shape != ab.shape or cb.dtype != ab.dtype:
        raise ValueError(
            f"cb and ab must have one shape and dtype, got {cb.shape} {cb.dtype} and {ab.shape} {ab.dtype}; "
            "pass cb = cholesky(ab)"
        )
    cb, ab = lax.stop_gradient((cb, ab))
    return _rcond(ab, partial(cho_solve, cb))


def _rcond(H: Array | Structure, solve: Callable) -> Array:
    main = diagonal(H)
    if not main.size:
        return jnp.ones((), main.dtype)
    return 1 / _inverse_norm(solve, main) / jnp.max(row_sums(H))


def _inverse_norm(solve: Callable, like: Array) -> Array:
    """|H^-1|_1 from solves with H, which is of like's size and dtype."""
    n, dtype = like.shape[0], like.dtype
    i = jnp.arange(n)
    alternating = jnp.where(i % 2 == 0, 1, -1) * (1 + i / max(n - 1, 1))
    starts = solve(jnp.stack([jnp.full(n, 1 / n), alternating], axis=1).astype(dtype))
    estimate, other = jnp.sum(jnp.abs(starts), axis=0)
    other = other * 2 / (3 * n)

    def uphill(sign: Array) -> tuple[Array, Array]:
        """The unit vector to try next, and the gradient there."""
        gradient = solve(sign)
        j = jnp.argmax(jnp.abs(gradient))
        return j, gradient

    def climb(state: tuple) -> tuple:
        estimate, sign, j, turn, _ = state
        v = solve((i == j).astype(dtype))
        value, new_sign = jnp.sum(jnp.abs(v)), _sign(v)
        new_j, gradient = uphill(new_sign)
        better = (value > estimate) & jnp.any(new_sign != sign) & (gradient[j] != jnp.abs(gradient[new_j]))
        return jnp.maximum(estimate, value), new_sign, new_j, turn + 1, better

    sign = _sign(starts[:, 0])
    state = (estimate, sign, uphill(sign)[0], 1, jnp.bool_(n > 1))
    estimate = lax.while_loop(lambda state: state[-1] & (state[-2] < 5), climb, state)[0]
    return jnp.where(other > estimate, other, estimate)


def _sign(v: Array) -> Array:
    return jnp.where(v > 0, 1, -1).astype(v.dtype)
