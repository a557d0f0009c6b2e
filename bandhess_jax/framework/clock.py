"""A time limit for a jitted loop: it runs in pieces, between which the host looks at the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

POLL = 8  # looks at the clock per max_seconds, at least


def check_host(tree: Any, name: str) -> None:
    """An error where something is traced: the host would wait for what is not computed yet."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            f"max_seconds needs the host to look at the clock: call {name} outside jit, vmap and grad, or bound "
            "the work with max_steps"
        )


def timed(turns: Callable[[Any, int], Any], state: Any, max_seconds: float) -> Any:
    """The state when the loop has ended, or when time is up: then `state.open` is still true.

    `turns(state, last)` turns until `last` turns have been made in all, and waits; at least one turn is made. The
    clock starts when it has compiled.
    """
    state = turns(state, 0)
    start, last = time.perf_counter(), 0
    while state.open:
        spent = max(time.perf_counter() - start, 1e-9)
        if spent >= max_seconds and last:
            break
        # Twice as many turns as so far, but not more than what fits between two looks at the clock.
        last += max(1, int(min(last, last * max_seconds / (POLL * spent)))) if last else 1
        state = turns(state, last)
    return state
