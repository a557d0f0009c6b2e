"""Derivative rules (`torch.autograd.Function`) under torch.func's transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def transformed() -> bool:
    """True inside torch.func's transforms and forward mode, whose tensors plain autograd does not know."""
    # The question torch asks itself in autograd.Function.apply; there is no public name for it.
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def check_recorded() -> None:
    """An error inside torch.inference_mode, where every derivative would come out as 0."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode records nothing to differentiate; use torch.no_grad instead")


def apply(function: Any, *operands: Any) -> Any:
    """`function.apply(*operands)`, or its forward alone where nothing asks for more: apply costs some 30 us."""
    if transformed() or (torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in operands)):
        return function.apply(*operands)
    return function.forward(*operands)


def batch(info: Any, in_dims: tuple, *operands: Tensor) -> tuple[Tensor, ...]:
    """The operands of a vmap with the batch in front of all of them."""
    return tuple(
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(operands, in_dims, strict=True)
    )


def vmap_solve(solve: Callable[..., Tensor], info: Any, in_dims: tuple, b: Tensor, *matrix: Tensor) -> tuple:
    """The vmap of `solve(b, *matrix)`: one matrix takes all right-hand sides as columns."""
    if all(dim is None for dim in in_dims[1:]):
        wide = b.movedim(in_dims[0], -1)
        x = solve(wide.flatten(-2), *matrix).unflatten(-1, wide.shape[-2:])
        return x, x.ndim - 1
    return solve(*batch(info, in_dims, b, *matrix)), 0
