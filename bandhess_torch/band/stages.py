"""The stage axis: any tree of tensors with a common leading axis of T stages, ravelled stage by stage.

A vector `(n,)` has T = n stages of d = 1 scalar. A trajectory `(T, d)` or `{"q": (T, 3), "u": (T, 2)}` has d scalars
per stage, leaves in pytree order (dictionaries by sorted key, as in JAX; None is no leaf). A leaf may end one stage
early (controls live on T - 1 intervals): its missing last entries become *dummy* variables that couple to nothing, so
that every stage has d scalars. Leaves without a stage axis are *shared* by all stages: their p scalars come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bandhess_common.checks import check_axis, stage_count

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
    """How a tree ravels: T stages of d scalars, then the shared ones. Built from shapes and dtypes only."""

    treedef: Structure
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    device: torch.device
    T: int
    d: int
    shared: tuple[bool, ...]  # for each leaf
    periodic: bool  # the last stage meets the first

    @classmethod
    def of(cls, tree: Any, name: str = "x", stage_axes: Any = 0, periodic: bool = False) -> Layout:
        """stage_axes: 0 for leaves with a stage axis, None for shared ones; a prefix tree of them."""
        leaves, treedef = _flatten(tree)
        if not leaves:
            raise ValueError(f"{name} must hold at least one tensor with a stage axis, got {tree!r}")
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{name} must be a tensor or a pytree of tensors, got a leaf of type {type(leaf).__name__}; "
                    "convert it with torch.as_tensor"
                )
        shapes, shared = [tuple(leaf.shape) for leaf in leaves], _spread(stage_axes, tree, name)
        T = stage_count(shapes, shared, periodic, name)
        kinds = {(leaf.dtype, leaf.device) for leaf in leaves}
        for leaf in leaves:
            if not leaf.is_floating_point():
                raise TypeError(f"{name} must have a real floating dtype, got {leaf.dtype}; convert it with .double()")
        if len(kinds) > 1:
            raise TypeError(f"the leaves of {name} must share one dtype and device, got {sorted(map(str, kinds))}")
        dtype, device = kinds.pop()
        d = sum(math.prod(shape[1:]) for shape, alone in zip(shapes, shared, strict=True) if not alone)
        return cls(treedef, tuple(shapes), dtype, device, T, d, tuple(shared), bool(periodic))

    @property
    def stages(self) -> Layout:
        """Of the leaves with a stage axis alone."""
        kept = tuple(shape for shape, alone in zip(self.shapes, self.shared, strict=True) if not alone)
        treedef = _flatten(list(torch.empty(len(kept)).unbind()))[1]
        return self._replace(treedef=treedef, shapes=kept, shared=(False,) * len(kept))

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

    def ravel(self, tree: Any) -> Tensor:
        leaves, treedef = _flatten(tree)
        shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        if treedef != self.treedef or shapes != self.shapes:
            raise ValueError(f"expected a tree of leaves of shapes {list(self.shapes)}, got {list(shapes)}")
        leaves = [leaf.resolve_neg() for leaf in leaves]  # LAPACK and NumPy read memory as it stands
        if len(leaves) == 1:
            return leaves[0].to(self.dtype).reshape(self.n)
        columns, rest = [], []
        for leaf, shape, alone in zip(leaves, self.shapes, self.shared, strict=True):
            if alone:
                rest.append(leaf.to(self.dtype).reshape(math.prod(shape)))
                continue
            column = leaf.to(self.dtype).reshape(shape[0], math.prod(shape[1:]))
            columns.append(pad(column, (0, 0, 0, self.T - shape[0])) if shape[0] != self.T else column)
        first = (torch.cat(columns, dim=1) if len(columns) > 1 else columns[0]).reshape(self.T * self.d)
        return torch.cat([first, *rest]) if rest else first

    def unravel(self, flat: Tensor) -> Any:
        if len(self.shapes) == 1:  # every view here would be a node of the objective's graph
            (shape,) = self.shapes
            return self.treedef.unflatten([flat if flat.shape == shape else flat.reshape(shape)])
        own = [shape for shape, alone in zip(self.shapes, self.shared, strict=True) if not alone]
        sizes = [math.prod(shape) for shape, alone in zip(self.shapes, self.shared, strict=True) if alone]
        first, *rest = flat.split([self.T * self.d, *sizes]) if sizes else [flat]
        parts = first.reshape(self.T, self.d).split([math.prod(shape[1:]) for shape in own], dim=1)
        last, stages = iter(rest), iter(parts)
        return self.treedef.unflatten(
            next(last).reshape(shape) if alone else next(stages)[: shape[0]].reshape(shape)
            for shape, alone in zip(self.shapes, self.shared, strict=True)
        )

    def dummies(self) -> Tensor:
        """`(n,)`, 1 on dummy variables and 0 elsewhere."""
        ends = [
            torch.full((math.prod(shape[1:]),), float(shape[0] != self.T), dtype=self.dtype, device=self.device)
            for shape, alone in zip(self.shapes, self.shared, strict=True)
            if not alone
        ]
        return pad(torch.cat(ends), (self.T * self.d - self.d, self.p))


def _spread(stage_axes: Any, tree: Any, name: str) -> list[bool]:
    """For each leaf, whether it is shared."""
    if stage_axes is None or isinstance(stage_axes, int):
        return [check_axis(stage_axes)] * len(_flatten(tree)[0])
    try:
        axes, spec = tree_flatten(_sort_keys(stage_axes), is_leaf=lambda axis: axis is None)
        parts = spec.flatten_up_to(_sort_keys(tree))
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"stage_axes must be 0, None or a tree of them that is a prefix of {name}, got {stage_axes!r} for a tree "
            f"of structure {tree_flatten(tree)[1]}"
        ) from None
    shared = [[check_axis(axis)] * len(_flatten(part)[0]) for axis, part in zip(axes, parts, strict=True)]
    return [alone for part in shared for alone in part]


def ravel_stages(tree: Any, *, stage_axes: Any = 0) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Ravel a tree of stages to one vector, stage by stage.

    Args:
      tree: a pytree of tensors `(T, ...)`; a leaf may have T - 1 stages (its missing entries are filled with 0).
      stage_axes: 0, or None for leaves of any shape that all stages share; a prefix tree of them, as
        `torch.func.vmap`'s in_dims.

    Returns: `(flat, unravel)`: flat `(T * d + p,)`, with leaves in pytree order inside each stage (dictionaries by
      sorted key), and the p shared scalars last; `unravel(flat)` gives the tree back.

    Raises: ValueError where the leaves have no common stage axis, TypeError where they are not real and floating, or
    of several dtypes or devices.

    >>> flat, unravel = ravel_stages({"q": torch.tensor([[1.0, 2], [4, 5]]), "u": torch.tensor([3.0])})
    >>> flat
    tensor([1., 2., 3., 4., 5., 0.])
    >>> unravel(flat)["q"]
    tensor([[1., 2.],
            [4., 5.]])
    """
    layout = Layout.of(tree, "tree", stage_axes)
    return layout.ravel(tree), layout.unravel
