"""A computation written down while it runs, and run again for other inputs: its tensor operations alone.

An evaluation of a function's derivatives spends most of its time beside the arithmetic: on autograd's graph, on vmap's
layers, on memory for each result, on Python. What is left of all that is a list of ATen's operations, the same each
time. A `Recorder` keeps that list, of which a `Tape` is made,

    with Recorder() as recorder:                 tape(a, b)  ->  [c, d]  for other values of a, b
        c, d = ...  # of a and b
    tape = tape_of(recorder, [a, b], [c, d])

without what c and d do not need, each operation writing into memory that was chosen beforehand, and is used again where
what it holds is needed no more; views are made once, and so is what does not depend on a and b.

A tape is right where the list depends on nothing but shapes. None is made where values are read (`.item()`, `if x > 0`,
NumPy), numbers drawn, tensors from elsewhere written to, much memory kept, or an operation is met that is not known to
be harmless. What else decides the list, such as a counter in Python, no recorder can see: the user of a tape compares
results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .recorder import (
    COPIES,
    INDEXED,
    INTO,
    MASKS,
    SHAPES,
    TOTALS,
    ZEROS,
    Call,
    Kind,
    Recorder,
    RefusedError,
    kind,
    tensors,
)

MOST = 20000  # operations
PLACES = {"aten::slice_backward": torch.ops.aten.slice.Tensor, "aten::select_backward": torch.ops.aten.select.int}


class Tape:
    """Called with inputs as at first in shape and type, gives the outputs; what was no tensor stays as it was. Further
    inputs are held from one call to the next."""

    def __init__(self, inputs: list[Tensor], held: list[Tensor], run: list[Callable], outputs: list[Any]) -> None:
        self.inputs, self.held, self.run, self.outputs = inputs, held, run, outputs

    @torch.no_grad()
    def hold(self, held: Sequence[Tensor]) -> None:
        for mine, given in zip(self.held, held, strict=True):
            mine.copy_(given)

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> list[Any]:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        for operation in self.run:
            operation()
        return [out.clone() if isinstance(out, Tensor) else out for out in self.outputs]


def tape_of(
    recorder: Recorder, inputs: Sequence[Tensor], outputs: Sequence[Any], held: Sequence[Tensor] = ()
) -> Tape | None:
    """outputs as a function of inputs and held; None where they are not one of tensors alone, or where a first run does
    not give them again, to the last bit. It empties the recorder."""
    calls, recorder.calls = recorder.calls, []
    if recorder.refused or len(calls) > MOST:
        return None
    with suppress(RefusedError, TypeError, RuntimeError):  # of an operation that takes other arguments than are known
        tape = _tape(calls, inputs, held, outputs)
        tape.hold(held)
        if same(tape(*inputs), outputs):
            return tape
    return None


def same(these: Sequence[Any], those: Sequence[Any]) -> bool:
    """To the last bit; a NaN is not."""
    return all(a is b or (a is not None and torch.equal(a, b)) for a, b in zip(these, those, strict=True))


class Step(NamedTuple):
    """A call, and the memory that it names."""

    call: Call
    kind: Kind
    reads: list[int]
    out: int


class Names:
    """The memory of which tensors are views: where it begins. Right as long as all tensors of a recording are kept."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    def __call__(self, t: Tensor) -> int:
        """0 where t is empty."""
        if id(t) not in self.known:
            self.known[id(t)] = t.data_ptr() - int(t.storage_offset()) * t.itemsize if t.numel() else 0
        return self.known[id(t)]


def _depending(calls: list[Call], memory: Names, inputs: Sequence[Tensor]) -> tuple[list[Step], set[int]]:
    """The calls whose results depend on the inputs, those that make what they write to among them, and the memory that
    they change."""
    given = set(map(memory, inputs)) - {0}
    varying = set(given)
    own: dict[int, int] = {}  # memory of the recording's: which call made it, while there is nothing in it; else -1
    kept: dict[int, Step] = {}
    for i, call in enumerate(calls):
        func, args, kwargs, out = call
        what = kind(func)
        if what.foreign:
            raise RefusedError(what.name)
        if what.makes:
            own[memory(out)] = i
            continue
        reads = [memory(t) for t in (tensors((*args, *kwargs.values())) if kwargs else tensors(args))]
        live = not varying.isdisjoint(reads)
        if live and what.name in INDEXED and any(t.dtype in MASKS and memory(t) in varying for t in tensors(args[1])):
            raise RefusedError(what.name)  # how many they are decides a shape
        if what.writes:
            target = reads[0]
            if not what.known or target in given:
                raise RefusedError(what.name)
            if not target:
                continue
            if target not in varying:
                if target not in own or (live and own[target] < 0):  # another's, or a constant
                    raise RefusedError(what.name)
                if not live:
                    own[target] = -1
                    continue
                made = calls[own[target]]
                kept[own[target]] = Step(made, kind(made[0]), [], target)
                varying.add(target)
            kept[i] = Step(call, what, reads, target)
            continue
        single = isinstance(out, Tensor)
        results = [memory(out)] if single else [memory(t) for t in tensors((out,))]
        new = [name for name in results if name not in reads]  # the others are views
        for name in new:
            own[name] = -1
        if not live or what.name in SHAPES or (results and not any(new)):
            continue
        if not what.known or not single:
            raise RefusedError(what.name)
        varying.add(new[0])
        kept[i] = Step(call, what, reads, new[0])
    return [kept[i] for i in sorted(kept)], varying


