"""Derivative rules (`torch.autograd.Function`) under torch.func's transforms, and what torch.compile leaves alone.

JAX' rules are made of functions that its transforms go through by themselves.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import has_torch_function

P = ParamSpec("P")
R = TypeVar("R")


def _loaded() -> bool:
    return "torch._dynamo" in sys.modules  # which takes seconds to import


# What reads Python frames in this thread in order to compile them, if anything does. There is no public name for it.
_reader = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", _loaded)


IN_GRAPH: dict[str, Callable] = {}
"""What a function is while a program is traced, by its name: such as operators of `torch.library` (linalg/in_graph)."""


def in_graph(function: Callable) -> Callable:
    """Registers what an `eager` function is in a graph. NotImplemented as its result asks for a cut after all."""

    def register(traced: Callable) -> Callable:
        IN_GRAPH[f"{function.__module__}.{function.__qualname__}"] = traced
        return traced

    return register


_FAKE = torch._C._TorchDispatchModeKey.FAKE


def _faked() -> bool:
    """Whether tensors have shapes alone: in a FakeTensorMode."""
    return torch._C._get_dispatch_mode(_FAKE) is not None


def eager(function: Callable[P, R], traced: Any = NotImplemented) -> Callable[P, R]:
    """`function`, run as it is where torch.compile reads its caller: LAPACK's pointers and loops over values cannot
    become part of a graph. Where there is a function for it, `traced` or registered by `in_graph`, that goes in its
    place; elsewhere the caller's graph is cut there (with `fullgraph=True` that is an error).

    Backward rules carry it, too: autograd calls them while a compiled caller runs.
    """
    disabled: Callable[P, R] | None = None
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal disabled
        if torch.compiler.is_compiling():  # this very line is being read
            known = IN_GRAPH.get(name, traced)
            if known is not NotImplemented:
                found = known(*args, **kwargs)
                if found is not NotImplemented:
                    return found
            return torch.compiler.disable(function)(*args, **kwargs)
        if _faked() and IN_GRAPH.get(name, traced) is not NotImplemented:
            return IN_GRAPH.get(name, traced)(*args, **kwargs)
        if not _reader():
            return function(*args, **kwargs)
        if disabled is None:  # this is run, but what it calls would be read
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return run


def transformed() -> bool:
    """True inside torch.func's transforms and forward mode, whose tensors plain autograd does not know."""
    # The question torch asks itself in autograd.Function.apply; there is no public name for it.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def recorded(*operands: Any) -> bool:
    """True where autograd or a transform looks on: a derivative rule is needed."""
    if transformed():
        return True
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in operands)


_VMAP = torch._C._functorch.TransformType.Vmap.value  # a number: to compare members takes four times as long


def differentiated(*operands: Tensor) -> bool:
    """True where a derivative of what is made of operands may be asked for: `recorded`, less vmap."""
    if forward_ad._current_level >= 0:
        return True
    for level in torch._C._functorch.get_interpreter_stack() or ():
        if level.key().value != _VMAP:
            return True
    if torch.is_grad_enabled():
        for t in operands:  # not any(): a generator takes as long as the questions
            if _lanes(t).requires_grad:
                return True
    return False


def _lanes(t: Tensor) -> Tensor:
    """The whole tensor of which vmap shows one lane."""
    while torch._C._functorch.is_batchedtensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return t


class Lanes(NamedTuple):
    """What a Function's rule for vmap is told."""

    level: Any

    @property
    def batch_size(self) -> int:
        return _LEVELS.CVmapInterpreterPtr(self.level).batchSize()


_LEVELS: Any = torch._C._functorch
# What takes a level of vmap off. There are no public names; torch has had these, unchanged, since 2.6 and before.
_STEPS = ("pop_dynamic_layer_stack", "push_dynamic_layer_stack", "_unwrap_batched", "_add_batch_dim", "unwrap_if_dead")
_KNOWN = all(hasattr(_LEVELS, name) for name in _STEPS)


