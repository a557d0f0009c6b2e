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

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..band.ring import Arrow, closed, opened
from ..band.structures import Structure, as_structure, as_vector
from ..framework.transforms import apply, differentiated, vmap_solve
from . import lapack
from .cholesky import definite, raise_minor
from .triangular import columns


class BorderedFactor(NamedTuple):
    """A factorised `Cyclic` or `Bordered`: what `factor` gives for them. Its fields are private. A pytree."""

    matrix: Structure
    band: Any  # the factor of the plain band
    solved: Tensor  # W
    schur: Tensor  # the Cholesky factor of S
    minor: Tensor  # 0, or which one of S is not positive definite

    @property
    def ok(self) -> Tensor:
        """True where H is positive definite; elsewhere `solve` and `logdet` give NaN."""
        return self.band.ok & (self.minor == 0)

    @property
    def info(self) -> Tensor:
        """int32: 0, or the order of the first leading minor that is not positive definite: of the band, or with it of
        the border's rows (of a closed band, its last)."""
        before, m = self.band.info, len(self.solved)
        return torch.where((before > 0) | (self.minor == 0), before, m + self.minor)

    def solve(self, b: Tensor) -> Tensor:
        """x with H x = b, for b `(n,)` or `(n, k)`, n being H's order."""
        b, border = as_vector(b, self.matrix), opened(self.matrix).border
        if b.numel() == 0:
            return b
        m = border.shape[1]
        U = self.band.solve(b[:m])
        if len(border):
            y = torch.cholesky_solve((b[m:] - border @ U).reshape(len(border), -1), self.schur).reshape(b[m:].shape)
            U = torch.cat([U - self.solved @ y, y])
        return torch.where(self.ok, U, torch.nan)

    def logdet(self) -> Tensor:
        """log det H, a scalar."""
        value = self.band.logdet() + 2 * self.schur.diagonal().log().sum()
        return torch.where(self.ok, value, torch.nan)


def factor(H: Structure, factor_band: Callable) -> BorderedFactor:
    """Cost: `factor_band`'s, a solve with p right-hand sides (p + w for a closed band), and 2 n p^2 flops."""
    cut = opened(H := as_structure(H))
    band = factor_band(cut.band)
    solved = band.solve(cut.border.mT)
    return BorderedFactor(H, band, solved, *_factor_schur(cut.corner - cut.border @ solved))


def solve(H: Structure, b: Tensor, solve_band: Callable, compiled: bool) -> Tensor:
    """x with H x = b: one solve of the band for [b, border^T], or where `compiled` and no derivative is asked for the
    kernel that never goes backwards with the border (kernels/border.h)."""
    cut = opened(H := as_structure(H))
    b = as_vector(b, H)
    if b.numel() == 0:
        return b
    if compiled and not differentiated(*cut, b):
        return columns(lambda b: apply(_Solve, b, *cut), b)
    return columns(lambda b: _solve_together(cut, b, solve_band), b)


class _Solve(torch.autograd.Function):
    """H^-1 b, for b `(..., n, k)`, so that a vmap is one call; it has no derivative."""

    @staticmethod
    def forward(b: Tensor, band: Tensor, border: Tensor, corner: Tensor) -> Tensor:
        return definite("solve_bordered", _by_lapack, band, border, corner, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *operands: Tensor) -> tuple:
        return vmap_solve(partial(apply, _Solve), info, in_dims, *operands)


def _solve_together(cut: Arrow, b: Tensor, solve_band: Callable) -> Tensor:
    p, m = cut.border.shape
    if not p:
        return solve_band(cut.band, b)
    both, k = solve_band(cut.band, torch.cat([b[:m], cut.border.mT], 1)), b.shape[1]  # [U, W]
    products = cut.border @ both
    L, info = _factor_schur(cut.corner - products[:, k:])
    apply(_Check, info, m)
    y = torch.cholesky_solve(b[m:] - products[:, :k], L)
    combined = both @ torch.cat([torch.eye(k, dtype=y.dtype, device=y.device), -y])  # U - W y in one pass
    return torch.cat([combined, y])


class _Check(torch.autograd.Function):
    """Raises as `cholesky` does where a minor of S fails, also inside a vmap."""

    @staticmethod
    def forward(info: Tensor, before: int) -> Tensor:
        raise_minor(torch.where(info == 0, 0, info + before))
        return info.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, minor: Tensor, before: int) -> tuple:
        return apply(_Check, minor.movedim(in_dims[0], 0), before), 0


def _factor_schur(S: Tensor) -> tuple[Tensor, Tensor]:
    """S's Cholesky factor, and which minor fails, or 0."""
    L, info = torch.linalg.cholesky_ex((S + S.mT) / 2)
    if not S.shape[-1]:
        return L, info
    infinite = ~L.detach().diagonal(dim1=-2, dim2=-1).isfinite()  # LAPACK lets it pass
    first = torch.where(infinite.any(-1), infinite.int().argmax(-1) + 1, 0)
    return L, torch.where(info == 0, first, info)


def _by_lapack(band: Tensor, border: Tensor, corner: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    n, k = band.shape[-1], b.shape[-1]
    both, info, _ = lapack.solve(band, torch.cat([b[..., :n, :], border.mT], -1))
    products = border @ both
    L, below = _factor_schur(corner - products[..., k:])
    y = torch.cholesky_solve(b[..., n:, :] - products[..., :k], L)
    x = torch.cat([both[..., :k] - both[..., k:] @ y, y], -2)
    info = torch.where((info == 0) & (below > 0), n + below, info).int()
    return torch.where(info[..., None, None] == 0, x, torch.nan), info


def inverse_corner(of: BorderedFactor) -> Tensor:
    """S^-1 `(p, p)`, the corner of H^-1: what the border's variables have among each other."""
    return torch.cholesky_solve(torch.eye(len(of.schur), dtype=of.schur.dtype, device=of.schur.device), of.schur)


def inverse(of: BorderedFactor, invert_band: Callable) -> Structure:
    """The cells of H^-1 that H has. Cost: `invert_band`'s, and (2 w + 4) n p flops (p + w for p in a closed band)."""
    cut, W = opened(of.matrix), of.solved
    Z = invert_band(of.band)
    if not len(cut.border):
        return closed(Arrow(Z, cut.border, cut.corner), of.matrix)
    corner = inverse_corner(of)
    border = -corner @ W.mT
    m = len(W)

    def update(d: int) -> Tensor:
        cells = -(border[:, d:] * W.mT[:, : max(m - d, 0)]).sum(0)
        return pad(cells, (0, m - len(cells)))

    band = Z + torch.stack([update(d) for d in range(len(Z))])
    return closed(Arrow(band, border, corner), of.matrix)
