"""Selected eigenpairs of a Hermitian band by inertia.

H - s I = M D M^H has as many negative pivots as H has eigenvalues below s (Sylvester), so each wanted one is enclosed
by counting at shifts, several at once. A shift at which the pivots grow so that rounding may change the count tells
nothing and is passed over: the next pass has others. Vectors follow by inverse iteration with pivoting at the
enclosed values, and a Rayleigh-Ritz step makes them orthonormal, in clusters too, and the values accurate to
rounding. (Parlett 1998, chapters 3 and 11; LAPACK's stebz and stein for tridiagonal matrices.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bandhess_common.eigen import NEAR, PASSES, PHASE, ROUNDS, SECTIONS

from ..band.noise import hash_noise
from ..band.storage import clear_unused, transposed
from ..framework.kernels import kernel
from ..framework.transforms import eager
from ..linalg.ldl import _by_columns
from ..linalg.lu import solve_general
from ..linalg.triangular import outer_band
from .forms import conj, real_band


def product(ab: Tensor, x: Tensor) -> Tensor:
    """H x for a Hermitian lower band `(w + 1, n)` and x `(n, m)`."""
    n, y = len(x), (ab[0].real if ab.is_complex() else ab[0])[:, None] * x
    for d in range(1, min(len(ab), n)):
        cells = ab[d, : n - d, None]
        y[d:] += cells * x[: n - d]
        y[: n - d] += conj(cells) * x[d:]
    return y


def radius(ab: Tensor) -> Tensor:
    """The largest row sum of |H|, a bound of |eigenvalues|, of a lower band without unused cells."""
    sizes, n = ab.abs(), ab.shape[1]
    sums = sizes.sum(0)
    for d in range(1, min(len(ab), n)):
        sums[d:] += sizes[d, : n - d]
    return sums.max()


def count_below(ab: Tensor, shifts: Tensor) -> Tensor:
    """How many eigenvalues of H, |H| about 1, are below each shift `(m,)`; -1 where element growth makes the count
    doubtful."""
    pair = 2 if ab.is_complex() else 1
    real = real_band(ab) if pair == 2 else ab
    shifted = real.expand(len(shifts), *real.shape).clone()
    shifted[:, 0] -= shifts[:, None]
    columns = kernel("columns", _by_columns, shifted, results=1)
    pivots, below = columns[..., 0], columns[..., 1:]
    growth = (below**2 / pivots.abs()[..., None]).flatten(1)
    growth = growth.amax(1) if growth.shape[1] else torch.zeros_like(shifts)
    # The pivots of a tridiagonal matrix are those of one a rounding away, whatever they are (Demmel 1997, lemma 5.3).
    limit = torch.inf if len(real) <= 2 else torch.finfo(real.dtype).eps ** -0.5
    trusted = pivots.isfinite().all(1) & (growth < limit)
    return torch.where(trusted, (pivots < 0).sum(1) // pair, -1)


class Count(torch.autograd.Function):
    """`count_below` for callers that differentiate: not differentiable."""

    @staticmethod
    def forward(ab: Tensor, shifts: Tensor) -> Tensor:
        return count_below(ab, shifts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)


def enclose(ab: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """`(low, high)`, `(count,)` each: brackets of the eigenvalues of H, |H| at most 1, from the first-th on."""
    dtype = ab.real.dtype if ab.is_complex() else ab.dtype
    options: dict[str, Any] = {"dtype": dtype, "device": ab.device}
    wanted = first + torch.arange(count, device=ab.device)[:, None]
    low, high = torch.full((count,), -1.01, **options), torch.full((count,), 1.02, **options)
    for turn in range(PASSES[str(dtype).removeprefix("torch.")]):
        phase = 0.25 + 0.5 * ((turn + 1) * PHASE % 1)
        shifts = low[:, None] + (high - low)[:, None] * ((torch.arange(SECTIONS, **options) + phase) / SECTIONS)
        below = count_below(ab, shifts.flatten()).reshape(shifts.shape)
        high = torch.minimum(high, torch.where(below > wanted, shifts, torch.inf).amin(1))
        known = (below >= 0) & (below <= wanted) & (shifts < high[:, None])
        low = torch.maximum(low, torch.where(known, shifts, -torch.inf).amax(1))
    return low, high


def shifted_solve(ab: Tensor, shifts: Tensor, b: Tensor) -> Tensor:
    """Column k of the result is (H - shifts[k] I)^-1 b[:, k]."""
    w = len(ab) - 1
    general = torch.cat([conj(transposed(ab, w))[:-1], ab])

    def one(shift: Tensor, b: Tensor) -> Tensor:
        return solve_general(torch.cat([general[:w], general[w : w + 1] - shift, general[w + 1 :]]), b, w, w)

    return torch.func.vmap(one, (0, 1), 1)(shifts, b)


def ritz(ab: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """`(values, vectors)` from approximations of the values."""
    n, m = ab.shape[1], len(values)
    near = values + NEAR * torch.finfo(ab.dtype).eps
    x = hash_noise(values.new_zeros(n * m), 1).reshape(n, m).to(ab.dtype)
    for _ in range(ROUNDS):
        x = shifted_solve(ab, near, x)
        x = torch.linalg.qr(x / x.abs().amax(0))[0]
    found, rotation = torch.linalg.eigh(x.mH @ product(ab, x))
    return found, x @ rotation


class _Eigenpairs(torch.autograd.Function):
    @staticmethod
    def forward(ab: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
        size = radius(ab)
        if not size.isfinite():
            return ab.real.new_full((count,), torch.nan), ab.new_full((ab.shape[1], count), torch.nan)
        scaled = ab / torch.where(size > 0, size, 1)
        low, high = enclose(scaled, first, count)
        middle = low + (high - low) / 2
        values, vectors = ritz(scaled, middle)
        close = (values - middle).abs() <= torch.finfo(ab.dtype).eps ** 0.5
        return torch.where(close, values * size, torch.nan), torch.where(close, vectors, torch.nan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    @eager
    @once_differentiable
    def backward(ctx: Any, to_values: Tensor, to_vectors: Tensor) -> tuple:
        ab, values, vectors = ctx.saved_tensors
        gaps = (values[None, :] - values[:, None]).fill_diagonal_(torch.inf)
        inside = vectors @ ((vectors.mH @ to_vectors) / gaps)
        u = inside + vectors * to_values - _beyond(ab, values, vectors, to_vectors)
        g = outer_band(u, conj(vectors), len(ab)) + outer_band(vectors, conj(u), len(ab))
        return torch.cat([g[:1] / 2, g[1:]]), None, None


def _beyond(ab: Tensor, values: Tensor, vectors: Tensor, b: Tensor) -> Tensor:
    """Column k is P (H - values[k] I)^-1 P b[:, k], P being the projector beside the vectors; corrected once."""

    def aside(x: Tensor) -> Tensor:
        return x - vectors @ (vectors.mH @ x)

    shifts, y = values + NEAR * torch.finfo(ab.dtype).eps * radius(ab), aside(b)
    x = aside(shifted_solve(ab, shifts, y))
    return aside(x + shifted_solve(ab, shifts, y - aside(product(ab, x) - values * x)))


@eager
def eigenpairs(ab: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """`(values (count,), vectors (n, count))` of a Hermitian lower band `(w + 1, n)`, in ascending order from the
    first-th on. NaN where H is not finite, or rounding leaves the counts without an answer.

    Cost: 20 (float32: 10) passes of 8 count factorisations, 3 count LU factorisations, and some 20 n count^2 flops.
    """
    values, vectors = _Eigenpairs.apply(clear_unused(ab), first, count)
    return values, vectors
