"""Noise that leaves symmetric saddles does not turn a step uphill: multipliers far from right make it large."""

from __future__ import annotations

import pytest
import torch

import bandhess_torch
from bandhess_torch import Status

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.mark.parametrize("eps", [1e-1, 1e-2])
def test_a_fed_batch_reactor(eps: float) -> None:
    """Biomass, substrate, volume and feed a stage, by the trapezoidal rule; uptake that ends within eps of no substrate
    bends the dynamics, so that shifts stand in most steps. IPOPT 3.14 takes 65 and 58 to -346.485 and -360.578."""
    T, h = 61, 1.0

    def rates(z: torch.Tensor) -> torch.Tensor:
        x, s, v, feed = z.T
        growth = 0.11 * s * x / (0.006 * x + s)
        uptake = growth / 0.47 + 0.029 * x * s / (eps + s)
        return torch.stack([growth - feed * x / (500 * v), feed / v * (1 - s / 500) - uptake, feed / 500], 1)

    def constraints(z: torch.Tensor) -> tuple:
        rate = rates(z)
        return z[1:, :3] - z[:-1, :3] - h / 2 * (rate[1:] + rate[:-1]), z[0, :3] - z.new_tensor([1.5, 0.5, 7.0])

    start = torch.tensor([10.0, 1.0, 8.0, 5.0], dtype=torch.float64).repeat(T, 1)
    low = torch.tensor([1e-3, 0.0, 0.0, 0.0], dtype=torch.float64).expand(T, 4)
    high = torch.tensor([40.0, 25.0, 10.0, 50.0], dtype=torch.float64).expand(T, 4)
    end = bandhess_torch.sqp(lambda z: -z[-1, 0] * z[-1, 2], constraints, start, 7, bounds=(low, high), max_steps=300)
    assert end.status == Status.CONVERGED
    assert float(end.value) == pytest.approx({1e-1: -346.46, 1e-2: -360.578}[eps], abs=0.4)
