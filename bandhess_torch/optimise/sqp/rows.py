"""Which stages each row of the constraints touches, and the Jacobian read off products by that.

A row that belongs into a band of bandwidth k touches stages within a window of K = min(k + 1, T) stages. Of the stages
with one remainder modulo K it then touches one at most, so that K d products with one colour per remainder and scalar
give every entry of the Jacobian by itself, once the windows are known.

The windows come from the same colours: with a the product of a remainder's stages, weighted with noise, and b that of
the same weights times the stages' numbers, the touched stage is b / a. Numbers are taken digit by digit, so that
rounding cannot make a wrong stage of them. What a row touches is looked at in two points, for a gradient may vanish in
one: those at which a solve linearises first (`loop.py`). A product with noise refutes a window that holds not all of
its row (`derivatives.py`): then it is looked once more, there, for a row may touch more than at the start, as
max(0, x)^2 does. A row that touches stages further apart is refuted again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...band.noise import hash_noise
from ...band.stages import Layout


def stages_in_window(layout: Layout, k: int) -> int:
    return min(k + 1, layout.T)


def _digits(layout: Layout, K: int) -> tuple[int, int]:
    """The base, so large that a quotient of products still gives a digit, and how many digits stage numbers have."""
    base = 2**16 if layout.dtype.itemsize == 8 else 2**6 if layout.dtype.itemsize == 4 else 2
    return base, math.ceil(math.log(max(2, -(-layout.T // K)), base))


def window_probes(layout: Layout, k: int) -> Tensor:
    """`(K (1 + digits), n)`: for each remainder, noise, and noise times each digit of the stages' numbers; zeros for
    shared variables."""
    K = stages_in_window(layout, k)
    base, digits = _digits(layout, K)
    stage = torch.arange(layout.n, device=layout.device) // layout.d
    number = stage // K
    factors = torch.stack([torch.ones_like(stage), *(number // base**i % base for i in range(digits))])
    like = torch.empty(layout.n, dtype=layout.dtype, device=layout.device)
    remainder = torch.where(stage < layout.T, stage % K, -1)
    masks = (remainder == torch.arange(K, device=layout.device)[:, None]) * ((3 + hash_noise(like, 3)) / 4)
    return (masks[:, None] * factors).reshape(-1, layout.n)


def windows(products: list[Tensor], layout: Layout, k: int) -> Tensor:
    """`(r,)` int32: the first of the K d columns that hold each of the rows, from the Jacobian times `window_probes`,
    `(probes, r)`, in some points."""
    T, K = layout.T, stages_in_window(layout, k)
    base, digits = _digits(layout, K)
    place = torch.tensor([base**i for i in range(digits)], device=layout.device)[:, None]
    least = torch.finfo(layout.dtype).eps ** 0.75

    def lowest(found: Tensor) -> Tensor:
        """The first stage that each row touches; T where it touches none."""
        found = found.reshape(K, 1 + digits, -1)
        size = found[:, 0].abs()
        touched = (size > least * size.amax(0)) & found.isfinite().all(1)
        digit = torch.where(touched[:, None], found[:, 1:] / torch.where(touched, found[:, 0], 1)[:, None], 0)
        digit = digit.round().clamp(0, base - 1).long()
        seen = K * (digit * place).sum(1) + torch.arange(K, device=layout.device)[:, None]
        return torch.where(touched, seen, T).amin(0)

    first = torch.stack([lowest(found) for found in products]).amin(0)
    return (layout.d * first.clamp(max=T - K)).int()


def taken(Y: Tensor, index: Tensor) -> Tensor:
    """`Y.take(index)`, in half the time."""
    return Y.flatten().index_select(0, index.flatten()).view(index.shape)
