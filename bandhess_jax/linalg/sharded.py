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

Cost: n (w^2 + 2 w^2 + 2 w^2) flops for L, F and F^T F, of which a serial factor has the first alone; (8 w + 2) n for
a right-hand side, twice the serial solve's. So it pays from some devices on (docs/explanation/partition.md has how
many). A device holds three bands of its columns: H's, L's and the spike. On GPUs its columns are eliminated one after
the other: right, but slow.

The selected inverse Z: that of the separators' system gives Z_ss, for the separators on both sides of an interior; with
V = L^-T [F, B^T] the interior has (L L^T)^-1 + V Z_ss V^T, and -V Z_ss couples it to them. Both terms are positive
semidefinite, so that nothing cancels on the diagonal.

Source: Wang 1981 (ACM TOMS 7, 170) for the parts; Polizzi and Sameh 2006 (Parallel Computing 32, 177) for spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import register_dataclass
from jax.typing import ArrayLike

from ..band.mesh import Parts, multiply_part, padded, padded_rows, parts_of
from ..band.storage import as_band, as_rhs, clear_unused, from_dense, to_dense
from .cholesky import cho_solve, cholesky, cholesky_ex
from .triangular import solve_triangular


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


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


def _invert(parts: Parts, invert_band: Callable, cells: Array, spike: Array, separators: Array) -> Array:
    """The band of Z on one device, `(w + 1, q)`."""
    w, q = parts.w, parts.columns
    m = q - w
    if not w:
        return invert_band(cells)
    # Z_ss, of the separators on the left (none on the first device, where F = 0) and of its own.
    band = jnp.pad(invert_band(separators), ((0, 0), (w, 0)))
    near = lax.dynamic_slice_in_dim(band, lax.axis_index(parts.axis) * w, 2 * w, 1)
    Z = to_dense(near)

    # T Z_ss T^T, T = -V for the interior's rows and an identity for the separator's.
    coupled = jnp.pad(spike[:m], ((0, w), (0, 0))), jnp.pad(_lower_left(cells[:, m - w : m]).T, ((m - w, w), (0, 0)))
    V = solve_triangular(cells, jnp.concatenate(coupled, 1), transpose=True)
    T = jnp.concatenate([-V[:m], jnp.eye(w, 2 * w, w, dtype=V.dtype)])
    TZ = _times(T, Z)
    update = [jnp.pad(jnp.sum(TZ[d:] * T[: q - d], 1), (0, d)) for d in range(w + 1)]
    interior = jnp.pad(invert_band(cells[:, :m]), ((0, 0), (0, w)))

    # What the right neighbour knows of this separator's columns: its interior's first rows.
    row, column = jnp.arange(w + 1)[:, None], jnp.arange(w)[None]
    next_rows = parts.from_right(TZ[:w, :w])
    below = jnp.where(row + column >= w, next_rows[jnp.maximum(row + column - w, 0), column], 0)
    return interior + jnp.stack(update) + jnp.pad(below, ((0, 0), (m, 0)))


def _first_failure(parts: Parts, ab: Array) -> Array:
    """On one device: the order of H's first leading minor that is not positive definite; n where rounding hides it.

    The columns are eliminated as they stand, so that a device must wait for what its left neighbour's leave: U, the
    update of its first w columns. In turn p the device p has it.
    """
    w, last = parts.w, parts.columns - parts.w
    E = _lower_left(ab[:, last:]).T

    def turn(_: object, found: tuple[Array, Array]) -> tuple[Array, Array]:
        U = from_dense(found[0], w - 1)
        L, info = cholesky_ex(ab - jnp.pad(U, ((0, 1), (0, last))))
        X = lax.linalg.triangular_solve(jnp.tril(to_dense(L[:, last:])), E, left_side=True, lower=True)
        return parts.from_left(_times(X.T, X)), info

    nothing = jnp.zeros((w, w), ab.dtype), jnp.int32(0)
    info = lax.fori_loop(0, parts.count, turn, nothing)[1] if w else cholesky_ex(ab)[1]
    order = lax.axis_index(parts.axis) * parts.columns + info
    return lax.pmin(jnp.where(info > 0, jnp.minimum(order, parts.n), parts.n), parts.axis)


@partial(jax.jit, static_argnums=0)
def _factor(parts: Parts, ab: Array) -> tuple[Array, Array, Array]:
    outputs = (parts.spec(2, 1), parts.spec(2, 0), PartitionSpec())
    return parts.run(_eliminate, (parts.spec(2, 1),), outputs)(padded(parts, ab, 1))


@partial(jax.jit, static_argnums=0)
def _info(parts: Parts, ok: Array, ab: Array) -> Array:
    search = parts.run(_first_failure, (parts.spec(2, 1),), PartitionSpec())
    return lax.cond(ok, lambda: jnp.int32(0), lambda: search(padded(parts, ab, 1)))


