"""Sums with tensors that are zero but for a part, as the backwards of slices are: the part alone is added.

    p = zeros; p[1:] = a                                s = b; s[1:] += a
    s = b + p                         becomes           (in b's memory, where that is needed no more)

with the same sums, but for the sign of zeros. p must be read by that sum alone, and a be as it was until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .recorder import ZEROS, Call
from .steps import Names, Step

VIEWS = {"aten::slice_backward": torch.ops.aten.slice.Tensor, "aten::select_backward": torch.ops.aten.select.int}
PLACES = {*VIEWS, "aten::constant_pad_nd"}


class Part(NamedTuple):
    """What stands where in zeros, and the steps that put it there."""

    source: Tensor
    view: Callable[[Tensor], Tensor]
    whole: Tensor
    steps: list[int]


class Sum(NamedTuple):
    """In the place of an operation."""

    rest: Tensor | None
    parts: list[Part]


def view_of(call: Call) -> Callable[[Tensor], Tensor] | None:
    """Of call's result, the view that is not zero. None where padding adds something else, or takes away."""
    func, args, kwargs, _ = call
    view = VIEWS.get(func._schema.name)
    if view is not None:
        return lambda whole: view(whole, *args[2:])
    source, pads, *value = args
    return None if kwargs or any(value) or min(pads) < 0 else partial(_inside, source.shape, pads)


def _inside(shape: tuple, pads: list[int], whole: Tensor) -> Tensor:
    for i, before in enumerate(pads[::2]):
        whole = whole.narrow(-1 - i, before, shape[-1 - i])
    return whole


def _same_view(of: Tensor, whole: Tensor) -> Tensor:
    return whole.as_strided(of.shape, of.stride(), whole.storage_offset() + int(of.storage_offset()))


def _part(steps: list[Step], made: list[int]) -> Part | None:
    """What the steps that make a tensor put there, if they leave zeros elsewhere."""
    first = steps[made[0]]
    _, args, _, out = first.call
    if len(made) == 1 and first.kind.name in PLACES:
        view = view_of(first.call)
        return None if view is None else Part(args[0], view, out, made)
    if len(made) == 2 and first.kind.name in ZEROS and out.storage_offset() == 0:
        _, (target, source, *_), _, _ = steps[made[1]].call
        if steps[made[1]].kind.name == "aten::copy_":
            return Part(source, partial(_same_view, target), out, made)
    return None


def merged(steps: list[Step], names: Names, outputs: set[int]) -> list[Step]:
    """The steps, with a `Sum` for each that may be one."""
    reads, writes = Counter(name for step in steps for name in step.reads), dict[int, list[int]]()
    for i, step in enumerate(steps):
        writes.setdefault(step.out, []).append(i)
    parts: dict[int, Part] = {}
    for name, made in writes.items():
        # A write counts as a read of what it writes to.
        if name not in outputs and reads[name] == len(made):
            found = _part(steps, made)
            if found is not None:
                parts[name] = found
    kept: list[Step | None] = list(steps)
    for i, step in enumerate(steps):
        if step.kind.name in ("aten::add", "aten::add_") and parts.keys() & step.reads:
            total = _sum(step, i, parts, writes, names)
            for part in total.parts:
                for j in part.steps:
                    kept[j] = None
            if total.parts:
                operands = [*(part.source for part in total.parts), *([] if total.rest is None else [total.rest])]
                kept[i] = Step((total, (), None, step.call[3]), step.kind, list(map(names, operands)), step.out)
    return [step for step in kept if step is not None]


def _sum(step: Step, i: int, parts: dict[int, Part], writes: dict[int, list[int]], names: Names) -> Sum:
    """Step i as a sum of parts; of none where it cannot be one."""
    _, args, kwargs, out = step.call
    if len(args) != 2 or kwargs or not all(isinstance(t, Tensor) and _like(t, out) for t in args):
        return Sum(None, [])
    rest, taken = list(args[:1]) if step.kind.writes else [], list[Part]()
    for t in args[len(rest) :]:
        part = parts.get(names(t))
        if part is not None and names.geometry(t) == names.geometry(part.whole) and part.source.dtype == out.dtype:
            source, last = names(part.source), part.steps[-1]
            if source != step.out and last < i and not any(last < at < i for at in writes.get(source, ())):
                taken.append(part)
                continue
        rest.append(t)
    return Sum(rest[0] if rest else None, taken)


def _like(t: Tensor, out: Tensor) -> bool:
    return t.shape == out.shape and t.dtype == out.dtype
