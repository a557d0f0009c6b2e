"""The compiled CPU kernels (`bandhess_common/kernels`) registered with XLA, in the place of the pure-JAX programs.

An algorithm calls `kernel(name, pure, *operands)` where it runs its scans: on a CPU the compiled kernel serves, on any
other platform, without the compiled file, for other dtypes and inside `portable()` the pure function, which also
defines the result's shapes. Derivative rules stand around these calls, so they are the same in both.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

import bandhess_common.kernels

_NAMES = (
    *("columns", "cholesky", "solve", "substitute", "triangular", "inverse", "subproblem"),
    *("lu", "lu_solve", "symmetry"),
)


@functools.cache
def _failure() -> str:
    """Registers the kernels, once; '' or what prevents it."""
    files = sorted(Path(bandhess_common.kernels.__file__).parent.glob("_kernels.*so"))
    if not files:
        return "not built: no C++ compiler or no XLA headers at installation (pip install -v shows why)"
    try:
        library = ctypes.CDLL(str(files[0]))
        for name in _NAMES:
            handler = jax.ffi.pycapsule(getattr(library, f"bandhess_{name}"))
            jax.ffi.register_ffi_target(f"bandhess_{name}", handler, platform="cpu")
            jax.ffi.register_ffi_target_as_batch_partitionable(f"bandhess_{name}")
    except Exception as error:  # a file of another platform or of an incompatible jaxlib: the pure path serves
        return f"not usable: {error}"
    return ""


class _Context:
    """What `jax.make_user_context` makes, for versions of JAX without it: not part of jit's cache key."""

    value = False

    @contextlib.contextmanager
    def __call__(self, value: bool) -> Iterator[None]:
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before


_portable: Any = jax.make_user_context(False) if hasattr(jax, "make_user_context") else _Context()


def portable() -> contextlib.AbstractContextManager[None]:
    """A context in which programs are traced without compiled kernels: for `jax.export`, and to compare the two.

    with bandhess_jax.portable():
        exported = jax.export.export(jax.jit(f))(x)

    Functions jitted and called outside are traced anew inside, and the other way round (in versions of JAX that have
    no `jax.make_user_context`, make a new `jax.jit` for the inside).
    """
    return _portable(True)


def cpu_kernels() -> str:
    """Which programs serve on CPU: "compiled", or "pure: " and the reason why the compiled kernels do not.

    Compiled kernels are built by `pip install` where a C++ compiler is at hand. They take float32 and float64; inside
    `portable()`, for other dtypes and on other platforms the pure-JAX programs serve, with the same results to
    rounding.
    """
    if _portable.value:
        return "pure: inside portable()"
    return "pure: " + _failure() if _failure() else "compiled"


def kernel(name: str, pure: Callable, *operands: Array, **attributes: Any) -> Any:
    """`pure(*operands, **attributes)`, by the compiled kernel `name` where that serves."""
    whole = functools.partial(pure, **attributes)
    if operands[0].dtype not in (jnp.float32, jnp.float64) or cpu_kernels() != "compiled":
        return whole(*operands)

    def compiled(*operands: Array) -> Any:
        shapes = jax.eval_shape(whole, *operands)
        return jax.ffi.ffi_call(f"bandhess_{name}", shapes, vmap_method="broadcast_all")(*operands, **attributes)

    return lax.platform_dependent(*operands, cpu=compiled, default=whole)
