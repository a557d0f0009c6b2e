"""Linear programs with their coefficients multiplied out.

A product with a derivative, as `jax.linearize` leaves it, goes along the function's own operations: for a chain of
elementwise ones it multiplies by one derivative after the other, again for every vector. All that lies between two
operations that move entries (slices, pads, sums) is a small matrix whose entries are arrays. `fold` forms these once,
so that every vector costs one multiplication per entry of them, where that makes the product cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.extend.core import ClosedJaxpr, Literal

from ._fusion import bind

WORTH = 0.75  # of the multiplications and additions, at most, for the coefficients to be formed


class _Sum(NamedTuple):
    """A sum of coefficient times node: node -> coefficient, None for 1."""

    parts: dict[int, Any]

    def times(self, factor: Callable[[Any], Any]) -> _Sum:
        return _Sum({node: factor(c) for node, c in self.parts.items()})

    def plus(self, other: _Sum) -> _Sum:
        parts = dict(self.parts)
        for node, c in other.parts.items():
            parts[node] = _one(parts[node]) + _one(c) if node in parts else c
        return _Sum(parts)


class _Step(NamedTuple):
    """An equation that is not elementwise, its operands, and the nodes that its results are."""

    equation: Any
    operands: list[Any]
    nodes: range


def _one(c: Any) -> Any:
    return 1.0 if c is None else c


class _Program:
    """The folded program: node 0 is the argument."""

    def __init__(self, closed: ClosedJaxpr) -> None:
        self.steps: list[_Step] = []
        self.seen: dict[Any, range] = {}
        self.count = 1
        self.before = 0  # entries multiplied or added by the program as it was
        self.alive: list[Any] = []
        self.outputs = self._walk(closed, [_Sum({0: None})])

    def _walk(self, closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
        values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        values |= zip(closed.jaxpr.invars, args, strict=True)
        read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]  # noqa: E731
        for equation in closed.jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            if not any(isinstance(operand, _Sum) for operand in operands):
                results = bind(equation, operands)
            elif equation.primitive.name in ("jit", "pjit"):
                results = self._walk(equation.params["jaxpr"], operands)
            else:
                results = self._linear(equation, operands)
            values |= zip(equation.outvars, results, strict=True)
        return [read(atom) for atom in closed.jaxpr.outvars]

    def _linear(self, equation: Any, operands: list[Any]) -> list[Any]:
        name, first, *rest = equation.primitive.name, *operands
        summed = [isinstance(operand, _Sum) for operand in operands]
        size = equation.outvars[0].aval.size
        if name in ("add", "add_any", "sub") and all(summed):
            self.before += size
            other = rest[0].times(lambda c: -_one(c)) if name == "sub" else rest[0]
            return [first.plus(other)]
        if name == "neg":
            self.before += size
            return [first.times(lambda c: -_one(c))]
        if name == "mul" and sum(summed) == 1:
            self.before += size
            sums, factor = (first, rest[0]) if summed[0] else (rest[0], first)
            return [sums.times(lambda c: factor if c is None else c * factor)]
        if name == "div" and summed == [True, False]:
            self.before += size
            return [first.times(lambda c: _one(c) / rest[0])]
        return self._step(equation, operands)

    def _step(self, equation: Any, operands: list[Any]) -> list[Any]:
        names = tuple(
            tuple((node, id(c)) for node, c in operand.parts.items()) if isinstance(operand, _Sum) else id(operand)
            for operand in operands
        )
        key: Any = (equation.primitive, names, tuple(sorted(equation.params.items(), key=lambda item: item[0])))
        try:
            nodes = self.seen.get(key)
        except TypeError:
            key, nodes = None, None
        if nodes is None:
            nodes = range(self.count, self.count + len(equation.outvars))
            self.count = nodes.stop
            self.steps.append(_Step(equation, operands, nodes))
            if key is not None:
                self.seen[key] = nodes
        self.alive.append(operands)  # and with them their ids
        return [_Sum({node: None}) for node in nodes]

    def run(self, x: Array) -> list[Array]:
        values: dict[int, Any] = {0: x}
        formed: dict[int, Any] = {}

        def form(value: Any) -> Any:
            if not isinstance(value, _Sum):
                return value
            if id(value) not in formed:
                parts = [values[node] if c is None else c * values[node] for node, c in value.parts.items()]
                formed[id(value)] = sum(parts[1:], parts[0])
            return formed[id(value)]

        for equation, operands, nodes in self.steps:
            values |= zip(nodes, bind(equation, list(map(form, operands))), strict=True)
        return list(map(form, self.outputs))

    def cost(self, x: Array) -> int:
        """Entries multiplied or added."""
        equations = jax.make_jaxpr(self.run)(x).jaxpr.eqns
        return sum(e.outvars[0].aval.size for e in equations if e.primitive.name in ("mul", "add", "add_any", "neg"))


def fold(fun: Callable[[Array], Any], x: Array) -> Callable[[Array], Any]:
    """`fun`, linear in an array like x, as the file explains."""
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(x)
    if closed.effects:
        return fun
    program = _Program(closed)
    if any(not isinstance(out, _Sum) for out in program.outputs):
        return fun
    if program.cost(x) > WORTH * program.before:
        return fun
    return lambda x: jax.tree.unflatten(jax.tree.structure(shape), program.run(x))
