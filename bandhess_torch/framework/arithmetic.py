"""Runs of a tape's operations by one compiled loop: arithmetic, number by number, between fixed places in memory.

An operation of PyTorch's takes a microsecond or two beside its arithmetic, and most of a tape's are of some hundred
numbers. Those that the kernel knows (`bandhess_common/kernels/arithmetic.h`) are joined in lists; the others stay as
they are, and so do long ones, which PyTorch shares out among threads. Results are the same to the last bit.

Operations on matrices of as many rows, such as a batch of probes, go row by row through a whole list, which keeps them
in cache. That is the same as one operation after the other if rows keep to their own memory: `_List.takes` sees to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bandhess_common.kernels import DTYPES, OPERATIONS, arithmetic

from .kernels import served

LONG = 2**17  # numbers, from where on PyTorch's own threads pay
NUMBER = 0  # in the place of the memory of a constant number
WIDE = 64  # numbers of a row, from where on rows are gone through one by one
SINGLE = ("neg", "abs", "copy")  # have one operand


def compiled(run: list[Callable], own: Sequence[Tensor]) -> list[Callable]:
    """What does the same as run, with loops in the place of operations. own: tensors whose memory is the tape's, beside
    the results of operations."""
    known = [(each, _read(each)) for each in run]
    lists, others = _Lists(), _Others({NUMBER, *map(_memory, own), *(o.places[0].memory for _, o in known if o)})
    for each, operation in known:
        if operation is None or not lists.take(others.copied(operation)):
            lists.leave(each, _touched(each))
    return others.copying + lists.all()


def _memory(t: Tensor) -> int:
    """Where what t views begins."""
    return t.data_ptr() - int(t.storage_offset()) * t.itemsize


class _Place(NamedTuple):
    """A tensor, as large as the result."""

    tensor: Tensor
    memory: int
    steps: tuple[int, ...]  # from number to number along each axis, 0 where they are all the same


class _Operation(NamedTuple):
    name: str
    places: list[_Place]  # of the result, and of two operands


def _touched(operation: Any) -> set[int]:
    """The memory that an operation reads or writes."""
    owner = getattr(getattr(operation, "func", operation), "__self__", None)
    given = owner, getattr(operation, "args", ()), getattr(operation, "keywords", {})
    return {_memory(t) for t in tree_leaves(given) if isinstance(t, Tensor)}


def _read(operation: Any) -> _Operation | None:
    """An operation of ATen's as one of the kernel's, if it is one."""
    func, args, options = (getattr(operation, name, None) for name in ("func", "args", "keywords"))
    func, given, options = func or operation, list(args or ()), dict(options or {})
    if isinstance(getattr(func, "__self__", None), Tensor):
        given.insert(0, func.__self__)
    name = getattr(func, "__name__", "").split(".")[0]
    out = options.pop("out", given[0] if name.endswith("_") and given else None)
    if options or not isinstance(out, Tensor) or not 0 < out.numel() < LONG or not served(out.dtype):
        return None
    name, given = _in_the_kernel_s_words(name.rstrip("_"), given)
    if name not in OPERATIONS or len(given) != (1 if name in SINGLE else 2):
        return None
    places = [_place(t, out) for t in (out, given[0], given[-1])]
    return None if None in places else _Operation(name, places)  # type: ignore[arg-type]


def _in_the_kernel_s_words(name: str, given: list) -> tuple[str, list]:
    if name == "zero":
        return "copy", [0.0]
    if name == "copy":
        return name, given[1:]
    if name == "pow" and len(given) == 2 and isinstance(given[1], (int, float)) and given[1] in (0, 1, 2):
        return [("copy", [1.0]), ("copy", given[:1]), ("mul", given[:1] * 2)][int(given[1])]
    return name, given


def _place(t: Any, out: Tensor) -> _Place | None:
    if isinstance(t, (int, float)) and not isinstance(t, bool):
        return _Place(_number(t, math.copysign(1, t), out.dtype), NUMBER, (0,) * out.ndim)
    if not isinstance(t, Tensor) or t.dtype != out.dtype or t.ndim > out.ndim:
        return None
    plain = t.layout == torch.strided and t.device.type == "cpu" and not t.is_neg()
    return _Place(t, _memory(t), _steps(t, out.ndim)) if plain else None


@lru_cache(64)
def _number(value: float, _sign: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype, device="cpu")  # whatever the default device


def _steps(t: Tensor, ndim: int) -> tuple[int, ...]:
    """As of a tensor of so many axes that numbers are repeated along."""
    steps = [0 if size == 1 else step for size, step in zip(t.shape, t.stride(), strict=True)]
    return (*[0] * (ndim - t.ndim), *steps)


class _Others:
    """Tensors from elsewhere: copied at the begin of each run, as whose they are may take their memory away."""

    def __init__(self, own: set[int]) -> None:
        self.own, self.copying = own, list[Callable]()
        self.known: dict[tuple, Tensor] = {}

    def copied(self, o: _Operation) -> _Operation:
        return o._replace(places=[place if place.memory in self.own else self._copy(place) for place in o.places])

    def _copy(self, place: _Place) -> _Place:
        theirs, _, steps = place
        key = theirs.data_ptr(), theirs.shape, theirs.stride()
        if key not in self.known:
            self.known[key] = theirs.detach().clone(memory_format=torch.contiguous_format)
            self.copying.append(partial(self.known[key].copy_, theirs.detach()))
        mine = self.known[key]
        return _Place(mine, _memory(mine), _steps(mine, len(steps)))


def _axes(o: _Operation) -> list[list[int]] | None:
    """Rows, and two more axes: of each its size and the places' steps. None where there are more axes."""
    sizes, places = o.places[0].tensor.shape, o.places
    axes = [[size, *steps] for size, *steps in zip(sizes, *(place.steps for place in places), strict=True) if size > 1]
    rows, joined = [1, 0, 0, 0], list[list[int]]()
    if len(axes) > 1 and places[0].tensor.numel() >= WIDE * axes[0][0]:
        rows, *axes = axes
    for axis in axes:
        last = joined[-1] if joined else [0]
        if all(step == axis[0] * inner for step, inner in zip(last[1:], axis[1:], strict=False)) and joined:
            joined.pop()  # the two are one
            axis = [last[0] * axis[0], *axis[1:]]
        joined.append(axis)
    return [rows, *[[1, 0, 0, 0]] * (2 - len(joined)), *joined] if len(joined) <= 2 else None


