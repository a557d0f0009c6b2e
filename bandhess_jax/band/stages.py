"""The stage axis: any pytree of arrays with a common leading axis of T stages, ravelled stage by stage.

A vector `(n,)` has T = n stages of d = 1 scalar. A trajectory `(T, d)` or `{"q": (T, 3), "u": (T, 2)}` has d scalars
per stage, leaves in pytree order. A leaf may end one stage early (controls live on T - 1 intervals): its missing last
entries become *dummy* variables that couple to nothing, so that every stage has d scalars. Leaves without a stage axis
are *shared* by all stages: their p scalars come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.checks import check_axis, stage_count
from bandhess_common.dtypes import native


class Layout(NamedTuple):
    """How a tree ravels: T stages of d scalars, then the shared ones. Hashable; built from shapes and dtypes only."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype
    T: int
    d: int
    shared: tuple[bool, ...]  # for each leaf
    periodic: bool  # the last stage meets the first

    @classmethod
    def of(cls, tree: Any, name: str = "x", stage_axes: Any = 0, periodic: bool = False) -> Layout:
        """stage_axes: 0 for leaves with a stage axis, None for shared ones; a prefix tree of them."""
        leaves, treedef = jax.tree.flatten(tree)
        if not leaves:
            raise ValueError(f"{name} must hold at least one array with a stage axis, got {tree!r}")
        for leaf in leaves:
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise TypeError(
                    f"{name} must be an array or a pytree of arrays, got a leaf of type {type(leaf).__name__}; "
                    "convert it with jnp.asarray"
                )
        shapes, shared = [tuple(leaf.shape) for leaf in leaves], _spread(stage_axes, tree, name)
        T = stage_count(shapes, shared, periodic, name)
        dtypes = {jax.dtypes.canonicalize_dtype(native(leaf, name).dtype) for leaf in leaves}
        for dtype in dtypes:
            if not jnp.issubdtype(dtype, jnp.floating):
                raise TypeError(f"{name} must have a real floating dtype, got {dtype}; convert it with .astype(float)")
        if len(dtypes) > 1:
            raise TypeError(f"the leaves of {name} must share one dtype, got {sorted(map(str, dtypes))}")
        d = sum(math.prod(shape[1:]) for shape, alone in zip(shapes, shared, strict=True) if not alone)
        return cls(treedef, tuple(shapes), np.dtype(dtypes.pop()), T, d, tuple(shared), bool(periodic))

    @property
    def stages(self) -> Layout:
        """Of the leaves with a stage axis alone."""
        kept = tuple(shape for shape, alone in zip(self.shapes, self.shared, strict=True) if not alone)
        return self._replace(treedef=jax.tree.structure(list(kept)), shapes=kept, shared=(False,) * len(kept))

    @property
    def p(self) -> int:
        """Shared scalars."""
        return sum(math.prod(shape) for shape, alone in zip(self.shapes, self.shared, strict=True) if alone)

    @property
    def n(self) -> int:
        """All scalars: the order of the Hessian."""
        return self.T * self.d + self.p

    @property
    def ragged(self) -> bool:
        return any(
            shape[0] != self.T and math.prod(shape[1:])
            for shape, alone in zip(self.shapes, self.shared, strict=True)
            if not alone
        )

    def ravel(self, tree: Any) -> Array:
        columns, rest = [], []
        for leaf, shape, alone in zip(self.treedef.flatten_up_to(tree), self.shapes, self.shared, strict=True):
            if jnp.shape(leaf) != shape:
                raise ValueError(f"expected a leaf of shape {shape}, got {jnp.shape(leaf)}")
            array = jnp.asarray(native(leaf), self.dtype)
            if alone:
                rest.append(jnp.reshape(array, math.prod(shape)))
                continue
            column = jnp.reshape(array, (shape[0], math.prod(shape[1:])))
            columns.append(jnp.pad(column, ((0, self.T - shape[0]), (0, 0))) if shape[0] != self.T else column)
        first = (jnp.concatenate(columns, axis=1) if len(columns) > 1 else columns[0]).reshape(self.T * self.d)
        return jnp.concatenate([first, *rest]) if rest else first

    def unravel(self, flat: Array) -> Any:
        banded = self.T * self.d
        stages = jnp.reshape(lax.slice(flat, (0,), (banded,)) if self.p else flat, (self.T, self.d))
        leaves, start, last = [], 0, banded
        for shape, alone in zip(self.shapes, self.shared, strict=True):
            width = math.prod(shape if alone else shape[1:])
            if alone:
                leaves.append(lax.slice(flat, (last,), (last + width,)).reshape(shape))
                last += width
            else:
                leaves.append(stages[: shape[0], start : start + width].reshape(shape))
                start += width
        return jax.tree.unflatten(self.treedef, leaves)

    def dummies(self) -> Array:
        """`(n,)`, 1 on dummy variables and 0 elsewhere. Made in-graph from the stage index: no constant of size n."""
        own = [shape for shape, alone in zip(self.shapes, self.shared, strict=True) if not alone]
        ends = np.concatenate([np.full(math.prod(shape[1:]), shape[0]) for shape in own])
        beyond = jnp.arange(self.T)[:, None] >= jnp.asarray(ends)[None, :]
        flat = beyond.astype(self.dtype).reshape(self.T * self.d)
        return jnp.pad(flat, (0, self.p)) if self.p else flat


def _spread(stage_axes: Any, tree: Any, name: str) -> list[bool]:
    """For each leaf, whether it is shared."""
    shared: list[bool] = []

    def add(axis: Any, below: Any) -> None:
        shared.extend([check_axis(axis)] * len(jax.tree.leaves(below)))

    try:
        jax.tree.map(add, stage_axes, tree, is_leaf=lambda axis: axis is None)
    except (ValueError, TypeError) as error:
        if "stage_axes" in str(error):
            raise
        raise ValueError(
            f"stage_axes must be 0, None or a tree of them that is a prefix of {name}, got {stage_axes!r} for a tree "
            f"of structure {jax.tree.structure(tree)}"
        ) from None
    return shared


def ravel_stages(tree: Any, *, stage_axes: Any = 0) -> tuple[Array, Callable[[Array], Any]]:
    """Ravel a tree of stages to one vector, stage by stage.

    Args:
      tree: a pytree of arrays `(T, ...)`; a leaf may have T - 1 stages (its missing entries are filled with 0).
      stage_axes: 0, or None for leaves of any shape that all stages share; a prefix tree of them, as `jax.vmap`'s
        in_axes.

    Returns: `(flat, unravel)`: flat `(T * d + p,)`, with leaves in pytree order inside each stage, and the p shared
    scalars last; `unravel(flat)` gives the tree back.

    Raises: ValueError where the leaves have no common stage axis, TypeError where they are not real and floating, or
    of several dtypes.

    >>> flat, unravel = ravel_stages({"q": jnp.array([[1.0, 2], [4, 5]]), "u": jnp.array([3.0])})
    >>> flat
    Array([1., 2., 3., 4., 5., 0.], dtype=float32)
    >>> unravel(flat)["q"]
    Array([[1., 2.],
           [4., 5.]], dtype=float32)
    """
    layout = Layout.of(tree, "tree", stage_axes)
    return layout.ravel(tree), layout.unravel
