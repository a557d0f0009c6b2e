"""Solving H x = b: the factorisation that is fastest on the platform, behind one opaque object."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _cholesky, _lapack
from ._cholesky import _batch, outer_band
from ._storage import as_band, as_index, as_rhs, clear_unused, matvec


class _Solve(torch.autograd.Function):
    """H^-1 b by a factor that is a constant: H's part in the derivative goes through the product H x."""

    @staticmethod
    def forward(ab: Tensor, cb: Tensor, b: Tensor, refine: int) -> Tensor:
        return _refined(ab, cb, b, refine) if refine else _lapack.pbtrs(cb, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ab, cb, _, ctx.refine = inputs
        ctx.save_for_backward(ab, cb, output)
        ctx.save_for_forward(ab, cb, output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, Tensor, None]:
        ab, cb, x = ctx.saved_tensors
        v = _Solve.apply(ab, cb, cotangent, ctx.refine)
        g = outer_band(v, x, ab.shape[0]) + outer_band(x, v, ab.shape[0])
        return torch.cat([-g[:1] / 2, -g[1:]]), None, v, None

    @staticmethod
    def jvp(ctx: Any, dab: Tensor, _dcb: None, db: Tensor, _refine: None) -> Tensor:
        ab, cb, x = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        return _Solve.apply(ab, cb, db if dab is None else db - matvec(dab, x), ctx.refine)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, ab: Tensor, cb: Tensor, b: Tensor, refine: int) -> tuple:
        return torch.stack([_Solve.apply(*one) for one in _batch(info, in_dims, ab, cb, b, refine)]), 0


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
        return _Solve.apply(self.ab, self.cb.detach(), as_rhs(b, self.ab), 0)

    def logdet(self) -> Tensor:
        """log det H, a scalar."""
        return _cholesky.logdet(self.cb)


def factor(ab: Tensor) -> Factor:
    """Factorise the band `ab` `(w + 1, n)` of a positive definite H once, to solve with it many times.

    Returns: `Factor` with `.solve(b)`, `.logdet()` and `.ok`. Cost: as `cholesky`.
    """
    ab = as_band(ab)
    return Factor(ab, *_cholesky.cholesky_ex(ab))


def _unit_diagonal(ab: Tensor) -> Tensor:
    """S H S with a unit diagonal, S being diagonal, in float32, whose range this spares."""
    rows, n = ab.shape
    scale = ab[0].rsqrt()
    row = torch.arange(rows, device=ab.device)[:, None] + torch.arange(n, device=ab.device)
    return (clear_unused(ab) * scale * scale[row.clamp(max=n - 1)]).float()


def _refined(ab: Tensor, cb: Tensor, b: Tensor, refine: int) -> Tensor:
    """H^-1 b by the float32 factor of the scaled H, and `refine` corrections."""
    scale = ab[0].rsqrt().reshape((-1,) + (1,) * (b.ndim - 1))

    def approximate(r: Tensor) -> Tensor:
        r = r * scale
        size = r.abs().amax(0)
        size = torch.where(size > 0, size, 1)
        return _lapack.pbtrs(cb, (r / size).float()).to(b.dtype) * size * scale

    x = approximate(b)
    for _ in range(refine):
        x = x + approximate(b - matvec(ab, x))
    return x


def solve(ab: Tensor, b: Tensor, *, refine: int = 0) -> Tensor:
    """x with H x = b for positive definite H.

    Args:
      ab: `(w + 1, n)`, lower band of H.
      b: `(n,)` or `(n, k)`.
      refine: 0, or the number of corrections to a solution by a float32 factor: the residual b - H x is formed in ab's
        dtype and solved for again. H is scaled to a unit diagonal first; if its condition number is c then, each
        correction gains a factor of about 1e7 / c, and for c above some 1e6 the factor may fail (Higham 2002,
        chapter 12). Two or three reach float64's accuracy for c up to 1e4.

    Returns: x, of b's shape.
    Raises: torch.linalg.LinAlgError, naming the leading minor, where H is not positive definite.
    Cost: one factorisation, n (w^2 + 3 w + 1) flops, and (4 w + 2) n per right-hand side (LAPACK `pbtrf`, `pbtrs`). The
      derivative costs one more solve: with `v = solve(ab, xbar)`, `bbar = v`, and `abbar[d, j]` is
      `-(v[j + d] x[j] + v[j] x[j + d])` (once, for d = 0), summed over right-hand sides.
    """
    ab = as_band(ab)
    b, refine = as_rhs(b, ab), as_index(refine, "refine")
    if refine and b.numel():
        return _Solve.apply(ab, _cholesky.cholesky(_unit_diagonal(ab.detach())), b, refine)
    return _Solve.apply(ab, _cholesky.cholesky(ab.detach()), b, 0)
