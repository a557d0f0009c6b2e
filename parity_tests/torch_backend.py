"""PyTorch behind the interface of backends.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as torch_tree
from torch.utils._python_dispatch import TorchDispatchMode

import bandhess_torch


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in torch_tree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.numel())
        return out


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
    complex = staticmethod(torch.complex)

    @staticmethod
    def jit(fun: Any) -> Any:  # eager: there is nothing to compile
        return fun

    device = "cpu"  # or conftest's --device

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
        assert torch.autograd.gradgradcheck(fun, tensors, fast_mode=True)

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
        """Factorisations and solves, as calls of the compiled kernels."""
        calls, call = [], bandhess_torch.framework.kernels.call
        with monkeypatch.context() as patch:
            record = lambda name, *args, **options: (calls.append(name), call(name, *args, **options))  # noqa: E731
            patch.setattr(bandhess_torch.framework.kernels, "call", record)
            fun(*args)
        assert set(calls) <= {"columns", "cholesky", "solve", "solve_bordered", "substitute"}
        both = calls.count("solve") + calls.count("solve_bordered")
        return calls.count("columns") + calls.count("cholesky") + both, calls.count("substitute") + both

    def largest_array(self, fun: Callable, *args: Any) -> int:
        with LargestTensor() as mode:
            fun(*args)
        return mode.largest
