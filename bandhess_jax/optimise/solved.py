"""Which ends have derivatives: solutions. Those of any other end are NaN, which no caller takes for a slope."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from bandhess_common.status import Status


def solved(status: Array) -> Array:
    """Whether an optimiser ended at a solution."""
    return (status == Status.CONVERGED) | (status == Status.PRECISION_FLOOR)


def nan_unless(ok: Array, t: Array) -> Array:
    """A linear function of tangents: t where ok, else NaN. Its transpose leaves cotangents of 0 as they are: of what
    nothing depends on, no NaN comes back, as 0 times NaN would."""

    def forward(_: object, t: Array) -> Array:
        return jnp.where(ok, t, jnp.nan)

    def reverse(_: object, t: Array) -> Array:
        return jnp.where(ok | (t == 0), t, jnp.nan)

    return lax.custom_linear_solve(lambda t: t, t, forward, reverse)


@jax.custom_jvp
def differentiable_where(ok: Array, v: Array) -> Array:
    """v, whose derivative is NaN where not ok."""
    return v


@differentiable_where.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    ok, v = primals
    return v, nan_unless(ok, tangents[1])
