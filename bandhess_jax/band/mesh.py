"""The columns of a band split over the devices along one axis of a mesh, and what a device says to its neighbours.

JAX alone has this file and what is built on it: PyTorch has no shard_map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .storage import clear_unused, matvec


@dataclass(frozen=True)
class Parts:
    """Which columns of a band a device has: `columns` of them each, the last one's filled up with an identity.

    Neighbours talk by collective permutes; a program per device is run by `run`.
    """

    mesh: Mesh
    axis: Any  # a name of the mesh, or a tuple of names
    count: int  # of devices along the axis
    n: int
    w: int

    @property
    def columns(self) -> int:
        return -(-self.n // self.count)

    @property
    def pay(self) -> bool:
        """Whether an interior has w columns at least. A shorter band has fewer cells than what would be gathered."""
        return self.count > 1 and self.n > 0 and self.columns >= 2 * self.w

    def spec(self, ndim: int, split: int) -> PartitionSpec:
        return PartitionSpec(*(self.axis if i == split else None for i in range(ndim)))

    def placed(self, a: Array, split: int) -> Array:
        """`a` on the devices, split where its length allows it (inside jit the programs below say where).

        An array of one process is taken to be the same in all of them, as it is for `jax.jit`.
        """
        if isinstance(a, jax.core.Tracer):
            return a
        even = a.shape[split] == self.count * self.columns and self.pay
        sharding = NamedSharding(self.mesh, self.spec(a.ndim, split) if even else PartitionSpec())
        if a.is_fully_addressable and not sharding.is_fully_addressable:  # jax.device_put gathers a, and refuses NaN
            return jax.make_array_from_callback(a.shape, sharding, lambda index: a[index])
        return jax.device_put(a, sharding)

    def run(self, local: Callable, inputs: tuple[PartitionSpec, ...], outputs: Any) -> Callable:
        """`local(self, ...)` on every device at once.

        JAX does not check which values are equal on all devices: scans that start from zeros would fail that check.
        """
        return jax.shard_map(partial(local, self), mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def from_left(self, a: Array) -> Array:
        """The left neighbour's `a`; zeros on the first device."""
        return lax.ppermute(a, self.axis, [(i, i + 1) for i in range(self.count - 1)])

    def from_right(self, a: Array) -> Array:
        return lax.ppermute(a, self.axis, [(i + 1, i) for i in range(self.count - 1)])


def parts_of(sharding: NamedSharding, n: int, w: int) -> Parts:
    """The mesh axis that the sharding names, or an error that says what came."""
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        raise TypeError(
            "sharding must be a jax.sharding.NamedSharding over a Mesh of devices, as "
            f'NamedSharding(mesh, P("stages")), got {sharding!r}'
        )
    named = [axis for axis in sharding.spec if axis is not None]
    if len(named) != 1:
        raise ValueError(
            "sharding must name the one mesh axis that the band's columns are split over, as "
            f'NamedSharding(mesh, P("stages")), got {sharding.spec}'
        )
    names = named[0] if isinstance(named[0], tuple) else (named[0],)
    count = prod(sharding.mesh.shape[name] for name in names)
    # Axes of type Auto, whatever they were: between the parts' programs JAX places arrays itself.
    return Parts(Mesh(sharding.mesh.devices, sharding.mesh.axis_names), named[0], count, n, w)


def padded(parts: Parts, ab: Array, diagonal: float) -> Array:
    """`(w + 1, devices x columns)` with unused cells cleared, and this diagonal in the columns that fill up."""
    extra = parts.count * parts.columns - parts.n
    if not extra:
        return clear_unused(ab)
    row, column = (lax.broadcasted_iota(jnp.int32, (ab.shape[0], parts.n + extra), i) for i in range(2))
    added = jnp.where(row == 0, jnp.asarray(diagonal, ab.dtype), 0)
    return jnp.where(column < parts.n, jnp.pad(clear_unused(ab), ((0, 0), (0, extra))), added)


def padded_rows(parts: Parts, b: Array) -> Array:
    """`(devices x columns, k)`, filled up with zeros, of b `(n,)` or `(n, k)`."""
    return jnp.pad(b.reshape(parts.n, -1), ((0, parts.count * parts.columns - parts.n), (0, 0)))


def multiply_part(parts: Parts, ab: Array, x: Array) -> Array:
    """H x on one device, `(columns, k)`: w entries come from the right, and w sums go there."""
    q, w = x.shape[0], parts.w
    if not w:
        return ab.T * x
    y = matvec(jnp.pad(ab, ((0, 0), (0, w))), jnp.concatenate([x, parts.from_right(x[:w])]))
    return y[:q] + jnp.pad(parts.from_left(y[q:]), ((0, q - w), (0, 0)))


@partial(jax.jit, static_argnums=0)
def _product(parts: Parts, ab: Array, x: Array) -> Array:
    columns, rows = parts.spec(2, 1), parts.spec(2, 0)
    multiply = parts.run(multiply_part, (columns, rows), rows)
    return multiply(padded(parts, ab, 0), padded_rows(parts, x))[: parts.n].reshape(x.shape)


def product(ab: Array, x: Array, sharding: NamedSharding) -> Array:
    """H x of a band `(w + 1, n)` split as `sharding` says, x `(n,)` or `(n, k)`: 2 w numbers a device are sent."""
    parts = parts_of(sharding, ab.shape[1], ab.shape[0] - 1)
    ab, x = parts.placed(ab, 1), parts.placed(x, 0)
    return _product(parts, ab, x) if parts.pay else matvec(ab, x)
