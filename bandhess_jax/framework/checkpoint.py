"""A loop's state in a folder, so that a run that was killed goes on from there.

    folder/latest      the number of the last state that is complete
    folder/42/0.npz    of state 42, what process 0 has of its arrays
    folder/42/1.npz    and process 1

Every file is written beside its place, and takes it in one move. `latest` moves on when all processes have written
their parts, and what is older is removed after that: whenever the run is killed, there is a complete state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from .clock import Piece


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """A file that is there as a whole or not at all, also when the power fails."""
    beside = path.with_name(f"{path.name}.part")
    with open(beside, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _parts(name: int, leaf: Array) -> dict[str, Array]:
    """What this process has of an array, by the place of it: replicas once."""
    return {f"{name} {shard.index}": shard.data for shard in leaf.addressable_shards}


class Checkpoint:
    """A folder for the states of one run; `about` tells it from others."""

    def __init__(self, folder: str | os.PathLike, about: str) -> None:
        self.folder, self.about = Path(folder), about

    def _latest(self) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            return int((self.folder / "latest").read_text())
        return None

    def _part(self, number: int) -> Path:
        return self.folder / str(number) / f"{jax.process_index()}.npz"

    def save(self, number: int, state: Any) -> None:
        """The state, a pytree of arrays, as the latest; numbers grow."""
        part = self._part(number)
        part.parent.mkdir(parents=True, exist_ok=True)
        found = [_parts(name, leaf) for name, leaf in enumerate(jax.tree.leaves(state))]
        arrays: dict[str, Any] = {key: np.asarray(data) for parts in found for key, data in parts.items()}
        _write(part, lambda file: np.savez(file, about=np.array(self.about), **arrays))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"bandhess state {number}")
        if jax.process_index() == 0:
            _write(self.folder / "latest", lambda file: file.write(str(number).encode()))
            for each in self.folder.iterdir():
                if each.name.isdecimal() and int(each.name) < number:
                    shutil.rmtree(each, ignore_errors=True)

    def load(self, like: Any) -> tuple[int, Any]:
        """`(number, state)` of the latest, placed as `like` is, which is `(0, like)` where there is none."""
        number = self._latest()
        if number is None:
            return 0, like
        leaves, treedef = jax.tree.flatten(like)
        with np.load(self._part(number)) as file:
            saved = {key: file[key] for key in file.files}
        wanted = [_parts(name, leaf) for name, leaf in enumerate(leaves)]
        shapes = {key: data.shape for parts in wanted for key, data in parts.items()}
        if str(saved.pop("about")) != self.about or {key: data.shape for key, data in saved.items()} != shapes:
            raise ValueError(
                f"checkpoint must be a folder of this very problem on as many devices, got {str(self.folder)!r}, which "
                "holds the state of another; name another folder, or remove this one"
            )
        placed = [_assemble(name, leaf, saved) for name, leaf in enumerate(leaves)]
        return number, jax.tree.unflatten(treedef, placed)


def _assemble(name: int, like: Array, saved: dict[str, np.ndarray]) -> Array:
    parts = [jax.device_put(saved[f"{name} {shard.index}"], shard.device) for shard in like.addressable_shards]
    return jax.make_array_from_single_device_arrays(like.shape, like.sharding, parts)


def resumed(
    turns: Callable[..., Piece],
    start: Any,
    steps: Callable[[Piece], Any],
    checkpoint: Checkpoint,
    max_seconds: float | None,
) -> Piece:
    """The last piece of a loop that is begun at `start`, or at what the checkpoint has; open where time is up.

    A piece is a turn, so that processes agree on it, and is saved where `steps`, an accepted step's number, has grown.
    """
    number, state = checkpoint.load(start)
    saved, began = -1, None
    while True:
        number += 1
        piece = turns(state, number)
        if not piece.open or int(steps(piece)) > saved:
            saved = int(steps(piece))
            checkpoint.save(number, piece.state)
        state, now = piece.state, time.perf_counter()
        began = now if began is None else began  # the first turn compiles
        if not piece.open or (max_seconds is not None and now - began >= max_seconds):
            return piece
