"""A computation written down while it runs, and run again for other inputs: its tensor operations alone.

An evaluation of a function's derivatives spends most of its time beside the arithmetic: on autograd's graph, on vmap's
layers, on memory for each result, on Python. What is left of all that is a list of ATen's operations, the same each
time. A `Recorder` keeps that list, of which a `Tape` is made,

    with Recorder() as recorder:                 tape(a, b)  ->  [c, d]  for other values of a, b
        c, d = ...  # of a and b
    tape = tape_of(recorder, [a, b], [c, d])

without what c and d do not need or what was done before, each operation writing into memory that was chosen beforehand,
an operand's or other that is needed no more; views are made once, and so is what does not depend on a and b.

A tape is right where the list depends on nothing but shapes. None is made where values are read (`.item()`, `if x > 0`,
NumPy), numbers drawn, tensors from elsewhere written to, much memory kept, or an operation is met that is not known to
be harmless. What else decides the list, such as a counter in Python, no recorder can see: the user of a tape compares
results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .arithmetic import compiled
from .parts import PLACES, Sum, merged, view_of
from .recorder import COPIES, INTO, TOTALS, ZEROS, Call, Recorder, RefusedError, tensors
from .steps import Names, Step, depending, needed, shared

MOST = 20000  # operations


class Tape:
    """Called with inputs as at first in shape and type, gives the outputs; what was no tensor stays as it was. Further
    inputs are held from one call to the next."""

    def __init__(
        self, inputs: list[Tensor], held: list[Tensor], run: list[Callable], outputs: list[Any], nbytes: int
    ) -> None:
        self.inputs, self.held, self.run, self.outputs = inputs, held, run, outputs
        self.nbytes = nbytes  # of memory of its own

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
    recorder: Recorder,
    inputs: Sequence[Tensor],
    outputs: Sequence[Any],
    held: Sequence[Tensor] = (),
    fixed: Sequence[Tensor] = (),
) -> Tape | None:
    """outputs as a function of inputs and held; None where they are not one of tensors alone, or where a first run does
    not give them again, to the last bit. fixed: tensors that never change. It empties the recorder."""
    calls, recorder.calls = recorder.calls, []
    if recorder.refused or len(calls) > MOST:
        return None
    with suppress(RefusedError, TypeError, RuntimeError):  # of an operation that takes other arguments than are known
        tape = _tape(calls, inputs, held, outputs, fixed)
        tape.hold(held)
        if same(tape(*inputs), outputs):
            return tape
    return None


def same(these: Sequence[Any], those: Sequence[Any]) -> bool:
    """To the last bit; a NaN is not."""
    return all(a is b or (a is not None and torch.equal(a, b)) for a, b in zip(these, those, strict=True))


class Memory:
    """The tape's own memory in the place of the recording's."""

    def __init__(self, names: Names, varying: set[int], fixed: set[int]) -> None:
        self.names, self.varying, self.fixed = names, varying, fixed
        self.copies: dict[tuple, Tensor] = {}
        self.places: dict[int, tuple[Tensor, list]] = {}  # and where each goes when it is given back
        self.spare: dict[tuple, list[Tensor]] = {}
        self.nbytes = 0
        self.views: dict[int, Tensor] = {}  # by the recording's tensor

    def take(self, t: Tensor) -> None:
        """Sizes differ by a 16th or so, that memory may be used again."""
        dtype, device, size = t.dtype, t.device, t.untyped_storage().nbytes() // t.itemsize
        step = 2 ** max(0, size.bit_length() - 4)
        size = -(-size // step) * step
        spare = self.spare.setdefault((size, dtype, device), [])
        if spare:
            place = spare.pop()
        else:
            place = torch.empty(size, dtype=dtype, device=device)
            self.nbytes += place.nbytes
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
        if name in self.fixed and not t.is_contiguous() and 0 not in t.stride():  # a column, which is read by strides
            return self.copies.setdefault((name, self.names.geometry(t)), t.detach().contiguous())
        if name not in self.varying:
            return t.detach()
        place, _ = self.places[name]
        if place.dtype != t.dtype or t.layout != torch.strided or t.is_conj() or t.is_neg():
            raise RefusedError("memory that is read in another way than it is written")
        return place.as_strided(t.shape, t.stride(), t.storage_offset())


def _inherits(step: Step, operand: Tensor, others: list[Tensor], at: Memory, ended: list[int]) -> bool:
    """Whether the step's result now stands where operand did, which is needed no more, nor are views of it."""
    name, place = at.names(operand), at.names.geometry(step.call[3])
    if name not in ended or name not in at.places or at.names.geometry(operand) != place:
        return False
    if any(at.names(t) == name and at.names.geometry(t) != place for t in others):
        return False
    at([operand, *others])  # their views, while the memory has this name
    ended.remove(name)
    at.places[step.out] = at.places.pop(name)
    return True


