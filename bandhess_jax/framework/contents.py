"""What a function reads from outside, as a key: a compiled program holds the values that it read when it was traced.

A function reads the cells of its closure, its defaults and the globals that its code names; a bound method the
attributes of its object, too; a helper what it reads in turn. `describe` lists these reads, each with a key:

    numbers, strings                    their value
    NumPy arrays                        a hash of all their bytes
    tuples, lists, dicts                the keys of what they hold
    functions, objects                  their identity, and a read for all that they read or hold
    JAX arrays, modules, classes, ...   their identity: their contents are not looked at

Not seen are attributes of modules, what libraries read from their own globals, arrays of objects, sets, files, and
whatever lies past the first `MOST` values.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

MOST = 512  # values looked at
SHORT = 2**13  # bytes: Python's own hash is as fast up to here
BLOCK = 4096
_WEIGHTS = np.random.default_rng(0).integers(-(2**62), 2**62, BLOCK) | 1
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_Jitted = type(jax.jit(lambda: None))

Reads = list[tuple[Hashable, Hashable]]  # (place, key)


class Same:
    """An object as a key: equal to itself alone, and to nothing once it is gone. Held weakly where that is possible."""

    __slots__ = ("get", "number")

    def __init__(self, thing: Any) -> None:
        self.number = id(thing)
        try:
            self.get: Callable[[], Any] = weakref.ref(thing)
        except TypeError:
            self.get = lambda: thing

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.number == other.number and self.get() is other.get()


def _array(a: np.ndarray) -> Hashable:
    """A key of an array's contents. Long ones: their 64-bit words times odd weights, modulo 2^64, block by block, at
    the speed of memory; a changed word always shows, several changed ones but for a chance of 2^-64."""
    if a.dtype.hasobject:
        return Same(a)
    if a.nbytes <= SHORT:
        return a.shape, a.dtype, a.tobytes()
    data = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    words = data[: data.size // 8 * 8].view(np.int64)
    blocks, rest = words[: words.size // BLOCK * BLOCK].reshape(-1, BLOCK), words[words.size // BLOCK * BLOCK :]
    sums = (blocks @ _WEIGHTS).tobytes(), int(rest @ _WEIGHTS[: rest.size]), data[words.size * 8 :].tobytes()
    return a.shape, a.dtype, hash(sums)


@functools.lru_cache(maxsize=4096)
def _code(code: types.CodeType) -> tuple[tuple[str, ...], bool]:
    """The names that the code, its inner functions included, may look up among the globals; is it a library's?"""

    def names(code: types.CodeType) -> Iterator[str]:
        yield from code.co_names
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from names(constant)

    return tuple(dict.fromkeys(names(code))), code.co_filename.startswith(_LIBRARIES)