def apply(function: Any, *operands: Any) -> Any:
    """`function.apply(*operands)`, by less where nothing asks for all of it: outside transforms its forward alone,
    which saves some 30 us; in a vmap that nothing differentiates its rule for vmap, which saves 0.15 ms."""
    if differentiated(*(t for t in operands if isinstance(t, Tensor))):
        return function.apply(*operands)
    return undifferentiated(function, *operands)


def undifferentiated(function: Any, *operands: Any) -> Any:
    """The same for operands that are known not to be `differentiated`."""
    if not torch._C._are_functorch_transforms_active():
        return function.forward(*operands)
    if not _KNOWN or torch.compiler.is_compiling() or has_torch_function(operands):
        return function.apply(*operands)
    return _in_lanes(function, operands)


def _in_lanes(function: Any, operands: tuple) -> Any:
    """What `function.apply(*operands)` does in a vmap: the function's rule, one level further down."""
    inner = _LEVELS.peek_interpreter_stack()
    level = inner.level()
    whole, dims = zip(
        *[
            _LEVELS._unwrap_batched(_LEVELS.unwrap_if_dead(t), level) if isinstance(t, Tensor) else (t, None)
            for t in operands
        ],
        strict=True,
    )
    layer = _LEVELS.pop_dynamic_layer_stack()
    try:
        if dims.count(None) == len(dims):  # lanes of another level, or none
            return apply(function, *whole)
        out, out_dims = function.vmap(Lanes(inner), dims, *whole)
    finally:
        _LEVELS.push_dynamic_layer_stack(layer)
    if isinstance(out, Tensor):
        return _lane(out, out_dims, level)
    out_dims = out_dims if isinstance(out_dims, tuple) else (out_dims,) * len(out)
    return tuple(_lane(t, dim, level) for t, dim in zip(out, out_dims, strict=True))


def _lane(t: Tensor, dim: int | None, level: int) -> Tensor:
    return t if dim is None else _LEVELS._add_batch_dim(t, dim, level)


class _Primals:
    """An autograd.Function's context whose saved tensors have no tangents of the level at hand."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return tuple(map(_primal, self.ctx.saved_tensors))


def _primal(t: Any) -> Any:
    moving = isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())
    return forward_ad.unpack_dual(t, level=0).primal if moving else t


def forward_rule(jvp: Callable) -> Callable:
    """A `jvp` whose own derivative in forward mode is right, to any order.

    PyTorch (2.13) runs a jvp with forward mode switched off, and so drops, without a word, the tangents that its
    operands have at outer levels: `jacfwd(jacfwd(f))` would be 0 or wrong. Here forward mode stays on, and the tangents
    of the level at hand, which the rule is there to replace, are taken off first.
    """

    @functools.wraps(jvp)
    def rule(ctx: Any, *tangents: Any) -> Any:
        if not torch._C._are_functorch_transforms_active():  # plain forward mode has one level
            return jvp(ctx, *tangents)
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(_Primals(ctx), *map(_primal, tangents))

    return rule


def resolved(t: Tensor) -> Tensor:
    """t with its values in memory, which LAPACK and NumPy read: torch negates and conjugates lazily."""
    return t.resolve_conj().resolve_neg()


def batch(info: Any, in_dims: tuple, *operands: Tensor) -> tuple[Tensor, ...]:
    """The operands of a vmap with the batch in front of all of them."""
    return tuple(
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0) if dim else t
        for t, dim in zip(operands, in_dims, strict=True)
    )


def vmap_solve(solve: Callable[..., Tensor], info: Any, in_dims: tuple, b: Tensor, *matrix: Tensor) -> tuple:
    """The vmap of `solve(b, *matrix)`, for b `(..., n)` or `(..., n, k)`: one matrix takes all right-hand sides as
    columns."""
    if in_dims[1:].count(None) == len(matrix):
        wide, k = b.movedim(in_dims[0], -1), matrix[0].ndim - 1
        return solve(wide.flatten(k), *matrix).unflatten(-1, wide.shape[k:]), wide.ndim - 1
    return solve(*batch(info, in_dims, b, *matrix)), 0
