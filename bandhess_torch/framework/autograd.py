"""How autograd records a function, and how what it recorded is read and pulled back through.

In JAX the same is read from jaxprs (`framework/programs`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction


def check_recorded() -> None:
    """An error inside torch.inference_mode, where every derivative would come out as 0."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode records nothing to differentiate; use torch.no_grad instead")


def nodes(root: Any) -> Iterator[tuple[Any, tuple]]:
    """The nodes of an autograd graph, each with its edges."""
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        following = node.next_functions
        yield node, following
        for other, _ in following:
            if other is not None and other not in seen:
                seen.add(other)
                waiting.append(other)


def reaches_others(value: Tensor, x: Tensor) -> bool:
    """True where the graph of value ends in a leaf other than x: a module's parameter, an argument with a gradient."""
    if value.grad_fn is None:
        return True
    return any(not following and getattr(node, "variable", x) is not x for node, following in nodes(value.grad_fn))


def user_defined(node: Any) -> bool:
    """Whether the node's backward is the user's own (`torch.autograd.Function`)."""
    return isinstance(node, BackwardCFunction)


class Pullback:
    """v -> H v, through the gradient's graph. Attached, it may be differentiated in its turn."""

    def __init__(self, value: Tensor, grad: Tensor, x: Tensor, attached: bool) -> None:
        self.root, self.grad, self.x, self.attached = value.grad_fn, grad, x, attached

    def largest(self) -> int:
        """Numbers in the largest tensor on the way from x to the function's value."""
        shapes = [m.shape for node, _ in nodes(self.root) for m in getattr(node, "_input_metadata", ())]
        return max((math.prod(shape) for shape in shapes), default=0)

    def __call__(self, v: Tensor) -> Tensor:
        """H v for v `(n,)` or a batch `(m, n)`."""
        return self.pull(v, [self.x])

    def pull(self, v: Tensor, inputs: list[Tensor]) -> Tensor:
        """v pulled back to each of the inputs, side by side."""
        parts: tuple[Tensor | None, ...] = (None,) * len(inputs)
        if self.grad.requires_grad:
            parts = torch.autograd.grad(
                self.grad,
                inputs,
                v,
                retain_graph=True,
                create_graph=self.attached,
                allow_unused=True,
                is_grads_batched=v.ndim == 2,
            )
        given = zip(parts, inputs, strict=True)
        found = [v.new_zeros((*v.shape[:-1], len(x))) if part is None else part for part, x in given]
        return found[0] if len(found) == 1 else torch.cat(found, -1)


class Joined(Pullback):
    """The same where x is two tensors joined: the stages' variables and the shared ones. `first` is H's block of those
    alone, from which what only the others need is pruned."""

    def __init__(self, value: Tensor, grads: list[Tensor], inputs: list[Tensor], attached: bool) -> None:
        super().__init__(value, torch.cat(grads), torch.cat(inputs), attached)
        self.inputs, self.first = inputs, Pullback(value, grads[0], inputs[0], attached)

    def __call__(self, v: Tensor) -> Tensor:
        return self.pull(v, self.inputs)
