"""Derivatives of a function at a point, and what is linear in them: the products that bands are extracted from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..framework.fusion import tidy


def linearize_gradient(flat_fun: Callable, flat: Array) -> tuple[Array, Callable[[Array], Array], tuple]:
    """`(grad, product, (value, aux))`, the function evaluated once.

    Linearised here, outside the loop over probes: that loop then holds the linear part alone, and evaluates nothing
    of the function (its transcendental functions above all) again for each probe.
    """

    def gradient(flat: Array) -> tuple[Array, tuple]:
        out, grad = jax.value_and_grad(flat_fun, has_aux=True)(flat)
        return grad, out

    grad, product, out = tidy(lambda flat: jax.linearize(gradient, flat, has_aux=True), flat)(flat)
    return grad, product, out


def linearize_residuals(residuals: Callable[[Array], Any], flat: Array) -> tuple[Any, Callable, Callable]:
    """`(r, forward, backward)`: the residuals, v -> J v, and u -> J^T u (the real part of J^H u where r is complex)."""

    def checked(flat: Array) -> Any:
        out = residuals(flat)
        leaves = jax.tree.leaves(out)
        if not leaves or not all(hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.inexact) for a in leaves):
            kinds = [str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves]
            raise TypeError(f"residuals must return a floating array or a pytree of them, got leaves of types {kinds}")
        return out

    r, forward = jax.linearize(checked, flat)
    transpose = jax.linear_transpose(forward, flat)
    return r, forward, lambda u: transpose(jax.tree.map(jnp.conj, u))[0]