class _List:
    """Operations on as many rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.words, self.alive = rows, list[list[int]](), list[_Operation]()
        self.touched, self.written = set[int](), set[int]()
        # How far rows of a memory are apart, -1 where that differs, and the first and last number of one that is used.
        self.spans: dict[int, tuple[int, int, int]] = {}

    def takes(self, o: _Operation, axes: list[list[int]]) -> bool:
        """Adds o, if each row of it may go before other rows of what is here."""
        out, a, b = o.places
        if self.rows > 1:
            spans = self._spans(o, axes)
            for memory in {*self.written.intersection(spans), out.memory}:
                step, first, last = spans[memory]
                if last - first >= step:
                    return False
            self.spans |= spans
        self.touched.update((out.memory, a.memory, b.memory))
        self.written.add(out.memory)
        numbers = [word for i, (t, _, _) in enumerate(o.places, 1) for word in (t.data_ptr(), *[x[i] for x in axes])]
        dtype = DTYPES[str(out.tensor.dtype).removeprefix("torch.")]
        self.words.append([OPERATIONS.index(o.name), dtype, axes[1][0], axes[2][0], *numbers])
        self.alive.append(o)
        return True

    def _spans(self, o: _Operation, axes: list[list[int]]) -> dict[int, tuple[int, int, int]]:
        """Those that o changes, with o."""
        spans: dict[int, tuple[int, int, int]] = {}
        for i, (t, memory, _) in enumerate(o.places, 1):
            first, step = int(t.storage_offset()), axes[0][i]
            last = first + sum((axis[0] - 1) * axis[i] for axis in axes[1:])
            known = spans.get(memory) or self.spans.get(memory)
            if known is not None:
                step, first, last = step if step == known[0] else -1, min(first, known[1]), max(last, known[2])
            spans[memory] = step, first, last
        return spans

    def indifferent(self, reads: set[int], writes: set[int]) -> bool:
        """Whether what reads and writes this may as well be done before."""
        return self.written.isdisjoint(reads) and writes.isdisjoint(self.touched)


class Loop:
    """A list's operations, to be done."""

    def __init__(self, of: _List) -> None:
        self.words, self.alive = np.array(of.words, np.int64), of.alive
        self.function, self.given = arithmetic(), (self.words.ctypes.data, len(self.words), of.rows)

    def __call__(self) -> None:
        self.function(*self.given)


class _Lists:
    """Makes lists of operations that come one by one. Two grow: one of single rows, and one of many, which goes after
    it."""

    def __init__(self) -> None:
        self.run: list[Callable] = []
        self.single, self.many = _List(1), _List(1)

    def take(self, o: _Operation) -> bool:
        axes = _axes(o)
        if axes is None:
            return False
        rows = axes[0][0]
        if rows == 1:
            out, *operands = (place.memory for place in o.places)
            self._close(self.many.indifferent(set(operands), {out}), single=False)
            return self.single.takes(o, axes)
        if rows == self.many.rows and self.many.takes(o, axes):
            return True
        self._close(not self.many.words, single=False)
        self.many = _List(rows)
        return self.many.takes(o, axes)

    def leave(self, operation: Callable, touched: set[int]) -> None:
        """An operation that stays as it is; touched may be written to."""
        self._close(bool(touched) and self.many.indifferent(touched, touched), single=True)
        self.run.append(operation)

    def all(self) -> list[Callable]:
        self._close(False, single=True)
        return self.run

    def _close(self, many_stays: bool, single: bool) -> None:
        """single: that of single rows ends in any case."""
        if self.single.words and (single or not many_stays):
            self.run.append(Loop(self.single))
            self.single = _List(1)
        if self.many.words and not many_stays:
            self.run.append(Loop(self.many))
            self.many = _List(1)
