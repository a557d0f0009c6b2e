"""Callbacks of an eager call: the host makes its turns one by one, and tells of each new iterate. The program that it
runs is the one without reports, so that nothing is compiled for them.

PyTorch's loops are Python's own, and report as they go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from bandhess_common.status import StepInfo

from ..framework.clock import Piece, is_traced
from ..framework.packing import Packed, contents


def state_of(packed: Packed, like: Any) -> Any:
    """The state that was packed, in NumPy, for the structure of one; its long arrays as they are."""
    return contents(packed._replace(reals=np.asarray(packed.reals), integers=np.asarray(packed.integers)), like)


def told(
    turns: Callable[..., Piece],
    info_of: Callable[[Piece], StepInfo],
    report: Callable[[StepInfo], None],
    begun: int = 0,
) -> Callable[..., Piece]:
    """`turns(state, last)`, as `in_pieces` takes it, with a report on each new iterate, the start's included.

    info_of is of the last iterate, its step -1 where there is none yet; begun is the `last` with which no turn is made.
    """
    made, step = begun, -1

    def one_by_one(state: Packed, last: int) -> Piece:
        nonlocal made, step
        while True:
            made += 1
            piece = turns(state, made)
            if is_traced(piece):
                return piece
            info = info_of(piece)
            if info.step > step:
                report(StepInfo(*map(jnp.asarray, info)))
                step = int(info.step)
            if made >= last or not piece.open:
                return piece
            state = piece.state

    return one_by_one
