"""Operators, quadratics and error bounds that the tests of extraction share. Nothing here imports the packages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from backends import Backend
from problems import unique_coefficients

PROBINGS = ["direct", "substitution", "fourier", "random"]


def block_banded(T: int, d: int, k: int, seed: int | None = None) -> np.ndarray:
    """A symmetric matrix that couples stages at most k apart: distinct integers, or with a seed normal numbers."""
    n = T * d
    h = unique_coefficients(n, n, 0) if seed is None else np.random.default_rng(seed).normal(size=(n, n))
    stage = np.arange(n) // d
    h = np.where(abs(stage[:, None] - stage) <= k, h, 0)
    return np.tril(h) + np.tril(h, -1).T


def multiply(matrix: Any, v: Any) -> Any:
    return (matrix @ v.reshape(-1)).reshape(v.shape)


def operator(backend: Backend, function: Callable, *arrays: Any) -> Callable:
    """`v -> function(*arrays, v)`. In JAX a pytree, so that new arrays of the same shape do not compile again."""
    partial = jax.tree_util.Partial if backend.name == "jax" else functools.partial
    return partial(function, *arrays)


def error_in_eps(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, in eps of the actual dtype times the largest entry. NaN is infinitely wrong."""
    assert actual.shape == expected.shape
    scale = np.finfo(actual.dtype).eps * np.abs(expected).max(initial=0)
    error = np.abs(actual.astype("float64") - expected).max(initial=0)
    return float(error / scale) if scale and np.isfinite(error) else (0.0 if error == 0 else np.inf)


def assert_unused_cells_are_zero(ab: np.ndarray) -> None:
    rows, n = ab.shape
    unused = np.arange(rows)[:, None] + np.arange(n) >= n
    np.testing.assert_array_equal(ab[unused], 0)


def counted_quadratic(backend: Backend, A: np.ndarray, products: list) -> Callable:
    """x^T A x / 2; every product of second order with A adds an entry to `products`, one for each lane of a batch.

    Unlike `backend.quadratic` this one can be vmapped.
    """
    if backend.name == "jax":

        def host(v: np.ndarray) -> np.ndarray:
            products.append(None)
            return A @ np.asarray(v)

        @jax.custom_jvp
        def gradient(x: Any) -> Any:
            return jnp.asarray(A) @ x

        @gradient.defjvp
        def gradient_jvp(primals: tuple, tangents: tuple) -> tuple:
            (v,) = tangents
            like = jax.ShapeDtypeStruct(v.shape, v.dtype)
            return gradient(*primals), jax.pure_callback(host, like, v, vmap_method="sequential")

        @jax.custom_vjp
        def quadratic(x: Any) -> Any:
            return x @ (jnp.asarray(A) @ x) / 2

        quadratic.defvjp(lambda x: (quadratic(x), x), lambda x, cotangent: (cotangent * gradient(x),))
        return quadratic

    matrix = torch.from_numpy(A)

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(v: Any) -> Any:
            products.append(None)
            return matrix @ v

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def vmap(info: Any, in_dims: Any, v: Any) -> Any:
            products.extend([None] * info.batch_size)
            return v.movedim(in_dims[0], 0) @ matrix.T, 0

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return matrix @ x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, v: Any) -> Any:
            return Product.apply(v)

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
