"""Solving H x = b: the factorisation that is fastest on the platform, behind one opaque object."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _cholesky, _lapack
from ._cholesky import _batch, outer_band
from ._storage import as_band, as_rhs, matvec


class _Solve(torch.autograd.Function):
    """H^-1 b by a factor that is a constant: H's part in the derivative goes through the product H x."""

    @staticmethod
    def forward(ab: Tensor, cb: Tensor, b: Tensor) -> Tensor:
        return _lapack.pbtrs(cb, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ab, cb, _ = inputs
        ctx.save_for_backward(ab, cb, output)
        ctx.save_for_forward(ab, cb, output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, Tensor]:
        ab, cb, x = ctx.saved_tensors
        v = _Solve.apply(ab, cb, cotangent)
        g = outer_band(v, x, ab.shape[0]) + outer_band(x, v, ab.shape[0])
        return torch.cat([-g[:1] / 2, -g[1:]]), None, v

    @staticmethod
    def jvp(ctx: Any, dab: Tensor, _dcb: None, db: Tensor) -> Tensor:
        ab, cb, x = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        return _Solve.apply(ab, cb, db if dab is None else db - matvec(dab, x))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, cb: Tensor, b: Tensor) -> tuple:
        return torch.stack([_Solve.apply(*one) for one in _batch(info, in_dims, ab, cb, b)]), 0


class Factor(NamedTuple):
    """A factorised positive definite band. Its fields are private. A pytree, as every named tuple."""

    ab: Tensor
    cb: Tensor
    info: Tensor

    @property
    def ok(self) -> Tensor:
        """True where H is positive definite; elsewhere `solve` and `logdet` give NaN."""
        return self.info == 0

    def solve(self, b: Tensor) -> Tensor:
        """x with H x = b, for b `(n,)` or `(n, k)`. A reverse pass makes one more solve, and no factorisation."""
        return _Solve.apply(self.ab, self.cb.detach(), as_rhs(b, self.ab))

    def logdet(self) -> Tensor:
        """log det H, a scalar."""
        return _cholesky.logdet(self.cb)


def factor(ab: Tensor) -> Factor:
    """Factorise the band `ab` `(w + 1, n)` of a positive definite H once, to solve with it many times.

    Returns: `Factor` with `.solve(b)`, `.logdet()` and `.ok`. Cost: as `cholesky`.
    """
    ab = as_band(ab)
    return Factor(ab, *_cholesky.cholesky_ex(ab))


def solve(ab: Tensor, b: Tensor) -> Tensor:
    """x with H x = b for positive definite H.

    Args: ab `(w + 1, n)`, lower band of H; b `(n,)` or `(n, k)`.
    Returns: x, of b's shape.
    Raises: torch.linalg.LinAlgError, naming the leading minor, where H is not positive definite.
    Cost: one factorisation, n (w^2 + 3 w + 1) flops, and (4 w + 2) n per right-hand side (LAPACK `pbtrf`, `pbtrs`). The
      derivative costs one more solve: with `v = solve(ab, xbar)`, `bbar = v`, and `abbar[d, j]` is
      `-(v[j + d] x[j] + v[j] x[j + d])` (once, for d = 0), summed over right-hand sides.
    """
    ab = as_band(ab)
    b = as_rhs(b, ab)
    return _Solve.apply(ab, _cholesky.cholesky(ab.detach()), b)
