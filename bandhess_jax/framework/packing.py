"""A loop's state between two calls of its program: each array costs a call some microseconds, so that the short ones
travel as two vectors; long ones travel as they are, since to copy them costs more."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LONG = 2**12  # entries


class Packed(NamedTuple):
    """A state's leaves."""

    long: tuple
    reals: Any  # short ones of the one floating dtype, one after the other
    integers: Any  # int32: 1 where a state was packed, and 0 where none was yet; then the other short leaves


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def pack(state: Any) -> Packed:
    leaves = jax.tree.leaves(state)
    short = [leaf for leaf in leaves if leaf.size < LONG]
    return Packed(
        tuple(leaf for leaf in leaves if leaf.size >= LONG),
        jnp.concatenate([jnp.ravel(leaf) for leaf in short if _is_real(leaf)]),
        jnp.concatenate(
            [jnp.ones(1, jnp.int32), *(jnp.ravel(leaf).astype(jnp.int32) for leaf in short if not _is_real(leaf))]
        ),
    )


def unpack(packed: Packed, start: Any) -> Any:
    """The state that was packed; the start, which has its structure, where none was yet."""
    begun = packed.integers[0] > 0
    return jax.tree.map(lambda leaf, first: jnp.where(begun, leaf, first), contents(packed, start), start)


def contents(packed: Packed, like: Any) -> Any:
    """What the parts hold, a state or not."""
    leaves, treedef = jax.tree.flatten(like)
    long, at = iter(packed.long), {True: 0, False: 1}

    def next_like(leaf: Array) -> Array:
        if leaf.size >= LONG:
            return next(long)
        kind = _is_real(leaf)
        flat, begin = packed.reals if kind else packed.integers, at[kind]
        at[kind] += leaf.size
        return flat[begin : at[kind]].reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree.unflatten(treedef, list(map(next_like, leaves)))


def nothing(like: Packed) -> Packed:
    """What says that no state was packed yet. Of NumPy: JAX would start a program for each array."""
    return jax.tree.map(lambda part: np.zeros(part.shape, part.dtype), like)
