"""`value_grad_hessian` and `hessian` while a program is traced, as part of the caller's graph: direct probes, in one
batch. torch.compile reads torch.func's transforms; `torch.export` (strict=False, its default) and FakeTensorMode,
which run the program on tensors without values, take plain autograd. Strict export knows neither (torch 2.13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bandhess_common.checks import as_index, check_argnums

from .linearise import _linearize_transformed, linearize_gradient
from .objective import Objective
from .products import multiply


def _band(product: Callable[[Tensor], Tensor], objective: Objective, k: int) -> Tensor:
    """Column j of the band has colour j mod the number of probes: `ab[r, j] = Y[colour, j + r]`."""
    layout = objective.layout
    n, d, rows = layout.n, layout.d, (k + 1) * layout.d
    count = min(2 * k + 1, layout.T) * d
    column = torch.arange(n, device=layout.device)
    probes = (column % count == torch.arange(count, device=layout.device)[:, None]).to(layout.dtype)
    Y = torch.func.vmap(product)(probes) if torch.compiler.is_dynamo_compiling() else multiply(product, probes)
    offset = torch.arange(rows, device=layout.device)[:, None]
    row = offset + column
    inside = (row < n) & (offset + column % d < rows)
    ab = torch.where(inside, Y[column % count, row.clamp(max=n - 1)], 0)
    return torch.cat([ab[:1] + layout.dummies(), ab[1:]]) if layout.ragged else ab


def traced_value_grad_hessian(
    fun: Callable, bandwidth: int, argnums: int, has_aux: bool, probing: Any, plain: bool
) -> Any:
    """What `value_grad_hessian` gives, for programs that are traced; NotImplemented for other probes and structures."""
    if probing != "direct" or not plain:
        return NotImplemented
    argnums, k = check_argnums(argnums), as_index(bandwidth, "bandwidth")

    def value_grad_hessian_fun(*args: Any, **kwargs: Any) -> tuple:
        objective = Objective.of(fun, argnums, has_aux, args)
        flat_fun, flat = objective.bind(fun, args, kwargs)
        linearize = _linearize_transformed if torch.compiler.is_dynamo_compiling() else linearize_gradient
        grad, product, (value, aux) = linearize(flat_fun, flat)
        ab = _band(product, objective, k)
        return (value, aux) if has_aux else value, objective.layout.unravel(grad), ab

    return value_grad_hessian_fun


def traced_hessian(fun: Callable, bandwidth: int, argnums: int, has_aux: bool, probing: Any, plain: bool) -> Any:
    """What `hessian` gives, likewise."""
    pieces = traced_value_grad_hessian(fun, bandwidth, argnums, has_aux, probing, plain)
    if pieces is NotImplemented:
        return NotImplemented

    def hessian_fun(*args: Any, **kwargs: Any) -> Any:
        value, _, ab = pieces(*args, **kwargs)
        return (ab, value[1]) if has_aux else ab

    return hessian_fun
