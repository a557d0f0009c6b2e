"""One jitted entry for calls whose arguments mix arrays with functions and Python values.

Array leaves and Python floats are traced, and so are those that a `functools.partial` binds; every other leaf (ints
that set a shape, strings) is part of the key, and of a function what it reads from outside (`contents.py`). So an eager
`hessian(fun, k)(x)` in a loop compiles once, new arrays never retrace, and a changed closure does.

What is compiled for a function is forgotten with it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

from bandhess_common.dtypes import native

from .contents import Contents, owner
from .kernels import cpu_kernels

PROGRAMS = 32  # kept for one function: closures may change for ever
QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 4}
"""What XLA:CPU compiles a long program with in half the time; it runs as fast where kernels do most of the work. LLVM
takes a fifth less for functions in four modules than in 32, as many as there are by default."""


@functools.cache
def _quick() -> dict | None:
    """Options of a quick compilation, None where this XLA has none."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=QUICK)()
    except Exception:  # options come and go with jaxlib's versions
        return None
    return QUICK


@functools.cache
def _zero() -> Callable[[], Any]:
    return jax.jit(lambda: 0)


def _is_outermost() -> bool:
    """Whether no program is being traced: another one's part has no options of its own."""
    return not isinstance(_zero()(), jax.core.Tracer)


class _Static:
    """The leaves that are not traced, as one static argument: equal where the numbers are."""

    __slots__ = ("leaves", "number")

    def __init__(self, number: int, leaves: list) -> None:
        self.number, self.leaves = number, leaves

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self.number == other.number


class _Entry:
    """The programs of one function."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}  # of what the static leaves are
        self.known: dict[Hashable, Any] = {}  # what `Program.shape_of` found
        self.spare: dict[Hashable, list[tuple]] = {}  # memory for a program's state
        self.count = itertools.count()
        self.moving: set[Hashable] = set()  # places that the function itself changes as it is called: counters, logs
        self.concrete = False  # it needs the values that a partial binds
        self._start()

    def _start(self) -> None:
        traced: list[bool] = []

        def run(
            core: Callable, options: Hashable, treedef: Any, static: _Static, arrays: list, state: tuple, more: tuple
        ) -> Any:
            traced.append(True)
            rest = iter(arrays)
            leaves = [next(rest) if leaf is _ARRAY else leaf for leaf in static.leaves]
            return core(options, *jax.tree.unflatten(treedef, leaves), *state, *more)

        # keep_unused: an argument that no result depends on still says on which device to run.
        jitted = functools.partial(jax.jit, run, static_argnums=(0, 1, 2, 3), keep_unused=True, donate_argnums=5)
        self.run, self.run_quick = jitted(), functools.cache(lambda: jitted(compiler_options=_quick()))
        self.traced = traced

    def run_as(self, quick: bool) -> Callable:
        if not (quick and _is_outermost()):
            return self.run

        def run(*args: Any) -> Any:
            try:
                return self.run_quick()(*args)
            except ValueError as error:  # by a tracer that no one saw, it is a part of another program after all
                if "compiler_options" not in str(error):
                    raise
                return self.run(*args)

        return run

    def key(self, contents: Contents) -> Hashable:
        reads = contents.reads
        return contents.keys, *([read for read in reads if read[0] not in self.moving] if self.moving else reads)

    def number(self, contents: Contents) -> int:
        key = self.key(contents)
        number = self.numbers.get(key)
        if number is None:
            if len(self.numbers) >= PROGRAMS:
                self.numbers.clear()
                self.known.clear()
                self.spare.clear()
                self._start()
            number = self.numbers[key] = next(self.count)
        return number

    def settle(self, before: Contents, after: Contents) -> None:
        """A trace changed these contents itself, or its callbacks did as it ran: no reason to trace again."""
        key, then = self.key(before), dict(after.reads)
        moved = {place for place, read in before.reads if then.pop(place, None) != read} | then.keys()
        if moved and key in self.numbers:
            self.moving |= moved
            self.numbers[self.key(after)] = self.numbers.pop(key)


class _Entries:
    """An entry for every owner, which dies with it."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[weakref.ref, _Entry]] = {}

    def of(self, thing: Any) -> _Entry:
        number = id(thing)
        if number not in self.entries:
            forget = lambda _: self.entries.pop(number, None)  # noqa: E731
            self.entries[number] = weakref.ref(thing, forget), _Entry()
        return self.entries[number][1]


_ARRAY = object()
_entries = _Entries()
_without_function = _Entry()


@jax.tree_util.register_pytree_node_class
class _Open:
    """A partial whose function and arguments are leaves of their own. It unflattens into a partial."""

    def __init__(self, partial: functools.partial) -> None:
        self.parts = (partial.func, partial.args, partial.keywords)

    def tree_flatten(self) -> tuple[tuple, None]:
        return self.parts, None

    @staticmethod
    def tree_unflatten(_: None, parts: tuple) -> functools.partial:
        return functools.partial(parts[0], *parts[1], **parts[2])


