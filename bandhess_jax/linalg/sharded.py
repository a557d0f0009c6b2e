"""Solving with a band whose columns are split over the devices of a mesh: the partition method, one part a device.

    H =  I0 .  .  .        I: the interior columns of a device, S: its separator, the last w columns it has
         S0 S0 .  .        Interiors meet separators only, so every device eliminates its own beside the others.
         .  I1 I1 .        E: the coupling of an interior to the separator on its left (upper triangular, w x w)
         .  S1 S1 S1

A device's interior has the Cholesky factor L, and B is what the elimination leaves in the rows of its separator. With
the spike F = L^-1 E and y = L^-1 b, all of them by the serial programs, the separators p meet in

    D_p = S_p - B_p B_p^T - F_{p+1}^T F_{p+1},   C_p = -B_p F_p (to the separator p - 1),
    b_p - B_p y_p - F_{p+1}^T y_{p+1}

a block tridiagonal system of devices x w unknowns: a band of 2 w - 1 subdiagonals. Its blocks are all that is
gathered (3 w^2 numbers a device, and 2 w for a right-hand side), and each device solves it for itself. The interiors
follow by L^T x = y - F x_left - B^T x_own. This is Cholesky in another order, so it is as stable, and H is positive
definite exactly where all of the factors exist; what fails on one device is NaN in the separators' system, which all
of them see.

Cost: n (w^2 + 2 w^2 + 2 w^2) flops for L, F and F^T F, of which the serial factor has the first alone: the partition
does the work of some four or five serial sweeps, and pays from as many devices on. A solve costs (6 w + 2) n a
right-hand side, for 4 w + 2. The spikes double the factor's memory.

The selected inverse Z: that of the separators' system gives Z_ss, for the separators on both sides of an interior; with
V = L^-T [F, B^T] the interior has (L L^T)^-1 + V Z_ss V^T, and -V Z_ss couples it to them. Both terms are positive
semidefinite, so that nothing cancels on the diagonal.

Source: Wang 1981 (ACM TOMS 7, 170) for the parts; Polizzi and Sameh 2006 (Parallel Computing 32, 177) for spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import register_dataclass
from jax.typing import ArrayLike

from ..band.storage import as_band, as_rhs, clear_unused, matvec, to_dense
from .cholesky import cho_solve, cholesky
from .triangular import solve_triangular


@dataclass(frozen=True)
class Parts:
    """The columns' way over the devices: `columns` of them each, the last device's filled up with an identity."""

    mesh: Mesh
    axis: Any  # a name, or a tuple of names
    count: int
    n: int
    w: int

    @property
    def columns(self) -> int:
        return -(-self.n // self.count)

    @property
    def pay(self) -> bool:
        """Whether separators are apart: an interior of w columns at least. A shorter band is no longer than they."""
        return self.count > 1 and self.n > 0 and self.columns >= 2 * self.w

    def spec(self, ndim: int, split: int) -> PartitionSpec:
        return PartitionSpec(*(self.axis if i == split else None for i in range(ndim)))

    def placed(self, a: Array, split: int) -> Array:
        """`a` on the devices, split where its length allows it (inside jit the programs below say where)."""
        if isinstance(a, jax.core.Tracer):
            return a
        even = a.shape[split] == self.count * self.columns and self.pay
        return jax.device_put(a, NamedSharding(self.mesh, self.spec(a.ndim, split) if even else PartitionSpec()))

    def run(self, local: Callable, inputs: tuple[PartitionSpec, ...], outputs: Any) -> Callable:
        """`local` on every device at once. The axis' sizes are constants, so nothing is left for JAX to check."""
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
            'sharding must be a jax.sharding.NamedSharding over a Mesh of devices, as NamedSharding(mesh, P("stages")), '
            f"got {sharding!r}"
        )
    named = [axis for axis in sharding.spec if axis is not None]
    if len(named) != 1:
        raise ValueError(
            "sharding must name the one mesh axis that the band's columns are split over, as "
            f'NamedSharding(mesh, P("stages")), got {sharding.spec}'
        )
    names = named[0] if isinstance(named[0], tuple) else (named[0],)
    count = 1
    for name in names:
        count *= sharding.mesh.shape[name]
    # Axes of type Auto: inside its programs JAX may place what lies between the parts.
    return Parts(Mesh(sharding.mesh.devices, sharding.mesh.axis_names), named[0], count, n, w)


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _padded(parts: Parts, ab: Array, diagonal: float) -> Array:
    """`(w + 1, devices x columns)` with unused cells cleared, and this diagonal in the columns that fill up."""
    extra = parts.count * parts.columns - parts.n
    if not extra:
        return clear_unused(ab)
    row, column = (lax.broadcasted_iota(jnp.int32, (ab.shape[0], parts.n + extra), i) for i in range(2))
    added = jnp.where(row == 0, jnp.asarray(diagonal, ab.dtype), 0)
    return jnp.where(column < parts.n, jnp.pad(clear_unused(ab), ((0, 0), (0, extra))), added)