@partial(jax.jit, static_argnums=0)
def _solve(parts: Parts, ab: Array, constants: tuple, b: Array) -> Array:
    """`Factor.solve`, the factor being a constant to the linear solve: derivatives go through H x alone."""
    columns, rows = parts.spec(2, 1), parts.spec(2, 0)
    band = padded(parts, ab, 0)
    multiply = parts.run(multiply_part, (columns, rows), rows)
    substitute = parts.run(_substitute, (columns, rows, PartitionSpec(), rows), rows)
    *factors, ok = constants

    def apply(_: object, b: Array) -> Array:
        return jnp.where(ok, substitute(*factors, b), jnp.nan)

    x = lax.custom_linear_solve(partial(multiply, band), padded_rows(parts, b), apply, symmetric=True)
    return x[: parts.n].reshape(b.shape)


@dataclass(frozen=True)
class ShardedFactor:
    """A factorised band split over devices: `Factor`'s members. Its fields are private. A pytree."""

    ab: Array
    cells: Array  # L, B and ones for the separators, `(w + 1, devices x columns)`
    spikes: Array  # F, and -B F at the separators, `(devices x columns, w)`
    separators: Array  # their system's Cholesky factor `(2 w, devices x w)`, on every device
    parts: Parts

    @property
    def ok(self) -> Array:
        """True where H is positive definite, on every device alike; elsewhere `solve` and `logdet` give NaN."""
        return jnp.isfinite(self.cells[0]).all() & jnp.isfinite(self.separators[0]).all()

    @property
    def info(self) -> Array:
        """int32, on every device: 0, or the order of the first leading minor that is not positive definite, in the
        order of H's columns, as `cholesky_ex` has it.

        Parts are eliminated side by side, and one that fails says nothing of those before it. So where H is not
        positive definite, and only there, its columns are eliminated once more, one device after the other: in a
        serial factor's time, w^2 numbers being sent.
        """
        return _info(self.parts, *lax.stop_gradient((self.ok, self.ab)))

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


register_dataclass(ShardedFactor, data_fields=["ab", "cells", "spikes", "separators"], meta_fields=["parts"])


def _everywhere(parts: Parts, a: Array) -> Array:
    return lax.with_sharding_constraint(a, NamedSharding(parts.mesh, PartitionSpec()))


def factor(ab: ArrayLike, sharding: NamedSharding, factor_band: Callable) -> Any:
    """`factor` with `sharding`; a band too short to be split is factorised on every device, by `factor_band`."""
    ab = as_band(ab)
    parts = parts_of(sharding, ab.shape[1], ab.shape[0] - 1)
    ab = parts.placed(ab, 1)
    if not parts.pay:
        return factor_band(_everywhere(parts, ab))
    cells, spikes, separators = _factor(parts, ab)
    return ShardedFactor(ab, cells, spikes, separators, parts)


def placed(ab: Array, b: Array, sharding: NamedSharding) -> tuple[Parts, Array, Array]:
    """`(parts, ab, b)`, split over the devices."""
    parts = parts_of(sharding, ab.shape[1], ab.shape[0] - 1)
    return parts, parts.placed(ab, 1), parts.placed(b, 0)


def solve(ab: Array, b: Array, sharding: NamedSharding, solve_band: Callable) -> Array:
    """`solve` with `sharding`; a band too short to be split is solved with on every device, by `solve_band`."""
    parts, ab, b = placed(ab, b, sharding)
    if not parts.pay:
        return solve_band(_everywhere(parts, ab), _everywhere(parts, b))
    # The factor is taken of a constant: a gradient then factorises nothing again.
    cells, spikes, separators = _factor(parts, lax.stop_gradient(ab))
    return ShardedFactor(ab, cells, spikes, separators, parts).solve(b)


@partial(jax.jit, static_argnums=(0, 1))
def _inverse(parts: Parts, invert_band: Callable, ok: Array, *factors: Array) -> Array:
    columns = parts.spec(2, 1)
    local = lambda parts, *factors: _invert(parts, invert_band, *factors)  # noqa: E731
    Z = parts.run(local, (columns, parts.spec(2, 0), PartitionSpec()), columns)(*factors)
    return clear_unused(jnp.where(ok, Z[:, : parts.n], jnp.nan))


def inverse(of: ShardedFactor, invert_band: Callable) -> Array:
    """The band of H^-1, split as H's. Cost: n (16 w^2 + 6 w) flops more than `inverse_band`'s, over the devices."""
    return _inverse(of.parts, invert_band, of.ok, of.cells, of.spikes, of.separators)


def squared(cb: Array) -> Array:
    """The band of L L^T: column c of L adds to those from c to c + w."""
    n = cb.shape[1]
    H = jnp.zeros_like(cb)
    for d in range(min(cb.shape)):
        H = H + jnp.pad((cb[d] * cb[d:])[:, : n - d], ((0, d), (d, 0)))
    return H
