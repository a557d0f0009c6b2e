"""How near to singular H is: the condition number in the 1-norm, estimated from the factor.

|H^-1|_1 = max over |x|_1 = 1 of |H^-1 x|_1, a convex function that is largest at a unit vector: climb from unit vector
to unit vector along its gradient H^-1 sign(H^-1 x) (Hager 1984; Higham 1988, ACM TOMS 14, 381, whose alternating vector
guards against a poor local maximum; LAPACK `lacn2`, `pbcon`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from ..band.storage import as_band, clear_unused
from ..band.structures import Structure, as_matrix, diagonal, row_sums
from ..framework.transforms import eager
from .bordered import BorderedFactor
from .cholesky import cho_solve


@eager
def rcond(cb: Tensor | BorderedFactor, ab: Tensor | Structure) -> Tensor:
    """1 / (|H|_1 |H^-1|_1) of a positive definite H, estimated: near 1 is good, near eps is singular to rounding.

    Args: cb `(w + 1, n)` from `cholesky`; ab `(w + 1, n)`, the band of H itself, for its norm. For an H that is
      `Cyclic` or `Bordered`, `factor(H)` and H.

    Returns: a scalar. |H^-1|_1 is estimated from below, seldom by more than a factor of 3, so the result is rarely
      above 3 times the truth, and below it by rounding only. 1 for n = 0; NaN where cb is (H not positive definite).

    Cost: 11 solves with the factor. Not differentiable: it has no gradient.

    >>> ab = torch.tensor([[1.0, 1, 0.5], [0, 0, 0]])
    >>> round(float(rcond(cholesky(ab), ab)), 4)
    0.5
    """
    if isinstance(ab, Structure) or isinstance(cb, BorderedFactor):
        if not (isinstance(ab, Structure) and isinstance(cb, BorderedFactor)):
            raise TypeError(
                f"for a structure cb must be factor(ab), got cb {type(cb).__name__} and ab {type(ab).__name__}"
            )
        factored, H = pytree.tree_map(torch.detach, (cb, as_matrix(ab)))
        return _rcond(H, factored.solve)
    cb, ab = clear_unused(as_band(cb, "cb", form=False)).detach(), clear_unused(as_band(ab)).detach()
    if cb.shape != ab.shape or cb.dtype != ab.dtype:
        raise ValueError(
            f"cb and ab must have one shape and dtype, got {tuple(cb.shape)} {cb.dtype} and {tuple(ab.shape)} "
            f"{ab.dtype}; pass cb = cholesky(ab)"
        )
    return _rcond(ab, partial(cho_solve, cb))


def _rcond(H: Tensor | Structure, solve: Callable) -> Tensor:
    main = diagonal(H)
    if not len(main):
        return torch.ones_like(main).prod()
    return 1 / _inverse_norm(solve, main) / row_sums(H).amax()


def _inverse_norm(solve: Callable, like: Tensor) -> Tensor:
    """|H^-1|_1 from solves with H, which is of like's size and dtype."""
    n = len(like)
    i = torch.arange(n, device=like.device)
    alternating = torch.where(i % 2 == 0, 1, -1) * (1 + i.to(like.dtype) / max(n - 1, 1))
    starts = solve(torch.stack([torch.full_like(alternating, 1 / n), alternating], 1))
    estimate, other = starts.abs().sum(0).unbind()
    other = other * 2 / (3 * n)

    sign = _sign(starts[:, 0])
    j = solve(sign).abs().argmax()
    climbing = torch.full_like(estimate, n > 1, dtype=torch.bool)
    for _ in range(4):  # a fixed count, for vmap: lanes that have arrived stay where they are
        v = solve((i == j).to(like.dtype))
        value, new_sign = v.abs().sum(), _sign(v)
        gradient = solve(new_sign).abs()
        better = (value > estimate) & (new_sign != sign).any()
        estimate = torch.where(climbing, torch.maximum(estimate, value), estimate)
        sign, new_j = new_sign, gradient.argmax()
        climbing = climbing & better & (gradient[j] != gradient[new_j])
        j = new_j
    return torch.where(other > estimate, other, estimate)


def _sign(v: Tensor) -> Tensor:
    return torch.where(v > 0, 1, -1).to(v.dtype)
