"""A jitted loop in pieces, between which the host looks at the clock and Python handles signals (Ctrl-C).

While a compiled program runs, Python waits for it and handles none. One program serves for all pieces: its bound of
turns is an operand.

PyTorch's loops are Python's own, and look at the clock as they go.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .packing import Packed, leave, nothing

FIRST = 32  # turns: of the first piece, where they are short; most solves end in it, and pay nothing for the pieces
WORK = 2**25  # numbers handled, at most, in the first piece: a tenth of a second
PIECE = 0.4  # seconds, at most, as far as the piece before tells
GROWTH = 8  # from one piece to the next, at most
POLL = 8  # looks at the clock per max_seconds, at least


def is_traced(tree: Any) -> bool:
    """Whether something in it is traced, so that there is nothing to wait for yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_host(tree: Any, name: str) -> None:
    """An error where something is traced: the host would wait for what is not computed yet."""
    if is_traced(tree):
        raise ValueError(
            f"max_seconds needs the host to look at the clock: call {name} outside jit, vmap and grad, or bound "
            "the work with max_steps"
        )


class Piece(NamedTuple):
    """Where a loop stands after some turns."""

    state: Packed
    open: Any  # whether it goes on
    shown: Any  # what a result shows of it


def in_pieces(
    turns: Callable[..., Piece],
    like: Packed,
    size: int,
    max_seconds: float | None = None,
    spare: list[tuple] | None = None,
) -> Piece:
    """The last piece when the loop has ended, or when time is up: then it is still open.

    `turns(state, last)` turns until `last` turns have been made in all, and uses up the state; size is how many numbers
    a turn handles, about. With max_seconds at least one turn is made, and the clock starts when the loop has compiled.
    A piece that is traced comes back at once. spare: memory for a state, of a call before; the caller reads no state.
    """
    last, step, longest, state = 0, max(1, min(FIRST, WORK // max(size, 1))), PIECE, nothing(like, spare)
    if max_seconds is not None:
        state, step, longest = jax.block_until_ready(turns(state, 0)).state, 1, min(PIECE, max_seconds / POLL)
    start = time.perf_counter()
    while True:
        last += step
        begun = time.perf_counter()
        piece = turns(state, last)
        if is_traced(piece):
            return piece
        if not piece.open:  # to ask for it is to wait
            leave(piece.state, spare)
            return piece
        state, now = piece.state, time.perf_counter()
        if max_seconds is not None and now - start >= max_seconds:
            return piece
        step = max(1, int(step * min(GROWTH, longest / (now - begun))))
