"""Newton over the devices of a mesh: where its arrays lie.

Vectors and bands are split along the ravelled stages, and what is short is whole on every device. XLA makes of the
loop's program one for each device: halos are sent for the derivatives, products and norms are sums over the devices,
and the trust-region search solves with the sharded factor. Where the devices do not divide T, stages of dummy variables
fill it up, as at the end of ragged leaves.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from ...band.mesh import Parts, parts_of
from ...band.stages import Layout
from ...band.structures import Bordered


def parts(layout: Layout, sharding: NamedSharding) -> Parts:
    return parts_of(sharding, layout.T * layout.d, 0)


def filled(layout: Layout, sharding: NamedSharding | None) -> Layout:
    """With as many stages as the devices share evenly."""
    if sharding is None:
        return layout
    count = parts(layout, sharding).count
    T = -(-layout.T // count) * count
    if layout.periodic and T != layout.T:
        raise ValueError(
            f"with periodic=True the {count} devices of sharding must divide the {layout.T} stages: a ring cannot be "
            "filled up; choose other devices, or another number of stages"
        )
    return layout._replace(T=T)


def _placed(where: NamedSharding, a: Any) -> Array:
    return lax.with_sharding_constraint(a, where) if isinstance(a, jax.core.Tracer) else jax.device_put(a, where)


def split_stages(layout: Layout, sharding: NamedSharding | None, tree: Any) -> Any:
    """The argument's leaves: those that the devices divide split, the others whole on every device."""
    if sharding is None:
        return tree
    over = parts(layout, sharding)
    whole, divided = (NamedSharding(over.mesh, axes) for axes in (PartitionSpec(), over.spec(1, 0)))
    leaves = [
        _placed(whole if alone or shape[0] % over.count else divided, leaf)
        for leaf, shape, alone in zip(layout.treedef.flatten_up_to(tree), layout.shapes, layout.shared, strict=True)
    ]
    return jax.tree.unflatten(layout.treedef, leaves)


def split(layout: Layout, sharding: NamedSharding | None, tree: Any) -> Any:
    """Vectors `(n,)` and what has them for rows (bands, borders, packs) over the devices, the rest whole on each."""
    if sharding is None:
        return tree
    over = parts(layout, sharding)
    long = {layout.n, layout.n - layout.p}

    def place(a: Array) -> Array:
        divided = bool(a.ndim) and a.shape[-1] in long
        return lax.with_sharding_constraint(
            a, NamedSharding(over.mesh, over.spec(a.ndim, a.ndim - 1 if divided else a.ndim))
        )

    return jax.tree.map(place, tree)


def fill(layout: Layout, H: Any) -> Any:
    """A Hessian of the stages alone, with columns of zeros for those that fill up the devices."""
    extra = layout.T - max(shape[0] for shape, alone in zip(layout.shapes, layout.shared, strict=True) if not alone)
    if not extra:
        return H
    longer = lambda a: jnp.pad(a, ((0, 0), (0, extra * layout.d)))  # noqa: E731
    return H._replace(band=longer(H.band), border=longer(H.border)) if isinstance(H, Bordered) else longer(H)
