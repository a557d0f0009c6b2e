"""Tapes that stay with the user's function from one solve to the next, as compiled programs do in JAX.

A `Program` dies with the function, or with the object whose method that is, and serves one solve at a time. The solve
asks its `Guard` first whether the function still does the same, and gives the tapes what the function takes beside x.
A function that comes again is written down at once; one that does something else each time is left alone.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .guard import Function, Guard, guarded
from .recorder import Recorder, recordable
from .tape import Tape, tape_of

MOST = 8  # programs of a function: of other shapes, options, constraints
RETRY = 16  # solves
BYTES = 2**26  # of a program's tapes, at most, between solves


class Program:
    """The tapes of a function, and what else its solves have in common."""

    def __init__(self) -> None:
        self.guard: Guard | None = None
        self.tapes: dict[str, Tape | None] = {}  # None: what cannot be written down
        self.common: Any = None
        self.lasts = True  # a guard can be made, and memory is there to keep
        self.solves = self.hits = self.misses = 0

    @property
    def steady(self) -> bool:
        """The function has mostly done what it did before; at times that is tried again."""
        return self.misses <= 1 + self.hits + self.solves // RETRY

    @property
    def again(self) -> bool:
        """Whether it pays to write down at once."""
        return self.lasts and self.solves > 1 and self.steady

    def check(self, function: Function, x: Tensor, held: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """At the begin of a solve: the tapes become those of function and held. It returns what function gives at x,
        where that was called for it."""
        self.solves += 1
        if self.guard is None or not any(self.tapes.values()):
            return None
        guard, found = guarded(function, x, held)
        if self.guard.holds(guard):
            self.hits += 1
            for tape in filter(None, self.tapes.values()):
                tape.hold(held)
        else:
            self.forget()
        return found

    def forget(self) -> None:
        """The function does something else than what is written down."""
        self.misses += 1
        self.guard = None
        self.tapes.clear()

    def guard_by(self, guard: Guard | None) -> None:
        """Before a tape is made: what is written down belongs to this."""
        if self.guard is not None and not self.guard.holds(guard):
            self.forget()
        if self.guard is None:
            self.lasts &= guard is not None
            self.guard = guard.own() if guard is not None and self.lasts else None

    def writes(self, name: str) -> bool:
        return self.again and name not in self.tapes and recordable()

    def write(
        self,
        name: str,
        recorder: Recorder,
        inputs: Sequence[Tensor],
        found: Sequence[Any],
        held: Sequence[Tensor],
        fixed: Sequence[Tensor] = (),
    ) -> None:
        """A tape of found; without a guard it is right in this solve alone."""
        self.tapes[name] = tape_of(recorder, inputs, found, held if self.guard is not None else (), fixed)

    def rest(self) -> None:
        """Between solves."""
        if sum(tape.nbytes for tape in filter(None, self.tapes.values())) > BYTES:
            self.lasts = False
        if self.guard is None or not (self.lasts and self.steady):
            self.guard = self.common = None
            self.tapes.clear()


_programs: weakref.WeakKeyDictionary[Any, dict[Hashable, Program]] = weakref.WeakKeyDictionary()


@contextmanager
def program_of(functions: Sequence[Callable], *key: Hashable) -> Iterator[Program]:
    """The program of these functions and key: with that go all that its tapes rest on but what the functions do."""
    parts = [part for function in functions for part in _parts(function)]
    known: dict[Hashable, Program] = {}
    try:
        place = (tuple(map(weakref.ref, parts)), key)
        if recordable() and not (torch._C._is_any_autocast_enabled() or torch._C._len_torch_function_stack()):
            known = _programs.setdefault(parts[0], known)
        program = known.pop(place, None) or Program()
    except TypeError:  # what has no hash, or cannot be held weakly
        place, program = None, Program()
    yield program
    program.rest()
    known[place] = program  # the last; so the first has waited longest
    while len(known) > MOST:
        known.pop(next(iter(known)), None)


def _parts(function: Callable) -> tuple:
    """What function is, as long as that exists: partials and bound methods are new ones each time."""
    while isinstance(function, functools.partial):
        function = function.func
    return (function.__self__, function.__func__) if isinstance(function, MethodType) else (function,)


def floating(tree: Any) -> list[Tensor]:
    """What of a tree tapes hold: numbers to compute with. Other tensors decide shapes, or what is done: constants."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
