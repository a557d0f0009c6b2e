"""A loop's state between two calls of its program: each array costs a call some microseconds, so that the short ones
travel as two vectors; long ones travel as they are, since to copy them costs more.

PyTorch's loops are not left between two calls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LONG = 2**12  # entries
SPARE = 2**26  # bytes, at most, that are kept between calls


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


def nothing(like: Packed, spare: list[tuple] | None = None) -> Packed:
    """What says that no state was packed yet, in spare memory where there is some. Of NumPy: JAX would start a program
    for each array."""
    blank = lambda part: np.zeros(part.shape, part.dtype)  # noqa: E731
    try:
        long = spare.pop() if spare else tuple(map(blank, like.long))
    except IndexError:  # another thread was faster
        return nothing(like)
    return Packed(long, blank(like.reals), blank(like.integers))


def leave(packed: Packed, spare: list[tuple] | None) -> None:
    """Gives the memory of a state that is no longer needed to the next one: fresh pages from the system would cost as
    much as a twentieth of a solve. Not what has a device of its own, where the next call may not run."""
    if spare is None or spare or any(leaf.committed for leaf in packed.long):
        return
    if packed.long and sum(leaf.nbytes for leaf in packed.long) <= SPARE:
        spare.append(packed.long)
