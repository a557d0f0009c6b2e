"""The standard problems in other units: steps change by little, the answer not at all."""

from typing import Any

import numpy as np
import pytest
from backends import Backend
from control_problems import PROBLEMS, Control

SCALES = (1e-4, 1e4)


def solve(backend: Backend, p: Control, x: float = 1, c: float = 1, g: float = 1, f: float = 1) -> Any:
    """In the variables x / `x`, with equalities times `c`, inequalities times `g` and the objective times `f`. Scales
    are operands: one program serves them all."""

    def cost(z: Any, x: Any, c: Any, g: Any, f: Any) -> Any:
        return f * p.cost(x * z)

    def constraints(z: Any, x: Any, c: Any, g: Any, f: Any) -> list:
        return [c * part for part in (p.constraints or (lambda z: []))(x * z)]

    def inequalities(z: Any, x: Any, c: Any, g: Any, f: Any) -> list:
        return [g * part for part in (p.inequalities or (lambda z: []))(x * z)]

    bounds = tuple(backend.array(np.broadcast_to(np.asarray(b, float), p.start.shape) / x) for b in (p.lower, p.upper))
    scales = tuple(backend.array(float(a)) for a in (x, c, g, f))
    return backend.package.sqp(
        cost, constraints, backend.array(p.start / x), p.bandwidth, args=scales,
        inequalities=inequalities, bounds=bounds,
    )  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_answers_do_not_depend_on_units(backend: Backend, name: str) -> None:
    """Rows and objectives are scaled by their own sizes, so that units of all of them leave nothing but rounding;
    the variables' units are estimates, with which steps may be twice as many, or fewer."""
    p = PROBLEMS[name](backend.xp, backend.array)
    converged, plain = backend.package.Status.CONVERGED, solve(backend, p)
    assert plain.status == converged
    for scale in SCALES:
        for kind in "cgfx":
            scaled = solve(backend, p, **{kind: scale})
            assert scaled.status == converged
            np.testing.assert_allclose(float(scaled.value), p.optimum * (scale if kind == "f" else 1), rtol=1e-6)
            if kind == "x":
                assert scaled.steps <= 2 * plain.steps
            else:
                assert abs(scaled.steps - plain.steps) <= 2
