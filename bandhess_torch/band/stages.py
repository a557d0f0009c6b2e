"""The stage axis: any tree of tensors with a common leading axis of T stages, ravelled stage by stage.

A vector `(n,)` has T = n stages of d = 1 scalar. A trajectory `(T, d)` or `{"q": (T, 3), "u": (T, 2)}` has d scalars
per stage, leaves in pytree order (dictionaries by sorted key, as in JAX; None is no leaf). A leaf may end one stage
early (controls live on T - 1 intervals): its missing last entries become *dummy* variables that couple to nothing, so
that every stage has d scalars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

DEEPEST = 100  # containers in one another: Python's recursion limit allows no more than some three times as many


def _sort_keys(tree: Any, depth: int = 0) -> Any:
    """The tree with its dictionaries in key order: torch keeps insertion order, and the band must not depend on it."""
    if depth > DEEPEST:
        raise ValueError(f"a tree of tensors must not be nested more than {DEEPEST} deep; flatten its containers")
    if type(tree) is dict:
        try:
            keys = sorted(tree)
        except TypeError:
            raise TypeError(
                f"the keys of a dictionary must be comparable, as their order is that of the leaves, got {list(tree)}; "
                "use keys of one type"
            ) from None
        return {key: _sort_keys(tree[key], depth + 1) for key in keys}
    if isinstance(tree, list | tuple) and not isinstance(tree, torch.Size):
        items = [_sort_keys(item, depth + 1) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


class Structure(NamedTuple):
    """A tree without its leaves. A None in it is no leaf and stays where it is, as in JAX."""

    spec: TreeSpec
    present: tuple[bool, ...]  # for each place of spec: a leaf, or None

    def flatten_up_to(self, tree: Any) -> list:
        """What stands in the leaves' places of a tree that goes on below them."""
        parts = self.spec.flatten_up_to(tree)
        return [part for part, present in zip(parts, self.present, strict=True) if present]

    def unflatten(self, leaves: Iterable) -> Any:
        given = iter(leaves)
        return tree_unflatten([next(given) if present else None for present in self.present], self.spec)


_LEAF = Structure(tree_flatten(0)[1], (True,))


def _flatten(tree: Any) -> tuple[list, Structure]:
    if isinstance(tree, Tensor):
        return [tree], _LEAF
    places, spec = tree_flatten(_sort_keys(tree))
    leaves = [leaf for leaf in places if leaf is not None]
    return leaves, Structure(spec, tuple(leaf is not None for leaf in places))


class Layout(NamedTuple):
    """How a tree ravels: T stages of d scalars. Built from shapes and dtypes only."""

    treedef: Structure
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    device: torch.device
    T: int
    d: int

    @classmethod
    def of(cls, tree: Any, name: str = "x") -> Layout:
        leaves, treedef = _flatten(tree)
        if not leaves:
            raise ValueError(f"{name} must hold at least one tensor with a stage axis, got {tree!r}")
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{name} must be a tensor or a pytree of tensors, got a leaf of type {type(leaf).__name__}; "
                    "convert it with torch.as_tensor"
                )
        shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        if () in shapes:
            remedy = "(1,)" if len(shapes) == 1 else "(T,), one value per stage, or make it a further argument"
            raise ValueError(
                f"every leaf of {name} needs a leading stage axis, got shapes {list(shapes)}; give a scalar the shape "
                f"{remedy}"
            )
        T = max(shape[0] for shape in shapes)
        if any(shape[0] not in (T, T - 1) for shape in shapes):
            raise ValueError(
                f"the leaves of {name} must share a leading stage axis of length T (T - 1 is allowed), got shapes "
                f"{list(shapes)}; stack what belongs to one stage along the first axis"
            )
        kinds = {(leaf.dtype, leaf.device) for leaf in leaves}
        for leaf in leaves:
            if not leaf.is_floating_point():
                raise TypeError(f"{name} must have a real floating dtype, got {leaf.dtype}; convert it with .double()")
        if len(kinds) > 1:
            raise TypeError(f"the leaves of {name} must share one dtype and device, got {sorted(map(str, kinds))}")
        dtype, device = kinds.pop()
        return cls(treedef, shapes, dtype, device, T, sum(math.prod(shape[1:]) for shape in shapes))

    @property
    def n(self) -> int:
        return self.T * self.d

    @property
    def ragged(self) -> bool:
        return any(shape[0] != self.T and math.prod(shape[1:]) for shape in self.shapes)

    def ravel(self, tree: Any) -> Tensor:
        leaves, treedef = _flatten(tree)
        shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        if treedef != self.treedef or shapes != self.shapes:
            raise ValueError(f"expected a tree of leaves of shapes {list(self.shapes)}, got {list(shapes)}")
        leaves = [leaf.resolve_neg() for leaf in leaves]  # LAPACK and NumPy read memory as it stands
        if len(leaves) == 1:
            return leaves[0].to(self.dtype).reshape(self.n)
        columns = []
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            column = leaf.to(self.dtype).reshape(shape[0], math.prod(shape[1:]))
            columns.append(pad(column, (0, 0, 0, self.T - shape[0])) if shape[0] != self.T else column)
        return torch.cat(columns, dim=1).reshape(self.n)

    def unravel(self, flat: Tensor) -> Any:
        if len(self.shapes) == 1:  # every view here would be a node of the objective's graph
            (shape,) = self.shapes
            return self.treedef.unflatten([flat if flat.shape == shape else flat.reshape(shape)])
        parts = flat.reshape(self.T, self.d).split([math.prod(shape[1:]) for shape in self.shapes], dim=1)
        return self.treedef.unflatten(
            part[: shape[0]].reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)
        )

    def dummies(self) -> Tensor:
        """`(n,)`, 1 on dummy variables and 0 elsewhere."""
        ends = [
            torch.full((math.prod(shape[1:]),), float(shape[0] != self.T), dtype=self.dtype, device=self.device)
            for shape in self.shapes
        ]
        return pad(torch.cat(ends), (self.n - self.d, 0))


def ravel_stages(tree: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Ravel a tree of stages to one vector, stage by stage.

    Args:
      tree: a pytree of tensors `(T, ...)`; a leaf may have T - 1 stages (its missing entries are filled with 0).

    Returns: `(flat, unravel)`: flat `(T * d,)`, with leaves in pytree order inside each stage (dictionaries by sorted
      key); `unravel(flat)` gives the tree back.

    Raises: ValueError where the leaves have no common stage axis, TypeError where they are not real and floating, or
    of several dtypes or devices.
    """
    layout = Layout.of(tree, "tree")
    return layout.ravel(tree), layout.unravel
