"""Direct probes around a ring: the last stage meets the first, and colours must not meet across that seam.

    T = 11 stages, k = 1: m = floor(T / (2k + 1)) = 3 stages a colour, in as many arcs of the ring

        stage     0 1 2 3 | 4 5 6 7 | 8 9 10          arcs of ceil(T / m) = 4 stages, T mod m of them, then of 3
        colour    0 1 2 3   0 1 2 3   0 1 2           the place in the arc

Stages of one colour are a whole arc apart, 2k + 1 at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bandhess_common.ring import Arcs

from ...band.storage import clear_beyond_stages


@dataclass(frozen=True)
class Ring:
    """Every entry of a closed band as it stands, in the storage of `Cyclic`. `ceil(T / floor(T / (2k + 1))) d` products
    for T > 2k: 2k + 1 of them a scalar where that divides T, and at most 4k + 1."""

    closed: ClassVar[bool] = True  # no cell is unused

    def count(self, T: int, d: int, k: int) -> int:
        return Arcs.of(T, k).colours * d

    def places(self, T: int, d: int, k: int, like: Tensor) -> Tensor:
        """The colour of every column."""
        arcs, j = Arcs.of(T, k), torch.arange(T * d, device=like.device)
        first = arcs.longer * arcs.colours * d  # scalars in the longer arcs
        return torch.where(j < first, j % (arcs.colours * d), (j - first) % max((arcs.colours - 1) * d, 1))

    def probe(self, c: int, T: int, d: int, k: int, like: Tensor) -> Tensor:
        return (self.places(T, d, k, like) == c).to(like.dtype)

    def keep(self, c: int, y: Tensor, T: int, d: int, k: int) -> Tensor:
        return y

    def decode(self, kept: Tensor, T: int, d: int, k: int) -> Tensor:
        colour, j = self.places(T, d, k, kept), torch.arange(T * d, device=kept.device)
        rows = (j + torch.arange((k + 1) * d, device=kept.device)[:, None]) % (T * d)
        return clear_beyond_stages(kept[colour, rows], d)
