"""Whether a function does now what it did when its derivatives were written down.

Derivatives follow from the operations that a function puts its inputs through, and from how autograd recorded them.
A `Guard` keeps both of one run, and compares another run with them:

    each operation, its numbers, and where its tensors come from: an input, an earlier operation, or elsewhere
    the names of the graph's nodes, and their edges
    the values of the tensors from elsewhere: constants, buffers, what a closure holds

So a closure's changed number shows, a branch taken otherwise, a changed buffer, a `detach`, though the results of the
two runs may be equal (a weight of what is 0). What runs in a user's own backward, or a hook, does not: such functions
have no guard, and none that aliases an input in another way than through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .autograd import nodes, user_defined
from .recorder import Recorder, RefusedError, kind

Function = Callable[[Tensor], Sequence[Tensor]]


class Guard(NamedTuple):
    calls: list
    graph: list
    outside: list[Tensor]

    def own(self) -> Guard:
        """With memory of its own."""
        return self._replace(outside=[t.detach().clone() for t in self.outside])

    def holds(self, other: Guard | None) -> bool:
        """Whether the function does the same as in another run."""
        return (
            other is not None
            and self.calls == other.calls
            and self.graph == other.graph
            and all(map(_alike, self.outside, other.outside))
        )


def guard_of(recorder: Recorder, inputs: Sequence[Tensor], found: Sequence[Tensor]) -> Guard | None:
    """Of the function whose operations alone have been recorded; found, with its graph, is what it made of the inputs.
    The guard shares memory with the tensors from elsewhere."""
    if recorder.refused or recorder.hooked:
        return None
    with suppress(RefusedError, RuntimeError):  # of tensors without memory
        places = _Places(inputs)
        calls = [places.line(*call) for call in recorder.calls]
        given = {t.untyped_storage().data_ptr() for t in inputs}
        if all(t.untyped_storage().data_ptr() not in given for t in places.outside if t.numel()):
            heads = [(places.known[places.name(t)], *places.name(t)[1:]) for t in inputs]
            return Guard([heads, *calls], _wiring(found, inputs), places.outside)
    return None


def guarded(function: Function, x: Tensor, held: Sequence[Tensor]) -> tuple[Guard | None, Sequence[Tensor]]:
    """Of function at x, which it is given, and held, which it knows; and what it returns there, without a graph."""
    x = x.clone()
    with Recorder() as recorder, torch.enable_grad():
        x = x.detach().requires_grad_()
        found = function(x)
    return guard_of(recorder, [x, *held], found), [out.detach() for out in found]


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)


class _Places:
    """Numbers of tensors, in the order in which they are met. One is known by its memory, as views by autograd are
    other objects than those that were recorded."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.known: dict[tuple, int] = {}
        self.outside: list[Tensor] = []
        for t in inputs:
            self.known.setdefault(self.name(t), len(self.known))

    @staticmethod
    def name(t: Tensor) -> tuple:
        return t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_conj(), t.is_neg()

    def line(self, func: Any, args: tuple, kwargs: dict | None, out: Any) -> tuple:
        if kind(func).foreign:
            raise RefusedError(str(func))
        given = self.read(args), [(key, self.read(value)) for key, value in kwargs.items()] if kwargs else None
        return func, *given, self.made(out)

    def read(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            name = self.name(value)
            if name not in self.known:
                self.known[name] = len(self.known)
                self.outside.append(value)
            return Tensor, self.known[name]
        if isinstance(value, (list, tuple)):
            return [self.read(each) for each in value]
        return (type(value), repr(value)) if isinstance(value, (int, float, complex)) else value

    def made(self, out: Any) -> Any:
        if isinstance(out, Tensor):
            return self.known.setdefault(self.name(out), len(self.known)), out.dtype, out.device
        return [self.made(each) for each in out] if isinstance(out, (list, tuple)) else (type(out), repr(out))


def _wiring(found: Sequence[Tensor], inputs: Sequence[Tensor]) -> list:
    """The graph: of each node its name and edges, of leaves which input they are. It keeps no node, nor what that
    holds."""
    edges: dict[Any, tuple] = {}
    for out in found:
        if out.grad_fn is not None:
            edges |= {node: following for node, following in nodes(out.grad_fn) if node not in edges}
    if any(map(user_defined, edges)):
        raise RefusedError("a user's own backward")
    numbers = {None: -1} | {node: i for i, node in enumerate(edges)}
    leaf = {id(t): i for i, t in enumerate(inputs)}
    lines: list = [
        (node.name(), leaf.get(id(getattr(node, "variable", None))), [(numbers[other], i) for other, i in following])
        for node, following in edges.items()
    ]
    return lines + [(numbers[out.grad_fn], out.output_nr) for out in found]
