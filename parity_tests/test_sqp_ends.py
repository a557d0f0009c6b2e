"""How SQP ends: honestly, and CONVERGED only at an optimum."""

import functools
from typing import Any

import numpy as np
import pytest
from backends import BACKENDS, Backend
from sqp_cases import ENDS, HERE, TOL, YARD, in_yard
from trajectories import yard_inequalities


@pytest.mark.parametrize("end", ENDS)
def test_ends(backend: Backend, end: str) -> None:
    c, status = ENDS[end]
    x = np.zeros(6) if end == "coupling that shows later" else HERE
    result = in_yard(backend, c, x)
    assert result.status == backend.package.Status[status]
    assert isinstance(result.status, backend.package.Status)
    assert type(result.steps) is int
    if "start" in end or "outside" in end:
        assert result.steps == 0
    else:
        assert np.isfinite(backend.numpy(result.x)).all()
    if status == "INFEASIBLE":
        assert float(result.constraint_norm) > 0.1
    if status in ("CONVERGED", "RANK_DEFICIENT"):
        assert float(result.constraint_norm) <= 1e-9
    assert result.steps <= 200


@functools.cache
def lagrangian_derivatives(name: str) -> Any:
    """Gradient and dense Hessian of L, by the framework's own derivatives."""
    backend, (cost, constraints) = BACKENDS[name], YARD[name]

    def lagrangian(x: Any, c: Any, y: Any, z: Any) -> Any:
        parts = constraints(x, c)
        weighted = y["fourth"] * parts["fourth"] + backend.xp.sum(y["pairs"] * parts["pairs"])
        return cost(x, c) + weighted - backend.xp.sum(z * yard_inequalities(x, c))

    return backend.jit(lambda *args: (backend.grad(lagrangian)(*args), backend.dense_hessian(lagrangian)(*args)))


@pytest.mark.parametrize("end", [end for end, (_, status) in ENDS.items() if status == "CONVERGED"])
def test_converged_means_optimal(backend: Backend, end: str) -> None:
    """The first-order conditions, and the second-order ones, dense."""
    c, _ = ENDS[end]
    result = in_yard(backend, c)
    x, z = backend.numpy(result.x), backend.numpy(result.inequality_multipliers)
    gradient, H = map(
        backend.numpy,
        lagrangian_derivatives(backend.name)(
            result.x, backend.array(c.array()), result.multipliers, result.inequality_multipliers
        ),
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    np.testing.assert_allclose(np.abs(gradient).max(), float(result.grad_norm), rtol=1e-3, atol=1e-14)
    slack = c.cap - c.squeeze * x
    assert (z >= 0).all()
    assert (slack >= -1e-9).all()
    assert (z * slack).max() <= 1e-7
    assert ("capped" in end) == (z.max() > 1e-3)

    a, b = x[0::2], x[1::2]
    J = np.zeros((4, 6))
    for i in range(3):
        J[i, 2 * i : 2 * i + 2] = c.link + c.product * b[i], c.link + c.product * a[i]
    J[3, :2] = 1, -2
    tight = np.vstack([J, np.eye(6)[slack < 1e-6]])
    _, sizes, V = np.linalg.svd(tight)
    null = V[(sizes > 1e-10).sum() :].T
    assert (np.linalg.eigvalsh(null.T @ H @ null) >= -TOL).all()


def test_max_steps_and_tolerance(backend: Backend) -> None:
    result = in_yard(backend, ENDS["curved"][0], max_steps=2, tol=1e-2)
    assert (result.status, result.steps) == (backend.package.Status.MAX_STEPS, 2)
    loose = in_yard(backend, ENDS["capped and curved"][0], tol=1e-2)
    assert loose.status == backend.package.Status.CONVERGED
    assert loose.steps < in_yard(backend, ENDS["capped and curved"][0]).steps
