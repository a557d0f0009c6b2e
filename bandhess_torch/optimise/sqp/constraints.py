"""What constrains x, made flat: the outputs of functions, bounds, and what they fix or leave inactive."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_leaves, tree_unflatten

from bandhess_common.checks import wrong_bounds

from ...band.stages import Layout, _sort_keys

KEEP = 0.01  # least distance of the start from a bound, relative


class Outputs(NamedTuple):
    """How a function's outputs ravel to one vector."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    like: Tensor

    @classmethod
    def of(cls, fun: Callable | None, name: str, args: tuple, like: Tensor) -> Outputs:
        if fun is None:
            return cls(tree_flatten(())[1], (), like)
        leaves, treedef = tree_flatten(fun(*args))
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise TypeError(f"{name} must return real floating tensors (a tree of them), got one of {kind}")
        return cls(treedef, tuple(tuple(leaf.shape) for leaf in leaves), like)

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    def joined(self, tree: Any) -> Tensor:
        """What the function returned: of the structure known, for that does not change."""
        leaves = tree_leaves(tree)
        if not leaves:  # a new tensor: `like` may have been made under a transform that has ended
            return torch.zeros(0, dtype=self.like.dtype, device=self.like.device)
        flat = torch.cat([leaf.reshape(-1) for leaf in leaves])
        return flat if flat.dtype == self.like.dtype else flat.to(self.like.dtype)

    def ravel(self, tree: Any, name: str = "multipliers") -> Tensor:
        leaves, treedef = tree_flatten(tree)
        shapes = tuple(tuple(getattr(leaf, "shape", ())) for leaf in leaves)
        if treedef != self.treedef or shapes != self.shapes:
            raise ValueError(
                f"{name} must have the structure of what the constraints return, {self.treedef} with shapes "
                f"{list(self.shapes)}, got {treedef} with shapes {list(shapes)}"
            )
        return torch.cat([leaf.to(self.like).reshape(-1) for leaf in leaves]) if leaves else self.like.new_zeros(0)

    def unravel(self, flat: Tensor) -> Any:
        parts = flat.split([math.prod(shape) for shape in self.shapes]) if self.shapes else []
        leaves = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return tree_unflatten(leaves, self.treedef)


def entry(tree: Any, i: int) -> str:
    """Where entry i of the ravelled tree stands, as an expression after the tree's name; "" beyond its end."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if i < leaf.numel():
            place = torch.unravel_index(torch.tensor(i), leaf.shape)
            return keystr(path) + (f"[{', '.join(str(int(axis)) for axis in place)}]" if leaf.ndim else "")
        i -= leaf.numel()
    return ""


class Bounds(NamedTuple):
    """Flat bounds, infinite where there is none, and 1 on the variables that they fix."""

    lower: Tensor
    upper: Tensor
    fixed: Tensor

    @classmethod
    def of(cls, bounds: tuple[Any, Any], layout: Layout) -> Bounds:
        dummies = layout.dummies()

        def flat(side: Any, none: float) -> Tensor:
            return torch.where(dummies > 0, none, layout.ravel(spread(side, layout, none)))

        lower, upper = flat(bounds[0], -math.inf), flat(bounds[1], math.inf)
        return cls(lower, upper, (lower == upper).to(layout.dtype))

    @property
    def active(self) -> Tensor:
        free = self.fixed == 0
        return torch.cat([self.lower.isfinite() & free, self.upper.isfinite() & free])

    def fix(self, x: Tensor) -> Tensor:
        return torch.where(self.fixed > 0, self.lower, x)

    def distances(self, x: Tensor) -> Tensor:
        """(x - lower, upper - x), 1 where nothing bounds."""
        active = self.active
        n = len(x)
        below = torch.where(active[:n], x - torch.where(active[:n], self.lower, 0), 1)
        above = torch.where(active[n:], torch.where(active[n:], self.upper, 0) - x, 1)
        return torch.cat([below, above])

    def inside(self, x: Tensor) -> Tensor:
        """x moved into the interior."""
        room = KEEP * (self.upper - self.lower)
        low = self.lower + torch.minimum(KEEP * self.lower.abs().clamp(min=1), room)
        high = self.upper - torch.minimum(KEEP * self.upper.abs().clamp(min=1), room)
        x = torch.where(self.lower.isfinite(), torch.maximum(x, low), x)
        x = torch.where(self.upper.isfinite(), torch.minimum(x, high), x)
        return self.fix(x)


def spread(side: Any, layout: Layout, none: float) -> Any:
    """One side of the bounds as a full tree: None, a number, or a tree like x whose leaves are None or broadcast."""
    if side is None or (not isinstance(side, (dict, list, tuple)) and getattr(side, "ndim", 0) == 0):
        parts = [side] * len(layout.shapes)
    else:
        try:
            parts = layout.treedef.flatten_up_to(_sort_keys(side))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"each of the two bounds must be None, a number, or a tree like x0 with None, numbers or arrays for "
                f"leaves: {error}"
            ) from None
    leaves = []
    for part, shape in zip(parts, layout.shapes, strict=True):
        leaf = torch.as_tensor(none if part is None else part, dtype=layout.dtype, device=layout.device)
        try:
            leaves.append(leaf.expand(shape))
        except RuntimeError:
            raise ValueError(f"a bound of shape {tuple(leaf.shape)} does not fit x0's leaf of shape {shape}") from None
    return layout.treedef.unflatten(leaves)


def check_bounds(bounds: Any, layout: Layout) -> None:
    """An error for bounds that do not fit x0, or that leave no room."""
    if bounds is None:
        return
    if not (isinstance(bounds, tuple) and len(bounds) == 2):
        raise TypeError(f"bounds must be a pair (lower, upper) or None, got {type(bounds).__name__}")
    lower, upper = (
        layout.ravel(spread(side, layout, none)) for side, none in zip(bounds, (-math.inf, math.inf), strict=True)
    )
    good = (lower <= upper) & (lower < math.inf) & (upper > -math.inf)  # not where one is NaN
    with suppress(RuntimeError):  # inside vmap values cannot be looked at
        if not bool(good.all()):
            i = int(good.to(torch.int8).argmin())
            raise ValueError(wrong_bounds(i, float(lower[i]), float(upper[i])))
