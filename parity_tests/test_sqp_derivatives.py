"""How SQP's solution depends on the arguments."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import BACKENDS, Backend
from sqp_cases import ENDS, HERE, YARD, in_yard
from trajectories import yard_inequalities

WEIGHTS = np.array([1.0, -2, 3, 0.5, -1, 2])


@functools.cache
def outcome(name: str) -> Any:
    """weights . x + scale |multipliers of the pairs|^2, as a function of (coefficients, weights, scale)."""
    backend = BACKENDS[name]

    def of(c: Any, weights: Any, scale: Any) -> Any:
        start = backend.array(HERE)
        result = backend.package.sqp(*YARD[name], start, 1, args=(c,), inequalities=yard_inequalities)
        return backend.xp.sum(weights * result.x) + scale * backend.xp.sum(result.multipliers["pairs"] ** 2)

    return of


GRADIENTS: dict = {}  # jitted gradients, one per function


def gradient(backend: Backend, fun: Any, c: np.ndarray, *rest: Any) -> np.ndarray:
    rest = tuple(map(backend.array, rest))
    if backend.name == "jax":
        return np.asarray(GRADIENTS.setdefault(fun, jax.jit(jax.grad(fun)))(jnp.asarray(c), *rest))
    argument = backend.array(c).requires_grad_()
    return backend.numpy(torch.autograd.grad(fun(argument, *rest), argument)[0])


def unrolled(backend: Backend, c: Any, x: Any, y: Any) -> Any:
    """x by five Newton steps on the dense KKT system without inequalities, to be differentiated through."""
    xp, (cost, constraints) = backend.xp, YARD[backend.name]
    jacobian = jax.jacfwd if backend.name == "jax" else torch.func.jacrev
    slope = jax.grad if backend.name == "jax" else torch.func.grad

    def conditions(v: Any) -> Any:
        def flat(x: Any) -> Any:
            parts = constraints(x, c)
            return xp.concatenate([parts["fourth"].reshape(1), parts["pairs"]])

        force = slope(lambda x: cost(x, c) + xp.sum(v[6:] * flat(x)))(v[:6])
        return xp.concatenate([force, flat(v[:6])])

    v = xp.concatenate([x, y["fourth"].reshape(1), y["pairs"]])
    for _ in range(5):
        v = v - xp.linalg.solve(jacobian(conditions)(v), conditions(v))
    return v


def test_derivative_of_the_solution(backend: Backend) -> None:
    """With respect to every coefficient: against central differences and against unrolled Newton steps."""
    c = ENDS["curved"][0].array()
    by_sqp, solution = outcome(backend.name), in_yard(backend, ENDS["curved"][0])

    def by_unrolling(c: Any, weights: Any, scale: Any) -> Any:
        v = unrolled(backend, c, solution.x, solution.multipliers)
        return backend.xp.sum(weights * v[:6]) + scale * backend.xp.sum(v[7:] ** 2)

    found = gradient(backend, by_sqp, c, WEIGHTS, 1.0)
    expected = gradient(backend, by_unrolling, c, WEIGHTS, 1.0)
    keep = [0, 1, 2, 3, 6, 7, 8, 10]  # far, sheer, again, stretch, cap and squeeze are switches, or not felt
    np.testing.assert_allclose(found[keep], expected[keep], rtol=1e-5, atol=1e-6)
    assert np.abs(found[keep]).min() > 1e-3
    for i in keep:
        step = np.zeros_like(c)
        step[i] = 1e-4
        ahead, behind = (float(by_sqp(backend.array(c + s), backend.array(WEIGHTS), 1.0)) for s in (step, -step))
        np.testing.assert_allclose(found[i], (ahead - behind) / 2e-4, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("end", ["curved", "capped and curved"])
def test_second_derivative_of_the_solution(backend: Backend, end: str) -> None:
    """The gradient's derivative along one direction, against its central difference."""
    c, fun = ENDS[end][0].array(), outcome(backend.name)
    direction = np.zeros_like(c)
    direction[[0, 1, 2, 3, 6, 7, 8, 10]] = 1, -2, 0.5, 1, 0.3, -1, 2, 0.7
    if backend.name == "jax":
        found = directional(backend.array(c), backend.array(direction), backend.array(WEIGHTS), 1.0)
    else:
        argument = backend.array(c).requires_grad_()
        (first,) = torch.autograd.grad(fun(argument, backend.array(WEIGHTS), 1.0), argument, create_graph=True)
        (found,) = torch.autograd.grad(first @ backend.array(direction), argument)
    ahead, behind = (gradient(backend, fun, c + s * direction, WEIGHTS, 1.0) for s in (1e-4, -1e-4))
    expected = (ahead - behind) / 2e-4
    keep = np.flatnonzero(direction)
    assert np.abs(expected[keep]).max() > 0.1
    np.testing.assert_allclose(backend.numpy(found)[keep], expected[keep], rtol=1e-3, atol=1e-4)


@jax.jit
def directional(c: Any, direction: Any, *rest: Any) -> Any:
    return jax.jvp(lambda c: jax.grad(outcome("jax"))(c, *rest), (c,), (direction,))[1]


def test_derivative_under_an_active_cap(backend: Backend) -> None:
    """Entries at the cap follow it one to one; NaN where there is no solution to differentiate."""
    c = ENDS["capped and curved"][0]
    assert float(in_yard(backend, c).x[5]) > c.cap - 1e-6
    last = np.eye(6)[5]
    found = gradient(backend, outcome(backend.name), c.array(), last, 0.0)
    np.testing.assert_allclose(found[12], 1, atol=1e-4)
    np.testing.assert_allclose(found[:12], 0, atol=1e-4)
    assert np.isnan(gradient(backend, outcome(backend.name), ENDS["contradiction"][0].array(), last, 0.0)).any()
