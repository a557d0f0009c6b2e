"""Multipliers that have run off are estimated anew; corrections of second order go on while each halves theta."""

from __future__ import annotations

from typing import Any

import interior_driver
import numpy as np
import pytest
import torch
from interior_functions import brachistochrone, disc_and_wave, links, ridden
from interior_quadratics import run

import bandhess_torch
from bandhess_common.interior_point.constants import Constants
from bandhess_common.status import Status

c = Constants()
ESTIMATE, CORRECT = 1, 4  # of kernels/interior/state.h
compiled = pytest.mark.usefixtures("compiled_kernels")


class Steps(interior_driver.Engine):
    """Notes, of every step that was accepted outside restoration, alpha, the largest multiplier it leads to, and
    whether these are estimated there; what such an estimate is and what it is to be; the thetas of trials."""

    steps: list[tuple[str, float, float, float, bool]]
    estimates: list[tuple[np.ndarray, np.ndarray]]
    trials: list[tuple[bool, float, bool]]

    def begin(self, f: float, h: Any, gradient: Any, rows: Any, W: Any, narrow: float = 0.0) -> None:
        stepped = self.register("pending") == 1 and not self.register("elastic")
        leaving = self.register("pending") == 1 and self.register("leaving") > 0
        estimate = int(self.register("stage")) == ESTIMATE
        if stepped:
            alpha = self.register("alpha")
            top = np.abs(self.vector("y") + alpha * self.vector("dy")).max()
            self.steps.append(("step", alpha, top, self.register("delta"), estimate))
        super().begin(f, h, gradient, rows, W, narrow)
        if leaving:
            self.steps.append(("restored", 0.0, 0.0, 0.0, False))
        if stepped and estimate:
            self.estimates.append((self.vector("y"), self.least_squares(gradient, rows)))

    def least_squares(self, gradient: Any, rows: Any) -> np.ndarray:
        """y of the least |grad f + J^T y - z_lower + z_upper|^2 + |y + z|^2 (z of inequalities), scaled; 0 if large."""
        m, scale = self.m, self.vector("h_scale")
        J = np.zeros((len(scale), self.layout.n))
        for i, (a, at) in enumerate(zip(rows, self.first, strict=True)):
            J[i, at : at + len(a)] = a * scale[i]
        inequality = np.arange(len(scale)) >= m
        left = np.vstack([J.T, np.diag(inequality.astype(float))[inequality]])
        force = self.register("f_scale") / self.register("sigma") * np.asarray(gradient)
        right = np.concatenate([self.vector("z_lower") - self.vector("z_upper") - force, -self.vector("z_rows")[m:]])
        y = np.linalg.lstsq(left, right, rcond=1e-12)[0]
        return y if np.abs(y).max() <= c.multiplier_most else 0 * y

    def trial(self, f: float, h: Any) -> None:
        correction = int(self.register("stage")) == CORRECT
        at = self.register("correction_alpha" if correction else "alpha")
        theta = self.theta(np.asarray(h), "cd_rows" if correction else "dd_rows", at)
        super().trial(f, h)
        again = int(self.register("stage")) == CORRECT and self.register("request") == interior_driver.VALUES
        self.trials.append((correction, theta, again))

    def theta(self, h: np.ndarray, step: str, alpha: float) -> float:
        """Of rows alone: there are no bounds in `ridden`."""
        relax = min(c.relax, c.relax_factor * self.register("barrier"))
        left = self.vector("h_scale") * h
        left[self.m :] += relax - (self.vector("d_rows") + alpha * self.vector(step))[self.m :]
        return np.abs(left).sum()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Steps]:
    Steps.steps, Steps.estimates, Steps.trials = [], [], []
    monkeypatch.setattr(interior_driver, "Engine", Steps)
    return Steps


@compiled
def test_the_rule_of_renewal(engine: type[Steps]) -> None:
    end = interior_driver.solve(brachistochrone(20).dense())
    assert end.status is Status.CONVERGED
    row, renewed, seen = 0, False, 0
    for kind, alpha, top, shift, estimate in engine.steps:
        if kind == "restored":
            row, renewed = 0, False
            continue
        row = row + 1 if alpha < c.short_step else 0
        expected = row >= c.short_steps and top > c.multiplier_most and not renewed
        expected |= shift > 0 and top > c.multiplier_far and not renewed
        assert estimate == expected
        renewed, seen = renewed or estimate, seen + estimate
    assert seen > 0
    assert len(engine.estimates) == seen
    for found, expected in engine.estimates:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))


@compiled
def test_the_rule_of_corrections(engine: type[Steps]) -> None:
    end = interior_driver.solve(ridden(25).dense(), max_steps=100)
    assert end.status is Status.CONVERGED
    other = run("numpy", ridden(25), tol=1e-8, max_steps=100)
    assert Status(int(other.status)) is Status.CONVERGED
    assert abs(end.steps - int(other.steps)) <= 3
    count, last, longest = 0, np.inf, 0
    for correction, theta, again in engine.trials:
        count = count + 1 if correction else 0
        if correction and again:
            assert theta <= c.correction_fall * last * (1 + 1e-9)
            assert count < c.corrections
        last, longest = theta, max(longest, count)
    assert longest > 1


@compiled
def test_from_rest_under_a_wall() -> None:
    """IPOPT 3.14 ends there in 21 steps; without renewal STALLED at 1.09."""
    p = brachistochrone(40)
    end, other = interior_driver.solve(p.dense(), max_steps=60), run("numpy", p, tol=1e-8, max_steps=60)
    assert end.status is Status(int(other.status)) is Status.CONVERGED
    assert end.registers["value"] == pytest.approx(0.82806376, rel=1e-6)
    assert float(other.report.value) == pytest.approx(0.82806376, rel=1e-6)
    assert abs(end.steps - int(other.steps)) <= 3


@compiled
def test_a_catenary_of_links() -> None:
    """IPOPT 3.14 takes 68 steps. Multipliers run off at the start."""
    p = links(30)
    end, other = interior_driver.solve(p.dense(), max_steps=200), run("numpy", p, tol=1e-8, max_steps=200)
    assert end.status is Status(int(other.status)) is Status.CONVERGED
    assert end.registers["value"] == pytest.approx(-23.830986, rel=1e-7)
    assert float(other.report.value) == pytest.approx(-23.830986, rel=1e-7)
    assert end.steps <= 1.5 * 68


@compiled
def test_before_it_stalls() -> None:
    """Without the renewal there is no step beside the solution, where a row's gradient vanishes."""
    p = disc_and_wave()
    end, other = interior_driver.solve(p.dense(), max_steps=200), run("numpy", p, tol=1e-8, max_steps=200)
    assert end.registers["last_renewals"] > 0
    for status, value in ((end.status, end.registers["value"]), (Status(int(other.status)), float(other.report.value))):
        assert status.name in ("CONVERGED", "RANK_DEFICIENT")
        assert value == pytest.approx(0.0093866866, rel=1e-6)


@compiled
def test_above_peaks() -> None:
    """IPOPT 3.14 takes 65 steps; with corrections only while theta is below what it was where the step began, more than
    500."""
    p = ridden(80)
    rows = [lambda z, i=i: p.rows(z)[i] for i in range(2)]
    end = bandhess_torch.sqp(p.f, rows[0], torch.tensor(p.start), p.w, inequalities=rows[1], max_steps=90)
    assert end.status is Status.CONVERGED
    assert float(end.value) == pytest.approx(2061.16, rel=1e-5)
