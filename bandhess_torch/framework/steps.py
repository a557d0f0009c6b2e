"""Which of a recording's calls its results rest on: the steps of a tape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .recorder import INDEXED, MASKS, SHAPES, Call, Kind, RefusedError, kind, tensors


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
        self.shared: dict[int, int] = {}  # which memory holds the same
        self.places: dict[int, tuple] = {}

    def __call__(self, t: Tensor) -> int:
        """0 where t is empty."""
        name = self.known.get(id(t))
        if name is None:
            name = self.known[id(t)] = t.data_ptr() - int(t.storage_offset()) * t.itemsize if t.numel() else 0
        return self.shared.get(name, name)

    def geometry(self, t: Tensor) -> tuple:
        """How t lies in its memory, and how large that is."""
        place = self.places.get(id(t))
        if place is None:
            place = t.shape, t.stride(), t.storage_offset(), t.dtype, t.untyped_storage().nbytes()
            self.places[id(t)] = place
        return place


def depending(calls: list[Call], memory: Names, inputs: Sequence[Tensor]) -> tuple[list[Step], set[int]]:
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


def needed(steps: list[Step], outputs: set[int]) -> tuple[list[Step], list[list[int]]]:
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


def shared(steps: list[Step], names: Names) -> list[Step]:
    """The steps without those that do what an earlier one did: cos(x) in the backward of sin(x), and in that of its
    backward. names learn where their results stand."""
    writes, version = Counter(step.out for step in steps), Counter[int]()
    seen: dict[tuple, list[Call]] = {}
    kept = []
    for step in steps:
        if names.shared:
            step = step._replace(reads=[names.shared.get(name, name) for name in step.reads])
        if step.kind.writes or step.kind.makes or writes[step.out] > 1:
            version[step.out] += 1
        else:
            key = step.call[0], *step.reads, *[version[name] for name in step.reads]
            others = seen.setdefault(key, [])
            first = next((call[3] for call in others if _alike(call[1:], step.call[1:], names)), None)
            if first is not None:
                names.shared[step.out] = names(first)
                continue
            others.append(step.call)
        kept.append(step)
    return kept


def _alike(these: Any, those: Any, names: Names) -> bool:
    """Whether arguments and results are the same but for their memory."""
    if isinstance(these, Tensor) and isinstance(those, Tensor):
        return names.geometry(these) == names.geometry(those)
    if isinstance(these, (list, tuple)) and isinstance(those, (list, tuple)):
        return len(these) == len(those) and all(_alike(a, b, names) for a, b in zip(these, those, strict=True))
    if isinstance(these, dict) and isinstance(those, dict):
        return _alike(list(these.items()), list(those.items()), names)
    return type(these) is type(those) and repr(these) == repr(those)
