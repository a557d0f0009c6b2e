"""A ring of stages laid double: stage t beside stage T - 1 - t, so that a closed band becomes a plain one.

    T = 7        0 1 2 3        What is k stages apart around the ring is at most k apart in the row of pairs, past both
                 6 5 4 *        ends, too. * is a dummy where T is odd.

The pairs are the stages of a `Layout` in whose place this stands: T / 2 of them, rounded up, of 2 d scalars.
Shared variables stay where they are, at the end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .stages import Layout, Structure


class Folded(NamedTuple):
    """The layout of a ring, as one of pairs."""

    ring: Layout

    @property
    def treedef(self) -> Structure:
        return self.ring.treedef

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.ring.shapes

    @property
    def dtype(self) -> torch.dtype:
        return self.ring.dtype

    @property
    def device(self) -> torch.device:
        return self.ring.device

    @property
    def T(self) -> int:
        return -(-self.ring.T // 2)

    @property
    def d(self) -> int:
        return 2 * self.ring.d

    @property
    def n(self) -> int:
        return self.T * self.d + self.p

    @property
    def shared(self) -> tuple[bool, ...]:
        return self.ring.shared

    @property
    def periodic(self) -> bool:
        return False

    @property
    def p(self) -> int:
        return self.ring.p

    @property
    def stages(self) -> Folded:
        """Of the leaves with a stage axis alone."""
        return Folded(self.ring.stages)

    @property
    def ragged(self) -> bool:
        return self.ring.T % 2 == 1 and self.ring.d > 0

    def ravel(self, tree: Any) -> Tensor:
        T, d = self.ring.T, self.ring.d
        flat = self.ring.ravel(tree)
        stages = flat[: T * d].reshape(T, d)
        back = pad(stages[self.T :].flip(0), (0, 0, 0, 2 * self.T - T))
        pairs = torch.cat([stages[: self.T], back], 1).reshape(self.T * self.d)
        return torch.cat([pairs, flat[T * d :]]) if self.p else pairs

    def unravel(self, flat: Tensor) -> Any:
        m, d = self.T * self.d, self.ring.d
        pairs = flat[:m].reshape(self.T, self.d)
        back = pairs[: self.ring.T - self.T, d:].flip(0)
        stages = torch.cat([pairs[:, :d], back]).reshape(self.ring.T * d)
        return self.ring.unravel(torch.cat([stages, flat[m:]]) if self.p else stages)

    def dummies(self) -> Tensor:
        """`(n,)`, 1 on dummy variables and 0 elsewhere."""
        place, m = torch.arange(self.n, device=self.device), self.T * self.d
        return ((place >= m - self.ring.d) & (place < m) & self.ragged).to(self.dtype)
