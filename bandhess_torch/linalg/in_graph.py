"""The factorisations as operators of `torch.library`, for programs that are traced: `torch.compile(fullgraph=True)`,
`torch.export`, FakeTensorMode.

An operator is opaque to a compiler: it has shapes (`register_fake`), and a derivative made of operators, one order
deep for the factor. torch.func's transforms of such operators are unknown to torch (2.13): inside them the caller's
graph is cut. Eager calls do not come here: they have rules in both modes, and to any order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..band.storage import as_band, as_rhs
from ..framework.transforms import in_graph, transformed
from . import cholesky as _cholesky
from . import solve as _solve
from . import triangular as _triangular
from .triangular import outer_band


@torch.library.custom_op("bandhess::cholesky", mutates_args=(), schema="(Tensor ab, bool check) -> (Tensor, Tensor)")
def cholesky(ab: Tensor, check: bool) -> tuple[Tensor, Tensor]:
    """`(cb, info)`."""
    return _cholesky._Cholesky.forward(ab, check)


@cholesky.register_fake
def _(ab: Tensor, check: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(ab), ab.new_empty(ab.shape[:-2], dtype=torch.int32)


@torch.library.custom_op("bandhess::cholesky_pull", mutates_args=(), schema="(Tensor cb, Tensor cotangent) -> Tensor")
def cholesky_pull(cb: Tensor, cotangent: Tensor) -> Tensor:
    """The band's cotangent for one of the factor."""
    return _cholesky._pull(cb, cotangent).contiguous()


@cholesky_pull.register_fake
def _(cb: Tensor, cotangent: Tensor) -> Tensor:
    return torch.empty_like(cb)


@torch.library.custom_op("bandhess::solve", mutates_args=(), schema="(Tensor ab, Tensor b, int refine) -> Tensor")
def solve(ab: Tensor, b: Tensor, refine: int) -> Tensor:
    """H^-1 b, for b `(n, k)`."""
    return _solve.solve(ab, b, refine=refine).clone()


@solve.register_fake
def _(ab: Tensor, b: Tensor, refine: int) -> Tensor:
    return torch.empty_like(b)


@torch.library.custom_op(
    "bandhess::substitute", mutates_args=(), schema="(Tensor cb, Tensor b, bool transpose) -> Tensor"
)
def substitute(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
    """L^-1 b or L^-T b, for b `(n, k)`."""
    return _triangular._Substitution.forward(b, cb, transpose).clone()


@substitute.register_fake
def _(cb: Tensor, b: Tensor, transpose: bool) -> Tensor:
    return torch.empty_like(b)


def _keep_factor(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[0])


def _keep_solution(ctx: Any, inputs: tuple, output: Tensor) -> None:
    matrix, _, ctx.option = inputs
    ctx.save_for_backward(matrix, output)


def _pull_factor(ctx: Any, cotangent: Tensor, _info: Any) -> tuple[Tensor, None]:
    return cholesky_pull(ctx.saved_tensors[0], cotangent), None


def _pull_solution(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
    ab, x = ctx.saved_tensors
    v = solve(ab, cotangent, ctx.option)
    g = outer_band(v, x, ab.shape[-2]) + outer_band(x, v, ab.shape[-2])
    return torch.cat([-g[..., :1, :] / 2, -g[..., 1:, :]], -2), v, None


def _pull_substitution(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
    cb, x = ctx.saved_tensors
    gb = substitute(cb, cotangent, not ctx.option)
    u, v = (x, gb) if ctx.option else (gb, x)
    return -outer_band(u, v, cb.shape[-2]), gb, None


cholesky.register_autograd(_pull_factor, setup_context=_keep_factor)
solve.register_autograd(_pull_solution, setup_context=_keep_solution)
substitute.register_autograd(_pull_substitution, setup_context=_keep_solution)


# --- What the public functions are while a program is traced ----------------------------------------------------------


@in_graph(_cholesky.cholesky)
def traced_cholesky(ab: Tensor) -> Any:
    return NotImplemented if transformed() else cholesky(as_band(ab), True)[0]


@in_graph(_cholesky.cholesky_ex)
def traced_cholesky_ex(ab: Tensor) -> Any:
    return NotImplemented if transformed() else cholesky(as_band(ab), False)


@in_graph(_cholesky.cho_solve)
def traced_cho_solve(cb: Tensor, b: Tensor) -> Any:
    return (
        NotImplemented if transformed() else traced_solve_triangular(cb, traced_solve_triangular(cb, b), transpose=True)
    )


@in_graph(_solve.solve)
def traced_solve(ab: Any, b: Tensor, *, refine: int = 0) -> Any:
    if transformed() or not isinstance(ab, Tensor):
        return NotImplemented
    b = as_rhs(b, as_band(ab))
    return solve(ab, b, refine) if b.ndim == 2 else solve(ab, b[:, None], refine)[:, 0]


@in_graph(_triangular.solve_triangular)
def traced_solve_triangular(cb: Tensor, b: Tensor, *, transpose: bool = False) -> Any:
    if transformed():
        return NotImplemented
    b = as_rhs(b, as_band(cb, "cb", form=False))
    return substitute(cb, b, transpose) if b.ndim == 2 else substitute(cb, b[:, None], transpose)[:, 0]
