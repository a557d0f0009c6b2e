"""A solution as a function of what the problem depends on, never through the iterations.

Of x and the multipliers `lax.custom_root` has the rule, by the implicit function theorem. The least value has the
derivative of the Lagrangian, x and multipliers held fast: the envelope theorem, which needs no inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array


def envelope(lagrangian: Callable[[Any, Any], Array], value: Array, at: Any, given: Any) -> Array:
    """value, the least one of a problem that depends on `given`, a tree of floating arrays: its derivative is the
    partial one of `lagrangian(at, given)`, at a tree of x and multipliers. Derivatives of that are followed into x and
    multipliers."""

    @jax.custom_jvp
    def least(value: Array, at: Any, given: Any) -> Array:
        return value

    @least.defjvp
    def rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        _, at, given = primals
        partial = jax.jvp(lambda given: lagrangian(at, given), (given,), (tangents[2],))[1]
        return least(*primals), partial

    return least(value, at, given)
