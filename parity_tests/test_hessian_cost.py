"""The cost that `hessian` promises: products, evaluations, memory, constants, traces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from chains import window, window_chain
from hessian_cases import both_ways, inputs
from oracles import integers, reals, store, unique_coefficients


@pytest.mark.parametrize(("n", "k"), [(9, 0), (9, 2), (3, 2), (4, 9), (1, 1)])
def test_products(backend: Backend, n: int, k: int) -> None:
    A = unique_coefficients(n, n, 0)
    A = A + A.T
    A[abs(np.arange(n)[:, None] - np.arange(n)) > k] = 0
    products: list = []
    fun = backend.quadratic(A, products)
    ab = backend.package.hessian(fun, k, chunk_size=1)(backend.array(integers(n, 0)))
    np.testing.assert_array_equal(backend.numpy(ab), store(A, k))
    assert len(products) == min(2 * k + 1, n)


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_one_evaluation(backend: Backend, chunk_size: int | None) -> None:
    calls: list = []
    problem = window_chain(20, 2)
    fun = backend.tapped(problem.objective(backend.xp), calls)
    backend.package.value_grad_hessian(fun, 2, chunk_size=chunk_size)(*inputs(backend, problem))
    backend.settle()
    assert len(calls) == 1


@both_ways
def test_no_dense_matrix(backend: Backend, chunk_size: int | None) -> None:
    n, w = 1009, 3
    x = backend.array(reals(n, 0))
    fun = window(w)(backend.xp)
    largest = backend.largest_array(backend.package.hessian(fun, w, chunk_size=chunk_size), x)
    probes = 1 if chunk_size == 1 else 2 * w + 1
    # The band itself with its colours rounded up, or a batch of products: both far below n^2.
    assert largest <= max(
        (w + 1) * (n + 2 * w + 1), (2 * w + 1) * (n + 2 * (2 * w + 1)), probes * (n + 2 * (2 * w + 1))
    )
    assert backend.largest_array(backend.dense_hessian(fun), x) >= n * n, "this test could not fail"


def long_constants(text: str, n: int) -> list[str]:
    """Constants of n or more elements that are written out in a lowered program (a splat holds one number)."""
    found = []
    for line in text.splitlines():
        if "stablehlo.constant" in line and ("dense<[" in line or 'dense<"' in line):
            dims = line.rsplit("tensor<", 1)[1].split(">", 1)[0].split("x")[:-1]
            if np.prod([int(dim) for dim in dims]) >= n:
                found.append(line[:80])
    return found


@both_ways
def test_no_constant_of_the_size_of_x_in_the_program(chunk_size: int | None) -> None:
    package = BACKENDS["jax"].package
    T = 1009
    x = {"q": jnp.zeros((T, 2)), "u": jnp.zeros(T - 1)}

    def fun(x):
        return jnp.sum(jnp.sin(x["q"][1:] - x["q"][:-1])) + jnp.sum(x["u"] ** 2)

    text = jax.jit(package.hessian(fun, 1, chunk_size=chunk_size)).lower(x).as_text()
    assert "stablehlo" in text
    assert not long_constants(text, T)
    embedded = jnp.asarray(reals(T, 0))
    assert long_constants(jax.jit(lambda x: x + embedded).lower(embedded).as_text(), T), "this test could not fail"


def test_new_arguments_do_not_retrace() -> None:
    traces: list = []
    package = BACKENDS["jax"].package

    def fun(x, a):
        traces.append(None)
        return a * jnp.sum(x[1:] ** 2 * x[:-1])

    first = None
    for seed in range(4):
        x, a = jnp.asarray(integers(8, seed)), jnp.asarray(float(seed))
        # New function objects from `hessian` each time: what counts is `fun`.
        ab = package.hessian(fun, 1)(x, a)
        first = first or len(traces)
        np.testing.assert_array_equal(ab[1, :-1], seed * 2 * integers(8, seed)[1:])
    assert len(traces) == first
