"""Solving H x = b: the factorisation that is fastest on the platform, behind one opaque object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from bandhess_common.checks import as_index

from ..band.storage import as_band, as_rhs, clear_unused, product
from ..band.structures import Structure
from ..framework.kernels import kernel
from ..framework.transforms import apply, batch, differentiated, eager, forward_rule, undifferentiated, vmap_solve
from . import bordered, lapack, partition
from .cholesky import cholesky_ex, definite, raise_minor
from .ldl import raw_columns
from .triangular import columns, outer_band

PARTITION_EVERYWHERE = False  # private: tests set it to run CUDA's path on a CPU


def partitioned(ab: Tensor) -> bool:
    return PARTITION_EVERYWHERE or ab.is_cuda


class Way(NamedTuple):
    """How a solve goes."""

    refine: int = 0  # corrections of a float32 factor's solution
    raw: bool = False  # the factor's columns hold d, d m instead of d, m


def _substitute(parts: Sequence[Tensor], b: Tensor, raw: bool) -> Tensor:
    """x for b `(..., n, k)`; the columns of M D M^T are one tensor, the parts of a reduction are blocks."""
    if parts[0].ndim == b.ndim:
        return kernel("substitute", lapack.substitute, parts[0], b, raw=raw)
    return partition.substitute(parts, b)


class _Solve(torch.autograd.Function):
    """H^-1 b by a factor that is a constant: H's part in the derivative goes through the product H x.

    On b `(..., n, k)`, ab `(..., w + 1, n)` and the factor's parts, so that a vmap is one call.
    """

    @staticmethod
    def forward(b: Tensor, ab: Tensor, way: Way, *parts: Tensor) -> Tensor:
        return _refined(ab, parts, b, way) if way.refine else _substitute(parts, b, way.raw)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ab, ctx.way, *parts = inputs
        ctx.save_for_backward(output, ab, *parts)
        ctx.save_for_forward(output, ab, *parts)

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, ab, *parts = ctx.saved_tensors
        v = apply(_Solve, cotangent, ab, ctx.way, *parts)
        g = outer_band(v, x, ab.shape[-2]) + outer_band(x, v, ab.shape[-2])
        return v, torch.cat([-g[..., :1, :] / 2, -g[..., 1:, :]], -2), None, *[None] * len(parts)

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, db: Tensor | None, dab: Tensor | None, *_: None) -> Tensor:
        x, ab, *parts = ctx.saved_tensors
        db = torch.zeros_like(x) if db is None else db
        return apply(_Solve, db if dab is None else db - product(dab, x), ab, ctx.way, *parts)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, b: Tensor, ab: Tensor, way: Way, *parts: Tensor) -> tuple:
        dims = (*in_dims[:2], *in_dims[3:])
        return vmap_solve(lambda b, ab, *parts: apply(_Solve, b, ab, way, *parts), info, dims, b, ab, *parts)


class _Alone(torch.autograd.Function):
    """H^-1 b, for b `(..., n)` or `(..., n, k)`, without derivative: a factor would be most of what is written."""

    @staticmethod
    def forward(b: Tensor, ab: Tensor) -> Tensor:
        return definite("solve", lapack.solve, ab, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, b: Tensor, ab: Tensor) -> tuple:
        return vmap_solve(partial(apply, _Alone), info, in_dims, b, ab)


class _FactorSolve(torch.autograd.Function):
    """`(H^-1 b, factor)` in one call, each system's while it is in cache."""

    @staticmethod
    def forward(b: Tensor, ab: Tensor) -> tuple[Tensor, Tensor]:
        x, info, columns = kernel("solve", lapack.solve, ab, b)
        raise_minor(info)
        return x, columns

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        _Solve.setup_context(ctx, (*inputs, Way(), output[1]), output[0])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @eager
    def backward(ctx: Any, cotangent: Tensor, _factor: Tensor) -> tuple[Tensor | None, ...]:
        return _Solve.backward(ctx, cotangent)[:2]

    @staticmethod
    @forward_rule
    def jvp(ctx: Any, db: Tensor | None, dab: Tensor | None) -> tuple[Tensor, None]:
        return _Solve.jvp(ctx, db, dab), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, b: Tensor, ab: Tensor) -> tuple:
        if in_dims[1] is None:  # one matrix takes all right-hand sides as columns
            wide, k = b.movedim(in_dims[0], -1), ab.ndim - 1
            x, factor = apply(_FactorSolve, wide.flatten(k), ab)
            return (x.unflatten(-1, wide.shape[k:]), factor), (wide.ndim - 1, None)
        return apply(_FactorSolve, *batch(info, in_dims, b, ab)), (0, 0)


