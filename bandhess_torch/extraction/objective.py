"""The function to differentiate: which argument, how it ravels, and what else its derivatives may flow to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..band.stages import Layout


class Objective(NamedTuple):
    """Which argument of a function is differentiated, and its layout."""

    layout: Layout
    argnums: int
    has_aux: bool | None  # None for callers without such an argument

    @classmethod
    def of(
        cls,
        fun: Callable,
        argnums: int,
        has_aux: bool | None,
        args: tuple,
        name: str | None = None,
        *,
        stage_axes: Any = 0,
        periodic: bool = False,
    ) -> Objective:
        if not callable(fun):
            raise TypeError(f"fun must be a function, got {type(fun).__name__}")
        if not -len(args) <= argnums < len(args):
            raise ValueError(f"argument {argnums} (argnums) must be given by position; got {len(args)} positional ones")
        argnums %= len(args)
        return cls(Layout.of(args[argnums], name or f"argument {argnums}", stage_axes, periodic), argnums, has_aux)

    def bind(self, fun: Callable, args: tuple, kwargs: dict) -> tuple[Callable[[Tensor], tuple[Tensor, Any]], Tensor]:
        """`(flat -> (value, aux), flat)`; the dummies of ragged leaves have zero gradient by construction."""

        def flat_fun(flat: Tensor) -> tuple[Tensor, Any]:
            out = fun(*args[: self.argnums], self.layout.unravel(flat), *args[self.argnums + 1 :], **kwargs)
            if self.has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError(f"fun must return (value, aux) with has_aux=True, got {type(out).__name__}")
                value, aux = out
            else:
                value, aux = out, None
            if isinstance(value, float):  # a constant
                value = torch.tensor(value, dtype=flat.dtype, device=flat.device)
            if not isinstance(value, Tensor):
                remedy = "return the value alone" if self.has_aux is None else "has_aux=True for a pair"
                raise TypeError(f"fun must return a scalar tensor, got {type(value).__name__}; {remedy}")
            if value.shape != () or not value.is_floating_point():
                raise TypeError(
                    f"fun must return a real scalar (shape ()), got shape {tuple(value.shape)} and dtype "
                    f"{value.dtype}; sum its terms, for example with torch.sum"
                )
            return value, aux

        return flat_fun, self.layout.ravel(args[self.argnums])


class _Method(torch.nn.Module):
    """A module's method as a module of its own."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.owner, self.method = method.__self__, method.__func__

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.method(self.owner, *args, **kwargs)


def _as_module(fun: Any) -> torch.nn.Module | None:
    """fun where it is a module, or a method of one."""
    if isinstance(fun, torch.nn.Module):
        return fun
    return _Method(fun) if isinstance(getattr(fun, "__self__", None), torch.nn.Module) else None


def parameters(fun: Any) -> dict[str, Tensor]:
    """The parameters of a module, or of the module whose method fun is, that require gradients: what a solution depends
    on besides its arguments. What another function closes over cannot be seen."""
    module = _as_module(fun)
    return {} if module is None else {name: p for name, p in module.named_parameters() if p.requires_grad}


def with_parameters(fun: Any, given: dict[str, Tensor]) -> Callable:
    """fun with those tensors in the place of its `parameters`."""
    module = _as_module(fun) if given else None
    return fun if module is None else lambda *args: torch.func.functional_call(module, given, args)
