"""The two backends behind one small interface, so that a test is written once.

`xp` is the module an objective is written against: it uses only what jax.numpy and torch spell alike. Everything a
test compares comes back as NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from differences import check_derivatives
from jax.interpreters import partial_eval
from programs import carries_in, largest_in

import bandhess_jax


class JaxBackend:
    name = "jax"
    device = "cpu"  # or conftest's --device, as the default platform
    package = bandhess_jax
    xp = jnp
    jit = staticmethod(jax.jit)
    vmap = staticmethod(jax.vmap)
    grad = staticmethod(jax.grad)
    jvp = staticmethod(jax.jvp)
    dense_hessian = staticmethod(jax.hessian)
    leaves = staticmethod(jax.tree.leaves)
    tree_map = staticmethod(jax.tree.map)
    complex = staticmethod(jax.lax.complex)

    def array(self, x: Any, dtype: Any = None) -> Any:
        dtype = None if dtype is None else np.dtype(dtype)
        # What NumPy has made goes over as it is: asarray would compile a program for each shape.
        return jax.device_put(x.astype(dtype or x.dtype)) if isinstance(x, np.ndarray) else jnp.asarray(x, dtype=dtype)

    def numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def dtype(self, name: str) -> Any:
        return np.dtype(name)

    def is_array(self, x: Any) -> bool:
        return isinstance(x, jax.Array)

    def check_derivatives(self, fun: Any, *args: np.ndarray) -> None:
        """First and second derivatives, pushed and pulled in either order, against central differences."""
        check_derivatives(fun, *map(self.array, args))

    def on_host(self, fun: Callable[[np.ndarray], np.ndarray]) -> Callable:
        """A NumPy function as an operator that can be neither vmapped nor differentiated."""
        return lambda v: jax.pure_callback(
            lambda v: fun(np.asarray(v)), jax.ShapeDtypeStruct(v.shape, v.dtype), v, vmap_method=None
        )

    def tapped(self, fun: Callable, calls: list) -> Callable:
        """`fun`, adding to `calls` every time its value is computed (not only when it is traced)."""

        def tapped_fun(*args: Any) -> Any:
            jax.debug.callback(lambda: calls.append(None))
            return fun(*args)

        return tapped_fun

    def settle(self) -> None:
        """Wait for the callbacks of what has run so far."""
        jax.effects_barrier()

    def quadratic(self, A: np.ndarray, products: list) -> Callable:
        """x^T A x / 2 whose every product with A of second order adds to `products`."""

        def product(v: np.ndarray) -> np.ndarray:
            products.append(v)
            return A @ v

        @jax.custom_jvp
        def gradient(x: Any) -> Any:
            return A @ x

        @gradient.defjvp
        def gradient_jvp(primals: tuple, tangents: tuple) -> tuple:
            return gradient(*primals), self.on_host(product)(*tangents)

        @jax.custom_vjp
        def fun(x: Any) -> Any:
            return x @ (A @ x) / 2

        fun.defvjp(lambda x: (fun(x), x), lambda x, cotangent: (cotangent * gradient(x),))
        return fun

    def linear(self, A: np.ndarray, products: list) -> Callable:
        """x -> A x whose every product with A^T adds to `products`."""

        def transposed(u: np.ndarray) -> np.ndarray:
            products.append(u)
            return A.T @ u

        def pull_back(_: Any, u: Any) -> Any:
            shape = jax.ShapeDtypeStruct(A.shape[1:], u.dtype)
            return jax.pure_callback(lambda u: transposed(np.asarray(u)), shape, u, vmap_method=None)

        return lambda x: jax.custom_derivatives.linear_call(lambda _, x: A @ x, pull_back, (), x)

    def count_solves(self, monkeypatch: Any, fun: Callable, *args: Any) -> tuple[int, int]:
        """Factorisations (scans that carry a window) and solves (two scans each that carry a vector) in a program."""
        with bandhess_jax.portable():  # compiled kernels stand in the place of these scans
            program = jax.make_jaxpr(fun)(*args).jaxpr
        program, _ = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))  # as jit does
        ranks = carries_in(program)
        assert set(ranks) <= {1, 2}
        assert ranks.count(1) % 2 == 0
        return ranks.count(2), ranks.count(1) // 2

    def largest_array(self, fun: Callable, *args: Any) -> int:
        return largest_in(jax.make_jaxpr(fun)(*args).jaxpr)


Backend = Any  # JaxBackend or TorchBackend
BACKENDS: dict[str, Backend] = {"jax": JaxBackend()}
if os.environ.get("BANDHESS_TEST_ONLY") != "jax":  # where there is no PyTorch for an interpreter: never by itself
    from torch_backend import TorchBackend

    BACKENDS["torch"] = TorchBackend()
