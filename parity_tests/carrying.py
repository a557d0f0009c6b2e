"""Linear programs in JAX, and their diagonals beside their columns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from oracles import store

from bandhess_jax.extraction.diagonals import carry
from bandhess_jax.framework.programs import flattened


def coefficients(shape: Any, seed: int = 0) -> Array:
    """No two alike, of either sign."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.5, 2, tuple(shape)) * rng.choice([-1, 1], tuple(shape)))


def dense(matvec: Callable, n: int, dtype: Any = np.float64) -> np.ndarray:
    """Column by column, by the definition."""
    compiled = jax.jit(matvec)
    return np.array([compiled(column) for column in jnp.eye(n, dtype=dtype)]).reshape(n, n).T


def carried(matvec: Callable, n: int, rows: int | None = None, dtype: Any = np.float64) -> Any:
    def band() -> Any:
        flat, _ = flattened(matvec, jax.ShapeDtypeStruct((n,), dtype))
        return None if flat is None else carry(flat, n, rows or n, 10**9)

    return jax.jit(band)()


def gram(g: Callable, n: int) -> Callable:
    """v -> g^T (D g(v)), symmetric, D with no two entries alike."""
    like = jax.ShapeDtypeStruct((n,), np.float64)
    weights = coefficients(jax.eval_shape(g, like).shape, 1)
    return lambda v: jax.linear_transpose(g, like)(weights * g(v))[0]


def assert_carried(matvec: Callable, n: int, may_give_up: bool = False) -> None:
    h, ab = dense(matvec, n), carried(matvec, n)
    if ab is None and may_give_up:
        return
    assert ab is not None
    np.testing.assert_allclose(ab, store(h, n - 1), rtol=1e-12, atol=1e-13 * np.max(abs(h), initial=1))
