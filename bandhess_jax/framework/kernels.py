"""The compiled CPU kernels (`bandhess_common/kernels`) registered with XLA, in the place of the pure-JAX programs.

An algorithm calls `kernel(name, pure, *operands)` where it runs its scans: on a CPU the compiled kernel serves, on any
other platform, without the compiled file, for other dtypes and inside `portable()` the pure function. Derivative rules
stand around these calls, so they are the same in both.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bandhess_common.kernels import KERNELS, load, result_shapes, why_not


@functools.cache
def _failure() -> str:
    """Registers the kernels, once; '' or what prevents it."""
    if why_not():
        return why_not()
    library = load()
    if not hasattr(library, "bandhess_xla_solve"):
        return "built without XLA's headers: install jaxlib, then bandhess anew (pip install -v shows why)"
    try:
        for name in KERNELS:
            handler = jax.ffi.pycapsule(getattr(library, f"bandhess_xla_{name}"))
            jax.ffi.register_ffi_target(f"bandhess_{name}", handler, platform="cpu")
            jax.ffi.register_ffi_target_as_batch_partitionable(f"bandhess_{name}")
    except Exception as error:  # an incompatible jaxlib: the pure path serves
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

    >>> with portable():
    ...     cpu_kernels()
    'pure: inside portable()'
    """
    return _portable(True)


def cpu_kernels() -> str:
    """Which programs serve on CPU: "compiled", or "pure: " and the reason why the compiled kernels do not.

    Compiled kernels are built by `pip install` where a C++ compiler is at hand. They take float32 and float64; inside
    `portable()`, for other dtypes and on other platforms the pure-JAX programs serve, with the same results to
    rounding.

    >>> cpu_kernels().split(":")[0] in ("compiled", "pure")
    True
    """
    if _portable.value:
        return "pure: inside portable()"
    return "pure: " + _failure() if _failure() else "compiled"


def _served(operands: tuple[Array, ...]) -> bool:
    """Whether the compiled kernels take these: float32 throughout or float64 throughout, indices apart."""
    dtypes = {a.dtype for a in operands if a.dtype != jnp.int32}
    return dtypes in ({jnp.dtype("float32")}, {jnp.dtype("float64")})


def kernel(name: str, pure: Callable, *operands: Array, results: int = 1, **options: Any) -> Any:
    """`pure(*operands, **options)`, by the compiled kernel `name` where that serves: the first so many results, as an
    array or a tuple of them.

    Where this process has CPUs alone, `pure` is not even traced: that takes longer than the rest of a call's tracing.
    """
    whole = functools.partial(pure, **options)
    if not _served(operands) or cpu_kernels() != "compiled":
        return whole(*operands)
    numbers = {option: np.float64(value) for option, value in {**KERNELS[name].options, **options}.items()}

    def compiled(*operands: Array) -> Any:
        shapes = result_shapes(name, tuple(a.shape for a in operands), results, tuple(options.items()))
        dtype = operands[0].dtype
        out = [jax.ShapeDtypeStruct(dims, jnp.int32 if integers else dtype) for integers, dims in shapes]
        call = jax.ffi.ffi_call(f"bandhess_{name}", out[0] if results == 1 else tuple(out), vmap_method="broadcast_all")
        return call(*operands, **numbers)

    if jax.default_backend() == "cpu":
        return compiled(*operands)
    return lax.platform_dependent(*operands, cpu=compiled, default=whole)
