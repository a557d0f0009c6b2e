"""Standard problems of optimal control: each at its optimum, from its start, in about as many steps as IPOPT takes, and
from its own end in one step at most."""

import numpy as np
import pytest
from backends import Backend
from control_problems import PROBLEMS


@pytest.mark.parametrize("name", PROBLEMS)
def test_standard_problems(backend: Backend, name: str) -> None:
    p = PROBLEMS[name](backend.xp, backend.array)
    bounds = tuple(backend.array(np.broadcast_to(np.asarray(b, float), p.start.shape)) for b in (p.lower, p.upper))
    operands = p.cost, p.constraints, backend.array(p.start), p.bandwidth
    result = backend.package.sqp(*operands, inequalities=p.inequalities, bounds=bounds)
    assert result.status == backend.package.Status.CONVERGED
    np.testing.assert_allclose(float(result.value), p.optimum, rtol=1e-6)
    assert float(result.constraint_norm) < 1e-8
    assert result.steps <= max(1.5 * p.ipopt, 3)
    again = backend.package.sqp(*operands, inequalities=p.inequalities, bounds=bounds, start=result)
    assert again.status == backend.package.Status.CONVERGED
    assert again.steps <= 1
