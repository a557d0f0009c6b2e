"""PyTorch's `sqp` by either engine: the compiled one, and the portable one in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends import BACKENDS
from sqp_cases import ENDS, HERE, in_yard

from bandhess_torch.optimise.sqp import engine

BACKEND = BACKENDS["torch"]


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "served", lambda dtype: False)


@pytest.mark.parametrize("end", ENDS)
def test_engines_end_alike(end: str, request: pytest.FixtureRequest) -> None:
    c, status = ENDS[end]
    x = np.zeros(6) if end == "coupling that shows later" else HERE
    compiled = in_yard(BACKEND, c, x, history=True)
    request.getfixturevalue("portable")
    found = in_yard(BACKEND, c, x, history=True)
    assert found.status == compiled.status == BACKEND.package.Status[status]
    assert found.message == compiled.message
    if status != "CONVERGED":
        return
    assert found.steps == compiled.steps
    for one, other in zip(found.history, compiled.history, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.x, compiled.x, rtol=1e-6, atol=1e-7)
    for one, other in zip(BACKEND.leaves(found.multipliers), BACKEND.leaves(compiled.multipliers), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("portable")
def test_portable_starts_from_a_result() -> None:
    c = ENDS["capped and curved"][0]
    cold = in_yard(BACKEND, c)
    assert cold.steps > 1 >= in_yard(BACKEND, c, start=cold).steps


@pytest.mark.parametrize("by", ["compiled", "portable"])
def test_functions_are_called_once_a_trial(by: str, request: pytest.FixtureRequest) -> None:
    """What a step's derivatives need has been computed by its last trial."""
    if by == "portable":
        request.getfixturevalue("portable")
    calls: list = []

    def cost(x: Any) -> Any:
        calls.append(x)
        return ((x - 3) ** 2).sum() + ((x[1:] - x[:-1]) ** 4).sum()

    x0 = BACKEND.array(np.linspace(0, 1, 8))
    result = BACKEND.package.sqp(cost, lambda x: x[:1] - 1, x0, 1)
    points = {tuple(x.tolist()) for x in calls}
    assert result.status == BACKEND.package.Status.CONVERGED
    assert len(calls) == len(points) == result.steps + 2