def _needed(steps: list[Step], outputs: set[int]) -> tuple[list[Step], list[list[int]]]:
    """The steps that write to memory which is read afterwards, and beside each the memory that none of the later ones
    reads."""
    wanted, kept, ended = set(outputs), [], []
    for step in reversed(steps):
        if step.out in wanted:
            last = {step.out, *step.reads} - wanted
            wanted |= last
            kept.append(step)
            ended.append(list(last))
    return kept[::-1], ended[::-1]


class Memory:
    """The tape's own memory in the place of the recording's."""

    def __init__(self, names: Names, varying: set[int]) -> None:
        self.names, self.varying = names, varying
        self.places: dict[int, tuple[Tensor, list]] = {}  # and where each goes when it is given back
        self.spare: dict[tuple, list[Tensor]] = {}
        self.views: dict[int, Tensor] = {}  # by the recording's tensor

    def take(self, t: Tensor) -> None:
        """Sizes differ by a 16th or so, that memory may be used again."""
        dtype, device, size = t.dtype, t.device, t.untyped_storage().nbytes() // t.itemsize
        step = 2 ** max(0, size.bit_length() - 4)
        size = -(-size // step) * step
        spare = self.spare.setdefault((size, dtype, device), [])
        place = spare.pop() if spare else torch.empty(size, dtype=dtype, device=device)
        self.places[self.names(t)] = place, spare

    def give_back(self, name: int) -> None:
        place, spare = self.places.get(name, (None, []))
        spare.append(place)

    def __call__(self, t: Any) -> Any:
        """The tensor in the place of t, which may stand in a list."""
        if isinstance(t, Tensor):
            mine = self.views.get(id(t))
            if mine is None:
                mine = self.views[id(t)] = self._view(t)
            return mine
        return [self(each) for each in t] if isinstance(t, (list, tuple)) else t

    def _view(self, t: Tensor) -> Tensor:
        name = self.names(t)
        if name not in self.varying:
            return t.detach()
        place, _ = self.places[name]
        if place.dtype != t.dtype or t.layout != torch.strided or t.is_conj() or t.is_neg():
            raise RefusedError("memory that is read in another way than it is written")
        return place.as_strided(t.shape, t.stride(), t.storage_offset())


def _operation(step: Step, at: Memory) -> list[Callable]:
    """The step on the tape's memory."""
    (func, args, kwargs, out), what, _, _ = step
    name, result = what.name, at(out)
    if what.makes:
        return [result.zero_] if name in ZEROS else []
    given, options = [at(a) for a in args], {key: at(value) for key, value in kwargs.items()} if kwargs else {}
    if name in COPIES:
        return [partial(result.copy_, given[-1])]
    if name in PLACES:  # zeros but for a view
        return [result.zero_, partial(PLACES[name](result, *given[2:]).copy_, given[0])]
    if what.writes:
        return [partial(func, *given, **options)]
    if name in INTO and not (name in TOTALS and len(given) == 1) and "dtype" not in options:
        return [partial(getattr(torch, name.removeprefix("aten::")), *given, **options, out=result)]
    return [partial(_copied, result, func, given, options)]


def _copied(result: Tensor, func: Callable, given: list, options: dict) -> None:
    result.copy_(func(*given, **options))


def _tape(calls: list[Call], inputs: Sequence[Tensor], held: Sequence[Tensor], outputs: Sequence[Any]) -> Tape:
    names, given = Names(), (*inputs, *held)
    steps, varying = _depending(calls, names, given)
    pinned = set(map(names, (*given, *tensors(outputs))))
    steps, ended = _needed(steps, pinned)
    at = Memory(names, varying)
    for t in given:
        at.take(t)
    mine, kept, run = [at(t) for t in inputs], [at(t) for t in held], []
    for step, last in zip(steps, ended, strict=True):
        if step.out not in at.places:
            at.take(step.call[3])
        run += _operation(step, at)
        for name in last:
            at.give_back(name)
    return Tape(mine, kept, run, [at(t) for t in outputs])
