"""A ring of stages laid double: stage t beside stage T - 1 - t, so that a closed band becomes a plain one.

    T = 7        0 1 2 3        What is k stages apart around the ring is at most k apart in the row of pairs, past both
                 6 5 4 *        ends, too. * is a dummy where T is odd.

The pairs are the stages of a `Layout` in whose place this stands: T / 2 of them, rounded up, of 2 d scalars.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from .stages import Layout


class Folded(NamedTuple):
    """The layout of a ring, as one of pairs. Hashable."""

    ring: Layout  # with every leaf's own stages, none shared

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
        return self.T * self.d

    @property
    def shared(self) -> tuple[bool, ...]:
        return self.ring.shared

    @property
    def periodic(self) -> bool:
        return False

    @property
    def p(self) -> int:
        return 0

    @property
    def ragged(self) -> bool:
        return self.ring.T % 2 == 1 and self.ring.d > 0

    def ravel(self, tree: Any) -> Array:
        stages = self.ring.ravel(tree).reshape(self.ring.T, self.ring.d)
        back = jnp.pad(stages[self.T :][::-1], ((0, 2 * self.T - self.ring.T), (0, 0)))
        return jnp.concatenate([stages[: self.T], back], axis=1).reshape(self.n)

    def unravel(self, flat: Array) -> Any:
        pairs, d = jnp.reshape(flat, (self.T, self.d)), self.ring.d
        back = pairs[: self.ring.T - self.T, d:][::-1]
        return self.ring.unravel(jnp.concatenate([pairs[:, :d], back]).reshape(self.ring.n))

    def dummies(self) -> Array:
        """`(n,)`, 1 on dummy variables and 0 elsewhere."""
        place = jnp.arange(self.n)
        return ((place >= self.n - self.ring.d) & self.ragged).astype(self.dtype)