class _Check(torch.autograd.Function):
    """Raises as `cholesky` does where ok is False, also inside a vmap."""

    @staticmethod
    def forward(ok: Tensor, ab: Tensor) -> Tensor:
        if not ok.all():
            info = kernel("columns", lapack.columns, ab)[1]
            # Singular to rounding: it depends on the order of elimination which minor fails.
            raise_minor(torch.where(ok, 0, torch.where(info == 0, ab.shape[-1], info)))
        return ok.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *operands: Tensor) -> tuple:
        return apply(_Check, *batch(info, in_dims, *operands)), 0


class Factor(NamedTuple):
    """A factorised positive definite band. Its fields are private. A pytree, as every named tuple.

    >>> bool(factor(torch.tensor([[4.0, 4, 4], [1, 1, 0]])).ok)
    True
    >>> f = factor(torch.tensor([[1.0, 1, 1], [2, 2, 0]]))  # indefinite, and so is [[1, 2], [2, 1]]
    >>> bool(f.ok), int(f.info)
    (False, 2)
    """

    ab: Tensor
    parts: tuple[Tensor, ...]
    failed: Tensor  # 0, or where: in natural order its minor, in any other 1

    @property
    def ok(self) -> Tensor:
        """True where H is positive definite; elsewhere `solve` and `logdet` give NaN."""
        return self.failed == 0

    @property
    def info(self) -> Tensor:
        """int32: 0, or the order of the first leading minor that is not positive definite, as `cholesky_ex` has it."""
        natural = factored_columns(self) is not None
        return self.failed if natural else torch.where(self.ok, self.failed, cholesky_ex(self.ab.detach())[1])

    def to(self, *args: Any, **kwargs: Any) -> Factor:
        """The factor on another device or in another dtype, as `Tensor.to` takes them: nothing is factorised anew."""
        ab = self.ab.to(*args, **kwargs)
        parts = tuple(part.to(ab) if part.is_floating_point() else part.to(ab.device) for part in self.parts)
        return Factor(ab, parts, self.failed.to(ab.device))

    @eager
    def solve(self, b: Tensor) -> Tensor:
        """x with H x = b, for b `(n,)` or `(n, k)`. A reverse pass makes one more solve, and no factorisation."""
        parts = [part.detach() for part in self.parts]
        x = columns(lambda b: apply(_Solve, b, self.ab, Way(raw=True), *parts), as_rhs(b, self.ab))
        return torch.where(self.ok, x, torch.nan)

    @eager
    def logdet(self) -> Tensor:
        """log det H, a scalar."""
        partitioned = self.parts[0].ndim != self.ab.ndim
        value = partition.logdet(self.parts) if partitioned else self.parts[0][:, 0].log().sum()
        return torch.where(self.ok, value, torch.nan)


def factored_columns(factor: Factor) -> Tensor | None:
    """`(n, w + 1)`: [d, d m] of H = M D M^T, column by column; None where the factor is in other parts."""
    return None if factor.parts[0].ndim != factor.ab.ndim else factor.parts[0]


@overload
def factor(ab: Tensor) -> Factor: ...


@overload
def factor(ab: Structure) -> bordered.BorderedFactor: ...


@eager
def factor(ab: Tensor | Structure) -> Factor | bordered.BorderedFactor:
    """Factorise a positive definite H once, to solve with it many times.

    Args: ab, the band `(w + 1, n)` of H, or H as `Cyclic` or `Bordered`.

    Returns: `Factor` with `.solve(b)`, `.logdet()`, `.ok` and `.info`; for a structure an object of the same members,
      which `inverse_band` and `rcond` take, too. Cost: as `cholesky`, and a solve with p right-hand sides for a border
      of p (w for a closed band).

    >>> f = factor(torch.tensor([[4.0, 4, 4], [1, 1, 0]]))
    >>> f.solve(torch.tensor([5.0, 6, 5])).round(decimals=4)
    tensor([1., 1., 1.])
    >>> bool(f.ok), round(float(f.logdet()), 4)
    (True, 4.0254)
    """
    return bordered.factor(ab, factor_band) if isinstance(ab, Structure) else factor_band(ab)