def _lower_left(cells: Array) -> Array:
    """Of w columns `(w + 1, w)` the block `(w, w)` in the w rows below their square: upper triangular."""
    w = cells.shape[1]
    row, column = jnp.arange(w)[:, None], jnp.arange(w)[None]
    return jnp.where(row <= column, cells[jnp.where(row <= column, w + row - column, 0), column], 0)


def _before_next(a: Array) -> Array:
    """Entry p of the result is that of p + 1, and 0 for the last."""
    return jnp.pad(a[1:], [(0, 1), *[(0, 0)] * (a.ndim - 1)])


def _separators(own: Array, coupling: Array, gram: Array) -> Array:
    """The band `(2 w, devices x w)` of the separators' system from its parts, `(devices, w, w)` each."""
    P, w = own.shape[:2]
    columns = jnp.concatenate([own - _before_next(gram), _before_next(coupling)], 1)
    row = jnp.arange(2 * w)[:, None] + jnp.arange(w)[None]
    band = jnp.where(row < 2 * w, columns[:, jnp.minimum(row, 2 * w - 1), jnp.arange(w)[None]], 0)
    return band.transpose(1, 0, 2).reshape(2 * w, P * w)


def _eliminate(parts: Parts, ab: Array) -> tuple[Array, Array, Array]:
    """On one device: L and B with an identity for the separator `(w + 1, q)`, F above -B F `(q, w)`, and the factor of
    the separators' system `(2 w, devices x w)`."""
    w, m = parts.w, parts.columns - parts.w
    L = cholesky(ab)  # its last w columns factor the separator as if nothing were on its right: they are not used
    if not w:
        return L, ab.T[:, :0], ab[:, :0]
    row, column = (lax.broadcasted_iota(jnp.int32, ab.shape, i) for i in range(2))
    cells = jnp.where(column < m, L, jnp.where(row == 0, jnp.ones((), ab.dtype), 0))
    E = _lower_left(parts.from_left(ab[:, m:]))
    spike = solve_triangular(cells, jnp.pad(E, ((0, m), (0, 0))))
    B, F = _lower_left(L[:, m - w : m]), spike[:m]
    blocks = jnp.stack([to_dense(ab[:, m:]) - _times(B, B.T), spike[m:], _times(F.T, F)])
    return cells, spike, cholesky(_separators(*jnp.moveaxis(lax.all_gather(blocks, parts.axis), 1, 0)))


def _substitute(parts: Parts, cells: Array, spike: Array, separators: Array, b: Array) -> Array:
    """x on one device, `(q, k)`."""
    w, m = parts.w, parts.columns - parts.w
    if not w:
        return cho_solve(cells, b)
    y, F = solve_triangular(cells, b), spike[:m]
    of_separator, gram = jnp.moveaxis(lax.all_gather(jnp.stack([y[m:], _times(F.T, y[:m])]), parts.axis), 1, 0)
    x_s = cho_solve(separators, (of_separator - _before_next(gram)).reshape(-1, b.shape[1]))
    p = lax.axis_index(parts.axis)
    own = lax.dynamic_slice_in_dim(x_s, p * w, w)
    left = lax.dynamic_slice_in_dim(x_s, jnp.maximum(p - 1, 0) * w, w)  # F = 0 on the first device
    return solve_triangular(cells, jnp.concatenate([y[:m] - _times(F, left), own]), transpose=True)


