"""Solving H x = b: the factorisation that is fastest on the platform, behind one opaque object."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from bandhess_common.checks import as_index

from ..band.storage import as_band, as_rhs, clear_unused
from ..band.structures import Structure, matvec
from ..band.structures import scaled as scaled_band
from ..framework.kernels import kernel
from . import bordered, sharded
from .cholesky import cholesky_ex
from .ldl import columns_solve, first_bad_pivot, ldl_columns
from .partition import partition

PARTITION_EVERYWHERE = False  # private: tests set it to run the other platforms' path on a CPU


def _by_platform(serial: Callable, parallel: Callable, *operands: Any) -> Array:
    """The serial programs on CPU, the partition elsewhere; chosen when the program is lowered."""
    if PARTITION_EVERYWHERE:
        return parallel(*operands)
    return lax.platform_dependent(*operands, cpu=serial, default=parallel)


@jax.custom_jvp
def _columns(ab: Array) -> Array:
    """`ldl_columns`, or with the partition its pivots alone: `Factor.solve` eliminates anew there."""

    def parallel(ab: Array) -> Array:
        pivots = partition(ab, jnp.zeros((ab.shape[1], 0), ab.dtype))[1]
        return jnp.pad(pivots[:, None], ((0, 0), (0, ab.shape[0] - 1)))

    return _by_platform(ldl_columns, parallel, ab)


@_columns.defjvp
def _columns_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The determinant is the same in any order of elimination, and so is its tangent: that of the serial scan.
    return jax.jvp(ldl_columns, primals, tangents)


def _solve_serial(ab: Array, columns: Array, ok: Array, b: Array) -> Array:
    return jnp.where(ok, columns_solve(columns, b, raw=True), jnp.nan)


def _solve_parallel(ab: Array, _columns: Array, _ok: Array, b: Array) -> Array:
    x, pivots = partition(ab, b.reshape(b.shape[0], -1))
    return jnp.where(first_bad_pivot(pivots) == 0, x, jnp.nan).reshape(b.shape)


class Factor(NamedTuple):
    """A factorised positive definite band. Its fields are private. A pytree: it passes through jit, vmap and scan.

    >>> bool(factor(jnp.array([[4.0, 4, 4], [1, 1, 0]])).ok)
    True
    >>> f = factor(jnp.array([[1.0, 1, 1], [2, 2, 0]]))  # indefinite, and so is [[1, 2], [2, 1]]
    >>> bool(f.ok), int(f.info)
    (False, 2)
    """

    ab: Array
    columns: Array
    definite: Array

    @property
    def ok(self) -> Array:
        """True where H is positive definite; elsewhere `solve` and `logdet` give NaN."""
        return self.definite

    @property
    def info(self) -> Array:
        """int32: 0, or the order of the first leading minor that is not positive definite, as `cholesky_ex` has it."""

        def other_order(_: Array, ab: Array, ok: Array) -> Array:  # of elimination
            return lax.cond(ok, lambda: jnp.int32(0), lambda: cholesky_ex(ab)[1])

        natural = lambda columns, *_: first_bad_pivot(columns[:, 0])  # noqa: E731
        return _by_platform(natural, other_order, *lax.stop_gradient((self.columns, self.ab, self.ok)))

    def solve(self, b: ArrayLike) -> Array:
        """x with H x = b, for b `(n,)` or `(n, k)`. A reverse pass makes one more solve, and no factorisation."""
        b = as_rhs(b, self.ab)
        if b.size == 0:
            return b
        # The factor is a constant to the linear solve: derivatives go through the product H x alone.
        constants = lax.stop_gradient((self.ab, self.columns, self.ok))

        def apply(_: object, b: Array) -> Array:
            return _by_platform(_solve_serial, _solve_parallel, *constants, b)

        return lax.custom_linear_solve(lambda x: matvec(self.ab, x), b, apply, symmetric=True)

    def logdet(self) -> Array:
        """log det H, a scalar."""
        return jnp.where(self.ok, jnp.sum(jnp.log(self.columns[:, 0])), jnp.nan)


@overload
def factor(ab: ArrayLike, *, sharding: NamedSharding | None = None) -> Factor: ...


@overload
def factor(ab: Structure, *, sharding: NamedSharding | None = None) -> bordered.BorderedFactor: ...


def factor(ab: ArrayLike | Structure, *, sharding: NamedSharding | None = None) -> Factor | bordered.BorderedFactor:
    """Factorise a positive definite H once, to solve with it many times.

    Args:
      ab: the band `(w + 1, n)` of H, or H as `Cyclic` or `Bordered`.
      sharding: None, or `NamedSharding(mesh, P("stages"))`, which names the mesh axis that the band's columns are split
        over. Each device factorises its own; what is gathered are 3 w^2 numbers a device. n of any length, which JAX
        splits only where the devices divide it; columns fewer than 2 w a device are factorised on each of them.

    Returns: `Factor` with `.solve(b)`, `.logdet()`, `.ok` and `.info`; for a structure and for a sharded band an object
      of the same members, which `inverse_band` takes (and of a structure `rcond`), too. Cost: as `cholesky`, and a
      solve with p right-hand sides for a border of p (w for a closed band); sharded, five times as `cholesky`, over the
      devices.

    >>> f = factor(jnp.array([[4.0, 4, 4], [1, 1, 0]]))
    >>> f.solve(jnp.array([5.0, 6, 5])).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    >>> bool(f.ok), round(float(f.logdet()), 4)
    (True, 4.0254)
    """
    factorise = partial(factor_band, sharding=sharding)
    return bordered.factor(ab, factorise) if isinstance(ab, Structure) else factorise(ab)


def factor_band(ab: ArrayLike, sharding: NamedSharding | None = None) -> Any:
    """`factor` of a plain band."""
    if sharding is not None:
        return sharded.factor(ab, sharding, factor_band)
    ab = clear_unused(as_band(ab))
    columns = _columns(ab)
    pivots = lax.stop_gradient(columns[:, 0])
    return Factor(ab, columns, jnp.all((pivots > 0) & (pivots < jnp.inf)))


def factored_columns(factor: Factor) -> Array:
    """`ldl_columns` of what was factorised, NaN where that is not positive definite."""
    columns = _by_platform(lambda _, columns: columns, lambda ab, _: ldl_columns(ab), factor.ab, factor.columns)
    return jnp.where(factor.ok, columns, jnp.nan)


def _solve_refined(ab: Array, b: Array, refine: int, sharding: NamedSharding | None) -> Array:
    """A factor in float32, of H scaled to a unit diagonal (which spares float32's range), and `refine` corrections."""
    constant, dtype = lax.stop_gradient(ab), ab.dtype
    scale = lax.rsqrt(constant[0])
    low = factor_band(scaled_band(constant, scale).astype(jnp.float32), sharding)

    def scaled(r: Array) -> Array:
        return r * scale.reshape((-1,) + (1,) * (r.ndim - 1))

    def approximate(r: Array) -> Array:
        r = scaled(r)
        size = jnp.max(jnp.abs(r), axis=0, keepdims=True)
        size = jnp.where(size > 0, size, 1)
        return scaled(low.solve((r / size).astype(jnp.float32)).astype(dtype) * size)

    def apply(_: object, b: Array) -> Array:
        correct = lambda _, x: x + approximate(b - matvec(constant, x, sharding=sharding))  # noqa: E731
        return lax.fori_loop(0, refine, correct, approximate(b))

    return lax.custom_linear_solve(lambda x: matvec(ab, x, sharding=sharding), b, apply, symmetric=True)


def solve(ab: ArrayLike | Structure, b: ArrayLike, *, refine: int = 0, sharding: NamedSharding | None = None) -> Array:
    """x with H x = b for positive definite H.

    Args:
      ab: `(w + 1, n)`, lower band of H; or H as `Cyclic` or `Bordered`.
      b: `(n,)` or `(n, k)`; with a border of p, `(n + p,)` or `(n + p, k)`.
      refine: 0, or the number of corrections to a solution by a float32 factor: the residual b - H x is formed in ab's
        dtype and solved for again. H is scaled to a unit diagonal first; if its condition number is c then, each
        correction gains a factor of about 1e7 / c, and for c above some 1e6 the factor may fail (Higham 2002,
        chapter 12). Two or three reach float64's accuracy for c up to 1e4.
      sharding: None, or as `factor` has it.

    Returns: x, of b's shape; NaN where H is not positive definite.
    Cost: one factorisation, n (w^2 + 3 w + 1) flops, and (4 w + 2) n per right-hand side (LAPACK `pbsv`). A
      border of p takes (2 w + p + 6) n p more by the compiled kernels, which never substitute it backwards (about half
      of a plain solve for p = 4, w = 8); with `refine` or derivatives, and elsewhere, it counts as p right-hand sides
      and 2 n p^2. A closed band counts as a border of w. Of one large system with w <= 16 the compiled kernels hold
      56 MiB of factor at most, and eliminate the columns beyond a second time (n = 1e6, float64: a fifth of them for
      w = 8, six tenths for w = 16), which takes no longer than fresh memory. The derivative costs one more solve: with
      `v = solve(ab, xbar)`, `bbar = v`, and `abbar[d, j]` is `-(v[j + d] x[j] + v[j] x[j + d])` (once, for d = 0),
      summed over right-hand sides.

    >>> solve(jnp.array([[4.0, 4, 4], [1, 1, 0]]), jnp.array([5.0, 6, 5])).round(decimals=4)
    Array([1., 1., 1.], dtype=float32)
    """
    refine = as_index(refine, "refine")
    if isinstance(ab, Structure):
        solve_band = partial(solve, refine=refine, sharding=sharding)
        compiled = not refine and sharding is None and not PARTITION_EVERYWHERE
        return bordered.solve(ab, b, solve_band, partial(factor_band, sharding=sharding), compiled)
    ab = as_band(ab)
    b = as_rhs(b, ab)
    if not b.size:
        return b
    if refine:
        ab, b = (ab, b) if sharding is None else sharded.placed(ab, b, sharding)[1:]
        return _solve_refined(clear_unused(ab), b, refine, sharding)
    return _solve(ab, b) if sharding is None else sharded.solve(ab, b, sharding, solve)


@jax.custom_jvp
def _solve(ab: Array, b: Array) -> Array:
    if PARTITION_EVERYWHERE:
        return _factor_solve(ab, b)
    # The kernel has no transpose; a linear solve has, and derivative rules that call `solve` on tangents need it.
    apply = lambda _, b: kernel("solve", _factor_solve, ab, b)  # noqa: E731
    return lax.custom_linear_solve(lambda x: matvec(ab, x), b, apply, symmetric=True)


def _factor_solve(ab: Array, b: Array) -> Array:
    return factor_band(ab).solve(b)


@_solve.defjvp
def _solve_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (ab, b), (dab, db) = primals, tangents
    # The factor is taken of a constant: a gradient then factorises nothing again.
    factored = factor_band(lax.stop_gradient(ab))._replace(ab=clear_unused(ab))
    x = factored.solve(b)
    return x, factored.solve(db - matvec(dab, x))
