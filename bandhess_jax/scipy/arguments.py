"""The arguments of functions with SciPy's signatures: their shapes and dtypes, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def as_arrays(function: str, **arguments: ArrayLike) -> dict[str, Array]:
    """The arguments, a band and perhaps b, as arrays whose shapes fit together."""
    arrays = {name: as_array(value) for name, value in arguments.items()}
    for name, x in arrays.items():
        least, shape = (1, "(n,) or (..., n, k)") if name == "b" else (2, "(..., rows, n), in band storage")
        if x.ndim < least:
            raise ValueError(f"{name} must have shape {shape}, got {x.shape}")
    if "b" in arrays:
        (name, ab), (_, b) = arrays.items()
        rows, n = ab.shape[-2:]
        if n != b.shape[-2:][0]:
            raise ValueError(
                f"shapes of {name} and b are not compatible. b must have shape ({n},) or (..., {n}, k) to match {name} "
                f"of shape {ab.shape}, got {b.shape}"
            )
        if b.size and rows == 0:
            raise ValueError(f"{name} must have a row at least, the diagonal, got shape {ab.shape}")
    if 0 in batch_shape(*arrays.values()):
        raise ValueError(f"`{function}` does not support zero-size batches.")
    return arrays


def as_array(value: ArrayLike) -> Array:
    """`jnp.asarray(value)`, which compiles programs for most values: none for NumPy's arrays and lists of floats."""
    if isinstance(value, (list, tuple)) and all(type(leaf) in (int, float, complex) for leaf in jax.tree.leaves(value)):
        with suppress(ValueError):  # of lists of different lengths, on which JAX has its own word
            listed = np.asarray(value)
            default = {"f": float, "c": complex}.get(listed.dtype.kind)
            value = value if default is None else listed.astype(jnp.result_type(default))
    if type(value) is np.ndarray and value.dtype.char in "?bhilBHILefdFD" and value.dtype.isnative:
        return jax.device_put(value.astype(jax.dtypes.canonicalize_dtype(value.dtype), copy=False))
    return jnp.asarray(value)


def check_rows(l: int, u: int, ab: Array) -> None:
    if l + u + 1 != ab.shape[-2]:
        raise ValueError(
            f"invalid values for the number of lower and upper diagonals: l+u+1 ({l + u + 1}) does not equal "
            f"ab.shape[0] ({ab.shape[-2]})"
        )


def batch_shape(*operands: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(x.shape[:-2] for x in operands))


def run(core: Callable, options: tuple, check_finite: bool, arrays: dict[str, Array]) -> tuple[Array, Array]:
    """core(*arrays, *options) over batches, compiled: `(result, failed)`. Raises where check_finite finds something."""
    result, failed, finite = _compiled(core, options, bool(check_finite), *arrays.values())
    for name, is_finite in zip(arrays, finite, strict=False):
        if not isinstance(is_finite, jax.core.Tracer) and not is_finite:
            raise ValueError(f"array must not contain infs or NaNs: {name} does; check_finite=False lets it pass")
    return result, failed


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(core: Callable, options: tuple, check_finite: bool, *arrays: Array) -> tuple[Array, Array, list[Array]]:
    finite = [jnp.isfinite(x).all() for x in arrays] if check_finite else []
    floats = [x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float) for x in arrays]
    dtype = np.result_type(np.float32, *(x.dtype for x in floats))  # also where jnp promotes nothing
    return *_over_batches(core, options, [x.astype(dtype) for x in floats]), finite


def known(flags: Array) -> bool:
    """Whether a flag is set, where that can be known: outside jit and the other transformations."""
    return not isinstance(flags, jax.core.Tracer) and bool(np.any(np.asarray(flags)))


def _over_batches(core: Callable, options: tuple, operands: list[Array]) -> Any:
    """`core` of matrices (and of a vector), mapped over leading axes that broadcast as SciPy's do."""
    batch = batch_shape(*operands)
    if not batch:
        return core(*operands, *options)
    # One matrix for a batch of right-hand sides stays one, and is factorised once.
    flat = [flattened(x, batch) if x.ndim > 2 else x for x in operands]
    mapped = jax.vmap(lambda *one: core(*one, *options), in_axes=[0 if x.ndim > 2 else None for x in operands])
    return jax.tree.map(lambda y: y.reshape(batch + y.shape[1:]), mapped(*flat))


def flattened(x: Array, batch: tuple[int, ...]) -> Array:
    """x broadcast to a batch whose axes are one."""
    return jnp.broadcast_to(x, batch + x.shape[-2:]).reshape(math.prod(batch), *x.shape[-2:])
