"""SQP: reference trajectories, bounds and inequalities, closed forms."""

import functools
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, Backend
from sqp_cases import ENDS, EPS, HERE, NONE, YARD, in_yard, largest
from trajectories import (
    CART_OPTIMA,
    PENDULUM_OPTIMA,
    Yard,
    cart_cost,
    cart_dynamics,
    cart_start,
    pendulum_cost,
    pendulum_dynamics,
    pendulum_start,
    shortest_time,
    shortest_time_start,
    yard_inequalities,
)

# One function object per backend and problem, so that every test with it runs the program compiled first.
PENDULUM = {name: (pendulum_cost(b.xp), pendulum_dynamics(b.xp)) for name, b in BACKENDS.items()}
CART = {name: (cart_cost(b.xp), cart_dynamics(b.xp)) for name, b in BACKENDS.items()}


# Optima with bounds: IPOPT 3.14 through CasADi, tol = 1e-12, no relaxation of the bounds, from the same starts.
TRAJECTORIES = {
    "C1 100": ("pendulum", 100, (NONE, NONE, NONE), PENDULUM_OPTIMA[100]),
    "C1 300": ("pendulum", 300, None, PENDULUM_OPTIMA[300]),
    "C1 1000": ("pendulum", 1000, None, PENDULUM_OPTIMA[1000]),
    "C1 100, |u| <= 5": ("pendulum", 100, (5, NONE, NONE), 18.106338248990),
    "C2 100": ("cart", 100, (NONE, NONE, NONE, NONE, NONE), CART_OPTIMA[100]),
    "C2 1000": ("cart", 1000, None, CART_OPTIMA[1000]),
    "C2 100, |u| <= 20, |q1| <= 1.5": ("cart", 100, (1.5, NONE, NONE, NONE, 20), 58.896710155904),
    "C2 100, |u| <= 10": ("cart", 100, (NONE, NONE, NONE, NONE, 10), 62.353049704746),
}


@functools.cache
def solve(case: str, name: str) -> Any:
    kind, size, limits, _ = TRAJECTORIES[case]
    backend = BACKENDS[name]
    funs, start = (PENDULUM, pendulum_start) if kind == "pendulum" else (CART, cart_start)
    limit = None if limits is None else np.array(limits, float)
    bounds = None if limits is None else (backend.array(-limit), backend.array(limit))
    return backend.package.sqp(*funs[name], backend.array(start(size)), 1, bounds=bounds)


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_reference_optimum(backend: Backend, case: str) -> None:
    kind, _, limits, optimum = TRAJECTORIES[case]
    result = solve(case, backend.name)
    assert result.status == backend.package.Status.CONVERGED
    assert result.steps <= 30
    np.testing.assert_allclose(float(result.value), optimum, rtol=3e-8)  # tol is 1.5e-8
    # What is reported is what is there.
    cost, constraints = (PENDULUM if kind == "pendulum" else CART)[backend.name]
    np.testing.assert_allclose(float(cost(result.x)), float(result.value), rtol=8 * EPS)
    violation = largest(backend, constraints(result.x))
    assert violation <= 1e-9
    np.testing.assert_allclose(float(result.constraint_norm), violation, rtol=1e-6, atol=1e-14)
    if limits is None:
        assert result.bound_multipliers is None
    else:
        limit = np.array(limits, float)
        assert (np.abs(backend.numpy(result.x)) <= limit).all()
        for multiplier in map(backend.numpy, result.bound_multipliers):
            assert multiplier.shape == result.x.shape
            assert (multiplier >= 0).all()
            assert (multiplier[:, np.isinf(limit)] == 0).all()


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_backends_take_the_same_steps(case: str) -> None:
    by_jax, by_torch = solve(case, "jax"), solve(case, "torch")
    assert by_jax.steps == by_torch.steps
    np.testing.assert_allclose(float(by_jax.value), float(by_torch.value), rtol=1e-10)
    for part in (0, 1):
        found = BACKENDS["torch"].numpy(by_torch.multipliers[part])
        np.testing.assert_allclose(found, by_jax.multipliers[part], rtol=1e-5, atol=1e-7)


