"""A loop's state in a folder, so that a run that was killed goes on from there: orbax-checkpoint writes and reads it.

    folder/42     state 42, complete: orbax writes it beside its place, and moves it there when all processes are done

An older state is removed when a newer one is complete: whenever the run is killed, there is one that is. With a state
lies what tells its run from others, by name: options, hashes of arrays, and what the loop's first turn finds.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from .clock import Piece


def orbax() -> ModuleType:
    """orbax.checkpoint, or an error that says how to get it."""
    try:
        import orbax.checkpoint
    except ImportError:
        raise ImportError('checkpoint needs orbax-checkpoint: pip install "bandhess[checkpoint]"') from None
    return orbax.checkpoint


def _own(leaf: Any) -> list[Any]:
    """What this process has of an array."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    return [leaf] if whole else [part.data for part in leaf.addressable_shards]


def digest(tree: Any) -> str:
    """A hash of the numbers and texts in a tree, the same in all processes. Other objects have none."""
    found = hashlib.sha256()
    for part in (np.asarray(part) for leaf in jax.tree.leaves(tree) for part in _own(leaf)):
        if part.dtype != object:
            found.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
    of_all = multihost_utils.process_allgather(np.frombuffer(found.digest(), np.uint8))
    return hashlib.sha256(of_all.tobytes()).hexdigest()


class Checkpoint:
    """A folder for the states of one run; `about` tells it from others, by name."""

    def __init__(self, folder: str | os.PathLike, about: dict[str, str]) -> None:
        ocp = self.ocp = orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # otherwise what is left of an older state is warned of
        )
        known = ocp.handlers.create_default_handler_registry(default=ocp.StandardCheckpointHandler())
        self.manager = ocp.CheckpointManager(Path(folder).absolute(), options=options, handler_registry=known)
        self.about = about

    def save(self, number: int, state: Any) -> None:
        """The state, a pytree of arrays, as the latest; numbers grow."""
        self.manager.save(number, args=self.ocp.args.StandardSave(state), custom_metadata=self.about)

    def load(self, like: Any) -> tuple[int, Any] | None:
        """`(number, state)` of the latest, placed as `like` is; None where there is none."""
        number = self.manager.latest_step()
        if number is None:
            return None
        saved = self.manager.metadata(number).custom_metadata or {}
        other = [name for name, value in self.about.items() if saved.get(name) != value]
        if other:
            raise ValueError(
                f"checkpoint must be a folder of this very problem, got {str(self.manager.directory)!r}, which holds "
                f"the state of another (it differs in {', '.join(other)}); name another folder, or remove this one"
            )
        return number, self.manager.restore(number, args=self.ocp.args.StandardRestore(like))


def resumed(
    turns: Callable[..., Piece],
    start: Any,
    steps: Callable[[Piece], Any],
    folder: str | os.PathLike,
    about: Callable[[Piece], dict[str, str]],
    max_seconds: float | None,
) -> Piece:
    """The last piece of a loop that is begun at `start`, or at what the folder has; open where time is up.

    A piece is a turn, so that processes agree on it, and is saved where `steps`, an accepted step's number, has grown,
    and at the end. The first is made in any case: `about` tells by it which loop this is.
    """
    # Bound to its devices, as a state that was read is: one program serves for both.
    piece = turns(jax.device_put(start, jax.tree.map(lambda a: a.sharding, start)), 1)
    checkpoint = Checkpoint(folder, about(piece))
    with checkpoint.manager:
        found = checkpoint.load(piece.state)
        if found is None:
            checkpoint.save(1, piece.state)
        (number, state), saved, began = found or (1, piece.state), 0, time.perf_counter()
        while True:
            number += 1
            piece = turns(state, number)
            ends = not piece.open or (max_seconds is not None and time.perf_counter() - began >= max_seconds)
            if ends or int(steps(piece)) > saved:
                saved = int(steps(piece))
                checkpoint.save(number, piece.state)
            if ends:
                return piece
            state = piece.state
