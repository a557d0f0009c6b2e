"""The two backends behind one small interface, so that a test is written once.

`xp` is the module an objective is written against: it uses only what jax.numpy and torch spell alike. Everything a
test compares comes back as NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import torch
import torch.utils._pytree as torch_tree
from jax.interpreters import partial_eval
from programs import LargestTensor, carries_in, largest_in

import bandhess_jax
import bandhess_torch


class JaxBackend:
    name = "jax"
    package = bandhess_jax
    xp = jnp
    jit = staticmethod(jax.jit)
    vmap = staticmethod(jax.vmap)
    grad = staticmethod(jax.grad)
    jvp = staticmethod(jax.jvp)
    dense_hessian = staticmethod(jax.hessian)
    leaves = staticmethod(jax.tree.leaves)
    tree_map = staticmethod(jax.tree.map)

    def array(self, x: Any, dtype: Any = None) -> Any:
        return jnp.asarray(x, dtype=None if dtype is None else np.dtype(dtype))

    def numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def dtype(self, name: str) -> Any:
        return np.dtype(name)

    def is_array(self, x: Any) -> bool:
        return isinstance(x, jax.Array)

    def check_derivatives(self, fun: Any, *args: np.ndarray) -> None:
        """First and second derivatives against finite differences."""
        jax.test_util.check_grads(fun, tuple(map(self.array, args)), order=2, modes=("fwd", "rev"))

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


class TorchBackend:
    name = "torch"
    package = bandhess_torch
    xp = torch
    vmap = staticmethod(torch.func.vmap)
    grad = staticmethod(torch.func.grad)
    jvp = staticmethod(torch.func.jvp)
    dense_hessian = staticmethod(torch.func.hessian)
    leaves = staticmethod(torch_tree.tree_leaves)
    tree_map = staticmethod(torch_tree.tree_map)

    @staticmethod
    def jit(fun: Any) -> Any:  # eager: there is nothing to compile
        return fun

    device = torch.device("cpu")  # conftest's --device; JAX takes it as its platform

    def array(self, x: Any, dtype: Any = None) -> Any:
        return torch.from_numpy(np.array(x, dtype=dtype)).to(self.device)

    def numpy(self, x: Any) -> np.ndarray:
        return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)

    def dtype(self, name: str) -> Any:
        return getattr(torch, name)

    def is_array(self, x: Any) -> bool:
        return isinstance(x, torch.Tensor)

    def check_derivatives(self, fun: Any, *args: np.ndarray) -> None:
        """First and second derivatives against finite differences."""
        tensors = [self.array(x).requires_grad_() for x in args]
        assert torch.autograd.gradcheck(fun, tensors, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(fun, tensors)

    def on_host(self, fun: Callable[[np.ndarray], np.ndarray]) -> Callable:
        """A NumPy function as an operator that can be neither vmapped nor differentiated."""
        return lambda v: self.array(fun(self.numpy(v)))

    def tapped(self, fun: Callable, calls: list) -> Callable:
        """`fun`, adding to `calls` every time its value is computed."""

        def tapped_fun(*args: Any) -> Any:
            calls.append(None)
            return fun(*args)

        return tapped_fun

    def settle(self) -> None:
        """Wait for the callbacks of what has run so far: nothing is asynchronous here."""

    def quadratic(self, A: np.ndarray, products: list) -> Callable:
        """x^T A x / 2 whose every product with A of second order adds to `products`."""
        matrix = self.array(A)

        class Gradient(torch.autograd.Function):
            @staticmethod
            def forward(x: Any) -> Any:
                return matrix @ x

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                pass

            @staticmethod
            def backward(ctx: Any, v: Any) -> Any:
                products.append(v)
                return matrix @ v

        class Quadratic(torch.autograd.Function):
            @staticmethod
            def forward(x: Any) -> Any:
                return x @ (matrix @ x) / 2

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                ctx.save_for_backward(*inputs)

            @staticmethod
            def backward(ctx: Any, cotangent: Any) -> Any:
                return cotangent * Gradient.apply(*ctx.saved_tensors)

        return Quadratic.apply

    def linear(self, A: np.ndarray, products: list) -> Callable:
        """x -> A x whose every product with A^T adds to `products`."""
        matrix = self.array(A)

        class Transposed(torch.autograd.Function):
            @staticmethod
            def forward(u: Any) -> Any:
                products.append(u)
                return matrix.T @ u

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                pass

            @staticmethod
            def backward(ctx: Any, v: Any) -> Any:
                return matrix @ v

        class Linear(torch.autograd.Function):
            @staticmethod
            def forward(x: Any) -> Any:
                return matrix @ x

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                pass

            @staticmethod
            def backward(ctx: Any, u: Any) -> Any:
                return Transposed.apply(u)

        return Linear.apply

    def count_solves(self, monkeypatch: Any, fun: Callable, *args: Any) -> tuple[int, int]:
        """Factorisations and solves, as calls of LAPACK."""
        calls = []
        with monkeypatch.context() as patch:
            for name in ("pbtrf", "pbtrs", "pbsv"):
                routine = getattr(bandhess_torch.linalg.lapack, name)
                patch.setattr(
                    bandhess_torch.linalg.lapack, name,
                    lambda *args, name=name, routine=routine: (calls.append(name), routine(*args))[1],
                )  # fmt: skip
            fun(*args)
        both = calls.count("pbsv")
        return calls.count("pbtrf") + both, calls.count("pbtrs") + both

    def largest_array(self, fun: Callable, *args: Any) -> int:
        with LargestTensor() as mode:
            fun(*args)
        return mode.largest


Backend = JaxBackend | TorchBackend
BACKENDS = {backend.name: backend for backend in (JaxBackend(), TorchBackend())}
