"""What constrains x, made flat: the outputs of functions, bounds, and what they fix or leave inactive."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bandhess_common.checks import wrong_bounds
from bandhess_common.dtypes import native

from ...band.stages import Layout


class Outputs(NamedTuple):
    """How a function's outputs ravel to one vector. Hashable."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype

    @classmethod
    def of(cls, like: Any, name: str, dtype: np.dtype) -> Outputs:
        leaves, treedef = jax.tree.flatten(like)
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(f"{name} must return real floating arrays (a tree of them), got one of {leaf.dtype}")
        return cls(treedef, tuple(leaf.shape for leaf in leaves), dtype)

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    def ravel(self, tree: Any, name: str = "multipliers") -> Array:
        leaves, treedef = jax.tree.flatten(tree)
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        if treedef != self.treedef or shapes != self.shapes:
            raise ValueError(
                f"{name} must have the structure of what the constraints return, {self.treedef} with shapes "
                f"{list(self.shapes)}, got {treedef} with shapes {list(shapes)}"
            )
        flat = [jnp.ravel(jnp.asarray(leaf, self.dtype)) for leaf in leaves]
        return jnp.concatenate(flat) if flat else jnp.zeros(0, self.dtype)

    def unravel(self, flat: Array) -> Any:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = jnp.split(flat, ends[:-1]) if len(ends) else []
        leaves = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)


def entry(tree: Any, i: int) -> str:
    """Where entry i of the ravelled tree stands, as an expression after the tree's name; "" beyond its end."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if i < leaf.size:
            place = ", ".join(str(int(axis)) for axis in np.unravel_index(i, leaf.shape))
            return jax.tree_util.keystr(path) + (f"[{place}]" if leaf.ndim else "")
        i -= leaf.size
    return ""


class Bounds(NamedTuple):
    """Flat bounds, infinite where there is none, and 1 on the variables that they fix."""

    lower: Array
    upper: Array
    fixed: Array

    @classmethod
    def of(cls, bounds: tuple[Any, Any], layout: Layout) -> Bounds:
        dummies = layout.dummies()

        def flat(side: Any, none: float) -> Array:
            return jnp.where(dummies > 0, none, layout.ravel(spread(side, layout, none)))

        lower, upper = flat(bounds[0], -jnp.inf), flat(bounds[1], jnp.inf)
        return cls(lower, upper, (lower == upper).astype(layout.dtype))

    @property
    def active(self) -> Array:
        free = self.fixed == 0
        return jnp.concatenate([jnp.isfinite(self.lower) & free, jnp.isfinite(self.upper) & free])

    def fix(self, x: Array) -> Array:
        return jnp.where(self.fixed > 0, self.lower, x)

    def distances(self, x: Array) -> Array:
        """(x - lower, upper - x), 1 where nothing bounds."""
        active = self.active
        n = len(x)
        below = jnp.where(active[:n], x - jnp.where(active[:n], self.lower, 0), 1)
        above = jnp.where(active[n:], jnp.where(active[n:], self.upper, 0) - x, 1)
        return jnp.concatenate([below, above])


def _parts(side: Any, layout: Layout, none: float) -> list:
    """One side of the bounds, a number or an array for each leaf of x."""
    if side is None or (not isinstance(side, (dict, list, tuple)) and np.ndim(side) == 0):
        parts = [side] * len(layout.shapes)
    else:
        try:
            parts = layout.treedef.flatten_up_to(side)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"each of the two bounds must be None, a number, or a tree like x0 with None, numbers or arrays for "
                f"leaves: {error}"
            ) from None
    return [none if part is None else native(part, "a bound") for part in parts]


def spread(side: Any, layout: Layout, none: float) -> Any:
    """One side of the bounds as a full tree: None, a number, or a tree like x whose leaves are None or broadcast."""
    leaves = []
    for part, shape in zip(_parts(side, layout, none), layout.shapes, strict=True):
        leaf = jnp.asarray(part, layout.dtype)
        _check_shape(leaf.shape, shape)
        leaves.append(jnp.broadcast_to(leaf, shape))
    return jax.tree.unflatten(layout.treedef, leaves)


def _check_shape(shape: tuple[int, ...], whole: tuple[int, ...]) -> None:
    tail = whole[len(whole) - len(shape) :]
    if len(shape) > len(whole) or any(own not in (1, size) for own, size in zip(shape, tail, strict=True)):
        raise ValueError(f"a bound of shape {shape} does not fit x0's leaf of shape {whole}")


def check_bounds(bounds: Any, layout: Layout) -> None:
    """An error for bounds that do not fit x0, or that leave no room (where they are known before tracing). By NumPy:
    each operation of JAX's outside a program takes as long as a step of a short solve."""
    if bounds is None:
        return
    if not (isinstance(bounds, tuple) and len(bounds) == 2):
        raise TypeError(f"bounds must be a pair (lower, upper) or None, got {type(bounds).__name__}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(bounds)):
        return
    lowers, uppers = (_parts(side, layout, none) for side, none in zip(bounds, (-np.inf, np.inf), strict=True))
    for low, up, shape in zip(lowers, uppers, layout.shapes, strict=True):
        lower, upper = (np.asarray(part, layout.dtype) for part in (low, up))
        _check_shape(lower.shape, shape)
        _check_shape(upper.shape, shape)
        if not np.all((lower <= upper) & (lower < np.inf) & (upper > -np.inf)):  # not where one is NaN
            return _refuse(bounds, layout)


def _refuse(bounds: Any, layout: Layout) -> None:
    """Names the first entry that leaves no room."""
    with jax.ensure_compile_time_eval():  # inside jit, too
        sides = (layout.ravel(spread(side, layout, none)) for side, none in zip(bounds, (-np.inf, np.inf), strict=True))
        lower, upper = map(np.asarray, sides)
    i = int(np.argmin((lower <= upper) & (lower < np.inf) & (upper > -np.inf)))
    raise ValueError(wrong_bounds(i, float(lower[i]), float(upper[i])))
