"""Multipliers that lag behind feasible points are estimated anew; what CONVERGED says does not hang on their mean."""

from __future__ import annotations

from typing import Any

import interior_driver
import numpy as np
import pytest
from backends import Backend
from interior_functions import Trajectory, squared
from interior_quadratics import run

from bandhess_common.interior_point.constants import Constants
from bandhess_common.status import Status

c = Constants()
LINEARISE = 2  # of kernels/interior/state.h
compiled = pytest.mark.usefixtures("compiled_kernels")
SOLVED = ("CONVERGED", "PRECISION_FLOOR", "RANK_DEFICIENT")


class Visits(interior_driver.Engine):
    """Notes of every visit of a point, with derivatives, what the rule asks for, whether multipliers were exchanged
    there, and what they and the least squares are then."""

    visits: list[dict[str, Any]]

    def begin(self, f: float, h: Any, gradient: Any, rows: Any, W: Any, narrow: float = 0.0) -> None:
        visit = int(self.register("stage")) == LINEARISE
        stepped = visit and self.register("pending") == 1
        alpha, alpha_z, enough = self.register("alpha"), self.register("alpha_z"), c.mu_error * self.register("barrier")
        y = self.vector("y") + (alpha * self.vector("dy") if stepped else 0)
        super().begin(f, h, gradient, rows, W, narrow)
        if not visit:
            self.visits.append({"estimated": True})
            return
        total = np.asarray(gradient) - self.vector("z_lower") + self.vector("z_upper")
        J = self.vector("h_scale")[:, None] * np.asarray(rows)  # of `dense`: windows hold all columns
        best = np.linalg.lstsq(J.T, J.T @ y - total, rcond=1e-13)[0]
        dual = np.abs(total).max()
        far = dual / self.register("mean_d") > enough >= np.abs(self.vector("r_rows")).max()
        self.visits.append({
            "estimated": False, "lagged": self.register("fresh_y") > 0, "found": self.vector("y"), "best": best,
            "whole": stepped and alpha == 1 and alpha_z == 1, "far": far, "top": np.abs(y).max(), "dual": dual,
            "first": self.register("steps") == 0,
        })  # fmt: skip


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    Visits.visits = []
    monkeypatch.setattr(interior_driver, "Engine", Visits)
    return Visits.visits


def plain() -> Trajectory:
    """min x0 + (x1 - 1)^2 with (x0 - 1)^2 = 0 beside x0 + x1 + x2 = 3 x2^2: no multiplier of the first is the last."""
    return squared([0.3, 0.5, 0.4])


@compiled
def test_the_rule(visits: list[dict[str, Any]]) -> None:
    end = interior_driver.solve(plain().dense())
    assert end.status.name in SOLVED
    assert any(v.get("lagged") for v in visits)
    fresh, last = False, (np.inf, np.inf)
    for v in visits:
        if v["estimated"]:
            last = np.inf, np.inf
        elif fresh:
            assert not v["lagged"]
            fresh = False
        else:
            stays = v["dual"] > c.lag * last[0] and v["top"] > c.lag_growth * last[1] and v["top"] > c.lag_multiplier
            fresh = v["whole"] and v["far"] and stays and not v["first"]
            assert v["lagged"] == fresh
            if fresh:
                np.testing.assert_allclose(v["found"], v["best"], atol=1e-4 * np.abs(v["best"]).max())
            last = np.inf if v["first"] else v["dual"], v["top"]


@compiled
def test_the_engines_agree() -> None:
    """The optimum is x0 = x1 = 1, x2 the root of 3 x2^2 - x2 - 2: f = 1. Without the rule both take twice the steps."""
    p = plain()
    end, other = interior_driver.solve(p.dense()), run("numpy", p, tol=1e-8)
    assert end.status.name in SOLVED
    assert Status(int(other.status)).name in SOLVED
    assert abs(end.steps - int(other.steps)) <= 3
    assert end.steps <= 25
    assert end.registers["value"] == pytest.approx(1, rel=1e-6)
    assert float(other.report.value) == pytest.approx(1, rel=1e-6)


N = 20


def integrator(also: str) -> tuple:
    """A double integrator, least effort, its first row also squared or multiplied: (cost, constraints)."""
    h = 1 / N

    def constraints(z: Any) -> Any:
        x, v, u = z[:, 0], z[:, 1], z[:, 2]
        rows = [x[1:] - x[:-1] - h / 2 * (v[1:] + v[:-1]), v[1:] - v[:-1] - h * u[:-1], x[:1], v[:1] - 1]
        more = {"squared": (v[:1] - 1) ** 2, "product": x[:1] * (v[:1] - 1), "energy": x[:1] ** 2 + (v[:1] - 1) ** 2}
        return [*rows, more[also]] if also else rows

    return lambda z: h * ((z[:, 0] - 0.3) ** 2).sum() + h * 0.1 * (z[:, 2] ** 2).sum(), constraints


@pytest.mark.parametrize("also", ["squared", "product", "energy"])
def test_rows_whose_gradient_vanishes_are_not_in_the_way(backend: Backend, also: str) -> None:
    """Multipliers that ran to 1e9 and more made the test of the gradient, which is relative to their mean, an empty
    one: CONVERGED at .0797473 and .080524 where the optimum, without these rows, is .0797380."""
    bounds = (backend.array([-np.inf, -np.inf, -2.0]), backend.array([np.inf, np.inf, 2.0]))
    start = backend.array(np.zeros((N + 1, 3)))
    goal = backend.package.sqp(*integrator(""), start, 1, bounds=bounds)
    assert goal.status.name == "CONVERGED"
    end = backend.package.sqp(*integrator(also), start, 1, bounds=bounds)
    assert end.status.name in SOLVED
    assert float(end.value) == pytest.approx(float(goal.value), rel=1e-6)
    assert float(end.grad_norm) < 1e-5


@pytest.mark.parametrize("large", [1e6, 1e8, 1e10])
def test_a_bound_that_stands_for_none_is_no_size(backend: Backend, large: float) -> None:
    """The start was pushed to a hundredth of the bound, and f's size there hid what was left of it: 13.29 for 12.5."""
    bounds = (backend.array([0.0, -np.inf]), backend.array([large, np.inf]))
    cost, row = lambda x: ((x - 3) ** 2).sum(), lambda x: x[:1] + x[1:] - 1
    end = backend.package.sqp(cost, row, backend.array([0.0, 0.0]), 1, bounds=bounds)
    assert end.status.name == "CONVERGED"
    assert float(end.value) == pytest.approx(12.5, rel=1e-8)


@pytest.mark.parametrize("start", [100.0, 300.0])
def test_scales_have_a_floor(backend: Backend, start: float) -> None:
    """exp(x0) = 1000 from where its gradient is 1e43 or 1e130: scaled by that, the row is met anywhere, and f alone
    decided. IPOPT takes 97 and 297 steps, one for each unit of x0."""
    cost = lambda x: (x**2).sum()  # noqa: E731
    row = lambda x: backend.xp.exp(x[:1]) - 1000  # noqa: E731
    end = backend.package.sqp(cost, row, backend.array([start, 1.0]), 1, max_steps=500)
    assert end.status.name in SOLVED
    np.testing.assert_allclose(backend.numpy(end.x), [np.log(1000), 0], atol=1e-7)
