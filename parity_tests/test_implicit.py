"""The minimiser as a function of the objective's arguments: against finite differences, and differentiated loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend

N = 4
C = np.array([0.3, -1.0, 1.5, 0.5])


def objective(backend: Backend) -> Any:
    xp = backend.xp

    def fun(x: Any, c: Any) -> Any:
        return xp.sum((x - c) ** 4) / 4 + xp.sum((x - c) ** 2) / 2 + xp.sum(xp.exp(c[1:]) * (x[1:] - x[:-1]) ** 2)

    return fun


# One function object per backend, so that the tests share programs.
FUN = {name: objective(backend) for name, backend in BACKENDS.items()}


def solve(backend: Backend, c: Any, **options: Any) -> Any:
    """To the last digits, so that differences of solutions are derivatives."""
    x0 = backend.array(np.zeros(N))
    return backend.package.newton(FUN[backend.name], x0, 1, args=(c,), tol=1e-13, **options)


def jacobian(fun: Any, c: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """By central differences."""
    return np.stack([(fun(c + h * e) - fun(c - h * e)) / (2 * h) for e in np.eye(len(c))], -1)


def reverse(backend: Backend, fun: Any, c: np.ndarray) -> np.ndarray:
    """The Jacobian in reverse mode."""
    mode = {"jax": jax.jacrev, "torch": torch.func.jacrev}[backend.name]
    return backend.numpy(mode(fun)(backend.array(c)))


def forward(backend: Backend, fun: Any, c: np.ndarray) -> np.ndarray:
    mode = {"jax": jax.jacfwd, "torch": torch.func.jacfwd}[backend.name]
    return backend.numpy(mode(fun)(backend.array(c)))


def test_against_finite_differences(backend: Backend) -> None:
    differences = jacobian(lambda c: backend.numpy(solve(backend, backend.array(c)).x), C)
    for mode in (reverse, forward):
        derivative = mode(backend, lambda c: solve(backend, c).x, C)
        np.testing.assert_allclose(derivative, differences, rtol=1e-7, atol=1e-8)
    differences = jacobian(lambda c: backend.numpy(solve(backend, backend.array(c)).value), C)
    np.testing.assert_allclose(
        backend.numpy(backend.grad(lambda c: solve(backend, c).value)(backend.array(C))), differences, rtol=1e-7
    )


def test_against_differentiated_iterations(backend: Backend) -> None:
    """First and second derivatives of Newton's iterations with dense Hessians, all of them differentiated; each one
    doubles the digits of value and derivatives alike, so four are enough from two digits."""
    fun, weights = FUN[backend.name], backend.array(np.array([1.0, -2.0, 0.5, 3.0]))

    def unrolled(c: Any) -> Any:
        x = near
        for _ in range(4):
            x = x - backend.xp.linalg.solve(backend.dense_hessian(fun)(x, c), backend.grad(fun)(x, c))
        return weights @ x**2

    def implicit(c: Any) -> Any:
        return weights @ solve(backend, c).x ** 2

    c = backend.array(C)
    near = backend.array(np.round(backend.numpy(solve(backend, c).x), 2))
    for derivative in (backend.grad, lambda f: backend.grad(lambda c: weights @ backend.grad(f)(c))):
        expected, got = (backend.numpy(backend.jit(derivative(f))(c)) for f in (unrolled, implicit))
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


def test_autograd() -> None:
    """torch's own machinery, beside torch.func: backward, twice; only to what is in args."""
    backend = BACKENDS["torch"]
    c = backend.array(C).requires_grad_()
    x0 = backend.array(np.zeros(N)).requires_grad_()
    result = backend.package.newton(FUN["torch"], x0, 1, args=(c,), tol=1e-13)
    assert not result.grad_norm.requires_grad
    (first,) = torch.autograd.grad(result.x.sum() + result.value, c, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), c)
    composed = torch.func.grad(lambda c: solve(backend, c).x.sum() + solve(backend, c).value)
    np.testing.assert_allclose(first.detach(), composed(c.detach()), rtol=1e-12)
    np.testing.assert_allclose(second, torch.func.grad(lambda c: composed(c).sum())(c.detach()), rtol=1e-10)
    assert x0.grad is None
    closed = backend.package.newton(lambda x: FUN["torch"](x, c), x0, 1)
    assert not closed.x.requires_grad  # what a function closes over is a constant


