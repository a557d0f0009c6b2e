"""The band of the Jacobian of residuals that are local in stages: `jacobian`, and `jacobian_error`, which checks it.

T = 4 stages of d = 1 scalar, lower = 1, upper = 1: residual s depends on stages s - 1, s and s + 1.

    J =  a b . .        ab =  * b e h        ab[u + i - j, j] = J[i, j], l = u = 1
         c d e .              a d g j        colours  0 1 2 0: columns 0 and 3 share no row, and one product
         . f g h              c f i *        J (1, 0, 0, 1) = (a, c, h, j) shows both.
         . . i j

Column (t, i) has colour (t mod (lower + upper + 1)) d + i, and shows itself in the rows of stages t - upper to
t + lower (Curtis, Powell, Reid 1974).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from bandhess_common.checks import as_chunk_size, as_index, check_argnums, check_residuals
from bandhess_common.dtypes import native

from ..band.general import times
from ..band.noise import hash_noise
from ..band.stages import Layout
from ..framework.fusion import tidy
from ..framework.jit import jit_call
from .bandwidth import is_wrong
from .objective import Objective
from .products import ChunkSize, Extraction, multiply


class Residuals(NamedTuple):
    """Which argument of a function is differentiated, and how many stages a residual reaches. Hashable."""

    objective: Objective
    lower: int
    upper: int
    chunk_size: ChunkSize

    @classmethod
    def of(
        cls, fun: Callable, lower: int, upper: int, argnums: int, has_aux: bool, chunk_size: ChunkSize, args: tuple,
        name: str | None = None,
    ) -> Residuals:  # fmt: skip
        objective = Objective.of(fun, argnums, has_aux, args, name)
        chunk_size = Extraction.of(0, "direct", chunk_size).resolve(objective.layout, args).chunk_size
        return cls(objective, lower, upper, chunk_size)

    @property
    def layout(self) -> Layout:
        return self.objective.layout

    @property
    def reach(self) -> tuple[int, int]:
        """`(l, u)`, subdiagonals and superdiagonals in scalars."""
        d = self.layout.d
        return max((self.lower + 1) * d - 1, 0), max((self.upper + 1) * d - 1, 0)

    @property
    def rows(self) -> int:
        """Of the band."""
        return sum(self.reach) + 1

    def bind(self, fun: Callable, args: tuple, kwargs: dict) -> tuple[Callable[[Array], tuple[Array, Any]], Array]:
        """`(flat -> (residuals, aux), flat)`, both ravelled: each dummy residual is a dummy variable of its stage, so
        that J is square and as regular as it is without them."""
        objective, layout = self.objective, self.objective.layout
        before, after = args[: objective.argnums], args[objective.argnums + 1 :]

        def flat_fun(flat: Array) -> tuple[Array, Any]:
            out, aux = fun(*before, layout.unravel(flat), *after, **kwargs), None
            if objective.has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError(f"fun must return (residuals, aux) with has_aux=True, got {type(out).__name__}")
                out, aux = out
            rows = Layout.of(out, "fun's result")
            missing, absent = _missing(rows), _missing(layout)
            check_residuals(rows.T, rows.d, sum(missing), layout.T, layout.d, sum(absent))
            if rows.dtype != layout.dtype:
                raise TypeError(f"fun must return residuals of its argument's dtype, {layout.dtype}, got {rows.dtype}")
            r = rows.ravel(out)
            if any(missing):
                last = layout.n - layout.d
                r = r.at[last + np.flatnonzero(missing)].add(flat[last + np.flatnonzero(absent)])
            return r, aux

        return flat_fun, layout.ravel(args[objective.argnums])


def _missing(layout: Layout) -> list[bool]:
    """For each scalar of a stage, whether the last stage has it not."""
    return [shape[0] != layout.T for shape in layout.shapes for _ in range(math.prod(shape[1:]))]


def linearize_rows(flat_fun: Callable, flat: Array) -> tuple[Array, Callable[[Array], Array], Any]:
    """`(r, v -> J v, aux)`."""
    r, push, aux = tidy(lambda flat: jax.linearize(flat_fun, flat, has_aux=True), flat)(flat)
    return r, push, aux


def general_band(push: Callable[[Array], Array], residuals: Residuals) -> Array:
    """The band `(l + u + 1, n)` of v -> J v."""
    layout, d, n = residuals.layout, residuals.layout.d, residuals.layout.n
    if n == 0:
        return jnp.zeros((residuals.rows, 0), layout.dtype)
    low, up = min(residuals.lower, layout.T - 1), min(residuals.upper, layout.T - 1)
    stages = low + up + 1
    colours, groups = stages * d, -(-layout.T // stages)
    push = tidy(push, jax.ShapeDtypeStruct((n,), layout.dtype))

    def product(c: Array) -> Array:
        """`[m, e]`: what column c + m colours shows in row e of the stages that it may show itself in."""
        y = push((jnp.arange(n) % colours == c).astype(layout.dtype))
        padded = jnp.pad(y, (up * d, groups * colours + low * d - n))
        return lax.dynamic_slice(padded, (c // d * d,), (groups * colours,)).reshape(groups, colours)

    kept = multiply(product, min(colours, n), residuals.chunk_size, n)
    kept = jnp.pad(kept, ((0, colours - kept.shape[0]), (0, 0), (0, 0))).reshape(stages, d, groups, colours)
    of_scalar = kept.transpose(1, 3, 2, 0).reshape(d, colours, groups * stages)[:, :, : layout.T]
    # Scalar i's rows begin i rows above those of the diagonal's.
    ab = jnp.stack([jnp.pad(of_scalar[i], ((d - 1 - i, i), (0, 0))) for i in range(d)], -1).reshape(-1, n)
    return jnp.pad(ab, (((residuals.upper - up) * d, (residuals.lower - low) * d), (0, 0)))


def _jacobian(residuals: Residuals, fun: Callable, args: tuple, kwargs: dict) -> Any:
    _, push, aux = linearize_rows(*residuals.bind(fun, args, kwargs))
    ab = general_band(push, residuals)
    return (ab, aux) if residuals.objective.has_aux else ab


def jacobian(
    fun: Callable,
    lower: int,
    upper: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Any]:
    """A function of `fun`'s arguments that returns the band of its Jacobian, as `jax.jacfwd` returns all of it.

    Args:
      fun: takes a tree of T stages of d scalars and returns a tree of T stages of d residuals (in any structure; a leaf
        of either may end one stage early, as many scalars in both). Residual s may depend on stages s - lower to
        s + upper. Changes of what it reads from outside are noticed but in modules, sets, files and jitted functions
        (`help(bandhess_jax)` has the whole list).
      lower: stages before its own that a residual depends on, >= 0.
      upper: stages after its own, >= 0.
      argnums: the one argument to differentiate.
      has_aux: `fun` returns `(residuals, aux)`, aux a pytree of arrays.
      chunk_size: as in `from_matvec`.

    Returns: the function; its value is `ab` `(l + u + 1, T d)` (or `(ab, aux)`) with l = (lower + 1) d - 1 subdiagonals
      and u = (upper + 1) d - 1 superdiagonals, in the diagonal ordered form that `lu_factor` and
      `scipy.linalg.solve_banded` take: `ab[u + i - j, j] = J[i, j]`, i and j in the ravelled trees (stage by stage,
      leaves in pytree order). Unused cells are 0. A dummy variable and a dummy residual of ragged leaves meet in a 1.

    Raises: ValueError where there are not d residuals a stage: boundary conditions join the stages' residuals in one
      array, `jnp.concatenate([left, inner.ravel(), right]).reshape(T, d)`. For more residuals than variables
      `gauss_newton` gives the band of J^T J.

    Cost: one linearisation and (lower + upper + 1) d forward products, never more than T d. Entries outside the band
    are lost or misplaced: `jacobian_error` tells.

    >>> ab = jacobian(lambda y: y**2 - jnp.roll(y, 1).at[0].set(0), 1, 0)(jnp.array([1.0, 2, 3]))
    >>> ab
    Array([[ 2.,  4.,  6.],
           [-1., -1.,  0.]], dtype=float32)
    """
    argnums, lower, upper = check_argnums(argnums), as_index(lower, "lower"), as_index(upper, "upper")
    chunk_size = as_chunk_size(chunk_size)

    def jacobian_fun(*args: Any, **kwargs: Any) -> Any:
        residuals = Residuals.of(fun, lower, upper, argnums, has_aux, chunk_size, args)
        return jit_call(_jacobian, residuals, fun, args, kwargs)

    return jacobian_fun


def too_narrow(push: Callable[[Array], Array], ab: Array, residuals: Residuals) -> Array:
    """True where `root` refuses the band, by the measures of `bandwidth.too_narrow`."""
    v = hash_noise(ab[0], 0)
    Jv, rescaled = lax.map(push, jnp.stack([v, jnp.pi * v]))
    error = jnp.abs(Jv - times(ab, v, residuals.reach[0]))
    scale = times(jnp.abs(ab), jnp.abs(v), residuals.reach[0])
    change = jnp.abs(Jv - rescaled / jnp.pi)
    noise = 64 * jnp.max(jnp.where(scale > 0, change / scale, 0), initial=0)
    return jnp.any(is_wrong(error, scale, noise))


def _jacobian_error(options: tuple[Residuals, int], fun: Callable, ab: Array, args: tuple, kwargs: dict) -> Array:
    residuals, seed = options
    flat_fun, flat = residuals.bind(fun, args, kwargs)
    v = jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype)
    Jv = jax.jvp(lambda flat: flat_fun(flat)[0], (flat,), (v,))[1]
    error, scale = jnp.abs(Jv - times(ab, v, residuals.reach[0])), times(jnp.abs(ab), jnp.abs(v), residuals.reach[0])
    return jnp.max(jnp.where(error == 0, 0, error / scale), initial=0)


def jacobian_error(
    fun: Callable, lower: int, upper: int, *, argnums: int = 0, has_aux: bool = False, seed: int = 0
) -> Callable[..., Array]:
    """A function `(ab, *args)` that tells how far `ab` is from being the Jacobian of `fun` there, at one product.

    `band_error`'s kin, for what `jacobian` gives with the same lower and upper: `max_i |J v - ab v|_i / (|ab| |v|)_i`,
    a scalar, for one random Gaussian v (0/0 = 0, x/0 = inf). At rounding level nothing lies outside the band and
    nothing inside is misplaced, with probability 1; `root` refuses a band above sqrt(eps). Works under jit.

    >>> fun, y = lambda y: y**2, jnp.array([1.0, 2, 3])
    >>> float(jacobian_error(fun, 0, 0)(jacobian(fun, 0, 0)(y), y)) < 1e-5
    True
    """
    argnums, lower, upper = check_argnums(argnums), as_index(lower, "lower"), as_index(upper, "upper")

    def jacobian_error_fun(ab: ArrayLike, *args: Any, **kwargs: Any) -> Array:
        residuals = Residuals.of(fun, lower, upper, argnums, has_aux, "auto", args)
        ab, shape = jnp.asarray(native(ab, "ab")), (residuals.rows, residuals.layout.n)
        if ab.shape != shape or ab.dtype != residuals.layout.dtype:
            raise ValueError(
                f"ab must be {shape} of {residuals.layout.dtype}, as jacobian(fun, {lower}, {upper}) gives it, got "
                f"{ab.shape} of {ab.dtype}"
            )
        return jit_call(_jacobian_error, (residuals, seed), fun, ab, args, kwargs)

    return jacobian_error_fun
