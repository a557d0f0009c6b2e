"""Is the bandwidth right? One random product tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ._hessian import Objective, check_argnums
from ._jit import jit_call
from ._storage import as_band, clear_unused, matvec


def probe_error(product: Callable[[Array], Array], ab: Array, v: Array) -> tuple[Array, Array]:
    """`(|H v - ab v|, |ab| |v|)`, entry by entry."""
    return jnp.abs(product(v) - matvec(ab, v)), matvec(jnp.abs(ab), jnp.abs(v))


def too_narrow(product: Callable[[Array], Array], ab: Array, seed: int = 0) -> Array:
    """True where the solvers refuse the band: some entry is off by more than sqrt(eps) of its own row, and by more
    than 32 eps of the largest row (a row that is rounding noise throughout would otherwise look wrong)."""
    v = jax.random.normal(jax.random.key(seed), ab.shape[1:], ab.dtype)
    error, scale = probe_error(product, ab, v)
    eps = jnp.finfo(ab.dtype).eps
    return jnp.any((error > eps**0.5 * scale) & (error > 32 * eps * jnp.max(scale, initial=0)))


def _band_error(options: tuple[Objective, int], fun: Callable, ab: Array, args: tuple, kwargs: dict) -> Array:
    objective, seed = options
    flat_fun, flat = objective.bind(fun, args, kwargs)
    gradient = jax.grad(lambda flat: flat_fun(flat)[0])
    ab = clear_unused(ab)

    def product(v: Array) -> Array:
        return jax.jvp(gradient, (flat,), (v,))[1] + (objective.layout.dummies() * v if objective.layout.ragged else 0)

    error, scale = probe_error(product, ab, jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype))
    return jnp.max(jnp.where(error == 0, 0, error / scale), initial=0)


def band_error(fun: Callable, *, argnums: int = 0, has_aux: bool = False, seed: int = 0) -> Callable[..., Array]:
    """A function `(ab, *args)` that tells how far `ab` is from being the Hessian of `fun` there, at one product.

    It returns `max_i |H v - ab v|_i / (|ab| |v|)_i`, a scalar, for one random Gaussian v (0/0 = 0, x/0 = inf). At
    rounding level (some 1e-15 in float64, 1e-6 in float32; more where `fun` cancels), nothing lies outside the band
    and nothing inside is misplaced, with probability 1. The optimisers refuse a band above sqrt(eps): 1.5e-8 in
    float64, 3.5e-4 in float32. Works under jit.
    """
    argnums = check_argnums(argnums)

    def band_error_fun(ab: ArrayLike, *args: Any, **kwargs: Any) -> Array:
        objective = Objective.of(argnums, has_aux, args)
        ab = as_band(ab)
        if ab.shape[1] != objective.layout.n or ab.dtype != objective.layout.dtype:
            raise ValueError(
                f"ab must be (w + 1, {objective.layout.n}) of {objective.layout.dtype}, as the argument, got shape "
                f"{ab.shape} of {ab.dtype}"
            )
        return jit_call(_band_error, (objective, seed), fun, ab, args, kwargs)

    return band_error_fun