def factor_band(ab: Tensor) -> Factor:
    """`factor` of a plain band."""
    ab = as_band(ab)
    if partitioned(ab):
        parts, ok = partition.reduce(clear_unused(ab))
        return Factor(ab, parts, (~ok).to(torch.int32))
    pairs, info = raw_columns(ab)
    return Factor(ab, (pairs,), info)


def _unit_diagonal(ab: Tensor) -> Tensor:
    """S H S with a unit diagonal, S being diagonal, in float32, whose range this spares."""
    rows, n = ab.shape
    scale = ab[0].rsqrt()
    row = torch.arange(rows, device=ab.device)[:, None] + torch.arange(n, device=ab.device)
    return (clear_unused(ab) * scale * scale[row.clamp(max=n - 1)]).float()


def _refined(ab: Tensor, parts: Sequence[Tensor], b: Tensor, way: Way) -> Tensor:
    """H^-1 b by the float32 factor of the scaled H, and `refine` corrections."""
    scale = ab[..., 0, :, None].rsqrt()

    def approximate(r: Tensor) -> Tensor:
        r = r * scale
        size = r.abs().amax(-2, keepdim=True)
        size = torch.where(size > 0, size, 1)
        return _substitute(parts, (r / size).float(), way.raw).to(b.dtype) * size * scale

    x = approximate(b)
    for _ in range(way.refine):
        x = x + approximate(b - product(ab, x))
    return x


@eager
def solve(ab: Tensor | Structure, b: Tensor, *, refine: int = 0) -> Tensor:
    """x with H x = b for positive definite H.

    Args:
      ab: `(w + 1, n)`, lower band of H; or H as `Cyclic` or `Bordered`.
      b: `(n,)` or `(n, k)`; with a border of p, `(n + p,)` or `(n + p, k)`.
      refine: 0, or the number of corrections to a solution by a float32 factor: the residual b - H x is formed in ab's
        dtype and solved for again. H is scaled to a unit diagonal first; if its condition number is c then, each
        correction gains a factor of about 1e7 / c, and for c above some 1e6 the factor may fail (Higham 2002,
        chapter 12). Two or three reach float64's accuracy for c up to 1e4.

    Returns: x, of b's shape.
    Raises: torch.linalg.LinAlgError, naming the leading minor, where H is not positive definite.
    Cost: one factorisation, n (w^2 + 3 w + 1) flops, and (4 w + 2) n per right-hand side (LAPACK `pbtrf`, `pbtrs`). A
      border of p takes (2 w + p + 6) n p more by the compiled kernels, which never substitute it backwards (about half
      of a plain solve for p = 4, w = 8); with `refine` or derivatives, and elsewhere, it counts as p right-hand sides
      and 2 n p^2. A closed band counts as a border of w. Of one large system with w <= 16 the compiled kernels hold
      56 MiB of factor at most, and eliminate the columns beyond a second time (n = 1e6, float64: a fifth of them for
      w = 8, six tenths for w = 16), which takes no longer than fresh memory. The derivative costs one more solve: with
      `v = solve(ab, xbar)`, `bbar = v`, and `abbar[d, j]` is `-(v[j + d] x[j] + v[j] x[j + d])` (once, for d = 0),
      summed over right-hand sides.

    >>> solve(torch.tensor([[4.0, 4, 4], [1, 1, 0]]), torch.tensor([5.0, 6, 5])).round(decimals=4)
    tensor([1., 1., 1.])
    """
    refine = as_index(refine, "refine")
    if isinstance(ab, Structure):
        return bordered.solve(ab, b, partial(solve, refine=refine), not refine and not partitioned(b))
    ab = as_band(ab)
    b = as_rhs(b, ab)
    refine = refine if b.numel() else 0
    if not refine and not partitioned(ab):
        if differentiated(b, ab):
            return columns(lambda b: _FactorSolve.apply(b, ab)[0], b)
        return undifferentiated(_Alone, b, ab)
    constant = factor_band(_unit_diagonal(ab.detach()) if refine else ab.detach())
    apply(_Check, constant.ok, constant.ab)
    return columns(lambda b: apply(_Solve, b, ab, Way(refine, raw=True), *constant.parts), b)
