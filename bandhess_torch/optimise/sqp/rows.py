"""Which stages each row of the constraints touches, and the Jacobian read off products by that.

A row that belongs into a band of bandwidth k touches stages within a window of K = min(k + 1, T) stages. Of the stages
with one remainder modulo K it then touches one at most, so that K d products with one colour per remainder and scalar
give every entry of the Jacobian by itself, once the windows are known.

The windows come from the same colours: with a the product of a remainder's stages, weighted with noise, and b that of
the same weights times the stages' numbers, the touched stage is b / a. Numbers are taken digit by digit, so that
rounding cannot make a wrong stage of them. What a row touches is looked at in several points, for a gradient may vanish
in one. A row that touches stages further apart gives some window that a product with noise refutes (`derivatives.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...band.noise import hash_noise
from ...band.stages import Layout
from ...extraction.products import multiply
from ...framework.autograd import Pullback, check_recorded


def stages_in_window(layout: Layout, k: int) -> int:
    return min(k + 1, layout.T)


def forward_products(rows: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> Tensor:
    """J v for each of the probes `(m, n)`: `(m, r)`. The pull back u -> J^T u, which is linear, is pulled back."""
    check_recorded()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        h = rows(x)
        if not h.requires_grad:
            return h.new_zeros(len(probes), len(h))
        u = torch.zeros_like(h).requires_grad_()
        (forces,) = torch.autograd.grad(h, x, u, create_graph=True, allow_unused=True, materialize_grads=True)
    return multiply(Pullback(h, forces, u, False), probes)


def _base(layout: Layout) -> int:
    """So large may a number be that a quotient of products still gives it."""
    return 2**16 if layout.dtype.itemsize == 8 else 2**6 if layout.dtype.itemsize == 4 else 2


def windows(rows: Callable[[Tensor], Tensor], points: list[Tensor], layout: Layout, k: int) -> Tensor:
    """`(r,)` int32: the first of the K d columns that hold each of the rows, functions of the flat x."""
    T, d, K = layout.T, layout.d, stages_in_window(layout, k)
    base = _base(layout)
    digits = math.ceil(math.log(max(2, -(-T // K)), base))
    stage = torch.arange(layout.n, device=layout.device) // d
    number = stage // K
    factors = torch.stack([torch.ones_like(stage), *(number // base**i % base for i in range(digits))])
    weights = (3 + hash_noise(points[0], 3)) / 4
    masks = (stage % K == torch.arange(K, device=layout.device)[:, None]) * weights
    probes = (masks[:, None] * factors).reshape(-1, layout.n)
    place = torch.tensor([base**i for i in range(digits)], device=layout.device)[:, None]
    least = torch.finfo(layout.dtype).eps ** 0.75

    def lowest(x: Tensor) -> Tensor:
        """The first stage that each row touches near x; T where it touches none."""
        found = forward_products(rows, x, probes).reshape(K, len(factors), -1)
        size = found[:, 0].abs()
        touched = (size > least * size.amax(0)) & found.isfinite().all(1)
        digit = torch.where(touched[:, None], found[:, 1:] / torch.where(touched, found[:, 0], 1)[:, None], 0)
        digit = digit.round().clamp(0, base - 1).long()
        seen = K * (digit * place).sum(1) + torch.arange(K, device=layout.device)[:, None]
        return torch.where(touched, seen, T).amin(0)

    first = torch.stack([lowest(x) for x in points]).amin(0)
    return (d * first.clamp(max=T - K)).int()