def test_closures_and_starts() -> None:
    """JAX sees what a function closes over; nothing flows to the start."""
    backend, c = BACKENDS["jax"], jnp.asarray(C)

    def closed(c: Any, x0: Any) -> Any:
        return backend.package.newton(lambda x: FUN["jax"](x, c), x0, 1, tol=1e-13).x.sum()

    got, zero = jax.grad(closed, (0, 1))(c, jnp.zeros(N))
    np.testing.assert_allclose(got, jax.grad(lambda c: solve(backend, c).x.sum())(c), rtol=1e-12)
    np.testing.assert_array_equal(zero, np.zeros(N))


def test_vmap_of_grad(backend: Backend) -> None:
    def gradient(c: Any) -> Any:
        return backend.grad(lambda c: solve(backend, c).x.sum())(c)

    cs = np.stack([C, -C, 2 * C])
    batch = backend.numpy(backend.jit(backend.vmap(gradient))(backend.array(cs)))
    alone = [backend.numpy(backend.jit(gradient)(backend.array(c))) for c in cs]
    np.testing.assert_allclose(batch, alone, rtol=1e-10)


def test_gauss_newton_has_exact_derivatives(backend: Backend) -> None:
    """J^T J leads to the minimiser; its derivative needs H, which differs where residuals remain."""
    xp = backend.xp

    def residuals(x: Any, c: Any) -> Any:
        return xp.concatenate([x**2 - c, x[1:] + x[:-1]])

    def minimiser(c: Any) -> Any:
        x0 = backend.array(np.ones(N))
        return backend.package.newton(residuals, x0, 1, args=(c,), tol=1e-13, hessian="gauss_newton").x

    c = np.array([1.0, 2.0, 1.5, 3.0])
    derivative = reverse(backend, minimiser, c)
    differences = jacobian(lambda c: backend.numpy(minimiser(backend.array(c))), c)
    np.testing.assert_allclose(derivative, differences, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["not converged", "singular"])
def test_no_derivative(backend: Backend, case: str) -> None:
    """NaN, where there is no solution to differentiate, or none that stands alone."""

    def chain(x: Any, c: Any) -> Any:  # may be moved as a whole
        return backend.xp.sum((x[1:] - x[:-1] - c[1:] * c[:-1]) ** 2)

    def value(c: Any) -> Any:
        if case == "singular":
            return backend.package.newton(chain, backend.array(np.zeros(N)), 1, args=(c,)).x[0]
        return solve(backend, c, max_steps=1).x[0]

    c = backend.array(C)
    assert np.isfinite(float(value(c)))
    assert np.isnan(backend.numpy(backend.grad(value)(c))).all()
    _, tangent = backend.jvp(value, (c,), (c,))
    assert np.isnan(float(tangent))


def test_the_value_beside_an_x_that_moves_freely(backend: Backend) -> None:
    """In one reverse pass over both, too: the minimum has its derivative, df/dc, where H is singular and x has none."""
    jacobian = jax.jacrev if backend.name == "jax" else torch.func.jacrev

    def fun(x: Any, c: Any) -> Any:
        return ((x[1:] - x[:-1] - c[1:] * c[:-1]) ** 2).sum() + c @ c

    def both(c: Any) -> Any:
        end = backend.package.newton(fun, backend.array(np.zeros(N)), 1, args=(c,))
        return end.value, end.x

    value, x = jacobian(both)(backend.array(C))
    np.testing.assert_allclose(backend.numpy(value), 2 * C, atol=1e-7)
    assert np.isnan(backend.numpy(x)).all()