def _multiply(parts: Parts, ab: Array, x: Array) -> Array:
    """H x on one device, `(q, k)`: w entries come from the right, and w sums go there."""
    q, w = x.shape[0], parts.w
    y = matvec(jnp.pad(ab, ((0, 0), (0, w))), jnp.concatenate([x, parts.from_right(x[:w])])) if w else ab.T * x
    return y[:q] + jnp.pad(parts.from_left(y[q:]), ((0, q - w), (0, 0))) if w else y


@partial(jax.jit, static_argnums=0)
def _factor(parts: Parts, ab: Array) -> tuple[Array, Array, Array]:
    outputs = (parts.spec(2, 1), parts.spec(2, 0), PartitionSpec())
    return parts.run(_eliminate, (parts.spec(2, 1),), outputs)(_padded(parts, ab, 1))


@partial(jax.jit, static_argnums=0)
def _solve(parts: Parts, ab: Array, constants: tuple, b: Array) -> Array:
    """`Factor.solve`, the factor being a constant to the linear solve: derivatives go through H x alone."""
    columns, rows = parts.spec(2, 1), parts.spec(2, 0)
    band = _padded(parts, ab, 0)
    multiply = parts.run(_multiply, (columns, rows), rows)
    substitute = parts.run(_substitute, (columns, rows, PartitionSpec(), rows), rows)
    *factors, ok = constants

    def apply(_: object, b: Array) -> Array:
        return jnp.where(ok, substitute(*factors, b), jnp.nan)

    x = lax.custom_linear_solve(partial(multiply, band), _padded_rows(parts, b), apply, symmetric=True)
    return x[: parts.n].reshape(b.shape)


def _padded_rows(parts: Parts, b: Array) -> Array:
    return jnp.pad(b.reshape(parts.n, -1), ((0, parts.count * parts.columns - parts.n), (0, 0)))


@partial(register_dataclass, data_fields=["ab", "cells", "spikes", "separators"], meta_fields=["parts"])
@dataclass(frozen=True)
class ShardedFactor:
    """A factorised band split over devices: `Factor`'s members. Its fields are private. A pytree."""

    ab: Array
    cells: Array
    spikes: Array
    separators: Array
    parts: Parts

    @property
    def ok(self) -> Array:
        """True where H is positive definite, on every device alike; elsewhere `solve` and `logdet` give NaN."""
        return jnp.isfinite(self.cells[0]).all() & jnp.isfinite(self.separators[0]).all()

    def solve(self, b: ArrayLike) -> Array:
        """x with H x = b, for b `(n,)` or `(n, k)`, split as H's columns are where the devices divide n."""
        b = as_rhs(b, self.ab)
        if b.size == 0:
            return b
        constants = lax.stop_gradient((self.cells, self.spikes, self.separators, self.ok))
        return _solve(self.parts, self.ab, constants, self.parts.placed(b, 0))

    def logdet(self) -> Array:
        """log det H, a scalar, on every device."""
        diagonals = self.cells[0], self.separators[0]
        return jnp.where(self.ok, 2 * sum(jnp.sum(jnp.log(each)) for each in diagonals), jnp.nan)


def factor(ab: ArrayLike, sharding: NamedSharding, factor_band: Callable) -> Any:
    """`factor` with `sharding`; a band that is shorter than its separators would be is factorised on every device."""
    ab = as_band(ab)
    parts = parts_of(sharding, ab.shape[1], ab.shape[0] - 1)
    ab = parts.placed(ab, 1)
    if not parts.pay:
        return factor_band(lax.with_sharding_constraint(ab, NamedSharding(parts.mesh, PartitionSpec())))
    return ShardedFactor(ab, *_factor(parts, ab), parts)


def solve(ab: ArrayLike, b: ArrayLike, sharding: NamedSharding, factor_band: Callable) -> Array:
    """`solve` with `sharding`. The factor is taken of a constant: a gradient then factorises nothing again."""
    ab = as_band(ab)
    b = as_rhs(b, ab)
    factored = factor(lax.stop_gradient(ab), sharding, factor_band)
    live = clear_unused(ab)
    factored = replace(factored, ab=live) if isinstance(factored, ShardedFactor) else factored._replace(ab=live)
    return factored.solve(b)
