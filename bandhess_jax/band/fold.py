"""A ring of stages laid double: stage t beside stage T - 1 - t, so that a closed band becomes a plain one.

    T = 7        0 1 2 3        What is k stages apart around the ring is at most k apart in the row of pairs, past both
                 6 5 4 *        ends, too. * is a dummy where T is odd.

The pairs are the stages of a `Layout` in whose place this stands: T / 2 of them, rounded up, of 2 d scalars.
Shared variables stay where they are, at the end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from .stages import Layout


class Folded(NamedTuple):
    """The layout of a ring, as one of pairs. Hashable."""

    ring: Layout

    @property
    def treedef(self) -> Any:
        return self.ring.treedef

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.ring.shapes

    @property
    def dtype(self) -> np.dtype:
        return self.ring.dtype

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

    def ravel(self, tree: Any) -> Array:
        T, d = self.ring.T, self.ring.d
        flat = self.ring.ravel(tree)
        stages = flat[: T * d].reshape(T, d)
        back = jnp.pad(stages[self.T :][::-1], ((0, 2 * self.T - T), (0, 0)))
        pairs = jnp.concatenate([stages[: self.T], back], axis=1).reshape(self.T * self.d)
        return jnp.concatenate([pairs, flat[T * d :]]) if self.p else pairs

    def unravel(self, flat: Array) -> Any:
        m, d = self.T * self.d, self.ring.d
        pairs = jnp.reshape(flat[:m], (self.T, self.d))
        back = pairs[: self.ring.T - self.T, d:][::-1]
        stages = jnp.concatenate([pairs[:, :d], back]).reshape(self.ring.T * d)
        return self.ring.unravel(jnp.concatenate([stages, flat[m:]]) if self.p else stages)

    def dummies(self) -> Array:
        """`(n,)`, 1 on dummy variables and 0 elsewhere."""
        place, m = jnp.arange(self.n), self.T * self.d
        return ((place >= m - self.ring.d) & (place < m) & self.ragged).astype(self.dtype)
