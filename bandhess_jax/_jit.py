"""One jitted entry for calls whose arguments mix arrays with functions and Python values.

Array leaves (and Python floats) are traced; every other leaf (the objective, ints that set a shape, strings) is part
of the cache key. So an eager `hessian(fun, k)(x)` in a loop compiles once per `fun`, and new arrays never retrace.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import numpy as np


class _Static:
    """Equal only to the same type and value: 1 and True are equal in Python, but not to a traced program."""

    def __init__(self, leaf: Hashable) -> None:
        self.leaf, self.key = leaf, (type(leaf), leaf)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self.key == other.key


def _is_dynamic(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, complex))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(core: Callable, options: Hashable, treedef: Any, statics: tuple, arrays: list) -> Any:
    remaining = iter(arrays)
    leaves = [next(remaining) if static is None else static.leaf for static in statics]
    return core(options, *jax.tree.unflatten(treedef, leaves))


def jit_call(core: Callable, options: Hashable, *operands: Any) -> Any:
    """`core(options, *operands)`, compiled once per core, options and non-array content of the operands."""
    leaves, treedef = jax.tree.flatten(operands)
    statics = tuple(None if _is_dynamic(leaf) else _Static(leaf) for leaf in leaves)
    try:
        hash((options, treedef, statics))
    except TypeError:  # an unhashable callable or option has no cache key: run it as it stands
        return core(options, *operands)
    return _run(core, options, treedef, statics, [leaf for leaf in leaves if _is_dynamic(leaf)])
