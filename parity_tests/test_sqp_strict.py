"""JAX's `sqp` under the settings with which JAX finds mistakes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bandhess_jax

X0 = np.zeros(5)
A = np.array([0.7, 0.4])


def solve(a: Any, dtype: Any = jnp.float64, **options: Any) -> Any:
    """With a fixed variable and one-sided bounds, equalities and inequalities."""

    def cost(x: Any, a: Any) -> Any:
        return jnp.sum((x - a[0]) ** 2) + jnp.sum((x[1:] - x[:-1]) ** 2)

    return bandhess_jax.sqp(
        cost, lambda x, a: x[:1] + x[1:2] ** 2 - a[:1], jnp.asarray(X0, dtype), 1, args=(a,),
        inequalities=lambda x, a: {"cap": a[1] - x[4:]},
        bounds=(jnp.array([-jnp.inf, -jnp.inf, 1.7, -5, 0], dtype), jnp.array([jnp.inf, jnp.inf, 1.7, 5, 9], dtype)),
        max_steps=50, history=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_no_dtype_or_rank_is_promoted(dtype: Any) -> None:
    """Nor in its derivatives. Promotions show when the program is traced."""
    a = jnp.asarray(A, dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        result = jax.eval_shape(lambda a: solve(a, dtype)[:3], a)
        slope = jax.eval_shape(jax.grad(lambda a: solve(a, dtype).value), a)
    assert {leaf.dtype for leaf in jax.tree.leaves((result, slope))} == {jnp.dtype(dtype)}


def test_no_nan_on_a_healthy_problem() -> None:
    """Neither in the history's empty rows nor while the host looks at the clock."""
    with jax.debug_nans(True):
        result = solve(jnp.asarray(A), max_seconds=1e6)
    assert result.status == bandhess_jax.Status.CONVERGED
    assert len(result.history.value) == result.steps + 1
    assert np.isfinite(np.stack(result.history)).all()
