"""The function whose Hessian is wanted, seen as one of the ravelled vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ..band.stages import Layout


class Objective(NamedTuple):
    """Which argument of a function is differentiated, and its layout. Hashable."""

    layout: Layout
    argnums: int
    has_aux: bool
    offers_aux: bool  # the caller's argument

    @classmethod
    def of(
        cls,
        fun: Callable,
        argnums: int,
        has_aux: bool,
        args: tuple,
        name: str | None = None,
        *,
        stage_axes: Any = 0,
        periodic: bool = False,
    ) -> Objective:
        if not callable(fun):
            raise TypeError(f"fun must be a function, got {type(fun).__name__}")
        if not -len(args) <= argnums < len(args):
            raise ValueError(f"argument {argnums} (argnums) must be given by position; got {len(args)} positional ones")
        argnums %= len(args)
        layout = Layout.of(args[argnums], name or f"argument {argnums}", stage_axes, periodic)
        return cls(layout, argnums, bool(has_aux), name is None)

    def bind(self, fun: Callable, args: tuple, kwargs: dict) -> tuple[Callable[[Array], tuple[Array, Any]], Array]:
        """`(flat -> (value, aux), flat)`; the dummies of ragged leaves have zero gradient by construction."""

        def flat_fun(flat: Array) -> tuple[Array, Any]:
            out = fun(*args[: self.argnums], self.layout.unravel(flat), *args[self.argnums + 1 :], **kwargs)
            if self.has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError(f"fun must return (value, aux) with has_aux=True, got {type(out).__name__}")
                value, aux = out
            else:
                value, aux = out, None
            if isinstance(value, float):  # a constant
                value = jnp.asarray(value, flat.dtype)
            remedy = "; has_aux=True for a pair" if self.offers_aux else ""
            if not hasattr(value, "shape") and not isinstance(value, int):
                raise TypeError(f"fun must return a scalar array, got {type(value).__name__}{remedy}")
            if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
                raise TypeError(
                    f"fun must return a real scalar (shape ()), got shape {jnp.shape(value)} and dtype "
                    f"{jnp.result_type(value)}; sum its terms, for example with jnp.sum"
                )
            return jnp.asarray(value), aux

        return flat_fun, self.layout.ravel(args[self.argnums])