def _sum(step: Step, terms: Sum, at: Memory, ended: list[int]) -> list[Callable]:
    """The parts are added where the rest stands, if that can be."""
    out, rest = step.call[3], terms.rest
    run: list[Callable] = []
    if rest is None:
        at.take(out)
        run = [at(out).zero_]
    elif not step.kind.writes and (
        any(at.names(part.source) == at.names(rest) for part in terms.parts) or not _inherits(step, rest, [], at, ended)
    ):
        at.take(out)
        run = [partial(at(out).copy_, at(rest))]
    return run + [partial(part.view(at(out)).add_, at(part.source)) for part in terms.parts]


def _place(step: Step, at: Memory, ended: list[int]) -> None:
    """Memory for the step's result: an operand's, where numbers follow one by one, which cache has at hand."""
    _, args, _, out = step.call
    if step.kind.pointwise:
        operands = tensors(args)
        if any(_inherits(step, t, operands, at, ended) for t in operands):
            return
    at.take(out)


def _operation(step: Step, at: Memory) -> list[Callable]:
    """The step on the tape's memory."""
    (func, args, kwargs, out), what, _, _ = step
    name, result = what.name, at(out)
    if what.makes:
        return [result.zero_] if name in ZEROS else []
    given, options = [at(a) for a in args], {key: at(value) for key, value in kwargs.items()} if kwargs else {}
    if name in COPIES:
        return [partial(result.copy_, given[-1])]
    if name in PLACES and (view := view_of(step.call)) is not None:  # zeros but for a view
        return [result.zero_, partial(view(result).copy_, given[0])]
    if what.writes:
        return [partial(func, *given, **options)]
    if name == "aten::rsub" and len(given) == 2 and not options:  # it has no argument `out`
        return [partial(torch.neg, given[0], out=result), partial(result.add_, given[1])]
    if name in INTO and not (name in TOTALS and len(given) == 1) and "dtype" not in options:
        return [partial(getattr(torch, name.removeprefix("aten::")), *given, **options, out=result)]
    return [partial(_copied, result, func, given, options)]


def _copied(result: Tensor, func: Callable, given: list, options: dict) -> None:
    result.copy_(func(*given, **options))


def _tape(
    calls: list[Call], inputs: Sequence[Tensor], held: Sequence[Tensor], outputs: Sequence[Any], fixed: Sequence[Tensor]
) -> Tape:
    names, given = Names(), (*inputs, *held)
    steps, varying = depending(calls, names, given)
    needs = (*given, *tensors(outputs))
    steps = shared(needed(steps, set(map(names, needs)))[0], names)
    pinned = set(map(names, needs))  # by names that `shared` may have changed
    steps, ended = needed(merged(steps, names, pinned), pinned)
    at = Memory(names, varying, set(map(names, fixed)))
    for t in given:
        at.take(t)
    mine, kept, run = [at(t) for t in inputs], [at(t) for t in held], []
    for step, last in zip(steps, ended, strict=True):
        if isinstance(step.call[0], Sum):
            run += _sum(step, step.call[0], at, last)
        else:
            if step.out not in at.places:
                _place(step, at, last)
            run += _operation(step, at)
        for name in last:
            at.give_back(name)
    run = compiled(run, [*mine, *kept, *fixed, *at.copies.values(), *(place for place, _ in at.places.values())])
    return Tape(mine, kept, run, [at(t) for t in outputs], at.nbytes)
