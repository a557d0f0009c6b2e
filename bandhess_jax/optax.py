"""Banded Newton directions as transformations of optax.

    solver = banded_newton(bandwidth=1)                     # directions, and optax' line search
    state = solver.init(x)
    value, grad = jax.value_and_grad(fun)(x)
    updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
    x = optax.apply_updates(x, updates)

`scale_by_banded_newton` is the direction alone, to be chained. For a minimum with a certificate use
`bandhess_jax.newton`; this is for loops that are written with optax. optax comes with the extra `optax`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array, lax

from bandhess_common.options import ChunkSize, ProbingName

from .band.stages import Layout
from .extraction.hessian import hessian
from .extraction.probing.protocol import Probing
from .linalg.solve import factor

__all__ = ["ScaleByBandedNewtonState", "banded_newton", "scale_by_banded_newton"]

FIRST, GROW, TRIES = 1e-3, 4.0, 40  # the first shift in units of max|diagonal|; a failed one's successor; bound


class ScaleByBandedNewtonState(NamedTuple):
    """The shift that made the last Hessian positive definite, a scalar: 0 near a minimum.

    >>> import jax.numpy as jnp
    >>> from bandhess_jax.optax import scale_by_banded_newton
    >>> scale_by_banded_newton(0).init(jnp.ones(3))
    ScaleByBandedNewtonState(shift=Array(0., dtype=float32))
    """

    shift: Array


def scale_by_banded_newton(
    bandwidth: int, *, probing: ProbingName | Probing = "direct", chunk_size: ChunkSize = "auto"
) -> optax.GradientTransformationExtraArgs:
    """(H + shift I)^-1 g in the place of a gradient g, H being the banded Hessian of `value_fn` at the parameters.

    Args:
      bandwidth: of the Hessian, in stages; the parameters are an array or tree of stages.
      probing: as in `bandhess_jax.hessian`.
      chunk_size: likewise.

    Returns: a transformation whose update needs the parameters and `value_fn=`, the function of them that is
      minimised. shift is 0 where H is positive definite, else the first of a growing sequence that makes it so
      (Nocedal and Wright 2006, algorithm 3.3); where none does (H is not finite) the result is NaN.

    Cost: a banded Hessian, and a factorisation per shift tried.

    >>> import jax.numpy as jnp
    >>> from bandhess_jax.optax import scale_by_banded_newton
    >>> solver, x = scale_by_banded_newton(0), jnp.array([1.0, 2, 3])
    >>> direction, state = solver.update(4 * x**3, solver.init(x), x, value_fn=lambda x: (x**4).sum())
    >>> direction.round(decimals=4)  # g / H = x / 3
    Array([0.3333, 0.6667, 1.    ], dtype=float32)
    """

    def init(params: Any) -> ScaleByBandedNewtonState:
        return ScaleByBandedNewtonState(jnp.zeros((), Layout.of(params, "params").dtype))

    def update(
        updates: Any, state: ScaleByBandedNewtonState, params: Any = None, *, value_fn: Callable | None = None, **_: Any
    ) -> tuple[Any, ScaleByBandedNewtonState]:
        if params is None or value_fn is None:
            raise ValueError("needs params and value_fn: update(grads, state, params, value_fn=fun)")
        layout = Layout.of(params, "params")
        ab = hessian(value_fn, bandwidth, probing=probing, chunk_size=chunk_size)(params)
        largest = jnp.max(jnp.abs(ab[0]))
        least = FIRST * jnp.where(largest > 0, largest, 1)

        def shifted(shift: Array) -> Array:
            return ab.at[0].add(shift)

        def fails(search: tuple[Array, Array]) -> Array:
            return ~factor(shifted(search[0])).ok & (search[1] < TRIES)

        def grow(search: tuple[Array, Array]) -> tuple[Array, Array]:
            first = jnp.maximum(least, state.shift / GROW)
            return jnp.where(search[1] == 0, first, GROW * search[0]), search[1] + 1

        shift, _tries = lax.while_loop(fails, grow, (jnp.zeros_like(largest), jnp.int32(0)))
        direction = factor(shifted(shift)).solve(layout.ravel(updates))
        return layout.unravel(direction), ScaleByBandedNewtonState(lax.stop_gradient(shift))

    return optax.GradientTransformationExtraArgs(init, update)


def banded_newton(
    bandwidth: int,
    linesearch: optax.GradientTransformationExtraArgs | None = None,
    *,
    probing: ProbingName | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> optax.GradientTransformationExtraArgs:
    """Newton directions downhill, with a line search, as `optax.lbfgs` is for its directions.

    Args:
      bandwidth: of the Hessian, in stages.
      linesearch: by default `optax.scale_by_backtracking_linesearch(20)`, which tries the whole step first.
      probing: as in `bandhess_jax.hessian`.
      chunk_size: likewise.

    Returns: a transformation whose update needs the parameters, `value=`, `grad=` and `value_fn=`.

    >>> import jax, jax.numpy as jnp, optax
    >>> from bandhess_jax.optax import banded_newton
    >>> fun, x = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + ((x - 1) ** 2).sum(), jnp.zeros(4)
    >>> solver = banded_newton(1)
    >>> value, grad = jax.value_and_grad(fun)(x)
    >>> updates, state = solver.update(grad, solver.init(x), x, value=value, grad=grad, value_fn=fun)
    >>> optax.apply_updates(x, updates).round(decimals=3)
    Array([1., 1., 1., 1.], dtype=float32)
    """
    search = optax.scale_by_backtracking_linesearch(20) if linesearch is None else linesearch
    direction = scale_by_banded_newton(bandwidth, probing=probing, chunk_size=chunk_size)
    return optax.chain(direction, optax.scale(-1.0), search)
