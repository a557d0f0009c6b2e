"""One jitted entry for calls whose arguments mix arrays with functions and Python values.

Array leaves and Python floats are traced; every other leaf (the objective, ints that set a shape, strings) is part of
the cache key. So an eager `hessian(fun, k)(x)` in a loop compiles once per `fun`, and new arrays never retrace. As
with `jax.jit`, `fun` must be pure: what it reads from outside is read once, when it is traced.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import jax
import numpy as np


class _Static:
    """A leaf as a key: equal only to the same type and value (1 and True are equal in Python, but not to a traced
    program). Functions are held weakly, so that a cache entry does not keep alive what they close over."""

    def __init__(self, leaf: Hashable) -> None:
        weak = isinstance(leaf, FunctionType)
        self.get: Callable[[], Any] = weakref.ref(leaf) if weak else lambda: leaf
        self.key = (type(leaf), id(leaf) if weak else leaf)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self.key == other.key and self.get() == other.get()


def _is_dynamic(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, complex))


def _new_entry() -> Callable:
    def run(core: Callable, options: Hashable, treedef: Any, statics: tuple, arrays: list) -> Any:
        remaining = iter(arrays)
        leaves = [next(remaining) if static is None else static.get() for static in statics]
        return core(options, *jax.tree.unflatten(treedef, leaves))

    # keep_unused: an argument that no result depends on still says on which device to run.
    return jax.jit(run, static_argnums=(0, 1, 2, 3), keep_unused=True)


_shared_entry = _new_entry()
_entries: weakref.WeakKeyDictionary[FunctionType, Callable] = weakref.WeakKeyDictionary()


def jit_call(core: Callable, options: Hashable, *operands: Any) -> Any:
    """`core(options, *operands)`, compiled once per core, options and non-array content of the operands.

    Each function among the operands has its own compiled entry (the first one's serves), which dies with it.
    """
    leaves, treedef = jax.tree.flatten(operands)
    statics = tuple(None if _is_dynamic(leaf) else _Static(leaf) for leaf in leaves)
    try:
        hash((options, treedef, statics))
    except TypeError:  # an unhashable callable or option has no cache key: run it as it stands
        return core(options, *operands)
    function: Any = next((leaf for leaf in leaves if isinstance(leaf, FunctionType)), None)
    entry = _shared_entry if function is None else _entries.get(function)
    if entry is None:
        entry = _entries[function] = _new_entry()
    return entry(core, options, treedef, statics, [leaf for leaf in leaves if _is_dynamic(leaf)])
