"""The stage axis: any pytree of arrays with a common leading axis of T stages, ravelled stage by stage.

A vector `(n,)` has T = n stages of d = 1 scalar. A trajectory `(T, d)` or `{"q": (T, 3), "u": (T, 2)}` has d scalars
per stage, leaves in pytree order. A leaf may end one stage early (controls live on T - 1 intervals): its missing last
entries become *dummy* variables that couple to nothing, so that every stage has d scalars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bandhess_common.dtypes import native


class Layout(NamedTuple):
    """How a tree ravels: T stages of d scalars. Hashable; built from shapes and dtypes only."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype
    T: int
    d: int

    @classmethod
    def of(cls, tree: Any, name: str = "x") -> Layout:
        leaves, treedef = jax.tree.flatten(tree)
        if not leaves:
            raise ValueError(f"{name} must hold at least one array with a stage axis, got {tree!r}")
        for leaf in leaves:
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise TypeError(
                    f"{name} must be an array or a pytree of arrays, got a leaf of type {type(leaf).__name__}; "
                    "convert it with jnp.asarray"
                )
        shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        if () in shapes:
            raise ValueError(
                f"every leaf of {name} needs a leading stage axis, got shapes {list(shapes)}; "
                "a single variable alone takes the shape (1,); beside other leaves pass it in args"
            )
        T = max(shape[0] for shape in shapes)
        if any(shape[0] not in (T, T - 1) for shape in shapes):
            raise ValueError(
                f"the leaves of {name} must share a leading stage axis of length T (T - 1 is allowed), got shapes "
                f"{list(shapes)}; stack what belongs to one stage along the first axis"
            )
        dtypes = {jax.dtypes.canonicalize_dtype(native(leaf, name).dtype) for leaf in leaves}
        for dtype in dtypes:
            if not jnp.issubdtype(dtype, jnp.floating):
                raise TypeError(f"{name} must have a real floating dtype, got {dtype}; convert it with .astype(float)")
        if len(dtypes) > 1:
            raise TypeError(f"the leaves of {name} must share one dtype, got {sorted(map(str, dtypes))}")
        return cls(treedef, shapes, np.dtype(dtypes.pop()), T, sum(math.prod(shape[1:]) for shape in shapes))

    @property
    def n(self) -> int:
        return self.T * self.d

    @property
    def ragged(self) -> bool:
        return any(shape[0] != self.T and math.prod(shape[1:]) for shape in self.shapes)

    def ravel(self, tree: Any) -> Array:
        columns = []
        for leaf, shape in zip(self.treedef.flatten_up_to(tree), self.shapes, strict=True):
            if jnp.shape(leaf) != shape:
                raise ValueError(f"expected a leaf of shape {shape}, got {jnp.shape(leaf)}")
            column = jnp.reshape(jnp.asarray(native(leaf), self.dtype), (shape[0], math.prod(shape[1:])))
            columns.append(jnp.pad(column, ((0, self.T - shape[0]), (0, 0))) if shape[0] != self.T else column)
        return jnp.concatenate(columns, axis=1).reshape(self.n) if len(columns) > 1 else columns[0].reshape(self.n)

    def unravel(self, flat: Array) -> Any:
        stages = jnp.reshape(flat, (self.T, self.d))
        leaves, start = [], 0
        for shape in self.shapes:
            width = math.prod(shape[1:])
            leaves.append(stages[: shape[0], start : start + width].reshape(shape))
            start += width
        return jax.tree.unflatten(self.treedef, leaves)

    def dummies(self) -> Array:
        """`(n,)`, 1 on dummy variables and 0 elsewhere. Made in-graph from the stage index: no constant of size n."""
        last = np.concatenate([np.full(math.prod(shape[1:]), shape[0] != self.T) for shape in self.shapes])
        at_end = jnp.arange(self.T)[:, None] == self.T - 1
        return (at_end & jnp.asarray(last)[None, :]).astype(self.dtype).reshape(self.n)


def ravel_stages(tree: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Ravel a tree of stages to one vector, stage by stage.

    Args:
      tree: a pytree of arrays `(T, ...)`; a leaf may have T - 1 stages (its missing entries are filled with 0).

    Returns: `(flat, unravel)`: flat `(T * d,)`, with leaves in pytree order inside each stage; `unravel(flat)` gives
    the tree back.

    Raises: ValueError where the leaves have no common stage axis, TypeError where they are not real and floating, or
    of several dtypes.
    """
    layout = Layout.of(tree, "tree")
    return layout.ravel(tree), layout.unravel