def _is_partial(leaf: Any) -> bool:
    return isinstance(leaf, functools.partial)


@functools.lru_cache(maxsize=4096)
def _is_array_type(kind: Any) -> bool:
    return issubclass(kind, (jax.Array, jax.core.Tracer, np.ndarray, np.generic, float, complex))


def _is_array(leaf: Any) -> bool:
    kind: Any = type(leaf)
    return _is_array_type(kind)


class Program:
    """`(*state, *more) -> core(options, *operands, *state, *more)`, all being pytrees of arrays. A state, at most one,
    is used up: its memory may become the result's."""

    def __init__(self, entry: _Entry, core: Callable, options: Hashable, leaves: list, treedef: Any) -> None:
        self.entry, self.core, self.options, self.leaves, self.treedef = entry, core, options, leaves, treedef
        self.arrays = [native(leaf) for leaf in leaves if _is_array(leaf)]
        self.static = [_ARRAY if _is_array(leaf) else leaf for leaf in leaves]
        self.contents = Contents.of(self.static)
        self.traced = self.contents.traced
        try:
            hash((options, treedef))
            self.number: int | None = entry.number(self.contents)
        except TypeError:  # an unhashable leaf or option has no key: run it as it stands
            self.number = None

    @property
    def spare(self) -> list[tuple] | None:
        """Memory for a state that the program uses up, if it was left here by a call before."""
        return None if self.number is None or self.traced else self.entry.spare.setdefault(self._key(self.core), [])

    def _key(self, core: Callable) -> Hashable:
        shapes = ((np.shape(a), getattr(a, "dtype", type(a))) for a in self.arrays)
        # None and the arrays' places are in the tree alone. A state may be that of the kernels.
        return core, self.options, self.treedef, self.number, cpu_kernels(), *shapes

    def shape_of(self, core: Callable) -> Any:
        """The shapes that `core(options, *operands)` returns, found once for these functions and shapes."""
        key = self._key(core)
        known = self.entry.known if self.number is not None and not self.traced else {}
        if key not in known:
            rest = iter(self.arrays)
            leaves = [next(rest) if leaf is _ARRAY else leaf for leaf in self.static]
            known[key] = jax.eval_shape(lambda: core(self.options, *jax.tree.unflatten(self.treedef, leaves)))
        return known[key]

    def __call__(self, *state: Any, more: tuple = (), quick: bool = False) -> Any:
        """quick: compiled with `QUICK`."""
        if self.number is None:
            return self.core(self.options, *jax.tree.unflatten(self.treedef, self.leaves), *state, *more)
        static, entry = _Static(self.number, self.static), self.entry
        entry.traced.clear()
        try:
            out = entry.run_as(quick and not self.traced)(
                self.core, self.options, self.treedef, static, self.arrays, state, more
            )
        finally:
            static.leaves = []  # JAX keeps this object
        if entry.traced and self.contents.reads:
            jax.block_until_ready(out)
            jax.effects_barrier()
            entry.settle(self.contents, Contents.of(self.static))
        return out


class _Either:
    """The program to which the arrays of partials are operands; where their values are needed, constants."""

    def __init__(self, operands: Program, constants: Callable[[], Program]) -> None:
        self.operands, self.constants, self.traced = operands, constants, operands.traced

    @property
    def spare(self) -> list[tuple] | None:
        return self.operands.spare

    def shape_of(self, core: Callable) -> Any:
        return self.operands.shape_of(core)

    def __call__(self, *state: Any, **options: Any) -> Any:
        entry = self.operands.entry
        if not entry.concrete:
            # Among these errors are those that JAX raises where it has no value.
            with contextlib.suppress(TypeError, AttributeError, IndexError):
                return self.operands(*state, **options)
        out = self.constants()(*state, **options)
        entry.concrete = True
        return out


def prepare(core: Callable, options: Hashable, *operands: Any) -> Program | _Either:
    """`core(options, *operands)` as a `Program`, compiled once per core, options, and what the operands are apart from
    their arrays: that is looked at here."""
    leaves, treedef = jax.tree.flatten(operands, is_leaf=_is_partial)
    function = next(filter(callable, leaves), None)
    entry = _without_function if function is None else _entries.of(owner(function))
    if entry.concrete or not any(map(_is_partial, leaves)):
        return Program(entry, core, options, leaves, treedef)
    opened = jax.tree.unflatten(treedef, [_Open(leaf) if _is_partial(leaf) else leaf for leaf in leaves])
    traced = Program(entry, core, options, *jax.tree.flatten(opened))
    return _Either(traced, lambda: Program(entry, core, options, leaves, treedef))


def jit_call(core: Callable, options: Hashable, *operands: Any) -> Any:
    """`core(options, *operands)`, compiled as `prepare` says."""
    return prepare(core, options, *operands)()