def test_free_final_time(backend: Backend) -> None:
    """A step length per stage, tied to the next: a double integrator's least time, 2 sqrt(distance), bang-bang."""
    T, distance = 20, 4.0
    time, dynamics = shortest_time(backend.xp, distance)
    limit = np.array([NONE, NONE, 1, NONE])
    lower = np.array([-NONE, -NONE, -1, 1e-3])
    result = backend.package.sqp(
        time, dynamics, backend.array(shortest_time_start(T, distance)), 1,
        bounds=(backend.array(lower), backend.array(limit)),
    )  # fmt: skip
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), 2 * distance**0.5, rtol=3e-8)
    u = backend.numpy(result.x)[:, 2]
    np.testing.assert_allclose(u, np.repeat([1.0, -1.0], T // 2), atol=1e-5)


def test_bounds_as_inequalities(backend: Backend) -> None:
    """x <= 0.9 as a bound and as a function: the same optimum and the same multipliers."""
    c = ENDS["capped"][0]
    by_function = in_yard(backend, c)
    args = (backend.array(c.array()),)
    bounded = backend.package.sqp(*YARD[backend.name], backend.array(HERE), 1, args=args, bounds=(None, c.cap))
    assert bounded.status == backend.package.Status.CONVERGED
    assert bounded.inequality_multipliers is by_function.bound_multipliers is None
    np.testing.assert_allclose(float(bounded.value), float(by_function.value), rtol=1e-8)
    expected = backend.numpy(by_function.inequality_multipliers)
    np.testing.assert_allclose(backend.numpy(bounded.bound_multipliers[1]), expected, atol=1e-6)
    np.testing.assert_array_equal(backend.numpy(bounded.bound_multipliers[0]), np.zeros(6))


def test_float32(backend: Backend) -> None:
    c = ENDS["curved"][0]
    result = backend.package.sqp(
        *YARD[backend.name], backend.array(HERE, "float32"), 1, args=(backend.array(c.array(), "float32"),),
        inequalities=yard_inequalities,
    )  # fmt: skip
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    for part in (result.x, result.value, result.grad_norm, result.constraint_norm, *result.multipliers.values()):
        assert part.dtype == backend.dtype("float32")
    np.testing.assert_allclose(float(result.value), float(in_yard(backend, c).value), rtol=1e-4)
    assert float(result.constraint_norm) <= 3e-5


def test_linear_constraints_in_closed_form(backend: Backend) -> None:
    """min |x|^2 / 2 with J x = b: x = J^T (J J^T)^-1 b, in one step."""
    result = in_yard(backend, Yard())
    J = np.zeros((4, 6))
    J[0, :2] = 1, -2
    for i in range(3):
        J[i + 1, 2 * i : 2 * i + 2] = 1
    y = np.linalg.solve(J @ J.T, [0.25, 1, 1, 1])
    np.testing.assert_allclose(backend.numpy(result.x), J.T @ y, atol=1e-7)
    np.testing.assert_allclose(backend.numpy(result.multipliers["pairs"]), -y[1:], atol=1e-7)
    np.testing.assert_allclose(float(result.multipliers["fourth"]), -y[0], atol=1e-7)


def test_fixed_and_one_sided_bounds(backend: Backend) -> None:
    """No constraints: sum (x - 3)^2, entry by entry the nearest allowed value, in a ragged tree."""
    start = {"q": backend.array(np.zeros((3, 2))), "u": backend.array(np.zeros(2))}
    lower = {"q": backend.array([[-NONE, 5], [1, 2], [2, -NONE]]), "u": None}
    upper = {"q": backend.array([[2, NONE], [1, 2], [NONE, NONE]]), "u": 2.5}
    result = backend.package.sqp(
        lambda x: backend.xp.sum((x["q"] - 3) ** 2) + backend.xp.sum((x["u"] - 3) ** 2), None, start, 0,
        bounds=(lower, upper),
    )  # fmt: skip
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(backend.numpy(result.x["q"]), [[2, 5], [1, 2], [3, 3]], atol=1e-4)
    np.testing.assert_array_equal(backend.numpy(result.x["q"])[1], [1, 2])
    np.testing.assert_allclose(backend.numpy(result.x["u"]), [2.5, 2.5], atol=1e-6)
    np.testing.assert_allclose(backend.numpy(result.bound_multipliers[1]["u"]), [1, 1], atol=1e-5)
    assert result.multipliers == ()