@functools.lru_cache(maxsize=4096)
def _has_contents(kind: type) -> bool:
    """Whether objects of this class are looked into: those of the user's classes."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    ours = kind.__module__.partition(".")[0] in ("bandhess_jax", "bandhess_common")
    library = kind.__module__ == "builtins" or ours or (file is not None and file.startswith(_LIBRARIES))
    return kind is types.SimpleNamespace or not library


@functools.lru_cache(maxsize=4096)
def _is_opaque(kind: type) -> bool:
    """By class, since to ask a value whether it is a `jax.Array` takes microseconds."""
    return issubclass(kind, (type, jax.Array, jax.core.Tracer))


def _is_value(thing: Any) -> bool:
    """Whether it is hashable, and equal by value (a frozen dataclass)."""
    try:
        return type(thing).__eq__ is not object.__eq__ and hash(thing) is not None
    except TypeError:
        return False


class _Reader:
    def __init__(self, seen: set[int]) -> None:
        self.reads: Reads = []
        self.seen = seen
        self.left = MOST
        self.traced = False

    def note(self, owner: Any, name: Hashable, value: Any) -> None:
        self.reads.append(((id(owner), name), self.key(value)))

    def key(self, value: Any) -> Hashable:
        kind: Any = type(value)
        self.left -= 1
        if kind in (int, bool, str, bytes, complex, types.NoneType):
            return kind, value
        if kind is float:
            return value.hex()  # tells 0.0 from -0.0, and NaN is NaN
        if kind is np.ndarray or isinstance(value, np.generic):
            return _array(np.asarray(value))
        if kind is types.ModuleType:
            return value
        if self.left < 0 or _is_opaque(kind):
            self.traced |= issubclass(kind, jax.core.Tracer)
            return Same(value)
        if isinstance(value, (tuple, list)):
            return kind, *map(self.key, value)
        if isinstance(value, dict):
            return kind, *((self.key(name), self.key(item)) for name, item in value.items())
        return self.function(value)

    def function(self, value: Any) -> Hashable:
        if isinstance(value, types.MethodType):
            return types.MethodType, self.key(value.__func__), self.key(value.__self__)
        if isinstance(value, functools.partial):
            return functools.partial, *map(self.key, (value.func, value.args, value.keywords))
        if isinstance(value, _Jitted):
            return _Jitted, self.key(_wrapped(value))
        if id(value) not in self.seen:
            self.seen.add(id(value))
            if isinstance(value, types.FunctionType):
                self.outside(value)
                return weakref.ref(value)  # equal to itself alone, as Same, and faster
            if _has_contents(value.__class__):
                for name, item in getattr(value, "__dict__", {}).items():
                    self.note(value, name, item)
        return (type(value), value) if _is_value(value) else Same(value)

    def outside(self, function: types.FunctionType) -> None:
        """What it reads from outside, of a library's functions the closure alone."""
        names, library = _code(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self.note(function, name, cell.cell_contents)
            except ValueError:  # empty
                continue
        if library:
            return
        for name in names:
            if name in function.__globals__:
                self.note(function, (name,), function.__globals__[name])
        if function.__defaults__ or function.__kwdefaults__:
            self.note(function, (), (function.__defaults__, function.__kwdefaults__))


class Description(NamedTuple):
    key: Hashable  # of the function itself
    reads: Reads
    traced: bool  # whether it reads something that is traced


def _wrapped(jitted: Any) -> Callable:
    return jitted.__wrapped__


def describe(function: Callable, seen: set[int] | None = None) -> Description:
    """seen: what others of one key read, too; that is not read again."""
    reader = _Reader(set() if seen is None else seen)
    return Description(reader.key(function), reader.reads, reader.traced)


class Host:
    """A function that runs on the host, such as a callback: what it reads is read whenever it runs."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Contents(NamedTuple):
    """What the static leaves are."""

    keys: tuple[Hashable, ...]
    reads: Reads
    traced: bool  # whether a function reads something that is traced

    @classmethod
    def of(cls, leaves: list) -> Contents:
        keys: list[Hashable] = []
        reads: Reads = []
        traced = False
        seen: set[int] = set()
        for leaf in leaves:
            if isinstance(leaf, Host):
                keys.append(describe(leaf.function).key)
            elif callable(leaf):
                description = describe(leaf, seen)
                keys.append(description.key)
                reads += description.reads
                traced |= description.traced
            else:
                keys.append((type(leaf), leaf))  # 1 and True are equal in Python, but not to a traced program
        return cls(tuple(keys), reads, traced)


def _dies(thing: Any) -> bool:
    return bool(type(thing).__weakrefoffset__) and not _is_value(thing)


def owner(function: Callable) -> Any:
    """The object with which what was compiled for the function is to be forgotten, one that can be held weakly."""
    if isinstance(function, functools.partial):
        return owner(function.func)
    if isinstance(function, _Jitted):
        return owner(_wrapped(function))
    if isinstance(function, types.MethodType):
        bound = function.__self__
        if isinstance(bound, (types.FunctionType, types.MethodType, functools.partial, _Jitted)):
            return owner(bound)
        return bound if _dies(bound) else owner(function.__func__)
    return function if _dies(function) else type(function)
