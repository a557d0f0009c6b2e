"""JAX's answer to `bandhess_common/interior_point/operations.py`: the engine as a traced program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...band import structures
from ...band.noise import hash_noise
from ...linalg.solve import factor as factor_matrix

where, maximum, minimum, log, sqrt, isfinite = jnp.where, jnp.maximum, jnp.minimum, jnp.log, jnp.sqrt, jnp.isfinite
sum, all, argmax = jnp.sum, jnp.all, jnp.argmax


def eps(like: Array) -> float:
    return float(jnp.finfo(like.dtype).eps)


def least(like: Array) -> float:
    return float(jnp.finfo(like.dtype).tiny)


def number(value: Any, like: Array) -> Array:
    return jnp.asarray(value, like.dtype)


def count(value: int, like: Array) -> Array:
    return jnp.asarray(value, jnp.int32)


def real(mask: Array, like: Array) -> Array:
    return mask.astype(like.dtype)


def full(shape: tuple[int, ...], value: float, like: Array) -> Array:
    return jnp.full(shape, value, like.dtype)


def noise(like: Array, seed: int) -> Array:
    return hash_noise(like, seed)


def power_of_two(a: Array) -> Array:
    return jnp.ldexp(jnp.ones_like(a), jnp.round(a).astype(jnp.int32))


def largest(a: Array, axis: int | None = None) -> Array:
    return jnp.max(jnp.abs(a), axis=axis, initial=0)


def median(a: Array, of: Array) -> Array:
    return jnp.sort(jnp.where(of, a, jnp.inf))[of.sum() // 2]


def join(*parts: Array) -> Array:
    return jnp.concatenate(parts)


def put(a: Array, i: Any, value: Any) -> Array:
    return a.at[i].set(value)


def range(n: int, like: Array) -> Array:
    return jnp.arange(n, dtype=jnp.int32)


def _columns(first: Array, L: int) -> Array:
    return first[:, None] + jnp.arange(L, dtype=jnp.int32)[None]


def windows(v: Array, first: Array, L: int) -> Array:
    return v.at[_columns(first, L)].get(mode="promise_in_bounds", wrap_negative_indices=False)


def add_windows(rows: Array, first: Array, n: int) -> Array:
    columns = _columns(first, rows.shape[1])
    return jnp.zeros(n, rows.dtype).at[columns].add(rows, mode="promise_in_bounds", wrap_negative_indices=False)


def gram(rows: Array, first: Array, weights: Array, band: Array) -> Array:
    """A diagonal a turn: the program stays small however wide the band."""
    L = rows.shape[1]
    weighted, ahead = weights[:, None] * rows, jnp.pad(rows, ((0, 0), (0, L)))

    def diagonal(d: Array) -> Array:
        return add_windows(weighted * lax.dynamic_slice_in_dim(ahead, d, L, 1), first, band.shape[1])

    return band.at[:L].add(lax.map(diagonal, jnp.arange(L, dtype=jnp.int32)))


def matvec(W: Array, v: Array, p: int) -> Array:
    return structures.matvec(structures.unstacked(W, p), v)


def factor(W: Array, p: int) -> tuple[Any, Array]:
    factored = factor_matrix(structures.unstacked(W, p))
    return factored, factored.ok


def solve(factored: Any, b: Array) -> Array:
    return factored.solve(b)


def when(wanted: Array, fun: Callable[[Any], Any], value: Any) -> Any:
    """A loop of one turn: under vmap it runs only if some lane wants it, where `cond` always would."""
    return while_loop(lambda t: t[0], lambda t: (t[0] & False, fun(t[1])), (wanted, value))[1]


def while_loop(wanted: Callable[[Any], Array], body: Callable[[Any], Any], value: Any) -> Any:
    def once(value: Any) -> Any:
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), body(value), value)

    return lax.while_loop(wanted, once, jax.tree.map(lambda a: lax.convert_element_type(a, jnp.result_type(a)), value))
