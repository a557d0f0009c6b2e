"""A function linearised once: its gradient and v -> H v, its residuals and v -> J v, u -> J^T u."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..framework.autograd import Joined, Pullback, check_recorded, reaches_others
from ..framework.transforms import transformed


def linearize_gradient(
    flat_fun: Callable, flat: Tensor, shared: int = 0
) -> tuple[Tensor, Callable[[Tensor], Tensor], tuple]:
    """`(grad, product, (value, aux))`, the function evaluated once. shared: so many last variables belong to no stage.

    The gradient's graph is built here once, and every product pulls its probe back through it: H is symmetric, so
    that is H v. (Forward over reverse, the way of JAX, evaluates the function again for each batch: 2 to 15 times
    slower here. `torch.func.hvp` does not exist.) Plain autograd where it serves, torch.func inside its transforms.
    """
    check_recorded()
    if transformed():
        return _linearize_transformed(flat_fun, flat)
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        x = flat if outer and flat.requires_grad else flat.detach().requires_grad_()
        inputs = list(x.split([len(x) - shared, shared])) if shared else [x]
        value, aux = flat_fun(torch.cat(inputs) if shared else x)
        if value.requires_grad:
            grads = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True, materialize_grads=True)
        else:
            grads = tuple(map(torch.zeros_like, inputs))
        attached = outer and value.requires_grad and (x is flat or reaches_others(value, x))
        if shared:
            product: Pullback = Joined(value, list(grads), inputs, attached)
        else:
            product = Pullback(value, grads[0], x, attached)
        grad = product.grad
    if attached:
        return grad, product, (value, aux)
    if aux is not None:
        aux = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, aux)
    return grad.detach(), product, (value.detach(), aux)


def _linearize_transformed(flat_fun: Callable, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], tuple]:
    rest: list[Any] = []  # torch.func passes tensors only; what else stands in aux goes by here

    def tensors_out(flat: Tensor) -> tuple[Tensor, list[Tensor]]:
        value, aux = flat_fun(flat)
        leaves, treedef = tree_flatten(aux)
        rest[:] = [treedef, [Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves]]
        return value, [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def gradient(flat: Tensor) -> tuple[Tensor, tuple]:
        grad, (value, aux) = torch.func.grad_and_value(tensors_out, has_aux=True)(flat)
        return grad, (value, aux)

    grad, pull, (value, tensors) = torch.func.vjp(gradient, flat, has_aux=True)  # type: ignore[misc]
    treedef, leaves = rest
    given = iter(tensors)
    aux = tree_unflatten([next(given) if leaf is Tensor else leaf for leaf in leaves], treedef)
    return grad, lambda v: pull(v)[0], (value, aux)


def linearize_residuals(residuals: Callable[[Tensor], Any], flat: Tensor) -> tuple[list[Tensor], Callable, Callable]:
    """`(r, forward, backward)`: the residuals' leaves, v -> J v, and u -> J^T u (the real part of J^H u where r is
    complex)."""

    def checked(flat: Tensor) -> list[Tensor]:
        leaves, _ = tree_flatten(residuals(flat))
        if not leaves or not all(isinstance(a, Tensor) and (a.is_floating_point() or a.is_complex()) for a in leaves):
            kinds = [str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves]
            raise TypeError(f"residuals must return a floating tensor or a pytree of them, got leaves of types {kinds}")
        return leaves

    check_recorded()
    r, pullback, *_ = torch.func.vjp(checked, flat)
    # J v is the transpose of the pullback u -> J^T u, which is linear: pulled back in its turn, at any u.
    _, forward, *_ = torch.func.vjp(lambda u: pullback(u)[0], [torch.zeros_like(part) for part in r])
    return r, lambda v: forward(v)[0], lambda u: pullback(u)[0]
