"""Bands of Hessians under jit, vmap and further derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from backends import BACKENDS, Backend
from chains import rosenbrock, rosenbrock_chain
from hessian_cases import both_ways, inputs
from oracles import integers, unique_coefficients, unstore_lower
from problems import polynomial


@both_ways
def test_vmap_over_points(backend: Backend, chunk_size: int | None) -> None:
    x = integers(3 * 12, 0).reshape(3, 12)
    hessian = backend.package.hessian(rosenbrock(backend.xp), 1, chunk_size=chunk_size)
    batched = backend.vmap(hessian)(backend.array(x))
    np.testing.assert_array_equal(
        backend.numpy(batched), np.stack([backend.numpy(hessian(backend.array(row))) for row in x])
    )


def test_vmap_over_an_argument(backend: Backend) -> None:
    hessian = backend.package.hessian(lambda x, a: a * backend.xp.sum((x[1:] * x[:-1]) ** 2), 1)
    x = backend.array(integers(6, 0))
    batched = backend.vmap(hessian, (None, 0))(x, backend.array([1.0, 2.0]))
    np.testing.assert_array_equal(backend.numpy(batched[1]), backend.numpy(hessian(x, backend.array(2.0))))
    np.testing.assert_array_equal(batched[0] * 2, backend.numpy(batched[1]))


def test_third_derivatives(backend: Backend) -> None:
    """The gradient of a weighted band is that of the weighted dense Hessian, each cell weighing once."""
    problem = rosenbrock_chain(9)
    fun = problem.objective(backend.xp)
    (x,) = inputs(backend, problem)
    weight = unique_coefficients(2, 9, 1)
    weight[1, -1] = 0
    on_band, on_dense = backend.array(weight), backend.array(unstore_lower(weight))
    by_band = backend.grad(lambda x: backend.xp.sum(on_band * backend.package.hessian(fun, 1)(x)))
    by_dense = backend.grad(lambda x: backend.xp.sum(on_dense * backend.dense_hessian(fun)(x)))
    third = backend.numpy(backend.jit(by_band)(x))
    np.testing.assert_array_equal(third, backend.numpy(backend.jit(by_dense)(x)))
    tangent = integers(9, 2)
    _, along = backend.jvp(backend.package.hessian(fun, 1), (x,), (backend.array(tangent),))
    assert np.sum(weight * backend.numpy(along)) == tangent @ third


def test_gradient_in_another_argument(backend: Backend) -> None:
    x = backend.array(integers(7, 0))
    hessian = backend.package.hessian(lambda x, a: a**3 * backend.xp.sum(x[1:] * x[:-1] ** 2), 1)
    grad = backend.grad(lambda a: backend.xp.sum(hessian(x, a)))(backend.array(2.0))
    assert float(grad) == 3 * 4 * float(backend.xp.sum(hessian(x, backend.array(1.0))))


def test_jit() -> None:
    problem = polynomial(23, 3)
    backend = BACKENDS["jax"]
    hessian = jax.jit(backend.package.hessian(problem.objective(jnp), 3))
    np.testing.assert_array_equal(backend.numpy(hessian(*inputs(backend, problem))), problem.band)


def test_torch_autograd_through_the_band() -> None:
    """Plain autograd, without torch.func: x is a leaf that requires grad."""
    x = torch.tensor(integers(6, 0), requires_grad=True)
    package = BACKENDS["torch"].package
    package.hessian(rosenbrock(torch), 1)(x).sum().backward()
    expected = torch.func.grad(lambda x: package.hessian(rosenbrock(torch), 1)(x).sum())(x.detach())
    np.testing.assert_array_equal(x.grad, expected)
